"""Patterns: what a rule looks for and what it gives, written with Python's operators on typed holes.

A `Pat` hole stands for any node, a `Const` hole for a constant. An operator between patterns is a pattern; an operator between
constant holes is a `Value`: Python arithmetic done when the rule fires. The same expression serves as find and as give.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glassgrad.uop.dtype import DType
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import Ops

ALU = "alu"      # in place of an op: every row of the table that is arithmetic, also rows added later
ANY_ARG = object()


class Pat:
    """A pattern. With a `name` and no ops: a hole. Else one of `ops` over `src` (None: whatever sources), with this arg and dtype."""
    __slots__ = ("ops", "src", "name", "arg", "dtype")
    __hash__ = object.__hash__

    def __init__(self, name: str | None = None, ops: Any = None, src: tuple[Pat, ...] | None = None, arg: Any = ANY_ARG,
                 dtype: DType | None = None) -> None:
        self.name, self.ops, self.src, self.arg, self.dtype = name, ops, src, arg, dtype

    def __repr__(self) -> str:
        if self.ops is None: return self.name or "_"
        ops = self.ops if isinstance(self.ops, str) else "|".join(o.name for o in self.ops)
        return f"{ops}({'...' if self.src is None else ', '.join(map(repr, self.src))})"

    def named(self, name: str) -> Pat:
        """The same pattern, its node bound to `name`."""
        return Pat(name, self.ops, self.src, self.arg, self.dtype)

    def _bin(self, name: str, y: Any, reverse: bool = False) -> Any:
        x, y = (lift(y), self) if reverse else (self, lift(y))
        return op(getattr(Ops, name), x, y)

    def __add__(self, y: Any) -> Any: return self._bin("ADD", y)
    def __radd__(self, y: Any) -> Any: return self._bin("ADD", y, True)
    def __sub__(self, y: Any) -> Any: return self._bin("SUB", y)
    def __rsub__(self, y: Any) -> Any: return self._bin("SUB", y, True)
    def __mul__(self, y: Any) -> Any: return self._bin("MUL", y)
    def __rmul__(self, y: Any) -> Any: return self._bin("MUL", y, True)
    def __truediv__(self, y: Any) -> Any: return self._bin("FDIV", y)
    def __rtruediv__(self, y: Any) -> Any: return self._bin("FDIV", y, True)
    def __floordiv__(self, y: Any) -> Any: return self._bin("CDIV", y)
    def __rfloordiv__(self, y: Any) -> Any: return self._bin("CDIV", y, True)
    def __mod__(self, y: Any) -> Any: return self._bin("CMOD", y)
    def __rmod__(self, y: Any) -> Any: return self._bin("CMOD", y, True)
    def __and__(self, y: Any) -> Any: return self._bin("AND", y)
    def __or__(self, y: Any) -> Any: return self._bin("OR", y)
    def __xor__(self, y: Any) -> Any: return self._bin("XOR", y)
    def __lshift__(self, y: Any) -> Any: return self._bin("SHL", y)
    def __rshift__(self, y: Any) -> Any: return self._bin("SHR", y)
    def __lt__(self, y: Any) -> Any: return self._bin("CMPLT", y)
    def __gt__(self, y: Any) -> Any: return self._bin("CMPLT", y, True)
    def __le__(self, y: Any) -> Any: return self._bin("CMPLE", y)
    def __ge__(self, y: Any) -> Any: return self._bin("CMPLE", y, True)
    def __neg__(self) -> Any: return op(Ops.NEG, self)
    def eq(self, y: Any) -> Any: return self._bin("CMPEQ", y)
    def ne(self, y: Any) -> Any: return self._bin("CMPNE", y)
    def max(self, y: Any) -> Any: return self._bin("MAX", y)
    def min(self, y: Any) -> Any: return self._bin("MIN", y)
    def where(self, y: Any, z: Any) -> Pat: return op(Ops.WHERE, self, lift(y), lift(z))
    def not_(self) -> Pat: return op(Ops.XOR, self, Value("True"))
    def cast(self, dtype: DType | None = None) -> Pat: return Pat(None, (Ops.CAST,), (self,), dtype=dtype)


class Value(Pat):
    """Python arithmetic on constant holes: `code` is a format string over their names. As a pattern: the constant of that value."""
    __slots__ = ("code",)
    __hash__ = object.__hash__

    def __init__(self, code: str, name: str | None = None) -> None:
        super().__init__(name)
        self.code = code

    def __repr__(self) -> str: return self.code.replace("{", "").replace("}", "")

    def _bin(self, name: str, y: Any, reverse: bool = False) -> Any:
        y = lift(y)
        if not isinstance(y, Value): return super()._bin(name, y, reverse)
        x, y = (y, self) if reverse else (self, y)
        return (Condition if name.startswith("CMP") else Value)(_PYTHON[name].format(x.code, y.code))

    def __neg__(self) -> Any: return Value(f"(-{self.code})")
    def __eq__(self, y: Any) -> Any: return self._bin("CMPEQ", y)
    def __ne__(self, y: Any) -> Any: return self._bin("CMPNE", y)


class Condition(Value):
    """A truth about constants and bounds, for only-if. `&`, `|`, `~` are and, or, not: the right is not asked needlessly."""
    __slots__ = ()
    def __and__(self, y: Any) -> Condition: return Condition(f"({self.code} and {y.code})")
    def __or__(self, y: Any) -> Condition: return Condition(f"({self.code} or {y.code})")
    def __invert__(self) -> Condition: return Condition(f"(not {self.code})")


class Const(Value):
    """A hole for a constant; in give and only-if it stands for the Python value."""
    __slots__ = ()
    def __init__(self, name: str) -> None: super().__init__("{" + name + "}", name)


_PYTHON = {"ADD": "({} + {})", "SUB": "({} - {})", "MUL": "({} * {})", "FDIV": "({} / {})", "CDIV": "({} // {})", "CMOD": "({} % {})",
           "AND": "({} & {})", "OR": "({} | {})", "XOR": "({} ^ {})", "SHL": "({} << {})", "SHR": "({} >> {})", "CMPLT": "({} < {})",
           "CMPLE": "({} <= {})", "CMPEQ": "({} == {})", "CMPNE": "({} != {})", "MAX": "max({}, {})", "MIN": "min({}, {})"}


def lift(x: Any) -> Pat:
    """A pattern as it is, a Python number as the constant of that value."""
    if isinstance(x, Pat): return x
    if isinstance(x, (bool, int, float)): return Value(repr(x) if x == x else "nan")
    raise UsageError(f"{x!r} of type {type(x).__name__} in a pattern\n  only holes, numbers and operators on them can stand there")


def op(ops: Any, *src: Any, arg: Any = ANY_ARG, dtype: DType | None = None) -> Pat:
    """`ops` (an Op, several, or ALU) over these sources; without sources: over whatever sources."""
    ops = ops if isinstance(ops, (tuple, str)) else (ops,)
    return Pat(None, ops, tuple(map(lift, src)) if src else None, arg, dtype)


def lo(x: Pat) -> Value:
    """The least value a hole can have, for only-if and give."""
    return Value(f"bounds({{{x.name}}})[0]")


def hi(x: Pat) -> Value:
    """The greatest value a hole can have, for only-if and give."""
    return Value(f"bounds({{{x.name}}})[1]")


def in_range(v: Value, x: Pat) -> Condition:
    """Does the number `v` have a place in the dtype of hole `x`?"""
    return Condition(f"in_range({v.code}, {{{x.name}}})")


def walk(p: Pat) -> Iterator[Pat]:
    """The pattern and all patterns inside it."""
    yield p
    for s in p.src or (): yield from walk(s)


x, y, z = Pat("x"), Pat("y"), Pat("z")
a, b, c = Const("a"), Const("b"), Const("c")
