"""Recurrent layers: as torch has them, with the same weights."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from against_torch import compare, share_weights

from glassgrad import GlobalCounters, nn
from glassgrad.nn.state import get_state_dict
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

RNG = np.random.default_rng(0)
CASES = [
    ("RNN", (3, 4), {}, (3, 2, 3)),
    ("RNN", (3, 4), {"nonlinearity": "relu", "bias": False, "batch_first": True}, (2, 2, 3)),
    ("LSTM", (3, 4), {"num_layers": 2}, (2, 2, 3)),
    ("GRU", (3, 4), {"bidirectional": True}, (3, 2, 3)),
    ("GRU", (3, 4), {}, (2, 3)),
]


@pytest.mark.parametrize("name,sizes,options,shape", CASES, ids=[f"{c[0]}-{c[2]}-{len(c[3])}" for c in CASES])
def test_as_torch(name, sizes, options, shape):
    ours, theirs = getattr(nn, name)(*sizes, **options), getattr(torch.nn, name)(*sizes, **options)
    share_weights(ours, theirs)
    compare(ours, theirs, RNG.normal(size=shape).astype("float32"), model=ours, torch_model=theirs)


def test_given_states():
    ours, theirs = nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    share_weights(ours, theirs)
    x, h, c = (RNG.normal(size=s).astype("float32") for s in ((2, 2, 3), (1, 2, 4), (1, 2, 4)))
    compare(lambda x, h, c: ours(x, (h, c)), lambda x, h, c: theirs(x, (h, c)), x, h, c)


def test_cell():
    ours, theirs = nn.RNNCell(3, 4), torch.nn.RNNCell(3, 4)
    share_weights(ours, theirs)
    compare(lambda x: ours(x, ours(x)), lambda x: theirs(x, theirs(x)), RNG.normal(size=(2, 3)).astype("float32"), model=ours,
            torch_model=theirs)


def test_steps_are_one_program():
    """A longer sequence takes more launches, not more programs."""
    compiled = []
    for length in (4, 12):
        layer = nn.GRU(3, 5)
        x = Tensor(RNG.normal(size=(length, 2, 3)).astype("float32"))
        Tensor.realize(x, *get_state_dict(layer).values())
        GlobalCounters.reset()
        layer(x)[1].realize()
        compiled.append(GlobalCounters.compile_count)
    assert abs(compiled[1] - compiled[0]) <= 2


def test_dropout_between_layers_only_in_training():
    layer, x = nn.LSTM(3, 16, num_layers=2, dropout=0.5), Tensor.ones(1, 4, 3)
    assert layer(x)[0].tolist() == layer(x)[0].tolist()
    with Tensor.train(): assert layer(x)[0].tolist() != layer(x)[0].tolist()


def test_mistakes():
    with pytest.raises(ShapeError, match="batch_first"): nn.GRU(3, 4)(Tensor.ones(2, 2, 5))
    with pytest.raises(ShapeError, match="there must be 2 of"): nn.LSTM(3, 4)(Tensor.ones(2, 2, 3), Tensor.ones(1, 2, 4))
    with pytest.raises(UsageError, match="'tanh' or 'relu'"): nn.RNN(3, 4, nonlinearity="sin")
