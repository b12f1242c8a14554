"""Random models of every family, computed by transformers and by eulalia.

    cargo build -p model --example logits
    python tools/oracles/fuzz_families.py target/debug/examples/logits [--seed N] [--count N] [--family NAME ...] [--keep FOLDER]

Draws configurations as published models vary: tied and untied tables, biases, heads of other widths than hidden_size / heads,
few or all key-value heads, every way of RoPE, windows, odd sizes, one layer, files in several parts and three number formats,
configurations in the spelling of transformers 4 and 5, with keys left out or null. transformers reads the very folder that eulalia
reads. Either the logits agree, all at once and in pieces over the cache, or eulalia refuses the model by a key's name.
Prints a table; keeps the folders of what fails.

Needs the packages of requirements.txt.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers

TOLERANCE = 1e-4
LAYERED = ["Qwen2", "Qwen3", "Dots1", "Ministral", "SmolLM3", "Olmo3", "Gemma2", "Gemma3"]
BIASED = ["Llama", "Qwen3", "Qwen3Moe", "Apertus", "Olmo2", "Olmo3", "SmolLM3", "Dots1", "Gemma2", "Gemma3"]
FAMILIES = [
    "Llama", "Mistral", "Ministral", "Ministral3", "Mixtral", "Qwen2", "Qwen3", "Qwen3Moe", "Apertus", "Olmo2", "Olmo3", "Gemma2",
    "Gemma3", "SmolLM3", "DeepseekV3", "Dots1",
]


def rotary(draw: random.Random, positions: int, kinds: list[str]) -> dict:
    kind = draw.choice(kinds)
    parameters = dict(rope_type=kind, rope_theta=draw.choice([50.0, 500.0, 10000.0, 1e6, 1.2e7]))
    if kind in ("linear", "dynamic"):
        parameters["factor"] = draw.choice([1.0, 2.0, 4.0, 8.0])
    if kind == "llama3":
        parameters |= dict(factor=draw.choice([2.0, 8.0, 32.0]), low_freq_factor=1.0, high_freq_factor=draw.choice([2.0, 4.0]))
        parameters["original_max_position_embeddings"] = draw.choice([16, 32])
    if kind == "yarn":
        parameters |= dict(factor=draw.choice([2.0, 4.0, 16.0]), original_max_position_embeddings=draw.choice([16, 32]))
        for key, values in dict(
            beta_fast=[1.0, 32.0], beta_slow=[0.25, 1.0], attention_factor=[0.8, 1.2], truncate=[True, False], mscale=[0.7, 1.0],
            mscale_all_dim=[0.7, 1.0, 0.0],
        ).items():
            if draw.random() < 0.35:
                parameters[key] = draw.choice(values)
    if kind == "longrope":
        parameters |= dict(short_factor=[1.0], long_factor=[2.0], original_max_position_embeddings=16)
    return parameters


def settings_of(draw: random.Random, family: str) -> dict:
    heads = draw.choice([1, 2, 3, 4, 6])
    kv_heads = draw.choice([1, heads, draw.choice([n for n in range(1, heads + 1) if heads % n == 0])])
    head_dim = draw.choice([2, 4, 6, 8, 10, 16, 20, 32, 34])
    layers = draw.choice([1, 2, 3, 4, 7])
    positions = draw.choice([96, 128, 1000])
    own_head_dim = family in ("Qwen2", "Olmo2", "Olmo3", "Apertus", "SmolLM3") or draw.random() < 0.4
    hidden = heads * head_dim if own_head_dim else draw.choice([24, 30, 32, 50, 64] if family not in ("Llama", "Gemma2", "Gemma3") else [24, 36, 48, 60])
    settings = dict(
        vocab_size=draw.choice([97, 128, 131, 200]), hidden_size=hidden, intermediate_size=draw.choice([7, 16, 33, 48, 100]),
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=positions,
        rms_norm_eps=draw.choice([1e-5, 1e-6, 1e-3]), tie_word_embeddings=draw.random() < 0.5,
        bos_token_id=draw.choice([None, 0]), eos_token_id=draw.choice([None, 1, [1, 3]]), pad_token_id=draw.choice([None, 2]),
    )
    if not own_head_dim:
        settings["head_dim"] = head_dim
    if family in BIASED:
        settings["attention_bias"] = draw.random() < 0.4
    if family in ("Llama", "SmolLM3", "Apertus"):
        settings["mlp_bias"] = draw.random() < 0.3
    kinds = ["default", "default", "linear", "dynamic", "llama3", "yarn", "yarn"] + ["longrope"] * (draw.random() < 0.1)
    settings["rope_parameters"] = rotary(draw, positions, kinds)
    if draw.random() < 0.05:
        settings["rope_parameters"]["partial_rotary_factor"] = draw.choice([0.5, 1.0])
    if family in ("Olmo3", "Gemma3"):
        settings["rope_parameters"] = dict(
            full_attention=rotary(draw, positions, kinds), sliding_attention=rotary(draw, positions, ["default", "default", "linear"])
        )
    window = draw.choice([None, 1, 2, 7, 20])
    if family in ("Mistral", "Ministral", "Ministral3", "Mixtral"):
        settings["sliding_window"] = window
    if family in ("Qwen2", "Qwen3", "Qwen3Moe", "SmolLM3"):
        settings |= dict(use_sliding_window=draw.random() < 0.6, sliding_window=window or 5, max_window_layers=draw.choice([0, 1, 2, 28]))
    if family in ("Olmo3", "Gemma2", "Gemma3", "Dots1"):
        settings["sliding_window"] = window or 6
    if family == "Dots1":
        settings["max_window_layers"] = draw.choice([0, 1, 62])
    if family in LAYERED and draw.random() < 0.5:
        settings["layer_types"] = [draw.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    if family == "Gemma3" and "layer_types" not in settings and draw.random() < 0.5:
        settings["sliding_window_pattern"] = draw.choice([2, 3, 6])
    if family in ("Gemma2", "Gemma3"):
        settings["query_pre_attn_scalar"] = draw.choice([9, 16, 20, 256])
    if family == "Gemma2" or (family == "Gemma3" and draw.random() < 0.3):
        settings |= dict(
            attn_logit_softcapping=draw.choice([None, 5.0, 50.0]), final_logit_softcapping=draw.choice([None, 9.0, 30.0])
        )
    if family == "SmolLM3":
        settings["no_rope_layer_interval"] = draw.choice([1, 2, 4])
        if draw.random() < 0.3:
            settings["no_rope_layers"] = [draw.choice([0, 1]) for _ in range(layers)]
    if family == "Ministral3" and settings["rope_parameters"]["rope_type"] == "yarn":
        settings["rope_parameters"]["llama_4_scaling_beta"] = draw.choice([0.1, 0.3])
    if family == "Mixtral":
        experts = draw.choice([1, 2, 5, 8])
        settings |= dict(num_local_experts=experts, num_experts_per_tok=draw.randint(1, experts))
    if family == "Qwen3Moe":
        experts = draw.choice([2, 5, 8])
        settings |= dict(
            num_experts=experts, num_experts_per_tok=draw.randint(1, experts), moe_intermediate_size=draw.choice([7, 16, 20]),
            norm_topk_prob=draw.random() < 0.5, decoder_sparse_step=draw.choice([1, 1, 2]),
            mlp_only_layers=draw.choice([[], [0]]),
        )
    if family in ("Dots1", "DeepseekV3"):
        groups = draw.choice([1, 2, 4])
        experts = groups * draw.choice([2, 3])
        active = draw.randint(1, groups)
        settings |= dict(
            n_routed_experts=experts, n_group=groups, topk_group=active, num_experts_per_tok=draw.randint(1, experts // groups * active),
            moe_intermediate_size=draw.choice([7, 16, 20]), n_shared_experts=draw.choice([1, 2]),
            first_k_dense_replace=draw.randint(0, layers), norm_topk_prob=draw.random() < 0.5,
            routed_scaling_factor=draw.choice([1.0, 1.5, 2.5]),
        )
    if family == "DeepseekV3":
        settings |= dict(
            q_lora_rank=draw.choice([None, 5, 14]), kv_lora_rank=draw.choice([6, 16]), qk_rope_head_dim=draw.choice([2, 8, 12]),
            qk_nope_head_dim=draw.choice([2, 6, 12]), v_head_dim=draw.choice([3, 8, 20]), num_key_value_heads=heads,
            rope_interleave=draw.random() < 0.7, num_mtp_layers=0, attention_bias=draw.random() < 0.1,
        )
        settings.pop("head_dim", None)
    if family == "Apertus":
        settings["hidden_act"] = "xielu"
    return settings


def randomise(model, from_zero: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corrections = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, parameter in list(model.named_parameters()) + corrections:
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value = (0.0 if from_zero else 1.0) + 0.3 * noise
            elif name.endswith("e_score_correction_bias"):
                value = 0.1 * noise
            elif name.endswith("bias") or "alpha" in name:
                value = 0.3 * noise
            else:
                value = noise / max(parameter.shape[-1], 16) ** 0.5
            parameter.copy_(value.float())


def older_spelling(draw: random.Random, keys: dict) -> None:
    """As transformers 4 wrote it."""
    parameters = keys.get("rope_parameters")
    if parameters and "rope_type" in parameters:
        del keys["rope_parameters"]
        keys["rope_theta"] = parameters.pop("rope_theta")
        if parameters["rope_type"] == "default" and draw.random() < 0.8:
            parameters = None
        elif draw.random() < 0.4:
            parameters["type"] = parameters.pop("rope_type")
        keys["rope_scaling"] = parameters
    if "dtype" in keys:
        keys["torch_dtype"] = keys.pop("dtype")
    if draw.random() < 0.5 and keys["model_type"] not in ("gemma3_text",):
        keys.pop("layer_types", None)


def spoil(draw: random.Random, keys: dict) -> str:
    """Leaves keys out, or makes them null or another number: what a folder may say as well."""
    done = []
    for _ in range(draw.choice([0, 0, 1, 1, 2])):
        key = draw.choice(sorted(keys))
        if key in ("architectures", "model_type", "vocab_size", "num_hidden_layers"):
            continue
        way = draw.random()
        if way < 0.6:
            del keys[key]
            done.append(f"-{key}")
        elif way < 0.85:
            keys[key] = None
            done.append(f"{key}=null")
        elif isinstance(keys[key], bool):
            keys[key] = not keys[key]
            done.append(f"{key}={keys[key]}")
        elif isinstance(keys[key], (int, float)) and not key.endswith("token_id"):
            keys[key] = keys[key] * 2
            done.append(f"{key}={keys[key]}")
    return " ".join(done)


def ours(program: str, folder: pathlib.Path, tokens: list[int], by: int):
    command = [program, str(folder), ",".join(map(str, tokens)), "--by", str(by)]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if reply.returncode:
        return None, reply.stderr.strip()
    return torch.tensor(json.loads(reply.stdout), dtype=torch.float64), ""


def one(program: str, family: str, seed: str, folder: pathlib.Path) -> tuple[str, str]:
    """What came of one model, and what is to be said about it."""
    draw = random.Random(seed)
    settings = settings_of(draw, family)
    prefix = "Gemma3Text" if family == "Gemma3" else family
    said = json.dumps(settings)
    try:
        config = getattr(transformers, f"{prefix}Config")(**settings, attn_implementation="eager")
        model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
        randomise(model, family.startswith("Gemma"), draw.randrange(1 << 30))
        model = model.to(draw.choice([torch.float32, torch.bfloat16, torch.float16]))
        model.save_pretrained(folder, max_shard_size=draw.choice(["5GB", "20KB"]))
    except Exception as error:
        return "not made", f"{type(error).__name__}: {error}"
    path = folder / "config.json"
    keys = json.loads(path.read_text())
    if draw.random() < 0.5:
        older_spelling(draw, keys)
        said += " older"
    said += " " + spoil(draw, keys)
    path.write_text(json.dumps(keys))
    if draw.random() < 0.5:
        (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = [draw.randrange(config.vocab_size) for _ in range(draw.choice([1, 2, 17, 40, 70]))]
    try:
        again, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True
        )
        if loading["missing_keys"] or loading["mismatched_keys"] or loading["unexpected_keys"]:
            raise ValueError(f"does not fit: {loading}")
        again = again.eval()
        with torch.no_grad():
            expected = again(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
    except Exception as error:
        expected, reason = None, f"{type(error).__name__}: {str(error)[:200]}"
    worst = 0.0
    for by in (len(tokens), 1, draw.choice([3, 7, 16])):
        found, problem = ours(program, folder, tokens, by)
        if "panicked" in problem:
            return "PANIC", f"{problem} | {said}"
        if found is None:
            return ("both refuse" if expected is None else "refused"), f"{problem.removeprefix('Error: ')[-300:]} | {said}"
        if expected is None:
            return "ours alone", f"{reason} | {said}"
        if not torch.isfinite(expected).all():
            return "not a number", said
        worst = max(worst, ((found - expected).abs().max() / expected.abs().max()).item())
        if not worst <= TOLERANCE:
            return "WRONG", f"{worst:.1e} by {by} of {len(tokens)} | {said}"
    return "equal", f"{worst:.1e}"


def arguments_of(parser: argparse.ArgumentParser, families: list[str], count: int) -> argparse.Namespace:
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--family", nargs="*", default=families)
    parser.add_argument("--log", type=pathlib.Path)
    return parser.parse_args()


def table(arguments: argparse.Namespace, one) -> int:
    """A row for each family: `one` draws a model from (family, seed) into a folder and says how it went. 1 if something was bad,
    which is written in capitals."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    log = arguments.log.open("w") if arguments.log else None
    bad = 0
    for family in arguments.family:
        counts = collections.Counter()
        worst = "0"
        for number in range(arguments.count):
            seed = f"{arguments.seed} {family} {number}"
            with tempfile.TemporaryDirectory() as place:
                outcome, said = one(family, seed, pathlib.Path(place))
            counts[outcome] += 1
            bad += outcome.isupper()
            worst = max(worst, said, key=float) if outcome == "equal" else worst
            if log:
                print(f"{seed}\t{outcome}\t{said}".replace("\n", " "), file=log, flush=True)
        print(f"{family:11} worst {worst:8} " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())), flush=True)
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = arguments_of(parser, FAMILIES, 20)

    def kept(family: str, seed: str, place: pathlib.Path) -> tuple[str, str]:
        outcome, said = one(arguments.program, family, seed, place / "model")
        if arguments.keep and outcome.isupper():
            shutil.copytree(place / "model", arguments.keep / seed.replace(" ", "_"), dirs_exist_ok=True)
        return outcome, said

    return table(arguments, kept)


if __name__ == "__main__":
    sys.exit(main())
