"""Arguments: what the signature of a Tensor method promises is checked when it is called.

Without this, topk(1.5) would fail later, inside a kernel, and conv2d("w") by naming an attribute the user has never heard of.
Checked are the annotations in KINDS, alone or with `| None`; what is annotated otherwise, the method checks itself.
"""
from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from glassgrad.uop.errors import ArgumentError

VARARGS = 4                     # the bit in a code object's flags that stands for *args


class Kind(NamedTuple):
    """`take` gives the value as the method wants it or raises TypeError; a value of exactly one of `fine` needs no look."""
    noun: str
    fine: tuple[type, ...]
    take: Callable[[Any], Any]


class Place(NamedTuple):
    """A checked argument: its position, -1 if it is given by name only."""
    index: int; name: str; kind: Kind; fine: tuple[type, ...]


def take_int(x: Any) -> int:
    """A Python int of anything that is one; True counts as 1.

    errors:  TypeError for all else
    """
    return int(operator.index(x))


def take_float(x: Any) -> float:
    """A Python number of anything that is one number.

    errors:  TypeError for text, None and containers
    """
    if hasattr(x, "__index__") and not hasattr(x, "uop"): return operator.index(x)
    if isinstance(x, str) or not hasattr(x, "__float__"): raise TypeError
    return float(x)


def take_number(x: Any, what: str, name: str) -> float:
    """`take_float` for methods that check themselves.

    errors:  ArgumentError for text, None and containers
    """
    if isinstance(x, (int, float)): return x
    try: return take_float(x)
    except TypeError:
        raise ArgumentError(f"{what} with {name}={_short(x)}\n  {name} must be a number, this is of type {type(x).__name__}") from None


def take_tensor(x: Any) -> Any:
    """The tensor itself.

    errors:  TypeError for all else
    """
    if not hasattr(x, "uop"): raise TypeError
    return x


def take_str(x: Any) -> str:
    """Text.

    errors:  TypeError for all else
    """
    if not isinstance(x, str): raise TypeError
    return x


def operand(cls: type, y: Any, x: Any, what: str) -> Any:
    """The other operand `y` of an operation on `x` as a Tensor.

    errors:  ArgumentError for what is neither number, list, array nor Tensor
    """
    if isinstance(y, cls): return y
    if isinstance(y, (str, bytes)) or y is None or not (isinstance(y, (bool, int, float, list, tuple)) or hasattr(y, "__array__")):
        raise ArgumentError(f"{what} of {x.shape} {x.dtype.short} and {_short(y)}\n  the second operand is of type {type(y).__name__}"
                            "\n  try: a Tensor, a number, a list or an array")
    return cls(y)


def to_ints(values: Any, what: str) -> tuple[int, ...]:
    """A sequence of ints as a tuple.

    errors:  ArgumentError for all else
    """
    try: return tuple(map(operator.index, values))
    except TypeError: raise ArgumentError(f"{what}\n  {_short(values)} is no sequence of ints") from None


def tensors(parts: list[Any], what: str) -> list[Any]:
    """The list itself.

    errors:  ArgumentError if not all are Tensors
    """
    for k, x in enumerate(parts):
        if not hasattr(x, "uop"):
            raise ArgumentError(f"{what} of {len(parts)} tensors\n  number {k}, {_short(x)}, is of type {type(x).__name__}\n"
                                f"  try: Tensor(it)")
    return parts


KINDS = {
    "int": Kind("an int", (int,), take_int), "float": Kind("a number", (int, float, bool), take_float),
    "Tensor": Kind("a Tensor", (), take_tensor), "str": Kind("text", (str,), take_str),
}


def check_arguments(cls: type) -> type:
    """Make every public method of `cls` check the arguments that it annotates; a class decorator."""
    for base in reversed(cls.__mro__[:-1]):
        for name, member in list(vars(base).items()):
            fn = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if name.startswith("_") or not isinstance(fn, FunctionType): continue
            places, rest = find_places(fn)
            if not places and rest is None: continue
            checked = _checked(fn, places, rest)
            setattr(cls, name, checked if member is fn else type(member)(checked))
    return cls


def find_places(fn: FunctionType) -> tuple[list[Place], Place | None]:
    """(the checked arguments of a function, the checked *args)"""
    code, places, rest = fn.__code__, [], None
    names = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    for name, text in fn.__annotations__.items():
        kind = KINDS.get(text.removesuffix(" | None"))
        if kind is None: continue
        fine = (*kind.fine, type(None)) if text.endswith(" | None") else kind.fine
        if name in names: places.append(Place(i if (i := names.index(name)) < code.co_argcount else -1, name, kind, fine))
        elif code.co_flags & VARARGS and name == code.co_varnames[len(names)]: rest = Place(code.co_argcount, name, kind, fine)
    return places, rest


def _checked(fn: FunctionType, places: list[Place], rest: Place | None) -> Callable[..., Any]:
    """`fn` behind a look at its arguments."""
    @functools.wraps(fn)
    def checked(*args: Any, **named: Any) -> Any:
        count = len(args)
        for index, name, kind, fine in places:
            if -1 < index < count: value = args[index]
            elif name in named: value = named[name]
            else: continue
            if value.__class__ in fine: continue
            try: good = kind.take(value)
            except TypeError: raise _wrong(fn, name, kind, value, fine) from None
            if good is value: continue
            if -1 < index < count: args = (*args[:index], good, *args[index + 1:])
            else: named[name] = good
        if rest is not None:
            for value in args[rest.index:]:
                try: rest.kind.take(value)
                except TypeError: raise _wrong(fn, rest.name, rest.kind, value, rest.fine) from None
        return fn(*args, **named)
    return checked


def _wrong(fn: FunctionType, name: str, kind: Kind, value: Any, fine: tuple[type, ...]) -> ArgumentError:
    found = type(value).__name__
    can_be_made = kind is KINDS["Tensor"] and (isinstance(value, (bool, int, float, list, tuple)) or hasattr(value, "__array__"))
    return ArgumentError(f"{fn.__name__} with {name}={_short(value)}\n"
                         f"  {name} must be {kind.noun}{' or None' if type(None) in fine else ''}, this is of type {found}"
                         + (f"\n  try: Tensor({name})" if can_be_made else ""))


def _short(x: Any) -> str:
    if hasattr(x, "uop"): return f"Tensor{x.shape}"            # its values would have to be computed
    text = " ".join(repr(x).split())
    return text if len(text) < 60 else text[:56] + " ..."
