"""Makes crates/personal_data/tests/data/<language>.jsonl from the frames; see README.md.

A line: {"half": "tune" or "held_out", "text": …, "expected": [{"kind": …, "form": …, "start": …, "end": …}]} with byte
places in the text's UTF-8. What is not expected is not to be found. The same frames and seed give the same bytes.
"""

import json
import pathlib
import random
import re

import identifiers
import lookalikes
import values

HERE = pathlib.Path(__file__).parent
OUTPUT = HERE / ".." / ".." / ".." / "crates" / "personal_data" / "tests" / "data"
SEED = 20261121
SLOT = re.compile(r"\{([a-z_0-9]+)\}")

# How often a frame is filled, by its first slot.
TIMES = {"email": 6, "ip": 5, "ipv4": 5, "phone": 8, "phone_international": 6, "iban": 8, "card": 6}
IDENTIFIER_TIMES = 8
LOOKALIKE_TIMES = 8


def value(slot, language, generator):
    """(kind or None, form, text)"""
    if slot == "email":
        return "email_address", "email", values.email(generator)
    if slot == "ipv4" or slot == "ip" and generator.random() < 0.5:
        return "ip_address", "v4", values.ipv4(generator)
    if slot == "ip":
        return "ip_address", "v6", values.ipv6(generator)
    if slot == "phone":
        country = generator.choice(values.COUNTRIES[language])
        if generator.random() < 0.15:
            country = generator.choice(values.MEMBERS)
            return "phone_number", f"{country} international", values.phone_international(generator, country)
        text, is_national = values.phone(generator, country)
        return "phone_number", f"{country} {'national' if is_national else 'international'}", text
    if slot == "phone_international":
        country = generator.choice(values.MEMBERS)
        return "phone_number", f"{country} international", values.phone_international(generator, country)
    if slot == "iban":
        own = generator.choice(values.COUNTRIES[language])
        country = generator.choice([own, generator.choice(values.SEPA)])
        return "iban", country, values.iban(generator, country)
    if slot == "card":
        text, network = values.card(generator)
        return "payment_card", network, text
    if identifiers.is_known(slot):
        return "national_identifier", slot, identifiers.make(slot, language, generator)
    return None, slot, lookalikes.MAKERS[slot](generator)


def fill(sentence, language, generator):
    """(text, expected)"""
    text, expected, copied = "", [], 0
    for slot in SLOT.finditer(sentence):
        text += sentence[copied : slot.start()]
        kind, form, made = value(slot[1], language, generator)
        if kind:
            start = len(text.encode())
            expected.append({"kind": kind, "form": form, "start": start, "end": start + len(made.encode())})
        text += made
        copied = slot.end()
    return text + sentence[copied:], expected


def times(sentence):
    first = SLOT.search(sentence)[1]
    if identifiers.is_known(first):
        return IDENTIFIER_TIMES
    return TIMES.get(first, LOOKALIKE_TIMES)


def main():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for path in sorted((HERE / "frames").glob("*.txt")):
        language = path.stem
        generator = random.Random(f"{SEED} {language}")
        lines = []
        for frame in path.read_text(encoding="utf-8").splitlines():
            half, _, sentence = frame.partition("|")
            for _ in range(times(sentence)):
                text, expected = fill(sentence, language, generator)
                half_name = {"1": "tune", "2": "held_out"}[half]
                line = {"half": half_name, "text": text, "expected": expected}
                lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
        (OUTPUT / f"{language}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{language} {len(lines)}")


if __name__ == "__main__":
    main()
