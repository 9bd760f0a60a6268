"""Lesson 3: the gradient is a graph again, made by one rule per op. So it can be differentiated too."""
from glassgrad import Tensor

x = Tensor(3.0, requires_grad=True)
y = x * x * x
(dy,) = y.gradient(x)
(ddy,) = dy.gradient(x)
print(y.item(), dy.item(), ddy.item())
assert (y.item(), dy.item(), ddy.item()) == (27.0, 27.0, 18.0)

# Two equal constants are two variables: each has its own gradient.
a, b = Tensor(2.0, requires_grad=True), Tensor(2.0, requires_grad=True)
(a * b + a).backward()
assert (a.grad.item(), b.grad.item()) == (3.0, 2.0)
