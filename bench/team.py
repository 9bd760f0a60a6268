"""Workers in processes of their own, from the side that asks: one framework on some threads each."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).resolve().parent
THREADS = (1, 2)
SETTLE_S, REST_S = 0.25, 0.01  # an OpenMP runtime lets its threads spin for 0.2 s


def say(text: str) -> None:
    print(text, flush=True)


class Failed(Exception):
    """A worker said no, died or took too long."""


class Worker:
    """The other end of worker.py."""

    def __init__(self, framework: str, threads: int, cpus: list[int], env: dict[str, str]) -> None:
        self.framework, self.threads, self.idle = framework, threads, [0.0, 0.0]
        pinned = [",".join(map(str, cpus))] if cpus else []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), framework, str(threads), *pinned],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            start_new_session=True,  # the terminal's SIGINT is for who asks
        )
        ready = self._read(120)
        if not ready["ready"]:
            raise Failed(ready["error"])

    def ask(self, limit_s: float, **command: Any) -> dict[str, Any]:
        """Send a command, wait for the answer."""
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
        except OSError:
            raise Failed("its process has ended") from None
        reply = self._read(limit_s)
        if "error" in reply:
            raise Failed(reply["error"])
        self.idle = [a + b for a, b in zip(self.idle, reply["idle"])]
        return reply

    def _read(self, limit_s: float) -> dict[str, Any]:
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            self.process.kill()
            self.process.wait()
            raise Failed(f"no answer within {limit_s:g} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Failed("its process has ended")
        return json.loads(line)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def settle(self) -> None:
        """Wait until its threads rest, SETTLE_S at most: they may spin for their next work, on cores that the next worker needs."""
        clock, end = ~self.process.pid << 3 | 2, time.perf_counter() + SETTLE_S  # Linux: the CPU time of that process
        try:
            before = time.clock_gettime(clock)
            while time.perf_counter() < end:
                time.sleep(REST_S)
                now = time.clock_gettime(clock)
                if now - before < 0.1 * REST_S:
                    return
                before = now
        except (OSError, AttributeError):
            time.sleep(max(end - time.perf_counter(), 0))

    def dismiss(self) -> None:
        """Close its input: it ends when it has done what it was asked for."""
        if self.is_alive and not self.process.stdin.closed:
            self.process.stdin.close()

    def end(self) -> None:
        """Close its input and wait."""
        self.dismiss()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Team:
    """All workers of a run, made when first needed."""

    def __init__(self, frameworks: list[str], threads: list[int], tinygrad_device: str, lock: Path | None) -> None:
        self.frameworks, self.threads, self.tinygrad_device, self.lock = frameworks, threads, tinygrad_device, lock
        self.workers: dict[tuple[str, int], Worker] = {}
        self.idle: dict[str, float] = {}  # share of a CPU a worker used while others had their turn

    def members(self) -> Iterator[Worker]:
        """Every worker that lives, frameworks side by side; the dead are made anew."""
        for threads in self.threads:
            for framework in ["limits", *self.frameworks]:
                worker = self.workers.get((framework, threads))
                if worker is None or not worker.is_alive:
                    try:
                        with self.alone():
                            worker = self.hire(framework, threads)
                    except Failed as e:
                        say(f"  {framework} with {threads} threads: {e}")
                        continue
                    self.workers[framework, threads] = worker
                yield worker

    def hire(self, framework: str, threads: int) -> Worker:
        """A new worker, pinned to as many CPUs as it may use threads."""
        env = machine.worker_env(threads, {"DEV": self.tinygrad_device} if framework == "tinygrad" else {})
        return Worker(framework, threads, machine.pick_cpus(threads), env)

    def alone(self) -> Any:
        """While this is open, others who honour the lock do not measure."""
        return machine.locked(self.lock) if self.lock else contextlib.nullcontext()

    def end(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.dismiss()
        for (framework, threads), worker in self.workers.items():
            self.idle[f"{framework} {threads}"] = worker.idle[0] / max(worker.idle[1], 1e-9)
            worker.end()
        self.workers.clear()
