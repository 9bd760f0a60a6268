"""Devices: what one must offer, the registry that finds them by name, the allocator they share, the replay of a list of launches.

A kernel's arguments are numbered once: slots 0 .. len(bufs)-1 are the buffers of a launch, the slots after them its values.
"""
from __future__ import annotations

import importlib
import operator
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.errors import DeviceError, UsageError

Handle = Any        # what a device calls its memory; an address where it has one
MODULES = {"CPU": "cpu", "PYTHON": "python", "NULL": "null", "CL": "cl", "CUDA": "cuda", "DISK": "disk", "NPY": "npy"}


class Slot(NamedTuple):
    """In a Launch that is to be replayed: the `index`-th handle (or value, or grid size) given to the replay, plus `offset` (bytes)."""
    index: int
    offset: int = 0


class Launch(NamedTuple):
    """One run of a loaded program. Buffers are handles or Slots, values ints or Slots; grid[0] may be a Slot among the values. In a Replay
    this one and those that follow, `beside` in all, do not depend on each other."""
    prog: Any
    bufs: Sequence[Any]
    vals: Sequence[Any] = ()
    grid: tuple[Any, int, int] = (1, 1, 1)
    local: tuple[int, int, int] = (1, 1, 1)
    beside: int = 1


class DeviceBase:
    """A device: memory, compiler, launcher. All launches and copies happen in the order of the calls.

    A subclass sets `target`, and overrides what its hardware does differently; `module.DEVICE` names the class for the registry.
    """
    target: Target
    is_hardware = True               # how fast it runs is worth knowing; False for what imitates a machine or only holds data
    is_host = False                  # its memory can be read through `as_memoryview` without a copy

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = CachingAllocator(name, self._alloc, self._free)

    # ---- memory ----
    def shelf(self, nbytes: int) -> Any:
        """Where buffers of `nbytes` take their memory from and give it back to (a Shelf)."""
        return self.memory.shelf(nbytes)
    def alloc(self, nbytes: int) -> Handle:
        """Memory of at least `nbytes`, uninitialised.

        errors:  DeviceError if there is none left
        """
        return self.memory.alloc(nbytes)
    def free(self, handle: Handle, nbytes: int) -> None:
        """Give back what `alloc(nbytes)` gave."""
        self.memory.free(handle, nbytes)
    def trim(self) -> None:
        """Give memory that is only kept for the next who asks back to the system."""
        self.memory.trim()
    def offset(self, handle: Handle, nbytes: int) -> Handle:
        """The handle of the same memory from byte `nbytes` on."""
        return handle + nbytes if nbytes else handle
    def copyin(self, handle: Handle, src: memoryview) -> None:
        """Host memory to the device."""
        raise NotImplementedError
    def copyout(self, dst: memoryview, handle: Handle) -> None:
        """Device memory to the host, after all launches before it."""
        raise NotImplementedError
    def as_memoryview(self, handle: Handle, nbytes: int, owner: Any = None) -> memoryview:
        """The memory itself, as bytes; the view keeps `owner` alive. Only where `is_host`."""
        raise DeviceError(f"{self.name}: its memory cannot be seen from the host\n  try: copyout")
    def _alloc(self, nbytes: int) -> Handle: raise NotImplementedError
    def _free(self, handle: Handle, nbytes: int) -> None: pass

    # ---- programs ----
    def render(self, program: Program) -> str:
        """The program's source text for this device."""
        raise DeviceError(f"{self.name}: runs no programs, it only holds data\n  try: copy the tensor to another device with .to('CPU')")
    def compile(self, program: Program, source: str) -> bytes:
        """The binary, in the form that is kept on disk."""
        return source.encode()
    def load(self, program_name: str, binary: bytes) -> Any:
        """A program that `launch` takes."""
        raise DeviceError(f"{self.name}: runs no programs, it only holds data\n  try: copy the tensor to another device with .to('CPU')")
    def compile_all(self, programs: Iterable[tuple[Program, str]]) -> list[tuple[str, bytes]]:
        """What `load_all` takes, for each (program, its source): a binary, which several may share, and the program's name in it. To take
        the next program may cost as much as to compile it."""
        return [(program.name, self.compile(program, source)) for program, source in programs]
    def load_all(self, programs: Sequence[tuple[str, bytes]]) -> list[Any]:
        """What `load` gives for each (name, binary)."""
        return [self.load(name, binary) for name, binary in programs]
    def launch(self, prog: Any, bufs: Sequence[Handle], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        """Run `prog` once (perhaps not yet complete on return, see synchronize)."""
        raise NotImplementedError
    def graph(self, rows: Sequence[Launch]) -> Replay:
        """Launches to be run again and again with other handles and values."""
        return Replay(self, rows)
    def synchronize(self) -> None:
        """Wait until all launches are complete."""


class Quick(NamedTuple):
    """The short way of a small Replay: `call(pack(first, *handles, *vals))` with the first `n_handles` handles and `n_vals` values (modulo
    2**64) runs all on the calling thread alone, and lets no other Python thread in between."""
    call: Callable[[bytes], None]
    pack: Callable[..., bytes]
    first: int
    n_handles: int
    n_vals: int


class Replay:
    """A list of launches, run in order. This one runs them one by one; devices that can, hand them over in one call."""
    quick: Quick | None = None

    def __init__(self, device: DeviceBase, rows: Sequence[Launch]) -> None:
        self.device, self.rows = device, list(rows)

    def run(self, handles: Sequence[Handle] = (), vals: Sequence[int] = ()) -> None:
        """Run all rows, Slots filled from `handles` and `vals`."""
        offset = self.device.offset
        for prog, bufs, values, grid, local, _ in self.rows:
            hs = [offset(handles[b.index], b.offset) if isinstance(b, Slot) else b for b in bufs]
            vs = [vals[v.index] + v.offset if isinstance(v, Slot) else v for v in values]
            size = (vals[grid[0].index] + grid[0].offset, *grid[1:]) if isinstance(grid[0], Slot) else grid
            self.device.launch(prog, hs, vs, size, local)


class Shelf:
    """Freed memory of one size, kept for the next who asks. The counts are the allocator's.

    No lock: a list's pop and append are whole, and so is `x += n` on an attribute (Python changes threads at calls and jumps only).
    """
    __slots__ = ("allocator", "kept", "size", "stamp")

    def __init__(self, allocator: CachingAllocator, size: int) -> None:
        self.allocator, self.size, self.kept, self.stamp = allocator, size, [], 0

    def take(self) -> Handle:
        """Memory of this size, kept or new.

        errors:  DeviceError if there is none even after trim()
        """
        a, size = self.allocator, self.size
        try: handle = self.kept.pop()
        except IndexError: handle = a.new(size)
        else: a.cached -= size
        a.used += size
        if a.used > a.peak: a.peak = a.used
        return handle

    def give(self, handle: Handle) -> None:
        """Back onto the shelf."""
        a, size = self.allocator, self.size
        a.used -= size
        a.cached += size
        self.stamp = a.clock
        self.kept.append(handle)
        if a.cached > a.limit: a.shrink(a.limit)


class CachingAllocator:
    """Keeps freed memory for the next request of the same (rounded) size, up to a bound. What was not freed for longest goes first."""

    def __init__(self, name: str, alloc: Callable[[int], Handle], free: Callable[[Handle, int], None], limit: int | None = None) -> None:
        self.name, self._alloc, self._free = name, alloc, free
        self.limit = limit if limit is not None else _memory_bytes() // 4
        self.used = self.peak = self.cached = 0
        self.clock = 0                            # how often the system was asked for memory
        self._lock = threading.RLock()            # re-entered when the collector runs a buffer's __del__ inside
        self._shelves: dict[int, Shelf] = {}

    @staticmethod
    def rounded(nbytes: int) -> int:
        """Sizes share classes: 64 bytes, pages from 64 KiB on."""
        if nbytes >= 1 << 16: return nbytes + 4095 & -4096
        return nbytes + 63 & -64 or 64

    def shelf(self, nbytes: int) -> Shelf:
        """Where memory of at least `nbytes` is taken from and given back to."""
        size = self.rounded(nbytes)
        found = self._shelves.get(size)
        return found if found is not None else self._shelves.setdefault(size, Shelf(self, size))

    def alloc(self, nbytes: int) -> Handle:
        """Memory of at least `nbytes`, kept or new.

        errors:  DeviceError if there is none even after trim()
        """
        return self.shelf(nbytes).take()

    def free(self, handle: Handle, nbytes: int) -> None:
        """Keep what `alloc(nbytes)` gave for the next who asks."""
        self.shelf(nbytes).give(handle)

    def trim(self) -> None:
        """Give all memory that is only kept back to the system."""
        self.shrink(0)

    def new(self, size: int) -> Handle:
        """Memory from the system.

        errors:  DeviceError if there is none even after trim()
        """
        self.clock += 1
        try: return self._alloc(size)
        except MemoryError: pass
        self.trim()
        try: return self._alloc(size)
        except MemoryError:
            raise DeviceError(f"{self.name}: out of memory: asked for {_size(size)}, {_size(self.used)} are in use\n"
                              "  try: smaller batches, or drop tensors that are no longer needed") from None

    def shrink(self, limit: int) -> None:
        """Give kept memory back to the system until no more than `limit` bytes are left, the size that was not freed for longest first."""
        drop = []
        with self._lock:
            for shelf in sorted(self._shelves.values(), key=lambda s: s.stamp):
                while self.cached > limit and shelf.kept:
                    drop.append((shelf.kept.pop(), shelf.size))
                    self.cached -= shelf.size
        for handle, size in drop: self._free(handle, size)


class _Devices:
    """`Device["CPU"]`: the device of that name, made at first use. `Device.DEFAULT` is DEV from the environment, else CPU."""

    def __init__(self) -> None:
        self._kinds: dict[str, str | Callable[[str], DeviceBase]] = dict(MODULES)
        self._made: dict[str, DeviceBase] = {}
        self._names: dict[str, str] = {}
        self._lock = threading.RLock()
        self._default: str | None = None
        # keep(key, make) gives make()'s bytes, perhaps from an earlier process; the engine puts its disk cache here
        self.keep: Callable[[str, Callable[[], bytes]], bytes] = lambda key, make: make()

    @property
    def DEFAULT(self) -> str:
        if self._default is None: self._default = self.canonicalize(os.environ.get("DEV") or "CPU")
        return self._default
    @DEFAULT.setter
    def DEFAULT(self, name: str) -> None: self._default = self.canonicalize(name)

    def register(self, kind: str, make: Callable[[str], DeviceBase]) -> None:
        """Add a kind of device: from now on `Device["KIND"]` is `make("KIND")`, made at first use, and "KIND:1" is another of them.

        errors:  DeviceError if the name is taken or not one upper-case word
        """
        if kind in self._kinds: raise DeviceError(f"register of device {kind!r}\n  the name is taken")
        if not kind.isidentifier() or kind != kind.upper():
            raise DeviceError(f"register of device {kind!r}\n  a device's name is one upper-case word\n  try: 'TOY'")
        self._kinds[kind] = make

    def unregister(self, kind: str) -> None:
        """Forget a kind of device that was registered, and the devices made of it.

        errors:  DeviceError if it was not
        """
        if kind not in self._kinds or kind in MODULES: raise DeviceError(f"unregister of device {kind!r}\n  it was not registered")
        del self._kinds[kind]
        for table in (self._made, self._names):
            for name in [n for n in table if n.partition(":")[0].upper() == kind]: del table[name]
        if self._default is not None and self._default.partition(":")[0] == kind: self._default = None

    def canonicalize(self, name: str | None) -> str:
        """The one spelling of a device's name: upper case, without ":0"; what follows DISK: is a path and stays.

        >>> Device.canonicalize("cpu:0"), Device.canonicalize("cpu:1"), Device.canonicalize("disk:/tmp/A")
        ('CPU', 'CPU:1', 'DISK:/tmp/A')
        """
        if name is None: return self.DEFAULT
        found = self._names.get(name)
        if found is not None: return found
        if not isinstance(name, str): raise DeviceError(f"a device named by {name!r} of type {type(name).__name__}\n  try: 'CPU'")
        kind, _, rest = name.partition(":")
        kind = kind.upper()
        if kind not in self._kinds:
            raise DeviceError(f"no device named {name!r}\n  try: one of {', '.join(self._kinds)}")
        if kind == "DISK":
            if not rest: raise DeviceError("device DISK names no file\n  try: DISK:/path/of/the/file")
            out = f"DISK:{rest}"
        elif rest and not rest.isdigit():
            raise DeviceError(f"no device named {name!r}: what follows ':' is the number of the device\n  try: {kind}:1")
        else: out = f"{kind}:{int(rest)}" if rest and int(rest) else kind
        self._names[name] = out
        return out

    def __getitem__(self, name: str | None) -> DeviceBase:
        found = self._made.get(name)  # type: ignore[arg-type]
        if found is not None: return found
        name = self.canonicalize(name)
        with self._lock:
            if name not in self._made:
                kind = self._kinds[name.partition(":")[0]]
                make = importlib.import_module(f"glassgrad.device.{kind}").DEVICE if isinstance(kind, str) else kind
                self._made[name] = make(name)
            return self._made[name]

    def reason_absent(self, name: str) -> str | None:
        """None if the device works here, else what it says is missing."""
        try: self[name]
        except (DeviceError, ImportError) as e: return str(e)
        return None

    def available(self) -> list[str]:
        """The names of the devices that run programs and work on this machine."""
        return [n for n in self._kinds if n not in ("DISK", "NPY", "NULL") and self.reason_absent(n) is None]

    def opened(self) -> list[DeviceBase]:
        """The devices that have been used so far."""
        return list(self._made.values())


Device = _Devices()


def words(vals: Sequence[int]) -> list[int]:
    """Values as signed 64-bit words, the form kernels take them in.

    >>> words([2**64 - 1, 5])
    [-1, 5]
    """
    try: return [v - (1 << 64) if v >> 63 == 1 else v for v in map(operator.index, vals)]
    except TypeError: raise UsageError(f"a kernel's values must be ints, found {list(vals)!r}") from None


def _memory_bytes() -> int:
    try: return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError): return 8 << 30


def _size(n: int) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB": return f"{n} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1024  # type: ignore[assignment]
    raise AssertionError("unreachable")
