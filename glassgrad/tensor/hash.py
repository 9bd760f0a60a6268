"""Hash: Keccak over bytes, one kernel for all rounds, and a tree of it for long tensors.

source:  FIPS 202 (SHA-3 Standard, 2015)
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassgrad.tensor.variable import Variable
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DTypeError, ShapeError, UsageError

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

STATE_BYTES, LANES, ROUNDS = 200, 25, 24
KINDS = {"sha3_224": (144, 6), "sha3_256": (136, 6), "sha3_384": (104, 6), "sha3_512": (72, 6), "shake_128": (168, 31),
         "shake_256": (136, 31)}
"""Name -> (rate in bytes, the byte that ends the message)."""
LEAF_BYTES, HASH_BYTES = 160, 16     # of the tree: a leaf and its padding fit in one block of shake_128


def _turns() -> list[list[int]]:
    """How far lane x of row y is rotated (step rho): triangular numbers along the walk of step pi."""
    turns, x, y = [[0] * 5 for _ in range(5)], 1, 0
    for t in range(ROUNDS):
        turns[y][x] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return turns


def _round_constants() -> list[int]:
    """The words of step iota: bits of a linear feedback shift register at the places 2**j - 1."""
    bits, register = [], 1
    for _ in range(7 * ROUNDS):
        bits.append(register & 1)
        register = register << 1 ^ (0x171 if register >> 7 else 0)
    return [sum(bits[7 * r + j] << (1 << j) - 1 for j in range(7)) for r in range(ROUNDS)]


TURNS, ROUND_CONSTANTS = _turns(), _round_constants()
# after step pi, lane x of row y is lane (x + 3y) mod 5 of row x; step chi also wants it for x + 1 and x + 2
NEIGHBOURS = [[[((x + k) % 5 + 3 * y) % 5 * 5 + (x + k) % 5 for x in range(5)] for y in range(5)] for k in range(3)]


class HashMixin:
    """Fingerprints of bytes."""
    __slots__ = ()

    def keccak(self, cfg: Any = "sha3_256") -> Tensor:
        """The hash of the bytes along the last axis.

        cfg:     "sha3_224", "sha3_256", "sha3_384", "sha3_512", "shake_128", "shake_256", or (rate in bytes, the byte that ends the
                 message)
        shapes:  x (..., n) -> (..., (200 - rate) / 2); uint8
        errors:  DTypeError for other than uint8, UsageError for an unknown cfg
        source:  FIPS 202

        >>> bytes(Tensor(b"abc").keccak().tolist()).hex()[:16]
        '3a985da74fe225b2'
        """
        if self.dtype is not dtypes.uint8:
            raise DTypeError(f"keccak of {self.shape} {self.dtype.short}\n  bytes are hashed\n  try: x.bitcast(dtypes.uint8)")
        if not self.ndim: raise ShapeError("keccak of shape () u8\n  the bytes of the last axis are hashed\n  try: x.reshape(1)")
        known = KINDS.get(cfg) if isinstance(cfg, str) else tuple(cfg)
        if known is None or len(known) != 2 or known[0] % 8 or not 0 < known[0] < STATE_BYTES:
            raise UsageError(f"keccak with cfg={cfg!r}\n"
                             f"  try: one of {', '.join(KINDS)}, or (rate in bytes, a multiple of 8 below 200; end byte)")
        rate, end = known
        *lead, n = self.shape
        count = n // rate + 1
        tail = [0] * (count * rate - n)
        tail[0] |= end
        tail[-1] |= 0x80
        cls = type(self)
        message = self.cat(cls(tail, dtype=dtypes.uint8).expand(*lead, len(tail)), dim=-1)
        blocks = message.reshape(*lead, count, rate).bitcast(dtypes.uint64).pad((0, LANES - rate // 8))
        state = blocks[..., 0, :]
        for i in range(count):
            if i: state = state ^ blocks[..., i, :]
            state = _permuted(state)
        return state.bitcast(dtypes.uint8)[..., :(STATE_BYTES - rate) // 2]

    def hash(self) -> Tensor:
        """16 bytes that tell this tensor's bytes from others: a tree of shake_128.

        The bytes are cut into leaves of 160 (the last filled with zeros), each leaf becomes its 16 bytes of shake_128, and so on until 16
        bytes are left; those, followed by the number of bytes as a little-endian uint64, are hashed once more.

        shapes:  any -> (16,) uint8

        >>> Tensor([1, 2, 3]).hash().shape
        (16,)
        """
        cls = type(self)
        x = self.contiguous().flatten() if self.dtype is dtypes.uint8 else self.flatten().bitcast(dtypes.uint8)
        length = cls([self.nbytes()], dtype=dtypes.uint64).bitcast(dtypes.uint8)
        while x.shape[0] != HASH_BYTES:
            x = x.pad((0, max(-x.shape[0] % LEAF_BYTES, LEAF_BYTES - x.shape[0]))).reshape(-1, LEAF_BYTES).keccak("shake_128").flatten()
        return x.cat(length).keccak("shake_128")


def _permuted(state: Tensor) -> Tensor:
    """The 24 rounds of Keccak-f[1600] on (..., 25) lanes: a chain of two kernels, over and over, that differ in one number."""
    cls, shape = type(state), state.shape
    turns, constants = cls(TURNS, dtype=dtypes.uint64), cls(ROUND_CONSTANTS, dtype=dtypes.uint64)
    first = cls([[1] + [0] * 4] + [[0] * 5] * 4, dtype=dtypes.uint64)
    here, next_, second = (cls(table, dtype=dtypes.int32).reshape(LANES).expand(*shape) for table in NEIGHBOURS)
    before, after = cls([4, 0, 1, 2, 3]), cls([1, 2, 3, 4, 0])
    rows = state.reshape(*shape[:-1], 5, 5)
    for r in range(ROUNDS):
        left, right = _parity(rows[..., before]), _parity(rows[..., after])
        mixed = rows ^ left ^ (right << 1) ^ (right >> 63)                                                  # theta
        # rho; a shift by 64 has no meaning
        turned = ((mixed << turns) ^ ((mixed >> 1) >> (63 - turns))).contiguous()
        lanes = turned.mT.reshape(shape)
        lanes = lanes.gather(-1, here) ^ (lanes.gather(-1, next_).bitwise_not() & lanes.gather(-1, second))     # pi, chi
        word = constants[Variable("round", 0, ROUNDS - 1).bind(r)]
        rows = (lanes.reshape(rows.shape) ^ first * word).contiguous()                                      # iota
    return rows.reshape(shape)


def _parity(rows: Tensor) -> Tensor:
    """The exclusive or of five rows, as one row."""
    a, b, c, d, e = rows.split(1, -2)
    return a ^ b ^ c ^ d ^ e
