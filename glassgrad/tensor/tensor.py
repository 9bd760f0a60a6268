"""Tensor: a lazy n-dimensional array. Operations build a graph; reading a value computes it.

Indexing with ints and slices, reshape, permute, transpose, expand, squeeze and flip give views: a write through either is seen by both, as
in NumPy. Arithmetic and indexing with tensors make new values. What is computed never depends on when it is computed.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from glassgrad.device.device import Device
from glassgrad.engine import capture
from glassgrad.engine import realize as engine
from glassgrad.passes.gradient import device_of
from glassgrad.passes.gradient import gradient as differentiate
from glassgrad.tensor import host, storage
from glassgrad.tensor.aliases import add_aliases
from glassgrad.tensor.arguments import check_arguments
from glassgrad.tensor.arrange import ArrangeMixin
from glassgrad.tensor.conv import ConvMixin
from glassgrad.tensor.creation import CreationMixin
from glassgrad.tensor.display import show
from glassgrad.tensor.distributions import DistributionMixin
from glassgrad.tensor.elementwise import ElementwiseMixin
from glassgrad.tensor.fft import FourierMixin
from glassgrad.tensor.hash import HashMixin
from glassgrad.tensor.index import IndexMixin
from glassgrad.tensor.interop import InteropMixin
from glassgrad.tensor.linalg import LinalgMixin
from glassgrad.tensor.loss import LossMixin
from glassgrad.tensor.losses import LossesMixin
from glassgrad.tensor.matrix import MatrixMixin
from glassgrad.tensor.movement import MovementMixin
from glassgrad.tensor.products import ProductsMixin
from glassgrad.tensor.random import RandomMixin
from glassgrad.tensor.reduce import ReduceMixin
from glassgrad.tensor.special import SpecialMixin
from glassgrad.tensor.statistics import StatisticsMixin
from glassgrad.tensor.storage import Step, Storage, fill, identified, is_constant, leaf, read_chain, stamp, user_site, write_chain
from glassgrad.tensor.vision import VisionMixin
from glassgrad.uop import bits
from glassgrad.uop.dtype import DType, dtypes, to_dtype
from glassgrad.uop.errors import DeviceError, DTypeError, ShapeError, UsageError
from glassgrad.uop.ops import Ops, np
from glassgrad.uop.uop import UOp


@add_aliases
@check_arguments
class Tensor(CreationMixin, RandomMixin, MovementMixin, IndexMixin, ElementwiseMixin, ReduceMixin, LinalgMixin, ConvMixin, LossMixin,
             HashMixin, MatrixMixin, SpecialMixin, ArrangeMixin, StatisticsMixin, ProductsMixin,
             VisionMixin, FourierMixin, DistributionMixin, LossesMixin, InteropMixin):
    """A lazy array of `shape`, `dtype` and `device`.

    `data`: a number, nested lists, a NumPy array (copied), bytes (uint8), a path (the file's bytes, read when used), a Tensor, a UOp,
    or anything with `__array__`. `requires_grad=True` asks backward() for this tensor's gradient; if no tensor asks, all leaves get theirs.
    `grad` is the gradient that backward() summed up, or None.

    errors:  ShapeError for ragged lists, DTypeError for elements that are no numbers

    >>> Tensor([[1, 2], [3, 4]]).sum(axis=0).tolist()
    [4, 6]
    """
    __slots__ = ("_storage", "_chain", "_base", "_view", "_requires_grad", "_grad", "__weakref__")
    __array_priority__ = 1000.0     # ndarray + Tensor is our __radd__
    __array_ufunc__ = None
    _storage: Storage; _chain: tuple[Step, ...]; _base: UOp | None; _view: UOp | None; _requires_grad: bool | None; _grad: Tensor | None
    training: bool = False

    def __init__(self, data: Any, device: str | None = None, dtype: DType | str | None = None, requires_grad: bool | None = None) -> None:
        d = None if dtype is None else to_dtype(dtype)
        where = None if device is None else _one_device(device)
        value, at = _value_of(data, d, where)
        if d is not None: value = value.cast(d)
        stamp(value, user_site())
        self._fill(Storage(value, at, True))
        self._requires_grad = None
        storage.leaves.add(self)
        if requires_grad is not None: self.requires_grad = requires_grad

    def _fill(self, store: Storage, chain: tuple[Step, ...] = ()) -> None:
        self._storage, self._chain, self._base, self._view, self._requires_grad, self._grad = store, chain, None, None, None, None

    # ---- making tensors ----------------------------------------------------------------------------------------------------------
    def _new(self, value: UOp, *others: Tensor) -> Tensor:
        """The tensor of a result computed from this one and `others`."""
        t = object.__new__(Tensor)
        device = self._storage.device
        for x in others:
            if x._storage.device != device: device = _common_device(device, x._storage.device, self, x)
        if is_constant(value): value = leaf(value)
        if value.site is None: stamp(value, user_site(2))
        t._storage, t._chain = Storage(value, device), ()
        t._base = t._view = t._requires_grad = t._grad = None
        return t

    @staticmethod
    def _made(value: UOp, device: str | None = None, requires_grad: bool | None = None) -> Tensor:
        """The tensor of a value that depends on no other: a variable of its own. Goes to `device` if one is named."""
        if device is not None:
            device = _one_device(device)
            value = UOp(Ops.COPY, value.dtype, (value,), device)
        value = leaf(value)
        t = object.__new__(Tensor)
        stamp(value, user_site(2))
        t._fill(Storage(value, device, True))
        storage.leaves.add(t)
        if requires_grad is not None: t.requires_grad = requires_grad
        return t

    def _viewed(self, *steps: Step) -> Tensor:
        """The view of this tensor that further movement steps make."""
        t = object.__new__(Tensor)
        base = self.uop
        view = read_chain(base, steps)
        stamp(view, user_site(2))
        t._fill(self._storage, self._chain + steps)
        t._base, t._view = self._storage.value, view
        if self._storage.is_leaf: storage.leaves.add(t)
        return t

    # ---- facts -------------------------------------------------------------------------------------------------------------------
    @property
    def uop(self) -> UOp:
        """The graph node that stands for the value now."""
        base = self._storage.value if capture.current is None else self._storage.read()
        if not self._chain: return base
        if self._base is not base:
            self._view = read_chain(base, self._chain)
            stamp(self._view, user_site())
            self._base = base
        return self._view  # type: ignore[return-value]

    @property
    def dtype(self) -> DType: return self._storage.value.dtype
    @property
    def shape(self) -> tuple[int, ...]: return self.uop.shape if self._chain else self._storage.value.shape
    @property
    def max_shape(self) -> tuple[int, ...]:
        """The largest shape this tensor can have: its shape, since lengths of axes are numbers."""
        return self.shape
    @property
    def ndim(self) -> int: return len(self.shape)
    @property
    def device(self) -> str: return self._storage.device or Device.DEFAULT
    @property
    def requires_grad(self) -> bool | None: return self._requires_grad
    @requires_grad.setter
    def requires_grad(self, value: bool | None) -> None:
        if value and not self.dtype.is_float:
            raise DTypeError(f"requires_grad=True for a tensor {self.shape} of {self.dtype.name}\n  only floats have gradients\n"
                             f"  try: x.float()")
        self._requires_grad = value
        if value: storage.trainable.add(self)
        else: storage.trainable.discard(self)
        if value is False: storage.leaves.discard(self)
    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() summed up, a tensor of this shape; None if there is none."""
        if capture.current is not None: capture.current.meets_grad(self, True)
        return self._grad
    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if capture.current is not None: capture.current.meets_grad(self, False)
        self._grad = value

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Set requires_grad; the tensor itself, for chaining."""
        self.requires_grad = value
        return self
    @property
    def is_param(self) -> bool: return bool(self._requires_grad)
    def is_param_(self, value: bool = True) -> Tensor: return self.requires_grad_(value)

    def numel(self) -> int:
        """The number of elements."""
        return self.uop.size
    def max_numel(self) -> int:
        """The number of elements of `max_shape`."""
        return self.numel()
    def size(self, dim: int | None = None) -> int | tuple[int, ...]:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[self._long_axis(dim, "size")]
    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize
    def is_floating_point(self) -> bool: return self.dtype.is_float
    def __len__(self) -> int:
        if not self.shape: raise UsageError("len of a tensor of shape ()\n  a scalar has no first axis\n  try: x.numel()")
        return self.shape[0]
    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape: raise UsageError("iteration over a tensor of shape ()\n  a scalar has no first axis\n  try: x.item()")
        return (self[i] for i in range(self.shape[0]))
    def __hash__(self) -> int: return id(self)
    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise UsageError(f"bool of a tensor {self.shape}\n  only a tensor of one element is true or false\n  try: x.all() or x.any()")
        return bool(self.item())
    def __int__(self) -> int: return int(self.item())
    def __float__(self) -> float: return float(self.item())
    def __index__(self) -> int:
        if not self.dtype.is_int:
            raise DTypeError(f"a tensor {self.shape} of {self.dtype.name} as an index\n  only an int tensor of one element is an index")
        return int(self.item())
    def __contains__(self, x: Any) -> bool: return bool((self == x).any())

    # ---- values ------------------------------------------------------------------------------------------------------------------
    def realize(self, *others: Tensor) -> Tensor:
        """Compute this tensor, `others` and everything that was assigned and is pending; then they are memory. Returns this tensor.

        Realizing forgets how the value came about, unless a tensor with requires_grad=True is differentiable through it. Reading
        (numpy, item, print) computes too but forgets nothing.
        """
        tensors = (self, *others)
        engine.realize(*[n for t in tensors if not _in_memory(n := t.uop)])
        if capture.is_tracing(): return self
        for t in tensors:
            if t._chain: continue
            t._storage.settle()
            if t._storage.is_leaf and t._requires_grad is not False: storage.leaves.add(t)
        storage.settle_pending()
        return self

    def numpy(self) -> Any:
        """The values as a NumPy array of its own; types NumPy lacks become float32.

        >>> Tensor([1.5, 2.5], dtype="bfloat16").numpy().dtype.name
        'float32'
        """
        self._about_to_read("numpy()")
        x = self.uop
        if not x.size: return np.empty(x.shape, dtype=bits.value_name(x.dtype))
        return host.to_array(self._buffer(), x.dtype, x.shape)

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for shape ()."""
        self._about_to_read("tolist()")
        return self.numpy().tolist()

    def item(self) -> bool | int | float:
        """The one element as a Python number.

        errors:  UsageError if there is not exactly one
        """
        if self.numel() != 1:
            raise UsageError(f"item() of a tensor {self.shape} {self.dtype.short}\n"
                             f"  it has {self.numel()} elements, item() needs exactly one\n  try: x.tolist()")
        self._about_to_read("item()")
        return self.numpy().reshape(-1)[0].item()

    def data(self) -> memoryview:
        """A copy of the values as a memoryview of this shape.

        errors:  DTypeError for types that Python's buffers lack
        """
        if not self.dtype.np_name:
            raise DTypeError(f"data() of a tensor of {self.dtype.name}\n  Python has no such elements\n  try: x.float().data()")
        return memoryview(self.numpy())

    def _buffer(self) -> Any:
        """The memory that holds the value, row by row."""
        x = self.uop
        kind = self.device.partition(":")[0]
        if kind in ("DISK", "NPY") and not _in_memory(x): x = UOp(Ops.COPY, x.dtype, (x,), "CPU")
        buf = engine.realize(x)[0]
        storage.settle_pending()
        return buf

    def _about_to_read(self, what: str) -> None:
        if capture.is_tracing(): capture.forbid_values(what, [self.uop.site])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False: raise UsageError("numpy.array(tensor, copy=False)\n  a tensor's values are always copied to the host")
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    def __repr__(self) -> str: return show(self)

    # ---- writing -----------------------------------------------------------------------------------------------------------------
    def assign(self, x: Any) -> Tensor:
        """Rebind the value, in place: all views see it. `x` is broadcast to this shape.

        errors:  ShapeError if it does not broadcast, DTypeError if the value's kind does not fit (a float into an int tensor), DeviceError
        """
        weak = isinstance(x, (bool, int)) or isinstance(x, float) and self.dtype.is_float
        y = x if isinstance(x, Tensor) else Tensor(x, dtype=self.dtype if weak else None)
        new, shape = y.uop, self.shape
        if new.dtype is not self.dtype:
            if _kind(new.dtype) > _kind(self.dtype):
                raise DTypeError(f"assign of {y.shape} {new.dtype.short} to {shape} {self.dtype.short}\n"
                                 f"  {new.dtype.name} values do not fit in {self.dtype.name}\n"
                                 f"  try: .cast(dtypes.{self.dtype.name}) on the value")
            new = new.cast(self.dtype)
        if new.shape != shape:
            if not _can_expand(new.shape, shape):
                raise ShapeError(f"assign of {y.shape} {new.dtype.short} to {shape} {self.dtype.short}\n"
                                 f"  {y.shape} does not broadcast to {shape}"
                                 f"{_made_at(self, y)}")
            new = fill(new, shape) if not new.shape else new.reshape((1,) * (len(shape) - len(new.shape)) + new.shape).expand(shape)
        mine, theirs = self._storage.device, y._storage.device
        if theirs is not None and theirs != self.device:
            raise DeviceError(f"assign of {y.shape} on {theirs} to {shape} on {self.device}\n  both must be on one device\n"
                              f"  try: .to({self.device!r}) on the value")
        if self._chain: new = write_chain(self._storage.read(), self._chain, new)
        elif self._storage.is_leaf or self._requires_grad: new = leaf(new)   # equal values of two variables stay two
        stamp(new, user_site())
        self._storage.write(new)
        if mine is None: self._storage.device = theirs
        return self

    def replace(self, x: Tensor) -> Tensor:
        """Take over the storage of `x`, of the same shape: from now on both are one variable.

        errors:  ShapeError if the shapes differ
        """
        if x.shape != self.shape: raise ShapeError(f"replace of {self.shape} by {x.shape}\n  the shapes must be equal")
        self._storage.read()
        keep, grad = self._requires_grad, self._grad
        self._fill(x._storage, x._chain)
        self._grad = grad
        if keep is not None: self.requires_grad = keep
        if self._storage.is_leaf: storage.leaves.add(self)
        return self

    def __iadd__(self, y: Any) -> Tensor: return self.assign(self + y)
    def __isub__(self, y: Any) -> Tensor: return self.assign(self - y)
    def __imul__(self, y: Any) -> Tensor: return self.assign(self * y)
    def __itruediv__(self, y: Any) -> Tensor: return self.assign(self / y)
    def __ifloordiv__(self, y: Any) -> Tensor: return self.assign(self // y)
    def __imod__(self, y: Any) -> Tensor: return self.assign(self % y)
    def __ipow__(self, y: Any) -> Tensor: return self.assign(self ** y)
    def __iand__(self, y: Any) -> Tensor: return self.assign(self & y)
    def __ior__(self, y: Any) -> Tensor: return self.assign(self | y)
    def __ixor__(self, y: Any) -> Tensor: return self.assign(self ^ y)
    def __ilshift__(self, y: Any) -> Tensor: return self.assign(self << y)
    def __irshift__(self, y: Any) -> Tensor: return self.assign(self >> y)
    def __imatmul__(self, y: Any) -> Tensor: return self.assign(self @ y)

    # ---- identity, place, type ---------------------------------------------------------------------------------------------------
    def contiguous(self) -> Tensor:
        """The same values, stored in memory as they stand when they are computed."""
        return self._new(UOp(Ops.CONTIGUOUS, self.dtype, (self.uop,)))
    def contiguous_backward(self) -> Tensor:
        """The same values; a mark of where a gradient may be stored, which the compiler decides by itself."""
        return self._new(self.uop)
    def detach(self) -> Tensor:
        """The same values without gradient."""
        return self._new(UOp(Ops.DETACH, self.dtype, (self.uop,))) if self.dtype.is_float else self._new(self.uop)
    def with_gradient_of(self, y: Tensor) -> Tensor:
        """These values with the gradient of `y`, whose values are never computed: for straight-through estimators and for derivatives that
        are known in closed form.

        errors:  ShapeError if the shapes differ, DTypeError for other than floats of one dtype

        >>> x = Tensor([0.3, 1.6])
        >>> x.round().with_gradient_of(x).sum().gradient(x)[0].tolist()
        [1.0, 1.0]
        """
        if y.shape != self.shape: raise ShapeError(f"with_gradient_of of {self.shape} and {y.shape}\n  the shapes must be equal")
        if not self.dtype.is_float or y.dtype is not self.dtype:
            raise DTypeError(f"with_gradient_of of {self.dtype.short} and {y.dtype.short}\n  both must be the same floats")
        return self._new(UOp(Ops.SURROGATE, self.dtype, (self.uop, y.uop)), y)
    def clone(self, device: str | None = None) -> Tensor:
        """The same values in a variable of its own: writes to either are not seen by the other. Gradients flow through."""
        if device is not None and self.device != _one_device(device): return self.to(device)
        t = self._new(leaf(self.uop))
        t._storage.is_leaf = self._storage.is_leaf
        if t._storage.is_leaf: storage.leaves.add(t)
        if self._requires_grad is not None: t.requires_grad = self._requires_grad
        return t
    def __copy__(self) -> Tensor: return self.clone()
    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        t = memo[id(self)] = self.clone()
        if self.grad is not None: t.grad = self.grad.clone()
        return t
    def __reduce__(self) -> Any:
        raw = self.bitcast(bits.bits_dtype(self.dtype)).numpy() if self.dtype.np_name is None else self.numpy()
        return _unpickle, (raw, self.dtype, self._storage.device, self._requires_grad)

    def to(self, device: str | None) -> Tensor:
        """The values on another device; this tensor if it is there already.

        errors:  DeviceError if there is no such device
        """
        name = _one_device(Device.DEFAULT if device is None else device)
        if self._storage.device == name: return self
        t = self._new(UOp(Ops.COPY, self.dtype, (self.uop,), name))
        t._storage.device = name
        t._storage.is_leaf = self._storage.is_leaf
        if t._storage.is_leaf: storage.leaves.add(t)
        if self._requires_grad is not None: t.requires_grad = self._requires_grad
        return t
    def to_(self, device: str | None) -> Tensor:
        """Move this tensor itself."""
        moved = self.to(device)
        if moved is self: return self
        moved._storage.value = leaf(moved._storage.value.replace(src=(UOp(Ops.DETACH, self.dtype, (self.uop,)),)))
        return self.replace(moved)

    def cast(self, dtype: DType | str) -> Tensor:
        """The values as another type: floats to ints toward zero, numbers to bool as "is not zero"."""
        d = to_dtype(dtype)
        return self if d is self.dtype else self._new(self.uop.cast(d))
    def float(self) -> Tensor: return self.cast(dtypes.float32)
    def half(self) -> Tensor: return self.cast(dtypes.float16)
    def bfloat16(self) -> Tensor: return self.cast(dtypes.bfloat16)
    def double(self) -> Tensor: return self.cast(dtypes.float64)
    def int(self) -> Tensor: return self.cast(dtypes.int32)
    def long(self) -> Tensor: return self.cast(dtypes.int64)
    def short(self) -> Tensor: return self.cast(dtypes.int16)
    def bool(self) -> Tensor: return self.cast(dtypes.bool)

    def bitcast(self, dtype: DType | str) -> Tensor:
        """The same bits as another type; the last axis shrinks or grows if the width differs.

        errors:  ShapeError if the last axis is no multiple of the wider type
        """
        d, x = to_dtype(dtype), self.uop
        if d is x.dtype: return self
        if d.is_bool or x.dtype.is_bool:
            raise DTypeError(f"bitcast of {x.shape} {x.dtype.short} to {d.short}\n  bool has no bits of its own\n  try: x.cast(...)")
        if d.bits == x.dtype.bits: return self._new(x.bitcast(d))
        if not x.shape:
            raise ShapeError(f"bitcast of shape () {x.dtype.short} to {d.short}\n  the widths differ, so there must be a last axis")
        return self._new(_narrow(x, d) if d.bits < x.dtype.bits else _widen(x, d))

    # ---- gradients ---------------------------------------------------------------------------------------------------------------
    def backward(self, gradient: Tensor | None = None) -> Tensor:
        """Add the gradient of this tensor to `.grad` of every live tensor with requires_grad=True below it, or, if none asks, of every
        leaf.

        errors:  ShapeError if this is no scalar and no `gradient` of its shape is given; DTypeError if it is no float
        """
        seed = self._seed("backward", gradient)
        want = [t for t in storage.trainable if t._requires_grad]
        below = _nodes_below(self.uop)
        found = [t for t in want if not below.isdisjoint(_nodes_of(t))]
        if not found:
            leaves = [t for t in storage.leaves if t._storage.is_leaf and t.dtype.is_float and t._requires_grad is not False]
            found = [t for t in leaves if not below.isdisjoint(_nodes_of(t))]
            owners = {t._storage for t in found if not t._chain}
            found = [t for t in found if not t._chain or t._storage not in owners]     # a view stands in only for an owner that is gone
        site = user_site()
        for t, g in zip(found, _gradients(self, found, seed)):
            if g is None: continue
            g = identified(g)
            stamp(g, site)
            grad = self._new(g)
            grad._storage.device = t._storage.device
            if t.grad is None: t.grad = grad
            else: t.grad.assign(t.grad + grad)
        return self

    def gradient(self, *targets: Tensor, gradient: Tensor | None = None) -> list[Tensor]:
        """The gradients of this tensor for each of `targets` (zeros where it does not depend on one); they can be differentiated again.

        errors:  ShapeError if this is no scalar and no `gradient` of its shape is given; DTypeError if it is no float

        >>> x = Tensor([1.0, 2.0])
        >>> (x * x).sum().gradient(x)[0].tolist()
        [2.0, 4.0]
        """
        for t in targets:
            if not t.dtype.is_float: raise DTypeError(f"gradient for a tensor {t.shape} of {t.dtype.name}\n  only floats have gradients")
        found = _gradients(self, list(targets), self._seed("gradient", gradient))
        return [t._new(identified(g) if g is not None else fill(UOp.const(t.dtype, 0.0), t.shape)) for t, g in zip(targets, found)]

    def _seed(self, what: str, gradient: Tensor | None) -> UOp:
        if not self.dtype.is_float:
            raise DTypeError(f"{what} of {self.shape} {self.dtype.short}\n  only floats have gradients\n  try: x.float()")
        if gradient is None:
            if self.numel() != 1:
                raise ShapeError(f"{what} of {self.shape} {self.dtype.short}\n  without an argument only a scalar has a gradient\n"
                                 "  try: x.sum(), or hand over a gradient of this shape")
            return fill(UOp.const(self.dtype, 1.0), self.shape)
        if gradient.shape != self.shape:
            raise ShapeError(f"{what} of {self.shape} with a gradient {gradient.shape}\n  the shapes must be equal")
        return gradient.uop.cast(self.dtype)

    @staticmethod
    @contextlib.contextmanager
    def train(mode: bool = True) -> Iterator[None]:
        """Inside, `Tensor.training` is `mode`: dropout drops, batchnorm counts."""
        before, Tensor.training = Tensor.training, mode
        try: yield
        finally: Tensor.training = before
    @staticmethod
    def test(mode: bool = True) -> Any:
        """The opposite of `train`."""
        return Tensor.train(not mode)


capture.tensor_type, capture.storage_type = Tensor, Storage


# ---- helpers ---------------------------------------------------------------------------------------------------------------------
def _value_of(data: Any, dtype: DType | None, device: str | None) -> tuple[UOp, str | None]:
    """(value, device) of whatever a user hands to Tensor()."""
    if isinstance(data, Tensor):
        moved = data if device is None else data.to(device)
        return leaf(moved.uop), moved._storage.device
    if isinstance(data, (bool, int, float)):
        value = UOp.const(dtype or dtypes.from_py(data), data)
        return leaf(value if device is None else UOp(Ops.COPY, value.dtype, (value,), device)), device
    if isinstance(data, UOp): return identified(data), device or device_of(data)
    if data is None:
        return host.from_memory(b"", dtype or dtypes.default_float, (0,), Device.canonicalize(device)), Device.canonicalize(device)
    if isinstance(data, (list, tuple)): return _value_of_list(data, dtype, device)
    if isinstance(data, (bytes, bytearray, memoryview)): return host.from_array(np.frombuffer(data, np.uint8), dtype, device)
    if isinstance(data, os.PathLike): return host.from_path(data, dtype)
    if hasattr(data, "uop") and isinstance(data.uop, UOp): return data.uop, device
    if hasattr(data, "detach") and hasattr(data, "cpu"): data = data.detach().cpu()          # a torch tensor
    if hasattr(data, "__array__") or hasattr(data, "__array_interface__"): return host.from_array(np.asarray(data), dtype, device)
    raise DTypeError(f"Tensor of a {type(data).__name__}\n  a tensor is made of numbers, lists, arrays, bytes or a path")


def _new_result(held: Any, device: str | None, chain: tuple[Step, ...]) -> Tensor:
    """A tensor on Storage(None, device, is_float, held): what a replay makes for every result, written out for 0.4 us."""
    s = object.__new__(Storage)
    s.held, s.device, s.is_leaf = held, device, held.buf.dtype.is_float
    s._value = s.was = s.trace = None
    t = object.__new__(Tensor)
    t._storage, t._chain = s, chain
    t._base = t._view = t._requires_grad = t._grad = None
    return t


capture.new_result = _new_result


def _value_of_list(data: Sequence[Any], dtype: DType | None, device: str | None) -> tuple[UOp, str | None]:
    if any(not isinstance(x, (bool, int, float, list, tuple)) for x in data) or _holds_arrays(data):
        parts = [x if isinstance(x, Tensor) else Tensor(x, device=device) for x in data]
        t = parts[0].stack(*parts[1:])
        return t.uop, t._storage.device
    return host.from_list(data, dtype, device)


def _holds_arrays(data: Sequence[Any]) -> bool:
    while data and isinstance(data[0], (list, tuple)): data = data[0]
    return bool(data) and not all(isinstance(x, (bool, int, float)) for x in data) and not any(isinstance(x, (list, tuple)) for x in data)


def _one_device(device: Any) -> str:
    if isinstance(device, str): return Device.canonicalize(device)
    if isinstance(device, (tuple, list)) and len(device) == 1: return Device.canonicalize(device[0])
    raise UsageError(f"device {device!r}\n  a tensor is on one device, named by a string\n  try: 'CPU'")


def _common_device(a: str | None, b: str | None, x: Tensor, y: Tensor) -> str | None:
    if a is None or b is None or a == b: return a or b
    raise DeviceError(f"an operation on {x.shape} {x.dtype.short} on {a} and {y.shape} {y.dtype.short} on {b}\n  both must be on one device"
                      f"{_made_at(x, y)}\n  try: .to({a!r}) on the second")


def _made_at(*tensors: Tensor) -> str:
    known = [f"{t.shape} made at {t.uop.site}" for t in tensors if t.uop.site]
    return f"\n  {', '.join(known)}" if known else ""


def _kind(d: DType) -> int: return 0 if d.is_bool else 1 if d.is_int else 2


def _can_expand(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) <= len(b) and all(m in (1, n) for m, n in zip(reversed(a), reversed(b)))


def _in_memory(n: UOp) -> bool:
    """Is `n` a view of memory, so that there is nothing to compute?"""
    while n.memory is None and (n.op.is_movement or n.op is Ops.LEAF): n = n.src[0]
    return n.memory is not None


def _unpickle(raw: Any, dtype: DType, device: str | None, requires_grad: bool | None) -> Tensor:
    t = Tensor(raw, device=device)
    if dtype is not t.dtype: t = Tensor(t.bitcast(dtype))
    if requires_grad is not None: t.requires_grad = requires_grad
    return t


def _narrow(x: UOp, d: DType) -> UOp:
    """Each element as several of a narrower type, low bits first."""
    k, word = x.dtype.bits // d.bits, bits.bits_dtype(x.dtype)
    shifts = UOp.iota(k).cast(word) * d.bits
    wide = x.bitcast(word).reshape((*x.shape, 1)).expand((*x.shape, k))
    parts = (wide >> shifts.broadcast_to(wide.shape)).cast(bits.bits_dtype(d))
    return parts.reshape((*x.shape[:-1], x.shape[-1] * k)).bitcast(d)


def _widen(x: UOp, d: DType) -> UOp:
    """Several elements as one of a wider type."""
    k, word = d.bits // x.dtype.bits, bits.bits_dtype(d)
    if x.shape[-1] % k:
        raise ShapeError(f"bitcast of {x.shape} {x.dtype.short} to {d.short}\n"
                         f"  the last axis is {x.shape[-1]}; it must be a multiple of {k}")
    parts = x.bitcast(bits.bits_dtype(x.dtype)).cast(word).reshape((*x.shape[:-1], x.shape[-1] // k, k))
    shifts = (UOp.iota(k).cast(word) * x.dtype.bits).broadcast_to(parts.shape)
    return (parts << shifts).reduce(Ops.ADD, (parts.ndim - 1,)).bitcast(d)


def _nodes_below(root: UOp) -> set[UOp]:
    """The float nodes a gradient of `root` can reach, through what realized values came from."""
    seen: set[UOp] = set()
    stack = [root]
    while stack:
        n = stack.pop()
        if n in seen or not n.dtype.is_float or n.op is Ops.DETACH: continue
        seen.add(n)
        past = storage.history.get(n)
        stack.extend((past,) if past is not None else n.src)
    return seen


def _nodes_of(t: Tensor) -> list[UOp]:
    """The nodes that stand for the tensor in graphs: its value now, or what that came from, and what it was before it was realized."""
    x = t.uop if t._chain else t._storage.value
    while x in storage.history: x = storage.history[x]
    was = t._storage.was() if t._storage.was is not None else None
    return [x] if was is None or was is x else [x, read_chain(was, t._chain)]


def _gradients(root: Tensor, targets: list[Tensor], seed: UOp) -> list[UOp | None]:
    """One gradient for each target, also one that was realized after it was used."""
    groups = [_nodes_of(t) for t in targets]
    flat = list(dict.fromkeys(n for g in groups for n in g))
    found = dict(zip(flat, differentiate(root.uop, flat, seed, storage.history)))
    out: list[UOp | None] = []
    for group in groups:
        parts = [g for g in (found[n] for n in group) if g is not None]
        total = parts[0] if parts else None
        for g in parts[1:]: total = total + g  # type: ignore[operator]
        out.append(total)
    return out
