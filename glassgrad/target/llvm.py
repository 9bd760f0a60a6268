"""Write a Program as LLVM IR text for a CPU.

in:      LINEAR form, only ops and dtypes of the target (see cpu_target)
out:     `NAME(bufs, vals, begin, end)`: addresses of buffers, 64-bit values, the part of the grid to do
source:  LLVM language reference (opaque pointers)

Three layers below: llvm_text (names, types, instructions), llvm_math (arithmetic, lanes), llvm_memory (addresses, loads, stores); here
the function around them, its loops and registers. bool is i1 in registers and i8 in memory.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from glassgrad.target.llvm_memory import Memory
from glassgrad.target.llvm_text import Loop, seq
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds
from glassgrad.uop.lazy import Lazy
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

hashlib = Lazy("hashlib")
STACK_BYTES = 64 << 10           # private memory up to here lives on the stack, larger in the thread's arena
SCRATCH_SYMBOL = "glassgrad_scratch"
ARITHMETIC = frozenset((Ops.NEG, Ops.RECIP, Ops.SQRT, Ops.TRUNC, Ops.CAST, Ops.BITCAST, Ops.ADD, Ops.SUB, Ops.MUL, Ops.FDIV, Ops.CDIV,
                        Ops.CMOD, Ops.MAX, Ops.MIN, Ops.CMPLT, Ops.CMPLE, Ops.CMPEQ, Ops.CMPNE, Ops.AND, Ops.OR, Ops.XOR, Ops.SHL,
                        Ops.SHR, Ops.WHERE, Ops.MULACC))


def cpu_target(features: str, *, threads: int = 1, l1_bytes: int = 32 << 10, l2_bytes: int = 512 << 10,
               llc_bytes: int = 8 << 20) -> Target:
    """The Target of a CPU with these LLVM features ("+avx2,+fma,-avx512f,…"): what it can do follows from them alone.

    >>> cpu_target("+avx2,+fma").lanes, cpu_target("+neon").lanes, cpu_target("+avx512f,+fma").registers
    (8, 4, 32)
    """
    has = {f[1:] for f in features.split(",") if f[:1] == "+"}
    wide = "avx512f" in has
    half = bool({"avx512fp16", "fullfp16"} & has)
    native = {d for d in dtypes.all if not d.is_float} | {dtypes.float32, dtypes.float64} | ({dtypes.float16} if half else set())
    storage = {dtypes.bfloat16} | ({dtypes.float16} if {"f16c", "neon"} & has else set())
    rounds = bool({"sse4.1", "avx", "neon", "avx2", "avx512f"} & has)      # without: LLVM calls truncf, which a JIT cannot find
    pairs = {Ops.PAIRMUL} if "avx2" in has and not wide else set()
    return Target("CPU", ops=(ARITHMETIC if rounds else ARITHMETIC - {Ops.TRUNC}) | pairs | {Ops.PREFETCH}, dtypes=frozenset(native),
                  storage_dtypes=frozenset(native | storage), lanes=16 if wide else 8 if "avx2" in has else 4,
                  registers=32 if wide or "neon" in has else 16, threads=threads, fma=bool({"fma", "neon"} & has),
                  l1_bytes=l1_bytes, l2_bytes=l2_bytes, llc_bytes=llc_bytes, features=features)


def render(program: Program, target: Target) -> str:
    """LLVM IR text of `program`; the same text for the same program in any process."""
    return _Writer(program, target).module()


def join(sources: Sequence[str], seal: str) -> tuple[str, list[str]]:
    """Rendered programs as one module, and their names in it: NAME.number.hash, as several programs may have one name, and several modules
    may be loaded as one library. The hash is of all that decides the code: the texts, and `seal`."""
    mark = hashlib.blake2b("\n".join((seal, *sources)).encode(), digest_size=8).hexdigest()
    names, bodies, tail = [], [], {}
    for number, source in enumerate(sources):
        name = source.split('"', 2)[1]
        names.append(f"{name}.{number}.{mark}")
        body, end, rest = source.replace(f'@"{name}', f'@"{names[-1]}').partition("\n}\n")      # what is its own has its name
        bodies.append(body + end)
        tail |= dict.fromkeys(rest.splitlines(keepends=True))                                   # what all declare, once
    return "".join((*bodies, *tail)), names


class _Writer(Memory):
    """A function: its frame, its grid, its loops and their registers."""

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        self.carried = iter(_carried(program.uops))          # one for each loop, as they are opened
        self.now: dict[UOp, str] = {}                        # ACC -> the value it holds here

    # ---- the whole ----
    def module(self) -> str:
        uops, name = self.program.uops, self.program.name
        self.memory(uops)
        grid = next((n for n in uops if n.op is Ops.SPECIAL), None)
        if grid is not None: self.open_grid(grid)
        i = 0
        while i < len(uops): i = self.emit(uops, i)
        if grid is not None: self.close_grid(grid)
        unpack = []
        for p in self.program.params:      # `noalias` and the like would change nothing: they are for passes that do not run
            array, ty = ("bufs", "ptr") if p.kind == "buffer" else ("vals", "i64")
            unpack += [f"  %a{p.slot} = getelementptr i8, ptr %{array}, i64 {8 * p.slot}",
                       f"  %p{p.slot} = load {ty}, ptr %a{p.slot}, align 8"]
        zeros, half = [], -(-self.zeros // 64) * 64
        if half:
            unpack.append(f'  %zeros = getelementptr i8, ptr @"{name}.zeros", i64 {half}')
            zeros.append(f'@"{name}.zeros" = internal constant [{2 * half} x i8] zeroinitializer, align 64')
        lines = [text for x in self.lines for text in ([x] if isinstance(x, str) else x)]
        width = f' "prefer-vector-width"="{self.target.lanes * 32}"' if self.target.lanes > 8 else ""
        return "\n".join([
            f'define void @"{name}"(ptr %bufs, ptr %vals, i64 %begin, i64 %end) nounwind{width} {{', "entry:", *unpack, *self.entry, *lines,
            "  ret void", "}", *zeros, *self.declared.values(), "!0 = !{i32 1}", ""])

    def memory(self, uops: Sequence[UOp]) -> None:
        """Make the stack and arena memory in the entry block."""
        arena: list[tuple[UOp, int]] = []
        stack = total = 0
        for n in uops:
            if n.op is not Ops.SCRATCH or n in self.names: continue
            size = n.arg.size * n.dtype.itemsize
            if size <= STACK_BYTES and stack + size <= 4 * STACK_BYTES:
                stack += size
                name = self.names[n] = f"%s{len(self.names)}"
                self.entry.append(f"  {name} = alloca [{max(n.arg.size, 1)} x {self.in_memory(n.dtype.scalar)}], align 64")
            else:
                arena.append((n, total))
                total += -(-size // 64) * 64
        if arena:
            self.entry.append("  %arena = " + self.call(SCRATCH_SYMBOL, "ptr", f"i64 {total}"))
        for n, offset in arena:
            name = self.names[n] = f"%s{len(self.names)}"
            self.entry.append(f"  {name} = getelementptr inbounds i8, ptr %arena, i64 {offset}")

    def open_grid(self, n: UOp) -> None:
        if n.arg.name != "gidx0": raise CompilerBug(f"llvm: a CPU kernel has one hardware index, gidx0; found {n.arg.name}")
        self.grid: list[str] = []
        self.lines += ["  %some = icmp slt i64 %begin, %end", "  br i1 %some, label %grid, label %done", "grid:", self.grid]
        self.block = "grid"
        self.names[n] = "%gidx0" if n.dtype.bits == 64 else self.let(f"trunc i64 %gidx0 to {self.ty(n.dtype)}")

    def close_grid(self, n: UOp) -> None:
        self.grid.append(f"  %gidx0 = phi i64 [ %begin, %entry ], [ %gnext, %{self.block} ]")
        self.lines += ["  %gnext = add nuw nsw i64 %gidx0, 1", "  %gmore = icmp slt i64 %gnext, %end",
                       "  br i1 %gmore, label %grid, label %done", "done:"]

    def emit(self, uops: Sequence[UOp], i: int) -> int:
        """Write uops[i] (and the stores after it that share its gate); the next place to go on."""
        n = uops[i]
        if n.op is Ops.STORE: return self.stores(uops, i)
        if n in self.lines_of and self.is_column(n) and self.nest[-1] in self.outer: return self.load_columns(uops, i)
        if n in self.folded or self.counted(n) is not None: pass
        elif n.op in _SUMS and n.dtype.lanes == 1 and n.dtype.kind == "int":
            self.names[n], self.spare[n] = self.new_name(), []
            self.lines.append(self.spare[n])
        elif n.op.is_alu: self.names[n] = self.alu(n)
        elif n in self.names and n.op is not Ops.ACC: pass
        elif n.op in _EMIT: _EMIT[n.op](self, n)
        else: raise CompilerBug(f"llvm: {n.op} may not stand in LINEAR form on a CPU: {n!r}")
        self.level[n] = len(self.heads)
        return i + 1

    # ---- leaves and control ----
    def const(self, n: UOp) -> None: self.names[n] = self.constant(n.dtype, n.arg)
    def lanes(self, n: UOp) -> None: self.names[n] = seq(self.scalar(n.dtype), range(n.dtype.lanes))
    def param(self, n: UOp) -> None:
        name = f"%p{n.arg.slot}"
        if n.arg.kind == "value":
            if n.dtype.is_float:
                bits = name if n.dtype.bits == 64 else self.let(f"trunc i64 {name} to i{n.dtype.bits}")
                name = self.let(f"bitcast i{n.dtype.bits} {bits} to {self.ty(n.dtype)}")
            elif n.dtype.bits < 64: name = self.let(f"trunc i64 {name} to {self.ty(n.dtype)}")
        self.names[n] = name
    def same(self, n: UOp) -> None: self.names[n] = self.names[n.src[0]]
    def nothing(self, n: UOp) -> None: self.names[n] = ""

    def open_loop(self, n: UOp) -> None:
        """A loop that tests at its end; a count that may be 0 is tested before too."""
        (count,), ty, before, carried = n.src, self.ty(n.dtype), self.block, next(self.carried)
        self.nest.append(n)
        self.bases.append({})
        self.heads.append([])
        self.lines.append(self.heads[-1])
        if count.op is Ops.CONST and count.arg == 1:
            self.names[n] = "0"
            return
        body, out = self.label("loop"), self.label("out")
        always = bounds(count)[0] > 0
        if always: self.lines.append(f"  br label %{body}")
        else: self.lines.append(f"  br i1 {self.let(f'icmp sgt {ty} {self[count]}, 0')}, label %{body}, label %{out}")
        self.start(body)
        kept = {acc: self.now[acc] for acc in carried}
        for acc in kept: self.now[acc] = self.new_name()
        self.loops[n] = Loop(body, out, before, {}, kept, {acc: self.now[acc] for acc in kept}, [], always)
        self.lines.append(self.loops[n].phis)

    def close_loop(self, n: UOp) -> None:
        self.bases.pop()
        self.heads.pop()
        self.nest.pop()
        (r,) = n.src
        if r not in self.loops: return
        loop, ty, (count,) = self.loops.pop(r), self.ty(r.dtype), r.src
        body, latch = loop.body, self.block
        # any of its counters can tell when the last turn is over, as long as its end is a constant of the comparison
        turn = next((s for s in loop.steps if 0 < s < (1 << 31) // count.arg), 1) if count.op is Ops.CONST else 1
        if turn not in loop.steps: loop.steps[turn] = f"%i{body}x{turn}"
        for step, name in loop.steps.items():
            self.lines.append(f"  {name}n = add {ty} {name}, {step}")
            loop.phis.append(f"  {name} = phi {ty} [ 0, %{loop.before} ], [ {name}n, %{latch} ]")
        for acc, first in loop.kept.items():
            loop.phis.append(f"  {loop.names[acc]} = phi {self.ty(acc.dtype)} [ {first}, %{loop.before} ], [ {self.now[acc]}, %{latch} ]")
        end = count.arg * turn if count.op is Ops.CONST else self[count]
        self.lines += [f"  %c{body} = icmp slt {ty} {loop.steps[turn]}n, {end}", f"  br i1 %c{body}, label %{body}, label %{loop.out}"]
        self.start(loop.out)
        if loop.always: return
        for acc, first in loop.kept.items():
            self.now[acc] = self.let(f"phi {self.ty(acc.dtype)} [ {first}, %{loop.before} ], [ {self.now[acc]}, %{latch} ]")

    def register(self, n: UOp) -> None: self.names[n] = self.now[n] = self[n.src[0]]
    def set_register(self, n: UOp) -> None: self.now[_register(n.src[0])] = self[n.src[1]]
    def get_register(self, n: UOp) -> None: self.names[n] = self.now[_register(n.src[0])]


_SUMS = frozenset((Ops.ADD, Ops.SUB, Ops.MUL))
_EMIT: dict[Op, Callable[[_Writer, UOp], None]] = {
    Ops.CONST: _Writer.const, Ops.LANES: _Writer.lanes, Ops.PARAM: _Writer.param, Ops.AFTER: _Writer.same, Ops.BARRIER: _Writer.nothing,
    Ops.RANGE: _Writer.open_loop, Ops.END: _Writer.close_loop, Ops.ACC: _Writer.register, Ops.SET: _Writer.set_register,
    Ops.GET: _Writer.get_register, Ops.LOAD: _Writer.load, Ops.PREFETCH: _Writer.prefetch, Ops.SPLAT: _Writer.make_splat, Ops.EXTRACT: _Writer.extract,
    Ops.PACK: _Writer.pack, Ops.SHUFFLE: _Writer.shuffle, Ops.HREDUCE: _Writer.reduce_lanes, Ops.HSCAN: _Writer.scan_lanes}


def _register(n: UOp) -> UOp:
    while n.op is not Ops.ACC: n = n.src[0]
    return n


def _carried(uops: Sequence[UOp]) -> list[list[UOp]]:
    """For each loop, in the order they are opened: the ACCs from outside that are set in it."""
    opened: list[int] = []
    depth: dict[UOp, int] = {}
    found: list[dict[UOp, None]] = []
    for n in uops:
        if n.op is Ops.RANGE:
            opened.append(len(found))
            found.append({})
        elif n.op is Ops.END: opened.pop()
        elif n.op is Ops.ACC: depth[n] = len(opened)
        elif n.op is Ops.SET:
            acc = _register(n.src[0])
            for r in opened[depth[acc]:]: found[r][acc] = None
    return [list(accs) for accs in found]
