"""Methods as modules, containers, first values, averages: as torch has them."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glassgrad import nn
from glassgrad.nn import init
from glassgrad.nn.modules import METHOD_CLASSES
from glassgrad.nn.state import get_state_dict
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ArgumentError, ShapeError, UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 6, 6)).astype("float32")


@pytest.mark.parametrize("name", sorted(METHOD_CLASSES))
def test_every_row_is_a_method_with_torchs_options(name):
    """The class stands for a method; options that torch's class also has come in its order."""
    ours = getattr(nn, name)
    assert callable(getattr(Tensor, ours.method)) and ours.__doc__
    theirs = getattr(torch.nn, name, None)
    assert theirs is not None, name
    wanted = [p for p in theirs.__init__.__code__.co_varnames[1:theirs.__init__.__code__.co_argcount] if p in ours.order]
    assert [p for p in ours.order if p in wanted] == wanted, (ours.order, wanted)


FORMS = [
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1}), ("AvgPool2d", (2, 1), {}), ("AdaptiveAvgPool2d", (2,), {}), ("LeakyReLU", (0.2,), {}),
         ("Softmax", (1,), {}),
    ("GELU", (), {"approximate": "none"}), ("ReLU", (), {"inplace": True}), ("Flatten", (), {"start_dim": 1}), ("PixelShuffle", (2,), {}),
         ("Hardtanh", (-0.5, 0.7), {}),
    ("ZeroPad2d", (1,), {}), ("ReflectionPad2d", ((1, 2, 0, 1),), {}), ("ConstantPad2d", (1, 3.0), {}), ("CircularPad2d", (2,), {}),
         ("Upsample", (), {"scale_factor": 2}),
    ("Upsample", (), {"size": 5, "mode": "bilinear", "align_corners": True}), ("PReLU", (), {}), ("Identity", (5,), {}),
         ("Unfold", (2,), {}), ("LocalResponseNorm", (2,), {}),
]


@pytest.mark.parametrize("name,args,options", FORMS, ids=str)
def test_form(name, args, options):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    np.testing.assert_allclose(ours(Tensor(X)).numpy(), theirs(torch.tensor(X)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_losses_and_two_inputs():
    logits, classes = RNG.normal(size=(5, 3)).astype("float32"), np.array([0, 2, 1, 1, 0])
    weight = np.array([1, 2, 3], "float32")
    ours = nn.CrossEntropyLoss(Tensor(weight), label_smoothing=0.1)(Tensor(logits), Tensor(classes))
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(weight), label_smoothing=0.1)
    assert ours.item() == pytest.approx(theirs(torch.tensor(logits), torch.tensor(classes)).item(), rel=1e-5)
    assert nn.MSELoss()(Tensor(logits), Tensor(logits + 1)).item() == pytest.approx(1, rel=1e-4)
    layer, other = nn.Bilinear(3, 3, 2), torch.nn.Bilinear(3, 3, 2)
    with torch.no_grad():
        for name, x in get_state_dict(layer).items(): getattr(other, name).copy_(torch.tensor(x.numpy()))
    np.testing.assert_allclose(layer(Tensor(logits), Tensor(logits)).numpy(),
                               other(torch.tensor(logits), torch.tensor(logits)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_dropouts():
    x = Tensor.ones(8, 16, 5, 5)
    for layer in (nn.Dropout2d(0.5), nn.AlphaDropout(0.2)): assert layer(x) is x
    with Tensor.train():
        kept = nn.Dropout2d(0.5)(x).numpy()
        assert set(np.unique(kept)) == {0, 2} and (kept.min((2, 3)) == kept.max((2, 3))).all()       # whole channels
        y = nn.AlphaDropout(0.3)(Tensor.randn(20000)).numpy()
        assert abs(y.mean()) < 0.05 and abs(y.std() - 1) < 0.05


def test_containers():
    class Net(nn.Module):
        def __init__(self):
            self.layers, self.kept = nn.Sequential(nn.Linear(3, 4), nn.ReLU(),
                                                   nn.Linear(4, 2)), nn.ModuleDict(a=nn.ModuleList([nn.Linear(2, 2)]))
        def forward(self, x): return self.kept["a"][0](self.layers(x))
    net, other = Net(), Net()
    assert set(net.state_dict()) == {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "kept.a.0.weight",
                                     "kept.a.0.bias"}
    assert len(net.parameters()) == 6 and dict(net.named_parameters()).keys() == net.state_dict().keys()
    x = Tensor.ones(2, 3)
    assert other.load_state_dict(net.state_dict()) == [] and net(x).tolist() == other(x).tolist()
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    seen = []
    assert net.apply(seen.append) is net and seen[-1] is net
    assert net.train() is net and Tensor.training and net.eval() is net and not Tensor.training
    assert not net.requires_grad_(False).parameters() and net.to("CPU") is net
    with pytest.raises(NotImplementedError): nn.Module()(x)


def test_init():
    def fresh(*shape): return Tensor.zeros(*shape)
    Tensor.manual_seed(3)
    x = init.uniform_(fresh(1000), -2, 5).numpy()
    assert -2 <= x.min() < -1.9 and 4.9 < x.max() <= 5
    assert abs(init.normal_(fresh(4000), 1, 0.5).numpy().std() - 0.5) < 0.03
    t = init.trunc_normal_(fresh(1000), std=2.0, a=-1, b=1).numpy()
    assert t.min() >= -1 and t.max() <= 1 and t.std() > 0.5
    assert init.constant_(fresh(2), 3).tolist() == [3,
                                                    3] and init.ones_(fresh(1)).tolist() == [1] and init.zeros_(Tensor([5.0])).tolist() == [0]
    np.testing.assert_array_equal(init.eye_(fresh(2, 3)).numpy(), np.eye(2, 3))
    for shape, groups in (((4, 2, 3), 2), ((3, 3, 3, 2), 1)):
        np.testing.assert_array_equal(init.dirac_(fresh(*shape), groups).numpy(), torch.nn.init.dirac_(torch.zeros(*shape), groups).numpy())
    for name, deviation in (("xavier_uniform_", math.sqrt(2 / 300)), ("xavier_normal_", math.sqrt(2 / 300)),
                            ("kaiming_uniform_", math.sqrt(2 / 200)), ("kaiming_normal_", math.sqrt(2 / 200))):
        assert getattr(init, name)(fresh(100, 200)).numpy().std() == pytest.approx(deviation, rel=0.03), name
    for shape in ((3, 5), (4, 2, 1)):
        q = init.orthogonal_(fresh(*shape), 2.0).numpy().reshape(shape[0], -1)
        square = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
        np.testing.assert_allclose(square, 4 * np.eye(len(square)), atol=1e-5)
    assert ((init.sparse_(fresh(10, 4), 0.3).numpy() == 0).sum(0) == 3).all()
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)
    for wrong in (lambda: init.fans(fresh(3)), lambda: init.eye_(fresh(3)), lambda: init.orthogonal_(fresh(3)),
                  lambda: init.dirac_(fresh(3, 3))):
        with pytest.raises(ShapeError): wrong()
    for wrong in (lambda: init.calculate_gain("sin"), lambda: init.kaiming_normal_(fresh(2, 2), mode="fan")):
        with pytest.raises(UsageError, match="try:"): wrong()


def test_ema():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.assign(Tensor.zeros(2, 2))
    ema = nn.EMA(layer, 0.9)
    layer.weight.assign(Tensor.ones(2, 2))
    for _ in range(2): ema.update()
    np.testing.assert_allclose(ema.state_dict()["weight"].numpy(), np.full((2, 2), 0.19), rtol=1e-5)
    with ema.applied(): np.testing.assert_allclose(layer.weight.numpy(), np.full((2, 2), 0.19), rtol=1e-5)
    assert layer.weight.tolist() == [[1, 1], [1, 1]] and layer.weight.requires_grad
    ema.copy_to()
    np.testing.assert_allclose(layer.weight.numpy(), np.full((2, 2), 0.19), rtol=1e-5)
    warm = nn.EMA(layer, 0.9, warmup=True)
    layer.weight.assign(Tensor.ones(2, 2))
    warm.update()
    np.testing.assert_allclose(warm.average["weight"].numpy(), 0.19 + 0.81 * (1 - 2 / 11), rtol=1e-5)
    with pytest.raises(UsageError): nn.EMA(layer, 1.5)
    with pytest.raises(UsageError): nn.EMA([])


def test_mistakes():
    with pytest.raises(ArgumentError, match="with strides=2\n  it takes kernel_size"): nn.MaxPool2d(2, strides=2)
    with pytest.raises(ArgumentError, match="of 2 options"): nn.LeakyReLU(0.1, 0.2)
    with pytest.raises(ShapeError, match="one number or 4"): nn.ZeroPad2d((1, 2, 3))
    with pytest.raises(AttributeError): print(nn.NoSuchLayer)
    assert repr(nn.MaxPool2d(3, stride=2)) == "MaxPool2d(kernel_size=3, stride=2)" and "ReLU" in dir(nn)
