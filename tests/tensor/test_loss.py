"""Losses and attention, as torch has them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import agree, data, same

from glassgrad import Tensor, dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

REDUCTIONS = ["mean", "sum", "none"]
CLASSES = np.array([2, 0, 4, 1, 2, 3])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(reduction, smoothing, weighted):
    w = data(5, lo=0.5, hi=2)
    same(
        lambda x: x.cross_entropy(Tensor(CLASSES), reduction, smoothing, weight=Tensor(w) if weighted else None),
        lambda x: F.cross_entropy(
            x, torch.tensor(CLASSES), torch.tensor(w) if weighted else None, reduction=reduction, label_smoothing=smoothing
        ),
        data(6, 5),
        rtol=1e-4,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_images_and_probabilities(reduction):
    y = data(2, 3, 4, lo=0, hi=4, dtype="int64")
    same(
        lambda x: x.cross_entropy(Tensor(y), reduction),
        lambda x: F.cross_entropy(x, torch.tensor(y), reduction=reduction),
        data(2, 5, 3, 4),
        rtol=1e-4,
    )
    p = np.abs(data(6, 5))
    p /= p.sum(1, keepdims=True)
    same(
        lambda x: x.cross_entropy(Tensor(p), reduction, 0.1),
        lambda x: F.cross_entropy(x, torch.tensor(p), reduction=reduction, label_smoothing=0.1),
        data(6, 5),
        rtol=1e-4,
    )
    same(lambda x: x.cross_entropy(Tensor(3)), lambda x: F.cross_entropy(x, torch.tensor(3)), data(5))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignored_classes(reduction):
    y = CLASSES.copy()
    y[[1, 4]] = -100
    same(
        lambda x: x.cross_entropy(Tensor(y), reduction),
        lambda x: F.cross_entropy(x, torch.tensor(y), reduction=reduction),
        data(6, 5),
        rtol=1e-4,
    )
    same(
        lambda x: x.log_softmax(1).nll_loss(Tensor(y), ignore_index=-100, reduction=reduction),
        lambda x: F.nll_loss(x.log_softmax(1), torch.tensor(y), reduction=reduction),
        data(6, 5),
        rtol=1e-4,
    )
    z = np.where(y < 0, -1, y)
    same(
        lambda x: x.sparse_categorical_crossentropy(Tensor(z), reduction=reduction),
        lambda x: F.cross_entropy(x, torch.tensor(y), reduction=reduction),
        data(6, 5),
        rtol=1e-4,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll(reduction):
    w = data(5, lo=0.5, hi=2)
    same(
        lambda x: x.nll_loss(Tensor(CLASSES), Tensor(w), reduction=reduction),
        lambda x: F.nll_loss(x, torch.tensor(CLASSES), torch.tensor(w), reduction=reduction),
        data(6, 5),
    )


def test_sparse_categorical_crossentropy_smoothing():
    same(
        lambda x: x.sparse_categorical_crossentropy(Tensor(CLASSES), label_smoothing=0.2),
        lambda x: F.cross_entropy(x, torch.tensor(CLASSES), label_smoothing=0.2),
        data(6, 5),
        rtol=1e-4,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary(reduction):
    y = data(4, 3, lo=0, hi=1)
    same(
        lambda x: x.binary_crossentropy(Tensor(y), reduction),
        lambda x: F.binary_cross_entropy(x, torch.tensor(y), reduction=reduction),
        data(4, 3, lo=0.05, hi=0.95, seed=2),
        rtol=1e-4,
    )
    same(
        lambda x: x.binary_crossentropy_logits(Tensor(y), reduction),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(y), reduction=reduction),
        data(4, 3, lo=-50, hi=50),
        rtol=1e-4,
    )
    w = data(3, lo=0.5, hi=2)
    same(
        lambda x: x.binary_crossentropy_logits(Tensor(y), reduction, Tensor(w)),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(y), pos_weight=torch.tensor(w), reduction=reduction),
        data(4, 3),
        rtol=1e-4,
    )


def test_binary_at_the_ends_is_finite():
    agree(Tensor([0.0, 1.0]).binary_crossentropy(Tensor([1.0, 0.0]), "none"), np.array([100, 100], dtype="float32"))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_distances(reduction):
    y = data(4, 3, seed=8)
    for ours, theirs in ((Tensor.mse_loss, F.mse_loss), (Tensor.l1_loss, F.l1_loss), (Tensor.huber_loss, F.huber_loss)):
        same(lambda x, f=ours: f(x, Tensor(y), reduction), lambda x, f=theirs: f(x, torch.tensor(y), reduction=reduction), data(4, 3))
    p = np.abs(y) / np.abs(y).sum()
    same(
        lambda x: x.log_softmax().kl_div(Tensor(p), reduction),
        lambda x: F.kl_div(x.log_softmax(-1), torch.tensor(p), reduction=reduction),
        data(4, 3),
        rtol=1e-4,
    )


def test_mistakes_are_named():
    x, y = Tensor.ones(6, 5), Tensor(CLASSES)
    with pytest.raises(ShapeError, match=r"classes must have shape \(6,\)"):
        x.cross_entropy(y[:3])
    with pytest.raises(DTypeError, match="classes are ints"):
        x.cross_entropy(y.float())
    with pytest.raises(ShapeError):
        x.sparse_categorical_crossentropy(y[:3])
    with pytest.raises(UsageError, match="label_smoothing"):
        x.cross_entropy(y, label_smoothing=2)
    with pytest.raises(UsageError, match="reduction"):
        x.cross_entropy(y, "median")
    with pytest.raises(UsageError, match="reduction"):
        x.mse_loss(x, "median")


Q, K, V = data(2, 4, 5, 8), data(2, 4, 7, 8, seed=1), data(2, 4, 7, 6, seed=2)


@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
def test_attention(mask):
    m = np.tril(np.ones((5, 7), dtype=bool), 2) if mask == "bool" else data(5, 7)
    more = {"causal": {"is_causal": True}}.get(mask, {})
    same(
        lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor(m) if mask in ("bool", "float") else None, **more),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.tensor(m) if mask in ("bool", "float") else None, **more),
        Q,
        K,
        V,
        rtol=1e-4,
        atol=1e-5,
    )


def test_attention_options():
    same(
        lambda q, k, v: q.scaled_dot_product_attention(k, v, scale=0.1),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.1),
        Q,
        K,
        V,
        rtol=1e-4,
        atol=1e-5,
    )
    k, v = K[:, :2], V[:, :2]
    same(
        lambda q, k, v: q.scaled_dot_product_attention(k, v, enable_gqa=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        Q,
        k,
        v,
        rtol=1e-4,
        atol=1e-5,
    )
    out = Tensor(Q).half().scaled_dot_product_attention(Tensor(K).half(), Tensor(V).half())
    assert out.dtype is dtypes.float16
    np.testing.assert_allclose(out.numpy(), F.scaled_dot_product_attention(*map(torch.tensor, (Q, K, V))).numpy(), atol=5e-3)
    with pytest.raises(UsageError):
        Tensor(Q).scaled_dot_product_attention(Tensor(K), Tensor(V), Tensor.ones(5, 7), is_causal=True)
    with pytest.raises(ShapeError):
        Tensor(Q).scaled_dot_product_attention(Tensor(data(2, 3, 7, 8)), Tensor(V), enable_gqa=True)
