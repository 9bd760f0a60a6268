"""Lesson 6: a device is a renderer and a runtime. This one writes Python, one line an instruction, and runs it."""
import numpy as np

from glassgrad import Device, Tensor
from glassgrad.device.device import DeviceBase
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops


def render(program, target):
    """The LINEAR form as Python: RANGE opens a loop, END closes it, everything else is an assignment."""
    names, lines, depth = {}, ["def kernel(bufs, vals, begin, end):"], 1
    for i, u in enumerate(program.uops):
        v, s, kind = f"v{i}", [names[x] for x in u.src if x in names], u.dtype.scalar.np_name
        names[u], op = v, u.op
        if op is Ops.PARAM: line = f"{v} = bufs[{u.arg.slot}].view(np.{kind})" if u.arg.kind == "buffer" else f"{v} = np.{kind}(vals[{u.arg.slot}])"
        elif op is Ops.SCRATCH: line = f"{v} = np.empty({u.arg.size}, np.{kind})"
        elif op is Ops.CONST: line = f"{v} = np.{kind}({str(u.arg)!r})" if u.dtype.is_float else f"{v} = np.{kind}({u.arg})"
        elif op is Ops.SPECIAL: line = f"for {v} in map(np.int64, range(begin, end)):"
        elif op is Ops.RANGE: line = f"for {v} in map(np.int64, range({s[0]})):"
        elif op is Ops.LOAD: line = f"{v} = {s[0]}[{s[1]}]" + (f" if {s[2]} else {s[0]}.dtype.type(0)" if len(s) > 2 else "")
        elif op is Ops.STORE: line = (f"if {s[3]}: " if len(s) > 3 else "") + f"{s[0]}[{s[1]}] = {s[2]}"
        elif op in (Ops.ACC, Ops.GET, Ops.AFTER): line, names[u] = (f"{v} = {s[0]}", v) if op is not Ops.AFTER else ("pass", s[0])
        elif op is Ops.SET: line = f"{s[0]} = {s[1]}"
        elif op is Ops.CAST: line = f"{v} = {s[0]}.astype(np.{kind})"
        elif op is Ops.BITCAST: line = f"{v} = np.asarray({s[0]}).view(np.{kind})[()]"
        elif op is Ops.END: line = "pass"
        else: line = f"{v} = np.{kind}(op_{op.name}({', '.join(s)}))"
        lines.append("    " * depth + line)
        depth += (op in (Ops.RANGE, Ops.SPECIAL)) - (op is Ops.END)
    return "\n".join(lines)


class Toy(DeviceBase):
    """Memory is NumPy's, programs are Python text."""
    target = Target("TOY", frozenset(Ops.alu()), frozenset(d for d in dtypes.all() if d.np_name))

    def _alloc(self, nbytes): return np.empty(nbytes, np.uint8)
    def offset(self, handle, nbytes): return handle[nbytes:]
    def copyin(self, handle, src): handle[:len(src)] = np.frombuffer(src, np.uint8)
    def copyout(self, dst, handle): dst[:] = handle[:len(dst)].tobytes()
    def render(self, program): return render(program, self.target)
    def load(self, program_name, binary):
        space = {"np": np} | {f"op_{o.name}": o.np for o in Ops.alu()}
        exec(binary.decode(), space)  # our own text, from render above
        return space["kernel"]
    def launch(self, prog, bufs, vals=(), grid=(1, 1, 1), local=(1, 1, 1)):
        with np.errstate(all="ignore"): prog([b[:len(b) // 8 * 8] for b in bufs], [0] * len(bufs) + list(vals), 0, grid[0])


Device.register("TOY", Toy)
x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device="TOY")
print(x.softmax().tolist(), (x @ x.T).tolist(), x.sum().item())
assert (x @ x.T).tolist() == [[14.0, 32.0], [32.0, 77.0]]
assert np.allclose(x.softmax().numpy(), Tensor(x.numpy()).softmax().numpy())
assert x.sort(descending=True)[0].tolist() == [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]
assert np.allclose(Tensor.rand(50, device="TOY").mean().item(), 0.5, atol=0.2)
