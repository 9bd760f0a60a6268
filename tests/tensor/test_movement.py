"""Shapes: what moves no data is a view, what makes new values has NumPy's or torch's values and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import agree, data, same

from glassgrad import Tensor
from glassgrad.uop.errors import IndexError_, ShapeError, UsageError

VIEWS = [
    ("reshape", lambda x: x.reshape(4, 6)),
    ("reshape -1", lambda x: x.reshape(-1, 3)),
    ("permute", lambda x: x.permute(2, 0, 1)),
    ("T", lambda x: x.permute(2, 1, 0)),
    ("transpose", lambda x: x.transpose(0, 2)),
    ("flip 1", lambda x: x.flip(1)),
    ("flip 0 2", lambda x: x.flip((0, 2))),
    ("unsqueeze", lambda x: x.unsqueeze(-1)),
    ("squeeze", lambda x: x.unsqueeze(1).squeeze(1)),
    ("flatten", lambda x: x.flatten(1)),
    ("unflatten", lambda x: x.unflatten(2, (2, 2))),
    ("expand", lambda x: x.unsqueeze(1).expand(2, 5, 3, 4)),
    ("slice", lambda x: x[:, 1:3]),
    ("int", lambda x: x[1]),
    ("step", lambda x: x[:, :, ::2]),
    ("back", lambda x: x.flip(2)[:, :, 1:]),
    ("none", lambda x: x[None, ..., None]),
    ("narrow", lambda x: x.narrow(2, 1, 2)),
    ("movedim", lambda x: x.movedim(0, 2)),
    ("diagonal", lambda x: x.diagonal(0, 1, 2)),
    ("diagonal up", lambda x: x.diagonal(2, 1, 2)),
    ("diagonal down", lambda x: x.diagonal(-1, 1, 2)),
    ("diagonal 0 2", lambda x: x.diagonal(1, 0, 2)),
    ("unfold", lambda x: x.unfold(2, 2, 1)),
    ("unfold step", lambda x: x.unfold(2, 2, 2)),
    ("mT", lambda x: x.mT),
]


@pytest.mark.parametrize("name,f", VIEWS, ids=[v[0] for v in VIEWS])
def test_view_values_and_gradients(name, f):
    same(f, f, data(2, 3, 4))


@pytest.mark.parametrize("name,f", [v for v in VIEWS if v[0] not in ("expand", "unfold")], ids=lambda v: v if isinstance(v, str) else "")
def test_a_write_through_a_view_is_seen_by_both(name, f):
    x, y = data(2, 3, 4), torch.tensor(data(2, 3, 4))
    base = Tensor(x)
    view, other = f(base), f(y)
    view += 10
    if (
        name == "flatten" or not other._is_view() or other.data_ptr() < y.data_ptr() or name.startswith("flip") or name == "back"
    ):  # torch copied
        flat = np.arange(24, dtype="float32").reshape(2, 3, 4)
        places = f(torch.tensor(flat)).numpy().astype(int).ravel()
        want = x.ravel().copy()
        want[places] += 10
        want = want.reshape(2, 3, 4)
    else:
        other += 10
        want = y.numpy()
    agree(base, want)
    agree(view, f(torch.tensor(want)))
    base *= 2
    agree(view, f(torch.tensor(want * 2)))


@pytest.mark.parametrize("f", [lambda x: x.expand(3, 2), lambda x: x.unfold(0, 2, 1)], ids=["expand", "unfold"])
def test_views_whose_elements_share_memory_cannot_be_written(f):
    with pytest.raises(UsageError, match="one place"):
        f(Tensor([1.0, 2.0])).assign(Tensor.zeros(*f(Tensor([1.0, 2.0])).shape))


def test_views_of_views():
    x = data(6, 6)
    t, want = Tensor(x), x.copy()
    v, w = t[1:5].T[::2].flip(0), want[1:5].T[::2][::-1]
    agree(v, w)
    v[0, 1:3] = 7
    w[0, 1:3] = 7
    agree(t, want)
    v.T[1] += 100
    w.T[1] += 100
    agree(t, want)


def test_arithmetic_copies():
    t = Tensor([1.0, 2.0])
    y = t + 0
    y += 5
    assert t.tolist() == [1.0, 2.0]
    z = t.clone()
    z += 1
    assert t.tolist() == [1.0, 2.0] and z.tolist() == [2.0, 3.0]


NEW = [
    ("pad", lambda x: x.pad((1, 2, 0, 1)), lambda x: F.pad(x, (1, 2, 0, 1))),
    ("pad value", lambda x: x.pad((1, 1), value=3.0), lambda x: F.pad(x, (1, 1), value=3.0)),
    ("pad cuts", lambda x: x.pad((-1, 2)), lambda x: F.pad(x, (-1, 2))),
    ("pad pairs", lambda x: x.pad((None, (1, 0), (0, 2))), lambda x: F.pad(x, (0, 2, 1, 0))),
    ("pad reflect", lambda x: x.pad((2, 3), mode="reflect"), lambda x: F.pad(x, (2, 3), mode="reflect")),
    ("pad replicate", lambda x: x.pad((2, 3), mode="replicate"), lambda x: F.pad(x, (2, 3), mode="replicate")),
    ("pad circular", lambda x: x.pad((2, 3), mode="circular"), lambda x: F.pad(x, (2, 3), mode="circular")),
    ("repeat", lambda x: x.repeat(2, 1, 3), None),
    ("repeat more", lambda x: x.repeat(2, 2, 1, 1), None),
    ("repeat_interleave", lambda x: x.repeat_interleave(3, 1), None),
    ("repeat_interleave flat", lambda x: x.repeat_interleave(2), None),
    (
        "repeat_interleave each",
        lambda x: x.repeat_interleave(Tensor([1, 0, 2]) if isinstance(x, Tensor) else torch.tensor([1, 0, 2]), 1),
        None,
    ),
    ("roll", lambda x: x.roll(1, 1), None),
    ("roll two", lambda x: x.roll((1, -2), (0, 2)), None),
    ("roll flat", lambda x: x.roll(5), None),
    ("triu", lambda x: x.triu(), None),
    ("triu 1", lambda x: x.triu(1), None),
    ("tril", lambda x: x.tril(), None),
    ("tril -1", lambda x: x.tril(-1), None),
    ("diag", lambda x: x.flatten()[:4].diag(), None),
    ("diag 1", lambda x: x.flatten()[:4].diag(1), None),
    ("diag -2", lambda x: x.flatten()[:4].diag(-2), None),
    ("cat", lambda x: x.cat(x * 2, dim=1), lambda x: torch.cat([x, x * 2], 1)),
    ("cat last", lambda x: x.cat(x, x, dim=-1), lambda x: torch.cat([x, x, x], -1)),
    ("stack", lambda x: x.stack(x + 1), lambda x: torch.stack([x, x + 1])),
    ("stack last", lambda x: x.stack(x + 1, dim=-1), lambda x: torch.stack([x, x + 1], -1)),
    ("pad_to", lambda x: x.pad_to(None, 5, 6), lambda x: F.pad(x, (0, 2, 0, 2))),
]


@pytest.mark.parametrize("name,f,g", NEW, ids=[v[0] for v in NEW])
def test_new_values(name, f, g):
    same(f, g or f, data(2, 3, 4))


@pytest.mark.parametrize("mode", ["linear", "nearest", "nearest-exact"])
@pytest.mark.parametrize("size", [3, 5, 8, 16])
@pytest.mark.parametrize("align", [False, True])
def test_interpolate(mode, size, align):
    if align and mode != "linear":
        pytest.skip("corners are aligned in linear mode only")
    want = lambda x: F.interpolate(x, size=size, mode=mode, align_corners=align if mode == "linear" else None)
    same(lambda x: x.interpolate((size,), mode, align), want, data(2, 3, 8), rtol=1e-4, atol=1e-5)


def test_interpolate_two_axes():
    same(lambda x: x.interpolate((5, 9)), lambda x: F.interpolate(x, size=(5, 9), mode="bilinear"), data(2, 3, 4, 6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "formula,sizes",
    [
        ("a b c -> c b a", {}),
        ("a b c -> (a b) c", {}),
        ("a (b d) c -> a b (d c)", {"d": 3}),
        ("a b (c d) -> a d (b c)", {"c": 2}),
        ("... c -> c ...", {}),
        ("a b c -> a 1 (b c)", {}),
        ("a ... -> (a ...)", {}),
    ],
)
def test_rearrange(formula, sizes):
    einops = pytest.importorskip("einops")
    x = data(2, 3, 4)
    agree(Tensor(x).rearrange(formula, **sizes), einops.rearrange(x, formula, **sizes))


def test_rearrange_without_einops():
    x = data(2, 3, 4)
    agree(Tensor(x).rearrange("a b (c d) -> a d (b c)", c=2), x.reshape(2, 3, 2, 2).transpose(0, 3, 1, 2).reshape(2, 2, 6))
    agree(Tensor(x).rearrange("... c -> c ..."), x.transpose(2, 0, 1))
    for bad in ("a b -> b a", "a b c", "a b c -> a b", "a (b c -> a b c", "a b (c d) -> a b c d"):
        with pytest.raises(ShapeError):
            Tensor(x).rearrange(bad)


@pytest.mark.parametrize("sizes,dim", [(2, 0), (2, 2), ([1, 3], 2), (5, 1)])
def test_split(sizes, dim):
    x = data(4, 3, 4)
    for a, b in zip(Tensor(x).split(sizes, dim), torch.tensor(x).split(sizes, dim), strict=True):
        agree(a, b)


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7])
def test_chunk(chunks):
    x = data(7, 2)
    for a, b in zip(Tensor(x).chunk(chunks), torch.tensor(x).chunk(chunks), strict=True):
        agree(a, b)


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_meshgrid(indexing):
    x, y = data(3), data(4)
    for a, b in zip(Tensor(x).meshgrid(Tensor(y), indexing=indexing), np.meshgrid(x, y, indexing=indexing), strict=True):
        agree(a, b)


def test_cat_promotes():
    agree(Tensor([1]).cat(Tensor([1.5])), np.array([1, 1.5], dtype="float32"))
    agree(Tensor.zeros(0).cat(Tensor([1.5])), np.array([1.5], dtype="float32"))


@pytest.mark.parametrize(
    "f,error",
    [
        (lambda x: x.reshape(5, 5), ShapeError),
        (lambda x: x.reshape(-1, -1), ShapeError),
        (lambda x: x.expand(3, 3, 4), ShapeError),
        (lambda x: x.permute(0, 0, 1), IndexError_),
        (lambda x: x.permute(0, 1), IndexError_),
        (lambda x: x.transpose(0, 5), IndexError_),
        (lambda x: x.squeeze(9), IndexError_),
        (lambda x: x.flip(4), IndexError_),
        (lambda x: x.shrink(((0, 9), None, None)), ShapeError),
        (lambda x: x.cat(Tensor.ones(2, 3)), ShapeError),
        (lambda x: x.cat(Tensor.ones(3, 3, 4), dim=1), ShapeError),
        (lambda x: x.stack(Tensor.ones(3)), ShapeError),
        (lambda x: x.split([1, 1], 2), ShapeError),
        (lambda x: x.pad((1,)), ShapeError),
        (lambda x: x.pad((1, 1), mode="odd"), UsageError),
        (lambda x: x.pad((9, 9), mode="reflect"), ShapeError),
        (lambda x: x.repeat(2), ShapeError),
        (lambda x: x.unfold(1, 9), ShapeError),
        (lambda x: x.unflatten(1, (2, 2)), ShapeError),
        (lambda x: x.diagonal(0, 1, 1), IndexError_),
        (lambda x: x.interpolate((3,), mode="sinc"), UsageError),
        (lambda x: x.reshape(2, 3.5), ShapeError),
        (lambda x: x[0, 0].triu(), ShapeError),
    ],
)
def test_mistakes_are_named(f, error):
    with pytest.raises(error) as e:
        f(Tensor.ones(2, 3, 4))
    assert "\n  " in str(e.value), "the message says what was asked and what was found"


def test_sizes_and_facts():
    x = Tensor.ones(2, 3, 4, dtype="float16")
    assert (x.ndim, x.numel(), x.size(), x.size(1), x.element_size(), x.nbytes(), len(x)) == (3, 24, (2, 3, 4), 3, 2, 48, 2)
    assert [t.shape for t in x] == [(3, 4), (3, 4)]
    assert x.expand_as(Tensor.ones(5, 2, 3, 4)).shape == (5, 2, 3, 4) and x.view(24).view_as(x).shape == (2, 3, 4)
    assert x.shrink_to(1, None, 2).shape == (1, 3, 2)
