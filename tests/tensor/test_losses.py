"""Losses of pairs, margins and sequences: values and gradients as torch has them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

X, Y, Z = data(5, 4), data(5, 4, seed=1), data(5, 4, seed=2)
SIGNS = np.sign(data(5, seed=3)).astype("float32")
GRID = np.sign(data(5, 4, seed=3)).astype("float32")
CLASSES = np.array([0, 3, 2, 2, 1])
HITS = (GRID > 0).astype("float32")


def both(name, *more, **options):
    """The method of ours and the function of torch's, with the same constants behind the tensors given."""
    return (lambda *xs: getattr(xs[0], name)(*xs[1:], *map(Tensor, more), **options),
            lambda *xs: getattr(F, name)(*xs, *map(torch.tensor, more), **options))


CASES = {
    "smooth_l1_loss": (both("smooth_l1_loss", beta=0.5), (X, Y)),
    "soft_margin_loss": (both("soft_margin_loss", GRID), (X,)),
    "hinge_embedding_loss": (both("hinge_embedding_loss", GRID), (X,)),
    "margin_ranking_loss": (both("margin_ranking_loss", GRID, margin=0.3), (X, Y)),
    "cosine_embedding_loss": (both("cosine_embedding_loss", SIGNS, margin=-0.2, reduction="none"), (X, Y)),
    "triplet_margin_loss": (both("triplet_margin_loss", margin=2.0, swap=True), (X, Y, Z)),
    "triplet_margin_with_distance_loss": (both("triplet_margin_with_distance_loss", margin=2.0, reduction="sum"), (X, Y, Z)),
    "multi_margin_loss": (both("multi_margin_loss", CLASSES, p=2), (X,)),
    "multilabel_soft_margin_loss": (both("multilabel_soft_margin_loss", HITS), (X,)),
    "poisson_nll_loss": (both("poisson_nll_loss", abs(Y).round() * 2, full=True), (X,)),
    "gaussian_nll_loss": (both("gaussian_nll_loss", full=True, reduction="sum"), (X, Y, abs(Z) + 0.1)),
}


@pytest.mark.parametrize("pair,inputs", CASES.values(), ids=CASES.keys())
def test_loss(pair, inputs):
    ours, theirs = pair
    gives(ours(*map(Tensor, inputs)), theirs(*map(torch.tensor, inputs)), 1e-4)
    slopes(ours, theirs, *inputs)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_ctc(reduction):
    logits = data(7, 3, 5)
    targets, frames, lengths = np.array([[1, 1, 2], [3, 4, 0], [2, 0, 0]]), [7, 5, 6], [3, 2, 1]
    ours = lambda x: x.log_softmax(-1).ctc_loss(Tensor(targets), frames, lengths, reduction=reduction)
    theirs = lambda x: F.ctc_loss(x.log_softmax(-1), torch.tensor(targets), frames, lengths, reduction=reduction)
    gives(ours(Tensor(logits)), theirs(torch.tensor(logits)), 1e-4)
    slopes(ours, theirs, logits)


def test_ctc_of_what_cannot_be():
    logs = Tensor(data(2, 1, 4)).log_softmax(-1)
    assert logs.ctc_loss(Tensor([[1, 1]]), [2], [2], reduction="none").tolist() == [np.inf]       # needs a blank between
    assert logs.ctc_loss(Tensor([[1, 1]]), [2], [2], zero_infinity=True).item() == 0
    with pytest.raises(ShapeError, match="targets"):
        logs.ctc_loss(Tensor([1, 1]), [2], [2])
    with pytest.raises(DTypeError):
        logs.ctc_loss(Tensor([[1.0]]), [2], [1])
    with pytest.raises(UsageError):
        logs.ctc_loss(Tensor([[1]]), [2], [1], reduction="median")
