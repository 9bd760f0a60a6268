"""Containers: lists and dictionaries of layers, and a base class for those who like one."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from glassgrad.nn.state import get_parameters, get_state_dict, load_state_dict
from glassgrad.tensor.tensor import Tensor


class Sequential(list):
    """Functions one after the other: Sequential(Linear(4, 8), Tensor.relu, Linear(8, 2)), or of one list of them."""
    def __init__(self, *layers: Any) -> None:
        super().__init__(layers[0] if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else layers)
    def __call__(self, x: Tensor) -> Tensor:
        for layer in self: x = layer(x)
        return x


class ModuleList(list):
    """A list of layers; any list will do."""


class ModuleDict(dict):
    """A dictionary of layers; any dictionary will do."""


class Module:
    """A base class like PyTorch's, for programs that expect one: calls `forward`, and knows its tensors. No layer here needs it.

    >>> class Twice(Module):
    ...     def forward(self, x): return x * 2
    >>> Twice()(Tensor([1.0])).tolist()
    [2.0]
    """
    def __call__(self, *args: Any, **named: Any) -> Any: return self.forward(*args, **named)
    def forward(self, *args: Any, **named: Any) -> Any:
        """What a call computes."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def state_dict(self) -> dict[str, Tensor]:
        """Name -> tensor of everything in it."""
        return get_state_dict(self)
    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> list[str]:
        """Assign tensors by name; see nn.state.load_state_dict."""
        return load_state_dict(self, state, strict)
    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that learn, with their names."""
        return ((name, x) for name, x in get_state_dict(self).items() if x.requires_grad is not False)
    def parameters(self) -> list[Tensor]:
        """The tensors that learn, each once."""
        return [x for x in get_parameters(self) if x.requires_grad is not False]
    def zero_grad(self) -> None:
        """Forget the gradients."""
        for x in get_parameters(self): x.grad = None
    def requires_grad_(self, value: bool = True) -> Module:
        """Say of all float tensors whether they learn; the module, for chaining."""
        for x in get_parameters(self):
            if x.dtype.is_float: x.requires_grad = value
        return self
    def to(self, device: str) -> Module:
        """Move all tensors; the module, for chaining."""
        for x in get_parameters(self): x.to_(device)
        return self
    def train(self, mode: bool = True) -> Module:
        """Set Tensor.training, which all layers look at; the module, for chaining. `with Tensor.train():` ends by itself."""
        Tensor.training = mode
        return self
    def eval(self) -> Module:
        """The opposite of train."""
        return self.train(False)
    def children(self) -> list[Any]:
        """What stands in its attributes and can be called."""
        return [x for x in vars(self).values() if callable(x) and not isinstance(x, Tensor)]
    def apply(self, f: Callable[[Any], Any]) -> Module:
        """Call f with every module below and with this one; the module, for chaining."""
        for x in self.children():
            if isinstance(x, Module): x.apply(f)
            else: f(x)
        f(self)
        return self
