"""Tokenizers of every kind and chat templates, in transformers and here.

    cargo build -p tokenizer --example ids
    python tools/oracles/fuzz_tokenizers.py target/debug/examples/ids [--seed N] [--count N]

Makes tokenizers as published folders have them: byte-level BPE with and without a space in front, with several rules of
cutting, BPE with byte fallback and metaspaces, Unigram, WordPiece; added tokens that take spaces with them, in tokenizer.json or
in tokenizer_config.json alone; beginnings and ends by the post-processor or by add_bos_token; chat templates in each of the
places where they may stand. Ids, texts and prompts must be those of transformers. Prints each difference, and a count by kind.

Needs the packages of requirements.txt.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "", " ", "  two  spaces ", "Hello world", "Zażółć gęślą jaźń", "Größe – äöüß ẞ", "Μπορείς;", "\n\n\tline\r\nnext\n", "a<x>b <x> c  <x>  d",
    "<s>begin</s> end", "don't I'll 12345 3.14", "emoji 😀👩‍👩‍👧 𝒳", "e\u0301 é", "\u00a0nbsp\u2003em", "日本語テキスト", "x" * 300, "</s></s><s>",
    "<|im_start|>user\nhi<|im_end|>", "\u0000\u0001", "▁meta ▁ space", "ﬁ ligature ½", "A\u200bB\ufeffC", " <y> y<y>", "<z>z <z>",
]
CORPUS = [text for text in TEXTS if text and "\0" not in text] * 4 + ["the quick brown fox jumps over the lazy dog", "das Wort über alles"] * 5

TEMPLATES = {
    "plain": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    "tokens": "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content | trim + eos_token }}{% endfor %}",
    "sep": "{{ cls_token }}{{ sep_token }}{{ mask_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}",
    "date": "{{ strftime_now('%Y') | length }}{% if strftime_now is defined %}!{% endif %}{{ messages[0].content }}",
    "raise": "{% if messages[0].role != 'user' %}{{ raise_exception('no user') }}{% endif %}{{ messages[0].content }}",
    "namespace": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.content %}{% endfor %}{{ ns.n }}{{ ns.last }}",
    "loops": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ m.content }}{% endfor %}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{% if tools %}{{ tools | tojson(indent=4) }}{% endif %}",
    "macro": "{% macro say(m, end='.') %}<{{ m.role }}>{{ m.content }}{{ end }}{% endmacro %}{% for m in messages %}{{ say(m) }}{{ say(m, end='!') }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "python": "{% for m in messages %}{{ m.content.strip().upper().split(' ')[0] }}|{{ m.items() | list | length }}|{{ m.get('x', 'none') }}|{{ m.content[1:3] }}|{{ m.content[::-1] }}{% endfor %}",
    "filters": "{% for m in messages | selectattr('role', 'equalto', 'user') | list %}{{ m.content | replace('a', 'b') | capitalize }}{% endfor %}{{ messages | map(attribute='role') | unique | join(',') }}{{ (messages | length) % 2 }}{{ messages[-1].content | default('x', true) | indent(2) }}",
    "groups": "{% for r, ms in messages | groupby('role') %}{{ r }}={{ ms | length }};{% endfor %}{{ '%s-%d' | format('a', 3) }}{{ 'x' ~ 1 ~ 2.0 }}{{ 7 // 2 }}{{ 2 ** 3 }}{{ 1 in [1, 2] }}{{ none }}{{ true }}",
    "else": "{%- for m in messages if m.role == 'tool' -%} {{ m }} {%- else -%} nothing {%- endfor -%}{# c #}\n  {%- set x = [] -%}{%- for m in messages -%}{%- set _ = x.append(m.role) -%}{%- endfor -%}{{ x }}",
    "white": "  {% if true %}\n    a\n  {% endif %}\n\n  {{- ' b ' -}}  \n{% raw %}{{ x }}{% endraw %}\n",
    "dict": "{% set d = dict(a=1, b='x') %}{{ d }}{{ d.a }}{{ {'k': [1, 2.5, none, true, 'é\"']} }}{{ {'k': 'é'} | tojson }}{{ d | dictsort }}",
    "call": "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}{{ messages[0].content }}{% endcall %}{% filter upper %}{{ messages[0].content }}{% endfilter %}{% set c %}<{{ messages | length }}>{% endset %}{{ c }}{% with q = 3 %}{{ q }}{% endwith %}",
    "tests": "{{ messages is iterable }}{{ messages is mapping }}{{ 'a' is string }}{{ 3 is number }}{{ x is defined }}{{ x is undefined }}{{ none is none }}{{ 4 is even }}{{ 4 is divisibleby 2 }}{{ messages[0].content is in 'abc' }}{{ true is boolean }}{{ 1 is integer }}{{ 1.5 is float }}{{ [1] is sequence }}{{ 1 is sameas 1 }}",
    "strings": "{% for m in messages %}{{ m.content.startswith('a') }}{{ m.content.endswith(('b', 'c')) }}{{ m.content.lstrip('aA ') }}{{ m.content.rstrip() }}{{ m.content.replace('a', 'b', 1) }}{{ m.content.find('b') }}{{ m.content.count('a') }}{{ m.content.title() }}{{ m.content.rsplit(' ', 1) }}{{ m.content.splitlines() }}{{ m.content.isdigit() }}{{ ', '.join(['x', 'y']) }}{{ m.content.zfill(4) }}{% endfor %}",
    "numbers": "{{ 1.0 }} {{ 1e20 }} {{ 3 / 2 }} {{ 4 / 2 }} {{ 10 | float }} {{ '3' | int + 1 }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 5 | string }} {{ [3, 1, 2] | sort }} {{ [1, 2] | sum }} {{ [1, 5] | max }} {{ range(1, 7, 2) | list }} {{ [1, 2, 3] | reverse | list }} {{ [1, 2, 3, 4] | batch(2) | list }} {{ [1, 2, 3][1:] }} {{ 'abc' | first }}{{ 'abc' | last }}",
}
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "hello World a"}], "add_generation_prompt": True},
    {"messages": [{"role": "system", "content": " be brief "}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "b\nc\n"},
                  {"role": "user", "content": "naïve <s> text"}], "add_generation_prompt": False},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "ab"}], "add_generation_prompt": True,
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2.5, None, "é<>&'"]}}}]},
]


def make_tokenizer(draw: random.Random):
    kind = draw.choice(["bytes", "bytes", "bytes regex", "metaspace", "metaspace old", "unigram", "wordpiece", "words"])
    special = ["<s>", "</s>", "<unk>", "<pad>"]
    if kind.startswith("bytes"):
        tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=draw.random() < 0.3))
        prefix = draw.random() < 0.3
        if kind == "bytes":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=draw.random() < 0.8)
        else:
            rule = draw.choice([r"\p{N}{1,3}|[^\s\p{N}]+|\s+", r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"])
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(rule), draw.choice(["isolated", "merged_with_previous", "removed"])),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)])
        tokenizer.normalizer = draw.choice([None, normalizers.NFC(), normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(CORPUS, trainer)
    elif kind.startswith("metaspace"):
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        vocabulary = {token: number for number, token in enumerate(special + alphabet)}
        merges = []
        for piece in ["▁", *"abcdefghijklmnopqrstuvwxyzäöüßéżółć", "th", "the", "▁t", "▁th", "▁the", "er", "▁w", "or", "▁wor", "ld"]:
            if piece in vocabulary:
                continue
            vocabulary[piece] = len(vocabulary)
            for cut in range(1, len(piece)):
                if piece[:cut] in vocabulary and piece[cut:] in vocabulary:
                    merges.append((piece[:cut], piece[cut:]))
                    break
        tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        scheme = draw.choice(["always", "never", "first"])
        if kind == "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=draw.random() < 0.5)
            tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
                                                  + ([decoders.Strip(" ", 1, 0)] if scheme != "never" else []))
        else:
            steps = [normalizers.Replace(" ", "▁")]
            if scheme != "never":
                steps.insert(0, normalizers.Prepend("▁"))
            tokenizer.normalizer = normalizers.Sequence(steps)
            tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
                                                  + ([decoders.Strip(" ", 1, 0)] if scheme != "never" else []))
    elif kind == "unigram":
        pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<pad>", 0.0)] + [
            (piece, -1.0 - index / 10) for index, piece in enumerate(["▁", *"etaoinshrdlucmwfgypbvkxjqzäöüß", "▁the", "▁hello", "er", "in", "▁world"])]
        fallback = draw.random() < 0.5
        if fallback:
            pieces += [(f"<0x{byte:02X}>", -10.0) for byte in range(256)]
        tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=fallback))
        tokenizer.normalizer = draw.choice([None, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        scheme = draw.choice(["always", "first", "never"])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme)
        plain = decoders.Metaspace("▁", scheme)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), plain]) if fallback else plain
    elif kind == "wordpiece":
        words = ["[UNK]", "<s>", "</s>", "<pad>", "<unk>", "hello", "world", "##s", "the", "##er", *"abcdefgh", *[f"##{c}" for c in "abcdefgh"]]
        tokenizer = tokenizers.Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=draw.random() < 0.5)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    else:
        words = {word: number for number, word in enumerate(special + ["hello", "world", "Hello", "the"])}
        tokenizer = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    added = []
    for content in ["<x>", "<y>", "<z>", "<|im_start|>", "<|im_end|>"]:
        if draw.random() < 0.7:
            added.append(AddedToken(
                content, lstrip=draw.random() < 0.3, rstrip=draw.random() < 0.3, single_word=draw.random() < 0.15,
                normalized=draw.random() < 0.3, special=draw.random() < 0.6))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([token for token in added if not token.special])
    tokenizer.add_special_tokens([token for token in added if token.special])
    begin = draw.choice(["none", "processor", "processor both"])
    if begin != "none":
        end = " </s>" if begin.endswith("both") else ""
        tokenizer.post_processor = processors.TemplateProcessing(
            f"<s> $A{end}", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")])
    elif kind.startswith("bytes") and draw.random() < 0.5:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return kind, tokenizer


def write_folder(draw: random.Random, folder: pathlib.Path, oddities: bool):
    kind, tokenizer = make_tokenizer(draw)
    tokens = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    if draw.random() < 0.3:
        tokens |= dict(cls_token="<s>", sep_token="</s>", mask_token="<unk>")
    for name in ("unk_token", "pad_token", "bos_token"):
        if draw.random() < 0.2:
            del tokens[name]
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **tokens)
    whole.save_pretrained(folder)
    name = draw.choice(sorted(TEMPLATES))
    place = draw.choice(["config", "file", "list", "list with tools", "both", "additional"])
    path = folder / "tokenizer_config.json"
    keys = json.loads(path.read_text())
    template, other = TEMPLATES[name], TEMPLATES[draw.choice(sorted(TEMPLATES))]
    if place == "config":
        keys["chat_template"] = template
    elif place == "file":
        (folder / "chat_template.jinja").write_text(template)
    elif place == "list":
        keys["chat_template"] = [{"name": "rag", "template": other}, {"name": "default", "template": template}]
    elif place == "list with tools":
        keys["chat_template"] = [{"name": "default", "template": template}, {"name": "tool_use", "template": other}]
    elif place == "both":
        keys["chat_template"] = other
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.jinja").write_text(template)
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(other)
    note = ""
    if oddities:
        note = draw.choice(["add_bos_token", "added_tokens_decoder", "special_tokens_map", "object", "truncation", "no config"])
        if note == "add_bos_token":
            keys |= dict(add_bos_token=draw.random() < 0.6, add_eos_token=draw.random() < 0.4)
            note += f" {keys['add_bos_token']} {keys['add_eos_token']}"
        elif note == "added_tokens_decoder":
            size = len(whole)
            keys["added_tokens_decoder"] = {
                str(size): dict(content="<|extra|>", lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)}
        elif note == "special_tokens_map":
            kept = {name: keys.pop(name) for name in list(keys) if name.endswith("_token")}
            (folder / "special_tokens_map.json").write_text(json.dumps(kept))
        elif note == "object":
            for key in [name for name in keys if name.endswith("_token")]:
                keys[key] = dict(content=keys[key], lstrip=False, normalized=False, rstrip=False, single_word=False, __type="AddedToken")
        elif note == "truncation":
            tokenizer.enable_truncation(4)
            tokenizer.enable_padding(length=9)
            tokenizer.save(str(folder / "tokenizer.json"))
    path.write_text(json.dumps(keys))
    if note == "no config":
        path.unlink()
    return kind, f"{place} {name}", note


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--oddities", action="store_true")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    counts = collections.Counter()
    for number in range(arguments.count):
        draw = random.Random(f"{arguments.seed} {number}")
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            kind, template, note = write_folder(draw, folder, arguments.oddities)
            try:
                theirs = transformers.AutoTokenizer.from_pretrained(folder) if note != "no config" else transformers.PreTrainedTokenizerFast(
                    tokenizer_file=str(folder / "tokenizer.json"))
            except Exception as error:
                counts[f"{kind}: transformers refuses"] += 1
                print(number, kind, note, f"{type(error).__name__}: {error}"[:200])
                continue
            cases = [{"text": text} for text in TEXTS + ["a<|extra|>b"]] + (CONVERSATIONS if note != "no config" else [])
            reply = subprocess.run(
                [arguments.program, folder], input="".join(json.dumps(case) + "\n" for case in cases), capture_output=True, text=True, timeout=120)
            if reply.returncode:
                counts[f"{kind}: refused"] += 1
                print(number, kind, template, note, reply.stderr[-300:])
                continue
            for case, line in zip(cases, reply.stdout.splitlines()):
                found = json.loads(line)
                if "text" in case:
                    ids = theirs(case["text"])["input_ids"]
                    expected = {
                        "ids": ids, "plain": theirs(case["text"], add_special_tokens=False)["input_ids"],
                        "decoded": theirs.decode(ids), "skipped": theirs.decode(ids, skip_special_tokens=True)}
                else:
                    given = {key: value for key, value in case.items() if key != "messages"}
                    try:
                        rendered = theirs.apply_chat_template(case["messages"], tokenize=False, **given)
                        expected = {"rendered": rendered, "ids": theirs(rendered, add_special_tokens=False)["input_ids"]}
                    except Exception as error:
                        expected = {"refused": str(error)}
                if "refused" in expected and "refused" in found:
                    counts["both refuse"] += 1
                    continue
                differing = [key for key in expected if found.get(key) != expected[key]]
                counts[f"{kind}: " + (f"other {', '.join(differing)}" if differing else "equal")] += 1
                if differing:
                    key = differing[0]
                    print(number, kind, "" if "text" in case else template, note, repr(case.get("text", "chat"))[:40], key, "\n  ours  ", str(found.get(key, found))[:300], "\n  theirs", str(expected[key])[:300])
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    return 1 if any("other" in name for name in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
