"""The polynomials of passes/transcend.py, made again: `python tools/polynomials.py [NAME]` prints every table, or one.

source:  weighted least squares over Chebyshev nodes, which is within a small factor of the best approximation (N. Trefethen,
         Approximation theory and approximation practice, chapter 16), sharpened towards it by Lawson's reweighting (C. Lawson, 1961);
         coefficients are rounded one after the other to the type they are kept in and the rest is fitted again (as in N. Brisebarre,
         J.-M. Muller, A. Tisserand, Computing machine-efficient polynomial approximations, TOMS 2006). Needs mpmath.
"""
from __future__ import annotations

import struct
import sys
from collections.abc import Callable

import mpmath as mp

mp.mp.prec = 240
Function = Callable[[mp.mpf], mp.mpf]
LAWSON_STEPS = 6


def best_fit(values: list, count: int, xs: list, weights: list) -> list:
    """Coefficients c of a polynomial of `count` terms for which max over xs of weight * |value - p(x)| is about least."""
    lawson = [mp.mpf(1)] * len(xs)
    for _ in range(LAWSON_STEPS if count <= 8 else 1):
        squares = [w * w * m for w, m in zip(weights, lawson)]
        moments = []
        while len(moments) < 2 * count - 1:
            moments.append(mp.fsum(squares))
            squares = [s * x for s, x in zip(squares, xs)]
        squares = [w * w * m * v for w, m, v in zip(weights, lawson, values)]
        right = []
        while len(right) < count:
            right.append(mp.fsum(squares))
            squares = [s * x for s, x in zip(squares, xs)]
        coefs = mp.lu_solve(mp.matrix([moments[i:i + count] for i in range(count)]), mp.matrix(right))
        errors = [abs(v - mp.polyval(list(coefs)[::-1], x)) * w for v, x, w in zip(values, xs, weights)]
        lawson = [m * e for m, e in zip(lawson, errors)]
        total = mp.fsum(lawson)
        lawson = [m / total + mp.mpf(2) ** -40 for m in lawson]
    return list(coefs)


def fit(f: Function, count: int, lo: float, hi: float, weight: Function, kind: str, points: int = 160
        ) -> tuple[list[float], float]:
    """Coefficients rounded to float32 ("f") or float64 ("d"), and the weighted error left, in units of 2**-24 or 2**-53."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    xs = [lo + (hi - lo) * (1 - mp.cos(mp.pi * (i + mp.mpf("0.5")) / points)) / 2 for i in range(points)]
    values, weights = [f(x) for x in xs], [weight(x) for x in xs]
    rounded: list[float] = []
    for k in range(count):
        coefs = best_fit(values, count - k, xs, weights)
        rounded.append(struct.unpack(kind, struct.pack(kind, float(coefs[0])))[0])
        values = [(v - mp.mpf(rounded[-1])) / x for v, x in zip(values, xs)]  # what is left is x times a polynomial:
        weights = [w * abs(x) for w, x in zip(weights, xs)]                   # no weight is lost near 0
    worst = max(abs(v * w) for v, w in zip(values, weights))
    return rounded, float(worst * 2 ** (24 if kind == "f" else 53))


def series(x: mp.mpf, term: Callable[[int], mp.mpf]) -> mp.mpf:
    """sum of term(k) * x**k: for functions whose closed form cancels near 0."""
    return mp.fsum(term(k) * x ** k for k in range(60))


def one(x: mp.mpf) -> mp.mpf: return mp.mpf(1)


HALF_LN2, QUARTER_PI, ROOT_HALF = mp.log(2) / 2 * mp.mpf("1.001"), mp.pi / 4 * mp.mpf("1.006"), mp.sqrt(mp.mpf("0.5"))
TANH_SPLIT, ERF_SPLIT = mp.mpf("0.5625"), mp.mpf("0.9375")


def log_tail(f: mp.mpf) -> mp.mpf:
    return series(f, lambda k: (-1) ** k / mp.mpf(k + 3)) if abs(f) < 0.1 else (mp.log1p(f) - f + f * f / 2) / f ** 3
def log2_series(z: mp.mpf) -> mp.mpf: return series(z, lambda k: 2 / mp.log(2) / (2 * k + 5))
def sin_tail(z: mp.mpf) -> mp.mpf: return series(z, lambda k: (-1) ** (k + 1) / mp.factorial(2 * k + 3))
def cos_tail(z: mp.mpf) -> mp.mpf: return series(z, lambda k: (-1) ** k / mp.factorial(2 * k + 4))
def tanh_tail(z: mp.mpf) -> mp.mpf:
    x = mp.sqrt(z)
    return (mp.tanh(x) - x) / x ** 3 if x > 1e-8 else mp.mpf(-1) / 3
def erf_tail(z: mp.mpf) -> mp.mpf: return series(z, lambda k: 2 / mp.sqrt(mp.pi) * (-1) ** k / (mp.factorial(k) * (2 * k + 1))) - 1


TABLES = {  # name: (function, terms for float32, terms for float64, from, to, weight)
    "EXP": (mp.exp, 7, 12, -HALF_LN2, HALF_LN2, lambda x: 1 / mp.exp(x)),
    "EXP2": (lambda x: mp.mpf(2) ** x, 7, 12, -0.5, 0.5, lambda x: mp.mpf(2) ** -x),
    "LOG": (log_tail, 8, 19, ROOT_HALF - 1, 2 * ROOT_HALF - 1, lambda f: abs(f ** 3 / mp.log1p(f))),
    "LOG2_PAIR": (log2_series, 3, 8, 0, mp.mpf("0.02944"), one),
    "SIN": (sin_tail, 3, 6, 0, QUARTER_PI ** 2, lambda z: z),
    "COS": (cos_tail, 3, 6, 0, QUARTER_PI ** 2, lambda z: z * z / mp.cos(mp.sqrt(z))),
    "TANH": (tanh_tail, 5, 12, 0, TANH_SPLIT ** 2, lambda z: z),
    "ERFC": (lambda x: mp.log(mp.erfc(x), 2), 7, 18, ERF_SPLIT, 6, lambda x: mp.erfc(x) * mp.log(2)),
    "ERF": (erf_tail, 6, 13, 0, ERF_SPLIT ** 2, one),
}

if __name__ == "__main__":
    for name, (f, single, double, lo, hi, weight) in TABLES.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]: continue
        for kind, count in (("f", single), ("d", double)):
            far = 4 if name == "ERFC" and kind == "f" else hi
            coefs, error = fit(f, count, lo, far, weight, kind)
            digits = 9 if kind == "f" else 17
            print(f"{name}: ({', '.join(f'{c:.{digits}g}' for c in coefs)}),  # error {error:.3f}")
