"""Main content of web pages beside trafilatura, in one run: word F1 by layout and language, and pages a second.

    cargo build --release -p pages --examples
    python tools/bench/compare_pages.py target/release/examples [--rounds 3] [--pages-each 2] [--json FILE]

The pages are those of crates/pages/tests: 24 languages, sixteen layouts, of which six are held out (no rule of the
extractor was chosen by looking at them). Both programs get the same bytes, on one thread, and take turns; what is
measured is processor time, which other work on the machine touches least. trafilatura runs as its documentation suggests for
text (comments left out, tables kept), once as it is and once with `fast=True`, which leaves out its fallbacks. It cannot
be told the charset of the HTTP header, so pages that name it only there are decoded for it beforehand.
"""

import argparse
import collections
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import trafilatura

PROGRAMS = ["eulalia", "trafilatura", "trafilatura fast"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=pathlib.Path, help="the folder of the built examples of the crate `pages`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages-each", type=int, default=2, help="pages of each layout in each language")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the pages here")
    parser.add_argument("--json", type=pathlib.Path, help="also write the scores of every page to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        subprocess.run([arguments.examples / "make_pages", folder, str(arguments.pages_each)], check=True)
        pages = read_pages(folder)
        texts, seconds = {}, collections.defaultdict(list)
        for number in range(1, arguments.rounds + 1):
            for program in PROGRAMS:
                texts[program], spent = ours(arguments.examples, folder) if program == "eulalia" else theirs(program, pages)
                seconds[program].append(spent)
                print(f"round {number}: {program}: {len(pages) / spent:.0f} pages/s", file=sys.stderr)
    scores = {program: [word_f1(texts[program][page["name"]], page["expected"]) for page in pages] for program in PROGRAMS}
    if arguments.json:
        rows = [{"name": page["name"], **{program: scores[program][place] for program in PROGRAMS}} for place, page in enumerate(pages)]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    report(pages, scores, seconds)
    return 0


def read_pages(folder):
    pages = [json.loads(line) for line in (folder / "pages.jsonl").read_text(encoding="utf-8").splitlines()]
    for page in pages:
        page["bytes"] = (folder / f"{page['name']}.html").read_bytes()
        page["expected"] = (folder / f"{page['name']}.txt").read_text(encoding="utf-8")
        in_header = "charset" in page["content_type"]
        page["input"] = page["bytes"].decode(page["encoding"]) if in_header else page["bytes"]
    return pages


def ours(examples, folder):
    """Seconds of processor time a pass: of many passes, reading the files and printing the texts once included."""
    passes = 20
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [examples / "extract_pages", folder, str(passes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {line["name"]: line["text"] for line in lines}, spent / (passes + 1)


def theirs(program, pages):
    began = time.process_time()
    fast = program.endswith("fast")
    texts = {
        page["name"]: trafilatura.extract(page["input"], include_comments=False, include_tables=True, fast=fast) or ""
        for page in pages
    }
    return texts, time.process_time() - began


def words(text):
    return collections.Counter(re.findall(r"[^\W_]+", text.lower()))


def word_f1(found, expected):
    found, expected = words(found), words(expected)
    return 2 * (found & expected).total() / max(1, found.total() + expected.total())


def report(pages, scores, seconds):
    groups = [("all", lambda page: True), ("held out", lambda page: page["held_out"])]
    groups += [(layout, lambda page, layout=layout: page["layout"] == layout) for layout in dict.fromkeys(page["layout"] for page in pages)]
    groups += [(variant, lambda page, variant=variant: page["variant"] == variant) for variant in dict.fromkeys(page["variant"] for page in pages)]
    groups += [(f"held out, {variant}", lambda page, variant=variant: page["variant"] == variant and page["held_out"]) for variant in dict.fromkeys(page["variant"] for page in pages)]
    groups += [(language, lambda page, language=language: page["language"] == language) for language in dict.fromkeys(page["language"] for page in pages)]
    print(f"\n{'word F1, mean of pages':24}" + "".join(f"{program:>18}" for program in PROGRAMS))
    for name, belongs in groups:
        means = [statistics.mean(score for page, score in zip(pages, scores[program]) if belongs(page)) for program in PROGRAMS]
        print(f"{name:24}" + "".join(f"{mean:18.4f}" for mean in means))
    size = sum(len(page["bytes"]) for page in pages) / 1e6
    medians = {program: statistics.median(spent) for program, spent in seconds.items()}
    print(f"\n{len(pages)} pages, {size:.1f} MB; median of {len(seconds['eulalia'])} rounds, a second of one processor")
    for label, value in [("pages/s", len(pages)), ("MB of HTML/s", size)]:
        print(f"{label:24}" + "".join(f"{value / medians[program]:18,.1f}" for program in PROGRAMS))
    print(f"{'eulalia is faster':24}{'':18}" + "".join(f"{medians[program] / medians['eulalia']:17,.0f}×" for program in PROGRAMS[1:]))


if __name__ == "__main__":
    sys.exit(main())
