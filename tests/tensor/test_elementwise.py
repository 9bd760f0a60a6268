"""Elementwise methods: values and gradients as torch has them, promotion as documented, special values as NumPy has them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import agree, data, same

from glassgrad import Tensor, dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

UNARY = [  # name, torch's function, domain
    ("exp", torch.exp, (-3, 3)),
    ("exp2", torch.exp2, (-3, 3)),
    ("log", torch.log, (0.1, 4)),
    ("log2", torch.log2, (0.1, 4)),
    ("log10", torch.log10, (0.1, 4)),
    ("log1p", torch.log1p, (-0.9, 4)),
    ("expm1", torch.expm1, (-3, 3)),
    ("sqrt", torch.sqrt, (0.1, 4)),
    ("rsqrt", torch.rsqrt, (0.1, 4)),
    ("reciprocal", torch.reciprocal, (0.2, 4)),
    ("square", torch.square, (-3, 3)),
    ("sin", torch.sin, (-6, 6)),
    ("cos", torch.cos, (-6, 6)),
    ("tan", torch.tan, (-1.2, 1.2)),
    ("asin", torch.asin, (-0.95, 0.95)),
    ("acos", torch.acos, (-0.95, 0.95)),
    ("atan", torch.atan, (-5, 5)),
    ("sinh", torch.sinh, (-3, 3)),
    ("cosh", torch.cosh, (-3, 3)),
    ("tanh", torch.tanh, (-3, 3)),
    ("asinh", torch.asinh, (-5, 5)),
    ("acosh", torch.acosh, (1.1, 5)),
    ("atanh", torch.atanh, (-0.9, 0.9)),
    ("erf", torch.erf, (-3, 3)),
    ("sigmoid", torch.sigmoid, (-8, 8)),
    ("logsigmoid", F.logsigmoid, (-8, 8)),
    ("softplus", F.softplus, (-8, 8)),
    ("abs", torch.abs, (-3, 3)),
    ("neg", torch.neg, (-3, 3)),
    ("sign", torch.sign, (-3, 3)),
    ("trunc", torch.trunc, (-3, 3)),
    ("floor", torch.floor, (-3, 3)),
    ("ceil", torch.ceil, (-3, 3)),
    ("round", torch.round, (-3, 3)),
    ("frac", torch.frac, (-3, 3)),
    ("relu", torch.relu, (-3, 3)),
    ("relu6", F.relu6, (-2, 8)),
    ("leaky_relu", F.leaky_relu, (-3, 3)),
    ("elu", F.elu, (-3, 3)),
    ("celu", F.celu, (-3, 3)),
    ("selu", F.selu, (-3, 3)),
    ("gelu", lambda x: F.gelu(x, approximate="tanh"), (-3, 3)),
    ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), (-3, 3)),
    ("silu", F.silu, (-3, 3)),
    ("swish", F.silu, (-3, 3)),
    ("mish", F.mish, (-3, 3)),
    ("hardswish", F.hardswish, (-5, 5)),
    ("hardsigmoid", F.hardsigmoid, (-5, 5)),
    ("hardtanh", F.hardtanh, (-3, 3)),
    ("softsign", F.softsign, (-3, 3)),
]


@pytest.mark.parametrize("name,want,domain", UNARY, ids=[u[0] for u in UNARY])
def test_unary(name, want, domain):
    same(lambda x: getattr(x, name)(), want, data(3, 17, lo=domain[0], hi=domain[1]), rtol=3e-5, atol=2e-6)


@pytest.mark.parametrize("name,want,domain", UNARY, ids=[u[0] for u in UNARY])
def test_unary_float64(name, want, domain):
    x = data(19, lo=domain[0], hi=domain[1], dtype="float64")
    f = (lambda x: x * torch.sigmoid(1.702 * x)) if name == "quick_gelu" else want
    agree(getattr(Tensor(x), name)(), f(torch.tensor(x)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "name,want,domain",
    [u for u in UNARY if u[0] in ("exp", "log", "sqrt", "sin", "tanh", "erf", "sigmoid", "atan", "relu")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_unary_of_ints_gives_default_float(name, want, domain):
    x = np.array([1, 2, 3], dtype="int32")
    out = getattr(Tensor(x), name)()
    agree(out, want(torch.tensor(x)) if name == "relu" else want(torch.tensor(x).float()), rtol=1e-5)


BINARY = [
    ("add", torch.add, (-3, 3)),
    ("sub", torch.sub, (-3, 3)),
    ("mul", torch.mul, (-3, 3)),
    ("div", torch.div, (0.3, 3)),
    ("maximum", torch.maximum, (-3, 3)),
    ("minimum", torch.minimum, (-3, 3)),
    ("pow", torch.pow, (0.3, 3)),
    ("logaddexp", torch.logaddexp, (-3, 3)),
    ("copysign", torch.copysign, (-3, 3)),
]


@pytest.mark.parametrize("shapes", [((4, 5), (4, 5)), ((4, 1), (1, 5)), ((5,), (2, 4, 5)), ((2, 3, 1), ()), ((), (3,))], ids=str)
@pytest.mark.parametrize("name,want,domain", BINARY, ids=[b[0] for b in BINARY])
def test_binary_broadcast(name, want, domain, shapes):
    if name == "copysign":
        same(lambda x, y: x.copysign(y), want, *[data(*s, lo=-3, hi=3, seed=i) for i, s in enumerate(shapes)], grad=False)
    else:
        same(
            lambda x, y: getattr(x, name)(y), want, *[data(*s, lo=domain[0], hi=domain[1], seed=i) for i, s in enumerate(shapes)], rtol=2e-5
        )


OPERATORS = [
    ("+", lambda x, y: x + y),
    ("-", lambda x, y: x - y),
    ("*", lambda x, y: x * y),
    ("//", lambda x, y: x // y),
    ("%", lambda x, y: x % y),
    ("&", lambda x, y: x & y),
    ("|", lambda x, y: x | y),
    ("^", lambda x, y: x ^ y),
    ("<", lambda x, y: x < y),
    ("<=", lambda x, y: x <= y),
    (">", lambda x, y: x > y),
    (">=", lambda x, y: x >= y),
    ("==", lambda x, y: x == y),
    ("!=", lambda x, y: x != y),
]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32"])
@pytest.mark.parametrize("sign,f", OPERATORS, ids=[o[0] for o in OPERATORS])
def test_int_operators(sign, f, dtype):
    lo = 0 if dtype.startswith("u") else -9
    x, y = data(40, lo=lo, hi=9, dtype=dtype), data(40, lo=lo, hi=9, seed=5, dtype=dtype)
    if sign in ("//", "%"):
        y[y == 0] = 3
    agree(f(Tensor(x), Tensor(y)), f(x, y))
    scalar = 3
    agree(f(Tensor(x), scalar), f(x, scalar))
    if sign not in ("//", "%") or (x != 0).all():
        agree(f(scalar, Tensor(x)), f(np.asarray(scalar, dtype), x))


@pytest.mark.parametrize("y", [3, -3, 1, -1, 7])
def test_floor_division_by_constants(y):
    x = np.arange(-12, 13, dtype="int32")
    agree(Tensor(x) // y, x // y)
    agree(Tensor(x) % y, x % y)
    agree(Tensor(x).fmod(y), np.fmod(x, y).astype("int32"))
    agree(Tensor(x).div(y, rounding_mode="trunc"), torch.div(torch.tensor(x), y, rounding_mode="trunc"))


@pytest.mark.parametrize("y", [2.5, -2.5, 0.75])
def test_float_division_with_rounding(y):
    x = data(31, lo=-9, hi=9)
    agree(Tensor(x) // y, np.floor_divide(x, np.float32(y)))
    agree(Tensor(x) % y, np.mod(x, np.float32(y)), rtol=1e-4, atol=1e-5)


def test_int_division_by_zero_gives_zero():
    assert (Tensor([5, -5]) // Tensor([0, 0])).tolist() == [0, 0]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 5, 0.5, -0.5, -1, -2, 2.5])
def test_power_by_constant(exponent):
    same(lambda x: x**exponent, lambda x: x**exponent, data(3, 5, lo=0.3, hi=2), rtol=2e-5)


@pytest.mark.parametrize("base", [2, 2.5, 0.5])
def test_constant_to_the_power(base):
    same(lambda x: base**x, lambda x: base**x, data(3, 5), rtol=2e-5)


def test_int_power():
    x, y = np.array([-3, 2, 5, 0, 1], dtype="int32"), np.array([3, 10, 2, 0, 7], dtype="int32")
    agree(Tensor(x) ** Tensor(y), x**y)
    agree(Tensor(x) ** 3, x**3)
    agree(2 ** Tensor(y), 2**y)
    with pytest.raises(UsageError, match="negative powers"):
        Tensor(x) ** -1


@pytest.mark.parametrize("a", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("b", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
def test_promotion_of_tensors_is_torchs(a, b):
    out = Tensor(np.ones(2, a)) * Tensor(np.ones(2, b))
    want = torch.promote_types(getattr(torch, a), getattr(torch, b))
    assert out.dtype.name == str(want).removeprefix("torch.")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32", "float64"])
def test_python_scalars_are_weak(dtype):
    x = Tensor([1, 0], dtype=dtype)
    d = x.dtype
    assert (x * 2).dtype is (dtypes.int32 if d.is_bool else d)
    assert (x * 2.0).dtype is (d if d.is_float else dtypes.float32)
    assert (x / 2).dtype is (d if d.is_float else dtypes.float32)
    assert (x + True).dtype is d


def test_small_ints_meet_large_scalars():
    x = Tensor([1, 200], dtype="uint8")
    assert (x < 300).tolist() == [True, True]
    assert (x == -1).tolist() == [False, False]
    with pytest.raises(DTypeError, match="goes from 0 to 255"):
        x + 300


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-38, 3e38], dtype="float32")


@pytest.mark.parametrize(
    "name,want",
    [
        ("abs", np.abs),
        ("sign", np.sign),
        ("floor", np.floor),
        ("ceil", np.ceil),
        ("trunc", np.trunc),
        ("round", np.round),
        ("isnan", np.isnan),
        ("isinf", np.isinf),
        ("isfinite", np.isfinite),
        ("sqrt", np.sqrt),
        ("exp", np.exp),
        ("log", np.log),
        ("relu", lambda x: np.where(np.isnan(x), x, np.maximum(x, 0))),
        ("tanh", np.tanh),
        ("sin", np.sin),
        ("expm1", np.expm1),
        ("log1p", np.log1p),
        ("sinh", np.sinh),
        ("asinh", np.arcsinh),
        ("atan", np.arctan),
        ("reciprocal", np.reciprocal),
    ],
)
def test_special_values(name, want):
    with np.errstate(all="ignore"):
        agree(getattr(Tensor(SPECIAL), name)(), want(SPECIAL), rtol=1e-5)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "logsigmoid", "silu", "mish", "gelu", "elu", "tanh", "selu", "logaddexp"])
def test_far_out_values_and_gradients_are_finite(name):
    x = np.array([-200.0, -100.0, -30.0, 0.0, 30.0, 80.0], dtype="float32")
    f = (lambda t: t.logaddexp(0.0)) if name == "logaddexp" else lambda t: getattr(t, name)()
    g = {
        "logaddexp": lambda t: torch.logaddexp(t, torch.zeros(())),
        "gelu": lambda t: F.gelu(t, approximate="tanh"),
        "logsigmoid": F.logsigmoid,
    }.get(name)
    same(f, g or (lambda t: getattr(F, name)(t)), x, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "name,at,want",
    [
        ("relu", 0.0, 0.0),
        ("abs", 0.0, 0.0),
        ("relu6", 6.0, 0.0),
        ("hardtanh", 1.0, 0.0),
        ("sigmoid", 0.0, 0.25),
        ("softplus", 0.0, 0.5),
        ("asinh", 0.0, 1.0),
        ("atan", 0.0, 1.0),
        ("sinh", 0.0, 1.0),
        ("sign", 0.0, 0.0),
    ],
)
def test_gradient_at_corners(name, at, want):
    x = Tensor([at])
    assert getattr(x, name)().sum().gradient(x)[0].tolist() == pytest.approx([want])


def test_gradient_at_ties_is_shared():
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 3.0])
    dx, dy = x.maximum(y).sum().gradient(x, y)
    assert dx.tolist() == [0.5, 0.0] and dy.tolist() == [0.5, 1.0]


def test_log1p_and_softplus_keep_small_values():
    x = np.array([1e-7, 1e-10, -1e-8, 1e-20], dtype="float32")
    agree(Tensor(x).log1p(), np.log1p(x), atol=0)
    agree(Tensor(x).expm1(), np.expm1(x), atol=0)
    agree(Tensor([-40.0, -20.0]).softplus(), F.softplus(torch.tensor([-40.0, -20.0])), atol=0)


def test_where_and_its_relatives():
    c, x, y = data(4, 5, dtype="bool"), data(4, 5), data(5, seed=3)
    same(lambda c, x, y: c.where(x, y), torch.where, c, x, y)
    agree(Tensor(c).where(1, 0.5), np.where(c, 1, 0.5).astype("float32"))
    agree(Tensor(c).where(2, Tensor([1], dtype="uint8")), np.where(c, 2, 1).astype("uint8"))
    same(lambda x: x.masked_fill(Tensor(c), 9), lambda x: x.masked_fill(torch.tensor(c), 9), x)
    same(lambda x: x.clamp(-1, 0.5), lambda x: x.clamp(-1, 0.5), x)
    same(lambda x: x.clip(min=0.25), lambda x: x.clamp(min=0.25), x)
    same(lambda x, y: x.lerp(y, 0.3), lambda x, y: x.lerp(y.expand(4, 5), 0.3), x, y)
    with pytest.raises(UsageError):
        Tensor(x).clamp()


def test_clamp_of_ints_by_floats_gives_floats():
    agree(Tensor([1, 5]).clamp(1.5, 3.5), np.array([1.5, 3.5], dtype="float32"))


def test_logic_and_bits():
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    for f in (lambda x, y: x & y, lambda x, y: x | y, lambda x, y: x ^ y, lambda x, y: ~x, lambda x, y: x + y, lambda x, y: x * y):
        agree(f(Tensor(a), Tensor(b)), f(a, b))
    agree(Tensor([0, 3]).logical_not(), [True, False])
    x = np.array([1, -5, 12], dtype="int32")
    agree(~Tensor(x), ~x)
    agree(Tensor(x) << 2, x << 2)
    agree(Tensor(x) >> 1, x >> 1)
    with pytest.raises(DTypeError, match="no bits"):
        Tensor([1.0]) & 1
    with pytest.raises(DTypeError, match="bools are not subtracted"):
        Tensor(a) - Tensor(b)
    with pytest.raises(UsageError, match="shift"):
        Tensor(x) << 40


def test_closeness():
    assert Tensor([1.0, 2.0]).allclose(Tensor([1.0, 2.0 + 1e-7]))
    assert not Tensor([1.0]).allclose(Tensor([1.1]))
    assert Tensor([np.nan]).isclose(Tensor([np.nan]), equal_nan=True).item()
    assert Tensor([np.inf]).isclose(Tensor([np.inf])).item()
    assert not Tensor([np.inf]).isclose(Tensor([-np.inf])).item()


@pytest.mark.parametrize("a", ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("b", ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64"])
def test_casts(a, b):
    x = np.array([0, 1, 2, 100], dtype="int64").astype(a)
    agree(Tensor(x).cast(b), x.astype(b))


def test_float_to_int_is_toward_zero():
    assert Tensor([1.9, -1.9]).int().tolist() == [1, -1]


def test_casts_by_name_and_gradient():
    x = data(5)
    for name, d in (
        ("half", "float16"),
        ("double", "float64"),
        ("float", "float32"),
        ("int", "int32"),
        ("long", "int64"),
        ("short", "int16"),
        ("bool", "bool"),
    ):
        assert getattr(Tensor(x), name)().dtype.name == d
    assert Tensor(x).bfloat16().dtype is dtypes.bfloat16
    same(lambda x: x.double() * 2, lambda x: x.double() * 2, x)
    with pytest.raises(DTypeError, match="no dtype named"):
        Tensor(x).cast("float99")


def test_bfloat16_and_float16_round_to_nearest_even():
    x = data(200, lo=-100, hi=100)
    agree(Tensor(x).cast("bfloat16"), torch.tensor(x).bfloat16().float(), rtol=0, atol=0, dtype=False)
    agree(Tensor(x, dtype="bfloat16"), torch.tensor(x).bfloat16().float(), rtol=0, atol=0, dtype=False)
    agree(Tensor(x).half(), torch.tensor(x).half(), rtol=0, atol=0)
    assert Tensor([70000.0]).half().item() == np.inf


@pytest.mark.parametrize("to", ["int32", "uint32", "int16", "uint8", "float64", "int64"])
def test_bitcast(to):
    x = data(3, 8)
    agree(Tensor(x).bitcast(to), x.view(to))
    agree(Tensor(x).bitcast(to).bitcast("float32"), x)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ShapeError, match=r"\(3, 4\) and \(3, 5\)"):
        Tensor.ones(3, 4) + Tensor.ones(3, 5)


def test_numpy_operands_on_either_side():
    x = data(3)
    agree(x + Tensor(x), x + x)
    agree(Tensor(x) * x, x * x)
    agree(np.float32(2) * Tensor(x), 2 * x)


def test_one_hot():
    agree(Tensor([0, 2, 1]).one_hot(4), F.one_hot(torch.tensor([0, 2, 1]), 4).int())
    agree(Tensor([[0], [2]]).one_hot(), F.one_hot(torch.tensor([[0], [2]])).int())
    with pytest.raises(DTypeError):
        Tensor([0.5]).one_hot(2)


def test_small_results():
    x = data(4)
    agree(Tensor(x).sequential([lambda t: t + 1, Tensor.relu]), np.maximum(x + 1, 0))
    agree(Tensor(x).usum(Tensor(x), 1), x + x + 1)
    agree(Tensor(x).gelu("none"), F.gelu(torch.tensor(x)), rtol=1e-4)
    agree(Tensor(x).softplus(2.0), F.softplus(torch.tensor(x), 2.0))
