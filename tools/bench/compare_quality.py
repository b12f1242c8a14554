"""What weights of fewer bits cost, beside llama.cpp at the same format: perplexity and KL divergence against F32, by text.

    python tools/bench/compare_quality.py target/release/eulalia MODEL TEXTS... --llama FOLDER [--formats q8_0,q4_0,bf16]

MODEL is a folder in Hugging Face's layout, TEXTS are files, one a language; FOLDER holds llama.cpp's programs
llama-perplexity and llama-quantize. Both programs cut a text into the same windows and count the same tokens, those of
the second half of each window; the perplexities in F32 stand side by side to show it. Ours is measured twice: as prompts are
computed, and as answers are (one arithmetic on most processors, two where there is a matrix unit). llama.cpp's files are made
by its own llama-quantize from our F32 file, all matrices in the one format (--pure) as in ours.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path, nargs="+")
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--formats", default="bf16,q8_0,q4_0")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, pathlib.Path(folder))
    return 0


def compare(arguments, folder: pathlib.Path) -> None:
    prompts, answers = (ours(arguments, more) for more in ([], ["--as-answers"]))
    full = folder / "f32.gguf"
    run([arguments.eulalia, "convert", arguments.model, full, "--format", "f32"])
    formats = arguments.formats.split(",")
    files = {name: folder / f"{name}.gguf" for name in formats}
    for name, path in files.items():
        llama(arguments, "llama-quantize", ["--pure", full, path, name.upper(), "1"])
    rows = []
    for text in arguments.texts:
        base = folder / "base"
        (reference,) = perplexity(arguments, full, ["-f", text, "--kl-divergence-base", base], ["Final estimate: PPL"])
        for name in formats:
            labels = ["Mean PPL(Q)", "Mean    KLD", "Same top p"]
            figures = perplexity(arguments, files[name], ["--kl-divergence-base", base, "--kl-divergence"], labels)
            rows.append((name, text.stem, reference, *figures))
            print(*rows[-1], file=sys.stderr, flush=True)
        base.unlink()
    report(formats, rows, prompts, answers)


def report(formats, rows, prompts, answers) -> None:
    for name in formats:
        print(f"\n{name:5}  perplexity f32            perplexity                KL divergence                      same token, %")
        print("       llama.cpp     ours        llama.cpp     ours        llama.cpp  prompts   answers      llama.cpp  ours")
        theirs = [row for row in rows if row[0] == name]
        for _, text, reference, value, divergence, same in theirs:
            p, a = prompts[name][text], answers[name][text]
            print(f"{text:5}  {reference:9.3f}  {p['reference_perplexity']:9.3f}      {value:9.3f}  {p['perplexity']:9.3f}      "
                  f"{divergence:9.6f}  {p['kl_divergence']:.6f}  {a['kl_divergence']:.6f}      "
                  f"{same:6.1f}  {100 * p['top_token_agreement']:6.1f}")
        p, a = ([kind[name][row[1]]["kl_divergence"] for row in theirs] for kind in (prompts, answers))
        mean = statistics.mean(row[4] for row in theirs)
        print(f"mean KL divergence: llama.cpp {mean:.6f}, prompts {statistics.mean(p):.6f}, answers {statistics.mean(a):.6f}; "
              f"not larger than llama.cpp's in {sum(x <= row[4] for x, row in zip(p, theirs))} (prompts) and "
              f"{sum(x <= row[4] for x, row in zip(a, theirs))} (answers) of {len(theirs)} texts")


def ours(arguments, more) -> dict:
    """Figures by format and text."""
    command = [arguments.eulalia, "--json", "--threads", arguments.threads, "bench", "quality", arguments.model, *arguments.texts,
               "--weights", arguments.formats, "--window", arguments.window, *more]
    found = json.loads(run(command))
    return {format_["format"]: {text["text"]: text for text in format_["texts"]} for format_ in found["formats"]}


def perplexity(arguments, model, more, labels) -> list:
    """The numbers behind some words of what llama-perplexity says."""
    command = ["-m", model, "-c", arguments.window, "-b", arguments.window, "-t", arguments.threads, *more]
    # It sometimes ends before all of it is written.
    for _ in range(5):
        said = llama(arguments, "llama-perplexity", command)
        found = [re.search(re.escape(label) + r"\s*[:=]\s*([-\d.]+)", said) for label in labels]
        if all(found):
            return [float(match.group(1)) for match in found]
    raise SystemExit(f"llama-perplexity does not say {labels}:\n{said}")


def llama(arguments, program, more) -> str:
    return run([arguments.llama / program, *more], {**os.environ, "LD_LIBRARY_PATH": str(arguments.llama)}, both=True)


def run(command, environment=None, both=False) -> str:
    """Standard output, or that and the errors, of a program that succeeds."""
    errors = subprocess.STDOUT if both else None
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, check=False)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"{command[0]} failed")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
