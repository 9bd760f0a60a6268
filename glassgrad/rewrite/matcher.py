"""Matcher: all rules with one root op become one Python function, compiled by exec the first time a node of that op is met.

The function is a tree of tests. Rules share the tests they begin alike with, sources are bound once, ops and holes are compared
by identity, and nothing of the pattern is left at run time. It returns None or (result, rule name).
"""
from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

from glassgrad.rewrite.pattern import ALU, ANY_ARG, Const, Pat, Value, walk
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import UsageError
from glassgrad.uop.infer import bounds, constant, dtype_range
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

DOMAIN_TESTS = {"int": 'kind in INTS', "bool": 'kind == "bool"', "float": 'kind == "float"'}


_compiled: dict[tuple, Callable[[UOp], Any]] = {}       # (op, its rules) -> function: sets that share rules share code


def compile_rules(rules: list[Any], op: Op) -> Callable[[UOp], Any] | None:
    """The function for nodes of `op`, or None if no rule finds them."""
    mine = tuple([r for r in rules if _finds(r.find, op)])
    if not mine: return None
    key = (op, *map(id, mine))
    if key not in _compiled:
        code = Code(op)
        tree: dict = {}
        for rule in mine:
            holes = [p.name for p in walk(rule.find) if p.name]
            once = frozenset(h for h in holes if holes.count(h) == 1) if rule.only_if is None else frozenset()
            find = rule.find
            for form in _orders(Pat(find.name, (op,), find.src, find.arg, find.dtype), once): code.add(tree, rule, form)
        _compiled[key] = code.finish(tree, mine)
    return _compiled[key]


def in_range(value: int, n: UOp) -> bool:
    """Does `value` have a place in the dtype of `n`? (for only-if)"""
    least, most = dtype_range(n.dtype)
    return least <= value <= most


def bool_of(d: DType) -> DType:
    """bool with as many lanes as `d`."""
    return dtypes.bool if d.lanes == 1 else dtypes.bool.vec(d.lanes)


# ---- what a pattern stands for -----------------------------------------------------------------------------------------------------
def _finds(find: Pat, op: Op) -> bool:
    """Can the root of the pattern be `op`?"""
    if find.ops == ALU: return op.is_alu and (find.src is None or op.arity == len(find.src))
    return op in find.ops


def _orders(p: Pat, once: frozenset[str]) -> Iterator[Pat]:
    """The pattern with the sources of commutative ops in every order that makes a difference: not for free holes that stand once."""
    if p.ops is None or p.src is None:
        yield p
        return
    for src in itertools.product(*[list(_orders(s, once)) for s in p.src]):
        yield Pat(p.name, p.ops, src, p.arg, p.dtype)
        free = all(s.ops is None and not isinstance(s, Value) and s.name in once for s in src)
        if len(p.ops) == 1 and p.ops[0].commutes and not free: yield Pat(p.name, p.ops, src[::-1], p.arg, p.dtype)


# ---- the code --------------------------------------------------------------------------------------------------------------------
class Code:
    """One function being written. Nodes are named by their path: n is the root, s0 its first source, s0_1 that one's second."""
    def __init__(self, op: Op) -> None:
        self.op = op
        self.names: dict[str, Any] = {"UOp": UOp, "CONST": Ops.CONST, "constant": constant, "bounds": bounds, "in_range": in_range,
                                      "bool_of": bool_of, "INTS": ("int", "uint"), "inf": float("inf"), "nan": float("nan")}
        self.lines: list[str] = []

    def name_of(self, value: Any, hint: str) -> str:
        """A name in the function's globals for this object."""
        if isinstance(value, Op): hint = value.name
        while self.names.setdefault(hint, value) is not value: hint += "_"
        return hint

    def add(self, tree: dict, rule: Any, form: Pat) -> None:
        """Put one rule into the tree: its tests from the root down, then what it does."""
        tests: list[str] = []
        holes: dict[str, str] = {}
        if rule.domain != "any": tests.append(" or ".join(DOMAIN_TESTS[d] for d in rule.domain.split()))
        level = [(form, "n")]
        while level:
            below: list[tuple[Pat, str]] = []
            for p, path in level:
                if path == "n": self._facts(p, path, tests)
                if p.name: self._bind(p, path, holes, tests)
                if p.src is not None: below += [(s, f"s{i}" if path == "n" else f"{path}_{i}") for i, s in enumerate(p.src)]
            for p, path in reversed(below): self._facts(p, path, tests)
            level = below
        for t in tests: tree = tree.setdefault(t, {})
        done, action = tree.setdefault(None, []), self._action(rule, form, holes)
        if action[0] not in done: done += action       # both orders of operands may ask the same

    def _facts(self, p: Pat, path: str, tests: list[str]) -> None:
        """Tests of op, number of sources, arg and dtype of the node at `path`."""
        if isinstance(p, Value):
            tests.append(f"o{path} is CONST")
            if not isinstance(p, Const): tests.append(self._literal(p, path))
            return
        if p.ops is not None and path != "n":
            if p.ops == ALU: tests.append(f"o{path}.is_alu")
            elif len(p.ops) == 1: tests.append(f"o{path} is {self.name_of(p.ops[0], '')}")
            else: tests.append(f"o{path} in {self.name_of(p.ops, 'ops')}")
        if p.src is not None and (p.ops == ALU or any(o.arity != len(p.src) for o in p.ops)):
            if p.ops != ALU and all(o.arity not in (-1, len(p.src)) for o in p.ops):
                raise UsageError(f"pattern {p!r}: {p.ops[0]} has {p.ops[0].arity} sources, not {len(p.src)}")
            tests.append(f"len({path}.src) == {len(p.src)}")
        if p.arg is not ANY_ARG:
            simple = p.arg is None or isinstance(p.arg, Op)
            tests.append(f"{path}.arg {'is' if simple else '=='} {self.name_of(p.arg, 'arg')}")
        if p.dtype is not None: tests.append(f"{path}.dtype is {self.name_of(p.dtype, 'dtype')}")

    def _literal(self, p: Value, path: str) -> str:
        if "{" in p.code: raise UsageError(f"pattern {p!r}: arithmetic on constants cannot be found, only given")
        if p.code == "nan": return f"{path}.arg != {path}.arg"
        if p.code in ("0.0", "-0.0"): return f"str({path}.arg) == {p.code!r}"
        return f"{path}.arg == {p.code}"

    def _bind(self, p: Pat, path: str, holes: dict[str, str], tests: list[str]) -> None:
        first = holes.setdefault(p.name, path)
        if first != path: tests.append(f"{path} is {first}" if not isinstance(p, Const) else f"{path}.arg == {first}.arg")

    def _action(self, rule: Any, form: Pat, holes: dict[str, str]) -> list[str]:
        values = {p.name: f"{holes[p.name]}.arg" for p in walk(form) if isinstance(p, Const)}
        places = {**holes, **values}
        if isinstance(rule.give, Pat):
            free = {p.name for p in walk(rule.give) if p.name} - set(holes)
            if free: raise UsageError(f"rule {rule.name}: gives {', '.join(sorted(free))}, which it does not find")
            result = self._build(rule.give, places, "n.dtype")
            done = f"return {result}, {rule.name!r}"
            return [done] if rule.only_if is None else [f"if {rule.only_if.code.format(**places)}: {done}"]
        fn = self.name_of(rule.give, rule.name)
        params = rule.give.__code__.co_varnames[:rule.give.__code__.co_argcount]
        missing = [p for p in params if p not in places and p != "n"]
        if missing: raise UsageError(f"rule {rule.name}: the parameter {missing[0]!r} is no hole of its pattern {rule.find!r}")
        return [f"r = {fn}({', '.join(places.get(p, p) for p in params)})", f"if r is not None: return r, {rule.name!r}"]

    def _build(self, p: Pat, places: dict[str, str], dtype: str) -> str:
        """The expression that builds `give`; `dtype` is the expression for the dtype a constant here must have."""
        if isinstance(p, Value): return f"constant({dtype}, {p.code.format(**places)})"
        if p.ops is None: return places[p.name]
        op, src = p.ops[0], p.src or ()
        if op is Ops.CAST:
            if p.dtype is None: raise UsageError(f"pattern {p!r}: a CAST that is given needs a dtype")
            made = f"{self.name_of(p.dtype, 'dtype')}"
            return f"UOp(CAST_, {made}, ({self._build(src[0], places, '')},))".replace("CAST_", self.name_of(op, ""))
        operand = _dtype_of(src[-1], places) or _dtype_of(src[-2] if len(src) > 1 else src[-1], places) or dtype
        built = [self._build(s, places, operand) for s in src]
        if op is Ops.WHERE: built[0] = self._build(src[0], places, f"bool_of({operand})")
        out = f"bool_of({operand})" if op.out == "bool" else operand
        return f"UOp({self.name_of(op, '')}, {out}, ({', '.join(built)},))"

    def finish(self, tree: dict, rules: tuple) -> Callable[[UOp], Any]:
        """Write the tree down as nested ifs and compile it. The function keeps its rules alive: their ids stand for them."""
        self.names["rules"] = rules
        self._emit(tree, 1, {"n"})
        source = "\n".join(["def match(n):", *self.lines, "    return None", ""])
        file = f"<rules for {self.op} {next(_serial)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        exec(compile(source, file, "exec"), self.names)
        return self.names["match"]

    def _emit(self, tree: dict, depth: int, known: set[str]) -> None:
        pad = "    " * depth
        for test, below in tree.items():
            if test is None: continue
            self._define(test, pad, known)
            self.lines.append(f"{pad}if {test}:")
            self._emit(below, depth + 1, set(known))
        for line in tree.get(None, ()):
            self._define(line, pad, known)
            self.lines.append(pad + line)

    def _define(self, text: str, pad: str, known: set[str]) -> None:
        """Bind the paths that `text` uses and this scope does not know."""
        for name in _PATHS.findall(text): self._define_name(name, pad, known)

    def _define_name(self, name: str, pad: str, known: set[str]) -> None:
        if name in known: return
        if name == "kind": line = "kind = n.src[-1].dtype.kind if n.src else n.dtype.kind"
        elif name[0] == "o":
            self._define_name(name[1:], pad, known)
            line = f"{name} = {name[1:]}.op"
        else:
            parent, _, place = name.rpartition("_") if "_" in name else ("n", "", name[1:])
            self._define_name(parent, pad, known)
            line = f"{name} = {parent}.src[{place}]"
        self.lines.append(pad + line)
        known.add(name)


_PATHS = re.compile(r"\b(?:kind|o?s\d+(?:_\d+)*)\b")
_serial = itertools.count()


def _dtype_of(p: Pat, places: dict[str, str]) -> str | None:
    """The expression for the dtype of what `p` builds, or None for a constant."""
    if isinstance(p, Value): return None
    if p.ops is None: return f"{places[p.name]}.dtype"
    if p.ops[0].out == "bool": return f"bool_of({_dtype_of(p.src[-1], places) or _dtype_of(p.src[0], places)})" if p.src else None
    for s in reversed(p.src or ()):
        found = _dtype_of(s, places)
        if found: return found
    return None
