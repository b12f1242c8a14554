"""Turns a folder of public text collections into documents that the corpus stage reads. Needs nothing but Python.

    python3 tools/datasets/prepare_public_text.py FOLDER texts

FOLDER holds any of these, as published (ISO 639-1 codes):

    sib200/<language>.train.tsv   SIB-200: columns index_id, category, text; only its training part is read
    udhr/<language>.txt           the Universal Declaration of Human Rights, a paragraph a line
    ud/<language>.jsonl           text of Universal Dependencies treebanks: id, lang, license, source, text

`texts/documents/<language>.jsonl` has one document a line, `texts/parallel/<language>.txt` the same sentences in every
language, for the tokenizer's fairness report. `recipes/public-text.toml` trains on the result.
"""

import argparse
import csv
import json
import pathlib
import sys

OFFICIAL = "bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split()
SENTENCES_PER_DOCUMENT = 8
PARALLEL_SENTENCES = 64


def sib200(folder, language):
    """The sentences by their number: neighbours often come from one article."""
    path = folder / "sib200" / f"{language}.train.tsv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {int(row["index_id"]): row["text"].strip() for row in rows}


def documents(folder, language, sentences):
    """(id, text, license, source)"""
    numbers = sorted(sentences)
    for begin in range(0, len(numbers), SENTENCES_PER_DOCUMENT):
        part = numbers[begin : begin + SENTENCES_PER_DOCUMENT]
        text = "\n".join(sentences[number] for number in part)
        yield f"sib200-{language}-{part[0]}", text, "CC-BY-SA-4.0", "SIB-200"
    path = folder / "udhr" / f"{language}.txt"
    if path.exists():
        paragraphs = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for begin in range(0, len(paragraphs), 20):
            yield f"udhr-{language}-{begin}", "\n".join(paragraphs[begin : begin + 20]), "LicenseRef-public-domain", "UDHR"
    path = folder / "ud" / f"{language}.jsonl"
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            yield document["id"], document["text"], document["license"], document["source"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    arguments = parser.parse_args()
    sentences = {language: sib200(arguments.folder, language) for language in OFFICIAL}
    common = sorted(set.intersection(*(set(numbers) for numbers in sentences.values())))[:PARALLEL_SENTENCES]
    (arguments.output / "documents").mkdir(parents=True, exist_ok=True)
    (arguments.output / "parallel").mkdir(parents=True, exist_ok=True)
    count = 0
    for language in OFFICIAL:
        with (arguments.output / "documents" / f"{language}.jsonl").open("w", encoding="utf-8") as file:
            for name, text, license, source in documents(arguments.folder, language, sentences[language]):
                line = dict(id=name, license=license, language=language, source=source, text=text)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        parallel = "".join(sentences[language][number] + "\n" for number in common)
        (arguments.output / "parallel" / f"{language}.txt").write_text(parallel, encoding="utf-8")
    if count == 0:
        sys.exit(f"{arguments.folder}: none of sib200/, udhr/, ud/ holds a text in an official language")
    print(f"{count} documents, {len(common)} parallel sentences in {len(OFFICIAL)} languages: {arguments.output}")


if __name__ == "__main__":
    main()
