"""Neural networks: layers here, and the modules `optim`, `state`, `datasets`, `init`, imported at their first use."""
import importlib

from glassgrad.nn import modules
from glassgrad.nn.attention import (
    MultiheadAttention,
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from glassgrad.nn.containers import Module, ModuleDict, ModuleList, Sequential
from glassgrad.nn.ema import EMA
from glassgrad.nn.layers import (
    BatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dropout,
    Embedding,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LayerNorm2d,
    Linear,
    LSTMCell,
    RMSNorm,
)
from glassgrad.nn.recurrent import GRU, LSTM, RNN, RNNCell

_MODULES = ("datasets", "init", "optim", "state")
__all__ = [
    "EMA",
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GroupNorm",
    "InstanceNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LSTMCell",
    "LayerNorm",
    "LayerNorm2d",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiheadAttention",
    "RMSNorm",
    "RNNCell",
    "Sequential",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    *modules.NAMES,
    *_MODULES,
]


def __getattr__(name):
    if name in _MODULES: return importlib.import_module(f"glassgrad.nn.{name}")
    if name in modules.NAMES: return getattr(modules, name)
    raise AttributeError(f"module 'glassgrad.nn' has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *__all__})
