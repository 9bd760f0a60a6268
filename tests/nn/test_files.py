"""The readers of weights: what other libraries write reads back the same, and no damaged file gets past a FileError."""
from __future__ import annotations

import collections
import contextlib
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from glassgrad.nn.checkpoints import Expanded, read_checkpoint
from glassgrad.nn.files import Cursor, RawTensor
from glassgrad.nn.gguf import read_gguf
from glassgrad.nn.pickles import Machine
from glassgrad.nn.quants import TYPES
from glassgrad.nn.safetensors import read_metadata, read_safetensors, write_safetensors
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, FileError

DATA = Path(__file__).parents[3] / "shared" / "data"


def same(raw, dtype=None):
    return RawTensor(raw, dtype or getattr(dtypes, raw.dtype.name))


def some_tensors():
    rng = np.random.default_rng(0)
    return {"a": same(rng.normal(size=(3, 4)).astype(np.float32)), "é.weight": same(np.arange(5, dtype=np.int64)),
            "half": same(rng.normal(size=(2, 2)).astype(np.float16)), "empty": same(np.zeros((0, 3), np.float32)),
            "scalar": same(np.array(7, np.uint8)), "flag": same(np.array([True, False])),
            "brain": RawTensor(np.array([0x3F80, 0x4000], np.uint16), dtypes.bfloat16)}


def safetensors_bytes(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# safetensors

def test_safetensors_round_trip(tmp_path):
    written = some_tensors()
    write_safetensors(written, tmp_path / "x.safetensors", {"made by": "us"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert found.keys() == written.keys()
    for name, (data, dtype) in written.items():
        assert found[name].dtype is dtype
        np.testing.assert_array_equal(found[name].data, data)
    assert read_metadata(tmp_path / "x.safetensors") == {"made by": "us"}


def test_safetensors_is_read_by_its_own_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="the safetensors package is absent")
    written = {name: raw for name, raw in some_tensors().items() if name != "brain"}
    write_safetensors(written, tmp_path / "x.safetensors")
    for name, data in library.load_file(tmp_path / "x.safetensors").items(): np.testing.assert_array_equal(data, written[name].data)
    library.save_file({name: raw.data for name, raw in written.items()}, tmp_path / "y.safetensors")
    for name, raw in read_safetensors(tmp_path / "y.safetensors").items(): np.testing.assert_array_equal(raw.data, written[name].data)


def test_safetensors_is_mapped_not_copied(tmp_path):
    write_safetensors({"a": same(np.arange(1024, dtype=np.float32))}, tmp_path / "x.safetensors")
    data = read_safetensors(tmp_path / "x.safetensors")["a"].data
    assert not data.flags.owndata and not data.flags.writeable


def test_saving_over_the_mapped_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors({"a": same(np.arange(4, dtype=np.float32))}, path)
    found = read_safetensors(path)
    write_safetensors(found, path)
    np.testing.assert_array_equal(read_safetensors(path)["a"].data, np.arange(4, dtype=np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors({"a": same(np.ones(2, np.float32))}, path)
    with pytest.raises(DTypeError, match="no such type"): write_safetensors({"a": RawTensor(np.ones(2, np.float32), dtypes.void)}, path)
    np.testing.assert_array_equal(read_safetensors(path)["a"].data, [1, 1])


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("blob, why", [
    (b"\x01", "1 bytes are no safetensors file"),
    (struct.pack("<Q", 1 << 40) + b"{}", "the header would be"),
    (safetensors_bytes(b"{"), "no JSON"),
    (safetensors_bytes(b"[" * 100000), "no JSON"),
    (safetensors_bytes(b"\xff\xfe"), "no JSON"),
    (safetensors_bytes([1]), "not an object"),
    (safetensors_bytes(b'{"a":{},"a":{}}'), "twice"),
    (safetensors_bytes({"a": 3}), "not an object"),
    (safetensors_bytes({"a": F32}), "reaches to byte"),
    (safetensors_bytes({"a": F32}, bytes(9)), "end at byte 8 of 9"),
    (safetensors_bytes({"a": {**F32, "dtype": "F31"}}, bytes(8)), "'F31' is not known"),
    (safetensors_bytes({"a": {**F32, "dtype": ["F32"]}}, bytes(8)), "is not known"),
    (safetensors_bytes({"a": {**F32, "shape": [3]}}, bytes(16)), "12 bytes"),
    (safetensors_bytes({"a": {**F32, "shape": [-2]}}, bytes(8)), "not made of sizes"),
    (safetensors_bytes({"a": {**F32, "shape": [True, 2]}}, bytes(8)), "not made of sizes"),
    (safetensors_bytes({"a": {**F32, "shape": [1 << 62, 1 << 62]}}, bytes(8)), "reaches to byte"),
    (safetensors_bytes({"a": {**F32, "shape": [1] * 40 + [2]}}, bytes(8)), "41 axes"),
    (safetensors_bytes({"a": {**F32, "data_offsets": [-8, 0]}}, bytes(8)), "not a \\[begin, end\\]"),
    (safetensors_bytes({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)), "not a \\[begin, end\\]"),
    (safetensors_bytes({"a": {**F32, "data_offsets": [0, 1 << 70]}}, bytes(8)), "offsets"),
    (safetensors_bytes({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)), "overlap"),
    (safetensors_bytes({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, bytes(20)), "hole"),
])
def test_broken_safetensors(blob, why):
    with pytest.raises(FileError, match=why) as error: read_safetensors(blob)
    assert "try:" in str(error.value)


def test_an_empty_file(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    for read in (read_safetensors, read_gguf, lambda p: read_checkpoint(p, lambda raw: raw)):
        with pytest.raises(FileError, match="empty"): read(tmp_path / "x")


# PyTorch checkpoints

torch = pytest.importorskip("torch", reason="torch is absent")


def checkpoint():
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = collections.OrderedDict(
        weight=base,
        flipped=base.transpose(0, 2),
        part=base[1, 1:],
        scalar=torch.tensor(5),
        none=torch.zeros(0, 2),
        half=torch.ones(3, dtype=torch.float16),
        flag=torch.tensor([True, False]),
    )
    return {
        "model": state,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "epoch": 3,
        "lr": 1e-3,
        "names": ["a", ("b", None)],
        "brain": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "repeated": torch.ones(1, 2).expand(3, 2),
        "text": b"\xff",
        "big": 1 << 70,
    }


def as_arrays(x):
    if isinstance(x, torch.Tensor): return x.detach().float().numpy() if x.dtype == torch.bfloat16 else x.detach().numpy()
    if isinstance(x, Expanded): return np.broadcast_to(as_arrays(x.raw), x.shape)
    if isinstance(x, RawTensor): return (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype is dtypes.bfloat16 else x.data
    if isinstance(x, dict): return {k: as_arrays(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return type(x)(map(as_arrays, x))
    return x


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_checkpoint(tmp_path, zipped, protocol):
    torch.save(checkpoint(), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    np.testing.assert_equal(as_arrays(read_checkpoint(tmp_path / "x.pt", lambda raw: raw)), as_arrays(checkpoint()))


@pytest.mark.parametrize("zipped", [True, False])
def test_optimizer_checkpoint(tmp_path, zipped):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = as_arrays(read_checkpoint(tmp_path / "x.pt", lambda raw: raw))
    np.testing.assert_equal(found, as_arrays({"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}))


def test_compressed_checkpoint(tmp_path):
    torch.save(checkpoint(), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist(): new.writestr(name, old.read(name))
    np.testing.assert_equal(as_arrays(read_checkpoint(tmp_path / "y.pt", lambda raw: raw)), as_arrays(checkpoint()))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code(tmp_path, zipped):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError, match=r"asks for torch\.nn\.modules\.linear\.Linear; .*no code is run"):
        read_checkpoint(tmp_path / "x.pt", lambda raw: raw)


class Evil:
    def __reduce__(self): return (print, ("code ran",))


def test_evil_pickles_do_not_run(tmp_path, capsys):
    for protocol in range(6):
        with pytest.raises(FileError, match=r"asks for (builtins|__builtin__)\.print"): run(pickle.dumps(Evil(), protocol=protocol))
    torch.save({"a": Evil()}, tmp_path / "x.pt")
    with pytest.raises(FileError, match=r"print"): read_checkpoint(tmp_path / "x.pt", lambda raw: raw)
    assert capsys.readouterr().out == ""


def run(data: bytes):
    return Machine(Cursor(np.frombuffer(data, np.uint8), "a pickle"), {}).run()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        255,
        65536,
        -1,
        -(1 << 40),
        1 << 3000,
        2.5,
        float("inf"),
        "",
        "text",
        "é\n\\\U0001f600",
        "x" * 300,
        [],
        [1, [2]],
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        {},
        {"a": {1: (2, 3)}},
    ],
    ids=lambda v: repr(v)[:12],
)
def test_plain_pickles(protocol, value):
    assert run(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * 300])
def test_byte_pickles(protocol, value):
    assert run(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize(
    "blob, why",
    [
        (b".", "empty stack"),
        (b"", "ends too early"),
        (b"N", "ends too early"),
        (b"0.", "empty stack"),
        (b"t.", "mark is missing"),
        (b"h\x05.", "KeyError"),
        (b"\x92.", "opcode"),
        (b"X\xff\xff\xff\xff", "ends too early"),
        (b"\x8d" + b"\xff" * 8, "ends too early"),
        (b"N(Na.", "appends|malformed|empty"),
        (b"]Ns.", "empty stack|sets items"),
        (b"NNR.", "it calls"),
        (b"N)b.", "sets the state"),
        (b"cos\nsystem\n", "asks for os.system"),
        (b"\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        (b"Q.", "empty stack"),
        (b"NQ.", "data outside"),
        (b"}" + b")" + b"\x85" * 9 + b"Ns.", "as a key"),
        (b"c" + b"a" * 70000, "does not end"),
        (b"I1e5\n.", "malformed"),
        (b"X\x01\x00\x00\x00\xff.", "malformed"),
        (b"(.", "empty stack"),
    ],
)
def test_broken_pickles(blob, why):
    with pytest.raises(FileError, match=why): run(blob)


def test_a_storage_too_short(tmp_path):
    torch.save({"a": torch.ones(64)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
        for name in old.namelist(): new.writestr(name, old.read(name)[:100] if "/data/" in name else old.read(name))
    with pytest.raises(FileError, match="holds 100 bytes, 256 are asked for"): read_checkpoint(tmp_path / "y.pt", lambda raw: raw)


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(FileError, match="neither a zip archive nor a pickle"): read_checkpoint(b"hello, world", lambda raw: raw)
    with pytest.raises(FileError, match="not of a checkpoint"): read_checkpoint(pickle.dumps([1]), lambda raw: raw)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as new: new.writestr("a.txt", "b")
    with pytest.raises(FileError, match=r"no data\.pkl"): read_checkpoint(tmp_path / "x.zip", lambda raw: raw)


# GGUF

def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_bytes(tensors=(), pairs=(), version=3, tensor_count=None, data=b"") -> bytes:
    """`tensors`: (name, dims fastest first, type, offset); `pairs`: (key, type, value bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if tensor_count is None else tensor_count, len(pairs))
    for key, kind, value in pairs: head += gguf_text(key) + struct.pack("<I", kind) + value
    for name, dims, kind, offset in tensors: head += gguf_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return head + bytes(-len(head) % 32) + data


def test_gguf_metadata_and_tensors():
    pairs = [("u8", 0, b"\x07"), ("f", 6, struct.pack("<f", 1.5)), ("flag", 7, b"\x01"), ("text", 8, gguf_text("é")),
             ("ints", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)), ("texts", 9, struct.pack("<IQ", 8, 2) + gguf_text("a") + gguf_text("")),
             ("nested", 9, struct.pack("<IQIQ2H", 9, 1, 2, 2, 5, 6))]
    numbers = np.arange(6, dtype=np.float32)
    metadata, tensors = read_gguf(gguf_bytes([("w", (3, 2), 0, 0)], pairs, data=numbers.tobytes()))
    assert metadata == {"u8": 7, "f": 1.5, "flag": True, "text": "é", "ints": [1, -2, 3], "texts": ["a", ""], "nested": [[5, 6]]}
    assert tensors["w"].shape == (2, 3)
    np.testing.assert_array_equal(tensors["w"].data.view(np.float32), numbers)


@pytest.mark.parametrize(
    "blob, why",
    [
        (b"GGUX" + bytes(20), "not b'GGUF'"),
        (b"GGUF", "ends too early"),
        (gguf_bytes(version=1), "version 1 is not known"),
        (gguf_bytes(version=3 << 24), "big endian"),
        (gguf_bytes(tensor_count=1 << 60), "do not fit"),
        (gguf_bytes(pairs=[("a", 0, b"\x01")] * 2), "twice"),
        (gguf_bytes(pairs=[("a", 99, b"")]), "type 99"),
        (gguf_bytes(pairs=[("a", 8, struct.pack("<Q", 1 << 62))]), "ends too early"),
        (gguf_bytes(pairs=[("a", 8, struct.pack("<Q", 1) + b"\xff")]), "UTF-8"),
        (gguf_bytes(pairs=[("a", 9, struct.pack("<IQ", 0, 1 << 62))]), "ends too early"),
        (gguf_bytes(pairs=[("a", 9, struct.pack("<IQ", 8, 1 << 62))]), "do(es)? not fit"),
        (gguf_bytes(pairs=[("a", 9, struct.pack("<IQ", 9, 1) * 9)]), "deep"),
        (gguf_bytes(pairs=[("general.alignment", 4, struct.pack("<I", 0))]), "power of two"),
        (gguf_bytes([("w", (4,), 0, 0)]), "reaches to byte"),
        (gguf_bytes([("w", (4,), 77, 0)], data=bytes(64)), "element type 77"),
        (gguf_bytes([("w", (31,), 2, 0)], data=bytes(64)), "blocks of 32"),
        (gguf_bytes([("w", (4,), 0, 3)], data=bytes(64)), "no multiple"),
        (gguf_bytes([("w", (1,) * 40, 0, 0)], data=bytes(64)), "40 axes"),
        (gguf_bytes([("w", (1 << 63, 1 << 63), 0, 0)], data=bytes(64)), "reaches"),
        (gguf_bytes([("w", (4,), 0, 0)] * 2, data=bytes(64)), "twice"),
        (gguf_bytes([("w", (16,), 0, 0), ("v", (4,), 0, 32)], data=bytes(64)), "overlap"),
    ],
)
def test_broken_gguf(blob, why):
    with pytest.raises(FileError, match=why) as error: read_gguf(blob)
    assert "try:" in str(error.value)


def test_split_gguf(tmp_path):
    count = ("split.count", 2, struct.pack("<H", 2))
    for i in (1, 2):
        blob = gguf_bytes([(f"w{i}", (8,), 0, 0)], [count], data=np.full(8, i, np.float32).tobytes())
        (tmp_path / f"m-{i:05d}-of-00002.gguf").write_bytes(blob)
    assert list(read_gguf(tmp_path / "m-00001-of-00002.gguf")[1]) == ["w1", "w2"]
    (tmp_path / "other.gguf").write_bytes((tmp_path / "m-00001-of-00002.gguf").read_bytes())
    with pytest.raises(FileError, match="one part of 2"): read_gguf(tmp_path / "other.gguf")


@pytest.mark.parametrize("quant", [q for q in TYPES.values() if q.unpack], ids=lambda q: q.name)
def test_unpacking_equals_the_gguf_package(quant):
    gguf = pytest.importorskip("gguf", reason="the gguf package is absent")
    blocks = np.random.default_rng(1).integers(0, 256, (20, quant.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"): expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[quant.name])
    with np.errstate(all="ignore"): np.testing.assert_array_equal(quant.unpack(blocks), expected)


def test_block_sizes_equal_the_gguf_package():
    gguf = pytest.importorskip("gguf", reason="the gguf package is absent")
    for kind, quant in TYPES.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)] == (quant.numbers, quant.nbytes), quant.name


@pytest.mark.skipif(not (DATA / "stories260K.gguf").exists(), reason="the model is not here")
def test_a_real_gguf_equals_the_gguf_package():
    gguf = pytest.importorskip("gguf", reason="the gguf package is absent")
    metadata, tensors = read_gguf(DATA / "stories260K.gguf")
    reader = gguf.GGUFReader(DATA / "stories260K.gguf")
    assert set(metadata) == {key for key in reader.fields if not key.startswith("GGUF.")}
    for key, value in metadata.items(): assert reader.fields[key].contents() == value
    assert set(tensors) == {t.name for t in reader.tensors}
    for t in reader.tensors: np.testing.assert_array_equal(tensors[t.name].data.view(np.float32).reshape(-1), t.data.reshape(-1))


# damage: every cut, and random bytes

def samples(tmp_path):
    small = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(2, dtype=torch.int32), {"n": 1}]}
    torch.save(small, tmp_path / "new.pt")
    torch.save(small, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    write_safetensors(some_tensors(), tmp_path / "x.safetensors")
    blob = gguf_bytes(
        [("w", (32,), 2, 0), ("v", (3,), 0, 32)], [("a", 9, struct.pack("<IQ", 8, 1) + gguf_text("b"))], data=bytes(range(44))
    )
    read = lambda data: read_checkpoint(data, lambda raw: np.array(raw.data))
    return {"new": ((tmp_path / "new.pt").read_bytes(), read), "old": ((tmp_path / "old.pt").read_bytes(), read), "gguf": (blob, read_gguf),
            "safetensors": ((tmp_path / "x.safetensors").read_bytes(), read_safetensors)}


@pytest.mark.parametrize("which", ["new", "old", "gguf", "safetensors"])
def test_every_truncation_is_a_file_error(tmp_path, which):
    blob, read = samples(tmp_path)[which]
    read(blob)
    for end in range(0, len(blob), 1 if len(blob) < 1500 else 3):
        with pytest.raises(FileError): read(blob[:end])


@pytest.mark.parametrize("which", ["new", "old", "gguf", "safetensors"])
def test_random_damage_reads_or_is_a_file_error(tmp_path, which):
    blob, read = samples(tmp_path)[which]
    rng = np.random.default_rng(5)
    for _ in range(400):
        damaged = bytearray(blob)
        for at in rng.integers(0, len(blob), rng.integers(1, 4)): damaged[at] = rng.integers(0, 256)
        with contextlib.suppress(FileError): read(bytes(damaged))
