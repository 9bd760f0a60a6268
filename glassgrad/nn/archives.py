"""Archives: the files in a zip or tar archive as uint8 tensors, and a tensor of bytes as a file object.

What is stored as it is stays where it lies (a view of the mapped archive); what is packed is unpacked when the archive is read.
"""
from __future__ import annotations

import functools
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import TypeVar

from glassgrad.nn.files import Source, broken, open_bytes, source_name
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, UsageError

T = TypeVar("T")
ZIP_LOCAL_HEADER = struct.Struct("<26xHH")     # of a member: the lengths of its name and of its extra field


def accept_filename(f: Callable[[Tensor], T]) -> Callable[[Tensor | str | os.PathLike[str]], T]:
    """A function of a tensor of bytes that also takes the path of a file."""
    @functools.wraps(f)
    def take(source: Tensor | str | os.PathLike[str]) -> T:
        return f(source if isinstance(source, Tensor) else Tensor(open_bytes(source, f"{f.__name__} of {source_name(source)}")))
    return take


def zip_extract(source: Source) -> dict[str, Tensor]:
    """The files of a zip archive (a path, bytes or a uint8 tensor): name -> uint8 tensor.

    errors:  FileError if it is no zip archive, or damaged
    """
    data, what = open_bytes(source, "zip_extract"), f"zip_extract of {source_name(source)}"
    found: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(memoryview(data))) as archive:
            for member in archive.infolist():
                if member.is_dir(): continue
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1: found[member.filename] = Tensor(archive.read(member))
                else:
                    start = member.header_offset + ZIP_LOCAL_HEADER.size + sum(ZIP_LOCAL_HEADER.unpack_from(data, member.header_offset))
                    if start + member.file_size > len(data): raise broken(what, f"{member.filename!r} reaches beyond the end")
                    found[member.filename] = Tensor(data[start:start + member.file_size])
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise broken(what, str(error)) from None
    return found


def tar_extract(source: Source) -> dict[str, Tensor]:
    """The files of a tar archive (a path, bytes or a uint8 tensor), packed or not: name -> uint8 tensor.

    errors:  FileError if it is no tar archive, or damaged
    """
    data, what = open_bytes(source, "tar_extract"), f"tar_extract of {source_name(source)}"
    found: dict[str, Tensor] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(memoryview(data))) as archive:
            is_plain = isinstance(archive.fileobj, io.BytesIO)
            for member in archive:
                if not member.isreg(): continue
                if is_plain and not member.issparse():
                    found[member.name] = Tensor(data[member.offset_data:member.offset_data + member.size])
                else: found[member.name] = Tensor(archive.extractfile(member).read())  # type: ignore[union-attr]
                if found[member.name].shape != (member.size,): raise broken(what, f"{member.name!r} is cut off")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error: raise broken(what, str(error)) from None
    return found


class TensorIO(io.RawIOBase):
    """A tensor of bytes as a file object that can be read.

    errors:  DTypeError for other than a vector of uint8

    >>> TensorIO(Tensor(b"one two")).read(3)
    b'one'
    """
    def __init__(self, t: Tensor) -> None:
        if t.dtype is not dtypes.uint8 or t.ndim != 1:
            raise DTypeError(f"TensorIO of {t.shape} {t.dtype.short}\n"
                             f"  it must be a vector of bytes\n  try: x.flatten().bitcast(dtypes.uint8)")
        self.tensor, self.place = t, 0

    def readable(self) -> bool: return True
    def seekable(self) -> bool: return True
    def tell(self) -> int: return self.place

    def readinto(self, into: memoryview) -> int:
        """Fill `into` from here on; the number of bytes."""
        part = self.tensor[self.place:self.place + len(into)].numpy()
        into[:len(part)] = part.data
        self.place += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` bytes from the start, from here, or from the end.

        errors:  UsageError for a place before the start
        """
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.tensor.shape[0]}[whence]
        if place < 0: raise UsageError(f"seek to {place}\n  the first byte is at 0")
        self.place = place
        return place
