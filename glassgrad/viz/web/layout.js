"use strict";
// Layout: a layered drawing of a graph (Sugiyama 1981): layers by longest path to the root, long edges through points on every
// layer, few crossings by sweeps of medians, then x positions by isotonic regression towards the neighbours. Runs in a worker.

const LAYER_GAP = 34,
  NODE_GAP = 18,
  POINT_WIDTH = 10,
  POINTS_LIMIT = 40000;

// nodes: [{id, w, h, src: [id]}], sources before users. Gives {nodes: {id: [x, y]}, edges: [{from, to, points}], width, height}.
function layoutGraph(nodes) {
  const index = new Map(nodes.map((n, i) => [n.id, i]));
  const sources = nodes.map(n => n.src.map(s => index.get(s)).filter(s => s !== undefined));
  const rank = ranks(nodes.length, sources);
  const g = withPoints(nodes, sources, rank);
  orderLayers(g);
  placeLayers(g);
  return drawing(nodes, sources, g);
}

function ranks(count, sources) {
  const rank = new Int32Array(count);
  for (let i = count - 1; i >= 0; i--) for (const s of sources[i]) rank[s] = Math.max(rank[s], rank[i] + 1);
  return rank;
}

// A source's long edges share one chain of points, so a value used all over the graph is one line and not a fan.
function withPoints(nodes, sources, rank) {
  const count = nodes.length,
    lowest = Int32Array.from(rank);
  for (let i = 0; i < count; i++) for (const s of sources[i]) lowest[s] = Math.min(lowest[s], rank[i]);
  let longest = Infinity,
    total = 0;
  for (let i = 0; i < count; i++) total += Math.max(rank[i] - lowest[i] - 1, 0);
  if (total > POINTS_LIMIT) longest = Math.max(2, Math.floor(POINTS_LIMIT / count));
  const width = nodes.map(n => n.w),
    layerOf = Array.from(rank),
    chain = [],
    down = nodes.map(() => []),
    up = nodes.map(() => []);
  for (let i = 0; i < count; i++) {
    chain.push([i]);
    if (rank[i] - lowest[i] - 1 > longest) continue; // too long: drawn as one stroke, without points
    for (let r = rank[i] - 1; r > lowest[i]; r--) {
      const p = width.push(POINT_WIDTH) - 1,
        last = chain[i][chain[i].length - 1];
      layerOf.push(r);
      down.push([]);
      up.push([]);
      down[last].push(p);
      up[p].push(last);
      chain[i].push(p);
    }
  }
  for (let i = 0; i < count; i++)
    for (const s of sources[i]) {
      const step = rank[s] - rank[i] - 1;
      const from = step < chain[s].length ? chain[s][step] : s;
      if (layerOf[from] === rank[i] + 1) {
        down[from].push(i);
        up[i].push(from);
      }
    }
  const layers = Array.from({length: Math.max(-1, ...layerOf) + 1}, () => []);
  return {count, width, layerOf, layers, up, down, chain, x: new Float64Array(width.length)};
}

function orderLayers(g) {
  // first order: depth first from the roots, so that what belongs together starts together
  const seen = new Uint8Array(g.width.length),
    stack = [];
  for (let i = g.count - 1; i >= 0; i--) if (!g.down[i].length) stack.push(i);
  stack.reverse();
  while (stack.length) {
    const n = stack.pop();
    if (seen[n]) continue;
    seen[n] = 1;
    g.layers[g.layerOf[n]].push(n);
    for (let k = g.up[n].length - 1; k >= 0; k--) if (!seen[g.up[n][k]]) stack.push(g.up[n][k]);
  }
  for (let i = 0; i < g.width.length; i++) if (!seen[i]) g.layers[g.layerOf[i]].push(i);
  const place = new Int32Array(g.width.length);
  const number = layer =>
    layer.forEach((n, i) => {
      place[n] = i;
    });
  g.layers.forEach(number);
  const sweeps = g.width.length > 20000 ? 4 : g.width.length > 4000 ? 8 : 16;
  let best = g.layers.map(l => l.slice()),
    fewest = crossings(g, place);
  for (let sweep = 0; sweep < sweeps && fewest > 0; sweep++) {
    const upward = sweep % 2 === 0,
      near = upward ? g.down : g.up;
    for (let k = 0; k < g.layers.length; k++) {
      const layer = g.layers[upward ? k : g.layers.length - 1 - k],
        key = new Map();
      for (const n of layer)
        key.set(n, near[n].length ? near[n].reduce((a, m) => a + place[m], 0) / near[n].length : place[n]);
      layer.sort((a, b) => key.get(a) - key.get(b) || place[a] - place[b]);
      number(layer);
    }
    const now = crossings(g, place);
    if (now < fewest) {
      fewest = now;
      best = g.layers.map(l => l.slice());
    }
  }
  g.layers = best;
}

function crossings(g, place) {
  let total = 0;
  for (let l = 1; l < g.layers.length; l++) {
    const size = g.layers[l - 1].length,
      tree = new Int32Array(size + 1);
    let added = 0;
    for (const n of g.layers[l]) {
      const ends = g.down[n].map(m => place[m]).sort((a, b) => a - b);
      for (const e of ends) {
        let upTo = 0;
        for (let i = e + 1; i > 0; i -= i & -i) upTo += tree[i];
        total += added - upTo;
      }
      for (const e of ends) {
        for (let i = e + 1; i <= size; i += i & -i) tree[i]++;
        added++;
      }
    }
  }
  return total;
}

function placeLayers(g) {
  for (const layer of g.layers) {
    let x = 0;
    for (const n of layer) {
      g.x[n] = x + g.width[n] / 2;
      x += g.width[n] + NODE_GAP;
    }
    const half = x / 2;
    for (const n of layer) g.x[n] -= half;
  }
  const isPoint = n => n >= g.count;
  const rounds = g.width.length > 20000 ? 6 : 24;
  for (let round = 0; round < rounds; round++) {
    const upward = round % 2 === 0,
      both = round >= rounds - 6;
    for (let k = 0; k < g.layers.length; k++) {
      const layer = g.layers[upward ? k : g.layers.length - 1 - k];
      const wish = new Float64Array(layer.length),
        weight = new Float64Array(layer.length);
      layer.forEach((n, i) => {
        let sum = 0,
          all = 0;
        const pull = m => {
          const w = isPoint(n) && isPoint(m) ? 8 : isPoint(n) || isPoint(m) ? 2 : 1;
          sum += w * g.x[m];
          all += w;
        };
        if (upward || both) g.down[n].forEach(pull);
        if (!upward || both) g.up[n].forEach(pull);
        wish[i] = all ? sum / all : g.x[n];
        weight[i] = all || 0.1;
      });
      settle(g, layer, wish, weight);
    }
  }
}

// The positions closest to the wishes (least squares) that keep the order and the gaps: isotonic regression by pooling.
function settle(g, layer, wish, weight) {
  const offset = new Float64Array(layer.length),
    mean = [],
    mass = [],
    size = [];
  for (let i = 1; i < layer.length; i++) {
    const a = layer[i - 1],
      b = layer[i],
      gap = a >= g.count || b >= g.count ? NODE_GAP / 2 : NODE_GAP;
    offset[i] = offset[i - 1] + (g.width[a] + g.width[b]) / 2 + gap;
  }
  for (let i = 0; i < layer.length; i++) {
    mean.push(wish[i] - offset[i]);
    mass.push(weight[i]);
    size.push(1);
    while (mean.length > 1 && mean[mean.length - 2] > mean[mean.length - 1]) {
      const m = mean.pop(),
        w = mass.pop(),
        s = size.pop(),
        k = mean.length - 1;
      mean[k] = (mean[k] * mass[k] + m * w) / (mass[k] + w);
      mass[k] += w;
      size[k] += s;
    }
  }
  let i = 0;
  mean.forEach((m, k) => {
    for (let j = 0; j < size[k]; j++, i++) g.x[layer[i]] = m + offset[i];
  });
}

function drawing(nodes, sources, g) {
  const height = g.layers.map(l => Math.max(0, ...l.filter(n => n < g.count).map(n => nodes[n].h)));
  const top = new Float64Array(height.length);
  let y = 0;
  for (let l = height.length - 1; l >= 0; l--) {
    top[l] = y;
    y += height[l] + LAYER_GAP;
  }
  let left = Infinity,
    right = -Infinity;
  for (let n = 0; n < g.width.length; n++) {
    left = Math.min(left, g.x[n] - g.width[n] / 2);
    right = Math.max(right, g.x[n] + g.width[n] / 2);
  }
  const at = {},
    middle = n => top[g.layerOf[n]] + height[g.layerOf[n]] / 2;
  nodes.forEach((n, i) => {
    at[n.id] = [g.x[i] - left, middle(i)];
  });
  const edges = [];
  nodes.forEach((n, i) =>
    sources[i].forEach((s, k) => {
      const ports = sources[i].length,
        steps = g.layerOf[s] - g.layerOf[i] - 1;
      const points = [[g.x[s] - left, middle(s) + nodes[s].h / 2]];
      if (steps < g.chain[s].length)
        for (const p of g.chain[s].slice(1, steps + 1)) {
          points.push([g.x[p] - left, top[g.layerOf[p]]]);
          if (height[g.layerOf[p]]) points.push([g.x[p] - left, top[g.layerOf[p]] + height[g.layerOf[p]]]);
        }
      points.push([g.x[i] - left + n.w * ((k + 1) / (ports + 1) - 0.5) * 0.8, middle(i) - n.h / 2]);
      edges.push({from: nodes[s].id, to: n.id, points});
    }),
  );
  return {nodes: at, edges, width: nodes.length ? right - left : 0, height: Math.max(y - LAYER_GAP, 0)};
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = ({data}) => self.postMessage({ticket: data.ticket, sides: data.sides.map(layoutGraph)});
}
