"""Functions of analysis: values as SciPy has them, gradients as torch has them."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.uop.errors import DTypeError, UsageError

ODD = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0]

VALUES = [  # ours, SciPy's or NumPy's, from, to, and at these points too
    ("lgamma", lambda x: x.lgamma(), scipy.special.gammaln, -4.7, 30, [1.0, 2.0, 0.0, -3.0, 1e4, math.inf]),
    ("digamma", lambda x: x.digamma(), scipy.special.digamma, -3.3, 20, [1.0, 1e5]),
    ("polygamma", lambda x: x.polygamma(2), lambda x: scipy.special.polygamma(2, x), 0.3, 20, [1.0]),
    ("erfc", lambda x: x.erfc(), scipy.special.erfc, -4, 9, [0.0, math.inf, -math.inf]),
    ("erfinv", lambda x: x.erfinv(), scipy.special.erfinv, -0.99, 0.99, [0.0, 1.0, -1.0, 0.999, 2.0]),
    ("i0", lambda x: x.i0(), scipy.special.i0, -30, 30, [0.0, 12.0]),
    ("sinc", lambda x: x.sinc(), np.sinc, -3, 3, [0.0, 1e-3]),
    ("logit", lambda x: x.logit(), scipy.special.logit, 0.01, 0.99, [0.0, 1.0]),
    ("cbrt", lambda x: x.cbrt(), np.cbrt, -9, 9, [0.0]),
    ("deg2rad", lambda x: x.deg2rad(), np.deg2rad, -400, 400, []),
    ("rad2deg", lambda x: x.rad2deg(), np.rad2deg, -7, 7, []),
    ("nan_to_num", lambda x: x.nan_to_num(3.0, neginf=-7.0), lambda x: np.nan_to_num(x, nan=3.0, neginf=-7.0), -1, 1, ODD),
    ("signbit", lambda x: x.signbit(), np.signbit, -1, 1, ODD[:4]),
    ("isneginf", lambda x: x.isneginf(), np.isneginf, -1, 1, ODD),
    ("modf", lambda x: x.modf(), np.modf, -5, 5, ODD),
    ("frexp", lambda x: x.frexp(), np.frexp, -50, 50, [1e-40, 1e30, *ODD]),
    ("heaviside", lambda x: x.heaviside(0.5), lambda x: np.heaviside(x, np.asarray(0.5, x.dtype)), -1, 1, ODD),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name,f,g,lo,hi,more", VALUES, ids=[row[0] for row in VALUES])
def test_function(name, f, g, lo, hi, more, dtype):
    x = np.concatenate([np.linspace(lo, hi, 37), more]).astype(dtype)
    with np.errstate(all="ignore"):
        exact = g(x.astype("float64")) if name not in ("frexp", "nan_to_num") else g(x)
    rtol = 3e-6 if dtype == "float32" else 1e-12
    gives(f(Tensor(x)), exact, rtol, 2e-6 if dtype == "float32" else 1e-12)


PAIRS = [  # ours, NumPy's, whether ints
    ("atan2", lambda x, y: x.atan2(y), np.arctan2, False),
    ("hypot", lambda x, y: x.hypot(y), np.hypot, False),
    ("xlogy", lambda x, y: x.xlogy(y.abs()), lambda x, y: scipy.special.xlogy(x, np.abs(y)), False),
    ("fmax", lambda x, y: x.fmax(y), np.fmax, False),
    ("fmin", lambda x, y: x.fmin(y), np.fmin, False),
    ("nextafter", lambda x, y: x.nextafter(y), np.nextafter, False),
    ("remainder", lambda x, y: x.remainder(y), np.remainder, True),
    ("divmod", lambda x, y: x.divmod(y), np.divmod, True),
    ("gcd", lambda x, y: x.gcd(y), np.gcd, True),
    ("lcm", lambda x, y: x.lcm(y), np.lcm, True),
]


@pytest.mark.parametrize("f,g,ints", [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS])
def test_function_of_two(f, g, ints):
    if ints:
        x, y = (data(40, lo=-60, hi=60, seed=s, dtype="int32") for s in (1, 2))
        y[y == 0] = 7
    else:
        x, y = (np.concatenate([data(30, seed=s), np.tile(ODD, 7) if s == 1 else np.repeat(ODD, 7)]).astype("float32") for s in (1, 2))
    with np.errstate(all="ignore"):
        gives(f(Tensor(x), Tensor(y)), g(x, y), 1e-6)


SLOPES = [
    ("lgamma", lambda x: x.lgamma(), torch.lgamma, 0.2, 12),
    ("digamma", lambda x: x.digamma(), torch.digamma, 0.2, 12),
    ("erfc", lambda x: x.erfc(), torch.erfc, -2, 3),
    ("erfinv", lambda x: x.erfinv(), torch.erfinv, -0.9, 0.9),
    ("i0", lambda x: x.i0(), torch.special.i0, 0.5, 14),
    ("sinc", lambda x: x.sinc(), torch.sinc, -2, 2),
    ("logit", lambda x: x.logit(), torch.logit, 0.1, 0.9),
    ("atan2", lambda x: x.atan2(x * x + 1), lambda x: x.atan2(x * x + 1), -3, 3),
    ("atan2 left", lambda x: (x - 5).atan2(x - 4), lambda x: (x - 5).atan2(x - 4), -3, 3),
    ("hypot", lambda x: x.hypot(x + 1), lambda x: x.hypot(x + 1), 0.5, 3),
    ("xlogy", lambda x: x.xlogy(x), lambda x: x.xlogy(x), 0.5, 3),
    ("glu", lambda x: x.glu(0), lambda x: torch.nn.functional.glu(x, 0), -2, 2),
    ("softshrink", lambda x: x.softshrink(), torch.nn.functional.softshrink, -2, 2),
    ("hardshrink", lambda x: x.hardshrink(), torch.nn.functional.hardshrink, -2, 2),
    ("tanhshrink", lambda x: x.tanhshrink(), torch.nn.functional.tanhshrink, -2, 2),
    ("threshold", lambda x: x.threshold(0.3, 7.0), lambda x: torch.nn.functional.threshold(x, 0.3, 7.0), -2, 2),
]


@pytest.mark.parametrize("f,g,lo,hi", [row[1:] for row in SLOPES], ids=[row[0] for row in SLOPES])
def test_slope(f, g, lo, hi):
    slopes(f, g, np.linspace(lo, hi, 24), rtol=1e-8, atol=1e-10, twice=True)


def test_activations():
    x, w = data(2, 3, 4), data(3, seed=2)
    gives(Tensor(x).prelu(Tensor(w)), torch.nn.functional.prelu(torch.tensor(x), torch.tensor(w)))
    gives(Tensor(x).rrelu(), torch.nn.functional.rrelu(torch.tensor(x)))
    gives(Tensor(x).glu(), torch.nn.functional.glu(torch.tensor(x)))
    gives(Tensor(x).mvlgamma(2) if (x > 1).all() else Tensor(abs(x) + 1).mvlgamma(2), torch.mvlgamma(torch.tensor(abs(x) + 1), 2), 1e-4)
    with Tensor.train():
        sloped = Tensor(x).rrelu().numpy()
    share = sloped[x < 0] / x[x < 0]
    assert (share >= 1 / 8 - 1e-6).all() and (share <= 1 / 3).all()
    soft = Tensor(x).gumbel_softmax(0.7, dim=1)
    np.testing.assert_allclose(soft.sum(1).numpy(), np.ones((2, 4)), rtol=1e-5)
    hard = Tensor(x).gumbel_softmax(hard=True)
    assert set(np.unique(hard.numpy())) == {0, 1} and (hard.sum(-1).numpy() == 1).all()


def test_mistakes():
    with pytest.raises(DTypeError, match="only ints have divisors"):
        Tensor([1.0]).gcd(2)
    with pytest.raises(DTypeError, match="floats have exponents"):
        Tensor([1]).frexp()
    with pytest.raises(UsageError):
        Tensor([1.0]).polygamma(-1)
    assert Tensor([2, 3]).float_power(0.5).dtype.name == "float64"
    assert Tensor([2, 3]).ldexp(2).tolist() == [8, 12]
    assert Tensor([1.0]).addcmul(Tensor([2.0]), Tensor([3.0]), 0.5).tolist() == [4]
    assert Tensor([1.0]).addcdiv(Tensor([3.0]), Tensor([2.0])).tolist() == [2.5]
