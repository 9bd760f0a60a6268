"""Show: the way of an expression through the compiler, as text.

    python -m glassgrad.show '(Tensor.ones(8, 8) @ Tensor.ones(8, 8)).relu()' [--after PASS] [--diff PASS] [--rules] [--target CPU]

Without options: every pass of every kernel with its size, the loop nest, the source. The graph is never run.
"""
from __future__ import annotations

import argparse
import difflib
import sys
from collections import Counter
from typing import NamedTuple

import glassgrad
from glassgrad import flow
from glassgrad.device.device import Device
from glassgrad.engine import signature
from glassgrad.passes.kernels import KernelCall
from glassgrad.rewrite import trace
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import GlassgradError, UsageError
from glassgrad.uop.text import to_text
from glassgrad.uop.uop import UOp
from glassgrad.viz.loops import loops_text


class Step(NamedTuple):
    """One pass over one graph."""
    stage: str; name: str; before: UOp; after: UOp; rules: Counter


class Steps:
    """A tracer that keeps every pass and counts its rules."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.rules: Counter = Counter()

    def rule(self, name: str, before: UOp, after: UOp) -> None: self.rules[name] += 1
    def step(self, stage: str, name: str, before: UOp, after: UOp) -> None:
        self.steps.append(Step(stage, name, before, after, self.rules))
        self.rules = Counter()


class Shown(NamedTuple):
    """What `follow` saw: the passes over the tensor graph, and per kernel its call, passes and program."""
    tensor: list[Step]
    kernels: list[tuple[KernelCall, list[Step], Program]]


def follow(value: Tensor, target: Target) -> Shown:
    """Compile `value` for `target` without running it, and keep every step."""
    roots = [value.contiguous().uop]
    graph = UOp.sink(*signature.normalise(roots, signature.sign(roots)))
    before = trace.listen(seen := Steps())
    try:
        calls = flow.schedule(graph, target)
        tensor, kernels = seen.steps, []
        for call in {c.ast: c for c in calls}.values():
            seen.steps = []
            program = flow.lower(call.ast, target, call.name)
            kernels.append((call, seen.steps, program))
    finally: trace.listen(before)
    return Shown(tensor, kernels)


def evaluate(source: str) -> Tensor:
    """The Tensor that a Python expression over glassgrad's names gives.

    errors:  UsageError if it is no Tensor, or no Python
    """
    names = {name: getattr(glassgrad, name) for name in ("Tensor", "dtypes", "nn", "Variable") if hasattr(glassgrad, name)}
    try: value = eval(source, names)  # the user's own expression, from the user's own command line
    except GlassgradError: raise
    except Exception as e:
        raise UsageError(f"show: {source!r}\n  {type(e).__name__}: {e}\n  try: Python over Tensor, dtypes, nn and Variable") from None
    if not isinstance(value, Tensor):
        raise UsageError(f"show: {source!r}\n  its value is of type {type(value).__name__}\n  try: an expression that gives a Tensor")
    return value


def diff(before: UOp, after: UOp) -> str:
    """The lines that a pass changed."""
    old, new = (to_text(g, normal=True).splitlines() for g in (before, after))
    return "\n".join(line for line in difflib.unified_diff(old, new, "before", "after", lineterm="", n=1))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glassgrad.show", description="Show what the compiler makes of an expression.")
    parser.add_argument("expression", help="Python over Tensor, dtypes and nn, e.g. 'Tensor.ones(8, 8) @ Tensor.ones(8, 8)'")
    parser.add_argument("--after", metavar="PASS", help="print the graph after this pass")
    parser.add_argument("--diff", metavar="PASS", help="print the lines this pass changes")
    parser.add_argument("--rules", action="store_true", help="print which rules fired how often, by pass")
    parser.add_argument("--target", default=None, help="a device name; the default is DEV's or CPU")
    args = parser.parse_args(argv)
    try:
        device = Device[args.target]
        shown = follow(evaluate(args.expression), device.target)
        names = [s.name for s in shown.tensor] + ([s.name for s in shown.kernels[0][1]] if shown.kernels else [])
        for asked in (args.after, args.diff):
            if asked is not None and asked not in names:
                raise UsageError(f"show: there is no pass {asked!r}\n  try: one of {', '.join(names)}")
        print_steps("the tensor graph", shown.tensor, args)
        for call, steps, program in shown.kernels:
            print_steps(f"kernel {call.name}: {call.reason}", steps, args)
            if not (args.after or args.diff or args.rules):
                print("\n  loop nest\n" + indent(loops_text(program.uops, program)))
                print("\n  source\n" + indent(device.render(program)))
    except GlassgradError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 1
    return 0


def print_steps(title: str, steps: list[Step], args: argparse.Namespace) -> None:
    """One line a pass, or what was asked of one pass."""
    print(f"\n{title}")
    for s in steps:
        if args.after: print(indent(to_text(s.after, normal=True))) if s.name == args.after else None
        elif args.diff: print(indent(diff(s.before, s.after) or "no change")) if s.name == args.diff else None
        else:
            fired = ", ".join(f"{n} x{k}" if k > 1 else n for n, k in s.rules.most_common()) if args.rules else ""
            change = "no change" if s.after is s.before else f"{len(s.before.toposort()):4} -> {len(s.after.toposort())} nodes"
            print(f"  {s.name:24} {change:20} {fired}")


def indent(text: str) -> str: return "\n".join("    " + line for line in text.splitlines())


if __name__ == "__main__": sys.exit(main())
