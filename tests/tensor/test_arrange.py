"""Cutting, joining, turning, writing at places: as NumPy and torch have them."""

import numpy as np
import pytest
import torch
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.tensor.aliases import NAMES
from glassgrad.uop.errors import IndexError_, ShapeError, UsageError

X = data(3, 4)
CUBE = data(2, 3, 4)
ROW = data(5)
AT = np.array([2, 0, -1])
MASK = data(3, 4, dtype="bool")


def t(x):
    return torch.tensor(x)


CASES = [
    *[(f"rot90 {k}", lambda k=k: Tensor(CUBE).rot90(k, (0, 2)), lambda k=k: np.rot90(CUBE, k, (0, 2))) for k in (-1, 0, 1, 2)],
    ("fliplr", lambda: Tensor(X).fliplr(), lambda: np.fliplr(X)),
    ("flipud", lambda: Tensor(X).flipud(), lambda: np.flipud(X)),
    ("tile", lambda: Tensor(X).tile(2), lambda: np.tile(X, 2)),
    ("tile more", lambda: Tensor(X).tile(2, 1, 3), lambda: np.tile(X, (2, 1, 3))),
    ("unbind", lambda: Tensor(X).unbind(1), lambda: t(X).unbind(1)),
    ("select", lambda: Tensor(X).select(1, -2), lambda: t(X).select(1, -2)),
    ("tensor_split", lambda: Tensor(X).tensor_split(3, 1), lambda: t(X).tensor_split(3, 1)),
    ("tensor_split at", lambda: Tensor(X).tensor_split((1, -1, 9), 1), lambda: t(X).tensor_split((1, -1, 9), 1)),
    ("hsplit", lambda: Tensor(X).hsplit(2), lambda: np.hsplit(X, 2)),
    ("trace", lambda: Tensor(X).trace(1), lambda: np.trace(X, 1)),
    *[(f"diag_embed {k}", lambda k=k: Tensor(CUBE).diag_embed(k, 0, -1), lambda k=k: t(CUBE).diag_embed(k, 0, -1)) for k in (-1, 0, 2)],
    ("diagflat", lambda: Tensor(X).diagflat(1), lambda: np.diagflat(X, 1)),
    ("hstack", lambda: Tensor.hstack(Tensor(X), Tensor(X)), lambda: np.hstack([X, X])),
    ("hstack vectors", lambda: Tensor.hstack([Tensor(ROW), Tensor(ROW)]), lambda: np.hstack([ROW, ROW])),
    ("vstack", lambda: Tensor.vstack(Tensor(ROW), Tensor(ROW)), lambda: np.vstack([ROW, ROW])),
    ("dstack", lambda: Tensor.dstack(Tensor(X), Tensor(X)), lambda: np.dstack([X, X])),
    ("column_stack", lambda: Tensor.column_stack(Tensor(ROW), Tensor(ROW)), lambda: np.column_stack([ROW, ROW])),
    ("block_diag", lambda: Tensor.block_diag(Tensor(X), Tensor(ROW)), lambda: torch.block_diag(t(X), t(ROW))),
    ("cartesian_prod", lambda: Tensor.cartesian_prod(Tensor(ROW), Tensor(X[0])), lambda: torch.cartesian_prod(t(ROW), t(X[0]))),
    ("combinations", lambda: Tensor(ROW).combinations(3), lambda: torch.combinations(t(ROW), 3)),
    ("combinations again", lambda: Tensor(ROW).combinations(2, True), lambda: torch.combinations(t(ROW), 2, True)),
    *[(f"tril_indices {k}", lambda k=k: Tensor.tril_indices(3, 5, k), lambda k=k: torch.tril_indices(3, 5, k)) for k in (-1, 0, 2)],
    *[(f"triu_indices {k}", lambda k=k: Tensor.triu_indices(4, 3, k), lambda k=k: torch.triu_indices(4, 3, k)) for k in (-2, 0, 1)],
    ("tri", lambda: Tensor.tri(3, 4, 1), lambda: np.tri(3, 4, 1)),
    ("logspace", lambda: Tensor.logspace(-1, 2, 5), lambda: np.logspace(-1, 2, 5)),
    ("geomspace", lambda: Tensor.geomspace(-1, -8, 4), lambda: np.geomspace(-1, -8, 4)),
    ("vander", lambda: Tensor(ROW).vander(3), lambda: np.vander(ROW, 3)),
    ("diff", lambda: Tensor(X).diff(2, 1), lambda: np.diff(X, 2, 1)),
    ("diff of bools", lambda: Tensor(MASK).diff(), lambda: np.diff(MASK)),
    ("diff with ends", lambda: Tensor(X).diff(dim=0, prepend=Tensor(X[:1]), append=Tensor(X[:2])),
     lambda: np.diff(X, axis=0, prepend=X[:1], append=X[:2])),
    ("trapezoid", lambda: Tensor(X).trapezoid(Tensor(ROW[:4])), lambda: np.trapezoid(X, ROW[:4])),
    ("cumulative_trapezoid", lambda: Tensor(X).cumulative_trapezoid(dx=0.5, dim=0),
     lambda: torch.cumulative_trapezoid(t(X), dx=0.5, dim=0)),
    ("unwrap", lambda: Tensor(X * 9).unwrap(), lambda: np.unwrap(X * 9)),
    ("movedim", lambda: Tensor(CUBE).movedim((0, 1), (-1, 0)), lambda: np.moveaxis(CUBE, (0, 1), (-1, 0))),
    ("take", lambda: Tensor(X).take(Tensor([0, 7, -1])), lambda: np.take(X, [0, 7, -1])),
    ("take along", lambda: Tensor(X).take(Tensor([[0, 2]]), 1), lambda: np.take(X, [[0, 2]], 1)),
    ("index_add", lambda: Tensor(X).index_add(0, Tensor([1, 1, 0]), Tensor(X), 2), lambda: t(X).index_add(0, t([1, 1, 0]), t(X), alpha=2)),
    ("index_copy", lambda: Tensor(X).index_copy(1, Tensor([3, 0]), Tensor(X[:, :2])),
     lambda: t(X).index_copy(1, t([3, 0]), t(X[:, :2].copy()))),
    ("index_fill", lambda: Tensor(X).index_fill(1, Tensor([3, -4]), 7), lambda: t(X).index_fill(1, t([3, 0]), 7)),
    ("index_reduce", lambda: Tensor(X).index_reduce(0, Tensor([0, 0, 2]), Tensor(X), "amax"),
     lambda: t(X).index_reduce(0, t([0, 0, 2]), t(X), "amax")),
    ("index_put", lambda: Tensor(X).index_put((Tensor([0, 1]), Tensor([2, 2])), Tensor([5.0, 6.0])),
     lambda: t(X).index_put((t([0, 1]), t([2, 2])), t([5.0, 6.0]))),
    ("index_put adding", lambda: Tensor(X).index_put((Tensor([0, 0]),), Tensor([5.0]), True),
     lambda: t(X).index_put((t([0, 0]),), t([5.0]), True)),
    ("put", lambda: Tensor(X).put(Tensor([1, -1]), Tensor([5.0, 6.0])), lambda: t(X).put(t([1, -1]), t([5.0, 6.0]))),
    ("put adding", lambda: Tensor(X).put(Tensor([1, 1]), Tensor([5.0, 6.0]), True), lambda: t(X).put(t([1, 1]), t([5.0, 6.0]), True)),
    ("masked_scatter", lambda: Tensor(X).masked_scatter(Tensor(MASK), Tensor(CUBE)), lambda: t(X).masked_scatter(t(MASK), t(CUBE))),
    ("select_scatter", lambda: Tensor(X).select_scatter(Tensor(ROW[:3]), 1, -1), lambda: t(X).select_scatter(t(ROW[:3]), 1, -1)),
    ("slice_scatter", lambda: Tensor(X).slice_scatter(Tensor(X[:, :2]), 1, 0, None, 2),
     lambda: t(X).slice_scatter(t(X[:, :2].copy()), 1, 0, None, 2)),
    ("diagonal_scatter", lambda: Tensor(X).diagonal_scatter(Tensor(ROW[:3]), 1), lambda: t(X).diagonal_scatter(t(ROW[:3]), 1)),
    ("fill_diagonal", lambda: Tensor(X).fill_diagonal(9.0), lambda: t(X).clone().fill_diagonal_(9.0)),
    ("flatnonzero", lambda: Tensor(MASK).flatnonzero(), lambda: np.flatnonzero(MASK)),
    ("compress", lambda: Tensor(X).compress(Tensor([True, False, True]), 0), lambda: np.compress([True, False, True], X, 0)),
    ("choose", lambda: Tensor([0, 1, 1, 0]).choose(Tensor(X[0]), Tensor(X[1])), lambda: np.choose([0, 1, 1, 0], X[:2])),
    ("lexsort", lambda: Tensor([[3, 1, 2, 0], [1, 0, 1, 0]]).lexsort(), lambda: np.lexsort(([3, 1, 2, 0], [1, 0, 1, 0]))),
    ("ravel_index", lambda: Tensor([[1, 2], [3, 0]]).ravel_index(3, 4), lambda: np.ravel_multi_index(([1, 2], [3, 0]), (3, 4))),
    ("unravel_index", lambda: Tensor([7, 11]).unravel_index(3, 4), lambda: np.unravel_index([7, 11], (3, 4))),
    ("broadcast_tensors", lambda: Tensor.broadcast_tensors(Tensor(X), Tensor(ROW[:4]))[1], lambda: np.broadcast_to(ROW[:4], (3, 4))),
    ("masked_select", lambda: Tensor(X).masked_select(Tensor(MASK), size=14, fill_value=-1),
     lambda: np.append(X[MASK], [-1.0] * (14 - MASK.sum()))),
]


@pytest.mark.parametrize("ours,theirs", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_arrangement(ours, theirs):
    gives(ours(), theirs())


@pytest.mark.parametrize("f,g", [
    (lambda x: x.rot90(), lambda x: x.rot90()),
    (lambda x: x.diag_embed(1), lambda x: x.diag_embed(1)),
    (lambda x: x.index_add(0, Tensor([1, 1, 0]), x * x), lambda x: x.index_add(0, t([1, 1, 0]), x * x)),
    (lambda x: x.index_put((Tensor([0, 0]),), x[1] * x[1], True), lambda x: x.index_put((t([0, 0]),), x[1] * x[1], True)),
    (lambda x: x.masked_scatter(Tensor(MASK), x * x), lambda x: x.masked_scatter(t(MASK), x * x)),
    (lambda x: x.slice_scatter(x[:, :2] * 3, 1, 0, None, 2), lambda x: x.slice_scatter(x[:, :2] * 3, 1, 0, None, 2)),
    (lambda x: x.diagonal_scatter(x[0, :3] * 3), lambda x: x.diagonal_scatter(x[0, :3] * 3)),
])
def test_slopes(f, g):
    slopes(f, g, X)


def test_aliases_are_what_they_say():
    x = Tensor(abs(X))
    for name, ours in NAMES.items():
        assert getattr(Tensor, name) is getattr(Tensor, ours), name
    gives(x.multiply(2).subtract(1).absolute(), abs(abs(X) * 2 - 1))
    assert x.dim() == 2 and x.nelement() == 12


def test_mistakes():
    with pytest.raises(ShapeError, match="must differ"):
        Tensor(X).rot90(1, (1, -1))
    with pytest.raises(ShapeError, match="at least one piece"):
        Tensor(X).tensor_split(0)
    with pytest.raises(ShapeError, match=r"must be \(2, 4\)"):
        Tensor(X).index_add(0, Tensor([0, 1]), Tensor(X))
    with pytest.raises(IndexError_, match="one place of its own"):
        Tensor(X).movedim((0, 0), (0, 1))
    with pytest.raises(UsageError, match="both negative"):
        Tensor.geomspace(-1, 1, 3)
    with pytest.raises(ShapeError):
        Tensor(X).combinations()
