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


def _pair_sources(b: int, a: int, rows: Sequence[Row], old: set[int], new: set[int]) -> list[tuple[int, int]]:
    """Which sources of an old and of a new node correspond: by place if both have as many, else by op, in order."""
    left = [s for s in rows[b].src if s in old]
    right = [s for s in rows[a].src if s in new]
    if len(rows[b].src) == len(rows[a].src): return [(x, y) for x, y in zip(rows[b].src, rows[a].src, strict=True) if x != y]
    pairs = []
    for y in right:
        same = next((x for x in left if rows[x].op == rows[y].op), None)
        if same is not None:
            left.remove(same)
            pairs.append((same, y))
    return pairs


def marks(rows: Sequence[Row], before: int | None, after: int | None) -> tuple[Marks, Marks, dict[int, int]]:
    """For the nodes that only one of two graphs has: gone or rebuilt (before), new or rebuilt (after). Common nodes have no mark.

    The third answer gives for every rebuilt node of the second graph the node of the first that it stands for.
    """
    all_before, all_after = set(reach(rows, before)), set(reach(rows, after))
    old, new = all_before - all_after, all_after - all_before
    partner: dict[int, int] = {}    # new node -> old node it stands for
    taken: set[int] = set()
    stack = [(before, after)] if before in old and after in new else []
    while stack:
        b, a = stack.pop()
        if b not in old or a not in new or a in partner or b in taken: continue
        partner[a] = b
        taken.add(b)
        stack += _pair_sources(b, a, rows, old, new)
    # bottom-up, for what moved elsewhere: same op, dtype, arg and corresponding sources
    spare: dict[tuple, list[int]] = {}
    for b in old - taken: spare.setdefault((*rows[b][:3], rows[b].src), []).append(b)
    for a in sorted(new):
        if a in partner: continue
        same = spare.get((*rows[a][:3], tuple([partner.get(s, s) for s in rows[a].src])))
        if same: partner[a] = same.pop()
    alike = {a: b for a, b in partner.items() if rows[a][:3] == rows[b][:3]}
    kept = set(alike.values())
    return {b: "rebuilt" if b in kept else "gone" for b in old}, {a: "rebuilt" if a in alike else "new" for a in new}, alike


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
