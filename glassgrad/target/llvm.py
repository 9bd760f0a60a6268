"""Write a Program as LLVM IR text for a CPU.

in:      LINEAR form, only ops and dtypes of the target (see cpu_target)
out:     `NAME(bufs, vals, begin, end)`: addresses of buffers, 64-bit values, the part of the grid to do
source:  LLVM language reference (opaque pointers)

Choices that hold everywhere in the text: floats may contract (a*b+c to one rounding) and nothing else, so NaN and infinity stay;
integer division and casts never trap and have one result for every input; bool is i1 in registers and i8 in memory; floats which
the machine cannot compute are integers of their width, which CAST to and from float32 unpacks.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds, dtype_range
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

STACK_BYTES = 64 << 10           # private memory up to here lives on the stack, larger in the thread's arena
FEW_COLUMNS = 4                  # fewer vectors than this are stored lane by lane
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
    return Target("CPU", ops=(ARITHMETIC if rounds else ARITHMETIC - {Ops.TRUNC}) | pairs, dtypes=frozenset(native),
                  storage_dtypes=frozenset(native | storage), lanes=16 if wide else 8 if "avx2" in has else 4,
                  registers=32 if wide or "neon" in has else 16, threads=threads, fma=bool({"fma", "neon"} & has),
                  l1_bytes=l1_bytes, l2_bytes=l2_bytes, llc_bytes=llc_bytes, features=features)


def render(program: Program, target: Target) -> str:
    """LLVM IR text of `program`; the same text for the same program in any process."""
    return _Writer(program, target).module()


# ---- types and constants ---------------------------------------------------------------------------------------------------------
def _hex_float(x: float) -> str:      # not cached by x: 0.0 == -0.0
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}" if x == x else "0x7FF8000000000000"


def _bits_of(d: DType, x: float) -> int:
    """The bits of a float that the machine cannot compute; `x` is already rounded to `d`."""
    if d is dtypes.float16: return struct.unpack("<H", struct.pack("<e", x))[0]
    if d is dtypes.bfloat16: return struct.unpack("<I", struct.pack("<f", x))[0] >> 16
    raise CompilerBug(f"llvm: a constant of {d.name} reached the renderer; lower_dtypes turns it into an integer")


def _seq(ty: str, items: Sequence[object]) -> str: return "<" + ", ".join(f"{ty} {x}" for x in items) + ">"


_FLOAT_CMP = {Ops.CMPLT: "olt", Ops.CMPLE: "ole", Ops.CMPEQ: "oeq", Ops.CMPNE: "une"}
_INT_CMP = {Ops.CMPLT: "lt", Ops.CMPLE: "le", Ops.CMPEQ: "eq", Ops.CMPNE: "ne"}
_FLOAT_OP = {Ops.ADD: "fadd contract", Ops.SUB: "fsub contract", Ops.MUL: "fmul contract", Ops.FDIV: "fdiv contract"}
_INT_OP = {Ops.ADD: "add", Ops.SUB: "sub", Ops.MUL: "mul", Ops.AND: "and", Ops.OR: "or", Ops.XOR: "xor"}
_SUMS = frozenset((Ops.ADD, Ops.SUB, Ops.MUL))
_BOOL_OP = {Ops.ADD: "or", Ops.MUL: "and", Ops.MAX: "or", Ops.MIN: "and", Ops.AND: "and", Ops.OR: "or", Ops.XOR: "xor"}


class Loop(NamedTuple):
    """An open loop: its labels, the block before it, the steps by which it counts for those who ask, the value of each ACC that it changes
    before it and in it, the place of its phis, and whether it runs at least once."""
    body: str
    out: str
    before: str
    steps: dict[int, str]
    kept: dict[UOp, str]
    names: dict[UOp, str]
    phis: list[str]
    always: bool


class _Writer:
    """The state of one rendering: lines of the entry block, lines of the body, the text that stands for each node."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program, self.target = program, target
        self.has = {f[1:] for f in target.features.split(",") if f[:1] == "+"}
        self.entry: list[str] = []
        self.lines: list[str | list[str]] = []               # a list stands before a loop, for what is put there later
        self.names: dict[UOp, str] = {}
        self.declared: dict[str, str] = {}
        self.count = 0
        self.block = "entry"
        self.loops: dict[UOp, Loop] = {}
        self.nest: list[UOp | None] = [None]                 # the open loops, outermost first
        self.bases: list[dict[tuple[str, str, UOp], str]] = [{}]   # pointers made so far, one level per open block scope
        self.heads: list[list[str]] = []                     # the place before each open loop
        self.level: dict[UOp, int] = {}                      # how many loops were open where a node was written
        self.carried = iter(_carried(program.uops))          # one for each loop, as they are opened
        self.now: dict[UOp, str] = {}                        # ACC -> the value it holds here
        self.corners: dict[tuple[str, int], str] = {}        # stack memory of store_columns
        self.spare: dict[UOp, list[str]] = {}                # index sums that nobody has asked for yet, and their place in the text
        self.lines_of = {n: line for n in program.uops if (line := self.straight(n)) is not None}
        self.folded = _folded(program.uops, self.lines_of)
        self.outer = _outer_loops(program.uops)

    # ---- text ----
    def new_name(self) -> str:
        self.count += 1
        return f"%v{self.count - 1}"

    def let(self, text: str) -> str:
        """Append an instruction; its name."""
        name = self.new_name()
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def call(self, name: str, result: str, *args: str) -> str:
        """A call of an intrinsic, declared on first use; each argument is "type value"."""
        types = ", ".join(_type_of(a) for a in args)
        self.declared[name] = f"declare {result} @{name}({types})"
        return f"call {result} @{name}({', '.join(args)})"

    def scalar(self, d: DType) -> str:
        """The LLVM type of one lane in a register."""
        if d.is_bool: return "i1"
        if not d.is_float: return f"i{d.bits}"
        if d.scalar not in self.target.dtypes: return f"i{d.bits}"
        return {16: "half", 32: "float", 64: "double"}[d.bits]

    def ty(self, d: DType) -> str: return self.scalar(d) if d.lanes == 1 else f"<{d.lanes} x {self.scalar(d)}>"
    def in_memory(self, d: DType) -> str:
        one = "i8" if d.is_bool else self.scalar(d)
        return one if d.lanes == 1 else f"<{d.lanes} x {one}>"
    def code(self, d: DType) -> str:
        """The suffix of an overloaded intrinsic: v8f32, i64."""
        kind = {"half": "f16", "float": "f32", "double": "f64"}.get(self.scalar(d), self.scalar(d))
        return kind if d.lanes == 1 else f"v{d.lanes}{kind}"

    def is_native(self, d: DType) -> bool: return not d.is_float or d.scalar in self.target.dtypes

    def constant(self, d: DType, x: object) -> str:
        """A constant of `d`, the same in all lanes."""
        one = self.scalar(d)
        if d.is_bool: text = "true" if x else "false"
        elif not d.is_float: text = str(int(x))  # type: ignore[call-overload]
        elif not self.is_native(d): text = str(_bits_of(d.scalar, float(x)))  # type: ignore[arg-type]
        elif one == "half": text = f"0xH{struct.unpack('<H', struct.pack('<e', x))[0]:04X}"
        else: text = _hex_float(float(x))  # type: ignore[arg-type]
        return text if d.lanes == 1 else f"splat ({one} {text})"

    def __getitem__(self, n: UOp) -> str:
        if n in self.spare: self.spare.pop(n).append(f"  {self.names[n]} = {self.sum_text(n)}")
        if n not in self.names and (counted := self.counted(n)) is not None: return self.counter(*counted)
        return self.names[n]
    def typed(self, n: UOp) -> str: return f"{self.ty(n.dtype)} {self[n]}"

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
            unpack += [f"  %a{p.slot} = getelementptr i8, ptr %{array}, i64 {8 * p.slot}", f"  %p{p.slot} = load {ty}, ptr %a{p.slot}, align 8"]
        lines = [text for x in self.lines for text in ([x] if isinstance(x, str) else x)]
        width = f' "prefer-vector-width"="{self.target.lanes * 32}"' if self.target.lanes > 8 else ""
        return "\n".join([
            f'define void @"{name}"(ptr %bufs, ptr %vals, i64 %begin, i64 %end) nounwind{width} {{', "entry:", *unpack, *self.entry, *lines,
            "  ret void", "}", *self.declared.values(), "!0 = !{i32 1}", ""])

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
    def lanes(self, n: UOp) -> None: self.names[n] = _seq(self.scalar(n.dtype), range(n.dtype.lanes))
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

    def counted(self, n: UOp) -> tuple[UOp, int] | None:
        """(RANGE, step) of what an open loop can count: itself, or a product with a constant."""
        if n in self.loops: return n, 1
        if n.op is Ops.MUL and n.src[0] in self.loops and n.src[1].op is Ops.CONST: return n.src[0], n.src[1].arg
        return None

    def counter(self, r: UOp, step: int) -> str:
        """r * step, stepped along with the loop."""
        loop = self.loops[r]
        return loop.steps.setdefault(step, f"%i{loop.body}x{step}")

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

    # ---- memory ----
    def pointer(self, buf: UOp, idx: UOp, checked: bool, more: int = 0) -> str:
        """The address of buf[idx + more] for a scalar idx. base+constant is written as one address per base, so that it folds into the
        displacement of the access; `checked` addresses may lie outside (a gate decides), so they promise nothing."""
        ty, flags = self.in_memory(buf.dtype.scalar), "" if checked or idx.op is not Ops.CONST else " inbounds"
        ptr, constant = self.address(buf, idx, more)
        return self.let(f"getelementptr{flags} {ty}, ptr {ptr}, i64 {constant}") if constant else ptr

    def address(self, buf: UOp, idx: UOp, more: int = 0) -> tuple[str, int]:
        """(pointer, elements beyond it) of buf[idx + more]."""
        if idx.op is Ops.CONST: return self[buf], idx.arg + more
        ty, (base, constant) = self.in_memory(buf.dtype.scalar), (idx.src[0], idx.src[1].arg + more) if _is_offset(idx) else (idx, more)
        key = (self[buf], ty, base)
        found = next((level[key] for level in reversed(self.bases) if key in level), None)
        if found is None: found = self.bases[-1][key] = self.let(self.row(buf, base))
        return found, constant

    def row(self, buf: UOp, base: UOp) -> str:
        """The text of an address. What of the index a loop does not change is added to the pointer before that loop: the loop is left
        with one addition that the access itself can do, and no pass has to find that out."""
        ptr = self[buf]
        if base.op is Ops.ADD:
            outer, inner = sorted(base.src, key=lambda s: self.level.get(s, 0))
            at, within = self.level.get(outer, 0), self.level.get(inner, 0)
            if at < within <= len(self.heads):
                key = (ptr, self.in_memory(buf.dtype.scalar), outer)
                found = next((level[key] for level in reversed(self.bases[:within]) if key in level), None)
                if found is None:
                    found = self.bases[within - 1][key] = f"%v{self.count}"
                    self.count += 1
                    self.heads[within - 1].append(f"  {found} = {self.element(buf, ptr, outer)}")
                return self.element(buf, found, inner)
        return self.element(buf, ptr, base)

    def element(self, buf: UOp, ptr: str, idx: UOp) -> str:
        """The text of the address of ptr[idx]: loops count in bytes, which the access itself can add to the pointer."""
        counted = self.counted(idx)
        if counted is None or idx.dtype.bits < 64: return f"getelementptr {self.in_memory(buf.dtype.scalar)}, ptr {ptr}, {self.typed(idx)}"
        r, step = counted
        return f"getelementptr i8, ptr {ptr}, {self.ty(idx.dtype)} {self.counter(r, step * buf.dtype.scalar.itemsize)}"

    def gated_row(self, n: UOp, gate: UOp) -> str | None:
        """The address of a load whose gate says whether a whole row may be read: the first row stands for one that may not, chosen before
        the loop along it. None if the gate changes in the loop, or the steps along a row could leave the first one's memory."""
        buf, idx = n.src[:2]
        base, constant = (idx.src[0], idx.src[1].arg) if _is_offset(idx) else (idx, 0)
        if base.op is not Ops.ADD: return None
        outer, inner = sorted(base.src, key=lambda s: self.level.get(s, 0))
        at, within, (lo, hi) = max(self.level.get(outer, 0), self.level.get(gate, 0)), self.level.get(inner, 0), bounds(inner)
        if not at < within <= len(self.heads) or lo + constant < 0 or hi + constant + n.dtype.lanes > _memory(buf).arg.size: return None
        ty, key = self.in_memory(buf.dtype.scalar), (self[buf], self[gate], base)
        found = next((level[key] for level in reversed(self.bases) if key in level), None)
        if found is None:
            row = f"%v{self.count}"
            self.count += 1
            self.heads[within - 1] += [f"  {row}c = select i1 {self[gate]}, {self.typed(outer)}, {self.ty(outer.dtype)} 0",
                                       f"  {row} = getelementptr {ty}, ptr {self[buf]}, {self.ty(outer.dtype)} {row}c"]
            found = self.bases[-1][key] = self.let(self.element(buf, row, inner))
        return self.let(f"getelementptr {ty}, ptr {found}, i64 {constant}") if constant else found

    def from_memory(self, d: DType, value: str) -> str:
        if not d.is_bool: return value
        return self.let(f"icmp ne {self.in_memory(d)} {value}, {'zeroinitializer' if d.lanes > 1 else '0'}")

    def to_memory(self, n: UOp) -> str:
        if not n.dtype.is_bool: return self[n]
        return self.let(f"zext {self.ty(n.dtype)} {self[n]} to {self.in_memory(n.dtype)}")

    def splat(self, d: DType, value: str) -> str:
        """`value`, a scalar of d's type, in all lanes of d."""
        if d.lanes == 1: return value
        ty, one = self.ty(d), self.scalar(d)
        first = self.let(f"insertelement {ty} poison, {one} {value}, i64 0")
        return self.let(f"shufflevector {ty} {first}, {ty} poison, <{d.lanes} x i32> zeroinitializer")

    def load(self, n: UOp) -> None:
        buf, idx = n.src[:2]
        gate = n.src[2] if len(n.src) > 2 else None
        mem, align = self.in_memory(n.dtype), n.dtype.itemsize
        zero = "zeroinitializer" if n.dtype.lanes > 1 else self.constant(n.dtype, 0)
        if gate is not None and gate.op is Ops.CONST:
            if not gate.arg:
                self.names[n] = zero
                return
            gate = None
        if idx.dtype.lanes > 1: value = self.gather(n, gate)
        elif gate is None: value = self.from_memory(n.dtype, self.let(f"load {mem}, ptr {self.pointer(buf, idx, False)}, align {align}"))
        elif gate.dtype.lanes > 1 or _memory(buf).arg.size < n.dtype.lanes or self.is_masked(n, gate):
            mask = self[gate] if gate.dtype.lanes > 1 else self.splat(dtypes.bool.vec(n.dtype.lanes), self[gate])
            value = self.masked_load(n, self.pointer(buf, idx, True), mask, gate) if n.dtype.lanes > 1 else zero
        else:
            ptr = self.gated_row(n, gate)
            if ptr is None:
                place = self.let(f"select i1 {self[gate]}, {self.typed(idx)}, {self.ty(idx.dtype)} 0")
                ptr = self.let(f"getelementptr {self.in_memory(n.dtype.scalar)}, ptr {self[buf]}, {self.ty(idx.dtype)} {place}")
            loaded = self.from_memory(n.dtype, self.let(f"load {mem}, ptr {ptr}, align {align}"))
            value = self.let(f"select i1 {self[gate]}, {self.ty(n.dtype)} {loaded}, {self.ty(n.dtype)} {zero}")
        self.names[n] = value

    def is_masked(self, n: UOp, gate: UOp) -> bool:
        """Whether a vector under one gate is read with that as its mask: one instruction, where there is no row to choose before a loop."""
        return "avx" in self.has and n.dtype.lanes > 1 and n.dtype.itemsize >= 4 and self.gated_row(n, gate) is None

    def masked_load(self, n: UOp, ptr: str, mask: str, gate: UOp) -> str:
        """Of a vector that fills two registers LLVM 22 reads a half without its mask if that is known to be false: it is left out here."""
        mem, d, half = self.in_memory(n.dtype), n.dtype, n.dtype.lanes // 2
        def read(d: DType, ptr: str, mask: str) -> str:
            return self.let(self.call(f"llvm.masked.load.{self.memory_code(d)}.p0", self.in_memory(d), f"ptr {ptr}", f"i32 {d.itemsize}",
                                      f"<{d.lanes} x i1> {mask}", f"{self.in_memory(d)} zeroinitializer"))
        shut = [_is_shut(gate, range(at, at + half)) for at in (0, half)] if d.bits == 64 and d.lanes > 2 else [False, False]
        if not any(shut): return self.from_memory(d, read(d, ptr, mask))
        if all(shut): return "zeroinitializer"
        at, part = half * shut[0], d.scalar.vec(half)
        if at: ptr = self.let(f"getelementptr {self.in_memory(d.scalar)}, ptr {ptr}, i64 {at}")
        picks = [_seq("i32", range(at, at + half)), _seq("i32", range(0, 2 * half)), _seq("i32", [*range(half, 2 * half), *range(half)])]
        open_half = read(part, ptr, self.let(f"shufflevector <{d.lanes} x i1> {mask}, <{d.lanes} x i1> poison, <{half} x i32> {picks[0]}"))
        ty = self.in_memory(part)
        return self.let(f"shufflevector {ty} {open_half}, {ty} zeroinitializer, <{d.lanes} x i32> {picks[2 if at else 1]}")

    def memory_code(self, d: DType) -> str: return f"v{d.lanes}i8" if d.is_bool else self.code(d)

    def straight(self, n: UOp) -> tuple[UOp, int] | None:
        """(first place, step) of an access whose lanes stand in equal steps: it is written as a base and constants."""
        if n.op not in (Ops.LOAD, Ops.STORE) or n.src[1].dtype.lanes == 1 or len(n.src) > (2 if n.op is Ops.LOAD else 3): return None
        idx = n.src[1]
        if idx.op is not Ops.ADD or idx.src[1].op is not Ops.MUL or idx.src[1].src[0].op is not Ops.LANES: return None
        first, step = idx.src[0], _constant(idx.src[1].src[1])
        if step is None or n.op is Ops.LOAD and step != 2 and "avx512f" in self.has and n.dtype.bits >= 32: return None
        if first.op is Ops.CONST: return UOp.const(first.dtype.scalar, first.arg), step
        return (first.src[0], step) if first.op is Ops.SPLAT else None

    def gather(self, n: UOp, gate: UOp | None) -> str:
        """Lane by lane, unless there is an instruction that is faster (AVX2's is not); every second element is two loads and a shuffle."""
        buf, idx, d = n.src[0], n.src[1], n.dtype
        mem, one, lanes = self.in_memory(d), self.in_memory(d.scalar), d.lanes
        if gate is not None and _memory(buf).arg.size == 0: return "zeroinitializer"
        if n in self.lines_of:
            base, step = self.lines_of[n]
            if step == 2:
                halves = [self.let(f"load {mem}, ptr {self.pointer(buf, base, False, at)}, align {d.itemsize}") for at in (0, lanes - 1)]
                picks = _seq("i32", [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)])
                return self.from_memory(d, self.let(f"shufflevector {mem} {halves[0]}, {mem} {halves[1]}, <{lanes} x i32> {picks}"))
            value = "poison"
            for i in range(lanes):
                x = self.let(f"load {one}, ptr {self.pointer(buf, base, False, i * step)}, align {d.itemsize}")
                value = self.let(f"insertelement {mem} {value}, {one} {x}, i64 {i}")
            return self.from_memory(d, value)
        mask = "" if gate is None else self[gate] if gate.dtype.lanes > 1 else self.splat(dtypes.bool.vec(lanes), self[gate])
        if "avx512f" in self.has and d.bits >= 32:
            ptrs = self.let(f"getelementptr {one}, ptr {self[buf]}, {self.typed(idx)}")
            return self.let(self.call(f"llvm.masked.gather.{self.memory_code(d)}.v{lanes}p0", mem, f"<{lanes} x ptr> {ptrs}",
                                      f"i32 {d.itemsize}", f"<{lanes} x i1> {mask or 'splat (i1 true)'}", f"{mem} zeroinitializer"))
        ity = self.ty(idx.dtype)
        places = self[idx] if gate is None else self.let(f"select <{lanes} x i1> {mask}, {ity} {self[idx]}, {ity} zeroinitializer")
        value = "poison"
        for i in range(lanes):
            place = self.let(f"extractelement {ity} {places}, i64 {i}")
            ptr = self.let(f"getelementptr {one}, ptr {self[buf]}, {self.scalar(idx.dtype)} {place}")
            value = self.let(f"insertelement {mem} {value}, {one} {self.let(f'load {one}, ptr {ptr}, align {d.itemsize}')}, i64 {i}")
        value = self.from_memory(d, value)
        return value if gate is None else self.let(f"select <{lanes} x i1> {mask}, {self.ty(d)} {value}, {self.ty(d)} zeroinitializer")

    def stores(self, uops: Sequence[UOp], i: int) -> int:
        """uops[i] and the stores after it that are written together: those with the same scalar gate in one branch, vectors whose lanes go
        apart in the same steps in one loop."""
        gate = _gate(uops[i])
        if gate is None or gate.dtype.lanes > 1:
            d = uops[i].src[2].dtype
            columns, end = self.columns(uops, i) if uops[i] in self.lines_of and d.lanes > 1 and not d.is_bool else ([], i)
            if len(columns) >= FEW_COLUMNS: self.store_columns(columns)
            else:
                for n in columns or uops[i:i + 1]: self.store(n, gate)
            return end if columns else i + 1
        end = i
        while end < len(uops):
            if uops[end].op is Ops.CONST: self.const(uops[end])
            elif uops[end].op is not Ops.STORE or _gate(uops[end]) is not gate: break
            end += 1
        if gate.op is Ops.CONST and not gate.arg: return end
        body, out = self.label("then"), self.label("fi")
        self.lines.append(f"  br i1 {self[gate]}, label %{body}, label %{out}")
        self.start(body)
        self.bases.append({})
        for n in uops[i:end]:
            if n.op is Ops.STORE: self.store(n, None)
        self.bases.pop()
        self.lines.append(f"  br label %{out}")
        self.start(out)
        return end

    def columns(self, uops: Sequence[UOp], i: int) -> tuple[list[UOp], int]:
        """The stores from uops[i] on that `store_columns` can write together, and the place after them; what stands between is written."""
        found = [uops[i]]
        d, step = uops[i].src[2].dtype, self.lines_of[uops[i]][1]
        i += 1
        while i < len(uops):
            n = uops[i]
            if n.op is Ops.STORE:
                if n not in self.lines_of or n.src[2].dtype is not d or self.lines_of[n][1] != step: break
                found.append(n)
                i += 1
            elif n.op.is_alu or n.op in (Ops.GET, Ops.CONST, Ops.SPLAT): i = self.emit(uops, i)
            else: break
        return found, i

    def store_columns(self, stores: list[UOp]) -> None:
        """Vectors whose lanes are stored in equal steps, by way of the stack and a loop over the lanes. Written out, each lane is three
        instructions for LLVM, half of what it compiles for a convolution; the speed is the same, bound by the stores."""
        d, step = stores[0].src[2].dtype, self.lines_of[stores[0]][1]
        mem = self.in_memory(d)
        corner = self.corner(mem, len(stores))
        for k, n in enumerate(stores):
            place = self.let(f"getelementptr {mem}, ptr {corner}, i64 {k}") if k else corner
            self.lines.append(f"  store {mem} {self[n.src[2]]}, ptr {place}, align {d.scalar.itemsize}")
        self.copy_lanes(stores, corner, step)

    def is_column(self, n: UOp) -> bool:
        """Whether a load's lanes are read one by one, so that `load_columns` may do it."""
        return n.op is Ops.LOAD and self.lines_of[n][1] != 2 and not n.dtype.is_bool

    def load_columns(self, uops: Sequence[UOp], i: int) -> int:
        """The loads from uops[i] on whose lanes stand in the same steps, as `store_columns`: around an inner loop, where it takes no time."""
        found = [uops[i]]
        d, step = uops[i].dtype, self.lines_of[uops[i]][1]
        i += 1
        while i < len(uops):
            n = uops[i]
            if n in self.lines_of and self.is_column(n):
                if n.dtype is not d or self.lines_of[n][1] != step: break
                found.append(n)
                i += 1
            elif (n.op.is_alu or n.op in (Ops.GET, Ops.CONST, Ops.SPLAT, Ops.LANES)) and not any(s in found for s in n.src): i = self.emit(uops, i)
            else: break
        if len(found) < FEW_COLUMNS:
            for n in found: self.load(n)
        else:
            mem = self.in_memory(d)
            corner = self.corner(mem, len(found))
            self.copy_lanes(found, corner, step)
            for k, n in enumerate(found):
                place = self.let(f"getelementptr {mem}, ptr {corner}, i64 {k}") if k else corner
                self.names[n] = self.let(f"load {mem}, ptr {place}, align {d.scalar.itemsize}")
        for n in found: self.level[n] = len(self.heads)
        return i

    def corner(self, mem: str, count: int) -> str:
        """Memory on the stack for so many vectors."""
        found = self.corners.get((mem, count))
        if found is None:
            found = self.corners[mem, count] = f"%c{len(self.corners)}"
            self.entry.append(f"  {found} = alloca [{count} x {mem}]")
        return found

    def copy_lanes(self, columns: list[UOp], corner: str, step: int) -> None:
        """A loop over the lanes of loads (to the corner) or stores (from it)."""
        is_load = columns[0].op is Ops.LOAD
        d = columns[0].dtype if is_load else columns[0].src[2].dtype
        one, how = self.in_memory(d.scalar), f"align {d.scalar.itemsize}"
        places = [self.address(n.src[0], self.lines_of[n][0]) for n in columns]
        body, out, before = self.label("lane"), self.label("out"), self.block
        self.lines.append(f"  br label %{body}")
        self.start(body)
        self.lines += [f"  %i{body} = phi i64 [ 0, %{before} ], [ %n{body}, %{body} ]", f"  %x{body} = phi i64 [ 0, %{before} ], [ %m{body}, %{body} ]"]
        row = self.let(f"getelementptr {one}, ptr {corner}, i64 %i{body}")
        moved: dict[str, str] = {}
        for k, (ptr, constant) in enumerate(places):
            if ptr not in moved: moved[ptr] = self.let(f"getelementptr {one}, ptr {ptr}, i64 %x{body}")
            here = self.let(f"getelementptr {one}, ptr {row}, i64 {k * d.lanes}") if k else row
            there = self.let(f"getelementptr {one}, ptr {moved[ptr]}, i64 {constant}") if constant else moved[ptr]
            x = self.let(f"load {one}, ptr {there if is_load else here}, {how}")
            self.lines.append(f"  store {one} {x}, ptr {here if is_load else there}, {how}")
        self.lines += [f"  %n{body} = add nuw nsw i64 %i{body}, 1", f"  %m{body} = add i64 %x{body}, {step}",
                       f"  %c{body} = icmp slt i64 %n{body}, {d.lanes}", f"  br i1 %c{body}, label %{body}, label %{out}"]
        self.start(out)

    def store(self, n: UOp, gate: UOp | None) -> None:
        """One store; a gate here has lanes."""
        buf, idx, x = n.src[:3]
        d, lanes = x.dtype, max(x.dtype.lanes, idx.dtype.lanes)
        value, mem = self.to_memory(x), self.in_memory(d)
        if idx.dtype.lanes == 1 and gate is None:
            how = f"{d.itemsize * lanes}, !nontemporal !0" if n.arg == "stream" else d.itemsize
            self.lines.append(f"  store {mem} {value}, ptr {self.pointer(buf, idx, False)}, align {how}")
        elif idx.dtype.lanes == 1:
            call = self.call(f"llvm.masked.store.{self.memory_code(d)}.p0", "void", f"{mem} {value}", f"ptr {self.pointer(buf, idx, True)}",
                             f"i32 {d.itemsize}", f"<{lanes} x i1> {self[gate]}")
            self.lines.append("  " + call)
        elif gate is None: self.scatter(buf, idx, value, d, self.lines_of.get(n))
        else:
            if d.lanes == 1:
                d = d.vec(lanes)
                if d.is_bool: raise CompilerBug("llvm: a gated scatter of one bool to many places; SPLAT it first")
                value, mem = self.splat(d, value), self.in_memory(d)
            ptrs = self.let(f"getelementptr {self.in_memory(d.scalar)}, ptr {self[buf]}, {self.typed(idx)}")
            self.lines.append("  " + self.call(f"llvm.masked.scatter.{self.memory_code(d)}.v{lanes}p0", "void", f"{mem} {value}",
                                               f"<{lanes} x ptr> {ptrs}", f"i32 {d.itemsize}", f"<{lanes} x i1> {self[gate]}"))

    def scatter(self, buf: UOp, idx: UOp, value: str, d: DType, line: tuple[UOp, int] | None) -> None:
        """Lane by lane: where two lanes meet, the later one stays."""
        one = self.in_memory(d.scalar)
        for i in range(idx.dtype.lanes):
            if line is not None: ptr = self.pointer(buf, line[0], False, i * line[1])
            else:
                place = self.let(f"extractelement {self.typed(idx)}, i64 {i}")
                ptr = self.let(f"getelementptr {one}, ptr {self[buf]}, {self.scalar(idx.dtype)} {place}")
            x = value if d.lanes == 1 else self.let(f"extractelement {self.in_memory(d)} {value}, i64 {i}")
            self.lines.append(f"  store {one} {x}, ptr {ptr}, align {d.itemsize}")

    # ---- lanes ----
    def make_splat(self, n: UOp) -> None:
        x = n.src[0]
        self.names[n] = self.constant(n.dtype, x.arg) if x.op is Ops.CONST else self.splat(n.dtype, self[x])
    def extract(self, n: UOp) -> None:
        self.names[n] = self.let(f"extractelement {self.typed(n.src[0])}, i64 {n.arg}") if n.src[0].dtype.lanes > 1 else self[n.src[0]]
    def pack(self, n: UOp) -> None:
        value = "poison"
        for i, x in enumerate(n.src): value = self.let(f"insertelement {self.ty(n.dtype)} {value}, {self.typed(x)}, i64 {i}")
        self.names[n] = value
    def reduce_lanes(self, n: UOp) -> None:
        """Halves on halves; an odd last lane waits for the end."""
        (x,) = n.src
        d, value, late = x.dtype, self[x], []
        while d.lanes > 1:
            lanes, ty = d.lanes, self.ty(d)
            if lanes % 2: late.append(self.let(f"extractelement {ty} {value}, i64 {lanes - 1}"))
            h = lanes // 2
            d = d.vec(h)
            if h == 1: lo, hi = (self.let(f"extractelement {ty} {value}, i64 {i}") for i in (0, 1))
            else:
                parts = [_seq("i32", range(start, start + h)) for start in (0, h)]
                lo, hi = (self.let(f"shufflevector {ty} {value}, {ty} poison, <{h} x i32> {part}") for part in parts)
            value = self.binary(n.arg, d, lo, hi)
        for y in late: value = self.binary(n.arg, d, value, y)
        self.names[n] = value

    def scan_lanes(self, n: UOp) -> None:
        """Lane i with lane i - by, in steps of 1, 2, 4, …; the first lanes stay."""
        d, value, by = n.dtype, self[n.src[0]], 1
        ty, all_lanes = self.ty(d), range(d.lanes)
        while by < d.lanes:
            moved = self.let(f"shufflevector {ty} {value}, {ty} poison, <{d.lanes} x i32> {_seq('i32', [max(i - by, 0) for i in all_lanes])}")
            both = self.binary(n.arg, d, moved, value)
            picks = [i if i < by else d.lanes + i for i in all_lanes]
            value = self.let(f"shufflevector {ty} {value}, {ty} {both}, <{d.lanes} x i32> {_seq('i32', picks)}")
            by *= 2
        self.names[n] = value

    # ---- arithmetic ----
    def alu(self, n: UOp) -> str:
        op, src, d = n.op, n.src, n.dtype
        if op is Ops.CAST: return self.cast(self[src[0]], src[0].dtype, d)
        if op is Ops.BITCAST: return self.bitcast(src[0], d)
        if op is Ops.WHERE:
            y, z = (self.typed(s) if s.dtype is d else f"{self.ty(d)} {self.splat(d, self[s])}" for s in src[1:])
            return self.let(f"select {self.typed(src[0])}, {y}, {z}")
        ds = src[0].dtype
        if not self.is_native(ds):
            raise CompilerBug(f"llvm: {op} on {ds.name}, which this CPU cannot compute; lower_dtypes casts it to float32")
        x = self[src[0]]
        if op in (Ops.CDIV, Ops.CMOD): return self.divide(n)
        if op in (Ops.SHL, Ops.SHR): return self.shift(n)
        if op in (Ops.MAX, Ops.MIN) and ds.is_float:
            constant = [s for s in src if _constant(s) is not None and _constant(s) == _constant(s)]
            if constant: return self.pick_constant(op, ds, self[constant[0]], self[src[constant[0] is src[0]]])
        if op is Ops.PAIRMUL: return self.pair_product(src[0], src[1])
        if len(src) == 2:
            return self.binary(op, ds, x, self[src[1]], " nsw" if op in (Ops.ADD, Ops.SUB, Ops.MUL) and _never_wraps(n) else "")
        if op is Ops.MULACC:
            if not d.is_float: return self.binary(Ops.ADD, d, self.binary(Ops.MUL, d, x, self[src[1]]), self[src[2]])
            if not self.target.fma: return self.binary(Ops.ADD, d, self.binary(Ops.MUL, d, x, self[src[1]]), self[src[2]])
            return self.let(self.call(f"llvm.fma.{self.code(d)}", self.ty(d), *(self.typed(s) for s in src)))
        if op is Ops.NEG: return self.let(f"fneg {self.ty(d)} {x}" if d.is_float else f"sub {self.ty(d)} {self.constant(d, 0)}, {x}")
        if op is Ops.RECIP: return self.let(f"fdiv {self.ty(d)} {self.constant(d, 1)}, {x}")
        if op in (Ops.SQRT, Ops.TRUNC): return self.let(self.call(f"llvm.{op.name.lower()}.{self.code(d)}", self.ty(d), self.typed(src[0])))
        raise CompilerBug(f"llvm: {op} is not native on a CPU; lower_ops decomposes it")

    def sum_text(self, n: UOp) -> str: return f"{_INT_OP[n.op]}{' nsw' if _never_wraps(n) else ''} {self.typed(n.src[0])}, {self[n.src[1]]}"

    def binary(self, op: Op, d: DType, x: str, y: str, exact: str = "") -> str:
        """x op y, both of type d."""
        ty = self.ty(d)
        if op in _INT_CMP:
            if d.is_float: return self.let(f"fcmp {_FLOAT_CMP[op]} {ty} {x}, {y}")
            sign = "" if op in (Ops.CMPEQ, Ops.CMPNE) else "s" if d.kind == "int" else "u"
            return self.let(f"icmp {sign}{_INT_CMP[op]} {ty} {x}, {y}")
        if d.is_bool: return self.let(f"{_BOOL_OP[op]} {ty} {x}, {y}")
        if op in (Ops.MAX, Ops.MIN): return self.extreme(op, d, x, y)
        return self.let(f"{_FLOAT_OP[op]} {ty} {x}, {y}" if d.is_float else f"{_INT_OP[op]}{exact} {ty} {x}, {y}")

    def pair_product(self, x: UOp, y: UOp) -> str:
        """pmaddwd; what is shorter than its registers stands in a part of one."""
        lanes, ty = x.dtype.lanes, self.ty(x.dtype)
        wide, half = 4 if lanes <= 4 else 8, "<8 x i16>" if lanes <= 4 else "<16 x i16>"
        full = f"<{wide} x i32>"

        def halves(n: UOp) -> str:
            text = self[n]
            if lanes == 1: text = self.let(f"insertelement {full} zeroinitializer, {ty} {text}, i64 0")
            elif lanes < wide: text = self.let(f"shufflevector {ty} {text}, {ty} zeroinitializer, <{wide} x i32> {_seq('i32', range(wide))}")
            return f"{half} {self.let(f'bitcast {full} {text} to {half}')}"
        value = self.let(self.call("llvm.x86.sse2.pmadd.wd" if wide == 4 else "llvm.x86.avx2.pmadd.wd", full, halves(x), halves(y)))
        if lanes == 1: return self.let(f"extractelement {full} {value}, i64 0")
        return value if lanes == wide else self.let(f"shufflevector {full} {value}, {full} poison, <{lanes} x i32> {_seq('i32', range(lanes))}")

    def extreme(self, op: Op, d: DType, x: str, y: str) -> str:
        """MAX and MIN; NaN if one is. On x86 the compare and select is one maxps(y, x), which keeps x when either is NaN, so only
        y needs a test; an accumulator is x and the test stays off its chain."""
        ty, name = self.ty(d), "max" if op is Ops.MAX else "min"
        if not d.is_float: name = f"{'s' if d.kind == 'int' else 'u'}{name}"
        elif "neon" in self.has: name += "imum"
        if len(name) > 3: return self.let(self.call(f"llvm.{name}.{self.code(d)}", ty, f"{ty} {x}", f"{ty} {y}"))
        best = self.pick_constant(op, d, y, x)
        return self.let(f"select {self.cond(d)} {self.let(f'fcmp uno {ty} {y}, {y}')}, {ty} {y}, {ty} {best}")

    def pick_constant(self, op: Op, d: DType, c: str, x: str) -> str:
        """c if it is beyond x, else x (also when either is NaN): right by itself as MAX or MIN if c is no NaN."""
        ty = self.ty(d)
        test = self.let(f"fcmp {'ogt' if op is Ops.MAX else 'olt'} {ty} {c}, {x}")
        return self.let(f"select {self.cond(d)} {test}, {ty} {c}, {ty} {x}")

    def cond(self, d: DType) -> str: return "i1" if d.lanes == 1 else f"<{d.lanes} x i1>"

    def divide(self, n: UOp) -> str:
        (x, y), d, ty = n.src, n.dtype, self.ty(n.dtype)
        if d.is_bool: raise CompilerBug("llvm: integer division of bool")
        is_div, cond, lo = n.op is Ops.CDIV, self.cond(d), bounds(y)[0]
        name = "div" if is_div else "rem"
        if lo > 0 or bounds(y)[1] < -1:                      # cannot be 0, cannot overflow
            is_signed = d.kind == "int" and (bounds(x)[0] < 0 or lo < 0)
            return self.let(f"{'s' if is_signed else 'u'}{name} {ty} {self[x]}, {self[y]}")
        zero, one = self.constant(d, 0), self.constant(d, 1)
        unsafe = none = self.let(f"icmp eq {ty} {self[y]}, {zero}")
        if d.kind == "int":
            minus = self.let(f"icmp eq {ty} {self[y]}, {self.constant(d, -1)}")
            unsafe = self.let(f"or {cond} {none}, {minus}")
        safe = self.let(f"select {cond} {unsafe}, {ty} {one}, {ty} {self[y]}")
        value = self.let(f"{'s' if d.kind == 'int' else 'u'}{name} {ty} {self[x]}, {safe}")
        if is_div and d.kind == "int":
            value = self.let(f"select {cond} {minus}, {ty} {self.let(f'sub {ty} {zero}, {self[x]}')}, {ty} {value}")
        return self.let(f"select {cond} {none}, {ty} {zero if is_div else self[x]}, {ty} {value}")

    def shift(self, n: UOp) -> str:
        x, y = n.src
        d, ty, by = n.dtype, self.ty(n.dtype), self[y]
        if bounds(y)[0] < 0 or bounds(y)[1] >= d.bits: by = self.let(f"and {ty} {by}, {self.constant(d, d.bits - 1)}")
        return self.let(f"{'shl' if n.op is Ops.SHL else 'ashr' if d.kind == 'int' else 'lshr'} {ty} {self[x]}, {by}")

    def bitcast(self, x: UOp, d: DType) -> str:
        ds = x.dtype
        if ds.is_bool: return self.let(f"zext {self.ty(ds)} {self[x]} to {self.ty(d)}")
        if d.is_bool: return self.cast(self[x], ds if not ds.is_float else dtypes.uint8.vec(ds.lanes), d)
        return self[x] if self.ty(ds) == self.ty(d) else self.let(f"bitcast {self.typed(x)} to {self.ty(d)}")

    def cast(self, x: str, ds: DType, d: DType) -> str:
        """x from type ds to d. Float to int saturates, NaN gives 0; anything but 0 is true."""
        if ds.scalar is d.scalar: return x
        if not self.is_native(ds): return self.cast(self.unpack(x, ds), dtypes.float32.vec(ds.lanes), d)
        if not self.is_native(d): return self.pack_float(self.cast(x, ds, dtypes.float32.vec(d.lanes)), d)
        a, b = self.ty(ds), self.ty(d)
        if d.is_bool: return self.let(f"{'fcmp une' if ds.is_float else 'icmp ne'} {a} {x}, {self.constant(ds, 0)}")
        if ds.is_float:
            if d.is_float: return self.let(f"{'fpext' if d.bits > ds.bits else 'fptrunc'} {a} {x} to {b}")
            return self.saturate(x, ds, d)
        if d.is_float: return self.let(f"{'sitofp' if ds.kind == 'int' else 'uitofp'} {a} {x} to {b}")
        bits = 1 if ds.is_bool else ds.bits
        if bits == d.bits: return x
        return self.let(f"{'trunc' if bits > d.bits else 'sext' if ds.kind == 'int' else 'zext'} {a} {x} to {b}")

    def saturate(self, x: str, ds: DType, d: DType) -> str:
        """Float to int. For x86 vectors LLVM's own fptosi.sat goes lane by lane (80 instructions for 8 lanes instead of 5)."""
        a, b, kind, cond = self.ty(ds), self.ty(d), "si" if d.kind == "int" else "ui", self.cond(d)
        wide = 16 if "avx512f" in self.has else 8 if "avx" in self.has else 4
        if d.lanes > 1 and "sse2" in self.has:
            if d.bits - (d.kind == "int") <= ds.mantissa + 1 and d.bits <= 32: return self.clamp_to_int(x, ds, d)
            if d.scalar is dtypes.int32 and ds.scalar is dtypes.float32 and d.lanes in (4, 8, 16) and d.lanes <= wide:
                # the instruction gives INT_MIN for all that does not fit; turned over where x is large, emptied where it is NaN
                name, more = {4: ("sse2.cvttps2dq", ()), 8: ("avx.cvtt.ps2dq.256", ()),
                              16: ("avx512.mask.cvttps2dq.512", (f"{b} zeroinitializer", "i16 -1", "i32 4"))}[d.lanes]
                low = self.let(self.call(f"llvm.x86.{name}", b, f"{a} {x}", *more))
                large = self.let(f"fcmp oge {a} {x}, {self.constant(ds, 2.0 ** 31)}")
                turned = self.let(f"xor {b} {low}, {self.let(f'sext {cond} {large} to {b}')}")
                return self.let(f"select {cond} {self.let(f'fcmp ord {a} {x}, {x}')}, {b} {turned}, {b} zeroinitializer")
            if d.scalar is dtypes.uint32:
                least = self.pick_constant(Ops.MAX, ds, x, self.constant(ds, 0.0))
                large = self.let(f"fcmp oge {a} {least}, {self.constant(ds, 2.0 ** 32)}")
                small = self.let(f"select {cond} {large}, {a} zeroinitializer, {a} {least}")
                return self.let(f"select {cond} {large}, {b} {self.constant(d, -1)}, {b} {self.let(f'fptoui {a} {small} to {b}')}")
        return self.let(self.call(f"llvm.fpto{kind}.sat.{self.code(d)}.{self.code(ds)}", b, f"{a} {x}"))

    def clamp_to_int(self, x: str, ds: DType, d: DType) -> str:
        """Float to an int type whose bounds are floats: clamp, convert, cut."""
        a, via = self.ty(ds), d if d.bits == 32 else dtypes.int32.vec(d.lanes)
        least = self.pick_constant(Ops.MAX, ds, x, self.constant(ds, float(d.min)))            # NaN becomes the bound
        inside = self.pick_constant(Ops.MIN, ds, least, self.constant(ds, float(d.max)))
        value = self.let(f"fpto{'si' if via.kind == 'int' else 'ui'} {a} {inside} to {self.ty(via)}")
        if d.kind == "int":
            is_number = self.let(f"fcmp ord {a} {x}, {x}")
            value = self.let(f"select {self.cond(d)} {is_number}, {self.ty(via)} {value}, {self.ty(via)} zeroinitializer")
        return value if via is d else self.let(f"trunc {self.ty(via)} {value} to {self.ty(d)}")

    def unpack(self, x: str, ds: DType) -> str:
        """The float32 of a float held as its bits."""
        f32, lanes = self.ty(dtypes.float32.vec(ds.lanes)), ds.lanes
        if ds.scalar is dtypes.bfloat16:
            wide = self.let(f"zext {self.ty(ds)} {x} to {self.ty(dtypes.uint32.vec(lanes))}")
            high = self.let(f"shl {self.ty(dtypes.uint32.vec(lanes))} {wide}, {self.constant(dtypes.uint32.vec(lanes), 16)}")
            return self.let(f"bitcast {self.ty(dtypes.uint32.vec(lanes))} {high} to {f32}")
        half = self.half_type(ds)
        return self.let(f"fpext {half} {self.let(f'bitcast {self.ty(ds)} {x} to {half}')} to {f32}")

    def pack_float(self, x: str, d: DType) -> str:
        """A float32 rounded to the bits of d, ties to even."""
        f32, u32 = self.ty(dtypes.float32.vec(d.lanes)), dtypes.uint32.vec(d.lanes)
        if d.scalar is not dtypes.bfloat16:
            half = self.half_type(d)
            return self.let(f"bitcast {half} {self.let(f'fptrunc {f32} {x} to {half}')} to {self.ty(d)}")
        ty = self.ty(u32)
        bits = self.let(f"bitcast {f32} {x} to {ty}")
        odd = self.let(f"and {ty} {self.let(f'lshr {ty} {bits}, {self.constant(u32, 16)}')}, {self.constant(u32, 1)}")
        up = self.let(f"add {ty} {bits}, {self.let(f'add {ty} {odd}, {self.constant(u32, 0x7FFF)}')}")
        is_nan = self.let(f"fcmp uno {f32} {x}, {x}")
        quiet = self.let(f"or {ty} {bits}, {self.constant(u32, 0x400000)}")
        kept = self.let(f"select {self.cond(d)} {is_nan}, {ty} {quiet}, {ty} {up}")
        return self.let(f"trunc {ty} {self.let(f'lshr {ty} {kept}, {self.constant(u32, 16)}')} to {self.ty(d)}")

    def half_type(self, d: DType) -> str:
        if d.scalar is not dtypes.float16 or d.scalar not in self.target.storage_dtypes:
            raise CompilerBug(f"llvm: a cast of {d.name}, which this CPU can only store; lower_dtypes spells it out")
        return "half" if d.lanes == 1 else f"<{d.lanes} x half>"


_EMIT: dict[Op, Callable[[_Writer, UOp], None]] = {
    Ops.CONST: _Writer.const, Ops.LANES: _Writer.lanes, Ops.PARAM: _Writer.param, Ops.AFTER: _Writer.same, Ops.BARRIER: _Writer.nothing,
    Ops.RANGE: _Writer.open_loop, Ops.END: _Writer.close_loop, Ops.ACC: _Writer.register, Ops.SET: _Writer.set_register,
    Ops.GET: _Writer.get_register, Ops.LOAD: _Writer.load, Ops.SPLAT: _Writer.make_splat, Ops.EXTRACT: _Writer.extract,
    Ops.PACK: _Writer.pack, Ops.HREDUCE: _Writer.reduce_lanes, Ops.HSCAN: _Writer.scan_lanes}


def _type_of(arg: str) -> str:
    """The type in "type value"; a type holds spaces only between its brackets."""
    return arg[:arg.index(">") + 1] if arg[0] == "<" else arg[:arg.index(" ")]


def _memory(n: UOp) -> UOp:
    """The PARAM or SCRATCH below AFTERs."""
    while n.op is Ops.AFTER: n = n.src[0]
    return n


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


def _outer_loops(uops: Sequence[UOp]) -> set[UOp | None]:
    """The loops around others; None is all of the kernel."""
    nest: list[UOp | None] = [None]
    found: set[UOp | None] = set()
    for n in uops:
        if n.op is Ops.RANGE:
            found.add(nest[-1])
            nest.append(n)
        elif n.op is Ops.END: nest.pop()
    return found


def _constant(n: UOp) -> Any:
    """The value all lanes of a constant have; None if it is none."""
    if n.op is Ops.SPLAT: n = n.src[0]
    return n.arg if n.op is Ops.CONST else None


def _is_shut(gate: UOp, lanes: range) -> bool:
    """Whether a gate is known to be false in all these lanes."""
    if gate.op is Ops.AND: return any(_is_shut(s, lanes) for s in gate.src)
    if gate.op not in (Ops.CMPLT, Ops.CMPLE): return False
    ends = [(lanes[0], lanes[-1]) if s.op is Ops.LANES else (_constant(s),) for s in gate.src]
    return not any(None in e for e in ends) and not any(gate.op.py(x, y) for x in ends[0] for y in ends[1])


def _gate(n: UOp) -> UOp | None: return n.src[3] if len(n.src) > 3 else None


def _is_offset(idx: UOp) -> bool: return idx.op is Ops.ADD and idx.src[1].op is Ops.CONST and idx.dtype.lanes == 1


def _folded(uops: Sequence[UOp], lines: dict[UOp, Any]) -> set[UOp]:
    """What is only part of addresses, base+constant or base+step*lane: `pointer` writes them, they need no instruction of their own."""
    vectors = {m for n in lines for m in (n.src[1], *n.src[1].src)}
    only = vectors.union(n for n in uops if _is_offset(n))
    for n in reversed(uops):                       # users come first
        if n in vectors and n in only: continue
        used = n.src
        if n.op in (Ops.LOAD, Ops.STORE):
            gate = n.src[2:3] if n.op is Ops.LOAD else n.src[3:4]
            if n.op is Ops.STORE or not gate or gate[0].dtype.lanes > 1:
                used = (n.src[0], *n.src[2:]) if n in lines or n.src[1] not in vectors else n.src
        only.difference_update(used)
    return only


def _never_wraps(n: UOp) -> bool:
    """Whether the sum, difference or product is known to fit: what may wrap has the bounds of its whole dtype."""
    return n.dtype.kind == "int" and bounds(n) != dtype_range(n.dtype)
