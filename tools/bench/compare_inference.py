"""Inference beside llama.cpp, OpenVINO GenAI and candle: prefill and decode of one model, taking turns, medians and ratios.

    python tools/bench/compare_inference.py target/release/eulalia MODEL [--llama-bench FILE] [--threads 2] [--rounds 3]
    python tools/bench/compare_inference.py target/release/eulalia MODEL --cold-start [--llama-bench FILE] [--formats q8_0]

MODEL is a folder in Hugging Face's layout (make_llama.py writes the 436M shape). llama.cpp's files are made with
`eulalia convert`; OpenVINO's with optimum-intel, once, beside the model. A peer that is not there is left out, and said so.
candle's program is built with `RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path tools/bench/candle/Cargo.toml`.
Decode starts from an empty cache but for --depth; the share is bytes of weights per token times tokens per second over the read
bandwidth that `eulalia bench inference` measured in the same round.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--llama-bench", type=pathlib.Path)
    parser.add_argument("--candle", type=pathlib.Path, help="the program of tools/bench/candle")
    parser.add_argument("--formats", default="q8_0,q4_0,bf16,f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--cold-start", action="store_true", help="time to the first token, with nothing in the page cache")
    parser.add_argument("--without", default="", help="llama.cpp, candle or openvino, separated by commas")
    arguments = parser.parse_args()
    without = arguments.without.split(",")
    peers = {"eulalia": eulalia}
    if arguments.llama_bench and "llama.cpp" not in without:
        peers["llama.cpp"] = llama_cpp
    if arguments.candle and "candle" not in without:
        peers["candle"] = candle
    if "openvino" not in without:
        try:
            import openvino_genai  # noqa: F401

            peers["openvino"] = openvino
        except ImportError:
            print("openvino-genai is not installed: left out", file=sys.stderr)
    if arguments.cold_start:
        return cold_start(arguments, list(peers))
    results = {}
    for format_ in arguments.formats.split(","):
        for number in range(arguments.rounds):
            for name, peer in peers.items():
                found = peer(arguments, format_)
                if found is None:
                    continue
                print(f"{format_} round {number + 1} {name}: {found}", file=sys.stderr, flush=True)
                results.setdefault((format_, name), []).append(found)
    report(arguments, peers, results)
    return 0


def eulalia(arguments, format_):
    command = [arguments.eulalia, "--json", "--threads", str(arguments.threads), "bench", "inference", arguments.model]
    command += ["--weights", format_, "--prefill", str(arguments.prompt), "--decode", str(arguments.answer)]
    command += ["--depths", str(arguments.depth), "--rounds", "3"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    found = json.loads(output)["formats"][0]
    decode = found["decode"][0]
    return (found["prefill"][0]["tokens_per_second"], decode["tokens_per_second"], decode["bandwidth_share"])


def gguf(arguments, format_):
    file = arguments.model.parent / f"{arguments.model.name}-{format_}.gguf"
    if not file.exists():
        command = [arguments.eulalia, "convert", arguments.model, file, "--format", format_]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return file


def llama_cpp(arguments, format_):
    file = gguf(arguments, format_)
    command = [arguments.llama_bench, "-m", file, "-p", str(arguments.prompt), "-n", str(arguments.answer), "-r", "3"]
    command += ["-t", str(arguments.threads), "-o", "json", "-d", str(arguments.depth)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    speeds = {bool(entry["n_gen"]): entry["avg_ts"] for entry in json.loads(output)}
    return (speeds[False], speeds[True], None)


def candle(arguments, format_):
    numbers = [arguments.prompt, arguments.answer, arguments.depth, arguments.threads]
    command = [arguments.candle, gguf(arguments, format_), *map(str, numbers)]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if process.returncode:
        print(process.stderr.decode()[-600:], file=sys.stderr)
        return None
    return (*json.loads(process.stdout), None)


OPENVINO = """
import json, sys, time
import numpy, openvino, openvino_genai
folder, prompt, answer, depth, threads, precision = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
settings = {"INFERENCE_NUM_THREADS": threads}
if precision in ("f32", "bf16"):
    settings["INFERENCE_PRECISION_HINT"] = precision
pipe = openvino_genai.LLMPipeline(folder, "CPU", **settings)
calls = 0
def run(length, tokens):
    # Another prompt each time: GenAI keeps what it has read.
    global calls
    calls += 1
    ids = openvino.Tensor((numpy.arange(length, dtype=numpy.int64)[None, :] * 7919 + 31 * calls) % 250 + 2)
    mask = openvino.Tensor(numpy.ones((1, length), dtype=numpy.int64))
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
    result = pipe.generate(openvino_genai.TokenizedInputs(ids, mask), config)
    return result.perf_metrics
run(prompt, 4)
prefill, decode = [], []
for _ in range(3):
    prefill.append(prompt / run(prompt, 1).get_ttft().mean * 1000)
    decode.append(1000 / run(max(depth, 8), answer).get_tpot().mean)
prefill.sort(); decode.sort()
print(json.dumps([prefill[1], decode[1]]))
"""


def openvino_folder(arguments, format_):
    # There is no export to bf16: weights of 16 bits, and bf16 to compute with.
    kinds = {"q8_0": "int8", "q4_0": "int4", "bf16": "fp16", "f32": "fp32"}
    folder = arguments.model.parent / f"{arguments.model.name}-openvino-{kinds[format_]}"
    if not folder.exists():
        command = ["optimum-cli", "export", "openvino", "--task", "text-generation-with-past", "-m", arguments.model]
        command += ["--weight-format", kinds[format_]]
        if format_ == "q4_0":
            command += ["--group-size", "128", "--ratio", "1.0", "--sym"]
        program = pathlib.Path(sys.executable).parent / command[0]
        subprocess.run([program, *command[1:], folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def openvino(arguments, format_):
    folder = openvino_folder(arguments, format_)
    numbers = [arguments.prompt, arguments.answer, arguments.depth, arguments.threads]
    command = [sys.executable, "-c", OPENVINO, folder, *map(str, numbers), format_]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if process.returncode:
        print(process.stderr.decode()[-600:], file=sys.stderr)
        return None
    prefill, decode = json.loads(process.stdout.splitlines()[-1])
    return (prefill, decode, None)


PROMPT = "Hello world"
COLD_OPENVINO = """
import sys, time
import openvino_genai
began = time.perf_counter()
pipe = openvino_genai.LLMPipeline(sys.argv[1], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[2]))
pipe.generate(sys.argv[3], max_new_tokens=1)
print(time.perf_counter() - began)
"""


def drop_from_page_cache(path) -> None:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(command) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def cold_start(arguments, peers) -> int:
    threads = str(arguments.threads)
    generate = [arguments.eulalia, "--threads", threads, "generate", "--prompt", PROMPT, "--max-tokens", "1"]
    print("| weights | program | cold start to first token, s | from | with the file in the page cache, s |")
    print("|---|---|---|---|---|")
    for format_ in arguments.formats.split(","):
        file = gguf(arguments, format_)
        runs = {
            "eulalia": (file, lambda: timed([*generate, file])),
            "eulalia, quantised on load": (
                arguments.model,
                lambda: timed([*generate, arguments.model, "--weights", format_]),
            ),
        }
        if "llama.cpp" in peers:
            command = [arguments.llama_bench.with_name("llama-completion"), "-m", file, "-p", PROMPT, "-n", "1"]
            command += ["-t", threads, "-no-cnv", "--no-warmup", "--temp", "0"]
            runs["llama.cpp"] = (file, lambda command=command: timed(command))
        if "openvino" in peers:
            folder = openvino_folder(arguments, format_)
            command = [sys.executable, "-c", COLD_OPENVINO, folder, threads, PROMPT]
            seconds = lambda command=command: float(subprocess.run(command, check=True, capture_output=True).stdout)
            runs["openvino"] = (folder, seconds)
        found = {name: ([], []) for name in runs}
        for _ in range(arguments.rounds):
            for name, (source, run) in runs.items():
                drop_from_page_cache(source)
                found[name][0].append(run())
                found[name][1].append(run())
        for name, (cold, warm) in found.items():
            cold, warm = statistics.median(cold), statistics.median(warm)
            print(f"| {format_} | {name} | {cold:.2f} | {runs[name][0].name} | {warm:.2f} |", flush=True)
    return 0


def report(arguments, peers, results) -> None:
    print(f"prompt {arguments.prompt}, answer {arguments.answer} at depth {arguments.depth}, {arguments.threads} threads")
    print("| weights | program | prefill tokens/s | decode tokens/s | share of the bandwidth |")
    print("|---|---|---|---|---|")
    for format_ in arguments.formats.split(","):
        medians = {}
        for name in peers:
            if runs := results.get((format_, name)):
                medians[name] = [statistics.median(run[i] for run in runs) for i in (0, 1)]
                share = statistics.median(run[2] for run in runs) if runs[0][2] else None
                share = f"{share:.2f}" if share else ""
                print(f"| {format_} | {name} | {medians[name][0]:.0f} | {medians[name][1]:.1f} | {share} |")
        others = [found for name, found in medians.items() if name != "eulalia"]
        if others and "eulalia" in medians:
            ratios = [medians["eulalia"][i] / max(found[i] for found in others) for i in (0, 1)]
            print(f"| {format_} | eulalia over the best peer | {ratios[0]:.2f} | {ratios[1]:.2f} | |")


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
