"""Inverses, factors, eigenvalues, norms: values, gradients and second gradients as torch has them."""

import numpy as np
import pytest
import torch
from judge import data
from oracle import evaluate

from glassgrad import Tensor
from glassgrad.uop.errors import ArgumentError, ShapeError, UsageError

BATCH, N = 2, 3


def matrices(kind: str, dtype: str = "float64") -> np.ndarray:
    """Well-conditioned matrices of a kind, a batch of two."""
    square = data(BATCH, N, N, seed=3).astype("float64")
    if kind == "symmetric":
        square = square + np.swapaxes(square, -1, -2)
    if kind == "definite":
        square = square @ np.swapaxes(square, -1, -2) + np.eye(N)
    if kind == "tall":
        square = data(BATCH, N + 2, N, seed=5).astype("float64")
    if kind == "wide":
        square = data(BATCH, N - 1, N + 1, seed=6).astype("float64")
    return (square + 3 * np.eye(N) if kind == "square" else square).astype(dtype)


B = data(BATCH, N, 3, seed=9).astype("float64")


def projector(u):
    """What of singular vectors does not depend on their signs."""
    return u[..., :1] @ u[..., :1].mT


CASES = [  # kind of matrix, ours, torch's
    ("square", lambda a: a.inv(), torch.linalg.inv),
    ("square", lambda a: a.solve(Tensor(B)), lambda a: torch.linalg.solve(a, torch.tensor(B))),
    ("square", lambda a: a.det(), torch.linalg.det),
    ("square", lambda a: a.slogdet()[1], lambda a: torch.linalg.slogdet(a)[1]),
    ("square", lambda a: a.lu()[1] + a.lu()[2], lambda a: sum(torch.linalg.lu(a)[1:])),
    ("square", lambda a: a.matrix_power(3), lambda a: torch.linalg.matrix_power(a, 3)),
    ("square", lambda a: a.matrix_power(-2), lambda a: torch.linalg.matrix_power(a, -2)),
    ("square", lambda a: a.matrix_exp(), torch.linalg.matrix_exp),
    ("square", lambda a: a.solve_triangular(Tensor(B), upper=True),
     lambda a: torch.linalg.solve_triangular(a.triu(), torch.tensor(B), upper=True)),
    ("square", lambda a: a.qr()[0] * a.qr()[1], lambda a: torch.linalg.qr(a)[0] * torch.linalg.qr(a)[1]),
    ("tall", lambda a: a.qr("reduced")[0], lambda a: torch.linalg.qr(a)[0]),
    ("wide", lambda a: a.qr()[1], lambda a: torch.linalg.qr(a)[1]),
    ("tall", lambda a: a.lu()[1], lambda a: torch.linalg.lu(a)[1]),
    ("wide", lambda a: a.lu()[2], lambda a: torch.linalg.lu(a)[2]),
    ("definite", lambda a: a.cholesky(), torch.linalg.cholesky),
    ("symmetric", lambda a: a.eigvalsh(), torch.linalg.eigvalsh),
    ("symmetric", lambda a: projector(a.eigh()[1]), lambda a: projector(torch.linalg.eigh(a)[1])),
    ("tall", lambda a: a.svdvals(), torch.linalg.svdvals),
    ("tall", lambda a: projector(a.svd(False)[0]), lambda a: projector(torch.linalg.svd(a, full_matrices=False)[0])),
    ("wide", lambda a: projector(a.svd(False)[2].mT), lambda a: projector(torch.linalg.svd(a, full_matrices=False)[2].mT)),
    ("tall", lambda a: a.pinv(), torch.linalg.pinv),
    ("wide", lambda a: a.pinv(), torch.linalg.pinv),
    ("wide", lambda a: a.matrix_norm("nuc"), lambda a: torch.linalg.matrix_norm(a, "nuc")),
]


@pytest.mark.parametrize("kind,ours,theirs", CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_value_and_gradients(kind, ours, theirs):
    a = matrices(kind)
    x, y = Tensor(a), torch.tensor(a, requires_grad=True)
    out, want = ours(x), theirs(y)
    weights = data(*want.shape, seed=1).astype("float64")
    (d,) = (out * Tensor(weights)).sum().gradient(x)
    (e,) = torch.autograd.grad((want * torch.tensor(weights)).sum(), y, create_graph=True)
    again = data(*a.shape, seed=2).astype("float64")
    (dd,) = (d * Tensor(again)).sum().gradient(x)
    (ee,) = torch.autograd.grad((e * torch.tensor(again)).sum(), y)
    names = ("value", "gradient", "second gradient")
    for found, expected, what in zip(evaluate(out.uop, d.uop, dd.uop), (want, e, ee), names):     # what the graphs mean
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-7, err_msg=what)


def same_matrix(x: Tensor, y: np.ndarray, atol: float = 2e-5) -> None:
    np.testing.assert_allclose(x.numpy(), y, atol=atol)


def means(x: Tensor, y: torch.Tensor) -> None:
    """What the graph means, which costs no compiling."""
    np.testing.assert_allclose(evaluate(x.uop)[0], y.numpy(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 3, 4)], ids=str)
def test_factors_multiply_to_the_matrix(shape):
    a = data(*shape)
    x, (m, n) = Tensor(a), shape[-2:]
    p, low, high = x.lu()
    q, r = x.qr()
    u, s, vh = x.svd()
    thin = x.svd(full_matrices=False)
    Tensor.realize(p, low, high, q, r, u, s, vh, *thin)
    same_matrix(p @ low @ high, a)
    same_matrix(q @ r, a)
    k = min(m, n)
    same_matrix((u[..., :k] * s.unsqueeze(-2)) @ vh[..., :k, :], a)
    same_matrix((thin[0] * thin[1].unsqueeze(-2)) @ thin[2], a)
    for orthogonal, size in ((q, m), (u, m), (vh, n)):
        same_matrix(orthogonal.mT @ orthogonal, np.broadcast_to(np.eye(size), (*shape[:-2], size, size)))
    same_matrix(r.tril(-1), np.zeros((*shape[:-2], m, n)))
    same_matrix(s, np.linalg.svd(a)[1])


def test_svd_of_dependent_columns():
    a = data(6, 4)
    a[:, 1] = a[:, 0] * 2
    a[:, 2] = 0
    u, s, vh = Tensor(a).svd()
    assert (s.numpy()[2:] < 1e-5).all()
    same_matrix(u.T @ u, np.eye(6))
    same_matrix(vh.T @ vh, np.eye(4))
    assert Tensor(a).matrix_rank().item() == np.linalg.matrix_rank(a) == 2
    assert Tensor.zeros(3, 3).matrix_rank().item() == 0
    same_matrix(Tensor(a).pinv(), np.linalg.pinv(a), 1e-4)


def test_eigenvalues_of_a_larger_matrix():
    a = data(8, 8)
    a = a + a.T
    w, v = Tensor(a).eigh()
    np.testing.assert_allclose(w.numpy(), np.linalg.eigvalsh(a), atol=1e-5)
    same_matrix(v.T @ v, np.eye(8), 1e-5)
    same_matrix((v * w) @ v.T, a, 3e-5)


@pytest.mark.parametrize("b", [(3,), (3, 2), (2, 3), (2, 3, 1)], ids=str)
def test_solve_shapes(b):
    a, b = matrices("square", "float32"), data(*b)
    expected = np.linalg.solve(a, b[:, None])[..., 0] if b.ndim == 1 else torch.linalg.solve(torch.tensor(a), torch.tensor(b)).numpy()
    same_matrix(Tensor(a).solve(Tensor(b)), expected)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_solve_triangular(left, upper, unit):
    a, b = matrices("square", "float32")[0], data(3, 3)
    part = torch.tensor(a).triu() if upper else torch.tensor(a).tril()
    expected = torch.linalg.solve_triangular(part, torch.tensor(b), upper=upper, left=left, unitriangular=unit)
    means(Tensor(a).solve_triangular(Tensor(b), upper=upper, left=left, unitriangular=unit), expected)


def test_least_squares():
    a, b = matrices("tall", "float32")[0], data(5, 2)
    ours, theirs = Tensor(a).lstsq(Tensor(b)), np.linalg.lstsq(a, b)
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x.numpy(), y, atol=1e-4)
    same_matrix(Tensor(a).lstsq(Tensor(b[:, 0])).solution, theirs[0][:, 0], 1e-4)


def test_cholesky_forms():
    a = matrices("definite", "float32")
    low = np.linalg.cholesky(a)
    same_matrix(Tensor(a).cholesky(upper=True), np.swapaxes(low, -1, -2), 1e-4)
    same_matrix(Tensor(a + np.triu(np.ones((3, 3), "float32"), 1)).cholesky(), low, 1e-4)     # only the lower triangle is read
    b = data(2, 3, 2)
    same_matrix(Tensor(b).cholesky_solve(Tensor(low)), np.linalg.solve(a, b), 1e-3)
    same_matrix(Tensor(b).cholesky_solve(Tensor(low).mT, upper=True), np.linalg.solve(a, b), 1e-3)
    assert Tensor([[1.0, 0.0], [0.0, -1.0]]).cholesky().isnan().any().item()


def test_determinants():
    for a in (np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros((3, 3)), np.array([[2.0]])):
        np.testing.assert_allclose(Tensor(a).det().item(), np.linalg.det(a), atol=1e-6)
        np.testing.assert_allclose([x.item() for x in Tensor(a).slogdet()], np.linalg.slogdet(a), atol=1e-6)
    assert np.isnan(Tensor([[0.0, 1.0], [1.0, 0.0]]).logdet().item())
    assert Tensor([[2, 1], [1, 1]]).det().item() == pytest.approx(1)
    assert Tensor([[2.0, 1.0], [1.0, 1.0]], dtype="float16").inv().dtype.name == "float16"


NORMS = [
    *[("vector_norm", {"ord": p, "dim": d}) for p in (2, 1, 3, 0, np.inf, -np.inf) for d in (None, 1)],
    *[("matrix_norm", {"ord": p}) for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)],
    ("matrix_norm", {"ord": 1, "dim": (2, 0), "keepdim": True}),
]


@pytest.mark.parametrize("name,options", NORMS, ids=str)
def test_norms(name, options):
    x = data(2, 3, 4)
    means(getattr(Tensor(x), name)(**options), getattr(torch.linalg, name)(torch.tensor(x), **options))


def test_norm_of_either_kind():
    x = data(3, 4)
    for p, dim in ((None, None), (1, 0), ("fro", (0, 1)), (np.inf, (0, 1)), (2, (0, 1)), (3, 1)):
        means(Tensor(x).norm(p, dim), torch.linalg.norm(torch.tensor(x), p, dim))
    assert Tensor.zeros(3).norm().gradient(x := Tensor.zeros(3))[0].tolist() == x.tolist()
    for p in (None, 1, -2):
        means(Tensor(matrices("square")).cond(p), torch.linalg.cond(torch.tensor(matrices("square")), p))


def test_exponential_of_what_is_large():
    a = np.array([[0.0, 1e5], [0.0, 0.0]], "float32")
    same_matrix(Tensor(a).matrix_exp(), [[1, 1e5], [0, 1]])
    same_matrix(Tensor([[0.0, -20.0], [20.0, 0.0]]).matrix_exp(), [[np.cos(20), -np.sin(20)], [np.sin(20), np.cos(20)]], 1e-4)
    same_matrix(Tensor.zeros(2, 2).matrix_exp(), np.eye(2))


def test_matrix_mistakes():
    for name in ("inv", "det", "cholesky", "eigh", "matrix_exp"):
        with pytest.raises(ShapeError, match="must be equal"):
            getattr(Tensor.ones(2, 3), name)()
    with pytest.raises(ShapeError, match="a matrix has two axes"):
        Tensor.ones(3).svd()
    with pytest.raises(ShapeError, match="as many"):
        Tensor.ones(3, 3).solve(Tensor.ones(4))
    with pytest.raises(UsageError, match="'reduced'"):
        Tensor.ones(3, 3).qr("economic")
    with pytest.raises(UsageError, match="'nuc'"):
        Tensor.ones(3, 3).matrix_norm(5)
    with pytest.raises(ArgumentError):
        Tensor.ones(3, 3).solve("b")
