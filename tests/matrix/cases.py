"""The cases of the matrix: what is computed, on which values, what must come out; and how many are computed at once.

A case is one op on one dtype in one form (flat: all pairs of special values; broadcast; view: a strided, flipped, permuted part). Cases of one
batch are computed by one realize when the first of them is asked for: each is a test of its own, compilers are started seldom.
"""
from __future__ import annotations

import contextlib
import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from matrix.reference import INF, NAN, Array, Want, meaning, round_to

from glassgrad import Tensor
from glassgrad.device.device import Device
from glassgrad.passes import fuse
from glassgrad.uop import bits
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops

DEVICES = ("CPU", "PYTHON", "CL")
FORMS = ("flat", "broadcast", "view")
JOINED = ("CL",)                                    # where a kernel takes half a second to compile, a batch is one kernel
KINDS = {"any": lambda d: True, "number": lambda d: not d.is_bool, "float": lambda d: d.is_float, "int": lambda d: d.is_int,
         "bool": lambda d: d.is_bool, "uint64": lambda d: d.name == "uint64", "int32": lambda d: d is dtypes.int32}


@dataclass(frozen=True)
class Case:
    """`make(device)` gives the lazy result, `want(device)` what must come out; those of one `batch` are computed together."""
    name: str
    batch: str
    make: Callable[[str], Tensor]
    want: Callable[[str], Want]


def skip_without(device: str) -> None:
    """Skip the test, saying what is missing, where the device is absent."""
    absent = Device.reason_absent(device)
    if absent: pytest.skip(absent)


def dtypes_of(op: Op, among: Sequence[DType] | None = None) -> list[DType]:
    """The dtypes that a row's `dtypes` column admits."""
    admits = [KINDS[kind] for kind in op.dtypes.split()]
    return [d for d in among or dtypes.all if any(f(d) for f in admits)]


# ---- values --------------------------------------------------------------------------------------------------------------------------
def rng_of(*names: Any) -> np.random.Generator:
    """Random numbers that depend on these names only."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, names)).encode()))


def special_values(d: DType) -> list[Any]:
    """Where things go wrong."""
    if d.is_bool: return [False, True]
    if d.is_int: return sorted({int(d.min), int(d.min) + 1, int(d.max), int(d.max) - 1, 0, 1, 2, 7, *((-1, -2, -7) if d.kind == "int" else ())})
    tiny, normal = 2.0 ** (2 - (1 << d.exponent - 1) - d.mantissa), 2.0 ** (2 - (1 << d.exponent - 1))
    return [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, INF, -INF, NAN, d.largest, -d.largest, tiny, -normal]


def random_values(d: DType, domain: tuple[float, float], shape: Any, rng: np.random.Generator) -> Array:
    """Values of `d`: half of the floats inside the domain, half of any size; half of the integers small, half from the whole range."""
    count, lo, hi = int(np.prod(shape)), *domain
    first = rng.random(count) < 0.5
    if d.is_bool: return first.reshape(shape)
    if d.is_int:
        near = rng.integers(max(int(lo), int(d.min)), int(hi) + 1, count).astype(object)
        far = np.array([int(d.min) + int.from_bytes(rng.bytes(8), "little") % (1 << d.bits) for _ in range(count)], dtype=object)
        return np.where(first, near, far).reshape(shape)
    inside = rng.uniform(lo, hi, count)
    with np.errstate(all="ignore"): any_size = rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-12, 12, count)
    return round_to(d, np.where(first, inside, any_size)).reshape(shape)


def array(values: Array, d: DType) -> Array:
    """Values as NumPy knows them best."""
    return values.astype(d.np_name if d.np_name else "float64")


def tensor(values: Array, d: DType, device: str) -> Tensor:
    """Values on a device."""
    return Tensor(array(values, d), device=device, dtype=d)


def operands(op: Op, d: DType, form: str) -> list[tuple[DType, Array]]:
    """(dtype, values) of each source. Flat operands hold all combinations of special values, in an odd number of elements."""
    rng = rng_of(op.name, d.name, form)
    kinds = [dtypes.bool, d, d] if op is Ops.WHERE else [d] * op.arity
    if form != "flat":
        shapes = [(5, 1, 7), (3, 1), ()] if form == "broadcast" else [(8, 5, 6)] * 3
        return [(k, _fit_shift(op, i, k, random_values(k, op.domain, shapes[i], rng))) for i, k in enumerate(kinds)]
    columns: list[Any] = list(zip(*itertools.product(*[special_values(k) for k in kinds]), strict=True))
    keep = rng.permutation(len(columns[0]))[:220]
    out = []
    for i, k in enumerate(kinds):
        special = np.array(columns[i], dtype=object if k.is_int else None)[keep]
        special = special if not k.is_float else round_to(k, special)
        values = np.concatenate([special, random_values(k, op.domain, 60 + len(keep) % 2 + 1, rng)])
        out.append((k, _fit_shift(op, i, k, values)))
    return out


def _fit_shift(op: Op, i: int, d: DType, x: Array) -> Array:
    """Shifts are by 0 to bits - 1."""
    return x % d.bits if op in (Ops.SHL, Ops.SHR) and i == 1 else x


# ---- ops of the table ------------------------------------------------------------------------------------------------------------------
def strided(x: Any) -> Any:
    """The same view of a Tensor or an array: permuted, every second, from the end, without the first."""
    return x.permute(2, 0, 1).flip(0)[::2, 1:, :3] if isinstance(x, Tensor) else np.transpose(x, (2, 0, 1))[::-1][::2, 1:, :3]


def alu_case(op: Op, d: DType, form: str) -> Case:
    """One op on one dtype in one form."""
    data = functools.cache(lambda: operands(op, d, form))
    out = dtypes.bool if op.out == "bool" else d
    def make(device: str) -> Tensor:
        xs = [tensor(x, k, device) for k, x in data()]
        return apply(op, [strided(x) for x in xs] if form == "view" else xs)
    def want(device: str) -> Want:
        xs = [x for _, x in data()]
        return meaning(op, out, d, [strided(x) for x in xs] if form == "view" else xs, device)
    return Case(f"{op.name}-{d.name}-{form}", f"{form}-{d.name}", make, want)


def apply(op: Op, xs: Sequence[Tensor]) -> Tensor:
    """A row of the op table on tensors."""
    return xs[0].alu(op, *xs[1:])


def alu_cases(ops: Iterable[Op] | None = None, among: Sequence[DType] | None = None, forms: Sequence[str] = FORMS) -> list[Case]:
    """Every row with every dtype it admits (casts have a matrix of their own)."""
    rows = [op for op in ops or Ops.alu() if op.out != "cast"]
    return [alu_case(op, d, form) for form in forms for d in among or dtypes.all for op in rows if d in dtypes_of(op, [d])]


# ---- running ---------------------------------------------------------------------------------------------------------------------------
class Runner:
    """Results by device and batch, computed when first asked for."""

    def __init__(self, cases: Sequence[Case], joined: Sequence[str] = JOINED) -> None:
        self.batches: dict[str, list[Case]] = {}
        for c in cases: self.batches.setdefault(c.batch, []).append(c)
        self.joined = joined
        self.done: dict[tuple[str, str], dict[str, Any]] = {}

    def result(self, device: str, case: Case) -> Array:
        """The values of one case; raises what computing it raised."""
        key = (device, case.batch)
        if key not in self.done: self.done[key] = self.run(device, self.batches[case.batch])
        found = self.done[key][case.name]
        if isinstance(found, Exception): raise found
        return found

    def run(self, device: str, cases: Sequence[Case]) -> dict[str, Any]:
        """All at once; one by one if that fails, so that one failure is one failure."""
        made: dict[str, Any] = {}
        for c in cases:
            try: made[c.name] = c.make(device)
            except Exception as e: made[c.name] = e
        good = {name: t for name, t in made.items() if isinstance(t, Tensor)}
        try: return {**made, **(join(good) if device in self.joined else together(good))}
        except Exception:
            for name, t in good.items():
                try: made[name] = t.numpy()
                except Exception as e: made[name] = e
            return made


def together(tensors: dict[str, Tensor]) -> dict[str, Array]:
    """One realize, a kernel for each."""
    if tensors: next(iter(tensors.values())).realize(*tensors.values())
    return {name: t.numpy() for name, t in tensors.items()}


def join(tensors: dict[str, Tensor]) -> dict[str, Array]:
    """One kernel that writes the bits of all results one after the other."""
    if not tensors: return {}
    words = [to_bits(t).reshape(-1) for t in tensors.values()]
    with dear_launches(): raw = words[0].cat(*words[1:]).numpy()
    ends = list(itertools.accumulate((w.numel() for w in words), initial=0))
    out = {}
    for (name, t), (lo, hi) in zip(tensors.items(), itertools.pairwise(ends), strict=True):
        word = raw[lo:hi].astype(bits.bits_dtype(t.dtype).np_name).view(bits.storage_name(t.dtype))
        out[name] = bits.from_storage(t.dtype, word).reshape(t.shape)
    return out


@contextlib.contextmanager
def dear_launches() -> Iterator[None]:
    """The cost model is told that a kernel of its own never pays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuse, "LAUNCH_COST", 1 << 40)
        yield


def to_bits(t: Tensor) -> Tensor:
    """The bits of each element in a 64-bit word."""
    if t.dtype.is_float: t = t.bitcast(bits.bits_dtype(t.dtype))
    return t.cast(dtypes.uint64)
