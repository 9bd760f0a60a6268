"""Lesson 2: one kernel.

A softmax is a maximum, a subtraction, an exponential, a sum and a division. Here it becomes one kernel, and we read its loops.
Run me: python docs/lessons/02_one_kernel.py
"""
from glassgrad import Device, Tensor
from glassgrad.engine.counters import GlobalCounters
from glassgrad.show import follow
from glassgrad.viz.loops import loops_text

x = Tensor([[0.1 * i * j for j in range(20)] for i in range(6)])
y = x.softmax()
print("nodes of the graph:", ", ".join(n.op.name.lower() for n in y.uop.toposort()))

# `follow` compiles without running and keeps every step. (`python -m glassgrad.show EXPRESSION` prints the same.)
shown = follow(y, Device["PYTHON"].target)
(call, steps, program), = shown.kernels
print("\nthe kernel", call.name, "exists because", call.reason)

# The kernel for a machine without SIMD reads like the code one would write by hand: for each row three loops,
# one for the maximum, one for the sum, one for the result. Nothing goes to memory in between.
text = loops_text(program.uops, program)
print(text)
assert text.count("for r") == 4, "a loop over rows, and three over the elements of a row"

# The same expression for this machine: the loop over elements is cut in pieces of as many lanes as the SIMD unit has.
cpu = Device["CPU"].target
(_, steps, program), = follow(y, cpu).kernels
text = loops_text(program.uops, program)
lanes = max(n.dtype.lanes for n in program.uops)
print(f"\nfor the CPU here: vectors of {lanes} float32")
print("\n".join(line[:140] for line in text.splitlines()[:12]), "\n    ...")
assert 1 < lanes <= max(16, cpu.lanes)

# Between graph and instructions stand the passes of flow.py. Each takes a graph and gives a graph; most change little.
print("\nthe passes:")
for s in steps: print(f"  {s.name:20} {len(s.before.toposort()):4} -> {len(s.after.toposort())} nodes")

# And it is right.
GlobalCounters.reset()
rows = y.numpy().sum(axis=1)
assert GlobalCounters.kernel_count == 1
assert abs(rows - 1).max() < 1e-6
print("\nrun:", GlobalCounters.kernel_count, "kernel; every row sums to 1")
