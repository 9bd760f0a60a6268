"""Lesson 5: add an op.

An op is a row of one table. Its facts are what everybody asks: the value in NumPy, the gradient, and how to say it in simpler ops.
Run me: python docs/lessons/05_add_an_op.py
"""
import math

import numpy as np

from glassgrad import Device, Tensor
from glassgrad.engine.counters import GlobalCounters
from glassgrad.passes.gradient import gradient
from glassgrad.uop.ops import Ops, add_op

# log(1 + e**x), written so that e**x never overflows. These eight lines are all there is to do: no device, no pass is told of it.
add_op(
    "SOFTPLUS", doc="log(1 + e**x)", dtypes="float", domain=(-4, 4),
    npf=lambda x: np.logaddexp(x.dtype.type(0), x),                                          # the meaning: what PYTHON computes
    decomp=lambda n: n.src[0].max(0.0) + ((-n.src[0].max(-n.src[0])).exp() + 1).log(),       # the same in ops every device has
    grad=lambda n, g: (g / ((-n.src[0]).exp() + 1),),                                        # one gradient a source, as a graph
    cost=25)                                                                                 # how many additions it is worth

x = Tensor([-50.0, -1.0, 0.0, 1.0, 50.0])
y = x.alu(Ops.SOFTPLUS)
print("softplus:", y.tolist())
assert np.allclose(y.numpy(), np.logaddexp(0, x.numpy()), rtol=1e-5, atol=1e-6)

# Its gradient is a graph like any other, and can be differentiated again.
dy, = y.sum().gradient(x)
ddy, = dy.sum().gradient(x)
print("gradient:", dy.tolist(), "\nagain:   ", ddy.tolist())
s = 1 / (1 + np.exp(-x.numpy()))
assert np.allclose(dy.numpy(), s, atol=1e-6) and np.allclose(ddy.numpy(), s * (1 - s), atol=1e-6)

# It fuses with what stands around it: still one kernel.
GlobalCounters.reset()
total = ((x * 0.5).alu(Ops.SOFTPLUS) - 1).sum().item()
print("\nfused with a product, a difference and a sum:", GlobalCounters.kernel_count, "kernel, total", round(total, 4))
assert GlobalCounters.kernel_count == 1

# In every float type, on every device that is here.
for device in Device.available():
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        found = Tensor([0.0, 1.0], dtype=dtype, device=device).alu(Ops.SOFTPLUS).tolist()
        assert abs(found[0] - math.log(2)) < 4e-3 and abs(found[1] - math.log(1 + math.e)) < 8e-3, (device, dtype, found)
    print("right in four float types on", device)

# The row is data, so anyone can ask it. The tests check the gradients of all ops this way, those of tomorrow included.
row, h, at = Ops.SOFTPLUS, 1e-5, 0.7
slope = (row.np(np.array(at + h)) - row.np(np.array(at - h))) / (2 * h)
z = Tensor([at], dtype="float64")
exact = Tensor(gradient(z.alu(row).uop, [z.uop], Tensor([1.0], dtype="float64").uop)[0]).item()
print(f"\nat {at} by differences {slope:.8f}, by the rule {exact:.8f}")
assert abs(slope - exact) < 1e-8
