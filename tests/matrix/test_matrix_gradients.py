"""Gradients of every differentiable row and op on every device, in every float dtype that torch has, against torch in float64; and twice."""
from __future__ import annotations

import pytest
from matrix.cases import DEVICES, JOINED, Case, Runner, skip_without
from matrix.gradients import ROWS, row_cases, shaped_cases
from matrix.reference import check

from glassgrad.uop.ops import Ops

KINDS = {"row": row_cases(), "shaped": shaped_cases()}
# OpenCL compiles slowly, and gradients are graphs like others: there float32 only, and of the ops with a shape some
ON_CL = {"row": [c.name for c in KINDS["row"] if c.name.endswith("float32")], "shaped": [f"{name}-float32" for name in ("max", "gather", "fold")]}
CASES = [(device, kind, c) for device in DEVICES for kind, cases in KINDS.items() for c in cases if device != "CL" or c.name in ON_CL[kind]]
RUNNERS = {(device, kind): Runner([c for d, k, c in CASES if (d, k) == (device, kind)], JOINED) for device in DEVICES for kind in KINDS}


def test_every_differentiable_row_is_here():
    """What has no gradient says so: bits, comparisons and integer arithmetic."""
    rest = {op.name for op in Ops.alu() if op.out == "same" and "float" not in op.dtypes and op.dtypes not in ("any", "number")}
    missing = {op.name for op in Ops.alu() if op.out == "same"} - set(ROWS) - rest
    assert not missing, f"tests/matrix/gradients.py does not differentiate {missing}"


@pytest.mark.parametrize(("device", "kind", "case"), CASES, ids=lambda x: x if isinstance(x, str) else x.name.replace(" ", "_"))
def test_gradient(device: str, kind: str, case: Case) -> None:
    skip_without(device)
    check(RUNNERS[device, kind].result(device, case), case.want(device))
