"""The op table: one row holds every fact of one op.

A row: name, kind, arity, text, shape rule, and for arithmetic the algebra (commutes, unit, zero), the Python meaning (constant
folding, the reference device), the derivative, the decomposition into more basic ops and the domain its tests draw from.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


from glassgrad.uop.errors import UsageError
from glassgrad.uop.lazy import Lazy

Shape = tuple[int, ...]


np = Lazy("numpy")


class Op:
    """A row of the op table. Rows are singletons: compare with `is`, use as dictionary keys."""
    __slots__ = ("name", "kind", "arity", "text", "shape", "commutes", "unit", "zero", "py", "np", "grad", "decomp", "domain",
                 "out", "cost", "dtypes", "doc", "is_alu", "is_movement")

    def __init__(self, name: str, kind: str, arity: int, doc: str, *, text: str | None = None, shape: Callable | None = None,
                 commutes: bool = False, unit: Any = None, zero: Any = None, py: Callable | None = None, npf: Callable | None = None,
                 grad: Callable | None = None, decomp: Callable | None = None, domain: tuple[float, float] = (-3, 3),
                 out: str = "same", cost: int = 1, dtypes: str = "any") -> None:
        self.name, self.kind, self.arity, self.doc, self.text, self.shape = name, kind, arity, doc, text, shape
        self.commutes, self.unit, self.zero, self.py, self.np, self.grad = commutes, unit, zero, py, npf, grad
        self.decomp, self.domain, self.out, self.cost, self.dtypes = decomp, domain, out, cost, dtypes
        self.is_alu, self.is_movement = kind == "alu", kind == "movement"

    def __repr__(self) -> str: return self.name
    def __reduce__(self) -> Any: return _by_name, (self.name,)


class Ops:
    """The rows by name: `Ops.ADD`, …"""
    @staticmethod
    def all() -> list[Op]: return [o for o in vars(Ops).values() if isinstance(o, Op)]
    @staticmethod
    def alu() -> list[Op]: return [o for o in Ops.all() if o.is_alu]


def add_op(name: str, kind: str = "alu", arity: int = 1, doc: str = "", **facts: Any) -> Op:
    """Add a row: the op then works on every device (by `decomp` or the renderers' own spelling), with its gradient.

    facts:   see Op; `py` is the meaning on Python scalars, `npf` on NumPy arrays, `grad(node, g)` yields one UOp or None per source,
             `decomp(node)` gives the same value in more basic ops, `out` the dtype rule (same, bool), `dtypes` the kinds it takes
    errors:  UsageError if the name is taken
    """
    if hasattr(Ops, name): raise UsageError(f"add_op: the name {name!r} is taken")
    op = Op(name, kind, arity, doc, **facts)
    setattr(Ops, name, op)
    return op


def _by_name(name: str) -> Op: return getattr(Ops, name)


# ---- arg types -------------------------------------------------------------------------------------------------------------------
class BufferArg(NamedTuple):
    """A buffer's identity: `id` is unique in the process, `size` counts elements."""
    id: int; size: int; device: str
class KeyArg(NamedTuple):
    """A random key fixed when the user called: `seed` names the stream, `counter` the first word of it that this call may use."""
    seed: int; counter: int
class VarArg(NamedTuple):
    """A named integer, known when the program runs: lo <= value <= hi."""
    name: str; lo: int; hi: int
class UnfoldArg(NamedTuple):
    """Sliding windows over `axis`: window o reads positions o*stride + k*dilation, k < size; `length` is the axis' full length."""
    axis: int; size: int; stride: int; dilation: int; length: int
class StoreArg(NamedTuple):
    """Why a value is stored, and the number of the kernel that does it: values with the same number share one."""
    reason: str; kernel: int
class ReduceArg(NamedTuple):
    """`op` is ADD, MUL, MAX or MIN; `axes` are reduced away (empty in a kernel: there the ranges are sources)."""
    op: Op; axes: tuple[int, ...]
class ScatterArg(NamedTuple):
    """Along `axis`; `op` combines with what is there (ADD, MUL, MAX, MIN) or None to overwrite, later sources winning."""
    axis: int; op: Op | None
class SortArg(NamedTuple):
    """Along `axis`, stable, NaN last (first when descending). In a kernel: ascending integer keys, one row."""
    axis: int; descending: bool
class ParamArg(NamedTuple):
    """A kernel's argument: `kind` is "buffer" (size elements) or "value" (a scalar handed over at launch)."""
    slot: int; kind: str; size: int
class RangeArg(NamedTuple):
    """A loop axis of a kernel. Kinds: GLOBAL LOCAL LOOP REDUCE UPCAST UNROLL LANE."""
    id: int; kind: str
class ScratchArg(NamedTuple):
    """Memory inside a kernel: `space` is "private" (one thread's) or "shared" (one workgroup's)."""
    id: int; size: int; space: str
class Tiling(NamedTuple):
    """What a kernel's loops become, as the arg of its SINK: what is None the cost model chooses, and fills in together with `cycles`, what
    it expects of one core. Axes are the numbers of their RangeArg once adjacent ones are merged.

    lane: the SIMD axis of the store, -1 for none; tiles: (axis, factor) of register tiles, the SIMD axis counted in vectors; panels:
    whether operands are copied into reading order; flat: whether short rows are counted on into the next; vectors: in a turn of a loop
    without reuse; chunks: pieces of work at least.
    """
    lane: int | None = None; tiles: tuple[tuple[int, int], ...] | None = None; panels: bool | None = None; flat: bool | None = None
    vectors: int | None = None; chunks: int | None = None; cycles: float = 0.0
class SpecialArg(NamedTuple):
    """A hardware index: "gidx0".."gidx2" for workgroups (chunks on a CPU), "lidx0".."lidx2" for threads in one; 0 <= value < size."""
    name: str; size: int


# ---- shape rules -----------------------------------------------------------------------------------------------------------------
def _elementwise(src: tuple, arg: Any) -> Shape:
    for s in src:
        if s.shape: return s.shape
    return ()

def _reduce(src: tuple, arg: ReduceArg) -> Shape:
    return tuple(n for i, n in enumerate(src[0].shape) if i not in arg.axes)

def _unfold(src: tuple, arg: UnfoldArg) -> Shape:
    n = (arg.length - (arg.size - 1) * arg.dilation - 1) // arg.stride + 1
    s = src[0].shape
    return (*s[:arg.axis], n, *s[arg.axis + 1:], arg.size)

def _fold(src: tuple, arg: UnfoldArg) -> Shape:
    s = src[0].shape
    return (*s[:arg.axis], arg.length, *s[arg.axis + 1:-1])

def _cat(src: tuple, arg: int) -> Shape:
    s = src[0].shape
    return (*s[:arg], sum(x.shape[arg] for x in src), *s[arg + 1:])

def _same(src: tuple, arg: Any) -> Shape: return src[0].shape
def _scalar(src: tuple, arg: Any) -> Shape: return ()


# ---- leaves ----------------------------------------------------------------------------------------------------------------------
add_op("BUFFER", "leaf", 0, "memory on a device", shape=lambda src, arg: (arg.size,))
add_op("CONST", "leaf", 0, "a Python value", shape=_scalar)
add_op("KEY", "leaf", 0, "a random key: seed and counter packed in a uint64 scalar", shape=_scalar)
add_op("VAR", "leaf", 0, "a named integer bound when the program runs", shape=_scalar)
add_op("IOTA", "leaf", 0, "0, 1, …, arg-1", shape=lambda src, arg: (arg,))
add_op("TABLE", "leaf", -1, "the numbers in arg; in a kernel the one at the place that its source says",
       shape=lambda src, arg: () if src else (len(arg),))
add_op("LEAF", "identity", 1, "a value with an identity of its own (arg): two equal constants stay two variables", shape=_same)
add_op("BIND", "identity", 2, "a VAR with its value", shape=_scalar)

# ---- tensor graph ----------------------------------------------------------------------------------------------------------------
add_op("RESHAPE", "movement", 1, "same elements in row-major order, other shape", shape=lambda src, arg: arg)
add_op("EXPAND", "movement", 1, "repeat axes of length 1", shape=lambda src, arg: arg)
add_op("PERMUTE", "movement", 1, "output axis i is input axis arg[i]", shape=lambda src, arg: tuple(src[0].shape[a] for a in arg))
add_op("PAD", "movement", 1, "zeros before and after each axis: ((lo, hi), …)",
       shape=lambda src, arg: tuple(n + lo + hi for n, (lo, hi) in zip(src[0].shape, arg)))
add_op("SHRINK", "movement", 1, "a box: ((start, end), …)", shape=lambda src, arg: tuple(e - s for s, e in arg))
add_op("FLIP", "movement", 1, "the axes in arg reversed", shape=_same)
add_op("UNFOLD", "movement", 1, "sliding windows of an axis; the place in the window is a new last axis", shape=_unfold)
add_op("FOLD", "fold", 1, "sum of overlapping windows: the adjoint of UNFOLD", shape=_fold)
add_op("CAT", "cat", -1, "join along axis arg", shape=_cat)
add_op("REDUCE", "reduce", 1, "combine along axes, which vanish", shape=_reduce)
add_op("SCAN", "scan", -1, "running combine along one axis, inclusive; arg is ReduceArg(op, (axis,)); a second source has an "
       "element for each run of the axis, which stands before its first; in a kernel: value, what stands before, *ranges, the outermost first", shape=_same)
add_op("GATHER", "index", 2, "out[.., i, ..] = x[.., index[.., i, ..], ..] along axis arg; the index has the output's shape",
       shape=lambda src, arg: src[1].shape)
add_op("SCATTER", "index", 3, "base, then base[.., index[.., i, ..], ..] op= x[.., i, ..]; index and x have one shape", shape=_same)
add_op("SORT", "sort", 1, "the int32 indices that sort an axis, stable", shape=_same)
add_op("CONTIGUOUS", "identity", 1, "a value that is stored as it stands; arg: why, or a StoreArg", shape=_same)
add_op("STAGE", "identity", -1, "value kept in scratch; arg: the axes shared with the kernel's loops; in a kernel: value, *ranges, read by LOAD",
       shape=lambda src, arg: src[0].shape)
add_op("DETACH", "identity", 1, "a value without gradient", shape=_same)
add_op("SURROGATE", "identity", 2, "the first value with the gradient of the second, which is never computed", shape=_same)
add_op("COPY", "copy", 1, "a value moved to the device named by arg", shape=_same)
add_op("SINK", "effect", -1, "several roots", shape=_scalar)

# ---- kernel ----------------------------------------------------------------------------------------------------------------------
for _name, _arity, _doc in (
    ("PARAM", 0, "kernel argument; its dtype is the element's"), ("RANGE", 1, "loop axis; source: its count"),
    ("LOAD", -1, "buffer, index[, gate]: the element, or 0 where the gate is false"),
    ("STORE", -1, "buffer, index, value[, gate]"), ("PREFETCH", 2, "buffer, index: the element will be wanted soon, if there is one"),
    ("END", -1, "effect, *ranges: the effect for every value of the ranges"),
    ("AFTER", -1, "buffer, *effects: the buffer once the effects have happened"),
    ("SCRATCH", 0, "memory inside the kernel"),
    ("SPECIAL", 0, "hardware index"), ("ACC", 1, "a register; source: its first value; arg: its number"),
    ("SET", 2, "acc, value"), ("GET", -1, "acc, *what it comes after: the register's value"), ("BARRIER", -1, "all threads of a workgroup meet"),
    ("SPLAT", 1, "a scalar in every lane"), ("LANES", 0, "the vector 0, 1, 2, …"), ("HREDUCE", 1, "combine the lanes with op arg"),
    ("HSCAN", 1, "each lane combined with those before it with op arg"),
    ("EXTRACT", 1, "lane arg of a vector"), ("SHUFFLE", 2, "lanes of two vectors, side by side, by the numbers in arg"),
    ("PACK", -1, "scalars to a vector"), ("KERNEL", -1, "one launch: a kernel SINK"),
): add_op(_name, "kernel", _arity, _doc, shape=_scalar)


# ---- arithmetic ------------------------------------------------------------------------------------------------------------------
def _wrap_div(x: Any, y: Any) -> Any: return 0 if y == 0 else (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)
def _wrap_mod(x: Any, y: Any) -> Any: return x if y == 0 else x - _wrap_div(x, y) * y
def _np_div(x: Any, y: Any) -> Any:
    """C division, rounding toward zero; by zero gives 0."""
    safe = np.where(y == 0, 1, y)
    q = x // safe
    if x.dtype.kind == "i": q = q + ((x - q * safe != 0) & ((x < 0) != (safe < 0)))
    return np.where(y == 0, 0, q).astype(x.dtype)
def _np_mod(x: Any, y: Any) -> Any: return (x - _np_div(x, y) * y).astype(x.dtype)
def _quiet(f: Callable) -> Callable:
    def call(*xs: Any) -> Any:
        with np.errstate(all="ignore"): return f(*xs)
    return call
def _lift(f: Callable, bad: Callable | None = None) -> Callable:
    """A math function with IEEE results instead of exceptions."""
    def call(*xs: float) -> float:
        try: return f(*xs)
        except OverflowError: return math.inf
        except (ValueError, ZeroDivisionError): return math.nan if bad is None else bad(*xs)
    return call
def _fdiv(x: float, y: float) -> float:
    if y == 0: return math.nan if x == 0 or x != x else math.copysign(math.inf, math.copysign(1, x) * math.copysign(1, y))
    return x / y
def _pow(x: float, y: float) -> float:
    try: r = math.pow(x, y)
    except OverflowError: return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError: return math.nan if x != 0 else (math.copysign(math.inf, x) if y % 2 == 1 else math.inf)
    return r
def _log(x: float) -> float: return -math.inf if x == 0 else math.nan
def _max(x: Any, y: Any) -> Any: return x if x != x or x > y else y
def _min(x: Any, y: Any) -> Any: return x if x != x or x < y else y
def _erf_np(x: Any) -> Any: return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x
def _threefry(x: int, key: int) -> int:
    """Threefry-2x32, 20 rounds: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)."""
    m = 0xFFFFFFFF
    rot = ((13, 15, 26, 6), (17, 29, 16, 24))
    k0, k1 = key & m, key >> 32 & m
    ks = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    a, b = (x & m) + ks[0] & m, (x >> 32 & m) + ks[1] & m
    for i in range(5):
        for r in rot[i % 2]:
            a = a + b & m
            b = (b << r | b >> 32 - r) & m ^ a
        a, b = a + ks[(i + 1) % 3] & m, b + ks[(i + 2) % 3] + i + 1 & m
    return b << 32 | a
def _threefry_np(x: Any, key: Any) -> Any:
    x, key = np.broadcast_arrays(x, key)
    u, m = np.uint32, np.uint64(0xFFFFFFFF)
    rot = ((13, 15, 26, 6), (17, 29, 16, 24))
    lo, hi = (lambda v: (v & m).astype(u)), (lambda v: (v >> np.uint64(32)).astype(u))
    k0, k1 = lo(key), hi(key)
    ks = (k0, k1, k0 ^ k1 ^ u(0x1BD11BDA))
    a, b = lo(x) + ks[0], hi(x) + ks[1]
    for i in range(5):
        for r in rot[i % 2]:
            a = a + b
            b = (b << u(r) | b >> u(32 - r)) ^ a
        a, b = a + ks[(i + 1) % 3], b + ks[(i + 2) % 3] + u(i + 1)
    return b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)

LN2 = math.log(2)

def _ties(n: Any, g: Any) -> tuple:
    """The gradient of max and min goes to the chosen source, half each where they are equal."""
    x, y = n.src
    half = g * 0.5
    tie = x.eq(y)
    return (tie.where(half, n.eq(x).where(g, g * 0)), tie.where(half, n.eq(y).where(g, g * 0)))

add_op("NEG", arity=1, doc="-x", text="-", py=lambda x: -x, npf=lambda x: np.negative(x), grad=lambda n, g: (-g,), dtypes="number")
add_op("RECIP", arity=1, doc="1/x", py=lambda x: _fdiv(1.0, x), npf=_quiet(lambda x: (1 / x).astype(x.dtype)), grad=lambda n, g: (-g * n * n,),
       domain=(0.2, 4), cost=4, dtypes="float")
add_op("SQRT", arity=1, doc="square root", py=_lift(math.sqrt), npf=_quiet(lambda x: np.sqrt(x)), grad=lambda n, g: (g / (n * 2),),
       domain=(0.1, 9), cost=4, dtypes="float")
add_op("EXP2", arity=1, doc="2**x", py=_lift(lambda x: 2.0 ** x), npf=_quiet(lambda x: np.exp2(x)), grad=lambda n, g: (g * n * LN2,),
       cost=10, dtypes="float")
add_op("LOG2", arity=1, doc="base-2 logarithm", py=_lift(math.log2, _log), npf=_quiet(lambda x: np.log2(x)),
       grad=lambda n, g: (g / (n.src[0] * LN2),), domain=(0.05, 9), cost=12, dtypes="float")
add_op("EXP", arity=1, doc="e**x", py=_lift(math.exp), npf=_quiet(lambda x: np.exp(x)), grad=lambda n, g: (g * n,), cost=10, dtypes="float")
add_op("LOG", arity=1, doc="natural logarithm", py=_lift(math.log, _log), npf=_quiet(lambda x: np.log(x)),
       grad=lambda n, g: (g / n.src[0],), domain=(0.05, 9), cost=12, dtypes="float")
add_op("SIN", arity=1, doc="sine", py=_lift(math.sin), npf=_quiet(lambda x: np.sin(x)), grad=lambda n, g: (g * n.src[0].cos(),),
       domain=(-30, 30), cost=20, dtypes="float")
add_op("COS", arity=1, doc="cosine", py=_lift(math.cos), npf=_quiet(lambda x: np.cos(x)), grad=lambda n, g: (-g * n.src[0].sin(),),
       domain=(-30, 30), cost=20, dtypes="float")
add_op("TANH", arity=1, doc="hyperbolic tangent", py=math.tanh, npf=_quiet(lambda x: np.tanh(x)),
       grad=lambda n, g: (g * (n * n * -1 + 1),), cost=14, dtypes="float")
add_op("ERF", arity=1, doc="error function", py=math.erf, npf=_erf_np, cost=20, dtypes="float",
       grad=lambda n, g: (g * (n.src[0] * n.src[0] * -1).exp() * (2 / math.sqrt(math.pi)),))
add_op("TRUNC", arity=1, doc="toward zero", py=lambda x: float(math.trunc(x)) if math.isfinite(x) else x, npf=lambda x: np.trunc(x),
       grad=lambda n, g: (None,), dtypes="float")
add_op("CAST", arity=1, doc="to the node's dtype", grad=lambda n, g: (g.cast(n.src[0].dtype) if n.src[0].dtype.is_float else None,), out="cast")
add_op("BITCAST", arity=1, doc="the same bits as another type of that width", grad=lambda n, g: (None,), out="cast")
add_op("ADD", arity=2, doc="x + y", text="+", commutes=True, unit=0, py=lambda x, y: x + y, npf=_quiet(lambda x, y: np.add(x, y)),
       grad=lambda n, g: (g, g))
add_op("SUB", arity=2, doc="x - y", text="-", py=lambda x, y: x - y, npf=_quiet(lambda x, y: np.subtract(x, y)), grad=lambda n, g: (g, -g), dtypes="number")
add_op("MUL", arity=2, doc="x * y", text="*", commutes=True, unit=1, zero=0, py=lambda x, y: x * y, npf=_quiet(lambda x, y: np.multiply(x, y)),
       grad=lambda n, g: (g * n.src[1], g * n.src[0]))
add_op("FDIV", arity=2, doc="float division", text="/", py=_fdiv, npf=_quiet(lambda x, y: np.divide(x, y).astype(x.dtype)),
       grad=lambda n, g: (g / n.src[1], -g * n / n.src[1]), domain=(0.2, 4), cost=4, dtypes="float")
add_op("CDIV", arity=2, doc="integer division toward zero; by zero gives 0", text="//", py=_wrap_div, npf=_quiet(_np_div),
       grad=lambda n, g: (None, None), cost=10, dtypes="int")
add_op("CMOD", arity=2, doc="what CDIV leaves over, with the sign of x; by zero gives x", text="%", py=_wrap_mod, npf=_quiet(_np_mod),
       grad=lambda n, g: (None, None), cost=10, dtypes="int")
add_op("POW", arity=2, doc="x ** y for floats", py=_lift(_pow), npf=_quiet(lambda x, y: np.power(x, y)), domain=(0.2, 3), cost=40, dtypes="float",
       grad=lambda n, g: (g * n.src[1] * n.src[0].pow(n.src[1] - 1), n.src[0].eq(0).where(g * 0, g * n * n.src[0].log())))
add_op("MAX", arity=2, doc="the larger; NaN if one is", commutes=True, py=_max, npf=lambda x, y: np.maximum(x, y), grad=_ties)
add_op("MIN", arity=2, doc="the smaller; NaN if one is", commutes=True, py=_min, npf=lambda x, y: np.minimum(x, y), grad=_ties)
for _name, _text, _py, _npf, _doc in (
    ("CMPLT", "<", lambda x, y: x < y, lambda x, y: np.less(x, y), "x < y"), ("CMPLE", "<=", lambda x, y: x <= y, lambda x, y: np.less_equal(x, y), "x <= y"),
    ("CMPEQ", "==", lambda x, y: x == y, lambda x, y: np.equal(x, y), "x == y"),
    ("CMPNE", "!=", lambda x, y: x != y, lambda x, y: np.not_equal(x, y), "x != y"),
): add_op(_name, arity=2, doc=_doc, text=_text, py=_py, npf=_npf, out="bool", commutes=_name in ("CMPEQ", "CMPNE"), grad=lambda n, g: (None, None))
add_op("AND", arity=2, doc="bitwise and", text="&", commutes=True, unit=-1, zero=0, py=lambda x, y: x & y, npf=lambda x, y: np.bitwise_and(x, y),
       grad=lambda n, g: (None, None), dtypes="int bool")
add_op("OR", arity=2, doc="bitwise or", text="|", commutes=True, unit=0, zero=-1, py=lambda x, y: x | y, npf=lambda x, y: np.bitwise_or(x, y),
       grad=lambda n, g: (None, None), dtypes="int bool")
add_op("XOR", arity=2, doc="bitwise exclusive or", text="^", commutes=True, unit=0, py=lambda x, y: x ^ y, npf=lambda x, y: np.bitwise_xor(x, y),
       grad=lambda n, g: (None, None), dtypes="int bool")
add_op("SHL", arity=2, doc="x << y, 0 <= y < bits", text="<<", py=lambda x, y: x << y, npf=lambda x, y: np.left_shift(x, y),
       grad=lambda n, g: (None, None), domain=(0, 7), dtypes="int")
add_op("SHR", arity=2, doc="x >> y, 0 <= y < bits; keeps the sign", text=">>", py=lambda x, y: x >> y, npf=lambda x, y: np.right_shift(x, y),
       grad=lambda n, g: (None, None), domain=(0, 7), dtypes="int")
add_op("PAIRMUL", arity=2, doc="the lower halves' product plus the upper halves', signed", cost=1, dtypes="int32",
       py=lambda x, y: ((x & 0xFFFF ^ 0x8000) - 0x8000) * ((y & 0xFFFF ^ 0x8000) - 0x8000) + (x >> 16) * (y >> 16),
       npf=lambda x, y: (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16), grad=lambda n, g: (None, None), commutes=True,
       decomp=lambda n: (n.src[0] << 16 >> 16) * (n.src[1] << 16 >> 16) + (n.src[0] >> 16) * (n.src[1] >> 16))
add_op("THREEFRY", arity=2, doc="random bits: uint64 counter, uint64 key", py=_threefry, npf=_threefry_np, grad=lambda n, g: (None, None),
       cost=60, dtypes="uint64")
add_op("WHERE", arity=3, doc="y where x, else z", py=lambda x, y, z: y if x else z, npf=lambda x, y, z: np.where(x, y, z),
       grad=lambda n, g: (None, n.src[0].where(g, g * 0), n.src[0].where(g * 0, g)))
add_op("MULACC", arity=3, doc="x * y + z, rounded once where the device can", py=lambda x, y, z: x * y + z,
       npf=_quiet(lambda x, y, z: (x * y + z).astype(x.dtype)))
