"""Layers: plain classes that hold weights and are called with a tensor. No base class: anything with tensors in it is a model.

Weights start as in PyTorch (uniform within 1/sqrt(fan-in)), the names of weights are PyTorch's too, so its checkpoints fit.
What a layer learns has requires_grad=True; what it only keeps (running statistics) has False.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import ShapeError, UsageError

Sizes = int | Sequence[int]


class Linear:
    """x @ weight.T + bias over the last axis.

    shapes:  x (..., in_features) -> (..., out_features); weight (out_features, in_features), bias (out_features,)
    source:  torch.nn.Linear
    """
    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = _bound(in_features)
        self.weight = _uniform(bound, out_features, in_features)
        self.bias = _uniform(bound, out_features) if bias else None

    def __call__(self, x: Tensor) -> Tensor: return x.linear(self.weight.transpose(0, 1), self.bias)


class Conv2d:
    """Convolution over the axes after the channels; how many there are, `kernel_size` says (an int means two).

    shapes:  x (N, in_channels, *spatial); weight (out_channels, in_channels // groups, *kernel_size), bias (out_channels,)
    errors:  UsageError if groups do not divide the channels or padding is a word other than "same" and "valid"
    source:  torch.nn.Conv2d
    """
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
                 dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        self.kernel_size = _sizes(kernel_size, 2)
        _check_groups(in_channels, out_channels, groups)
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = _same(self.kernel_size, dilation, stride, padding) if isinstance(padding, str) else padding
        bound = _bound(in_channels // groups * math.prod(self.kernel_size))
        self.weight = _uniform(bound, out_channels, in_channels // groups, *self.kernel_size)
        self.bias = _uniform(bound, out_channels) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return x.conv2d(self.weight, self.bias, self.groups, self.stride, self.dilation, self.padding)


class Conv1d(Conv2d):
    """Convolution over one axis: x (N, in_channels, L)."""
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
                 dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, _sizes(kernel_size, 1), stride, padding, dilation, groups, bias)


class Conv3d(Conv2d):
    """Convolution over three axes: x (N, in_channels, D, H, W)."""
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
                 dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, _sizes(kernel_size, 3), stride, padding, dilation, groups, bias)


class ConvTranspose2d:
    """The transpose of Conv2d: what spreads each element over a window. Used to make images larger.

    shapes:  x (N, in_channels, *spatial); weight (in_channels, out_channels // groups, *kernel_size), bias (out_channels,)
    source:  torch.nn.ConvTranspose2d
    """
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
                 output_padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        self.kernel_size = _sizes(kernel_size, 2)
        _check_groups(in_channels, out_channels, groups)
        self.stride, self.padding, self.output_padding, self.dilation, self.groups = stride, padding, output_padding, dilation, groups
        bound = _bound(out_channels // groups * math.prod(self.kernel_size))
        self.weight = _uniform(bound, in_channels, out_channels // groups, *self.kernel_size)
        self.bias = _uniform(bound, out_channels) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return x.conv_transpose2d(self.weight, self.bias, groups=self.groups, stride=self.stride, dilation=self.dilation,
                                  padding=self.padding, output_padding=self.output_padding)


class ConvTranspose1d(ConvTranspose2d):
    """ConvTranspose2d over one axis."""
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
                 output_padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, _sizes(kernel_size, 1), stride, padding, output_padding, dilation, groups, bias)


class ConvTranspose3d(ConvTranspose2d):
    """ConvTranspose2d over three axes."""
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
                 output_padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, _sizes(kernel_size, 3), stride, padding, output_padding, dilation, groups, bias)


class BatchNorm:
    """Normalise each channel over the batch: by the batch's statistics in training, by the running ones otherwise.

    shapes:  x (N, num_features, ...) -> the same; weight, bias, running_mean, running_var (num_features,)
    source:  torch.nn.BatchNorm2d
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = True, track_running_stats: bool = True, momentum: float = 0.1
    ) -> None:
        self.num_features, self.eps, self.track_running_stats, self.momentum = num_features, eps, track_running_stats, momentum
        self.weight, self.bias = (_ones(num_features), _zeros(num_features)) if affine else (None, None)
        if track_running_stats:
            self.num_batches_tracked = _kept(Tensor.zeros(dtype=dtypes.int64))
            self.running_mean, self.running_var = _kept(Tensor.zeros(num_features)), _kept(Tensor.ones(num_features))

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ShapeError(f"BatchNorm({self.num_features}) of x {x.shape}\n  axis 1 of x must be the {self.num_features} channels")
        mean, var = self.statistics(x) if Tensor.training or not self.track_running_stats else (self.running_mean, self.running_var)
        return x.batchnorm(self.weight, self.bias, mean, (var + self.eps).rsqrt())

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the batch; in training the running ones move towards them."""
        axes = tuple([i for i in range(x.ndim) if i != 1])
        mean = x.mean(axes)
        var = (x - mean.reshape(1, -1, *[1] * (x.ndim - 2))).square().mean(axes)
        if self.track_running_stats and Tensor.training:
            count = x.numel() // x.shape[1]
            unbiased = var.detach() * (count / max(count - 1, 1))
            self.running_mean.assign(self.running_mean * (1 - self.momentum) + mean.detach() * self.momentum)
            self.running_var.assign(self.running_var * (1 - self.momentum) + unbiased * self.momentum)
            self.num_batches_tracked.assign(self.num_batches_tracked + 1)
        return mean, var


BatchNorm1d = BatchNorm2d = BatchNorm3d = BatchNorm


class LayerNorm:
    """Normalise over the last axes, those of `normalized_shape`.

    errors:  ShapeError if x does not end in normalized_shape
    source:  torch.nn.LayerNorm
    """
    def __init__(self, normalized_shape: Sizes, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        self.normalized_shape, self.eps = _sizes(normalized_shape, 1), eps
        self.axis = tuple(range(-len(self.normalized_shape), 0))
        self.weight, self.bias = (_ones(*self.normalized_shape), _zeros(*self.normalized_shape)) if elementwise_affine else (None, None)

    def __call__(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-len(self.axis):]) != self.normalized_shape:
            raise ShapeError(
                f"LayerNorm({self.normalized_shape}) of x {tuple(x.shape)}\n  the last axes of x must be {self.normalized_shape}"
            )
        y = x.layernorm(self.axis, self.eps)
        return y if self.weight is None else y * self.weight + self.bias


class LayerNorm2d(LayerNorm):
    """LayerNorm over the channels of images: x (N, C, H, W)."""
    def __call__(self, x: Tensor) -> Tensor: return super().__call__(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm:
    """Normalise each of `num_groups` groups of channels of each example.

    errors:  UsageError if the groups do not divide the channels
    source:  torch.nn.GroupNorm
    """
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise UsageError(f"GroupNorm: {num_groups} groups of {num_channels} channels\n  groups must divide channels")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = (_ones(num_channels), _zeros(num_channels)) if affine else (None, None)

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(f"{type(self).__name__} of {self.num_channels} channels of x {x.shape}\n  axis 1 of x must be the {self.num_channels} channels")
        y = x.reshape(x.shape[0], self.num_groups, -1).layernorm(eps=self.eps).reshape(x.shape)
        if self.weight is None: return y
        channels = (1, -1, *[1] * (x.ndim - 2))
        return y * self.weight.reshape(channels) + self.bias.reshape(channels)


class InstanceNorm(GroupNorm):
    """Normalise each channel of each example."""
    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(num_features, num_features, eps, affine)


InstanceNorm1d = InstanceNorm2d = InstanceNorm3d = InstanceNorm


class RMSNorm:
    """Divide by the root of the mean square over the last axis.

    source:  Zhang and Sennrich 2019
    """
    def __init__(self, dim: int, eps: float = 1e-6, elementwise_affine: bool = True) -> None:
        self.eps, self.weight = eps, _ones(dim) if elementwise_affine else None

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        y = (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()).cast(x.dtype)
        return y if self.weight is None else y * self.weight


class Embedding:
    """A row of the table for each index.

    shapes:  idx (...) of ints -> (..., embed_size); weight (vocab_size, embed_size)
    """
    def __init__(self, vocab_size: int, embed_size: int) -> None:
        self.vocab_size, self.embed_size = vocab_size, embed_size
        self.weight = _uniform(math.sqrt(6 / (vocab_size + embed_size)), vocab_size, embed_size)

    def __call__(self, idx: Tensor) -> Tensor: return self.weight[idx]


class Dropout:
    """In training, zero each element with probability p and scale the rest by 1 / (1 - p)."""
    def __init__(self, p: float = 0.5) -> None: self.p = p
    def __call__(self, x: Tensor) -> Tensor: return x.dropout(self.p)


class LSTMCell:
    """One step of a long short-term memory: (x, (h, c)) -> (h, c).

    shapes:  x (N, input_size), h and c (N, hidden_size)
    source:  torch.nn.LSTMCell
    """
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = _gates(4, input_size, hidden_size, bias)

    def __call__(self, x: Tensor, hc: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = hc or [Tensor.zeros(x.shape[0], self.weight_hh.shape[1], dtype=x.dtype, device=x.device)] * 2
        gates = x.linear(self.weight_ih.transpose(0, 1), self.bias_ih) + h.linear(self.weight_hh.transpose(0, 1), self.bias_hh)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell:
    """One step of a gated recurrent unit: (x, h) -> h.

    shapes:  x (N, input_size), h (N, hidden_size)
    source:  torch.nn.GRUCell
    """
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = _gates(3, input_size, hidden_size, bias)

    def __call__(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        if h is None: h = Tensor.zeros(x.shape[0], self.weight_hh.shape[1], dtype=x.dtype, device=x.device)
        r, z, n = x.linear(self.weight_ih.transpose(0, 1), self.bias_ih).chunk(3, dim=1)
        hr, hz, hn = h.linear(self.weight_hh.transpose(0, 1), self.bias_hh).chunk(3, dim=1)
        z = (z + hz).sigmoid()
        return (1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * h


def _bound(fan_in: int) -> float: return 1 / math.sqrt(fan_in) if fan_in else 0.0
def _uniform(bound: float, *shape: int) -> Tensor: return _learned(Tensor.uniform(*shape, low=-bound, high=bound))
def _ones(*shape: int) -> Tensor: return _learned(Tensor.ones(*shape))
def _zeros(*shape: int) -> Tensor: return _learned(Tensor.zeros(*shape))


def _learned(x: Tensor) -> Tensor:
    x.requires_grad = True
    return x


def _kept(x: Tensor) -> Tensor:
    x.requires_grad = False
    return x


def _gates(count: int, input_size: int, hidden_size: int, bias: bool) -> list[Tensor | None]:
    bound, rows = _bound(hidden_size), count * hidden_size
    weights: list[Tensor | None] = [_uniform(bound, rows, input_size), _uniform(bound, rows, hidden_size)]
    return weights + [_uniform(bound, rows) if bias else None for _ in range(2)]


def _sizes(x: Sizes, count: int) -> tuple[int, ...]: return (x,) * count if isinstance(x, int) else tuple(x)


def _check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise UsageError(f"convolution from {in_channels} to {out_channels} channels in {groups} groups\n  groups must divide both")


def _same(kernel: tuple[int, ...], dilation: Sizes, stride: Sizes, word: str) -> list[int] | int:
    """Padding before and after each axis, last axis first, that keeps the sizes."""
    if word == "valid": return 0
    if word != "same": raise UsageError(f"convolution with padding={word!r}\n  try: an int, a tuple, 'same' or 'valid'")
    if any(s != 1 for s in _sizes(stride, 1)):
        raise UsageError(f"convolution with padding='same' and stride {stride}\n  'same' needs stride 1")
    spread = [d * (k - 1) for d, k in zip(_sizes(dilation, len(kernel)), kernel, strict=True)]
    return [p for s in reversed(spread) for p in (s // 2, s - s // 2)]
