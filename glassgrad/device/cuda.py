"""The CUDA device: NVIDIA's driver and NVRTC by ctypes, no binding package. A compiled program is a cubin.

`compile_source` and `cuda_target` need no GPU. Floats of 16 bits are native where CUDA's headers are found, else emulated.
"""
from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glassgrad.device.device import DeviceBase, Launch, Replay, Slot, words
from glassgrad.device.host import pinned
from glassgrad.target.c import c_target, render
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError

OUT_OF_MEMORY = 2
# cuDeviceGetAttribute
MAX_THREADS, SHARED_BYTES, MULTIPROCESSORS, L2_BYTES, MAJOR, MINOR = 1, 8, 16, 38, 75, 76
# no fast math; a*b+c is rounded twice unless the program says MULACC
OPTIONS = ("--std=c++17", "--fmad=false")
INSTALL_DRIVER = "try: install the NVIDIA driver, which brings libcuda.so.1 (glassgrad.device.cuda.compile_source works without)"
INSTALL_COMPILER = "try: pip install nvidia-cuda-nvrtc, or put nvcc on PATH"


class CUDADevice(DeviceBase):
    """One NVIDIA GPU. Handles are device addresses; all work goes to the default stream, in order."""

    def __init__(self, name: str = "CUDA") -> None:
        super().__init__(name)
        self.lib, self.lock, self.here = driver(), threading.Lock(), threading.local()
        check(self.lib.cuInit(0), f"{name}: start of the driver", self.lib)
        count, index = ctypes.c_int(), int(name.partition(":")[2] or 0)
        check(self.lib.cuDeviceGetCount(ctypes.byref(count)), f"{name}: number of GPUs", self.lib)
        if index >= count.value: raise DeviceError(f"{name}: this machine has {count.value} GPUs\n  try: CUDA to CUDA:{count.value - 1}")
        self.id, self.context = ctypes.c_int(), ctypes.c_void_p()
        check(self.lib.cuDeviceGet(ctypes.byref(self.id), index), f"{name}: GPU {index}", self.lib)
        check(self.lib.cuDevicePrimaryCtxRetain(ctypes.byref(self.context), self.id), f"{name}: context", self.lib)
        self.arch = self._fact(MAJOR) * 10 + self._fact(MINOR)
        self.target = cuda_target(self.arch, threads=self._fact(MULTIPROCESSORS), max_local=self._fact(MAX_THREADS),
                                  shared_bytes=self._fact(SHARED_BYTES), l2_bytes=self._fact(L2_BYTES))

    def _fact(self, what: int) -> int:
        value = ctypes.c_int()
        check(self.lib.cuDeviceGetAttribute(ctypes.byref(value), what, self.id), f"{self.name}: attribute {what}", self.lib)
        return value.value

    def _enter(self) -> None:
        """A context belongs to a thread."""
        if getattr(self.here, "is_set", False): return
        check(self.lib.cuCtxSetCurrent(self.context), f"{self.name}: context", self.lib)
        self.here.is_set = True

    # ---- memory
    def _alloc(self, nbytes: int) -> int:
        self._enter()
        handle = ctypes.c_uint64()
        code = self.lib.cuMemAlloc_v2(ctypes.byref(handle), nbytes)
        if code == OUT_OF_MEMORY: raise MemoryError(f"{self.name}: {nbytes} bytes")
        check(code, f"{self.name}: allocating {nbytes} bytes", self.lib)
        return handle.value

    def _free(self, handle: int, nbytes: int) -> None:
        self._enter()
        self.lib.cuMemFree_v2(handle)

    def copyin(self, handle: int, src: memoryview) -> None:
        if src.nbytes == 0: return
        self._enter()
        keep = pinned(src)
        code = self.lib.cuMemcpyHtoD_v2(handle, ctypes.addressof(keep), src.nbytes)
        check(code, f"{self.name}: copy of {src.nbytes} bytes in", self.lib)

    def copyout(self, dst: memoryview, handle: int) -> None:
        if dst.nbytes == 0: return
        self._enter()
        keep = pinned(dst)
        code = self.lib.cuMemcpyDtoH_v2(ctypes.addressof(keep), handle, dst.nbytes)
        check(code, f"{self.name}: copy of {dst.nbytes} bytes out", self.lib)

    # ---- programs
    def render(self, program: Program) -> str: return render(program, self.target)
    def compile(self, program: Program, source: str) -> bytes: return compile_source(source, self.arch)

    def load(self, program_name: str, binary: bytes) -> CUDAProgram:
        self._enter()
        return CUDAProgram(self.lib, program_name, binary)

    # ---- running
    def launch(self, prog: CUDAProgram, bufs: Sequence[int], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        if 0 in grid: return
        self._enter()
        with self.lock:                     # the arguments stand in one array a program
            args = prog.arguments(bufs, words(vals))
            code = self.lib.cuLaunchKernel(prog.function, *grid, *local, 0, None, args, None)
        if code: check(code, f"{prog.name}: launch of {tuple(grid)} workgroups of {tuple(local)} threads on {self.name}", self.lib)

    def graph(self, rows: Sequence[Launch]) -> Replay: return CUDAReplay(self, rows)

    def synchronize(self) -> None:
        self._enter()
        check(self.lib.cuCtxSynchronize(), f"{self.name}: waiting for the GPU", self.lib)


class CUDAProgram:
    """A kernel that is ready to run, and the array its arguments are handed over in."""
    __slots__ = ("_args", "_pointers", "function", "lib", "module", "name")

    def __init__(self, lib: Any, name: str, binary: bytes) -> None:
        self.lib, self.name, self.module, self.function = lib, name, ctypes.c_void_p(), ctypes.c_void_p()
        check(lib.cuModuleLoadData(ctypes.byref(self.module), binary), f"{name}: loading {len(binary)} bytes of compiled code", lib)
        check(lib.cuModuleGetFunction(ctypes.byref(self.function), self.module, name.encode()), f"{name}: kernel of that name", lib)
        self._args = (ctypes.c_int64 * 0)()
        self._pointers = pointers(self._args)

    def arguments(self, bufs: Sequence[int], vals: Sequence[int]) -> ctypes.Array:
        """Pointers to the arguments, buffers first; good until the next call."""
        count = len(bufs) + len(vals)
        if len(self._args) != count:
            self._args = (ctypes.c_int64 * count)()
            self._pointers = pointers(self._args)
        self._args[:] = [*bufs, *vals]
        return self._pointers

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "module", None) and not is_finalizing(): self.lib.cuModuleUnload(self.module)


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2 of cuda.h."""
    _fields_ = [("function", ctypes.c_void_p), ("grid", ctypes.c_uint * 3), ("local", ctypes.c_uint * 3), ("shared_bytes", ctypes.c_uint),
                ("args", ctypes.c_void_p), ("extra", ctypes.c_void_p), ("kernel", ctypes.c_void_p), ("context", ctypes.c_void_p)]


class CUDAReplay(Replay):
    """The rows as one CUDA graph, a chain; built at the first run, rows with Slots are changed in it before each later one."""

    def __init__(self, device: CUDADevice, rows: Sequence[Launch]) -> None:
        super().__init__(device, rows)
        self.lib, self.graph, self.exec = device.lib, ctypes.c_void_p(), ctypes.c_void_p()
        self.nodes: list[tuple[int, ctypes.c_void_p]] = []         # (row, node)
        self.last: dict[int, tuple] = {}
        # a grid that may be empty is no node of a fixed graph
        self.is_plain = any(isinstance(r.grid[0], Slot) or 0 in r.grid for r in self.rows) or len(self.rows) < 2

    def run(self, handles: Sequence[int] = (), vals: Sequence[int] = ()) -> None:
        if self.is_plain: return super().run(handles, vals)
        self.device._enter()
        if self.exec: self._update(handles, vals)
        else: self._build(handles, vals)
        check(self.lib.cuGraphLaunch(self.exec, None), f"{self.device.name}: replay of {len(self.rows)} launches", self.lib)
        return None

    def _filled(self, row: Launch, handles: Sequence[int], vals: Sequence[int]) -> tuple[int, ...]:
        bufs = [handles[b.index] + b.offset if isinstance(b, Slot) else b for b in row.bufs]
        return (*bufs, *words([vals[v.index] + v.offset if isinstance(v, Slot) else v for v in row.vals]))

    def _params(self, row: Launch, values: tuple[int, ...]) -> tuple[KernelNode, Any]:
        args = (ctypes.c_int64 * len(values))(*values)
        table = pointers(args)
        three = ctypes.c_uint * 3
        return KernelNode(row.prog.function, three(*row.grid), three(*row.local), 0, ctypes.addressof(table)), (args, table)

    def _build(self, handles: Sequence[int], vals: Sequence[int]) -> None:
        name = f"{self.device.name}: graph of {len(self.rows)} launches"
        check(self.lib.cuGraphCreate(ctypes.byref(self.graph), 0), name, self.lib)
        for i, row in enumerate(self.rows):
            values, node = self._filled(row, handles, vals), ctypes.c_void_p()
            params, keep = self._params(row, values)
            before = (ctypes.c_void_p * 1)(self.nodes[-1][1].value if self.nodes else None)
            code = self.lib.cuGraphAddKernelNode_v2(ctypes.byref(node), self.graph, before if self.nodes else None, len(self.nodes) and 1,
                                                    ctypes.byref(params))
            check(code, f"{name}: {row.prog.name} of {tuple(row.grid)} workgroups of {tuple(row.local)} threads", self.lib)
            del keep
            self.nodes.append((i, node))
            self.last[i] = values
        check(self.lib.cuGraphInstantiateWithFlags(ctypes.byref(self.exec), self.graph, 0), name, self.lib)

    def _update(self, handles: Sequence[int], vals: Sequence[int]) -> None:
        for i, node in self.nodes:
            row = self.rows[i]
            values = self._filled(row, handles, vals)
            if values == self.last[i]: continue
            params, keep = self._params(row, values)
            code = self.lib.cuGraphExecKernelNodeSetParams_v2(self.exec, node, ctypes.byref(params))
            check(code, f"{self.device.name}: new arguments of {row.prog.name} in a graph", self.lib)
            del keep
            self.last[i] = values

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing(): return
        if getattr(self, "exec", None): self.lib.cuGraphExecDestroy(self.exec)
        if getattr(self, "graph", None): self.lib.cuGraphDestroy(self.graph)


DEVICE = CUDADevice


# ---- compiling, with or without a GPU ---------------------------------------------------------------------------------------------
def cuda_target(arch: int = 90, **facts: Any) -> Target:
    """What a GPU of compute capability arch/10 computes with the headers that are installed here.

    >>> cuda_target(75).max_local
    1024
    """
    halves = [] if header_folder() is None or arch < 53 else [dtypes.float16, *([dtypes.bfloat16] if arch >= 80 else [])]
    known = {"max_local": 1024, "shared_bytes": 48 << 10, "threads": 64, "l2_bytes": 4 << 20, **facts}
    return c_target("CUDA", *halves, has_grid=True, features=f"sm_{arch}", **known)


def compile_source(source: str, arch: int | str = 90) -> bytes:
    """CUDA C++ text as a cubin for `arch` (90, "sm_90" or "sm_90a"), by NVRTC, else nvcc; no GPU needed.

    For a GPU younger than the compiler the result is PTX, which the driver compiles.
    errors:  DeviceError with the compiler's words, or if there is no compiler
    """
    arch = str(arch).removeprefix("sm_")
    folder = header_folder() if "#include" in source else None
    include = [f"-I{folder}"] if folder else []
    lib = nvrtc()
    if lib is not None: return _nvrtc_compile(lib, source, arch, include)
    if shutil.which("nvcc"): return _nvcc_compile(source, arch, include)
    raise DeviceError(f"CUDA: no compiler for sm_{arch}: neither NVRTC nor nvcc was found\n  {INSTALL_COMPILER}")


def _nvrtc_compile(lib: Any, source: str, arch: str, include: list[str]) -> bytes:
    known = _nvrtc_archs(lib)
    number = int(arch.rstrip("af"))
    is_ptx = bool(known) and number not in known and number > min(known)
    goal = f"compute_{max(k for k in known if k < number)}" if is_ptx else f"sm_{arch}"
    options = [f"--gpu-architecture={goal}", *OPTIONS, *include]
    prog, size = ctypes.c_void_p(), ctypes.c_size_t()
    lib.nvrtcCreateProgram(ctypes.byref(prog), source.encode(), b"kernel.cu", 0, None, None)
    try:
        code = lib.nvrtcCompileProgram(prog, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
        if code:
            lib.nvrtcGetProgramLogSize(prog, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            lib.nvrtcGetProgramLog(prog, log)
            words_of = log.value.decode(errors="replace")
            raise DeviceError(f"CUDA: NVRTC refused the source for sm_{arch} (error {code})\n{words_of}\n{source}")
        get_size, get = (lib.nvrtcGetPTXSize, lib.nvrtcGetPTX) if is_ptx else (lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN)
        get_size(prog, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        get(prog, out)
        return out.raw
    finally: lib.nvrtcDestroyProgram(ctypes.byref(prog))


def _nvrtc_archs(lib: Any) -> list[int]:
    count = ctypes.c_int()
    if lib.nvrtcGetNumSupportedArchs(ctypes.byref(count)): return []
    archs = (ctypes.c_int * count.value)()
    lib.nvrtcGetSupportedArchs(archs)
    return list(archs)


def _nvcc_compile(source: str, arch: str, include: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder, "kernel.cu"), Path(folder, "kernel.cubin")
        text.write_text(source)
        command = ["nvcc", "-cubin", f"-arch=sm_{arch}", *OPTIONS, *include, str(text), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode: raise DeviceError(f"CUDA: nvcc refused the source for sm_{arch}\n{done.stderr}\n{source}")
        return out.read_bytes()


# ---- libraries -------------------------------------------------------------------------------------------------------------------
@functools.cache
def driver() -> Any:
    """NVIDIA's driver.

    errors:  DeviceError if it is not installed
    """
    for path in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try: lib = ctypes.CDLL(path)
        except OSError: continue
        for name, args in SIGNATURES.items():
            fn = getattr(lib, name)
            fn.restype, fn.argtypes = ctypes.c_int, args
        return lib
    raise DeviceError(f"CUDA: no driver (looked for libcuda.so.1)\n  {INSTALL_DRIVER}")


@functools.cache
def nvrtc() -> Any:
    """NVIDIA's run-time compiler, from its pip package, a toolkit or the system; None if there is none."""
    folders = [*_packages("lib"), *(root / "lib64" for root in _toolkits())]
    files = [str(f) for folder in folders for f in sorted(folder.glob("libnvrtc.so.*"), reverse=True) if ".alt" not in f.name]
    for path in (*files, "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        # 13.0 does not find its own builtins unless they are there already
        for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*")) if "/" in path else ():
            try: ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            except OSError: continue
        try: return ctypes.CDLL(path)
        except OSError: continue
    return None


@functools.cache
def header_folder() -> Path | None:
    """The folder with cuda_fp16.h, if there is one."""
    folders = [*(root / "include" for root in _toolkits()), *_packages("include")]
    return next((f for f in folders if (f / "cuda_fp16.h").exists() and (f / "cuda_bf16.h").exists()), None)


def _packages(folder: str) -> list[Path]: return [f for root in sys.path for f in sorted(Path(root or ".").glob(f"nvidia/*/{folder}"))]
def _toolkits() -> list[Path]:
    named = [os.environ[k] for k in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(k)]
    return [Path(p) for p in (*named, "/usr/local/cuda")]


def pointers(args: ctypes.Array) -> ctypes.Array:
    """The addresses of an array's 8-byte elements."""
    start = ctypes.addressof(args)
    return (ctypes.c_void_p * len(args))(*(start + 8 * i for i in range(len(args))))


def check(code: int, asked: str, lib: Any) -> None:
    """DeviceError if a call of the driver did not succeed."""
    if code == 0: return
    text = ctypes.c_char_p()
    lib.cuGetErrorString(code, ctypes.byref(text))
    raise DeviceError(f"{asked}\n  CUDA error {code}: {(text.value or b'unknown').decode()}")


_P, _I, _U, _Z, _A = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint64
SIGNATURES: dict[str, list[Any]] = {
    "cuInit": [_U], "cuDeviceGetCount": [_P], "cuDeviceGet": [_P, _I], "cuDeviceGetAttribute": [_P, _I, _I], "cuGetErrorString": [_I, _P],
    "cuDevicePrimaryCtxRetain": [_P, _I], "cuCtxSetCurrent": [_P], "cuCtxSynchronize": [], "cuMemAlloc_v2": [_P, _Z], "cuMemFree_v2": [_A],
    "cuMemcpyHtoD_v2": [_A, _P, _Z], "cuMemcpyDtoH_v2": [_P, _A, _Z], "cuModuleLoadData": [_P, ctypes.c_char_p], "cuModuleUnload": [_P],
    "cuModuleGetFunction": [_P, _P, ctypes.c_char_p], "cuLaunchKernel": [_P, _U, _U, _U, _U, _U, _U, _U, _P, _P, _P],
    "cuGraphCreate": [_P, _U], "cuGraphAddKernelNode_v2": [_P, _P, _P, _Z, _P], "cuGraphInstantiateWithFlags": [_P, _P, _A],
    "cuGraphExecKernelNodeSetParams_v2": [_P, _P, _P], "cuGraphLaunch": [_P, _P], "cuGraphExecDestroy": [_P], "cuGraphDestroy": [_P],
}
