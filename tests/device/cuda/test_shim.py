"""CUDA text, run on the CPU by the shim in both orders of the threads, without undefined behaviour."""
from __future__ import annotations

import math

import pytest
from linear_cases import Case, cases, compare, fresh
from shim import HAS_COMPILER, SHIM_TARGET, run_on_shim, to_arrays

from glassgrad.target.c import render
from glassgrad.uop.dtype import dtypes

pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="needs g++")


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    for reverse in (False, True) if math.prod(case.program.local) > 1 else (False,):
        arrays = fresh(case)
        vals = dict(enumerate(case.vals, len(arrays)))
        run_on_shim(case.program, to_arrays(case.program, arrays), vals, reverse=reverse, sanitize=True)
        compare(case, arrays)
