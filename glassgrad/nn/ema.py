"""EMA: exponential moving averages of a model's weights."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from glassgrad.nn.state import get_state_dict
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import UsageError


class EMA:
    """Keeps average = decay * average + (1 - decay) * weight for every float tensor of a model; others are copied.

    With `warmup` the decay of step t is at most (1 + t) / (10 + t), so that the first values are soon forgotten.

        ema = EMA(model, 0.999)
        optimizer.step(); ema.update()
        with ema.applied(): evaluate(model)

    errors:  UsageError for a decay that is no share, or a model without tensors
    """
    def __init__(self, model: Any, decay: float = 0.999, warmup: bool = False) -> None:
        if not 0 <= decay <= 1: raise UsageError(f"EMA with decay={decay}\n  it must be from 0 to 1")
        self.model, self.decay, self.warmup = model, decay, warmup
        self.average = {name: self.kept(x) for name, x in get_state_dict(model).items()}
        if not self.average: raise UsageError(f"EMA of a {type(model).__name__}\n  there are no tensors in it")
        self.steps = self.kept(Tensor([0.0]))

    @staticmethod
    def kept(x: Tensor) -> Tensor:
        """A copy that does not learn."""
        t = x.detach().clone()
        t.requires_grad = False
        return t

    def update(self) -> None:
        """Take the weights as they are now into the average."""
        self.steps.assign(self.steps + 1)
        decay = self.decay if not self.warmup else ((self.steps + 1) / (self.steps + 10)).minimum(self.decay)
        for name, x in get_state_dict(self.model).items():
            old = self.average[name]
            old.assign((old + (x.detach() - old) * (1 - decay)).cast(old.dtype) if old.dtype.is_float else x.detach())
        Tensor.realize(self.steps, *self.average.values())

    def copy_to(self, model: Any = None) -> None:
        """Give the averages to the model (or to another of the same names)."""
        found = get_state_dict(self.model if model is None else model)
        for name, x in found.items(): x.assign(self.average[name])
        Tensor.realize(*found.values())

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averages; afterwards its own weights again."""
        own = {name: self.kept(x) for name, x in get_state_dict(self.model).items()}
        Tensor.realize(*own.values())
        self.copy_to()
        try: yield
        finally:
            for name, x in get_state_dict(self.model).items(): x.assign(own[name])
            Tensor.realize(*get_state_dict(self.model).values())

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name, as the model's."""
        return dict(self.average)
