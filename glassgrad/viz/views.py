"""Views: the answers the page, the CLI and a saved file are made of. Each is plain data, ready for JSON.

All take a `Recorder`, live or read from a file, and hold its lock only while they read graphs.
"""
from __future__ import annotations

import re
from typing import Any

from glassgrad import flow
from glassgrad.uop.errors import UsageError
from glassgrad.uop.ops import Ops
from glassgrad.viz import graphs
from glassgrad.viz.record import Event, Group, Recorder, Step

_WHY = {p.name: p.why for p in (*flow.TENSOR_FLOW, *flow.KERNEL_FLOW)} | {"linearize": "a machine runs one instruction after the other"}
GRAPH_NODES = 3_000      # of one graph that the page draws
FIRED_SHOWN = 500
TEXT_CHARS = 4_000_000   # of one listing
TEXTS = ("loops", "source", "ir", "asm", "graph")


def index(r: Recorder) -> dict[str, Any]:
    """Everything the left column and the overview show: schedules, kernels, totals, notes."""
    groups = list(r.groups.values())
    kernels = [kernel_row(g) for g in groups if g.kind == "kernel"]
    schedules = [schedule_row(r, g) for g in groups if g.kind == "schedule" and (g.calls or g.steps)]
    return {
        "title": r.title, "version": r.version, "started": r.started, "ended": r.ended, "kernels": kernels, "schedules": schedules,
        "seconds": sum(k["seconds"] for k in kernels), "launches": sum(k["runs"] for k in kernels),
        "peaks": [{"device": d, "t": t, "bytes": b, "cause": c} for d, (t, b, c) in list(r.peaks.items())],
        "devices": dict(r.devices), "notes": notes(r), "kinds": op_kinds(),
        "compile": sum(g.took for g in groups if g.kind == "kernel"), "plan": sum(g.took for g in groups if g.kind == "schedule"),
    }


def notes(r: Recorder) -> list[str]:
    """What was left out, as sentences."""
    return [f"{count:,} {what} were dropped to bound memory: the oldest are gone." for what, count in r.dropped.items() if count]


def op_kinds() -> dict[str, str]:
    """Op name to kind, for colours."""
    return {o.name: o.kind for o in Ops.all()}


def kernel_row(g: Group) -> dict[str, Any]:
    """One kernel in a list."""
    rates = {}
    if g.runs and g.fastest > 0:
        rates = {"gflops": g.flops / g.fastest / 1e9, "gbytes": g.bytes / g.fastest / 1e9}
    return {"id": g.id, "name": g.name, "runs": g.runs, "seconds": g.seconds, "fastest": g.fastest if g.runs else None,
            "bytes": g.bytes, "flops": g.flops, "sites": list(g.sites), "schedule": g.schedule, "took": g.took,
            "passes": len(g.steps), "error": g.error, "predicted": g.predicted or None, **rates}


def schedule_row(r: Recorder, g: Group) -> dict[str, Any]:
    """One schedule in a list; its calls name their kernels by number."""
    calls = [{"name": c.name, "kernel": c.kernel if c.kernel in r.groups else -1, "sites": list(c.sites), "why": c.why,
              "unfused": list(c.unfused), "device": c.device, "outs": list(c.outs), "ins": list(c.ins), "bytes": c.bytes,
              "flops": c.flops} for c in g.calls]
    return {"id": g.id, "name": g.name or "not finished", "sites": list(g.sites), "runs": g.runs, "took": g.took, "passes": len(g.steps),
            "calls": calls, "facts": facts(g)}


def facts(g: Group) -> dict[str, str]:
    """The free facts of a group as text."""
    return {k: v if isinstance(v, str) else repr(v) for k, v in g.facts.items()}


def find(r: Recorder, id: int) -> Group:
    """A group by number, or a UsageError."""
    if id not in r.groups: raise UsageError(f"viz: there is no kernel or schedule number {id}; it may have been dropped to bound memory")
    return r.groups[id]


def group(r: Recorder, id: int) -> dict[str, Any]:
    """One kernel or schedule: its passes with their counts, which texts it has, the reasons, the notes."""
    g = find(r, id)
    with r.lock:
        g.settle(r.limits.rows)
        passes = [step_row(g, i, s) for i, s in enumerate(g.steps)]
        lost = [f"{g.lost} graphs were too big to keep."] if g.lost else []
    row = kernel_row(g) if g.kind == "kernel" else schedule_row(r, g)
    return {**row, "kind": g.kind, "facts": facts(g), "steps": passes, "texts": [k for k in TEXTS if g.texts.get(k)],
            "notes": g.notes + lost, "why": [list(w) for w in g.why] + [["buffer", c["why"]] for c in _calls_of(r, g) if c["why"]],
            "unfused": [n for c in _calls_of(r, g) for n in c["unfused"]]}


def _calls_of(r: Recorder, g: Group) -> list[dict[str, Any]]:
    """The schedule lines that a kernel stands in."""
    if g.kind != "kernel" or g.schedule not in r.groups: return []
    return [c for c in schedule_row(r, r.groups[g.schedule])["calls"] if c["kernel"] == g.id]


def step_row(g: Group, i: int, s: Step) -> dict[str, Any]:
    """One pass in a list."""
    if s.seen is None:
        before, after, _ = graphs.marks(g.rows, s.before, s.after)
        s.seen = (sum(m == "gone" for m in before.values()), sum(m == "new" for m in after.values()), len(graphs.reach(g.rows, s.after)))
    gone, new, nodes = s.seen
    return {"index": i, "stage": s.stage, "name": s.name, "why": reason(s), "gone": gone, "new": new, "nodes": nodes,
            "fired": sum(s.counts.values()), "rules": len(s.counts), "seconds": s.seconds, "same": s.before == s.after,
            "kept": s.after is not None}


def reason(s: Step) -> str:
    """Why a pass is there: what it said itself, or what the flow says of it."""
    return s.why or _WHY.get(s.name, "")


def compare(r: Recorder, id: int, first: int, last: int, limit: int = GRAPH_NODES, focus: int | None = None) -> dict[str, Any]:
    """The graph before pass `first` and after pass `last`, with what changed, and the rules that fired in between."""
    g = find(r, id)
    with r.lock:
        g.settle(r.limits.rows)
        if not 0 <= first <= last < len(g.steps):
            raise UsageError(f"viz: {g.name} has passes 0 to {len(g.steps) - 1}, not {first} to {last}")
        steps = g.steps[first:last + 1]
        before, after = steps[0].before, steps[-1].after
        old, new, pairs = graphs.marks(g.rows, before, after)
        sides = [(before, old, graphs.reach(g.rows, before)), (after, new, graphs.reach(g.rows, after))]
        shown = [graphs.nearest(g.rows, nodes, [focus] if focus in nodes else [root, *(n for n, m in ms.items() if m != "rebuilt")], limit)
                 for root, ms, nodes in sides]
        fired = [{"rule": f.rule, "before": f.before, "after": f.after, "pass": s.name} for s in steps for f in s.fired][:FIRED_SHOWN]
        wanted = set(shown[0]) | set(shown[1])
        for f in fired: wanted |= {n for n in (f["before"], f["after"]) if n is not None}
        texts = {n: [f["rule"] for f in fired if f["after"] == n] for n in {f["after"] for f in fired} if n is not None}
        rows = {n: g.rows[n]._asdict() for n in sorted(wanted)}
        terms = {n: term(g, n) for f in fired for n in (f["before"], f["after"]) if n is not None}
    counts: dict[str, int] = {}
    for s in steps:
        for rule, n in s.counts.items(): counts[rule] = counts.get(rule, 0) + n
    return {"first": first, "last": last, "names": [s.name for s in steps], "why": reason(steps[-1]), "rows": rows, "rules": counts,
            "fired": fired, "made_by": texts, "terms": terms, "pairs": pairs,
            "before": {"root": before, "nodes": shown[0], "total": len(sides[0][2]), "marks": old},
            "after": {"root": after, "nodes": shown[1], "total": len(sides[1][2]), "marks": new}}


def term(g: Group, n: int) -> str:
    """A node for people; unlike inside an expression, an axis says all about itself."""
    row = g.rows[n]
    if row.op == "RANGE" and row.src: return f"RANGE[{row.arg}]({expression(g, row.src[0])})"
    return expression(g, n)


def expression(g: Group, n: int, depth: int = 4) -> str:
    """A node as a term, a few levels deep: `ADD(MUL(x, 2), r0)`."""
    row = g.rows[n]
    if row.op == "CONST": return row.arg
    if row.op in ("RANGE", "PARAM", "SPECIAL", "SCRATCH", "BUFFER"): return row.arg.split(" ")[0]
    head = row.op + (f"[{row.arg}]" if row.arg else "")
    if not row.src: return head
    if depth == 0: return f"{row.op}(…)"
    mark = getattr(getattr(Ops, row.op, None), "text", None)
    parts = [expression(g, s, depth - 1) for s in row.src[:8]] + (["…"] if len(row.src) > 8 else [])
    if row.op == "LOAD" and depth: return f"{parts[0]}[{', '.join(parts[1:])}]"
    if mark and len(parts) == 2: return f"({parts[0]} {mark} {parts[1]})"
    return f"{head}({', '.join(parts)})"


def text(r: Recorder, id: int, key: str) -> dict[str, Any]:
    """One listing of a kernel: loops, source, ir or asm."""
    g = find(r, id)
    with r.lock: made = g.text(key)
    return {"id": id, "key": key, "text": made[:TEXT_CHARS], "cut": max(len(made) - TEXT_CHARS, 0)}


def timeline(r: Recorder, since: int = 0) -> dict[str, Any]:
    """The events from number `since` on, as columns: lane, name, group, start, microseconds of start and length, bytes, flops."""
    events = _snapshot(r)
    first = r.event_count - len(events)
    events = events[max(since - first, 0):]
    lanes, names = list(dict.fromkeys(e[0] for e in events)), list(dict.fromkeys(e[1] for e in events))
    lane_of, name_of = {x: i for i, x in enumerate(lanes)}, {x: i for i, x in enumerate(names)}
    return {"next": r.event_count, "lanes": lanes, "names": names, "lane": [lane_of[e[0]] for e in events],
            "name": [name_of[e[1]] for e in events], "group": [e[2] for e in events], "start": [round(e[3] * 1e6, 1) for e in events],
            "length": [round((e[4] - e[3]) * 1e6, 1) for e in events], "bytes": [e[5] for e in events], "flops": [e[6] for e in events]}


def _snapshot(r: Recorder) -> list[Event]:
    while True:
        try: return list(r.events)
        except RuntimeError: continue   # the program appended meanwhile


def memory(r: Recorder) -> dict[str, Any]:
    """Bytes in use over time, per device, thinned to what a screen can show; the peak is always among them."""
    out = {}
    for device, samples in list(r.samples.items()):
        samples = list(samples)
        step = max(len(samples) // 4_000, 1)
        thin = [max(samples[i:i + step], key=lambda s: s[1]) for i in range(0, len(samples), step)] if step > 1 else samples
        t, peak, cause = r.peaks[device]
        out[device] = {"t": [round(s[0] * 1e6, 1) for s in thin], "bytes": [s[1] for s in thin], "peak": peak,
                       "peak_t": round(t * 1e6, 1), "cause": cause}
    return out


def answer(r: Recorder, path: str, query: dict[str, str]) -> dict[str, Any]:
    """The data behind a path of the page: index, timeline, memory, group/N, text/N/KEY, compare/N/FIRST/LAST."""
    def number(name: str) -> int | None: return int(query[name]) if re.fullmatch(r"\d{1,9}", query.get(name, "")) else None
    parts = path.strip("/").split("/")
    numbers = [int(p) for p in parts[1:] if re.fullmatch(r"\d{1,9}", p)]
    if parts == ["index"]: return index(r)
    if parts == ["timeline"]: return timeline(r, number("since") or 0)
    if parts == ["memory"]: return memory(r)
    if parts[0] == "group" and len(parts) == 2 and numbers: return group(r, numbers[0])
    if parts[0] == "text" and len(parts) == 3 and numbers and parts[2] in TEXTS: return text(r, numbers[0], parts[2])
    if parts[0] == "compare" and len(parts) == 4 and len(numbers) == 3:
        return compare(r, numbers[0], numbers[1], numbers[2], limit=min(number("limit") or GRAPH_NODES, 20_000), focus=number("focus"))
    raise UsageError(f"viz: no such page: {path[:80]!r}")
