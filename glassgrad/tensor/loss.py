"""Losses and attention."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.creation import iota
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor


class LossMixin:
    """Methods that compare with targets, and attention."""
    __slots__ = ()

    def _reduced(self, reduction: str) -> Tensor:
        if reduction not in ("mean", "sum", "none"):
            raise UsageError(f"a loss with reduction={reduction!r}\n  try: 'mean', 'sum' or 'none'")
        return self.mean() if reduction == "mean" else self.sum() if reduction == "sum" else self

    def binary_crossentropy(self, y: Tensor, reduction: str = "mean") -> Tensor:
        """-y log(x) - (1 - y) log(1 - x) of probabilities x; a logarithm counts as at least -100, as in PyTorch."""
        return -(y * self.log().maximum(-100.0) + (1 - y) * (1 - self).log().maximum(-100.0))._reduced(reduction)
    def binary_crossentropy_logits(self, y: Tensor, reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
        """The same of sigmoid(x), without overflow; `pos_weight` weighs y = 1."""
        if pos_weight is None: return (self.softplus() - self * y)._reduced(reduction)
        return (pos_weight * y * (-self).softplus() + (1 - y) * self.softplus())._reduced(reduction)

    def sparse_categorical_crossentropy(self, y: Tensor, ignore_index: int = -1, label_smoothing: float = 0.0,
                                        reduction: str = "mean") -> Tensor:
        """Cross entropy of scores over the last axis with int classes y; places where y is ignore_index count nothing.

        errors:  ShapeError if y is not x without its last axis, DTypeError if it is not of ints, UsageError for a bad label_smoothing
        """
        _check_smoothing(label_smoothing)
        if not y.dtype.is_int:
            raise DTypeError(f"sparse_categorical_crossentropy with classes {y.shape} of {y.dtype.name}\n  classes are ints\n"
                             f"  try: y.int()")
        if y.shape != self.shape[:-1]:
            raise ShapeError(f"sparse_categorical_crossentropy of {self.shape} with classes {y.shape}\n"
                             f"  the classes must have shape {self.shape[:-1]}")
        return _class_loss(self.log_softmax(), self.ndim - 1, y, None, ignore_index, label_smoothing, reduction)

    def cross_entropy(self, y: Tensor, reduction: str = "mean", label_smoothing: float = 0.0, ignore_index: int = -100,
                      weight: Tensor | None = None) -> Tensor:
        """Cross entropy of scores over axis 1 (the only one of a vector) with int classes, or with probabilities of the scores' shape.

        errors:  ShapeError if y does not fit, UsageError for a bad label_smoothing
        """
        _check_smoothing(label_smoothing)
        a = 0 if self.ndim == 1 else 1
        logs = self.log_softmax(a)
        if y.shape == self.shape and y.dtype.is_float:
            y = y * (1 - label_smoothing) + label_smoothing / self.shape[a]
            if weight is not None: y = y * weight.reshape(*[-1 if i == a else 1 for i in range(self.ndim)])
            out = -(logs * y).sum(a)
            return out.sum() / (out.numel()) if reduction == "mean" else out._reduced(reduction)
        _check_classes("cross_entropy", self, y, a)
        return _class_loss(logs, a, y, weight, ignore_index, label_smoothing, reduction)

    def nll_loss(self, y: Tensor, weight: Tensor | None = None, ignore_index: int | None = None, reduction: str = "mean") -> Tensor:
        """Minus the log-probability (over axis 1) of int classes y; the mean is weighted.

        errors:  ShapeError if y does not fit
        """
        a = 0 if self.ndim == 1 else 1
        _check_classes("nll_loss", self, y, a)
        return _class_loss(self, a, y, weight, ignore_index, 0.0, reduction)

    def mse_loss(self, y: Tensor, reduction: str = "mean") -> Tensor:
        """(x - y)²"""
        return (self - y).square()._reduced(reduction)
    def l1_loss(self, y: Tensor, reduction: str = "mean") -> Tensor:
        """|x - y|"""
        return (self - y).abs()._reduced(reduction)
    def huber_loss(self, y: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
        """Half the square up to delta, then a straight line."""
        d = (self - y).abs()
        return (d <= delta).where(d.square() * 0.5, (d - 0.5 * delta) * delta)._reduced(reduction)
    def kl_div(self, y: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
        """y (log(y) - x) for log-probabilities x."""
        if log_target: return (y.exp() * (y - self))._reduced(reduction)
        return (y > 0).where(y * ((y > 0).where(y, 1.0).log() - self), 0.0)._reduced(reduction)

    def scaled_dot_product_attention(self, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                     is_causal: bool = False,
                                     scale: float | None = None, enable_gqa: bool = False) -> Tensor:
        """softmax(q kT / sqrt(D) + mask) v. A bool mask says what may be seen, another is added; enable_gqa shares each key among query
        heads.

        shapes:  q (..., L, D), key (..., S, D), value (..., S, E), mask broadcastable to (..., L, S) -> (..., L, E)
        errors:  ShapeError if the heads or widths do not fit, UsageError for a mask beside is_causal
        """
        q = self
        if enable_gqa and q.shape[-3] != key.shape[-3]:
            if q.shape[-3] % key.shape[-3]:
                raise ShapeError(f"attention of q {q.shape} and key {key.shape}\n  {q.shape[-3]} heads are no multiple of {key.shape[-3]}")
            share = q.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(share, -3), value.repeat_interleave(share, -3)
        by = scale if scale is not None else 1 / math.sqrt(q.shape[-1])
        scores = q.matmul(key.transpose(-2, -1), dtype=dtypes.float32 if q.dtype.bits < 32 else None) * by
        if is_causal:
            if attn_mask is not None: raise UsageError("attention with attn_mask and is_causal\n  only one of both may be given")
            n, m = scores.shape[-2:]
            see = iota(m).reshape((1, m)).expand((n, m)) <= iota(n).reshape((n, 1)).expand((n, m))
            attn_mask = self._new(see)
        if attn_mask is not None: scores = attn_mask.where(scores, -math.inf) if attn_mask.dtype.is_bool else scores + attn_mask
        weights = scores.softmax(-1).cast(q.dtype)
        return (weights.dropout(dropout_p) if dropout_p else weights) @ value


def _check_smoothing(x: float) -> None:
    if not 0 <= x <= 1: raise UsageError(f"label_smoothing={x}\n  it must be from 0 to 1")


def _check_classes(what: str, x: Any, y: Any, a: int) -> None:
    goal = x.shape[:a] + x.shape[a + 1:]
    if not y.dtype.is_int:
        raise DTypeError(f"{what} with classes {y.shape} of {y.dtype.name}\n"
                         f"  classes are ints (or, in cross_entropy, probabilities of shape {x.shape})")
    if y.shape != goal: raise ShapeError(f"{what} of {x.shape} with classes {y.shape}\n  the classes must have shape {goal}")


def _class_loss(logs: Tensor, a: int, y: Tensor, weight: Tensor | None, ignore_index: int | None, smoothing: float,
                reduction: str) -> Tensor:
    """Minus the log-probability of classes y over axis a of `logs`."""
    if reduction not in ("mean", "sum", "none"): raise UsageError(f"a loss with reduction={reduction!r}\n  try: 'mean', 'sum' or 'none'")
    keep = None if ignore_index is None else y != ignore_index
    safe = y if keep is None else keep.where(y, 0)
    w = None if weight is None else weight[safe]
    picked = -logs.gather(a, safe.unsqueeze(a)).squeeze(a)
    out = picked if w is None else picked * w
    if smoothing:
        rest = logs if weight is None else logs * weight.reshape(*[-1 if i == a else 1 for i in range(logs.ndim)])
        out = out * (1 - smoothing) - rest.sum(a) * (smoothing / logs.shape[a])
    if keep is not None: out = keep.where(out, 0)
    if reduction != "mean": return out._reduced(reduction)
    if keep is None and w is None: return out.mean()
    mass = out.full_like(1.0) if w is None else w
    return out.sum() / (mass if keep is None else keep.where(mass, 0)).sum()
