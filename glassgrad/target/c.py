"""C: one renderer for OpenCL C, CUDA C++ and plain C. What they spell differently stands in c_dialects.

in:      a Program in the LINEAR form, whose ops and dtypes the target has
out:     source text that a person can read: val0 loads, alu0 shared values, acc0 registers, gidx0 lidx0 ridx0 indices
A vector value is written lane by lane; only contiguous loads and stores use the language's vector types.
"""
from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from glassgrad.target.c_dialects import DIALECTS, EXTENSIONS, Dialect
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes, round_float, to_dtype
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds, dtype_range
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

LINE_CHARS = 100          # an expression longer than this gets a name of its own
LANE_NAMES = "xyzw"
MAX_INDEX = (1 << 31) - 1
# how each op is written, and how tightly that binds
ARITHMETIC = {Ops.ADD: ("+", 12), Ops.SUB: ("-", 12), Ops.MUL: ("*", 13), Ops.FDIV: ("/", 13)}
BITWISE = {Ops.AND: ("&", 8), Ops.XOR: ("^", 7), Ops.OR: ("|", 6), Ops.SHR: (">>", 11)}
COMPARE = {Ops.CMPLT: ("<", 10), Ops.CMPLE: ("<=", 10), Ops.CMPEQ: ("==", 9), Ops.CMPNE: ("!=", 9)}
BOOL_OPS = {Ops.ADD: ("||", 4), Ops.OR: ("||", 4), Ops.MAX: ("||", 4), Ops.MUL: ("&&", 5), Ops.AND: ("&&", 5), Ops.MIN: ("&&", 5),
            Ops.XOR: ("!=", 9)}
FUNCTIONS = {Ops.SQRT: "sqrt", Ops.EXP2: "exp2", Ops.LOG2: "log2", Ops.EXP: "exp", Ops.LOG: "log", Ops.SIN: "sin", Ops.COS: "cos",
             Ops.TANH: "tanh", Ops.ERF: "erf", Ops.TRUNC: "trunc", Ops.POW: "pow"}
HALF_OPS = {Ops.ADD, Ops.SUB, Ops.MUL, Ops.NEG}
C_OPS = frozenset({*ARITHMETIC, *BITWISE, *COMPARE, *FUNCTIONS, Ops.SHL, Ops.CDIV, Ops.CMOD, Ops.MAX, Ops.MIN, Ops.NEG, Ops.RECIP,
                   Ops.WHERE, Ops.CAST, Ops.BITCAST, Ops.THREEFRY, Ops.MULACC})
C_DTYPES = frozenset({dtypes.bool, *dtypes.ints, dtypes.float32, dtypes.float64})


class Expr(NamedTuple):
    """C text and how tightly its outermost operator binds (16: an atom, 14: unary, 13: `*`, 12: `+`, …, 3: `?:`)."""
    text: str
    binds: int = 16

    def within(self, binds: int) -> str:
        """The text, in parentheses unless it binds at least this tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


def render(program: Program, target: Target) -> str:
    """The program as source text in the dialect of `target.name` (CL, CUDA or C).

    errors:  CompilerBug if an op stands in the program that C code cannot say
    """
    return _Writer(program, target, DIALECTS[target.name]).write()


def c_target(name: str, *halves: DType, fp64: bool = True, fma: bool = True, **facts: Any) -> Target:
    """The target of a dialect: what C code computes natively, with the 16-bit floats `halves`; `facts` are the machine's.

    The other 16-bit floats are bits in memory, which CAST to and from float32 unpacks.
    """
    floats = {dtypes.float32, *halves} | ({dtypes.float64} if fp64 else set())
    native = frozenset({d for d in C_DTYPES if not d.is_float} | floats)
    ops = C_OPS if fma else C_OPS - {Ops.MULACC}
    return Target(name, ops, native, storage_dtypes=native | {dtypes.float16, dtypes.bfloat16}, fma=fma, **facts)


# ---- one program -----------------------------------------------------------------------------------------------------------------
class _Writer:
    def __init__(self, program: Program, target: Target, dialect: Dialect) -> None:
        self.program, self.target, self.dialect = program, target, dialect
        self.uops = list(program.uops)
        self.exprs: dict[UOp, list[Expr]] = {}       # one a lane
        self.vars: dict[tuple[str, ...], str] = {}   # lanes of a vector variable -> its name
        self.helpers: dict[str, str] = {}
        self.lines: list[str] = []
        self.depth, self.names, self.counts = 1, set[str](), dict[str, int]()
        self.symbolic, self.narrow = _indices(self.uops)
        self.plan = _Plan(self.uops)

    def write(self) -> str:
        d = self.dialect
        top = self._memory()
        loops = [n for n in self.uops if n.op is Ops.SPECIAL and n.arg.name == "gidx0"] if d.name == "C" else []
        if loops:
            self.line(f"for ({self.ctype(loops[0].dtype, loops[0])} gidx0 = begin; gidx0 < end; gidx0++) {{")
            self.depth += 1
        for n in sorted((n for n in self.uops if n.op is Ops.SPECIAL), key=lambda n: n.arg.name): self._special(n)
        for n in self.uops: self._statement(n)
        if loops: self._close()
        used = {n.dtype.scalar.name for n in self.uops}
        extra = [text for name, text in EXTENSIONS.get(d.name, {}).items() if name in used and to_dtype(name) in self.target.dtypes]
        body = "\n".join([*self.helpers.values(), *self.lines])
        extra += [text for name, text in d.macros.items() if name in body]
        parts = [*extra, d.prelude, *self.helpers.values(), f"{d.signature(self.program, self._params())} {{", *top, *self.lines, "}"]
        return "\n".join(p for p in parts if p) + "\n"

    # ---- names, types, lines
    def line(self, text: str) -> None: self.lines.append("  " * self.depth + text)
    def _close(self) -> None:
        self.depth -= 1
        self.line("}")

    def name(self, prefix: str, number: int | None = None) -> str:
        """A name nobody has: `prefix` and `number`, or the next free number."""
        if number is None:
            self.counts[prefix] = self.counts.get(prefix, -1) + 1
            return f"{prefix}{self.counts[prefix]}"
        name = f"{prefix}{number}"
        while name in self.names: name += "b"
        self.names.add(name)
        return name

    def ctype(self, dtype: DType, node: UOp | None = None) -> str:
        """The C type of one lane; what the target does not compute with travels as its bits."""
        d = dtype.scalar
        if node is not None and node in self.narrow: d = dtypes.int32
        return self.dialect.types[f"uint{d.bits}" if self.is_bits(d) else d.name]

    def is_bits(self, d: DType) -> bool:
        """Whether values of `d` are no numbers for this target but the bits of them."""
        return d.is_float and d.scalar not in self.target.dtypes

    def mtype(self, dtype: DType) -> str:
        """The C type in memory: a bool is one byte."""
        return self.dialect.types["uint8"] if dtype.is_bool else self.ctype(dtype)

    # ---- parameters and memory
    def _params(self) -> list[str]:
        written = {_memory_of(n.src[0]) for n in self.uops if n.op is Ops.STORE}
        nodes = {n.arg.slot: n for n in self.uops if n.op is Ops.PARAM}
        out = []
        for p in sorted(self.program.params):
            if p.kind == "value":
                out.append(f"const {self.dialect.value} var{p.slot}")
                continue
            const = "" if nodes.get(p.slot) in written else "const "
            restrict = self.dialect.restrict if self.program.is_alone(p.slot) else ""
            out.append(f"{self.dialect.pointer}{const}{self.mtype(p.dtype)}*{restrict} data{p.slot}")
        return out

    def _memory(self) -> list[str]:
        """Declarations that must stand at the top: SCRATCH, and in plain C the pointers."""
        out = []
        if self.dialect.name == "C":
            for p, text in zip(sorted(self.program.params), self._params(), strict=True):
                of = f"({self.mtype(p.dtype)}*)bufs[{p.slot}]" if p.kind == "buffer" else f"vals[{p.slot}]"
                out.append(f"  {text} = {of};")
        for n in self.uops:
            if n.op is Ops.PARAM:
                text = f"data{n.arg.slot}" if n.arg.kind == "buffer" else f"({self.ctype(n.dtype)})var{n.arg.slot}"
                self.exprs[n] = [Expr(text, 16 if n.arg.kind == "buffer" else 14)]
            elif n.op is Ops.SCRATCH:
                name = self.name("shared" if n.arg.space == "shared" else "scratch", n.arg.id)
                space = self.dialect.shared if n.arg.space == "shared" else ""
                align = "__attribute__((aligned(16))) " if self.dialect.name != "CUDA" else "__align__(16) "
                out.append(f"  {space}{align}{self.mtype(n.dtype)} {name}[{max(n.arg.size, 1)}];")
                self.exprs[n] = [Expr(name)]
        return out

    # ---- statements
    def _statement(self, n: UOp) -> None:
        op = n.op
        if op in (Ops.PARAM, Ops.SCRATCH, Ops.SPECIAL): return
        if op is Ops.AFTER: self.exprs[n] = self.exprs[n.src[0]]
        elif op is Ops.RANGE:
            name, count = self.name("ridx", n.arg.id), self.exprs[n.src[0]][0].text
            self.line(f"for ({self.ctype(n.dtype, n)} {name} = 0; {name} < {count}; {name}++) {{")
            self.depth += 1
            self.exprs[n] = [Expr(name)]
        elif op is Ops.END:
            for s in n.src:
                if s.op is Ops.RANGE: self._close()
        elif op is Ops.BARRIER: self.line(self.dialect.barrier)
        elif op is Ops.LOAD: self._load(n)
        elif op is Ops.STORE: self._store(n)
        elif op is Ops.ACC: self.exprs[n] = self._declare(n, "acc", self.exprs[n.src[0]], n.arg)
        elif op is Ops.SET:
            for reg, x in zip(self.exprs[n.src[0]], self._lanes(n.src[1], n.src[0].dtype.lanes), strict=True):
                self.line(f"{reg.text} = {x.text};")
        elif op is Ops.GET:
            regs = self.exprs[n.src[0]]
            self.exprs[n] = regs if n in self.plan.inline else self._declare(n, "got", regs)
        elif op is Ops.SINK: return
        else: self._value(n)

    def _special(self, n: UOp) -> None:
        name = n.arg.name
        if not (self.dialect.name == "C" and name == "gidx0"):
            kind = self.dialect.group if name[0] == "g" else self.dialect.thread
            self.line(f"const {self.ctype(n.dtype, n)} {name} = {kind(int(name[-1]))};  // 0 to {n.arg.size - 1}")
        self.exprs[n] = [Expr(name)]

    def _declare(self, n: UOp, prefix: str, lanes: list[Expr], number: int | None = None) -> list[Expr]:
        """Give the lanes of `n` a variable each."""
        base, const = self.name(prefix, number), "" if n.op is Ops.ACC else "const "
        names = [base] if len(lanes) == 1 else [f"{base}_{i}" for i in range(len(lanes))]
        both = ", ".join(f"{name} = {x.text}" for name, x in zip(names, lanes, strict=True))
        self.line(f"{const}{self.ctype(n.dtype, n)} {both};")
        return [Expr(name) for name in names]

    def _value(self, n: UOp) -> None:
        lanes = self._pure(n)
        cheap = n.op in (Ops.CONST, Ops.SPLAT, Ops.EXTRACT, Ops.PACK, Ops.SHUFFLE, Ops.LANES)
        if not cheap and (n not in self.plan.inline or max(len(x.text) for x in lanes) > LINE_CHARS):
            lanes = self._declare(n, "alu", lanes)
        self.exprs[n] = lanes

    def _pure(self, n: UOp) -> list[Expr]:
        op, count = n.op, n.dtype.lanes
        if op is Ops.CONST: return [self._literal(n.dtype.scalar, n.arg, n)] * count
        if op is Ops.LANES: return [Expr(str(i)) for i in range(count)]
        if op is Ops.SPLAT: return self.exprs[n.src[0]] * count
        if op is Ops.PACK: return [x for s in n.src for x in self.exprs[s]]
        if op is Ops.EXTRACT: return [self.exprs[n.src[0]][n.arg]]
        if op is Ops.SHUFFLE: return [(self.exprs[n.src[0]] + self.exprs[n.src[1]])[i] for i in n.arg]
        if op is Ops.HREDUCE:
            xs = self.exprs[n.src[0]]
            while len(xs) > 1:
                half = len(xs) // 2
                xs = [self._alu(n, n.arg, [x, y], n.dtype) for x, y in zip(xs[:half], xs[half:], strict=False)] + xs[2 * half:]
            return xs
        if op is Ops.HSCAN:
            xs, by = self._declare(n, "run", self.exprs[n.src[0]]), 1
            while by < count:
                xs = self._declare(n, "run", [x if i < by else self._alu(n, n.arg, [xs[i - by], x], n.dtype) for i, x in enumerate(xs)])
                by *= 2
            return xs
        if not op.is_alu: raise CompilerBug(f"render {self.dialect.name}: {op} may not stand in a linear program")
        srcs = [self._lanes(s, count) for s in n.src]
        return [self._alu(n, op, [s[i] for s in srcs], n.src[-1].dtype if op.out == "bool" else n.dtype) for i in range(count)]

    def _lanes(self, n: UOp, count: int) -> list[Expr]:
        lanes = self.exprs[n]
        return lanes if len(lanes) == count else lanes * count

    # ---- memory access
    def _base(self, n: UOp, dtype: DType) -> str:
        """The pointer to read or write `dtype` through."""
        mem, text = _memory_of(n), self.exprs[n][0].text
        if self.mtype(mem.dtype) == self.mtype(dtype): return text
        space = self.dialect.pointer if mem.op is Ops.PARAM else (self.dialect.shared if mem.arg.space == "shared" else "")
        return f"(({space.replace('__shared__ ', '')}{self.mtype(dtype)}*){text})"

    def _chunks(self, n: UOp, dtype: DType) -> list[tuple[int, int]]:
        """(first lane, lanes) of the pieces in which a contiguous access of `dtype` at n.src[1] is made."""
        d, count, s = self.dialect, dtype.lanes, dtype.scalar
        if not d.vector_bytes or s.name not in d.vector_types or s not in self.target.dtypes: return [(i, 1) for i in range(count)]
        step = min(4, d.vector_bytes // s.itemsize)
        if step < 2: return [(i, 1) for i in range(count)]
        while d.needs_alignment and step > 1 and _divisor(n.src[1]) % step: step //= 2
        out, i = [], 0
        while i < count:
            size = next(k for k in (4, 2, 1) if k <= step and k <= count - i)
            out.append((i, size))
            i += size
        return out

    def _load(self, n: UOp) -> None:
        buf, idx, gate = n.src[0], n.src[1], n.src[2] if len(n.src) > 2 else None
        base, s, zero = self._base(buf, n.dtype), n.dtype.scalar, self._literal(n.dtype.scalar, 0)
        def element(at: str, ok: Expr | None) -> Expr:
            read = Expr(f"{base}[{at}] != 0", 9) if s.is_bool else Expr(f"{base}[{at}]")
            return read if ok is None else Expr(f"{ok.within(4)} ? {read.within(4)} : {zero.text}", 3)
        gates = [None] * n.dtype.lanes if gate is None else self._lanes(gate, n.dtype.lanes)
        if idx.dtype.lanes > 1 or n.dtype.lanes == 1:
            at_each = self._lanes(idx, n.dtype.lanes)
            self.exprs[n] = self._declare(n, "val", [element(i.text, g) for i, g in zip(at_each, gates, strict=True)])
            return
        out: list[Expr] = []
        at = self.exprs[idx][0]
        for i, size in self._chunks(n, n.dtype) if gate is None or gate.dtype.lanes == 1 else [(i, 1) for i in range(n.dtype.lanes)]:
            if size == 1:
                out += self._declare(n, "val", [element(_plus(at, i), gates[i])])
                continue
            d, vec, name = self.dialect, self.dialect.vector_types[s.name], self.name("val")
            read = d.load(vec, size, base, _plus(at, i))
            if gates[i] is not None: read = f"{gates[i].within(4)} ? {read} : {d.pack(vec, size, ', '.join([zero.text] * size))}"
            self.line(f"const {vec}{size} {name} = {read};")
            lanes = [Expr(f"{name}.{LANE_NAMES[k]}") for k in range(size)]
            self.vars[tuple(x.text for x in lanes)] = name
            out += lanes
        self.exprs[n] = out

    def _store(self, n: UOp) -> None:
        buf, idx, value = n.src[:3]
        gate = n.src[3] if len(n.src) > 3 else None
        base, count = self._base(buf, value.dtype), max(value.dtype.lanes, idx.dtype.lanes)
        values = self._lanes(value, count)
        lane_gates = gate is not None and (count == 1 or gate.dtype.lanes > 1)
        gates = self._lanes(gate, count) if lane_gates else [None] * count
        if gate is not None and not lane_gates:
            self.line(f"if ({self.exprs[gate][0].text}) {{")
            self.depth += 1
        def put(at: str, x: Expr, ok: Expr | None) -> None:
            self.line((f"if ({ok.text}) " if ok else "") + f"{base}[{at}] = {x.text};")
        if idx.dtype.lanes > 1 or count == 1:
            for at, x, ok in zip(self._lanes(idx, count), values, gates, strict=True): put(at.text, x, ok)
        else:
            at = self.exprs[idx][0]
            for i, size in [(i, 1) for i in range(count)] if lane_gates else self._chunks(n, value.dtype):
                if size == 1:
                    put(_plus(at, i), values[i], gates[i])
                    continue
                d, vec, texts = self.dialect, self.dialect.vector_types[value.dtype.name], tuple(x.text for x in values[i:i + size])
                packed = self.vars.get(texts) or d.pack(vec, size, ", ".join(texts))
                self.line(d.store(vec, size, base, _plus(at, i), packed))
        if gate is not None and not lane_gates: self._close()

    # ---- literals
    def _literal(self, d: DType, x: bool | int | float, node: UOp | None = None) -> Expr:
        if d.is_bool: return Expr("true" if x else "false")
        if self.is_bits(d): return Expr(str(bits_of(d, float(x))))
        if d.is_float: return self._float_literal(d, float(x))
        if node is not None and node in self.narrow: d = dtypes.int32
        suffix = ("u" if d.is_unsigned and d.bits >= 32 else "") + (self.dialect.long_suffix if d.bits == 64 else "")
        if d.bits >= 32 and x == d.min and x < 0: return Expr(f"-{d.max}{suffix} - 1", 12)
        return Expr(f"{x}{suffix}", 16 if x >= 0 else 14)

    def _float_literal(self, d: DType, x: float) -> Expr:
        if math.isnan(x) or math.isinf(x):
            name = "NAN" if math.isnan(x) else ("INFINITY" if x > 0 else "-INFINITY")
            return Expr(name, 16 if name[0] != "-" else 14) if d is dtypes.float32 else Expr(f"({self.ctype(d)}){name}", 14)
        if d is dtypes.float64: text = repr(x)
        else: text = next(t for k in range(1, 18) if round_float(d, float(t := f"{x:.{k}g}")) == x)
        if "." not in text and "e" not in text: text += ".0"
        if d is dtypes.float64: return Expr(text, 14 if text[0] == "-" else 16)
        if d is dtypes.float32: return Expr(text + "f", 14 if text[0] == "-" else 16)
        return Expr(f"({self.ctype(d)}){text}f", 14)

    # ---- arithmetic
    def _alu(self, n: UOp, op: Op, xs: Sequence[Expr], dtype: DType) -> Expr:
        """One lane of `op`; `dtype` is that of the operands, for CAST and BITCAST that of the result."""
        d = dtype.scalar
        if op is Ops.WHERE: return Expr(f"{xs[0].within(4)} ? {xs[1].within(4)} : {xs[2].within(4)}", 3)
        if op is Ops.CAST: return self._cast(n, n.src[0], xs[0])
        if op is Ops.BITCAST: return self._bitcast(n.src[0].dtype.scalar, d, xs[0])
        if d.is_bool and op in BOOL_OPS:
            if op is Ops.XOR and xs[1].text == "true": return Expr(f"!{xs[0].within(14)}", 14)
            text, binds = BOOL_OPS[op]
            return _infix(text, binds, *xs)
        if op in COMPARE: return _infix(*COMPARE[op], *xs)
        if op in (Ops.MAX, Ops.MIN): return self._call(f"{op.name.lower()}_{d.short}", xs, self._choose(op, d))
        if op is Ops.THREEFRY: return self._call("threefry", xs, self._threefry())
        return self._float_alu(op, xs, d) if d.is_float else self._int_alu(n, op, xs, d)

    def _call(self, name: str, xs: Sequence[Expr], text: str = "") -> Expr:
        """A call of a function, which `text` defines if it is one of ours."""
        if text: self.helpers.setdefault(name, text)
        return Expr(f"{name}({', '.join(x.text for x in xs)})")

    def _float_alu(self, op: Op, xs: Sequence[Expr], d: DType) -> Expr:
        if d.bits < 32 and op not in HALF_OPS:      # float32 has more than twice the bits: rounding twice changes no result
            as_float = [Expr(f"(float){x.within(14)}", 14) for x in xs]
            return Expr(f"({self.ctype(d)}){self._float_alu(op, as_float, dtypes.float32).within(14)}", 14)
        if op is Ops.NEG: return Expr(f"-{xs[0].within(15)}", 14)
        if op is Ops.RECIP: return _infix("/", 13, self._literal(d, 1.0), xs[0])
        if op in ARITHMETIC: return _infix(*ARITHMETIC[op], *xs)
        suffix = self.dialect.float_suffix if d is dtypes.float32 else ""
        if op is Ops.MULACC:
            if self.target.fma: return self._call(f"fma{suffix}", xs)
            return _infix("+", 12, _infix("*", 13, *xs[:2]), xs[2])
        if op in FUNCTIONS: return self._call(FUNCTIONS[op] + suffix, xs)
        raise CompilerBug(f"render {self.dialect.name}: no spelling of {op} on {d.name}; take it out of the target's ops")

    def _int_alu(self, n: UOp, op: Op, xs: Sequence[Expr], d: DType) -> Expr:
        if op in BITWISE: return self._narrow(d, _infix(*BITWISE[op], *xs)) if op is Ops.SHR else _infix(*BITWISE[op], *xs)
        if op in (Ops.CDIV, Ops.CMOD):
            by = n.src[1]
            if by.op is Ops.CONST and by.arg not in (0, -1): return self._narrow(d, _infix("/" if op is Ops.CDIV else "%", 13, *xs))
            return self._call(f"{'div' if op is Ops.CDIV else 'mod'}_{d.short}", xs, self._divide(op, d))
        signs = {Ops.ADD: ("+", 12), Ops.SUB: ("-", 12), Ops.MUL: ("*", 13), Ops.SHL: ("<<", 11)}
        # C leaves the overflow of signed integers open, ours wrap: unsigned arithmetic, unless the value's bounds rule overflow out
        plain = d.bits >= 32 and (d.is_unsigned or n in self.symbolic or bounds(n) != dtype_range(n.dtype))
        unsigned = self.dialect.types["uint64" if d.bits == 64 else "uint32"]
        ys = list(xs) if plain else [Expr(f"({unsigned}){x.within(14)}", 14) for x in xs]
        if plain and n not in self.narrow and all(s in self.narrow for s in n.src): ys[0] = Expr(f"({self.ctype(d)}){xs[0].within(14)}", 14)
        if op is Ops.NEG: out = Expr(f"-{ys[0].within(15)}", 14)
        elif op is Ops.MULACC: out = _infix("+", 12, _infix("*", 13, *ys[:2]), ys[2])
        elif op is Ops.ADD and plain:
            is_negative = n.src[1].op is Ops.CONST and n.src[1].arg < 0 and ys[1].binds == 14
            out = Expr(f"{ys[0].within(12)} - {ys[1].text[1:]}" if is_negative else f"{ys[0].within(12)} + {ys[1].within(12)}", 12)
        elif op in signs: out = _infix(*signs[op], *ys)
        else: raise CompilerBug(f"render {self.dialect.name}: no spelling of {op} on {d.name}; take it out of the target's ops")
        return out if plain else Expr(f"({self.ctype(d)}){out.within(14)}", 14)

    def _narrow(self, d: DType, x: Expr) -> Expr:
        """C computes 8 and 16 bit integers as int."""
        return x if d.bits >= 32 else Expr(f"({self.ctype(d)}){x.within(14)}", 14)

    def _cast(self, n: UOp, src: UOp, x: Expr) -> Expr:
        d, s, of = n.dtype.scalar, src.dtype.scalar, self.ctype(src.dtype, src)
        if d is s: return x
        if self.is_bits(s):
            x = self._call(f"f32_from_{s.short}", [x], self._unpack(s))
            s, of = dtypes.float32, self.ctype(dtypes.float32)
        if not self.is_bits(d): return self._convert(d, s, x, self.ctype(d, n), of)
        return self._call(f"{d.short}_from_f32", [self._convert(dtypes.float32, s, x, self.ctype(dtypes.float32), of)], self._pack(d))

    def _convert(self, d: DType, s: DType, x: Expr, to: str, of: str) -> Expr:
        """Between types C computes with, whose C names are `of` and `to`."""
        if d.is_bool: return Expr(f"{x.within(10)} != {self._literal(s, 0).text}", 9)
        if s.is_float and d.is_int:
            if s.bits < 32: s, x = dtypes.float32, Expr(f"(float){x.within(14)}", 14)
            return self._call(f"{d.short}_from_{s.short}", [x], self._saturate(d, s))
        has_half = (s.is_float and s.bits < 32) or (d.is_float and d.bits < 32)
        if has_half and dtypes.float32 not in (d, s) and s is not dtypes.float64: x = Expr(f"(float){x.within(14)}", 14)
        return x if to == of else Expr(f"({to}){x.within(14)}", 14)

    def _bitcast(self, s: DType, d: DType, x: Expr) -> Expr:
        of, to = self.ctype(s), self.ctype(d)
        if of == to: return x
        if d.is_bool: return Expr(f"{x.within(10)} != 0", 9)
        if all(not t.is_float or self.is_bits(t) for t in (s, d)): return Expr(f"({to}){x.within(14)}", 14)
        if self.dialect.name == "CL": return self._call(f"as_{to}", [x if s.bits == 32 else Expr(f"({of}){x.within(14)}")])
        name = f"{d.short}_bits_{s.short}"
        body = f"{self.dialect.function}{to} {name}({of} x) {{ union {{ {of} x; {to} y; }} both; both.x = x; return both.y; }}"
        return self._call(name, [x], body)

    # ---- helper functions
    def _choose(self, op: Op, d: DType) -> str:
        t, sign = self.ctype(d), ">" if op is Ops.MAX else "<"
        nan = "x != x || " if d.is_float else ""
        return f"{self.dialect.function}{t} {op.name.lower()}_{d.short}({t} x, {t} y) {{ return {nan}x {sign} y ? x : y; }}"

    def _divide(self, op: Op, d: DType) -> str:
        t, is_div = self.ctype(d), op is Ops.CDIV
        u = self.dialect.types["uint64" if d.bits == 64 else "uint32"]
        negate = f"y == -1 ? {f'({t})(0 - ({u})x)' if is_div else '0'} : " if not d.is_unsigned else ""
        name, sign, zero = ("div", "/", "0") if is_div else ("mod", "%", "x")
        return f"{self.dialect.function}{t} {name}_{d.short}({t} x, {t} y) {{ return y == 0 ? {zero} : {negate}({t})(x {sign} y); }}"

    def _saturate(self, d: DType, s: DType) -> str:
        """Float to integer: toward zero, the nearest end of the range beyond it, NaN gives 0."""
        t, of = self.ctype(d), self.ctype(s)
        top = self._float_literal(s, float(d.max + 1)).text
        low = self._float_literal(s, float(d.min)).text
        least, most = self._literal(d, d.min).within(14), self._literal(d, d.max).text
        steps = f"x != x ? 0 : x <= {low} ? {least} : x >= {top} ? {most} : ({t})x"
        return f"{self.dialect.function}{t} {d.short}_from_{s.short}({of} x) {{ return {steps}; }}"

    def _unpack(self, d: DType) -> str:
        """16 bits to float32."""
        u = self.dialect.types["uint32"]
        head = f"{self.dialect.function}float f32_from_{d.short}({self.ctype(d)} x) {{ "
        def as_float(bits: str) -> str: return self._bitcast(dtypes.uint32, dtypes.float32, Expr(bits)).text
        if d is dtypes.bfloat16: return f"{head}return {as_float(f'({u})x << 16')}; }}"
        if self.dialect.name == "CL": return f"{head}return vload_half(0, (const half*)&x); }}"
        scale = as_float("0x77800000u")              # 2**112: the difference of the exponents' biases; makes subnormals normal
        special = f"(({u})(x & 0x8000) << 16) | ((x & 0x7c00) == 0x7c00 ? 0x7f800000u : 0)"
        value = self._bits_text(f"{as_float(f'({u})(x & 0x7fff) << 13')} * {scale}")
        return f"{head}return {as_float(f'{special} | {value}')}; }}"

    def _pack(self, d: DType) -> str:
        """float32 to 16 bits, to the nearest, ties to even."""
        t, u = self.ctype(d), self.dialect.types["uint32"]
        head = f"{self.dialect.function}{t} {d.short}_from_f32(float x) {{\n"
        if d is dtypes.float16 and self.dialect.name == "CL": return f"{head}  {t} y;\n  vstore_half_rte(x, 0, (half*)&y);\n  return y;\n}}"
        lines = [f"  {u} u = {self._bits_text('x')};"]
        if d is dtypes.bfloat16: lines.append(f"  return x != x ? ({t})(u >> 16 | 0x40) : ({t})((u + 0x7fff + (u >> 16 & 1)) >> 16);")
        else:
            small = self._bits_text(self._bitcast(dtypes.uint32, dtypes.float32, Expr("u")).text + " + 0.5f")
            lines += [f"  {u} sign = u >> 16 & 0x8000;", "  u &= 0x7fffffff;",
                      f"  if (u >= 0x477ff000u) return ({t})(sign | (u > 0x7f800000u ? 0x7e00 : 0x7c00));  // NaN, or beyond the largest",
                      f"  if (u < 0x38800000u) return ({t})(sign | ({small} - 0x3f000000u));  // subnormal: the addition rounds",
                      f"  return ({t})(sign | (u - 0x38000000u + 0xfff + (u >> 13 & 1)) >> 13);"]
        return "\n".join([head.rstrip(), *lines, "}"])

    def _bits_text(self, x: str) -> str: return self._bitcast(dtypes.float32, dtypes.uint32, Expr(x)).text

    def _threefry(self) -> str:
        u, ul, f = self.dialect.types["uint32"], self.dialect.types["uint64"], self.dialect.function
        steps = [f"{f}{ul} threefry({ul} x, {ul} key) {{  // Threefry-2x32, 20 rounds",
                 f"  const {u} k0 = ({u})key, k1 = ({u})(key >> 32), k2 = k0 ^ k1 ^ 0x1BD11BDAu;",
                 f"  {u} a = ({u})x + k0, b = ({u})(x >> 32) + k1;"]
        turns, keys = ((13, 15, 26, 6), (17, 29, 16, 24)), ("k0", "k1", "k2")
        for i in range(5):
            mix = " ".join(f"a += b; b = (b << {r} | b >> {32 - r}) ^ a;" for r in turns[i % 2])
            steps += [f"  {mix}", f"  a += {keys[(i + 1) % 3]}; b += {keys[(i + 2) % 3]} + {i + 1}u;"]
        return "\n".join([*steps, f"  return ({ul})b << 32 | a;", "}"])


def _infix(sign: str, binds: int, x: Expr, y: Expr) -> Expr:
    """x sign y; bit operators and comparisons get parentheses around every other operator, as people expect."""
    tight = 14 if binds < 12 else binds
    chain = binds in (4, 5, 6, 7, 8) and x.binds == binds
    return Expr(f"{x.text if chain else x.within(tight)} {sign} {y.within(14 if binds < 12 else binds + 1)}", binds)


def bits_of(d: DType, x: float) -> int:
    """The bits of a 16-bit float that the machine cannot compute; `x` is already rounded to `d`.

    >>> hex(bits_of(dtypes.bfloat16, 1.0)), hex(bits_of(dtypes.float16, -2.0))
    ('0x3f80', '0xc000')
    """
    if d is dtypes.float16: return int.from_bytes(struct.pack("<e", x), "little")
    if d is dtypes.bfloat16: return int.from_bytes(struct.pack("<f", x), "little") >> 16
    if x == 0 and math.copysign(1, x) > 0: return 0
    raise CompilerBug(f"render: a constant of {d.name} reached the renderer; lower_dtypes turns it into an integer")


def _plus(at: Expr, i: int) -> str: return at.text if i == 0 else f"{at.within(12)} + {i}"


def _memory_of(n: UOp) -> UOp:
    while n.op is Ops.AFTER: n = n.src[0]
    return n


# ---- what the writer must know before it starts -----------------------------------------------------------------------------------
class _Plan:
    """Which values are written where they are used: those with one use, in the same loop."""
    def __init__(self, uops: list[UOp]) -> None:
        at = {n: i for i, n in enumerate(uops)}
        region, regions, sets = 0, [], dict[UOp, list[int]]()
        for i, n in enumerate(uops):
            regions.append(region)
            if n.op in (Ops.RANGE, Ops.END): region += 1
            if n.op is Ops.SET: sets.setdefault(n.src[0], []).append(i)
        uses: dict[UOp, list[UOp]] = {}
        for n in uops:
            for k, s in enumerate(n.src):
                if n.op is Ops.AFTER or (n.op is Ops.GET and k): continue
                lanes = max(n.dtype.lanes, max((x.dtype.lanes for x in n.src), default=1))
                uses.setdefault(s, []).extend([n] * (lanes if s.dtype.lanes == 1 else 1))
        self.inline: set[UOp] = set()
        final: dict[UOp, int] = {}                   # where the statement stands that ends up holding the value
        for n in reversed(uops):
            i, users = at[n], uses.get(n, [])
            ends = [final[u] for u in users if u in final]      # what stands in two loops may have users before its second place
            # a loop reads its count every time around; EXTRACT, SHUFFLE, HREDUCE and HSCAN may read a lane that SET has just written
            crossing = n.dtype.lanes > 1 and any(u.op in (Ops.EXTRACT, Ops.SHUFFLE, Ops.HREDUCE, Ops.HSCAN) for u in users)
            same_loop = all(regions[e] == regions[i] for e in ends) and not any(u.op is Ops.RANGE for u in users) and not crossing
            if n.op is Ops.GET:
                if same_loop and not any(i < k < e for e in ends for k in sets.get(n.src[0], [])): self.inline.add(n)
            elif (n.op.is_alu or n.op is Ops.HREDUCE) and len(users) == 1 and same_loop: self.inline.add(n)
            moves = n in self.inline or n.op in (Ops.SPLAT, Ops.EXTRACT, Ops.PACK, Ops.SHUFFLE)
            final[n] = max(ends, default=i) if moves else i


def _indices(uops: list[UOp]) -> tuple[set[UOp], set[UOp]]:
    """Integers made from hardware indices, loops, constants and "value" parameters alone: those that a parameter reaches, and the
    int64 ones that 32 bits hold on the whole way."""
    index, symbolic, narrow = set[UOp](), set[UOp](), set[UOp]()
    for n in uops:
        if n.dtype.kind != "int": continue
        leaf = n.op in (Ops.SPECIAL, Ops.RANGE, Ops.LANES, Ops.CONST) or (n.op is Ops.PARAM and n.arg.kind == "value")
        made = n.op.is_alu or n.op in (Ops.SPLAT, Ops.EXTRACT, Ops.PACK)
        if not leaf and not (made and all(s in index or s.dtype.is_bool for s in n.src)): continue
        index.add(n)
        if n.op is Ops.PARAM or any(s in symbolic for s in n.src): symbolic.add(n)
        lo, hi = bounds(n)
        if n.dtype.bits == 64 and n.op is not Ops.MULACC and lo >= -MAX_INDEX and hi <= MAX_INDEX and all(
                s in narrow or s.dtype.bits < 64 for s in n.src): narrow.add(n)
    return symbolic, narrow


def _divisor(n: UOp) -> int:
    """A power of two (at most 4) that divides the value of an index."""
    if n.op is Ops.CONST: return math.gcd(int(n.arg), 4)
    if n.op is Ops.ADD or n.op is Ops.SUB: return min(_divisor(n.src[0]), _divisor(n.src[1]))
    if n.op is Ops.MUL: return min(_divisor(n.src[0]) * _divisor(n.src[1]), 4)
    if n.op is Ops.MULACC: return min(_divisor(n.src[0]) * _divisor(n.src[1]), _divisor(n.src[2]), 4)
    if n.op is Ops.SHL and n.src[1].op is Ops.CONST: return min(_divisor(n.src[0]) << min(int(n.src[1].arg), 2), 4)
    if n.op is Ops.WHERE: return min(_divisor(n.src[1]), _divisor(n.src[2]))
    return _divisor(n.src[0]) if n.op is Ops.CAST else 1
