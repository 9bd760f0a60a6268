"""Variable: a named int whose value is bound when a program runs, so that one kernel serves all its values."""
from __future__ import annotations

from typing import Any

from glassgrad.engine import capture
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import Ops, VarArg
from glassgrad.uop.uop import UOp


class Variable:
    """An int with lo <= value <= hi. `bind(value)` gives it one; a bound variable indexes tensors, x[v], and is a tensor by Tensor(v).

    errors:  UsageError for bounds in the wrong order, a value outside of them, or a use without a value

    >>> Variable("i", 0, 9).bind(3).value
    3
    """
    __slots__ = ("name", "lo", "hi", "value")

    def __init__(self, name: str, lo: int, hi: int, value: int | None = None) -> None:
        if lo > hi: raise UsageError(f"Variable({name!r}, {lo}, {hi})\n  the lower bound must not be above the upper")
        self.name, self.lo, self.hi, self.value = name, lo, hi, value

    def bind(self, value: int) -> Variable:
        """The variable with a value."""
        if not self.lo <= value <= self.hi: raise UsageError(f"{self!r}.bind({value})\n  the value must be from {self.lo} to {self.hi}")
        return Variable(self.name, self.lo, self.hi, int(value))

    def unbind(self) -> tuple[Variable, int]:
        """(the variable without its value, the value)"""
        return Variable(self.name, self.lo, self.hi), self._known()

    @property
    def uop(self) -> UOp:
        """The node: a BIND of the variable and its value."""
        d = dtypes.int32 if -(1 << 31) <= self.lo and self.hi < 1 << 31 else dtypes.int64
        return UOp(Ops.BIND, d, (UOp(Ops.VAR, d, (), VarArg(self.name, self.lo, self.hi)), UOp.const(d, self._known())))

    def _known(self) -> int:
        if self.value is None: raise UsageError(f"{self!r} has no value\n  try: {self!r}.bind(value)")
        return self.value
    def _number(self) -> int:
        """The value as a Python number: a function that is being captured then holds for this value only."""
        if capture.current is not None: capture.current.use_number(self.uop)
        return self._known()
    def __repr__(self) -> str: return f"Variable({self.name!r}, {self.lo}, {self.hi}{'' if self.value is None else f', {self.value}'})"
    def __index__(self) -> int: return self._number()
    def __int__(self) -> int: return self._number()
    def __add__(self, x: Any) -> int: return self._number() + x
    def __radd__(self, x: Any) -> int: return x + self._number()
    def __sub__(self, x: Any) -> int: return self._number() - x
    def __mul__(self, x: Any) -> int: return self._number() * x
    def __eq__(self, x: object) -> bool:
        return (self.name, self.lo, self.hi, self.value) == (x.name, x.lo, x.hi, x.value) if isinstance(x, Variable) else self.value == x
    def __hash__(self) -> int: return hash((self.name, self.lo, self.hi, self.value))
