"""Multi-head attention and transformers: as torch has them, with the same weights."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from against_torch import compare, share_weights

from glassgrad import nn
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

RNG = np.random.default_rng(0)


def normal(*shape): return RNG.normal(size=shape).astype("float32")


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bias": False}, {"kdim": 3, "vdim": 5}], ids=str)
def test_multihead_attention(options):
    ours, theirs = nn.MultiheadAttention(8, 2, **options), torch.nn.MultiheadAttention(8, 2, **options)
    share_weights(ours, theirs)
    shapes = [(4, 2), (5, 2), (5, 2)] if not options.get("batch_first") else [(2, 4), (2, 5), (2, 5)]
    widths = (8, options.get("kdim", 8), options.get("vdim", 8))
    compare(ours, theirs, *[normal(*s, w) for s, w in zip(shapes, widths)], model=ours, torch_model=theirs)


def test_masks():
    ours, theirs = nn.MultiheadAttention(8, 2, batch_first=True), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    share_weights(ours, theirs)
    x, padding, causal = normal(2, 4, 8), np.array([[0, 0, 0, 1], [0, 0, 0, 0]], bool), np.triu(np.ones((4, 4), bool), 1)
    for weights in (True, False):
        compare(lambda x, w=weights: ours(x, x, x, Tensor(padding), w, Tensor(causal), average_attn_weights=False)[0],
                lambda x, w=weights: theirs(x, x, x, torch.tensor(padding), w, torch.tensor(causal), average_attn_weights=False)[0], x)
    out = ours(Tensor(x), Tensor(x), Tensor(x), is_causal=True, need_weights=False)[0]
    wanted = theirs(*[torch.tensor(x)] * 3, attn_mask=torch.tensor(causal), need_weights=False)[0]
    np.testing.assert_allclose(out.numpy(), wanted.detach().numpy(), atol=2e-5)
    single = ours(Tensor(x[0]), Tensor(x[0]), Tensor(x[0]))
    for o, w in zip(single, theirs(*[torch.tensor(x[0])] * 3)): np.testing.assert_allclose(o.numpy(), w.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers(norm_first):
    facts = {"dropout": 0.0, "norm_first": norm_first, "batch_first": True, "activation": "gelu"}
    if norm_first:
        ours, theirs = nn.TransformerEncoderLayer(8, 2, 16, **facts), torch.nn.TransformerEncoderLayer(8, 2, 16, **facts)
        share_weights(ours, theirs)
        compare(ours, theirs, normal(2, 4, 8), model=ours, torch_model=theirs, tol=1e-4)
        return
    ours, theirs = nn.TransformerDecoderLayer(8, 2, 16, **facts), torch.nn.TransformerDecoderLayer(8, 2, 16, **facts)
    share_weights(ours, theirs)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    compare(lambda x, m: ours(x, m, mask), lambda x, m: theirs(x, m, torch.tensor(mask.numpy())), normal(2, 3, 8), normal(2, 4, 8),
            tol=1e-4)


def test_whole():
    facts = dict(d_model=8, nhead=2, num_encoder_layers=2, num_decoder_layers=1, dim_feedforward=12, dropout=0.0)
    ours, theirs = nn.Transformer(**facts), torch.nn.Transformer(**facts)
    share_weights(ours, theirs)
    src, tgt = normal(4, 2, 8), normal(3, 2, 8)
    np.testing.assert_allclose(ours(Tensor(src), Tensor(tgt)).numpy(), theirs(torch.tensor(src), torch.tensor(tgt)).detach().numpy(),
                               atol=1e-4)


def test_mistakes():
    with pytest.raises(UsageError, match="heads must divide"): nn.MultiheadAttention(8, 3)
    with pytest.raises(ShapeError, match="8 wide"): nn.MultiheadAttention(8, 2)(*[Tensor.ones(3, 2, 6)] * 3)
    with pytest.raises(UsageError, match="'relu', 'gelu'"): nn.TransformerEncoderLayer(8, 2, activation="silly")
