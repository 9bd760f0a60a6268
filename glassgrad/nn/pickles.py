"""Pickles without code: a machine that builds containers and numbers, and the few objects a caller allows.

Python's unpickler calls whatever a file names. This one knows a closed list of opcodes, and a name is looked up in the caller's
table of builders and nowhere else; any other name is an error that says it. Nothing is imported, no method is called.

source:  the opcodes, docs.python.org/3/library/pickletools
"""
from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from glassgrad.nn.files import Cursor, broken
from glassgrad.uop.errors import FileError
from glassgrad.uop.ops import np

Builders = Mapping[str, Any]  # "module name" -> a Builder, or a value that stands for itself
MAX_STEPS = 50_000_000
MAX_LINE_BYTES = 1 << 16


class Builder(NamedTuple):
    """Something a pickle may call: `make(*args)`, then `set_state(made, state)` if the pickle sets one."""
    make: Callable[..., Any]
    set_state: Callable[[Any, Any], None] | None = None


class Machine:
    """One pickle, run from `cursor` on; afterwards the cursor stands behind it.

    errors:  FileError if it is cut off, malformed, or names what `builders` lacks
    """
    def __init__(self, cursor: Cursor, builders: Builders, load_persistent: Callable[[Any], Any] | None = None) -> None:
        self.cursor, self.builders, self.load_persistent = cursor, builders, load_persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.builder_of: dict[int, Builder] = {}  # id of a made object -> its builder
        self.made: list[Any] = []  # keeps them alive, so no id is used again

    def run(self) -> Any:
        """The value of the pickle."""
        cursor = self.cursor
        try:
            for _ in range(MAX_STEPS):
                code = cursor.unpack("B")
                if code == STOP: return self.pop()
                step = STEPS.get(code)
                if step is None: raise self.error(f"opcode {chr(code)!r} at byte {cursor.pos - 1} is not one that builds data")
                step(self)
        except FileError: raise
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError, struct.error) as error:
            raise self.error(f"malformed at byte {cursor.pos}: {type(error).__name__} {error}") from None
        raise self.error(f"more than {MAX_STEPS} steps")

    def error(self, why: str) -> FileError:
        """A FileError about this pickle."""
        return broken(self.cursor.what, f"the pickle in it: {why}", "save it as safetensors where it was made")

    def pop(self) -> Any:
        """The top of the stack, which must lie above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0): raise self.error("it takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """The top of the stack, left there."""
        if not self.stack: raise self.error("it takes from an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """What lies above the last mark."""
        if not self.marks: raise self.error("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, value: Any) -> None: self.stack.append(value)

    def line(self, encoding: str = "utf-8") -> str:
        """The text up to the next newline."""
        cursor = self.cursor
        head = bytes(cursor.view[cursor.pos:cursor.pos + MAX_LINE_BYTES])
        end = head.find(b"\n")
        if end < 0: raise self.error("a line does not end")
        return cursor.take(end + 1).tobytes()[:-1].decode(encoding)

    def find(self, module: str, name: str) -> None:
        """Push the builder of that name."""
        found = self.builders.get(f"{module} {name}")
        if found is None:
            raise broken(
                self.cursor.what,
                f"its pickle asks for {module}.{name}; only tensors and plain containers are built, no code is run",
                "save its state_dict, or safetensors, where it was made",
            )
        self.push(found)

    def call(self) -> None:
        """Replace (builder, args) by what the builder makes of them."""
        args, builder = self.pop(), self.pop()
        if not isinstance(builder, Builder) or not isinstance(args, tuple): raise self.error(f"it calls {type(builder).__name__}")
        made = builder.make(*args)
        if builder.set_state is not None:
            self.builder_of[id(made)] = builder
            self.made.append(made)
        self.push(made)

    def set_state(self) -> None:
        """Give the top object the state above it."""
        state, made = self.pop(), self.pop()
        builder = self.builder_of.get(id(made))
        if builder is None or builder.set_state is None: raise self.error(f"it sets the state of {type(made).__name__}")
        builder.set_state(made, state)
        self.push(made)

    def append(self, items: list[Any]) -> None:
        """Add items to the list or set on top."""
        top = self.top()
        if isinstance(top, list): top.extend(items)
        elif isinstance(top, set): top.update(map(check_key, items))
        else: raise self.error(f"it appends to {type(top).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Add key, value, key, value … to the dict on top."""
        top = self.top()
        if not isinstance(top, dict) or len(items) % 2: raise self.error(f"it sets items of {type(top).__name__}")
        for i in range(0, len(items), 2): top[check_key(items[i])] = items[i + 1]

    def persistent(self, key: Any) -> None:
        """Push what stands outside the pickle under `key`."""
        if self.load_persistent is None: raise self.error("it refers to data outside, and there is none")
        self.push(self.load_persistent(key))

    def bytes_of(self, form: str) -> bytes:
        """Bytes whose length stands before them."""
        return self.cursor.take(self.cursor.unpack(form)).tobytes()


def check_key(key: Any) -> Any:
    """`key`, if it is a number, text or a flat tuple: hashing a tuple nested a million deep would end the process.

    errors:  TypeError if it is anything else
    """
    flat = key if isinstance(key, tuple) else (key,)
    if all(x is None or isinstance(x, (str, bytes, int, float)) for x in flat): return key
    raise TypeError(f"a {type(key).__name__} as a key")


def numpy_builders() -> dict[str, Any]:
    """Builders for arrays and scalars of plain numbers, as NumPy pickles them."""
    empty, scalar = (
        Builder(lambda *_: np.zeros(0, np.uint8), _set_array),
        Builder(lambda kind, raw: np.frombuffer(_raw(raw), kind)[0].item()),
    )
    table: dict[str, Any] = {"numpy ndarray": "ndarray", "numpy dtype": Builder(_plain_dtype, _set_dtype)}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table |= {f"{module} _reconstruct": empty, f"{module} scalar": scalar}
    for module in ("numpy.core.numeric", "numpy._core.numeric"): table[f"{module} _frombuffer"] = Builder(_array_of)
    return table | {"_codecs encode": Builder(lambda text, _: text.encode("latin1"))}


def _raw(data: Any) -> bytes: return data.encode("latin1") if isinstance(data, str) else bytes(data)


def _plain_dtype(code: Any, *_: Any) -> Any:
    if not isinstance(code, str) or not re.fullmatch("[<>=|]?[biuf][1248]", code): raise ValueError(f"elements of type {code!r}")
    return np.dtype(code, copy=True)  # type: ignore[call-overload]


def _set_dtype(kind: Any, state: Any) -> None:
    if state[1] not in ("<", ">", "|", "=") or state[2] is not None or state[3] is not None:
        raise ValueError(f"element type {state!r}")
    kind.__setstate__((3, state[1], None, None, None, -1, -1, 0))


def _array_of(data: Any, kind: Any, shape: Any, order: Any) -> Any:
    array = np.zeros(0, np.uint8)
    _set_array(array, (1, shape, kind, order == "F", data))
    return array


def _set_array(array: Any, state: Any) -> None:
    _, shape, kind, fortran, data = state
    data = _raw(data)
    if not isinstance(kind, np.dtype) or any(type(n) is not int or n < 0 for n in shape): raise ValueError(f"array of shape {shape!r}")
    if math.prod(shape) * kind.itemsize != len(data): raise ValueError(f"array of shape {shape} in {len(data)} bytes")
    array.__setstate__((1, shape, kind, bool(fortran), data))


STOP = ord(".")
Step = Callable[[Machine], None]
STEPS: dict[int, Step] = {}


def _steps(**table: Step) -> None:
    for code, step in table.items(): STEPS[ord(code) if len(code) == 1 else int(code[1:], 16)] = step


def _old_text(data: bytes) -> str | bytes:
    """Python 2 had one type for both: text if it is ASCII, else bytes."""
    return data.decode() if data.isascii() else data


def _memoize(m: Machine, index: int) -> None: m.memo[index] = m.top()


def _int_line(m: Machine) -> None:
    text = m.line()
    m.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def _string_line(m: Machine) -> None:
    m.push(_old_text(m.line().strip()[1:-1].encode().decode("unicode_escape").encode("latin1")))


def _frozen_set(m: Machine) -> None: m.push(frozenset(map(check_key, m.pop_mark())))


def _pop(m: Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack): m.marks.pop()
    else: m.pop()


def _dict_of(m: Machine) -> None:
    items = m.pop_mark()
    m.push({})
    m.set_items(items)


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str): raise m.error("a name is no text")
    m.find(module, name)


def _append_one(m: Machine) -> None: m.append([m.pop()])
def _set_item(m: Machine) -> None: m.set_items([m.pop(), m.pop()][::-1])
def _tuple_of(count: int) -> Step: return lambda m: m.push(tuple([m.pop() for _ in range(count)][::-1]))
def _text(form: str) -> Step: return lambda m: m.push(m.bytes_of(form).decode("utf-8", "surrogatepass"))
def _bytes(form: str) -> Step: return lambda m: m.push(m.bytes_of(form))
def _old(form: str) -> Step: return lambda m: m.push(_old_text(m.bytes_of(form)))
def _number(form: str) -> Step: return lambda m: m.push(m.cursor.unpack(form))
def _long(form: str) -> Step: return lambda m: m.push(int.from_bytes(m.bytes_of(form), "little", signed=True))
def _items(m: Machine) -> None: m.append(m.pop_mark())
def _pairs(m: Machine) -> None: m.set_items(m.pop_mark())


_steps(
    **{
        # framing, stack, memo
        "x80": lambda m: m.cursor.skip(1),
        "x95": lambda m: m.cursor.skip(8),
        "(": lambda m: m.marks.append(len(m.stack)),
        "0": _pop,
        "1": lambda m: m.pop_mark(),
        "2": lambda m: m.push(m.top()),
        "p": lambda m: _memoize(m, int(m.line())),
        "q": lambda m: _memoize(m, m.cursor.unpack("B")),
        "r": lambda m: _memoize(m, m.cursor.unpack("I")),
        "x94": lambda m: _memoize(m, len(m.memo)),
        "g": lambda m: m.push(m.memo[int(m.line())]),
        "h": lambda m: m.push(m.memo[m.cursor.unpack("B")]),
        "j": lambda m: m.push(m.memo[m.cursor.unpack("I")]),
        # constants and numbers
        "N": lambda m: m.push(None),
        "x88": lambda m: m.push(True),
        "x89": lambda m: m.push(False),
        "I": _int_line,
        "J": _number("i"),
        "K": _number("B"),
        "M": _number("H"),
        "L": lambda m: m.push(int(m.line().rstrip("L"))),
        "x8a": _long("B"),
        "x8b": _long("I"),
        "F": lambda m: m.push(float(m.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.cursor.take(8))[0]),
        # text and bytes
        "S": _string_line,
        "T": _old("I"),
        "U": _old("B"),
        "V": lambda m: m.push(m.line("raw_unicode_escape")),
        "X": _text("I"),
        "x8c": _text("B"),
        "x8d": _text("Q"),
        "B": _bytes("I"),
        "C": _bytes("B"),
        "x8e": _bytes("Q"),
        "x96": lambda m: m.push(bytearray(m.bytes_of("Q"))),
        # containers
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.pop_mark())),
        "x85": _tuple_of(1),
        "x86": _tuple_of(2),
        "x87": _tuple_of(3),
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.pop_mark()),
        "a": _append_one,
        "e": _items,
        "}": lambda m: m.push({}),
        "d": _dict_of,
        "s": _set_item,
        "u": _pairs,
        "x8f": lambda m: m.push(set()),
        "x90": _items,
        "x91": _frozen_set,
        # objects
        "c": lambda m: m.find(m.line(), m.line()),
        "x93": _stack_global,
        "R": Machine.call,
        "x81": Machine.call,
        "b": Machine.set_state,
        "P": lambda m: m.persistent(m.line()),
        "Q": lambda m: m.persistent(m.pop()),
    }
)
