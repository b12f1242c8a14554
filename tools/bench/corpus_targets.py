"""What the corpus side of eulalia reaches, beside what it is meant to reach: one table.

    cargo build --release && cargo build --release --examples -p languages -p corpus -p pages -p personal_data
    target/release/examples/crawl make CRAWL --gigabytes 5
    python tools/bench/corpus_targets.py target/release CRAWL [--quick] [--sib FOLDER] [--pages-python PYTHON] [--peers-python PYTHON]

CRAWL is a folder that the example `crawl` made; memory is meant at 5 GB of it. `--sib` is a folder laid out as for the example
`train_identifier`. trafilatura, dolma and datatrove run in the Python that has the packages of requirements-pages.txt and of
requirements-corpus.txt. What is not given is not measured, and the table says so. `--quick` takes fewer documents and rounds
and leaves dolma and datatrove out: figures for a first look, not for publishing. Ends with 1 if a target was missed.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent.parent / "crates/languages/data/identifier.bin"
PERSONAL_DATA = ["EmailAddress", "IpAddress", "PhoneNumber", "Iban", "PaymentCard", "NationalIdentifier"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=pathlib.Path, help="target/release")
    parser.add_argument("crawl", type=pathlib.Path, help="a folder of the example `crawl`")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sib", type=pathlib.Path, help="sentences for the language identifier")
    parser.add_argument("--pages-python", type=pathlib.Path, help="a Python with requirements-pages.txt")
    parser.add_argument("--peers-python", type=pathlib.Path, help="a Python with requirements-corpus.txt")
    arguments = parser.parse_args()
    parts = [("corpus", corpus), ("peers", peers), ("identifier", identifier), ("near duplicates", near_duplicates)]
    parts += [("pages", pages), ("personal data", personal_data)]
    rows = []
    for name, part in parts:
        began = time.monotonic()
        rows += part(arguments)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return report(rows)


def report(rows) -> int:
    """Rows of what, figure, target, and whether it is reached; `None` for figures without a target."""
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    print(f"\n{'what':{widths[0]}}  {'figure':>{widths[1]}}  {'target':{widths[2]}}")
    for what, figure, target, reached in rows:
        mark = {True: "reached", False: "MISSED", None: ""}[reached]
        print(f"{what:{widths[0]}}  {figure:>{widths[1]}}  {target:{widths[2]}}  {mark}".rstrip())
    return 1 if any(reached is False for *_, reached in rows) else 0


def least(what, value, target, unit="", digits=1):
    return what, f"{value:.{digits}f}{unit}", f"≥ {target:g}{unit}", value >= target


def most(what, value, target, unit="", digits=2):
    return what, f"{value:.{digits}f}{unit}", f"≤ {target:g}{unit}", value <= target


def not_measured(what, needs):
    return what, "not measured", f"needs {needs}", None


def run(*command) -> str:
    """What a command prints; its failure stops here."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def numbers(text, pattern):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise SystemExit(f"expected {pattern!r} in what was printed:\n{text[-3000:]}")
    return [float(number) for number in found.groups()]


def processor_seconds():
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def corpus(arguments):
    crawl = arguments.crawl
    counted = json.loads((crawl / "counts.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=crawl.parent) as folder:
        began, spent = time.monotonic(), processor_seconds()
        run(
            arguments.built / "eulalia", "corpus", "--documents", crawl / "files", "--output", folder, "--threads", arguments.threads,
            "--set", f"opt_outs={json.dumps(str(crawl / 'opt-outs.jsonl'))}",
        )
        seconds, spent = time.monotonic() - began, processor_seconds() - spent
        made = pathlib.Path(folder) / "corpus"
        peak = json.loads((made / "manifest.json").read_text(encoding="utf-8"))["circumstances"]["peak_memory_bytes"]
        checked = subprocess.run([str(arguments.built / "examples/crawl"), "check", str(crawl), str(made)], capture_output=True, text=True)
    megabytes = counted["text_bytes"] / 1e6
    found = "all" if checked.returncode == 0 else "not all"
    return [
        least(f"corpus stage, {megabytes:,.0f} MB of text, {arguments.threads} threads", megabytes / seconds, 40.0, " MB/s"),
        ("  where no other work runs, by processor time", f"≤ {megabytes * arguments.threads / spent:.1f} MB/s", "reported", None),
        most("  peak memory", peak / 1e9, 1.5, " GB"),
        ("  what was planted and found", found, "all", checked.returncode == 0),
    ]


def peers(arguments):
    if arguments.quick or not arguments.peers_python:
        return [not_measured("corpus stage beside dolma, datatrove", "--peers-python, and not --quick")]
    printed = run(
        arguments.peers_python, HERE / "compare_corpus.py", arguments.built / "eulalia", arguments.crawl, "--threads", arguments.threads,
    )
    return [
        least(f"corpus stage beside {peer}", *numbers(printed, rf"^{peer} .* ([\d.]+) x$"), target, " ×")
        for peer, target in [("dolma", 5.0), ("datatrove", 15.0)]
    ]


def identifier(arguments):
    size = most("identifier, size of the model", os.path.getsize(MODEL) / 1e6, 5.0, " MB")
    if not arguments.sib:
        return [size, not_measured("identifier, speed and accuracy", "--sib")]
    examples = arguments.built / "examples"
    speed = run(examples / "measure_identifier_speed", arguments.sib)
    accuracy = run(examples / "evaluate_identifier", arguments.sib)
    sentences = accuracy.split("## ")[1]
    of_each = dict(re.findall(r"\b([a-z]{2}) ([\d.]+)(?:  |$)", sentences.splitlines()[1]))
    of_24 = {code: float(share) for code, share in list(of_each.items())[:24] if code != "hr"}
    worst = min(of_24, key=of_24.get)
    mean = r"## {}: ([\d.]+) % over the 24"
    return [
        size,
        least("identifier, each text once, one core", *numbers(speed, r"^distinct: .* ([\d.]+) with the fastest"), 100.0, " MB/s"),
        ("  texts as repetitive as a crawl", f"{numbers(speed, r'^mix: .* ([0-9.]+) with the fastest')[0]:.1f} MB/s", "reported", None),
        least("  a sentence, mean of the 24", *numbers(accuracy, mean.format("whole sentences")), 98.5, " %", 2),
        least(f"  the worst of them but Croatian: {worst}", of_24[worst], 92.0, " %"),
        least("  Croatian beside Bosnian", float(of_each["hr"]), 85.0, " %"),
        ("  20–40 characters", f"{numbers(accuracy, mean.format('snippets[^:]*'))[0]:.2f} %", "reported", None),
        least("  five sentences together", *numbers(accuracy, mean.format("five sentences together")), 99.5, " %", 2),
    ]


def near_duplicates(arguments):
    documents = 4_000 if arguments.quick else 20_000
    printed = run(arguments.built / "examples/near_duplicates", documents, arguments.threads)
    below = int(*numbers(printed, r"^merged below the threshold +(\d+)"))
    chained = int(*numbers(printed, r"^for one that was dropped itself later +(\d+)"))
    largest = int(*numbers(printed, r"^most documents dropped for one +(\d+)"))
    return [
        least(f"near-duplicates, recall, {documents:,} documents", *numbers(printed, r"^recall +([\d.]+)"), 0.95, "", 4),
        ("  pairs merged below the threshold", str(below), "0", below == 0),
        ("  dropped for one dropped later; most for one", f"{chained}; {largest}", "reported", None),
    ]


def pages(arguments):
    if not arguments.pages_python:
        return [not_measured("main content beside trafilatura", "--pages-python")]
    options = ["--rounds", "1", "--pages-each", "1"] if arguments.quick else []
    printed = run(arguments.pages_python, HERE / "compare_pages.py", arguments.built / "examples", *options).replace(",", "")
    ours, theirs, theirs_fast = numbers(printed, r"^all +([\d.]+) +([\d.]+) +([\d.]+)$")
    held_out = numbers(printed, r"^held out +([\d.]+) +([\d.]+) +([\d.]+)$")
    faster, _ = numbers(printed, r"^eulalia is faster +([\d.]+)× +([\d.]+)×$")
    best = max(theirs, theirs_fast)
    return [
        ("main content, word F1", f"{ours:.4f}", f"≥ trafilatura's {best:.4f}", ours >= best),
        ("  layouts held out", f"{held_out[0]:.4f}", f"≥ trafilatura's {max(held_out[1:]):.4f}", held_out[0] >= max(held_out[1:])),
        least("  speed beside trafilatura", faster, 20.0, " ×", 0),
    ]


def personal_data(arguments):
    printed = run(arguments.built / "examples/precision_recall", "held_out")
    rows = []
    for kind in PERSONAL_DATA:
        precision, recall = numbers(printed, rf"^{kind} +\d+ +\d+ +\d+ +([\d.]+) +([\d.]+)$")
        name = re.sub(r"(?<!^)(?=[A-Z])", " ", kind).lower()
        reached = min(precision, recall) >= 0.95
        rows.append((f"personal data, {name}: precision, recall", f"{precision:.3f}, {recall:.3f}", "≥ 0.95 each", reached))
    return rows


if __name__ == "__main__":
    sys.exit(main())
