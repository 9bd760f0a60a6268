"""Fourier transforms: as NumPy and torch have them."""

import functools

import numpy as np
import pytest
import torch
from judge import data, gives, slopes
from oracle import evaluate

from glassgrad import Tensor
from glassgrad.uop.errors import ShapeError, UsageError


def pairs(z):
    """Complex numbers as we have them."""
    z = z.detach().numpy() if isinstance(z, torch.Tensor) else z
    return np.stack([z.real, z.imag], -1)


def signal(*shape):
    return (data(*shape) + 1j * data(*shape, seed=1)).astype("complex64")


@pytest.mark.parametrize("n", [1, 2, 15, 64, 96, 131])
def test_lengths(n):
    x = signal(2, n)
    tight = 2e-6 * max(n, 4)
    gives(Tensor(pairs(x)).fft(), pairs(np.fft.fft(x)), 1e-5, tight)
    real = data(2, n)
    gives(Tensor(real).rfft(), pairs(np.fft.rfft(real)), 1e-5, tight)


@pytest.mark.parametrize("n", [1000, 1 << 12, 1021 * 2, 9797])
def test_long_ones(n):
    """What the graphs mean: in float64 every digit is there."""
    x = (data(n) + 1j * data(n, seed=1)).astype("complex128")
    found, back = evaluate(*[(y := Tensor(pairs(x)).fft()).uop, y.ifft().uop])
    np.testing.assert_allclose(found, pairs(np.fft.fft(x)), atol=1e-9)
    np.testing.assert_allclose(back, pairs(x), atol=1e-12)


X, Z, R = data(3, 8), signal(3, 8), signal(3, 5)
CASES = {
    **{f"fft {norm}": (lambda norm=norm: Tensor(pairs(Z)).fft(norm=norm), lambda norm=norm: pairs(np.fft.fft(Z, norm=norm)))
       for norm in ("backward", "ortho", "forward")},
    **{f"ifft {norm}": (lambda norm=norm: Tensor(pairs(Z)).ifft(norm=norm), lambda norm=norm: pairs(np.fft.ifft(Z, norm=norm)))
       for norm in ("backward", "ortho", "forward")},
    "fft of an axis, longer": (lambda: Tensor(pairs(Z)).fft(5, 0), lambda: pairs(np.fft.fft(Z, 5, 0))),
    "rfft shorter": (lambda: Tensor(X).rfft(6), lambda: pairs(np.fft.rfft(X, 6))),
    "irfft": (lambda: Tensor(pairs(R)).irfft(), lambda: np.fft.irfft(R)),
    "irfft odd": (lambda: Tensor(pairs(R)).irfft(7, 0), lambda: np.fft.irfft(R, 7, 0)),
    "hfft": (lambda: Tensor(pairs(R)).hfft(norm="ortho"), lambda: np.fft.hfft(R, norm="ortho")),
    "ihfft": (lambda: Tensor(X).ihfft(), lambda: pairs(np.fft.ihfft(X))),
    "fft2": (lambda: Tensor(pairs(Z)).fft2(), lambda: pairs(np.fft.fft2(Z))),
    "ifft2": (lambda: Tensor(pairs(Z)).ifft2((4, 4)), lambda: pairs(np.fft.ifft2(Z, (4, 4)))),
    "rfft2": (lambda: Tensor(X).rfft2(), lambda: pairs(np.fft.rfft2(X))),
    "irfftn": (lambda: Tensor(pairs(R)).irfftn((3, 8)), lambda: np.fft.irfftn(R, (3, 8))),
    "fftshift": (lambda: Tensor(X).fftshift(1), lambda: np.fft.fftshift(X, 1)),
    "ifftshift": (lambda: Tensor(X).ifftshift(), lambda: np.fft.ifftshift(X)),
    "fftfreq": (lambda: Tensor.fftfreq(7, 0.5), lambda: np.fft.fftfreq(7, 0.5)),
    "rfftfreq": (lambda: Tensor.rfftfreq(8), lambda: np.fft.rfftfreq(8)),
    **{f"{name} window{'' if periodic else ', symmetric'}": (functools.partial(getattr(Tensor, f"{name}_window"), 9, periodic),
                                                             functools.partial(getattr(torch, f"{name}_window"), 9, periodic))
       for name in ("hann", "hamming", "blackman", "bartlett", "kaiser") for periodic in (True, False)},
}


@pytest.mark.parametrize("ours,theirs", CASES.values(), ids=CASES.keys())
def test_transform(ours, theirs):
    gives(ours(), theirs(), 1e-5, 2e-6)


def test_slopes():
    slopes(lambda x: x.rfft().square().sum(-1), lambda x: torch.fft.rfft(x).abs() ** 2, X)
    slopes(lambda x: x.rfft(6).irfft(9), lambda x: torch.fft.irfft(torch.fft.rfft(x, 6), 9), X)
    slopes(lambda x: x.fft(dim=0), lambda x: torch.view_as_real(torch.fft.fft(torch.view_as_complex(x), dim=0)), pairs(Z))


@pytest.mark.parametrize("options", [{}, {"hop_length": 3, "win_length": 6}, {"center": False}, {"normalized": True, "onesided": False}],
                         ids=str)
def test_spectrogram(options):
    x = data(2, 40)
    length = options.get("win_length", 8)
    theirs = torch.stft(torch.tensor(x), 8, window=torch.hann_window(length), return_complex=True, **options)
    ours = Tensor(x).stft(8, window=Tensor.hann_window(length), **options)
    gives(ours, torch.view_as_real(theirs), 1e-4, 1e-5)
    if options.get("center", True):
        back = Tensor(torch.view_as_real(theirs).numpy()).istft(8, window=Tensor.hann_window(length), length=40, **options)
        gives(back, torch.istft(theirs, 8, window=torch.hann_window(length), length=40, **options), 1e-4, 1e-5)


def test_mistakes():
    with pytest.raises(ShapeError, match="try: rfft"):
        Tensor(X).fft()
    with pytest.raises(UsageError, match="'ortho'"):
        Tensor(X).rfft(norm="unitary")
    with pytest.raises(ShapeError, match="win_length"):
        Tensor(X).stft(4, window=Tensor.ones(3))
    with pytest.raises(ShapeError, match="one length for each axis"):
        Tensor(pairs(Z)).fftn((3,), (0, 1))
