"""Quantised blocks made by llama.cpp's own Python package, for the tests of the crate `gguf`.

    pip install gguf==0.19.0 && python tools/oracles/make_gguf_blocks.py

Writes crates/gguf/tests/golden/<type>.bin: the stored blocks, then the same numbers as f32. Types that the package can
quantise (F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1) are made from chosen numbers, which stand in numbers.bin; the others
(Q4_K, Q5_K, Q6_K) are blocks of random bytes with sensible scales.
"""

import pathlib

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

TARGET = pathlib.Path(__file__).parents[2] / "crates" / "gguf" / "tests" / "golden"


def numbers() -> np.ndarray:
    """Eight blocks of 32: normal numbers of several sizes, zeros, ties, one outlier, equal farthest numbers of both signs."""
    random = np.random.default_rng(7)
    blocks = [
        random.normal(0, 1, 32), random.normal(0, 1e-3, 32), random.normal(0, 300, 32), np.zeros(32),
        np.arange(-16, 16) / 2, np.where(np.arange(32) == 5, 90.0, 0.01), np.where(np.arange(32) % 2 == 0, 3.0, -3.0),
        random.uniform(-1e-9, 1e-9, 32),
    ]
    return np.stack(blocks).astype(np.float32)


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    values = numbers()
    (TARGET / "numbers.bin").write_bytes(values.tobytes())
    for kind in [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]:
        stored = quantize(values, kind)
        write(kind, stored, dequantize(stored, kind))
    random = np.random.default_rng(8)
    for kind, size, halves in [(Kind.Q4_K, 144, (0, 2)), (Kind.Q5_K, 176, (0, 2)), (Kind.Q6_K, 210, (208,))]:
        stored = random.integers(0, 256, (2, size), dtype=np.uint8)
        for place in halves:
            stored[:, place : place + 2] = random.normal(0, 0.01, (2, 1)).astype(np.float16).view(np.uint8)
        write(kind, stored, dequantize(stored, kind))


def write(kind: Kind, stored: np.ndarray, values: np.ndarray) -> None:
    (TARGET / f"{kind.name}.bin").write_bytes(stored.tobytes() + values.astype(np.float32).tobytes())
    print(kind.name, stored.size, values.size)


if __name__ == "__main__":
    main()
