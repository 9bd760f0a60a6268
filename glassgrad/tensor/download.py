"""Download: files from the net, kept in the user's cache folder."""
from __future__ import annotations

import gzip
import importlib
import os
import zlib
from pathlib import Path

from glassgrad.uop.errors import FileError

CHUNK_BYTES = 1 << 20


def fetch(url: str, name: str | os.PathLike[str] | None = None, subdir: str | None = None, gunzip: bool = False, allow_caching: bool = True,
          timeout: float = 30) -> Path:
    """The path of a local copy of `url`, downloaded unless it is there. A path that is no address of the net is given back as it is.

    name:    the file's name in the cache folder (a full path is taken as it stands); else it is made of the address
    gunzip:  keep what the gzip file holds
    errors:  FileError if it cannot be had or does not unpack
    """
    if url.startswith(("/", ".")): return Path(url)
    path = Path(name) if name is not None and os.path.isabs(name) else cache_folder() / (subdir or "") / _file_name(url, name, gunzip)
    if path.is_file() and allow_caching: return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    net = importlib.import_module("urllib.request")        # takes 40 ms, which few programs need to spend
    try:
        with net.urlopen(net.Request(url, headers={"User-Agent": "glassgrad"}), timeout=timeout) as answer, open(draft, "wb") as file:
            source = gzip.GzipFile(fileobj=answer) if gunzip else answer
            while chunk := source.read(CHUNK_BYTES): file.write(chunk)
        os.replace(draft, path)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FileError(f"fetch of {url}\n  {error}\n  try: another address, or put the file at {path} yourself") from None
    finally: draft.unlink(missing_ok=True)
    return path


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glassgrad" / "downloads"


def _file_name(url: str, name: str | os.PathLike[str] | None, gunzip: bool) -> str:
    if name is not None: return os.fspath(name)
    made = "".join(c if c.isalnum() or c in "-_." else "_" for c in url.partition("://")[2] or url)
    return f"{zlib.crc32(url.encode()):08x}-{made[-80:]}" + (".unpacked" if gunzip else "")
