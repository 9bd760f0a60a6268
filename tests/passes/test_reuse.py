"""Which output may take the memory of which input; and running kernels that way gives the same values."""
import numpy as np
import pytest

from glassgrad import Device, Tensor
from glassgrad.device.device import Launch
from glassgrad.show import follow

rng = np.random.default_rng(0)
X, Y, SQUARE, ODD = (rng.standard_normal(shape).astype("f4") for shape in ((100, 64), (100, 64), (64, 64), (7, 13)))
CASES = {
    "elementwise": (lambda x, y: x * 2 + y, (X, Y), {(0, 1), (0, 2)}),
    "other type of the same size": (lambda x, y: (x > y).where(3, 4).cast("int32"), (X, Y), {(0, 1), (0, 2)}),
    "other type of another size": (lambda x: x.cast("float64"), (X,), set()),
    "read elsewhere too": (lambda x: x.T + x, (SQUARE,), set()),
    "turned": (lambda x: x.T + 0, (SQUARE,), set()),
    "read in a loop before": (lambda x: x.softmax(), (X,), set()),
    "read once a row": (lambda x, y: x + y.sum(1, keepdim=True), (X, Y), {(0, 1)}),
    "a product's operands": (lambda x, y: x @ y, (SQUARE, SQUARE + 1), set()),
    "running sums": (lambda x: x.cumsum(1), (X,), {(0, 1)}),
    "sorted": (lambda x: x.sort()[0], (X,), None),
    "overlapping tiles": (lambda x: x * 2, (ODD,), None),
    "smaller": (lambda x: x[:, :32] + 1, (X,), set()),
}


@pytest.mark.parametrize("name", CASES)
def test_pairs(name):
    fn, arrays, pairs = CASES[name]
    calls = follow(fn(*[Tensor(a).realize() for a in arrays]), Device["CPU"].target).kernels
    if pairs is not None: assert set(calls[-1][2].reuses) == pairs


@pytest.mark.parametrize("device", ["CPU", "PYTHON", "CL"])
@pytest.mark.parametrize("name", CASES)
def test_values_are_the_same_in_place(name, device):
    try: dev = Device[device]
    except Exception as e: pytest.skip(f"{device} is absent: {e}")
    fn, arrays, _ = CASES[name]
    for call, _, program in follow(fn(*[Tensor(a, device=device).realize() for a in arrays]), dev.target).kernels:
        sizes = {p.slot: p.size * p.dtype.itemsize for p in program.params if p.kind == "buffer"}
        data = {s: rng.standard_normal(n // 4 + 1).astype("f4").tobytes()[:n] for s, n in sizes.items()}
        prog = dev.load(program.name, dev.compile(program, dev.render(program)))
        def run(shared):
            handles = {s: dev.alloc(n) for s, n in sizes.items() if s != shared[0]}
            for s, h in handles.items(): dev.copyin(h, memoryview(data[s]))
            if shared[0] is not None: handles[shared[0]] = handles[shared[1]]
            dev.graph([Launch(prog, [handles[s] for s in sorted(handles)], (), program.grid, program.local)]).run()
            out = bytearray(sizes[program.outs[0]])
            dev.copyout(memoryview(out), handles[program.outs[0]])
            return bytes(out)
        want = run((None, None))
        for pair in program.reuses: assert run(pair) == want
