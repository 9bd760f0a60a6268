"""A driver without a GPU: the calls of libcuda that the CUDA device makes, with host memory, and launches on the shim.

Its "compiled code" is the CUDA text itself, so `compile_source` must be replaced by `text_as_code`.
"""
from __future__ import annotations

import ctypes
import re
from typing import Any

from shim import compile_shim

from glassgrad.device.cuda import MAJOR, MAX_THREADS, MINOR, OUT_OF_MEMORY, SHARED_BYTES, KernelNode

FACTS = {MAJOR: 9, MINOR: 0, MAX_THREADS: 1024, SHARED_BYTES: 48 << 10}
MEMORY_BYTES = 1 << 28


def text_as_code(source: str, arch: int | str = 90) -> bytes: return source.encode()


class FakeDriver:
    """Attributes are functions as in libcuda; objects are numbers."""

    def __init__(self) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.objects: dict[int, Any] = {}
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu"): object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    def _new(self, out: Any, thing: Any) -> int:
        number = len(self.objects) + 1
        self.objects[number] = thing
        out._obj.value = number
        return 0

    # ---- the machine
    def cuInit(self, flags: int) -> int: return 0
    def cuDeviceGetCount(self, out: Any) -> int: return self._set(out, 1)
    def cuDeviceGet(self, out: Any, index: int) -> int: return self._set(out, 0)
    def cuDevicePrimaryCtxRetain(self, out: Any, device: Any) -> int: return self._set(out, 7)
    def cuDeviceGetAttribute(self, out: Any, what: int, device: Any) -> int: return self._set(out, FACTS.get(what, 16))
    def cuCtxSetCurrent(self, context: Any) -> int: return 0
    def cuCtxSynchronize(self) -> int: return 0
    def cuGetErrorString(self, code: int, out: Any) -> int: return self._set(out, b"what the driver says")

    @staticmethod
    def _set(out: Any, value: Any) -> int:
        out._obj.value = value
        return 0

    # ---- memory
    def cuMemAlloc_v2(self, out: Any, nbytes: int) -> int:
        if sum(map(len, self.memory.values())) + nbytes > MEMORY_BYTES: return OUT_OF_MEMORY
        block = (ctypes.c_char * nbytes)()
        self.memory[ctypes.addressof(block)] = block
        return self._set(out, ctypes.addressof(block))
    def cuMemFree_v2(self, handle: int) -> int:
        del self.memory[handle]
        return 0
    def cuMemcpyHtoD_v2(self, dst: int, src: int, nbytes: int) -> int:
        ctypes.memmove(dst, src, nbytes)
        return 0
    cuMemcpyDtoH_v2 = cuMemcpyHtoD_v2

    # ---- programs
    def cuModuleLoadData(self, out: Any, image: bytes) -> int: return self._new(out, image.decode())
    def cuModuleUnload(self, module: Any) -> int: return 0
    def cuModuleGetFunction(self, out: Any, module: Any, name: bytes) -> int:
        source = self.objects[module.value]
        found = re.search(rf"\n{name.decode()}\((.*)\) {{\n", source)
        if found is None: return 500
        kinds = tuple("value" if re.search(r"\bvar\d+$", p) else "buffer" for p in found[1].split(", ") if p)
        return self._new(out, (compile_shim(source, name.decode(), kinds), kinds))

    def cuLaunchKernel(self, function: Any, *rest: Any) -> int:
        return self._run(function.value, list(rest[:6]), ctypes.addressof(rest[8]))

    def _run(self, function: int, dims: list[int], args: int) -> int:
        run, kinds = self.objects[function]
        count = len(kinds)
        if max(dims[1:3]) > 65535: return 1
        where = (ctypes.c_void_p * count).from_address(args) if count else ()
        words = [ctypes.c_int64.from_address(w).value for w in where]
        bufs, vals = (ctypes.c_void_p * max(count, 1))(*words), (ctypes.c_int64 * max(count, 1))(*words)
        return run(bufs, vals, (ctypes.c_int * 6)(*dims), 0)

    # ---- graphs
    def cuGraphCreate(self, out: Any, flags: int) -> int: return self._new(out, [])
    def cuGraphAddKernelNode_v2(self, out: Any, graph: Any, before: Any, count: int, params: Any) -> int:
        self._new(out, self._copied(params._obj))
        self.objects[graph.value].append(out._obj.value)
        return 0
    def cuGraphInstantiateWithFlags(self, out: Any, graph: Any, flags: int) -> int: return self._new(out, list(self.objects[graph.value]))
    def cuGraphExecKernelNodeSetParams_v2(self, graph: Any, node: Any, params: Any) -> int:
        self.objects[node.value] = self._copied(params._obj)
        return 0
    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:
        for node in self.objects[graph.value]:
            function, dims, words = self.objects[node]
            keep = (ctypes.c_int64 * len(words))(*words)
            start = ctypes.addressof(keep)
            table = (ctypes.c_void_p * len(words))(*(start + 8 * i for i in range(len(words))))
            if self._run(function, dims, ctypes.addressof(table)): return 1
        return 0
    def cuGraphExecDestroy(self, graph: Any) -> int: return 0
    def cuGraphDestroy(self, graph: Any) -> int: return 0

    def _copied(self, node: KernelNode) -> tuple:
        """A kernel node holds its own copy of the arguments."""
        count = len(self.objects[node.function][1])
        where = (ctypes.c_void_p * count).from_address(node.args)
        return node.function, [*node.grid, *node.local], [ctypes.c_int64.from_address(w).value for w in where]
