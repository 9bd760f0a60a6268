"""The text of an LLVM function while it is written: names, types, constants, instructions.

What is not always wanted is written when it is asked for: sums of indices, and what a loop counts.
"""
from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds, dtype_range
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

INT_OP = {Ops.ADD: "add", Ops.SUB: "sub", Ops.MUL: "mul", Ops.AND: "and", Ops.OR: "or", Ops.XOR: "xor"}


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


class Text:
    """The lines of a function, and the text that stands for each node."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program, self.target = program, target
        self.has = {f[1:] for f in target.features.split(",") if f[:1] == "+"}
        self.entry: list[str] = []                           # the entry block
        self.lines: list[str | list[str]] = []               # a list stands before a loop, for what is put there later
        self.names: dict[UOp, str] = {}
        self.declared: dict[str, str] = {}
        self.count = 0
        self.block = "entry"
        self.loops: dict[UOp, Loop] = {}
        self.spare: dict[UOp, list[str]] = {}                # index sums that nobody has asked for yet, and their place in the text

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

    def cond(self, d: DType) -> str: return "i1" if d.lanes == 1 else f"<{d.lanes} x i1>"

    def splat(self, d: DType, value: str) -> str:
        """`value`, a scalar of d's type, in all lanes of d."""
        if d.lanes == 1: return value
        ty, one = self.ty(d), self.scalar(d)
        first = self.let(f"insertelement {ty} poison, {one} {value}, i64 0")
        return self.let(f"shufflevector {ty} {first}, {ty} poison, <{d.lanes} x i32> zeroinitializer")

    # ---- when asked for ----
    def sum_text(self, n: UOp) -> str: return f"{INT_OP[n.op]}{' nsw' if never_wraps(n) else ''} {self.typed(n.src[0])}, {self[n.src[1]]}"

    def counted(self, n: UOp) -> tuple[UOp, int] | None:
        """(RANGE, step) of what an open loop can count: itself, or a product with a constant."""
        if n in self.loops: return n, 1
        if n.op is Ops.MUL and n.src[0] in self.loops and n.src[1].op is Ops.CONST: return n.src[0], n.src[1].arg
        return None

    def counter(self, r: UOp, step: int) -> str:
        """r * step, stepped along with the loop."""
        loop = self.loops[r]
        return loop.steps.setdefault(step, f"%i{loop.body}x{step}")


def _hex_float(x: float) -> str:      # not cached by x: 0.0 == -0.0
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}" if x == x else "0x7FF8000000000000"


def _bits_of(d: DType, x: float) -> int:
    """The bits of a float that the machine cannot compute; `x` is already rounded to `d`."""
    if d is dtypes.float16: return struct.unpack("<H", struct.pack("<e", x))[0]
    if d is dtypes.bfloat16: return struct.unpack("<I", struct.pack("<f", x))[0] >> 16
    raise CompilerBug(f"llvm: a constant of {d.name} reached the renderer; lower_dtypes turns it into an integer")


def seq(ty: str, items: Sequence[object]) -> str: return "<" + ", ".join(f"{ty} {x}" for x in items) + ">"


def _type_of(arg: str) -> str:
    """The type in "type value"; a type holds spaces only between its brackets."""
    return arg[:arg.index(">") + 1] if arg[0] == "<" else arg[:arg.index(" ")]


def constant_of(n: UOp) -> Any:
    """The value all lanes of a constant have; None if it is none."""
    if n.op is Ops.SPLAT: n = n.src[0]
    return n.arg if n.op is Ops.CONST else None


def never_wraps(n: UOp) -> bool:
    """Whether the sum, difference or product is known to fit: what may wrap has the bounds of its whole dtype."""
    return n.dtype.kind == "int" and bounds(n) != dtype_range(n.dtype)
