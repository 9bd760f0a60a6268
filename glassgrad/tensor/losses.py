"""Losses of pairs, margins, distributions and sequences. reduction: "mean", "sum" or "none"."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.factor import steps
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

NEVER = -1e30       # the logarithm of a probability of 0, which can be added without NaN


class LossesMixin:
    """More ways to compare with targets."""
    __slots__ = ()

    def smooth_l1_loss(self, y: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
        """Half the square over beta up to beta, then a straight line."""
        if beta == 0: return self.l1_loss(y, reduction)
        d = (self - y).abs()
        return (d < beta).where(d.square() * (0.5 / beta), d - 0.5 * beta)._reduced(reduction)
    def soft_margin_loss(self, y: Tensor, reduction: str = "mean") -> Tensor:
        """log(1 + exp(-x y)) for y of 1 and -1"""
        return (-self * y).softplus()._reduced(reduction)
    def hinge_embedding_loss(self, y: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
        """x where y is 1, what x is short of the margin where y is -1."""
        return ((y == 1).where(self, 0.0) + (y == -1).where((margin - self).relu(), 0.0))._reduced(reduction)
    def margin_ranking_loss(self, other: Tensor, y: Tensor, margin: float = 0.0, reduction: str = "mean") -> Tensor:
        """What x is short of being larger (y = 1) or smaller (y = -1) than `other` by the margin."""
        return (-y * (self - other) + margin).relu()._reduced(reduction)
    def cosine_embedding_loss(self, other: Tensor, y: Tensor, margin: float = 0.0, reduction: str = "mean") -> Tensor:
        """1 - cosine where y is 1, the cosine above the margin where it is -1."""
        cosine = self.cosine_similarity(other, -1, 0.0) if self.ndim == 1 else self.cosine_similarity(other, 1)
        return ((y == 1).where(1 - cosine, 0.0) + (y == -1).where((cosine - margin).relu(), 0.0))._reduced(reduction)
    def triplet_margin_loss(self, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
                            swap: bool = False,
                            reduction: str = "mean") -> Tensor:
        """How much further the positive is than the negative, less the margin; swap: the negative's distance from the positive counts if
        it is less.
        """
        return self.triplet_margin_with_distance_loss(positive, negative, lambda a, b: a.pairwise_distance(b, p, eps), margin, swap,
                                                      reduction)
    def triplet_margin_with_distance_loss(self, positive: Tensor, negative: Tensor,
                                          distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
                                          margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> Tensor:
        """triplet_margin_loss with a distance of one's own."""
        distance = distance_function or (lambda a, b: a.pairwise_distance(b))
        far = distance(self, negative)
        if swap: far = far.minimum(distance(positive, negative))
        return (distance(self, positive) - far + margin).relu()._reduced(reduction)
    def multi_margin_loss(self, y: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                          reduction: str = "mean") -> Tensor:
        """For each other class what the right one is short of it plus the margin, to the power of p, over the number of classes."""
        right = self.gather(-1, y.unsqueeze(-1))
        lack = (margin - right + self).relu() ** p
        if weight is not None: lack = lack * weight[y].unsqueeze(-1)
        other = type(self).arange(self.shape[-1]) != y.unsqueeze(-1)
        return (other.where(lack, 0.0).sum(-1) / self.shape[-1])._reduced(reduction)
    def multilabel_soft_margin_loss(self, y: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """The mean binary cross entropy over the classes of the last axis."""
        loss = y * (-self).softplus() + (1 - y) * self.softplus()
        return (loss if weight is None else loss * weight).mean(-1)._reduced(reduction)
    def poisson_nll_loss(self, y: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> Tensor:
        """Minus the log-likelihood of counts y for rates exp(x) (or x); `full` adds Stirling's term for y!."""
        loss = self.exp() - y * self if log_input else self - y * (self + eps).log()
        if full: loss = loss + (y > 1).where(y * y.maximum(1).log() - y + 0.5 * (y.maximum(1) * (2 * math.pi)).log(), 0.0)
        return loss._reduced(reduction)
    def gaussian_nll_loss(self, y: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> Tensor:
        """Minus the log-likelihood of y for normal distributions with mean x and these variances (at least eps, without gradient below
        it).
        """
        if var.ndim < self.ndim and var.shape == self.shape[:-1]: var = var.unsqueeze(-1)
        var = (var < eps).where(eps, var)
        loss = (var.log() + (self - y).square() / var) * 0.5
        return (loss + 0.5 * math.log(2 * math.pi) if full else loss)._reduced(reduction)

    def ctc_loss(self, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
                 zero_infinity: bool = False) -> Tensor:
        """Minus the log-probability that a sequence of classes, with blanks and repetitions taken out, is the target.

        shapes:  log-probabilities (T, N, C), targets (N, S) of ints, lengths (N,) -> (N,) or a scalar; "mean": over the target lengths
                 first
        errors:  ShapeError if they do not fit, DTypeError for targets that are no ints, UsageError for another reduction
        source:  A. Graves et al., Connectionist temporal classification (2006): the forward recursion, one step a frame
        """
        if reduction not in ("mean", "sum", "none"):
            raise UsageError(f"ctc_loss with reduction={reduction!r}\n  try: 'mean', 'sum' or 'none'")
        if self.ndim != 3 or targets.ndim != 2 or targets.shape[0] != self.shape[1]:
            raise ShapeError(f"ctc_loss of {self.shape} with targets {targets.shape}\n  log-probabilities are (T, N, C), targets (N, S)")
        if not targets.dtype.is_int:
            raise DTypeError(f"ctc_loss with targets of {targets.dtype.name}\n  classes are ints\n  try: targets.int()")
        cls, (count, n, _), s = type(self), self.shape, targets.shape[1]
        frames, lengths = ((x if isinstance(x, cls) else cls(x)).reshape(-1, 1).int() for x in (input_lengths, target_lengths))
        width = 2 * s + 1
        place = cls.arange(width)
        # blank, first class, blank, second class, …, blank
        path = (place % 2 == 1).where(targets.int().pad((0, 1))[:, [k // 2 for k in range(width)]], blank) if s else cls.full((n, 1), blank)
        skips = ((path != blank) & (path != path.roll(2, -1)) & (place >= 2))
        scores = self.gather(2, path.unsqueeze(0).expand(count, n, width)) if s else self[:, :, blank:blank + 1]
        alpha = (place < 2).where(scores[0], NEVER)
        for t in steps(count, "frame")[1:]:
            one, two = alpha.pad((1, 0), value=NEVER)[:, :width], skips.where(alpha.pad((2, 0), value=NEVER)[:, :width], NEVER)
            top = alpha.maximum(one).maximum(two).detach()
            total = top + ((alpha - top).exp() + (one - top).exp() + (two - top).exp()).log()
            alpha = (cls(t) < frames).where((total + scores[t]).maximum(NEVER), alpha).contiguous()
        last, before = alpha.gather(1, lengths * 2), (lengths > 0).where(alpha.gather(1, (lengths * 2 - 1).maximum(0)), NEVER)
        top = last.maximum(before).detach()
        loss = -(top + ((last - top).exp() + (before - top).exp()).log()).squeeze(1)
        impossible = loss > -NEVER / 2
        loss = impossible.where(0.0 if zero_infinity else math.inf, loss)
        if reduction == "mean": return (loss / lengths.squeeze(1).maximum(1).cast(loss.dtype)).mean()
        return loss._reduced(reduction)
