"""Pooling, pixels, resampling, sampling: values and gradients as torch has them."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import data, gives, slopes

from glassgrad import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

LINE, IMAGE, VOLUME = data(2, 3, 9), data(2, 4, 6, 7), data(1, 2, 4, 5, 6)
KERNELS = {n: data(4, k, *(3,) * n, seed=n) for n, k in ((1, 3), (3, 2))}
ACROSS = {n: data(k, 2, *(3,) * n, seed=n) for n, k in ((1, 3), (3, 2))}
SAME = {  # applied to our tensors and to torch's alike: (input, ours, torch's)
    "conv1d": (LINE, lambda x: x.conv1d(Tensor(KERNELS[1]), None, 2, 1, 2), lambda x: F.conv1d(x, torch.tensor(KERNELS[1]), None, 2, 1, 2)),
    "conv3d": (VOLUME, lambda x: x.conv3d(Tensor(KERNELS[3]), padding=1), lambda x: F.conv3d(x, torch.tensor(KERNELS[3]), padding=1)),
    "conv_transpose1d": (LINE, lambda x: x.conv_transpose1d(Tensor(ACROSS[1]), None, 2, 1, 1),
                         lambda x: F.conv_transpose1d(x, torch.tensor(ACROSS[1]), None, 2, 1, 1)),
    "conv_transpose3d": (VOLUME, lambda x: x.conv_transpose3d(Tensor(ACROSS[3]), stride=2),
                         lambda x: F.conv_transpose3d(x, torch.tensor(ACROSS[3]), stride=2)),
    "max_pool1d": (LINE, lambda x: x.max_pool1d(3, 2, 1), lambda x: F.max_pool1d(x, 3, 2, 1)),
    "max_pool3d": (VOLUME, lambda x: x.max_pool3d(2), lambda x: F.max_pool3d(x, 2)),
    "avg_pool1d": (LINE, lambda x: x.avg_pool1d(3, 2, 1), lambda x: F.avg_pool1d(x, 3, 2, 1)),
    "avg_pool3d": (VOLUME, lambda x: x.avg_pool3d(2), lambda x: F.avg_pool3d(x, 2)),
    "lp_pool2d": (abs(IMAGE), lambda x: x.lp_pool2d(3, 2), lambda x: F.lp_pool2d(x, 3, 2)),
    "adaptive_avg_pool2d": (IMAGE, lambda x: x.adaptive_avg_pool2d((4, None)), lambda x: F.adaptive_avg_pool2d(x, (4, None))),
    "adaptive_avg_pool2d to 1": (IMAGE, lambda x: x.adaptive_avg_pool2d(1), lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive_avg_pool3d": (VOLUME, lambda x: x.adaptive_avg_pool3d((3, 2, 4)), lambda x: F.adaptive_avg_pool3d(x, (3, 2, 4))),
    "adaptive_max_pool1d": (LINE, lambda x: x.adaptive_max_pool1d(4), lambda x: F.adaptive_max_pool1d(x, 4)),
    "im2col": (IMAGE, lambda x: x.im2col((2, 3), (1, 2), 1, (2, 1)), lambda x: F.unfold(x, (2, 3), (1, 2), 1, (2, 1))),
    "fold": (data(2, 12, 16), lambda x: x.fold((5, 9), (2, 3), 1, 0, (1, 2)), lambda x: F.fold(x, (5, 9), (2, 3), 1, 0, (1, 2))),
    "pixel_shuffle": (IMAGE, lambda x: x.pixel_shuffle(2), lambda x: F.pixel_shuffle(x, 2)),
    "pixel_unshuffle": (IMAGE[:, :, :, :6], lambda x: x.pixel_unshuffle(3), lambda x: F.pixel_unshuffle(x, 3)),
    "channel_shuffle": (IMAGE, lambda x: x.channel_shuffle(2), lambda x: x.reshape(2, 2, 2, 6, 7).transpose(1, 2).reshape(2, 4, 6, 7)),
    "local_response_norm": (IMAGE, lambda x: x.local_response_norm(3, 0.1), lambda x: F.local_response_norm(x, 3, 0.1)),
    **{f"interpolate {mode} to {size}": (IMAGE[:1, :1], lambda x, mode=mode, size=size: x.interpolate(size, mode), lambda x, mode=mode,
                                         size=size: F.interpolate(x, size, mode=mode))
       for mode in ("bilinear", "bicubic", "area", "nearest", "nearest-exact") for size in ((9, 4),)},
    "interpolate corners": (IMAGE[:1, :1], lambda x: x.interpolate((9, 4), "bicubic", True),
                            lambda x: F.interpolate(x, (9, 4), mode="bicubic", align_corners=True)),
    "interpolate scale": (IMAGE[:1, :1], lambda x: x.interpolate(scale_factor=2, mode="bilinear"),
                          lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    **{f"interpolate antialias {mode}": (IMAGE[:1, :1], lambda x, mode=mode: x.interpolate((3, 2), mode, antialias=True), lambda x,
                                         mode=mode: F.interpolate(x, (3, 2), mode=mode, antialias=True))
       for mode in ("bilinear", "bicubic")},
}


@pytest.mark.parametrize("x,ours,theirs", SAME.values(), ids=SAME.keys())
def test_images(x, ours, theirs):
    gives(ours(Tensor(x)), theirs(torch.tensor(x)), 1e-4, 1e-5)
    slopes(ours, theirs, x)


GRID = data(2, 5, 4, 2, lo=-1.3, hi=1.3)


@pytest.mark.parametrize("mode,padding,corners", [*itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (False,)),
                                                  ("bicubic", "zeros", False), ("bicubic", "reflection", True),
                                                  ("bilinear", "reflection", True)])
def test_grid_sample(mode, padding, corners):
    x = IMAGE[:, :2]
    gives(Tensor(x).grid_sample(Tensor(GRID), mode, padding, corners),
          F.grid_sample(torch.tensor(x), torch.tensor(GRID), mode, padding, corners), 1e-4, 1e-5)
    slopes(lambda x, g: x.grid_sample(g, mode, padding, corners), lambda x, g: F.grid_sample(x, g, mode, padding, corners), x, GRID)


def test_grids_of_volumes():
    theta = data(1, 3, 4)
    grid = Tensor.affine_grid(Tensor(theta), (1, 2, 3, 4, 5))
    expected = F.affine_grid(torch.tensor(theta), (1, 2, 3, 4, 5), align_corners=False)
    gives(grid, expected)
    gives(Tensor(VOLUME).grid_sample(grid), F.grid_sample(torch.tensor(VOLUME), expected, align_corners=False), 1e-4, 1e-5)
    flat = data(2, 2, 3)
    gives(Tensor.affine_grid(Tensor(flat), (2, 1, 3, 4), True), F.affine_grid(torch.tensor(flat), (2, 1, 3, 4), align_corners=True))


def test_unpooling():
    x = torch.tensor(LINE)
    values, places = F.max_pool1d(x, 3, return_indices=True)
    gives(Tensor(values.numpy()).max_unpool1d(Tensor(places.numpy()), 3), F.max_unpool1d(values, places, 3))
    gives(Tensor(LINE).max_pool1d(3, return_indices=True), (values, places))


def test_mistakes():
    image = Tensor.ones(1, 3, 4, 4)
    for wrong, text in ((lambda: image.conv1d(Tensor.ones(1, 3, 3, 3)), "must have 3 axes"),
                        (lambda: image.pixel_shuffle(2), "no multiple of 4"),
                        (lambda: image.channel_shuffle(2), "no multiple of 2"), (lambda: image.fold((4, 4), 2), "fold of"),
                        (lambda: image.grid_sample(Tensor.ones(1, 2, 2, 3)), r"\*places, 2"),
                        (lambda: image.adaptive_avg_pool2d((1, 2, 3)), "2 sizes")):
        with pytest.raises((ShapeError, ValueError), match=text):
            wrong()
    for wrong in (lambda: image.interpolate((2, 2), "lanczos"), lambda: image.interpolate(),
                  lambda: image.grid_sample(Tensor.ones(1, 2, 2, 2), "cubic")):
        with pytest.raises(UsageError, match="try:|given"):
            wrong()
    assert Tensor([[True, False]]).interpolate((4,), "nearest").tolist() == [[True, True, False, False]]
    np.testing.assert_array_equal(Tensor([0, 10]).interpolate((3,)).numpy(), [0, 5, 10])
