"""Random models of every family through `eulalia convert` to llama.cpp and back.

    cargo build -p model --example logits
    python tools/oracles/fuzz_gguf.py EULALIA target/debug/examples/logits [--seed N] [--count N] [--family NAME ...]

Draws models as fuzz_families.py does, with a small tokenizer. The GGUF file that eulalia writes must give the logits of
transformers in llama.cpp and in eulalia itself, and the folder that eulalia makes of the file the same again; or eulalia
refuses to write it and says why. Each is also written and continued as bf16, q8_0 and q4_0. Prints a table.

Needs the packages of requirements.txt and `llama-cpp-python==0.3.36`.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

import tokenizers
import torch
import transformers
from check_gguf import llama_cpp_logits
from fuzz_families import FAMILIES, arguments_of, older_spelling, ours, randomise, settings_of, table

# llama.cpp looks functions up in tables of half floats (GELU), and multiplies in its own order.
TOLERANCE = 2e-3
GREEDY = 12


def write_tokenizer(folder: pathlib.Path) -> int:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["Zażółć gęślą jaźń, das ist ein Text über Wörter and some words."] * 3, trainer)
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    whole.save_pretrained(folder)
    return len(whole)


def run(*command) -> str:
    """What a command says where it fails."""
    reply = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return reply.stderr.strip()[-300:] or f"code {reply.returncode}" if reply.returncode else ""


def as_files_can_say(draw: random.Random, settings: dict) -> None:
    """Leaves out most of what has no place in a GGUF file, and is refused."""
    parts = settings["rope_parameters"]
    parts = list(parts.values()) if "full_attention" in parts else [parts]
    for part in parts:
        for key in ("truncate", "mscale", "mscale_all_dim", "attention_factor", "partial_rotary_factor"):
            if draw.random() < 0.85:
                part.pop(key, None)
        if part["rope_type"] in ("dynamic", "longrope"):
            part.clear()
            part |= dict(rope_type="default", rope_theta=10000.0)
    if len(parts) == 2:
        parts[1].clear()
        parts[1] |= dict(rope_type="default", rope_theta=10000.0)
    for key in ("attention_bias", "mlp_bias", "attn_logit_softcapping"):
        if key in settings and draw.random() < 0.7:
            settings[key] = None if key.startswith("attn") else False
    if "query_pre_attn_scalar" in settings and draw.random() < 0.9:
        settings["query_pre_attn_scalar"] = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
        settings["head_dim"] = settings["query_pre_attn_scalar"]
    if draw.random() < 0.8:
        settings.pop("layer_types", None)
        settings.pop("sliding_window_pattern", None)
        settings.pop("no_rope_layers", None)
        if "no_rope_layer_interval" in settings:
            settings["no_rope_layer_interval"] = 4
    if "n_group" in settings and draw.random() < 0.9:
        settings |= dict(n_group=1, topk_group=1, num_experts_per_tok=min(2, settings["num_experts_per_tok"]), max_window_layers=62)
    if "use_sliding_window" in settings and draw.random() < 0.8:
        settings["use_sliding_window"] = False


def one(eulalia: str, logits: str, family: str, seed: str, place: pathlib.Path) -> tuple[str, str]:
    draw = random.Random(seed)
    settings = settings_of(draw, family)
    folder = place / "model"
    folder.mkdir()
    settings["vocab_size"] = write_tokenizer(folder) + draw.choice([0, 0, 5, 40])
    settings |= dict(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    as_files_can_say(draw, settings)
    said = json.dumps(settings)
    prefix = "Gemma3Text" if family == "Gemma3" else family
    try:
        config = getattr(transformers, f"{prefix}Config")(**settings, attn_implementation="eager")
        model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
        randomise(model, family.startswith("Gemma"), draw.randrange(1 << 30))
        model.save_pretrained(folder, max_shard_size=draw.choice(["5GB", "50KB"]))
        model.config._experts_implementation = "eager"
        tokens = [draw.randrange(3, 280) for _ in range(draw.choice([5, 17, 40]))]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
    except Exception as error:
        return "not made", f"{type(error).__name__}: {error}"
    path = folder / "config.json"
    keys = json.loads(path.read_text())
    if draw.random() < 0.5:
        older_spelling(draw, keys)
        path.write_text(json.dumps(keys))
        said += " older"
    scale = expected.abs().max()
    found, problem = ours(logits, folder, tokens, len(tokens))
    if found is None:
        return "refused", f"{problem[-300:]} | {said}"
    if (found - expected).abs().max() / scale > 1e-4:
        return "older differs", f"{((found - expected).abs().max() / scale).item():.1e} | {said}"
    for weights in ("bf16", "q8_0", "q4_0"):
        problem = run(
            eulalia, "generate", folder, "--weights", weights, "--prompt", "Ein Text über", "--max-tokens", 20, "--temperature", 0
        )
        if problem:
            return "NO TEXT", f"{weights}: {problem} | {said}"
    file = place / "ours.gguf"
    problem = run(eulalia, "convert", folder, file)
    if problem:
        return "no file", f"{problem} | {said}"
    worst = 0.0
    found, problem = ours(logits, file, tokens, 7)
    if found is None:
        return "OWN FILE", f"{problem} | {said}"
    worst = ((found - expected).abs().max() / scale).item()
    if worst > 1e-4:
        return "OWN FILE", f"{worst:.1e} | {said}"
    problem = run(eulalia, "convert", file, place / "back")
    found, problem = (None, problem) if problem else ours(logits, place / "back", tokens, len(tokens))
    if found is None:
        return "BACK", f"{problem} | {said}"
    if (found - expected).abs().max() / scale > 1e-4:
        return "BACK", f"{((found - expected).abs().max() / scale).item():.1e} | {said}"
    for form in ("bf16", "f16", "q8_0", "q4_0"):
        problem = run(eulalia, "convert", folder, place / f"{form}.gguf", "--format", form)
        problem = problem or run(
            eulalia, "generate", place / f"{form}.gguf", "--prompt", "Ein Text", "--max-tokens", 9, "--temperature", 0
        )
        if problem:
            return "NO TEXT", f"{form}.gguf: {problem} | {said}"
    try:
        theirs, chosen = llama_cpp_logits(file, tokens, GREEDY)
    except Exception as error:
        return "llama.cpp refuses", f"{type(error).__name__}: {error} | {said}"
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens + chosen]), use_cache=False).logits[0].double()
    worst = ((torch.from_numpy(theirs) - expected[: len(theirs)]).abs().max() / scale).item()
    return ("equal" if worst < TOLERANCE else "LLAMA.CPP"), (f"{worst:.1e}" + ("" if worst < TOLERANCE else f" | {said}"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("eulalia")
    parser.add_argument("logits")
    arguments = arguments_of(parser, [family for family in FAMILIES if family != "DeepseekV3"], 8)
    return table(arguments, lambda *drawn: one(arguments.eulalia, arguments.logits, *drawn))


if __name__ == "__main__":
    sys.exit(main())
