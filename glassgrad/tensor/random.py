"""Random: counter-based. The key (seed and place in its stream) is fixed when the user calls: values do not depend on what is computed
when.

Every element is THREEFRY(key + place), the same bits on every device and in any order. `rand` uses the upper bits of one word, `randn` its
two halves. Streams are told apart by their seed: one belongs to the process (manual_seed), others to Generators.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glassgrad.engine import capture
from glassgrad.tensor.creation import Shape, to_shape
from glassgrad.uop.dtype import DType, dtypes, to_dtype
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import KeyArg, Ops
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

THREEFRY_KEY = 0x9E3779B97F4A7C15    # any constant: what tells streams apart is in the counter


def next_key(words: int) -> UOp:
    """A KEY leaf that owns the next `words` words of the stream."""
    state = capture.random_state
    key = KeyArg(state.seed, state.counter)
    state.counter += words
    return UOp(Ops.KEY, dtypes.uint64, (), key)


def random_words(n: int, generator: Any = None) -> UOp:
    """n random uint64 words, in one axis, from the stream of `generator` or of the process."""
    key = next_key(n) if generator is None else generator.take(n)
    return (UOp.iota(n).cast(dtypes.uint64) + key).alu(Ops.THREEFRY, UOp.const(dtypes.uint64, THREEFRY_KEY))


def unit_interval(words: UOp, d: DType) -> UOp:
    """Words as floats in [0, 1), every multiple of 2**-(mantissa + 1) equally likely; computed in float32 or float64."""
    bits = d.mantissa + 1
    wide = dtypes.float64 if d is dtypes.float64 else dtypes.float32
    whole = (words >> (64 - bits)).cast(dtypes.int64 if bits > 31 else dtypes.int32)
    return whole.cast(wide) * 2.0 ** -bits


class RandomMixin:
    """Random tensors."""
    __slots__ = ()

    @staticmethod
    def manual_seed(seed: int = 0) -> None:
        """Start the stream of this seed: what follows is the same in every run."""
        capture.random_state.seed, capture.random_state.counter = int(seed) & 0xFFFFFFFF, 0

    @classmethod
    def _random(cls, value: UOp, shape: Shape, device: str | None, requires_grad: bool | None = None) -> Tensor:
        return cls._made(value.reshape(shape), device, requires_grad)

    @classmethod
    def random_bits(cls, n: int, *, device: str | None = None, generator: Any = None) -> Tensor:
        """n random uint64 words."""
        to_shape((n,), "random_bits of shape")
        return cls._random(random_words(n, generator), (n,), device)
    @classmethod
    def rand(cls, *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool | None = None,
             generator: Any = None) -> Tensor:
        """Floats evenly from [0, 1). Here and in all that follows `generator` is the stream to draw from, a Generator.

        errors:  DTypeError for a dtype that is no float

        >>> Tensor.manual_seed(1)
        >>> x = Tensor.rand(1000)
        >>> bool((x.min() >= 0).item() and (x.max() < 1).item())
        True
        """
        sizes, d = to_shape(shape, "rand of shape"), _float("rand", dtype)
        return cls._random(unit_interval(random_words(math.prod(sizes), generator), d).cast(d), sizes, device, requires_grad)
    @classmethod
    def randn(cls, *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool | None = None,
              generator: Any = None) -> Tensor:
        """Floats from the normal distribution with mean 0 and variance 1 (Box and Muller)."""
        sizes, d = to_shape(shape, "randn of shape"), _float("randn", dtype)
        return cls._random(_normal(math.prod(sizes), d, generator).cast(d), sizes, device, requires_grad)
    @classmethod
    def normal(cls, *shape: Any, mean: float = 0.0, std: float = 1.0, **more: Any) -> Tensor:
        """Floats from a normal distribution."""
        sizes, d = to_shape(shape, "normal of shape"), _float("normal", more.get("dtype"))
        value = _normal(math.prod(sizes), d, more.get("generator")) * std + mean
        return cls._random(value.cast(d), sizes, more.get("device"), more.get("requires_grad"))
    @classmethod
    def uniform(cls, *shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = None, device: str | None = None,
                requires_grad: bool | None = None, generator: Any = None) -> Tensor:
        """Numbers evenly from [low, high), ints for an int dtype."""
        if dtype is not None and not to_dtype(dtype).is_float:
            return cls.randint(*shape, low=int(low), high=int(high), dtype=dtype, device=device, generator=generator)
        sizes, d = to_shape(shape, "uniform of shape"), _float("uniform", dtype)
        value = unit_interval(random_words(math.prod(sizes), generator), d) * (high - low) + low
        return cls._random(value.cast(d), sizes, device, requires_grad)
    @classmethod
    def randint(cls, *shape: Any, low: int = 0, high: int = 10, dtype: Any = None, device: str | None = None,
                requires_grad: bool | None = None, generator: Any = None) -> Tensor:
        """Ints evenly from low .. high - 1.

        errors:  UsageError if there is none, DTypeError for a dtype that is no int
        """
        d = to_dtype(dtype or dtypes.default_int)
        if not isinstance(low, int) or not isinstance(high, int):
            raise DTypeError(f"randint(low={low!r}, high={high!r})\n  the bounds must be ints")
        if not d.is_int: raise DTypeError(f"randint of {d.name}\n  the dtype must be one of ints\n  try: Tensor.uniform")
        if low >= high: raise UsageError(f"randint(low={low}, high={high})\n  low must be less than high")
        sizes, span = to_shape(shape, "randint of shape"), high - low
        words = random_words(math.prod(sizes), generator)
        # the upper half times the span, its upper half: no division and no bias above 2**-32
        value = ((words >> 32) * span) >> 32 if span <= 1 << 32 else words % span
        wide = dtypes.int64 if not d.is_unsigned else dtypes.uint64
        return cls._random((value.cast(wide) + low).cast(d), sizes, device, requires_grad)
    @classmethod
    def randperm(cls, n: int, *, device: str | None = None, dtype: Any = None, generator: Any = None) -> Tensor:
        """0 .. n-1 in random order."""
        if n < 0: raise UsageError(f"randperm({n})\n  the number must not be negative")
        order = cls._random(random_words(n, generator).cast(dtypes.int64), (n,), device).argsort()
        return order.cast(to_dtype(dtype or dtypes.default_int))

    def rand_like(self, **more: Any) -> Tensor: return type(self).rand(*self.shape, **self._alike(more))
    def randn_like(self, **more: Any) -> Tensor: return type(self).randn(*self.shape, **self._alike(more))
    def randint_like(self, low: int = 0, high: int = 10, **more: Any) -> Tensor:
        return type(self).randint(*self.shape, low=low, high=high, **self._alike(more))
    def _alike(self, more: dict[str, Any]) -> dict[str, Any]: return {"device": self._storage.device, "dtype": self.dtype, **more}

    @classmethod
    def scaled_uniform(cls, *shape: Any, **more: Any) -> Tensor:
        """Evenly from ±1/sqrt(number of elements)."""
        bound = math.prod(to_shape(shape)) ** -0.5 if math.prod(to_shape(shape)) else 0.0
        return cls.uniform(*shape, low=-bound, high=bound, **more)
    @classmethod
    def glorot_uniform(cls, *shape: Any, **more: Any) -> Tensor:
        """Evenly from ±sqrt(6 / (fan in + fan out))."""
        sizes = _weight_shape(shape, "glorot_uniform")
        bound = math.sqrt(6 / (sizes[0] + math.prod(sizes[1:])))
        return cls.uniform(*sizes, low=-bound, high=bound, **more)
    @classmethod
    def kaiming_uniform(cls, *shape: Any, a: float = 0.01, **more: Any) -> Tensor:
        """Evenly from ±sqrt(6 / ((1 + a²) * fan in))."""
        sizes = _weight_shape(shape, "kaiming_uniform")
        bound = math.sqrt(3.0) * math.sqrt(2.0 / (1 + a * a)) / math.sqrt(math.prod(sizes[1:]))
        return cls.uniform(*sizes, low=-bound, high=bound, **more)
    @classmethod
    def kaiming_normal(cls, *shape: Any, a: float = 0.01, **more: Any) -> Tensor:
        """Normal with deviation sqrt(2 / ((1 + a²) * fan in))."""
        sizes = _weight_shape(shape, "kaiming_normal")
        return cls.normal(*sizes, mean=0.0, std=math.sqrt(2.0 / (1 + a * a)) / math.sqrt(math.prod(sizes[1:])), **more)

    def multinomial(self, num_samples: int = 1, replacement: bool = False, generator: Any = None) -> Tensor:
        """Places drawn with these weights (one row, or each row on its own), int32.

        errors:  ShapeError for other than one or two axes, UsageError for more draws than places without replacement
        """
        if not 1 <= self.ndim <= 2 or num_samples < 1:
            raise ShapeError(f"multinomial of {num_samples} from weights {self.shape}\n  weights have one or two axes")
        n = self.shape[-1]
        if not replacement and num_samples > n:
            raise UsageError(f"multinomial of {num_samples} from {n} weights without replacement\n  there are not so many\n"
                             f"  try: replacement=True")
        weights = self.float() if not self.dtype.is_float or self.dtype.bits < 32 else self
        cls = type(self)
        if replacement or num_samples == 1:
            sums = weights.cumsum(-1)
            u = cls.rand(*self.shape[:-1], num_samples, device=self._storage.device, generator=generator) * sums[..., -1:]
            return (u.unsqueeze(-1) >= sums.unsqueeze(-2)).sum(-1).clamp(0, n - 1)
        # the largest of log(weight) + Gumbel noise are draws without replacement
        noise = -(-(cls.rand(*self.shape, device=self._storage.device, generator=generator).maximum(1e-30)).log()).log()
        return (weights.log() + noise).topk(num_samples)[1]

    def dropout(self, p: float = 0.5) -> Tensor:
        """Each element 0 with probability p, else divided by 1 - p; unchanged unless Tensor.training.

        errors:  UsageError if p is no probability
        """
        if not 0 <= p <= 1: raise UsageError(f"dropout({p})\n  p must be from 0 to 1")
        if not type(self).training or p == 0: return self
        if p == 1: return self * 0
        keep = unit_interval(random_words(self.numel()), dtypes.float32).reshape(self.shape) >= p
        x = self.uop
        return self._new(keep.where(x * (1 / (1 - p)), x.const_like(0)))


def _weight_shape(shape: Any, what: str) -> Shape:
    sizes = to_shape(shape, f"{what} of shape")
    if not sizes or 0 in sizes[1:]: raise ShapeError(f"{what} of shape {sizes}\n  weights have an output axis and inputs behind it")
    return sizes


def _float(what: str, dtype: Any) -> DType:
    d = to_dtype(dtype or dtypes.default_float)
    if not d.is_float: raise DTypeError(f"{what} of {d.name}\n  the dtype must be one of floats\n  try: Tensor.randint")
    return d


def _normal(n: int, d: DType, generator: Any = None) -> UOp:
    words = random_words(n, generator)
    wide = dtypes.float64 if d is dtypes.float64 else dtypes.float32
    u = ((words >> 40).cast(dtypes.int32).cast(wide) + 1) * 2.0 ** -24      # (0, 1]: its logarithm is finite
    v = ((words & 0xFFFFFF).cast(dtypes.int32).cast(wide)) * (2 * math.pi * 2.0 ** -24)
    return (u.log() * -2).sqrt() * v.cos()
