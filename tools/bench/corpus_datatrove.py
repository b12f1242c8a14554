"""The corpus steps that datatrove has too: Gopher's repetition and quality filters, personal data, MinHash deduplication.

    python tools/bench/corpus_datatrove.py INPUT_FOLDER WORK_FOLDER --threads 2
"""

import argparse
import pathlib

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    files = len(list(arguments.documents.glob("*.jsonl.gz")))
    work = str(arguments.work)
    # As many bands and rows as eulalia's.
    minhash = MinhashConfig(n_grams=5, num_buckets=20, hashes_per_bucket=6, hash_config=HashConfig(precision=64))

    def run(pipeline, tasks):
        workers = min(arguments.threads, tasks)
        # Without a folder for its logs, datatrove writes them into the current one.
        logs = f"{work}/logs/{type(pipeline[-1]).__name__}"
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=logs, skip_completed=False).run()

    run(
        [
            JsonlReader(str(arguments.documents), glob_pattern="*.jsonl.gz"),
            GopherRepetitionFilter(),
            GopherQualityFilter(min_stop_words=None),
            PIIFormatter(),
            JsonlWriter(f"{work}/filtered"),
        ],
        files,
    )
    run([JsonlReader(f"{work}/filtered"), MinhashDedupSignature(f"{work}/signatures", config=minhash)], files)
    run([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=minhash)], minhash.num_buckets)
    run([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=minhash)], 1)
    run([JsonlReader(f"{work}/filtered"), MinhashDedupFilter(f"{work}/remove"), JsonlWriter(f"{work}/kept")], files)


if __name__ == "__main__":
    main()
