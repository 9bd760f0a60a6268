"""Modules: methods of Tensor as layers, one row each. ReLU()(x) is x.relu(), MaxPool2d(3, stride=2)(x) is x.max_pool2d(3, stride=2).

A row: the method, how many tensors a call takes besides the first, and in what order options may be given by position (PyTorch's order).
"""
from __future__ import annotations

import inspect
from typing import Any

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ArgumentError, ShapeError, UsageError


class FromMethod:
    """A method of Tensor with its options, waiting for tensors. Classes differ in `method`, `inputs` and `order`."""
    method, inputs, order = "", 0, ()

    def __init__(self, *args: Any, **options: Any) -> None:
        if len(args) > len(self.order):
            raise ArgumentError(f"{type(self).__name__} of {len(args)} options\n  it takes {', '.join(self.order) or 'none'}")
        self.options = dict(zip(self.order, args)) | {name: x for name, x in options.items() if name != "inplace"}
        unknown = sorted(set(self.options) - set(self.order))
        if unknown:
            raise ArgumentError(f"{type(self).__name__} with {unknown[0]}={self.options[unknown[0]]!r}\n"
                                f"  it takes {', '.join(self.order) or 'no options'}")

    def __call__(self, *xs: Tensor) -> Any: return getattr(Tensor, self.method)(*xs, **self.options)
    def __repr__(self) -> str: return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


ROWS = """
ReLU relu|ReLU6 relu6|LeakyReLU leaky_relu|ELU elu|CELU celu|SELU selu|GELU gelu|SiLU silu|Mish mish|Sigmoid sigmoid
LogSigmoid logsigmoid|Tanh tanh|Softplus softplus|Softsign softsign|Hardswish hardswish|Hardsigmoid hardsigmoid|Hardtanh hardtanh
Hardshrink hardshrink|Softshrink softshrink|Tanhshrink tanhshrink|Threshold threshold|RReLU rrelu|GLU glu|Softmax softmax
LogSoftmax log_softmax|Softmin softmin|Flatten flatten|Unflatten unflatten|PixelShuffle pixel_shuffle|PixelUnshuffle pixel_unshuffle
ChannelShuffle channel_shuffle|LocalResponseNorm local_response_norm|Unfold im2col|Fold fold
MaxPool1d max_pool1d kernel_size stride padding dilation return_indices ceil_mode
MaxPool2d max_pool2d kernel_size stride padding dilation return_indices ceil_mode
MaxPool3d max_pool3d kernel_size stride padding dilation return_indices ceil_mode|AvgPool1d avg_pool1d
AvgPool2d avg_pool2d kernel_size stride padding ceil_mode count_include_pad|AvgPool3d avg_pool3d|LPPool1d lp_pool1d|LPPool2d lp_pool2d
LPPool3d lp_pool3d|MaxUnpool1d max_unpool1d 1|MaxUnpool2d max_unpool2d 1|MaxUnpool3d max_unpool3d 1
AdaptiveAvgPool1d adaptive_avg_pool1d|AdaptiveAvgPool2d adaptive_avg_pool2d|AdaptiveAvgPool3d adaptive_avg_pool3d
AdaptiveMaxPool1d adaptive_max_pool1d|AdaptiveMaxPool2d adaptive_max_pool2d|AdaptiveMaxPool3d adaptive_max_pool3d
CosineSimilarity cosine_similarity 1|PairwiseDistance pairwise_distance 1|MSELoss mse_loss 1|L1Loss l1_loss 1
SmoothL1Loss smooth_l1_loss 1|HuberLoss huber_loss 1|KLDivLoss kl_div 1|BCELoss binary_crossentropy 1
BCEWithLogitsLoss binary_crossentropy_logits 1|CrossEntropyLoss cross_entropy 1 weight ignore_index reduction label_smoothing
NLLLoss nll_loss 1 weight ignore_index reduction|SoftMarginLoss soft_margin_loss 1|HingeEmbeddingLoss hinge_embedding_loss 1
MarginRankingLoss margin_ranking_loss 2|CosineEmbeddingLoss cosine_embedding_loss 2|TripletMarginLoss triplet_margin_loss 2
TripletMarginWithDistanceLoss triplet_margin_with_distance_loss 2|MultiMarginLoss multi_margin_loss 1
MultiLabelSoftMarginLoss multilabel_soft_margin_loss 1|PoissonNLLLoss poisson_nll_loss 1|GaussianNLLLoss gaussian_nll_loss 2
CTCLoss ctc_loss 3
"""


def _class(row: str) -> type:
    name, method, *more = row.split()
    inputs = int(more.pop(0)) if more and more[0].isdigit() else 0
    order = tuple(more) or tuple(inspect.signature(getattr(Tensor, method)).parameters)[1 + inputs:]
    doc = (getattr(Tensor, method).__doc__ or f"{method} of each element.").strip().splitlines()[0]
    return type(name, (FromMethod,),
                {"method": method, "inputs": inputs, "order": order, "__doc__": f"{doc} See Tensor.{method}.", "__module__": __name__})


METHOD_CLASSES = {row.split()[0]: _class(row) for row in ROWS.replace("\n", "|").split("|") if row.strip()}
globals().update(METHOD_CLASSES)


class Identity:
    """x itself, whatever it was made with."""
    def __init__(self, *args: Any, **options: Any) -> None: pass
    def __call__(self, x: Any) -> Any: return x


class PReLU:
    """x where it is positive, else x times a weight that is learned: one, or one for each channel."""
    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = Tensor.full((num_parameters,), init, requires_grad=True)
    def __call__(self, x: Tensor) -> Tensor: return x.prelu(self.weight)


class Upsample:
    """Images made larger: to `size`, or by scale_factor. See Tensor.interpolate."""
    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None) -> None:
        self.options = {"size": size, "scale_factor": scale_factor, "mode": mode, "align_corners": bool(align_corners)}
    def __call__(self, x: Tensor) -> Tensor:
        size = self.options["size"]
        return x.interpolate(**self.options | {"size": (size,) * (x.ndim - 2) if isinstance(size, int) else size})


class Pad:
    """More elements around the last axes. Classes differ in the number of axes and the mode. See Tensor.pad."""
    axes, mode = 2, "constant"
    def __init__(self, padding: Any, value: float = 0.0) -> None:
        self.padding = (padding,) * (2 * self.axes) if isinstance(padding, int) else tuple(padding)
        self.value = value
        if len(self.padding) != 2 * self.axes:
            raise ShapeError(f"{type(self).__name__}({padding})\n  there must be one number or {2 * self.axes}")
    def __call__(self, x: Tensor) -> Tensor: return x.pad(self.padding, self.mode, self.value)


PAD_CLASSES = {f"{name}Pad{n}d": type(f"{name}Pad{n}d", (Pad,),
                                      {"axes": n, "mode": mode, "__doc__": f"{mode} padding of the last {n} axes.", "__module__": __name__})
               for name, mode in (("Zero", "constant"), ("Constant", "constant"), ("Reflection", "reflect"), ("Replication", "replicate"),
                                  ("Circular", "circular"))
               for n in (1, 2, 3)}
globals().update(PAD_CLASSES)


class DropoutChannels:
    """In training, zero each channel (axis 1) of each example with probability p and scale the rest by 1 / (1 - p).

    errors:  UsageError if p is no probability
    """
    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1: raise UsageError(f"{type(self).__name__}({p})\n  p must be from 0 to 1")
        self.p = p
    def __call__(self, x: Tensor) -> Tensor:
        if not Tensor.training or self.p == 0: return x
        return x * Tensor.ones(*x.shape[:2], *[1] * (x.ndim - 2), dtype=x.dtype, device=x.device).dropout(self.p)


Dropout1d = Dropout2d = Dropout3d = DropoutChannels


class AlphaDropout:
    """In training, put elements at SELU's lower bound with probability p, and keep mean and variance.

    source:  G. Klambauer et al., Self-normalizing neural networks (2017)
    """
    def __init__(self, p: float = 0.5) -> None: self.p = p
    def __call__(self, x: Tensor) -> Tensor:
        if not Tensor.training or self.p == 0: return x
        low, p = -1.7580993408473766, self.p
        scale = ((1 - p) * (1 + p * low * low)) ** -0.5
        keep = Tensor.rand(*x.shape, device=x.device) >= p
        return keep.where(x, low) * scale - scale * p * low


class Bilinear:
    """x weight[k] y + bias[k].

    shapes:  x (..., in1_features), y (..., in2_features) -> (..., out_features); weight (out, in1, in2), bias (out,)
    source:  torch.nn.Bilinear
    """
    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True) -> None:
        bound = in1_features ** -0.5
        self.weight = Tensor.uniform(out_features, in1_features, in2_features, low=-bound, high=bound, requires_grad=True)
        self.bias = Tensor.uniform(out_features, low=-bound, high=bound, requires_grad=True) if bias else None
    def __call__(self, x: Tensor, y: Tensor) -> Tensor: return x.bilinear(y, self.weight, self.bias)


NAMES = [*METHOD_CLASSES, *PAD_CLASSES, "Identity", "PReLU", "Upsample", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "Bilinear"]
