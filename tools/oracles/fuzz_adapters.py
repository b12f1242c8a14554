"""Random adapters of random models, in peft and here.

    cargo build -p model --example logits
    python tools/oracles/fuzz_adapters.py target/debug/examples/logits [--seed N] [--count N]

Draws LoRA adapters as peft writes them: ranks and scales by layer, rank-stabilised scales, modules by name, by ending, by a regular
expression or all, some layers only, biases, whole modules saved, DoRA. The logits with the adapter beside the model must be those
of peft, or the adapter is refused by a key's or a tensor's name. Prints a table.

Needs the packages of requirements.txt.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import peft
import torch
import transformers
from fuzz_families import randomise

TOLERANCE = 1e-4
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# As Unsloth writes what it trains.
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj|down_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj|down_proj)))"
)


def settings_of(draw: random.Random, layers: int) -> dict:
    some = draw.sample(PROJECTIONS, draw.randint(1, 7))
    targets = draw.choice([
        some, some, "all-linear", r".*\.(q_proj|v_proj)", r"model\.layers\.0\..*(up|down)_proj", UNSLOTH, [f"self_attn.{draw.choice(PROJECTIONS[:4])}"],
        [f"layers.{draw.randrange(layers)}.mlp.{draw.choice(PROJECTIONS[4:])}"],
    ])
    settings = dict(r=draw.choice([1, 2, 3, 8]), lora_alpha=draw.choice([1, 4, 16, 5]), target_modules=targets, lora_dropout=draw.choice([0.0, 0.1]))
    if draw.random() < 0.2:
        settings["use_rslora"] = True
    if draw.random() < 0.2:
        settings["rank_pattern"] = {draw.choice(["q_proj", "down_proj", r"layers\.0\..*proj", "model.layers.0.self_attn.v_proj"]): draw.choice([1, 4, 5])}
    if draw.random() < 0.2:
        settings["alpha_pattern"] = {draw.choice(["q_proj", "up_proj", r"layers\.1\..*proj"]): draw.choice([2, 7])}
    if isinstance(targets, list) and all("." not in name for name in targets) and draw.random() < 0.25:
        settings["layers_to_transform"] = draw.choice([0, [0], [layers - 1]])
        if draw.random() < 0.5:
            settings["layers_pattern"] = draw.choice(["layers", ["h", "layers"]])
    if draw.random() < 0.1:
        settings["bias"] = draw.choice(["all", "lora_only"])
    if draw.random() < 0.08:
        settings["modules_to_save"] = [draw.choice(["lm_head", "embed_tokens", "norm"])]
    if draw.random() < 0.08:
        settings["use_dora"] = True
    if draw.random() < 0.08:
        settings["lora_bias"] = True
    if isinstance(targets, list) and draw.random() < 0.08:
        settings["exclude_modules"] = draw.choice([[draw.choice(PROJECTIONS)], r".*layers\.0\..*", ["layers.0.self_attn.q_proj"]])
    if draw.random() < 0.1:
        settings["init_lora_weights"] = draw.choice(["gaussian", "pissa", "olora"])
    if draw.random() < 0.05:
        settings["target_modules"] = ["embed_tokens", "q_proj"]
    if draw.random() < 0.05:
        settings["target_modules"] = ["lm_head", "q_proj"]
    return settings


def one(program: str, seed: str, place: pathlib.Path) -> tuple[str, str]:
    draw = random.Random(seed)
    family = draw.choice(["Llama", "Qwen2", "Qwen3", "Gemma2", "Olmo2"])
    layers = draw.choice([1, 2, 3])
    shape = dict(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, head_dim=8, tie_word_embeddings=draw.random() < 0.5,
    )
    if family in ("Llama", "Qwen3", "Olmo2"):
        shape["attention_bias"] = draw.random() < 0.3
    config = getattr(transformers, f"{family}Config")(**shape, attn_implementation="eager")
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    randomise(model, family == "Gemma2", draw.randrange(1 << 30))
    model.save_pretrained(place / "model")
    settings = settings_of(draw, layers)
    said = f"{family} {layers} {json.dumps(settings)}"
    try:
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    except Exception as error:
        return "not made", f"{type(error).__name__}: {str(error)[:150]} | {said}"
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter + 0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(place / "adapter")
    tokens = [draw.randrange(97) for _ in range(20)]
    with torch.no_grad():
        expected = adapted(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
    command = [program, place / "model", ",".join(map(str, tokens)), place / "adapter", "--by", str(draw.choice([1, 7, 20]))]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "panicked" in reply.stderr:
        return "PANIC", f"{reply.stderr[-300:]} | {said}"
    if reply.returncode:
        return "refused", f"{reply.stderr.strip()[-250:]} | {said}"
    found = torch.tensor(json.loads(reply.stdout), dtype=torch.float64)
    worst = ((found - expected).abs().max() / expected.abs().max()).item()
    return ("equal" if worst <= TOLERANCE else "WRONG"), f"{worst:.1e} | {said}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    counts = collections.Counter()
    for number in range(arguments.count):
        with tempfile.TemporaryDirectory() as place:
            outcome, said = one(arguments.program, f"{arguments.seed} {number}", pathlib.Path(place))
        counts[outcome] += 1
        if outcome != "equal":
            print(number, outcome, said.replace("\n", " "), flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    return 1 if counts["WRONG"] or counts["PANIC"] else 0


if __name__ == "__main__":
    sys.exit(main())
