"""Recurrent: layers that read a sequence step by step. Names of weights are PyTorch's.

All steps are one program, launched once a step: the number of the step is a Variable. Its gradient is that of a plain slice.
"""
from __future__ import annotations

import math
from typing import Any

from glassgrad.tensor.factor import steps
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

State = tuple[Tensor, ...]


class Recurrent:
    """Base of RNN, LSTM and GRU: layers and directions; a class gives `gates`, `states` and `cell`.

    shapes:  x (L, N, input_size), or (N, L, input_size) with batch_first, or (L, input_size); state (num_layers * directions, N,
             hidden_size) each
    returns: (outputs (L, N, directions * hidden_size), last state), as PyTorch's
    errors:  ShapeError if the sizes do not fit
    """
    gates, states = 1, 1

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0,
                 bidirectional: bool = False) -> None:
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout = batch_first, dropout
        self.directions = 2 if bidirectional else 1
        bound = 1 / math.sqrt(hidden_size)
        def weight(*shape: int) -> Tensor: return Tensor.uniform(*shape, low=-bound, high=bound, requires_grad=True)
        for layer, name in self.suffixes():
            rows, width = self.gates * hidden_size, input_size if layer == 0 else hidden_size * self.directions
            setattr(self, f"weight_ih_{name}", weight(rows, width))
            setattr(self, f"weight_hh_{name}", weight(rows, hidden_size))
            setattr(self, f"bias_ih_{name}", weight(rows) if bias else None)
            setattr(self, f"bias_hh_{name}", weight(rows) if bias else None)

    def suffixes(self) -> list[tuple[int, str]]:
        """(layer, what its weights' names end in), in the order of states."""
        return [(k, f"l{k}{'_reverse' * back}") for k in range(self.num_layers) for back in range(self.directions)]

    def cell(self, x: Tensor, h: Tensor, state: State) -> State:
        """The next state from the products of the step's input and of the hidden state with their weights (N, gates * hidden_size)."""
        raise NotImplementedError(f"{type(self).__name__}.cell")

    def __call__(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        single = x.ndim == 2
        if single: x = x.unsqueeze(1)
        elif self.batch_first: x = x.transpose(0, 1)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ShapeError(f"{type(self).__name__}({self.input_size}, {self.hidden_size}) of x {x.shape}\n"
                             f"  x must be (L, N, {self.input_size}), or (N, L, {self.input_size}) with batch_first")
        shape = (len(self.suffixes()), x.shape[1], self.hidden_size)
        given = (state,) if isinstance(state, Tensor) else state
        if given is None: given = (Tensor.zeros(*shape, dtype=x.dtype, device=x.device),) * self.states
        given = tuple(s.unsqueeze(1) if single and s.ndim == 2 else s for s in given)
        if len(given) != self.states or any(s.shape != shape for s in given):
            raise ShapeError(f"{type(self).__name__} of x {x.shape} with states {', '.join(str(s.shape) for s in given)}\n"
                             f"  there must be {self.states} of {shape}")
        ends: list[State] = []
        for layer in range(self.num_layers):
            outs = []
            for k in range(self.directions):
                number = layer * self.directions + k
                rows, last = self.run(x, self.suffixes()[number][1], tuple(s[number] for s in given), k == 1)
                outs.append(rows)
                ends.append(last)
            x = outs[0] if len(outs) == 1 else outs[0].cat(outs[1], dim=-1)
            if self.dropout and layer < self.num_layers - 1: x = x.dropout(self.dropout)
        final = tuple(s[0].stack(*s[1:]) for s in zip(*ends))
        if single: x, final = x.squeeze(1), tuple(s.squeeze(1) for s in final)
        elif self.batch_first: x = x.transpose(0, 1)
        return x, final[0] if self.states == 1 else final

    def run(self, x: Tensor, name: str, state: State, backwards: bool) -> tuple[Tensor, State]:
        """(outputs of one layer in one direction, its last state)"""
        weights, bias = getattr(self, f"weight_ih_{name}"), getattr(self, f"bias_ih_{name}")
        recurrent, more = getattr(self, f"weight_hh_{name}").transpose(0, 1), getattr(self, f"bias_hh_{name}")
        inputs = x.linear(weights.transpose(0, 1), bias).contiguous()          # of all steps at once
        rows: dict[int, Tensor] = {}
        numbers = steps(x.shape[0])
        for t in reversed(range(len(numbers))) if backwards else range(len(numbers)):
            now = inputs[numbers[t]].with_gradient_of(inputs[t])
            state = tuple(s.contiguous() for s in self.cell(now, state[0].linear(recurrent, more), state))
            rows[t] = state[0]
        return rows[0].stack(*[rows[t] for t in range(1, len(numbers))]) if rows else inputs[:, :, :self.hidden_size], state


class RNN(Recurrent):
    """h = tanh(W x + b + U h + c), or relu.

    errors:  UsageError for another nonlinearity
    source:  torch.nn.RNN
    """
    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
                 batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False) -> None:
        if nonlinearity not in ("tanh", "relu"): raise UsageError(f"RNN with nonlinearity={nonlinearity!r}\n  try: 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
    def cell(self, x: Tensor, h: Tensor, state: State) -> State: return (getattr(x + h, self.nonlinearity)(),)


class LSTM(Recurrent):
    """Long short-term memory; its state is (h, c).

    source:  S. Hochreiter, J. Schmidhuber (1997); torch.nn.LSTM
    """
    gates, states = 4, 2
    def cell(self, x: Tensor, h: Tensor, state: State) -> State:
        i, f, g, o = (x + h).chunk(4, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRU(Recurrent):
    """Gated recurrent units.

    source:  K. Cho et al. (2014); torch.nn.GRU
    """
    gates = 3
    def cell(self, x: Tensor, h: Tensor, state: State) -> State:
        (r, z, n), (hr, hz, hn) = x.chunk(3, dim=1), h.chunk(3, dim=1)
        z = (z + hz).sigmoid()
        return ((1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * state[0],)


class RNNCell:
    """One step of RNN: (x, h) -> h.

    shapes:  x (N, input_size), h (N, hidden_size)
    errors:  UsageError for another nonlinearity
    source:  torch.nn.RNNCell
    """
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh") -> None:
        if nonlinearity not in ("tanh", "relu"): raise UsageError(f"RNNCell with nonlinearity={nonlinearity!r}\n  try: 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih, self.weight_hh = (Tensor.uniform(hidden_size, n, low=-bound, high=bound, requires_grad=True)
                                          for n in (input_size, hidden_size))
        self.bias_ih, self.bias_hh = (Tensor.uniform(hidden_size, low=-bound, high=bound, requires_grad=True) if bias else None
                                      for _ in range(2))

    def __call__(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        if h is None: h = Tensor.zeros(x.shape[0], self.weight_hh.shape[1], dtype=x.dtype, device=x.device)
        return getattr(x.linear(self.weight_ih.transpose(0, 1), self.bias_ih) + h.linear(self.weight_hh.transpose(0, 1), self.bias_hh),
                       self.nonlinearity)()
