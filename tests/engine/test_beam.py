"""BEAM: every tiling of the space computes the same, and the search keeps what it measured and survives what goes wrong."""
import numpy as np
import pytest

from glassgrad import Tensor, flow
from glassgrad.device.device import Device
from glassgrad.engine import beam
from glassgrad.engine.context import Context
from glassgrad.engine.realize import forget_everything
from glassgrad.engine.trial import Trial
from glassgrad.passes.choices import neighbours
from glassgrad.passes.tile import tile
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Tiling
from glassgrad.uop.text import parse_arg, show_arg
from glassgrad.uop.uop import UOp

CPU = Device["CPU"]


def kernel_of(make):
    """The only kernel of a function of tensors, before it is lowered."""
    inputs = [Tensor.ones(*shape).contiguous().realize() for shape in make.__defaults__[0]]
    call, = flow.schedule(UOp.sink(make(*inputs).uop), CPU.target)
    return call.ast


def product(a, b, shapes=((37, 50), (50, 41))): return a @ b + 1
def transposed(a, b, shapes=((50, 37), (50, 41))): return a.T @ b
def convolution(x, w, shapes=((2, 5, 9, 11), (6, 5, 3, 3))): return x.conv2d(w, padding=1).relu()
def chain(a, b, shapes=((70, 33), (33,))): return (a * b).exp() - a
def columns(a, b, shapes=((170, 99), (99,))): return (a + b).sum(0)


@pytest.mark.parametrize("make", [product, transposed, convolution, chain, columns], ids=lambda f: f.__name__)
def test_every_schedule_near_the_default_computes_the_same(make):
    ast = kernel_of(make)
    before = flow.up_to("tile", ast, CPU.target)
    default = tile(before, CPU.target).arg
    trial, tried = Trial(ast, "CPU", CPU.target.threads), set()
    for choice in neighbours(before, default, CPU.target):
        try: tiling = tile(before.replace(arg=choice), CPU.target).arg._replace(cycles=0.0)
        except CompilerBug: continue
        if tiling in tried or len(tried) == 12: continue
        tried.add(tiling)
        assert parse_arg(show_arg(tiling)) == tiling
        replay = trial.compile(ast.replace(arg=tiling))
        trial.run(replay)
        assert not trial.differs(), tiling
    assert len(tried) >= 3


def test_a_schedule_that_computes_something_else_is_refused(monkeypatch):
    trial = Trial(kernel_of(product), "CPU", CPU.target.threads)
    other = trial.ast.src[0].src[0].src[2]          # what is stored, and 1 more
    wrong = trial.ast.replace(src=(trial.ast.src[0].replace(src=(trial.ast.src[0].src[0].replace(
        src=(*trial.ast.src[0].src[0].src[:2], other + 1.0)), *trial.ast.src[0].src[1:])),))
    whole = trial.compile
    monkeypatch.setattr(trial, "compile", lambda ast: whole(wrong))
    assert trial.measure(Tiling()) == {"error": "it computes something else"}


A, B = np.random.default_rng(0).random((60, 70), np.float32), np.random.default_rng(1).random((70, 80), np.float32)


def searched(ask, monkeypatch, tmp_path):
    """The product under BEAM=1 with this way of asking trials; how often they were asked."""
    asked = []
    monkeypatch.setattr(beam._trials, "ask", lambda **request: asked.append(request) or ask(**request))
    with Context(BEAM=1, CACHE=str(tmp_path), CHECK=0):
        np.testing.assert_allclose(Tensor(A).matmul(Tensor(B)).numpy(), A @ B, rtol=1e-5)
    return len(asked)


def test_a_search_gives_the_right_values_and_is_done_once(cold, monkeypatch, tmp_path):
    monkeypatch.setattr(beam, "PER_PLACE", 2)
    assert searched(beam._trials.ask, monkeypatch, tmp_path) >= 2
    beam._trials.close()
    monkeypatch.undo()
    forget_everything()
    assert searched(beam._trials.ask, monkeypatch, tmp_path) == 0


def test_trials_that_die_leave_the_default(cold, monkeypatch, tmp_path):
    def ask(**request): return {"seconds": 1.0} if "kernel" in request else {"error": "the process ended with -11", "died": True}
    assert searched(ask, monkeypatch, tmp_path) > 2


def test_a_faster_schedule_is_taken_and_a_slower_one_is_not(cold, monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(beam.debug, "say", lambda level, text: taken.append(text() if callable(text) else text) if level == 1 else None)
    def ask(**request): return {"seconds": 1.0} if "kernel" in request else {"seconds": speed, "default": 1.0}
    speed = 1.5
    searched(ask, monkeypatch, tmp_path / "slow")
    assert not [t for t in taken if t.startswith("beam")]
    speed = 0.5
    forget_everything()
    searched(ask, monkeypatch, tmp_path / "fast")
    assert [t for t in taken if t.startswith("beam: 0.50")]


def test_a_process_that_does_not_answer_is_ended(monkeypatch):
    monkeypatch.setattr(beam, "ANSWER_S", 0.0)
    trials = beam.Trials()
    assert trials.ask(kernel="", device="CPU", threads=1)["died"] and trials.process is None


def test_a_kernel_that_cannot_be_tried_is_not_searched(cold, monkeypatch, tmp_path):
    assert searched(lambda **request: {"error": "no answer in time", "died": True}, monkeypatch, tmp_path) == 1


def test_an_interrupted_request_leaves_no_answer_behind(monkeypatch):
    trials = beam.Trials()
    def interrupt(*args): raise KeyboardInterrupt
    monkeypatch.setattr(beam.select, "select", interrupt)
    with pytest.raises(KeyboardInterrupt): trials.ask(kernel="", device="CPU", threads=1)
    assert trials.process is None
