"""UOp: the node of every graph. `(op, dtype, src, arg)`, immutable and interned: the same node built twice is one object."""
from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Op, Ops, RangeArg, ReduceArg

class _Ref(weakref.ref):
    __slots__ = ("key",)


_nodes: dict[tuple, _Ref] = {}
_numbers = itertools.count()


def _forget(ref: _Ref) -> None:
    if _nodes.get(ref.key) is ref: del _nodes[ref.key]


def fresh_id() -> int:
    """A number no other node in this process has."""
    return next(_numbers)


class UOp:
    """A node. Build with the constructor, the builder methods or Python's operators; never change one.

    `site` is the user's "file:line" that made it (or None), carried along by rewrites. `memory` belongs to the engine: the device
    memory of a BUFFER; of any other node the BUFFER that holds its value, once it has been realized.
    """
    __slots__ = ("op", "dtype", "src", "arg", "_shape", "_bounds", "_key", "_simple", "_clean", "_axes", "_order", "site", "memory", "__weakref__")
    op: Op; dtype: DType; src: tuple[UOp, ...]; arg: Any; site: str | None; memory: Any

    def __new__(cls, op: Op, dtype: DType, src: tuple[UOp, ...] = (), arg: Any = None) -> UOp:
        # 1, 1.0 and True are equal in Python but no constants of one dtype mix them; -0.0 and NaN need a key of their own
        key = (op, dtype, src, arg if arg.__class__ is not float else (arg.hex() if arg == arg else "nan"))
        ref = _nodes.get(key)
        if ref is not None:
            node = ref()
            if node is not None: return node
        node = object.__new__(cls)
        node.op, node.dtype, node.src, node.arg = op, dtype, src, arg
        node._shape = node._bounds = node._key = node._simple = node._clean = node._axes = node._order = node.site = node.memory = None
        ref = _Ref(node, _forget)
        ref.key = key
        _nodes[key] = ref
        return node

    def __reduce__(self) -> Any: raise CompilerBug("UOp: pickling a node loses its identity; use uop.text instead")

    # ---- facts -------------------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value; () for scalars and for everything inside a kernel."""
        if self._shape is None:
            for s in self.src:
                if s._shape is None: break
            else:               # the usual case: sources are asked before their consumers
                self._shape = (self.op.shape or _elementwise)(self.src, self.arg)
                return self._shape  # type: ignore[return-value]
            for n in self.toposort(stop=lambda n: n._shape is not None):
                if n._shape is None: n._shape = (n.op.shape or _elementwise)(n.src, n.arg)
        return self._shape  # type: ignore[return-value]

    @property
    def size(self) -> int: return math.prod(self.shape)
    @property
    def ndim(self) -> int: return len(self.shape)

    def toposort(self, stop: Any = None) -> list[UOp]:
        """All nodes below and including this one, sources first; does not descend below nodes for which `stop(node)` holds."""
        if stop is not None or self.op is not Ops.SINK: return toposort((self,), stop)
        if self._order is None: self._order = toposort(self.src)    # most passes ask a whole graph: it is kept, without the node itself
        return [*self._order, self]

    def __repr__(self) -> str:
        from_arg = "" if self.arg is None else f", arg={self.arg!r}"
        return f"UOp({self.op}, {self.dtype.short}, {len(self.src)} src{from_arg})"

    # ---- builders ----------------------------------------------------------------------------------------------------------------
    @staticmethod
    def const(dtype: DType, value: Any) -> UOp:
        """A scalar constant, wrapped or rounded to `dtype`."""
        return UOp(Ops.CONST, dtype, (), dtype.scalar.const(value))
    def const_like(self, value: Any) -> UOp: return UOp.const(self.dtype, value)
    def replace(self, *, op: Op | None = None, dtype: DType | None = None, src: tuple[UOp, ...] | None = None, **arg: Any) -> UOp:
        """The same node with some fields changed; keeps the site."""
        node = UOp(op or self.op, dtype or self.dtype, self.src if src is None else src, arg.get("arg", self.arg))
        if node.site is None: node.site = self.site
        return node
    def alu(self, op: Op, *others: UOp) -> UOp:
        """`op` of this and `others`; bool for comparisons, else the dtype of the last source."""
        src = (self, *others)
        dtype = src[-1].dtype
        return UOp(op, dtypes.bool.vec(dtype.lanes) if op.out == "bool" else dtype, src)
    def _bin(self, op: Op, other: Any, reverse: bool = False) -> UOp:
        y = other if isinstance(other, UOp) else self.const_like(other)
        return y.alu(op, self) if reverse else self.alu(op, y)

    def __add__(self, y: Any) -> UOp: return self._bin(Ops.ADD, y)
    def __radd__(self, y: Any) -> UOp: return self._bin(Ops.ADD, y, True)
    def __sub__(self, y: Any) -> UOp: return self._bin(Ops.SUB, y)
    def __rsub__(self, y: Any) -> UOp: return self._bin(Ops.SUB, y, True)
    def __mul__(self, y: Any) -> UOp: return self._bin(Ops.MUL, y)
    def __rmul__(self, y: Any) -> UOp: return self._bin(Ops.MUL, y, True)
    def __truediv__(self, y: Any) -> UOp: return self._bin(Ops.FDIV, y)
    def __rtruediv__(self, y: Any) -> UOp: return self._bin(Ops.FDIV, y, True)
    def __floordiv__(self, y: Any) -> UOp: return self._bin(Ops.CDIV, y)
    def __mod__(self, y: Any) -> UOp: return self._bin(Ops.CMOD, y)
    def __and__(self, y: Any) -> UOp: return self._bin(Ops.AND, y)
    def __or__(self, y: Any) -> UOp: return self._bin(Ops.OR, y)
    def __xor__(self, y: Any) -> UOp: return self._bin(Ops.XOR, y)
    def __lshift__(self, y: Any) -> UOp: return self._bin(Ops.SHL, y)
    def __rshift__(self, y: Any) -> UOp: return self._bin(Ops.SHR, y)
    def __lt__(self, y: Any) -> UOp: return self._bin(Ops.CMPLT, y)
    def __gt__(self, y: Any) -> UOp: return self._bin(Ops.CMPLT, y, True)
    def __le__(self, y: Any) -> UOp: return self._bin(Ops.CMPLE, y)
    def __ge__(self, y: Any) -> UOp: return self._bin(Ops.CMPLE, y, True)
    def __neg__(self) -> UOp: return self.alu(Ops.NEG)
    def eq(self, y: Any) -> UOp: return self._bin(Ops.CMPEQ, y)
    def ne(self, y: Any) -> UOp: return self._bin(Ops.CMPNE, y)
    def max(self, y: Any) -> UOp: return self._bin(Ops.MAX, y)
    def min(self, y: Any) -> UOp: return self._bin(Ops.MIN, y)
    def pow(self, y: Any) -> UOp: return self._bin(Ops.POW, y)
    def where(self, y: Any, z: Any) -> UOp:
        """y where this bool is true, else z; one of them may be a Python scalar."""
        if not isinstance(y, UOp): y = z.const_like(y)
        return self.alu(Ops.WHERE, y, z if isinstance(z, UOp) else y.const_like(z))
    def not_(self) -> UOp: return self ^ True
    def recip(self) -> UOp: return self.alu(Ops.RECIP)
    def sqrt(self) -> UOp: return self.alu(Ops.SQRT)
    def exp(self) -> UOp: return self.alu(Ops.EXP)
    def exp2(self) -> UOp: return self.alu(Ops.EXP2)
    def log(self) -> UOp: return self.alu(Ops.LOG)
    def log2(self) -> UOp: return self.alu(Ops.LOG2)
    def sin(self) -> UOp: return self.alu(Ops.SIN)
    def cos(self) -> UOp: return self.alu(Ops.COS)
    def trunc(self) -> UOp: return self.alu(Ops.TRUNC)
    def cast(self, dtype: DType) -> UOp:
        """To `dtype`, keeping the lanes of a vector."""
        dtype = dtype.vec(self.dtype.lanes)
        return self if dtype is self.dtype else UOp(Ops.CAST, dtype, (self,))
    def bitcast(self, dtype: DType) -> UOp:
        dtype = dtype.vec(self.dtype.lanes)
        return self if dtype is self.dtype else UOp(Ops.BITCAST, dtype, (self,))

    def _move(self, op: Op, arg: Any) -> UOp: return UOp(op, self.dtype, (self,), arg)
    def reshape(self, shape: tuple[int, ...]) -> UOp: return self if shape == self.shape else self._move(Ops.RESHAPE, shape)
    def expand(self, shape: tuple[int, ...]) -> UOp: return self if shape == self.shape else self._move(Ops.EXPAND, shape)
    def permute(self, axes: tuple[int, ...]) -> UOp: return self if axes == tuple(range(self.ndim)) else self._move(Ops.PERMUTE, axes)
    def pad(self, arg: tuple[tuple[int, int], ...]) -> UOp: return self if all(p == (0, 0) for p in arg) else self._move(Ops.PAD, arg)
    def shrink(self, arg: tuple[tuple[int, int], ...]) -> UOp:
        return self if arg == tuple((0, n) for n in self.shape) else self._move(Ops.SHRINK, arg)
    def flip(self, axes: tuple[int, ...]) -> UOp: return self._move(Ops.FLIP, axes) if axes else self
    def reduce(self, op: Op, axes: tuple[int, ...]) -> UOp:
        """Combine along `axes` with `op`; they vanish from the shape."""
        return UOp(Ops.REDUCE, self.dtype, (self,), ReduceArg(op, tuple(sorted(axes)))) if axes else self
    def broadcast_to(self, shape: tuple[int, ...]) -> UOp:
        """NumPy broadcasting to `shape`: new leading axes, and axes of length 1 repeated."""
        if self.shape == shape: return self
        return self.reshape((1,) * (len(shape) - self.ndim) + self.shape).expand(shape)
    @staticmethod
    def iota(n: int, dtype: DType | None = None) -> UOp: return UOp(Ops.IOTA, dtype or dtypes.int32, (), n)
    @staticmethod
    def sink(*roots: UOp) -> UOp: return UOp(Ops.SINK, dtypes.void, roots)
    @staticmethod
    def range(id: int, n: UOp | int, kind: str = "LOOP", dtype: DType | None = None) -> UOp:
        """A kernel's loop axis 0 <= value < n."""
        n = n if isinstance(n, UOp) else UOp.const(dtype or dtypes.int64, n)
        return UOp(Ops.RANGE, n.dtype, (n,), RangeArg(id, kind))


def _elementwise(src: tuple[UOp, ...], arg: Any) -> tuple[int, ...]:
    for s in src:
        if s._shape: return s._shape
    return ()


def toposort(roots: Iterable[UOp], stop: Any = None) -> list[UOp]:
    """All nodes below `roots`, sources first, each once, roots in the given order. Iterative: depth does not matter."""
    done: dict[UOp, None] = {}
    for root in roots:
        if root in done: continue
        path, rest = [root], [iter(root.src if stop is None or not stop(root) else ())]    # what is open, and the sources left of each
        while path:
            for s in rest[-1]:
                if s in done: continue
                if s.src and (stop is None or not stop(s)):
                    path.append(s)
                    rest.append(iter(s.src))
                    break
                done[s] = None
            else:
                done[path.pop()] = None
                rest.pop()
    return list(done)


def consumers_of(order: list[UOp]) -> dict[UOp, list[UOp]]:
    """For every node of a toposort, the nodes that use it (once per use)."""
    out: dict[UOp, list[UOp]] = {n: [] for n in order}
    for n in order:
        for s in n.src:
            if s in out: out[s].append(n)
    return out


def substitute(roots: tuple[UOp, ...], table: dict[UOp, UOp]) -> tuple[UOp, ...]:
    """`roots` with every node in `table` replaced (not looking inside the replacements)."""
    memo = dict(table)
    for n in toposort(roots, stop=table.__contains__):
        if n in memo: continue
        src = tuple([memo[s] for s in n.src])
        memo[n] = n if src == n.src else n.replace(src=src)
    return tuple(memo[r] for r in roots)


def nodes_alive() -> int:
    """How many nodes exist in this process."""
    return len(_nodes)


def iter_nodes() -> Iterator[UOp]:
    """All nodes that exist in this process, in no order."""
    for ref in list(_nodes.values()):
        n = ref()
        if n is not None: yield n
