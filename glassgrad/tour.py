"""Tour: docs/tour.md, written from what the compiler does: one small tensor after every pass.

    python -m glassgrad.tour > docs/tour.md

The suite writes it again and compares, so the tour is true.
"""
from __future__ import annotations

from glassgrad import flow
from glassgrad.device.device import Device
from glassgrad.show import Step, diff, evaluate, follow
from glassgrad.target.llvm import cpu_target, render
from glassgrad.target.target import Target
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.text import to_text
from glassgrad.viz.loops import loops_text

FEATURES = "+avx2,+fma"     # the tour must read the same on every machine
HEAD = """# The tour: one tensor, every pass

This page is written by `python -m glassgrad.tour`. It follows

```python
(Tensor.empty(64, 32) @ Tensor.empty(32, 64)).softmax()
```

from the tensor graph to LLVM IR for a CPU with AVX2. Read it beside `glassgrad/flow.py`, which is the list of these passes.
A line is a node: `%3 = add f32 %1 %2`. `%3` is its number, `add` its op, `f32` its dtype, then come its sources and its argument.
"""

CONVOLUTION = "Tensor.empty(1, 256, 4096).conv2d(Tensor.empty(256, 256, 3))"
ELSEWHERE = {   # a pass that this tensor does not need: why, and an expression that needs it
    "order by keys": ("nothing here is sorted", "Tensor.empty(8, dtype='uint8').sort()[0]"),
    "folds to windows": ("nothing here sums over overlapping windows, as the gradient of a convolution does",
                         "Tensor.empty(1, 1, 6).conv_transpose2d(Tensor.empty(1, 1, 3))"),
    "compare places": ("nothing here is written where an index says",
                       "Tensor.empty(8).scatter(0, Tensor.empty(1, dtype='int32'), Tensor.empty(1))"),
    "small convolutions": ("nothing here is a convolution", CONVOLUTION),
    "spell out tables": ("nothing here is multiplied by constants of a table", CONVOLUTION),
    "normalise last": ("softmax's weights are the result", "Tensor.empty(8, 8).softmax() @ Tensor.empty(8, 8)"),
    "online softmax": ("64 scores fit any cache",
                       "Tensor.empty(64, 64).scaled_dot_product_attention(Tensor.empty(8192, 64), Tensor.empty(8192, 64))"),
    "narrow loops": ("nothing is masked", "Tensor.empty(256, 256).tril().sum(1)"),
    "split long reductions": ("64 rows keep all cores busy", "Tensor.empty(1 << 20).sum()"),
    "simplify": ("a graph that was scheduled from simple views is simple", "Tensor.empty(8) * 1.0 + 0.0"),
    "pair products": ("nothing here multiplies small integers",
                      "Tensor.empty(32, 32, dtype='int8').matmul(Tensor.empty(32, 32, dtype='int8'), dtype='int32')"),
    "simplify indices": ("its axes are split where nothing has to be divided", "Tensor.empty(1000).cat(Tensor.empty(24)) + 1"),
    "lower dtypes": ("the target computes in float32", "Tensor.empty(64, dtype='bfloat16') + 1"),
}
"""The tour follows these too, so that no pass stands in the list without an example."""


def example() -> Tensor:
    """The tensor of the tour."""
    return (Tensor.empty(64, 32) @ Tensor.empty(32, 64)).softmax()


def section(s: Step, why: str) -> list[str]:
    """One pass: why it is there, which rules fired, what it changed."""
    lines = [f"### {s.name}", "", f"Without it: {why}.", ""]
    fired = ", ".join(f"`{n}` {k}x" if k > 1 else f"`{n}`" for n, k in sorted(s.rules.items()))
    if fired: lines += [f"Rules that fired: {fired}.", ""]
    changed = diff(s.before, s.after)
    if changed: return [*lines, "```diff", changed, "```", ""]
    reason, source = ELSEWHERE[s.name]
    lines += [f"It has nothing to do here: {reason}. In `{source}` it does:", ""]
    return [*lines, "```diff", changes_elsewhere(s.name, source), "```", ""]


def changes_elsewhere(name: str, source: str) -> str:
    """What a pass changes in the first graph of another expression that it changes at all."""
    shown = follow(evaluate(source), target())
    steps = [*shown.tensor, *(s for _, steps, _ in shown.kernels for s in steps)]
    return next(diff(s.before, s.after) for s in steps if s.name == name and s.before is not s.after)


def target() -> Target:
    """A CPU with AVX2, the same on every machine."""
    return cpu_target(FEATURES, threads=2, l1_bytes=32 << 10, l2_bytes=512 << 10, llc_bytes=8 << 20)


def write() -> str:
    """The whole page; its tensors are on CPU, whatever the environment says."""
    before, Device.DEFAULT = Device.DEFAULT, "CPU"
    try: return _page()
    finally: Device.DEFAULT = before


def _page() -> str:
    shown = follow(example(), target())
    why = {p.name: p.why for p in (*flow.TENSOR_FLOW, *flow.KERNEL_FLOW)}
    lines = [HEAD, "## The tensor graph", "", "```", to_text(shown.tensor[0].before, normal=True), "```", ""]
    for s in shown.tensor: lines += section(s, why[s.name])
    lines += ["## The kernels", "", f"`cut kernels` makes {len(shown.kernels)} of it:", ""]
    lines += [f"- `{call.name}`: {call.reason}" for call, _, _ in shown.kernels] + [""]
    call, steps, program = max(shown.kernels, key=lambda k: len(k[2].uops))
    lines += [f"## The kernel `{call.name}`", "", "```", to_text(call.ast, normal=True), "```", ""]
    for s in steps: lines += section(s, why[s.name])
    lines += ["### linearize", "", f"The compact graph of {len(steps[-1].after.toposort())} nodes is spelled out as "
              f"{len(program.uops)} instructions, as loops:", "", "```", loops_text(program.uops, program), "```", "",
              "### render", "", "The same as LLVM IR, its first lines:", "",
              "```llvm", *render(program, target()).splitlines()[:60], "```", ""]
    return "\n".join(lines)


if __name__ == "__main__": print(write(), end="")
