"""Side by side: glassgrad, torch (eager and compiled), onnxruntime, tinygrad and jax, interleaved in one run.

    python bench/run.py                          # all of it: 25 minutes on two idle cores; writes a table and JSON
    python bench/run.py --quick                  # few repetitions: does everything work?
    python bench/run.py --only speed --only jax  # parts, frameworks, pieces of the names of cases
    python bench/run.py --threads 1 --lock FILE  # on a machine shared with others who measure under the same lock

Parts: compile, start, speed, overheads, processes (imports), memory, kernels, repeat, heldout.

Every framework works in processes of its own, pinned to as many CPUs as it may use threads; one computes at a time, in
turns, and all get the same inputs. What they computed is compared with float64. Peers that are not installed are
reported as absent. What has been measured is on disk after every net, case and part; SIGINT and SIGTERM end the run there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import compile_time
import heldout
import machine
import numpy as np
import report
from team import HERE, THREADS, Failed, Team, Worker, say
from worker import WARM_CALLS

FRAMEWORKS = ("glassgrad", "torch", "torch.compile", "onnxruntime", "tinygrad", "jax")
COMPILERS = ("glassgrad", "tinygrad", "jax")
TRAINERS = ("glassgrad", "torch")
PARTS = ("compile", "start", "speed", "overheads", "processes", "memory", "kernels", "repeat", "heldout")
NAMED_PARTS = {"compile", "speed", "overheads"}  # those whose members have names that --only may pick
IMPORTS = {
    "glassgrad": "import glassgrad",
    "glassgrad Tensor": "from glassgrad import Tensor",
    "torch": "import torch",
    "onnxruntime": "import onnxruntime",
    "tinygrad": "import tinygrad",
    "jax": "import jax, jax.numpy",
}
RSS_PROGRAMS = {
    "glassgrad": "from glassgrad import Tensor\n(Tensor([[1.] * 4] * 4) + 1).numpy()",
    "torch": "import torch\n(torch.ones(4, 4) + 1).numpy()",
    "onnxruntime": "import onnxruntime",
    "tinygrad": "from tinygrad import Tensor\n(Tensor([[1.] * 4] * 4) + 1).numpy()",
    "jax": "import jax.numpy as jnp, numpy as np\nnp.asarray(jnp.ones((4, 4)) + 1)",
}
HOPELESS, SLOW, NEAR = 20.0, 4.0, 1.5  # times the best peer: not timed; timed in few rounds; worth a long wait
SLOW_ROUNDS = 2


class Effort:
    """How often things are repeated, and how long is waited for what is slow. A bound on seconds is no bound on what is fast."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.rounds, self.turn_s, self.mode_s = (3, 0.03, 1.0) if quick else (7, 0.08, 2.5)
        self.compile_runs, self.import_runs = (1, 3) if quick else (3, 10)
        self.compile_s, self.import_s = 12.0, 6.0  # of one framework: no further run once so much has been used up
        self.slow_ready_s, self.long_ready_s = 5.0, 30.0  # who is slow, or not near, is not made ready again with more threads
        self.heldout_count = 20 if quick else heldout.COUNT
        self.open_limit_s, self.own_limit_s, self.turn_limit_s, self.process_limit_s = 40, 100, 40, 600


# ---- speed ---------------------------------------------------------------------------------------------------------
class Entry:
    """One mode of one worker in the open case: its times, and what became of it. `last_s` took its last call before any turn."""

    def __init__(self, worker: Worker, mode: str, row: dict[str, Any], last_s: float | None, is_right: bool) -> None:
        self.worker, self.mode, self.row, self.last_s, self.is_right, self.spent = worker, mode, row, last_s, is_right, 0.0
        self.times: list[float] = row["times"]

    @property
    def is_peer(self) -> bool:
        return self.worker.framework not in ("limits", "glassgrad")

    @property
    def seconds(self) -> float:
        """Its median as far as it is known; 0 if it is not."""
        return statistics.median(self.times) if self.times else self.last_s or 0.0


def times_best(e: Entry, entries: list[Entry]) -> float:
    """A peer's time over the least one of a peer with right values on as many threads; 0 where nothing is known."""
    known = [o.seconds for o in entries if o.worker.threads == e.worker.threads and o.is_peer and o.is_right and o.seconds]
    return e.seconds / min(known) if known else 0.0


def run_case(case: cases.Case, team: Team, effort: Effort) -> dict[str, Any]:
    """A case on all workers, in turns: {threads: {framework: {mode: result}}}."""
    start = time.perf_counter()
    results: dict[str, Any] = {str(n): {} for n in team.threads}
    digest = None
    with tempfile.TemporaryDirectory() as folder:
        arrays = case.arrays()
        for name, x in arrays.items():
            np.save(Path(folder, f"{name}.npy"), x)
        expected = case.reference(arrays, WARM_CALLS)
        entries: list[Entry] = []
        ready_s: dict[str, float] = {}  # of each framework, the last time
        gone: dict[str, str] = {}  # frameworks that died or were too slow, and what their cells say
        for worker in team.members():
            row = results[str(worker.threads)].setdefault(worker.framework, {})
            may_drop = case.part == "speed" and worker.framework not in ("limits", "glassgrad")
            mine = [e for e in entries if e.worker.framework == worker.framework]
            why = gone.get(worker.framework) or (reason_to_stop(mine, entries, ready_s, effort) if may_drop else "")
            if why:
                row["given_up"] = gone[worker.framework] = why
                continue
            with tempfile.TemporaryDirectory() as save:
                begin = time.perf_counter()
                try:
                    with team.alone():
                        begin = time.perf_counter()
                        limit = effort.open_limit_s if may_drop else effort.own_limit_s
                        opened = worker.ask(limit, do="open", case=case.name, folder=folder, save=save)
                except Failed as e:
                    say(f"  {worker.framework} with {worker.threads} threads: {e}")
                    if worker.is_alive:
                        row["failed"] = str(e)
                    else:
                        row["given_up"] = gone[worker.framework] = "too slow" if "no answer" in str(e) else "died"
                    continue
                ready_s[worker.framework] = time.perf_counter() - begin
                if "absent" in opened:
                    row["absent"] = opened["absent"]
                for mode in opened["modes"]:
                    if worker.framework == "limits" and mode != case.limit:
                        continue
                    made = row[mode] = {"times": [], "first_s": opened["first_s"].get(mode)}
                    if worker.framework != "limits" and mode != "build":
                        with np.load(Path(save, f"{mode}.npz")) as kept:
                            made["error"] = compare_all([kept[k] for k in kept.files], expected)
                    is_right = made.get("error") is None or made["error"] <= case.tolerance
                    entries.append(Entry(worker, mode, made, opened["last_s"].get(mode), is_right))
                if worker.framework == "glassgrad" and worker.threads == team.threads[-1]:
                    digest = digest_of(Path(save))
        take_turns(entries, effort, team, case.part == "speed")
        for worker in {id(e.worker): e.worker for e in entries}.values():
            if worker.is_alive:
                worker.ask(60, do="close")
    for row in results.values():
        for modes in row.values():
            for m in modes.values():
                if isinstance(m, dict):
                    m.update(summary(m.pop("times")))
    shares = [(n, *report.best_peer(row, case.tolerance)) for n, row in results.items()] if case.part == "speed" else []
    text = ", ".join(f"{share:.2f}x of {peer}'s time on {n}" for n, peer, share in shares if share)
    say(f"{case.part}: {case.name}{text and ': '}{text} ({time.perf_counter() - start:.0f} s)")
    about = {**case._asdict(), "inputs": [i._asdict() for i in case.inputs]}
    return {"case": about, "results": results, "digest": digest, "seconds": time.perf_counter() - start}


def reason_to_stop(mine: list[Entry], entries: list[Entry], ready_s: dict[str, float], effort: Effort) -> str:
    """Why a peer need not try with more threads than it did, as its cell says it; empty if it should."""
    if not mine or not mine[-1].seconds:
        return ""
    e, share = mine[-1], times_best(mine[-1], entries)
    ready, first = ready_s[e.worker.framework], e.row["first_s"]
    if share > HOPELESS:
        return f">{HOPELESS:g}x"
    if share > SLOW and ready > effort.slow_ready_s:
        return f">{SLOW:g}x"
    return f"first call {first:.0f} s" if share > NEAR and ready > effort.long_ready_s else ""


def take_turns(entries: list[Entry], effort: Effort, team: Team, may_drop: bool) -> None:
    """Time each mode in each round; who is first changes.

    A mode that has used up its time stands by. Peers that are hopeless by their last call before are not timed at all, and
    those that are slow only in some rounds.
    """
    for e in entries:
        if may_drop and e.is_peer and times_best(e, entries) > HOPELESS:
            e.row["hopeless"] = f"more than {HOPELESS:g} times the best peer"
    for turn in range(effort.rounds):
        with team.alone():
            for e in [entries[(turn + k) % len(entries)] for k in range(len(entries))]:
                if e.spent > effort.mode_s or not e.worker.is_alive or "hopeless" in e.row:
                    continue
                if may_drop and e.is_peer and turn >= SLOW_ROUNDS and times_best(e, entries) > SLOW:
                    continue
                start = time.perf_counter()
                try:
                    e.times += e.worker.ask(effort.turn_limit_s, do="turn", mode=e.mode, seconds=effort.turn_s)["times"]
                except Failed as why:
                    e.row["hopeless" if not e.worker.is_alive else "failed"] = str(why)
                    say(f"  {e.worker.framework} {e.mode} with {e.worker.threads} threads: {why}")
                e.spent += time.perf_counter() - start
                if e.worker.threads > 1:
                    e.worker.settle()


def compare_all(found: list[np.ndarray], expected: tuple[np.ndarray, ...] | None) -> float | None:
    """The largest difference of all results."""
    if expected is None:
        return None
    return max(compare(x, e) for x, e in zip(found, expected, strict=True))


def compare(x: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinite for another shape and for NaN."""
    if x.shape != np.shape(expected):
        return float("inf")
    error = np.abs(x - expected).max() / np.abs(expected).max()
    return float(error) if np.isfinite(error) else float("inf")


def summary(times: list[float]) -> dict[str, Any]:
    """Median, 10th and 90th percentile, and how many."""
    if not times:
        return {"median": None, "p10": None, "p90": None, "count": 0}
    low, middle, high = np.percentile(times, (10, 50, 90))
    return {"median": float(middle), "p10": float(low), "p90": float(high), "count": len(times)}


def run_repeat(chosen: list[cases.Case], known: dict[str, str], team: Team, effort: Effort) -> dict[str, Any]:
    """Every case in two processes of glassgrad on as many threads as there are: are the bytes equal? `known` has the digests
    that the speed part found: those cases run once more, in a fresh process."""
    threads = team.threads[-1]
    found: list[dict[str, str]] = [dict(known), {}]
    for digests in found:
        todo = [c for c in chosen if c.name not in digests]
        worker = team.hire("glassgrad", threads) if todo else None
        for case in todo:
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as save:
                for name, x in case.arrays().items():
                    np.save(Path(folder, f"{name}.npy"), x)
                try:
                    with team.alone():
                        worker.ask(effort.own_limit_s, do="open", case=case.name, folder=folder, save=save)
                    worker.ask(60, do="close")
                    digests[case.name] = digest_of(Path(save))
                except Failed as e:
                    digests[case.name] = f"failed: {e}"
                    if not worker.is_alive:
                        worker = team.hire("glassgrad", threads)
        if worker is not None:
            worker.end()
    a, b = found
    same = {c.name: "equal" if a[c.name] == b[c.name] and "failed" not in a[c.name] else "different" for c in chosen}
    said = {name: next((d[name] for d in found if "failed" in d[name]), v) for name, v in same.items()}
    say(f"repeat: {sum(v == 'equal' for v in said.values())} of {len(said)} equal")
    return {"threads": threads, "cases": said}


def digest_of(save: Path) -> str:
    """A number for the bytes of all arrays in a folder."""
    found = hashlib.sha256()
    for path in sorted(save.glob("*.npz")):
        with np.load(path) as kept:
            for name in kept.files:
                found.update(f"{path.name} {name} {kept[name].dtype} {kept[name].shape}".encode() + kept[name].tobytes())
    return found.hexdigest()


# ---- fresh processes: compile time, the start, memory --------------------------------------------------------------
NOW = "now"  # as an option of a script: the time at which its process is made


class Processes:
    """Runs scripts of this folder in fresh processes."""

    def __init__(self, temp: str, tinygrad_device: str, effort: Effort, team: Team) -> None:
        self.temp, self.tinygrad_device, self.effort, self.team = temp, tinygrad_device, effort, team

    def run(self, script: str, *options: str, more: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON line that the script prints; {} if it prints none."""
        device = {"DEV": self.tinygrad_device} if "tinygrad" in options else {}
        try:
            with self.team.alone():
                done = subprocess.run(
                    [sys.executable, str(HERE / script), *[repr(time.monotonic()) if o == NOW else o for o in options]],
                    env=machine.clean_env({**device, **(more or {})}),
                    capture_output=True,
                    text=True,
                    timeout=self.effort.process_limit_s,
                )
        except subprocess.TimeoutExpired:
            return {"failed": f"no end within {self.effort.process_limit_s} s"}
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1]) if lines else {}

    def compile(self, framework: str, net: str, warm: bool = False, save: Path | None = None) -> dict[str, Any]:
        """One process of compile_time.py."""
        options = [*(["--warm"] if warm else []), *(["--save", str(save)] if save else [])]
        more = {"CACHE": str(Path(self.temp, "cache-" + net))} if warm else {}
        return self.run("compile_time.py", framework, net, *options, more=more)


def run_compile(net: str, frameworks: list[str], processes: Processes) -> dict[str, Any]:
    """Compile times of a net: {framework: medians}, each from fresh processes, frameworks in turns; tinygrad has one turn."""
    say(f"compile: {net}")
    effort, expected = processes.effort, Path(processes.temp, net + ".npy")
    processes.compile("reference", net, save=expected)  # makes no file where torch is absent
    names = [*frameworks, *(["glassgrad warm"] if "glassgrad" in frameworks else [])]
    if "glassgrad" in frameworks:
        processes.compile("glassgrad", net, True)  # fills the cache
    rows: dict[str, Any] = {n: [] for n in names}
    spent: Counter[str] = Counter()
    for turn in range(effort.compile_runs):
        for name in [names[(turn + k) % len(names)] for k in range(len(names))]:
            is_peer = not name.startswith("glassgrad")
            if is_peer and spent[name] > effort.compile_s:
                continue
            if name == "tinygrad" and (rows[name] or not report.COMPILE_BARS[net][1]):
                continue
            start = time.perf_counter()
            saved = Path(processes.temp, f"{name}-{net}.npy")
            run = processes.compile(name.split()[0], net, "warm" in name, saved)
            if expected.exists() and saved.exists():
                run["error"] = compare(np.load(saved), np.load(expected))
            rows[name].append(run)
            spent[name] += time.perf_counter() - start
            say(f"  {name}: {run.get('failed') or format(run['compile_cpu_s'], '.2f') + ' s'}")
    return {name: combine(runs) for name, runs in rows.items()}


def combine(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs; the largest error."""
    good = [r for r in runs if "failed" not in r]
    if not good:
        return {"failed": runs[0]["failed"] if runs else "not run, there is no bar"}
    out: dict[str, Any] = {
        key: statistics.median(r[key] for r in good) for key in ("compile_cpu_s", "compile_wall_s", "step_s")
    }
    errors = [r["error"] for r in good if r.get("error") is not None]
    return {**out, "runs": [r["compile_cpu_s"] for r in good], "error": max(errors) if errors else None}


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each number's median; what failed instead."""
    good = [r for r in runs if "failed" not in r]
    if not good:
        return runs[0]
    return {k: statistics.median(r[k] for r in good) for k, v in good[0].items() if isinstance(v, (int, float))}


def run_start(processes: Processes) -> dict[str, Any]:
    """From the start of a process to the first result of ResNet-18, cold and warm; the denoiser's graph on NULL."""
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": [], "unet": []}
    warm = {"CACHE": str(Path(processes.temp, "cache-start"))}

    def first(more: dict[str, str]) -> dict[str, Any]:
        return processes.run("fresh.py", "first", NOW, more=more)

    first(warm)  # fills the cache
    for _ in range(processes.effort.compile_runs):
        runs["cold"].append(first({"CACHE": "0"}))
        runs["warm"].append(first(warm))
        runs["unet"].append(processes.run("compile_time.py", "glassgrad", "unet"))
    found = {name: medians(rows) for name, rows in runs.items()}
    say(f"start: {found}")
    return found


def run_memory(frameworks: list[str], processes: Processes) -> dict[str, Any]:
    """Peak memory of a training step of ResNet-18 in fresh processes."""
    rows: dict[str, list[dict[str, Any]]] = {}
    cache = {"CACHE": str(Path(processes.temp, "cache-memory"))}
    for _ in range(processes.effort.compile_runs):
        for f in [f for f in TRAINERS if f in frameworks]:
            rows.setdefault(f, []).append(processes.run("fresh.py", "memory", f, more={"CACHE": "0"}))
    if not rows.get("glassgrad"):
        return {}
    processes.run("fresh.py", "memory", "glassgrad", more=cache)
    rows["glassgrad warm"] = [processes.run("fresh.py", "memory", "glassgrad", more=cache)]
    return {f: medians(runs) for f, runs in rows.items()}


# ---- overheads -----------------------------------------------------------------------------------------------------
def run_processes(frameworks: list[str], effort: Effort, tinygrad_device: str) -> dict[str, Any]:
    """Import time and memory of fresh processes, in turns."""
    say("overheads: import, memory")
    rows: dict[str, Any] = {
        f: {"import_s": [], "import_rss": [], "add_rss": []} for f in IMPORTS if f.split()[0] in frameworks
    }

    def child(program: str, env: dict[str, str]) -> tuple[float, int]:
        text = (
            f"import sys, time\nsys.path.insert(0, {str(HERE.parent)!r})\nstart = time.perf_counter()\n"
            f"{program}\ns = time.perf_counter() - start\n"
            f"sys.path.insert(0, {str(HERE)!r})\nimport machine\nprint(s, machine.resident_bytes())"
        )
        s, rss = subprocess.run(
            [sys.executable, "-c", text], env=env, capture_output=True, text=True, check=True
        ).stdout.split()
        return float(s), int(rss)

    for turn in range(effort.import_runs):
        for f in [f for f in rows if sum(rows[f]["import_s"]) < effort.import_s]:
            env = machine.clean_env({"DEV": tinygrad_device} if f == "tinygrad" else {})
            s, rss = child(IMPORTS[f], env)
            if turn == 0:
                continue  # files were not in memory yet
            rows[f]["import_s"].append(s)
            rows[f]["import_rss"].append(rss)
            if turn < 3:
                rows[f]["add_rss"].append(child(RSS_PROGRAMS[f.split()[0]], env)[1])
    return {
        f: {
            "import": summary(row["import_s"]),
            "import_rss": statistics.median(row["import_rss"]),
            "add_rss": statistics.median(row["add_rss"]),
        }
        for f, row in rows.items()
    }


def run_kernels(team: Team) -> dict[str, Any]:
    """Kernel counts of the frameworks that count."""
    say("kernels")
    counts: dict[str, Any] = {}
    for worker in team.members():
        if worker.threads != team.threads[0] or worker.framework not in ("glassgrad", "tinygrad"):
            continue
        try:
            counts[worker.framework] = worker.ask(300, do="kernels")["kernels"]
        except Failed as e:
            counts[worker.framework] = {"failed": str(e)}
    return counts


# ---- the run -------------------------------------------------------------------------------------------------------
class Run:
    """What has been found so far, and the files it is kept in."""

    def __init__(self, team: Team, facts: dict[str, Any], folder: Path, mark: str) -> None:
        self.team, self.found, self.load, self.begin = team, facts, machine.Load(), time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.strftime('%Y-%m-%d')}-{machine.short_name()}{mark}"

    def keep(self, is_whole: bool = False) -> str:
        """Write the report and the JSON; gives the report."""
        load = None if self.team.workers else self.load.since()  # which only knows our own processes that have ended
        self.found |= {"idle": self.team.idle, "load": load, "seconds": time.perf_counter() - self.begin, "is_whole": is_whole}
        text = report.markdown(self.found)
        self.path.with_suffix(".md").write_text(text)
        self.path.with_suffix(".json").write_text(json.dumps(self.found, indent=1))
        return text


def measure(run: Run, effort: Effort, has: Callable[[str], bool], wanted: Callable[[str], bool]) -> None:
    """All parts that are asked for, kept one by one."""
    found, team = run.found, run.team
    frameworks, device = team.frameworks, team.tinygrad_device
    with tempfile.TemporaryDirectory() as temp:
        processes = Processes(temp, device, effort, team)
        for net in filter(wanted, compile_time.NETS) if has("compile") else ():
            found.setdefault("compile", {})[net] = run_compile(net, [f for f in COMPILERS if f in frameworks], processes)
            run.keep()
        if has("start"):
            found["start"] = run_start(processes)
        if has("memory"):
            found["memory"] = run_memory(frameworks, processes)
    if has("processes"):
        found["processes"] = run_processes(frameworks, effort, device)
    run.keep()
    for case in cases.cases():
        if has(case.part) and wanted(case.name):
            found.setdefault("cases", []).append(run_case(case, team, effort))
            run.keep()
    if has("kernels"):
        found["kernels"] = run_kernels(team)
    team.end()
    run.keep()
    if has("repeat"):
        known = {c["case"]["name"]: c["digest"] for c in found.get("cases", []) if c["digest"]}
        found["repeat"] = run_repeat([c for c in cases.cases() if c.part == "speed" and wanted(c.name)], known, team, effort)
        run.keep()
    if has("heldout") and "torch" in frameworks:
        with team.alone():
            heldout.run(list(heldout.FAMILIES), range(effort.heldout_count), found=found.setdefault("heldout", {}))


def stop(number: int, frame: Any) -> None:
    """On a signal: end the run, but not what reports it."""
    for n in (signal.SIGINT, signal.SIGTERM):
        signal.signal(n, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Run what is asked for and report it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions; the result's name ends in -quick")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a part, or a piece of the name of a case, net or framework",
    )
    parser.add_argument("--threads", type=int, action="append", help="numbers of threads; default: 1 and 2")
    parser.add_argument("--lock", type=Path, help="hold this file's lock (flock) while something is timed")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args()
    effort, only = Effort(options.quick), set(options.only)
    parts, named = only & set(PARTS), only & set(FRAMEWORKS)
    pieces = only - parts - named

    def wanted(name: str) -> bool:
        return not pieces or any(p in name for p in pieces)

    def has(part: str) -> bool:
        return part in parts if parts else not pieces or part in NAMED_PARTS

    present, absent = machine.present_frameworks(FRAMEWORKS)
    frameworks = [f for f in present if not named or f in named or f == "glassgrad"]
    device = machine.tinygrad_device() if "tinygrad" in frameworks else ""
    if "tinygrad" in frameworks and not device:
        frameworks.remove("tinygrad")
        absent["tinygrad"] = "no working CPU device: it needs clang, and LLVM 16 or newer"
    facts: dict[str, Any] = {
        "machine": machine.facts(),
        "versions": machine.versions(FRAMEWORKS),
        "absent": absent,
        "frameworks": frameworks,
        "tinygrad_device": device,
        "quick": options.quick,
        "effort": vars(effort),
        "started": time.strftime("%Y-%m-%d %H:%M"),
    }
    threads = [n for n in options.threads or THREADS if n <= machine.cpu_count()]
    team = Team(frameworks, threads, device, options.lock)
    run = Run(team, facts, options.out, ("-quick" if options.quick else "") + ("-part" if only else ""))
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's background jobs ignore SIGINT, and Python with them
        signal.signal(number, stop)
    is_whole = False
    try:
        measure(run, effort, has, wanted)
        is_whole = True
    except KeyboardInterrupt:
        say("stopped: what has been measured is reported")
    finally:
        team.end()
        text = run.keep(is_whole)
    say(text + f"\nwritten: {os.path.relpath(run.path)}.md and .json, in {run.found['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
