"""Winograd: a convolution of small windows becomes products of transformed tiles, with a half to a quarter of the multiplications.

in:      TENSOR form
out:     TENSOR form, with TABLEs of the transforms' coefficients
source:  A. Lavin & S. Gray, Fast algorithms for convolutional neural networks (CVPR 2016); the transforms by Toom's and Cook's
         interpolation (S. Winograd, Arithmetic complexity of computations, 1980), the points of B. Barabasz et al. (ACM TOMS 2020)

Outputs are made `m` at a time along each axis of windows of `r` places, from POINTS = m + r - 1 elements. These and the weights are seen as
polynomials and evaluated at POINTS places, where a convolution is a product. So a sum over channels is a matrix product at each place, and
what it gives is interpolated. A square of 4 outputs of a 3x3 window takes 36 multiplications instead of 144. The result's error
is one to four times that of the plain sum, in float32 a few 1e-6 of the largest value; an infinity spoils the tiles that it is in.
"""
from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple

from glassgrad.passes.fuse import stored_under
from glassgrad.passes.linearize import affine
from glassgrad.passes.views import TRUE, ZERO, Axes, move
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, UnfoldArg
from glassgrad.uop.uop import UOp

FINITE = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))      # and infinity: half the error of 0, 1, -1, 2, -2
POINTS = len(FINITE) + 1
VIEWS = (Ops.RESHAPE, Ops.EXPAND, Ops.PERMUTE, Ops.UNFOLD)
PRODUCT, PLAIN = 0.75, 0.65         # of a core's peak: what batched products reach, and what a plain convolution does
MOVED = 3.5                         # cycles in which an element is transformed, stored and read
GAIN = 0.8                          # of the plain time: above, the model's error decides


class Operand(NamedTuple):
    """A factor of the products, and the loop (or the window and the place in it) that each of its axes follows."""
    base: UOp
    follows: tuple[tuple[UOp, ...], ...]


class Conv(NamedTuple):
    """A sum of products over windows: `pairs` of a window's axis and the places in it; the other loops by the operands they belong to:
    groups in both and the result, channels in both and summed, rows in the image and outs in the weights."""
    image: Operand
    weight: Operand
    pairs: tuple[tuple[UOp, UOp], ...]
    groups: tuple[UOp, ...]
    channels: tuple[UOp, ...]
    rows: tuple[UOp, ...]
    outs: tuple[UOp, ...]


def small_convolutions(sink: UOp, target: Target) -> UOp:
    """Rewrite the convolutions in float32 for which the model says that it pays."""
    order = sink.toposort()
    if target.lanes == 1 or not target.wino or not any(n.op is Ops.UNFOLD for n in order): return sink
    memo: dict[UOp, UOp] = {}
    for n in order:
        src = tuple([memo[s] for s in n.src])
        new = n if src == n.src else n.replace(src=src)
        if n.op is Ops.REDUCE and n.arg.op is Ops.ADD and n.dtype is dtypes.float32 and new.src[0].op is Ops.MUL:
            axes = Axes({})
            idx = tuple([axes.new(m) for m in n.src[0].shape])
            conv = match(new, idx)
            if conv is not None and pays(conv, target): new = transformed(new, idx, conv)
        memo[n] = new
    return memo[sink]


def length(r: UOp) -> int: return r.src[0].arg
def lengths(loops: tuple[UOp, ...]) -> int: return math.prod(map(length, loops))
def outputs(r: UOp) -> int:
    """How many outputs a tile gives along windows of the places `r`."""
    return POINTS - length(r) + 1


def match(n: UOp, idx: tuple[UOp, ...]) -> Conv | None:
    """The convolution that a sum over `n.arg.axes` at `idx` is, if it is one."""
    if not any(map(_slides, n.src[0].src)): return None
    one, two = (_operand(s, idx) for s in n.src[0].src)
    if one is None or two is None: return None
    image, weight = (one, two) if any(len(f) == 2 for f in one.follows) else (two, one)
    summed = {idx[a] for a in n.arg.axes}
    pairs = tuple((a, b) if b in summed else (b, a) for a, b in (f for f in image.follows if len(f) == 2))
    if not pairs or any(len(f) == 2 for f in weight.follows): return None
    mine, theirs = ({f[0] for f in x.follows if len(f) == 1} for x in (image, weight))
    places, windows = {k for _, k in pairs}, {i for i, _ in pairs}
    if not places <= theirs & summed or windows & (theirs | summed) or mine & (places | windows): return None
    if any(not 2 < length(k) < POINTS or length(i) < 2 for i, k in pairs): return None
    loops = [r for r in idx if r is not ZERO and r not in windows | places]
    both = mine & theirs
    if any(r in summed and r not in both or r not in mine | theirs for r in loops): return None
    if any(len(set(f)) != len(f) for f in ([r for axis in x.follows for r in axis] for x in (image, weight))): return None
    kinds = both - summed, both & summed, mine - theirs, theirs - mine
    return Conv(image, weight, pairs, *(tuple(r for r in loops if r in which) for which in kinds))


def _slides(x: UOp) -> bool:
    """Whether a factor is a view of windows."""
    while x.op in VIEWS and x.op is not Ops.UNFOLD: x = x.src[0]
    return x.op is Ops.UNFOLD


def _operand(x: UOp, idx: tuple[UOp, ...]) -> Operand | None:
    """What a factor of the products is a view of; None if its axes follow the loops in another way."""
    while x.op in VIEWS: x, idx = x.src[0], move(x, idx, TRUE)[0]
    follows: list[tuple[UOp, ...]] = []
    for i, m in zip(idx, x.shape):
        terms, const = affine(i)
        for c in sorted(set(terms.values()), reverse=True):
            loops = tuple(t for t in terms if terms[t] == c)
            if len(loops) > 2 or any(t.op is not Ops.RANGE for t in loops) or sum(map(length, loops)) - len(loops) + 1 != m // c:
                return None
            follows.append(loops)
            m = c
        if const or m != 1: return None
    return Operand(x.reshape(tuple(sum(map(length, f)) - len(f) + 1 for f in follows)), tuple(follows))


def pays(c: Conv, target: Target) -> bool:
    """Whether the transforms' way through memory costs less than the multiplications they save."""
    tiles = math.prod(-(-length(i) // outputs(k)) for i, k in c.pairs) * lengths(c.rows)
    points = POINTS ** len(c.pairs)
    groups, channels, outs = lengths(c.groups), lengths(c.channels), lengths(c.outs)
    plain = groups * channels * outs * lengths(c.rows) * math.prod(length(i) * length(k) for i, k in c.pairs)
    products = groups * points * channels * outs * tiles
    moved = groups * points * (channels * tiles + channels * outs + outs * tiles)
    return products / (2 * target.lanes * PRODUCT) + MOVED * moved < GAIN * plain / (2 * target.lanes * PLAIN)


@functools.cache
def transforms(r: int) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """(of the image, of the weights, of the result) for windows of `r` places, as matrices by rows."""
    m = POINTS - r + 1
    image: list[tuple[Fraction, ...]] = []
    weight: list[tuple[Fraction, ...]] = []
    for p in FINITE:
        others = [q for q in FINITE if q != p]
        image.append((*_polynomial(others), Fraction(0)))
        weight.append(tuple(p ** j / math.prod(p - q for q in others) for j in range(r)))
    image.append(_polynomial(list(FINITE)))
    weight.append((*[Fraction(0)] * (r - 1), Fraction(1)))
    result = [(*(p ** i for p in FINITE), Fraction(i == m - 1)) for i in range(m)]
    return tuple(tuple(tuple(float(x) for x in row) for row in rows) for rows in (image, weight, result))


def _polynomial(roots: list[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of (x - root), the constant first."""
    made = [Fraction(1)]
    for root in roots: made = [a - root * b for a, b in zip([Fraction(0), *made], [*made, Fraction(0)])]
    return tuple(made)


def transformed(n: UOp, idx: tuple[UOp, ...], c: Conv) -> UOp:
    """The sum `n` at `idx` by products at the places of evaluation."""
    d = len(c.pairs)
    windows, places = (tuple(p[s] for p in c.pairs) for s in (0, 1))
    made = [transforms(length(k)) for k in places]
    steps = [outputs(k) for k in places]
    tiles = [-(-length(i) // m) for i, m in zip(windows, steps)]

    # one axis after another, as a kernel for each stays small
    loops = [f[0] if len(f) == 1 else next(i for i in f if i in windows) for f in c.image.follows]
    order = (*c.groups, *c.rows, *windows, *c.channels)
    image, pads = _without_pads(c.image.base)
    x = _ordered(image, loops, order)
    if stored_under(image) is None or loops[-1] is not order[-1]:
        x = _stored(x, "each element is in several tiles, whose vectors are channels")
    x = x.pad(tuple(pads[loops.index(r)] for r in order))
    for s in range(d):
        a = x.ndim - len(c.channels) - d + s
        need = (tiles[s] - 1) * steps[s] + POINTS
        x = x.shrink(tuple((0, min(m, need) if b == a else m) for b, m in enumerate(x.shape)))
        x = x.pad(tuple((0, need - m if b == a else 0) for b, m in enumerate(x.shape)))
        x = UOp(Ops.UNFOLD, x.dtype, (x,), UnfoldArg(a, POINTS, steps[s], 1, need))
        x = _stored(_transform(x, made[s][0]), "a tile of the image is transformed once for all outputs")
    w = _ordered(c.weight.base, [f[0] for f in c.weight.follows], (*c.groups, *c.channels, *c.outs, *reversed(places)))
    for s in range(d): w = _stored(_transform(w, made[s][1]), "the weights are transformed once for all tiles")

    # channels stand innermost, as they fill vectors; places of evaluation and groups are a batch of matrix products
    groups, channels, outs = lengths(c.groups), lengths(c.channels), lengths(c.outs)
    x = x.reshape((POINTS ** d, groups, lengths(c.rows) * math.prod(tiles), channels, 1))
    w = w.reshape((POINTS ** d, groups, 1, channels, outs))
    grid = tuple(max(m, k) for m, k in zip(x.shape, w.shape))
    y = _stored((x.expand(grid) * w.expand(grid)).reduce(Ops.ADD, (3,)), "each of its sums is a term of several outputs")
    # outputs stand by tiles: each tile's go behind it, so that channels stay innermost in what is stored
    place = (*c.groups, *c.rows, *windows, *c.outs)
    y = y.reshape((*(POINTS,) * d, *(tiles[windows.index(r)] if r in windows else length(r) for r in place)))
    for s in range(d):
        if s: y = _stored(y, "an axis of its tiles is transformed once for all places of the others")
        a = d - 1 - s
        y = _transform(y.permute((*(b for b in range(y.ndim) if b != a), a)), made[s][2], a + len(c.groups) + len(c.rows) + 2 * s + 1)
    whole = {i: t * m for i, t, m in zip(windows, tiles, steps)}
    y = y.reshape(tuple(whole.get(r, length(r)) for r in place))
    if any(length(i) != m for i, m in whole.items()):
        y = _stored(y, "its last tiles are cut").shrink(tuple((0, length(r)) for r in place))
    y = _ordered(y, place, [r for a, r in enumerate(idx) if a not in n.arg.axes and r is not ZERO]).reshape(n.shape)
    for new in y.toposort(stop=lambda s: s is image or s is c.weight.base): new.site = new.site or n.site
    return y


def _stored(x: UOp, why: str) -> UOp: return UOp(Ops.CONTIGUOUS, x.dtype, (x,), why)


def _without_pads(x: UOp) -> tuple[UOp, tuple[tuple[int, int], ...]]:
    """What is padded in a view that leaves out axes of one place, and how far."""
    p = x.src[0] if x.op is Ops.RESHAPE else x
    kept = [a for a, m in enumerate(p.shape) if m > 1]
    if p.op is not Ops.PAD or tuple(p.shape[a] for a in kept) != x.shape: return x, ((0, 0),) * x.ndim
    return p.src[0].reshape(tuple(p.src[0].shape[a] for a in kept)), tuple(p.arg[a] for a in kept)


def _ordered(x: UOp, loops: list[UOp], order: tuple[UOp, ...]) -> UOp:
    """`x`, whose axes follow `loops`, with those of `order`."""
    return x.permute(tuple(loops.index(r) for r in order))


def _transform(x: UOp, rows: tuple[tuple[float, ...], ...], at: int = 0) -> UOp:
    """The last axis multiplied by a matrix; what it gives is axis `at`."""
    ones = (1,) * (x.ndim - 1)
    table = UOp(Ops.TABLE, x.dtype, (), tuple(v for row in rows for v in row)).reshape((*ones[:at], len(rows), *ones[at:], len(rows[0])))
    shape = (*x.shape[:at], len(rows), *x.shape[at:])
    return (x.reshape((*x.shape[:at], 1, *x.shape[at:])).expand(shape) * table.expand(shape)).reduce(Ops.ADD, (x.ndim,))
