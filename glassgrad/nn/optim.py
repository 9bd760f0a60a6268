"""Optimizers: rules that turn gradients into new weights. All new weights and state are computed in one realize call.

    optimizer = AdamW(get_parameters(model), lr=3e-4)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

The learning rate is a tensor, so changing it (`optimizer.lr.assign(...)`, or a schedule) never compiles anything again.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from glassgrad.nn.optimizer import Optimizer, OptimizerGroup  # noqa: F401  (the groups and the rules of `optimizers` are reached from here)
from glassgrad.nn.optimizers import Adadelta, Adagrad, Adamax, Lion, NAdam, RAdam, RMSprop  # noqa: F401
from glassgrad.nn.schedules import (  # noqa: F401  (the schedules are reached as nn.optim.StepLR ...)
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    WarmupLR,
)
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import UsageError

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # Keller Jordan's quintic: steep at zero, so small singular values reach 1 quickly


class SGD(Optimizer):
    """Gradient descent; momentum keeps a running sum of gradients. `classic` puts the learning rate into that sum.

    source:  torch.optim.SGD
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, momentum: float = 0.0, weight_decay: float = 0.0,
                 nesterov: bool = False, classic: bool = False) -> None:
        super().__init__(params, lr)
        self.momentum, self.weight_decay, self.nesterov, self.classic = momentum, weight_decay, nesterov, classic
        self.b = self.zeros() if momentum else []

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.of(i, "weight_decay"): grad = grad + x * self.of(i, "weight_decay")
        if self.classic: grad = grad * lr
        if self.momentum:
            b = self.b[i].assign(self.b[i] * self.momentum + grad)
            grad = grad + b * self.momentum if self.nesterov else b
        return x - (grad if self.classic else grad * lr), self.b[i:i + 1]


class LARS(Optimizer):
    """SGD with momentum whose step is scaled for each weight by the ratio of its norm to its gradient's.

    source:  You, Gitman, Ginsburg 2017
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, momentum: float = 0.9, weight_decay: float = 1e-4,
                 nesterov: bool = False, classic: bool = True, tcoef: float = 0.001) -> None:
        super().__init__(params, lr)
        self.momentum, self.weight_decay, self.nesterov, self.classic, self.tcoef = momentum, weight_decay, nesterov, classic, tcoef
        self.b = self.zeros()

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        size, slope = x.square().sum().sqrt(), grad.square().sum().sqrt()
        decay = self.of(i, "weight_decay")
        ratio = ((size > 0) & (slope > 0)).where(self.tcoef * size / (slope + decay * size), 1.0)
        grad = (grad + x * decay) * ratio
        if self.classic: grad = grad * lr
        b = self.b[i].assign(self.b[i] * self.momentum + grad)
        grad = grad + b * self.momentum if self.nesterov else b
        return x - (grad if self.classic else grad * lr), [self.b[i]]


class LAMB(Optimizer):
    """Adam whose step is scaled for each weight by the ratio of its norm to the step's. `adam=True` leaves the scaling out.

    source:  You et al. 2019
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6,
                 weight_decay: float = 0.0, adam: bool = False) -> None:
        super().__init__(params, lr)
        self.b1, self.b2, self.eps, self.weight_decay, self.adam = b1, b2, eps, weight_decay, adam
        self.c1, self.c2 = self.counter(), self.counter()  # 1 - b1**t and 1 - b2**t, without the cancellation
        self.m, self.v = self.zeros(), self.zeros()

    def begin_step(self) -> list[Tensor]:
        self.c1.assign(self.c1 * self.b1 + (1 - self.b1))
        self.c2.assign(self.c2 * self.b2 + (1 - self.b2))
        return [self.c1, self.c2]

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        m = self.m[i].assign(self.m[i] * self.b1 + grad * (1 - self.b1))
        v = self.v[i].assign(self.v[i] * self.b2 + grad.square() * (1 - self.b2))
        change = m / self.c1 / ((v / self.c2).sqrt() + self.eps) + x * self.of(i, "weight_decay")
        if not self.adam:
            size, length = x.square().sum().sqrt(), change.square().sum().sqrt()
            change = change * ((size > 0) & (length > 0)).where(size / length, 1.0)
        return x - change * lr, [self.m[i], self.v[i]]


class AdamW(LAMB):
    """Adam with decoupled weight decay.

    source:  Loshchilov and Hutter 2017; torch.optim.AdamW
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.01) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay, adam=True)


class Adam(LAMB):
    """Steps by the running mean of gradients over the root of the running mean of their squares.

    source:  Kingma and Ba 2014; torch.optim.Adam
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(params, lr, b1, b2, eps, 0.0, adam=True)


class Muon(Optimizer):
    """Momentum made orthogonal: every singular value of a matrix' step becomes about 1. For weights of two axes or more.

    errors:  UsageError if a weight has fewer than two axes: give those to AdamW in an OptimizerGroup
    source:  Keller Jordan 2024; torch.optim.Muon
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = NEWTON_SCHULZ,
        nesterov: bool = True,
    ) -> None:
        super().__init__(params, lr)
        flat = [tuple(x.shape) for x in self.params if x.ndim < 2]
        if flat:
            raise UsageError(
                f"Muon of weights of shape {flat[0]}\n  it is for matrices\n  try: OptimizerGroup(Muon(matrices), AdamW(others))"
            )
        self.momentum, self.weight_decay, self.ns_steps, self.ns_coefficients, self.nesterov = (
            momentum,
            weight_decay,
            ns_steps,
            ns_coefficients,
            nesterov,
        )
        self.b = self.zeros()

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        b = self.b[i].assign(self.b[i] * self.momentum + grad * (1 - self.momentum))
        if self.nesterov: b = grad * (1 - self.momentum) + b * self.momentum
        matrix = b.reshape(b.shape[0], -1)
        scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
        change = orthogonalize(matrix, self.ns_steps, self.ns_coefficients).reshape(x.shape) * scale
        return x * (1 - lr * self.of(i, "weight_decay")) - change * lr, [self.b[i]]


def orthogonalize(x: Tensor, steps: int = 5, coefficients: tuple[float, float, float] = NEWTON_SCHULZ, eps: float = 1e-7) -> Tensor:
    """About U @ V.T of a matrix' singular value decomposition, by `steps` rounds of an odd polynomial."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    y = x.transpose(0, 1) if tall else x
    y = y / y.square().sum().sqrt().maximum(eps)
    for _ in range(steps):
        gram = y @ y.transpose(0, 1)
        y = y * a + (gram * b + gram @ gram * c) @ y
    return y.transpose(0, 1) if tall else y


def clip_grad_norm_(params: Sequence[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale all gradients by one number so that the norm of all together is at most `max_norm`; returns the norm before.

    source:  torch.nn.utils.clip_grad_norm_
    """
    used = [x for x in params if x.grad is not None]
    if not used: return Tensor(0.0)
    grads = [x.grad.detach().cast(dtypes.float32) for x in used]
    if norm_type == math.inf: total = Tensor.stack(*[g.abs().max() for g in grads]).max()
    else: total = sum([g.abs().pow(norm_type).sum() for g in grads][1:], grads[0].abs().pow(norm_type).sum()).pow(1 / norm_type)
    scale = (max_norm / (total + 1e-6)).minimum(1.0)
    for x in used: x.grad = (x.grad * scale).cast(x.grad.dtype)
    return total


def clip_grad_value_(params: Sequence[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient to -clip_value .. clip_value."""
    for x in params:
        if x.grad is not None: x.grad = x.grad.clip(-clip_value, clip_value)
