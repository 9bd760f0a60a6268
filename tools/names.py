"""Names: which public names of the installed tinygrad glassgrad lacks, and which arguments of those it has.

    pip install tinygrad
    python tools/names.py             what is missing, one line each; status 1 if anything is
    python tools/names.py --all       every name

Names and argument names are compared, nothing else is read. Left out are names with a leading underscore and what a module only imports.
DELIBERATE says which names we do without, and why.
"""
from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

AREAS = {  # ours: theirs
    "glassgrad.tensor.tensor:Tensor": "tinygrad.tensor:Tensor",
    "glassgrad.nn": "tinygrad.nn",
    "glassgrad.nn.optim": "tinygrad.nn.optim",
    "glassgrad.nn.state": "tinygrad.nn.state",
    "glassgrad.nn.datasets": "tinygrad.nn.datasets",
    "glassgrad.uop.dtype:dtypes": "tinygrad.dtype:dtypes",
}
DELIBERATE = {
    "Tensor.as_param": "a node of their call graphs; jit takes tensors as they are",
    "Tensor.call": "a node of their call graphs; a Python call does it",
    "Tensor.callify": "a node of their call graphs; jit keeps a graph as one replay",
    "Tensor.custom_kernel": "kernels are made by passes only; an op of one's own is a row of the op table (uop.ops.add_op)",
    "Tensor.decode_hevc_frame": "a video codec of one maker's hardware",
    "Tensor.image_conv2d": "texture memory of mobile GPUs is a matter for the compiler, not for the caller",
    "Tensor.image_dot": "as image_conv2d",
    "Tensor.linear_with_vars": "hands out their schedule; ours is shown by `python -m glassgrad.show` and VIZ",
    "Tensor.schedule_linear": "as linear_with_vars",
    "Tensor.shard": "tensors on several devices are not there yet: it needs a pass of its own",
    "Tensor.shard_": "as shard",
    "Tensor.shard_like": "as shard",
    "Tensor.__del__": "nothing to do: storage is counted by references",
    "nn.state.fs_load": "a client of one company's network store",
    "nn.state.fs_store": "as fs_load",
    "dtypes.fp8_fnuz": "the two fnuz kinds of fp8 exist on one GPU family only",
    "dtypes.fp8e4m3fnuz": "as fp8_fnuz",
    "dtypes.fp8e5m2fnuz": "as fp8_fnuz",
    "dtypes.fp8_ocp": "as fp8_fnuz: all fp8 kinds are",
    "dtypes.weakfloat": "that a Python number is weak is a rule of promotion, not a data type",
    "dtypes.weakint": "as weakfloat",
    "dtypes.weaks": "as weakfloat",
}


class Name(NamedTuple):
    """A public name of theirs: is it here, and which argument names are not?"""
    area: str; name: str; is_here: bool; lost: tuple[str, ...]

    @property
    def full(self) -> str: return f"{self.area}.{self.name}"


def load(place: str) -> Any:
    """The module, or what stands in it behind a colon."""
    module, _, inside = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, inside) if inside else found


def public(x: Any) -> list[str]:
    """The names to compare: of a class all and the operators, of a module what it defines itself."""
    if not inspect.ismodule(x):
        plain = [n for n in dir(x) if not n.startswith("_")]
        return plain + [n for n in dir(x) if n.startswith("__") and n not in dir(object) and callable(getattr(x, n))]
    return [n for n, v in sorted(vars(x).items()) if not n.startswith("_") and getattr(v, "__module__", None) == x.__name__]


def arguments(f: Any) -> set[str]:
    """The names under which arguments can be given."""
    try: found = inspect.signature(f).parameters.values()
    except (TypeError, ValueError): return set()
    if any(p.kind is p.VAR_KEYWORD for p in found): return {"**", *(p.name for p in found)}
    return {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def compare() -> Iterator[Name]:
    """Every name of theirs."""
    for ours, theirs in AREAS.items():
        mine, other = load(ours), load(theirs)
        area = ours.rpartition(":")[2] if ":" in ours else ours.removeprefix("glassgrad.")
        for name in public(other):
            here = getattr(mine, name, None)
            lost: set[str] = set()
            if here is not None and callable(here) and not name.startswith("__"):
                lost = arguments(getattr(other, name)) - arguments(here) - {"self", "cls", "**", "args", "kwargs"}
                if "**" in arguments(here): lost = set()
            yield Name(area, name, hasattr(mine, name), tuple(sorted(lost)))


def main(args: list[str]) -> int:
    """Print the comparison; the number of names that are missing and not in DELIBERATE, at most 1."""
    names = list(compare())
    missing = [n for n in names if not n.is_here and n.full not in DELIBERATE]
    for n in names:
        if n in missing: print(f"missing     {n.full}")
        elif not n.is_here: print(f"deliberate  {n.full}: {DELIBERATE[n.full]}")
        elif n.lost: print(f"arguments   {n.full} without {', '.join(n.lost)}")
        elif "--all" in args: print(f"here        {n.full}")
    stale = sorted(set(DELIBERATE) - {n.full for n in names if not n.is_here})
    for name in stale: print(f"stale       {name} in DELIBERATE")
    print(f"{len(names)} names, {sum(n.is_here for n in names)} here, {len(missing)} missing, {len(DELIBERATE)} deliberate")
    return int(bool(missing or stale))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
