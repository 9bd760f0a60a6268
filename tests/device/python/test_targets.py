"""Programs made for other machines, interpreted: in bounds, without races, with the values NumPy gives."""
import numpy as np
import pytest

from glassgrad import flow
from glassgrad.device.interp import Interpreter
from glassgrad.engine import signature
from glassgrad.target.c import c_target
from glassgrad.target.llvm import cpu_target
from glassgrad.target.python import python_target
from glassgrad.uop.bits import round_to
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp
from tests.engine.graphs import array

TARGETS = {
    "PYTHON": python_target(),
    "AVX2": cpu_target("+sse2,+sse4.1,+avx,+avx2,+fma,+f16c", threads=2),
    "AVX512": cpu_target("+sse2,+sse4.1,+avx,+avx2,+fma,+f16c,+avx512f", threads=2),
    "SSE2": cpu_target("+sse2"),
    "NEON": cpu_target("+neon", threads=2),
    "CL": c_target("CL", has_grid=True, max_local=256, shared_bytes=32 << 10, index_dtype=dtypes.int32),
}
rng = np.random.default_rng(0)
A, B, C = (rng.standard_normal(s).astype("f4") for s in ((33, 65), (65, 47), (6, 50)))


def softmax(x):
    e = (x - x.reduce(Ops.MAX, (1,)).reshape((x.shape[0], 1)).expand(x.shape)).exp()
    return e / e.reduce(Ops.ADD, (1,)).reshape((x.shape[0], 1)).expand(x.shape)


def matmul(x, y):
    (m, k), n = x.shape, y.shape[1]
    return (x.reshape((m, 1, k)).expand((m, n, k)) * y.permute((1, 0)).reshape((1, n, k)).expand((m, n, k))).reduce(Ops.ADD, (2,))


def numpy_softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


CASES = {
    "elementwise": (lambda a, b, c: (a * 2.0 + a.sin()).max(UOp.const(a.dtype, 0.0)), lambda: np.maximum(A * 2 + np.sin(A), 0)),
    "sum of rows": (lambda a, b, c: a.reduce(Ops.ADD, (1,)), lambda: A.sum(1)),
    "sum of columns": (lambda a, b, c: a.reduce(Ops.ADD, (0,)), lambda: A.sum(0)),
    "sum of all": (lambda a, b, c: a.reduce(Ops.ADD, (0, 1)), lambda: A.sum()),
    "matmul": (lambda a, b, c: matmul(a, b), lambda: A @ B),
    "softmax": (lambda a, b, c: softmax(c), lambda: numpy_softmax(C)),
    "padded and flipped": (lambda a, b, c: c.pad(((1, 2), (3, 0))).flip((0,)).permute((1, 0)).exp(),
                           lambda: np.exp(np.pad(C, ((1, 2), (3, 0)))[::-1].T)),
    "bfloat16": (lambda a, b, c: (a.cast(dtypes.bfloat16) * a.cast(dtypes.bfloat16)).cast(dtypes.float32),
                 lambda: round_to(dtypes.bfloat16, round_to(dtypes.bfloat16, A) ** 2)),
}


def interpret(root, target):
    """Every kernel of a graph, in order, on fresh memory; the value of the root."""
    root = UOp(Ops.CONTIGUOUS, root.dtype, (root,))
    signed = signature.sign([root])
    memory = {}
    for slot, leaf in enumerate(signed.buffers):
        memory[slot] = np.frombuffer(bytes(leaf.memory.as_memoryview()), "u1").copy()
    out = None
    for call in flow.schedule(UOp.sink(*signature.normalise([root], signed)), target):
        program = flow.lower(call.ast, target, check=False)
        memory.update({slot: np.full(size * dtype.itemsize, 255, "u1") for slot, (size, dtype) in call.new_slots.items()})
        Interpreter(program).run([memory[slot] for slot in call.bufs])
        out = memory[call.bufs[0]]
    return out


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_programs_of_every_target(target, case):
    graph, want = CASES[case]
    root = graph(*(array(x) for x in (A, B, C)))
    got = interpret(root, TARGETS[target]).view(root.dtype.np_name).reshape(root.shape)
    np.testing.assert_allclose(got, want(), rtol=2e-5, atol=2e-5)
