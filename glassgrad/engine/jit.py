"""Jit: a function of tensors run once as Python, and from then on as one replay of the kernels it asked for.

A call is looked up by the structure of its arguments (shapes, types, devices, Python values, which tensors share memory) and by all the
function reaches otherwise: closures, globals, attributes, containers (watch.py). If anything differs the function is traced again. What
it writes (assign, gradients, attributes set to new tensors) is written at each replay; random keys are drawn anew; results are fresh.
"""
from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from glassgrad.device.device import Device
from glassgrad.engine import capture, context, debug
from glassgrad.engine import realize as engine
from glassgrad.engine.context import CHECK, JIT, code_key
from glassgrad.engine.launch import write_launch
from glassgrad.engine.replay import MISS, Call, Capture
from glassgrad.engine.trace import trace
from glassgrad.uop.errors import JitError

MAX_CAPTURES = 64           # of one function; what was made first goes first
WRITE_AT = 2                # replays: to write a launcher takes some ms
MAX_LAUNCHES = 4            # are tried one after the other, about 0.3 us each
UNSTABLE_CALLS = 2          # a function may change Python state once (it sets something up), not every time


class Jit:
    """A function and its captures. Call it like the function; `reset()` forgets the captures; `traces` and `replays` count.

    errors:  JitError for what cannot be captured: values read inside, Python state changed at every call
    """

    def __init__(self, fn: Callable, roots: Callable[[], list[Any]] | None = None) -> None:
        if not callable(fn): raise JitError(f"jit of a {type(fn).__name__}\n  only a function can be captured\n  try: @jit above a def")
        self.fn, self.roots = fn, roots or (lambda: [fn])
        self.captures: dict[Any, list[Capture]] = {}
        self.launches: list[Callable[[tuple, dict[str, Any]], Any]] = []
        self.replays = self.traces = self.unstable = 0
        self._methods: dict[int, tuple[Callable[[], Any], Jit]] = {}
        functools.update_wrapper(self, fn, updated=())
        self.name = getattr(fn, "__qualname__", type(fn).__name__)

    def __repr__(self) -> str: return f"<jit {self.name}: {sum(map(len, self.captures.values()))} captures>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: each instance has captures of its own, which go with it."""
        if instance is None: return self
        found = self._methods.get(id(instance))
        if found is not None and found[0]() is instance: return found[1]
        number = id(instance)
        try: ref: Callable[[], Any] = weakref.ref(instance, lambda _: self._methods.pop(number, None))
        except TypeError: ref = functools.partial(_same, instance)      # it cannot be referred to weakly, so it stays
        fn = self.fn
        def method(*args: Any, **kwargs: Any) -> Any: return fn(ref(), *args, **kwargs)
        functools.update_wrapper(method, fn, updated=())
        made = Jit(method, lambda: [fn, ref()])
        self._methods[id(instance)] = (ref, made)
        return made

    def reset(self) -> None:
        """Forget all captures: the next call traces."""
        self.captures.clear()
        self.launches.clear()
        self._methods.clear()
        self.unstable = 0

    @property
    def captured(self) -> bool:
        """Whether there is anything to replay."""
        return bool(self.captures)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for launch in self.launches:
            result = launch(args, kwargs)
            if result is not MISS:
                self.replays += 1
                return result
        if not JIT.value or capture.is_tracing(): return self.fn(*args, **kwargs)   # inside another: part of it
        call = Call(self.name, args, kwargs)
        key = (call.key, capture.flags(), Device.DEFAULT, code_key())
        for c in self.captures.get(key, ()):
            if c.fits(call):
                self.replays += 1
                self._write_launch(c, call, args, kwargs)
                return c.replay(call)
        with engine.lock, engine.without_collector(): return self._trace(key, call, args, kwargs)

    def _write_launch(self, c: Capture, call: Call, args: tuple, kwargs: dict[str, Any]) -> None:
        """A launcher for what is replayed again and again; one that gave MISS since a setting has changed holds on."""
        c.replays += 1
        if debug.is_watching() or CHECK.value >= 2: return
        if c.replays == WRITE_AT: c.trim()
        if c.launch is not None: c.launch.__globals__["version"] = context.version
        elif c.replays == WRITE_AT:
            c.launch = write_launch(c, call, args, kwargs)
            if c.launch is not None: self.launches = [c.launch, *self.launches[:MAX_LAUNCHES - 1]]

    def _trace(self, key: tuple, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        debug.say(1, lambda: f"jit: traces {self.name}{self._why(key)}")
        self.traces += 1
        result, made, changed = trace(self.name, self.fn, self.roots(), call, args, kwargs)
        if made is None:
            self.unstable += 1
            if self.unstable >= UNSTABLE_CALLS:
                raise JitError(f"the jitted function {self.name} {changed}\n"
                               "  it did so at this call and at the one before; a replay would not do it again\n"
                               "  try: keep state in a Tensor and use assign(), or return it; draw with Tensor.rand; or do it outside")
            return result
        self.unstable = 0
        self.captures.setdefault(key, []).insert(0, made)
        if sum(map(len, self.captures.values())) > MAX_CAPTURES:
            oldest = next(iter(self.captures))
            gone = self.captures[oldest].pop().launch
            self.launches = [launch for launch in self.launches if launch is not gone]
            if not self.captures[oldest]: del self.captures[oldest]
        return result

    def _why(self, key: tuple) -> str:
        """What is new about a call, for people."""
        if not self.captures: return ""
        if key in self.captures:
            change = self.captures[key][0].watch.change()
            return f" again: {change} has changed" if change is not None else " again: other tensors share memory"
        last = next(reversed(self.captures))
        new = [(a, b) for a, b in zip(last[0], key[0]) if a != b]
        if not new: return " again: a setting or the number of arguments is another"
        return f" again: an argument was {new[0][0]} and is {new[0][1]}"


def _same(x: Any) -> Any: return x


def jit(fn: Callable) -> Jit:
    """The function, captured at its first call and replayed afterwards: Python runs again only when something it depends on has changed.

    errors:  JitError for what cannot be captured, saying what to do instead
    """
    return Jit(fn)


TinyJit = jit
