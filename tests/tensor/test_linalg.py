"""Products, convolutions, pooling: values and gradients as torch has them, for many shapes and options."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import agree, data, same

from glassgrad import Tensor, Variable, dtypes
from glassgrad.uop.errors import ShapeError, UsageError

SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((1, 1), (1, 1)),
    ((7, 1), (1, 6)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((33, 65), (65, 17)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(shapes):
    same(lambda x, y: x @ y, lambda x, y: x @ y, *[data(*s, seed=i) for i, s in enumerate(shapes)], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float16", "float64"])
def test_matmul_dtypes(dtype):
    x, y = data(6, 9, lo=0, hi=3, dtype=dtype), data(9, 5, lo=0, hi=3, seed=4, dtype=dtype)
    out = Tensor(x) @ Tensor(y)
    want = (x.astype("float64") @ y.astype("float64")).astype(dtype)
    agree(out, want, rtol=2e-3 if dtype == "float16" else 1e-6)


def test_matmul_accumulates_small_floats_in_float32():
    assert (Tensor.ones(1, 5000, dtype="float16") @ Tensor.ones(5000, 1, dtype="float16")).item() == 5000
    assert (Tensor.ones(2, 3, dtype="bfloat16") @ Tensor.ones(3, 2, dtype="float32")).dtype is dtypes.float32
    assert Tensor.ones(2, 3, dtype="float16").matmul(Tensor.ones(3, 2, dtype="float16"), dtype="float32").dtype is dtypes.float32


def test_products_from_either_side():
    x, y = data(3, 4), data(4, 2)
    agree(x @ Tensor(y), x @ y)
    agree(Tensor(x) @ y, x @ y)
    agree(Tensor(x).dot(Tensor(y)), x @ y)
    agree(Tensor(x[0]).outer(Tensor(y[:, 0])), np.outer(x[0], y[:, 0]))
    z = Tensor(x)
    z @= Tensor(np.eye(4, dtype="float32") * 2)
    agree(z, x * 2)


def test_linear():
    x, w, b = data(5, 3), data(3, 4), data(4)
    same(lambda x, w, b: x.linear(w, b), lambda x, w, b: x @ w + b, x, w, b)
    agree(Tensor(x).linear(Tensor(x[0])), x * x[0])


EINSUMS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk", (3, 4), (4, 5)),
    ("ij->ji", (3, 4)),
    ("ij->", (3, 4)),
    ("ij->j", (3, 4)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("iij->ij", (3, 3, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->", (4,), (4,)),
    ("ij,ij->i", (3, 4), (3, 4)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    ("...ij,jk", (2, 3, 4), (4, 5)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("ijk,ilm,njm,nlk,abc->", (2, 3, 4), (2, 5, 6), (7, 3, 6), (7, 5, 4), (1, 2, 2)),
    ("i...->...", (3, 2, 4)),
    ("ij,kj->ik", (3, 4), (5, 4)),
    ("ab,cd->abcd", (2, 3), (4, 5)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=[e[0] for e in EINSUMS])
def test_einsum(case):
    formula, *shapes = case
    same(
        lambda *xs: Tensor.einsum(formula, *xs),
        lambda *xs: torch.einsum(formula, *xs),
        *[data(*s, seed=i) for i, s in enumerate(shapes)],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "formula,shapes",
    [
        ("ij,jk->ik", ((3, 4), (5, 6))),
        ("ij->k", ((3, 4),)),
        ("ij,jk->ik", ((3, 4),)),
        ("ij->ijj", ((3, 4),)),
        ("ijk->i", ((3, 4),)),
        ("i1->i", ((3, 4),)),
    ],
)
def test_einsum_mistakes(formula, shapes):
    with pytest.raises(ShapeError):
        Tensor.einsum(formula, *[Tensor.ones(*s) for s in shapes])


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 4, 3)], ids=str)
def test_qr(shape):
    x = data(*shape)
    q, r = (t.numpy() for t in Tensor(x).qr())
    np.testing.assert_allclose(q @ r, x, atol=1e-5)
    np.testing.assert_allclose(np.swapaxes(q, -1, -2) @ q, np.broadcast_to(np.eye(shape[-2]), q.shape), atol=1e-5)
    assert np.allclose(np.tril(r, -1), 0)


def test_matmul_mistakes_are_named():
    with pytest.raises(
        ShapeError,
        match=r"(?s)matmul of x \(3, 4\) f32 and w \(3, 4\) f32.*last axis of x is 4.*second-to-last axis of w is 3.*made at .*test_linalg.py.*x.matmul\(w.T\)",
    ):
        Tensor.ones(3, 4) @ Tensor.ones(3, 4)
    with pytest.raises(ShapeError):
        Tensor(1.0) @ Tensor.ones(3)
    with pytest.raises(ShapeError):
        Tensor.ones(2, 3, 4) @ Tensor.ones(3, 4, 5)


CONVS = [  # x, weight, options
    ((2, 3, 8, 7), (4, 3, 3, 3), {}),
    ((2, 3, 8, 7), (4, 3, 3, 3), {"stride": 2}),
    ((2, 3, 8, 7), (4, 3, 3, 3), {"padding": 1}),
    ((2, 3, 8, 7), (4, 3, 3, 3), {"dilation": 2}),
    ((2, 4, 8, 8), (6, 2, 3, 3), {"groups": 2}),
    ((2, 4, 8, 8), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((1, 1, 5, 5), (1, 1, 5, 5), {}),
    ((2, 3, 8, 8), (4, 3, 1, 1), {"stride": 2}),
    ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    ((2, 3, 16), (4, 3, 5), {"stride": 3, "padding": 2}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"stride": 2}),
    ((2, 4, 11, 9), (4, 2, 4, 3), {"groups": 2, "stride": 2, "padding": 2, "dilation": 2}),
]


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_conv(case, bias):
    xs, ws, more = case
    want = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(xs)]
    arrays = [data(*xs), data(*ws, seed=3), *([data(ws[0], seed=5)] if bias else [])]
    same(lambda x, w, b=None: x.conv2d(w, b, **more), lambda x, w, b=None: want(x, w, b, **more), *arrays, rtol=1e-4, atol=1e-4)


def test_conv_padding_forms():
    x, w = data(1, 2, 6, 6), data(3, 2, 3, 3)
    same(lambda x, w: x.conv2d(w, padding=(1, 2, 0, 1)), lambda x, w: F.conv2d(F.pad(x, (1, 2, 0, 1)), w), x, w, rtol=1e-4, atol=1e-4)
    same(lambda x, w: x.conv2d(w, padding="same"), lambda x, w: F.conv2d(x, w, padding="same"), x, w, rtol=1e-4, atol=1e-4)
    same(lambda x, w: x.conv2d(w, padding="valid"), lambda x, w: F.conv2d(x, w), x, w, rtol=1e-4, atol=1e-4)
    same(lambda x, w: x.conv2d(w, padding=((1, 0), (0, 2))), lambda x, w: F.conv2d(F.pad(x, (0, 2, 1, 0)), w), x, w, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError):
        Tensor(x).conv2d(Tensor(w), padding="full")


def test_conv_of_halves_sums_in_float32():
    out = Tensor.ones(1, 4096, 1, 1, dtype="float16").conv2d(Tensor.ones(1, 4096, 1, 1, dtype="float16"))
    assert out.dtype is dtypes.float16 and out.item() == 4096


@pytest.mark.parametrize(
    "case",
    [
        ((2, 4, 5, 6), (4, 3, 3, 3), {}),
        ((2, 4, 5, 6), (4, 3, 3, 3), {"stride": 2}),
        ((2, 4, 5, 6), (4, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        ((2, 4, 5, 6), (4, 3, 3, 2), {"dilation": 2, "padding": 1}),
        ((2, 4, 5, 6), (4, 3, 2, 2), {"groups": 2, "stride": (2, 3)}),
        ((2, 4, 7), (4, 3, 4), {"stride": 3}),
        ((1, 2, 3, 3, 3), (2, 2, 2, 2, 2), {"stride": 2}),
    ],
    ids=str,
)
def test_conv_transpose(case):
    xs, ws, more = case
    want = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[len(xs)]
    arrays = [data(*xs), data(*ws, seed=3), data(ws[1] * more.get("groups", 1), seed=5)]
    same(lambda x, w, b: x.conv_transpose2d(w, b, **more), lambda x, w, b: want(x, w, b, **more), *arrays, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "x,w,more,text",
    [
        ((1, 3, 5, 5), (2, 4, 3, 3), {}, "3 channels"),
        ((1, 3, 5, 5), (2, 3, 7, 7), {}, "shorter than a window"),
        ((1, 3, 5), (2, 3, 3, 3), {}, "equally many"),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, "no multiple"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"stride": (1, 2, 3)}, "each of 2 axes"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"padding": (1, 2, 3)}, "there must be one number"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"stride": 0}, "at least 1"),
    ],
)
def test_conv_mistakes_are_named(x, w, more, text):
    with pytest.raises(ShapeError, match=text):
        Tensor.ones(*x).conv2d(Tensor.ones(*w), **more)


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": (3, 2), "stride": (2, 1)},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1},
    {"kernel_size": 4, "stride": 3, "ceil_mode": True},
]


@pytest.mark.parametrize("more", POOLS, ids=str)
def test_max_pool(more):
    same(lambda x: x.max_pool2d(**more), lambda x: F.max_pool2d(x, **more), data(2, 3, 9, 8))
    ours, theirs = (
        Tensor(data(2, 3, 9, 8)).max_pool2d(**more, return_indices=True),
        F.max_pool2d(torch.tensor(data(2, 3, 9, 8)), **more, return_indices=True),
    )
    agree(ours[1], theirs[1].int())


@pytest.mark.parametrize("more", POOLS, ids=str)
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool(more, count_include_pad):
    same(
        lambda x: x.avg_pool2d(**more, count_include_pad=count_include_pad),
        lambda x: F.avg_pool2d(x, **more, count_include_pad=count_include_pad),
        data(2, 3, 9, 8),
        atol=1e-5,
    )


def test_more_pooling():
    same(lambda x: x.max_pool2d(2, dilation=2, stride=1), lambda x: F.max_pool2d(x, 2, dilation=2, stride=1), data(2, 3, 9, 8))
    same(lambda x: x.max_pool2d((3,)), lambda x: F.max_pool1d(x, 3), data(2, 3, 9))
    same(lambda x: x.avg_pool2d((2, 2, 2)), lambda x: F.avg_pool3d(x, 2), data(2, 3, 4, 4, 4), atol=1e-5)
    x = torch.tensor(data(1, 2, 6, 6))
    values, places = F.max_pool2d(x, 2, return_indices=True)
    agree(Tensor(values.numpy()).max_unpool2d(Tensor(places.numpy()), 2), F.max_unpool2d(values, places, 2))
    agree(Tensor([[1, 5, 2, 8]]).max_pool2d((2,)), [[5, 8]], dtype=False)
    with pytest.raises(ShapeError, match="shorter than a window"):
        Tensor.ones(1, 1, 2, 2).max_pool2d(3)


def test_sums_within_sums_below_a_gathered_masked_operand():
    """Two readers of one product inside another sum: each needs loops of its own, and so do the loops within those."""
    rng = np.random.default_rng(0)
    a, v, g, size = (rng.random(s).astype("f4") for s in ((5, 3), (3, 3), (3, 3), (3,)))
    order, k = np.array([2, 0, 1]), 1
    p = v * 1.5 - (v @ g) * 0.5
    want = (a @ p)[:, order] / size
    want = (np.where(np.arange(5)[:, None] >= k, want[:, k:k + 1], 0) * want).sum(0)
    ta, tv, tg, ts = (Tensor(x).realize() for x in (a, v, g, size))
    known = ts > ts[:1] * 1e-6
    x = (ta @ (tv * 1.5 - (tv @ tg) * 0.5)).gather(-1, Tensor(order).expand(5, 3))
    x = known.where(x / known.where(ts, 1.0), 0.0)
    at = Variable("k", 0, 2).bind(k)
    got = ((Tensor.arange(5).reshape(5, 1) >= Tensor(at)).where(x[..., at].unsqueeze(-1), 0.0) * x).sum(0)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4)
