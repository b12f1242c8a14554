"""Reads a run's event file with TensorBoard itself and compares every number with metrics.jsonl.

    python3 -m venv /tmp/tensorboard && /tmp/tensorboard/bin/pip install tensorboard==2.21.0
    /tmp/tensorboard/bin/python tools/oracles/check_tensorboard.py runs/tiny/pretrain
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAMES = {
    "train/loss": "loss",
    "train/gradient_norm": "gradient_norm",
    "train/learning_rate": "learning_rate",
    "machine/tokens_per_second": "tokens_per_second",
}

folder = pathlib.Path(sys.argv[1]) / "circumstances"
lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
accumulator.Reload()
tags = accumulator.Tags()["scalars"]


def expected(tag):
    """(step, number) of every line that has what the tag shows."""
    for line in lines:
        group, _, name = tag.partition("/")
        if tag in NAMES:
            number = line.get(NAMES[tag])
        elif group in ("heldout_bits_per_byte", "expert_load_max_over_mean"):
            values = line.get(group, {})
            number = values[int(name)] if isinstance(values, list) else values.get(name)
        else:
            number = line.get(name)
        if number is not None:
            yield line["step"], float(number)


for tag in tags:
    found = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    wanted = list(expected(tag))
    assert [step for step, _ in found] == [step for step, _ in wanted], f"{tag}: other steps"
    for (step, value), (_, number) in zip(found, wanted):
        assert math.isclose(value, number, rel_tol=1e-6, abs_tol=1e-12), f"{tag}, step {step}: {value}, not {number}"
assert set(NAMES) <= set(tags), f"only {tags}"
print(f"{len(tags)} curves, {sum(len(list(expected(tag))) for tag in tags)} numbers: as in metrics.jsonl")
