"""How far the logits of quantised weights stand from F32, beside llama.cpp and OpenVINO: a speed counts at an error.

    python tools/bench/compare_logits.py target/release/eulalia MODEL TEXT [--llama FOLDER] [--window 256]

MODEL is a folder in Hugging Face's layout; TEXT is a file of at least one window. F32 logits come from transformers. The error of a
row is taken about its mean, since a number added to all logits changes nothing; the figure is the root mean square of the
errors over that of the F32 logits, over the second half of the first window. llama.cpp's logits are those that llama-perplexity
saves, in 16 bits: that alone is an error of about 1e-5. OpenVINO's files are looked for beside the model (MODEL-openvino-int8 and
-int4, made with optimum-intel); what is not there is left out.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import tokenizers
import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--llama", type=pathlib.Path)
    parser.add_argument("--formats", default="bf16,q8_0,q4_0")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = tokenizers.Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    # No more than one window for everyone.
    text = tokenizer.decode(encode(arguments.text.read_text())[: arguments.window + 8])
    ids = encode(text)[: arguments.window]
    assert len(ids) == arguments.window, "the text is too short"
    reference = of_transformers(arguments.model, ids)
    rows = []
    for name, logits in of_openvino(arguments.model, ids):
        rows.append((name, error(reference, logits)))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "text.txt").write_text(text)
        rows += ours(arguments, folder / "text.txt")
        if arguments.llama:
            rows += [(name, error(reference, logits)) for name, logits in of_llama(arguments, folder, ids)]
    for name, value in rows:
        print(f"{name:32} {value:.5f}")


def error(reference: np.ndarray, logits: np.ndarray) -> float:
    reference, logits = (rows - rows.mean(axis=1, keepdims=True) for rows in (reference.astype(np.float64), logits.astype(np.float64)))
    return float(np.sqrt(np.square(logits - reference).sum() / np.square(reference).sum()))


def half(logits, window: int) -> np.ndarray:
    """The rows that count, [window - 1 - window / 2, vocabulary]."""
    return np.asarray(logits, dtype=np.float32)[window // 2 : window - 1]


def of_transformers(model, ids) -> np.ndarray:
    decoder = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        return half(decoder(torch.tensor([ids])).logits[0], len(ids))


def of_openvino(model, ids):
    try:
        from optimum.intel import OVModelForCausalLM
    except ImportError:
        print("optimum-intel is not installed: OpenVINO is left out")
        return
    for bits in ("int8", "int4"):
        folder = model.with_name(f"{model.name}-openvino-{bits}")
        if folder.is_dir():
            decoder = OVModelForCausalLM.from_pretrained(folder)
            whole = decoder(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
            yield f"OpenVINO {bits}, prompt", half(whole.logits[0].numpy(), len(ids))


def ours(arguments, text):
    rows = []
    for name, more in (("prompt", []), ("answer", ["--as-answers"])):
        command = [arguments.eulalia, "--json", "--threads", arguments.threads, "bench", "quality", arguments.model, text,
                   "--weights", arguments.formats, "--window", arguments.window, *more]
        found = json.loads(run(command))
        rows += [(f"eulalia {form['format']}, {name}", form["texts"][0]["logit_error"]) for form in found["formats"]]
    return rows


def of_llama(arguments, folder, ids):
    full = folder / "f32.gguf"
    run([arguments.eulalia, "convert", arguments.model, full, "--format", "f32"])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(arguments.llama)}
    # Two windows are the least that it takes.
    (folder / "twice.txt").write_text((folder / "text.txt").read_text() * 3)
    for name in arguments.formats.split(","):
        path, saved = folder / f"{name}.gguf", folder / "logits"
        run([arguments.llama / "llama-quantize", "--pure", full, path, name.upper(), "1"], environment)
        run([arguments.llama / "llama-perplexity", "-m", path, "-f", folder / "twice.txt", "-c", len(ids), "-b", len(ids), "--chunks", "1",
             "-t", arguments.threads, "--kl-divergence-base", saved], environment)
        yield f"llama.cpp {name}, prompt", saved_logits(saved, ids)
        path.unlink()


def saved_logits(path, ids) -> np.ndarray:
    """Log-probabilities that llama-perplexity saved: a head, the tokens, then rows of a scale, a least value and codes."""
    data = path.read_bytes()
    assert data[:8] == b"_logits_"
    window, vocabulary, chunks = np.frombuffer(data, np.int32, 3, 8)
    tokens = np.frombuffer(data, np.int32, window * chunks, 20)
    assert list(tokens[1:window]) == list(ids[1:]), "llama.cpp sees other tokens"
    width = 2 * ((vocabulary + 1) // 2) + 4
    codes = np.frombuffer(data, np.uint16, (window - 1 - window // 2) * width, 20 + 4 * window * chunks).reshape(-1, width)
    scales = codes[:, :4].copy().view(np.float32)
    return scales[:, 1:2] + scales[:, :1] * codes[:, 4 : 4 + vocabulary]


def run(command, environment=None) -> str:
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
                          check=True).stdout


if __name__ == "__main__":
    main()
