"""Hashes: as hashlib has them."""

import hashlib

import numpy as np
import pytest

from glassgrad import Tensor
from glassgrad.tensor.hash import HASH_BYTES, LEAF_BYTES
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError


@pytest.mark.parametrize("kind,length", [("sha3_256", 136), ("shake_128", 7)])
def test_keccak(kind, length):
    rows = np.arange(2 * length, dtype=np.uint8).reshape(2, length)
    out = Tensor(rows).keccak(kind)
    more = (out.shape[-1],) if "shake" in kind else ()
    assert [bytes(row) for row in out.tolist()] == [hashlib.new(kind, bytes(row)).digest(*more) for row in rows]


def tree(raw: bytes) -> bytes:
    """What `Tensor.hash` says it is."""
    length = len(raw).to_bytes(8, "little")
    while len(raw) != HASH_BYTES:
        raw += bytes(max(-len(raw) % LEAF_BYTES, LEAF_BYTES - len(raw)))
        raw = b"".join(hashlib.shake_128(raw[i : i + LEAF_BYTES]).digest(HASH_BYTES) for i in range(0, len(raw), LEAF_BYTES))
    return hashlib.shake_128(raw + length).digest(HASH_BYTES)


def test_hash():
    x = np.random.default_rng(0).normal(size=50).astype("float32")
    assert bytes(Tensor(x).hash().tolist()) == tree(x.tobytes())


def test_hash_mistakes():
    with pytest.raises(DTypeError, match="bytes are hashed"):
        Tensor([1.0]).keccak()
    with pytest.raises(ShapeError):
        Tensor(1, dtype="uint8").keccak()
    with pytest.raises(UsageError, match="try: one of sha3_224"):
        Tensor([1], dtype="uint8").keccak("md5")
