"""Lesson 7: a captured function replays in one call, and is traced again when what it depends on changes."""
from glassgrad import Tensor, TinyJit

weight = Tensor([1.0, 2.0]).realize()


@TinyJit
def step(x: Tensor, power: int) -> Tensor:
    """Uses a tensor from outside, and a Python number."""
    return (x * weight) ** power


x = Tensor([3.0, 4.0]).realize()
assert [step(x, 2).tolist() for _ in range(3)] == [[9.0, 64.0]] * 3
assert step(x, 1).tolist() == [3.0, 8.0]        # another number: another trace, never a stale answer
weight.assign(Tensor([10.0, 10.0])).realize()
assert step(x, 1).tolist() == [30.0, 40.0]      # the value outside is read at each call
first = step(x, 2)
second = step(x, 1)
print(first.tolist(), second.tolist())
assert first.tolist() == [900.0, 1600.0]        # results are fresh: a later call does not write into an earlier one
