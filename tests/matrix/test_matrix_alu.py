"""The op table against its second meaning: every arithmetic row x every dtype it admits x every device, on special values, broadcast, on views."""
from __future__ import annotations

import pytest
from matrix.cases import DEVICES, Case, Runner, alu_cases, skip_without
from matrix.reference import check, is_known, threefry

from glassgrad.uop.ops import Ops

CASES = alu_cases()
RUNNER = Runner(CASES)
# OpenCL compiles slowly: all ops on all dtypes, but the ways to index only on some, which are all there are of sizes and kinds
ON_CL = {"broadcast": ("float32", "int32", "bfloat16", "bool"), "view": ("float32", "uint8", "int64", "float64")}
ROWS = [(device, c) for device in DEVICES for c in CASES if device != "CL" or c.name.split("-")[1] in ON_CL.get(c.name.split("-")[2], c.name)]


def test_every_row_has_a_second_meaning():
    unknown = [op.name for op in Ops.alu() if not is_known(op)]
    assert not unknown, f"tests/matrix/reference.py does not say what {unknown} mean"


def test_known_answers_of_threefry():
    """From the authors' own table (Random123, kat_vectors)."""
    assert threefry(0, 0) == 0x99BA4EFE_6B200159
    assert threefry(2 ** 64 - 1, 2 ** 64 - 1) == 0xBB002BE7_1CB996FC
    assert threefry(0x85A308D3_243F6A88, 0x03707344_13198A2E) == 0x483DF7A0_C4923A9C


@pytest.mark.parametrize(("device", "case"), ROWS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_alu(device: str, case: Case) -> None:
    skip_without(device)
    check(RUNNER.result(device, case), case.want(device))
