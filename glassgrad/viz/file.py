"""File: a record as one compressed JSON document, and the page with the data inside as one HTML file.

Reading trusts nothing: sizes are bounded, every number is checked, and no code is ever loaded.
"""
from __future__ import annotations

import html
import json
import math
import zlib
from pathlib import Path
from typing import Any

from glassgrad.uop.errors import FileError
from glassgrad.viz import views
from glassgrad.viz.record import Call, Fired, Group, Limits, Recorder, Row, Step

FORMAT = 2
BYTES_LIMIT = 1 << 30       # of a record, unpacked
_TEXTS = views.TEXTS
_NUMBERS = ("runs", "seconds", "bytes", "flops", "began", "took", "schedule", "lost", "predicted")


def _group_data(g: Group) -> dict[str, Any]:
    return {"id": g.id, "kind": g.kind, "name": g.name, "rows": g.rows, "texts": {k: g.text(k) for k in list(g.texts)},
            "facts": views.facts(g), "why": g.why, "calls": g.calls, "sites": g.sites, "notes": g.notes, "error": g.error,
            "fastest": g.fastest if g.runs and math.isfinite(g.fastest) else None, **{k: getattr(g, k) for k in _NUMBERS},
            "steps": [[s.stage, s.name, s.before, s.after, s.fired, s.counts, s.seconds, s.why] for s in g.steps]}


def save(r: Recorder, path: Path) -> int:
    """Write a record; gives the number of bytes. The file appears whole or not at all."""
    r.settle()
    with r.lock: groups = [_group_data(g) for g in r.groups.values()]
    data = {"glassgrad viz": FORMAT, "title": r.title, "started": r.started, "groups": groups, "events": list(r.events),
            "event_count": r.event_count, "samples": r.samples, "peaks": r.peaks, "devices": r.devices, "dropped": r.dropped}
    packed = zlib.compress(json.dumps(data, default=repr, separators=(",", ":")).encode(), 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(packed)
    part.replace(path)
    return len(packed)


def load(path: Path) -> Recorder:
    """Read a record; a FileError says what is wrong with the file."""
    try: packed = path.read_bytes()
    except OSError as error: raise FileError(f"viz: cannot read {path}: {error.strerror}") from error
    unpack = zlib.decompressobj()
    try: text = unpack.decompress(packed, BYTES_LIMIT)
    except zlib.error as error: raise FileError(f"viz: {path} is not a record written by VIZ") from error
    if unpack.unconsumed_tail: raise FileError(f"viz: {path} unpacks to more than {BYTES_LIMIT >> 20} MiB")
    if not unpack.eof: raise FileError(f"viz: {path} is cut off: {len(packed)} bytes are there, more are missing")
    try: data = json.loads(text)
    except ValueError as error: raise FileError(f"viz: {path} is damaged: {error}") from error
    if not isinstance(data, dict) or data.get("glassgrad viz") != FORMAT:
        raise FileError(f"viz: {path} is not a record of format {FORMAT}; record it again with this version")
    try: return _recorder(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(f"viz: {path} is damaged: {type(error).__name__}: {error}") from error


def _recorder(data: dict[str, Any]) -> Recorder:
    r = Recorder(str(data["title"]), Limits())
    r.started, r.ended, r.version = float(data["started"]), True, 1
    for d in data["groups"]:
        g = _group(d)
        r.groups[g.id] = g
        if g.kind == "kernel": r._by_name[g.name] = g.id
    r._next = max(r.groups, default=-1) + 1
    for lane, name, group, t0, t1, nbytes, flops in data["events"]:
        r.events.append((str(lane), str(name), int(group), float(t0), float(t1), int(nbytes), int(flops)))
    r.event_count = max(int(data["event_count"]), len(r.events))
    r.samples = {str(d): [(float(t), int(b)) for t, b in samples] for d, samples in data["samples"].items()}
    r.peaks = {str(d): (float(t), int(b), str(c)) for d, (t, b, c) in data["peaks"].items() if d in r.samples}
    r.devices = {str(d): dict(facts) for d, facts in data["devices"].items()}
    r.dropped = {str(k): int(n) for k, n in data["dropped"].items()}
    return r


def _group(d: dict[str, Any]) -> Group:
    g = Group(int(d["id"]), "kernel" if d["kind"] == "kernel" else "schedule", str(d["name"]))
    for i, (op, dtype, arg, src, shape, site) in enumerate(d["rows"]):
        if not all(isinstance(s, int) and 0 <= s < i for s in src): raise ValueError(f"node {i} has a source that does not come before it")
        shape = None if shape is None else tuple([int(n) for n in shape])
        g.rows.append(Row(str(op), str(dtype), str(arg), tuple(src), shape, None if site is None else str(site)))
    def node(n: Any) -> int | None:
        if n is None: return None
        if not isinstance(n, int) or not 0 <= n < len(g.rows): raise ValueError(f"there is no node {n}")
        return n
    for stage, name, before, after, fired, counts, seconds, why in d["steps"]:
        rows = [Fired(str(rule), node(b), node(a)) for rule, b, a in fired]
        g.steps.append(Step(str(stage), str(name), node(before), node(after), rows, {str(k): int(n) for k, n in counts.items()},
                            None if seconds is None else float(seconds), str(why)))
    g.texts = {k: str(d["texts"][k]) for k in _TEXTS if k in d["texts"]}
    g.facts = {str(k): str(v) for k, v in d["facts"].items()}
    g.why = [(str(subject), str(reason)) for subject, reason in d["why"]]
    g.calls = [_call(c) for c in d["calls"]]
    g.sites, g.notes = tuple(map(str, d["sites"])), [str(n) for n in d["notes"]]
    g.error = None if d["error"] is None else str(d["error"])
    for k in _NUMBERS: setattr(g, k, type(getattr(g, k))(d[k]))
    if d["fastest"] is not None: g.fastest = float(d["fastest"])
    return g


def _call(c: list[Any]) -> Call:
    name, sites, why, unfused, device, outs, ins, nbytes, flops, kernel = c
    return Call(str(name), tuple(map(str, sites)), str(why), tuple(map(str, unfused)), str(device), tuple(map(str, outs)),
                tuple(map(str, ins)), int(nbytes), int(flops), None if kernel is None else int(kernel))


# ---- one file of HTML --------------------------------------------------------------------------------------------------------------
WEB = Path(__file__).parent / "web"


def answers(r: Recorder) -> dict[str, Any]:
    """Every answer the page can ask for without choosing passes to compare itself."""
    out = {"index": views.index(r), "timeline": views.timeline(r), "memory": views.memory(r)}
    for g in list(r.groups.values()):
        out[f"group/{g.id}"] = detail = views.group(r, g.id)
        for key in detail["texts"]: out[f"text/{g.id}/{key}"] = views.text(r, g.id, key)
        for s in detail["steps"]:
            if not s["same"]: out[f"compare/{g.id}/{s['index']}/{s['index']}"] = views.compare(r, g.id, s["index"], s["index"], limit=600)
        if detail["steps"]:
            last = len(detail["steps"]) - 1
            out[f"compare/{g.id}/0/{last}"] = views.compare(r, g.id, 0, last, limit=600)
    return out


def page_with_data(r: Recorder) -> str:
    """The whole page as one HTML file that needs no server: to attach to a report or a mail."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    data = json.dumps(answers(r), default=repr, separators=(",", ":")).replace("<", "\\u003c")
    style = (WEB / "style.css").read_text(encoding="utf-8")
    page = page.replace('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>")
    for name in SCRIPTS:
        code = (WEB / name).read_text(encoding="utf-8").replace("</script", "<\\/script")
        page = page.replace(f'<script src="{name}"></script>', f'<script id="{name}">{code}</script>')
    page = page.replace("<!--data-->", f'<script type="application/json" id="data">{data}</script>')
    return page.replace("<title>glassgrad</title>", f"<title>{html.escape(r.title)} · glassgrad</title>")


SCRIPTS = ("layout.js", "graph.js", "charts.js", "passes.js", "panes.js", "app.js")
