"""Safetensors: a JSON header, then the bytes of all tensors, without holes. Read lazily from a mapped file.

source:  the format's page, huggingface.co/docs/safetensors
"""
from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from glassgrad.nn.files import RawTensor, Source, broken, open_bytes, source_name, view_elements
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import DTypeError, UsageError
from glassgrad.uop.ops import np

DTYPES: dict[str, DType] = {
    "BOOL": dtypes.bool, "U8": dtypes.uint8, "I8": dtypes.int8, "U16": dtypes.uint16, "I16": dtypes.int16, "U32": dtypes.uint32,
    "I32": dtypes.int32, "U64": dtypes.uint64, "I64": dtypes.int64, "F16": dtypes.float16, "BF16": dtypes.bfloat16,
    "F32": dtypes.float32, "F64": dtypes.float64, "F8_E4M3": dtypes.fp8e4m3, "F8_E5M2": dtypes.fp8e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8


def read_header(source: Source) -> tuple[Any, dict[str, Any], int]:
    """(all bytes, the header, the byte where data starts).

    errors:  FileError if the header is cut off, is no JSON object or repeats a key
    """
    what = f"safe_load of {source_name(source)}"
    data = open_bytes(source, what)
    if len(data) < LENGTH_BYTES: raise broken(what, f"{len(data)} bytes are no safetensors file, its header length alone is {LENGTH_BYTES}")
    nbytes = int(data[:LENGTH_BYTES].view("<u8")[0])
    if nbytes > MAX_HEADER_BYTES or nbytes > len(data) - LENGTH_BYTES:
        raise broken(what, f"the header would be {nbytes} bytes, the file has {len(data)}", "check that it is a safetensors file, complete")
    start = LENGTH_BYTES + nbytes
    try:
        header = json.loads(data[LENGTH_BYTES:start].tobytes().decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise broken(what, f"the header is no JSON: {error}") from None
    if not isinstance(header, dict): raise broken(what, f"the header is a {type(header).__name__}, not an object")
    return data, header, start


def read_safetensors(source: Source) -> dict[str, RawTensor]:
    """Name -> tensor as it lies in the file, in the header's order.

    errors:  FileError for an unknown type, sizes that do not fit, tensors that overlap or leave holes
    """
    what = f"safe_load of {source_name(source)}"
    data, header, start = read_header(source)
    found: dict[str, RawTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__": continue
        where = f"{what}, tensor {name!r}"
        dtype, shape, (lo, hi) = _entry(entry, where)
        found[name] = view_elements(data, start + lo, shape, dtype, where)
        if found[name].data.nbytes != hi - lo:
            raise broken(where, f"shape {shape} of {dtype.name} is {found[name].data.nbytes} bytes, its offsets {lo} to {hi} are {hi - lo}")
        spans.append((lo, hi, name))
    end = 0
    for lo, hi, name in sorted(spans):
        if lo != end:
            raise broken(
                f"{what}, tensor {name!r}",
                f"starts at byte {lo}, the one before ends at {end}: " + ("they overlap" if lo < end else "a hole"),
            )
        end = hi
    if end != len(data) - start: raise broken(what, f"the tensors end at byte {end} of {len(data) - start} bytes of data")
    return found


def read_metadata(source: Source) -> dict[str, str]:
    """The free text pairs of the header.

    errors:  FileError if they are not text
    """
    notes = read_header(source)[1].get("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise broken(f"safe_load_metadata of {source_name(source)}", "__metadata__ is not a map from text to text")
    return notes


def write_safetensors(raws: Mapping[str, RawTensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write all tensors; the file appears whole or not at all, so saving over a file that is mapped is safe.

    errors:  DTypeError if the format has no such type; UsageError if metadata is not text
    """
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(t, str) for pair in metadata.items() for t in pair):
            raise UsageError(f"safe_save to {path}: metadata {dict(metadata)!r} is not text to text")
        header["__metadata__"] = dict(metadata)
    order = sorted(raws, key=lambda name: (-raws[name].dtype.itemsize, name))  # widest first: all stay aligned
    end = 0
    for name in order:
        data, dtype = raws[name]
        if dtype not in NAMES:
            raise DTypeError(f"safe_save of {name!r} {dtype.name} to {path}\n  safetensors has no such type\n  try: .cast(dtypes.float32)")
        header[name] = {"dtype": NAMES[dtype], "shape": list(data.shape), "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    chunks = [np.ascontiguousarray(raws[name].data).reshape(-1).view(np.uint8).data for name in order if raws[name].data.nbytes]
    _replace_file(path, [len(text).to_bytes(LENGTH_BYTES, "little"), text, *chunks])


def _entry(entry: Any, where: str) -> tuple[DType, list[int], list[int]]:
    if not isinstance(entry, dict): raise broken(where, f"its header entry is a {type(entry).__name__}, not an object")
    kind, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in DTYPES:
        raise broken(where, f"dtype {kind!r} is not known", f"save it as one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or any(type(s) is not int or s < 0 for s in shape):
        raise broken(where, f"shape {shape!r} is not made of sizes")
    if not isinstance(span, list) or len(span) != 2 or any(type(s) is not int for s in span) or not 0 <= span[0] <= span[1]:
        raise broken(where, f"data_offsets {span!r} is not a [begin, end]")
    return DTYPES[kind], shape, span


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs): raise ValueError("a key stands there twice")
    return table


def _replace_file(path: str | os.PathLike[str], chunks: list[Any]) -> None:
    draft = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(draft, "xb") as file:
            for chunk in chunks: file.write(chunk)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError): os.unlink(draft)
        raise
