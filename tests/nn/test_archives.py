"""Archives and file objects: as Python's own modules read them."""
from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest

from glassgrad import Tensor
from glassgrad.nn.state import TensorIO, accept_filename, tar_extract, zip_extract
from glassgrad.uop.errors import DTypeError, FileError, UsageError

FILES = {"a.txt": b"hello", "folder/b.bin": bytes(range(256)) * 5, "empty": b""}


def zipped(kind: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.mkdir("folder")
        for name, data in FILES.items(): archive.writestr(name, data)
    return out.getvalue()


def tarred(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


ARCHIVES = [(zip_extract, zipped(zipfile.ZIP_STORED)), (zip_extract, zipped(zipfile.ZIP_DEFLATED)), (tar_extract, tarred("w")),
            (tar_extract, tarred("w:gz"))]


@pytest.mark.parametrize("extract,raw", ARCHIVES, ids=["zip stored", "zip packed", "tar", "tar packed"])
def test_extract(extract, raw, tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(raw)
    for source in (raw, path, str(path), Tensor(np.frombuffer(raw, np.uint8))):
        assert {name: bytes(x.tolist()) for name, x in extract(source).items()} == FILES


@pytest.mark.parametrize("extract,raw", ARCHIVES, ids=["zip stored", "zip packed", "tar", "tar packed"])
def test_damaged(extract, raw):
    with pytest.raises(FileError): extract(b"no archive at all" * 50)
    with pytest.raises(FileError): extract(raw[:2000 if len(raw) > 5000 else len(raw) // 3])


def test_tensor_io():
    raw = bytes(range(200))
    file = TensorIO(Tensor(np.frombuffer(raw, np.uint8)))
    assert file.read(10) == raw[:10] and file.tell() == 10
    file.seek(-5, io.SEEK_END)
    assert file.read() == raw[-5:] and file.read() == b""
    with io.BufferedReader(TensorIO(Tensor(b"one\ntwo"))) as lines: assert lines.readlines() == [b"one\n", b"two"]
    with pytest.raises(UsageError): file.seek(-1)
    with pytest.raises(DTypeError): TensorIO(Tensor([1.0]))


def test_accept_filename(tmp_path):
    @accept_filename
    def length(x: Tensor) -> int: return x.shape[0]
    (tmp_path / "file").write_bytes(b"12345")
    assert length(tmp_path / "file") == length(str(tmp_path / "file")) == length(Tensor(b"12345")) == 5
