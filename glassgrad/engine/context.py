"""The environment: every variable glassgrad reads, in one table, and `Context` to change them for a while.

The table is the documentation too: `environment_table()` prints it as the page shows it.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from glassgrad.uop.errors import UsageError


class ContextVar:
    """One variable: `value` is what holds now. It compares like its value and is true when the value is.

    >>> with Context(DEBUG=2): DEBUG >= 2
    True
    """
    __slots__ = ("changes_code", "default", "doc", "name", "value")

    def __init__(self, name: str, default: int | str, doc: str, changes_code: bool = False) -> None:
        self.name, self.default, self.doc, self.changes_code = name, default, doc, changes_code
        self.value = read_environment(name, default)

    def __repr__(self) -> str: return f"{self.name}={self.value!r}"
    def __bool__(self) -> bool: return bool(self.value)
    def __int__(self) -> int: return int(self.value)
    def __eq__(self, x: object) -> bool: return self.value == x
    def __ge__(self, x: Any) -> bool: return self.value >= x
    def __gt__(self, x: Any) -> bool: return self.value > x
    def __lt__(self, x: Any) -> bool: return self.value < x
    def __le__(self, x: Any) -> bool: return self.value <= x
    __hash__ = object.__hash__


def read_environment(name: str, default: int | str) -> int | str:
    """The variable's value, of the default's type.

    errors:  UsageError if a number is wanted and the text is none
    """
    text = os.environ.get(name)
    if text is None or text == "": return default
    if isinstance(default, str): return text
    try: return int(text)
    except ValueError:
        raise UsageError(f"environment variable {name}={text!r}\n  {name} is a number\n  try: {name}={default}") from None


class Row(NamedTuple):
    """A row of the environment table. `changes_code`: kernels compiled under another value must not be taken from a cache."""
    name: str
    default: int | str
    doc: str
    changes_code: bool = False


TABLE = (
    Row("DEV", "CPU", "the device tensors are made on: CPU, PYTHON, NULL, CL, CUDA, …"),
    Row("DEBUG", 0, "what is printed: 1 devices, cache and traces, 2 every kernel with its time, 3 the schedule with reasons, 4 source,"
                    " 5 passes, 6 machine code"),
    Row("VIZ", 0, "1: record every pass and kernel and show them in the browser; 2: only leave the record as a file"),
    Row("CHECK", 0, "1: check the form of the graph after every pass; 2: also compare every kernel with the reference "
        "device, refuse indices out of range"),
    Row("BEAM", 0, "n > 0: search tilings with a beam of n, by measuring, instead of trusting the cost model", True),
    Row("WINO", 1, "0: a convolution adds up its own products, also where Winograd's transforms are faster; they cost up to 4 times its"
        " rounding error", True),
    Row("JIT", 1, "0: jitted functions run as plain Python"),
    Row("THREADS", 0, "threads a CPU kernel may use; 0: as many as there are cores", True),
    Row("CACHE", "", "folder of the compile cache, 0 for none; default: glassgrad in the user's cache folder"),
    Row("CACHE_MB", 1024, "bound of the compile cache on disk, in MB; what was not used for longest goes first"),
    Row("PROFILE", 0, "1: time every kernel and keep the events (DEBUG>=2 and VIZ do so too)"),
)

VARIABLES: dict[str, ContextVar] = {row.name: ContextVar(*row) for row in TABLE}
DEV, DEBUG, VIZ, CHECK, BEAM, WINO = (VARIABLES[n] for n in ("DEV", "DEBUG", "VIZ", "CHECK", "BEAM", "WINO"))
JIT, THREADS, CACHE, CACHE_MB, PROFILE = (VARIABLES[n] for n in ("JIT", "THREADS", "CACHE", "CACHE_MB", "PROFILE"))
CODE_VARIABLES = tuple(v for v in VARIABLES.values() if v.changes_code)
on_change: list[Callable[[str, Any], None]] = []


class Context(contextlib.ContextDecorator):
    """Variables changed inside a `with` block or a decorated function.

    errors:  UsageError if there is no such variable or the value has another type

    >>> with Context(BEAM=2): int(BEAM)
    2
    """
    def __init__(self, **values: int | str) -> None:
        for name, value in values.items():
            known = VARIABLES.get(name)
            if known is None:
                raise UsageError(f"Context({name}={value!r})\n  there is no variable {name}\n  try: one of {', '.join(VARIABLES)}")
            if not isinstance(value, str if isinstance(known.default, str) else int):
                raise UsageError(f"Context({name}={value!r})\n  {name} is a {'text' if isinstance(known.default, str) else 'number'}")
        self.values = values
        self.saved: list[dict[str, Any]] = []

    def __enter__(self) -> Context:
        self.saved.append({name: VARIABLES[name].value for name in self.values})
        _assign(self.values)
        return self

    def __exit__(self, *exc: object) -> None: _assign(self.saved.pop())


version = object()
"""Another object after each change of a variable."""


def _assign(values: dict[str, Any]) -> None:
    global version
    version = object()
    for name, value in values.items():
        VARIABLES[name].value = value
        for tell in on_change: tell(name, value)


def getenv(name: str, default: int | str = 0) -> Any:
    """The value of a variable of the table, or of the environment when the table lacks it."""
    known = VARIABLES.get(name)
    return known.value if known is not None else read_environment(name, default)


def code_key() -> tuple[int | str, ...]:
    """The values that change what is compiled: part of every cache key."""
    return tuple([v.value for v in CODE_VARIABLES])


def environment_table() -> str:
    """The table as Markdown, for the documentation."""
    rows = [f"| `{r.name}` | {r.default if r.default != '' else '-'} | {r.doc} |" for r in TABLE]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])
