"""Trace: who wants to see every rule that fires and every pass that runs puts an object here.

With `tracer` None (always, but for VIZ, `show` and the tour) it costs nothing.
"""
from __future__ import annotations

from typing import Protocol

from glassgrad.uop.uop import UOp


class Tracer(Protocol):
    """What a listener has to have."""
    def rule(self, name: str, before: UOp, after: UOp) -> None:
        """A rule fired on `before` (its sources are already simple) and gave `after` (its sources may still change)."""
    def step(self, stage: str, name: str, before: UOp, after: UOp) -> None:
        """A pass has run."""


tracer: Tracer | None = None


def listen(to: Tracer | None) -> Tracer | None:
    """Make `to` the listener; returns the one before."""
    global tracer
    before, tracer = tracer, to
    return before
