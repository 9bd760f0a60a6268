"""The disk cache: whole entries or none, bounded, safe under many processes."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glassgrad.engine import cache
from glassgrad.engine.cache import DiskCache, cache_key, graph_text, pack, unpack
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import BufferArg, Ops
from glassgrad.uop.uop import UOp


@pytest.fixture
def disk(tmp_path): return DiskCache(tmp_path, 1 << 20)


def test_round_trip(disk):
    key = cache_key("test", "a", "b")
    assert disk.get(key) is None
    disk.put(key, {"x": [1, 2.5, "é"]}, [b"", b"\0\xff" * 10])
    assert disk.get(key) == ({"x": [1, 2.5, "é"]}, [b"", b"\0\xff" * 10])
    disk.clear()
    assert disk.get(key) is None


def test_every_damaged_byte_is_noticed():
    raw = pack({"a": 1}, [b"xyz", b""])
    for i in range(len(raw)):
        assert unpack(raw[:i]) is None
        assert unpack(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1:]) is None


def test_corrupt_entries_are_deleted(disk):
    disk.put("k" * 64, 1, [b"data"])
    path = Path(disk.path("k" * 64))
    path.write_bytes(path.read_bytes()[:-1])
    assert disk.get("k" * 64) is None and not path.exists()


def test_bounded_and_least_recently_used_goes_first(tmp_path):
    disk = DiskCache(tmp_path, 20_000)
    for i in range(10):
        disk.put(f"{i:064}", i, [bytes(1000)])
        os.utime(disk.path(f"{i:064}"), (1000 + i, 1000 + i))
    assert disk.get(f"{0:064}") is not None                # a hit makes it the newest
    for i in range(10, 19): disk.put(f"{i:064}", i, [bytes(1000)])
    assert sum(size for _, size, _ in disk.entries()) <= 20_000
    assert disk.get(f"{0:064}") is not None and disk.get(f"{1:064}") is None and disk.get(f"{18:064}") is not None


def test_an_entry_larger_than_the_bound_is_not_kept(tmp_path):
    disk = DiskCache(tmp_path, 100)
    disk.put("k" * 64, 0, [bytes(1000)])
    assert disk.get("k" * 64) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    disk = DiskCache(tmp_path / "file", 1 << 20)
    disk.put("k" * 64, 0, [b"x"])
    assert disk.get("k" * 64) is None


WRITER = """
import sys
from glassgrad.engine.cache import DiskCache
disk = DiskCache(sys.argv[1], 60_000)
who = sys.argv[2].encode()
for i in range(150):
    key = f"{i % 12:064}"
    disk.put(key, i, [who * 4000])
    entry = disk.get(key)
    assert entry is None or (len(entry.blobs[0]) == 4000 and len(set(entry.blobs[0])) == 1), entry
"""


def test_processes_share_a_folder(tmp_path):
    runs = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stderr=subprocess.PIPE) for name in "abc"]
    for run in runs: assert run.wait(60) == 0, run.stderr.read().decode()
    assert not list(tmp_path.glob("*/*.part"))


def test_graph_text_tells_graphs_apart():
    x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, 4, "CPU"))
    c = [UOp.const(dtypes.float32, v) for v in (0.0, -0.0, float("nan"), float("inf"), 0.1)]
    texts = {graph_text(x + v) for v in c} | {graph_text(v + x) for v in c} | {graph_text(x.cast(dtypes.float16))}
    assert len(texts) == 11
    assert graph_text(x + 0.1) == graph_text(x + 0.1)


def test_graph_text_is_the_same_in_another_process():
    code = ("from tests.engine.test_cache import *\n"
            "x = UOp(Ops.BUFFER, dtypes.float32, (), BufferArg(0, 4, 'CPU'))\n"
            "print(cache_key('g', graph_text((x + 1).reduce(Ops.ADD, (0,)))))")
    out = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": str(s)}).stdout
           for s in (1, 2)}
    assert len(out) == 1 and len(out.pop().strip()) == 64


def test_cache_variable_turns_it_off():
    assert cache._open("0", 100) is None and cache._open("", 0) is None and cache._open("/x", 3).limit_bytes == 3 << 20
