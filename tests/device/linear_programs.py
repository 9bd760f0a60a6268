"""Small programs in the LINEAR form, written by hand: what every renderer must get right, with NumPy as the judge."""
from __future__ import annotations

from collections.abc import Sequence

from glassgrad.target.program import Param, Program
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.ops import Op, Ops, ParamArg, RangeArg, ScratchArg, SpecialArg
from glassgrad.uop.uop import UOp


class Linear:
    """Builds a program line by line: every method appends its node and returns it."""
    def __init__(self, name: str, index: DType = dtypes.int32) -> None:
        self.name, self.index, self.uops, self.params = name, index, [], []
        self.grid, self.local = [1, 1, 1], [1, 1, 1]

    def add(self, op: Op, dtype: DType, src: Sequence[UOp] = (), arg: object = None) -> UOp:
        return self.put(UOp(op, dtype, tuple(src), arg))

    def put(self, node: UOp) -> UOp:
        """The node, and before it whatever it needs that does not stand in the program yet."""
        for n in node.toposort():
            if n not in self.uops: self.uops.append(n)
        return node

    def const(self, value: object, dtype: DType | None = None) -> UOp: return self.put(UOp.const(dtype or self.index, value))
    def buffer(self, dtype: DType, size: int) -> UOp:
        slot = len(self.params)
        self.params.append(Param(slot, "buffer", size, dtype))
        return self.add(Ops.PARAM, dtype, (), ParamArg(slot, "buffer", size))
    def value(self, dtype: DType) -> UOp:
        slot = len(self.params)
        self.params.append(Param(slot, "value", 1, dtype))
        return self.add(Ops.PARAM, dtype, (), ParamArg(slot, "value", 1))
    def group(self, dim: int, size: int) -> UOp:
        self.grid[dim] = size
        return self.add(Ops.SPECIAL, self.index, (), SpecialArg(f"gidx{dim}", size))
    def thread(self, dim: int, size: int) -> UOp:
        self.local[dim] = size
        return self.add(Ops.SPECIAL, self.index, (), SpecialArg(f"lidx{dim}", size))
    def loop(self, id: int, count: UOp | int) -> UOp:
        count = count if isinstance(count, UOp) else self.const(count)
        return self.add(Ops.RANGE, self.index, (count,), RangeArg(id, "LOOP"))
    def end(self, loop: UOp) -> UOp: return self.add(Ops.END, dtypes.void, (loop,))
    def load(self, buf: UOp, at: UOp, gate: UOp | None = None, lanes: int = 1, dtype: DType | None = None) -> UOp:
        return self.add(Ops.LOAD, (dtype or buf.dtype).vec(max(lanes, at.dtype.lanes)), (buf, at) if gate is None else (buf, at, gate))
    def store(self, buf: UOp, at: UOp, x: UOp, gate: UOp | None = None) -> UOp:
        return self.add(Ops.STORE, dtypes.void, (buf, at, x) if gate is None else (buf, at, x, gate))
    def acc(self, id: int, init: UOp) -> UOp: return self.add(Ops.ACC, init.dtype, (init,), id)
    def get(self, acc: UOp, *after: UOp) -> UOp: return self.add(Ops.GET, acc.dtype, (acc, *after))
    def set(self, acc: UOp, x: UOp) -> UOp: return self.add(Ops.SET, dtypes.void, (acc, x))
    def scratch(self, id: int, dtype: DType, size: int, space: str = "shared") -> UOp:
        return self.add(Ops.SCRATCH, dtype, (), ScratchArg(id, size, space))
    def barrier(self, *after: UOp) -> UOp: return self.add(Ops.BARRIER, dtypes.void, after)
    def after(self, buf: UOp, *what: UOp) -> UOp: return self.add(Ops.AFTER, buf.dtype, (buf, *what))

    def program(self, **facts: object) -> Program:
        outs = {n.src[0].arg.slot for n in self.uops if n.op is Ops.STORE and n.src[0].op is Ops.PARAM}
        ins = {p.slot for p in self.params if p.kind == "buffer"} - outs
        return Program(self.name, tuple(self.uops), tuple(self.params), tuple(self.grid), tuple(self.local), tuple(sorted(outs)),
                       tuple(sorted(ins)), **facts)


def vadd(n: int, local: int = 4, dtype: DType = dtypes.float32) -> Program:
    """out[i] = x[i] + y[i]"""
    k = Linear("vadd")
    out, x, y = k.buffer(dtype, n), k.buffer(dtype, n), k.buffer(dtype, n)
    i = k.put(k.group(0, n // local) * local + k.thread(0, local)) if local > 1 else k.group(0, n)
    k.store(out, i, k.put(k.load(x, i) + k.load(y, i)))
    return k.program()


def vector_add(n: int, lanes: int = 4, offset: int = 0, dtype: DType = dtypes.float32) -> Program:
    """out[i] = x[i] * 2 + y[i] for i from `offset`, `lanes` a thread, by contiguous vector access."""
    k = Linear("vector_add")
    out, x, y = k.buffer(dtype, n), k.buffer(dtype, n), k.buffer(dtype, n)
    i = k.put(k.group(0, (n - offset) // lanes) * lanes + offset)
    two = k.add(Ops.CONST, dtype.vec(lanes), (), dtype.const(2))
    k.store(out, i, k.put(k.load(x, i, lanes=lanes) * two + k.load(y, i, lanes=lanes)))
    return k.program()


def gated(n: int, limit: int) -> Program:
    """out[i] = x[i - 2] where 2 <= i < limit + 2, else 0; written only where i != 3. x has `limit` elements, out n."""
    k = Linear("gated")
    out, x, i = k.buffer(dtypes.float32, n), k.buffer(dtypes.float32, limit), k.group(0, n)
    ok = k.put((i >= 2) & (i < limit + 2))
    k.store(out, i, k.load(x, k.put(i - 2), ok), k.put(i.ne(3)))
    return k.program()


def gated_vector(n: int, limit: int) -> Program:
    """4 lanes a thread with a scalar gate, and a vector gate at the edge: out[i] = x[i] where i < limit, else 0."""
    k = Linear("gated_vector")
    out, out2, x = k.buffer(dtypes.float32, n), k.buffer(dtypes.float32, n), k.buffer(dtypes.float32, limit)
    i = k.put(k.group(0, n // 4) * 4)
    whole = k.put(i < limit - 3)
    k.store(out, i, k.load(x, i, whole, lanes=4))
    lanes = k.add(Ops.LANES, dtypes.int32.vec(4))
    at = k.put(k.add(Ops.SPLAT, dtypes.int32.vec(4), (i,)) + lanes)
    edge = k.put(at < k.add(Ops.CONST, dtypes.int32.vec(4), (), limit))
    k.store(out2, i, k.load(x, i, edge, lanes=4), edge)
    return k.program()


def row_sum(rows: int, cols: int) -> Program:
    """out[r] = sum of x[r, :] in one register."""
    k = Linear("row_sum")
    out, x, r = k.buffer(dtypes.float32, rows), k.buffer(dtypes.float32, rows * cols), k.group(0, rows)
    acc = k.acc(0, k.const(0.0, dtypes.float32))
    c = k.loop(0, cols)
    k.set(acc, k.put(k.get(acc, c) + k.load(x, k.put(r * cols + c))))
    done = k.end(c)
    k.store(out, r, k.get(acc, done))
    return k.program()


def shared_sum(groups: int, threads: int) -> Program:
    """out[g] = sum of a group's threads' elements, by a tree in shared memory."""
    k = Linear("shared_sum")
    out, x = k.buffer(dtypes.float32, groups), k.buffer(dtypes.float32, groups * threads)
    g, t = k.group(0, groups), k.thread(0, threads)
    memory = k.scratch(0, dtypes.float32, threads)
    last = k.barrier(k.store(memory, t, k.load(x, k.put(g * threads + t))))
    half = threads // 2
    while half:
        buf, ok = k.after(memory, last), k.put(t < half)
        x0, x1 = k.load(buf, t, ok), k.load(buf, k.put(t + half), ok)
        between = k.barrier(x0, x1)
        last = k.barrier(k.store(k.after(memory, between), t, k.put(x0 + x1), ok))
        half //= 2
    k.store(out, g, k.load(k.after(memory, last), k.const(0)), k.put(t.eq(0)))
    return k.program()


def tiled_matmul(m: int, n: int, kk: int, tile: int) -> Program:
    """C = A @ B, a workgroup of tile x tile threads a tile of C, operands staged in shared memory."""
    k = Linear("tiled_matmul")
    f = dtypes.float32
    c, a, b = k.buffer(f, m * n), k.buffer(f, m * kk), k.buffer(f, kk * n)
    gx, gy = k.group(0, n // tile), k.group(1, m // tile)
    x, y = k.thread(0, tile), k.thread(1, tile)
    sa, sb = k.scratch(0, f, tile * tile), k.scratch(1, f, tile * tile)
    row, col, here = k.put(gy * tile + y), k.put(gx * tile + x), k.put(y * tile + x)
    acc = k.acc(0, k.const(0.0, f))
    step = k.loop(0, kk // tile)
    put_a = k.store(sa, here, k.load(a, k.put(row * kk + (step * tile + x))))
    put_b = k.store(sb, here, k.load(b, k.put((step * tile + y) * n + col)))
    ready = k.barrier(put_a, put_b)
    j = k.loop(1, tile)
    product = k.load(k.after(sa, ready), k.put(y * tile + j)) * k.load(k.after(sb, ready), k.put(j * tile + x))
    k.set(acc, k.put(k.get(acc, j) + product))
    inner = k.end(j)
    k.barrier(inner)
    outer = k.end(step)
    k.store(c, k.put(row * n + col), k.get(acc, outer))
    return k.program()


def cast(n: int, of: DType, to: DType) -> Program:
    """out[i] = x[i] as `to`"""
    k = Linear(f"cast_{of.short}_{to.short}")
    out, x, i = k.buffer(to, n), k.buffer(of, n), k.group(0, n)
    k.store(out, i, k.put(k.load(x, i).cast(to)))
    return k.program()


def casts(n: int, of: DType, to: Sequence[DType]) -> Program:
    """out_d[i] = x[i] as d, for every type in `to`; x is the last buffer."""
    k = Linear(f"casts_{of.short}")
    outs, x, i = [k.buffer(d, n) for d in to], k.buffer(of, n), k.group(0, n)
    v = k.load(x, i)
    for out in outs: k.store(out, i, k.put(v.cast(out.dtype)))
    return k.program()


def elementwise(n: int, ops: Sequence[Op], dtype: DType, arity: int) -> Program:
    """out_op[i] = op(x[i], …) for every op in `ops`; the operands are the last buffers."""
    k = Linear(f"ops_{dtype.short}_{arity}")
    outs = [k.buffer(dtypes.bool if op.out == "bool" else dtype, n) for op in ops]
    xs = [k.buffer(dtype, n) for _ in range(arity)]
    i = k.group(0, n)
    values = [k.load(x, i) for x in xs]
    for op, out in zip(ops, outs, strict=True): k.store(out, i, k.put(values[0].alu(op, *values[1:])))
    return k.program()


def bitcast(n: int, of: DType, to: DType) -> Program:
    """out[i] = the bits of x[i]"""
    k = Linear(f"bits_{of.short}_{to.short}")
    out, x, i = k.buffer(to, n), k.buffer(of, n), k.group(0, n)
    k.store(out, i, k.put(k.load(x, i).bitcast(to)))
    return k.program()


def symbolic_sum(n: int) -> Program:
    """out[0] = sum of x[:v], v a value handed over at launch."""
    k = Linear("symbolic_sum")
    out, x, v = k.buffer(dtypes.float32, 1), k.buffer(dtypes.float32, n), k.value(dtypes.int32)
    acc = k.acc(0, k.const(0.0, dtypes.float32))
    i = k.loop(0, v)
    k.set(acc, k.put(k.get(acc, i) + k.load(x, k.put(v - 1 - i))))
    k.store(out, k.const(0), k.get(acc, k.end(i)))
    return k.program()


def fibonacci(n: int) -> Program:
    """out[i] = the i-th Fibonacci number: two registers, each set from both."""
    k = Linear("fibonacci")
    out = k.buffer(dtypes.int32, n)
    a, b = k.acc(0, k.const(1)), k.acc(1, k.const(1, dtypes.int32))
    i = k.loop(0, n)
    x, y = k.get(a, i), k.get(b, i)
    k.store(out, i, x)
    k.set(a, y)
    k.set(b, k.put(x + y))
    k.end(i)
    return k.program()


def vector_register(rows: int) -> Program:
    """out[:4] = sum over rows of x[rows, 4] in a vector register, most = the largest of its lanes."""
    k = Linear("vector_register")
    f4 = dtypes.float32.vec(4)
    out, most, x = k.buffer(dtypes.float32, 4), k.buffer(dtypes.float32, 1), k.buffer(dtypes.float32, rows * 4)
    acc = k.acc(0, k.add(Ops.SPLAT, f4, (k.const(0.0, dtypes.float32),)))
    i = k.loop(0, rows)
    k.set(acc, k.put(k.get(acc, i) + k.load(x, k.put(i * 4), lanes=4)))
    total = k.get(acc, k.end(i))
    k.store(out, k.const(0), total)
    k.store(most, k.const(0), k.add(Ops.HREDUCE, dtypes.float32, (total,), Ops.MAX))
    return k.program()


def running_lanes(rows: int) -> Program:
    """out[rows, 4] = the running sums of each row of x[rows, 4], most = those of the running maximum."""
    k = Linear("running_lanes")
    f4 = dtypes.float32.vec(4)
    out, most, x = (k.buffer(dtypes.float32, rows * 4) for _ in range(3))
    i = k.loop(0, rows)
    at = k.put(i * 4)
    row = k.load(x, at, lanes=4)
    k.store(out, at, k.add(Ops.HSCAN, f4, (row,), Ops.ADD))
    k.store(most, at, k.add(Ops.HSCAN, f4, (k.put(row * row),), Ops.MAX))
    k.end(i)
    return k.program()


def zipped_lanes(rows: int) -> Program:
    """out[rows, 4] = the first halves of x[rows, 4] and y[rows, 4] in turn: x0 y0 x1 y1."""
    k = Linear("zipped_lanes")
    out, x, y = (k.buffer(dtypes.float32, rows * 4) for _ in range(3))
    i = k.loop(0, rows)
    at = k.put(i * 4)
    k.store(out, at, k.add(Ops.SHUFFLE, dtypes.float32.vec(4), (k.load(x, at, lanes=4), k.load(y, at, lanes=4)), (0, 4, 1, 5)))
    k.end(i)
    return k.program()


def reverse_through_scratch(n: int) -> Program:
    """out[i] = x[n - 1 - i], by way of private memory."""
    k = Linear("reverse_through_scratch")
    out, x = k.buffer(dtypes.float32, n), k.buffer(dtypes.float32, n)
    memory = k.scratch(0, dtypes.float32, n, "private")
    i = k.loop(0, n)
    k.store(memory, i, k.load(x, i))
    full = k.after(memory, k.end(i))
    j = k.loop(1, n)
    k.store(out, j, k.load(full, k.put(n - 1 - j)))
    k.end(j)
    return k.program()


def gather_scatter(n: int) -> Program:
    """picked = x[i] for 4 indices at once, by a vector of addresses; and a scatter whose gate is false everywhere."""
    k = Linear("gather_scatter")
    out, kept, x, at = k.buffer(dtypes.float32, 4), k.buffer(dtypes.float32, n), k.buffer(dtypes.float32, n), k.buffer(dtypes.int32, 4)
    where = k.load(at, k.const(0), lanes=4)
    picked = k.load(x, where)
    k.store(out, k.const(0), picked)
    k.store(kept, where, picked, k.put(where < k.add(Ops.CONST, dtypes.int32.vec(4), (), 0)))
    return k.program()
