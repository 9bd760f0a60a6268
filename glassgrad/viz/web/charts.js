"use strict";
// Charts: the timeline, memory over time and the roofline, each on one canvas.

const UNITS = {
  time: [
    [1, "s"],
    [1e-3, "ms"],
    [1e-6, "µs"],
    [1e-9, "ns"],
  ],
  bytes: [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [1024, "KiB"],
    [1, "B"],
  ],
  rate: [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
    [1, ""],
  ],
};

function amount(x, units, digits = 3) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  if (x === 0) return "0 " + UNITS[units][UNITS[units].length - 1][1];
  const [size, name] = UNITS[units].find(([s]) => Math.abs(x) >= s * 0.9995) || UNITS[units][UNITS[units].length - 1];
  const v = x / size;
  return (Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(digits))) + " " + name;
}
const seconds = x => amount(x, "time"),
  bytes = x => amount(x, "bytes"),
  rate = (x, unit) => amount(x, "rate") + unit;

function hueOf(text) {
  let h = 2166136261;
  for (const c of text) h = Math.imul(h ^ c.charCodeAt(0), 16777619);
  return (h >>> 0) % 360;
}

function ticks(lo, hi, count) {
  const raw = (hi - lo) / Math.max(count, 1),
    mag = 10 ** Math.floor(Math.log10(raw)),
    step = [1, 2, 5, 10].map(m => m * mag).find(s => s >= raw);
  const out = [];
  for (let t = Math.ceil(lo / step) * step; t <= hi; t += step) out.push(t);
  return out;
}

class Chart {
  constructor(canvas, tip) {
    this.canvas = canvas;
    this.tip = tip;
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    canvas.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
      this.cursor = null;
      this.draw();
    });
  }
  begin() {
    const {clientWidth: w, clientHeight: h} = this.canvas.parentElement,
      ratio = devicePixelRatio || 1;
    this.w = w;
    this.h = h;
    this.canvas.width = w * ratio;
    this.canvas.height = h * ratio;
    this.canvas.style.width = w + "px";
    this.canvas.style.height = h + "px";
    const style = getComputedStyle(document.documentElement),
      c = this.context;
    this.colour = name => style.getPropertyValue("--" + name).trim();
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, w, h);
    c.font = `11px ${this.colour("sans")}`;
    c.textBaseline = "middle";
    return c;
  }
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.canvas.parentElement.clientWidth) this.paint();
    });
  }
  say(e, lines) {
    this.tip.replaceChildren(
      ...lines.map((l, i) =>
        Object.assign(document.createElement("div"), {textContent: l, className: i ? "" : "head"}),
      ),
    );
    this.tip.hidden = false;
    const x = Math.min(e.clientX + 14, innerWidth - this.tip.offsetWidth - 8),
      y = Math.min(e.clientY + 14, innerHeight - this.tip.offsetHeight - 8);
    this.tip.style.left = x + "px";
    this.tip.style.top = y + "px";
  }
}

// The horizontal axis that timeline and memory share: microseconds, zoomed by the wheel, moved by dragging.
class TimeAxis {
  constructor() {
    this.lo = 0;
    this.hi = 1;
    this.end = 1;
    this.first = 0;
    this.charts = [];
    this.follow = true;
  }
  limits(first, end) {
    this.first = first;
    this.end = Math.max(end, first + 1);
    if (this.follow) {
      this.lo = first;
      this.hi = this.end;
    }
  }
  move(lo, hi) {
    const full = this.end - this.first,
      pad = full * 0.02,
      span = Math.min(Math.max(hi - lo, 0.05), full + 2 * pad);
    lo = Math.min(Math.max(lo, this.first - pad), this.end + pad - span);
    this.lo = lo;
    this.hi = lo + span;
    this.follow = span >= full;
    this.charts.forEach(c => c.draw());
  }
  fit() {
    this.follow = true;
    this.lo = this.first;
    this.hi = this.end;
    this.charts.forEach(c => c.draw());
  }
  attach(chart, left) {
    this.charts.push(chart);
    const c = chart.canvas;
    let drag = null;
    const x = t => left() + ((t - this.lo) / (this.hi - this.lo)) * (chart.w - left() - 12);
    const t = px => this.lo + ((px - left()) / (chart.w - left() - 12)) * (this.hi - this.lo);
    c.addEventListener(
      "wheel",
      e => {
        if (e.deltaX && Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
          e.preventDefault();
          const d = t(e.deltaX) - t(0);
          return this.move(this.lo + d, this.hi + d);
        }
        if (e.shiftKey) return;
        e.preventDefault();
        const at = t(e.offsetX),
          k = Math.exp(e.deltaY * 0.0016);
        this.move(at - (at - this.lo) * k, at + (this.hi - at) * k);
      },
      {passive: false},
    );
    c.addEventListener("pointerdown", e => {
      drag = {x: e.offsetX, moved: false};
      c.setPointerCapture(e.pointerId);
    });
    c.addEventListener("pointermove", e => {
      if (!drag) return;
      if (Math.abs(e.offsetX - drag.x) > 3) drag.moved = true;
      if (!drag.moved) return;
      const d = t(drag.x) - t(e.offsetX);
      drag.x = e.offsetX;
      this.move(this.lo + d, this.hi + d);
    });
    c.addEventListener("pointerup", e => {
      const moved = drag && drag.moved;
      drag = null;
      if (!moved && chart.click) chart.click(e);
    });
    c.addEventListener("dblclick", () => this.fit());
    return {x, t};
  }
}

function paintAxis(chart, c, left, axis, map, y, bottom) {
  c.fillStyle = chart.colour("dim");
  c.strokeStyle = chart.colour("rule");
  c.lineWidth = 1;
  c.textAlign = "center";
  for (const t of ticks(axis.lo, axis.hi, (chart.w - left) / 110)) {
    const x = Math.round(map.x(t)) + 0.5;
    if (x < left) continue;
    c.beginPath();
    c.moveTo(x, y + 9);
    c.lineTo(x, bottom);
    c.stroke();
    c.fillText(seconds(t * 1e-6), x, y);
  }
}

class Timeline extends Chart {
  constructor(canvas, tip, axis, onKernel) {
    super(canvas, tip);
    Object.assign(this, {axis, onKernel, lanes: [], chosen: -1, left: 96, hit: []});
    this.map = axis.attach(this, () => this.left);
    canvas.addEventListener("pointermove", e => this.point(e));
    this.click = e => {
      const hit = this.find(e);
      if (hit && hit.group >= 0) this.onKernel(hit.group);
    };
  }

  // data: columns as the server gives them. Bars of a lane that overlap (several threads) stand in rows of their own.
  set(data) {
    const lanes = data.lanes.map(name => ({name, bars: [], rows: 1}));
    for (let i = 0; i < data.start.length; i++)
      lanes[data.lane[i]].bars.push({
        name: data.names[data.name[i]],
        group: data.group[i],
        t: data.start[i],
        d: data.length[i],
        bytes: data.bytes[i],
        flops: data.flops[i],
      });
    let first = Infinity,
      end = 0;
    for (const lane of lanes) {
      lane.bars.sort((a, b) => a.t - b.t);
      const free = [];
      for (const b of lane.bars) {
        let row = free.findIndex(t => t <= b.t + 0.2);
        if (row < 0) row = free.length < 12 ? free.push(0) - 1 : 0;
        free[row] = b.t + b.d;
        b.row = row;
        first = Math.min(first, b.t);
        end = Math.max(end, b.t + b.d);
      }
      lane.rows = Math.max(free.length, 1);
    }
    const order = name => ["schedule", "compile"].indexOf(name);
    this.lanes = lanes.sort((a, b) => order(b.name) - order(a.name) || a.name.localeCompare(b.name));
    this.axis.limits(isFinite(first) ? Math.min(first, 0) : 0, end);
    this.draw();
  }

  // Time by name inside the window: [name, group, lane, seconds, count], most first.
  totals() {
    const sum = new Map(),
      {lo, hi} = this.axis;
    for (const lane of this.lanes)
      for (const b of lane.bars) {
        const d = Math.min(b.t + b.d, hi) - Math.max(b.t, lo);
        if (d <= 0) continue;
        const key = lane.name + " " + b.name,
          row = sum.get(key) || sum.set(key, [b.name, b.group, lane.name, 0, 0]).get(key);
        row[3] += d * 1e-6;
        row[4]++;
      }
    return [...sum.values()].sort((a, b) => b[3] - a[3]);
  }

  height() {
    return 34 + this.lanes.reduce((a, l) => a + l.rows * 22 + 14, 0);
  }

  paint() {
    const c = this.begin(),
      {axis, map, left} = this,
      total = this.height();
    paintAxis(this, c, left, axis, map, 12, Math.min(total, this.h));
    this.hit = [];
    let y = 34;
    for (const lane of this.lanes) {
      const tall = lane.rows * 22;
      c.textAlign = "left";
      c.fillStyle = this.colour("ink");
      c.font = `600 12px ${this.colour("sans")}`;
      c.fillText(lane.name, 12, y + tall / 2);
      c.save();
      c.beginPath();
      c.rect(left, y - 4, this.w - left, tall + 8);
      c.clip();
      this.paintLane(c, lane, y);
      c.restore();
      y += tall + 14;
      c.strokeStyle = this.colour("rule");
      c.beginPath();
      c.moveTo(0, y - 6.5);
      c.lineTo(this.w, y - 6.5);
      c.stroke();
    }
    if (!this.lanes.length) {
      c.textAlign = "center";
      c.fillStyle = this.colour("dim");
      c.fillText("Nothing has run yet.", this.w / 2, this.h / 2);
    }
    clearTimeout(this.later);
    this.later = setTimeout(() => this.onWindow && this.onWindow(), 120);
  }

  paintLane(c, lane, top) {
    const dark = this.colour("theme") === "dark",
      lastX = new Array(lane.rows).fill(-1);
    // bars of a row do not overlap, so the first in sight is found by halving; 0.5 pixel bars are drawn once per pixel
    let lo = 0,
      hi = lane.bars.length;
    if (lane.rows === 1)
      while (lo < hi) {
        const mid = (lo + hi) >> 1;
        if (lane.bars[mid].t + lane.bars[mid].d < this.axis.lo) lo = mid + 1;
        else hi = mid;
      }
    c.font = `11px ${this.colour("mono")}`;
    c.textAlign = "left";
    for (let i = lo; i < lane.bars.length; i++) {
      const b = lane.bars[i];
      if (b.t > this.axis.hi) break;
      if (b.t + b.d < this.axis.lo) continue;
      const x0 = Math.max(this.map.x(b.t), this.left - 2),
        x1 = Math.min(this.map.x(b.t + b.d), this.w + 2),
        w = Math.max(x1 - x0, 0.8);
      if (x0 + w <= lastX[b.row]) continue;
      lastX[b.row] = Math.max(Math.ceil(x0 + w), x0);
      const y = top + b.row * 22,
        faded = this.chosen >= 0 && b.group !== this.chosen;
      c.globalAlpha = faded ? 0.28 : 1;
      c.fillStyle = `hsl(${hueOf(b.name)} ${dark ? "42% 46%" : "52% 66%"})`;
      c.beginPath();
      c.roundRect(x0, y, w > 3 ? w - 1 : w, 20, w > 6 ? 3 : 0);
      c.fill();
      if (w > 34) {
        const text = (b.group < 0 || lane.name !== "schedule" ? b.name : shortSite(b.name)).slice(
          0,
          Math.floor((w - 8) / 6.7),
        );
        c.fillStyle = dark ? "#fff" : "#10151c";
        c.fillText(text, x0 + 5, y + 10.5);
      }
      if (w > 1) this.hit.push({x0, x1: x0 + w, y, b});
    }
    c.globalAlpha = 1;
  }

  find(e) {
    const hit = this.hit.find(
      r => e.offsetX >= r.x0 - 1 && e.offsetX <= r.x1 + 1 && e.offsetY >= r.y && e.offsetY <= r.y + 20,
    );
    return hit ? hit.b : null;
  }

  point(e) {
    const b = this.find(e);
    this.canvas.style.cursor = b && b.group >= 0 ? "pointer" : "default";
    if (!b) {
      this.tip.hidden = true;
      return;
    }
    const s = b.d * 1e-6,
      lines = [b.name, `${seconds(s)} at ${seconds(b.t * 1e-6)}`];
    if (b.flops) lines.push(`${rate(b.flops / s, "FLOP/s")}`);
    if (b.bytes) lines.push(`${rate(b.bytes / s, "B/s")} of ${bytes(b.bytes)}`);
    if (b.group >= 0) lines.push("click to open");
    this.say(e, lines);
  }
}

class MemoryChart extends Chart {
  constructor(canvas, tip, axis) {
    super(canvas, tip);
    Object.assign(this, {axis, data: null, left: 96});
    this.map = axis.attach(this, () => this.left);
    canvas.addEventListener("pointermove", e => {
      this.cursor = e.offsetX;
      this.draw();
      this.point(e);
    });
  }
  set(device, data) {
    this.device = device;
    this.data = data;
    if (data && data.t.length && this.alone) this.axis.limits(0, data.t[data.t.length - 1]);
    this.draw();
  }
  valueAt(t) {
    const ts = this.data.t;
    let lo = 0,
      hi = ts.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (ts[mid] <= t) lo = mid + 1;
      else hi = mid;
    }
    return lo ? this.data.bytes[lo - 1] : 0;
  }
  paint() {
    const c = this.begin(),
      {axis, map, left, data} = this,
      top = 30,
      base = this.h - 14;
    paintAxis(this, c, left, axis, map, 12, base);
    if (!data || !data.t.length) {
      c.textAlign = "center";
      c.fillStyle = this.colour("dim");
      c.fillText("No memory was reported.", this.w / 2, this.h / 2);
      return;
    }
    const y = b => base - ((base - top) * b) / (data.peak * 1.08 || 1);
    c.textAlign = "right";
    const unit = 2 ** Math.floor(Math.log2(Math.max(data.peak, 4) / 4));
    for (let b = unit; b <= data.peak * 1.08; b += unit) {
      c.strokeStyle = this.colour("rule");
      c.beginPath();
      c.moveTo(left, Math.round(y(b)) + 0.5);
      c.lineTo(this.w, Math.round(y(b)) + 0.5);
      c.stroke();
      c.fillStyle = this.colour("dim");
      c.fillText(bytes(b), left - 8, y(b));
    }
    c.save();
    c.beginPath();
    c.rect(left, 0, this.w - left, this.h);
    c.clip();
    c.beginPath();
    c.moveTo(map.x(data.t[0]), base);
    data.t.forEach((t, i) => {
      const x = map.x(t);
      c.lineTo(x, y(i ? data.bytes[i - 1] : 0));
      c.lineTo(x, y(data.bytes[i]));
    });
    const last = Math.max(axis.end, data.t[data.t.length - 1]);
    c.lineTo(map.x(last), y(data.bytes[data.bytes.length - 1]));
    c.lineTo(map.x(last), base);
    c.closePath();
    const fill = c.createLinearGradient(0, top, 0, base);
    fill.addColorStop(0, this.colour("area-top"));
    fill.addColorStop(1, this.colour("area-bottom"));
    c.fillStyle = fill;
    c.fill();
    c.strokeStyle = this.colour("accent");
    c.lineWidth = 1.5;
    c.stroke();
    const px = map.x(data.peak_t),
      py = y(data.peak);
    c.fillStyle = this.colour("del");
    c.beginPath();
    c.arc(px, py, 4, 0, 7);
    c.fill();
    c.font = `600 12px ${this.colour("sans")}`;
    const text = `peak ${bytes(data.peak)}` + (data.cause ? ` · ${data.cause}` : ""),
      right = px + 10 + c.measureText(text).width > this.w;
    c.textAlign = right ? "right" : "left";
    c.fillStyle = this.colour("ink");
    c.fillText(text, px + (right ? -10 : 10), py - 9);
    if (this.cursor && this.cursor > left) {
      c.strokeStyle = this.colour("dim");
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(this.cursor, top);
      c.lineTo(this.cursor, base);
      c.stroke();
    }
    c.restore();
  }
  point(e) {
    if (!this.data || !this.data.t.length || e.offsetX < this.left) {
      this.tip.hidden = true;
      return;
    }
    const t = this.map.t(e.offsetX);
    this.say(e, [bytes(this.valueAt(t)), `${this.device} at ${seconds(t * 1e-6)}`]);
  }
}

// Every kernel by arithmetic intensity and speed; the roof is drawn for devices that state their limits.
class Roofline extends Chart {
  constructor(canvas, tip, onKernel) {
    super(canvas, tip);
    this.points = [];
    this.roofs = [];
    canvas.addEventListener("pointermove", e => {
      const p = this.find(e);
      canvas.style.cursor = p ? "pointer" : "default";
      if (p) this.say(e, [p.name, rate(p.flops, "FLOP/s"), `${p.intensity.toPrecision(3)} FLOP per byte`]);
      else this.tip.hidden = true;
    });
    canvas.addEventListener("click", e => {
      const p = this.find(e);
      if (p) onKernel(p.id);
    });
  }
  set(kernels, devices) {
    this.points = kernels
      .filter(k => k.flops && k.bytes && k.fastest)
      .map(k => ({id: k.id, name: k.name, intensity: k.flops / k.bytes, flops: k.flops / k.fastest, share: k.seconds}));
    this.roofs = Object.entries(devices)
      .filter(([, f]) => f.flops > 0 && f.bandwidth > 0)
      .map(([name, f]) => ({name, flops: f.flops, bandwidth: f.bandwidth}));
    this.seen = !this.roofs.length && this.points.length > 1; // nobody said what the machine can do: what was reached here stands in
    if (this.seen)
      this.roofs.push({
        name: "best seen here",
        flops: Math.max(...this.points.map(p => p.flops)),
        bandwidth: Math.max(...this.points.map(p => p.flops / p.intensity)),
      });
    this.draw();
  }
  find(e) {
    return this.points.find(p => Math.hypot(p.px - e.offsetX, p.py - e.offsetY) < p.r + 3);
  }
  paint() {
    const c = this.begin(),
      log = Math.log10,
      left = 74,
      base = this.h - 34;
    if (!this.points.length) {
      c.textAlign = "center";
      c.fillStyle = this.colour("dim");
      c.fillText("No kernel has reported FLOPs and bytes yet.", this.w / 2, this.h / 2);
      return;
    }
    const xs = this.points.map(p => log(p.intensity)),
      ys = [...this.points.map(p => log(p.flops)), ...this.roofs.map(r => log(r.flops))];
    const [x0, x1] = [Math.floor(Math.min(...xs, -1)), Math.ceil(Math.max(...xs, 2))],
      [y0, y1] = [Math.floor(Math.min(...ys) - 0.2), Math.ceil(Math.max(...ys) + 0.1)];
    const X = v => left + ((v - x0) / (x1 - x0)) * (this.w - left - 20),
      Y = v => base - ((v - y0) / (y1 - y0)) * (base - 14);
    c.strokeStyle = this.colour("rule");
    c.fillStyle = this.colour("dim");
    for (let v = x0; v <= x1; v++) {
      c.beginPath();
      c.moveTo(X(v), 14);
      c.lineTo(X(v), base);
      c.stroke();
      c.textAlign = "center";
      c.fillText(String(+(10 ** v).toPrecision(1)), X(v), base + 12);
    }
    for (let v = y0; v <= y1; v++) {
      c.beginPath();
      c.moveTo(left, Y(v));
      c.lineTo(this.w - 20, Y(v));
      c.stroke();
      c.textAlign = "right";
      c.fillText(rate(10 ** v, "FLOP/s"), left - 6, Y(v));
    }
    c.textAlign = "center";
    c.fillText("FLOP per byte", (left + this.w) / 2, base + 27);
    for (const r of this.roofs) {
      const ridge = log(r.flops / r.bandwidth),
        at = v => Math.min(log(r.bandwidth) + v, log(r.flops));
      c.strokeStyle = this.colour("accent");
      c.lineWidth = 2;
      c.setLineDash(this.seen ? [6, 5] : []);
      c.beginPath();
      c.moveTo(X(x0), Y(Math.max(at(x0), y0)));
      c.lineTo(X(Math.min(Math.max(ridge, x0), x1)), Y(log(r.flops)));
      c.lineTo(X(x1), Y(at(x1)));
      c.stroke();
      c.setLineDash([]);
      c.fillStyle = this.colour("accent");
      c.textAlign = "right";
      c.fillText(
        `${this.seen ? "- - " : "— "}${r.name}: ${rate(r.flops, "FLOP/s")}, ${rate(r.bandwidth, "B/s")}`,
        X(x1),
        6 + 14 * this.roofs.indexOf(r),
      );
    }
    const most = Math.max(...this.points.map(p => p.share), 1e-12);
    for (const p of this.points) {
      Object.assign(p, {px: X(log(p.intensity)), py: Y(log(p.flops)), r: 4 + 9 * Math.sqrt(p.share / most)});
      c.globalAlpha = 0.75;
      c.fillStyle = `hsl(${hueOf(p.name)} 50% 55%)`;
      c.beginPath();
      c.arc(p.px, p.py, p.r, 0, 7);
      c.fill();
      c.globalAlpha = 1;
      c.lineWidth = 1;
      c.strokeStyle = this.colour("panel");
      c.stroke();
    }
  }
}
