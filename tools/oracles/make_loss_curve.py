"""Writes `crates/training/tests/golden/loss_curve.json`: the losses of 100 training steps as PyTorch and transformers compute
them, from the weights of `crates/model/tests/golden/qwen3`, with the batches that gave them.

Each step has three documents, run one by one (ours packs them). AdamW decays matrices and tables but no norms, the gradient
is clipped to norm 1, and the learning rate follows warm-up, a plateau and a linear decay, written out in the file.
"""

import json
import pathlib

import torch
from transformers import Qwen3ForCausalLM

CRATES = pathlib.Path(__file__).resolve().parents[2] / "crates"
STEPS, LENGTHS, VOCABULARY = 100, [31, 20, 12], 80
SETTINGS = dict(weight_decay=0.1, beta_1=0.9, beta_2=0.95, epsilon=1e-8, clip_norm=1.0)


def documents(generator):
    """Sequences that can be learned: each token mostly follows from the one before."""
    result = []
    for length in LENGTHS:
        tokens = [int(torch.randint(0, VOCABULARY, (1,), generator=generator))]
        while len(tokens) <= length:
            guess = torch.rand((), generator=generator).item()
            tokens.append((tokens[-1] * 7 + 3) % VOCABULARY if guess < 0.8 else int(guess * 1e6) % VOCABULARY)
        result.append(tokens)
    return result


def learning_rate(step):
    return 3e-3 * min((step + 1) / 10, 1.0, (STEPS - step) / 30)


if __name__ == "__main__":
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(12)
    model = Qwen3ForCausalLM.from_pretrained(CRATES / "model/tests/golden/qwen3", attn_implementation="eager").train()
    decayed = [value for name, value in model.named_parameters() if "norm" not in name]
    norms = [value for name, value in model.named_parameters() if "norm" in name]
    optimiser = torch.optim.AdamW(
        [dict(params=decayed, weight_decay=SETTINGS["weight_decay"]), dict(params=norms, weight_decay=0.0)],
        betas=(SETTINGS["beta_1"], SETTINGS["beta_2"]), eps=SETTINGS["epsilon"],
    )
    steps = []
    for step in range(STEPS):
        batch = documents(generator)
        loss = 0.0
        for tokens in batch:
            tokens = torch.tensor(tokens)
            logits = model(input_ids=tokens[None, :-1]).logits[0]
            loss = loss + torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum")
        loss = loss / sum(LENGTHS)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS["clip_norm"])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        optimiser.step()
        line = dict(documents=batch, learning_rate=learning_rate(step), loss=loss.item(), gradient_norm=norm.item())
        steps.append(line)
    print(f"loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}")
    folder = CRATES / "training/tests/golden"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(line, separators=(",", ":")) for line in steps)
    (folder / "loss_curve.json").write_text(f'{{"settings":{json.dumps(SETTINGS)},"steps":[\n{lines}\n]}}\n')
