"""Layers against torch: the same weights give the same values, statistics and gradients."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import nn
from glassgrad.nn.state import get_state_dict
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

torch = pytest.importorskip("torch", reason="torch is absent")
RNG = np.random.default_rng(0)


def normal(*shape): return RNG.normal(size=shape).astype(np.float32)


def give_weights(ours, theirs):
    """Random weights for `theirs`, the same ones for `ours`."""
    weights = theirs.state_dict()
    assert set(get_state_dict(ours)) == set(weights)
    for name, x in get_state_dict(ours).items():
        assert tuple(x.shape) == tuple(weights[name].shape), name
        if weights[name].dtype != torch.float32: continue
        value = np.abs(normal(*x.shape)) + 0.5
        weights[name].copy_(torch.from_numpy(value))
        x.assign(Tensor(value))


def compare(ours, theirs, x, grad=True, training=False):
    with torch.no_grad(): give_weights(ours, theirs)
    theirs.train(training)
    mine, other = Tensor(x), torch.tensor(x, requires_grad=True)
    mine.requires_grad = True
    with Tensor.train(training): y = ours(mine)
    z = theirs(other)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=2e-4, atol=2e-4)
    if not grad: return
    (y * y).sum().backward()
    (z * z).sum().backward()
    np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=2e-3, atol=2e-3)
    for name, w in theirs.named_parameters():
        np.testing.assert_allclose(get_state_dict(ours)[name].grad.numpy(), w.grad.numpy(), rtol=2e-3, atol=5e-3, err_msg=name)


LAYERS = [
    ("Linear", lambda: nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (2, 5, 4)),
    ("Linear without bias", lambda: nn.Linear(4, 3, bias=False), lambda: torch.nn.Linear(4, 3, bias=False), (2, 4)),
    ("Conv1d", lambda: nn.Conv1d(2, 3, 3, padding=1), lambda: torch.nn.Conv1d(2, 3, 3, padding=1), (2, 2, 7)),
    ("Conv2d", lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), lambda: torch.nn.Conv2d(2, 4, 3, stride=2, padding=1), (2, 2, 7, 6)),
    ("Conv2d oblong", lambda: nn.Conv2d(2, 4, (3, 1), padding=(1, 2)), lambda: torch.nn.Conv2d(2, 4, (3, 1), padding=(1, 2)), (1, 2, 5, 4)),
    (
        "Conv2d groups",
        lambda: nn.Conv2d(4, 4, 3, groups=2, dilation=2),
        lambda: torch.nn.Conv2d(4, 4, 3, groups=2, dilation=2),
        (1, 4, 7, 7),
    ),
    ("Conv2d same", lambda: nn.Conv2d(2, 2, (3, 4), padding="same"), lambda: torch.nn.Conv2d(2, 2, (3, 4), padding="same"), (1, 2, 6, 5)),
    (
        "ConvTranspose2d",
        lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
        lambda: torch.nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
        (2, 3, 4, 5),
    ),
    ("ConvTranspose1d", lambda: nn.ConvTranspose1d(3, 2, 4, stride=2), lambda: torch.nn.ConvTranspose1d(3, 2, 4, stride=2), (2, 3, 5)),
    (
        "ConvTranspose2d groups",
        lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
        lambda: torch.nn.ConvTranspose2d(4, 6, 2, groups=2),
        (1, 4, 3, 3),
    ),
    ("BatchNorm", lambda: nn.BatchNorm(3), lambda: torch.nn.BatchNorm2d(3), (4, 3, 2, 5)),
    ("LayerNorm", lambda: nn.LayerNorm(6), lambda: torch.nn.LayerNorm(6), (2, 3, 6)),
    ("LayerNorm of two axes", lambda: nn.LayerNorm((3, 6), eps=1e-3), lambda: torch.nn.LayerNorm((3, 6), eps=1e-3), (2, 3, 6)),
    ("GroupNorm", lambda: nn.GroupNorm(2, 4), lambda: torch.nn.GroupNorm(2, 4), (2, 4, 3, 3)),
    ("InstanceNorm", lambda: nn.InstanceNorm(4), lambda: torch.nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3)),
    ("RMSNorm", lambda: nn.RMSNorm(6, eps=1e-5), lambda: torch.nn.RMSNorm(6, eps=1e-5), (2, 3, 6)),
    (
        "Sequential",
        lambda: nn.Sequential([nn.Linear(4, 5), Tensor.relu, nn.Linear(5, 2)]),
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)),
        (3, 4),
    ),
]


@pytest.mark.parametrize("ours, theirs, shape", [row[1:] for row in LAYERS], ids=[row[0] for row in LAYERS])
def test_layer(ours, theirs, shape):
    compare(ours(), theirs(), normal(*shape))


def test_layer_norm_2d():
    x = normal(2, 6, 3, 4)
    expected = torch.nn.functional.layer_norm(torch.tensor(x).permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(nn.LayerNorm2d(6)(Tensor(x)).numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"affine": False}, {"eps": 1e-2}])
def test_batch_norm_in_training(options):
    ours, theirs = nn.BatchNorm(3, **options), torch.nn.BatchNorm2d(3, **options)
    compare(ours, theirs, normal(4, 3, 2, 5), training=True)
    with Tensor.train():
        for _ in range(3):
            x = normal(4, 3, 2, 5) * 2 + 1
            ours(Tensor(x))
            theirs(torch.tensor(x))
    np.testing.assert_allclose(ours.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.running_var.numpy(), theirs.running_var.numpy(), rtol=1e-4, atol=1e-5)
    assert ours.num_batches_tracked.item() == theirs.num_batches_tracked.item() == 4


def test_batch_norm_without_running_stats():
    compare(nn.BatchNorm(3, track_running_stats=False), torch.nn.BatchNorm2d(3, track_running_stats=False), normal(4, 3, 2, 5))


def test_embedding():
    ours, theirs = nn.Embedding(7, 4), torch.nn.Embedding(7, 4)
    with torch.no_grad(): give_weights(ours, theirs)
    idx = RNG.integers(0, 7, (3, 5))
    y, z = ours(Tensor(idx)), theirs(torch.tensor(idx))
    np.testing.assert_array_equal(y.numpy(), z.detach().numpy())
    (y * y).sum().backward()
    (z * z).sum().backward()
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_cell(bias):
    ours, theirs = nn.LSTMCell(4, 3, bias), torch.nn.LSTMCell(4, 3, bias)
    with torch.no_grad(): give_weights(ours, theirs)
    mine = other = None
    for _ in range(3):
        x = normal(2, 4)
        mine, other = ours(Tensor(x), mine), theirs(torch.tensor(x), other)
    for a, b in zip(mine, other, strict=True): np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_gru_cell():
    ours, theirs = nn.GRUCell(4, 3), torch.nn.GRUCell(4, 3)
    with torch.no_grad(): give_weights(ours, theirs)
    mine = other = None
    for _ in range(3):
        x = normal(2, 4)
        mine, other = ours(Tensor(x), mine), theirs(torch.tensor(x), other)
    np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_dropout():
    x = Tensor(np.ones(1000, np.float32))
    np.testing.assert_array_equal(nn.Dropout(0.25)(x).numpy(), np.ones(1000))
    with Tensor.train(): y = nn.Dropout(0.25)(x).numpy()
    assert set(np.unique(y.round(4))) == {0.0, np.float32(1 / 0.75).round(4)} and 0.15 < (y == 0).mean() < 0.35


@pytest.mark.parametrize(
    "ours, theirs", [row[1:3] for row in LAYERS if "Norm" not in row[0]], ids=[row[0] for row in LAYERS if "Norm" not in row[0]]
)
def test_weights_start_within_the_bound_of_torch(ours, theirs):
    for name in get_state_dict(ours()):
        values = np.concatenate([get_state_dict(ours())[name].numpy().ravel() for _ in range(20)])
        reference = np.concatenate([theirs().state_dict()[name].numpy().ravel() for _ in range(60)])
        assert 0.6 < values.std() / reference.std() < 1.6 and np.abs(values).max() <= np.abs(reference).max() * 1.4, name


def test_what_learns_and_what_is_kept():
    kept = {name for name, x in get_state_dict(nn.BatchNorm(2)).items() if not x.requires_grad}
    assert kept == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(x.requires_grad for x in get_state_dict(nn.Conv2d(2, 2, 3)).values())


@pytest.mark.parametrize("make, error, why", [
    (lambda: nn.GroupNorm(3, 4), UsageError, "groups must divide"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), UsageError, "groups must divide"),
    (lambda: nn.Conv2d(2, 2, 3, padding="some"), UsageError, "'same' or 'valid'"),
    (lambda: nn.Conv2d(2, 2, 3, stride=2, padding="same"), UsageError, "stride 1"),
    (lambda: nn.LayerNorm(3)(Tensor(normal(2, 4))), ShapeError, "last axes"),
])
def test_errors(make, error, why):
    with pytest.raises(error, match=why): make()


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'Conv9d'"): nn.Conv9d
