"""Graphs: what a pass changed, told apart from what was only rebuilt above the change.

Nodes are immutable, so one new leaf gives every node above it a new identity. `marks` pairs the two graphs from the roots down
and, of what is left, from the leaves up; a node whose partner has the same op, dtype and arg is "rebuilt", not "new".
"""
from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from glassgrad.viz.record import Row

Marks = dict[int, str]


def reach(rows: Sequence[Row], root: int | None) -> list[int]:
    """The rows below a root, sources first. Rows are numbered sources first, so sorting by number is a topological order."""
    if root is None: return []
    seen, stack = {root}, [root]
    while stack:
        for s in rows[stack.pop()].src:
            if s not in seen:
                seen.add(s)
                stack.append(s)
    return sorted(seen)


def marks(rows: Sequence[Row], before: int | None, after: int | None) -> tuple[Marks, Marks, dict[int, int]]:
    """For the nodes that only one of two graphs has: gone or rebuilt (before), new or rebuilt (after). Common nodes have no mark.

    The third answer gives for every rebuilt node of the second graph the node of the first that it stands for.
    """
    all_before, all_after = set(reach(rows, before)), set(reach(rows, after))
    old, new = all_before - all_after, all_after - all_before
    pairs = _pair_from_roots(rows, before, after, old, new)
    _pair_from_leaves(rows, pairs, old, new)
    alike = {a: b for a, b in pairs.items() if rows[a][:3] == rows[b][:3]}
    kept = set(alike.values())
    return {b: "rebuilt" if b in kept else "gone" for b in old}, {a: "rebuilt" if a in alike else "new" for a in new}, alike


def _pair_from_roots(rows: Sequence[Row], before: int | None, after: int | None, old: set[int], new: set[int]) -> dict[int, int]:
    """New node -> the old node in its place, walking both graphs from their roots; steps over what was put in or taken out."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    stack = [(before, after)] if before is not None and after is not None else []
    while stack:
        b, a = stack.pop()
        if b not in old or a not in new or a in pairs or b in taken: continue
        if rows[a][:3] != rows[b][:3]:
            below = _find_below(rows, a, b, new)
            if below is not None:          # put in above what was there
                stack.append((b, below))
                continue
            below = _find_below(rows, b, a, old)
            if below is not None:          # taken out
                stack.append((below, a))
                continue
        pairs[a] = b
        taken.add(b)
        stack += _pair_sources(rows, b, a)
    return pairs


def _find_below(rows: Sequence[Row], top: int, like: int, among: set[int]) -> int | None:
    """A node at most three levels below `top` with the op, dtype and arg of `like`."""
    level = [top]
    for _ in range(3):
        level = [s for n in level for s in rows[n].src if s in among][:8]
        for n in level:
            if rows[n][:3] == rows[like][:3]: return n
    return None


def _pair_sources(rows: Sequence[Row], b: int, a: int) -> list[tuple[int, int]]:
    """Which sources of an old and of a new node correspond: those alike, first by place, then in any order; then the rest by place."""
    left, right = list(rows[b].src), list(rows[a].src)
    out: list[tuple[int, int]] = []
    def take(x: int, y: int) -> None:
        left.remove(x)
        right.remove(y)
        out.append((x, y))
    for x, y in list(zip(left, right, strict=False)):
        if x == y or rows[x][:3] == rows[y][:3]: take(x, y)
    for y in list(right):
        same = next((x for x in left if x == y or rows[x][:3] == rows[y][:3]), None)
        if same is not None: take(same, y)
    return [p for p in out + list(zip(left, right, strict=False)) if p[0] != p[1]]


def _pair_from_leaves(rows: Sequence[Row], pairs: dict[int, int], old: set[int], new: set[int]) -> None:
    """Add to `pairs` what moved elsewhere: same op, dtype and arg over corresponding sources."""
    spare: dict[tuple[object, ...], list[int]] = {}
    for b in old - set(pairs.values()): spare.setdefault((*rows[b][:3], rows[b].src), []).append(b)
    for a in sorted(new):
        if a in pairs: continue
        same = spare.get((*rows[a][:3], tuple([pairs.get(s, s) for s in rows[a].src])))
        if same: pairs[a] = same.pop()


def nearest(rows: Sequence[Row], nodes: Sequence[int], first: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the nodes: those closest to `first`, along edges in both directions."""
    if len(nodes) <= limit: return list(nodes)
    inside = set(nodes)
    users: dict[int, list[int]] = {}
    for n in nodes:
        for s in rows[n].src: users.setdefault(s, []).append(n)
    queue = deque(n for n in first if n in inside)
    chosen: dict[int, None] = dict.fromkeys(queue)
    while queue and len(chosen) < limit:
        n = queue.popleft()
        for m in (*rows[n].src, *users.get(n, ())):
            if m not in chosen:
                chosen[m] = None
                queue.append(m)
    return sorted(list(chosen)[:limit])
