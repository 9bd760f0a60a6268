"""The report of a run: bars, tables, and how it was measured, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import heldout
import models

COMPILE_BARS = {
    "resnet18_forward": (0.6, 6),
    "gpt2_forward": (0.5, 4),
    "resnet18_train": (2.0, 6),
    "resnet50_forward": (0.9, None),
}  # CPU seconds; times less than tinygrad's
JAX_SHARE_BAR = 0.8
WARM_BAR_S = 0.5
START_BARS_S = {"cold": 0.9, "warm": 0.35}
UNET_BAR_S = 3.0
MEMORY_BAR = 0.8  # of torch's
MEAN_BAR, WORST_BAR = 0.7, 1.05  # of the best peer's time, over all cases
SPEEDUP_BAR = 1.8
IDLE_SHARE = 0.02  # of a CPU: more in an idle worker would disturb the others
OVERHEAD_BARS = {
    ("4x4 add", "jit"): ("replay of a jitted 4x4 add", 5e-6),
    ("4x4 add", "eager"): ("eager 4x4 add of a seen shape", 100e-6),
    ("1,000 chained adds", "build"): ("1,000 lazy adds built", 10e-3),
    ("1,000 chained adds", "eager"): ("1,000 lazy adds built and realized", 60e-3),
}
IMPORT_BAR_S = 60e-3
KERNEL_BARS = {
    "softmax": 1,
    "log_softmax": 1,
    "layernorm": 1,
    "argmax": 1,
    "attention": 2,
    "matmul+bias+gelu+residual": 1,
}
COMPARED = dict.fromkeys(COMPILE_BARS, 1e-4) | {"resnet18_train": 1e-3}  # tolerances of the compile table
MODES = {
    "glassgrad": "jit",
    "torch": "eager",
    "torch.compile": "compile",
    "onnxruntime": "session",
    "tinygrad": "jit",
    "jax": "jit",
}  # what is compared


class Bar(NamedTuple):
    """What was asked, what was measured, and whether that is enough (None: not measured)."""

    name: str
    asked: str
    found: str
    is_met: bool | None


# ---- bars ----------------------------------------------------------------------------------------------------------
def bars(run: dict[str, Any]) -> list[Bar]:
    """All bars that this run measured."""
    rows = run.get("cases", [])
    return [
        *[b for c in rows for b in case_bars(c)],
        *overall_bars([c for c in rows if c["case"]["part"] == "speed"]),
        *heldout_bars(run.get("heldout", {})),
        *compile_bars(run.get("compile", {})),
        *start_bars(run.get("start", {})),
        *memory_bars(run.get("memory", {})),
        *process_bars(run.get("processes", {})),
        *kernel_bars(run.get("kernels", {})),
        *agreement_bars(run),
        *repeat_bars(run.get("repeat", {})),
    ]


def compile_bars(nets: dict[str, Any]) -> Iterator[Bar]:
    for net, rows in nets.items():
        limit, factor = COMPILE_BARS[net]
        ours, warm, tinygrad, jax = (
            rows.get(f, {}).get("compile_cpu_s") for f in ("glassgrad", "glassgrad warm", "tinygrad", "jax")
        )
        yield at_most(f"compile {net}", ours, limit, seconds)
        yield at_most(f"compile {net}, share of jax's", ratio(ours, jax), JAX_SHARE_BAR, times)
        if factor:
            yield at_most(
                f"compile {net}, share of tinygrad's",
                ratio(ours, tinygrad),
                1 / factor,
                lambda x: f"1/{1 / x:.1f}" if x else "0",
            )
        yield at_most(f"compile {net}, warm cache", warm, WARM_BAR_S, seconds)


def start_bars(found: dict[str, Any]) -> Iterator[Bar]:
    for name, limit in START_BARS_S.items():
        if found:
            yield at_most(f"process start to the first result of ResNet-18, {name}", found[name].get("wall_s"), limit, seconds)
    if found:
        yield at_most("denoiser on NULL: scheduled and rendered, CPU time", found["unet"].get("null_cpu_s"), UNET_BAR_S, seconds)


def memory_bars(rows: dict[str, Any]) -> Iterator[Bar]:
    if rows:
        ours, torch = (rows.get(f, {}).get("peak_bytes") for f in ("glassgrad", "torch"))
        yield at_most("peak memory of ResNet-18 training, of torch's", ratio(ours, torch), MEMORY_BAR, times)


def case_bars(row: dict[str, Any]) -> Iterator[Bar]:
    case, results = row["case"], row["results"]
    for threads, frameworks in results.items():
        at = f"{threads} thread{'s' if threads != '1' else ''}"
        if case["part"] == "overheads":
            for (name, mode), (what, limit) in OVERHEAD_BARS.items():
                if name == case["name"]:
                    yield at_most(f"{what}, {at}", median(frameworks, "glassgrad", mode), limit, seconds)
            continue
        best, share = best_peer(frameworks, case["tolerance"])
        yield at_most(f"{case['name']}, {at}: of the best peer's time" + (f" ({best})" if best else ""), share, case["bar"], times)
    if case["is_bound"] and "1" in results and "2" in results:
        gain = ratio(median(results["1"], "glassgrad"), median(results["2"], "glassgrad"))
        yield Bar(
            f"{case['name']}: gain of a second thread",
            f">= {SPEEDUP_BAR}x",
            times(gain),
            None if gain is None else gain >= SPEEDUP_BAR,
        )


def best_peer(results: dict[str, Any], tolerance: float) -> tuple[str, float | None]:
    """The fastest peer of a case on some threads whose values are right, and our time over its."""

    def is_right(p: str) -> bool:
        error = results[p][MODES[p]].get("error")
        return error is None or error <= tolerance

    known = {p: median(results, p) for p in MODES if p != "glassgrad" and median(results, p) and is_right(p)}
    if not known:
        return "", None
    best = min(known, key=known.__getitem__)
    return best, ratio(median(results, "glassgrad"), known[best])


def overall_bars(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    """Over all cases and thread counts."""
    shares = {(r["case"]["name"], n): best_peer(f, r["case"]["tolerance"])[1] for r in rows for n, f in r["results"].items()}
    known = {k: v for k, v in shares.items() if v}
    if known:
        mean = math.exp(sum(map(math.log, known.values())) / len(known))
        yield at_most(f"all {len(known)} of them: geometric mean of the best peer's time", mean, MEAN_BAR, times)
        (name, n), worst = max(known.items(), key=lambda kv: kv[1])
        yield at_most(f"all of them: the worst ({name}, {n} thread{'s' if n != '1' else ''})", worst, WORST_BAR, times)


def heldout_bars(found: dict[str, Any]) -> Iterator[Bar]:
    for family, rows in found.items():
        d = heldout.distribution(rows) or {}
        yield at_most(f"held-out {family}: median of torch's time", d.get("median"), heldout.MEDIAN_BAR, times)
        yield at_most(f"held-out {family}: 95th percentile", d.get("p95"), heldout.P95_BAR, times)
    if found:
        bad = [f"{f} {r['number']}" for f, rows in found.items() for r in rows if "failed" in r or r.get("wrong")]
        count = sum(map(len, found.values()))
        yield Bar("held-out shapes: values", "all right", f"{count - len(bad)} of {count}" + (f"; not {', '.join(bad)}" if bad else ""), not bad)


def repeat_bars(found: dict[str, Any]) -> Iterator[Bar]:
    if found:
        bad = [name for name, v in found["cases"].items() if v != "equal"]
        n = len(found["cases"])
        text = f"{n - len(bad)} of {n}" + (f"; not {', '.join(bad)}" if bad else "")
        yield Bar(f"two processes, {found['threads']} threads: same bytes", "all", text, not bad)


def process_bars(rows: dict[str, Any]) -> Iterator[Bar]:
    if "glassgrad" in rows:
        yield at_most("import glassgrad", rows["glassgrad"]["import"]["median"], IMPORT_BAR_S, seconds)


def kernel_bars(counts: dict[str, Any]) -> Iterator[Bar]:
    ours = counts.get("glassgrad") or {}
    if counts:
        for name, limit in KERNEL_BARS.items():
            yield at_most(f"kernels of {name}", ours.get(name), limit, lambda x: f"{x:g}")


def agreement_bars(run: dict[str, Any]) -> Iterator[Bar]:
    """One bar: glassgrad computed what was asked, everywhere."""
    errors = [
        (f"{c['case']['name']} {mode}", m["error"], c["case"]["tolerance"])
        for c in run.get("cases", [])
        for f in c["results"].values()
        for mode, m in f.get("glassgrad", {}).items()
        if isinstance(m, dict) and m.get("error") is not None
    ]
    errors += [
        (net, r["error"], COMPARED[net])
        for net, rows in run.get("compile", {}).items()
        for name, r in rows.items()
        if name.startswith("glassgrad") and r.get("error") is not None
    ]
    if errors:
        bad = sorted({name for name, error, limit in errors if error > limit})
        yield Bar(
            "results of glassgrad equal the float64 reference",
            "within tolerance",
            f"{len(errors) - len(bad)} of {len(errors)}" + (f"; not {', '.join(bad)}" if bad else ""),
            not bad,
        )


def at_most(name: str, value: float | None, limit: float, show: Any) -> Bar:
    return Bar(
        name, f"<= {show(limit)}", show(value) if value is not None else "-", None if value is None else value <= limit
    )


# ---- tables --------------------------------------------------------------------------------------------------------
def markdown(run: dict[str, Any]) -> str:
    """The whole report."""
    found = bars(run)
    met = sum(b.is_met is True for b in found)
    machine, versions = run["machine"], run["versions"]
    text = [
        f"# Side by side on {machine['cpu']}",
        "",
        f"{run['started']}, {machine['cpus']} CPUs, {machine['memory_gb']} GB, {machine['system']}; "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + (f"; tinygrad on {run['tinygrad_device']}" if run["tinygrad_device"] else "")
        + ".",
    ]
    text += [f"Absent: {name} ({why})." for name, why in run["absent"].items()]
    load = run.get("load")
    if load:
        text += [
            f"While it ran, other processes used {load['others']:.0%} of the CPUs, the hypervisor {load['stolen']:.1%}"
            + (
                ": **the machine was not idle, the times are noise.**"
                if load["others"] + load["stolen"] > 0.05
                else "."
            )
        ]
    whole = f"It took {run['seconds'] / 60:.0f} minutes."
    text += [whole if run["is_whole"] else "**Not the whole run: it was stopped, or is still at it.**"]
    if run["quick"]:
        text += ["A quick run: few repetitions, to see that everything works."]
    text += ["", f"## Bars: {met} of {sum(b.is_met is not None for b in found)} met", ""]
    text += table(
        ["", "bar", "asked", "measured"],
        [
            [{True: "met", False: "**not met**", None: "not measured"}[b.is_met], b.name, b.asked, b.found]
            for b in found
        ],
    )
    timed = [c for c in run.get("cases", []) if c["case"]["part"] == "speed"]
    if timed:
        for threads in timed[0]["results"]:
            text += speed_table(timed, threads, run["frameworks"])
        text += (
            gains_table(timed, run["frameworks"])
            + limits_table(run["cases"])
            + agreement_table(timed, run["frameworks"])
        )
    small = [c for c in run.get("cases", []) if c["case"]["part"] == "overheads"]
    if small:
        text += overheads_table(small, run["frameworks"])
    if run.get("heldout"):
        head = "Times of glassgrad under jit over those of torch eager, one thread; then the ten slowest of each family."
        text += ["", "## Held-out shapes", "", head, "", *heldout.lines(run["heldout"])]
    if "compile" in run:
        text += compile_table(run["compile"])
    if "start" in run:
        text += start_table(run["start"])
    if run.get("memory"):
        text += memory_table(run["memory"])
    if "processes" in run:
        text += processes_table(run["processes"])
    if "kernels" in run:
        text += kernels_table(run["kernels"])
    return "\n".join([*text, *method(run), ""])


def compile_table(nets: dict[str, Any]) -> list[str]:
    names = list(dict.fromkeys(n for rows in nets.values() for n in rows))

    def cell(r: dict[str, Any] | None) -> str:
        if r is None:
            return "-"
        return (
            f"failed: {r['failed']}"
            if "failed" in r
            else f"{r['compile_cpu_s']:.2f} ({min(r['runs']):.2f}-{max(r['runs']):.2f})"
        )

    rows = [
        [
            net,
            *[cell(rows.get(n)) for n in names],
            *[
                times(ratio(rows.get(n, {}).get("compile_cpu_s"), rows.get("glassgrad", {}).get("compile_cpu_s")))
                for n in names
                if n in ("tinygrad", "jax")
            ],
            agreement([(n, rows[n].get("error")) for n in names if n in rows], COMPARED[net]),
        ]
        for net, rows in nets.items()
    ]
    head = ["net", *names, *[f"{n} / glassgrad" for n in names if n in ("tinygrad", "jax")], "results agree"]
    return ["", "## Compile time, CPU seconds", "", "Median (least-most) over fresh processes.", "", *table(head, rows)]


def start_table(found: dict[str, Any]) -> list[str]:
    body = []
    for name in START_BARS_S:
        r = found[name]
        cells = [seconds(r[k]) for k in ("wall_s", "start_s", "forward_s")] if "failed" not in r else [r["failed"], "", ""]
        body.append([f"ResNet-18, {name}", *cells])
    head = ["", "process start to first result", "interpreter and NumPy of it", "the forward itself"]
    r = found["unet"]
    text = r.get("failed") or (
        f"{r['kernels']:.0f} kernels; on NULL, which schedules, lowers and renders: {r['null_cpu_s']:.2f} s of CPU time; "
        f"LLVM compiling what it rendered: {r['llvm_cpu_s']:.2f} s more."
    )
    return ["", "## From the start", "", *table(head, body), "", f"The denoiser of Stable Diffusion 1.5: {text}"]


def memory_table(rows: dict[str, Any]) -> list[str]:
    def cells(r: dict[str, Any]) -> list[str]:
        return [f"{r[k] / 2**20:.0f} MB" for k in ("peak_bytes", "before_bytes")] if "failed" not in r else [r["failed"], ""]

    head = ["a training step of ResNet-18", "resident peak less that before the first step", "before the first step"]
    return ["", "## Memory", "", *table(head, [[f, *cells(r)] for f, r in rows.items()])]


def speed_table(rows: list[dict[str, Any]], threads: str, frameworks: list[str]) -> list[str]:
    peers = [f for f in frameworks if f != "glassgrad"]
    head = ["case", "glassgrad", *peers, "rate", "of the limit", "/ torch", "/ best peer", "bar"]
    body = []
    for row in rows:
        case, results = row["case"], row["results"][threads]
        ours, (best, share) = median(results, "glassgrad"), best_peer(results, case["tolerance"])
        rate, limit = rate_of(case, ours), results.get("limits", {}).get(case["limit"], {}).get("median")
        body.append(
            [
                case["name"],
                spread(results, "glassgrad", "jit"),
                *[spread(results, p, MODES[p]) for p in peers],
                f"{rate:.1f} {'GFLOP/s' if case['limit'] == 'fma' else 'GB/s'}" if rate else "-",
                f"{rate / limit:.0%}" if rate and limit else "-",
                times(ratio(ours, median(results, "torch"))),
                f"{times(share)} ({best})" if best else "-",
                times(case["bar"]),
            ]
        )
    return [
        "",
        f"## Speed, {threads} thread{'s' if threads != '1' else ''}",
        "",
        "Median ms (10th-90th percentile).",
        "",
        *table(head, body),
    ]


def gains_table(rows: list[dict[str, Any]], frameworks: list[str]) -> list[str]:
    """What a second thread brings everyone, and what it brings the machine's limits."""
    if not {"1", "2"} <= rows[0]["results"].keys():
        return []

    def limit(row: dict[str, Any]) -> float | None:
        one, two = (row["results"][n].get("limits", {}).get(row["case"]["limit"], {}).get("median") for n in ("1", "2"))
        return ratio(two, one)

    body = [
        [
            r["case"]["name"],
            *[times(ratio(median(r["results"]["1"], f), median(r["results"]["2"], f))) for f in frameworks],
            times(limit(r)),
        ]
        for r in rows
    ]
    return ["", "## Gain of a second thread", "", *table(["case", *frameworks, "the machine's limit"], body)]


def limits_table(rows: list[dict[str, Any]]) -> list[str]:
    """The limits, over all cases they were measured beside."""
    names = {
        "fma": "FMA in registers, GFLOP/s",
        "read": "reading memory, GB/s",
        "copy": "copying memory, GB/s both ways",
    }
    threads = list(rows[0]["results"])

    def cell(kind: str, n: str) -> str:
        found = [r["results"][n]["limits"][kind] for r in rows if kind in r["results"][n].get("limits", {})]
        found = [f for f in found if f["median"] is not None]
        return (
            f"{max(f['median'] for f in found):.1f} ({min(f['p10'] for f in found):.1f}-"
            f"{max(f['p90'] for f in found):.1f})"
            if found
            else "-"
        )

    body = [[text, *[cell(kind, n) for n in threads]] for kind, text in names.items()]
    return [
        "",
        "## The machine's limits, measured in the same rounds",
        "",
        "Best median (10th-90th percentile of all).",
        "",
        *table(["", *[f"{n} thread{'s' if n != '1' else ''}" for n in threads]], body),
    ]


def agreement_table(rows: list[dict[str, Any]], frameworks: list[str]) -> list[str]:
    body = []
    for row in rows:
        errors = {
            f: [
                m["error"]
                for r in row["results"].values()
                for m in r.get(f, {}).values()
                if isinstance(m, dict) and m.get("error") is not None
            ]
            for f in frameworks
        }
        body.append(
            [
                row["case"]["name"],
                *[f"{max(e):.1e}" if e else "-" for e in errors.values()],
                f"{row['case']['tolerance']:.0e}",
                agreement([(f, max(e) if e else None) for f, e in errors.items()], row["case"]["tolerance"]),
            ]
        )
    return [
        "",
        "## Same results",
        "",
        "Largest difference from float64, as a share of the largest value.",
        "",
        *table(["case", *frameworks, "tolerance", "agree"], body),
    ]


def overheads_table(rows: list[dict[str, Any]], frameworks: list[str]) -> list[str]:
    body = []
    for row in rows:
        for mode in ("jit", "eager", "build"):
            for threads, results in row["results"].items():
                if not any(mode in results.get(f, {}) for f in frameworks):
                    continue
                first = results.get("glassgrad", {}).get(mode, {}).get("first_s")
                body.append(
                    [
                        f"{row['case']['name']}, {mode}",
                        threads,
                        *[spread(results, f, mode) for f in frameworks],
                        seconds(first) if first else "-",
                    ]
                )
    return [
        "",
        "## Overheads",
        "",
        "Median ms (10th-90th percentile) of one call.",
        "",
        *table(["", "threads", *frameworks, "glassgrad's first call"], body),
    ]


def processes_table(rows: dict[str, Any]) -> list[str]:
    body = [
        [
            f,
            f"{r['import']['median'] * 1e3:.0f} ms ({r['import']['p10'] * 1e3:.0f}-{r['import']['p90'] * 1e3:.0f})",
            f"{r['import_rss'] / 2**20:.0f} MB",
            f"{r['add_rss'] / 2**20:.0f} MB",
        ]
        for f, r in rows.items()
    ]
    return ["", "## Processes", "", *table(["", "import", "memory after import", "after a 4x4 add"], body)]


def kernels_table(counts: dict[str, Any]) -> list[str]:
    names = [n for n in KERNEL_BARS if any(n in (c or {}) for c in counts.values())]
    body = [
        [f, *[str((c or {}).get(n, "-")) for n in names]]
        if "failed" not in (c or {})
        else [f, c["failed"], *[""] * (len(names) - 1)]
        for f, c in counts.items()
    ]
    return ["", "## Kernels", "", *table(["", *names], body)]


METHOD = """
## How

- Every framework in a process of its own per number of threads, pinned to that many CPUs; {rounds} rounds of turns of
  about {turn_s} s each, one at a time, the first changing from round to round; one call before each turn is not timed.
- torch runs eager in inference mode and, in a column of its own, compiled by its inductor (default mode; the optimizer's
  step eager); jax jitted with its arrays on the device, training state and caches donated; tinygrad under TinyJit;
  onnxruntime with all graph optimisations, arrays bound or plainly, whichever is faster; glassgrad under jit. Calls end
  when all results are in memory. Results are new memory where a framework makes them so.
- A call of more than {turn_s} s is one turn; after {mode_s:g} s a column has no further turn. '>20x': its last call before the
  turns took more than twenty times as long as the best peer's, and none was timed; who is four times slower gets two rounds. 'too
  slow': not ready within {open_limit_s} s. '>4x': so slow with one thread, and more than {slow:g} s to get ready. 'first call': more than
  {long:g} s to get ready, and then 1.5 times as slow as the best peer. None of these is tried with two threads. '-': the framework
  has no such operation, training, or dtype. A peer whose values are wrong is not the best.
- Inputs are random; those of sorts have no equal values. bfloat16 products give bfloat16, int8 ones int32 (torch: _int_mm,
  ONNX: MatMulInteger). A sort gives values, an argsort places, a topk both; to ONNX a sort is a TopK of all.
- The decoding step writes its keys and values at place {position} of caches of {cache} tokens; torch and tinygrad attend to
  the part that is filled, jax, onnxruntime and glassgrad to all of it under a mask.
- Rates count the least arithmetic or memory traffic of the case; small arrays may stay in a cache, so a share of the
  limit can exceed 100 %.
- gelu is the formula with tanh everywhere. BatchNorm uses running statistics in the forward cases, the batch's in
  training, which is SGD with momentum; compared are the losses of the first three steps.
- Held-out shapes: one thread, both in worker processes pinned to the same CPU, taking turns of 8 ms; the best turn's median.
- Compile time: CPU seconds, children included, of the first three calls less three steady ones; nets are built and
  weights loaded before. A peer that has used {compile_s:g} s is not run again; tinygrad, in its own process instead of its pool, is
  run once. No cache on disk, but for the rows of glassgrad with a warm cache: a folder that one process before has filled.
- From the start of a process: wall time from before the process is made until the first result is in NumPy: interpreter,
  imports, net, loading the weights, compilation, one forward. Drawing the random weights is not counted.
- Memory: fresh processes, default threads; the resident peak (VmHWM, reset after four steps) over four more steps, less what
  was resident before the first. It holds what the first steps leave behind; 'glassgrad warm' takes its programs from disk.
- Who used more than {share:.0%} of a CPU while others had their turn: {busy}."""


def method(run: dict[str, Any]) -> list[str]:
    """How it was measured, and who disturbed it."""
    busy = [f"{name} ({x:.0%})" for name, x in run.get("idle", {}).items() if x > IDLE_SHARE]
    effort = run["effort"]
    return METHOD.format(
        rounds=effort["rounds"],
        turn_s=effort["turn_s"],
        open_limit_s=effort["open_limit_s"],
        mode_s=effort["mode_s"],
        slow=effort["slow_ready_s"],
        long=effort["long_ready_s"],
        position=models.POSITION,
        cache=models.CACHE_TOKENS,
        compile_s=effort["compile_s"],
        share=IDLE_SHARE,
        busy=", ".join(busy) or "nobody",
    ).splitlines()


# ---- small things --------------------------------------------------------------------------------------------------
def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *["| " + " | ".join(r) + " |" for r in rows]]


def median(results: dict[str, Any], framework: str, mode: str | None = None) -> float | None:
    found = results.get(framework, {}).get(mode or MODES[framework])
    return found["median"] if isinstance(found, dict) and "hopeless" not in found else None


def spread(results: dict[str, Any], framework: str, mode: str) -> str:
    row = results.get(framework, {})
    m = row.get(mode)
    if m and "hopeless" in m:
        return ">20x"
    if "given_up" in row:
        return row["given_up"]
    if "failed" in row:
        return "failed"
    return "-" if not m or m["median"] is None else f"{milli(m['median'])} ({milli(m['p10'])}-{milli(m['p90'])})"


def rate_of(case: dict[str, Any], s: float | None) -> float | None:
    return None if not s else (case["flops"] if case["limit"] == "fma" else case["bytes"]) / s / 1e9


def agreement(errors: list[tuple[str, float | None]], limit: float) -> str:
    known = [(name, e) for name, e in errors if e is not None]
    if not known:
        return "not compared"
    bad = [f"{name} ({e:.0e})" for name, e in known if e > limit]
    return "yes" if not bad else f"**no: {', '.join(bad)}**"


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def times(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}x"


def milli(s: float) -> str:
    return f"{s * 1e3:.4g}"


def seconds(s: float) -> str:
    return f"{s:.2f} s" if s >= 0.1 else f"{s * 1e3:.1f} ms" if s >= 1e-3 else f"{s * 1e6:.0f} us"
