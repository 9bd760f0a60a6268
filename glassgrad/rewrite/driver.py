"""Driver: applies a rule set to a graph, bottom-up, until no rule finds anything. Iterative: depth does not matter.

A node is rebuilt over its simplified sources, then its rules are tried until none fires; what a rule gives is simplified the same
way, new inner nodes included. Each node is looked at once a call, and for sets with `kept`, once in its life.
"""
from __future__ import annotations

from typing import Any

from glassgrad.rewrite import trace
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.errors import RewriteError
from glassgrad.uop.text import expr
from glassgrad.uop.uop import UOp, toposort

# a rewrite that fires more often than this, and this often for each node of its graph, counts as endless
FREE_FIRINGS = 20_000
FIRINGS_A_NODE = 200

Waiting = dict[UOp, tuple[UOp, str, UOp]]      # a node a rule has fired on -> (what it gave, the rule, the node it fired on)


def rewrite(root: Any, rules: RuleSet, name: str | None = None) -> Any:
    """`root` (a node, or a tuple of nodes) with `rules` applied until nothing changes.

    errors:  RewriteError if the rules undo each other or never end; `name` says in which pass
    """
    roots = root if isinstance(root, tuple) else (root,)
    memo: dict[UOp, UOp] = {}
    kept = rules.kept if trace.tracer is None else None     # who listens wants to hear every rule
    for r in roots:
        if kept is None or not _known(r, kept, memo): _simplify(r, rules, kept, memo, name, roots)
    if isinstance(root, tuple): return tuple([memo[r] for r in root])
    return memo[root]


def _known(n: UOp, kept: str, memo: dict[UOp, UOp]) -> bool:
    found = getattr(n, kept)
    if found is None: return False
    memo[n] = n if found is True else found
    return True


def _simplify(root: UOp, rules: RuleSet, kept: str | None, memo: dict[UOp, UOp], name: str | None,
              roots: tuple[UOp, ...]) -> None:
    """Fill `memo` for everything below `root`."""
    table, shaped = rules.table, rules.shaped
    tracer = trace.tracer
    waiting: Waiting = {}
    stack = [root]
    fired, budget = 0, FREE_FIRINGS
    while stack:
        n = stack.pop()
        if n in memo: continue
        if waiting and n in waiting:
            given, _, new = waiting[n]
            result = memo.get(given)
            if result is None: raise _endless(waiting, n, rules, name)
            memo[n] = memo[new] = result
            if kept:
                setattr(n, kept, result)
                setattr(new, kept, result)
            continue
        src = n.src
        if src:
            missing = []
            for s in src:
                if s in memo or (kept and _known(s, kept, memo)): continue
                if s.src or table[s.op] is not None: missing.append(s)
                else: memo[s] = s
            if missing:
                stack.append(n)
                stack += missing
                if n.site is not None:
                    for s in missing:
                        if s.site is None: s.site = n.site
                continue
            simple = tuple([memo[s] for s in src])
            if simple == src: new = n
            else:
                new = UOp(n.op, n.dtype, simple, n.arg)
                if new.site is None: new.site = n.site
                if new in memo or (kept and _known(new, kept, memo)):
                    memo[n] = memo[new]
                    if kept: setattr(n, kept, memo[n])
                    continue
        else: new = n
        match = table[new.op]
        hit = match(new) if match is not None else None
        if hit is None:
            memo[n] = memo[new] = new
            if kept:
                if n is not new: setattr(n, kept, new)
                setattr(new, kept, True)
            continue
        given, rule = hit
        if shaped and given.shape != new.shape: given = given.broadcast_to(new.shape)
        if given.site is None: given.site = n.site
        if tracer is not None: tracer.rule(rule, new, given)
        fired += 1
        if given is new: raise RewriteError(_head(rules, name) + f"\n  rule {rule} gives back what it was given: {expr(new)}")
        if fired > budget:
            budget = FREE_FIRINGS + FIRINGS_A_NODE * len(toposort(roots))
            if fired > budget: raise _endless(waiting, n, rules, name, rule)
        if given in memo or (kept and _known(given, kept, memo)):
            memo[n] = memo[new] = memo[given]
            if kept:
                setattr(n, kept, memo[given])
                if new is not memo[given]: setattr(new, kept, memo[given])
            continue
        waiting[n] = (given, rule, new)
        stack += (n, given)


def _head(rules: RuleSet, name: str | None) -> str:
    return f"rewrite{f' {name!r}' if name else ''} with {rules.name} does not end"


def _endless(waiting: Waiting, n: UOp, rules: RuleSet, name: str | None, last: str | None = None) -> RewriteError:
    """The error for rules that undo each other, naming those on the way from `n` back to itself, or the last ones that fired."""
    names, seen, m = [], set(), n
    while m in waiting and m not in seen and len(names) < 12:
        seen.add(m)
        m, rule, _ = waiting[m]
        names.append(rule)
    if last is not None: names = [w[1] for w in list(waiting.values())[-12:]] + [last]
    unique = list(dict.fromkeys(names))
    return RewriteError(f"{_head(rules, name)}\n  rules that undo each other or grow for ever: {', '.join(unique)}\n"
                        f"  at: {expr(n)}\n  try: python -m glassgrad.show --rules, or a condition (only if) on one of them")
