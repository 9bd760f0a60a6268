"use strict";
// App: the state of the page, the list on the left, the tabs. Everything shown comes from a handful of JSON answers (viz/views.py),
// from the server or, in a saved page, from the data inside it.

const $ = id => document.getElementById(id);
const inside = $("data") ? JSON.parse($("data").textContent) : null;
const OVERVIEW = -1, ROW = 46;
const TABS = [["overview", "Overview"], ["passes", "Passes"], ["loops", "Loop nest"], ["source", "Source"], ["ir", "LLVM IR"], ["asm", "Assembly"], ["graph", "Text form"], ["why", "Why"], ["timeline", "Timeline"], ["memory", "Memory"]];
const state = {id: OVERVIEW, tab: "overview", first: 0, last: 0, mode: "changes", consts: false, ranges: true, order: "run", query: "", picked: null};
let index = {kernels: [], schedules: [], peaks: [], notes: [], devices: {}, kinds: {}}, detail = null, rows = [], closed = new Set();
let ticket = 0, comparison = null, events = null;

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

function fill(el, ...children) { el.replaceChildren(...children.flat().filter(c => c !== null && c !== undefined && c !== false)); }
const many = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more || one + "s"}`;

async function load(path) {
  if (inside) {
    if (!(path in inside)) throw new Error("This saved page does not hold that comparison; open the record with python -m glassgrad.viz to choose freely.");
    return inside[path];
  }
  const answer = await fetch("/api/" + path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// ---- the list -----------------------------------------------------------------------------------------------------------------------
function kernelById(id) { return index.kernels.find(k => k.id === id); }

function buildRows() {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean), most = Math.max(...index.kernels.map(k => k.seconds), 1e-12);
  const fits = (k, s) => words.every(w => `${k.name} ${(k.sites || []).join(" ")} ${s ? s.name : ""}`.toLowerCase().includes(w));
  const kernelRow = (k, call, s) => ({type: "kernel", key: k.id, k, share: k.seconds / most, sites: call ? call.sites : k.sites, schedule: s});
  rows = [{type: "home", key: OVERVIEW}];
  if (state.order === "time") {
    rows.push(...index.kernels.filter(k => fits(k)).sort((a, b) => b.seconds - a.seconds).map(k => kernelRow(k)));
  } else {
    const byId = new Map(index.kernels.map(k => [k.id, k])), placed = new Set();
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
  const list = $("list"), from = Math.max(Math.floor(list.scrollTop / ROW) - 4, 0), to = Math.min(from + Math.ceil(list.clientHeight / ROW) + 8, rows.length);
  const total = index.seconds || 1;
  fill($("rows"), ...rows.slice(from, to).map((r, i) => {
    const top = {top: (from + i) * ROW + "px"}, chosen = r.key === state.id;
    const props = {class: `row ${r.type}` + (chosen ? " chosen" : ""), style: top, role: "option", "aria-selected": String(chosen), onclick: () => select(r.key)};
    if (r.type === "home") return h("div", props, h("span", {class: "name"}, "Overview"), h("span", {class: "site"}, `${index.kernels.length} kernels in ${index.schedules.length} schedules`));
    if (r.type === "schedule") return h("div", props,
      h("button", {class: "fold", "aria-label": "fold", onclick: e => { e.stopPropagation(); closed.has(r.key) ? closed.delete(r.key) : closed.add(r.key); buildRows(); }}, closed.has(r.key) ? "▸" : "▾"),
      h("span", {class: "name"}, shortSite(r.s.name)), h("span", {class: "site"}, `${r.s.calls.length} calls` + (r.s.runs > 1 ? ` · run ${r.s.runs}×` : "") + ` · planned in ${seconds(r.s.took)}`));
    const bar = h("i", {class: "share", style: {width: (r.share * 100).toFixed(1) + "%"}});
    return h("div", props, bar, h("span", {class: "name" + (r.k.error ? " bad" : "")}, r.k.name), h("span", {class: "time"}, r.k.runs ? seconds(r.k.seconds) : "–"),
      h("span", {class: "site"}, r.sites.length ? r.sites.slice(0, 3).map(shortSite).join("  ") : "no user line"), h("span", {class: "part"}, r.k.runs && r.k.seconds ? (100 * r.k.seconds / total).toFixed(1) + "%" : ""));
  }));
}

function reveal() {
  const i = rows.findIndex(r => r.key === state.id), list = $("list");
  if (i < 0) return;
  if (i * ROW < list.scrollTop) list.scrollTop = i * ROW;
  else if ((i + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (i + 1) * ROW - list.clientHeight;
}

// ---- choosing -----------------------------------------------------------------------------------------------------------------------
function writeHash() {
  const parts = {k: state.id, tab: state.tab, p: state.first === state.last ? state.first : `${state.first}-${state.last}`, view: state.mode};
  history.replaceState(null, "", "#" + Object.entries(parts).map(([k, v]) => `${k}=${v}`).join("&"));
}

function readHash() {
  const parts = Object.fromEntries(location.hash.slice(1).split("&").map(p => p.split("=")));
  if (/^-?\d+$/.test(parts.k || "")) state.id = +parts.k;
  if (TABS.some(([t]) => t === parts.tab)) state.tab = parts.tab;
  const span = /^(\d+)(?:-(\d+))?$/.exec(parts.p || "");
  if (span) { state.first = +span[1]; state.last = +(span[2] || span[1]); }
  if (["changes", "before", "after", "split", "text"].includes(parts.view)) state.mode = parts.view;
}

async function select(id, tab, keepStep) {
  state.id = id;
  if (tab) state.tab = tab;
  document.body.classList.remove("open");
  detail = null;
  if (id !== OVERVIEW) {
    try { detail = await load(`group/${id}`); }
    catch (error) { fill($("head")); fill($("tabs")); return message(error.message); }
    if (state.id !== id) return;   // another was chosen meanwhile
    if (!keepStep) {
      const kept = detail.steps.findIndex(s => s.name === state.stepName && !s.same), changed = detail.steps.findIndex(s => !s.same);
      state.first = state.last = kept >= 0 ? kept : Math.max(changed, 0);
    }
    state.last = Math.min(state.last, Math.max(detail.steps.length - 1, 0)); state.first = Math.min(state.first, state.last);
    if (state.tab === "overview") state.tab = detail.kind === "schedule" && !detail.steps.length ? "why" : "passes";
  } else if (!["overview", "timeline", "memory", "why"].includes(state.tab)) state.tab = "overview";
  paintRows(); reveal(); paintHead(); paintTabs(); paintView();
}

function has(tab) {
  if (["timeline", "memory", "why"].includes(tab)) return true;
  if (tab === "overview") return state.id === OVERVIEW;
  if (!detail) return false;
  return tab === "passes" ? detail.steps.length > 0 : detail.texts.includes(tab);
}

function paintTabs() {
  const shown = TABS.filter(([t]) => t === "overview" ? state.id === OVERVIEW : state.id !== OVERVIEW ? true : ["timeline", "memory", "why"].includes(t));
  const here = shown.filter(([t]) => detail && detail.kind === "schedule" ? ["passes", "why", "timeline", "memory"].includes(t) : true);
  fill($("tabs"), ...here.map(([t, name], i) => h("button", {role: "tab", "aria-selected": String(t === state.tab), disabled: !has(t), title: has(t) ? `${name} (${i + 1})` : "not recorded for this kernel",
    onclick: () => { state.tab = t; paintTabs(); paintView(); }}, name)));
}

function chip(value, name, title) { return h("span", {class: "chip", title}, h("b", {}, value), " ", name); }

function paintHead() {
  const head = $("head");
  if (!detail) return fill(head, h("h1", {}, index.title), h("div", {class: "chips"}, chip(String(index.kernels.length), "kernels"), chip(String(index.schedules.length), "schedules")));
  const d = detail, chips = [];
  if (d.kind === "kernel") {
    if (d.runs) chips.push(chip(seconds(d.seconds / d.runs), "a launch"), chip(seconds(d.fastest), "at best"), chip(String(d.runs), d.runs === 1 ? "launch" : "launches"));
    if (index.seconds && d.seconds) chips.push(chip((100 * d.seconds / index.seconds).toFixed(1) + "%", "of device time"));
    if (d.gflops) chips.push(chip(rate(d.gflops * 1e9, "FLOP/s"), ""));
    if (d.gbytes) chips.push(chip(rate(d.gbytes * 1e9, "B/s"), ""));
    if (d.took) chips.push(chip(seconds(d.took), "to compile"));
  } else chips.push(chip(String(d.calls.length), "calls"), chip(String(d.runs), d.runs === 1 ? "run" : "runs"), chip(seconds(d.took), "to plan"));
  for (const [k, v] of Object.entries(d.facts)) {
    const isBytes = k.endsWith("_bytes") && /^\d+$/.test(v), text = isBytes ? bytes(+v) : v;
    if (v !== "(1, 1, 1)") chips.push(chip(text.length > 40 ? text.slice(0, 39) + "…" : text, k.replace(/_bytes$/, "").replaceAll("_", " "), v));
  }
  fill(head, h("h1", {}, d.kind === "schedule" ? "schedule " + shortSite(d.name) : d.name),
    h("div", {class: "from", title: d.sites.join("\n")}, d.sites.length ? "from " + d.sites.slice(0, 4).map(shortSite).join(", ") + (d.sites.length > 4 ? ` and ${d.sites.length - 4} more lines` : "") : ""),
    h("div", {class: "chips"}, chips), d.error ? h("pre", {class: "error"}, d.error) : null, ...d.notes.map(n => h("div", {class: "note"}, n)));
}

function message(text) { fill($("view"), h("div", {class: "message"}, text)); }

function paintView() {
  writeHash();
  $("tip").hidden = true;
  if (!has(state.tab)) state.tab = TABS.map(t => t[0]).find(t => has(t) && t !== "overview") || "why";
  for (const b of $("tabs").children) b.setAttribute("aria-selected", String(b.textContent === TABS.find(t => t[0] === state.tab)[1]));
  ({overview: viewOverview, passes: viewPasses, why: viewWhy, timeline: viewTimeline, memory: viewMemory}[state.tab] || (() => viewText(state.tab)))();
}

// ---- overview -----------------------------------------------------------------------------------------------------------------------
function viewOverview() {
  const card = (value, name, hint) => h("div", {class: "card"}, h("b", {}, value), h("span", {}, name), h("small", {}, hint || ""));
  const slow = [...index.kernels].sort((a, b) => b.seconds - a.seconds).slice(0, 15), most = slow.length ? slow[0].seconds || 1 : 1;
  const peak = index.peaks.reduce((a, p) => p.bytes > a.bytes ? p : a, {bytes: 0, cause: "", device: ""});
  const canvas = h("canvas", {"aria-label": "Roofline"}), none = !index.kernels.length;
  fill($("view"), h("div", {class: "overview"},
    h("div", {class: "cards"}, card(seconds(index.seconds || 0), "on devices", `${(index.launches || 0).toLocaleString("en")} launches`), card(String(index.kernels.length), "kernels", `in ${index.schedules.length} schedules`),
      card(seconds(index.plan || 0), "planning", "tensor graph to kernels"), card(seconds(index.compile || 0), "compiling", index.kernels.length ? `${seconds(index.compile / index.kernels.length)} a kernel` : ""),
      card(peak.bytes ? bytes(peak.bytes) : "–", "memory at peak", peak.cause || peak.device)),
    none ? h("div", {class: "message"}, "Nothing has been compiled yet. This page follows the program as it runs.") : null,
    none ? null : h("div", {class: "panels"}, h("section", {class: "panel"}, h("h2", {}, "Where the time goes"), h("table", {class: "slow"}, h("tbody", {}, slow.map(k => h("tr", {tabindex: 0, onclick: () => select(k.id), onkeydown: e => e.key === "Enter" && select(k.id)},
      h("td", {class: "mono"}, k.name), h("td", {class: "site"}, k.sites.slice(0, 1).map(shortSite)), h("td", {class: "meter"}, h("i", {style: {width: (100 * k.seconds / most).toFixed(1) + "%"}})),
      h("td", {class: "num"}, seconds(k.seconds)), h("td", {class: "num dim"}, k.runs ? k.runs + "×" : ""), h("td", {class: "num dim"}, k.gflops ? rate(k.gflops * 1e9, "FLOP/s") : ""), h("td", {class: "num dim"}, k.gbytes ? rate(k.gbytes * 1e9, "B/s") : "")))))),
      h("section", {class: "panel"}, h("h2", {}, "How near to the machine's limits"), h("div", {class: "canvas roof"}, canvas)))));
  if (!none) new Roofline(canvas, $("tip"), id => select(id)).set(index.kernels, index.devices);
}

// ---- passes -------------------------------------------------------------------------------------------------------------------------
const views = {};
let worker = null, layoutDone = null;

function layOut(sides) {
  if (!worker) {
    const code = $("layout.js");
    worker = new Worker(code ? URL.createObjectURL(new Blob([code.textContent], {type: "text/javascript"})) : "layout.js");
    worker.onmessage = ({data}) => { if (layoutDone && data.ticket === layoutDone.ticket) layoutDone.resolve(data.sides); };
    worker.onerror = () => { if (layoutDone) layoutDone.reject(new Error("The layout of this graph failed; the Text view still shows it.")); };
  }
  const mine = ++ticket;
  return new Promise((resolve, reject) => {
    layoutDone = {ticket: mine, resolve, reject};
    worker.postMessage({ticket: mine, sides: sides.map(s => s.map(b => ({id: b.id, w: b.w, h: b.h, src: b.src})))});
  });
}

function viewPasses() {
  const canvasOf = side => h("div", {class: "canvas graph", id: "side-" + side}, side === "changes" ? null : h("span", {class: "tag"}, side), h("canvas", {tabindex: 0, "aria-label": `Graph ${side} the pass; the Text view lists the same nodes`}));
  const mode = (m, name, key) => h("button", {"data-mode": m, "aria-pressed": String(state.mode === m), title: `${name} (${key})`, onclick: () => setMode(m)}, name);
  const toggle = (flag, name, key) => h("button", {"data-flag": flag, "aria-pressed": String(state[flag]), title: `Show ${name} as nodes (${key})`, onclick: () => setFlag(flag)}, name);
  const [changes, before, after] = ["changes", "before", "after"].map(canvasOf);
  fill($("view"), h("div", {class: "passes"},
    h("div", {class: "left"}, h("div", {class: "steps", id: "steps", role: "listbox", "aria-label": "Passes"}), h("div", {class: "legend", id: "legend"})),
    h("div", {class: "middle"},
      h("div", {class: "toolbar"}, h("div", {class: "switch"}, mode("changes", "Changes", "d"), mode("split", "Side by side", "s"), mode("before", "Before", "b"), mode("after", "After", "a"), mode("text", "Text", "x")),
        h("div", {class: "switch"}, toggle("consts", "consts", "c"), toggle("ranges", "ranges", "r")), h("button", {class: "plain", title: "Whole graph in sight (f)", onclick: () => fit()}, "Fit"),
        h("input", {id: "find", type: "search", placeholder: "Find node", "aria-label": "Find node", oninput: e => findNode(e.target.value)})),
      h("div", {class: "stage", id: "stage"}, changes, before, after, h("div", {class: "lists", id: "lists", hidden: true}), h("span", {id: "counts", class: "over", role: "status"}))),
    h("aside", {class: "inspector", id: "inspector"})));
  for (const [side, el] of [["changes", changes], ["before", before], ["after", after]]) views[side] = new GraphView(el.querySelector("canvas"), index.kinds, pickNode);
  paintLegend(); paintSteps(); arrange(); showStep();
}

function setMode(m) {
  state.mode = m;
  for (const b of document.querySelectorAll("[data-mode]")) b.setAttribute("aria-pressed", String(b.dataset.mode === m));
  writeHash(); arrange();
}
function setFlag(flag) {
  state[flag] = !state[flag];
  for (const b of document.querySelectorAll("[data-flag]")) b.setAttribute("aria-pressed", String(state[b.dataset.flag]));
  drawGraphs();
}
function fit(whole = true) {
  const shown = sidesOf(state.mode).map(side => views[side]), scale = Math.min(...shown.map(v => v.fullScale()));
  for (const v of shown) v.fit(whole, scale);
}

function paintLegend() {
  fill($("legend"), ...Object.entries(CATEGORY_NAMES).map(([c, name]) => h("span", {}, h("i", {class: "swatch", style: {background: `var(--op-${c})`}}), name)),
    h("span", {}, h("i", {class: "swatch new"}), "new"), h("span", {}, h("i", {class: "swatch gone"}), "gone"), h("span", {title: "the same node over changed sources"}, h("i", {class: "swatch rebuilt"}), "rebuilt"));
}

function paintSteps() {
  let stage = null;
  fill($("steps"), ...detail.steps.flatMap(s => {
    const chosen = s.index >= state.first && s.index <= state.last, out = [];
    if (s.stage !== stage) { stage = s.stage; out.push(h("div", {class: "stage-name"}, stage)); }
    out.push(h("div", {class: "step" + (chosen ? " chosen" : "") + (s.same ? " same" : ""), role: "option", "aria-selected": String(chosen), title: s.why || (s.same ? "no change" : ""), onclick: e => goStep(s.index, e.shiftKey)},
      h("span", {class: "no"}, String(s.index + 1)), h("span", {class: "what"}, s.name), s.same ? h("span", {class: "delta"}, "–") : h("span", {class: "delta"}, s.new ? h("b", {class: "plus"}, "+" + s.new) : null, s.gone ? h("b", {class: "minus"}, "−" + s.gone) : null),
      h("span", {class: "sub"}, s.same ? "no change" : `${s.nodes} nodes` + (s.fired ? ` · ${many(s.fired, "rewrite")}` : ""))));
    return out;
  }), h("div", {class: "hint"}, "Shift-click compares over several passes."));
  const at = $("steps").querySelector(".chosen");
  if (at) at.scrollIntoView({block: "nearest"});
}

function goStep(i, extend) {
  if (i < 0 || i >= detail.steps.length) return;
  if (extend) { state.first = Math.min(state.first, i); state.last = Math.max(state.last, i); } else state.first = state.last = i;
  state.stepName = detail.steps[i].name; state.picked = null;
  paintSteps(); showStep(); writeHash();
}

async function showStep() {
  const {id, first, last} = state;
  if (!detail.steps.length) return;
  comparison = null;
  if (inside && !(`compare/${id}/${first}/${last}` in inside) && first === last) {
    fill($("inspector"), h("div", {class: "quiet"}, "This pass changed nothing here."));
    $("counts").textContent = "no change";
    return;
  }
  let found;
  try { found = await load(`compare/${id}/${first}/${last}`); }
  catch (error) { $("counts").textContent = error.message; return; }
  if (state.id !== id || state.first !== first || state.last !== last || state.tab !== "passes") return;
  comparison = found;
  paintInspector();
  if (state.mode === "text") paintLists();
  await drawGraphs();
}

async function drawGraphs() {
  const c = comparison;
  if (!c) return;
  $("counts").textContent = "laying out…";
  c.union = c.union || GraphView.union(c);
  const sides = [["changes", c.union.ids, c.union.marks, c.union.edges], ["before", c.before.nodes, c.before.marks], ["after", c.after.nodes, c.after.marks]];
  const wanted = sides.filter(([side]) => sidesOf(state.mode).includes(side)), boxes = wanted.map(([, ids, , edges]) => GraphView.boxes(ids, c.rows, index.kinds, state, edges));
  let layouts;
  try { layouts = await layOut(boxes); }
  catch (error) { $("counts").textContent = error.message; return setMode("text"); }
  if (c !== comparison || !$("counts")) return;
  wanted.forEach(([side, , marks], i) => { views[side].resize(); views[side].show(boxes[i], layouts[i], marks); });
  fit(false);
  const count = (side, mark) => Object.values(c[side].marks).filter(m => m === mark).length;
  const cut = ["before", "after"].filter(s => c[s].nodes.length < c[s].total).map(s => `${c[s].nodes.length} of ${c[s].total.toLocaleString("en")} nodes ${s}, those nearest to the change`);
  $("counts").textContent = `${c.before.total} → ${c.after.total} nodes · ${count("after", "new")} new · ${count("before", "gone")} gone` + (cut.length ? ` · showing ${cut.join("; ")}` : "");
  $("counts").classList.toggle("warn", cut.length > 0);
  $("counts").dataset.ready = `${state.id}/${state.first}/${state.last}`;
}

function sidesOf(mode) { return {changes: ["changes"], split: ["before", "after"], before: ["before"], after: ["after"]}[mode] || []; }

function arrange() {
  if (!$("stage")) return;
  const text = state.mode === "text", sides = sidesOf(state.mode);
  for (const side of Object.keys(views)) $("side-" + side).hidden = !sides.includes(side);
  $("lists").hidden = !text;
  if (text && comparison) paintLists();
  drawGraphs();
}

const LINES_SHOWN = 4000;
function paintLists() {
  const c = comparison;
  const line = (id, mark) => {
    const r = c.rows[id];
    return h("div", {class: `line ${mark || ""}` + (id === state.picked ? " picked" : ""), onclick: () => pickNode(id)}, h("span", {class: "ref"}, "%" + id), " = ", h("b", {style: {color: `var(--op-${categoryOf(r.op, index.kinds)})`}}, r.op), " ",
      h("span", {class: "dim"}, r.dtype === "void" ? "" : shapeText(r)), r.arg ? " " + r.arg : "", r.src.length ? h("span", {class: "ref"}, " ← " + r.src.map(s => c.rows[s] && c.rows[s].op === "CONST" ? c.rows[s].arg : "%" + s).join(" ")) : "", r.site ? h("span", {class: "faint"}, "  # " + shortSite(r.site)) : "");
  };
  fill($("lists"), ...["before", "after"].map(side => h("div", {class: "listing"}, h("div", {class: "tag"}, side), c[side].nodes.filter(id => c.rows[id].op !== "CONST").slice(0, LINES_SHOWN).map(id => line(id, c[side].marks[id])),
    c[side].nodes.length > LINES_SHOWN ? h("div", {class: "note"}, `${c[side].nodes.length - LINES_SHOWN} more lines are not shown.`) : null)));
}

// A rebuilt node stands for two: in the drawing of changes it has the number that it has afterwards.
function here(side, id) { return side === "changes" && comparison && comparison.union ? comparison.union.alias.get(id) ?? id : id; }

function pickNode(id) {
  state.picked = id;
  for (const [side, v] of Object.entries(views)) { v.glow = new Set(); v.pick(here(side, id)); }
  if (state.mode === "text") paintLists();
  paintInspector();
}

function findNode(text) {
  const c = comparison, words = text.toLowerCase();
  if (!c) return;
  for (const [side, v] of Object.entries(views)) {
    const ids = side === "changes" ? c.union ? c.union.ids : [] : c[side].nodes;
    v.glow = new Set(words ? ids.filter(id => { const r = c.rows[id]; return `%${id} ${r.op} ${r.arg} ${r.dtype} ${r.site || ""}`.toLowerCase().includes(words); }) : []);
    const first = [...v.glow].find(id => v.byId.has(id));
    if (first === undefined || !v.centre(first)) v.draw();
  }
}

function showFired(f) {
  for (const [side, v] of Object.entries(views)) {
    const ids = (side === "changes" ? [f.before, f.after] : [f[side]]).filter(id => id !== null).map(id => here(side, id));
    v.glow = new Set(ids); v.picked = null;
    if (!ids.some(id => v.centre(id))) v.draw();
  }
}

function paintInspector() {
  const c = comparison, box = $("inspector");
  if (!box || !c) return;
  const out = [];
  if (state.picked !== null && c.rows[state.picked]) out.push(nodeCard(state.picked));
  out.push(h("h2", {}, c.names.length > 1 ? `${c.names.length} passes: ${c.names[0]} … ${c.names[c.names.length - 1]}` : c.names[0]));
  if (c.why) out.push(h("p", {class: "quiet"}, c.why));
  const rules = Object.entries(c.rules).sort((a, b) => b[1] - a[1]);
  if (!rules.length) out.push(h("p", {class: "quiet"}, c.before.root === c.after.root ? "This pass changed nothing here." : "No rules: this pass rewrites the graph as a whole."));
  else out.push(h("h3", {}, `${many(rules.length, "rule")} fired ${many(rules.reduce((a, r) => a + r[1], 0), "time")}`));
  for (const [rule, times] of rules) {
    const cases = c.fired.filter(f => f.rule === rule);
    const body = h("div", {class: "cases"});
    const fill = () => { if (!body.children.length) body.append(...cases.slice(0, 40).map(f => h("button", {class: "case", title: "Show in the graph", onclick: () => showFired(f)}, h("span", {class: "was"}, c.terms[f.before] || "?"), h("span", {class: "now"}, c.terms[f.after] || "?"))),
      times > Math.min(cases.length, 40) ? h("div", {class: "quiet"}, `and ${(times - Math.min(cases.length, 40)).toLocaleString("en")} more`) : ""); };
    const d = h("details", {ontoggle: fill}, h("summary", {}, h("span", {class: "mono"}, rule), h("b", {}, times.toLocaleString("en"))), body);
    if (rules.length <= 3) { d.open = true; fill(); }
    out.push(d);
  }
  fill(box, ...out);
}

function nodeCard(id) {
  const c = comparison, r = c.rows[id], users = Object.keys(c.rows).filter(u => c.rows[u].src.includes(id)).map(Number);
  const link = n => h("button", {class: "link mono", onclick: () => { pickNode(n); for (const [side, v] of Object.entries(views)) v.centre(here(side, n)); }}, c.rows[n] ? `%${n} ${c.rows[n].op}${c.rows[n].op === "CONST" ? " " + c.rows[n].arg : ""}` : `%${n}`);
  const item = (name, value) => value === "" || value === null ? null : h("div", {class: "item"}, h("span", {}, name), h("div", {}, value));
  const mark = c.after.marks[id] || c.before.marks[id], by = c.made_by[id];
  return h("div", {class: "node-card"}, h("h2", {}, h("span", {class: "mono"}, `%${id} ${r.op}`), h("button", {class: "plain", "aria-label": "close", onclick: () => pickNode(null)}, "×")),
    item("type", r.dtype === "void" ? "" : shapeText(r)), item("argument", r.arg), item("user line", r.site || ""), item("this pass", mark ? {new: "made it", gone: "removed it", rebuilt: "rebuilt it above a change"}[mark] : "left it as it was"),
    item("by rule", by ? [...new Set(by)].join(", ") : ""), item("sources", r.src.length ? r.src.map(link) : ""), item("used by", users.length ? users.slice(0, 12).map(link) : ""));
}

// ---- listings -----------------------------------------------------------------------------------------------------------------------
const SYNTAX = {
  source: /(\/\/.*|\/\*.*?\*\/|^\s*#.*)|("(?:[^"\\]|\\.)*")|\b(for|if|else|while|return|void|const|static|inline|restrict|__global__|__shared__|__kernel|__local|struct|extern|typedef|define|declare|fn|var|let)\b|\b(int|float|double|char|long|short|unsigned|bool|half|[iu](?:8|16|32|64)|f(?:16|32|64)|u?int\d+_t|size_t)\b|\b(0x[\da-fA-F]+|\d+\.?\d*(?:e[-+]?\d+)?[fuUlL]*)\b/g,
  ir: /(;.*)|("(?:[^"\\]|\\.)*")|\b(define|declare|ret|br|label|phi|call|tail|load|store|getelementptr|inbounds|f?add|f?sub|f?mul|f?div|s?rem|icmp|fcmp|select|alloca|[sz]ext|trunc|bitcast|insertelement|extractelement|shufflevector|align|fast|nsw|nuw|to|target|attributes|and|or|xor|shl|lshr|ashr)\b|(\b(?:i\d+|float|double|half|void|ptr)\b|<\d+ x [^>]*>)|(\b-?\d+\.?\d*(?:e[-+]?\d+)?\b|0x[\dA-Fa-f]+)/g,
  asm: /([#;].*|\/\/.*)|("(?:[^"\\]|\\.)*")|^(\s+[a-z][\w.]*)|(%?\b(?:[xyz]mm\d+|r[a-d]x|r[sd]i|r[sb]p|r\d+[dwb]?|e[a-d]x|e[sd]i|[vxwsdqr]\d+|k\d|rip)\b)|(\$?-?\b(?:0x[\da-f]+|\d+)\b)/g,
  graph: /(# .*)|("(?:[^"\\]|\\.)*")|(?<== )([a-z_]\w*)|\b((?:f|i|u|bf|fp)\d+(?:x\d+)?|void|bool(?:x\d+)?)\b|(?<![%\w])(-?\d+\.?\d*(?:e[-+]?\d+)?)\b/g,
  loops: /(#.*)|("(?:[^"\\]|\\.)*")|\b(for|in|range|if|else|kernel|barrier|shared|private|fma)\b|\b((?:f|i|u|bf|fp)\d+(?:e\dm\d)?(?:x\d+)?|bool(?:x\d+)?)\b|\b(\d+\.?\d*(?:e[-+]?\d+)?)\b/g,
};
const CLASSES = ["", "s-comment", "s-string", "s-key", "s-type", "s-number"], BLOCK = 200, HIGHLIGHTED = 6000, SHOWN = 40000;

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
  try { found = await load(`text/${id}/${key}`); } catch (error) { return message(error.message); }
  if (state.id !== id || state.tab !== key) return;
  const lines = found.text.replace(/\n$/, "").split("\n"), code = h("div", {class: "code"});
  // blocks out of sight cost no layout (content-visibility), so long listings scroll smoothly
  for (let i = 0; i < Math.min(lines.length, SHOWN); i += BLOCK) {
    const part = lines.slice(i, Math.min(i + BLOCK, SHOWN));
    code.append(h("div", {class: "block", style: {containIntrinsicSize: `auto ${part.length * 19}px`}}, h("pre", {class: "gutter", "aria-hidden": "true"}, part.map((_, k) => i + k + 1).join("\n")),
      h("pre", {class: "lines"}, i < HIGHLIGHTED ? part.flatMap(l => lineOf(l, SYNTAX[key])) : part.join("\n"))));
  }
  const copy = h("button", {class: "plain", onclick: async () => { await navigator.clipboard.writeText(found.text); copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1200); }}, "Copy");
  fill($("view"), h("div", {class: "listing-page"}, h("div", {class: "toolbar"}, copy, h("span", {class: "quiet"}, `${lines.length.toLocaleString("en")} lines`), lines.length > SHOWN || found.cut ? h("span", {class: "warn"}, "cut: the rest is not shown") : null), code));
}

// ---- why ----------------------------------------------------------------------------------------------------------------------------
function viewWhy() {
  const schedules = state.id === OVERVIEW ? index.schedules : detail.kind === "schedule" ? [detail] : [];
  const open = c => kernelById(c.kernel) ? h("button", {class: "link mono", onclick: () => select(c.kernel, "passes")}, c.name) : h("span", {class: "mono"}, c.name);
  const buffer = text => h("span", {class: "buffer mono"}, text);
  const call = c => h("div", {class: "call"}, h("div", {class: "call-head"}, open(c), h("span", {class: "site"}, c.sites.map(shortSite).join("  ")), h("span", {class: "dim"}, c.device)),
    c.outs.length || c.ins.length ? h("div", {class: "flow"}, c.ins.map(buffer), h("span", {class: "arrow"}, "→"), c.outs.map(buffer)) : null,
    c.why ? h("p", {class: "reason"}, h("b", {}, "Stored because "), c.why) : null, c.unfused.map(u => h("p", {class: "reason no"}, h("b", {}, "Not fused: "), u)));
  const parts = schedules.slice(0, 200).map(s => h("section", {class: "panel"}, h("h2", {}, shortSite(s.name), h("small", {}, `${s.calls.length} calls`)), s.calls.slice(0, 300).map(call), s.calls.length > 300 ? h("div", {class: "note"}, `${s.calls.length - 300} more calls are not shown; open them in the list.`) : null));
  if (detail) {
    const decisions = detail.why.filter(([subject]) => subject !== "buffer");   // the schedule's line says that one
    if (decisions.length) parts.unshift(h("section", {class: "panel"}, h("h2", {}, "Decisions"), h("table", {class: "decisions"}, h("tbody", {}, decisions.map(([subject, reason]) => h("tr", {}, h("th", {}, subject), h("td", {}, reason)))))));
    if (detail.kind === "kernel") {
      const s = index.schedules.find(x => x.id === detail.schedule), mine = s ? s.calls.filter(c => c.kernel === detail.id) : [];
      if (mine.length) parts.push(h("section", {class: "panel"}, h("h2", {}, `In the schedule of ${shortSite(s.name)}`), mine.slice(0, 20).map(call)));
    }
  }
  fill($("view"), h("div", {class: "why"}, parts.length ? parts : h("div", {class: "message"}, "No reasons were recorded here.")));
}

// ---- timeline and memory ------------------------------------------------------------------------------------------------------------
let axis = new TimeAxis(), timeline = null, memory = [];

async function viewTimeline() {
  axis = new TimeAxis();
  const canvas = h("canvas", {tabindex: 0, "aria-label": "Timeline of kernels; the overview lists the same times"}), strip = h("canvas", {"aria-label": "Memory in use"});
  const device = index.peaks.length ? index.peaks[0].device : null, box = h("div", {class: "canvas bars"}, canvas);
  fill($("view"), h("div", {class: "charts"}, h("div", {class: "toolbar"}, h("button", {class: "plain", onclick: () => axis.fit()}, "Fit"), h("span", {class: "quiet"}, "wheel zooms · drag moves · click opens a kernel"), h("span", {id: "counts", class: "quiet", role: "status"})),
    h("div", {class: "scroll"}, box, h("div", {id: "window"})), device ? h("div", {class: "canvas strip"}, strip) : null));
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
  const totals = timeline.totals(), most = totals.length ? totals[0][3] : 1, span = (axis.hi - axis.lo) * 1e-6;
  fill(box, h("h2", {}, "In sight", h("small", {}, `${seconds(span)}, from ${seconds(axis.lo * 1e-6)}`)), h("table", {class: "slow"}, h("tbody", {}, totals.slice(0, 30).map(([name, group, lane, time, count]) => h("tr", {tabindex: 0, onclick: () => group >= 0 && select(group, "passes")},
    h("td", {class: "mono"}, lane === "schedule" ? shortSite(name) : name), h("td", {class: "site"}, lane), h("td", {class: "meter"}, h("i", {style: {width: (100 * time / most).toFixed(1) + "%"}})), h("td", {class: "num"}, seconds(time)), h("td", {class: "num dim"}, count.toLocaleString("en") + "×"), h("td", {class: "num dim"}, `${(100 * time / span).toFixed(1)}%`))))));
}

async function viewMemory() {
  axis = new TimeAxis(); timeline = null; memory = [];
  const found = await load("memory"), devices = Object.keys(found);
  if (state.tab !== "memory") return;
  if (!devices.length) return message("No memory was reported by this program.");
  const boxes = devices.map(d => {
    const canvas = h("canvas", {"aria-label": "Memory in use on " + d}), area = h("div", {class: "canvas area"}, canvas), own = new MemoryChart(canvas, $("tip"), axis);
    own.alone = true; own.device = d; memory.push(own);
    return h("section", {class: "panel"}, h("h2", {}, `${d}: ${bytes(found[d].peak)} at peak`, h("small", {}, found[d].cause ? "reached by " + found[d].cause : "")), area);
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
    if (memory.length) { const found = await load("memory"), d = Object.keys(found)[0]; if (d && memory.length && mine === timeline) memory[0].set(d, found[d]); }
  } else if (state.tab === "memory" && !first) {
    const found = await load("memory");
    if (state.tab === "memory") memory.forEach(m => { if (found[m.device]) m.set(m.device, found[m.device]); });
  }
}

// The answers are columns with their own tables of names: bring the new ones to the numbers of the old.
function append(old, more) {
  const merge = (a, b) => b.map(x => { const i = a.indexOf(x); return i >= 0 ? i : a.push(x) - 1; });
  const out = {...old, lanes: [...old.lanes], names: [...old.names], next: more.next}, lane = merge(out.lanes, more.lanes), name = merge(out.names, more.names);
  out.lane = old.lane.concat(more.lane.map(i => lane[i])); out.name = old.name.concat(more.name.map(i => name[i]));
  for (const k of ["group", "start", "length", "bytes", "flops"]) out[k] = old[k].concat(more[k]);
  return out;
}

// ---- live ---------------------------------------------------------------------------------------------------------------------------
let due = false, busy = false;
async function refresh() {
  if (busy) { due = true; return; }
  busy = true;
  try {
    index = await load("index");
    paintBar(); buildRows();
    if (state.id !== OVERVIEW) {
      const found = await load(`group/${state.id}`), grown = !detail || found.steps.length !== detail.steps.length;
      const changed = !detail || JSON.stringify(found.texts) !== JSON.stringify(detail.texts);
      detail = found;
      paintHead(); paintTabs();
      if (state.tab === "passes" && grown && $("steps")) { paintSteps(); if (!comparison) showStep(); } else if (changed && !has(state.tab)) paintView();
    } else if (state.tab === "overview") { paintHead(); viewOverview(); }
    await refreshCharts(false);
  } catch (error) { setLive("lost", "server gone"); }
  busy = false;
  if (due) { due = false; setTimeout(refresh, 400); }
}

function setLive(kind, text) { $("live").className = kind; $("live").textContent = text; }

function paintBar() {
  $("title").textContent = index.title;
  document.title = `${index.title} · glassgrad`;
  if (inside) setLive("ended", "saved"); else setLive(index.ended ? "ended" : "running", index.ended ? "ended" : "running");
  $("totals").textContent = index.launches ? `${index.launches.toLocaleString("en")} launches · ${seconds(index.seconds)}` : "";
  $("notes").hidden = !index.notes.length;
  $("notes").textContent = index.notes.join(" ");
}

function listen() {
  if (inside) return;
  const stream = new EventSource("/api/events");
  stream.onmessage = e => { if (JSON.parse(e.data).version !== index.version) refresh(); };
  stream.onerror = () => setLive("lost", "server gone");
}

// ---- keys ---------------------------------------------------------------------------------------------------------------------------
const KEYS = [["↑ ↓  or  k j", "kernel above, below"], ["← →", "previous, next pass (with Shift: compare over several)"], ["1 … 9", "tabs"], ["d  s  b  a  x", "changes, side by side, before, after, text"], ["c  r", "constants, ranges as nodes"], ["f", "whole graph or timeline in sight"], ["+  −", "zoom the graph"], ["/", "search"], ["o", "overview"], ["t", "dark or light"], ["Esc", "leave search, node, this help"]];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch (_) { /* storage may be off */ }
  for (const v of Object.values(views)) v.draw();
  for (const c of [timeline, ...memory]) if (c) c.draw();
  if (state.tab === "overview" && state.id === OVERVIEW) viewOverview();
}
function turnTheme() { setTheme(getComputedStyle(document.documentElement).getPropertyValue("--theme").trim() === "dark" ? "light" : "dark"); }

function move(by) {
  const i = rows.findIndex(r => r.key === state.id), next = rows[Math.min(Math.max((i < 0 ? 0 : i) + by, 0), rows.length - 1)];
  if (next && next.key !== state.id) select(next.key);
}

function onKey(e) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
  if (e.key === "Escape") {
    if (typing) { e.target.value = ""; e.target.dispatchEvent(new Event("input")); e.target.blur(); }
    else if (state.picked !== null && comparison) pickNode(null);
    return document.body.classList.remove("open");
  }
  if (typing || e.ctrlKey || e.metaKey || e.altKey) return;
  const step = by => { if (state.tab === "passes" && detail) goStep((by < 0 ? state.first : state.last) + by, e.shiftKey); };
  const tab = n => { const b = $("tabs").children[n]; if (b && !b.disabled) b.click(); };
  const zoom = k => { for (const v of Object.values(views)) v.zoom(k, v.canvas.clientWidth / 2, v.canvas.clientHeight / 2); };
  const graph = fn => () => { if (state.tab === "passes" && comparison) fn(); };
  const actions = {ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1), "/": () => $("search").focus(), t: turnTheme, o: () => select(OVERVIEW, "overview"), "?": showKeys,
    d: graph(() => setMode("changes")), s: graph(() => setMode("split")), b: graph(() => setMode("before")), a: graph(() => setMode("after")), x: graph(() => setMode("text")), c: graph(() => setFlag("consts")), r: graph(() => setFlag("ranges")),
    f: () => state.tab === "timeline" || state.tab === "memory" ? axis.fit() : graph(() => fit())(), "+": graph(() => zoom(1.25)), "=": graph(() => zoom(1.25)), "-": graph(() => zoom(0.8))};
  const action = actions[e.key] || (/^[1-9]$/.test(e.key) ? () => tab(+e.key - 1) : null);
  if (action) { e.preventDefault(); action(); }
}

function showKeys() {
  fill($("keys"), h("h2", {}, "Keys"), h("table", {}, h("tbody", {}, KEYS.map(([k, what]) => h("tr", {}, h("td", {}, h("kbd", {}, k)), h("td", {}, what))))), h("form", {method: "dialog"}, h("button", {class: "plain"}, "Close")));
  $("keys").showModal();
}

async function begin() {
  try { const saved = localStorage.getItem("theme"); if (saved) document.documentElement.dataset.theme = saved; } catch (_) { /* storage may be off */ }
  if (inside) $("export").hidden = true;
  readHash();
  $("search").addEventListener("input", e => { state.query = e.target.value; $("list").scrollTop = 0; buildRows(); });
  $("search").addEventListener("keydown", e => { if (e.key === "Enter") { const first = rows.find(r => r.type === "kernel"); if (first) { select(first.key); e.target.blur(); } } });
  for (const b of $("order").children) b.addEventListener("click", () => {
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
  addEventListener("hashchange", () => { const was = state.id; readHash(); if (state.id !== was) select(state.id, state.tab, true); });
  try { index = await load("index"); } catch (error) { return message(error.message); }
  paintBar(); buildRows();
  await select(index.kernels.some(k => k.id === state.id) || index.schedules.some(s => s.id === state.id) ? state.id : OVERVIEW, null, true);
  listen();
  document.body.dataset.ready = "yes";
}
begin();
