"""What an independent validator says of JSON texts, for the tests of answers held to a schema.

    pip install jsonschema==4.26.0 && python tools/oracles/make_schema_verdicts.py

The tests of crate `inference` judge answers by a small validator of their own (tests/it/validator.rs). Here `jsonschema` judges
texts of all kinds under the same schemas; the tests compare. Reads crates/inference/tests/golden/schemas.json (the schemas of
the tests), writes crates/inference/tests/golden/schema_verdicts.json.
"""

import json
import pathlib

import jsonschema

GOLDEN = pathlib.Path(__file__).parents[2] / "crates" / "inference" / "tests" / "golden"

# Values that the schemas are about, and values beside them.
VALUES = [
    None, True, False, 0, 1, 5, 6, 8, 9, -3, -4, 17, 99, 100, 1200, 1201, 1950, 0.5, 0.25, 99.5, 99.6, -90, 90.5, 1.5, "", "a", "b", "ab", "abc",
    "abcd", "abcdefghijkl", "abcdefghijklm", "ναι", "όχι", "ίσως", "Ħaż-Żebbuġ\n\"{}\"", "Köln", "Łódź", "Ρόδος", "staff", "guest", "other", "ÅÄ-123",
    "ÅÄ-12", "AB-12345", "2024-02-29", "łąä€😀x", [], [1], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5], [True, "a"], [True, "b", None], [True, "c"],
    ["a", True], [True, "a", None, None, None], [1.5, -90], [0, 91], [True], [True, False], [True, False, True], [1, "a"], {}, {"a": [1]}, {"a": True},
    {"a": True, "b": None}, {"b": None}, {"b": 1}, {"a": 1}, {"a": True, "c": 5}, {"a": True, "c": 10}, {"a": True, "c": "x"}, {"име": "Ана", "възраст": 3},
    {"име": "Ана"}, {"име": "Анастасия", "възраст": 3}, {"име": "", "възраст": 3, "x": 1}, {"name": "Cork", "at": [1, 2]}, {"name": "Corky", "at": [1, 2]},
    {"name": "Cork", "at": [1]}, {"leaf": True, "below": None}, {"leaf": True, "below": {"leaf": False, "below": None}},
    {"leaf": True, "below": {"leaf": 1, "below": None}}, {"leaf": True}, {"people": []},
    {"people": [{"kind": "staff", "since": 1950, "address": {"city": "Köln"}}]}, {"people": [{"kind": "staff", "since": 1949, "address": {"city": "Köln"}}]},
    {"people": [{"kind": "guest", "since": 2000, "address": {}}]}, {"people": [{"kind": "guest", "since": 2000, "address": {"city": "Bonn"}}]},
    {"people": [{"kind": "staff", "since": 2030, "address": {"city": "Łódź"}}] * 4},
    {"παρατήρηση": None}, {"παρατήρηση": "ναι", "ratings": {"x": 3}}, {"παρατήρηση": "ναι", "ratings": {"x": 6}}, {"ratings": {}},
    ["ő", None], ["ő", "ġ"], ["ő", "x"], ["ő"], ["ő", "ġ", "ķ"], {"kind": "a", "n": 3}, {"kind": "b", "on": True}, {"kind": "a", "on": True},
]


def main() -> None:
    schemas = json.loads((GOLDEN / "schemas.json").read_text(encoding="utf-8"))
    verdicts = []
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        verdicts.append("".join("01"[validator.is_valid(value)] for value in VALUES))
    golden = {"jsonschema": "4.26.0", "values": VALUES, "verdicts": verdicts}
    (GOLDEN / "schema_verdicts.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    ones = sum(verdict.count("1") for verdict in verdicts)
    print(f"{len(schemas)} schemas, {len(VALUES)} values, {ones} of {sum(map(len, verdicts))} valid")
    if never := [place for place, verdict in enumerate(verdicts) if "1" not in verdict or "0" not in verdict]:
        print("one-sided:", [schemas[place] for place in never])


if __name__ == "__main__":
    main()
