"""Windows: a FOLD of products becomes a sum of products of windows, so that a convolution's gradient is a convolution.

in:      TENSOR form
out:     TENSOR form in which few overlapping FOLDs are left
source:  the adjoint of a convolution (Dumoulin & Visin, arXiv:1603.07285); strides by phases (Crochiere & Rabiner 1983), no zeros inserted

A FOLD sums element (i - k*dilation) / stride of its source over the places k of the window, under a gate. That index is taken down to the
operands: one that does not depend on k is padded and gets windows, one that depends on k alone is flipped, and where both meet in an
UNFOLD by the same windows, its source is read at i itself. A stride s makes s phases: i = q*s + r has the places k = j*s + r.
"""
from __future__ import annotations

import math
from typing import NamedTuple

from glassgrad.passes.algebra import uniform
from glassgrad.passes.views import is_disjoint
from glassgrad.target.target import Target
from glassgrad.uop.dtype import sum_dtype
from glassgrad.uop.ops import Ops, UnfoldArg
from glassgrad.uop.uop import UOp

DEEPEST = 64   # nodes between a FOLD and its operands


class Window(NamedTuple):
    """A FOLD of `m` windows, elements and places counted from `-shift`: first*stride to last*stride are wanted."""
    arg: UnfoldArg; m: int; shift: int; first: int; last: int
    @property
    def taps(self) -> int: return -(-(self.arg.size + self.shift) // self.arg.stride)    # places that each phase sums
    @property
    def spare(self) -> int: return self.taps * self.arg.stride - self.shift - self.arg.size
    @property
    def count(self) -> int: return self.last - self.first


class At(NamedTuple):
    """Which axes of a node count a FOLD's windows and the places in them."""
    a: int; k: int


def _window(arg: UnfoldArg, m: int, start: int, end: int) -> Window:
    ways = [Window(arg, m, shift, (start + shift) // arg.stride, -(-(end + shift) // arg.stride)) for shift in (0, -start % arg.stride)]
    return min(ways, key=lambda w: w.count * w.taps)


Ats = tuple[At, ...]
Sheared = tuple[UOp, frozenset[int]]   # a node, and what it is 0 outside of: i for the elements of window i, ~i for its places


def fold_to_windows(sink: UOp, target: Target) -> UOp:
    """Rewrite the FOLDs whose operands allow it; the others stay what they are, sums under gates."""
    order = sink.toposort()
    overlaps = {n for n in order if n.op is Ops.FOLD and not is_disjoint(n) and not _is_single(n)}
    inner = {n.src[0] for n in order if n in overlaps or n.op is Ops.SHRINK and n.src[0] in overlaps}
    memo: dict[UOp, UOp] = {}
    for n in order:
        src = tuple([memo[s] for s in n.src])
        new = n if src == n.src else n.replace(src=src)
        if n.op is Ops.FOLD and _is_single(n): new = new.replace(arg=n.arg._replace(stride=max(n.arg.size, n.arg.stride)))
        if n in overlaps and n not in inner or n.op is Ops.SHRINK and n.src[0] in overlaps: new = _Folds(new).windows() or new
        memo[n] = new
    return memo[sink]


def _is_single(n: UOp) -> bool:
    """Whether a FOLD has one window, whose places are its elements, so that nothing is summed."""
    return n.arg.dilation == 1 and n.src[0].shape[n.arg.axis] == 1


class _Folds:
    """FOLDs over each other, perhaps under a SHRINK, on their way to windows. A node that was taken there has its axes, counted anew, and
    behind them one more for the phases of each stride."""

    def __init__(self, n: UOp) -> None:
        self.n, self.memo = n, {}
        x = n.src[0] if n.op is Ops.SHRINK else n
        folds: list[UnfoldArg] = []
        while x.op is Ops.FOLD and not is_disjoint(x):
            folds.append(x.arg)
            x = x.src[0]
        self.x = x
        self.box = n.arg if n.op is Ops.SHRINK else tuple((0, m) for m in n.shape)
        self.ats = tuple(At(f.axis, n.ndim + i) for i, f in enumerate(folds))
        self.windows_of = tuple(_window(f, x.shape[f.axis], *self.box[f.axis]) for f in folds)
        self.phases = tuple(w.arg.stride for w in self.windows_of if w.arg.stride > 1)

    def windows(self) -> UOp | None:
        """What the FOLDs give, without them; None if an operand does not allow it."""
        n = self.n
        axes = {at.a: w for at, w in zip(self.ats, self.windows_of)}
        if len(axes) < len(self.ats) or max(axes) >= n.ndim or 0 in self.x.shape or 0 in n.shape: return None
        if any(w.m == 1 or w.arg.size == 1 or w.arg.stride > 1 < w.arg.dilation for w in axes.values()): return None
        y = self.summed()
        if y is None: return None
        # the phases, which stand last, go beside the elements they are phases of
        place = {w.arg.axis: n.ndim + p for p, w in enumerate(w for w in self.windows_of if w.arg.stride > 1)}
        beside = tuple(b for a in range(n.ndim) for b in (a, place.get(a)) if b is not None)
        y = y.reshape((*y.shape[:n.ndim], *self.phases)).permute(beside)
        y = y.reshape(tuple(w.count * w.arg.stride if (w := axes.get(a)) else m for a, m in enumerate(self.x.shape[:n.ndim])))
        starts = [w.first * w.arg.stride - w.shift if (w := axes.get(a)) else 0 for a in range(n.ndim)]
        return y.shrink(tuple((lo - at, hi - at) for at, (lo, hi) in zip(starts, self.box))).cast(n.dtype)

    def summed(self) -> UOp | None:
        """The sum over the places in the windows, which merges with a sum right below."""
        x, ats, views = self.x, self.ats, []
        while x.op in (Ops.RESHAPE, Ops.PERMUTE) or x.op is Ops.CAST and x.src[0].dtype.is_float:
            below = _below(x, ats)
            if below is None: return None
            views.append((x, ats))
            x, ats = x.src[0], below
        top, axes = ats, ()
        if x.op is Ops.REDUCE and x.arg.op is Ops.ADD: x, axes, ats = x.src[0], x.arg.axes, _below(x, ats)
        made = self.shear(x, ats, DEEPEST)
        if made is None or not all(i in made[1] for i in range(len(ats))): return None
        y = made[0]
        for i, w in enumerate(self.windows_of):
            if ~i not in made[1] and w.shift + w.spare: y = self.masked(y, i, ats[i].k)
        wide = y.cast(sum_dtype(y.dtype))
        y = wide.reduce(Ops.ADD, (*axes, *(at.k for at in ats))).reshape(self.shape(views[-1][0].src[0] if views else self.x, top, 1))
        for v, ats in reversed(views):
            if v.op is Ops.PERMUTE: y = y.permute(self.longer(v.arg))
            elif v.op is Ops.RESHAPE: y = y.reshape(self.shape(v, ats, 1))
        return y

    def shape(self, x: UOp, ats: Ats, taps: int | None = None) -> tuple[int, ...]:
        """The shape of `x` when it is taken to windows, with `taps` places in each."""
        out = list(x.shape)
        for at, w in zip(ats, self.windows_of):
            if out[at.a] != 1: out[at.a] = w.count
            if out[at.k] != 1: out[at.k] = taps or w.taps
        return (*out, *self.phases)

    def longer(self, axes: tuple[int, ...]) -> tuple[int, ...]: return (*axes, *range(len(axes), len(axes) + len(self.phases)))

    def shear(self, x: UOp, ats: Ats, depth: int) -> Sheared | None:
        """`x` read at the windows' index."""
        key = x, ats
        if key not in self.memo: self.memo[key] = self._shear(x, ats, depth) if depth else None
        return self.memo[key]

    def _shear(self, x: UOp, ats: Ats, depth: int) -> Sheared | None:
        if all(x.shape[at.a] == 1 or x.shape[at.k] == 1 for at in ats): return self.operand(x, x, ats, ())
        if x.op is Ops.UNFOLD: return self.unfolded(x, ats)
        if x.op.is_alu:
            made = [self.shear(s, ats, depth - 1) if s.shape else (s, self.nowhere(s)) for s in x.src]
            if any(m is None for m in made): return None
            zeros = [m[1] for m in made]
            if x.op is Ops.MUL: zero = zeros[0] | zeros[1]
            elif x.op is Ops.WHERE: zero = zeros[1] & zeros[2]
            elif x.op in (Ops.ADD, Ops.SUB, Ops.NEG, Ops.CAST): zero = frozenset.intersection(*zeros)
            else: zero = frozenset()
            return x.replace(src=tuple(m[0] for m in made)), zero
        below = _below(x, ats)
        made = self.shear(x.src[0], below, depth - 1) if below is not None else None
        if made is None: return None
        y, zero = made
        if x.op is Ops.EXPAND: return y.expand(self.shape(x, ats)), zero
        if x.op is Ops.RESHAPE: return y.reshape(self.shape(x, ats)), zero
        if x.op is Ops.PERMUTE: return y.permute(self.longer(x.arg)), zero
        return y.reduce(x.arg.op, x.arg.axes), zero

    def unfolded(self, x: UOp, ats: Ats) -> Sheared | None:
        """UNFOLDs by the windows themselves: the element that place k of window (i - k*dilation) / stride stands for is i."""
        base, met = x, []
        while base.op is Ops.UNFOLD:
            at = At(base.arg.axis, base.ndim - 1)
            i = ats.index(at) if at in ats else -1
            if i < 0 or base.arg != self.windows_of[i].arg._replace(axis=at.a): break
            met.append(i)
            base = base.src[0]
        rest = [at for i, at in enumerate(ats) if i not in met]
        if any(at.k >= base.ndim or base.shape[at.a] > 1 < base.shape[at.k] for at in rest): return None
        return self.operand(base, x, ats, tuple(met))

    def operand(self, base: UOp, x: UOp, ats: Ats, met: tuple[int, ...]) -> Sheared:
        """Where the index arrives: padded and unfolded, or flipped, or read as it stands if the window was `met` already."""
        y, zero = base.reshape((*base.shape, *(1,) * (x.ndim - base.ndim))), set(self.nowhere(base))
        def way_of(at: At) -> str: return "unfold" if y.shape[at.a] != 1 else "flip" if y.shape[at.k] != 1 else ""
        ways = ["read" if i in met else way_of(at) for i, at in enumerate(ats)]
        ends: dict[int, tuple[int, int]] = {}
        for way, at, w in zip(ways, ats, self.windows_of):
            if way == "read": ends[at.a] = w.shift - w.first * w.arg.stride, w.last * w.arg.stride - w.shift - y.shape[at.a]
            if way == "unfold": ends[at.a] = (w.taps - 1) * w.arg.dilation - w.first, w.last - w.m
            if way == "flip": ends[at.k] = w.shift, w.spare
        y = _resize(y, ends)
        for i, (way, at, w) in enumerate(zip(ways, ats, self.windows_of)):
            s = w.arg.stride
            if way == "unfold":
                y = UOp(Ops.UNFOLD, y.dtype, (y,), UnfoldArg(at.a, w.taps, 1, w.arg.dilation, y.shape[at.a]))
                order = list(range(y.ndim))
                order[at.k], order[-1] = order[-1], order[at.k]
                y = y.permute(tuple(order))
                zero.add(i)
                if s == 1: y = y.reshape(y.shape[:-1])
            elif s > 1:
                axis, m = (at.a, w.count) if way == "read" else (at.k, w.taps)
                y = _to_end(y.reshape((*y.shape[:axis], m, s, *y.shape[axis + 1:])), axis + 1) if way else y.reshape((*y.shape, 1))
            if way == "flip":
                y = y.flip((at.k,))
                zero.add(~i)
        shape = self.shape(x, ats)
        return y.expand(tuple(y.shape[a] if m == 1 else m for a, m in enumerate(shape))), frozenset(zero)

    def nowhere(self, x: UOp) -> frozenset[int]:
        """All windows if `x` is 0 everywhere."""
        value = uniform(x)
        return frozenset(range(-len(self.ats), len(self.ats))) if value is not None and value.arg == 0 else frozenset()

    def masked(self, y: UOp, i: int, k: int) -> UOp:
        """0 at the places that the window does not have."""
        w = self.windows_of[i]
        phase = y.ndim - len(self.phases) + sum(v.arg.stride > 1 for v in self.windows_of[:i])
        def along(a: int, m: int) -> UOp: return UOp.iota(m).reshape(tuple(m if b == a else 1 for b in range(y.ndim))).expand(y.shape)
        place = along(k, w.taps) * -w.arg.stride + (w.taps - 1) * w.arg.stride - w.shift + along(phase, w.arg.stride)
        return ((place >= 0) & (place < w.arg.size)).where(y, 0)


def _below(x: UOp, ats: Ats) -> Ats | None:
    """The same axes in the source of a view or a reduction; None if it does not have them."""
    s = x.src[0] if x.src else x
    if x.op in (Ops.CAST, Ops.EXPAND): return ats
    if x.op is Ops.PERMUTE: return tuple(At(x.arg[at.a], x.arg[at.k]) for at in ats)
    if x.op is Ops.REDUCE:
        kept = [a for a in range(s.ndim) if a not in x.arg.axes]
        return tuple(At(kept[at.a], kept[at.k]) for at in ats)
    if x.op is not Ops.RESHAPE: return None
    starts = {(math.prod(s.shape[:b]), m): b for b, m in reversed(list(enumerate(s.shape)))}
    found = [At(*(starts.get((math.prod(x.shape[:b]), x.shape[b]), -1) for b in at)) for at in ats]
    return None if any(-1 in at for at in found) or len({b for at in found for b in at}) < 2 * len(ats) else tuple(found)


def _resize(y: UOp, ends: dict[int, tuple[int, int]]) -> UOp:
    """So many zeros before and after axes; negative numbers cut."""
    pairs = [ends.get(a, (0, 0)) for a in range(y.ndim)]
    y = y.shrink(tuple((max(-lo, 0), m + min(hi, 0)) for m, (lo, hi) in zip(y.shape, pairs)))
    return y.pad(tuple((max(lo, 0), max(hi, 0)) for lo, hi in pairs))


def _to_end(y: UOp, axis: int) -> UOp: return y.permute((*(a for a in range(y.ndim) if a != axis), axis))
