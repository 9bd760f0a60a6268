"""Lesson 8: jit.

Building a graph takes Python's time, at every step of a training loop. `jit` runs a function once, keeps the launches, and replays them.
Run me: python docs/lessons/08_jit.py
"""
import time

from glassgrad import Tensor, jit
from glassgrad.uop.errors import JitError

calls = 0


def step(w: Tensor, x: Tensor) -> Tensor:
    """One step down the gradient of the distance of w * x from 1."""
    global calls
    loss = ((w * x - 1) ** 2).mean()
    w.assign((w - loss.gradient(w)[0] * 0.5).detach())
    return loss


def counted(w: Tensor, x: Tensor) -> Tensor: return step(w, x)


fast = jit(counted)
w, x = Tensor([0.0, 0.0]).realize(), Tensor([1.0, 0.5]).realize()
losses = [fast(w, x).item() for _ in range(40)]
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}; Python ran {fast.traces} time, replays: {fast.replays}")
assert fast.traces == 1 and fast.replays == 39 and losses[-1] < 0.01 < losses[0]
assert abs(w.numpy() * x.numpy() - 1).max() < 0.1           # what the function writes is written at every replay

# A replay is one native call. Beside the same step in plain Python:
def timed(f) -> float:
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        f(w, x).realize()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


slow, quick = timed(step), timed(fast)
print(f"a step: {slow:.0f} us as Python, {quick:.0f} us replayed")
assert quick < slow

# It is never stale. Another shape, another Python number, another closure: it traces again, and keeps both.
power = jit(lambda x, n: x ** n)
results = [power(Tensor([2.0, 3.0]).realize(), n).tolist() for n in (2, 3, 2, 3)]
print("\npowers:", results, "from", power.traces, "traces")
assert results == [[4.0, 9.0], [8.0, 27.0]] * 2 and power.traces == 2

# What it reaches outside is read anew: here a tensor in a closure, which somebody assigns to.
scale = Tensor([10.0]).realize()
scaled = jit(lambda x: x * scale)
one = Tensor([1.0]).realize()
before = scaled(one).tolist()
scale.assign(Tensor([20.0])).realize()
print("with scale 10:", before, " and 20:", scaled(one).tolist())
assert before == [10.0] and scaled(one).tolist() == [20.0]

# Random numbers are drawn anew, as in plain Python.
noise = jit(lambda: Tensor.rand(2))
assert len({tuple(noise().tolist()) for _ in range(4)}) == 4

# What cannot be captured is refused, with the reason and a way out; nothing is silently frozen.
try: jit(lambda x: x * x.sum().item())(one)
except JitError as error: print("\nrefused:", error)
else: raise AssertionError("reading a value inside must be refused")
