"""Addresses, gates, loads and stores in LLVM's words.

An address is a pointer made outside the loop, what the loop counts, and a constant: the access itself can add them. A gate becomes a
branch, a mask or the choice of a place that may be read.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from glassgrad.target.llvm_math import Arithmetic
from glassgrad.target.llvm_text import constant_of, seq
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

FEW_COLUMNS = 4                  # fewer vectors than this are read or stored lane by lane
ZEROS = 4096                     # bytes before and after a place where rows that may not be read are read

BETWEEN = (Ops.GET, Ops.CONST, Ops.SPLAT, Ops.LANES)      # with arithmetic, what may stand between columns


class Memory(Arithmetic):
    """What reads and writes memory; `emit`, which writes any node, is its heir's."""

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        self.nest: list[UOp | None] = [None]                 # the open loops, outermost first
        self.heads: list[list[str]] = []                     # the place before each open loop
        self.bases: list[dict[tuple[str, str, UOp], str]] = [{}]   # pointers made so far, one level per open block scope
        self.level: dict[UOp, int] = {}                      # how many loops were open where a node was written
        self.zeros = 0                                       # bytes of zeros on either side of %zeros
        self.corners: dict[tuple[str, int], str] = {}        # stack memory of columns
        self.lines_of = {n: line for n in program.uops if (line := self.straight(n)) is not None}
        self.folded = folded_in(program.uops, self.lines_of)
        self.outer = outer_loops(program.uops)

    def emit(self, uops: Sequence[UOp], i: int) -> int:
        """Write uops[i], and perhaps more; the next place to go on."""
        raise NotImplementedError

    # ---- addresses ----
    def pointer(self, buf: UOp, idx: UOp, checked: bool, more: int = 0) -> str:
        """The address of buf[idx + more] for a scalar idx. base+constant is written as one address per base, so that it folds into the
        displacement of the access; `checked` addresses may lie outside (a gate decides), so they promise nothing."""
        ty, flags = self.in_memory(buf.dtype.scalar), "" if checked or idx.op is not Ops.CONST else " inbounds"
        ptr, constant = self.address(buf, idx, more)
        return self.let(f"getelementptr{flags} {ty}, ptr {ptr}, i64 {constant}") if constant else ptr

    def address(self, buf: UOp, idx: UOp, more: int = 0) -> tuple[str, int]:
        """(pointer, elements beyond it) of buf[idx + more]."""
        if idx.op is Ops.CONST: return self[buf], idx.arg + more
        ty, (base, constant) = self.in_memory(buf.dtype.scalar), (idx.src[0], idx.src[1].arg + more) if is_offset(idx) else (idx, more)
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

    def or_zeros(self, n: UOp, gate: str, level: int) -> str:
        """The address of a load, or of zeros where its scalar gate, found inside so many loops, is false: no mask, which keeps prefetchers
        from following a row (a padded image's windows: 1.6 ms instead of 3.4), and no choice among values. Chosen once for a row, before
        the loop along it if the gate does not change in it."""
        buf, idx = n.src[:2]
        base, constant = (idx.src[0], idx.src[1].arg) if is_offset(idx) else (idx, 0)
        size, ptr, ty = buf.dtype.scalar.itemsize, self[buf], self.in_memory(buf.dtype.scalar)
        lo, hi = constant, constant + n.dtype.lanes
        if base.op is Ops.ADD:
            outer, inner = sorted(base.src, key=lambda s: self.level.get(s, 0))
            at, within, reach = max(self.level.get(outer, 0), level), self.level.get(inner, 0), bounds(inner)
            if at < within <= len(self.heads) and self.reaches(lo + reach[0], hi + reach[1], size):
                key = (ptr, gate, base)
                found = next((level[key] for level in reversed(self.bases) if key in level), None)
                if found is None:
                    row = self.new_name()
                    self.heads[within - 1] += [f"  {row}r = {self.element(buf, ptr, outer)}", f"  {row} = select i1 {gate}, ptr {row}r, ptr %zeros"]
                    found = self.bases[-1][key] = self.let(self.element(buf, row, inner))
                return self.let(f"getelementptr {ty}, ptr {found}, i64 {constant}") if constant else found
        is_near = idx.op is not Ops.CONST and self.reaches(lo, hi, size)
        if not is_near: base, constant = idx, 0
        key = (ptr, gate, base)
        found = next((level[key] for level in reversed(self.bases) if key in level), None)
        if found is None:
            self.reaches(0, n.dtype.lanes, size)
            there = self.address(buf, base)[0] if is_near else self.pointer(buf, idx, True)
            found = self.bases[-1][key] = self.let(f"select i1 {gate}, ptr {there}, ptr %zeros")
        return self.let(f"getelementptr {ty}, ptr {found}, i64 {constant}") if constant else found

    def reaches(self, lo: int, hi: int, size: int) -> bool:
        """Whether there are so many zeros before and after `%zeros`; if there may be."""
        want = max(-lo, hi) * size
        if want <= ZEROS: self.zeros = max(self.zeros, want)
        return want <= ZEROS

    # ---- loads ----
    def from_memory(self, d: DType, value: str) -> str:
        if not d.is_bool: return value
        return self.let(f"icmp ne {self.in_memory(d)} {value}, {'zeroinitializer' if d.lanes > 1 else '0'}")

    def to_memory(self, n: UOp) -> str:
        if not n.dtype.is_bool: return self[n]
        return self.let(f"zext {self.ty(n.dtype)} {self[n]} to {self.in_memory(n.dtype)}")

    def load(self, n: UOp) -> None:
        buf, idx = n.src[:2]
        gate = n.src[2] if len(n.src) > 2 else None
        mem, align = self.in_memory(n.dtype), n.dtype.itemsize
        if gate is not None and gate.op is Ops.CONST:
            if not gate.arg:
                self.names[n] = "zeroinitializer" if n.dtype.lanes > 1 else self.constant(n.dtype, 0)
                return
            gate = None
        if idx.dtype.lanes > 1: value = self.gather(n, gate)
        elif gate is None: value = self.from_memory(n.dtype, self.let(f"load {mem}, ptr {self.pointer(buf, idx, False)}, align {align}"))
        else:
            gates, masks = parts_of(gate)
            level = self.level.get(gates[0], 0) if len(gates) == 1 else len(self.heads)
            ptr = self.or_zeros(n, self.both("i1", gates), level) if gates else self.pointer(buf, idx, True)
            if masks: value = self.masked_load(n, ptr, self.both(self.cond(n.dtype), masks), gate)
            else: value = self.from_memory(n.dtype, self.let(f"load {mem}, ptr {ptr}, align {align}"))
        self.names[n] = value

    def prefetch(self, n: UOp) -> None:
        self.lines.append("  " + self.call("llvm.prefetch.p0", "void", f"ptr {self.pointer(*n.src, True)}", "i32 0", "i32 3", "i32 1"))

    def both(self, ty: str, conditions: list[UOp]) -> str:
        """The text of all of them together."""
        return functools.reduce(lambda x, y: self.let(f"and {ty} {x}, {y}"), [self[c] for c in conditions])

    def masked_load(self, n: UOp, ptr: str, mask: str, gate: UOp) -> str:
        """Of a vector that fills two registers LLVM 22 reads a half without its mask if that is known to be false: it is left out here."""
        d, half = n.dtype, n.dtype.lanes // 2
        def read(d: DType, ptr: str, mask: str) -> str:
            return self.let(self.call(f"llvm.masked.load.{self.memory_code(d)}.p0", self.in_memory(d), f"ptr {ptr}", f"i32 {d.itemsize}",
                                      f"<{d.lanes} x i1> {mask}", f"{self.in_memory(d)} zeroinitializer"))
        shut = [is_shut(gate, range(at, at + half)) for at in (0, half)] if d.bits == 64 and d.lanes > 2 else [False, False]
        if not any(shut): return self.from_memory(d, read(d, ptr, mask))
        if all(shut): return "zeroinitializer"
        at, part = half * shut[0], d.scalar.vec(half)
        if at: ptr = self.let(f"getelementptr {self.in_memory(d.scalar)}, ptr {ptr}, i64 {at}")
        picks = [seq("i32", range(at, at + half)), seq("i32", range(0, 2 * half)), seq("i32", [*range(half, 2 * half), *range(half)])]
        open_half = read(part, ptr, self.let(f"shufflevector <{d.lanes} x i1> {mask}, <{d.lanes} x i1> poison, <{half} x i32> {picks[0]}"))
        ty = self.in_memory(part)
        return self.let(f"shufflevector {ty} {open_half}, {ty} zeroinitializer, <{d.lanes} x i32> {picks[2 if at else 1]}")

    def memory_code(self, d: DType) -> str: return f"v{d.lanes}i8" if d.is_bool else self.code(d)

    def straight(self, n: UOp) -> tuple[UOp, int] | None:
        """(first place, step) of an access whose lanes stand in equal steps: it is written as a base and constants."""
        if n.op not in (Ops.LOAD, Ops.STORE) or n.src[1].dtype.lanes == 1 or len(n.src) > (2 if n.op is Ops.LOAD else 3): return None
        idx = n.src[1]
        if idx.op is not Ops.ADD or idx.src[1].op is not Ops.MUL or idx.src[1].src[0].op is not Ops.LANES: return None
        first, step = idx.src[0], constant_of(idx.src[1].src[1])
        if step is None or (n.op is Ops.LOAD and step != 2 and "avx512f" in self.has and n.dtype.bits >= 32): return None
        if first.op is Ops.CONST: return UOp.const(first.dtype.scalar, first.arg), step
        return (first.src[0], step) if first.op is Ops.SPLAT else None

    def gather(self, n: UOp, gate: UOp | None) -> str:
        """Lane by lane, unless there is an instruction that is faster (AVX2's is not); every second element is two loads and a shuffle."""
        buf, idx, d = n.src[0], n.src[1], n.dtype
        mem, one, lanes = self.in_memory(d), self.in_memory(d.scalar), d.lanes
        if gate is not None and memory_of(buf).arg.size == 0: return "zeroinitializer"
        if n in self.lines_of:
            base, step = self.lines_of[n]
            if step == 2:
                halves = [self.let(f"load {mem}, ptr {self.pointer(buf, base, False, at)}, align {d.itemsize}") for at in (0, lanes - 1)]
                picks = seq("i32", [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)])
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

    # ---- stores ----
    def stores(self, uops: Sequence[UOp], i: int) -> int:
        """uops[i] and the stores after it that are written together: those with the same scalar gate in one branch, vectors whose lanes go
        apart in the same steps in one loop."""
        gate = gate_of(uops[i])
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
            elif uops[end].op is not Ops.STORE or gate_of(uops[end]) is not gate: break
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
            elif n.op.is_alu or n.op in BETWEEN: i = self.emit(uops, i)
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
        """The loads from uops[i] on whose lanes stand in the same steps, written as `store_columns` does: around an inner loop, which takes
        the time."""
        found = [uops[i]]
        d, step = uops[i].dtype, self.lines_of[uops[i]][1]
        i += 1
        while i < len(uops):
            n = uops[i]
            if n in self.lines_of and self.is_column(n):
                if n.dtype is not d or self.lines_of[n][1] != step: break
                found.append(n)
                i += 1
            elif (n.op.is_alu or n.op in BETWEEN) and not any(s in found for s in n.src): i = self.emit(uops, i)
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
        self.lines += [f"  %i{body} = phi i64 [ 0, %{before} ], [ %n{body}, %{body} ]",
                       f"  %x{body} = phi i64 [ 0, %{before} ], [ %m{body}, %{body} ]"]
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


def memory_of(n: UOp) -> UOp:
    """The PARAM or SCRATCH below AFTERs."""
    while n.op is Ops.AFTER: n = n.src[0]
    return n


def outer_loops(uops: Sequence[UOp]) -> set[UOp | None]:
    """The loops around others; None is all of the kernel."""
    nest: list[UOp | None] = [None]
    found: set[UOp | None] = set()
    for n in uops:
        if n.op is Ops.RANGE:
            found.add(nest[-1])
            nest.append(n)
        elif n.op is Ops.END: nest.pop()
    return found


def is_shut(gate: UOp, lanes: range) -> bool:
    """Whether a gate is known to be false in all these lanes."""
    if gate.op is Ops.AND: return any(is_shut(s, lanes) for s in gate.src)
    if gate.op not in (Ops.CMPLT, Ops.CMPLE): return False
    ends = [(lanes[0], lanes[-1]) if s.op is Ops.LANES else (constant_of(s),) for s in gate.src]
    return not any(None in e for e in ends) and not any(gate.op.py(x, y) for x in ends[0] for y in ends[1])


def parts_of(gate: UOp) -> tuple[list[UOp], list[UOp]]:
    """A gate as conditions that are the same in all lanes, and masks."""
    if gate.op is Ops.AND and gate.dtype.lanes > 1:
        (a, b), (c, d) = map(parts_of, gate.src)
        return list(dict.fromkeys(a + c)), list(dict.fromkeys(b + d))
    if gate.dtype.lanes == 1: return [gate], []
    return ([gate.src[0]], []) if gate.op is Ops.SPLAT else ([], [gate])


def gate_of(n: UOp) -> UOp | None: return n.src[3] if len(n.src) > 3 else None


def is_offset(idx: UOp) -> bool: return idx.op is Ops.ADD and idx.src[1].op is Ops.CONST and idx.dtype.lanes == 1


def folded_in(uops: Sequence[UOp], lines: dict[UOp, Any]) -> set[UOp]:
    """What is only part of addresses, base+constant or base+step*lane: `pointer` writes them, they need no instruction of their own."""
    vectors = {m for n in lines for m in (n.src[1], *n.src[1].src)}
    only = vectors.union(n for n in uops if is_offset(n))
    for n in reversed(uops):                       # users come first
        if n in vectors and n in only: continue
        used = n.src
        if n.op in (Ops.LOAD, Ops.STORE, Ops.PREFETCH):
            gate = n.src[2:3] if n.op is Ops.LOAD else n.src[3:4]
            if n.op is Ops.STORE or not gate or gate[0].dtype.lanes > 1:
                used = (n.src[0], *n.src[2:]) if n in lines or n.src[1] not in vectors else n.src
        only.difference_update(used)
    return only
