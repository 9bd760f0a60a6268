"""Watch: what a function reaches without being given it: closures, globals, attributes of objects, containers, default arguments.

A capture of the function is good as long as all of that is as it was. Values are compared by identity, simple ones by value; NumPy
arrays that are small by content. A place where the function itself puts a new tensor is a state of it, and may hold any tensor alike.
"""
from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from operator import is_
from typing import Any, NamedTuple

SIMPLE = (int, float, bool, str, bytes, complex, type(None), type(...))
MISSING = object()
MAX_ITEMS = 4096            # a longer list or dict of data is watched by its length only
MAX_OBJECTS = 100_000
ARRAY_BYTES = 4096          # NumPy arrays up to here are compared by content


Bind = Callable[[Any], str]


class Place(NamedTuple):
    """Where a tensor is kept: value number `at` of a container."""
    box: Box
    at: int
    def get(self) -> Any:
        now = self.box.read()
        return now[self.at] if self.at < len(now) else MISSING
    def put(self, value: Any) -> None: self.box.write(self.at, value)
    def __str__(self) -> str:
        names, what = self.box.names, self.box.what
        if isinstance(self.box, Grads): return f"the gradient of a tensor of shape {self.box.owner[self.at].shape}"
        if self.at >= len(self.box.before): return f"which {what}s there are"
        return f"{what} {names[self.at]!r}" if names else f"{what} [{self.at}]"


class Box:
    """A container that is watched. `read` gives its values now, `before` has those of the snapshot; `free` are places of state."""
    __slots__ = ("before", "free", "names", "owner", "what")
    def __init__(self, owner: Any, names: Iterable[Any], what: str) -> None:
        self.owner, self.names, self.what = owner, list(names), what
        self.free: dict[int, Any] = {}
        self.before = self.read()

    def read(self) -> list[Any]: raise NotImplementedError
    def write(self, index: int, value: Any) -> None: raise NotImplementedError
    def text(self, index: int, bind: Bind) -> str:
        """Python for a value now; it can be assigned to. `bind` gives names to objects."""
        raise NotImplementedError
    def checks(self, bind: Bind) -> list[str]:
        """Python conditions that hold as long as all but the `free` values are the same objects."""
        if not self.free: return [f"{bind(self.differs)}(None) is None"]
        same = [f"{self.text(i, bind)} is {bind(v)}" for i, v in enumerate(self.before) if i not in self.free]
        return [*self.shape_checks(bind), *same]
    def shape_checks(self, bind: Bind) -> list[str]: return []
    def differs(self, describe: Callable[[Any], Any]) -> int | None:
        """The first value that is another than at the snapshot, or None; a number beyond them all if there are more or fewer."""
        now = self.read()
        before = self.before
        if len(now) != len(before): return max(len(now), len(before))
        if all(map(is_, now, before)): return None
        for i, (a, b) in enumerate(zip(now, before)):
            if a is b: continue
            if i in self.free and describe(a) == self.free[i]: continue
            if not same(a, b): return i
        return None


class Fields(Box):
    """The attributes of an object, or the items of a dict."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}[{bind(self.names[index])}]"
    def shape_checks(self, bind: Bind) -> list[str]: return [f"[*{bind(self.owner)}] == {bind(self.names)}"]
    def checks(self, bind: Bind) -> list[str]:
        if self.free: return super().checks(bind)
        return [*self.shape_checks(bind), f"all(map(is_, {bind(self.owner)}.values(), {bind(self.before)}))"]
    def read(self) -> list[Any]:
        owner = self.owner
        return list(owner.values()) if [*owner] == self.names else [*owner.values(), MISSING]    # other keys: another length
    def differs(self, describe: Callable[[Any], Any]) -> int | None:
        return None if [*self.owner] == self.names and all(map(is_, self.owner.values(), self.before)) else super().differs(describe)
    def write(self, index: int, value: Any) -> None: self.owner[self.names[index]] = value


class Names(Box):
    """Some of the names of a module."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}[{self.names[index]!r}]"
    def checks(self, bind: Bind) -> list[str]: return _each(self, bind)
    def read(self) -> list[Any]:
        get = self.owner.get
        return [get(n, MISSING) for n in self.names]
    def write(self, index: int, value: Any) -> None: self.owner[self.names[index]] = value


class Attributes(Box):
    """Named attributes, one object or class."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}.{self.names[index]}"
    def checks(self, bind: Bind) -> list[str]: return _each(self, bind)
    def read(self) -> list[Any]: return [getattr(self.owner, n, MISSING) for n in self.names]
    def write(self, index: int, value: Any) -> None: setattr(self.owner, self.names[index], value)


class ClassNames(Names):
    """Names in the body of a class, as they stand there: to get a class method makes a new object each time."""
    def read(self) -> list[Any]: return [vars(self.owner).get(n, MISSING) for n in self.names]
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}.{self.names[index]}"
    def checks(self, bind: Bind) -> list[str]:
        body = bind(vars(self.owner))
        return [f"{body}[{n!r}] is {bind(v)}" for i, (n, v) in enumerate(zip(self.names, self.before)) if i not in self.free]
    def write(self, index: int, value: Any) -> None: setattr(self.owner, self.names[index], value)


class Items(Box):
    """The items of a list."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}[{index}]"
    def shape_checks(self, bind: Bind) -> list[str]: return [f"len({bind(self.owner)}) == {len(self.before)}"]
    def checks(self, bind: Bind) -> list[str]:
        if self.free: return super().checks(bind)
        return [*self.shape_checks(bind), f"all(map(is_, {bind(self.owner)}, {bind(self.before)}))"]
    def read(self) -> list[Any]: return list(self.owner)
    def write(self, index: int, value: Any) -> None: self.owner[index] = value


class Cell(Box):
    """One variable of a closure."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner)}.cell_contents"
    def checks(self, bind: Bind) -> list[str]: return _each(self, bind)
    def read(self) -> list[Any]:
        try: return [self.owner.cell_contents]
        except ValueError: return [MISSING]
    def write(self, index: int, value: Any) -> None: self.owner.cell_contents = value


class Length(Box):
    """Of something too long to look through."""
    def read(self) -> list[Any]: return [len(self.owner)]


class Array(Box):
    """A small NumPy array."""
    def read(self) -> list[Any]: return [self.owner.tobytes()]


class Grads(Box):
    """The gradients of all tensors seen, in one box."""
    def text(self, index: int, bind: Bind) -> str: return f"{bind(self.owner[index])}._grad"
    def checks(self, bind: Bind) -> list[str]: return _each(self, bind)
    def read(self) -> list[Any]: return [t._grad for t in self.owner]
    def write(self, index: int, value: Any) -> None: self.owner[index]._grad = value


def _each(box: Box, bind: Bind) -> list[str]:
    """Conditions value by value, where none is missing."""
    if any(v is MISSING for v in box.before): return [f"{bind(box.differs)}(None) is None"] if not box.free else ["False"]
    return [f"{box.text(i, bind)} is {bind(v)}" for i, v in enumerate(box.before) if i not in box.free]


def same(a: Any, b: Any) -> bool:
    """Whether two simple values are equal; others are compared by identity before."""
    if type(a) is not type(b) or not isinstance(a, SIMPLE): return False
    return a.hex() == b.hex() if type(a) is float else bool(a == b)


class Watch:
    """A snapshot of what is reachable from `roots`. `tensors` has the tensors found; `describe(x)` is what makes tensors alike."""

    def __init__(self, roots: Iterable[Any], tensor: type, describe: Callable[[Any], Any]) -> None:
        self.tensor, self.describe = tensor, describe
        self.boxes: list[Box] = []
        self.tensors: dict[int, Any] = {}
        self._kept: list[Any] = []         # while looking: so that no id is used again
        self._seen: set[int] = set()
        self._todo = deque(roots)
        while self._todo and len(self._seen) < MAX_OBJECTS: self._look(self._todo.popleft())
        self._kept.clear()
        self._seen.clear()
        self.grads = Grads(list(self.tensors.values()), [], "the gradient")
        if self.tensors: self.boxes.append(self.grads)

    def change(self) -> Place | None:
        """The first place that is not as it was."""
        for box in self.boxes:
            i = box.differs(self.describe)
            if i is not None: return Place(box, i)
        return None

    def changes(self) -> list[tuple[Place, Any, Any]]:
        """(place, before, now) of every value that is not as it was; a container of another length counts as one."""
        out = []
        for box in self.boxes:
            now = box.read()
            if len(now) != len(box.before): out.append((Place(box, len(box.before)), MISSING, MISSING))
            else: out += [(Place(box, i), a, b) for i, (a, b) in enumerate(zip(box.before, now)) if a is not b and not same(a, b)]
        return out

    def forget_grads(self, tensors: Iterable[Any]) -> None:
        """What the gradients of these tensors were no longer matters: they are set before they are read."""
        gone = {id(t) for t in tensors}
        rest = Grads([t for t in self.grads.owner if id(t) not in gone], [], self.grads.what)
        kept = [i for i, t in enumerate(self.grads.owner) if id(t) not in gone]
        rest.before = [self.grads.before[i] for i in kept]
        rest.free = {new: self.grads.free[old] for new, old in enumerate(kept) if old in self.grads.free}
        self.boxes = [rest if box is self.grads else box for box in self.boxes if box is not self.grads or kept]

    # ---- looking around ----------------------------------------------------------------------------------------------------------
    def _look(self, x: Any) -> None:
        if isinstance(x, SIMPLE) or id(x) in self._seen: return
        self._seen.add(id(x))
        self._kept.append(x)
        if isinstance(x, self.tensor):
            self.tensors[id(x)] = x
            if x._grad is not None: self._todo.append(x._grad)
        elif isinstance(x, types.FunctionType): self._look_at_function(x)
        elif isinstance(x, types.MethodType): self._todo += (x.__func__, x.__self__)
        elif isinstance(x, functools.partial): self._todo += (x.func, *x.args, *x.keywords.values())
        elif isinstance(x, (list, deque)): self._add(Items, x, (), "item", x)
        elif isinstance(x, dict): self._add(Fields, x, x, "item", x.values())
        elif isinstance(x, (tuple, set, frozenset)): self._todo += x
        elif isinstance(x, types.ModuleType): pass       # only the names a function uses are looked at
        elif isinstance(x, type): self._look_at_class(x)
        elif type(x).__module__ == "numpy" and hasattr(x, "tobytes") and getattr(x, "nbytes", ARRAY_BYTES + 1) <= ARRAY_BYTES:
            self.boxes.append(Array(x, (), "the NumPy array"))
        else: self._look_at_object(x)

    def _add(self, kind: type[Box], owner: Any, names: Iterable[Any], what: str, values: Iterable[Any]) -> None:
        if len(owner) > MAX_ITEMS:
            self.boxes.append(Length(owner, (), "the length of"))
            return
        self.boxes.append(kind(owner, names, what))
        self._todo += values

    def _look_at_function(self, fn: types.FunctionType) -> None:
        inner = getattr(fn, "__wrapped__", None)
        if inner is not None: self._todo.append(inner)
        for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars):
            box = Cell(cell, [name], "the closure's variable")
            self.boxes.append(box)
            self._todo += box.before
        if not is_users(fn.__module__): return
        names = _global_names(fn.__code__)
        found = [n for n in names if n in fn.__globals__]
        self._watch_names(fn.__globals__, found, "the global")
        for module in [m for n in found if isinstance(m := fn.__globals__[n], types.ModuleType)]:
            if is_users(module.__name__): self._watch_names(vars(module), [n for n in names if n in vars(module)], f"{module.__name__}'s")
        self._todo += (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())

    def _watch_names(self, names: dict[str, Any], found: list[str], what: str) -> None:
        if not found: return
        self.boxes.append(Names(names, found, what))
        self._todo += [names[n] for n in found]

    def _look_at_class(self, cls: type) -> None:
        for c in cls.__mro__:
            if (id(c) in self._seen and c is not cls) or not is_users(c.__module__): continue
            self._seen.add(id(c))
            names = [n for n, v in vars(c).items() if not n.startswith("__") or isinstance(v, types.FunctionType)]
            self.boxes.append(ClassNames(c, names, f"{c.__name__}'s attribute"))
            for n in names:
                v = vars(c)[n]
                self._todo.append(v.fget if isinstance(v, property) else getattr(v, "__func__", v))

    def _look_at_object(self, x: Any) -> None:
        fn = getattr(x, "__wrapped__", None)       # functools.cache and the like
        if isinstance(fn, types.FunctionType): self._todo.append(fn)
        cls = type(x)
        if not _has_fields_of_interest(cls.__module__): return
        fields = getattr(x, "__dict__", None)
        if isinstance(fields, dict): self._add(Fields, fields, fields, f"{cls.__name__}'s attribute", fields.values())
        slots = [n for c in cls.__mro__ for n in _slots(c)]
        if slots:
            box = Attributes(x, slots, f"{cls.__name__}'s attribute")
            self.boxes.append(box)
            self._todo += [v for v in box.before if v is not MISSING]
        self._todo.append(cls)


def _has_fields_of_interest(module: str) -> bool:
    root = module.partition(".")[0]
    if root == "glassgrad": return module.startswith("glassgrad.nn")
    return root not in ("builtins", "numpy") and (root == "__main__" or root not in sys.stdlib_module_names)


def _slots(cls: type) -> tuple[str, ...]:
    names = vars(cls).get("__slots__", ())
    return tuple(n for n in ((names,) if isinstance(names, str) else names) if not n.startswith("__"))


def _global_names(code: types.CodeType) -> list[str]:
    names = dict.fromkeys(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType): names |= dict.fromkeys(_global_names(inner))
    return list(names)


@functools.cache
def is_users(module: str | None) -> bool:
    """Whether a module is the user's own: not ours, not Python's, not installed."""
    root = (module or "").partition(".")[0]
    if root == "__main__": return True
    if root in ("glassgrad", "builtins") or root in sys.stdlib_module_names: return False
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return "site-packages" not in file and "dist-packages" not in file
