"""The CPU shim: compiles CUDA C++ text with g++ and shim.h, and runs it over NumPy arrays."""
from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glassgrad.target.c import c_target, render
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes

HERE = Path(__file__).parent
GUARD_BYTES = 64
GUARD = 0xA5
HAS_COMPILER = shutil.which("g++") is not None
SHIM_TARGET = c_target("CUDA", dtypes.float16, dtypes.bfloat16, has_grid=True, max_local=1024, shared_bytes=48 << 10,
                       index_dtype=dtypes.int32)
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-w")
SANITIZE = ("-fsanitize=undefined,float-cast-overflow", "-fno-sanitize=alignment", "-fno-sanitize-recover=all")


def run_on_shim(program: Program, arrays: dict[int, np.ndarray], vals: dict[int, int] | None = None, *, target: Target = SHIM_TARGET,
                source: str | None = None, reverse: bool = False, sanitize: bool = False) -> None:
    """Run `program` over `arrays` (slot to array, written in place), as CUDA text on the CPU.

    reverse:   resume the threads of a block in the opposite order, which makes a missing barrier visible
    sanitize:  stop the process at undefined behaviour: signed overflow, shifts, division, casts
    errors:    RuntimeError if threads wait at a barrier others never reach, or if memory around a buffer was written
    """
    source = render(program, target) if source is None else source
    run = compile_shim(source, program.name, tuple(p.kind for p in program.params), sanitize)
    slots = 1 + max((p.slot for p in program.params), default=0)
    bufs, values, guarded = (ctypes.c_void_p * slots)(), (ctypes.c_int64 * slots)(), {}
    for slot, array in arrays.items():
        raw = np.full(array.nbytes + 2 * GUARD_BYTES + 64, GUARD, np.uint8)
        start = GUARD_BYTES + -(raw.ctypes.data + GUARD_BYTES) % 64
        raw[start:start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        guarded[slot], bufs[slot] = (raw, start), raw.ctypes.data + start
    for slot, value in (vals or {}).items(): values[slot] = value
    dims = (ctypes.c_int * 6)(*program.grid, *program.local)
    if run(bufs, values, dims, int(reverse)):
        raise RuntimeError(f"{program.name}: some threads wait at a barrier that others never reach\n{source}")
    for slot, (raw, start) in guarded.items():
        array = arrays[slot]
        if (raw[:start] != GUARD).any() or (raw[start + array.nbytes:] != GUARD).any():
            raise RuntimeError(f"{program.name}: wrote outside of buffer {slot} ({array.nbytes} bytes)\n{source}")
        array[...] = raw[start:start + array.nbytes].view(array.dtype).reshape(array.shape)


@functools.cache
def compile_shim(source: str, name: str, kinds: tuple[str, ...], sanitize: bool = False) -> ctypes._CFuncPtr:
    """The compiled text as a function (bufs, vals, dims, reverse) -> 0, or 1 at a barrier that never opens."""
    args = ", ".join(f"shim::Pointer{{bufs[{i}]}}" if kind == "buffer" else f"vals[{i}]" for i, kind in enumerate(kinds))
    kernel = source.replace("#include <cuda_fp16.h>\n", "").replace("#include <cuda_bf16.h>\n", "")
    text = f"""#include "shim.h"
{kernel}
static void** bufs; static long long* vals;
static void call_kernel() {{ {name}({args}); }}
extern "C" int shim_main(void** b, long long* v, int* dims, int reverse) {{
  bufs = b; vals = v; gridDim = {{dims[0], dims[1], dims[2]}}; blockDim = {{dims[3], dims[4], dims[5]}};
  for (int z = 0; z < dims[2]; z++) for (int y = 0; y < dims[1]; y++) for (int x = 0; x < dims[0]; x++) {{
    blockIdx = {{x, y, z}};
    if (shim::run_block(call_kernel, blockDim, reverse)) return 1;
  }}
  return 0;
}}
"""
    folder = _folder()
    stem = folder / hashlib.sha256(f"{sanitize}{text}".encode()).hexdigest()[:24]
    stem.with_suffix(".cpp").write_text(text)
    files = [str(stem.with_suffix(".cpp")), "-o", str(stem.with_suffix(".so"))]
    command = ["g++", *FLAGS, *(SANITIZE if sanitize else ()), f"-I{HERE}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f"g++ refused the text of {name}\n{done.stderr}\n{source}")
    run = ctypes.CDLL(str(stem.with_suffix(".so"))).shim_main
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return run


def to_arrays(program: Program, arrays: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Arrays in the order of the program's buffer parameters, by slot."""
    return dict(zip([p.slot for p in program.params if p.kind == "buffer"], arrays, strict=True))


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix=f"glassgrad-shim-{os.getpid()}-")
    _keep.append(folder)
    return Path(folder.name)


_keep: list[tempfile.TemporaryDirectory] = []
