"""Products and distances: as NumPy and torch have them."""

import numpy as np
import pytest
import torch
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

A, B, C = data(3, 4), data(4, 5, seed=1), data(2, 3, 4, seed=2)
U, V = data(6), data(4, seed=3)
P, Q = data(5, 3), data(4, 3, seed=4)


def t(x):
    return torch.tensor(x)


CASES = {
    "kron": (lambda: Tensor(A).kron(Tensor(V)), lambda: np.kron(A, V)),
    "cross": (lambda: Tensor(P).cross(Tensor(Q[:1])), lambda: np.cross(P, Q[:1])),
    "inner": (lambda: Tensor(C).inner(Tensor(A)), lambda: np.inner(C, A)),
    "vdot": (lambda: Tensor(A).vdot(Tensor(C[0])), lambda: np.vdot(A, C[0])),
    "vecdot": (lambda: Tensor(A).vecdot(Tensor(C)), lambda: np.vecdot(A, C)),
    "tensordot": (lambda: Tensor(C).tensordot(Tensor(A), ([1, 2], [0, 1])), lambda: np.tensordot(C, A, ([1, 2], [0, 1]))),
    "tensordot 1": (lambda: Tensor(A).tensordot(Tensor(B), 1), lambda: np.tensordot(A, B, 1)),
    "tensordot 0": (lambda: Tensor(U).tensordot(Tensor(V), 0), lambda: np.tensordot(U, V, 0)),
    "multi_dot": (lambda: Tensor.multi_dot(Tensor(A), Tensor(B), Tensor(B.T.copy()), Tensor(V)),
                  lambda: np.linalg.multi_dot([A, B, B.T, V])),
    "addmm": (lambda: Tensor(A @ B).addmm(Tensor(A), Tensor(B), 2, 0.5), lambda: t(A @ B).addmm(t(A), t(B), beta=2, alpha=0.5)),
    "addmv": (lambda: Tensor(A[:, 0]).addmv(Tensor(A), Tensor(V)), lambda: t(A[:, 0]).addmv(t(A), t(V))),
    "addr": (lambda: Tensor(A).addr(Tensor(A[:, 0]), Tensor(V)), lambda: t(A).addr(t(A[:, 0]), t(V))),
    "bmm": (lambda: Tensor(C).bmm(Tensor(C).mT), lambda: C @ np.swapaxes(C, 1, 2)),
    **{f"convolve {mode}": (lambda mode=mode: Tensor(V).convolve(Tensor(U), mode), lambda mode=mode: np.convolve(V, U, mode))
       for mode in ("full", "same", "valid")},
    "correlate": (lambda: Tensor(U).correlate(Tensor(V), "full"), lambda: np.correlate(U, V, "full")),
    "polyval": (lambda: Tensor(V).polyval(Tensor(A)), lambda: np.polyval(V, A)),
    **{f"cdist {p}": (lambda p=p: Tensor(P).cdist(Tensor(Q), p), lambda p=p: torch.cdist(t(P), t(Q), p)) for p in (1.0, 2.0, np.inf)},
    "pdist": (lambda: Tensor(P).pdist(), lambda: torch.pdist(t(P))),
    "dist": (lambda: Tensor(A).dist(Tensor(C[0]), 3), lambda: t(A).dist(t(C[0]), 3)),
    "pairwise_distance": (lambda: Tensor(P[:4]).pairwise_distance(Tensor(Q)), lambda: torch.pairwise_distance(t(P[:4]), t(Q))),
    "cosine_similarity": (lambda: Tensor(P[:4]).cosine_similarity(Tensor(Q)), lambda: torch.cosine_similarity(t(P[:4]), t(Q))),
    "renorm": (lambda: Tensor(P).renorm(2, 0, 1.0), lambda: t(P).renorm(2, 0, 1.0)),
    "bilinear": (lambda: Tensor(A).bilinear(Tensor(P[:3]), Tensor(data(2, 4, 3))),
                 lambda: torch.nn.functional.bilinear(t(A), t(P[:3]), t(data(2, 4, 3)))),
}


@pytest.mark.parametrize("ours,theirs", CASES.values(), ids=CASES.keys())
def test_product(ours, theirs):
    gives(ours(), theirs(), 1e-4, 1e-5)


def test_slopes():
    slopes(lambda x, y: x.kron(y), torch.kron, A, B)
    slopes(lambda x, y: x.cross(y), lambda x, y: torch.linalg.cross(x, y), P[:4], Q)
    slopes(lambda x, y: x.cdist(y), torch.cdist, P, Q)
    slopes(lambda x, y: x.cosine_similarity(y), torch.cosine_similarity, P[:4], Q)


def test_mistakes():
    for wrong in (lambda: Tensor(A).cross(Tensor(A)), lambda: Tensor(A).tensordot(Tensor(A), 1), lambda: Tensor(A).bmm(Tensor(A)),
                  lambda: Tensor(A).mv(Tensor(A)),
                  lambda: Tensor(A).cdist(Tensor(P)), lambda: Tensor(A).convolve(Tensor(V))):
        with pytest.raises(ShapeError):
            wrong()
    with pytest.raises(UsageError, match="'valid'"):
        Tensor(U).convolve(Tensor(V), "half")
