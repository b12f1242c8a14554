"""Sealed conversations between eulalia and rage (the library of the program of that name, as a Python package).

    python tools/oracles/check_age.py make                              # rewrites crates/serving/tests/golden/age-*
    python tools/oracles/check_age.py open IDENTITY_FILE FILE.age ...    # opens what eulalia sealed, prints it

`make` writes an identity of its own and two files sealed for it, which the tests of `serving` open: a short one with a second
recipient, and one of two chunks. Needs `pyrage==1.4.0`.
"""

import pathlib
import sys

import pyrage

GOLDEN = pathlib.Path(__file__).parents[2] / "crates/serving/tests/golden"
SHORT = "Żółw, čaj, Ὀδυσσεύς, чай, oíche mhaith"


def make():
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    ours, theirs = identity.to_public(), other.to_public()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / "age-identity.txt").write_text(f"# for tests alone\n# public key: {ours}\n{identity}\n")
    (GOLDEN / "age-short.age").write_bytes(pyrage.encrypt(SHORT.encode(), [theirs, ours]))
    long = bytes(number * 7 % 256 for number in range(70_000))
    (GOLDEN / "age-long.age").write_bytes(pyrage.encrypt(long, [ours]))


def open_files(identity_file, files):
    lines = pathlib.Path(identity_file).read_text().splitlines()
    identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith("AGE-SECRET-KEY-1")]
    for file in files:
        sys.stdout.write(pyrage.decrypt(pathlib.Path(file).read_bytes(), identities).decode() + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make()
    elif len(sys.argv) > 3 and sys.argv[1] == "open":
        open_files(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(__doc__)
