"""The CL device: OpenCL by ctypes, no binding package. PoCL, which runs OpenCL C on the CPU, is its test bed.

Devices are numbered over all platforms: "CL" is the first, "CL:1" the second. A compiled program holds its source too, since a
driver may refuse a binary of an older version of itself; then it is compiled again.
"""
from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from glassgrad.device.device import DeviceBase, words
from glassgrad.device.host import pinned
from glassgrad.target.c import c_target, render
from glassgrad.target.program import Program
from glassgrad.target.target import Target
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import DeviceError

LIBRARIES = ("libOpenCL.so.1", "libOpenCL.so", "OpenCL.dll", "/System/Library/Frameworks/OpenCL.framework/OpenCL")
INSTALL = "try: apt-get install pocl-opencl-icd ocl-icd-libopencl1 (OpenCL on the CPU), or the OpenCL driver of your GPU"
MAGIC = b"glassgrad CL 1\n"
SUCCESS = 0
DEVICE_TYPE_ALL = 0xFFFFFFFF
MEM_READ_WRITE = 1
BUFFER_CREATE_TYPE_REGION = 0x1220
# facts of a device
MAX_COMPUTE_UNITS, MAX_WORK_GROUP_SIZE, SINGLE_FP_CONFIG, LOCAL_MEM_SIZE, DOUBLE_FP_CONFIG = 0x1002, 0x1004, 0x101B, 0x1023, 0x1032
NAME, DRIVER_VERSION, VERSION, EXTENSIONS, MEM_BASE_ADDR_ALIGN, SVM_CAPABILITIES = 0x102B, 0x102D, 0x102F, 0x1030, 0x1019, 0x1053
FP_FMA, FP_CORRECT_DIVIDE_SQRT, SVM_COARSE_GRAIN = 1 << 5, 1 << 7, 1
# facts of a buffer, a program, a build
MEM_SIZE, PROGRAM_BINARY_SIZES, PROGRAM_BINARIES, BUILD_LOG = 0x1102, 0x1165, 0x1166, 0x1183
ERRORS = {-4: "out of device memory", -5: "out of resources", -6: "out of host memory", -11: "the program does not build",
          -38: "bad buffer", -46: "no kernel of that name", -48: "bad kernel", -51: "bad size of an argument", -52: "arguments missing",
          -54: "bad workgroup size", -55: "bad size of the grid", -61: "bad size of a buffer", -1001: "no OpenCL driver is installed"}


class CLDevice(DeviceBase):
    """One OpenCL device with an in-order queue. Handles are addresses of shared virtual memory where the device has it, else cl_mem."""

    def __init__(self, name: str = "CL") -> None:
        super().__init__(name)
        index, found = int(name.partition(":")[2] or 0), devices()
        if index >= len(found): raise DeviceError(f"{name}: there are {len(found)} OpenCL devices\n  try: CL to CL:{len(found) - 1}")
        self.id, self.lock = found[index], threading.Lock()
        self.target = cl_target(self.id)
        self.has_addresses = bool(number(self.id, SVM_CAPABILITIES, 8) & SVM_COARSE_GRAIN) and hasattr(cl(), "clSVMAlloc")
        self.parts: dict[int, list[int]] = {}        # cl_mem -> the sub-buffers made of it
        err, ids = ctypes.c_int(), (ctypes.c_void_p * 1)(self.id)
        self.context = cl().clCreateContext(None, 1, ids, None, None, ctypes.byref(err))
        check(err.value, f"{name}: context")
        self.queue = cl().clCreateCommandQueue(self.context, self.id, 0, ctypes.byref(err))
        check(err.value, f"{name}: queue")

    # ---- memory
    def _alloc(self, nbytes: int) -> int:
        err = ctypes.c_int()
        if self.has_addresses: handle = cl().clSVMAlloc(self.context, MEM_READ_WRITE, nbytes, 0)
        else: handle = cl().clCreateBuffer(self.context, MEM_READ_WRITE, nbytes, None, ctypes.byref(err))
        if handle: return handle
        raise MemoryError(f"{self.name}: {nbytes} bytes")

    def _free(self, handle: int, nbytes: int) -> None:
        if self.has_addresses:
            self.synchronize()                       # freeing takes effect at once, launches may still read
            cl().clSVMFree(self.context, handle)
            return
        for part in (*self.parts.pop(handle, ()), handle): cl().clReleaseMemObject(part)

    def offset(self, handle: int, nbytes: int) -> int:
        if self.has_addresses or not nbytes: return super().offset(handle, nbytes)
        size, err = ctypes.c_size_t(), ctypes.c_int()
        check(cl().clGetMemObjectInfo(handle, MEM_SIZE, 8, ctypes.byref(size), None), f"{self.name}: size of a buffer")
        region = (ctypes.c_size_t * 2)(nbytes, size.value - nbytes)
        part = cl().clCreateSubBuffer(handle, MEM_READ_WRITE, BUFFER_CREATE_TYPE_REGION, region, ctypes.byref(err))
        align = number(self.id, MEM_BASE_ADDR_ALIGN, 4) // 8
        check(err.value, f"{self.name}: a view of a buffer from byte {nbytes} on (this device wants multiples of {align})")
        self.parts.setdefault(handle, []).append(part)
        return part

    def copyin(self, handle: int, src: memoryview) -> None: self._copy(handle, src, True)
    def copyout(self, dst: memoryview, handle: int) -> None: self._copy(handle, dst, False)

    def _copy(self, handle: int, host: memoryview, is_in: bool) -> None:
        if host.nbytes == 0: return
        asked, keep = f"{self.name}: copy of {host.nbytes} bytes {'in' if is_in else 'out'}", pinned(host)
        at = ctypes.addressof(keep)
        if self.has_addresses:
            code = cl().clEnqueueSVMMemcpy(self.queue, 1, *((handle, at) if is_in else (at, handle)), host.nbytes, 0, None, None)
        else:
            copy = cl().clEnqueueWriteBuffer if is_in else cl().clEnqueueReadBuffer
            code = copy(self.queue, handle, 1, 0, host.nbytes, at, 0, None, None)
        check(code, asked)

    # ---- programs
    def render(self, program: Program) -> str: return render(program, self.target)

    def compile(self, program: Program, source: str) -> bytes:
        """The source and the driver's binary in one block of bytes."""
        built = self._build(program.name, source)
        binary = pack(source.encode(), self._binary(built))
        cl().clReleaseProgram(built)
        return binary

    def load(self, program_name: str, binary: bytes) -> CLProgram:
        """The program, from the driver's binary if it takes it, else from the source."""
        source, blob = unpack(program_name, binary)
        return CLProgram(program_name, self._from_binary(blob) or self._build(program_name, source.decode()), self.has_addresses)

    def options(self) -> bytes:
        """No unsafe-math option ever; correctly rounded divide and sqrt where the device has them."""
        return b"-cl-fp32-correctly-rounded-divide-sqrt" if number(self.id, SINGLE_FP_CONFIG, 8) & FP_CORRECT_DIVIDE_SQRT else b""

    def _build(self, name: str, source: str) -> int:
        err, text = ctypes.c_int(), source.encode()
        sources, lengths = (ctypes.c_char_p * 1)(text), (ctypes.c_size_t * 1)(len(text))
        built = cl().clCreateProgramWithSource(self.context, 1, sources, lengths, ctypes.byref(err))
        check(err.value, f"{self.name}: source of {name}")
        code = cl().clBuildProgram(built, 1, (ctypes.c_void_p * 1)(self.id), self.options(), None, None)
        if code == SUCCESS: return built
        log = data_of(cl().clGetProgramBuildInfo, (built, self.id), BUILD_LOG).rstrip(b"\0").decode(errors="replace")
        cl().clReleaseProgram(built)
        raise DeviceError(f"{self.name}: the compiler refused {name} (error {code})\n{log}\n{source}")

    def _binary(self, built: int) -> bytes:
        size = int.from_bytes(data_of(cl().clGetProgramInfo, (built,), PROGRAM_BINARY_SIZES)[:8], "little")
        if not size: return b""
        blob = ctypes.create_string_buffer(size)
        table = (ctypes.c_void_p * 1)(ctypes.addressof(blob))
        check(cl().clGetProgramInfo(built, PROGRAM_BINARIES, ctypes.sizeof(table), table, None), f"{self.name}: binary")
        return blob.raw

    def _from_binary(self, blob: bytes) -> int | None:
        if not blob: return None
        err, status = ctypes.c_int(), ctypes.c_int()
        lengths, table, ids = (ctypes.c_size_t * 1)(len(blob)), (ctypes.c_char_p * 1)(blob), (ctypes.c_void_p * 1)(self.id)
        built = cl().clCreateProgramWithBinary(self.context, 1, ids, lengths, table, ctypes.byref(status), ctypes.byref(err))
        if err.value or status.value: return None
        if cl().clBuildProgram(built, 1, ids, self.options(), None, None) == SUCCESS: return built
        cl().clReleaseProgram(built)
        return None

    # ---- running
    def launch(self, prog: CLProgram, bufs: Sequence[int], vals: Sequence[int] = (), grid: Sequence[int] = (1, 1, 1),
               local: Sequence[int] = (1, 1, 1)) -> None:
        if 0 in grid: return
        with self.lock:                              # a kernel's arguments are part of the kernel object
            prog.set_arguments(bufs, words(vals))
            total, group = (ctypes.c_size_t * 3)(*(g * n for g, n in zip(grid, local, strict=True))), (ctypes.c_size_t * 3)(*local)
            code = cl().clEnqueueNDRangeKernel(self.queue, prog.kernel, 3, None, total, group, 0, None, None)
        if code: check(code, f"{prog.name}: launch of {tuple(grid)} workgroups of {tuple(local)} threads on {self.name}")

    def synchronize(self) -> None: check(cl().clFinish(self.queue), f"{self.name}: waiting for the queue")


class CLProgram:
    """A kernel that is ready to run."""
    __slots__ = ("built", "has_addresses", "kernel", "name")

    def __init__(self, name: str, built: int, has_addresses: bool) -> None:
        err = ctypes.c_int()
        self.name, self.built, self.has_addresses = name, built, has_addresses
        self.kernel = cl().clCreateKernel(built, name.encode(), ctypes.byref(err))
        check(err.value, f"{name}: kernel")

    def set_arguments(self, bufs: Sequence[int], vals: Sequence[int]) -> None:
        """Buffers first, values after them."""
        for i, handle in enumerate(bufs):
            if self.has_addresses: code = cl().clSetKernelArgSVMPointer(self.kernel, i, handle)
            else: code = cl().clSetKernelArg(self.kernel, i, 8, ctypes.byref(ctypes.c_void_p(handle)))
            if code: check(code, f"{self.name}: argument {i}, a buffer")
        for i, value in enumerate(vals, len(bufs)):
            check(cl().clSetKernelArg(self.kernel, i, 8, ctypes.byref(ctypes.c_int64(value))), f"{self.name}: argument {i}, a value")

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing(): return      # the module may have lost its names by then
        if getattr(self, "kernel", None): cl().clReleaseKernel(self.kernel)
        if getattr(self, "built", None): cl().clReleaseProgram(self.built)


DEVICE = CLDevice


# ---- the driver ------------------------------------------------------------------------------------------------------------------
@cache
def cl() -> ctypes.CDLL:
    """The OpenCL loader.

    errors:  DeviceError that names the package, if there is none
    """
    for path in LIBRARIES:
        try: lib = ctypes.CDLL(path)
        except OSError: continue
        for name, (result, args) in SIGNATURES.items():
            fn = getattr(lib, name, None)
            if fn is None: continue                  # shared virtual memory came with OpenCL 2.0
            fn.restype, fn.argtypes = result, args
        return lib
    raise DeviceError(f"CL: no OpenCL library (looked for {', '.join(LIBRARIES[:2])})\n  {INSTALL}")


@cache
def devices() -> tuple[int, ...]:
    """All OpenCL devices of all platforms.

    errors:  DeviceError if there is none
    """
    count = ctypes.c_uint()
    code = cl().clGetPlatformIDs(0, None, ctypes.byref(count))
    if code not in (SUCCESS, -1001): check(code, "CL: platforms")
    platforms = (ctypes.c_void_p * max(count.value, 1))()
    if count.value: check(cl().clGetPlatformIDs(count.value, platforms, None), "CL: platforms")
    out: list[int] = []
    for p in platforms[:count.value]:
        if cl().clGetDeviceIDs(p, DEVICE_TYPE_ALL, 0, None, ctypes.byref(count)) != SUCCESS: continue
        ids = (ctypes.c_void_p * count.value)()
        check(cl().clGetDeviceIDs(p, DEVICE_TYPE_ALL, count.value, ids, None), "CL: devices")
        out += list(ids)
    if not out: raise DeviceError(f"CL: there is an OpenCL library, but no driver has a device\n  {INSTALL}")
    return tuple(out)


def cl_target(device: int) -> Target:
    """What a device says of itself."""
    extensions = text_of(device, EXTENSIONS).split()
    halves = [dtypes.float16] if "cl_khr_fp16" in extensions else []
    fma = bool(number(device, SINGLE_FP_CONFIG, 8) & FP_FMA)
    features = " | ".join(text_of(device, what) for what in (NAME, VERSION, DRIVER_VERSION))
    return c_target("CL", *halves, fp64=number(device, DOUBLE_FP_CONFIG, 8) != 0, fma=fma, has_grid=True,
                    max_local=number(device, MAX_WORK_GROUP_SIZE, 8), shared_bytes=number(device, LOCAL_MEM_SIZE, 8),
                    threads=number(device, MAX_COMPUTE_UNITS, 4), features=features)


def data_of(query: Any, subject: tuple, what: int) -> bytes:
    """The answer to one of the clGet…Info calls."""
    size = ctypes.c_size_t()
    check(query(*subject, what, 0, None, ctypes.byref(size)), f"CL: query {what:#x}")
    data = ctypes.create_string_buffer(max(size.value, 1))
    check(query(*subject, what, size.value, data, None), f"CL: query {what:#x}")
    return data.raw[:size.value]


def number(device: int, what: int, size: int) -> int:
    """A fact about a device that is a number; 0 if it does not know it."""
    value = ctypes.c_uint64()
    return value.value if cl().clGetDeviceInfo(device, what, size, ctypes.byref(value), None) == SUCCESS else 0


def text_of(device: int, what: int) -> str:
    """A fact about a device that is text."""
    return data_of(cl().clGetDeviceInfo, (device,), what).rstrip(b"\0").decode(errors="replace").strip()


def check(code: int, asked: str) -> None:
    """DeviceError if an OpenCL call did not succeed."""
    if code != SUCCESS: raise DeviceError(f"{asked}\n  OpenCL error {code}: {ERRORS.get(code, 'see the OpenCL reference')}")


def pack(source: bytes, binary: bytes) -> bytes:
    """What is kept on disk: both parts, each after its length."""
    return MAGIC + b"".join(len(p).to_bytes(8, "little") + p for p in (source, binary))


def unpack(name: str, binary: bytes) -> list[bytes]:
    """What `pack` put together.

    errors:  DeviceError if the bytes are not whole
    """
    parts, at = [], len(MAGIC)
    while binary.startswith(MAGIC) and at + 8 <= len(binary):
        size = int.from_bytes(binary[at:at + 8], "little")
        parts.append(binary[at + 8:at + 8 + size])
        at += 8 + size
    if len(parts) == 2 and at == len(binary): return parts
    raise DeviceError(f"{name}: {len(binary)} bytes that are no compiled CL program\n  try: clear the cache")


_P, _I, _U, _Z, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint64
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "clGetPlatformIDs": (_I, [_U, _P, _P]), "clGetDeviceIDs": (_I, [_P, _L, _U, _P, _P]), "clGetDeviceInfo": (_I, [_P, _U, _Z, _P, _P]),
    "clCreateContext": (_P, [_P, _U, _P, _P, _P, _P]), "clCreateCommandQueue": (_P, [_P, _P, _L, _P]), "clReleaseCommandQueue": (_I, [_P]),
    "clCreateBuffer": (_P, [_P, _L, _Z, _P, _P]), "clReleaseMemObject": (_I, [_P]),
    "clEnqueueWriteBuffer": (_I, [_P, _P, _U, _Z, _Z, _P, _U, _P, _P]), "clEnqueueReadBuffer": (_I, [_P, _P, _U, _Z, _Z, _P, _U, _P, _P]),
    "clCreateProgramWithSource": (_P, [_P, _U, _P, _P, _P]), "clCreateProgramWithBinary": (_P, [_P, _U, _P, _P, _P, _P, _P]),
    "clBuildProgram": (_I, [_P, _U, _P, ctypes.c_char_p, _P, _P]), "clGetProgramInfo": (_I, [_P, _U, _Z, _P, _P]),
    "clGetProgramBuildInfo": (_I, [_P, _P, _U, _Z, _P, _P]), "clReleaseProgram": (_I, [_P]),
    "clCreateKernel": (_P, [_P, ctypes.c_char_p, _P]), "clReleaseKernel": (_I, [_P]), "clSetKernelArg": (_I, [_P, _U, _Z, _P]),
    "clEnqueueNDRangeKernel": (_I, [_P, _P, _U, _P, _P, _P, _U, _P, _P]), "clFinish": (_I, [_P]),
    "clGetMemObjectInfo": (_I, [_P, _U, _Z, _P, _P]), "clCreateSubBuffer": (_P, [_P, _L, _U, _P, _P]),
    "clSVMAlloc": (_P, [_P, _L, _Z, _U]), "clSVMFree": (None, [_P, _P]), "clSetKernelArgSVMPointer": (_I, [_P, _U, _P]),
    "clEnqueueSVMMemcpy": (_I, [_P, _U, _P, _P, _Z, _U, _P, _P]),
}
