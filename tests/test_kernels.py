"""How many kernels things take on a CPU, and how much work they are: what is fused stays fused."""
from __future__ import annotations

import numpy as np
import pytest

from glassgrad import Device, GlobalCounters, Tensor, nn
from glassgrad.engine.plan import _plans
from glassgrad.engine.realize import forget_everything
from glassgrad.passes import kernels


def data(*shape: int) -> Tensor: return Tensor(np.random.default_rng(0).standard_normal(shape).astype("float32")).realize()


@pytest.fixture(autouse=True)
def on_the_cpu():
    before, Device.DEFAULT = Device.DEFAULT, "CPU"
    yield
    Device.DEFAULT = before


def count(f, *xs: Tensor) -> int:
    """The kernels that computing f(*xs) launches."""
    y = f(*xs)
    GlobalCounters.reset()
    y.realize() if isinstance(y, Tensor) else y[0].realize(*y[1:])
    return GlobalCounters.kernel_count


ONE = {
    "add": lambda x: x + 1, "mean": lambda x: x.mean(1),
    "standard deviation": lambda x: x.std(1), "variance and mean": lambda x: x.var_mean(1)[0],
    "softmax": lambda x: x.softmax(), "log_softmax": lambda x: x.log_softmax(), "logsumexp": lambda x: x.logsumexp(1),
    "argmax": lambda x: x.argmax(1), "argmin": lambda x: x.argmin(1), "max": lambda x: x.max(1),
    "layernorm": lambda x: x.layernorm(), "rmsnorm": lambda x: x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt(),
    "gelu": lambda x: (x * 2 + 1).gelu(), "transposed sum": lambda x: x.T.sum(0),
    "cumsum": lambda x: x.cumsum(1), "one hot": lambda x: x.argmax(1).one_hot(8), "padded": lambda x: x.pad((1, 1, 2, 2)) * 2,
    "cat": lambda x: x.cat(x * 2, dim=1), "rand": lambda x: Tensor.rand(*x.shape) + x, "dropout": lambda x: x.dropout(0.5),
    "arange": lambda x: Tensor.arange(100) * 2, "max_pool": lambda x: x.reshape(1, 1, 64, 96).max_pool2d(),
    "cross entropy of a row": lambda x: -x.log_softmax()[:, 3],
}


@pytest.mark.parametrize("name", ONE)
def test_one_kernel(name):
    with Tensor.train(): assert count(ONE[name], data(64, 96)) == 1


def test_layernorm_with_weights_is_one_kernel():
    layer = nn.LayerNorm(96)
    Tensor.realize(layer.weight, layer.bias)
    assert count(layer, data(64, 96)) == 1


def test_a_product_with_its_epilogue_is_one_kernel():
    x, w, b, rest = data(64, 32), data(32, 96), data(96), data(64, 96)
    assert count(lambda: (x @ w + b).gelu() + rest) == 1
    assert count(lambda: (x @ w + b).relu()) == 1
    assert count(lambda: x.linear(w, b)) == 1


def test_a_convolution_with_its_epilogue_is_one_kernel():
    """Padding is another: its gates would otherwise stand in the innermost loop."""
    x, w, b = data(2, 8, 16, 16), data(16, 8, 3, 3), data(16)
    assert count(lambda: x.conv2d(w, b).relu()) == 1
    assert count(lambda: x.conv2d(w, b, padding=1).relu()) <= 2


def test_statistics_of_an_outer_axis_take_a_kernel_each():
    assert count(lambda x: x.softmax(0), data(64, 96)) <= 4


@pytest.mark.parametrize("rows, columns, kernels", [(64, 64, 1), (512, 512, 2), (512, 500, 1), (512, 768, 1), (64, 512, 1)])
def test_rows_of_products_are_not_stored_across_vectors_where_they_push_each_other_out_of_the_cache(rows, columns, kernels):
    x, w = data(rows, 16), data(16, columns)
    assert count(lambda: (x @ w).softmax()) == kernels
    np.testing.assert_allclose((x @ w).softmax().numpy().sum(1), 1, rtol=1e-5)


def test_attention_takes_at_most_two_kernels():
    q, k, v = data(2, 4, 64, 16), data(2, 4, 64, 16), data(2, 4, 64, 16)
    assert count(lambda: q.scaled_dot_product_attention(k, v)) <= 2
    assert count(lambda: q.scaled_dot_product_attention(k, v, is_causal=True)) <= 2


def test_sorting_takes_few_kernels():
    assert count(lambda x: x.sort()[0], data(1000)) <= 4
    assert count(lambda x: x.argsort(), data(1000)) <= 4
    assert count(lambda x: x.topk(10), data(1000)) <= 4


def test_scatter_and_setitem():
    x, index = data(1000), Tensor(np.arange(0, 1000, 7, dtype="int32")).realize()
    assert count(lambda: x.scatter(0, index, 1.0)) <= 2
    assert count(lambda: x[index]) == 1


def work(f) -> tuple[int, int]:
    """(operations, bytes) of what realizing f() runs."""
    y = f()
    forget_everything()
    GlobalCounters.reset()
    y.realize()
    return GlobalCounters.global_ops, GlobalCounters.global_mem


def test_embedding_is_linear():
    """Looking up rows is reading rows: more words in the table or in the text cost what they weigh, not their product."""
    def lookup(words: int, length: int) -> tuple[int, int]:
        layer, text = nn.Embedding(words, 32), Tensor(np.arange(length, dtype="int32") % words).realize()
        layer.weight.realize()
        assert count(layer, text) == 1
        return work(lambda: layer(text))
    ops, moved = lookup(1000, 64)
    more_words, longer = lookup(8000, 64), lookup(1000, 512)
    assert more_words[0] == ops and longer[0] <= 8 * max(ops, 1)
    assert ops <= 4 * 64 * 32
    assert longer[1] <= 8 * moved


def test_the_gradient_of_an_embedding_is_linear():
    layer, text = nn.Embedding(500, 32), Tensor(np.arange(64, dtype="int32")).realize()
    layer.weight.realize()
    loss = layer(text).sum()
    ops, _ = work(lambda: loss.gradient(layer.weight)[0])
    assert ops <= 4 * 500 * 32


def test_cumsum_is_linear():
    x, y = data(256), data(4096)
    small, large = work(lambda: x.cumsum(0))[0], work(lambda: y.cumsum(0))[0]
    assert large <= 20 * small


def test_equal_layers_compile_once():
    x, layers = data(8, 32), [data(32, 32) for _ in range(6)]
    forget_everything()
    GlobalCounters.reset()
    for w in layers: x = (x @ w).relu().contiguous()
    x.realize()
    assert GlobalCounters.kernel_count == 6
    assert max(len(p.units) for p in _plans.values()) == 1


def test_a_training_step_shares_no_work_with_itself():
    """Forward, backward and optimizer in one graph: no kernel is there twice on the same slots."""
    model = [nn.Linear(32, 64), nn.Linear(64, 8)]
    optimizer = nn.optim.SGD([t for layer in model for t in (layer.weight, layer.bias)], lr=0.1)
    x, y = data(16, 32), Tensor(np.arange(16, dtype="int32") % 8).realize()
    forget_everything()
    with Tensor.train():
        loss = model[1](model[0](x).relu()).sparse_categorical_crossentropy(y)
        loss.backward()
        optimizer.step()
    plan = max(_plans.values(), key=lambda p: len(p.rows))
    launches = [(r.unit, r.bufs, r.vals) for r in plan.rows]
    assert len(set(launches)) == len(launches)
    assert len(launches) <= 16


# ---- training ----------------------------------------------------------------------------------------------------------------------
def slopes(f, *xs: Tensor) -> list[Tensor]: return f(*xs).gradient(*xs)


def test_gradients_of_norms_are_few_kernels():
    x, w, b, g = data(64, 96), data(96), data(96), data(64, 96)
    assert count(lambda: slopes(lambda x, w, b: ((x.layernorm() * w + b) * g).sum(), x, w, b)) <= 4
    assert count(lambda: slopes(lambda x: (x.softmax() * g).sum(), x)) == 1


def test_a_training_step_of_a_convolution_and_a_norm():
    """The product and the copy with a margin both ways, statistics, their gradients with all updates of the channels."""
    conv, norm, x = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm(8), data(4, 8, 16, 16)
    weights = nn.state.get_parameters([conv, norm])
    Tensor.realize(*weights)
    optimizer = nn.optim.SGD(weights, lr=0.1, momentum=0.9)

    def step() -> list[Tensor]:
        with Tensor.train():
            (norm(conv(x)).relu() * x).sum().backward()
            return optimizer.schedule_step()
    assert count(step) <= 10


def test_kernels_alike_are_written_once_and_read_what_is_theirs(monkeypatch):
    forget_everything()
    written = []
    write = kernels._Cutter.write
    monkeypatch.setattr(kernels._Cutter, "write", lambda self: (written.append(self), write(self))[1])
    rng = np.random.default_rng(3)
    x, *ws = (rng.standard_normal((32, 32)).astype("float32") for _ in range(5))
    y, want = Tensor(x).realize(), x
    for w in ws:
        y, want = (y @ Tensor(w).realize()).relu(), np.maximum(want @ w, 0)
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-4, atol=1e-3)
    assert len(written) == 1


def test_kernels_that_differ_in_a_number_are_not_alike():
    numbers = (2.0, 0.0, -0.0, 3.0)
    values = [Tensor.full((64, 128), 1.5 + i).contiguous().realize() * c for i, c in enumerate(numbers)]      # one kernel each
    Tensor.realize(*values)
    for i, (v, c) in enumerate(zip(values, numbers)):
        assert np.unique(v.numpy()).tolist() == [(1.5 + i) * c] and np.signbit(v.numpy()).all() == np.signbit(c)
