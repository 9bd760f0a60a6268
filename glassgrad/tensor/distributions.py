"""Distributions: random numbers that are a function of uniform or normal ones, or found by a bounded number of tries.

Those with parameters for each element are methods of the parameters; the others are made by shape. Draws are differentiable by what
scales and moves them; standard_gamma, poisson and the discrete ones have no gradient.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.uop.dtype import dtypes, to_dtype
from glassgrad.uop.errors import UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

GAMMA_TRIES = 8         # each is accepted with 0.95 at least: one in 10**10 is not
POISSON_TRIES = 10      # each is accepted with 0.85 at least: one in 10**8 is not
POISSON_SMALL = 10.0    # up to this rate the distribution function is summed up
POISSON_TERMS = 44      # of that sum: what lies beyond has a probability below 1e-14


class DistributionMixin:
    """Random tensors of many distributions."""
    __slots__ = ()

    def _even(self, generator: Any) -> Tensor:
        """Evenly from (0, 1), one for each element."""
        cls = type(self)
        d = dtypes.float64 if self.dtype is dtypes.float64 else dtypes.float32
        return cls.rand(*self.shape, device=self._storage.device, dtype=d, generator=generator) + 2.0 ** -(d.mantissa + 2)

    # ---- by their parameters -------------------------------------------------------------------------------------------------------------
    def bernoulli(self, p: float | None = None, generator: Any = None) -> Tensor:
        """1 with this probability for each element (or with p), else 0.

        errors:  UsageError if p is no probability
        """
        if p is not None and not 0 <= p <= 1: raise UsageError(f"bernoulli({p})\n  p must be from 0 to 1")
        d = self.dtype if self.dtype.is_float else dtypes.default_float
        return (self._even(generator) < (self.detach() if p is None else p)).cast(d)
    def binomial(self, count: int, generator: Any = None) -> Tensor:
        """How many of `count` draws with this probability succeed."""
        u = type(self).rand(*self.shape, count, device=self._storage.device, generator=generator)
        return (u < self.detach().unsqueeze(-1)).sum(-1).cast(self.dtype)
    def geometric(self, generator: Any = None) -> Tensor:
        """How many draws with this probability it takes to succeed: 1, 2, …"""
        return (self._even(generator).log() / (-self.detach()).log1p()).ceil().maximum(1).cast(self.dtype)
    def categorical(self, num_samples: int | None = None, dim: int = -1, generator: Any = None) -> Tensor:
        """The place along an axis of logits that is drawn, int32; with num_samples that many independent draws in a new last axis.

        source:  E. Gumbel: the largest of logits + noise is distributed as their softmax
        """
        x = self.detach().movedim(dim, -1)
        if num_samples is not None: x = x.unsqueeze(-2).expand(*x.shape[:-1], num_samples, x.shape[-1])
        return (x - (-x._even(generator).log()).log()).argmax(-1)
    def standard_gamma(self, generator: Any = None) -> Tensor:
        """Gamma-distributed with this shape parameter and scale 1.

        source:  G. Marsaglia, W. Tsang, A simple method for generating gamma variables (2000)
        """
        cls, alpha = type(self), self.detach()
        wide = dtypes.float64 if self.dtype is dtypes.float64 else dtypes.float32
        alpha = alpha.cast(wide)
        small = alpha < 1
        d = small.where(alpha + 1, alpha) - 1 / 3
        c = 1 / (d * 9).sqrt()
        found = d * 0 - 1
        for _ in range(GAMMA_TRIES):
            x = cls.randn(*self.shape, device=self._storage.device, dtype=wide, generator=generator)
            u = alpha._even(generator)
            v = (x * c + 1)
            cube = v * v * v
            fits = (v > 0) & (u.log() < x * x * 0.5 + d * (1 - cube + (v > 0).where(cube, 1.0).log()))
            found = ((found < 0) & fits).where(d * cube, found).contiguous()
        found = (found < 0).where(d, found)
        return (small.where(found * alpha._even(generator) ** (1 / alpha), found)).cast(self.dtype)
    def poisson(self, generator: Any = None) -> Tensor:
        """Poisson-distributed with this rate.

        source:  inversion; from a rate of 10 on W. Hörmann, The transformed rejection method for generating Poisson variables (1993), PTRS
        """
        rate = self.detach().cast(dtypes.float64 if self.dtype is dtypes.float64 else dtypes.float32)
        low = rate < POISSON_SMALL
        slow, fast = low.where(rate, 1.0), low.where(POISSON_SMALL, rate)
        u, term = rate._even(generator), (-slow).exp()
        total, small = term, (u > term).cast(rate.dtype)
        for k in range(1, POISSON_TERMS):
            term = term * slow / k
            total = total + term
            small = small + (u > total).cast(rate.dtype)
        b = fast.sqrt() * 2.53 + 0.931
        a = b * 0.02483 - 0.059
        quick = 0.9277 - 3.6224 / (b - 2)
        big = fast * 0 - 1
        for _ in range(POISSON_TRIES):
            u, v = rate._even(generator) - 0.5, rate._even(generator)
            near = 0.5 - u.abs()
            k = ((a * 2 / near + b) * u + fast + 0.43).floor()
            easy = (near >= 0.07) & (v <= quick)
            possible = (k >= 0) & ((near >= 0.013) | (v <= near))
            log_share = (v * (1.1239 + 1.1328 / (b - 3.4)) / (a / near.square() + b)).log()
            fits = easy | (possible & (log_share <= k.maximum(0) * fast.log() - fast - (k.maximum(0) + 1).lgamma()))
            big = ((big < 0) & fits).where(k, big).contiguous()
        return low.where(small, (big < 0).where(fast.round(), big)).cast(self.dtype)
    def dirichlet(self, generator: Any = None) -> Tensor:
        """Shares along the last axis that sum to 1, Dirichlet-distributed with these concentrations."""
        x = self.standard_gamma(generator)
        return x / x.sum(-1, keepdim=True)

    # ---- by shape
    # ----------------------------------------------------------------------------------------------------------------------------
    @classmethod
    def _even_of(cls, shape: Any, more: dict[str, Any]) -> Tensor:
        """Evenly from (0, 1)"""
        x = cls.rand(*shape, **more)
        return x + 2.0 ** -(x.dtype.mantissa + 2)
    @classmethod
    def exponential(cls, *shape: Any, rate: float = 1.0, **more: Any) -> Tensor:
        """Waiting times for what happens `rate` times in one unit."""
        return -cls._even_of(shape, more).log() / rate
    @classmethod
    def laplace(cls, *shape: Any, loc: float = 0.0, scale: float = 1.0, **more: Any) -> Tensor:
        """Two exponential distributions back to back."""
        u = cls._even_of(shape, more) - 0.5
        return loc - scale * u.sign() * (1 - u.abs() * 2).maximum(2.0 ** -(u.dtype.mantissa + 1)).log()
    @classmethod
    def gumbel(cls, *shape: Any, loc: float = 0.0, scale: float = 1.0, **more: Any) -> Tensor:
        """The largest of many."""
        return loc - scale * (-cls._even_of(shape, more).log()).log()
    @classmethod
    def logistic(cls, *shape: Any, loc: float = 0.0, scale: float = 1.0, **more: Any) -> Tensor:
        """What sigmoid makes even."""
        return loc + scale * cls._even_of(shape, more).logit()
    @classmethod
    def cauchy(cls, *shape: Any, loc: float = 0.0, scale: float = 1.0, **more: Any) -> Tensor:
        """The ratio of two normal numbers: without a mean."""
        return loc + scale * ((cls._even_of(shape, more) - 0.5) * math.pi).tan()
    @classmethod
    def weibull(cls, *shape: Any, scale: float = 1.0, concentration: float = 1.0, **more: Any) -> Tensor:
        """scale times a power of an exponential number."""
        return scale * (-cls._even_of(shape, more).log()) ** (1 / concentration)
    @classmethod
    def pareto(cls, *shape: Any, scale: float = 1.0, alpha: float = 1.0, **more: Any) -> Tensor:
        """At least scale, more than x with probability (scale / x) ** alpha."""
        return scale * cls._even_of(shape, more) ** (-1 / alpha)
    @classmethod
    def log_normal(cls, *shape: Any, mean: float = 0.0, std: float = 1.0, **more: Any) -> Tensor:
        """exp of a normal number."""
        return cls.normal(*shape, mean=mean, std=std, **more).exp()
    @classmethod
    def truncated_normal(cls, *shape: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, **more: Any) -> Tensor:
        """Normal numbers that lie from a to b.

        errors:  UsageError unless a < b
        """
        if not a < b: raise UsageError(f"truncated_normal(a={a}, b={b})\n  a must be less than b")
        lo, hi = (math.erf((v - mean) / std / math.sqrt(2)) for v in (a, b))
        return (mean + std * math.sqrt(2) * (lo + (hi - lo) * cls._even_of(shape, more)).erfinv()).clamp(a, b)
    @classmethod
    def gamma(cls, *shape: Any, alpha: float = 1.0, scale: float = 1.0, **more: Any) -> Tensor:
        """The sum of alpha exponential numbers with mean `scale`."""
        return cls._filled(shape, alpha, more).standard_gamma(more.get("generator")) * scale
    @classmethod
    def chisquare(cls, *shape: Any, df: float = 1.0, **more: Any) -> Tensor:
        """The sum of df squares of normal numbers."""
        return cls.gamma(*shape, alpha=df / 2, scale=2.0, **more)
    @classmethod
    def beta(cls, *shape: Any, a: float = 1.0, b: float = 1.0, **more: Any) -> Tensor:
        """From 0 to 1: the share of a gamma number of shape a in its sum with one of shape b."""
        x, y = cls.gamma(*shape, alpha=a, **more), cls.gamma(*shape, alpha=b, **more)
        return x / (x + y)
    @classmethod
    def student_t(cls, *shape: Any, df: float = 1.0, **more: Any) -> Tensor:
        """A normal number over the root of a chisquare number's mean."""
        return cls.randn(*shape, **more) / (cls.chisquare(*shape, df=df, **more) / df).sqrt()
    @classmethod
    def _filled(cls, shape: Any, value: float, more: dict[str, Any]) -> Tensor:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return cls.full(tuple(sizes), float(value), dtype=to_dtype(more.get("dtype") or dtypes.default_float), device=more.get("device"))
