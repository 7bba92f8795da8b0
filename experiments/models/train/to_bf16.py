"""Writes a GGUF file's matrices as BF16 and all else as it is: the same weights for programs that are compared."""
import argparse

from gguf_io import BF16, F32, FILE_TYPE_BF16, GGUFReader, GGUFWriter


def convert(source, target):
    r, w = GGUFReader(source), GGUFWriter()
    for key in r.kv:
        if key == "general.file_type":
            w.u32(key, FILE_TYPE_BF16)
        elif key != "general.alignment":
            w.copy(r, key)
    for name, (shape, _, _) in r.tensors.items():
        w.tensor(name, r.tensor(name), BF16 if len(shape) > 1 else F32)
    w.write(target)


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("source")
    ap.add_argument("target")
    a = ap.parse_args()
    convert(a.source, a.target)
