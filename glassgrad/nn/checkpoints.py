"""PyTorch checkpoints (.pth, .pt): the zip format of today and the one before it, without torch and without running code.

A checkpoint is a pickle of containers whose tensors refer to storages beside it. `Machine` runs the pickle with the
builders below; storages are views of the mapped file.
"""
from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from glassgrad.nn.files import MAX_DIMS, Cursor, RawTensor, Source, broken, open_bytes, raw_dtype, source_name
from glassgrad.nn.pickles import Builder, Machine, check_key, numpy_builders
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import FileError
from glassgrad.uop.ops import np

if TYPE_CHECKING:
    from numpy import ndarray

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_PICKLE_BYTES = 1 << 28
STORAGES: dict[str, DType] = {
    "FloatStorage": dtypes.float32, "DoubleStorage": dtypes.float64, "HalfStorage": dtypes.float16, "BFloat16Storage": dtypes.bfloat16,
    "LongStorage": dtypes.int64, "IntStorage": dtypes.int32, "ShortStorage": dtypes.int16, "CharStorage": dtypes.int8,
    "ByteStorage": dtypes.uint8, "BoolStorage": dtypes.bool, "UntypedStorage": dtypes.uint8,
}
TORCH_DTYPES: dict[str, DType] = {
    "float8_e4m3fn": dtypes.fp8e4m3, "float8_e5m2": dtypes.fp8e5m2,
    **{name: getattr(dtypes, name) for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64",
                                                 "uint8", "uint16", "uint32", "uint64", "bool")},
}


class Storage(NamedTuple):
    """A run of bytes tensors are views of."""
    data: ndarray  # uint8
    dtype: DType
    swapped: bool = False  # big endian


class Expanded(NamedTuple):
    """A tensor some of whose axes repeat one element (stride 0): `raw` has size 1 there."""
    raw: RawTensor
    shape: tuple[int, ...]


def read_checkpoint(source: Source, give: Callable[[RawTensor | Expanded], Any]) -> Any:
    """What was saved, its tensors replaced by `give(raw)`.

    errors:  FileError if it is no checkpoint, is cut off, or its pickle names anything but tensors and containers
    """
    what = f"torch_load of {source_name(source)}"
    data = open_bytes(source, what)
    head = data[:4].tobytes()
    if head == b"PK\x03\x04": return _read_zip(data, what, give)
    if head[:1] == b"\x80": return _read_legacy(data, what, give)
    raise broken(what, f"it starts with {head!r}: neither a zip archive nor a pickle", "check that it is a checkpoint (.pth, .pt)")


def build_tensor(storage: Any, offset: Any, size: Any, stride: Any, what: str) -> RawTensor | Expanded:
    """The view of `storage` a tensor is.

    errors:  FileError if it leaves the storage
    """
    if not isinstance(storage, Storage): raise broken(what, f"a tensor's storage is a {type(storage).__name__}")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > MAX_DIMS or any(type(x) is not int or x < 0 for x in numbers):
        raise broken(what, f"a tensor has size {size}, stride {stride}, offset {offset}")
    kind = raw_dtype(storage.dtype)
    count = len(storage.data) // kind.itemsize
    stored = tuple([1 if step == 0 and n > 1 else n for n, step in zip(size, stride, strict=True)])
    reach = offset + sum((n - 1) * step for n, step in zip(stored, stride, strict=True)) + 1
    if 0 not in stored and (reach > count or math.prod(stored) > count):
        raise broken(what, f"a tensor of size {tuple(size)} reaches element {reach} of a storage of {count}")
    if 0 in stored: view = np.zeros(stored, kind)
    else:
        flat = storage.data[:count * kind.itemsize]
        if flat.ctypes.data % kind.itemsize: flat = flat.copy()
        bytes_step = [step * kind.itemsize for step in stride]
        view = np.ndarray(stored, kind.newbyteorder(">") if storage.swapped else kind, flat, offset * kind.itemsize, bytes_step)
        if storage.swapped: view = view.astype(kind)
        if storage.dtype.is_bool: view = view.view(np.uint8) != 0
    raw = RawTensor(view, storage.dtype)
    return raw if stored == tuple(size) else Expanded(raw, tuple(size))


def _builders(what: str, give: Callable[[RawTensor | Expanded], Any]) -> dict[str, Any]:
    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        return give(build_tensor(storage, offset, size, stride, what))

    def typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> Any:
        if not isinstance(storage, Storage) or not isinstance(dtype, DType): raise broken(what, "a tensor has no storage or type")
        return tensor(storage._replace(dtype=dtype), offset, size, stride)

    def ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
        return OrderedDict([(check_key(key), value) for key, value in pairs])

    def subclassed(build: Any, kind: Any, args: Any, *_: Any) -> Any:
        if not isinstance(build, Builder): raise broken(what, "a tensor is built by what is no builder")
        return build.make(*args)

    same = Builder(lambda x, *_: x)
    table: dict[str, Any] = {
        "collections OrderedDict": Builder(ordered, lambda made, state: None),
        "torch._utils _rebuild_tensor": Builder(tensor), "torch._utils _rebuild_tensor_v2": Builder(tensor),
        "torch._utils _rebuild_tensor_v3": Builder(typed_tensor), "torch._utils _rebuild_parameter": same,
        "torch._utils _rebuild_parameter_with_state": same, "torch._tensor _rebuild_from_type_v2": Builder(subclassed),
        "torch Size": Builder(lambda x=(): tuple(x)), "torch device": Builder(lambda *x: ":".join(map(str, x))),
        "torch Tensor": "Tensor", "torch.nn.parameter Parameter": "Parameter",
        "builtins set": Builder(lambda x=(): set(map(check_key, x))), "__builtin__ set": Builder(lambda x=(): set(map(check_key, x))),
        **numpy_builders(),
    }
    table |= {f"torch {name}": kind for name, kind in STORAGES.items()}
    table |= {f"torch.storage {name}": dtypes.uint8 for name in ("UntypedStorage", "_UntypedStorage")}
    return table | {f"torch {name}": kind for name, kind in TORCH_DTYPES.items()}


def _storage_key(key: Any, what: str) -> tuple[DType, str, int]:
    """(type, name, elements) of a reference ("storage", type, name, place, elements, ...)."""
    if (
        not isinstance(key, tuple)
        or len(key) < 5
        or key[0] != "storage"
        or not isinstance(key[1], DType)
        or type(key[4]) is not int
        or key[4] < 0
    ):
        raise broken(what, f"its pickle refers to {str(key)[:80]}, which is no storage")
    return key[1], str(key[2]), key[4]


# the zip format: <name>/data.pkl, <name>/data/<key>, <name>/byteorder

def _read_zip(data: ndarray, what: str, give: Callable[[RawTensor | Expanded], Any]) -> Any:
    try: archive = zipfile.ZipFile(_MappedFile(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError) as error:
        raise broken(what, f"the zip archive is damaged: {error}") from None
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles: raise broken(what, "the zip archive holds no data.pkl", "check that it is a checkpoint (.pth, .pt)")
    prefix = pickles[0].removesuffix("data.pkl")
    swapped = f"{prefix}byteorder" in archive.namelist() and _member(archive, data, f"{prefix}byteorder", what).tobytes() == b"big"
    storages: dict[str, ndarray] = {}

    def load(key: Any) -> Storage:
        dtype, name, count = _storage_key(key, what)
        nbytes = count * dtype.itemsize
        if name not in storages: storages[name] = _member(archive, data, f"{prefix}data/{name}", what, nbytes)
        if nbytes > len(storages[name]): raise broken(what, f"storage {name} holds {len(storages[name])} bytes, {nbytes} are asked for")
        return Storage(storages[name][:nbytes], dtype, swapped)

    return Machine(Cursor(_member(archive, data, pickles[0], what), what), _builders(what, give), load).run()


def _member(archive: zipfile.ZipFile, data: ndarray, name: str, what: str, limit: int = MAX_PICKLE_BYTES) -> ndarray:
    """The bytes of a file in the archive: a view if it is stored as it is, at most `limit` bytes unpacked if not."""
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as packed: return np.frombuffer(packed.read(limit), np.uint8)
        local = Cursor(data, what, info.header_offset)
        head = local.take(30).tobytes()
        if head[:4] != b"PK\x03\x04" or info.flag_bits & 1: raise broken(what, f"{name} is encrypted or its header is damaged")
        local.skip(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"))
        start = local.skip(info.file_size)
        return data[start:start + info.file_size]
    except KeyError: raise broken(what, f"the archive lacks {name}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        if isinstance(error, FileError): raise
        raise broken(what, f"{name} in the archive is damaged: {error}") from None


class _MappedFile(io.RawIOBase):
    """Mapped bytes as the seekable file `zipfile` wants; only what it reads is touched."""
    def __init__(self, data: ndarray) -> None: self.view, self.pos = memoryview(data), 0
    def seekable(self) -> bool: return True
    def readable(self) -> bool: return True
    def tell(self) -> int: return self.pos

    def seek(self, offset: int, whence: int = 0) -> int:
        place = (0, self.pos, len(self.view))[whence] + offset
        if place < 0: raise OSError(f"seek to {place}")
        self.pos = place
        return place

    def read(self, nbytes: int | None = -1) -> bytes:
        end = len(self.view) if nbytes is None or nbytes < 0 else self.pos + nbytes
        part = self.view[self.pos:end].tobytes()
        self.pos += len(part)
        return part


# the format before: five pickles (magic, version, machine, the object, storage names), then the storages one after the other

def _read_legacy(data: ndarray, what: str, give: Callable[[RawTensor | Expanded], Any]) -> Any:
    cursor = Cursor(data, what)
    if Machine(cursor, {}).run() != LEGACY_MAGIC:
        raise broken(what, "it is a pickle, but not of a checkpoint", "check that it is a checkpoint (.pth, .pt)")
    if (version := Machine(cursor, {}).run()) != LEGACY_PROTOCOL: raise broken(what, f"format version {version!r} is not known")
    machine = Machine(cursor, {}).run()
    swapped = isinstance(machine, dict) and machine.get("little_endian") is False
    start = cursor.pos
    wanted: dict[str, tuple[DType, int]] = {}

    def note(key: Any) -> Storage:  # the object stands before the storages: run once to find them, then again to build
        dtype, name, count = _storage_key(key, what)
        wanted[name] = dtype, max(count, wanted[name][1] if name in wanted else 0)
        return Storage(np.zeros(0, np.uint8), dtype)

    Machine(cursor, _dry(_builders(what, give)), note).run()
    names = Machine(cursor, {}).run()
    if not isinstance(names, list): raise broken(what, "the list of storages is missing")
    storages: dict[str, ndarray] = {}
    for name in map(str, names):
        count = cursor.unpack("q")
        if name not in wanted: raise broken(what, f"storage {name} belongs to no tensor")
        at, nbytes = cursor.pos, count * wanted[name][0].itemsize
        cursor.skip(nbytes)
        storages[name] = data[at:at + nbytes]

    def load(key: Any) -> Storage:
        dtype, name, _ = _storage_key(key, what)
        if name not in storages: raise broken(what, f"storage {name} is missing")
        part = storages[name]
        view = key[5] if len(key) > 5 else None
        if view is not None:
            if not isinstance(view, tuple) or len(view) != 3 or any(type(x) is not int or x < 0 for x in view[1:]):
                raise broken(what, "a view of a storage is malformed")
            part = part[view[1] * dtype.itemsize:(view[1] + view[2]) * dtype.itemsize]
        return Storage(part, dtype, swapped)

    return Machine(Cursor(data, what, start), _builders(what, give), load).run()


def _dry(table: dict[str, Any]) -> dict[str, Any]:
    """Builders that build no tensor."""
    nothing = Builder(lambda *_: None)
    return {name: nothing if name.startswith("torch._") else made for name, made in table.items()}
