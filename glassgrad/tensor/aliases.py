"""Aliases: what other libraries call methods that are here under another name."""
from __future__ import annotations

from typing import Any

NAMES = {  # NumPy's, PyTorch's or the Array API's word: ours
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2",
    "arctanh": "atanh", "divide": "div", "true_divide": "div", "multiply": "mul", "subtract": "sub", "negative": "neg",
         "positive": "__pos__",
    "power": "pow", "floor_divide": "floordiv", "fix": "trunc", "rint": "round", "sgn": "sign", "not_equal": "ne", "less": "lt",
    "less_equal": "le", "greater": "gt", "greater_equal": "ge", "bitwise_invert": "bitwise_not", "bitwise_left_shift": "lshift",
    "bitwise_right_shift": "rshift", "radians": "deg2rad", "degrees": "rad2deg", "nelement": "numel", "dim": "_rank", "ndimension": "_rank",
    "moveaxis": "movedim", "swapdims": "swapaxes", "permute_dims": "permute", "expand_dims": "unsqueeze",
         "take_along_dim": "take_along_axis",
    "concat": "cat", "concatenate": "cat", "cumulative_sum": "cumsum", "cumulative_prod": "cumprod", "reshape_as": "view_as",
         "ger": "outer",
    "batch_norm": "batchnorm", "binary_cross_entropy": "binary_crossentropy",
         "binary_cross_entropy_with_logits": "binary_crossentropy_logits",
}


def add_aliases(cls: Any) -> Any:
    """Give a class the names of NAMES; a class decorator."""
    for name, ours in NAMES.items(): setattr(cls, name, getattr(cls, ours))
    return cls
