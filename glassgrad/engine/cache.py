"""Cache: what was compiled once, on disk: lowered programs and whole plans, so that a warm start does no compiler work.

An entry is named by the hash of everything that matters (graph, target, options, our own source) and holds JSON and raw bytes with a
checksum. Entries appear by an atomic rename, so processes may share a folder; a torn or corrupt one is a miss and is deleted.
"""
from __future__ import annotations

import functools
import glob
import itertools
import os
import struct
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from glassgrad.engine.context import CACHE, CACHE_MB
from glassgrad.uop.lazy import Lazy
from glassgrad.uop.uop import UOp

MAGIC = b"glassgrad cache\n"
HEAD = struct.Struct("<16s32sI")       # magic, SHA-256 of the rest, bytes of JSON
TOUCH_SECONDS = 3600                   # a hit refreshes the time of use at most this often
PRUNE_TO = 0.8                         # a full cache is emptied to this part of its bound
SOURCE_FOLDERS = ("uop", "rewrite", "passes", "target", "device", "flow.py", "engine/plan.py", "engine/memory.py", "engine/cache.py",
                  "engine/recipe.py", "engine/signature.py")
_numbers = itertools.count()


hashlib, json = Lazy("hashlib"), Lazy("json")


class Entry(NamedTuple):
    """What an entry holds: a JSON value and raw bytes."""
    meta: Any
    blobs: list[bytes]


class DiskCache:
    """A folder of entries, bounded in size: beyond `limit_bytes` the least recently used go.

    A folder that cannot be written is no error: nothing is kept then.
    """
    def __init__(self, folder: str | os.PathLike, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = os.fspath(folder), limit_bytes
        self.known_bytes: int | None = None  # counted at the first put

    def path(self, key: str) -> str: return os.path.join(self.folder, key[:2], key)

    def get(self, key: str) -> Entry | None:
        """The entry named `key`, or None if there is none that is whole."""
        path = self.path(key)
        try: raw = _read(path)
        except OSError: return None
        entry = unpack(raw)
        if entry is None:
            _remove(path)
            return None
        _touch(path)
        return entry

    def put(self, key: str, meta: Any, blobs: Iterable[bytes] = ()) -> None:
        """Keep an entry; another process' entry of that name is replaced as a whole."""
        raw = pack(meta, list(blobs))
        if len(raw) > self.limit_bytes: return
        path = self.path(key)
        part = f"{path}.{os.getpid()}.{next(_numbers)}.part"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(part, "xb") as file: file.write(raw)
            os.replace(part, path)
        except OSError:
            _remove(part)
            return
        if self.known_bytes is None: self.known_bytes = sum(size for _, size, _ in self.entries())
        else: self.known_bytes += len(raw)
        if self.known_bytes > self.limit_bytes: self.prune()

    def entries(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every entry, and of what writers that died left behind."""
        found = []
        for path in glob.glob(os.path.join(glob.escape(self.folder), "??", "*")):
            try: stat = os.stat(path)
            except OSError: continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found

    def prune(self) -> None:
        """Delete the least recently used entries until the folder is well below its bound."""
        found = sorted(self.entries())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self.limit_bytes * PRUNE_TO: break
            _remove(path)
            total -= size
        self.known_bytes = total

    def clear(self) -> None:
        """Delete every entry."""
        for _, _, path in self.entries(): _remove(path)
        self.known_bytes = 0


def pack(meta: Any, blobs: list[bytes]) -> bytes:
    """The bytes of an entry."""
    text = json.dumps({"meta": meta, "sizes": [len(b) for b in blobs]}, separators=(",", ":")).encode()
    rest = b"".join((struct.pack("<I", len(text)), text, *blobs))
    return HEAD.pack(MAGIC, hashlib.sha256(rest).digest(), len(text)) + rest


def unpack(raw: bytes) -> Entry | None:
    """The entry in `raw`, or None if a single bit of it is wrong.

    >>> unpack(pack({"a": 1}, [b"xyz"]))
    Entry(meta={'a': 1}, blobs=[b'xyz'])
    >>> unpack(pack({"a": 1}, [b"xyz"])[:-1]) is None
    True
    """
    if len(raw) < HEAD.size: return None
    magic, digest, size = HEAD.unpack_from(raw)
    rest = memoryview(raw)[HEAD.size:]
    if magic != MAGIC or hashlib.sha256(rest).digest() != digest or bytes(rest[:4]) != struct.pack("<I", size): return None
    head = json.loads(bytes(rest[4:4 + size]))
    ends = list(itertools.accumulate(head["sizes"], initial=4 + size))
    return Entry(head["meta"], [bytes(rest[lo:hi]) for lo, hi in itertools.pairwise(ends)])


def disk_cache() -> DiskCache | None:
    """The cache the variables CACHE and CACHE_MB ask for, or None."""
    return _open(CACHE.value, CACHE_MB.value)


@functools.cache
def _open(folder: str, limit_mb: int) -> DiskCache | None:
    if folder == "0" or limit_mb <= 0: return None
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(base, "glassgrad")
    return DiskCache(folder, limit_mb << 20)


@functools.cache
def source_hash() -> str:
    """The hash of our own source below the engine: another compiler makes other code."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256()
    for name in SOURCE_FOLDERS:
        place = os.path.join(root, name)
        for path in sorted(glob.glob(os.path.join(glob.escape(place), "*.py"))) if os.path.isdir(place) else [place]:
            digest.update(f"{os.path.relpath(path, root)}\0".encode())
            digest.update(_read(path))
    return digest.hexdigest()


def cache_key(kind: str, *parts: str) -> str:
    """The name of an entry: the hash of its kind, our source and all `parts`."""
    digest = hashlib.sha256()
    for part in (kind, source_hash(), *parts): digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def content_key(blob: bytes) -> str:
    """The name of an entry that holds just these bytes."""
    return cache_key("content", hashlib.sha256(blob).hexdigest())


def graph_text(g: UOp) -> str:
    """A text that is equal for equal graphs in any process; it is for hashing, not for reading."""
    index: dict[UOp, int] = {}
    lines = []
    for n in g.toposort():
        index[n] = len(index)
        # a float's repr is exact; NaN and -0.0 keep their own spelling
        lines.append(f"{n.op.name} {n.dtype.short} {[index[s] for s in n.src]} {n.arg!r}")
    return "\n".join(lines)


def _read(path: str) -> bytes:
    with open(path, "rb") as file: return file.read()


def _touch(path: str) -> None:
    try:
        if time.time() - os.stat(path).st_mtime > TOUCH_SECONDS: os.utime(path)
    except OSError: pass


def _remove(path: str) -> None:
    try: os.unlink(path)
    except OSError: pass
