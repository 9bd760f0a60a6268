"""Share kernels: one kernel stores several values over the same loops, so that none reads from memory what another has in a register.

source:  levels as in list scheduling; loops are fused where the dependence distance is zero (Kennedy & McKinley 1993)

A value's level is the most kernels that must run one after another before it can be computed. A value that another reads only at the very
element it computes may stand in the same kernel: that step costs no level. Values of one level over the same loops then never wait for
each other through a third kernel, so they may share one: they do if one reads the other, both read the same memory, or they are small.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from glassgrad.uop.uop import UOp

MAX_BUFFERS = 24      # arguments of a shared kernel
MAX_WORK = 2000       # operations per element beyond which a kernel takes no more values
WIDE = 16             # the innermost axis a contraction's kernel needs to be good at other work: its vectors may lie along another
SMALL = 1 << 12       # operations below which a launch costs more than the kernel


@dataclass
class Facts:
    """What the choice of stores knows of a value's kernel: what it reads (and whether only at the element it computes), and its work."""
    reads: dict[UOp, bool] = field(default_factory=dict)
    sums: int = 0                # reductions
    contractions: int = 0        # those that need a register tile of their own
    work: int = 0                # operations per element, without the reductions
    total: int = 0               # operations in all
    alone: bool = False          # it has an order of its own


@dataclass
class Group:
    """Values that share a kernel."""
    level: int
    shape: tuple[int, ...]
    values: list[UOp]
    reads: set[UOp]
    sums: int
    contractions: int
    work: int
    alone: bool

    def takes(self, other: Group) -> bool:
        """Whether one kernel can compute both: a contraction needs the registers for itself."""
        if self.alone or other.alone or self.shape != other.shape or self.work + other.work > MAX_WORK: return False
        if self.contractions + other.contractions and (self.sums + other.sums > 1 or self.shape[-1:] < (WIDE,)): return False
        outs = {*self.values, *other.values}
        return len(outs) + len((self.reads | other.reads) - outs) <= MAX_BUFFERS

    def add(self, other: Group) -> None:
        self.values += other.values
        self.reads |= other.reads
        self.sums += other.sums
        self.contractions += other.contractions
        self.work += other.work


def share_kernels(order: list[UOp], facts: dict[UOp, Facts], results: set[UOp]) -> dict[UOp, int]:
    """The number of the kernel of each stored value of `order` (sources first); none for what only its own kernel reads: it is not
    stored."""
    group_of: dict[UOp, Group] = {}
    known: dict[tuple[int, tuple[int, ...], UOp | None], Group] = {}    # by what they read; None: small ones
    for n in order:
        f = facts[n]
        shape = tuple(m for m in n.shape if m != 1)
        new = Group(0, shape, [n], set(f.reads), f.sums, f.contractions, f.work, f.alone)
        level, hosts = 0, {}
        for s, is_aligned in f.reads.items():
            g = group_of.get(s)
            if g is None: continue
            near = is_aligned and g.shape == shape and not g.alone and not f.alone
            if g.level + (not near) > level: level, hosts = g.level + (not near), {}
            if near and g.level == level: hosts[id(g)] = g
        new.level = level
        if hosts and not _joined(new, list(hosts.values()), group_of): new.level, hosts = level + 1, {}
        if hosts: continue
        group_of[n] = new
        small = f.total <= SMALL
        for key in (*((new.level, shape, s) for s in f.reads if s.size >= n.size), *(((new.level, shape, None),) if small else ())):
            g = known.get(key)
            g = group_of[g.values[0]] if g is not None else None       # it may have joined another since
            if g is not None and g is not new and not g.contractions and not new.contractions and g.takes(new):
                g.add(new)
                group_of[n] = new = g
            known[key] = new
    read = {s for n in order for s in facts[n].reads if s in group_of and group_of[s] is not group_of[n]}
    numbers: dict[int, int] = {}
    return {n: numbers.setdefault(id(group_of[n]), len(numbers)) for n in order if n in read or n in results}


def _joined(new: Group, hosts: list[Group], group_of: dict[UOp, Group]) -> bool:
    """All of them as one group, the first of `hosts`; False, and nothing changed, if that kernel would be too much."""
    first = hosts[0]
    whole = Group(first.level, first.shape, [], set(), 0, 0, 0, False)
    for g in (*hosts, new):
        if not whole.takes(g): return False
        whole.add(g)
    for g in (*hosts[1:], new):
        for v in g.values: group_of[v] = first
        first.add(g)
    return True
