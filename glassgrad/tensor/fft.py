"""FFT: discrete Fourier transforms. A complex number is a pair: a last axis of 2, real and imaginary part, as torch.view_as_real has it.

A transform of n = a b is a multiplication by the matrix of the a-point one, by twiddle factors, and the transform of b; what has a large
prime factor becomes a convolution (Bluestein). So a transform of a million points is a handful of matrix products, differentiable like
any other.
source:  J. Cooley, J. Tukey (1965); L. Bluestein (1970)
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.factor import wide_dtype
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import ShapeError, UsageError
from glassgrad.uop.ops import Ops, UnfoldArg, np
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

RADIX = 32          # the largest matrix of a split transform
DIRECT = 64         # transforms up to this length are one matrix


class FourierMixin:
    """Transforms between time and frequency. `dim` counts the axes without that of the pairs."""
    __slots__ = ()

    # ---- one axis --------------------------------------------------------------------------------------------------------------------
    def fft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The transform of complex signals: X[k] = sum x[j] exp(-2 pi i j k / n).

        shapes:  (..., n, 2) -> (..., n, 2); n cuts or fills with zeros
        norm:    "backward" (none), "ortho" (over sqrt(n)) or "forward" (over n)
        errors:  ShapeError if the last axis is not 2, UsageError for another norm
        source:  torch.fft.fft

        >>> Tensor([[1., 0.], [0., 0.]]).fft().tolist()
        [[1.0, 0.0], [1.0, 0.0]]
        """
        return _along(self._pairs_of("fft"), n, dim, norm, False)
    def ifft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The inverse of fft."""
        return _along(self._pairs_of("ifft"), n, dim, norm, True)
    def rfft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The transform of real signals, up to the highest frequency; the rest is its mirror image.

        shapes:  (..., n) -> (..., n // 2 + 1, 2)

        >>> Tensor([1., 2., 3.]).rfft()[0].tolist()
        [6.0, 0.0]
        """
        x = self.cast(wide_dtype(self.dtype))
        a = x._long_axis(dim, "rfft")
        out = _along(x.unsqueeze(-1).pad((0, 1)), n, a, norm, False)
        return out[out._along(a, slice(0, out.shape[a] // 2 + 1))]
    def irfft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The inverse of rfft: a real signal of n elements (2 (m - 1) unless given).

        shapes:  (..., m, 2) -> (..., n)
        """
        x = self._pairs_of("irfft")
        a = _pair_axis(x, dim)
        n = 2 * (x.shape[a] - 1) if n is None else n
        half = n // 2 + 1
        x = _to_length(x, a, half)
        x = x.movedim(a, -2)
        ends = type(x).arange(half)
        only_real = (ends == 0) | (ends == n / 2)                  # these two must be real: their imaginary parts count nothing
        x = x * (only_real.unsqueeze(-1) & (type(x).arange(2) == 1)).where(0.0, 1.0).cast(x.dtype)
        rest = _conj(x[..., 1:n - half + 1, :].flip(-2))
        return _along(x.cat(rest, dim=-2), n, -1, norm, True)[..., 0].movedim(-1, a)
    def hfft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The real transform of a signal that is its own mirror image, given by its first half."""
        return _conj(self).irfft(n, dim, {"forward": "backward", "ortho": "ortho"}.get(norm or "backward", "forward"))
    def ihfft(self, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        """The inverse of hfft."""
        return _conj(self.rfft(n, dim, {"forward": "backward", "ortho": "ortho"}.get(norm or "backward", "forward")))

    # ---- several axes ----------------------------------------------------------------------------------------------------------------
    def fftn(self, s: Sequence[int] | None = None, dim: Any = None, norm: str | None = None) -> Tensor:
        """fft along several axes (all unless named), the last first; s: their lengths."""
        return self._over(s, dim, lambda x, n, a: x.fft(n, a, norm))
    def ifftn(self, s: Sequence[int] | None = None, dim: Any = None, norm: str | None = None) -> Tensor:
        """The inverse of fftn."""
        return self._over(s, dim, lambda x, n, a: x.ifft(n, a, norm))
    def rfftn(self, s: Sequence[int] | None = None, dim: Any = None, norm: str | None = None) -> Tensor:
        """rfft along the last of several axes, fft along the others."""
        axes, sizes = _axes_of(self.ndim, s, dim)
        x = self.rfft(sizes[-1], axes[-1], norm)
        return x.fftn(sizes[:-1], axes[:-1], norm) if len(axes) > 1 else x
    def irfftn(self, s: Sequence[int] | None = None, dim: Any = None, norm: str | None = None) -> Tensor:
        """The inverse of rfftn."""
        axes, sizes = _axes_of(self.ndim - 1, s, dim)
        x = self.ifftn(sizes[:-1], axes[:-1], norm) if len(axes) > 1 else self
        return x.irfft(sizes[-1], axes[-1], norm)
    def fft2(self, s: Sequence[int] | None = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor: return self.fftn(s, dim, norm)
    def ifft2(self, s: Sequence[int] | None = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor: return self.ifftn(s, dim, norm)
    def rfft2(self, s: Sequence[int] | None = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor: return self.rfftn(s, dim, norm)
    def irfft2(self, s: Sequence[int] | None = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
        return self.irfftn(s, dim, norm)
    def _over(self, s: Sequence[int] | None, dim: Any, step: Callable[[Tensor, Any, int], Tensor]) -> Tensor:
        axes, sizes = _axes_of(self.ndim - 1, s, dim)
        x = self
        for n, a in reversed(list(zip(sizes, axes))): x = step(x, n, a)
        return x

    # ---- order and frequencies -----------------------------------------------------------------------------------------------------------
    def fftshift(self, dim: Any = None) -> Tensor:
        """Frequency 0 moved to the middle of axes (all unless named; the axis of pairs is one to leave out)."""
        axes = self._axes(dim)
        return self.roll([self.shape[a] // 2 for a in axes], axes)
    def ifftshift(self, dim: Any = None) -> Tensor:
        """The inverse of fftshift."""
        axes = self._axes(dim)
        return self.roll([-(self.shape[a] // 2) for a in axes], axes)
    @classmethod
    def fftfreq(cls, n: int, d: float = 1.0, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """The frequencies of fft's results for samples d apart: 0, 1, …, -2, -1 over n d."""
        return (cls.arange(-(n // 2), n - n // 2, device=device).roll(-(n // 2)) / (n * d)).cast(dtype or dtypes.default_float)
    @classmethod
    def rfftfreq(cls, n: int, d: float = 1.0, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """The frequencies of rfft's results: 0, 1, …, n // 2 over n d."""
        return (cls.arange(n // 2 + 1, device=device) / (n * d)).cast(dtype or dtypes.default_float)

    # ---- spectrograms
    # ------------------------------------------------------------------------------------------------------------------------
    def stft(self, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,
             center: bool = True,
             pad_mode: str = "reflect", normalized: bool = False, onesided: bool = True) -> Tensor:
        """Transforms of windows of n_fft samples, hop_length (n_fft // 4) apart.

        shapes:  (..., n) -> (..., frequencies, windows, 2); with `center` the signal is padded by n_fft // 2 on both sides
        errors:  ShapeError for a window of another length than win_length (n_fft)
        source:  torch.stft
        """
        hop = n_fft // 4 if hop_length is None else hop_length
        x = self.cast(wide_dtype(self.dtype))
        if center:
            x = x.reshape(-1, x.shape[-1]).pad((n_fft // 2, n_fft // 2), mode=pad_mode).reshape(*x.shape[:-1], x.shape[-1] + n_fft // 2 * 2)
        frames = x.unfold(-1, n_fft, hop) * _window(x, n_fft, win_length, window)
        out = frames.rfft() if onesided else frames.unsqueeze(-1).pad((0, 1)).fft()
        out = out.transpose(-3, -2)
        return out / math.sqrt(n_fft) if normalized else out
    def istft(self, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,
              center: bool = True,
              normalized: bool = False, onesided: bool = True, length: int | None = None) -> Tensor:
        """The signal whose stft this is, by adding up the windows that overlap.

        shapes:  (..., frequencies, windows, 2) -> (..., n)
        source:  torch.istft
        """
        hop = n_fft // 4 if hop_length is None else hop_length
        x = self._pairs_of("istft").transpose(-3, -2)
        frames = x.irfft(n_fft) if onesided else x.ifft()[..., 0]
        if normalized: frames = frames * math.sqrt(n_fft)
        w = _window(frames, n_fft, win_length, window)
        count = frames.shape[-2]
        whole = (count - 1) * hop + n_fft
        def add_up(y: Tensor) -> Tensor: return y._new(UOp(Ops.FOLD, y.dtype, (y.uop,), UnfoldArg(y.ndim - 2, n_fft, hop, 1, whole)))
        signal = add_up(frames * w) / add_up(w.square().expand(count, n_fft))
        start = n_fft // 2 if center else 0
        end = whole - start if length is None else start + length
        signal = signal[..., start:min(end, whole)]
        return signal if end <= whole else signal.pad((0, end - whole))

    @classmethod
    def hann_window(cls, n: int, periodic: bool = True, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """Raised cosine: 0 at both ends; `periodic`: as if one sample longer, for transforms."""
        return cls.hamming_window(n, periodic, 0.5, 0.5, device=device, dtype=dtype)
    @classmethod
    def hamming_window(cls, n: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, device: str | None = None,
                       dtype: Any = None) -> Tensor:
        """alpha - beta cos(2 pi k / n)"""
        return cls._cosines(n, periodic, (alpha, -beta), device, dtype)
    @classmethod
    def blackman_window(cls, n: int, periodic: bool = True, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """0.42 - 0.5 cos(2 pi k / n) + 0.08 cos(4 pi k / n)"""
        return cls._cosines(n, periodic, (0.42, -0.5, 0.08), device, dtype)
    @classmethod
    def bartlett_window(cls, n: int, periodic: bool = True, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """A triangle."""
        x = cls.arange(n, device=device).cast(dtype or dtypes.default_float) * (2 / max(n - (not periodic), 1))
        return 1 - (x - 1).abs() if n > 1 else x + 1
    @classmethod
    def kaiser_window(cls, n: int, periodic: bool = True, beta: float = 12.0, *, device: str | None = None, dtype: Any = None) -> Tensor:
        """Bessel functions: narrow and with low side lobes, the lower the larger beta."""
        x = cls.arange(n, device=device).cast(dtype or dtypes.default_float) * (2 / max(n - (not periodic), 1)) - 1
        return ((1 - x * x).maximum(0.0).sqrt() * beta).i0() / cls(float(beta)).i0() if n > 1 else x * 0 + 1
    @classmethod
    def _cosines(cls, n: int, periodic: bool, weights: tuple[float, ...], device: str | None, dtype: Any) -> Tensor:
        x = cls.arange(n, device=device).cast(dtype or dtypes.default_float) * (2 * math.pi / max(n - (not periodic), 1))
        return functools.reduce(lambda y, k: y + (x * k).cos() * weights[k], range(1, len(weights)),
                                x * 0 + weights[0]) if n > 1 else x * 0 + 1

    def _pairs_of(self, what: str) -> Tensor:
        if self.ndim < 2 or self.shape[-1] != 2:
            raise ShapeError(f"{what} of {self.shape} {self.dtype.short}\n"
                             f"  complex numbers are pairs: the last axis must be 2\n  try: rfft for real signals")
        return self.cast(wide_dtype(self.dtype))


# ---- helpers ---------------------------------------------------------------------------------------------------------------------------
def _pair_axis(x: Tensor, dim: int) -> int: return x[..., 0]._long_axis(dim, "a transform")


def _axes_of(ndim: int, s: Sequence[int] | None, dim: Any) -> tuple[list[int], list[int | None]]:
    """(axes, their lengths)"""
    if dim is None: axes = list(range(ndim) if s is None else range(ndim - len(s), ndim))
    else: axes = [d % ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if s is not None and len(s) != len(axes):
        raise ShapeError(f"a transform over axes {tuple(axes)} to lengths {tuple(s)}\n  there must be one length for each axis")
    return axes, list(s) if s is not None else [None] * len(axes)


def _to_length(x: Tensor, a: int, n: int) -> Tensor:
    """Axis a cut or filled with zeros."""
    if n < 1: raise ShapeError(f"a transform of {x.shape} to length {n}\n  it must be at least 1")
    m = x.shape[a]
    return x if m == n else x.narrow(a, 0, n) if m > n else x.pad([(0, n - m) if i == a else (0, 0) for i in range(x.ndim)])


def _along(x: Tensor, n: int | None, dim: int, norm: str | None, inverse: bool) -> Tensor:
    """The transform of pairs along an axis."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise UsageError(f"a transform with norm={norm!r}\n  try: 'backward', 'ortho' or 'forward'")
    a = _pair_axis(x, dim)
    x = _to_length(x, a, x.shape[a] if n is None else n)
    n = x.shape[a]
    y = _transform(x.movedim(a, -2), inverse).movedim(-2, a)
    if norm == "ortho": return y / math.sqrt(n)
    return y / n if (norm == "forward") != inverse else y


def _conj(x: Tensor) -> Tensor: return x * type(x)([1.0, -1.0], dtype=x.dtype)


def _times(x: Tensor, w: Tensor) -> Tensor:
    """Complex products of pairs."""
    a, b, c, d = x[..., 0], x[..., 1], w[..., 0], w[..., 1]
    return (a * c - b * d).stack(a * d + b * c, dim=-1)


def _table(like: Tensor, turns: Any) -> Tensor:
    """exp(2 pi i turns) as pairs, made in float64."""
    return type(like)(np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], -1).astype(like.dtype.np_name),
                      device=like._storage.device)


@functools.cache
def _dft_matrix(n: int, sign: int, dtype: DType) -> Any:
    """The real (2 n, 2 n) matrix of a transform of pairs that are flattened to one axis."""
    turns = 2 * np.pi * sign * (np.outer(np.arange(n), np.arange(n)) % n) / n
    c, s = np.cos(turns), np.sin(turns)
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1).reshape(2 * n, 2 * n).astype(dtype.np_name)


def _transform(x: Tensor, inverse: bool) -> Tensor:
    """The transform, without a factor, of (..., n, 2)."""
    *lead, n, _ = x.shape
    sign = 1 if inverse else -1
    if n == 1: return x
    if n <= DIRECT: return x.reshape(*lead, 2 * n).matmul(type(x)(_dft_matrix(n, sign, x.dtype), device=x._storage.device)).reshape(x.shape)
    a = next((k for k in range(RADIX, 1, -1) if n % k == 0), 0) or next((k for k in range(RADIX, DIRECT + 1) if n % k == 0), 0)
    if not a: return _chirp(x, inverse)
    b = n // a
    y = _transform(x.reshape(*lead, a, b, 2).transpose(-3, -2), inverse)                         # (..., b, a, 2): transformed over a
    y = _times(y, _table(x, sign * np.outer(np.arange(b), np.arange(a)) / n))
    return _transform(y.transpose(-3, -2), inverse).transpose(-3, -2).reshape(x.shape)            # k = k_a + a k_b


def _chirp(x: Tensor, inverse: bool) -> Tensor:
    """A transform as a convolution: j k = (j² + k² - (k - j)²) / 2."""
    n = x.shape[-2]
    sign = 1 if inverse else -1
    m = 1 << (2 * n - 2).bit_length()
    square = sign * (np.arange(n, dtype="int64") ** 2 % (2 * n)) / (2 * n)
    chirp = np.exp(-2j * np.pi * square)
    kernel = np.zeros(m, "complex128")
    kernel[:n], kernel[m - n + 1:] = chirp, chirp[:0:-1]
    spectrum = np.fft.fft(kernel)
    spectrum = type(x)(np.stack([spectrum.real, spectrum.imag], -1).astype(x.dtype.np_name), device=x._storage.device)
    w = _table(x, square)
    y = _transform(_times(x, w).pad([*[(0, 0)] * (x.ndim - 2), (0, m - n), (0, 0)]), False)
    y = _transform(_times(y, spectrum), True)[..., :n, :] / m
    return _times(y, w)


def _window(x: Tensor, n_fft: int, win_length: int | None, window: Tensor | None) -> Tensor:
    """The window of win_length samples in the middle of n_fft."""
    length = n_fft if win_length is None else win_length
    w = type(x).ones(length, dtype=x.dtype) if window is None else window.cast(x.dtype)
    if w.shape != (length,) or length > n_fft:
        raise ShapeError(f"a window {w.shape} for {length} of {n_fft} samples\n  it must have win_length (or n_fft) elements")
    return w.pad(((n_fft - length) // 2, n_fft - length - (n_fft - length) // 2))
