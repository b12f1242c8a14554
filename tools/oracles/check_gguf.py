"""GGUF between eulalia, llama.cpp and transformers.

    python tools/oracles/check_gguf.py target/release/eulalia runs/tiny/release LLAMA_CPP_FOLDER [FAMILY ...]

For a tiny random model of each family, with the tokenizer of the given release:
1. `eulalia convert` writes F32; llama.cpp opens it; its logits over random tokens agree with those of transformers, and its
   greedy tokens are equal except where the two best logits differ by less than 1e-3.
2. llama.cpp's own converter writes F32; `eulalia convert` turns that into a folder; every tensor is the original's, bit for
   bit, and transformers computes the same logits from it.
Then for the release itself: both again, and Q8_0 and Q4_0 have the bytes of `llama-quantize --pure`, where that program stands on
the path.

Needs the packages of requirements.txt and `llama-cpp-python==0.3.36` (its source package carries llama.cpp with the
converter: LLAMA_CPP_FOLDER is its `vendor/llama.cpp`), `gguf==0.19.0` and
`sentencepiece`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np
import torch
import transformers
from gguf import GGUFReader
from safetensors.torch import load_file

TOKENS = 40
GREEDY = 24
NEAR = 1e-3
TOLERANCE = 1e-4
# llama.cpp looks GELU up in a table of half floats.
TOLERANCE_OF_GELU = 1e-3

SHAPE = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0, pad_token_id=3, tie_word_embeddings=False,
)
HEADS = dict(head_dim=32)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
EXPERTS = dict(moe_intermediate_size=32, num_experts_per_tok=2, norm_topk_prob=True)

FAMILIES = {
    "llama": ("Llama", HEADS | dict(rope_parameters=LLAMA3)),
    "llama_linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0), tie_word_embeddings=True)),
    "llama_biased": ("Llama", HEADS | dict(attention_bias=True)),
    "ministral3": (
        "Ministral3",
        HEADS | dict(rope_parameters=YARN | dict(
            mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3, beta_fast=32.0, beta_slow=1.0, max_position_embeddings=256,
        )),
    ),
    "mixtral": ("Mixtral", HEADS | dict(num_local_experts=4, num_experts_per_tok=2, intermediate_size=32, sliding_window=None)),
    "qwen2": ("Qwen2", dict(rope_parameters=YARN)),
    "qwen3": ("Qwen3", HEADS | dict(tie_word_embeddings=True)),
    "qwen3moe": ("Qwen3Moe", HEADS | EXPERTS | dict(num_experts=4)),
    "dots1": (
        "Dots1",
        HEADS | EXPERTS | dict(
            tie_word_embeddings=True, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=1.5, sliding_window=None,
        ),
    ),
    "gemma2": ("Gemma2", HEADS | dict(
        sliding_window=16, query_pre_attn_scalar=32, attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
        tie_word_embeddings=True,
    )),
    "gemma3": ("Gemma3", HEADS | dict(
        sliding_window=16, query_pre_attn_scalar=32, num_hidden_layers=6, tie_word_embeddings=True,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0),
        ),
    )),
    "olmo2": ("Olmo2", dict()),
    "olmo3": ("Olmo3", dict(sliding_window=16)),
    "apertus": ("Apertus", dict(hidden_act="xielu", rope_parameters=LLAMA3)),
    "smollm3": ("SmolLM3", dict(tie_word_embeddings=True)),
}


def randomise(model, from_zero: bool) -> None:
    """Norms away from 1, biases away from 0, matrices wide enough that attention is peaked; BF16 holds every number."""
    generator = torch.Generator().manual_seed(5)
    corrections = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, parameter in list(model.named_parameters()) + corrections:
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                value = (0.0 if from_zero else 1.0) + 0.3 * noise
            elif name.endswith("e_score_correction_bias"):
                value = 0.1 * noise
            elif name.endswith("bias") or "alpha" in name:
                value = 0.3 * noise
            else:
                value = 0.2 * noise
            parameter.copy_(value.to(torch.bfloat16).float())


def build(folder: pathlib.Path, family: str, settings: dict, release: pathlib.Path) -> None:
    """A random model of a family with the release's tokenizer."""
    vocabulary = json.loads((release / "config.json").read_text())["vocab_size"]
    prefix = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{prefix}Config")(**SHAPE | settings, vocab_size=vocabulary)
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    randomise(model, from_zero=family.startswith("Gemma"))
    model.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(release / name, folder / name)


def transformers_logits(folder: pathlib.Path, tokens: list[int]) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()


def llama_cpp_logits(file: pathlib.Path, tokens: list[int], more: int = 0) -> tuple[np.ndarray, list[int]]:
    """Logits of all tokens, and `more` greedy ones behind them; the cache holds F32."""
    context = len(tokens) + more + 8
    model = llama_cpp.Llama(
        str(file), n_ctx=context, n_batch=context, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0, flash_attn=False,
    )
    model.eval(tokens)
    rows = [model.scores[: len(tokens)].astype(np.float64).copy()]
    chosen = []
    for _ in range(more):
        chosen.append(int(rows[-1][-1].argmax()))
        model.eval(chosen[-1:])
        rows.append(model.scores[len(tokens) + len(chosen) - 1][None].astype(np.float64).copy())
    return np.concatenate(rows), chosen


def llama_cpp_convert(llama_cpp_folder: pathlib.Path, folder: pathlib.Path, file: pathlib.Path) -> None:
    """llama.cpp's converter, told which rule of cutting text to name: it knows tokenizers by a digest of what they do."""
    program = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); import conversion.base as base\n"
        "base.TextModel.get_vocab_base_pre = lambda self, tokenizer: 'llama-bpe'\n"
        "base.TextModel._set_vocab_sentencepiece = lambda self: self._set_vocab_gpt2()\n"
        "script = sys.argv[1] + '/convert_hf_to_gguf.py'; sys.argv = [script] + sys.argv[2:]; runpy.run_path(script, run_name='__main__')"
    )
    subprocess.run(
        [sys.executable, "-c", program, llama_cpp_folder, folder, "--outfile", file, "--outtype", "f32"],
        check=True, capture_output=True,
    )


def eulalia(program: pathlib.Path, *arguments) -> None:
    reply = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert reply.returncode == 0, reply.stderr


def compare(program, llama_cpp_folder, source: pathlib.Path, work: pathlib.Path) -> tuple[float, int, str]:
    """The worst difference of logits, how many greedy tokens are equal, and whether the way back gives the same bits."""
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    tokens = np.random.default_rng(3).integers(4, vocabulary, TOKENS).tolist()
    ours = work / "ours.gguf"
    eulalia(program, "convert", source, ours, "--force")
    found, chosen = llama_cpp_logits(ours, tokens, GREEDY)
    expected = transformers_logits(source, tokens + chosen)
    scale = np.abs(expected).max()
    difference = np.abs(found - expected[: len(found)]).max() / scale
    for place, token in enumerate(chosen):
        row = expected[len(tokens) - 1 + place]
        second, best = np.sort(row)[-2:]
        assert token == row.argmax() or best - second < NEAR, f"greedy token {place} differs"
    back = "-"
    own = json.loads((source / "config.json").read_text())
    if own["model_type"] == "dots1" and own["num_key_value_heads"] < own["num_attention_heads"]:
        back = "llama.cpp's converter makes no file of shared heads that llama.cpp opens"
    elif llama_cpp_folder:
        theirs, folder = work / "theirs.gguf", work / "back"
        llama_cpp_convert(llama_cpp_folder, source, theirs)
        eulalia(program, "convert", theirs, folder, "--force")
        original, again = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
        again = {name: tensor for name, tensor in again.items() if name in original or "act_fn" not in name}
        assert set(original) == set(again), set(original) ^ set(again)
        inexact = [name for name in original if not torch.equal(original[name].float(), again[name])]
        worst = max((original[name].float() - again[name]).abs().max().item() for name in original)
        assert worst < 1e-6, inexact
        distance = np.abs(transformers_logits(folder, tokens) - transformers_logits(source, tokens)).max() / scale
        assert distance <= TOLERANCE, distance
        back = "same bits" if not inexact else f"within {worst:.0e} ({len(inexact)} tensors), logits {distance:.1e}"
    return difference, len(chosen), back


def check_quantised(program: pathlib.Path, release: pathlib.Path, work: pathlib.Path) -> None:
    if shutil.which("llama-quantize") is None:
        print("llama-quantize is not on the path: quantised bytes not compared")
        return
    eulalia(program, "convert", release, work / "f32.gguf", "--force")
    for name in ["Q8_0", "Q4_0"]:
        eulalia(program, "quantize", release, work / "ours.gguf", "--format", name.lower(), "--force")
        arguments = ["llama-quantize", "--pure", work / "f32.gguf", work / "theirs.gguf", name, "1"]
        subprocess.run(arguments, check=True, capture_output=True)
        theirs = {tensor.name: tensor for tensor in GGUFReader(work / "theirs.gguf").tensors}
        compared = 0
        for tensor in GGUFReader(work / "ours.gguf").tensors:
            other = theirs[tensor.name]
            if tensor.tensor_type == other.tensor_type:
                assert tensor.data.tobytes() == other.data.tobytes(), tensor.name
                compared += 1
        print(f"{name}: {compared} of {len(theirs)} tensors have the bytes of llama-quantize, the others another type")


def main() -> int:
    program, release = map(pathlib.Path, sys.argv[1:3])
    llama_cpp_folder = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    wanted = sys.argv[4:] or list(FAMILIES)
    failed = 0
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            source = work / "source"
            try:
                build(source, *FAMILIES[name], release)
                difference, equal, back = compare(program, llama_cpp_folder, source, work)
                good = difference <= (TOLERANCE_OF_GELU if name.startswith("gemma") else TOLERANCE)
            except (AssertionError, ValueError, subprocess.CalledProcessError) as error:
                output = getattr(error, "stderr", b"") or b""
                print(f"{name:13} FAILED: {error} {output.decode(errors='replace')[-2000:]}")
                failed += 1
                continue
            failed += not good
            print(f"{name:13} logits in llama.cpp {difference:.1e}{'' if good else ' TOO FAR'}, {equal} greedy tokens; back: {back}", flush=True)
    if len(sys.argv) <= 4:
        with tempfile.TemporaryDirectory() as folder:
            difference, equal, back = compare(program, llama_cpp_folder, release, pathlib.Path(folder))
            print(f"{release.name}: logits in llama.cpp {difference:.1e}, {equal} greedy tokens; back: {back}")
            check_quantised(program, release, pathlib.Path(folder))
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
