"""Lesson 7: add a device.

A device has memory and runs programs: lists of simple instructions. This one writes each program as a Python function and calls it.
Run me: python docs/lessons/07_add_a_device.py
"""
import numpy as np

from glassgrad import Device, Tensor
from glassgrad.device.device import DeviceBase
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops

# What the device can compute. All else (exp, max, integer division, small floats, …) the compiler writes in these.
SIGNS = {Ops.ADD: "+", Ops.SUB: "-", Ops.MUL: "*", Ops.FDIV: "/", Ops.AND: "&", Ops.OR: "|", Ops.XOR: "^", Ops.SHL: "<<", Ops.SHR: ">>",
         Ops.CMPLT: "<", Ops.CMPLE: "<=", Ops.CMPEQ: "==", Ops.CMPNE: "!="}
TARGET = Target("SNAKE", frozenset((*SIGNS, Ops.WHERE, Ops.CAST, Ops.BITCAST)), frozenset(d for d in dtypes.all if d.np_name and d.name != "float16"))


def render(program):
    """One line an instruction, named after its place in the list. RANGE opens a loop and END closes it."""
    names, lines, depth = {}, [f"def {program.name}(bufs, vals, chunk):"], 1
    for i, n in enumerate(program.uops):
        s, kind, name = [names[x] for x in n.src if x in names], "np." + (n.dtype.np_name or f"uint{n.dtype.bits}"), f"v{i}"
        names[n] = s[0] if n.op is Ops.AFTER else name
        match n.op.name:
            case "PARAM": line = f"{name} = bufs[{n.arg.slot}].view({kind})" if n.arg.kind == "buffer" else f"{name} = {kind}(vals[{n.arg.slot}])"
            case "SCRATCH": line = f"{name} = np.zeros({n.arg.size}, {kind})"
            case "CONST": line = f"{name} = {kind}({str(n.arg)!r})" if n.dtype.is_float else f"{name} = {kind}({n.arg})"
            case "SPECIAL": line = f"{name} = np.int64(chunk)"
            case "RANGE": line = f"for {name} in map(np.int64, range({s[0]})):"
            case "LOAD": line = f"{name} = {s[0]}[{s[1]}]" + (f" if {s[2]} else {kind}(0)" if len(s) > 2 else "")
            case "STORE": line = (f"if {s[3]}: " if len(s) > 3 else "") + f"{s[0]}[{s[1]}] = {s[2]}"
            case "ACC" | "GET": line = f"{name} = {s[0]}"
            case "SET": line = f"{s[0]} = {s[1]}"
            case "CAST": line = f"{name} = {s[0]}.astype({kind})"
            case "BITCAST": line = f"{name} = {s[0]}.view({kind})"
            case "WHERE": line = f"{name} = {s[1]} if {s[0]} else {s[2]}"
            case "END" | "AFTER": line = ""
            case _: line = f"{name} = {s[0]} {SIGNS[n.op]} {s[1]}"
        depth -= n.op is Ops.END
        if line: lines.append("    " * depth + line)
        depth += n.op is Ops.RANGE
    return "\n".join(lines) + "\n"


class Snake(DeviceBase):
    """Memory is NumPy bytes; a binary is Python text, as `compile` of the base class leaves it."""
    target = TARGET

    def _alloc(self, nbytes): return np.zeros(nbytes, np.uint8)
    def offset(self, handle, nbytes): return handle[nbytes:]
    def copyin(self, handle, src): handle[:src.nbytes] = np.frombuffer(src, np.uint8)
    def copyout(self, dst, handle): dst[:] = handle[:dst.nbytes].data
    def render(self, program): return render(program)
    def load(self, program_name, binary):
        names = {"np": np}
        exec(binary.decode(), names)
        return names[program_name]
    def launch(self, prog, bufs, vals=(), grid=(1, 1, 1), local=(1, 1, 1)):
        with np.errstate(all="ignore"):
            for chunk in range(grid[0]): prog([b[:len(b) // 8 * 8] for b in bufs], [*bufs, *vals], chunk)


# This is all that the rest of the system has to know.
Device.register("SNAKE", Snake)
x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device="SNAKE")
print("product:", (x @ x.T).tolist(), "\nsoftmax:", x.softmax().tolist(), "\nsorted:", x.sort(descending=True)[0].tolist())
assert (x @ x.T).tolist() == [[14.0, 32.0], [32.0, 77.0]] and x.sort(descending=True)[0].tolist() == [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]
assert np.allclose(x.softmax().numpy(), x.to("CPU").softmax().numpy()) and (x.cast("bfloat16") // 2 % 2).tolist() == [[0, 1, 1], [0, 0, 1]]
