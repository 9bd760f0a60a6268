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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glassgrad.device.cpu_runtime import CALL_WORDS, Runtime
from glassgrad.device.device import Device, DeviceBase, Launch, Quick, Replay, Slot, words
from glassgrad.target.llvm import SCRATCH_SYMBOL, cpu_target, join, render
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.errors import CompilerBug, DeviceError

X86_64_V3 = {"+avx", "+avx2", "+bmi", "+bmi2", "+cx16", "+f16c", "+fma", "+lzcnt", "+movbe", "+popcnt", "+sahf", "+sse3", "+sse4.1",
             "+sse4.2", "+ssse3", "+xsave"}
HUGE_PAGE_BYTES = 2 << 20
MADV_HUGEPAGE = 14
# The text goes to the code generator as it is: registers are SSA values, tiles, vectors and unrolled copies are the compiler's work, and so
# are addresses that loops step along. LLVM's O1 gives the same GEMM speed for 5 ms more, its vectorisers cost up to 100 times as much;
# instruction_combine undoes our MAX (vmaxps + vblendvps becomes vcmpltps + vorps + vblendvps: test_max_is_one_instruction_off_the_chain).
# Loop strength reduction is a third of the code generator's time, for addresses that are already as it would make them. The switch is one
# for the whole process, which may hold other users of LLVM (numba): it is on only while we generate code.
SWITCH = "-disable-lsr"
# A module costs 2 ms, whatever is in it: 123 kernels of a training step (28,000 lines) take a quarter less time in modules of this size
# than alone. Larger ones are no faster, and LLVM's memory grows with them.
MODULE_LINES = 3000


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
    asked = os.environ.get("THREADS", "")
    threads = int(asked) if asked.isdigit() and int(asked) > 0 else _threads()
    return cpu_target(features or host_features(), threads=threads, l1_bytes=l1, l2_bytes=l2, llc_bytes=llc)


def _threads() -> int:
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
        llvm.initialize_native_target()      # all would cost 1 ms, and 0.5 ms a module: each asks again which passes there are
        llvm.initialize_native_asmprinter()
        self.features = ",".join(sorted(f for f in llvm.get_host_cpu_features().flatten().split(",") if f[:1] == "+"))
        self.triple = llvm.get_process_triple()
        self.lock = threading.RLock()
        self.machines: dict[tuple[str, int], tuple[Any, str]] = {}
        self.jit = llvm.create_lljit_compiler()
        self.numbers = itertools.count()
        self.runtime = Runtime(self.link_text)

    def machine(self, features: str, opt: int = 2) -> tuple[Any, str]:
        """The code generator for a set of features and its data layout; made once, as it takes 0.5 ms."""
        if (features, opt) not in self.machines:
            # the scheduling model of a generation all of whose features are there
            level = "x86-64-v3" if set(features.split(",")) >= X86_64_V3 else ""
            target = self.binding.Target.from_triple(self.triple)
            machine = target.create_target_machine(cpu=level, features=features, opt=opt, reloc="pic", codemodel="default")
            self.machines[features, opt] = machine, str(machine.target_data)
        return self.machines[features, opt]

    def compile(self, text: str, features: str, opt: int = 2) -> bytes:
        return self.generate(text, features, "emit_object", opt)

    def assembly(self, text: str, features: str) -> str:
        return self.generate(text, features, "emit_assembly")

    def generate(self, text: str, features: str, form: str, opt: int = 2) -> Any:
        """Machine code in the form that a method of the code generator gives."""
        with self.lock:
            machine, layout = self.machine(features, opt)
            try: module = self.binding.parse_assembly(f'target datalayout = "{layout}"\ntarget triple = "{self.triple}"\n{text}')
            except RuntimeError as e: raise CompilerBug(f"CPU: LLVM refuses the text: {e}\n{text}") from None
            self.binding.set_option("", SWITCH)
            try: return getattr(machine, form)(module)
            finally: self.binding.set_option("", f"{SWITCH}=false")

    def link(self, binaries: Sequence[bytes], imports: dict[str, int], exports: Sequence[str]) -> tuple[Any, dict[str, int]]:
        """Load objects as one library; what keeps it in memory, and the addresses of its exports. 1 ms, and 0.1 ms an object."""
        builder = self.binding.JITLibraryBuilder()
        for binary in binaries: builder.add_object_img(binary)
        for name, address in imports.items(): builder.import_symbol(name, address)
        for name in exports: builder.export_symbol(name)
        with self.lock:
            try: tracker = builder.link(self.jit, f"glassgrad{next(self.numbers)}")
            except RuntimeError as e: raise DeviceError(f"CPU: cannot load {', '.join(exports)}: {e}") from None
        return tracker, {name: tracker[name] for name in exports}

    def link_text(self, text: str, imports: dict[str, int], exports: list[str]) -> tuple[Any, dict[str, int]]:
        """For the runtime, unoptimised: 7 ms instead of 33, and 3 ns more a launch."""
        return self.link([Device.keep(f"{text}\n{self.features}", lambda: self.compile(text, self.features, opt=0))], imports, exports)


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
        self._call = threading.local()

    def set_threads(self, n: int) -> None:
        """Use n threads from now on; 0 for as many as there are cores."""
        self.target = self.target.with_(threads=n or _threads())

    # ---- memory ----
    def _alloc(self, nbytes: int) -> int:
        is_huge = nbytes >= HUGE_PAGE_BYTES
        place = ctypes.c_void_p()
        if _libc().posix_memalign(ctypes.byref(place), HUGE_PAGE_BYTES if is_huge else 64, nbytes): raise MemoryError
        if is_huge and platform.system() == "Linux":          # fewer page faults and TLB misses on big arrays; a refusal does no harm
            _libc().madvise(place, nbytes, MADV_HUGEPAGE)
        return place.value or 0
    def _free(self, handle: int, nbytes: int) -> None: _libc().free(ctypes.c_void_p(handle))
    def trim(self) -> None:
        super().trim()
        if hasattr(_libc(), "malloc_trim"): _libc().malloc_trim(0)      # glibc: free() keeps what lies between pieces in use
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
    def load(self, program_name: str, binary: bytes) -> CpuProgram: return self.load_all([(program_name, binary)])[0]
    def compile_all(self, programs: Iterable[tuple[Program, str]]) -> list[tuple[str, bytes]]:
        """Several a module; a second core generates the code of one while the programs of the next are taken."""
        modules: list[_Module] = []
        try:
            for sources in _modules(programs):
                modules.append(_Module(self, sources))
                if self.target.threads > 1: modules[-1].start()
        finally:
            for m in modules: m.wait()
        return [p for m in modules for p in m.result()]
    def load_all(self, programs: Sequence[tuple[str, bytes]]) -> list[CpuProgram]:
        """Many at once, as few libraries: in each, names are unique."""
        libraries: list[dict[str, bytes]] = []
        for name, binary in dict.fromkeys(programs):
            free = next((library for library in libraries if name not in library), None)
            if free is None: libraries.append(free := {})
            free[name] = binary
        made: dict[tuple[str, bytes], CpuProgram] = {}
        for library in libraries:
            imports = {SCRATCH_SYMBOL: self.runtime.at[SCRATCH_SYMBOL]}
            keep, at = self.llvm.link(list(dict.fromkeys(library.values())), imports, list(library))
            made |= {(name, binary): CpuProgram(name, at[name], keep) for name, binary in library.items()}
        return [made[program] for program in programs]

    def launch(self, prog: CpuProgram, bufs: Sequence[int], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        n, count = len(bufs) + len(vals), grid[0]
        threads, runtime = self.target.threads if count > 1 else 1, self.runtime
        if threads > runtime.workers + 1: runtime.grow(threads - 1)
        try: call, address, layouts = self._call.mine
        except AttributeError: call, address, layouts = self._new_call(n)
        if n >= len(layouts): call, address, layouts = self._new_call(n)
        row = address + 8 * CALL_WORDS
        layouts[n].pack_into(call, 0, runtime.pool, row, 1, threads, 0, 0, 0, prog.address, row + 32, count, 1, *bufs,
                             *(words(vals) if vals else ()))
        runtime.call(address)

    def _new_call(self, n: int) -> tuple[Any, int, list[struct.Struct]]:
        """This thread's words for one launch of up to n arguments, and their layout for each number of arguments."""
        room = max(64, 2 * n)
        call = ctypes.create_string_buffer(8 * (CALL_WORDS + 4 + room))
        self._call.mine = call, ctypes.addressof(call), [struct.Struct(f"={CALL_WORDS + 4 + i}q") for i in range(room + 1)]
        return self._call.mine

    def graph(self, rows: Sequence[Launch]) -> Replay: return CpuReplay(self, rows)


class _Module:
    """Several programs' code in the making: by a thread that was started, else by who waits. The threads take turns, LLVM has a lock.

    An executor would refuse work once the main thread has ended, while others still compute.
    """

    def __init__(self, device: CpuDevice, sources: list[str]) -> None:
        self.device, self.sources = device, sources
        self.made: list[tuple[str, bytes]] | None = None
        self.error: Exception | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        thread = threading.Thread(target=self.make, name="glassgrad code")
        try: thread.start()
        except RuntimeError: return            # no thread is to be had, as when the interpreter ends
        self.thread = thread

    def make(self) -> None:
        features = self.device.target.features
        try:
            text, names = join(self.sources, features)
            binary = self.device.llvm.compile(text, features)
            self.made = [(name, binary) for name in names]
        except Exception as error: self.error = error       # raised where the result is wanted

    def wait(self) -> None:
        if self.thread is not None: self.thread.join()

    def result(self) -> list[tuple[str, bytes]]:
        if self.thread is None: self.make()
        if self.error is not None: raise self.error
        return self.made or []


def _modules(programs: Iterable[tuple[Program, str]]) -> Iterator[list[str]]:
    """The sources in modules of up to MODULE_LINES, or of one that is longer."""
    sources: list[str] = []
    lines = 0
    for _, source in programs:
        more = source.count("\n")
        if sources and lines + more > MODULE_LINES:
            yield sources
            sources, lines = [], 0
        sources.append(source)
        lines += more
    if sources: yield sources


class CpuReplay(Replay):
    """All rows in one native call: their words are laid out once, Slots are patched by the call itself."""

    def __init__(self, device: CpuDevice, rows: Sequence[Launch]) -> None:
        super().__init__(device, rows)
        self.runtime, self._lock = device.runtime, threading.Lock()
        self.is_serial = all(not isinstance(r.grid[0], Slot) and r.grid[0] < 2 and r.beside < 2 for r in rows)
        found = [[b.index for r in rows for b in r.bufs if isinstance(b, Slot)],
                 [v.index for r in rows for v in (*r.vals, r.grid[0]) if isinstance(v, Slot)]]
        self.n_handles, self.n_vals = (max(slots, default=-1) + 1 for slots in found)
        place = CALL_WORDS + 4 * len(rows)                     # where the arguments begin, in words
        inputs = place + sum(len(r.bufs) + len(r.vals) for r in rows)
        self._words = ctypes.create_string_buffer(8 * (inputs + self.n_handles + self.n_vals))
        self._at = at = ctypes.addressof(self._words)
        out: list[int] = [0] * CALL_WORDS
        args: list[int] = []
        patches: list[int] = []

        def word(x: Any, place: int, shift: int) -> int:
            if not isinstance(x, Slot): return words((x,))[0]
            patches.extend((at + 8 * place, x.index + shift, x.offset))
            return 0
        for i, r in enumerate(rows):
            start = place + len(args)
            out += [r.prog.address, at + 8 * start, word(r.grid[0], CALL_WORDS + 4 * i + 2, self.n_handles), r.beside]
            args += [word(b, start + j, 0) for j, b in enumerate(r.bufs)]
            args += [word(v, start + len(r.bufs) + j, self.n_handles) for j, v in enumerate(r.vals)]
        self._patches = ctypes.create_string_buffer(struct.pack(f"={len(patches)}q", *patches), 8 * len(patches) or 8)
        out[1:CALL_WORDS] = [at + 8 * CALL_WORDS, len(rows), 1, ctypes.addressof(self._patches), len(patches) // 3, at + 8 * inputs]
        struct.pack_into(f"={inputs}q", self._words, 0, *out, *args)
        self._head = (ctypes.c_int64 * CALL_WORDS).from_buffer(self._words)
        self.quick = Quick(device.runtime.quick, struct.Struct(f"={1 + self.n_handles}q{self.n_vals}Q").pack, at, self.n_handles, self.n_vals)
        self._inputs, self._place = struct.Struct(f"={self.n_handles + self.n_vals}q"), 8 * inputs

    def run(self, handles: Sequence[int] = (), vals: Sequence[int] = ()) -> None:
        runtime, threads = self.runtime, 1 if self.is_serial else self.device.target.threads
        with self._lock:
            if threads > runtime.workers + 1: runtime.grow(threads - 1)
            self._head[0], self._head[3] = runtime.pool, threads
            self._inputs.pack_into(self._words, self._place, *handles[:self.n_handles], *(words(vals[:self.n_vals]) if vals else ()))
            runtime.call(self._at)


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
