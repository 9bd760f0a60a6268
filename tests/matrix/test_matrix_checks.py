"""The judge is judged: it accepts what is right to the last bit and rejects what is wrong by one, a flipped zero, a missing NaN."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from matrix.cases import Runner, alu_case, alu_cases, operands
from matrix.reference import INF, NAN, Want, check, every_value, round_to

from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops

FLOATS = dtypes.floats


def right(op: Op, d: DType) -> tuple[np.ndarray, Want]:
    want = alu_case(op, d, "flat").want("CPU")
    return round_to(want.dtype, want.values[0]), want


@pytest.mark.parametrize("d", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", [Ops.ADD, Ops.FDIV, Ops.EXP, Ops.POW], ids=lambda op: op.name)
def test_one_wrong_element_is_found(op: Op, d: DType) -> None:
    found, want = right(op, d)
    check(found, want)
    normal = np.flatnonzero(np.isfinite(found) & (np.abs(found) > 2.0 ** (3 - (1 << d.exponent - 1))) & (np.abs(found) < d.largest))[0]
    for wrong in (found[normal] * (1 + (want.ulps + 2) * 2.0 ** -d.mantissa), NAN, -found[normal]):
        with pytest.raises(AssertionError, match="1 of"): check(np.where(np.arange(found.size) == normal, wrong, found), want)
    nan = np.flatnonzero(np.isnan(found))[0]
    with pytest.raises(AssertionError, match="1 of"): check(np.where(np.arange(found.size) == nan, 1.0, found), want)


def test_the_sign_of_zero_counts():
    found, want = right(Ops.MUL, dtypes.float32)
    zero = np.flatnonzero(found == 0)[0]
    with pytest.raises(AssertionError, match="1 of"): check(np.where(np.arange(found.size) == zero, -found, found), want)


@pytest.mark.parametrize("d", dtypes.ints, ids=lambda d: d.name)
def test_integers_are_exact(d: DType) -> None:
    found, want = right(Ops.CDIV, d)
    check(found, want)
    found[5] ^= 1
    with pytest.raises(AssertionError, match="1 of"): check(found, want)


def test_a_wrong_shape_is_found():
    found, want = right(Ops.ADD, dtypes.int8)
    with pytest.raises(AssertionError, match="shape"): check(found[1:], want)


@pytest.mark.parametrize(("name", "kind"), [("bfloat16", ml_dtypes.bfloat16), ("fp8e4m3", ml_dtypes.float8_e4m3fn), ("fp8e5m2", ml_dtypes.float8_e5m2)])
def test_rounding_to_small_floats(name: str, kind: type) -> None:
    """From float32 as ml_dtypes does it: every value, every middle between two, just beside it, and beyond the largest."""
    values = every_value(name)[0]
    middle = (values[:-1] + values[1:]) / 2
    x = np.concatenate([values, middle, middle * (1 + 2e-7), middle * (1 - 2e-7), values[-1:] * 1.01, values[-1:] * 1.2, [INF, NAN]])
    with np.errstate(all="ignore"):
        x = np.concatenate([x, -x]).astype("float32")
        expected = x.astype(kind).astype("float64")
    np.testing.assert_array_equal(round_to(getattr(dtypes, name), x.astype("float64")), expected)


def test_operands_hold_all_pairs_of_special_values():
    (_, x), (_, y) = operands(Ops.MUL, dtypes.float16, "flat")
    assert len(x) % 2 and {(INF, 0.0), (-INF, INF)} <= set(zip(x.tolist(), y.tolist(), strict=True)) and np.isnan(x).any()
    (_, x), (_, y) = operands(Ops.CDIV, dtypes.int32, "flat")
    assert {(-2 ** 31, -1), (7, 0)} <= set(zip(x.tolist(), y.tolist(), strict=True))


def test_values_are_the_same_in_every_process():
    code = ("import sys; sys.path[:0] = ['.', 'tests']; from matrix.cases import *; print([x.tolist() for _, x in operands(Ops.SHL, dtypes.uint8, 'view')])")
    ours = str([x.tolist() for _, x in operands(Ops.SHL, dtypes.uint8, "view")])
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout.strip() == ours


def test_one_failure_is_one_failure():
    """A case that cannot be computed does not take its batch along."""
    good, bad = alu_cases([Ops.ADD, Ops.SUB], [dtypes.int8], ["flat"])
    def fail(device: str) -> None: raise ValueError("planted")
    runner = Runner([good, bad.__class__(bad.name, bad.batch, fail, bad.want)])
    check(runner.result("PYTHON", good), good.want("PYTHON"))
    with pytest.raises(ValueError, match="planted"): runner.result("PYTHON", bad)
