"""Interop: arrays of other libraries, by DLPack. Values are copied: a tensor's memory is written once, another library's perhaps again."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassgrad.uop.errors import ArgumentError, DTypeError
from glassgrad.uop.ops import np

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

DLPACK_CPU = (1, 0)


class InteropMixin:
    """Methods that exchange arrays with other libraries."""
    __slots__ = ()

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
        """The values as a DLPack capsule in host memory; torch.from_dlpack and numpy.from_dlpack call it.

        errors:  DTypeError for types NumPy lacks, ArgumentError for another device or without a copy
        """
        if self.dtype.np_name is None:
            raise DTypeError(f"DLPack of {self.shape} {self.dtype.short}\n  NumPy, which makes the capsule, has no such elements\n  try: x.float()")
        if copy is False or dl_device not in (None, DLPACK_CPU):
            raise ArgumentError(f"DLPack of {self.shape} to device {dl_device} with copy={copy}\n  values are copied to host memory")
        return self.numpy().__dlpack__() if max_version is None else self.numpy().__dlpack__(max_version=max_version)
    def __dlpack_device__(self) -> tuple[int, int]: return DLPACK_CPU

    @classmethod
    def from_dlpack(cls, x: Any, device: str | None = None) -> Tensor:
        """A tensor with the values of whatever has __dlpack__, copied.

        errors:  ArgumentError for what has not

        >>> import numpy as np
        >>> Tensor.from_dlpack(np.arange(3)).tolist()
        [0, 1, 2]
        """
        if not hasattr(x, "__dlpack__"):
            raise ArgumentError(f"from_dlpack of a {type(x).__name__}\n  it has no __dlpack__\n  try: Tensor(x)")
        return cls(np.array(np.from_dlpack(x)), device=device)
    @classmethod
    def from_numpy(cls, x: Any, device: str | None = None) -> Tensor: return cls(np.asarray(x), device=device)
