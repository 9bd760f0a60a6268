"""Lesson 1: a tensor is a graph. Nothing runs until you look."""
from glassgrad import GlobalCounters, Tensor
from glassgrad.uop.text import to_text

x = Tensor([[1.0, 2.0], [3.0, 4.0]]).realize()
y = (x + 1).T * 2               # three ops, no work done

GlobalCounters.reset()
print(to_text(y.uop, normal=True))  # each line a node: number, op, dtype, sources, argument
assert GlobalCounters.kernel_count == 0

print(y.tolist())               # looking runs it: one kernel, the transpose is only an index in it
assert GlobalCounters.kernel_count == 1
assert y.tolist() == [[4.0, 8.0], [6.0, 10.0]]
