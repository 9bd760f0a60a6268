"""Rows come and go: names are taken once, what was removed is unknown again, and another row of an old name is another row."""
from __future__ import annotations

from typing import Any

import pytest
from adds.rows import DTYPES, OPS, remove_dtype, remove_op

from glassgrad import Tensor
from glassgrad.uop import dtype as dtype_table
from glassgrad.uop.dtype import DType, add_dtype, dtypes, to_dtype
from glassgrad.uop.errors import DTypeError, UsageError
from glassgrad.uop.ops import Op, Ops, add_op


def test_dtypes_are_as_before() -> None:
    before = dict(dtype_table.TABLE)
    for add in DTYPES.values():
        row = add()
        with pytest.raises(DTypeError, match="is taken"): add()
        assert row in dtypes.all
        remove_dtype(row)
    assert before == dtype_table.TABLE and not any(hasattr(dtypes, name) for name in DTYPES)
    with pytest.raises(DTypeError, match="no dtype named"): to_dtype("fp8e3m4")


def test_ops_are_as_before() -> None:
    before = Ops.all()
    for add in OPS.values():
        row = add()
        with pytest.raises(UsageError, match="is taken"): add()
        assert row in Ops.alu()
        remove_op(row)
    assert Ops.all() == before


@pytest.mark.parametrize("device", ["CPU", "PYTHON"])
def test_another_dtype_of_the_same_name(device: str) -> None:
    """Programs of the old row are not taken for programs of the new one."""
    def values(**more: Any) -> list[float]:
        row: DType = add_dtype("passing", "p8", "float", 8, 22, **more)
        try: return (Tensor([1.0, 1.3], dtype=row, device=device) + 0.25).tolist()
        finally: remove_dtype(row)
    assert values(exponent=5, mantissa=2) == [1.25, 1.5] and values(exponent=3, mantissa=4) == [1.25, 1.5625]


@pytest.mark.parametrize("device", ["CPU", "PYTHON"])
def test_another_op_of_the_same_name(device: str) -> None:
    def values(k: int) -> list[int]:
        row: Op = add_op("PASSING", doc="k * x", py=lambda x: k * x, decomp=lambda n: n.src[0] * k)
        try: return Tensor([1, 2], device=device).alu(row).tolist()
        finally: remove_op(row)
    assert values(3) == [3, 6] and values(5) == [5, 10]
