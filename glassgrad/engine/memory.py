"""Memory plan: where each temporary of a plan lies in one arena, and how large the arena must be.

Two temporaries may overlap when no step needs both. The peak is known, and stated, before anything runs.
"""
from __future__ import annotations

import bisect
from typing import NamedTuple

ALIGN_BYTES = 64
GREEDY_LIMIT = 400  # above this many temporaries the quadratic by-size placement costs more milliseconds than it saves bytes


class Life(NamedTuple):
    """A temporary of `nbytes` bytes, written by step `first` and last read by step `last` (inclusive)."""
    slot: int
    nbytes: int
    first: int
    last: int


class MemoryPlan(NamedTuple):
    """`offsets` by slot, the arena's size `peak_bytes`, and `total_bytes`: what it would be without reuse."""
    offsets: dict[int, int]
    peak_bytes: int
    total_bytes: int


def plan_memory(lives: list[Life], align: int = ALIGN_BYTES) -> MemoryPlan:
    """Offsets for all `lives` such that those alive together never overlap: the better of two placements.

    >>> plan_memory([Life(5, 100, 0, 1), Life(6, 100, 1, 2), Life(7, 60, 2, 3)])
    MemoryPlan(offsets={5: 0, 6: 128, 7: 0}, peak_bytes=256, total_bytes=320)
    """
    rounded = [life._replace(nbytes=max(-(-life.nbytes // align), 1) * align) for life in lives]
    total = sum(life.nbytes for life in rounded)
    best = _place_in_time(rounded)
    if len(rounded) <= GREEDY_LIMIT:
        other = _place_by_size(rounded)
        if other[1] < best[1]: best = other
    return MemoryPlan(best[0], best[1], total)


def _place_in_time(lives: list[Life]) -> tuple[dict[int, int], int]:
    """Step by step, each into the smallest hole it fits; holes next to each other join."""
    offsets: dict[int, int] = {}
    holes: list[tuple[int, int]] = []  # (start, end), sorted, never touching
    top = 0
    ending: list[tuple[int, int, int]] = []  # (last, start, end), sorted
    for life in sorted(lives, key=lambda x: (x.first, -x.nbytes)):
        while ending and ending[0][0] < life.first:
            _, start, end = ending.pop(0)
            _free(holes, start, end)
        fits = [(end - start, start, k) for k, (start, end) in enumerate(holes) if end - start >= life.nbytes]
        if fits:
            _, start, k = min(fits)
            rest = (start + life.nbytes, holes[k][1])
            holes[k:k + 1] = [rest] if rest[0] < rest[1] else []
        elif holes and holes[-1][1] == top:
            start = holes.pop()[0]
            top = start + life.nbytes
        else:
            start, top = top, top + life.nbytes
        offsets[life.slot] = start
        bisect.insort(ending, (life.last, start, start + life.nbytes))
    return offsets, top


def _free(holes: list[tuple[int, int]], start: int, end: int) -> None:
    k = bisect.bisect_left(holes, (start, end))
    if k < len(holes) and holes[k][0] == end: end = holes.pop(k)[1]
    if k and holes[k - 1][1] == start:
        k -= 1
        start = holes.pop(k)[0]
    holes.insert(k, (start, end))


def _place_by_size(lives: list[Life]) -> tuple[dict[int, int], int]:
    """Largest first, each at the lowest place free during its whole life."""
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # (start, end, first, last), sorted by start
    peak = 0
    for life in sorted(lives, key=lambda x: (-x.nbytes, x.first)):
        at = 0
        for start, end, first, last in placed:
            if last < life.first or first > life.last: continue
            if start - at >= life.nbytes: break
            at = max(at, end)
        offsets[life.slot] = at
        bisect.insort(placed, (at, at + life.nbytes, life.first, life.last))
        peak = max(peak, at + life.nbytes)
    return offsets, peak
