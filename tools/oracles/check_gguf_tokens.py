"""Token ids in llama.cpp of a file written here, beside those of the tokenizer itself, in the languages of a sample.

    python tools/oracles/check_gguf_tokens.py target/release/eulalia runs/tiny/release samples/tiny [--names NAME ...]

Prints for each language the share of tokens that llama.cpp does not give at the same place. `--names` also tries other rules
of llama.cpp (`tokenizer.ggml.pre`) in the same file, with every token of the usual kind. Texts are the documents
(`documents/<language>.jsonl`), parallel sentences and conversations of the sample.

Needs `llama-cpp-python==0.3.36`, `gguf==0.19.0` and `tokenizers` (it comes with transformers).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import tokenizers

# Most tokens of a language that may differ: sentences that begin with a word and an apostrophe that no token is.
MOST = 0.005


def read_texts(sample: pathlib.Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for file in sorted(sample.glob("documents/??.jsonl")):
        texts.setdefault(file.stem, []).extend(json.loads(line)["text"] for line in file.open())
    for file in sorted(sample.glob("parallel/??.txt")):
        texts.setdefault(file.stem, []).extend(file.read_text().splitlines())
    for file in sorted(sample.glob("conversations/??.jsonl")):
        turns = (turn for line in file.open() for turn in json.loads(line)["messages"])
        texts.setdefault(file.stem, []).extend(turn["content"] for turn in turns)
    return {language: [text for text in found if text] for language, found in texts.items()}


def vocabulary_only(file: pathlib.Path, target: pathlib.Path, rule: str | None) -> None:
    """The file without its weights; with `rule`, named so and all tokens as `tokenizer.json` has them."""
    reader = gguf.GGUFReader(file)
    whole = json.loads(reader.fields["tokenizer.huggingface.json"].contents())
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "tokenizer.huggingface.json"):
            continue
        value, kind = field.contents(), field.types[0]
        if rule and key == "tokenizer.ggml.pre":
            value = rule
        if rule and key == "tokenizer.ggml.merges":
            value = [merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"]]
        if rule and key == "tokenizer.ggml.tokens":
            for token, place in whole["model"]["vocab"].items():
                value[place] = token
        if rule and key == "tokenizer.ggml.token_type":
            for place in whole["model"]["vocab"].values():
                value[place] = 1
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def places(ids: list[int], lengths: list[int]) -> set[tuple[int, int]]:
    """Each token with where it begins, in bytes."""
    found, at = set(), 0
    for token in ids:
        found.add((at, token))
        at += lengths[token]
    return found


def differing(file: pathlib.Path, own: tokenizers.Tokenizer, texts: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """For each language, tokens that llama.cpp does not give at their place, and all."""
    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    vocabulary = own.get_vocab(with_added_tokens=True)
    lengths = [0] * (max(vocabulary.values()) + 1)
    for token, place in vocabulary.items():
        # A character of a byte-level vocabulary is a byte; other tokens are told apart by their ids alone.
        lengths[place] = len(token)
    found = {}
    for language, of_language in texts.items():
        missed = total = 0
        for text in of_language:
            expected = places(own.encode(text, add_special_tokens=False).ids, lengths)
            given = places(model.tokenize(text.encode(), add_bos=False, special=False), lengths)
            missed += len(expected - given)
            total += len(expected)
        found[language] = (missed, total)
    return found


def row(name: str, found: dict[str, tuple[int, int]]) -> str:
    missed, total = (sum(column) for column in zip(*found.values()))
    shares = " ".join(f"{language} {100 * m / t:.2f}" for language, (m, t) in found.items())
    return f"{name}: {100 * missed / total:.3f} % of {total} tokens; {shares}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("sample", type=pathlib.Path)
    parser.add_argument("--names", nargs="*", default=[])
    arguments = parser.parse_args()
    own = tokenizers.Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    texts = read_texts(arguments.sample)
    assert len(texts) == 24, sorted(texts)
    with tempfile.TemporaryDirectory() as folder:
        file, target = pathlib.Path(folder) / "model.gguf", pathlib.Path(folder) / "vocabulary.gguf"
        command = [arguments.program, "convert", arguments.model, file]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        vocabulary_only(file, target, None)
        written = differing(target, own, texts)
        print(row("as written", written))
        for name in arguments.names:
            vocabulary_only(file, target, name)
            print(row(name, differing(target, own, texts)), flush=True)
    too_far = [language for language, (missed, total) in written.items() if missed > MOST * total]
    if too_far:
        print(f"more than {100 * MOST} % differ in {', '.join(too_far)}")
    return 1 if too_far else 0


if __name__ == "__main__":
    sys.exit(main())
