"""Optimizer: what all optimizers share: weights in groups, the learning rate, one realize call a step."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import np


class Optimizer:
    """Base: holds the tensors that learn (`params`), those that are only kept (`buffers`), and the learning rate.

    `params` is a list of tensors, or of groups: dictionaries with "params" and numbers of their own, as {"params": biases,
    "weight_decay": 0}. A group's "lr" keeps its ratio to the optimizer's when that is changed.

    errors:  UsageError if there is nothing to learn, or a group sets what the optimizer does not have
    """
    def __init__(self, params: Sequence[Any], lr: float | Tensor) -> None:
        listed = list(params) if isinstance(params, Iterable) and not isinstance(params, Tensor) else [None]
        groups = [g if isinstance(g, dict) and "params" in g else {"params": [g]} for g in listed]
        listed = [(x, g) for g in groups for x in ([g["params"]] if isinstance(g["params"], Tensor) else g["params"])]
        if not all(isinstance(x, Tensor) for x, _ in listed):
            raise UsageError(f"{type(self).__name__} of a {type(params).__name__}\n"
                             f"  the weights must be a list of Tensors\n  try: get_parameters(model)")
        owners = {id(x): g for x, g in reversed(listed)}
        params = list({id(x): x for x, _ in listed}.values())
        for x in params:
            if x.requires_grad is None: x.requires_grad = True
        self.params = [x for x in params if x.requires_grad]
        self.own = [{k: v for k, v in owners[id(x)].items() if k != "params"} for x in self.params]
        self.buffers = [x for x in params if not x.requires_grad]
        if not self.params:
            raise UsageError(f"{type(self).__name__} of {len(params)} tensors\n  none has requires_grad=True\n  try: get_parameters(model)")
        for own in self.own:
            unknown = [k for k in own if k not in ("lr", "weight_decay")]
            if unknown:
                raise UsageError(f"{type(self).__name__} with a group that sets {unknown[0]!r}\n"
                                 f"  a group can set lr and weight_decay\n  try: an OptimizerGroup of several")
        self.initial_lr = float(lr.item()) if isinstance(lr, Tensor) else float(lr)
        if not self.initial_lr and any("lr" in own for own in self.own):
            raise UsageError(f"{type(self).__name__} with lr=0 and groups with an lr of their own\n"
                             f"  theirs keep their ratio to it\n  try: an lr above 0")
        self.lr = lr if isinstance(lr, Tensor) else Tensor(np.array([lr], np.float32), device=self.params[0].device)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for x in self.params: x.grad = None

    def step(self) -> None:
        """Compute new weights from the gradients.

        errors:  UsageError if no weight has a gradient
        """
        Tensor.realize(*self.schedule_step())

    def schedule_step(self) -> list[Tensor]:
        """As `step`, but lazy: what it returns is still to be realized. Weights without gradient stay as they are."""
        used = [i for i, x in enumerate(self.params) if x.grad is not None]
        if not used:
            raise UsageError(
                f"{type(self).__name__}.step\n  none of its {len(self.params)} weights has a gradient\n  try: loss.backward() before"
            )
        rate = self.lr.reshape(())
        changed = self.begin_step()
        for i in used:
            x, lr = self.params[i], rate * (self.own[i]["lr"] / self.initial_lr) if "lr" in self.own[i] else rate
            wide, grad = x.detach().cast(self.wide(x)), x.grad.detach().cast(self.wide(x))
            new, state = self.update(i, wide, grad, lr)
            x.assign(new.cast(x.dtype))
            changed += [x, *state]
        return changed + self.buffers

    def of(self, i: int, name: str) -> Any:
        """A number of the optimizer, or what the group of weight i has instead."""
        return self.own[i].get(name, getattr(self, name))

    def begin_step(self) -> list[Tensor]:
        """What changes once a step; returns the tensors assigned."""
        return []

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(new value of weight i, state tensors assigned)."""
        raise NotImplementedError(f"{type(self).__name__}.update")

    def wide(self, x: Tensor) -> Any:
        """The type updates of `x` are computed in."""
        return dtypes.float32 if x.dtype.bits < 32 else x.dtype

    def zeros(self) -> list[Tensor]:
        """A state tensor for each weight, zero."""
        made = [Tensor.zeros(*x.shape, dtype=self.wide(x), device=x.device).contiguous() for x in self.params]
        for x in made: x.requires_grad = False
        return made

    def counter(self) -> Tensor:
        """A state number, zero."""
        x = Tensor(np.zeros((), np.float32), device=self.params[0].device)
        x.requires_grad = False
        return x


class OptimizerGroup(Optimizer):
    """Several optimizers as one: each for its own weights, one realize call for all."""
    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        self.params = [x for o in optimizers for x in o.params]
        self.buffers = [x for o in optimizers for x in o.buffers]

    def __getitem__(self, i: int) -> Optimizer: return self.optimizers[i]
    def zero_grad(self) -> None:
        """Forget the gradients of all."""
        for o in self.optimizers: o.zero_grad()
    def schedule_step(self) -> list[Tensor]: return [x for o in self.optimizers for x in o.schedule_step()]
