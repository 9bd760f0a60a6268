"""Init: first values of weights, assigned in place. Each function gives the tensor back. Names and meanings are torch.nn.init's."""
from __future__ import annotations

import math
from typing import Any

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

GAINS = {"linear": 1.0, "sigmoid": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """How much larger weights before this function must be for the variance to stay: for "leaky_relu" `param` is its slope.

    errors:  UsageError for another name
    """
    if nonlinearity == "leaky_relu": return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS: raise UsageError(f"calculate_gain({nonlinearity!r})\n  try: one of leaky_relu, {', '.join(GAINS)}")
    return GAINS[nonlinearity]


def fans(x: Tensor) -> tuple[int, int]:
    """(inputs, outputs) that an element of the result, or of the source, of these weights has to do with.

    errors:  ShapeError below two axes
    """
    if x.ndim < 2:
        raise ShapeError(f"the fans of weights {x.shape}\n  weights have an output axis, an input axis and perhaps a window behind")
    window = math.prod(x.shape[2:])
    return x.shape[1] * window, x.shape[0] * window


def _put(x: Tensor, value: Tensor) -> Tensor: return x.assign(value.cast(x.dtype).detach())
def _more(x: Tensor, generator: Any) -> dict[str, Any]: return {"device": x.device, "generator": generator}


def uniform_(x: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Evenly from [a, b)."""
    return _put(x, Tensor.uniform(*x.shape, low=a, high=b, **_more(x, generator)))
def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal numbers."""
    return _put(x, Tensor.normal(*x.shape, mean=mean, std=std, **_more(x, generator)))
def trunc_normal_(x: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None) -> Tensor:
    """Normal numbers that lie from a to b."""
    return _put(x, Tensor.truncated_normal(*x.shape, mean=mean, std=std, a=a, b=b, **_more(x, generator)))
def constant_(x: Tensor, val: float) -> Tensor: return _put(x, x.full_like(val))
def ones_(x: Tensor) -> Tensor: return constant_(x, 1.0)
def zeros_(x: Tensor) -> Tensor: return constant_(x, 0.0)


def eye_(x: Tensor) -> Tensor:
    """The identity.

    errors:  ShapeError for other than two axes
    """
    if x.ndim != 2: raise ShapeError(f"eye_ of {x.shape}\n  it must be a matrix")
    return _put(x, Tensor.eye(*x.shape, device=x.device))


def dirac_(x: Tensor, groups: int = 1) -> Tensor:
    """Convolution weights that pass their input on: 1 in the middle of the window from input channel i to output channel i of each group.

    errors:  ShapeError for other than 3 to 5 axes, or if groups do not divide the outputs
    """
    if not 3 <= x.ndim <= 5 or x.shape[0] % groups:
        raise ShapeError(f"dirac_ of {x.shape} in {groups} groups\n"
                         f"  it must be the weights of a convolution, with a multiple of {groups} outputs")
    outs, ins, *window = x.shape
    middle = Tensor.eye(outs // groups, ins).repeat(groups, 1).reshape(outs, ins, *[1] * len(window))
    return _put(x, middle.pad([(0, 0), (0, 0), *[(n // 2, n - 1 - n // 2) for n in window]]).to(x.device))


def xavier_uniform_(x: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Evenly from ±gain sqrt(6 / (fan in + fan out)) (X. Glorot, Y. Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(x)))
    return uniform_(x, -bound, bound, generator)
def xavier_normal_(x: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with deviation gain sqrt(2 / (fan in + fan out))."""
    return normal_(x, 0.0, gain * math.sqrt(2 / sum(fans(x))), generator)
def kaiming_uniform_(x: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Evenly from ±gain sqrt(3 / fan) (K. He et al., 2015)."""
    bound = math.sqrt(3) * _deviation(x, a, mode, nonlinearity)
    return uniform_(x, -bound, bound, generator)
def kaiming_normal_(x: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Normal with deviation gain / sqrt(fan)."""
    return normal_(x, 0.0, _deviation(x, a, mode, nonlinearity), generator)


def _deviation(x: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"): raise UsageError(f"kaiming with mode={mode!r}\n  try: 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(x)[mode == "fan_out"])


def orthogonal_(x: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Rows (or columns, if there are more rows) orthogonal, with norm gain; axes behind the first count as one (A. Saxe et al., 2013).

    errors:  ShapeError below two axes
    """
    if x.ndim < 2: raise ShapeError(f"orthogonal_ of {x.shape}\n  there must be at least two axes")
    rows, cols = x.shape[0], math.prod(x.shape[1:])
    q, r = Tensor.randn(max(rows, cols), min(rows, cols), **_more(x, generator)).qr("reduced")
    q = q * r.diagonal().sign()                    # makes every orthogonal matrix equally likely
    return _put(x, (q if rows >= cols else q.T).reshape(x.shape) * gain)


def sparse_(x: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal numbers, of which in every column a share is zero.

    errors:  ShapeError for other than two axes
    """
    if x.ndim != 2: raise ShapeError(f"sparse_ of {x.shape}\n  it must be a matrix")
    order = Tensor.rand(*x.shape, **_more(x, generator)).argsort(0).argsort(0)
    return _put(x, (order < math.ceil(sparsity * x.shape[0])).where(0.0, Tensor.normal(*x.shape, std=std, **_more(x, generator))))
