"""Neural networks: layers here, and the modules `optim`, `state`, `datasets`, imported at their first use."""
import importlib

from glassgrad.nn.layers import (
    BatchNorm,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    LayerNorm,
    LayerNorm2d,
    Linear,
    LSTMCell,
    RMSNorm,
    Sequential,
)

__all__ = [
    "BatchNorm",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "LayerNorm",
    "LayerNorm2d",
    "Linear",
    "RMSNorm",
    "Sequential",
    "datasets",
    "optim",
    "state",
]


def __getattr__(name):
    if name in ("datasets", "optim", "state"): return importlib.import_module(f"glassgrad.nn.{name}")
    raise AttributeError(f"module 'glassgrad.nn' has no attribute {name!r}")
