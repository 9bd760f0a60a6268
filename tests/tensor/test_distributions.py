"""Random numbers have the distributions they claim (Kolmogorov and Smirnov's test, or counts), and generators are streams of their own."""

import numpy as np
import pytest
import scipy.stats as st
from oracle import evaluate

from glassgrad import Tensor, TinyJit
from glassgrad.tensor.generator import Generator
from glassgrad.uop.errors import UsageError

N = 3000
CONTINUOUS = {
    "exponential": (lambda: Tensor.exponential(N, rate=2.0), st.expon(scale=0.5)),
    "laplace": (lambda: Tensor.laplace(N, loc=1.0, scale=2.0), st.laplace(1, 2)),
    "gumbel": (lambda: Tensor.gumbel(N, scale=3.0), st.gumbel_r(0, 3)),
    "logistic": (lambda: Tensor.logistic(N), st.logistic()),
    "cauchy": (lambda: Tensor.cauchy(N), st.cauchy()),
    "weibull": (lambda: Tensor.weibull(N, scale=2.0, concentration=1.5), st.weibull_min(1.5, scale=2)),
    "pareto": (lambda: Tensor.pareto(N, alpha=3.0), st.pareto(3)),
    "log_normal": (lambda: Tensor.log_normal(N, std=0.5), st.lognorm(0.5)),
    "truncated_normal": (lambda: Tensor.truncated_normal(N, a=-1.0, b=0.5), st.truncnorm(-1, 0.5)),
    "gamma": (lambda: Tensor.gamma(N, alpha=0.4, scale=2.0), st.gamma(0.4, scale=2)),
    "gamma 5": (lambda: Tensor.gamma(N, alpha=5.0), st.gamma(5)),
    "beta": (lambda: Tensor.beta(N, a=2.0, b=0.7), st.beta(2, 0.7)),
    "student_t": (lambda: Tensor.student_t(N, df=3.0), st.t(3)),
}


@pytest.mark.parametrize("draw,expected", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_continuous(draw, expected):
    assert st.kstest(evaluate(draw().uop)[0], expected.cdf).pvalue > 1e-3         # what the graph means


DISCRETE = {
    "bernoulli": (lambda: Tensor.full((N,), 0.3).bernoulli(), st.bernoulli(0.3)),
    "binomial": (lambda: Tensor.full((N,), 0.3).binomial(8), st.binom(8, 0.3)),
    "geometric": (lambda: Tensor.full((N,), 0.4).geometric(), st.geom(0.4)),
    "categorical": (lambda: Tensor(np.log([0.2, 0.5, 0.3]).astype("float32")).categorical(N),
                    st.rv_discrete(values=((0, 1, 2), (0.2, 0.5, 0.3)))),
}


@pytest.mark.parametrize("draw,expected", DISCRETE.values(), ids=DISCRETE.keys())
def test_discrete(draw, expected):
    count(evaluate(draw().uop)[0], expected)


def test_poisson():
    """A small and a large rate: two methods in one program."""
    x = Tensor([[3.5], [40.0]]).expand(2, N).poisson().numpy()
    count(x[0], st.poisson(3.5))
    count(x[1], st.poisson(40))


def count(found, expected):
    """The values occur about as often as expected."""
    values, counts = np.unique(found, return_counts=True)
    wanted = expected.pmf(values) * N
    often = wanted > 20
    assert (np.abs(counts - wanted)[often] < 4.5 * np.sqrt(wanted[often])).all() and counts[~often].sum() < 0.05 * N


@pytest.mark.parametrize("name", ["exponential", "gamma", "truncated_normal"])
def test_on_the_device(name):
    draw = CONTINUOUS[name][0]
    Tensor.manual_seed(1)
    found = draw().numpy()
    Tensor.manual_seed(1)
    np.testing.assert_allclose(found, evaluate(draw().uop)[0], rtol=2e-4, atol=1e-6)


def test_dirichlet():
    x = Tensor([[1.0, 2.0, 7.0]]).expand(N, 3).dirichlet().numpy()
    np.testing.assert_allclose(x.sum(1), np.ones(N), rtol=1e-5)
    np.testing.assert_allclose(x.mean(0), [0.1, 0.2, 0.7], atol=0.02)


def test_generators_are_streams_of_their_own():
    a, b = Generator(5), Generator(5)
    first, second = a_draws = Tensor.rand(4, generator=a), Tensor.randn(3, generator=a)
    Tensor.rand(9)                                                             # the process' stream is another
    assert first.tolist() == Tensor.rand(4, generator=b).tolist() and second.tolist() == Tensor.randn(3, generator=b).tolist()
    Tensor.manual_seed(5)
    assert first.tolist() == Tensor.rand(4).tolist()                           # the same seed, the same stream
    state = a.get_state()
    later = Tensor.randint(5, high=100, generator=a).tolist()
    assert Tensor.randint(5, high=100, generator=a.set_state(state)).tolist() == later
    assert a.initial_seed() == 5 and repr(a) == "Generator(5)" and len(a_draws) == 2
    assert a.manual_seed(6) is a and a.initial_seed() == 6 and a.seed() == a.initial_seed()


def test_generator_goes_on_in_a_jit():
    g = Generator(3)

    @TinyJit
    def draw(): return Tensor.rand(2, generator=g)
    drawn = [draw().tolist() for _ in range(4)]
    g.manual_seed(3)
    assert drawn == [Tensor.rand(2, generator=g).tolist() for _ in range(4)]


def test_mistakes():
    with pytest.raises(UsageError, match="from 0 to 1"):
        Tensor.ones(2).bernoulli(1.5)
    with pytest.raises(UsageError, match="less than b"):
        Tensor.truncated_normal(2, a=1.0, b=0.0)
