"""Lesson 4: write a rule.

What the compiler knows of algebra is a table: a name, what to find, what to give, and when. We write three rows and try them.
Run me: python docs/lessons/04_write_a_rule.py
"""
import random

from glassgrad.passes import algebra
from glassgrad.rewrite import trace
from glassgrad.rewrite.driver import rewrite
from glassgrad.rewrite.pattern import Const, Pat, op
from glassgrad.rewrite.rules import RuleSet
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.ops import Ops, VarArg
from glassgrad.uop.text import expr
from glassgrad.uop.uop import UOp

lesson = RuleSet("lesson")


# The parameters are the holes: a Pat stands for any node, a Const for a constant. The rows read like the algebra they are.
@lesson.algebra("int")
def halves(x: Pat, y: Pat, a: Const, b: Const):
    yield "add_twice",    (x + a) + b,        x + (a + b)
    yield "factor_out",   x * a + y * a,      (x + y) * a
    yield "same_xor",     x ^ x,              0


# What a pattern cannot say is a function: it gets the node, and gives None for "not here". Its docstring is an example that tests run.
@lesson.transform(op(Ops.MUL, Pat("x"), Const("a")), "int")
def shift_instead(n: UOp, x: UOp, a: int) -> UOp | None:
    """x:i32 * 8 -> x << 3"""
    return x << (a.bit_length() - 1) if a > 1 and a & (a - 1) == 0 else None


i, j = (UOp(Ops.VAR, dtypes.int32, (), VarArg(name, 0, 100)) for name in "ij")
for before, after in (((i + 3) + 4, i + 7), (i * 5 + j * 5, (i + j) * 5), ((i ^ i) + j, j.const_like(0) + j), (i * 8 + j, (i << 3) + j)):
    print(f"{expr(before):18} becomes  {expr(rewrite(before, lesson))}")
    assert rewrite(before, lesson) is after

# Order does not matter: the driver goes on until no rule finds anything. Two rules that undo each other are stopped and named.
for seed in range(20): assert rewrite((i * 5 + j * 5) * 8, lesson.shuffled(seed)) is (i + j) * 5 << 3


# A rule must be true for all values, not for those one thinks of. The suite tries every rule of the compiler on random values and
# proves those on integers; the same check in five lines, on our own:
def value(n: UOp, at: dict[UOp, int]) -> int:
    if n in at: return at[n]
    return n.arg if n.op is Ops.CONST else n.dtype.const(n.op.py(*(value(s, at) for s in n.src)))


for _ in range(200):
    at = {i: random.randint(-2 ** 31, 2 ** 31 - 1), j: random.randint(-2 ** 31, 2 ** 31 - 1)}
    for graph in (i * 5 + j * 5, i * 8 + j, (i + 3) + 4): assert value(graph, at) == value(rewrite(graph, lesson), at)
print("\nall of them are true on 200 random pairs, also where 32 bits wrap around")


# The compiler's own sets are made the same way. Whoever listens hears every rule that fires.
class Listener:
    def rule(self, name, before, after): print(f"  {name:22} {expr(before):22} ->  {expr(after)}")
    def step(self, *facts): pass


print(f"\n(i*4 + j*4 + 3) // 4 by the compiler's own {len(algebra.index)} rules on indices:")
was = trace.listen(Listener())
result = rewrite((i * 4 + j * 4 + 3) // 4, algebra.index)
trace.listen(was)
assert result is i + j or result is j + i
