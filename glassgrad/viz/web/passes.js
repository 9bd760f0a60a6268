"use strict";
// Passes: what each pass did to a graph, drawn or as text, and the rules that did it.

const views = {};
let worker = null,
  layoutDone = null;

function layOut(sides) {
  if (!worker) {
    const code = $("layout.js");
    worker = new Worker(
      code ? URL.createObjectURL(new Blob([code.textContent], {type: "text/javascript"})) : "layout.js",
    );
    worker.onmessage = ({data}) => {
      if (layoutDone && data.ticket === layoutDone.ticket) layoutDone.resolve(data.sides);
    };
    worker.onerror = () => {
      if (layoutDone) layoutDone.reject(new Error("The layout of this graph failed; the Text view still shows it."));
    };
  }
  const mine = ++ticket;
  return new Promise((resolve, reject) => {
    layoutDone = {ticket: mine, resolve, reject};
    worker.postMessage({ticket: mine, sides: sides.map(s => s.map(b => ({id: b.id, w: b.w, h: b.h, src: b.src})))});
  });
}

function viewPasses() {
  const canvasOf = side =>
    h(
      "div",
      {class: "canvas graph", id: "side-" + side},
      side === "changes" ? null : h("span", {class: "tag"}, side),
      h("canvas", {tabindex: 0, "aria-label": `Graph ${side} the pass; the Text view lists the same nodes`}),
    );
  const mode = (m, name, key) =>
    h(
      "button",
      {"data-mode": m, "aria-pressed": String(state.mode === m), title: `${name} (${key})`, onclick: () => setMode(m)},
      name,
    );
  const toggle = (flag, name, key) =>
    h(
      "button",
      {
        "data-flag": flag,
        "aria-pressed": String(state[flag]),
        title: `Show ${name} as nodes (${key})`,
        onclick: () => setFlag(flag),
      },
      name,
    );
  const [changes, before, after] = ["changes", "before", "after"].map(canvasOf);
  fill(
    $("view"),
    h(
      "div",
      {class: "passes"},
      h(
        "div",
        {class: "left"},
        h("div", {class: "steps", id: "steps", role: "listbox", "aria-label": "Passes"}),
        h("div", {class: "legend", id: "legend"}),
      ),
      h(
        "div",
        {class: "middle"},
        h(
          "div",
          {class: "toolbar"},
          h(
            "div",
            {class: "switch"},
            mode("changes", "Changes", "d"),
            mode("split", "Side by side", "s"),
            mode("before", "Before", "b"),
            mode("after", "After", "a"),
            mode("text", "Text", "x"),
          ),
          h("div", {class: "switch"}, toggle("consts", "consts", "c"), toggle("ranges", "ranges", "r")),
          h("button", {class: "plain", title: "Whole graph in sight (f)", onclick: () => fit()}, "Fit"),
          h("input", {
            id: "find",
            type: "search",
            placeholder: "Find node",
            "aria-label": "Find node",
            oninput: e => findNode(e.target.value),
          }),
        ),
        h(
          "div",
          {class: "stage", id: "stage"},
          changes,
          before,
          after,
          h("div", {class: "lists", id: "lists", hidden: true}),
          h("span", {id: "counts", class: "over", role: "status"}),
        ),
      ),
      h("aside", {class: "inspector", id: "inspector"}),
    ),
  );
  for (const [side, el] of [
    ["changes", changes],
    ["before", before],
    ["after", after],
  ])
    views[side] = new GraphView(el.querySelector("canvas"), index.kinds, pickNode);
  paintLegend();
  paintSteps();
  arrange();
  showStep();
}

function setMode(m) {
  state.mode = m;
  for (const b of document.querySelectorAll("[data-mode]"))
    b.setAttribute("aria-pressed", String(b.dataset.mode === m));
  writeHash();
  arrange();
}
function setFlag(flag) {
  state[flag] = !state[flag];
  for (const b of document.querySelectorAll("[data-flag]"))
    b.setAttribute("aria-pressed", String(state[b.dataset.flag]));
  drawGraphs();
}
function fit(whole = true) {
  const shown = sidesOf(state.mode).map(side => views[side]),
    scale = Math.min(...shown.map(v => v.fullScale()));
  for (const v of shown) v.fit(whole, scale);
}

function paintLegend() {
  fill(
    $("legend"),
    ...Object.entries(CATEGORY_NAMES).map(([c, name]) =>
      h("span", {}, h("i", {class: "swatch", style: {background: `var(--op-${c})`}}), name),
    ),
    h("span", {}, h("i", {class: "swatch new"}), "new"),
    h("span", {}, h("i", {class: "swatch gone"}), "gone"),
    h("span", {title: "the same node over changed sources"}, h("i", {class: "swatch rebuilt"}), "rebuilt"),
  );
}

function paintSteps() {
  let stage = null;
  fill(
    $("steps"),
    ...detail.steps.flatMap(s => {
      const chosen = s.index >= state.first && s.index <= state.last,
        out = [];
      if (s.stage !== stage) {
        stage = s.stage;
        out.push(h("div", {class: "stage-name"}, stage));
      }
      out.push(
        h(
          "div",
          {
            class: "step" + (chosen ? " chosen" : "") + (s.same ? " same" : ""),
            role: "option",
            "aria-selected": String(chosen),
            title: s.why || (s.same ? "no change" : ""),
            onclick: e => goStep(s.index, e.shiftKey),
          },
          h("span", {class: "no"}, String(s.index + 1)),
          h("span", {class: "what"}, s.name),
          s.same
            ? h("span", {class: "delta"}, "–")
            : h(
                "span",
                {class: "delta"},
                s.new ? h("b", {class: "plus"}, "+" + s.new) : null,
                s.gone ? h("b", {class: "minus"}, "−" + s.gone) : null,
              ),
          h(
            "span",
            {class: "sub"},
            s.same ? "no change" : `${s.nodes} nodes` + (s.fired ? ` · ${many(s.fired, "rewrite")}` : ""),
          ),
        ),
      );
      return out;
    }),
    h("div", {class: "hint"}, "Shift-click compares over several passes."),
  );
  const at = $("steps").querySelector(".chosen");
  if (at) at.scrollIntoView({block: "nearest"});
}

function goStep(i, extend) {
  if (i < 0 || i >= detail.steps.length) return;
  if (extend) {
    state.first = Math.min(state.first, i);
    state.last = Math.max(state.last, i);
  } else state.first = state.last = i;
  state.stepName = detail.steps[i].name;
  state.picked = null;
  paintSteps();
  showStep();
  writeHash();
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
  try {
    found = await load(`compare/${id}/${first}/${last}`);
  } catch (error) {
    $("counts").textContent = error.message;
    return;
  }
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
  const sides = [
    ["changes", c.union.ids, c.union.marks, c.union.edges],
    ["before", c.before.nodes, c.before.marks],
    ["after", c.after.nodes, c.after.marks],
  ];
  const wanted = sides.filter(([side]) => sidesOf(state.mode).includes(side)),
    boxes = wanted.map(([, ids, , edges]) => GraphView.boxes(ids, c.rows, index.kinds, state, edges));
  let layouts;
  try {
    layouts = await layOut(boxes);
  } catch (error) {
    $("counts").textContent = error.message;
    return setMode("text");
  }
  if (c !== comparison || !$("counts")) return;
  wanted.forEach(([side, , marks], i) => {
    views[side].resize();
    views[side].show(boxes[i], layouts[i], marks);
  });
  fit(false);
  const count = (side, mark) => Object.values(c[side].marks).filter(m => m === mark).length;
  const cut = ["before", "after"]
    .filter(s => c[s].nodes.length < c[s].total)
    .map(s => `${c[s].nodes.length} of ${c[s].total.toLocaleString("en")} nodes ${s}, those nearest to the change`);
  $("counts").textContent =
    `${c.before.total} → ${c.after.total} nodes · ${count("after", "new")} new · ${count("before", "gone")} gone` +
    (cut.length ? ` · showing ${cut.join("; ")}` : "");
  $("counts").classList.toggle("warn", cut.length > 0);
  $("counts").dataset.ready = `${state.id}/${state.first}/${state.last}`;
}

function sidesOf(mode) {
  return {changes: ["changes"], split: ["before", "after"], before: ["before"], after: ["after"]}[mode] || [];
}

function arrange() {
  if (!$("stage")) return;
  const text = state.mode === "text",
    sides = sidesOf(state.mode);
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
    return h(
      "div",
      {class: `line ${mark || ""}` + (id === state.picked ? " picked" : ""), onclick: () => pickNode(id)},
      h("span", {class: "ref"}, "%" + id),
      " = ",
      h("b", {style: {color: `var(--op-${categoryOf(r.op, index.kinds)})`}}, r.op),
      " ",
      h("span", {class: "dim"}, r.dtype === "void" ? "" : shapeText(r)),
      r.arg ? " " + r.arg : "",
      r.src.length
        ? h(
            "span",
            {class: "ref"},
            " ← " + r.src.map(s => (c.rows[s] && c.rows[s].op === "CONST" ? c.rows[s].arg : "%" + s)).join(" "),
          )
        : "",
      r.site ? h("span", {class: "faint"}, "  # " + shortSite(r.site)) : "",
    );
  };
  fill(
    $("lists"),
    ...["before", "after"].map(side =>
      h(
        "div",
        {class: "listing"},
        h("div", {class: "tag"}, side),
        c[side].nodes
          .filter(id => c.rows[id].op !== "CONST")
          .slice(0, LINES_SHOWN)
          .map(id => line(id, c[side].marks[id])),
        c[side].nodes.length > LINES_SHOWN
          ? h("div", {class: "note"}, `${c[side].nodes.length - LINES_SHOWN} more lines are not shown.`)
          : null,
      ),
    ),
  );
}

// A rebuilt node stands for two: in the drawing of changes it has the number that it has afterwards.
function here(side, id) {
  return side === "changes" && comparison && comparison.union ? (comparison.union.alias.get(id) ?? id) : id;
}

function pickNode(id) {
  state.picked = id;
  for (const [side, v] of Object.entries(views)) {
    v.glow = new Set();
    v.pick(here(side, id));
  }
  if (state.mode === "text") paintLists();
  paintInspector();
}

function findNode(text) {
  const c = comparison,
    words = text.toLowerCase();
  if (!c) return;
  for (const [side, v] of Object.entries(views)) {
    const ids = side === "changes" ? (c.union ? c.union.ids : []) : c[side].nodes;
    v.glow = new Set(
      words
        ? ids.filter(id => {
            const r = c.rows[id];
            return `%${id} ${r.op} ${r.arg} ${r.dtype} ${r.site || ""}`.toLowerCase().includes(words);
          })
        : [],
    );
    const first = [...v.glow].find(id => v.byId.has(id));
    if (first === undefined || !v.centre(first)) v.draw();
  }
}

function showFired(f) {
  for (const [side, v] of Object.entries(views)) {
    const ids = (side === "changes" ? [f.before, f.after] : [f[side]])
      .filter(id => id !== null)
      .map(id => here(side, id));
    v.glow = new Set(ids);
    v.picked = null;
    if (!ids.some(id => v.centre(id))) v.draw();
  }
}

function paintInspector() {
  const c = comparison,
    box = $("inspector");
  if (!box || !c) return;
  const out = [];
  if (state.picked !== null && c.rows[state.picked]) out.push(nodeCard(state.picked));
  out.push(
    h(
      "h2",
      {},
      c.names.length > 1 ? `${c.names.length} passes: ${c.names[0]} … ${c.names[c.names.length - 1]}` : c.names[0],
    ),
  );
  if (c.why) out.push(h("p", {class: "quiet"}, c.why));
  const rules = Object.entries(c.rules).sort((a, b) => b[1] - a[1]);
  if (!rules.length)
    out.push(
      h(
        "p",
        {class: "quiet"},
        c.before.root === c.after.root
          ? "This pass changed nothing here."
          : "No rules: this pass rewrites the graph as a whole.",
      ),
    );
  else
    out.push(
      h(
        "h3",
        {},
        `${many(rules.length, "rule")} fired ${many(
          rules.reduce((a, r) => a + r[1], 0),
          "time",
        )}`,
      ),
    );
  for (const [rule, times] of rules) {
    const cases = c.fired.filter(f => f.rule === rule);
    const body = h("div", {class: "cases"});
    const fill = () => {
      if (!body.children.length)
        body.append(
          ...cases
            .slice(0, 40)
            .map(f =>
              h(
                "button",
                {class: "case", title: "Show in the graph", onclick: () => showFired(f)},
                h("span", {class: "was"}, c.terms[f.before] || "?"),
                h("span", {class: "now"}, c.terms[f.after] || "?"),
              ),
            ),
          times > Math.min(cases.length, 40)
            ? h("div", {class: "quiet"}, `and ${(times - Math.min(cases.length, 40)).toLocaleString("en")} more`)
            : "",
        );
    };
    const d = h(
      "details",
      {ontoggle: fill},
      h("summary", {}, h("span", {class: "mono"}, rule), h("b", {}, times.toLocaleString("en"))),
      body,
    );
    if (rules.length <= 3) {
      d.open = true;
      fill();
    }
    out.push(d);
  }
  fill(box, ...out);
}

function nodeCard(id) {
  const c = comparison,
    r = c.rows[id],
    users = Object.keys(c.rows)
      .filter(u => c.rows[u].src.includes(id))
      .map(Number);
  const link = n =>
    h(
      "button",
      {
        class: "link mono",
        onclick: () => {
          pickNode(n);
          for (const [side, v] of Object.entries(views)) v.centre(here(side, n));
        },
      },
      c.rows[n] ? `%${n} ${c.rows[n].op}${c.rows[n].op === "CONST" ? " " + c.rows[n].arg : ""}` : `%${n}`,
    );
  const item = (name, value) =>
    value === "" || value === null ? null : h("div", {class: "item"}, h("span", {}, name), h("div", {}, value));
  const mark = c.after.marks[id] || c.before.marks[id],
    by = c.made_by[id];
  return h(
    "div",
    {class: "node-card"},
    h(
      "h2",
      {},
      h("span", {class: "mono"}, `%${id} ${r.op}`),
      h("button", {class: "plain", "aria-label": "close", onclick: () => pickNode(null)}, "×"),
    ),
    item("type", r.dtype === "void" ? "" : shapeText(r)),
    item("argument", r.arg),
    item("user line", r.site || ""),
    item(
      "this pass",
      mark ? {new: "made it", gone: "removed it", rebuilt: "rebuilt it above a change"}[mark] : "left it as it was",
    ),
    item("by rule", by ? [...new Set(by)].join(", ") : ""),
    item("sources", r.src.length ? r.src.map(link) : ""),
    item("used by", users.length ? users.slice(0, 12).map(link) : ""),
  );
}
