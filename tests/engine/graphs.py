"""Small graphs and their values, for the tests of the engine."""
import numpy as np

from glassgrad.engine.realize import new_buffer, realize
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp, fresh_id


def array(x, device="CPU", dtype=None):
    """A realized leaf with these values."""
    x = np.ascontiguousarray(x)
    if x.dtype == np.float64: x = x.astype(np.float32)
    n = new_buffer(device, x.size, dtype or getattr(dtypes, x.dtype.name))
    n.memory.copyin(x)
    return n.reshape(x.shape)


def values(n, name=None):
    """The values of a node, as NumPy sees them."""
    buf = realize(n)[0]
    return np.frombuffer(bytes(buf.as_memoryview()), name or n.dtype.np_name).reshape(n.shape)


def leaf(n): return UOp(Ops.LEAF, n.dtype, (n,), fresh_id())
def copy(n, device): return UOp(Ops.COPY, n.dtype, (n,), device)
def full(shape, value, dtype=dtypes.float32): return UOp.const(dtype, value).reshape((1,) * len(shape)).expand(shape)
