"""Opens a release in transformers and compares it with what eulalia says of the same model.

    python tools/oracles/check_release.py runs/tiny/release target/release/eulalia samples/tiny

Checks: AutoModelForCausalLM and AutoTokenizer load it; token ids are equal on every parallel sentence in all languages;
log probabilities of those sentences agree to 1e-4 (relative to the scale of the logits). Needs the packages of
requirements.txt; eulalia itself needs none of them.
"""

import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    release, program, sample = map(pathlib.Path, sys.argv[1:4])
    tokenizer = AutoTokenizer.from_pretrained(release)
    model = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32).eval()
    worst = 0.0
    languages = sorted(path.stem for path in (sample / "parallel").glob("*.txt"))
    for language in languages:
        lines = (sample / "parallel" / f"{language}.txt").read_text(encoding="utf-8").splitlines()
        reply = subprocess.run(
            [program, "score", release, "--json"],
            input="\n".join(lines) + "\n", capture_output=True, text=True, check=True,
        )
        ours = [json.loads(line) for line in reply.stdout.splitlines()]
        assert len(ours) == len(lines), f"{language}: {len(ours)} results for {len(lines)} lines"
        for text, result in zip(lines, ours):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            prefix = result["ids"][: len(result["ids"]) - len(ids)]
            assert result["ids"] == prefix + ids, f"{language}: token ids differ on {text!r}"
            assert tokenizer.decode(ids) == text, f"{language}: {text!r} does not come back"
            with torch.no_grad():
                logits = model(torch.tensor([result["ids"]])).logits[0].double()
            scale = logits.abs().max().item()
            logprobs = torch.log_softmax(logits, -1)
            theirs = logprobs[torch.arange(len(result["ids"]) - 1), torch.tensor(result["ids"][1:])]
            difference = (theirs - torch.tensor(result["logprobs"], dtype=torch.float64)).abs().max().item()
            worst = max(worst, difference / scale)
    print(f"{len(languages)} languages: token ids equal; log probabilities differ by at most {worst:.2e} of the scale")
    return 0 if worst <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
