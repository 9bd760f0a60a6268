"""Weights by name: collected from models, loaded into them, saved and read back as tensors."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glassgrad import nn
from glassgrad.nn import quants
from glassgrad.nn.state import (
    get_parameters,
    get_state_dict,
    gguf_load,
    load_state_dict,
    safe_load,
    safe_load_metadata,
    safe_save,
    torch_load,
)
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

DATA = Path(__file__).parents[3] / "shared" / "data"


class Model:
    def __init__(self, width=3):
        self.first, self.rest = nn.Linear(2, width), [nn.Linear(width, width), {"last": nn.Linear(width, 1, bias=False)}]
        self.name, self.size, self.nothing, self.pair = "model", 3, None, (Tensor(np.zeros(1, np.float32)),)


def values(model): return {name: x.numpy().copy() for name, x in get_state_dict(model).items()}


def test_state_dict():
    model = Model()
    assert list(get_state_dict(model)) == ["first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.1.last.weight", "pair.0"]
    assert list(get_state_dict(model.first, "x")) == ["x.weight", "x.bias"]
    model.tied, model.self = model.first.weight, model
    assert "tied" in get_state_dict(model) and len(get_parameters(model)) == 6


def test_load_state_dict():
    a, b = Model(), Model()
    assert load_state_dict(b, get_state_dict(a)) == []
    for name, x in values(a).items(): np.testing.assert_array_equal(values(b)[name], x)
    (b.first(Tensor(np.ones((1, 2), np.float32))).sum()).backward()
    assert b.first.weight.grad is not None and b.first.weight.requires_grad


def test_load_keeps_the_models_type():
    a, state = Model(), get_state_dict(Model())
    load_state_dict(a, {name: x.cast(dtypes.float16) for name, x in state.items()})
    assert all(x.dtype is dtypes.float32 for x in get_state_dict(a).values())


def test_load_errors_change_nothing():
    a, state = Model(), get_state_dict(Model())
    before = values(a)
    with pytest.raises(UsageError, match=r"the model also has: first.bias(.|\n)*the model has no: extra"):
        load_state_dict(a, {**{name: x for name, x in state.items() if name != "first.bias"}, "extra": state["pair.0"]})
    with pytest.raises(ShapeError, match=r"'rest.1.last.weight'\n.* \(1, 3\), the given one \(1, 4\)"):
        load_state_dict(a, {**state, "rest.1.last.weight": Tensor(np.ones((1, 4), np.float32))})
    with pytest.raises(DTypeError, match="not a Tensor"): load_state_dict(a, {**state, "pair.0": np.ones(1)})
    for name, x in values(a).items(): np.testing.assert_array_equal(before[name], x)


def test_load_what_fits():
    a, state = Model(), get_state_dict(Model())
    del state["first.bias"]
    assert load_state_dict(a, {**state, "extra": state["pair.0"]}, strict=False) == ["first.bias", "extra"]


def test_load_lazily_and_consume():
    a, state = Model(), get_state_dict(Model())
    expected, given = {name: x.numpy() for name, x in state.items()}, dict(state)
    load_state_dict(a, given, consume=True, realize=False)
    assert given == {}
    for name, x in values(a).items(): np.testing.assert_array_equal(expected[name], x)


def test_safetensors_round_trip(tmp_path):
    state = {"f": Tensor(np.arange(6, dtype=np.float32).reshape(2, 3)), "i": Tensor(np.arange(3)), "b": Tensor(np.array([True, False])),
             "brain": Tensor(np.array([1.0, 2.5], np.float32)).cast(dtypes.bfloat16), "scalar": Tensor(np.array(3.0, np.float16))}
    safe_save(state, tmp_path / "x.safetensors", {"a": "b"})
    found = safe_load(tmp_path / "x.safetensors")
    assert found.keys() == state.keys() and safe_load_metadata(tmp_path / "x.safetensors") == {"a": "b"}
    for name, x in state.items():
        assert found[name].dtype is x.dtype and tuple(found[name].shape) == tuple(x.shape)
        np.testing.assert_array_equal(found[name].float().numpy(), x.float().numpy())


def test_safe_save_over_what_was_loaded(tmp_path):
    safe_save({"x": Tensor(np.arange(4, dtype=np.float32))}, tmp_path / "x.safetensors")
    found = safe_load(tmp_path / "x.safetensors")
    safe_save({"x": found["x"] + 1}, tmp_path / "x.safetensors")
    assert safe_load(tmp_path / "x.safetensors")["x"].tolist() == [1, 2, 3, 4]


def test_optimizer_state_can_be_saved(tmp_path):
    model = Model()
    optimizer = nn.optim.AdamW(get_parameters(model))
    model.first(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    optimizer.step()
    safe_save(get_state_dict(optimizer), tmp_path / "x.safetensors")
    again = nn.optim.AdamW(get_parameters(Model()))
    load_state_dict(again, safe_load(tmp_path / "x.safetensors"))
    for name, x in values(optimizer).items(): np.testing.assert_array_equal(values(again)[name], x)


def test_torch_load(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is absent")
    saved = {
        "w": torch.arange(6.0).reshape(2, 3).T,
        "brain": torch.tensor([1.5], dtype=torch.bfloat16),
        "rep": torch.ones(1, 2).expand(3, 2),
        "n": 3,
    }
    torch.save(saved, tmp_path / "x.pt")
    found = torch_load(tmp_path / "x.pt")
    assert found["n"] == 3 and found["brain"].dtype is dtypes.bfloat16
    for name in ("w", "brain", "rep"): np.testing.assert_array_equal(found[name].float().numpy(), saved[name].float().numpy())


@pytest.mark.parametrize("quant", [q for q in quants.TYPES.values() if q.unpack], ids=lambda q: q.name)
def test_lazy_unpacking_equals_numpy(quant):
    blocks = np.random.default_rng(2).integers(0, 256, (3, quant.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"): expected = quant.unpack(blocks)
    np.testing.assert_allclose(quant.unpack(Tensor(blocks)).numpy(), expected, rtol=1e-6)


@pytest.mark.skipif(not (DATA / "stories260K.gguf").exists(), reason="the model is not here")
def test_gguf_load():
    metadata, weights = gguf_load(DATA / "stories260K.gguf")
    assert metadata["general.architecture"] == "llama" and tuple(weights["token_embd.weight"].shape) == (512, 64)
    assert np.isfinite(weights["token_embd.weight"].numpy()).all()


@pytest.mark.skipif(not (DATA / "taef2_decoder.pth").exists(), reason="the model is not here")
def test_a_real_checkpoint():
    torch = pytest.importorskip("torch", reason="torch is absent")
    found, expected = torch_load(DATA / "taef2_decoder.pth"), torch.load(DATA / "taef2_decoder.pth", weights_only=True)
    assert list(found) == list(expected)
    for name in list(found)[:5]: np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy())
