"""The C family's languages: how OpenCL C, CUDA C++ and plain C spell types, indices, memory spaces, barriers and vectors."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from glassgrad.target.program import Program


@dataclass(frozen=True)
class Dialect:
    """How one language of the family spells types, indices, memory spaces, barriers and vectors."""
    name: str
    types: dict[str, str]
    long_suffix: str
    function: str                                 # before a helper function
    group: Callable[[int], str]
    thread: Callable[[int], str]
    shared: str
    barrier: str
    pointer: str                                  # before the type of a pointer to a buffer
    restrict: str
    value: str                                    # type of a "value" parameter: 64 bits whatever its dtype
    signature: Callable[[Program, list[str]], str]
    prelude: str = ""
    float_suffix: str = ""                        # of float32 functions: expf
    vector_bytes: int = 0                         # widest vector access, 0: none
    vector_types: dict[str, str] = field(default_factory=dict)
    load: Callable[[str, int, str, str], str] | None = None
    store: Callable[[str, int, str, str, str], str] | None = None
    pack: Callable[[str, int, str], str] | None = None
    needs_alignment: bool = False
    macros: dict[str, str] = field(default_factory=dict)      # what the language lacks, where it is used


INT_NAMES = [f"{u}int{bits}" for bits in (8, 16, 32, 64) for u in ("", "u")]

CL_TYPES = dict(zip(INT_NAMES, ("char", "uchar", "short", "ushort", "int", "uint", "long", "ulong"), strict=True))
CUDA_TYPES = dict(zip(INT_NAMES, ("signed char", "unsigned char", "short", "unsigned short", "int", "unsigned int", "long long",
                                  "unsigned long long"), strict=True))
CUDA_VECTORS = dict(zip(INT_NAMES, ("char", "uchar", "short", "ushort", "int", "uint", "longlong", "ulonglong"), strict=True))
FLOAT_TYPES = {"bool": "bool", "float32": "float", "float64": "double"}
EXTENSIONS = {
    "CL": {"float64": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable", "float16": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable"},
    "CUDA": {"float16": "#include <cuda_fp16.h>", "bfloat16": "#include <cuda_bf16.h>"},
}


def _threads(program: Program) -> int: return math.prod(program.local)
def _cl_signature(program: Program, params: list[str]) -> str:
    x, y, z = program.local
    return f"__kernel __attribute__((reqd_work_group_size({x}, {y}, {z})))\nvoid {program.name}({', '.join(params)})"
def _cuda_signature(program: Program, params: list[str]) -> str:
    return f"extern \"C\" __global__ void __launch_bounds__({_threads(program)})\n{program.name}({', '.join(params)})"
def _c_signature(program: Program, params: list[str]) -> str:
    return f"void {program.name}(void** bufs, int64_t* vals, int64_t begin, int64_t end)"


DIALECTS = {
    "CL": Dialect(
        name="CL", types={**CL_TYPES, **FLOAT_TYPES, "float16": "half"}, long_suffix="L", prelude="#pragma OPENCL FP_CONTRACT OFF",
        function="", group=lambda i: f"get_group_id({i})", thread=lambda i: f"get_local_id({i})", shared="__local ",
        barrier="barrier(CLK_LOCAL_MEM_FENCE);", pointer="__global ", restrict=" restrict", value="long", signature=_cl_signature,
        vector_bytes=32, vector_types={**CL_TYPES, "float32": "float", "float64": "double"},
        load=lambda vec, k, base, at: f"vload{k}(0, {base} + {at})",
        store=lambda vec, k, base, at, x: f"vstore{k}({x}, 0, {base} + {at});",
        pack=lambda vec, k, x: f"({vec}{k})({x})"),
    "CUDA": Dialect(
        name="CUDA", types={**CUDA_TYPES, **FLOAT_TYPES, "float16": "half", "bfloat16": "nv_bfloat16"}, long_suffix="ll",
        macros={"INFINITY": "#ifndef INFINITY\n#define INFINITY __int_as_float(0x7f800000)\n#endif",
                "NAN": "#ifndef NAN\n#define NAN __int_as_float(0x7fc00000)\n#endif"},
        function="static __device__ __forceinline__ ", group=lambda i: f"blockIdx.{'xyz'[i]}", thread=lambda i: f"threadIdx.{'xyz'[i]}",
        shared="__shared__ ", barrier="__syncthreads();", pointer="", restrict=" __restrict__", value="long long",
        signature=_cuda_signature, float_suffix="f", vector_bytes=16, needs_alignment=True,
        vector_types={**CUDA_VECTORS, "float32": "float", "float64": "double"},
        load=lambda vec, k, base, at: f"*(const {vec}{k}*)({base} + {at})",
        store=lambda vec, k, base, at, x: f"*({vec}{k}*)({base} + {at}) = {x};",
        pack=lambda vec, k, x: f"make_{vec}{k}({x})"),
    "C": Dialect(
        name="C", types={**{n: f"{n}_t" for n in INT_NAMES}, **FLOAT_TYPES}, long_suffix="ll",
        prelude="#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>", function="static inline ",
        group=lambda i: "0", thread=lambda i: "0", shared="", barrier="", pointer="", restrict="", value="int64_t",
        signature=_c_signature, float_suffix="f"),
}
