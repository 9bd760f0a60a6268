"""Display: a tensor as text. Long ones show their corners, and only those are computed."""
from __future__ import annotations

from typing import TYPE_CHECKING

from glassgrad.engine import capture
from glassgrad.uop.ops import np
from glassgrad.uop.text import expr

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

WHOLE = 1000        # elements up to which all are shown; as NumPy does
EDGE = 3            # entries shown at either end of an axis of a longer tensor
GRAPH_DEPTH = 4     # levels of the graph that are shown where there are no values


def show(x: Tensor) -> str:
    """Values, shape, dtype and device; inside a jitted function, where there are no values, the graph."""
    head = f"shape={x.shape}, {x.dtype}, device={x.device!r}" + (", requires_grad=True" if x.requires_grad else "")
    if capture.is_tracing() or x.device.partition(":")[0] == "NULL": return f"Tensor({expr(x.uop, GRAPH_DEPTH)}, {head}, not realized)"
    part, is_long = x.detach(), x.numel() > WHOLE
    for a, n in enumerate(x.shape):
        # the one in the middle becomes "..."
        if is_long and n > 2 * EDGE: part = part.narrow(a, 0, EDGE + 1).cat(part.narrow(a, n - EDGE, EDGE), dim=a)
    text = np.array2string(part.numpy(), prefix="Tensor(", separator=", ", threshold=0 if is_long else WHOLE, edgeitems=EDGE)
    return f"Tensor({text}, {head})"
