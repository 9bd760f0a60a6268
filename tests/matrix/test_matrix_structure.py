"""Reductions, running reductions, gather, scatter, sort, movement and casts: every dtype x every device, against plain Python and NumPy."""
from __future__ import annotations

import pytest
from matrix.cases import DEVICES, JOINED, Case, Runner, skip_without
from matrix.reference import check
from matrix.structure import bitcast_cases, cast_cases, structure_cases

KINDS = {**structure_cases(), "cast": cast_cases(), "bitcast": bitcast_cases()}
# What is stored between kernels costs OpenCL a compilation each: there one dtype of a kind and width, and not all axes.
ON_CL = {"scan": ("float32", "bool"), "scatter": ("float32", "uint8"), "sort": ("float32",),
         "gather": ("float32", "int8", "fp8e4m3", "uint64"), "move": ("float32", "uint8", "bfloat16", "bool"),
         "each": ("uint8", "float16", "bfloat16", "int32", "float64", "bool")}
AXES_ON_CL = ("middle", "special")


def is_run(device: str, kind: str, case: Case) -> bool:
    if device != "CL": return True
    return case.batch.split("-")[1] in ON_CL.get(kind, case.batch.split("-")) and (kind != "reduce" or case.name.endswith(AXES_ON_CL))


ROWS = [(device, kind, c) for device in DEVICES for kind, cases in KINDS.items() for c in cases if is_run(device, kind, c)]
RUNNERS = {(device, kind): Runner([c for d, k, c in ROWS if (d, k) == (device, kind)], () if kind == "each" else JOINED)
           for device in DEVICES for kind in KINDS}


@pytest.mark.parametrize(("device", "kind", "case"), ROWS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_structure(device: str, kind: str, case: Case) -> None:
    skip_without(device)
    check(RUNNERS[device, kind].result(device, case), case.want(device))
