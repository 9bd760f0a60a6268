"""Side by side: glassgrad, torch (eager), tinygrad and jax, interleaved in one run. Writes a table and JSON.

    python bench/run.py                          # all of it: about half an hour, on an idle machine
    python bench/run.py --quick                  # few repetitions: does everything work?
    python bench/run.py --only speed --only jax  # parts (compile, speed, overheads, kernels), frameworks, cases

Every framework works in processes of its own, pinned to as many CPUs as it may use threads; one computes at a time, in
turns, and all get the same inputs. What they computed is compared with float64. Peers that are not installed are
reported as absent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import compile_time
import machine
import numpy as np
import report
from team import HERE, Failed, Team, Worker, say

FRAMEWORKS = ("glassgrad", "torch", "tinygrad", "jax")
COMPILERS = ("glassgrad", "tinygrad", "jax")
IMPORTS = {
    "glassgrad": "import glassgrad",
    "glassgrad Tensor": "from glassgrad import Tensor",
    "torch": "import torch",
    "tinygrad": "import tinygrad",
    "jax": "import jax, jax.numpy",
}
RSS_PROGRAMS = {
    "glassgrad": "from glassgrad import Tensor\n(Tensor([[1.] * 4] * 4) + 1).numpy()",
    "torch": "import torch\n(torch.ones(4, 4) + 1).numpy()",
    "tinygrad": "from tinygrad import Tensor\n(Tensor([[1.] * 4] * 4) + 1).numpy()",
    "jax": "import jax.numpy as jnp, numpy as np\nnp.asarray(jnp.ones((4, 4)) + 1)",
}
SETTLE_S = 0.25  # between turns: an OpenMP runtime lets its threads spin for 0.2 s, on cores that the next one needs


class Effort:
    """How often things are repeated."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.rounds, self.turn_s, self.mode_s = (3, 0.03, 3.0) if quick else (11, 0.2, 40.0)
        self.compile_runs, self.import_runs = (1, 3) if quick else (3, 15)
        self.open_limit_s, self.turn_limit_s, self.process_limit_s = 300, 120, 1200


# ---- parts ---------------------------------------------------------------------------------------------------------
def run_case(case: cases.Case, team: Team, effort: Effort) -> dict[str, Any]:
    """A case on all workers, in turns: {threads: {framework: {mode: result}}}."""
    say(f"{case.part}: {case.name}")
    results: dict[str, Any] = {str(n): {} for n in team.threads}
    with tempfile.TemporaryDirectory() as folder:
        arrays = case.inputs()
        for name, x in arrays.items():
            np.save(Path(folder, f"{name}.npy"), x)
        expected = case.reference(arrays)
        open_modes: list[tuple[Worker, str, list[float]]] = []
        for worker in team.members():
            row = results[str(worker.threads)].setdefault(worker.framework, {})
            with tempfile.TemporaryDirectory() as save:
                try:
                    opened = worker.ask(effort.open_limit_s, do="open", case=case.name, folder=folder, save=save)
                except Failed as e:
                    row["failed"] = str(e)
                    say(f"  {worker.framework} with {worker.threads} threads: {e}")
                    continue
                for mode in opened["modes"]:
                    if worker.framework == "limits" and mode != case.limit:
                        continue
                    row[mode] = {"times": [], "first_s": opened["first_s"].get(mode)}
                    if worker.framework != "limits":
                        row[mode]["error"] = compare(np.load(Path(save, f"{mode}.npy")), expected)
                    open_modes.append((worker, mode, row[mode]["times"]))
        take_turns(open_modes, effort)
        for worker in {id(w): w for w, _, _ in open_modes}.values():
            if worker.is_alive:
                worker.ask(60, do="close")
    for row in results.values():
        for modes in row.values():
            for m in modes.values():
                if isinstance(m, dict):
                    m.update(summary(m.pop("times")))
    return {"case": case._asdict(), "results": results}


def take_turns(modes: list[tuple[Worker, str, list[float]]], effort: Effort) -> None:
    """Time each mode in each round; who is first changes. A mode that has used up its time stands by."""
    spent = [0.0] * len(modes)
    for turn in range(effort.rounds):
        for i in [(turn + k) % len(modes) for k in range(len(modes))]:
            worker, mode, times = modes[i]
            if spent[i] > effort.mode_s or not worker.is_alive:
                continue
            time.sleep(SETTLE_S)
            start = time.perf_counter()
            try:
                times += worker.ask(effort.turn_limit_s, do="turn", mode=mode, seconds=effort.turn_s)["times"]
            except Failed as e:
                say(f"  {worker.framework} {mode} with {worker.threads} threads: {e}")
            spent[i] += time.perf_counter() - start


def compare(x: np.ndarray, expected: np.ndarray | None) -> float | None:
    """The largest difference as a share of the largest value; infinite for another shape and for NaN."""
    if expected is None:
        return None
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


def run_compile(
    frameworks: list[str], wanted: Callable[[str], bool], effort: Effort, tinygrad_device: str, references: bool
) -> dict[str, Any]:
    """Compile times: {net: {framework: medians}}, each from fresh processes, frameworks in turns."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temp:
        for net in filter(wanted, compile_time.NETS):
            say(f"compile: {net}")
            expected = Path(temp, net + ".npy")
            if references:
                compile_once("reference", net, temp, tinygrad_device, effort, [], expected)
            rows: dict[str, Any] = {f: [] for f in frameworks}
            turns = [*frameworks, *(["glassgrad warm"] if "glassgrad" in frameworks else [])]
            if "glassgrad" in frameworks:  # fills the cache
                compile_once("glassgrad", net, temp, tinygrad_device, effort, ["--warm"], None)
                rows["glassgrad warm"] = []
            for turn in range(effort.compile_runs):
                for name in [turns[(turn + k) % len(turns)] for k in range(len(turns))]:
                    saved = Path(temp, f"{name}-{net}.npy")
                    run = compile_once(
                        name.split()[0], net, temp, tinygrad_device, effort, ["--warm"] if "warm" in name else [], saved
                    )
                    if expected.exists() and saved.exists():
                        run["error"] = compare(np.load(saved), np.load(expected))
                    rows[name].append(run)
                    say(f"  {name}: {run.get('failed') or format(run['compile_cpu_s'], '.2f') + ' s'}")
            found[net] = {name: combine(runs) for name, runs in rows.items()}
    return found


def compile_once(
    framework: str, net: str, temp: str, tinygrad_device: str, effort: Effort, options: list[str], save: Path | None
) -> dict[str, Any]:
    """One process of compile_time.py."""
    env = machine.clean_env({"DEV": tinygrad_device} if framework == "tinygrad" else {})
    if options:
        env["CACHE"] = str(Path(temp, "cache-" + net))
    command = [
        sys.executable,
        str(HERE / "compile_time.py"),
        framework,
        net,
        *options,
        *(["--save", str(save)] if save else []),
    ]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=effort.process_limit_s)
    except subprocess.TimeoutExpired:
        return {"failed": f"no end within {effort.process_limit_s} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1]) if framework != "reference" else {}


def combine(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs; the largest error."""
    good = [r for r in runs if "failed" not in r]
    if not good:
        return {"failed": runs[0]["failed"] if runs else "not run"}
    out: dict[str, Any] = {
        key: statistics.median(r[key] for r in good) for key in ("compile_cpu_s", "compile_wall_s", "step_s")
    }
    errors = [r["error"] for r in good if r.get("error") is not None]
    return {**out, "runs": [r["compile_cpu_s"] for r in good], "error": max(errors) if errors else None}


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
        for f in rows:
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
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    options = parser.parse_args()
    effort, only = Effort(options.quick), set(options.only)
    parts, named = only & {"compile", "speed", "overheads", "kernels"}, only & set(FRAMEWORKS)
    pieces = only - parts - named

    def wanted(name: str) -> bool:
        return not pieces or any(p in name for p in pieces)

    def has(part: str) -> bool:
        return (part in parts) if parts else (not pieces or part in ("compile", "speed"))

    present, absent = machine.present_frameworks(FRAMEWORKS)
    frameworks = [f for f in present if not named or f in named or f == "glassgrad"]
    device = machine.tinygrad_device() if "tinygrad" in frameworks else ""
    if "tinygrad" in frameworks and not device:
        frameworks.remove("tinygrad")
        absent["tinygrad"] = "no working CPU device: it needs clang, and LLVM 16 or newer"
    found: dict[str, Any] = {
        "machine": machine.facts(),
        "versions": machine.versions(FRAMEWORKS),
        "absent": absent,
        "frameworks": frameworks,
        "tinygrad_device": device,
        "quick": options.quick,
        "effort": vars(effort),
        "started": time.strftime("%Y-%m-%d %H:%M"),
    }
    load = machine.Load()
    team = Team(frameworks, device)
    try:
        if has("compile") and any(map(wanted, compile_time.NETS)):
            found["compile"] = run_compile(
                [f for f in COMPILERS if f in frameworks], wanted, effort, device, "torch" in present
            )
        if has("overheads") and not pieces:
            found["processes"] = run_processes(frameworks, effort, device)
        chosen = [c for c in cases.cases() if has(c.part) and wanted(c.name)]
        if chosen:
            found["cases"] = [run_case(c, team, effort) for c in chosen]
        if has("kernels") and not pieces:
            found["kernels"] = run_kernels(team)
    finally:
        team.end()
    found["idle"] = team.idle
    found["load"] = load.since()
    text = report.markdown(found)
    options.out.mkdir(parents=True, exist_ok=True)
    mark = ("-quick" if options.quick else "") + ("-part" if only else "")
    path = options.out / f"{time.strftime('%Y-%m-%d')}-{machine.short_name()}{mark}"
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".json").write_text(json.dumps(found, indent=1))
    say(text + f"\nwritten: {os.path.relpath(path)}.md and .json")


if __name__ == "__main__":
    main()
