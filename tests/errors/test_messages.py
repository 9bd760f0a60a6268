"""Every misuse in messages.txt raises the error that stands under it, word for word.

`python tests/errors/test_messages.py` writes the answers anew; read the difference before you keep it.
"""
from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import re
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import glassgrad
from glassgrad import Context, Device, Tensor, TinyJit, Variable, dtypes, nn
from glassgrad.device import cl, cuda
from glassgrad.nn.datasets import read_idx
from glassgrad.nn.state import gguf_load, load_state_dict, safe_load, torch_load
from glassgrad.uop import errors

TABLE = Path(__file__).with_name("messages.txt")
HEADER = re.compile(r"^# (.*)$")
NEEDED = 60     # misuses, at the least


class Misuse(NamedTuple):
    """One block of the table: its heading, the program, the error's text."""
    heading: str; code: str; answer: str

    @property
    def name(self) -> str: return re.sub(r"\W+", "_", self.code.splitlines()[-1])[:60].strip("_")


def read_table(text: str) -> Iterator[Misuse]:
    """The misuses of a table: lines after `>>> ` and `... ` are the program, what follows is the answer."""
    heading = ""
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines and (found := HEADER.match(lines[0])): heading, lines = found[1], lines[1:]
        if not lines: continue
        count = sum(line.startswith((">>> ", "... ")) for line in lines)
        yield Misuse(heading, "\n".join(line[4:] for line in lines[:count]), "\n".join(lines[count:]))


def files(folder: Path) -> dict[str, str]:
    """Broken files by name."""
    header = b'{"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}'
    twice = header[:-1] + b', "v": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}'
    made = {
        "torn.safetensors": struct.pack("<Q", 1 << 40) + b"{}",
        "short.safetensors": struct.pack("<Q", len(header)) + header + bytes(4),
        "words.safetensors": struct.pack("<Q", 9) + b"not json!",
        "empty.safetensors": b"",
        "type.safetensors": struct.pack("<Q", len(header)) + header.replace(b"F32", b"Q99") + bytes(16),
        "magic.gguf": b"GGML" + bytes(60),
        "old.gguf": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
        "torn.gguf": b"GGUF" + struct.pack("<IQQ", 3, 10**6, 0),
        "words.pth": b"this is not a checkpoint",
        "torn.pth": b"PK\x03\x04" + bytes(20),
        "code.pth": pickle.dumps(os.getcwd),
        "torn-idx.gz": gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 10, 28, 28) + bytes(100), mtime=0),
        "magic-idx.gz": gzip.compress(b"JPEG" + bytes(12), mtime=0),
        "plain-idx.gz": b"no gzip at all",
        "torn-zip.pth": archive()[:-40],
        "cut.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60),
        "overlap.safetensors": struct.pack("<Q", len(twice)) + twice + bytes(16),
        "five.bin": bytes(5),
    }
    for name, data in made.items(): (folder / name).write_bytes(data)
    return {name: str(folder / name) for name in made}


def archive() -> bytes:
    """A zip file with a pickle in it."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as z: z.writestr(zipfile.ZipInfo("model/data.pkl"), pickle.dumps({}))
    return memory.getvalue()


@contextlib.contextmanager
def missing(kind: str) -> Iterator[None]:
    """Inside, no driver of this device can be loaded."""
    opened, loaders = Device._made.pop(kind, None), (cuda.driver, cl.cl, cl.devices)
    for fn in loaders: fn.cache_clear()
    def fail(*args: Any, **more: Any) -> None: raise OSError("no such library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctypes.CDLL", fail)
        try: yield
        finally:
            for fn in loaders: fn.cache_clear()
            if opened is not None: Device._made[kind] = opened


def names(folder: Path) -> dict[str, Any]:
    """What a program of the table may use."""
    used = (Tensor, nn, dtypes, Context, Variable, glassgrad, Path, missing, read_idx, gguf_load, safe_load, torch_load, load_state_dict)
    more = {"np": np, "Device": Device, "jit": TinyJit, "file": files(folder), "folder": str(folder / "none")}
    return {x.__name__.rpartition(".")[2]: x for x in used} | more


def run(code: str, folder: Path) -> str:
    """The error that a program ends in, as Python prints it; folders named away."""
    try: exec(compile(code, "train.py", "exec"), names(folder))
    except Exception as error:
        kind = type(error).__name__.rstrip("_")
        return f"{kind}: {error}".replace(str(folder) + os.sep, "").replace(os.getcwd(), "HERE")
    return "no error"


def answer(code: str) -> str:
    """`run` in a fresh folder, on the CPU."""
    with tempfile.TemporaryDirectory() as folder: return run(code, Path(folder))


MISUSES = list(read_table(TABLE.read_text()))
PYTHON_ERRORS = ("FileNotFoundError", "AttributeError: module")     # where Python's own words are the best


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda m: m.name)
def test_message(misuse: Misuse) -> None:
    assert answer(misuse.code) == misuse.answer


def test_table() -> None:
    """Every answer is an error of the catalogue that says more than one line; none is a mistake of ours."""
    assert len(MISUSES) >= NEEDED
    assert len({m.code for m in MISUSES}) == len(MISUSES)
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.GlassgradError)]
    ours = {c.__name__.rstrip("_") for c in classes} - {"CompilerBug"}
    for m in MISUSES:
        if m.answer.startswith(PYTHON_ERRORS): continue
        assert m.answer.partition(":")[0] in ours, m
        assert "\n  " in m.answer or m.answer.count(":") > 1, m


def update() -> None:
    """Write every answer anew."""
    lines, heading = [], ""
    for m in MISUSES:
        if m.heading != heading: lines.append(f"# {m.heading}")
        heading = m.heading
        first, *rest = m.code.splitlines()
        lines += [f">>> {first}", *(f"... {line}" for line in rest), answer(m.code), ""]
    TABLE.write_text("\n".join(lines))


if __name__ == "__main__": update()
