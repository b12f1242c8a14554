"""Opens a release in transformers and its adapter in peft, and compares their logits with ours.

    python tools/oracles/check_adapter.py runs/tiny/release

Runs `cargo run --release -p model --example logits` for our side; exits with 1 where the largest difference exceeds 1e-4 of
the logits' scale.
"""

import json
import pathlib
import random
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def ours(release, tokens, *adapter):
    command = ["cargo", "run", "--quiet", "--release", "-p", "model", "--example", "logits", "--", str(release), ",".join(map(str, tokens))]
    return torch.tensor(json.loads(subprocess.run([*command, *map(str, adapter)], check=True, capture_output=True).stdout))


def compare(what, theirs, found):
    difference = ((theirs - found).abs().max() / theirs.abs().max()).item()
    print(f"{what}: largest difference {difference:.1e} of the logits' scale over {found.shape[0]} tokens")
    return difference <= 1e-4


def main(release):
    model = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(release)
    print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters, {type(tokenizer).__name__} of {len(tokenizer)}")
    random.seed(7)
    tokens = [random.randrange(model.config.vocab_size) for _ in range(300)]
    with torch.no_grad():
        good = compare("transformers", model(torch.tensor([tokens])).logits[0], ours(release, tokens))
        adapter = release / "adapter"
        if adapter.exists():
            from peft import PeftModel

            adapted = PeftModel.from_pretrained(model, adapter).eval()
            good &= compare("peft", adapted(torch.tensor([tokens])).logits[0], ours(release, tokens, adapter))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
