"""Lesson 6: add a dtype.

A float type is a row too: how many bits, how they are split. How to round to it, store it and compute in it follows from the row.
Run me: python docs/lessons/06_add_a_dtype.py
"""
import numpy as np

from glassgrad import Device, Tensor
from glassgrad.show import follow
from glassgrad.uop import bits
from glassgrad.uop.dtype import add_dtype, dtypes, promote
from glassgrad.viz.loops import loops_text

# Eight bits: one sign, three of exponent, four of mantissa. More digits than e4m3 and e5m2, and less range.
e3m4 = add_dtype("fp8e3m4", "f8e3", "float", 8, rank=22, exponent=3, mantissa=4)

# All of its values, from all of its bits.
values = bits.bits_to_float(e3m4, np.arange(256).astype("uint8"))
finite = values[np.isfinite(values)]
print(f"{len(finite)} finite values from {finite.min()} to {finite.max()}, the smallest above zero is {finite[finite > 0].min()}")
assert e3m4.largest == finite.max() == 15.5

# Tensors of it: values are rounded to the nearest, ties to even; beyond the largest is infinity.
x = Tensor([0.1, 1.0, 3.14159, 100.0], dtype=e3m4)
print("stored:", x.tolist(), "in", x.nbytes(), "bytes")
assert x.tolist() == [0.09375, 1.0, 3.125, float("inf")] and x.nbytes() == 4

# Every op works, on every device: where one cannot compute in a type, it computes in float32 and rounds after each step.
a, b = np.linspace(-3, 3, 40), np.linspace(0.5, 2, 40)
for device in Device.available():
    p, q = Tensor(a, dtype=e3m4, device=device), Tensor(b, dtype=e3m4, device=device)
    exact = bits.round_to(e3m4, p.numpy() * q.numpy())
    assert ((p * q).numpy() == exact).all() and (p.sort()[0].numpy() == np.sort(p.numpy())).all()
    assert (p * q).sum().numpy() == bits.round_to(e3m4, exact.sum(keepdims=True))[0]       # sums are kept in float32 inside
    print("product, sort and sum are right to the last bit on", device)

# It has its place among the others: with a wider float it becomes that, with an int it stays.
assert promote(e3m4, dtypes.float16) is dtypes.float16 and promote(dtypes.int32, e3m4) is e3m4
assert (x + 1).dtype is e3m4 and (x + Tensor([1.0])).dtype is dtypes.float32

# What a device does for it can be read: the bits come as uint8, become a float32, and go back rounded.
(_, _, program), = follow(x * 2, Device["CPU"].target.with_(lanes=1)).kernels
text = loops_text(program.uops, program)
print("\nx * 2 on the CPU:\n" + "\n".join(line[:150] for line in text.splitlines()))
assert "u8" in text and "f32" in text

# And it trains: gradients have the type of their values.
w = Tensor([0.5, 0.25], dtype=e3m4, requires_grad=True)
(w * w).sum().backward()
print("\ngradient of w*w:", w.grad.tolist())
assert w.grad.dtype is e3m4 and w.grad.tolist() == [1.0, 0.5]
