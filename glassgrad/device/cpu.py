"""CPU: LLVM IR compiled in the process by llvmlite, memory from the C library, launches through the native pool of cpu_runtime.

What a program is on disk is an ELF object for this machine's features. Handles are addresses.
"""
from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import platform
import struct
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glassgrad.device.cpu_runtime import SERIAL, Runtime
from glassgrad.device.device import Device, DeviceBase, Launch, Replay, Slot, words
from glassgrad.target.llvm import SCRATCH_SYMBOL, cpu_target, render
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.errors import CompilerBug, DeviceError

HUGE_PAGE_BYTES = 2 << 20
MADV_HUGEPAGE = 14
# No loop passes: the code generator's own strength reduction sees to the addresses, and tiles, vectors and unrolled copies are the
# compiler's work already. LLVM's O1 gives the same GEMM speed for 5 ms more, its vectorisers cost up to 100 times as much.
PASSES = ("sroa", "instruction_combine", "simplify_cfg")


class CpuProgram(NamedTuple):
    """A loaded kernel: its address, and what keeps the code in memory."""
    name: str
    address: int
    keep: Any


# ---- what machine this is --------------------------------------------------------------------------------------------------------
def host_features() -> str:
    """LLVM's feature string of this machine; the features are what counts, names of CPUs are wrong in virtual machines."""
    return _llvm().features


def host_target(features: str | None = None) -> Target:
    """The Target of this machine (or of one with other features): THREADS from the environment, cache sizes from the system."""
    l1, l2, llc = _cache_bytes()
    return cpu_target(features or host_features(), threads=_threads(), l1_bytes=l1, l2_bytes=l2, llc_bytes=llc)


def _threads() -> int:
    asked = os.environ.get("THREADS", "")
    if asked.isdigit() and int(asked) > 0: return int(asked)
    if hasattr(os, "sched_getaffinity"): return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cache_bytes() -> tuple[int, int, int]:
    """L1 data, L2, last level; of the first core, with cautious guesses where the system does not say."""
    found: dict[int, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / f).read_text().strip() for f in ("level", "type", "size"))
            if kind != "Instruction": found[int(level)] = int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
        except (OSError, ValueError, KeyError, IndexError): continue
    l1, l2 = found.get(1, 32 << 10), found.get(2, 256 << 10)
    return l1, l2, found.get(3, max(4 * l2, 2 << 20))


# ---- LLVM ------------------------------------------------------------------------------------------------------------------------
class _Llvm:
    """llvmlite, set up for this machine. Its compiler holds one lock for the process."""

    def __init__(self) -> None:
        try: self.binding = llvm = importlib.import_module("llvmlite.binding")
        except ImportError as e: raise DeviceError("CPU: needs llvmlite, which is not installed\n  try: pip install llvmlite") from e
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        self.features = llvm.get_host_cpu_features().flatten()
        self.triple = llvm.get_process_triple()
        self.lock = threading.RLock()
        self.machines: dict[str, tuple[Any, Any]] = {}
        self.jit = llvm.create_lljit_compiler()
        self.numbers = itertools.count()
        self.runtime = Runtime(self.link_text)

    def machine(self, features: str) -> tuple[Any, Any]:
        """The code generator and the pass builder for a set of features; made once, as it takes 0.5 ms."""
        if features not in self.machines:
            on = {f for f in features.split(",") if f[:1] == "+"}
            # the scheduling model of a generation that has the features: only a hint, unlike the features themselves
            level = "x86-64-v3" if {"+avx2", "+bmi2", "+fma"} <= on else ""
            text = ",".join(sorted(on)) if level == "" else features
            target = self.binding.Target.from_triple(self.triple)
            machine = target.create_target_machine(cpu=level, features=text, opt=2, reloc="pic", codemodel="default")
            options = self.binding.create_pipeline_tuning_options(1)
            self.machines[features] = machine, self.binding.create_pass_builder(machine, options)
        return self.machines[features]

    def optimise(self, text: str, features: str) -> tuple[Any, Any]:
        """(code generator, optimised module) of IR text."""
        machine, builder = self.machine(features)
        try: module = self.binding.parse_assembly(text)
        except RuntimeError as e: raise CompilerBug(f"CPU: LLVM refuses the text: {e}\n{text}") from None
        module.triple, module.data_layout = self.triple, str(machine.target_data)
        passes = self.binding.create_new_module_pass_manager()
        for name in PASSES: getattr(passes, f"add_{name}_pass")()
        passes.run(module, builder)
        return machine, module

    def compile(self, text: str, features: str) -> bytes:
        with self.lock:
            machine, module = self.optimise(text, features)
            return machine.emit_object(module)

    def assembly(self, text: str, features: str) -> str:
        with self.lock:
            machine, module = self.optimise(text, features)
            return machine.emit_assembly(module)

    def link(self, binary: bytes, imports: dict[str, int], exports: list[str]) -> tuple[Any, dict[str, int]]:
        """Load an object; what keeps it in memory, and the addresses of its exports."""
        builder = self.binding.JITLibraryBuilder().add_object_img(binary)
        for name, address in imports.items(): builder.import_symbol(name, address)
        for name in exports: builder.export_symbol(name)
        with self.lock:
            try: tracker = builder.link(self.jit, f"glassgrad{next(self.numbers)}")
            except RuntimeError as e: raise DeviceError(f"CPU: cannot load {', '.join(exports)}: {e}") from None
        return tracker, {name: tracker[name] for name in exports}

    def link_text(self, text: str, imports: dict[str, int], exports: list[str]) -> tuple[Any, dict[str, int]]:
        return self.link(self.compile(text, self.features), imports, exports)


_made: list[_Llvm] = []
_making = threading.Lock()


def _llvm() -> _Llvm:
    with _making:
        if not _made:
            _made.append(_Llvm())
            importlib.import_module("atexit").register(_made[0].runtime.close)
    return _made[0]


# ---- the device ------------------------------------------------------------------------------------------------------------------
class CpuDevice(DeviceBase):
    """The host's cores. Launches are complete when `launch` returns."""
    is_host = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.llvm = _llvm()
        self.runtime = self.llvm.runtime
        self.target = host_target()
        self._row = threading.local()

    # ---- memory ----
    def _alloc(self, nbytes: int) -> int:
        is_huge = nbytes >= HUGE_PAGE_BYTES
        place = ctypes.c_void_p()
        if _libc().posix_memalign(ctypes.byref(place), HUGE_PAGE_BYTES if is_huge else 64, nbytes): raise MemoryError
        if is_huge and platform.system() == "Linux":          # fewer page faults and TLB misses on big arrays; a refusal does no harm
            _libc().madvise(place, nbytes, MADV_HUGEPAGE)
        return place.value or 0
    def _free(self, handle: int, nbytes: int) -> None: _libc().free(ctypes.c_void_p(handle))
    def copyin(self, handle: int, src: memoryview) -> None:
        if not src.nbytes: return
        if src.readonly: ctypes.memmove(handle, _address(src), src.nbytes)
        else: ctypes.memmove(handle, (ctypes.c_char * src.nbytes).from_buffer(src), src.nbytes)
    def copyout(self, dst: memoryview, handle: int) -> None:
        if dst.nbytes: ctypes.memmove((ctypes.c_char * dst.nbytes).from_buffer(dst), handle, dst.nbytes)
    def as_memoryview(self, handle: int, nbytes: int, owner: Any = None) -> memoryview:
        if not nbytes: return memoryview(bytearray())
        array = (ctypes.c_uint8 * nbytes).from_address(handle)
        array.owner = owner  # type: ignore[attr-defined]
        return memoryview(array).cast("B")

    # ---- programs ----
    def render(self, program: Program) -> str: return render(program, self.target)
    def compile(self, program: Program, source: str) -> bytes: return self.llvm.compile(source, self.target.features)
    def disassemble(self, source: str) -> str:
        """The machine code of a rendered program, as assembly text."""
        return self.llvm.assembly(source, self.target.features)
    def load(self, program_name: str, binary: bytes) -> CpuProgram:
        keep, at = self.llvm.link(binary, {SCRATCH_SYMBOL: self.runtime.at[SCRATCH_SYMBOL]}, [program_name])
        return CpuProgram(program_name, at[program_name], keep)

    def launch(self, prog: CpuProgram, bufs: Sequence[int], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        n = len(bufs) + len(vals)
        try: row, address, room = self._row.mine
        except AttributeError: row, address, room = self._row_for(n)
        if n > room: row, address, _ = self._row_for(n)
        struct.pack_into(f"={4 + n}q", row, 0, prog.address, address + 32, grid[0], 0, *bufs, *(words(vals) if vals else ()))
        self.runtime.run(address, 1, self.target.threads if grid[0] > 1 else 1)

    def _row_for(self, n: int) -> tuple[Any, int, int]:
        room = max(64, 2 * n)
        row = ctypes.create_string_buffer(32 + 8 * room)
        self._row.mine = row, ctypes.addressof(row), room
        return self._row.mine

    def graph(self, rows: Sequence[Launch]) -> Replay: return CpuReplay(self, rows)


class CpuReplay(Replay):
    """All rows in one native call: their words are laid out once, Slots are patched by the call itself."""

    def __init__(self, device: CpuDevice, rows: Sequence[Launch]) -> None:
        super().__init__(device, rows)
        self.runtime, self.threads, self._lock = device.runtime, device.target.threads, threading.Lock()
        counts = [len(r.bufs) + len(r.vals) for r in rows]
        self._words = ctypes.create_string_buffer(8 * (4 * len(rows) + sum(counts)) or 8)
        self._at = ctypes.addressof(self._words)
        slots = [b.index for r in rows for b in r.bufs if isinstance(b, Slot)]
        self.n_handles = max(slots, default=-1) + 1
        patches: list[int] = []
        place = 32 * len(rows)
        for i, r in enumerate(rows):
            row = [r.prog.address, self._at + place, r.grid[0], 0]
            for j, w in enumerate(row + list(r.bufs) + list(r.vals)):
                at = 32 * i + 8 * j if j < 4 else place + 8 * (j - 4)
                if isinstance(w, Slot):
                    patches += [self._at + at, w.index + (0 if 4 <= j < 4 + len(r.bufs) else self.n_handles), w.offset]
                    w = 0
                struct.pack_into("=q", self._words, at, words((w,))[0])
            place += 8 * counts[i]
        self._patch = struct.pack(f"={len(patches)}q", *patches)
        self._patch_words = ctypes.create_string_buffer(self._patch, len(self._patch) or 8)
        self.n_patches = len(patches) // 3
        self.n_vals = max((patches[i + 1] + 1 - self.n_handles for i in range(0, len(patches), 3)), default=0)
        self._inputs = ctypes.create_string_buffer(8 * (self.n_handles + max(self.n_vals, 0)) or 8)
        self._calls = (self._at, len(self.rows), self.threads, ctypes.addressof(self._patch_words), self.n_patches, ctypes.addressof(self._inputs))
        self._format = struct.Struct(f"={self.n_handles + max(self.n_vals, 0)}q")

    def run(self, handles: Sequence[int] = (), vals: Sequence[int] = ()) -> None:
        with self._lock:
            if self.n_patches: self._format.pack_into(self._inputs, 0, *handles[:self.n_handles], *words(vals)[:max(self.n_vals, 0)])
            self.runtime.run(*self._calls)


def _libc() -> Any: return _LIBC[0] if _LIBC else _open_libc()


_LIBC: list[Any] = []


def _open_libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.posix_memalign.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.free.restype = None
    _LIBC.append(libc)
    return libc


def _address(view: memoryview) -> Any:
    """Read-only memory for memmove: ctypes wants either bytes or something writable, NumPy sees the address without a copy."""
    np = importlib.import_module("numpy")
    return np.frombuffer(view, dtype=np.uint8).ctypes.data


DEVICE = CpuDevice
