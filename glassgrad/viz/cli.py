"""CLI: the record for scripts and for reading in a terminal; the same answers the page is made of."""
from __future__ import annotations

import argparse
import contextlib
import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

from glassgrad.uop.errors import GlassgradError, UsageError
from glassgrad.viz import file, views
from glassgrad.viz.record import Group, Recorder
from glassgrad.viz.server import latest, serve


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m glassgrad.viz", description="Open a record written with VIZ=1, or print parts of it.")
    p.add_argument("file", nargs="?", type=Path, help="a .viz file (default: the newest one in the cache folder)")
    p.add_argument("--json", action="store_true", help="print as JSON: everything, or the part chosen below")
    p.add_argument("--list", choices=("kernels", "schedules"), help="print a table")
    p.add_argument("--kernel", metavar="NAME", help="a kernel or schedule, by name or number: its passes, reasons and times")
    p.add_argument("--text", choices=views.TEXTS, help="with --kernel: print that listing")
    p.add_argument("--pass", dest="step", metavar="NAME", help="with --kernel: what one pass changed, by name or number")
    p.add_argument("--html", type=Path, metavar="OUT", help="write the page with the record inside as one HTML file")
    p.add_argument("--port", type=int, help="serve on this port (default: 8321, or a free one)")
    p.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    return p


def _pick(r: Recorder, name: str) -> Group:
    """A group by number or name; an error names what is there."""
    if name.isdigit(): return views.find(r, int(name))
    found = [g for g in r.groups.values() if g.name == name] or [g for g in r.groups.values() if name in g.name]
    if found: return found[0]
    known = ", ".join(g.name for g in list(r.groups.values())[:8] if g.name)
    raise UsageError(f"viz: no kernel or schedule is named {name!r}\n  there are: {known or 'none'}\n  try: --list kernels")


def _pick_step(g: Group, name: str) -> int:
    if name.isdigit() and int(name) < len(g.steps): return int(name)
    for i, s in enumerate(g.steps):
        if s.name == name: return i
    raise UsageError(f"viz: {g.name} has no pass {name!r}\n  there are: {', '.join(s.name for s in g.steps) or 'none'}")


def table(rows: list[list[Any]], head: list[str]) -> str:
    """Columns as wide as they must be; numbers to the right."""
    cells = [head, *[["" if c is None else f"{c:,.3f}" if isinstance(c, float) else str(c) for c in row] for row in rows]]
    width = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(head))]
    def line(row: list[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, width, right, strict=True)).rstrip()
    return "".join(line(row) + "\n" for row in cells)


def kernels_table(r: Recorder) -> str:
    """The kernels, the slowest first."""
    rows = sorted(views.index(r)["kernels"], key=lambda k: -k["seconds"])
    total = sum(k["seconds"] for k in rows) or 1.0
    def source(k: dict[str, Any]) -> str:
        return " ".join(k["sites"][:2]) + (f"  failed: {k['error'].splitlines()[0]}" if k["error"] else "")
    return table([[k["id"], k["name"], k["runs"], k["seconds"] * 1e3, 100 * k["seconds"] / total, k.get("gflops"), k.get("gbytes"),
                   k["predicted"] and k["predicted"] * 1e3, k["passes"], source(k)] for k in rows],
                 ["id", "kernel", "runs", "ms", "%", "GFLOP/s", "GB/s", "predicted", "passes", "from"])


def schedules_table(r: Recorder) -> str:
    """The schedules, with a line for each call and the reason of its buffer."""
    out = []
    for s in views.index(r)["schedules"]:
        out.append(f"schedule {s['id']}  {s['name']}  {len(s['calls'])} calls, run {s['runs']}x\n")
        out += [f"  {c['name']}  {' '.join(c['sites'][:2])}\n" + (f"      why: {c['why']}\n" if c["why"] else "")
                + "".join(f"      not fused: {u}\n" for u in c["unfused"]) for c in s["calls"]]
    return "".join(out)


def group_text(d: dict[str, Any]) -> str:
    """A kernel's passes and reasons."""
    out = [f"{d['kind']} {d['id']}: {d['name']}\n"] + [f"  {k}: {v}\n" for k, v in d["facts"].items()]
    if d.get("error"): out.append(f"  failed: {d['error']}\n")
    out += [f"  why {subject}: {reason}\n" for subject, reason in d["why"]] + [f"  not fused: {u}\n" for u in d["unfused"]]
    out.append(table([[s["index"], s["stage"], s["name"], s["new"], s["gone"], s["nodes"], s["fired"]] for s in d["steps"]],
                     ["", "stage", "pass", "new", "gone", "nodes", "rules fired"]))
    return "".join(out)


def step_text(d: dict[str, Any]) -> str:
    """What a pass changed: rules with an example each, then the nodes that went and came."""
    out = [f"pass {' + '.join(d['names'])}" + (f": {d['why']}" if d["why"] else "") + "\n"]
    for rule, count in sorted(d["rules"].items(), key=lambda kv: -kv[1]):
        example = next((f for f in d["fired"] if f["rule"] == rule), None)
        shown = f"   {d['terms'].get(example['before'], '?')}  ->  {d['terms'].get(example['after'], '?')}" if example else ""
        out.append(f"  {count:>5} x {rule}{shown}\n")
    for side, mark, sign in (("before", "gone", "-"), ("after", "new", "+")):
        for n in d[side]["nodes"]:
            if d[side]["marks"].get(n) != mark: continue
            row = d["rows"][n]
            src = " ".join(f"%{s}" for s in row["src"])
            site = f"    # {row['site']}" if row["site"] else ""
            out.append(f"  {sign} %{n} = {row['op']} {row['dtype']} {row['arg']} {src}".rstrip() + f"{site}\n")
    return "".join(out)


def _print(r: Recorder, args: argparse.Namespace) -> bool:
    """Print what was asked for; False if nothing was."""
    put = sys.stdout.write
    def show(data: Any, text: str) -> None: put(json.dumps(data, default=repr, indent=1) + "\n" if args.json else text)
    if args.kernel:
        g = _pick(r, args.kernel)
        if args.text:
            listing = views.text(r, g.id, args.text)
            show(listing, listing["text"])
        elif args.step:
            i = _pick_step(g, args.step)
            step = views.compare(r, g.id, i, i)
            show(step, step_text(step))
        else:
            detail = views.group(r, g.id)
            show(detail, group_text(detail))
    elif args.text or args.step: raise UsageError("viz: --text and --pass belong to one kernel\n  try: --kernel NAME --text asm")
    elif args.list == "kernels": show(views.index(r)["kernels"], kernels_table(r))
    elif args.list == "schedules": show(views.index(r)["schedules"], schedules_table(r))
    elif args.json: show({"index": views.index(r), "groups": [views.group(r, id) for id in list(r.groups)], "memory": views.memory(r)}, "")
    else: return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    args = _parser().parse_args(argv)
    try:
        path = args.file or latest()
        if path is None: raise UsageError("viz: no record was found\n  try: VIZ=1 python train.py, then python -m glassgrad.viz")
        r = file.load(path)
        if args.html:
            args.html.write_text(file.page_with_data(r), encoding="utf-8")
            return 0
        if _print(r, args): return 0
        server = serve(r, args.port)
    except BrokenPipeError: return 0
    except (GlassgradError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"VIZ: {server.url} shows {path} (Ctrl-C to leave)\n")
    sys.stdout.flush()
    if not args.no_browser: webbrowser.open(server.url)
    with contextlib.suppress(KeyboardInterrupt): server.closing.wait()
    server.stop()
    return 0
