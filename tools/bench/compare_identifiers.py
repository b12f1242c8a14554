"""The language identifier beside lingua, whatlang and heliport: accuracy on the languages they share, and speed, in one table.

    python tools/bench/compare_identifiers.py FOLDER PROGRAM [--model FILE] [--megabytes 2]

FOLDER is laid out as for the example `train_identifier` of the crate `languages`; PROGRAM is its example `judge_lines`:

    cargo build --release -p languages --examples
    python tools/bench/compare_identifiers.py FOLDER target/release/examples/judge_lines

Texts are SIB-200's `test`: sentences, their first words up to 40 characters (20 at least), and five sentences together.
Accuracy is the mean over the languages that both know, of the 24 and of their 14 neighbours; ours has all 38 and `other`
in the choice. lingua is built for the 38 alone as far as it knows them, which is kind to it; whatlang and heliport choose
among all of theirs (69 and about 200). The same sentence of every language was translated from the same source, so no
language is easier by its topic. Speed is time of one core, in one thread, over the same shuffled documents of about 3,000
bytes in the 38 languages, with the mode that was judged.

Ours was trained on SIB-200's `train` and `dev`; with `--model` another model is measured, such as one trained with
`--without-sib`, which has seen no more of SIB-200 than the peers have.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import time

OF_24 = "bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split()
NEIGHBOURS = "bs ca eu gl is ka mk nb nn ru sq sr tr uk".split()
ISO_639_3 = dict(
    zip(
        OF_24 + NEIGHBOURS,
        "bul ces dan deu ell eng spa est fin fra gle hrv hun ita lit lav mlt nld pol por ron slk slv swe "
        "bos cat eus glg isl kat mkd nob nno rus sqi srp tur ukr".split(),
    )
)
FROM_ISO_639_3 = {three: two for two, three in ISO_639_3.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("program", type=pathlib.Path, help="the example judge_lines, built with --release")
    parser.add_argument("--model", type=pathlib.Path, help="another identifier.bin")
    parser.add_argument("--megabytes", type=float, default=2.0, help="how much text measures the speed of the peers")
    arguments = parser.parse_args()

    sentences = {code: read_sentences(arguments.folder, code) for code in OF_24 + NEIGHBOURS}
    kinds = {
        "sentences": sentences,
        "20–40 characters": {code: list(snippets(texts)) for code, texts in sentences.items()},
        "five sentences": {code: list(five_together(texts)) for code, texts in sentences.items()},
    }
    documents = shuffled_documents(arguments.folder)
    command = [arguments.program.resolve()]
    if arguments.model:
        command += ["--model", arguments.model.resolve()]

    def ours(texts):
        lines = "\n".join(text.replace("\n", " ") for text in texts) + "\n"
        done = subprocess.run(command, input=lines.encode(), capture_output=True, check=True)
        return done.stdout.decode().split("\n")[: len(texts)], float(done.stderr)

    our_answers = {
        kind: dict(zip(by_code, split(ours([text for texts in by_code.values() for text in texts])[0], by_code)))
        for kind, by_code in kinds.items()
    }
    our_speed = speed(ours, documents)
    print(f"ours alone: {our_speed:.1f} MB/s over {sum(map(size, documents)) / 1e6:.1f} MB")
    print()
    print("| peer | languages shared | text | peer | ours | of the 24: peer | ours | peer MB/s | ours MB/s |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    slice_of_documents = within(documents, arguments.megabytes * 1e6)
    behind = []
    for name, (known, judge) in peers().items():
        timed = timing(judge)
        peer_speed = speed(timed, within(slice_of_documents, 3e5) if name == "lingua" else slice_of_documents)
        shared = [code for code in OF_24 + NEIGHBOURS if code in known]
        for kind, by_code in kinds.items():
            answers = {code: judge(by_code[code]) for code in shared}
            row = []
            of_24 = [code for code in shared if code in OF_24]
            for choice, codes in (("all shared", shared), ("of the 24", of_24)):
                row += [mean_accuracy(answers, codes), mean_accuracy(our_answers[kind], codes)]
                if row[-1] < row[-2]:
                    behind.append(f"{name}, {kind}, {choice}")
            ratio = f"{peer_speed:.1f} | {our_speed:.1f}" if kind == "sentences" else " | "
            print(f"| {name} | {len(shared)} | {kind} | " + " | ".join(f"{value:.2f} %" for value in row) + f" | {ratio} |")
        if our_speed < peer_speed:
            behind.append(f"{name}, speed")
    print()
    print(f"ours is behind in: {'; '.join(behind)}" if behind else "ours is nowhere behind")
    return 0


def peers():
    """Name, the languages it knows, and what names the languages of some texts."""
    import heliport
    import lingua
    import whatlang

    wanted = set(OF_24 + NEIGHBOURS)
    languages = [language for language in lingua.Language.all() if language.iso_code_639_1.name.lower() in wanted]
    detector = lingua.LanguageDetectorBuilder.from_languages(*languages).with_preloaded_language_models().build()

    def judge_lingua(texts):
        found = (detector.detect_language_of(text) for text in texts)
        return [language.iso_code_639_1.name.lower() if language else None for language in found]

    def judge_whatlang(texts):
        return [FROM_ISO_639_3.get(whatlang.detect(text).lang) for text in texts]

    identifier = heliport.Identifier()

    def judge_heliport(texts):
        return [FROM_ISO_639_3.get(identifier.identify(text)[:3]) for text in texts]

    # Of the 38, whatlang lacks eight; heliport does not tell Bosnian, Croatian and Serbian apart (`hbs`).
    of_whatlang = wanted - set("bs eu ga gl is mt nn sq".split())
    of_heliport = wanted - set("bs hr sr".split())
    return {
        "lingua": ({language.iso_code_639_1.name.lower() for language in languages}, judge_lingua),
        "whatlang": (of_whatlang, judge_whatlang),
        "heliport": (of_heliport, judge_heliport),
    }


def read_sentences(folder, code, splits=("test",)):
    sentences = []
    for split_name in splits:
        lines = (folder / "sib200" / f"{code}.{split_name}.tsv").read_text(encoding="utf-8").split("\n")
        sentences += [line.split("\t")[2] for line in lines[1:] if line.count("\t") >= 2]
    return sentences


def snippets(sentences):
    for sentence in sentences:
        snippet = ""
        for word in sentence.split(" "):
            longer = f"{snippet} {word}".strip()
            if len(longer) > 40:
                break
            snippet = longer
        if len(snippet) >= 20:
            yield snippet


def five_together(sentences):
    for start in range(0, len(sentences) - 4, 5):
        yield " ".join(sentences[start : start + 5])


def shuffled_documents(folder):
    documents = []
    for code in OF_24 + NEIGHBOURS:
        sentences = read_sentences(folder, code, ("train", "dev", "test"))
        sentences += (folder / "udhr" / f"{code}.txt").read_text(encoding="utf-8").split("\n")
        document = ""
        for sentence in sentences:
            document += sentence.strip() + " "
            if size(document) >= 3_000:
                documents.append(document)
                document = ""
    random.Random(1).shuffle(documents)
    return documents


def size(text):
    return len(text.encode())


def within(documents, limit_bytes):
    """The first documents, up to so many bytes."""
    taken, total = [], 0
    for document in documents:
        if total >= limit_bytes:
            break
        taken.append(document)
        total += size(document)
    return taken


def split(answers, by_code):
    """Answers to the texts of all languages in a row, by language."""
    start = 0
    for texts in by_code.values():
        yield answers[start : start + len(texts)]
        start += len(texts)


def mean_accuracy(answers, codes):
    return 100.0 * sum(sum(answer == code for answer in answers[code]) / len(answers[code]) for code in codes) / len(codes)


def timing(judge):
    def timed(texts):
        start = time.process_time()
        answers = judge(texts)
        return answers, time.process_time() - start

    return timed


def speed(timed, documents):
    """Megabytes a second, the best of three."""
    seconds = min(timed(documents)[1] for _ in range(3))
    return sum(map(size, documents)) / 1e6 / seconds


if __name__ == "__main__":
    sys.exit(main())
