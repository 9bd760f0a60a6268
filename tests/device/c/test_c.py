"""The text of the C family: what people read in VIZ, and plain C run through gcc."""
from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import linear_programs as lp
import pytest
from linear_cases import Case, cases, compare, fresh

from glassgrad.target.c import C_OPS, DIALECTS, c_target, render
from glassgrad.target.program import Program
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.ops import Ops
from glassgrad.uop.uop import UOp

CL, CUDA, C = (c_target(name, index_dtype=dtypes.int32) for name in ("CL", "CUDA", "C"))


def body(program: Program, target: object = CUDA) -> list[str]:
    """The lines between the braces of the kernel."""
    text = render(program, target)
    return [line.strip() for line in text[text.index(program.name + "("):].splitlines()[1:-1]]


# ---- plain C, by gcc -------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("compiler", ["gcc -std=c11", "g++ -std=c++17"])
def test_plain_c(tmp_path: Path, compiler: str) -> None:
    def is_flat(case: Case) -> bool: return not any(n.op is Ops.SPECIAL and n.arg.name != "gidx0" for n in case.program.uops)
    chosen = [c for c in cases() if is_flat(c)]
    # one file: kernels of one name differ by their number
    chosen = [c._replace(program=replace(c.program, name=f"{c.program.name}_{i}")) for i, c in enumerate(chosen)]
    head = 'extern "C" {\n' if compiler.startswith("g++") else ""
    source, lib = tmp_path / ("all.cpp" if head else "all.c"), tmp_path / "all.so"
    seen, lines = set(), []
    for case in chosen:
        for line in render(case.program, C).splitlines():
            is_helper = line.startswith("static inline") and line.endswith("}")
            if not ((is_helper or line.startswith("#include")) and line in seen): lines.append(line)
            seen.add(line)
    text = _drop_repeated_blocks("\n".join(lines))
    includes = "\n".join(line for line in text.splitlines() if line.startswith("#include"))
    rest = "\n".join(line for line in text.splitlines() if not line.startswith("#include"))
    source.write_text(f"{includes}\n{head}{rest}\n{'}' if head else ''}\n")
    flags = ["-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC"]
    subprocess.run([*compiler.split(), *flags, str(source), "-o", str(lib), "-lm"], check=True)
    loaded = ctypes.CDLL(str(lib))
    for case in chosen: _run_c(loaded, case)


def _run_c(lib: ctypes.CDLL, case: Case) -> None:
    arrays, p = fresh(case), case.program
    bufs = (ctypes.c_void_p * 40)(*(a.ctypes.data for a in arrays))
    vals = (ctypes.c_int64 * 40)(*([0] * len(arrays)), *case.vals)
    has_grid = any(n.op is Ops.SPECIAL for n in p.uops)
    getattr(lib, p.name)(bufs, vals, ctypes.c_int64(0), ctypes.c_int64(p.grid[0] if has_grid else 1))
    compare(case, arrays)


def _drop_repeated_blocks(text: str) -> str:
    """Helper functions of several lines, once each."""
    out, seen = [], set()
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        end = i
        if lines[i].startswith("static inline") and not lines[i].endswith("}"):
            while lines[end] != "}": end += 1
            if lines[i] in seen:
                i = end + 1
                continue
            seen.add(lines[i])
        out += lines[i:end + 1]
        i = end + 1
    return "\n".join(out)


# ---- the text --------------------------------------------------------------------------------------------------------------------
def test_readable_cuda() -> None:
    assert render(lp.tiled_matmul(8, 16, 12, 4), CUDA) == """\
extern "C" __global__ void __launch_bounds__(16)
tiled_matmul(float* __restrict__ data0, const float* __restrict__ data1, const float* __restrict__ data2) {
  __shared__ __align__(16) float shared0[16];
  __shared__ __align__(16) float shared1[16];
  const int gidx0 = blockIdx.x;  // 0 to 3
  const int gidx1 = blockIdx.y;  // 0 to 1
  const int lidx0 = threadIdx.x;  // 0 to 3
  const int lidx1 = threadIdx.y;  // 0 to 3
  const int alu0 = gidx1 * 4 + lidx1;
  const int alu1 = gidx0 * 4 + lidx0;
  const int alu2 = lidx1 * 4;
  const int alu3 = alu2 + lidx0;
  float acc0 = 0.0f;
  for (int ridx0 = 0; ridx0 < 3; ridx0++) {
    const int alu4 = ridx0 * 4;
    const float val0 = data1[alu0 * 12 + alu4 + lidx0];
    shared0[alu3] = val0;
    const float val1 = data2[(alu4 + lidx1) * 16 + alu1];
    shared1[alu3] = val1;
    __syncthreads();
    for (int ridx1 = 0; ridx1 < 4; ridx1++) {
      const float val2 = shared0[alu2 + ridx1];
      const float val3 = shared1[ridx1 * 4 + lidx0];
      acc0 = acc0 + val2 * val3;
    }
    __syncthreads();
  }
  data0[alu0 * 16 + alu1] = acc0;
}
"""


def test_readable_cl() -> None:
    assert render(lp.vector_add(16), CL) == """\
#pragma OPENCL FP_CONTRACT OFF
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void vector_add(__global float* restrict data0, __global const float* restrict data1, __global const float* restrict data2) {
  const int gidx0 = get_group_id(0);  // 0 to 3
  const int alu0 = gidx0 * 4 + 0;
  const float4 val0 = vload4(0, data1 + alu0);
  const float4 val1 = vload4(0, data2 + alu0);
  vstore4((float4)(val0.x * 2.0f + val1.x, val0.y * 2.0f + val1.y, val0.z * 2.0f + val1.z, val0.w * 2.0f + val1.w), 0, data0 + alu0);
}
"""


def test_unaligned_vectors_are_scalars_in_cuda_only() -> None:
    p = lp.vector_add(17, 4, 1)
    assert "float4" not in render(p, CUDA) and "float2" not in render(p, CUDA) and "vload4" in render(p, CL)
    assert "float2" in render(lp.vector_add(18, 4, 2), CUDA)


def test_a_gate_keeps_off_memory() -> None:
    assert body(lp.gated(12, 7)) == ["const int gidx0 = blockIdx.x;  // 0 to 11",
                                     "const float val0 = (2 <= gidx0) && (gidx0 < 9) ? data1[gidx0 - 2] : 0.0f;",
                                     "if (gidx0 != 3) data0[gidx0] = val0;"]


def test_same_program_same_text() -> None:
    for target in (CL, CUDA, C): assert render(lp.shared_sum(2, 8), target) == render(lp.shared_sum(2, 8), target)


def test_restrict_unless_in_place() -> None:
    p = lp.vadd(16)
    assert "restrict" in render(p, CUDA) and "restrict" not in render(replace(p, reuses=((0, 1), (0, 2))), CUDA)


def test_indices_have_32_bits_where_they_fit() -> None:
    k = lp.Linear("index", dtypes.int64)
    out, i = k.buffer(dtypes.uint8, 5 << 30), k.put(k.group(0, 1 << 16) * (1 << 10) + k.thread(0, 256))
    k.store(out, i, k.const(1, dtypes.uint8))
    k.store(out, k.put(i * 80), k.const(2, dtypes.uint8))
    assert body(k.program()) == ["const int gidx0 = blockIdx.x;  // 0 to 65535", "const int lidx0 = threadIdx.x;  // 0 to 255",
                                 "const int alu0 = gidx0 * 1024 + lidx0;", "data0[alu0] = 1;", "data0[(long long)alu0 * 80] = 2;"]


def test_data_wraps_and_indices_stay_plain() -> None:
    k = lp.Linear("wraps")
    out, x, i = k.buffer(dtypes.int32, 64), k.buffer(dtypes.int32, 64), k.group(0, 64)
    k.store(out, i, k.put(k.load(x, i) * 3 + 1))
    assert body(k.program())[-1] == "data0[gidx0] = (int)((unsigned int)(int)((unsigned int)val0 * (unsigned int)3) + (unsigned int)1);"


@pytest.mark.parametrize(("dtype", "value", "text"), [
    (dtypes.float32, 0.1, "0.1f"), (dtypes.float32, 1e30, "1e+30f"), (dtypes.float32, -0.0, "-0.0f"),
    (dtypes.float32, 16777216, "16777216.0f"), (dtypes.float32, float("inf"), "INFINITY"), (dtypes.float32, float("-inf"), "-INFINITY"),
    (dtypes.float32, 1.17549435e-38, "1.1754944e-38f"), (dtypes.float32, 1.4e-45, "1e-45f"),
    (dtypes.float64, float("nan"), "(double)NAN"), (dtypes.float64, 0.1, "0.1"), (dtypes.float64, -2.5, "-2.5"),
    (dtypes.int32, -2 ** 31, "-2147483647 - 1"), (dtypes.int64, -2 ** 63, "-9223372036854775807ll - 1"),
    (dtypes.uint64, 2 ** 64 - 1, "18446744073709551615ull"), (dtypes.uint32, 7, "7u"), (dtypes.int8, -128, "-128"),
    (dtypes.bool, True, "true"),
])
def test_literals(dtype: object, value: object, text: str) -> None:
    k = lp.Linear("literal")
    out = k.buffer(dtype, 1)
    k.store(out, k.const(0), k.const(value, dtype))
    assert body(k.program())[-1] == f"data0[0] = {text};"


def test_long_expressions_are_cut() -> None:
    k = lp.Linear("long")
    out, x, i = k.buffer(dtypes.float32, 4), k.buffer(dtypes.float32, 4), k.group(0, 4)
    v = k.load(x, i)
    y = v
    for step in range(60): y = y * float(step + 2) + 1.5
    k.store(out, i, k.put(y))
    assert all(len(line) < 180 for line in body(k.program())) and len(body(k.program())) < 40


def test_an_op_nobody_can_say() -> None:
    k = lp.Linear("odd")
    out = k.buffer(dtypes.float32, 1)
    k.store(out, k.const(0), k.put(UOp(Ops.SORT, dtypes.float32, (k.const(1.0, dtypes.float32),))))
    with pytest.raises(CompilerBug, match="render CUDA: SORT may not stand in a linear program"): render(k.program(), CUDA)


def test_every_alu_op_has_a_spelling() -> None:
    assert C_OPS <= set(Ops.alu())
    assert [op for op in Ops.alu() if op not in C_OPS and op.decomp is None] == []
    assert set(DIALECTS) == {"CL", "CUDA", "C"}
