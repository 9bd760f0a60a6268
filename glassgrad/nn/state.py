"""Weights by name: out of a model, into a model, from and to files.

    safe_save(get_state_dict(model), "model.safetensors")
    load_state_dict(model, safe_load("model.safetensors"))

Files are mapped: a tensor's bytes are read when it is used.
"""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import Any

from glassgrad.nn.archives import TensorIO, accept_filename, tar_extract, zip_extract  # noqa: F401  (reached as nn.state.tar_extract ...)
from glassgrad.nn.checkpoints import Expanded, read_checkpoint
from glassgrad.nn.files import RawTensor, Source, from_tensor, source_name, to_tensor
from glassgrad.nn.gguf import Packed, read_gguf
from glassgrad.nn.safetensors import read_metadata, read_safetensors, write_safetensors
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

LISTED = 8  # names an error message shows


def safe_load(source: Source) -> dict[str, Tensor]:
    """The tensors of a safetensors file (a path, bytes or a uint8 tensor), by name.

    errors:  FileError if the file is cut off, malformed, or its sizes and offsets do not fit
    """
    return {name: to_tensor(raw) for name, raw in read_safetensors(source).items()}


def safe_load_metadata(source: Source) -> dict[str, str]:
    """The text pairs in the header of a safetensors file.

    errors:  FileError as safe_load
    """
    return read_metadata(source)


def safe_save(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file. The file is replaced whole, so it may be the one they were loaded from.

    errors:  DTypeError if the format lacks a type
    """
    write_safetensors({name: from_tensor(x) for name, x in tensors.items()}, path, metadata)


def torch_load(source: Source) -> Any:
    """What a PyTorch checkpoint holds (zip and older format), with our tensors. No code in it is run.

    errors:  FileError if it is no checkpoint, is cut off, or its pickle names anything but tensors and containers
    """
    def give(raw: RawTensor | Expanded) -> Tensor:
        return to_tensor(raw.raw).expand(*raw.shape) if isinstance(raw, Expanded) else to_tensor(raw)
    return read_checkpoint(source, give)


def gguf_load(source: Source) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(metadata, tensors by name) of a GGUF file. Quantised weights stay packed in memory and are unpacked where they are used.

    errors:  FileError if it is no GGUF file, is cut off, or something in it does not fit
    """
    metadata, tensors = read_gguf(source)
    return metadata, {name: _unpacked(packed, f"gguf_load of {source_name(source)}, tensor {name!r}") for name, packed in tensors.items()}


def _unpacked(packed: Packed, what: str) -> Tensor:
    quant = packed.quant
    if quant.dtype is not None:
        kind = quant.dtype.np_name or f"uint{quant.dtype.bits}"
        data = packed.data if packed.data.ctypes.data % quant.nbytes == 0 else packed.data.copy()
        return to_tensor(RawTensor(data.view(kind).reshape(packed.shape), quant.dtype))
    if quant.unpack is None or not packed.data.size: return Tensor(packed.unpack(what))
    return quant.unpack(Tensor(packed.blocks())).reshape(*packed.shape)


def get_state_dict(model: Any, prefix: str = "") -> dict[str, Tensor]:
    """Name -> tensor of everything in `model`: attributes of objects, entries of lists, tuples and dicts, joined by dots.

    A tensor that stands in two places has two names. A loop of references is followed once.
    """
    found: OrderedDict[str, Tensor] = OrderedDict()
    _collect(model, prefix.rstrip("."), found, set())
    return dict(found)


def get_parameters(model: Any) -> list[Tensor]:
    """All tensors of a model, each once."""
    return list({id(x): x for x in get_state_dict(model).values()}.values())


def load_state_dict(model: Any, state_dict: Mapping[str, Tensor], strict: bool = True, verbose: bool = False, consume: bool = False,
                    realize: bool = True) -> list[str]:
    """Assign the tensors of `state_dict` to those of `model` with the same names; types and devices stay the model's.

    Returns the names that were not loaded (strict=False). Nothing is assigned if there is an error. `consume` takes what was loaded out of
    `state_dict`; without `realize` the bytes are copied when they are used.

    errors:  UsageError if names are missing, or with strict also if some are left over; ShapeError if shapes differ
    """
    mine = get_state_dict(model)
    missing = [name for name in mine if name not in state_dict]
    unexpected = [name for name in state_dict if name not in mine]
    if strict and (missing or unexpected):
        raise UsageError(f"load_state_dict of {len(state_dict)} tensors into a model of {len(mine)}" + _names("the model also has", missing)
                         + _names("the model has no", unexpected) + "\n  try: strict=False to load what fits")
    for name, x in mine.items():
        if name in missing: continue
        y = state_dict[name]
        if not isinstance(y, Tensor):
            raise DTypeError(f"load_state_dict: {name!r} is a {type(y).__name__}, not a Tensor\n  try: Tensor(it)")
        if tuple(x.shape) != tuple(y.shape):
            raise ShapeError(
                f"load_state_dict of {name!r}\n  the model's tensor is {tuple(x.shape)}, the given one {tuple(y.shape)}\n"
                "  try: a model of the sizes it was saved from"
            )
    loaded = [name for name in mine if name not in missing]
    for name in loaded: mine[name].assign(state_dict[name].detach().to(mine[name].device).cast(mine[name].dtype))
    if loaded and realize: Tensor.realize(*[mine[name] for name in loaded])
    if consume and isinstance(state_dict, MutableMapping):
        for name in loaded: del state_dict[name]
    if verbose: print(f"loaded {len(loaded)} of {len(mine)} tensors")
    return missing + unexpected


def _names(text: str, names: list[str]) -> str:
    if not names: return ""
    return f"\n  {text}: {', '.join(names[:LISTED])}" + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _collect(x: Any, name: str, found: dict[str, Tensor], above: set[int]) -> None:
    if isinstance(x, Tensor):
        found[name] = x
        return
    if x is None or isinstance(x, (str, bytes, int, float, type)) or id(x) in above: return
    if hasattr(x, "_asdict"): inner = x._asdict()
    elif isinstance(x, Mapping): inner = x
    elif isinstance(x, (list, tuple)): inner = dict(enumerate(x))
    elif hasattr(x, "__dict__"): inner = x.__dict__
    else: return
    above = above | {id(x)}
    for key, value in list(inner.items()): _collect(value, f"{name}.{key}" if name else str(key), found, above)
