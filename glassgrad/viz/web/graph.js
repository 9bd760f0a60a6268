"use strict";
// Graph: draws a laid-out graph on a canvas; only what is in sight is drawn, so thousands of nodes stay smooth.

const CATEGORY = {
  mem: ["BUFFER", "PARAM", "SCRATCH", "STAGE"],
  io: ["LOAD", "STORE", "COPY", "GATHER", "SCATTER"],
  loop: ["RANGE", "SPECIAL", "END", "BARRIER"],
  reduce: ["REDUCE", "SCAN", "HREDUCE", "SORT", "FOLD"],
  acc: ["ACC", "SET", "GET"],
  effect: ["SINK", "AFTER", "KERNEL"],
  konst: ["CONST", "VAR", "KEY", "IOTA", "LANES", "LEAF", "BIND"],
};
const CATEGORY_OF = Object.fromEntries(Object.entries(CATEGORY).flatMap(([c, ops]) => ops.map(op => [op, c])));
const CATEGORY_NAMES = {
  mem: "memory",
  io: "load, store",
  loop: "loops",
  reduce: "reduce",
  acc: "registers",
  move: "movement",
  alu: "arithmetic",
  konst: "constants",
  effect: "effects",
};
const LETTER = 7.25,
  LINE = 16,
  PAD_X = 12;

function categoryOf(op, kinds) {
  return CATEGORY_OF[op] || {movement: "move", cat: "move", identity: "move", alu: "alu"}[kinds[op]] || "effect";
}

function shapeText(row) {
  return row.dtype + (row.shape && row.shape.length ? `[${row.shape.join(",")}]` : "");
}

// What stands in a node's box: [op, arg], type with constant operands, site.
function labelOf(row, rows, hidden) {
  const clip = (s, n) => (s.length > n ? s.slice(0, n - 1) + "…" : s);
  const folded = row.src.some(s => hidden.has(s));
  const nameOf = s => (rows[s].op === "CONST" ? rows[s].arg : rows[s].op === "RANGE" ? rows[s].arg.split(" ")[0] : "…");
  const operands = folded
    ? "(" +
      row.src
        .map(s => (hidden.has(s) ? clip(nameOf(s), 12) : "·"))
        .slice(0, 6)
        .join(", ") +
      ")"
    : "";
  return {
    op: row.op,
    arg: clip(row.arg, 34),
    type:
      row.dtype === "void" && !operands
        ? ""
        : clip(`${row.dtype === "void" ? "" : shapeText(row)} ${operands}`.trim(), 44),
    site: row.site ? clip(shortSite(row.site), 30) : "",
  };
}

function shortSite(site) {
  return site.split(/[\\/]/).pop();
}

class GraphView {
  constructor(canvas, kinds, onPick) {
    Object.assign(this, {
      canvas,
      kinds,
      onPick,
      nodes: [],
      byId: new Map(),
      edges: [],
      scale: 1,
      x: 0,
      y: 0,
      picked: null,
      hover: null,
      glow: new Set(),
    });
    this.context = canvas.getContext("2d");
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
  }

  // One graph of a comparison: what stays drawn once, what is new and what is gone side by side, in an order that has sources first.
  static union(c) {
    const alias = new Map(Object.entries(c.pairs).map(([a, b]) => [b, +a])),
      shown = new Set(c.after.nodes),
      marks = {...c.after.marks},
      edges = new Map();
    const to = id => alias.get(id) ?? id;
    for (const id of c.after.nodes) edges.set(id, c.rows[id].src);
    for (const id of c.before.nodes) {
      const isGone = c.before.marks[id] === "gone";
      if (isGone) {
        shown.add(id);
        marks[id] = "gone";
        edges.set(id, c.rows[id].src.map(to));
      } else if (shown.has(to(id))) {
        const lost = c.rows[id].src.filter(s => c.before.marks[s] === "gone");
        if (lost.length) edges.set(to(id), [...edges.get(to(id)), ...lost]);
      }
    }
    // depth first; an edge back to a node still open would close a circle (a pass may turn two nodes around) and is left out
    const state = new Map(),
      order = [],
      kept = new Map();
    for (const root of shown) {
      const stack = [[root, 0]];
      while (stack.length) {
        const top = stack[stack.length - 1],
          [id, i] = top;
        if (i === 0 && state.has(id)) {
          stack.pop();
          continue;
        }
        if (i === 0) {
          state.set(id, 1);
          kept.set(id, []);
        }
        if (i === edges.get(id).length) {
          state.set(id, 2);
          order.push(id);
          stack.pop();
          continue;
        }
        top[1]++;
        const s = edges.get(id)[i];
        if (!shown.has(s)) {
          kept.get(id).push(s);
          continue;
        }
        if (state.get(s) === 1) continue;
        kept.get(id).push(s);
        if (!state.has(s)) stack.push([s, 0]);
      }
    }
    return {ids: order, marks, edges: kept, alias};
  }

  // What the layout needs to know: boxes and edges of the nodes in sight.
  static boxes(ids, rows, kinds, show, edges) {
    const hidden = new Set(
      ids.filter(id => (rows[id].op === "CONST" && !show.consts) || (rows[id].op === "RANGE" && !show.ranges)),
    );
    if (hidden.size === ids.length) hidden.clear();
    for (const id of ids)
      for (const s of rows[id].src) if (rows[s] && !show.consts && rows[s].op === "CONST") hidden.add(s);
    const named = new Set([...hidden].filter(s => rows[s]));
    return ids
      .filter(id => !hidden.has(id))
      .map(id => {
        const label = labelOf(rows[id], rows, named);
        const chars = Math.max(
          (label.op.length + (label.arg ? label.arg.length + 1 : 0)) * 1.04,
          label.type.length * 0.92,
          label.site.length * 0.86,
        );
        const lines = 1 + (label.type ? 1 : 0) + (label.site ? 1 : 0);
        return {
          id,
          label,
          category: categoryOf(rows[id].op, kinds),
          w: Math.max(54, Math.ceil(chars * LETTER) + 2 * PAD_X),
          h: lines * LINE + 10,
          src: (edges ? edges.get(id) : rows[id].src).filter(s => !hidden.has(s)),
        };
      });
  }

  show(boxes, layout, marks, keepView) {
    this.nodes = boxes.map(b => ({...b, x: layout.nodes[b.id][0], y: layout.nodes[b.id][1], mark: marks[b.id] || ""}));
    this.byId = new Map(this.nodes.map(n => [n.id, n]));
    this.edges = layout.edges.map(e => {
      const xs = e.points.map(p => p[0]),
        ys = e.points.map(p => p[1]);
      return {...e, box: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]};
    });
    this.width = layout.width;
    this.height = layout.height;
    this.hover = null;
    if (!this.byId.has(this.picked)) this.picked = null;
    if (!keepView) this.fit();
    else this.draw();
    this.canvas.dataset.nodes = this.nodes.length;
  }

  resize() {
    const {clientWidth: w, clientHeight: h} = this.canvas.parentElement,
      ratio = devicePixelRatio || 1;
    if (!w || !h) return;
    const fresh = !this.canvas.width || this.unfit;
    this.canvas.width = w * ratio;
    this.canvas.height = h * ratio;
    this.canvas.style.width = w + "px";
    this.canvas.style.height = h + "px";
    if (fresh) this.fit();
    else this.draw();
  }

  // The scale at which the whole graph is in sight.
  fullScale() {
    const {clientWidth: w, clientHeight: h} = this.canvas.parentElement;
    return Math.min((w - 40) / Math.max(this.width, 1), (h - 40) / Math.max(this.height, 1), 1.25);
  }

  // The whole graph if it can be read that way, else its root end at a readable size. Graphs side by side have one scale.
  fit(whole, at) {
    const {clientWidth: w, clientHeight: h} = this.canvas.parentElement;
    this.unfit = !w || !h;
    if (!this.width || this.unfit) return this.draw();
    const scale = at || this.fullScale();
    this.scale = whole || scale > 0.3 ? scale : 0.5;
    this.x = (w - this.width * this.scale) / 2;
    this.y =
      this.scale > scale + 1e-6 && this.height * this.scale > h
        ? h - 20 - this.height * this.scale
        : (h - this.height * this.scale) / 2;
    if (this.width * this.scale > w) {
      const root = this.nodes.reduce((a, n) => (n.y > a.y ? n : a), this.nodes[0]);
      this.x = w / 2 - root.x * this.scale;
    }
    const changed = this.scale > scale + 1e-6 && this.nodes.find(n => n.mark === "new" || n.mark === "gone");
    if (changed) {
      this.x = w / 2 - changed.x * this.scale;
      this.y = h / 2 - changed.y * this.scale;
    }
    this.draw();
  }

  centre(id) {
    const n = this.byId.get(id),
      {clientWidth: w, clientHeight: h} = this.canvas.parentElement;
    if (!n) return false;
    this.scale = Math.max(this.scale, 0.8);
    this.x = w / 2 - n.x * this.scale;
    this.y = h / 2 - n.y * this.scale;
    this.draw();
    return true;
  }

  pick(id) {
    this.picked = id;
    this.draw();
  }

  zoom(factor, cx, cy) {
    const scale = Math.min(Math.max(this.scale * factor, 0.02), 4),
      k = scale / this.scale;
    this.x = cx - (cx - this.x) * k;
    this.y = cy - (cy - this.y) * k;
    this.scale = scale;
    this.draw();
  }

  at(px, py) {
    const x = (px - this.x) / this.scale,
      y = (py - this.y) / this.scale;
    return this.nodes.find(n => Math.abs(x - n.x) <= n.w / 2 && Math.abs(y - n.y) <= n.h / 2) || null;
  }

  listen() {
    const c = this.canvas;
    let drag = null;
    c.addEventListener(
      "wheel",
      e => {
        e.preventDefault();
        if (e.shiftKey) {
          this.x -= e.deltaY + e.deltaX;
          return this.draw();
        }
        this.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0016)), e.offsetX, e.offsetY);
      },
      {passive: false},
    );
    c.addEventListener("pointerdown", e => {
      drag = {x: e.offsetX, y: e.offsetY, moved: false};
      c.setPointerCapture(e.pointerId);
    });
    c.addEventListener("pointermove", e => {
      if (drag) {
        const dx = e.offsetX - drag.x,
          dy = e.offsetY - drag.y;
        if (!drag.moved && Math.hypot(dx, dy) < 3) return;
        drag.moved = true;
        this.x += dx;
        this.y += dy;
        drag.x = e.offsetX;
        drag.y = e.offsetY;
        return this.draw();
      }
      const n = this.at(e.offsetX, e.offsetY);
      c.style.cursor = n ? "pointer" : "grab";
      if ((n && n.id) !== (this.hover && this.hover.id)) {
        this.hover = n;
        this.draw();
      }
    });
    c.addEventListener("pointerup", e => {
      if (drag && !drag.moved) {
        const n = this.at(e.offsetX, e.offsetY);
        this.pick(n ? n.id : null);
        this.onPick(n ? n.id : null);
      }
      drag = null;
    });
    c.addEventListener("pointerleave", () => {
      if (this.hover) {
        this.hover = null;
        this.draw();
      }
    });
    c.addEventListener("dblclick", () => this.fit(true));
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const c = this.context,
      ratio = devicePixelRatio || 1,
      w = this.canvas.width / ratio,
      h = this.canvas.height / ratio;
    const style = getComputedStyle(document.documentElement),
      colour = name => style.getPropertyValue("--" + name).trim();
    const paint = {
      ink: colour("ink"),
      dim: colour("dim"),
      faint: colour("faint"),
      line: colour("edge"),
      panel: colour("node"),
      accent: colour("accent"),
      add: colour("add"),
      del: colour("del"),
      same: colour("rebuilt"),
    };
    for (const k of [...Object.keys(CATEGORY_NAMES)]) paint[k] = colour("op-" + k);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, w, h);
    c.translate(this.x, this.y);
    c.scale(this.scale, this.scale);
    const view = [-this.x / this.scale, -this.y / this.scale, (w - this.x) / this.scale, (h - this.y) / this.scale];
    const focus = this.hover ? this.hover.id : this.picked;
    this.paintEdges(c, paint, view, focus);
    c.font = `12px ${colour("mono")}`;
    c.textBaseline = "middle";
    for (const n of this.nodes) {
      if (n.x + n.w / 2 < view[0] || n.x - n.w / 2 > view[2] || n.y + n.h / 2 < view[1] || n.y - n.h / 2 > view[3])
        continue;
      this.paintNode(c, n, paint, focus, colour("mono"));
    }
  }

  paintEdges(c, paint, view, focus) {
    const trace = e => {
      const p = e.points;
      c.moveTo(p[0][0], p[0][1]);
      for (let i = 1; i < p.length; i++) {
        const [x0, y0] = p[i - 1],
          [x1, y1] = p[i];
        if (Math.abs(x0 - x1) < 0.5) c.lineTo(x1, y1);
        else c.bezierCurveTo(x0, y0 + (y1 - y0) * 0.5, x1, y1 - (y1 - y0) * 0.5, x1, y1);
      }
    };
    const seen = this.edges.filter(
      e => e.box[2] >= view[0] && e.box[0] <= view[2] && e.box[3] >= view[1] && e.box[1] <= view[3],
    );
    c.strokeStyle = paint.line;
    c.lineWidth = Math.max(1.1, 0.7 / this.scale);
    c.globalAlpha = focus !== null ? 0.35 : this.scale < 0.12 ? 0.3 : 0.9;
    const isGone = e => this.byId.get(e.from).mark === "gone" || this.byId.get(e.to).mark === "gone";
    c.beginPath();
    seen.filter(e => !isGone(e)).forEach(trace);
    c.stroke();
    const lost = seen.filter(isGone);
    if (lost.length) {
      c.setLineDash([5, 4]);
      c.strokeStyle = paint.del;
      c.beginPath();
      lost.forEach(trace);
      c.stroke();
      c.setLineDash([]);
    }
    c.globalAlpha = 1;
    if (focus === null) return;
    for (const [to, stroke] of [
      [true, paint.accent],
      [false, paint.io],
    ]) {
      c.strokeStyle = stroke;
      c.lineWidth = Math.max(2, 1.4 / this.scale);
      c.beginPath();
      this.edges.filter(e => (to ? e.to : e.from) === focus).forEach(trace);
      c.stroke();
    }
  }

  paintNode(c, n, paint, focus, mono) {
    const x = n.x - n.w / 2,
      y = n.y - n.h / 2,
      tint = paint[n.category];
    const lit = n.id === focus || n.id === this.picked,
      glow = this.glow.has(n.id);
    if (this.scale < 0.12) {
      // seen from far: a spot of its colour, never smaller than a pixel or two
      const w = Math.max(n.w, 3 / this.scale),
        h = Math.max(n.h, 2 / this.scale);
      c.fillStyle = lit || glow ? paint.accent : n.mark === "new" ? paint.add : n.mark === "gone" ? paint.del : tint;
      c.fillRect(n.x - w / 2, n.y - h / 2, w, h);
      return;
    }
    if (n.mark === "new" || n.mark === "gone" || glow) {
      c.globalAlpha = glow ? 0.5 : 0.22;
      c.fillStyle = glow ? paint.accent : n.mark === "new" ? paint.add : paint.del;
      c.beginPath();
      c.roundRect(x - 5, y - 5, n.w + 10, n.h + 10, 10);
      c.fill();
      c.globalAlpha = 1;
    }
    c.fillStyle = paint.panel;
    c.beginPath();
    c.roundRect(x, y, n.w, n.h, 6);
    c.fill();
    c.globalAlpha = 0.16;
    c.fillStyle = tint;
    c.fill();
    c.globalAlpha = 1;
    c.lineWidth = lit ? 2.5 : n.mark && n.mark !== "rebuilt" ? 1.8 : 1;
    c.strokeStyle = lit
      ? paint.accent
      : n.mark === "new"
        ? paint.add
        : n.mark === "gone"
          ? paint.del
          : n.mark === "rebuilt"
            ? paint.same
            : tint;
    c.setLineDash(n.mark === "rebuilt" && !lit ? [4, 3] : []);
    if (!lit && !n.mark) c.globalAlpha = 0.55;
    c.stroke();
    c.globalAlpha = 1;
    c.setLineDash([]);
    c.fillStyle = tint;
    c.beginPath();
    c.roundRect(x, y, 4, n.h, [6, 0, 0, 6]);
    c.fill();
    if (this.scale < 0.22) return;
    let line = y + 5 + LINE / 2;
    c.font = `600 12px ${mono}`;
    c.fillStyle = paint.ink;
    c.fillText(n.label.op, x + PAD_X, line);
    if (n.label.arg) {
      const skip = c.measureText(n.label.op + " ").width;
      c.font = `12px ${mono}`;
      c.fillStyle = tint;
      c.fillText(n.label.arg, x + PAD_X + skip, line);
    }
    if (n.label.type) {
      line += LINE;
      c.font = `11px ${mono}`;
      c.fillStyle = paint.dim;
      c.fillText(n.label.type, x + PAD_X, line);
    }
    if (n.label.site) {
      line += LINE;
      c.font = `10px ${mono}`;
      c.fillStyle = paint.faint;
      c.fillText(n.label.site, x + PAD_X, line);
    }
  }
}
