"""Lesson 1: a Tensor is a graph.

Arithmetic on tensors computes nothing. It builds nodes, and a node is four things: an op, a dtype, its sources, an argument.
Run me: python docs/lessons/01_tensor_is_a_graph.py
"""
from glassgrad import Tensor
from glassgrad.engine.counters import GlobalCounters
from glassgrad.uop.ops import Ops
from glassgrad.uop.text import to_text

x = Tensor([1.0, 2.0, 3.0])
y = (x * 2 + 1).relu()

# The node behind y, and all below it, one line each. %0 is a buffer: memory that already holds our three numbers.
print("the graph of (x * 2 + 1).relu():")
print(to_text(y.uop, normal=True))
assert GlobalCounters.kernel_count == 0, "so far no kernel has run"

# A node knows its shape and dtype without being computed; both follow from its sources.
assert y.shape == (3,) and y.uop.dtype.name == "float32"

# Nodes are interned: the same node built twice is one object. So equal work is found by looking at identity, at no cost.
again = (x * 2 + 1).relu()
assert again.uop is y.uop
print("\nbuilt twice, it is one node:", again.uop is y.uop)

# Moving data around is a node too, and free: it only says where elements are to be read from.
matrix = Tensor([[1, 2, 3], [4, 5, 6]])
turned = matrix.permute(1, 0).flip(0)
movements = [n.op.name for n in turned.uop.toposort() if n.op.is_movement]
print("a turned and flipped matrix is its buffer under", movements)
assert movements[-2:] == ["PERMUTE", "FLIP"]

# Reading a value computes it. The compiler gets the whole graph at once, which is why it can make one kernel of all of it.
values = y.tolist()
print("\nread:", values, "by", GlobalCounters.kernel_count, "kernel")
assert values == [3.0, 5.0, 7.0] and GlobalCounters.kernel_count == 1

# In-place writes do not change nodes: they rebind the tensor to another graph. What was built before keeps its meaning.
doubled = x * 2
x += 100
print("x:", x.tolist(), " doubled, built before the write:", doubled.tolist())
assert doubled.tolist() == [2.0, 4.0, 6.0] and x.tolist() == [101.0, 102.0, 103.0]

# Even a write through a slice is an expression: a choice, element by element, between what is new and what was there.
x = Tensor([1.0, 2.0, 3.0])
x[1:] = 0.0
print("x[1:] = 0 makes of x:", [n.op.name for n in x.uop.toposort() if n.op.kind != "leaf"])
assert x.uop.op is Ops.WHERE and x.tolist() == [1.0, 0.0, 0.0]
