"""The memory plan: no overlap, alignment, reuse, and a peak close to what is needed."""
import random

import pytest

from glassgrad.engine import memory
from glassgrad.engine.memory import ALIGN_BYTES, Life, plan_memory


def check(lives, plan):
    by_slot = {x.slot: x for x in lives}
    for a in lives:
        assert plan.offsets[a.slot] % ALIGN_BYTES == 0
        assert plan.offsets[a.slot] + a.nbytes <= plan.peak_bytes
        for b in lives:
            if a.slot >= b.slot or a.last < b.first or b.last < a.first: continue
            lo, hi = sorted((a, b), key=lambda x: plan.offsets[x.slot])
            assert plan.offsets[lo.slot] + by_slot[lo.slot].nbytes <= plan.offsets[hi.slot], (a, b)


@pytest.mark.parametrize("seed", range(40))
def test_random_lives_never_overlap(seed, monkeypatch):
    rng = random.Random(seed)
    if seed % 2: monkeypatch.setattr(memory, "GREEDY_LIMIT", 0)
    lives = []
    for slot in range(rng.randrange(1, 60)):
        first = rng.randrange(50)
        lives.append(Life(slot, rng.randrange(1, 5000), first, first + rng.randrange(8)))
    plan = plan_memory(lives)
    check(lives, plan)
    step_bytes = [sum(-(-x.nbytes // 64) * 64 for x in lives if x.first <= t <= x.last) for t in range(60)]
    assert max(step_bytes) <= plan.peak_bytes <= plan.total_bytes
    if seed % 2 == 0: assert plan.peak_bytes <= 1.5 * max(step_bytes)


def test_a_chain_needs_two_places():
    plan = plan_memory([Life(i, 1000, i, i + 1) for i in range(100)])
    assert plan.peak_bytes == 2 * 1024 and plan.total_bytes == 100 * 1024


def test_nothing(): assert plan_memory([]) == ({}, 0, 0)
