"use strict";
// Panes: the tabs other than Passes: overview, listings, reasons, timeline and memory.

// ---- overview -----------------------------------------------------------------------------------------------------
function viewOverview() {
  const card = (value, name, hint) =>
    h("div", {class: "card"}, h("b", {}, value), h("span", {}, name), h("small", {}, hint || ""));
  const slow = [...index.kernels].sort((a, b) => b.seconds - a.seconds).slice(0, 15),
    most = slow.length ? slow[0].seconds || 1 : 1;
  const peak = index.peaks.reduce((a, p) => (p.bytes > a.bytes ? p : a), {bytes: 0, cause: "", device: ""});
  const canvas = h("canvas", {"aria-label": "Roofline"}),
    none = !index.kernels.length;
  fill(
    $("view"),
    h(
      "div",
      {class: "overview"},
      h(
        "div",
        {class: "cards"},
        card(seconds(index.seconds || 0), "on devices", many(index.launches || 0, "launch", "launches")),
        card(String(index.kernels.length), "kernels", `in ${index.schedules.length} schedules`),
        card(seconds(index.plan || 0), "planning", "tensor graph to kernels"),
        card(
          seconds(index.compile || 0),
          "compiling",
          index.kernels.length ? `${seconds(index.compile / index.kernels.length)} a kernel` : "",
        ),
        card(peak.bytes ? bytes(peak.bytes) : "–", "memory at peak", peak.cause || peak.device),
      ),
      none
        ? h("div", {class: "message"}, "Nothing has been compiled yet. This page follows the program as it runs.")
        : null,
      none
        ? null
        : h(
            "div",
            {class: "panels"},
            h(
              "section",
              {class: "panel"},
              h("h2", {}, "Where the time goes"),
              h(
                "table",
                {class: "slow"},
                h(
                  "tbody",
                  {},
                  slow.map(k =>
                    h(
                      "tr",
                      {tabindex: 0, onclick: () => select(k.id), onkeydown: e => e.key === "Enter" && select(k.id)},
                      h("td", {class: "mono"}, k.name),
                      h("td", {class: "site"}, k.sites.slice(0, 1).map(shortSite)),
                      h("td", {class: "meter"}, h("i", {style: {width: ((100 * k.seconds) / most).toFixed(1) + "%"}})),
                      h("td", {class: "num"}, seconds(k.seconds)),
                      h("td", {class: "num dim"}, k.runs ? k.runs + "×" : ""),
                      h("td", {class: "num dim"}, k.gflops ? rate(k.gflops * 1e9, "FLOP/s") : ""),
                      h("td", {class: "num dim"}, k.gbytes ? rate(k.gbytes * 1e9, "B/s") : ""),
                      h(
                        "td",
                        {class: "num dim", title: "at best, over what the cost model predicts"},
                        k.predicted && k.fastest ? (k.fastest / k.predicted).toFixed(k.fastest < 10 * k.predicted ? 1 : 0) + "× predicted" : "",
                      ),
                    ),
                  ),
                ),
              ),
            ),
            h(
              "section",
              {class: "panel"},
              h("h2", {}, "How near to the machine's limits"),
              h("div", {class: "canvas roof"}, canvas),
            ),
          ),
    ),
  );
  if (!none) new Roofline(canvas, $("tip"), id => select(id)).set(index.kernels, index.devices);
}

// ---- listings -----------------------------------------------------------------------------------------------------
const SYNTAX = {
  source:
    /(\/\/.*|\/\*.*?\*\/|^\s*#.*)|("(?:[^"\\]|\\.)*")|\b(for|if|else|while|return|void|const|static|inline|restrict|__global__|__shared__|__kernel|__local|struct|extern|typedef|define|declare|fn|var|let)\b|\b(int|float|double|char|long|short|unsigned|bool|half|[iu](?:8|16|32|64)|f(?:16|32|64)|u?int\d+_t|size_t)\b|\b(0x[\da-fA-F]+|\d+\.?\d*(?:e[-+]?\d+)?[fuUlL]*)\b/g,
  ir: /(;.*)|("(?:[^"\\]|\\.)*")|\b(define|declare|ret|br|label|phi|call|tail|load|store|getelementptr|inbounds|f?add|f?sub|f?mul|f?div|s?rem|icmp|fcmp|select|alloca|[sz]ext|trunc|bitcast|insertelement|extractelement|shufflevector|align|fast|nsw|nuw|to|target|attributes|and|or|xor|shl|lshr|ashr)\b|(\b(?:i\d+|float|double|half|void|ptr)\b|<\d+ x [^>]*>)|(\b-?\d+\.?\d*(?:e[-+]?\d+)?\b|0x[\dA-Fa-f]+)/g,
  asm: /([#;].*|\/\/.*)|("(?:[^"\\]|\\.)*")|^(\s+[a-z][\w.]*)|(%?\b(?:[xyz]mm\d+|r[a-d]x|r[sd]i|r[sb]p|r\d+[dwb]?|e[a-d]x|e[sd]i|[vxwsdqr]\d+|k\d|rip)\b)|(\$?-?\b(?:0x[\da-f]+|\d+)\b)/g,
  graph:
    /(# .*)|("(?:[^"\\]|\\.)*")|(?<== )([a-z_]\w*)|\b((?:f|i|u|bf|fp)\d+(?:x\d+)?|void|bool(?:x\d+)?)\b|(?<![%\w])(-?\d+\.?\d*(?:e[-+]?\d+)?)\b/g,
  loops:
    /(#.*)|("(?:[^"\\]|\\.)*")|\b(for|in|range|if|else|kernel|barrier|shared|private|fma)\b|\b((?:f|i|u|bf|fp)\d+(?:e\dm\d)?(?:x\d+)?|bool(?:x\d+)?)\b|\b(\d+\.?\d*(?:e[-+]?\d+)?)\b/g,
};
const CLASSES = ["", "s-comment", "s-string", "s-key", "s-type", "s-number"],
  BLOCK = 200,
  HIGHLIGHTED = 6000,
  SHOWN = 40000;

function lineOf(text, syntax) {
  const out = [];
  let at = 0;
  for (const m of text.matchAll(syntax)) {
    const k = CLASSES.findIndex((_, i) => i > 0 && m[i] !== undefined);
    if (m.index > at) out.push(text.slice(at, m.index));
    out.push(h("span", {class: CLASSES[k] || ""}, m[0]));
    at = m.index + m[0].length;
  }
  out.push(text.slice(at) + "\n");
  return out;
}

async function viewText(key) {
  const id = state.id;
  message("loading…");
  let found;
  try {
    found = await load(`text/${id}/${key}`);
  } catch (error) {
    return message(error.message);
  }
  if (state.id !== id || state.tab !== key) return;
  const lines = found.text.replace(/\n$/, "").split("\n"),
    code = h("div", {class: "code"});
  // blocks out of sight cost no layout (content-visibility), so long listings scroll smoothly
  for (let i = 0; i < Math.min(lines.length, SHOWN); i += BLOCK) {
    const part = lines.slice(i, Math.min(i + BLOCK, SHOWN));
    code.append(
      h(
        "div",
        {class: "block", style: {containIntrinsicSize: `auto ${part.length * 19}px`}},
        h("pre", {class: "gutter", "aria-hidden": "true"}, part.map((_, k) => i + k + 1).join("\n")),
        h("pre", {class: "lines"}, i < HIGHLIGHTED ? part.flatMap(l => lineOf(l, SYNTAX[key])) : part.join("\n")),
      ),
    );
  }
  const copy = h(
    "button",
    {
      class: "plain",
      onclick: async () => {
        await navigator.clipboard.writeText(found.text);
        copy.textContent = "Copied";
        setTimeout(() => {
          copy.textContent = "Copy";
        }, 1200);
      },
    },
    "Copy",
  );
  fill(
    $("view"),
    h(
      "div",
      {class: "listing-page"},
      h(
        "div",
        {class: "toolbar"},
        copy,
        h("span", {class: "quiet"}, `${lines.length.toLocaleString("en")} lines`),
        lines.length > SHOWN || found.cut ? h("span", {class: "warn"}, "cut: the rest is not shown") : null,
      ),
      code,
    ),
  );
}

// ---- why ----------------------------------------------------------------------------------------------------------
function viewWhy() {
  const schedules = state.id === OVERVIEW ? index.schedules : detail.kind === "schedule" ? [detail] : [];
  const open = c =>
    kernelById(c.kernel)
      ? h("button", {class: "link mono", onclick: () => select(c.kernel, "passes")}, c.name)
      : h("span", {class: "mono"}, c.name);
  const buffer = text => h("span", {class: "buffer mono"}, text);
  const call = c =>
    h(
      "div",
      {class: "call"},
      h(
        "div",
        {class: "call-head"},
        open(c),
        h("span", {class: "site"}, c.sites.map(shortSite).join("  ")),
        h("span", {class: "dim"}, c.device),
      ),
      c.outs.length || c.ins.length
        ? h("div", {class: "flow"}, c.ins.map(buffer), h("span", {class: "arrow"}, "→"), c.outs.map(buffer))
        : null,
      c.why ? h("p", {class: "reason"}, h("b", {}, "Stored because "), c.why) : null,
      c.unfused.map(u => h("p", {class: "reason no"}, h("b", {}, "Not fused: "), u)),
    );
  const parts = schedules
    .slice(0, 200)
    .map(s =>
      h(
        "section",
        {class: "panel"},
        h("h2", {}, shortSite(s.name), h("small", {}, many(s.calls.length, "call"))),
        s.calls.slice(0, 300).map(call),
        s.calls.length > 300
          ? h("div", {class: "note"}, `${s.calls.length - 300} more calls are not shown; open them in the list.`)
          : null,
      ),
    );
  if (detail) {
    const decisions = detail.why.filter(([subject]) => subject !== "buffer"); // the schedule's line says that one
    if (decisions.length)
      parts.unshift(
        h(
          "section",
          {class: "panel"},
          h("h2", {}, "Decisions"),
          h(
            "table",
            {class: "decisions"},
            h(
              "tbody",
              {},
              decisions.map(([subject, reason]) => h("tr", {}, h("th", {}, subject), h("td", {}, reason))),
            ),
          ),
        ),
      );
    if (detail.kind === "kernel") {
      const s = index.schedules.find(x => x.id === detail.schedule),
        mine = s ? s.calls.filter(c => c.kernel === detail.id) : [];
      if (mine.length)
        parts.push(
          h(
            "section",
            {class: "panel"},
            h("h2", {}, `In the schedule of ${shortSite(s.name)}`),
            mine.slice(0, 20).map(call),
          ),
        );
    }
  }
  fill(
    $("view"),
    h("div", {class: "why"}, parts.length ? parts : h("div", {class: "message"}, "No reasons were recorded here.")),
  );
}

// ---- timeline and memory ------------------------------------------------------------------------------------------
let axis = new TimeAxis(),
  timeline = null,
  memory = [];

async function viewTimeline() {
  axis = new TimeAxis();
  const canvas = h("canvas", {tabindex: 0, "aria-label": "Timeline of kernels; the overview lists the same times"}),
    strip = h("canvas", {"aria-label": "Memory in use"});
  const device = index.peaks.length ? index.peaks[0].device : null,
    box = h("div", {class: "canvas bars"}, canvas);
  fill(
    $("view"),
    h(
      "div",
      {class: "charts"},
      h(
        "div",
        {class: "toolbar"},
        h("button", {class: "plain", onclick: () => axis.fit()}, "Fit"),
        h("span", {class: "quiet"}, "wheel zooms · drag moves · click opens a kernel"),
        h("span", {id: "counts", class: "quiet", role: "status"}),
      ),
      h("div", {class: "scroll"}, box, h("div", {id: "window"})),
      device ? h("div", {class: "canvas strip"}, strip) : null,
    ),
  );
  timeline = new Timeline(canvas, $("tip"), axis, id => select(id, "passes"));
  timeline.box = box;
  timeline.onWindow = paintWindow;
  memory = device ? [new MemoryChart(strip, $("tip"), axis)] : [];
  await refreshCharts(true);
}

// What fills the part of the timeline in sight.
function paintWindow() {
  const box = $("window");
  if (!box || !timeline) return;
  const totals = timeline.totals(),
    most = totals.length ? totals[0][3] : 1,
    span = (axis.hi - axis.lo) * 1e-6;
  fill(
    box,
    h("h2", {}, "In sight", h("small", {}, `${seconds(span)}, from ${seconds(axis.lo * 1e-6)}`)),
    h(
      "table",
      {class: "slow"},
      h(
        "tbody",
        {},
        totals
          .slice(0, 30)
          .map(([name, group, lane, time, count]) =>
            h(
              "tr",
              {tabindex: 0, onclick: () => group >= 0 && select(group, "passes")},
              h("td", {class: "mono"}, lane === "schedule" ? shortSite(name) : name),
              h("td", {class: "site"}, lane),
              h("td", {class: "meter"}, h("i", {style: {width: ((100 * time) / most).toFixed(1) + "%"}})),
              h("td", {class: "num"}, seconds(time)),
              h("td", {class: "num dim"}, count.toLocaleString("en") + "×"),
              h("td", {class: "num dim"}, `${((100 * time) / span).toFixed(1)}%`),
            ),
          ),
      ),
    ),
  );
}

async function viewMemory() {
  axis = new TimeAxis();
  timeline = null;
  memory = [];
  const found = await load("memory"),
    devices = Object.keys(found);
  if (state.tab !== "memory") return;
  if (!devices.length) return message("No memory was reported by this program.");
  const boxes = devices.map(d => {
    const canvas = h("canvas", {"aria-label": "Memory in use on " + d}),
      area = h("div", {class: "canvas area"}, canvas),
      own = new MemoryChart(canvas, $("tip"), axis);
    own.alone = true;
    own.device = d;
    memory.push(own);
    return h(
      "section",
      {class: "panel"},
      h(
        "h2",
        {},
        `${d}: ${bytes(found[d].peak)} at peak`,
        h("small", {}, found[d].cause ? "reached by " + found[d].cause : ""),
      ),
      area,
    );
  });
  fill($("view"), h("div", {class: "charts padded"}, boxes));
  devices.forEach((d, i) => memory[i].set(d, found[d]));
}

async function refreshCharts(first) {
  if (state.tab === "timeline" && timeline) {
    const mine = timeline;
    let data = await load(events && !inside ? `timeline?since=${events.next}` : "timeline");
    if (events && !inside) data = append(events, data);
    events = data;
    if (mine !== timeline) return;
    mine.chosen = detail && detail.kind === "kernel" ? detail.id : -1;
    mine.set(data);
    mine.box.style.height = Math.max(mine.height(), 100) + "px";
    if ($("counts")) $("counts").textContent = `${data.start.length.toLocaleString("en")} events`;
    if (memory.length) {
      const found = await load("memory"),
        d = Object.keys(found)[0];
      if (d && memory.length && mine === timeline) memory[0].set(d, found[d]);
    }
  } else if (state.tab === "memory" && !first) {
    const found = await load("memory");
    if (state.tab === "memory")
      memory.forEach(m => {
        if (found[m.device]) m.set(m.device, found[m.device]);
      });
  }
}

// The answers are columns with their own tables of names: bring the new ones to the numbers of the old.
function append(old, more) {
  const merge = (a, b) =>
    b.map(x => {
      const i = a.indexOf(x);
      return i >= 0 ? i : a.push(x) - 1;
    });
  const out = {...old, lanes: [...old.lanes], names: [...old.names], next: more.next},
    lane = merge(out.lanes, more.lanes),
    name = merge(out.names, more.names);
  out.lane = old.lane.concat(more.lane.map(i => lane[i]));
  out.name = old.name.concat(more.name.map(i => name[i]));
  for (const k of ["group", "start", "length", "bytes", "flops"]) out[k] = old[k].concat(more[k]);
  return out;
}
