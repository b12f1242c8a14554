"""The corpus stage beside dolma and datatrove, on the same files and cores, in turn: prints rates, ratios and peak memory.

    python tools/bench/compare_corpus.py target/release/eulalia FOLDER [--rounds 3] [--threads 2] [--megabytes 300]

FOLDER is one that `cargo run --release -p corpus --example crawl -- make` wrote; its gzipped JSON lines are what all three
read, up to that many megabytes of text. eulalia runs all of its steps (identification, rights, quality, exact and near
deduplication, personal data, held-out split). datatrove runs Gopher's filters, personal data and MinHash; dolma runs
Gopher's rules, personal data, exact deduplication (a Bloom filter) and the mixer. Neither identifies languages here: their
models would have to be downloaded. So both do less than eulalia. Run this with the Python that has the packages of
requirements-corpus.txt.
"""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path)
    parser.add_argument("crawl", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megabytes", type=float, default=300.0)
    parser.add_argument("--without", default="", help="dolma or datatrove, separated by commas")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text_bytes = prepare(arguments.crawl, folder / "documents", arguments.megabytes * 1e6)
        programs = {"eulalia": eulalia, "dolma": dolma, "datatrove": datatrove}
        for name in filter(None, arguments.without.split(",")):
            del programs[name]
        results = {name: [] for name in programs}
        for number in range(1, arguments.rounds + 1):
            for name, program in programs.items():
                work = folder / "work"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                began = time.monotonic()
                peak = max(measure(command) for command in program(arguments, folder / "documents", work))
                seconds = time.monotonic() - began
                results[name].append((seconds, peak))
                print(f"round {number}/{arguments.rounds}  {name:10} {text_bytes / 1e6 / seconds:8.2f} MB/s", file=sys.stderr, flush=True)
        report(results, text_bytes)
    return 0


def prepare(crawl: pathlib.Path, documents: pathlib.Path, limit: float) -> int:
    """Files of whole lines that all three can read; returns the bytes of their texts."""
    documents.mkdir()
    text_bytes = 0
    for path in sorted((crawl / "files").glob("*.jsonl.gz")):
        with gzip.open(path, "rb") as lines, gzip.open(documents / path.name, "wb", compresslevel=1) as out:
            for line in lines:
                try:
                    document = json.loads(line)
                except ValueError:
                    continue
                document["added"] = document["created"] = document["date"]
                out.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
                text_bytes += len(document["text"].encode())
                if text_bytes >= limit:
                    return text_bytes
    return text_bytes


def eulalia(arguments, documents, work):
    yield [
        arguments.eulalia.resolve(), "corpus", "--documents", documents, "--output", work, "--threads", str(arguments.threads),
        "--set", "small_language=\"train_only\"", "--set", "damaged_input=\"skip\"",
    ]


def datatrove(arguments, documents, work):
    yield [sys.executable, HERE / "corpus_datatrove.py", documents, work, "--threads", str(arguments.threads)]


def dolma(arguments, documents, work):
    # dolma reads <folder>/documents/*.json.gz and writes beside it.
    inside = work / "documents"
    inside.mkdir()
    for path in documents.glob("*.jsonl.gz"):
        os.link(path, inside / path.name.replace(".jsonl.gz", ".json.gz"))
    program = [sys.executable, "-m", "dolma.cli"]
    threads = str(arguments.threads)
    taggers = ["gopher_v2", "pii_regex_with_counts_fast_v2"]
    yield [*program, "tag", "--documents", f"{inside}/*.json.gz", "--taggers", *taggers, "--processes", threads]
    yield [
        *program, "dedupe", "--documents", f"{inside}/*.json.gz", "--dedupe.name", "copies",
        "--dedupe.documents.attribute_name", "copy", "--dedupe.documents.key", "$.text", "--dedupe.skip_empty",
        "--bloom_filter.file", str(work / "bloom"), "--bloom_filter.size_in_bytes", "100000000",
        "--bloom_filter.estimated_doc_count", "1000000", "--bloom_filter.desired_false_positive_rate", "0.00001",
        "--no-bloom_filter.read_only", "--processes", threads,
    ]
    config = work / "mix.json"
    stream = {
        "name": "crawl",
        "documents": [f"{inside}/*.json.gz"],
        "attributes": [*taggers, "copies"],
        "output": {"path": str(work / "kept"), "max_size_in_bytes": 1_000_000_000},
        "filter": {
            "include": ["$.attributes[?(@.gopher_v2__gopher_v2__word_count && @.gopher_v2__gopher_v2__word_count[0][2] >= 50)]"],
            "exclude": ["$.attributes[?(@.copy && @.copy[0] && @.copy[0][2] >= 1.0)]"],
        },
    }
    config.write_text(json.dumps({"streams": [stream], "processes": arguments.threads}), encoding="utf-8")
    yield [*program, "-c", config, "mix"]


def measure(command) -> float:
    """Runs a command; its peak memory in bytes, that of its children summed where they live at a time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    peak = 0
    os.set_blocking(process.stderr.fileno(), False)
    said = b""
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        said += process.stderr.read() or b""
        time.sleep(0.2)
    said += process.stderr.read() or b""
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}: {said.decode(errors='replace')[-3000:]}")
    return peak


def resident(pid: int) -> int:
    total = 0
    try:
        total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    except (OSError, ValueError):
        pass
    return total


def report(results, text_bytes) -> None:
    medians = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in results.items()}
    print(f"{text_bytes / 1e6:.0f} MB of text, medians of {len(results['eulalia'])} rounds\n")
    print(f"{'program':12} {'MB/s':>8} {'seconds':>9} {'peak memory':>12} {'eulalia is':>12}")
    for name, seconds in medians.items():
        peak = max(peak for _, peak in results[name])
        ratio = "" if name == "eulalia" else f"{seconds / medians['eulalia']:.1f} x"
        print(f"{name:12} {text_bytes / 1e6 / seconds:8.2f} {seconds:9.1f} {peak / 1e9:9.2f} GB {ratio:>12}")


if __name__ == "__main__":
    sys.exit(main())
