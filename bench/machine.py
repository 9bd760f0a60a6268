"""What is measured on: CPU, versions, environment of the workers, load by other processes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what a user may have set and would change the measurement
UNSET = (
    "DEV",
    "PYTHONDONTWRITEBYTECODE",  # a user's second start reads compiled modules
    "DEBUG",
    "VIZ",
    "CHECK",
    "BEAM",
    "PROFILE",
    "JIT",
    "THREADS",
    "CACHE",
    "NOOPT",
    "NUM_CPU_THREADS",
    "PARALLEL",
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
# tinygrad's LLVM renderer needs LLVM with opaque pointers; clang is its other one
TINYGRAD_DEVICES = ("CPU:LLVM", "CPU:CLANG")
NEEDS = {"torch.compile": ("torch",), "onnxruntime": ("onnxruntime", "onnx")}  # modules
TINYGRAD_PROBE = """from tinygrad import Tensor
assert (Tensor.arange(64).contiguous().realize() + 1).contiguous().sum().item() == 2080"""


def available_cpus() -> list[int]:
    """Numbers of the CPUs this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cpu_count() -> int:
    return len(available_cpus())


def pick_cpus(count: int) -> list[int]:
    """CPUs for a worker, on different cores where there are enough; the last ones, since the first answers interrupts.

    Empty where the system cannot pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores: dict[str, list[int]] = {}
    for cpu in available_cpus():
        try:
            core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        cores.setdefault(core, []).append(cpu)
    order = [cpus[0] for cpus in cores.values()][::-1] + [cpu for cpus in cores.values() for cpu in cpus[1:]]
    return sorted(order[:count])


def clean_env(more: dict[str, str]) -> dict[str, str]:
    """The environment without what would change the measurement."""
    return {
        **{k: v for k, v in os.environ.items() if k not in UNSET},
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **more,
    }


def worker_env(threads: int, more: dict[str, str]) -> dict[str, str]:
    """The environment of a worker with `threads` threads: each framework's own setting, and no caches on disk."""
    n = str(threads)
    env = clean_env(
        {
            "THREADS": n,
            "NUM_CPU_THREADS": n,
            "OMP_NUM_THREADS": n,
            "MKL_NUM_THREADS": n,
            "OPENBLAS_NUM_THREADS": n,
            "CACHE": "0",
            "CACHELEVEL": "0",
            "CCACHE": "0",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would live on
            **more,
        }
    )
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return env


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, as flock(1) does."""
    import fcntl

    with path.open("a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def present_frameworks(names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Those that can be imported, and for the others why not."""
    root = str(Path(__file__).resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    absent = {}
    for name in names:
        missing = [m for m in NEEDS.get(name, (name,)) if importlib.util.find_spec(m) is None]
        if missing:
            absent[name] = f"{' and '.join(missing)} not installed"
    if "torch.compile" in names and "torch.compile" not in absent and not (shutil.which("g++") or shutil.which("clang++")):
        absent["torch.compile"] = "no C++ compiler"
    return [n for n in names if n not in absent], absent


def tinygrad_device() -> str:
    """The device that works here, the LLVM renderer first; empty if none does."""
    for device in TINYGRAD_DEVICES:
        if (
            subprocess.run(
                [sys.executable, "-c", TINYGRAD_PROBE],
                env=clean_env({"DEV": device, "CACHELEVEL": "0"}),
                capture_output=True,
            ).returncode
            == 0
        ):
            return device
    return ""


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of the frameworks and what they stand on."""
    found = {"python": platform.python_version()}
    for name in (*[n for n in names if n != "torch.compile"], "numpy", "llvmlite"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "from this checkout" if name == "glassgrad" else "absent"
    try:
        found["commit"] = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        found["commit"] = "unknown"
    return found


def cpu_model() -> str:
    """As the CPU calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else platform.machine()


def short_name() -> str:
    """The CPU model, fit for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|@.*|\bcpu\b|processor", "", cpu_model().lower())).strip("-")


def facts() -> dict[str, Any]:
    """CPU, cores, memory, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_model(),
        "cpus": cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def peak_bytes() -> int:
    """The most memory this process has had in RAM, since `forget_peak` where the system can."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak start at what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes() -> int:
    """Memory this process has in RAM (its peak where the system does not say)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Load:
    """What share of the CPUs other processes took since it was made, and how much the hypervisor did."""

    def __init__(self) -> None:
        self.before = self._now()

    def _now(self) -> tuple[float, float, float, float] | None:
        try:
            ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return None
        hz, own = os.sysconf("SC_CLK_TCK"), os.times()
        user, nice, system, _idle, _wait, irq, soft, steal = ticks
        mine = own.user + own.system + own.children_user + own.children_system
        return sum(ticks) / hz, (user + nice + system + irq + soft) / hz, steal / hz, mine

    def since(self) -> dict[str, float] | None:
        """Shares of all CPU time since then. Call it when all own processes have ended."""
        now = self._now()
        if now is None or self.before is None:
            return None
        total, busy, steal, own = (a - b for a, b in zip(now, self.before))
        return {"others": max(busy - own, 0.0) / max(total, 1e-9), "stolen": steal / max(total, 1e-9)}
