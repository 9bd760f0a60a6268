"""Rules and rule sets. A rule is data: a name, what it finds, what it gives, only if; sets add with `+`.

Two kinds. Algebra: a block of rows (name, find, give[, only if]), its typed parameters are the holes. Transform: a function
`(node or holes) -> UOp | None` for what a pattern alone cannot say; its docstring is a "before -> after" example, which is run.
"""
from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from glassgrad.rewrite import matcher
from glassgrad.rewrite.pattern import Const, Pat, lift
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import Op
from glassgrad.uop.uop import UOp

HOLES = {"Pat": Pat, "Const": Const}
DOMAINS = frozenset(("any", "int", "bool", "float"))


class Rule(NamedTuple):
    """One rule. `give` is a pattern (algebra) or a function (transform); `domain` says for which operand dtypes it holds."""
    name: str; find: Pat; give: Any; only_if: Pat | None; domain: str; doc: str


class RuleSet:
    """Rules that are applied together. Never changed once used; `table[op]` is the compiled function for nodes of that op.

    kept:    the slot of UOp in which results are remembered for the life of a node, or None
    shaped:  for tensor graphs, where a constant given for a node of some shape must be broadcast to that shape
    """
    __slots__ = ("name", "rules", "names", "kept", "shaped", "table")

    def __init__(self, name: str, rules: Iterable[Rule] = (), kept: str | None = None, shaped: bool = False) -> None:
        self.name, self.kept, self.shaped = name, kept, shaped
        self.rules: list[Rule] = []
        self.names: set[str] = set()
        self.table = Table(self)
        for r in rules: self._add(r)

    def __repr__(self) -> str: return f"RuleSet({self.name!r}, {len(self.rules)} rules)"
    def __iter__(self) -> Iterator[Rule]: return iter(self.rules)
    def __len__(self) -> int: return len(self.rules)

    def __add__(self, other: RuleSet) -> RuleSet:
        mine = set(map(id, self.rules))
        new = [r for r in other.rules if id(r) not in mine]
        return RuleSet(f"{self.name} + {other.name}", [*self.rules, *new], shaped=self.shaped or other.shaped)

    def as_(self, name: str, kept: str | None = None) -> RuleSet:
        """The same rules under another name, perhaps with results kept on the nodes."""
        return RuleSet(name, self.rules, kept, self.shaped)

    def shuffled(self, seed: int) -> RuleSet:
        """The same rules in random order: the results must not change."""
        rules = sorted(self.rules, key=lambda r: zlib.crc32(f"{seed} {r.name}".encode()))
        return RuleSet(f"{self.name} shuffled by {seed}", rules, None, self.shaped)

    def algebra(self, block: Any) -> Any:
        """Decorator: add the rows that `block` yields. `@set.algebra` for any dtype, `@set.algebra("int bool")` for some.

        errors:  UsageError for a hole without type, a name used twice, a give that uses what find does not bind
        """
        if isinstance(block, str): return lambda fn: self._add_block(fn, block)
        return self._add_block(block, "any")

    def _add_block(self, block: Callable, domain: str) -> Callable:
        holes = []
        for p in inspect.signature(block).parameters.values():
            kind = HOLES.get(str(getattr(p.annotation, "__name__", p.annotation)).rpartition(".")[2])
            if kind is None:
                raise UsageError(f"rules {block.__name__}: the hole {p.name!r} has no type\n  try: {p.name}: Pat  or  {p.name}: Const")
            holes.append(kind(p.name))
        for name, find, give, *only_if in block(*holes):
            self._add(Rule(name, find, lift(give), lift(only_if[0]) if only_if else None, domain, block.__name__))
        return block

    def transform(self, find: Pat, domain: str = "any") -> Callable[[Callable], Callable]:
        """Decorator: add a function. Its parameters name holes of `find`; `n` is the node itself. It returns None for "not here"."""
        def add(fn: Callable) -> Callable:
            self._add(Rule(fn.__name__, find, fn, None, domain, inspect.getdoc(fn) or ""))
            return fn
        return add

    def _add(self, rule: Rule) -> None:
        if rule.name in self.names: raise UsageError(f"rule set {self.name}: the name {rule.name!r} is taken")
        if rule.find.ops is None: raise UsageError(f"rule {rule.name}: a bare hole matches everything\n  try: a pattern with an op")
        if not DOMAINS.issuperset(rule.domain.split()):
            raise UsageError(f"rule {rule.name}: domain {rule.domain!r}\n  try: words among {', '.join(sorted(DOMAINS))}")
        if not rule.name.isidentifier(): raise UsageError(f"rule {rule.name!r}: a rule's name is an identifier")
        self.names.add(rule.name)
        self.rules.append(rule)
        self.table.clear()


class Table(dict):
    """op -> the function `node -> None | (result, rule name)`, or None where no rule has this root. Compiled at first use."""
    def __init__(self, rules: RuleSet) -> None:
        super().__init__()
        self.rules = rules

    def __missing__(self, op: Op) -> Callable[[UOp], Any] | None:
        self[op] = found = matcher.compile_rules(self.rules.rules, op)
        return found
