"""A small GGUF v3 reader and writer (numpy only).

Reads F32, F16, BF16, Q4_1 and Q8_0 tensors to float32; writes F32, BF16 and Q8_0.
Shapes here are numpy order (rows first); GGUF stores them reversed.
"""
import struct
from pathlib import Path

import numpy as np

F32, F16, Q4_1, Q8_0, BF16 = 0, 1, 3, 8, 30
FILE_TYPE_Q8_0, FILE_TYPE_BF16 = 7, 32
_SCALAR = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f",
           7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_U32, _I32, _F32, _BOOL, _STR, _ARR = 4, 5, 6, 7, 8, 9


class GGUFReader:
    """Parses the header at once and dequantises tensors when asked."""

    def __init__(self, path):
        self.path = Path(path)
        self.kv, self.kinds, self.tensors = {}, {}, {}
        with open(self.path, "rb") as f:
            self._f = f
            if f.read(4) != b"GGUF":
                raise ValueError(f"{path}: not a GGUF file")
            self.version = self._num("<I")
            n_tensors, n_kv = self._num("<Q"), self._num("<Q")
            for _ in range(n_kv):
                key = self._str()
                kind = self._num("<I")
                self.kv[key] = self._value(kind)
                self.kinds[key] = (kind, self._item if kind == _ARR else None)
            for _ in range(n_tensors):
                name = self._str()
                dims = [self._num("<Q") for _ in range(self._num("<I"))]
                self.tensors[name] = (tuple(dims[::-1]), self._num("<I"), self._num("<Q"))
            align = self.kv.get("general.alignment", 32)
            self._base = (f.tell() + align - 1) // align * align
            del self._f
        self._map = np.memmap(self.path, dtype=np.uint8, mode="r")

    def _num(self, fmt):
        return struct.unpack(fmt, self._f.read(struct.calcsize(fmt)))[0]

    def _str(self):
        return self._f.read(self._num("<Q")).decode("utf-8")

    def _value(self, kind):
        if kind == _STR:
            return self._str()
        if kind == _ARR:
            self._item, n = self._num("<I"), self._num("<Q")
            item = self._item
            return [self._value(item) for _ in range(n)]
        return self._num(_SCALAR[kind])

    def tensor(self, name):
        """The tensor as a float32 array."""
        shape, kind, offset = self.tensors[name]
        count = int(np.prod(shape))
        size = {F32: 4 * count, F16: 2 * count, BF16: 2 * count,
                Q4_1: count // 32 * 20, Q8_0: count // 32 * 34}.get(kind)
        if size is None:
            raise ValueError(f"{name}: tensor type {kind} is not supported")
        raw = np.array(self._map[self._base + offset:self._base + offset + size])
        if kind == F32:
            out = raw.view(np.float32)
        elif kind == F16:
            out = raw.view(np.float16).astype(np.float32)
        elif kind == BF16:
            out = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif kind == Q8_0:
            blocks = raw.reshape(-1, 34)
            scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            out = scale * blocks[:, 2:].copy().view(np.int8).astype(np.float32)
        else:  # Q4_1: fp16 scale, fp16 minimum, 16 bytes of two nibbles
            blocks = raw.reshape(-1, 20)
            scale = blocks[:, 0:2].copy().view(np.float16).astype(np.float32)
            low = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
            nib = blocks[:, 4:]
            q = np.concatenate([nib & 15, nib >> 4], axis=1).astype(np.float32)
            out = scale * q + low
        return out.reshape(shape)


def quantize_q8_0(x):
    """float32 rows -> Q8_0 bytes, as the reference quantiser does it."""
    blocks = np.ascontiguousarray(x, dtype=np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127.0
    inv = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = blocks * inv
    q = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)).astype(np.int8)
    packed = np.concatenate([scale.astype(np.float16).view(np.uint8), q.view(np.uint8)], axis=1)
    return packed.tobytes()


def round_bf16(x):
    """float32 -> bf16 bytes, to nearest even; no NaN expected."""
    u = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((u + 0x7fff + ((u >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


class GGUFWriter:
    """Collects metadata and tensors in order, then writes one file."""

    def __init__(self, alignment=32):
        self.align, self._kv, self._tensors = alignment, [], []

    def _put(self, key, kind, payload):
        self._kv.append(self._pack_str(key) + struct.pack("<I", kind) + payload)

    @staticmethod
    def _pack_str(text):
        data = text.encode("utf-8")
        return struct.pack("<Q", len(data)) + data

    def string(self, key, value):
        self._put(key, _STR, self._pack_str(value))

    def u32(self, key, value):
        self._put(key, _U32, struct.pack("<I", value))

    def f32(self, key, value):
        self._put(key, _F32, struct.pack("<f", value))

    def boolean(self, key, value):
        self._put(key, _BOOL, struct.pack("<?", value))

    def strings(self, key, values):
        body = b"".join(self._pack_str(v) for v in values)
        self._put(key, _ARR, struct.pack("<IQ", _STR, len(values)) + body)

    def ints(self, key, values):
        self._put(key, _ARR, struct.pack(f"<IQ{len(values)}i", _I32, len(values), *values))

    def copy(self, reader, key):
        """A key of another file as it is there; arrays of strings or numbers."""
        kind, item = reader.kinds[key]
        value = reader.kv[key]
        if kind == _ARR:
            body = b"".join(self._pack_str(v) if item == _STR else struct.pack(_SCALAR[item], v) for v in value)
            self._put(key, _ARR, struct.pack("<IQ", item, len(value)) + body)
        else:
            self._put(key, kind, self._pack_str(value) if kind == _STR else struct.pack(_SCALAR[kind], value))

    def tensor(self, name, array, kind):
        data = (quantize_q8_0(array) if kind == Q8_0 else round_bf16(array) if kind == BF16
                else np.ascontiguousarray(array, dtype=np.float32).tobytes())
        self._tensors.append((name, array.shape, kind, data))

    def write(self, path):
        head = [b"GGUF", struct.pack("<IQQ", 3, len(self._tensors), len(self._kv)), *self._kv]
        offset = 0
        for name, shape, kind, data in self._tensors:
            head.append(self._pack_str(name) + struct.pack("<I", len(shape))
                        + struct.pack(f"<{len(shape)}Q", *shape[::-1])
                        + struct.pack("<IQ", kind, offset))
            offset += len(data) + (-len(data)) % self.align
        blob = b"".join(head)
        with open(path, "wb") as f:
            f.write(blob + b"\0" * ((-len(blob)) % self.align))
            for _, _, _, data in self._tensors:
                f.write(data + b"\0" * ((-len(data)) % self.align))
