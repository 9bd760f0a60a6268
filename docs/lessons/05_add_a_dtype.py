"""Lesson 5: a dtype is a row. No device has a float of 1 + 3 + 4 bits; the row says how its bits are split, and it works."""
from glassgrad import Tensor, dtypes
from glassgrad.uop.dtype import add_dtype

add_dtype("fp8e3m4", "f8e3", "float", 8, 22, exponent=3, mantissa=4)

for device in ("CPU", "PYTHON"):
    x = Tensor([0.1, 1.0, 1.03, 2.5, 100.0], device=device).cast(dtypes.fp8e3m4)
    y = (x + x).cast(dtypes.float32)
    print(device, x.cast(dtypes.float32).tolist(), y.tolist())
    # 1.03 rounds to 1 (four bits of mantissa), 100 is beyond the largest number and becomes infinite
    assert x.cast(dtypes.float32).tolist()[1:] == [1.0, 1.0, 2.5, float("inf")]
    assert y.tolist()[1:4] == [2.0, 2.0, 5.0]
