"""Overlap: which launches of a plan do not depend on each other, so that they may run at the same time.

Two launches are in each other's way where one writes what the other reads or writes: an input or output, that input an output may be
computed in, or a piece of the arena. Neighbours in the plan's order that are not, form a group, which the device's threads share.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from glassgrad.engine.plan import Plan

MAX_GROUP = 16              # launches; a piece of work is looked for among them
FLOPS_PER_S, BYTES_PER_S = 1e10, 2e10
WORTH_S = 5e-6              # what a group must save: another thread takes up to a microsecond to come, more if it has to be woken


class Span(NamedTuple):
    """Bytes lo .. hi of a slot; the arena is the slot -1."""
    slot: int
    lo: int
    hi: int


def find_groups(plan: Plan) -> list[list[int]]:
    """The numbers of a plan's launches, group by group; in a group what takes longest a piece comes first."""
    groups: list[list[int]] = []
    reads: list[Span] = []
    writes: list[Span] = []
    for step, row in enumerate(plan.rows):
        outs = plan.units[row.unit].outs
        ins, made = [], []
        for k, s in enumerate(row.bufs): (made if k in outs else ins).extend(_spans(plan, s))
        if groups and len(groups[-1]) < MAX_GROUP and not (_meet(made, reads) or _meet(made, writes) or _meet(ins, writes)): groups[-1].append(step)
        else:
            groups.append([step])
            reads, writes = [], []
        reads += ins
        writes += made
    return [g for group in groups for g in _worth(plan, group)]


def _worth(plan: Plan, group: list[int]) -> list[list[int]]:
    """The group, or its launches one by one if no other thread could save time."""
    units = [plan.units[plan.rows[step].unit] for step in group]
    seconds = {step: u.flops / FLOPS_PER_S + u.bytes / BYTES_PER_S for step, u in zip(group, units, strict=True)}
    pieces = {step: u.grid[0] for step, u in zip(group, units, strict=True)}
    if max(pieces.values()) == 1 and sum(seconds.values()) - max(seconds.values()) < WORTH_S: return [[step] for step in group]
    return [sorted(group, key=lambda step: -seconds[step] / pieces[step])]


def _spans(plan: Plan, slot: int) -> list[Span]:
    known = plan.inputs + plan.outputs
    if slot >= known: return [Span(-1, plan.memory.offsets[slot], plan.memory.offsets[slot] + max(plan.slots[slot].nbytes, 1))]
    donor = plan.donors.get(slot - plan.inputs)
    return [Span(s, 0, 1) for s in (slot, donor) if s is not None]


def _meet(xs: list[Span], ys: list[Span]) -> bool:
    return any(x.slot == y.slot and x.lo < y.hi and y.lo < x.hi for x in xs for y in ys)
