"""A new kind of device passes the op tests: what it lacks is decomposed for it. Its file is counted."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from adds import toy_device
from adds.toy_device import ToyDevice
from matrix.cases import Case, Runner, alu_cases
from matrix.gradients import row_cases, shaped_cases
from matrix.reference import check
from matrix.structure import bitcast_cases, cast_cases, structure_cases

from glassgrad import Tensor, TinyJit
from glassgrad.device.device import Device
from glassgrad.engine.context import Context
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError
from glassgrad.uop.ops import Ops

MOST_LINES = 100
SHAPED = structure_cases()
# every op on every dtype, broadcast; special values and views where a thousand numbers more are soon computed
OPS = [c for c in alu_cases() if "broadcast" in c.name or "int32" in c.name or "float32-view" in c.name]
REST = [*(c for kind in ("reduce", "scan", "gather", "scatter", "sort", "move") for c in SHAPED[kind] if c.name.split("-")[1 if kind != "sort" else 2] in
          ("float32", "bfloat16", "uint8", "int64")), *(c for c in bitcast_cases() if "16" in c.batch)]
CASTS = [c for c in cast_cases() if c.batch.split("-")[1] in ("float32", "int64", "fp8e5m2", "bool")]
GRADIENTS = [*(c for c in row_cases() if c.name.endswith("float32")), *(c for c in shaped_cases() if c.name.endswith("float32"))]
RUNNERS = {"op": Runner(OPS), "shape": Runner(REST), "cast": Runner(CASTS), "gradient": Runner(GRADIENTS)}
CASES = [(kind, c) for kind, runner in RUNNERS.items() for batch in runner.batches.values() for c in batch]


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The device while its tests run."""
    Device.register("TOY", ToyDevice)
    yield
    Device.unregister("TOY")


@pytest.mark.parametrize(("kind", "case"), CASES, ids=lambda x: x if isinstance(x, str) else f"{x.batch.split('-')[0]}-{x.name}")
def test_toy(kind: str, case: Case) -> None: check(RUNNERS[kind].result("TOY", case), case.want("TOY"))


def test_it_takes_few_lines() -> None: assert len(Path(toy_device.__file__).read_text().splitlines()) <= MOST_LINES


def test_it_knows_little() -> None:
    assert len(ToyDevice.target.ops) == 20 and Ops.EXP not in ToyDevice.target.ops and dtypes.float16 not in ToyDevice.target.dtypes


def test_it_is_a_device_like_others() -> None:
    """Names, copies, the default device, jit."""
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], device="toy:0")
    assert x.device == "TOY" and "TOY" in Device.available() and (x @ x).to("CPU").tolist() == [[7.0, 10.0], [15.0, 22.0]]
    assert Tensor([1, 2]).to("TOY:1").device == "TOY:1"
    with Context(DEV="TOY"): assert (Tensor.arange(4) * 2).softmax().device == "TOY" and Tensor.rand(3).sum().item() > 0
    step = TinyJit(lambda t: (t * 2 + 1).realize())
    for k in range(4): np.testing.assert_array_equal(step(Tensor([k, k + 1], device="TOY")).numpy(), [2 * k + 1, 2 * k + 3])


def test_a_network_trains_on_it() -> None:
    """The loss of a line fitted to three points falls."""
    x, y = Tensor([[0.0], [1.0], [2.0]], device="TOY"), Tensor([[1.0], [3.0], [5.0]], device="TOY")
    w = Tensor([[0.0]], device="TOY", requires_grad=True)
    losses = []
    for _ in range(5):
        loss = ((x @ w + 1 - y) ** 2).mean()
        w = Tensor((w - loss.gradient(w)[0] * 0.2).numpy(), device="TOY", requires_grad=True)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 100


def test_names() -> None:
    with pytest.raises(DeviceError, match="'TOY'\n  the name is taken"): Device.register("TOY", ToyDevice)
    with pytest.raises(DeviceError, match="'CPU'\n  the name is taken"): Device.register("CPU", ToyDevice)
    with pytest.raises(DeviceError, match="one upper-case word"): Device.register("my toy", ToyDevice)
    with pytest.raises(DeviceError, match="was not registered"): Device.unregister("CPU")
    Device.register("SECOND", ToyDevice)
    assert (Tensor([1.0], device="SECOND") + 1).tolist() == [2.0]
    Device.unregister("SECOND")
    with pytest.raises(DeviceError, match=r"no device named 'SECOND'\n  try: one of CPU, .*TOY"): Tensor([1.0], device="SECOND")
