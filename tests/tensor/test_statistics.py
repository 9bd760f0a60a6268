"""Order statistics, counts, sets and moments: as NumPy and torch have them."""

import numpy as np
import pytest
import torch
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

X = data(3, 8)
HOLES = X.copy()
HOLES[0, 2] = HOLES[1, 5] = np.nan
INTS = data(4, 6, lo=0, hi=5, dtype="int32")
ROW = np.sort(data(9))


def t(x):
    return torch.tensor(x)


CASES = [
    ("median", lambda: Tensor(X).median(), lambda: t(X).median()),
    ("median of an axis", lambda: Tensor(X).median(1), lambda: t(X).median(1)),
    ("median with NaN", lambda: Tensor(HOLES).median(1).values, lambda: t(HOLES).median(1).values),
    ("nanmedian", lambda: Tensor(HOLES).nanmedian(1, True), lambda: t(HOLES).nanmedian(1, True)),
    ("kthvalue", lambda: Tensor(X).kthvalue(3, 0), lambda: t(X).kthvalue(3, 0)),
    ("mode", lambda: Tensor(INTS).mode(), lambda: t(INTS).mode()),
    *[(f"quantile {way}", lambda way=way: Tensor(X).quantile([0.1, 0.5, 0.77], 1, interpolation=way),
       lambda way=way: t(X).quantile(t([0.1, 0.5, 0.77]), 1, interpolation=way))
      for way in ("linear", "lower", "higher", "nearest", "midpoint")],
    ("quantile of all", lambda: Tensor(X).quantile(0.3), lambda: t(X).quantile(0.3)),
    ("quantile keepdim", lambda: Tensor(X).quantile(0.3, 0, True), lambda: t(X).quantile(0.3, 0, True)),
    ("quantile with NaN", lambda: Tensor(HOLES).quantile(0.3, 1), lambda: t(HOLES).quantile(0.3, 1)),
    ("nanquantile", lambda: Tensor(HOLES).nanquantile([0.2, 0.9], 1), lambda: t(HOLES).nanquantile(t([0.2, 0.9]), 1)),
    ("percentile", lambda: Tensor(X).percentile(30), lambda: np.percentile(X, 30)),
    ("aminmax", lambda: Tensor(X).aminmax(1), lambda: (X.min(1), X.max(1))),
    ("ptp", lambda: Tensor(X).ptp(0), lambda: np.ptp(X, 0)),
    *[(name, lambda name=name: getattr(Tensor(HOLES), name)(1), lambda name=name: getattr(np, name)(HOLES, 1))
      for name in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin", "nanargmax", "nanargmin", "nancumsum",
                   "nancumprod")],
    ("bincount", lambda: Tensor(INTS).bincount(minlength=8), lambda: np.bincount(INTS.ravel(), minlength=8)),
    ("bincount weighted", lambda: Tensor(INTS[0]).bincount(Tensor(X[0, :6])), lambda: t(INTS[0]).bincount(t(X[0, :6]))),
    ("histogram", lambda: Tensor(X).histogram(5), lambda: np.histogram(X, 5)),
    ("histogram range", lambda: Tensor(X).histogram(4, (-1, 1), density=True), lambda: np.histogram(X, 4, (-1, 1), density=True)),
    ("histogram edges", lambda: Tensor(X).histogram([-1.0, 0.0, 0.2, 3.0]), lambda: np.histogram(X, np.array([-1, 0, 0.2, 3], "float32"))),
    ("histc", lambda: Tensor(X).histc(6, -1, 1), lambda: t(X).histc(6, -1, 1)),
    ("bucketize", lambda: Tensor(INTS).bucketize(Tensor([1, 3]), right=True), lambda: torch.bucketize(t(INTS), t([1, 3]), right=True)),
    ("digitize", lambda: Tensor(INTS).digitize(Tensor([1, 3])), lambda: np.digitize(INTS, [1, 3])),
    ("searchsorted", lambda: Tensor(ROW).searchsorted(Tensor(X)), lambda: np.searchsorted(ROW, X)),
    ("searchsorted right", lambda: Tensor([1, 2, 2, 4]).searchsorted(Tensor(INTS), "right"),
     lambda: np.searchsorted([1, 2, 2, 4], INTS, "right")),
    ("searchsorted rows", lambda: Tensor(np.sort(X)).searchsorted(Tensor(X[:, :2])),
     lambda: torch.searchsorted(t(np.sort(X)), t(X[:, :2].copy()))),
    ("isin", lambda: Tensor(INTS).isin([1, 4]), lambda: np.isin(INTS, [1, 4])),
    ("unique", lambda: Tensor(INTS).unique(True, True, True), lambda: np.unique(INTS, True, True, True)),
    ("unique floats", lambda: Tensor([2.5, -1.0, 2.5]).unique(), lambda: np.array([-1, 2.5])),
    ("unique rows", lambda: Tensor(INTS[[0, 1, 0]]).unique(False, True, True, dim=0),
     lambda: np.unique(INTS[[0, 1, 0]], False, True, True, axis=0)),
    ("unique_consecutive", lambda: Tensor(np.sort(INTS, None) % 4).unique_consecutive(True, True),
     lambda: t(np.sort(INTS, None) % 4).unique_consecutive(True, True)),
    ("union1d", lambda: Tensor([1, 5]).union1d(Tensor([5, 2])), lambda: [1, 2, 5]),
    ("intersect1d", lambda: Tensor([1, 5, 5]).intersect1d(Tensor([5, 2])), lambda: np.array([5])),
    ("setdiff1d", lambda: Tensor([1, 5, 5]).setdiff1d(Tensor([5, 2])), lambda: np.array([1])),
    ("setxor1d", lambda: Tensor([1, 5, 5]).setxor1d(Tensor([5, 2])), lambda: np.array([1, 2])),
    ("average", lambda: Tensor(X).average(1, Tensor(ROW[:8])), lambda: np.average(X, 1, ROW[:8])),
    ("cov", lambda: Tensor(X).cov(), lambda: t(X).cov()),
    ("cov weighted", lambda: Tensor(X).cov(0, Tensor([1, 2, 1, 1, 3, 1, 1, 1]), Tensor(abs(ROW[:8]))),
     lambda: t(X).cov(correction=0, fweights=t([1, 2, 1, 1, 3, 1, 1, 1]), aweights=t(abs(ROW[:8])))),
    ("corrcoef", lambda: Tensor(X).corrcoef(), lambda: np.corrcoef(X)),
    ("interp", lambda: Tensor(X).interp(Tensor(ROW), Tensor(ROW**2), left=-9.0), lambda: np.interp(X, ROW, ROW**2, left=-9.0)),
]


@pytest.mark.parametrize("ours,theirs", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_statistic(ours, theirs):
    expected = theirs()
    gives(ours(), np.asarray(expected) if isinstance(expected, list) else expected, 1e-4, 2e-5)


@pytest.mark.parametrize("f,g", [
    (lambda x: x.median(1).values, lambda x: x.median(1).values),
    (lambda x: x.quantile(0.3, 1), lambda x: x.quantile(0.3, 1)),
    (lambda x: x.kthvalue(2).values, lambda x: x.kthvalue(2).values),
    (lambda x: x.cov(), lambda x: x.cov()),
    (lambda x: x.corrcoef(), lambda x: x.corrcoef()),
    (lambda x: (x * x).nanmean(1), lambda x: (x * x).nanmean(1)),
])
def test_slopes(f, g):
    slopes(f, g, X)


def test_statistics_mistakes():
    with pytest.raises(ShapeError, match="from 1 to 8"):
        Tensor(X).kthvalue(9)
    with pytest.raises(UsageError, match="midpoint"):
        Tensor(X).quantile(0.5, interpolation="cubic")
    with pytest.raises(DTypeError, match="only ints"):
        Tensor(X).bincount()
    with pytest.raises(UsageError, match="negative"):
        Tensor([-1, 2]).bincount()
    with pytest.raises(ShapeError, match="variables by observations"):
        Tensor.ones(2, 2, 2).cov()
    with pytest.raises(UsageError):
        Tensor([1.0]).histogram(0)
    with pytest.raises(ShapeError, match="sorted"):
        Tensor(X).searchsorted(Tensor([1.0]))
    assert Tensor([1, 2]).equal(Tensor([1, 2])) and not Tensor([1, 2]).equal(Tensor([1, 3])) and not Tensor([1]).equal(Tensor([1, 1]))
    assert Tensor([], dtype="int32").unique().shape == (0,) and Tensor([1, 2]).isin([]).tolist() == [False, False]
