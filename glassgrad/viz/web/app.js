"use strict";
// App: the state of the page, the list on the left, the choice of a tab, keys, news from the program. Everything shown comes from a
// handful of JSON answers (viz/views.py), from the server or, in a saved page, from the data inside it.

const $ = id => document.getElementById(id);
const inside = $("data") ? JSON.parse($("data").textContent) : null;
const OVERVIEW = -1,
  ROW = 46;
const TABS = [
  ["overview", "Overview"],
  ["passes", "Passes"],
  ["loops", "Loop nest"],
  ["source", "Source"],
  ["ir", "LLVM IR"],
  ["asm", "Assembly"],
  ["graph", "Text form"],
  ["why", "Why"],
  ["timeline", "Timeline"],
  ["memory", "Memory"],
];
const state = {
  id: OVERVIEW,
  tab: "overview",
  first: 0,
  last: 0,
  mode: "changes",
  consts: false,
  ranges: true,
  order: "run",
  query: "",
  picked: null,
};
let index = {kernels: [], schedules: [], peaks: [], notes: [], devices: {}, kinds: {}},
  detail = null,
  rows = [],
  closed = new Set();
let ticket = 0,
  comparison = null,
  events = null;

function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (k === "class") el.className = v;
    else if (k === "style") Object.assign(el.style, v);
    else if (v === true) el.setAttribute(k, "");
    else if (v !== false && v !== null && v !== undefined) el.setAttribute(k, v);
  }
  el.append(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
  return el;
}

function fill(el, ...children) {
  el.replaceChildren(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
}
const many = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more || one + "s"}`;

async function load(path) {
  if (inside) {
    if (!(path in inside))
      throw new Error(
        "This saved page does not hold that comparison; open the record with python -m glassgrad.viz to choose freely.",
      );
    return inside[path];
  }
  const answer = await fetch("/api/" + path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// ---- the list -----------------------------------------------------------------------------------------------------
function kernelById(id) {
  return index.kernels.find(k => k.id === id);
}

function buildRows() {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean),
    most = Math.max(...index.kernels.map(k => k.seconds), 1e-12);
  const fits = (k, s) =>
    words.every(w => `${k.name} ${(k.sites || []).join(" ")} ${s ? s.name : ""}`.toLowerCase().includes(w));
  const kernelRow = (k, call, s) => ({
    type: "kernel",
    key: k.id,
    k,
    share: k.seconds / most,
    sites: call ? call.sites : k.sites,
    schedule: s,
  });
  rows = [{type: "home", key: OVERVIEW}];
  if (state.order === "time") {
    rows.push(
      ...index.kernels
        .filter(k => fits(k))
        .sort((a, b) => b.seconds - a.seconds)
        .map(k => kernelRow(k)),
    );
  } else {
    const byId = new Map(index.kernels.map(k => [k.id, k])),
      placed = new Set();
    for (const s of index.schedules) {
      const calls = s.calls.filter(c => byId.has(c.kernel) && fits({...byId.get(c.kernel), sites: c.sites}, s));
      s.calls.forEach(c => placed.add(c.kernel));
      if (words.length && !calls.length) continue;
      rows.push({type: "schedule", key: s.id, s});
      if (!closed.has(s.id) || words.length) rows.push(...calls.map(c => kernelRow(byId.get(c.kernel), c, s)));
    }
    const loose = index.kernels.filter(k => !placed.has(k.id) && fits(k));
    rows.push(...loose.map(k => kernelRow(k)));
  }
  $("rows").style.height = rows.length * ROW + "px";
  paintRows();
}

// Only the rows in sight are elements, so a list of thousands costs no more than one of thirty.
function paintRows() {
  const list = $("list"),
    from = Math.max(Math.floor(list.scrollTop / ROW) - 4, 0),
    to = Math.min(from + Math.ceil(list.clientHeight / ROW) + 8, rows.length);
  const total = index.seconds || 1;
  fill(
    $("rows"),
    ...rows.slice(from, to).map((r, i) => {
      const top = {top: (from + i) * ROW + "px"},
        chosen = r.key === state.id;
      const props = {
        class: `row ${r.type}` + (chosen ? " chosen" : ""),
        style: top,
        role: "option",
        "aria-selected": String(chosen),
        onclick: () => select(r.key),
      };
      if (r.type === "home")
        return h(
          "div",
          props,
          h("span", {class: "name"}, "Overview"),
          h(
            "span",
            {class: "site"},
            `${many(index.kernels.length, "kernel")} in ${many(index.schedules.length, "schedule")}`,
          ),
        );
      if (r.type === "schedule")
        return h(
          "div",
          props,
          h(
            "button",
            {
              class: "fold",
              "aria-label": "fold",
              onclick: e => {
                e.stopPropagation();
                closed.has(r.key) ? closed.delete(r.key) : closed.add(r.key);
                buildRows();
              },
            },
            closed.has(r.key) ? "▸" : "▾",
          ),
          h("span", {class: "name"}, shortSite(r.s.name)),
          h(
            "span",
            {class: "site"},
            many(r.s.calls.length, "call") +
              (r.s.runs > 1 ? ` · run ${r.s.runs}×` : "") +
              ` · planned in ${seconds(r.s.took)}`,
          ),
        );
      const bar = h("i", {class: "share", style: {width: (r.share * 100).toFixed(1) + "%"}});
      return h(
        "div",
        props,
        bar,
        h("span", {class: "name" + (r.k.error ? " bad" : "")}, r.k.name),
        h("span", {class: "time"}, r.k.runs ? seconds(r.k.seconds) : "–"),
        h("span", {class: "site"}, r.sites.length ? r.sites.slice(0, 3).map(shortSite).join("  ") : "no user line"),
        h("span", {class: "part"}, r.k.runs && r.k.seconds ? ((100 * r.k.seconds) / total).toFixed(1) + "%" : ""),
      );
    }),
  );
}

function reveal() {
  const i = rows.findIndex(r => r.key === state.id),
    list = $("list");
  if (i < 0) return;
  if (i * ROW < list.scrollTop) list.scrollTop = i * ROW;
  else if ((i + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (i + 1) * ROW - list.clientHeight;
}

// ---- choosing -----------------------------------------------------------------------------------------------------
function writeHash() {
  const parts = {
    k: state.id,
    tab: state.tab,
    p: state.first === state.last ? state.first : `${state.first}-${state.last}`,
    view: state.mode,
  };
  history.replaceState(
    null,
    "",
    "#" +
      Object.entries(parts)
        .map(([k, v]) => `${k}=${v}`)
        .join("&"),
  );
}

function readHash() {
  const parts = Object.fromEntries(
    location.hash
      .slice(1)
      .split("&")
      .map(p => p.split("=")),
  );
  if (/^-?\d+$/.test(parts.k || "")) state.id = +parts.k;
  if (TABS.some(([t]) => t === parts.tab)) state.tab = parts.tab;
  const span = /^(\d+)(?:-(\d+))?$/.exec(parts.p || "");
  if (span) {
    state.first = +span[1];
    state.last = +(span[2] || span[1]);
  }
  if (["changes", "before", "after", "split", "text"].includes(parts.view)) state.mode = parts.view;
}

async function select(id, tab, keepStep) {
  state.id = id;
  if (tab) state.tab = tab;
  document.body.classList.remove("open");
  detail = null;
  if (id !== OVERVIEW) {
    try {
      detail = await load(`group/${id}`);
    } catch (error) {
      fill($("head"));
      fill($("tabs"));
      return message(error.message);
    }
    if (state.id !== id) return; // another was chosen meanwhile
    if (!keepStep) {
      const kept = detail.steps.findIndex(s => s.name === state.stepName && !s.same),
        changed = detail.steps.findIndex(s => !s.same);
      state.first = state.last = kept >= 0 ? kept : Math.max(changed, 0);
    }
    state.last = Math.min(state.last, Math.max(detail.steps.length - 1, 0));
    state.first = Math.min(state.first, state.last);
    if (state.tab === "overview") state.tab = detail.kind === "schedule" && !detail.steps.length ? "why" : "passes";
  } else if (!["overview", "timeline", "memory", "why"].includes(state.tab)) state.tab = "overview";
  paintRows();
  reveal();
  paintHead();
  paintTabs();
  paintView();
}

function has(tab) {
  if (["timeline", "memory", "why"].includes(tab)) return true;
  if (tab === "overview") return state.id === OVERVIEW;
  if (!detail) return false;
  return tab === "passes" ? detail.steps.length > 0 : detail.texts.includes(tab);
}

function paintTabs() {
  const shown = TABS.filter(([t]) =>
    t === "overview" ? state.id === OVERVIEW : state.id !== OVERVIEW ? true : ["timeline", "memory", "why"].includes(t),
  );
  const here = shown.filter(([t]) =>
    detail && detail.kind === "schedule" ? ["passes", "why", "timeline", "memory"].includes(t) : true,
  );
  fill(
    $("tabs"),
    ...here.map(([t, name], i) =>
      h(
        "button",
        {
          role: "tab",
          "aria-selected": String(t === state.tab),
          disabled: !has(t),
          title: has(t) ? `${name} (${i + 1})` : "not recorded for this kernel",
          onclick: () => {
            state.tab = t;
            paintTabs();
            paintView();
          },
        },
        name,
      ),
    ),
  );
}

function chip(value, name, title) {
  return h("span", {class: "chip", title}, h("b", {}, value), " ", name);
}

function paintHead() {
  const head = $("head");
  if (!detail)
    return fill(
      head,
      h("h1", {}, index.title),
      h(
        "div",
        {class: "chips"},
        chip(String(index.kernels.length), index.kernels.length === 1 ? "kernel" : "kernels"),
        chip(String(index.schedules.length), index.schedules.length === 1 ? "schedule" : "schedules"),
      ),
    );
  const d = detail,
    chips = [];
  if (d.kind === "kernel") {
    if (d.runs)
      chips.push(
        chip(seconds(d.seconds / d.runs), "a launch"),
        chip(seconds(d.fastest), "at best"),
        chip(String(d.runs), d.runs === 1 ? "launch" : "launches"),
      );
    if (index.seconds && d.seconds)
      chips.push(chip(((100 * d.seconds) / index.seconds).toFixed(1) + "%", "of device time"));
    if (d.gflops) chips.push(chip(rate(d.gflops * 1e9, "FLOP/s"), ""));
    if (d.gbytes) chips.push(chip(rate(d.gbytes * 1e9, "B/s"), ""));
    if (d.predicted) chips.push(chip(seconds(d.predicted), "predicted"));
    if (d.took) chips.push(chip(seconds(d.took), "to compile"));
  } else
    chips.push(
      chip(String(d.calls.length), d.calls.length === 1 ? "call" : "calls"),
      chip(String(d.runs), d.runs === 1 ? "run" : "runs"),
      chip(seconds(d.took), "to plan"),
    );
  for (const [k, v] of Object.entries(d.facts)) {
    const isBytes = k.endsWith("_bytes") && /^\d+$/.test(v),
      text = isBytes ? bytes(+v) : v;
    if (v !== "(1, 1, 1)" && v !== "0")
      chips.push(
        chip(text.length > 40 ? text.slice(0, 39) + "…" : text, k.replace(/_bytes$/, "").replaceAll("_", " "), v),
      );
  }
  fill(
    head,
    h("h1", {}, d.kind === "schedule" ? "schedule " + shortSite(d.name) : d.name),
    h(
      "div",
      {class: "from", title: d.sites.join("\n")},
      d.sites.length
        ? "from " +
            d.sites.slice(0, 4).map(shortSite).join(", ") +
            (d.sites.length > 4 ? ` and ${d.sites.length - 4} more lines` : "")
        : "",
    ),
    h("div", {class: "chips"}, chips),
    d.error ? h("pre", {class: "error"}, d.error) : null,
    ...d.notes.map(n => h("div", {class: "note"}, n)),
  );
}

function message(text) {
  fill($("view"), h("div", {class: "message"}, text));
}

function paintView() {
  writeHash();
  $("tip").hidden = true;
  if (!has(state.tab)) state.tab = TABS.map(t => t[0]).find(t => has(t) && t !== "overview") || "why";
  for (const b of $("tabs").children)
    b.setAttribute("aria-selected", String(b.textContent === TABS.find(t => t[0] === state.tab)[1]));
  (
    ({overview: viewOverview, passes: viewPasses, why: viewWhy, timeline: viewTimeline, memory: viewMemory})[
      state.tab
    ] || (() => viewText(state.tab))
  )();
}

// ---- live ---------------------------------------------------------------------------------------------------------
const REST = 1000; // milliseconds between two looks at a running program: looking takes its time too
let due = null,
  looked = 0,
  busy = false;
function refreshSoon() {
  if (due === null) due = setTimeout(refresh, Math.max(looked + REST - performance.now(), 0));
}
async function refresh() {
  due = null;
  if (busy) return refreshSoon();
  busy = true;
  try {
    index = await load("index");
    paintBar();
    buildRows();
    if (state.id !== OVERVIEW) {
      const found = await load(`group/${state.id}`),
        grown = !detail || found.steps.length !== detail.steps.length;
      const changed = !detail || JSON.stringify(found.texts) !== JSON.stringify(detail.texts);
      detail = found;
      paintHead();
      paintTabs();
      if (state.tab === "passes" && grown && $("steps")) {
        paintSteps();
        if (!comparison) showStep();
      } else if (changed && !has(state.tab)) paintView();
    } else if (state.tab === "overview") {
      const top = $("view").firstChild ? $("view").firstChild.scrollTop : 0;
      paintHead();
      viewOverview();
      $("view").firstChild.scrollTop = top;
    }
    await refreshCharts(false);
  } catch (error) {
    setLive("lost", "server gone");
  }
  busy = false;
  looked = performance.now();
}

function setLive(kind, text) {
  $("live").className = kind;
  $("live").textContent = text;
}

function paintBar() {
  $("title").textContent = index.title;
  document.title = `${index.title} · glassgrad`;
  if (inside) setLive("ended", "saved");
  else setLive(index.ended ? "ended" : "running", index.ended ? "ended" : "running");
  $("totals").textContent = index.launches
    ? `${many(index.launches, "launch", "launches")} · ${seconds(index.seconds)}`
    : "";
  $("notes").hidden = !index.notes.length;
  $("notes").textContent = index.notes.join(" ");
}

function listen() {
  if (inside) return;
  const stream = new EventSource("/api/events");
  stream.onmessage = e => {
    if (JSON.parse(e.data).version !== index.version) refreshSoon();
  };
  stream.onerror = () => setLive("lost", "server gone");
}

// ---- keys ---------------------------------------------------------------------------------------------------------
const KEYS = [
  ["↑ ↓  or  k j", "kernel above, below"],
  ["← →", "previous, next pass (with Shift: compare over several)"],
  ["1 … 9", "tabs"],
  ["d  s  b  a  x", "changes, side by side, before, after, text"],
  ["c  r", "constants, ranges as nodes"],
  ["f", "whole graph or timeline in sight"],
  ["+  −", "zoom the graph"],
  ["/", "search"],
  ["o", "overview"],
  ["t", "dark or light"],
  ["Esc", "leave search, node, this help"],
];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch (_) {
    /* storage may be off */
  }
  for (const v of Object.values(views)) v.draw();
  for (const c of [timeline, ...memory]) if (c) c.draw();
  if (state.tab === "overview" && state.id === OVERVIEW) viewOverview();
}
function turnTheme() {
  setTheme(getComputedStyle(document.documentElement).getPropertyValue("--theme").trim() === "dark" ? "light" : "dark");
}

function move(by) {
  const i = rows.findIndex(r => r.key === state.id),
    next = rows[Math.min(Math.max((i < 0 ? 0 : i) + by, 0), rows.length - 1)];
  if (next && next.key !== state.id) select(next.key);
}

function onKey(e) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
  if (e.key === "Escape") {
    if (typing) {
      e.target.value = "";
      e.target.dispatchEvent(new Event("input"));
      e.target.blur();
    } else if (state.picked !== null && comparison) pickNode(null);
    return document.body.classList.remove("open");
  }
  if (typing || e.ctrlKey || e.metaKey || e.altKey) return;
  const step = by => {
    if (state.tab === "passes" && detail) goStep((by < 0 ? state.first : state.last) + by, e.shiftKey);
  };
  const tab = n => {
    const b = $("tabs").children[n];
    if (b && !b.disabled) b.click();
  };
  const zoom = k => {
    for (const v of Object.values(views)) v.zoom(k, v.canvas.clientWidth / 2, v.canvas.clientHeight / 2);
  };
  const graph = fn => () => {
    if (state.tab === "passes" && comparison) fn();
  };
  const actions = {
    ArrowDown: () => move(1),
    j: () => move(1),
    ArrowUp: () => move(-1),
    k: () => move(-1),
    ArrowRight: () => step(1),
    ArrowLeft: () => step(-1),
    "/": () => $("search").focus(),
    t: turnTheme,
    o: () => select(OVERVIEW, "overview"),
    "?": showKeys,
    d: graph(() => setMode("changes")),
    s: graph(() => setMode("split")),
    b: graph(() => setMode("before")),
    a: graph(() => setMode("after")),
    x: graph(() => setMode("text")),
    c: graph(() => setFlag("consts")),
    r: graph(() => setFlag("ranges")),
    f: () => (state.tab === "timeline" || state.tab === "memory" ? axis.fit() : graph(() => fit())()),
    "+": graph(() => zoom(1.25)),
    "=": graph(() => zoom(1.25)),
    "-": graph(() => zoom(0.8)),
  };
  const action = actions[e.key] || (/^[1-9]$/.test(e.key) ? () => tab(+e.key - 1) : null);
  if (action) {
    e.preventDefault();
    action();
  }
}

function showKeys() {
  fill(
    $("keys"),
    h("h2", {}, "Keys"),
    h(
      "table",
      {},
      h(
        "tbody",
        {},
        KEYS.map(([k, what]) => h("tr", {}, h("td", {}, h("kbd", {}, k)), h("td", {}, what))),
      ),
    ),
    h("form", {method: "dialog"}, h("button", {class: "plain"}, "Close")),
  );
  $("keys").showModal();
}

async function begin() {
  try {
    const saved = localStorage.getItem("theme");
    if (saved) document.documentElement.dataset.theme = saved;
  } catch (_) {
    /* storage may be off */
  }
  if (inside) $("export").hidden = true;
  readHash();
  $("search").addEventListener("input", e => {
    state.query = e.target.value;
    $("list").scrollTop = 0;
    buildRows();
  });
  $("search").addEventListener("keydown", e => {
    if (e.key === "Enter") {
      const first = rows.find(r => r.type === "kernel");
      if (first) {
        select(first.key);
        e.target.blur();
      }
    }
  });
  for (const b of $("order").children)
    b.addEventListener("click", () => {
      state.order = b.dataset.order;
      for (const o of $("order").children) o.setAttribute("aria-pressed", String(o === b));
      buildRows();
    });
  $("list").addEventListener("scroll", paintRows);
  new ResizeObserver(paintRows).observe($("list"));
  $("theme").addEventListener("click", turnTheme);
  $("help").addEventListener("click", showKeys);
  $("menu").addEventListener("click", () => document.body.classList.toggle("open"));
  addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    const was = state.id;
    readHash();
    if (state.id !== was) select(state.id, state.tab, true);
  });
  try {
    index = await load("index");
  } catch (error) {
    return message(error.message);
  }
  paintBar();
  buildRows();
  await select(
    index.kernels.some(k => k.id === state.id) || index.schedules.some(s => s.id === state.id) ? state.id : OVERVIEW,
    null,
    true,
  );
  listen();
  document.body.dataset.ready = "yes";
}
begin();
