"""Lesson 2: softmax is one kernel. The scheduler says why each buffer exists; the loop nest shows what became of it."""
from glassgrad import Tensor
from glassgrad.device.device import Device
from glassgrad.show import follow
from glassgrad.viz.loops import loops_text

shown = follow(Tensor.empty(64, 128).softmax(), Device["CPU"].target)
for call, steps, program in shown.kernels:
    print(call.name, "-", call.reason)
    print(loops_text(program.uops, program))   # maximum, exponentials kept in scratch, their sum, the quotient: per row

assert len(shown.kernels) == 1
assert len(shown.kernels[0][2].uops) < 600
