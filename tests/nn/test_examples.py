"""Every example runs, small, and does what it says."""
from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from glassgrad.nn.datasets import IDX_FILES

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run an example's main() with these arguments, in an empty folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def main(name: str, *args: str):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *args])
        return importlib.import_module(name).main()

    return main


def write_idx(path: Path, x: np.ndarray) -> None:
    path.write_bytes(bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes())


def test_mnist(run, tmp_path, capsys):
    folder = tmp_path / "glassgrad" / "data" / "mnist"
    folder.mkdir(parents=True)
    rng, parts = np.random.default_rng(0), []
    for count in (600, 500):  # digits that are a bright square whose place tells the label
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True): image[2 + label * 2:6 + label * 2, 4:24] = 255
        parts += [images, labels]
    for name, x in zip(IDX_FILES, parts, strict=True): write_idx(folder / name, x)
    accuracy = run("mnist", "--steps", "12", "--batch", "32", "--data", "auto")
    assert accuracy > 0.3
    assert (tmp_path / "mnist_loss.png").read_bytes().startswith(b"\x89PNG")
    assert "test images right" in capsys.readouterr().out


def test_cifar(run, capsys):
    run("cifar", "--fake", "--steps", "3", "--batch", "8", "--width", "4")
    assert "of 512 test images right" in capsys.readouterr().out


def test_gpt2_shape(run, capsys):
    run("gpt2_shape", "--layers", "1", "--dim", "64", "--words", "50", "--tokens", "4")
    words = {line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()}
    assert len(words) == 1 and 0 <= int(words.pop()) < 50


def test_resnet(run, capsys):
    run("resnet", "--depth", "18", "--size", "32")
    assert len({line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()}) == 1


def test_resnet_has_the_names_of_torchvision(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    torchvision = pytest.importorskip("torchvision", reason="torchvision is absent")
    from glassgrad.nn.state import get_state_dict
    for depth in (18, 50):
        theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
        ours = get_state_dict(importlib.import_module("resnet").ResNet(depth))
        assert {name: tuple(x.shape) for name, x in ours.items()} == {name: tuple(x.shape) for name, x in theirs.items()}


def test_charlm(run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    run("charlm", "text.txt", "--steps", "30", "--batch", "8", "--context", "16", "--dim", "32", "--layers", "1", "--write", "30")
    out = capsys.readouterr().out
    first, last = [float(part.split()[0]) for part in out.partition("letter: ")[2].split(", ")[:2]]
    assert last < first


@pytest.mark.parametrize("values", [[], [1.0], [float("nan"), 1.0], list(np.linspace(3, 0, 500))])
def test_plot(monkeypatch, tmp_path, values):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("plot").save_curve(str(tmp_path / "x.png"), values)
    image = pytest.importorskip("PIL.Image", reason="Pillow is absent").open(tmp_path / "x.png")
    image.load()
    assert image.size == (720, 360)
