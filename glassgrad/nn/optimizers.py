"""More optimizers: per-element rules with running averages. PyTorch's names and meanings."""
from __future__ import annotations

from collections.abc import Sequence

from glassgrad.nn.optimizer import Optimizer
from glassgrad.tensor.tensor import Tensor


class RMSprop(Optimizer):
    """Steps by the gradient over the root of the running mean of its squares (around the mean, if centered).

    source:  G. Hinton, lecture 6e (2012); torch.optim.RMSprop
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0,
                 momentum: float = 0.0, centered: bool = False) -> None:
        super().__init__(params, lr)
        self.alpha, self.eps, self.weight_decay, self.momentum, self.centered = alpha, eps, weight_decay, momentum, centered
        self.v, self.b, self.g = self.zeros(), self.zeros() if momentum else [], self.zeros() if centered else []

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        v = self.v[i].assign(self.v[i] * self.alpha + grad.square() * (1 - self.alpha))
        state = [self.v[i]]
        if self.centered:
            mean = self.g[i].assign(self.g[i] * self.alpha + grad * (1 - self.alpha))
            v = v - mean.square()
            state.append(self.g[i])
        change = grad / (v.sqrt() + self.eps)
        if self.momentum:
            change = self.b[i].assign(self.b[i] * self.momentum + change)
            state.append(self.b[i])
        return x - change * lr, state


class Adagrad(Optimizer):
    """Steps by the gradient over the root of the sum of all its squares.

    source:  J. Duchi et al. (2011); torch.optim.Adagrad
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10) -> None:
        super().__init__(params, lr)
        self.lr_decay, self.weight_decay, self.eps = lr_decay, weight_decay, eps
        self.v, self.t = [x.assign(x + initial_accumulator_value) for x in self.zeros()], self.counter()

    def begin_step(self) -> list[Tensor]: return [self.t.assign(self.t + 1)]
    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        v = self.v[i].assign(self.v[i] + grad.square())
        return x - grad * (lr / ((self.t - 1) * self.lr_decay + 1)) / (v.sqrt() + self.eps), [self.v[i]]


class Adadelta(Optimizer):
    """Steps whose size is that of former steps over that of former gradients.

    source:  M. Zeiler (2012); torch.optim.Adadelta
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, lr)
        self.rho, self.eps, self.weight_decay = rho, eps, weight_decay
        self.v, self.d = self.zeros(), self.zeros()

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        v = self.v[i].assign(self.v[i] * self.rho + grad.square() * (1 - self.rho))
        change = (self.d[i] + self.eps).sqrt() / (v + self.eps).sqrt() * grad
        self.d[i].assign(self.d[i] * self.rho + change.square() * (1 - self.rho))
        return x - change * lr, [self.v[i], self.d[i]]


class _Moments(Optimizer):
    """Running means of the gradient (m) and of what a rule makes of its size (v), and the number of steps."""
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor, b1: float, b2: float, eps: float, weight_decay: float) -> None:
        super().__init__(params, lr)
        self.b1, self.b2, self.eps, self.weight_decay = b1, b2, eps, weight_decay
        self.m, self.v, self.t = self.zeros(), self.zeros(), self.counter()

    def begin_step(self) -> list[Tensor]: return [self.t.assign(self.t + 1)]
    def mean(self, i: int, grad: Tensor) -> Tensor: return self.m[i].assign(self.m[i] * self.b1 + grad * (1 - self.b1))
    def power(self, base: float) -> Tensor: return base ** self.t


class Adamax(_Moments):
    """Adam with the largest instead of the mean square gradient.

    source:  D. Kingma, J. Ba (2014), section 7; torch.optim.Adamax
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.002, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay)

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        m, v = self.mean(i, grad), self.v[i].assign((self.v[i] * self.b2).maximum(grad.abs() + self.eps))
        return x - m / v * (lr / (1 - self.power(self.b1))), [self.m[i], self.v[i]]


class NAdam(_Moments):
    """Adam with Nesterov's look ahead.

    source:  T. Dozat (2016); torch.optim.NAdam
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.002, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.0,
                 momentum_decay: float = 0.004) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay)
        self.momentum_decay, self.product = momentum_decay, self.counter()
        self.product.assign(self.product + 1)

    def share(self, t: Tensor) -> Tensor: return self.b1 * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))
    def begin_step(self) -> list[Tensor]:
        super().begin_step()
        return [self.t, self.product.assign(self.product * self.share(self.t))]
    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        m, v = self.mean(i, grad), self.v[i].assign(self.v[i] * self.b2 + grad.square() * (1 - self.b2))
        now, then = self.share(self.t), self.share(self.t + 1)
        size = (v / (1 - self.power(self.b2))).sqrt() + self.eps
        return x - (grad * ((1 - now) / (1 - self.product)) + m * (then / (1 - self.product * then))) * lr / size, [self.m[i], self.v[i]]


class RAdam(_Moments):
    """Adam that begins without dividing, until the variance of its divisor is known well enough.

    source:  L. Liu et al. (2019); torch.optim.RAdam
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, b1, b2, eps, weight_decay)

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        grad = grad + x * self.of(i, "weight_decay")
        m, v = self.mean(i, grad), self.v[i].assign(self.v[i] * self.b2 + grad.square() * (1 - self.b2))
        most, fading = 2 / (1 - self.b2) - 1, self.power(self.b2)
        length = most - 2 * self.t * fading / (1 - fading)
        known = length > 5
        safe = known.where(length, most)
        scale = ((safe - 4) * (safe - 2) * most / ((most - 4) * (most - 2) * safe)).sqrt()
        step = known.where(scale * (1 - fading).sqrt() / (v.sqrt() + self.eps), 1.0)
        return x - m / (1 - self.power(self.b1)) * step * lr, [self.m[i], self.v[i]]


class Lion(_Moments):
    """Steps of one size, in the direction of a running mean of gradients.

    source:  X. Chen et al., Symbolic discovery of optimization algorithms (2023)
    """
    def __init__(self, params: Sequence[Tensor], lr: float | Tensor = 1e-4, b1: float = 0.9, b2: float = 0.99,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, b1, b2, 0.0, weight_decay)

    def update(self, i: int, x: Tensor, grad: Tensor, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        change = (self.m[i] * self.b1 + grad * (1 - self.b1)).sign()
        self.m[i].assign(self.m[i] * self.b2 + grad * (1 - self.b2))
        return x - (change + x * self.of(i, "weight_decay")) * lr, [self.m[i]]
