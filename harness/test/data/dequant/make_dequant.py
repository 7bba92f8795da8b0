# SPDX-License-Identifier: Apache-2.0
"""Makes dequant.bin: random blocks of every tensor type and what the `gguf` package decodes them
to, for test_weights.c.

  pip install gguf numpy
  python make_dequant.py dequant.bin

File (little-endian): "NXDQ", u32 version 1, u32 number of sections; each section: u32 ggml type,
u32 n elements, u32 n bytes, the bytes, f32[n elements].
"""

import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

BLOCKS = {T.Q4_0: (32, 18, [0]), T.Q4_1: (32, 20, [0, 2]), T.Q8_0: (32, 34, [0]), T.Q6_K: (256, 210, [208]),
          T.Q5_0: (32, 22, [0]), T.Q5_1: (32, 24, [0, 2]), T.Q4_K: (256, 144, [0, 2]), T.Q5_K: (256, 176, [0, 2])}
EDGE_F16 = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0x2c01, 0x1400]


def blocks(rng, kind, n):
    """Random blocks; every byte pattern is legal except that scales are finite."""
    elems, size, scales = BLOCKS[kind]
    data = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in scales:
        f = (rng.standard_normal(n) * 2.0 ** rng.integers(-12, 2, n)).astype(np.float16).view(np.uint16)
        f[:len(EDGE_F16)] = EDGE_F16
        data[:, at:at + 2] = f.view(np.uint8).reshape(n, 2)
    return data, n * elems


def main():
    rng = np.random.default_rng(20240607)
    sections = []
    for kind in BLOCKS:
        data, n = blocks(rng, kind, 12 if BLOCKS[kind][0] == 256 else 32)
        sections.append((kind, n, data.tobytes(), dequantize(data, kind)))
    half = np.concatenate([np.arange(0, 0x7c01, 97, dtype=np.uint16), np.array(EDGE_F16 + [0x7c00, 0xfc00], np.uint16)])
    sections.append((T.F16, half.size, half.tobytes(), half.view(np.float16).astype(np.float32)))
    brain = rng.integers(0, 0x7f80, 300).astype(np.uint16) | (rng.integers(0, 2, 300) << 15).astype(np.uint16)
    brain = np.concatenate([brain, np.array([0, 0x8000, 0x7f80, 0xff80, 1, 0x007f], np.uint16)])
    sections.append((T.BF16, brain.size, brain.tobytes(), dequantize(brain.view(np.uint8), T.BF16)))
    full = rng.standard_normal(64).astype(np.float32)
    sections.append((T.F32, full.size, full.tobytes(), full))
    with open(sys.argv[1], "wb") as f:
        f.write(b"NXDQ" + struct.pack("<II", 1, len(sections)))
        for kind, n, data, values in sections:
            values = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
            assert values.size == n, (kind, values.size, n)
            f.write(struct.pack("<III", int(kind), n, len(data)) + data + values.tobytes())


if __name__ == "__main__":
    main()
