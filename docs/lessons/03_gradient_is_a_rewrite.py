"""Lesson 3: a gradient is a rewrite.

There is no tape. The gradient of a graph is another graph, made by one rule for each op; it is compiled like any other.
Run me: python docs/lessons/03_gradient_is_a_rewrite.py
"""
from glassgrad import Tensor
from glassgrad.engine.counters import GlobalCounters
from glassgrad.passes.gradient import gradient
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.text import to_text
from glassgrad.uop.uop import UOp

# The rule of an op stands in its row of the op table: given the node n and the gradient g of what is above it, it says what
# each source gets. That of a product is the whole product rule:
a, b, g = (UOp.iota(4).cast(dtypes.float32) + k for k in (1.0, 2.0, 3.0))
to_a, to_b = Ops.MUL.grad(a * b, g)
assert to_a is g * b and to_b is g * a

# Where values have a shape, the adjoint of moving data is moving it back: pad undoes shrink, a sum undoes expand.
x = Tensor([[1.0, 2.0], [3.0, 4.0]])
spread = x.sum(1, keepdim=True).expand(2, 2)
back = gradient(spread.uop, [x.uop], Tensor([[1.0, 2.0], [3.0, 4.0]]).uop)[0]
print("ops of the gradient of x.sum(1).expand(2, 2):", [n.op.name for n in back.toposort() if n.op is not Ops.CONST])
assert Tensor(back).tolist() == [[3.0, 3.0], [7.0, 7.0]]

# For the user it is `gradient` (a list) or `backward` (fills .grad). Nothing has run when they return.
GlobalCounters.reset()
x = Tensor([0.5, 1.0, 2.0], requires_grad=True)
y = (x ** 3).sum()
dy, = y.gradient(x)
assert GlobalCounters.kernel_count == 0
print("\nthe gradient of (x ** 3).sum():")
print(to_text(dy.uop, normal=True))
print("which is", dy.tolist())
assert dy.tolist() == [0.75, 3.0, 12.0]

# Since the gradient is a graph, it has a gradient, and so on.
ddy, = dy.sum().gradient(x)
dddy, = ddy.sum().gradient(x)
print("second:", ddy.tolist(), " third:", dddy.tolist())
assert ddy.tolist() == [3.0, 6.0, 12.0] and dddy.tolist() == [6.0, 6.0, 6.0]

# Forward and backward are one graph, so they share work: tanh(x) is computed once for the value and its derivative.
x = Tensor([0.1, 0.2, 0.3], requires_grad=True)
y = x.tanh().sum()
y.backward()
both = UOp.sink(y.uop, x.grad.uop).toposort()
assert sum(n.op is Ops.TANH for n in both) == 1
print("\ntanh and its gradient hold", sum(n.op is Ops.TANH for n in both), "tanh")
