"""Lesson 4: an op is a row. Its decomposition makes it run on every device, its derivative makes it trainable."""
import math

from glassgrad import Tensor
from glassgrad.uop.ops import Ops, add_op

add_op("SOFTPLUS", arity=1, doc="log(1 + e**x)", dtypes="float",
       py=lambda x: math.log1p(math.exp(-abs(x))) + max(x, 0.0),           # its meaning on Python numbers
       decomp=lambda n: ((n.src[0].max(-n.src[0]) * -1).exp() + 1).log() + n.src[0].max(0.0),   # in ops that are there
       grad=lambda n, g: (g * ((n.src[0] * -1).exp() + 1).recip(),))       # its derivative: one UOp for each source

for device in ("CPU", "PYTHON"):
    x = Tensor([-2.0, 0.0, 3.0], device=device, requires_grad=True)
    y = Tensor(x.uop.alu(Ops.SOFTPLUS))
    (dx,) = y.sum().gradient(x)
    print(device, y.tolist(), dx.tolist())
    for v, got, slope in zip((-2.0, 0.0, 3.0), y.tolist(), dx.tolist()):
        assert abs(got - math.log1p(math.exp(v))) < 1e-5
        assert abs(slope - 1 / (1 + math.exp(-v))) < 1e-5
