"""Overlap: which launches of a plan do not depend on each other, so that they may run at the same time.

Two launches are in each other's way where one writes what the other reads or writes: an input or output, that input an output may be
computed in, or a piece of the arena. Neighbours in the plan's order that are not, form a group, which the device's threads share.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassgrad.engine.plan import Plan

MAX_GROUP = 16              # launches; a piece of work is looked for among them
FLOPS_PER_S, BYTES_PER_S = 1e10, 2e10
WORTH_S = 5e-6              # what a group must save: another thread takes up to a microsecond to come, more if it has to be woken


class Touched:
    """What some launches read, or what they write: slots, and pieces (lo, hi) of the arena."""
    __slots__ = ("arena", "slots")
    def __init__(self) -> None: self.slots, self.arena = set(), []  # type: ignore[var-annotated]
    def add(self, x: Touched) -> None:
        self.slots |= x.slots
        self.arena += x.arena
    def meets(self, x: Touched) -> bool:
        if not self.slots.isdisjoint(x.slots): return True
        return any(lo < b and a < hi for lo, hi in self.arena for a, b in x.arena)


def find_groups(plan: Plan) -> list[list[int]]:
    """The numbers of a plan's launches, group by group; in a group what takes longest a piece comes first."""
    groups: list[list[int]] = []
    reads, writes = Touched(), Touched()
    for step, row in enumerate(plan.rows):
        outs = plan.units[row.unit].outs
        ins, made = Touched(), Touched()
        for k, s in enumerate(row.bufs): _touch(plan, s, made if k in outs else ins)
        is_free = not (made.meets(reads) or made.meets(writes) or ins.meets(writes))
        if groups and len(groups[-1]) < MAX_GROUP and is_free: groups[-1].append(step)
        else:
            groups.append([step])
            reads, writes = Touched(), Touched()
        reads.add(ins)
        writes.add(made)
    return [g for group in groups for g in _worth(plan, group)]


def _worth(plan: Plan, group: list[int]) -> list[list[int]]:
    """The group, or its launches one by one if no other thread could save time."""
    if len(group) == 1: return [group]
    units = [plan.units[plan.rows[step].unit] for step in group]
    seconds = {step: u.flops / FLOPS_PER_S + u.bytes / BYTES_PER_S for step, u in zip(group, units, strict=True)}
    pieces = {step: u.grid[0] for step, u in zip(group, units, strict=True)}
    if max(pieces.values()) == 1 and sum(seconds.values()) - max(seconds.values()) < WORTH_S: return [[step] for step in group]
    return [sorted(group, key=lambda step: -seconds[step] / pieces[step])]


def _touch(plan: Plan, slot: int, by: Touched) -> None:
    at = plan.memory.offsets.get(slot)
    if at is not None: by.arena.append((at, at + max(plan.slots[slot].nbytes, 1)))
    else:
        by.slots.add(slot)
        donor = plan.donors.get(slot - plan.inputs)
        if donor is not None: by.slots.add(donor)
