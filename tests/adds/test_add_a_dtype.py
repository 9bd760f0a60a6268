"""A new row in the table of dtypes works at once: every op, every cast, gradients, on every device. The function that adds it is counted."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from adds.rows import DTYPES, lines_of, remove_dtype
from matrix import reference
from matrix.cases import DEVICES, Case, Runner, alu_cases, skip_without
from matrix.gradients import differentiable, row_case
from matrix.reference import check
from matrix.structure import cast_cases, structure_cases

from glassgrad import Tensor
from glassgrad.uop.bits import from_storage, to_storage
from glassgrad.uop.dtype import DType, dtypes, promote, to_dtype
from glassgrad.uop.text import parse_text, to_text

MOST_LINES = 30
# OpenCL compiles slowly: there one of them, all others need no code of their own
ON_CL = ("fp8e3m4",)


@pytest.fixture(scope="module", params=DTYPES)
def added(request: pytest.FixtureRequest) -> Iterator[DType]:
    """The new type, in the table while its tests run."""
    row = DTYPES[request.param]()
    reference.SMALL_FLOATS["fp8e3m4"] = ml_dtypes.float8_e3m4     # a second opinion, where there is one
    yield row
    remove_dtype(row)
    del reference.SMALL_FLOATS["fp8e3m4"]


def kinds_of(d: DType) -> dict[str, Callable[[], list[Case]]]:
    """What is tested, by name."""
    old = [x for x in dtypes.all if x is not d]
    def with_casts() -> list[Case]: return [replace(c, batch="cast") for c in [*cast_cases([d], old), *cast_cases(old, [d])]]
    def gradients() -> list[Case]: return [row_case(op, d) for op in differentiable()]
    shaped = structure_cases([d])
    return {"ops": lambda: alu_cases(None, [d], ["flat"]), "views": lambda: alu_cases(None, [d], ["broadcast", "view"]), "casts": with_casts,
            "gradients": gradients, **{kind: (lambda cases=cases: cases) for kind, cases in shaped.items()}}


KINDS = tuple(kinds_of(dtypes.float16))
AT_ONCE = ("ops", "casts", "reduce", "gather", "move")          # of one kernel on CL


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_new_dtype(added: DType, kind: str, device: str) -> None:
    skip_without(device)
    if device == "CL" and (added.name not in ON_CL or kind not in AT_ONCE): pytest.skip("covered by another: OpenCL takes half a second for every kernel")
    cases = kinds_of(added)[kind]()
    runner, wrong = Runner(cases), []
    for c in cases:
        try: check(runner.result(device, c), c.want(device))
        except Exception as e: wrong.append(f"{c.name}: {e}")
    assert not wrong, f"{len(wrong)} of {len(cases)} cases fail\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", DTYPES)
def test_it_takes_few_lines(name: str) -> None: assert lines_of(DTYPES[name]) <= MOST_LINES


def test_every_value_survives(added: DType) -> None:
    """Bits to values and back, for all bits of a type that has few."""
    if added.bits > 8: pytest.skip("too many values to try them all")
    raw = np.arange(256).astype("uint8")
    values = from_storage(added, raw)
    back = to_storage(added, values)
    assert ((back == raw) | np.isnan(values)).all()
    if added.name == "fp8e3m4": np.testing.assert_array_equal(values, raw.view(ml_dtypes.float8_e3m4).astype("float32"))
    np.testing.assert_array_equal(Tensor(raw).bitcast(added).numpy(), values)


def test_it_has_its_place(added: DType) -> None:
    """Names, promotion, the text form, printing."""
    assert to_dtype(added.name) is added and promote(dtypes.int32, added) is added and promote(added, dtypes.float64) is dtypes.float64
    assert promote(added, dtypes.float32) is max(added, dtypes.float32, key=lambda d: d.rank)
    x = Tensor([1.5, -2.0], dtype=added.name)
    assert (x + 1).dtype is added and (x * 2).tolist() == [3.0, -4.0]
    graph = (x * 2 + 1).uop.exp()
    assert parse_text(to_text(graph))[-1] is graph
    assert added.name in repr(x)
