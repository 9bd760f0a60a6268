"""Learning-rate schedules: the rate as a function of the step.

The step count and the rate are tensors, so a schedule works the same inside a jitted train step and outside it.
`schedule.step()` counts one step and sets the rate; PyTorch's names and meanings.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import np


class Schedule:
    """Base: the optimizers whose rate it sets, and the count of steps."""
    def __init__(self, optimizer: Any) -> None:
        self.optimizers = list(getattr(optimizer, "optimizers", [optimizer]))
        self.steps = Tensor(np.zeros((), np.float32), device=self.optimizers[0].lr.device)
        self.apply(self.steps)

    def step(self) -> None:
        """Count one step and set the rate."""
        self.steps.assign(self.steps + 1)
        self.apply(self.steps)

    def apply(self, t: Tensor) -> None:
        """Set the rate of step t."""
        for o in self.optimizers:
            rate = self.rate(t, o.initial_lr)
            rate = rate if isinstance(rate, Tensor) else Tensor(float(rate))
            o.lr.assign(rate.cast(o.lr.dtype).to(o.lr.device).reshape(o.lr.shape))
        Tensor.realize(self.steps, *[o.lr for o in self.optimizers])

    def rate(self, t: Tensor, lr: float) -> Tensor | float:
        """The rate at step t (a float32 number) for an optimizer made with `lr`."""
        raise NotImplementedError(f"{type(self).__name__}.rate")


class LambdaLR(Schedule):
    """lr * fn(t), where t is a tensor; inside a jitted function `fn` must be made of tensor operations."""
    def __init__(self, optimizer: Any, fn: Callable[[Tensor], Any]) -> None:
        self.fn = fn
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor | float: return lr * self.fn(t)


class StepLR(Schedule):
    """lr * gamma every `step_size` steps."""
    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor: return power(self.gamma, ((t + 0.5) / self.step_size).floor()) * lr


class MultiStepLR(Schedule):
    """lr * gamma at each of the milestones."""
    def __init__(self, optimizer: Any, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = tuple(milestones), gamma
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor:
        rate = t * 0 + lr
        for milestone in self.milestones: rate = (t >= milestone).where(rate * self.gamma, rate)
        return rate


class ExponentialLR(Schedule):
    """lr * gamma**t."""
    def __init__(self, optimizer: Any, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor: return power(self.gamma, t) * lr


class LinearLR(Schedule):
    """From lr * start_factor to lr * end_factor in `total_iters` steps, then constant."""
    def __init__(self, optimizer: Any, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor: return line(self.start_factor * lr, self.end_factor * lr, t / self.total_iters)


class CosineAnnealingLR(Schedule):
    """From lr to eta_min along half a cosine of T_max steps (and back in the next T_max)."""
    def __init__(self, optimizer: Any, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor:
        return (1 + (t * (math.pi / self.T_max)).cos()) * ((lr - self.eta_min) / 2) + self.eta_min


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr in pct_start of all steps, then down to 1/final_div_factor of the start.

    source:  Smith and Topin 2017; torch.optim.lr_scheduler.OneCycleLR
    """
    def __init__(self, optimizer: Any, max_lr: float, total_steps: int, pct_start: float = 0.3, anneal_strategy: str = "cos",
                 div_factor: float = 25.0, final_div_factor: float = 1e4) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise UsageError(f"OneCycleLR with anneal_strategy={anneal_strategy!r}\n  try: 'cos' or 'linear'")
        if total_steps < 1: raise UsageError(f"OneCycleLR over {total_steps} steps\n  there must be at least one")
        self.max_lr, self.total_steps, self.peak = max_lr, total_steps, pct_start * total_steps - 1
        self.start_lr, self.final_lr = max_lr / div_factor, max_lr / div_factor / final_div_factor
        self.curve = line if anneal_strategy == "linear" else cosine
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor:
        up = self.curve(self.start_lr, self.max_lr, t / max(self.peak, 1e-9))
        down = self.curve(self.max_lr, self.final_lr, (t - self.peak) / (self.total_steps - 1 - self.peak))
        return (t <= self.peak).where(up, down)


class WarmupLR(Schedule):
    """Linearly from 0 to lr in the first `steps` steps, then what `then` says (a schedule class with its arguments), from its start."""
    def __init__(self, optimizer: Any, steps: int, then: Callable[..., Schedule] | None = None, **args: Any) -> None:
        self.warmup = steps
        self.then = then(optimizer, **args) if then else None
        super().__init__(optimizer)

    def rate(self, t: Tensor, lr: float) -> Tensor | float:
        after = self.then.rate((t - self.warmup).maximum(0), lr) if self.then else lr
        return (t < self.warmup).where((t + 1) / (self.warmup + 1) * lr, after)


class ReduceLROnPlateau:
    """Multiply the rate by `factor` when the metric given to `step` has not improved for more than `patience` steps.

    source:  torch.optim.lr_scheduler.ReduceLROnPlateau
    """

    def __init__(
        self, optimizer: Any, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_lr: float = 0.0
    ) -> None:
        if mode not in ("min", "max"): raise UsageError(f"ReduceLROnPlateau with mode={mode!r}\n  try: 'min' or 'max'")
        self.optimizers = list(getattr(optimizer, "optimizers", [optimizer]))
        self.sign, self.factor, self.patience, self.threshold, self.min_lr = 1 if mode == "min" else -1, factor, patience, threshold, min_lr
        self.best, self.waited = math.inf, 0

    def step(self, metric: float | Tensor) -> None:
        """Judge the metric of an epoch."""
        value = self.sign * float(metric.item() if isinstance(metric, Tensor) else metric)
        if value < self.best - abs(self.best if self.best < math.inf else 0) * self.threshold: self.best, self.waited = value, 0
        else: self.waited += 1
        if self.waited <= self.patience: return
        self.waited = 0
        for o in self.optimizers: o.lr.assign((o.lr * self.factor).maximum(self.min_lr))
        Tensor.realize(*[o.lr for o in self.optimizers])


def power(base: float, t: Tensor) -> Tensor:
    """base**t for a positive base."""
    return (t * math.log2(base)).exp2()


def line(a: float, b: float, t: Tensor) -> Tensor:
    """a at t <= 0, b at t >= 1, straight between."""
    return t.clip(0, 1) * (b - a) + a


def cosine(a: float, b: float, t: Tensor) -> Tensor:
    """a at t <= 0, b at t >= 1, half a cosine between."""
    return ((t.clip(0, 1) * math.pi).cos() + 1) * ((a - b) / 2) + b
