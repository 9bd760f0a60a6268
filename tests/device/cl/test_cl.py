"""The CL device on whatever OpenCL driver is here (PoCL in our own tests)."""
from __future__ import annotations

import pytest
from linear_cases import Case, cases, compare, fresh

from glassgrad.device.device import Device

absent = Device.reason_absent("CL")
pytestmark = pytest.mark.skipif(absent is not None, reason=f"no OpenCL here: {absent}")


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    dev, arrays, p = Device["CL"], fresh(case), case.program
    prog = dev.load(p.name, dev.compile(p, dev.render(p)))
    handles = [dev.alloc(a.nbytes) for a in arrays]
    for h, a in zip(handles, arrays, strict=True): dev.copyin(h, memoryview(a).cast("B"))
    dev.launch(prog, handles, case.vals, p.grid, p.local)
    for h, a in zip(handles, arrays, strict=True): dev.copyout(memoryview(a).cast("B"), h)
    compare(case, arrays)
    for h, a in zip(handles, arrays, strict=True): dev.free(h, a.nbytes)
