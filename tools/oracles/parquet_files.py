"""Parquet files as public corpora publish them, for the tests of `documents`; and a check of those that we write.

    python tools/oracles/parquet_files.py make crates/documents/tests/data
    eulalia corpus export CORPUS --output EXPORT
    python tools/oracles/parquet_files.py check EXPORT CORPUS

`check` reads what was exported with pyarrow and compares every row with the line of the shard that it came from; it ends with 1
where they differ. The texts of `make` are written here (CC0).
"""

import datetime
import json
import pathlib
import sys

import pyarrow as arrow
import pyarrow.parquet as parquet

TEXTS = ["Lumi sataa hiljaa.", "Päivä paistaa, järvi on tyyni.", "Illalla tuli vieraita naapurista."]


def make(folder):
    fineweb = arrow.table({
        "text": [f"{TEXTS[row % 3]} {row}." for row in range(700)],
        "id": [f"<urn:uuid:{row}>" for row in range(700)],
        "dump": ["CC-MAIN-2024-10"] * 700,
        "url": [f"https://a.example/{row}" for row in range(700)],
        "date": ["2024-03-01T00:00:00Z"] * 700,
        "file_path": ["s3://commoncrawl/x.warc.gz"] * 700,
        "language": ["fin"] * 700,
        "language_score": [0.5 + row / 2000 for row in range(700)],
        "language_script": ["Latn"] * 700,
        "minhash_cluster_size": list(range(700)),
    })
    # What the Hugging Face hub writes: snappy, dictionaries, several groups of rows.
    parquet.write_table(fineweb, folder / "fineweb2.parquet", compression="snappy", row_group_size=250)
    hplt = arrow.table({
        "id": ["a", "b", "c"],
        "u": ["https://b.example/", None, "https://d.example/"],
        "ts": [datetime.datetime(2023, 1, day, 10, 30) for day in (1, 2, 3)],
        "lang": [["ekk_Latn", "fin_Latn"], [], None],
        "prob": [[0.9, 0.1], [], None],
        "text": ["Õhtu jõudis.", "", "Hommik."],
        "doc_scores": [[1.0, 2.0], [3.5], None],
        "nested": [[["x"]], [], None],
        "meta": [{"day": datetime.date(2020, 2, 29), "good": True}, {"day": None, "good": False}, None],
    })
    for codec in ("zstd", "gzip", "lz4", "none"):
        parquet.write_table(hplt, folder / f"hplt-{codec}.parquet", compression=codec, data_page_version="2.0" if codec == "zstd" else "1.0")


def check(export, corpus):
    rows = 0
    for shard in sorted(corpus.glob("*/*.jsonl.zst")):
        if shard.parent.name not in ("train", "heldout"):
            continue
        path = export / shard.parent.name / shard.name.replace(".jsonl.zst", ".parquet")
        with arrow.input_stream(str(shard), compression="zstd") as stream:
            expected = [json.loads(line) for line in stream.read().splitlines()]
        found = [document(row) for row in parquet.read_table(path).to_pylist()]
        if found != expected:
            unequal = next((number for number, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), "the last")
            raise SystemExit(f"{path}: {len(found)} rows, {len(expected)} lines in {shard}; the first that differs: {unequal}")
        rows += len(found)
    print(f"{rows} rows, all equal to their lines")
    return 0 if rows else 1


def document(row):
    """A row as the line that it was: keys without a value left out, metadata beside the other keys."""
    metadata = json.loads(row.pop("metadata") or "{}")
    return {key: value for key, value in row.items() if value is not None} | metadata


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
    else:
        sys.exit(check(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])))
