"""Values of a graph of arithmetic, in NumPy: what the tests of the lowering passes judge with."""
import numpy as np

from glassgrad.device.interp import alu_meaning
from glassgrad.uop.bits import value_name
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import toposort


def fused(x, y, z):
    """x * y + z with one rounding (float32), or with an error far below one (float64: products and sums without error)."""
    if x.dtype == np.float32: return (x.astype("f8") * y + z).astype("f4")
    if x.dtype != np.float64: return x * y + z
    split = lambda v: (lambda c: (c - (c - v), v - (c - (c - v))))(v * 134217729.0)
    p = x * y
    (xh, xl), (yh, yl) = split(x), split(y)
    rest = xl * yl - (((p - xh * yh) - xl * yh) - xh * yl)
    s = p + z
    b = s - p
    lost = (p - (s - b)) + (z - b)
    return np.where(np.isfinite(rest), s + (lost + rest), s)


def evaluate(root, known, fma=False):
    """The array `root` stands for; `known` gives the leaves' arrays."""
    values = dict(known)
    with np.errstate(all="ignore"):
        for n in toposort([root], stop=lambda n: n in values):
            if n in values: continue
            if n.op is Ops.CONST: values[n] = np.full((1,) if n.dtype.lanes == 1 else (1, n.dtype.lanes), n.arg, value_name(n.dtype))
            elif n.op is Ops.MULACC and fma: values[n] = fused(*[values[s] for s in n.src])
            else: values[n] = alu_meaning(n)(*[values[s] for s in n.src])
    return values[root]


def ulp_error(got, want):
    """Distance in units of the last place of `got`'s type; `want` has more digits. Wrong NaNs, infinities and zeros count as infinite."""
    kind = np.finfo(got.dtype)
    exact = want.astype(got.dtype)
    _, exponent = np.frexp(np.where(np.isfinite(want), want, 1))
    unit = np.ldexp(np.ones_like(want), np.maximum(exponent - 1, kind.minexp) - kind.nmant)
    with np.errstate(all="ignore"): error = np.abs(got.astype(want.dtype) - want) / unit
    special = ~np.isfinite(exact) | ~np.isfinite(got)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    most = float(kind.max) * (1 - 4 * float(kind.epsneg))
    top = np.isinf(got) & (np.abs(want) > most) | np.isinf(exact) & (np.abs(got) > most)   # one step from the largest number to infinity
    return np.where(special, np.where(same, 0, np.where(top, 1, np.inf)), error)
