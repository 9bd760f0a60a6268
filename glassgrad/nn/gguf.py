"""GGUF files: metadata and (quantised) weights of llama-family models, mapped and checked.

source:  the format's page in the ggml repository, docs/gguf.md
"""
from __future__ import annotations

import importlib
import itertools
import math
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.nn.files import MAX_DIMS, Cursor, Source, broken, open_bytes, source_name
from glassgrad.nn.quants import TYPES, Quant
from glassgrad.uop.errors import FileError
from glassgrad.uop.ops import np

if TYPE_CHECKING:
    from numpy import ndarray

VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32
MAX_NESTING = 4
SMALLEST_TENSOR_BYTES = 8 + 4 + 4 + 8


class Packed(NamedTuple):
    """A tensor as it lies in the file: `data` uint8, `shape` as users see it, `quant` how to unpack it."""
    data: ndarray
    shape: tuple[int, ...]
    quant: Quant

    def blocks(self) -> ndarray:
        """The bytes, one block a row."""
        return self.data.reshape(-1, self.quant.nbytes)

    def unpack(self, what: str) -> ndarray:
        """The numbers as float32 by NumPy, or by the `gguf` package where we have no rule.

        errors:  FileError if the package is missing
        """
        if self.quant.unpack is not None: return self.quant.unpack(self.blocks()).reshape(self.shape)
        try: package = importlib.import_module("gguf")
        except ImportError:
            raise FileError(f"{what}\n  type {self.quant.name} needs the gguf package\n  try: pip install gguf") from None
        kind = package.GGMLQuantizationType[self.quant.name]
        return package.quants.dequantize(self.blocks(), kind).reshape(self.shape)


def read_gguf(source: Source) -> tuple[dict[str, Any], dict[str, Packed]]:
    """(metadata, name -> tensor); the parts of a split file are found beside the first.

    errors:  FileError if it is no GGUF file, is cut off, or something in it does not fit
    """
    metadata, tensors = _read_part(source)
    count = metadata.get("split.count", 0)
    if not isinstance(count, int) or count < 2 or not isinstance(source, (str, os.PathLike)): return metadata, tensors
    path = Path(source)
    named = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    if named is None or int(named[2]) != count:
        raise broken(
            f"gguf_load of {path}", f"it is one part of {count} and is not named NAME-00001-of-{count:05d}.gguf", "keep the parts' names"
        )
    metadata = {}
    tensors = {}
    for i in range(1, count + 1):
        part, more = _read_part(path.with_name(f"{named[1]}-{i:05d}-of-{named[2]}.gguf"))
        metadata = {**part, **metadata}
        tensors |= more
    return metadata, tensors


def _read_part(source: Source) -> tuple[dict[str, Any], dict[str, Packed]]:
    what = f"gguf_load of {source_name(source)}"
    cursor = Cursor(open_bytes(source, what), what)
    magic = cursor.take(4).tobytes()
    if magic != b"GGUF": raise broken(what, f"it starts with {magic!r}, not b'GGUF'", "check that it is a GGUF file")
    version = cursor.unpack("I")
    if version not in VERSIONS:
        big = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        raise broken(what, "it is big endian" if big else f"version {version} is not known", "convert it to little-endian GGUF version 3")
    tensor_count, pair_count = cursor.unpack("Q"), cursor.unpack("Q")
    metadata: dict[str, Any] = {}
    try:
        for _ in range(pair_count):
            key = _string(cursor)
            if key in metadata: raise broken(what, f"key {key!r} stands there twice")
            metadata[key] = _value(cursor, cursor.unpack("I"))
        if tensor_count * SMALLEST_TENSOR_BYTES > cursor.left:
            raise broken(what, f"{tensor_count} tensors do not fit into the {cursor.left} bytes left")
        heads = [_head(cursor) for _ in range(tensor_count)]
    except UnicodeDecodeError as error: raise broken(what, f"text at byte {cursor.pos} is no UTF-8: {error.reason}") from None
    align = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(align) is not int or align < 1 or align & (align - 1): raise broken(what, f"alignment {align!r} is no power of two")
    return metadata, _place(cursor, heads, -(-cursor.pos // align) * align, align)


def _place(cursor: Cursor, heads: list[tuple[str, tuple[int, ...], Quant, int]], start: int, align: int) -> dict[str, Packed]:
    """The tensors of the heads, whose bytes stand from `start` on."""
    tensors: dict[str, Packed] = {}
    spans: list[tuple[int, int, str]] = []
    for name, shape, quant, offset in heads:
        where = f"{cursor.what}, tensor {name!r}"
        if name in tensors: raise broken(where, "stands there twice")
        if offset % align: raise broken(where, f"offset {offset} is no multiple of the alignment {align}")
        nbytes = math.prod(shape) // quant.numbers * quant.nbytes
        if start + offset + nbytes > len(cursor.data):
            raise broken(where, f"{list(shape)} {quant.name} reaches to byte {start + offset + nbytes}, the file has {len(cursor.data)}")
        tensors[name] = Packed(cursor.data[start + offset:start + offset + nbytes], shape, quant)
        if nbytes: spans.append((offset, offset + nbytes, name))
    spans.sort()
    for (_, end, name), (begin, _, other) in itertools.pairwise(spans):
        if begin < end: raise broken(cursor.what, f"tensors {name!r} and {other!r} overlap")
    return tensors


def _head(cursor: Cursor) -> tuple[str, tuple[int, ...], Quant, int]:
    name = _string(cursor)
    where = f"{cursor.what}, tensor {name!r}"
    ndim = cursor.unpack("I")
    if ndim > MAX_DIMS: raise broken(where, f"{ndim} axes, at most {MAX_DIMS} are allowed")
    shape = tuple([cursor.unpack("Q") for _ in range(ndim)][::-1])  # the file names the fastest axis first
    kind, offset = cursor.unpack("I"), cursor.unpack("Q")
    quant = TYPES.get(kind)
    if quant is None:
        raise broken(where, f"element type {kind} is not known", f"convert it to one of {', '.join(t.name for t in TYPES.values())}")
    if (shape[-1] if shape else 1) % quant.numbers:
        raise broken(where, f"its rows of {shape[-1] if shape else 1} are not made of blocks of {quant.numbers}")
    return name, shape, quant, offset


def _string(cursor: Cursor) -> str:
    return str(cursor.take(cursor.unpack("Q")), "utf-8")


def _value(cursor: Cursor, kind: int, depth: int = 0) -> Any:
    if kind == STRING: return _string(cursor)
    if kind in SCALARS: return cursor.unpack(SCALARS[kind])
    if kind != ARRAY: raise broken(cursor.what, f"metadata type {kind} at byte {cursor.pos} is not known")
    if depth == MAX_NESTING: raise broken(cursor.what, f"arrays in arrays, more than {MAX_NESTING} deep")
    inner, count = cursor.unpack("I"), cursor.unpack("Q")
    form = SCALARS.get(inner)
    if form is not None: return np.frombuffer(cursor.take(count * struct.calcsize("<" + form)), "<" + form).tolist()
    if count > cursor.left: raise broken(cursor.what, f"an array of {count} values does not fit into the {cursor.left} bytes left")
    return [_value(cursor, inner, depth + 1) for _ in range(count)]
