"""Generator: a stream of random numbers of one's own, told from others by its seed."""
from __future__ import annotations

import secrets

from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.uop import UOp


class Generator:
    """A stream to draw from: Tensor.rand(3, generator=Generator(7)). The stream of a seed is that of Tensor.manual_seed(seed).

    How far it has come is a tensor, so drawing from it inside a jitted function goes on from replay to replay.

    >>> Tensor.rand(2, generator=Generator(7)).tolist() == Tensor.rand(2, generator=Generator(7)).tolist()
    True
    """
    def __init__(self, seed: int = 0) -> None:
        self.state = Tensor([0], dtype=dtypes.uint64, requires_grad=False)
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of this seed; the generator, for chaining."""
        self.first = int(seed) & 0xFFFFFFFF
        self.state.assign(Tensor([self.first << 32], dtype=dtypes.uint64))
        return self
    def seed(self) -> int:
        """Start the stream of a seed nobody knows; the seed."""
        self.manual_seed(secrets.randbits(32))
        return self.first
    def initial_seed(self) -> int:
        """The seed of this stream."""
        return self.first
    def get_state(self) -> Tensor:
        """Where the stream is: a uint64, to be given to set_state."""
        return self.state.clone()
    def set_state(self, state: Tensor) -> Generator:
        """Go to where a stream was; the generator, for chaining."""
        self.state.assign(state)
        return self
    def take(self, words: int) -> UOp:
        """The key of the next `words` words of the stream, a scalar node."""
        key = self.state.uop.reshape(())
        self.state.assign(self.state + words)
        return key
    def __repr__(self) -> str: return f"Generator({self.first})"
