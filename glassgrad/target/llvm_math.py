"""Arithmetic in LLVM's words: what each op is on scalars and vectors, casts, and what goes from lane to lane.

Floats may contract (a*b+c to one rounding) and nothing else, so NaN and infinity stay; integer division and casts never trap and have one
result for every input; floats which the machine cannot compute are integers of their width, which CAST to and from float32 unpacks.
"""
from __future__ import annotations

from glassgrad.target.llvm_text import INT_OP, Text, constant_of, never_wraps, seq
from glassgrad.uop.dtype import DType, dtypes
from glassgrad.uop.errors import CompilerBug
from glassgrad.uop.infer import bounds
from glassgrad.uop.ops import Op, Ops
from glassgrad.uop.uop import UOp

_FLOAT_CMP = {Ops.CMPLT: "olt", Ops.CMPLE: "ole", Ops.CMPEQ: "oeq", Ops.CMPNE: "une"}
_INT_CMP = {Ops.CMPLT: "lt", Ops.CMPLE: "le", Ops.CMPEQ: "eq", Ops.CMPNE: "ne"}
FLOAT_OP = {Ops.ADD: "fadd contract", Ops.SUB: "fsub contract", Ops.MUL: "fmul contract", Ops.FDIV: "fdiv contract"}
_BOOL_OP = {Ops.ADD: "or", Ops.MUL: "and", Ops.MAX: "or", Ops.MIN: "and", Ops.AND: "and", Ops.OR: "or", Ops.XOR: "xor"}


class Arithmetic(Text):
    """What computes, and what moves values between lanes."""

    # ---- lanes ----
    def make_splat(self, n: UOp) -> None:
        x = n.src[0]
        self.names[n] = self.constant(n.dtype, x.arg) if x.op is Ops.CONST else self.splat(n.dtype, self[x])
    def extract(self, n: UOp) -> None:
        self.names[n] = self.let(f"extractelement {self.typed(n.src[0])}, i64 {n.arg}") if n.src[0].dtype.lanes > 1 else self[n.src[0]]
    def pack(self, n: UOp) -> None:
        value = "poison"
        for i, x in enumerate(n.src): value = self.let(f"insertelement {self.ty(n.dtype)} {value}, {self.typed(x)}, i64 {i}")
        self.names[n] = value
    def shuffle(self, n: UOp) -> None:
        x, y = n.src
        self.names[n] = self.let(f"shufflevector {self.typed(x)}, {self.typed(y)}, <{n.dtype.lanes} x i32> {seq('i32', n.arg)}")
    def reduce_lanes(self, n: UOp) -> None:
        """Halves on halves; an odd last lane waits for the end."""
        (x,) = n.src
        d, value, late = x.dtype, self[x], []
        while d.lanes > 1:
            lanes, ty = d.lanes, self.ty(d)
            if lanes % 2: late.append(self.let(f"extractelement {ty} {value}, i64 {lanes - 1}"))
            h = lanes // 2
            d = d.vec(h)
            if h == 1: lo, hi = (self.let(f"extractelement {ty} {value}, i64 {i}") for i in (0, 1))
            else:
                parts = [seq("i32", range(start, start + h)) for start in (0, h)]
                lo, hi = (self.let(f"shufflevector {ty} {value}, {ty} poison, <{h} x i32> {part}") for part in parts)
            value = self.binary(n.arg, d, lo, hi)
        for y in late: value = self.binary(n.arg, d, value, y)
        self.names[n] = value

    def scan_lanes(self, n: UOp) -> None:
        """Lane i with lane i - by, in steps of 1, 2, 4, …; the first lanes stay."""
        d, value, by = n.dtype, self[n.src[0]], 1
        ty, all_lanes = self.ty(d), range(d.lanes)
        while by < d.lanes:
            back = seq("i32", [max(i - by, 0) for i in all_lanes])
            moved = self.let(f"shufflevector {ty} {value}, {ty} poison, <{d.lanes} x i32> {back}")
            both = self.binary(n.arg, d, moved, value)
            picks = [i if i < by else d.lanes + i for i in all_lanes]
            value = self.let(f"shufflevector {ty} {value}, {ty} {both}, <{d.lanes} x i32> {seq('i32', picks)}")
            by *= 2
        self.names[n] = value

    # ---- arithmetic ----
    def alu(self, n: UOp) -> str:
        op, src, d = n.op, n.src, n.dtype
        if op is Ops.CAST: return self.cast(self[src[0]], src[0].dtype, d)
        if op is Ops.BITCAST: return self.bitcast(src[0], d)
        if op is Ops.WHERE:
            y, z = (self.typed(s) if s.dtype is d else f"{self.ty(d)} {self.splat(d, self[s])}" for s in src[1:])
            return self.let(f"select {self.typed(src[0])}, {y}, {z}")
        ds = src[0].dtype
        if not self.is_native(ds):
            raise CompilerBug(f"llvm: {op} on {ds.name}, which this CPU cannot compute; lower_dtypes casts it to float32")
        x = self[src[0]]
        if op in (Ops.CDIV, Ops.CMOD): return self.divide(n)
        if op in (Ops.SHL, Ops.SHR): return self.shift(n)
        if op in (Ops.MAX, Ops.MIN) and ds.is_float:
            constant = [s for s in src if constant_of(s) is not None and constant_of(s) == constant_of(s)]
            if constant: return self.pick_constant(op, ds, self[constant[0]], self[src[constant[0] is src[0]]])
        if op is Ops.PAIRMUL: return self.pair_product(src[0], src[1])
        if len(src) == 2:
            return self.binary(op, ds, x, self[src[1]], " nsw" if op in (Ops.ADD, Ops.SUB, Ops.MUL) and never_wraps(n) else "")
        if op is Ops.MULACC:
            if not d.is_float: return self.binary(Ops.ADD, d, self.binary(Ops.MUL, d, x, self[src[1]]), self[src[2]])
            if not self.target.fma: return self.binary(Ops.ADD, d, self.binary(Ops.MUL, d, x, self[src[1]]), self[src[2]])
            return self.let(self.call(f"llvm.fma.{self.code(d)}", self.ty(d), *(self.typed(s) for s in src)))
        if op is Ops.NEG: return self.let(f"fneg {self.ty(d)} {x}" if d.is_float else f"sub {self.ty(d)} {self.constant(d, 0)}, {x}")
        if op is Ops.RECIP: return self.let(f"fdiv {self.ty(d)} {self.constant(d, 1)}, {x}")
        if op in (Ops.SQRT, Ops.TRUNC): return self.let(self.call(f"llvm.{op.name.lower()}.{self.code(d)}", self.ty(d), self.typed(src[0])))
        raise CompilerBug(f"llvm: {op} is not native on a CPU; lower_ops decomposes it")

    def binary(self, op: Op, d: DType, x: str, y: str, exact: str = "") -> str:
        """x op y, both of type d."""
        ty = self.ty(d)
        if op in _INT_CMP:
            if d.is_float: return self.let(f"fcmp {_FLOAT_CMP[op]} {ty} {x}, {y}")
            sign = "" if op in (Ops.CMPEQ, Ops.CMPNE) else "s" if d.kind == "int" else "u"
            return self.let(f"icmp {sign}{_INT_CMP[op]} {ty} {x}, {y}")
        if d.is_bool: return self.let(f"{_BOOL_OP[op]} {ty} {x}, {y}")
        if op in (Ops.MAX, Ops.MIN): return self.extreme(op, d, x, y)
        return self.let(f"{FLOAT_OP[op]} {ty} {x}, {y}" if d.is_float else f"{INT_OP[op]}{exact} {ty} {x}, {y}")

    def pair_product(self, x: UOp, y: UOp) -> str:
        """pmaddwd; what is shorter than its registers stands in a part of one."""
        lanes, ty = x.dtype.lanes, self.ty(x.dtype)
        wide, half = 4 if lanes <= 4 else 8, "<8 x i16>" if lanes <= 4 else "<16 x i16>"
        full = f"<{wide} x i32>"

        def halves(n: UOp) -> str:
            text = self[n]
            if lanes == 1: text = self.let(f"insertelement {full} zeroinitializer, {ty} {text}, i64 0")
            elif lanes < wide: text = self.let(f"shufflevector {ty} {text}, {ty} zeroinitializer, <{wide} x i32> {seq('i32', range(wide))}")
            return f"{half} {self.let(f'bitcast {full} {text} to {half}')}"
        value = self.let(self.call("llvm.x86.sse2.pmadd.wd" if wide == 4 else "llvm.x86.avx2.pmadd.wd", full, halves(x), halves(y)))
        if lanes == 1: return self.let(f"extractelement {full} {value}, i64 0")
        if lanes == wide: return value
        return self.let(f"shufflevector {full} {value}, {full} poison, <{lanes} x i32> {seq('i32', range(lanes))}")

    def extreme(self, op: Op, d: DType, x: str, y: str) -> str:
        """MAX and MIN; NaN if one is. On x86 the compare and select is one maxps(y, x), which keeps x when either is NaN, so only
        y needs a test; an accumulator is x and the test stays off its chain."""
        ty, name = self.ty(d), "max" if op is Ops.MAX else "min"
        if not d.is_float: name = f"{'s' if d.kind == 'int' else 'u'}{name}"
        elif "neon" in self.has: name += "imum"
        if len(name) > 3: return self.let(self.call(f"llvm.{name}.{self.code(d)}", ty, f"{ty} {x}", f"{ty} {y}"))
        best = self.pick_constant(op, d, y, x)
        return self.let(f"select {self.cond(d)} {self.let(f'fcmp uno {ty} {y}, {y}')}, {ty} {y}, {ty} {best}")

    def pick_constant(self, op: Op, d: DType, c: str, x: str) -> str:
        """c if it is beyond x, else x (also when either is NaN): right by itself as MAX or MIN if c is no NaN."""
        ty = self.ty(d)
        test = self.let(f"fcmp {'ogt' if op is Ops.MAX else 'olt'} {ty} {c}, {x}")
        return self.let(f"select {self.cond(d)} {test}, {ty} {c}, {ty} {x}")

    def divide(self, n: UOp) -> str:
        (x, y), d, ty = n.src, n.dtype, self.ty(n.dtype)
        if d.is_bool: raise CompilerBug("llvm: integer division of bool")
        is_div, cond, lo = n.op is Ops.CDIV, self.cond(d), bounds(y)[0]
        name = "div" if is_div else "rem"
        if lo > 0 or bounds(y)[1] < -1:                      # cannot be 0, cannot overflow
            is_signed = d.kind == "int" and (bounds(x)[0] < 0 or lo < 0)
            return self.let(f"{'s' if is_signed else 'u'}{name} {ty} {self[x]}, {self[y]}")
        zero, one = self.constant(d, 0), self.constant(d, 1)
        unsafe = none = self.let(f"icmp eq {ty} {self[y]}, {zero}")
        if d.kind == "int":
            minus = self.let(f"icmp eq {ty} {self[y]}, {self.constant(d, -1)}")
            unsafe = self.let(f"or {cond} {none}, {minus}")
        safe = self.let(f"select {cond} {unsafe}, {ty} {one}, {ty} {self[y]}")
        value = self.let(f"{'s' if d.kind == 'int' else 'u'}{name} {ty} {self[x]}, {safe}")
        if is_div and d.kind == "int":
            value = self.let(f"select {cond} {minus}, {ty} {self.let(f'sub {ty} {zero}, {self[x]}')}, {ty} {value}")
        return self.let(f"select {cond} {none}, {ty} {zero if is_div else self[x]}, {ty} {value}")

    def shift(self, n: UOp) -> str:
        x, y = n.src
        d, ty, by = n.dtype, self.ty(n.dtype), self[y]
        if bounds(y)[0] < 0 or bounds(y)[1] >= d.bits: by = self.let(f"and {ty} {by}, {self.constant(d, d.bits - 1)}")
        return self.let(f"{'shl' if n.op is Ops.SHL else 'ashr' if d.kind == 'int' else 'lshr'} {ty} {self[x]}, {by}")

    def bitcast(self, x: UOp, d: DType) -> str:
        ds = x.dtype
        if ds.is_bool: return self.let(f"zext {self.ty(ds)} {self[x]} to {self.ty(d)}")
        if d.is_bool: return self.cast(self[x], ds if not ds.is_float else dtypes.uint8.vec(ds.lanes), d)
        return self[x] if self.ty(ds) == self.ty(d) else self.let(f"bitcast {self.typed(x)} to {self.ty(d)}")

    def cast(self, x: str, ds: DType, d: DType) -> str:
        """x from type ds to d. Float to int saturates, NaN gives 0; anything but 0 is true."""
        if ds.scalar is d.scalar: return x
        if not self.is_native(ds): return self.cast(self.unpack(x, ds), dtypes.float32.vec(ds.lanes), d)
        if not self.is_native(d): return self.pack_float(self.cast(x, ds, dtypes.float32.vec(d.lanes)), d)
        a, b = self.ty(ds), self.ty(d)
        if d.is_bool: return self.let(f"{'fcmp une' if ds.is_float else 'icmp ne'} {a} {x}, {self.constant(ds, 0)}")
        if ds.is_float:
            if d.is_float: return self.let(f"{'fpext' if d.bits > ds.bits else 'fptrunc'} {a} {x} to {b}")
            return self.saturate(x, ds, d)
        if d.is_float: return self.let(f"{'sitofp' if ds.kind == 'int' else 'uitofp'} {a} {x} to {b}")
        bits = 1 if ds.is_bool else ds.bits
        if bits == d.bits: return x
        return self.let(f"{'trunc' if bits > d.bits else 'sext' if ds.kind == 'int' else 'zext'} {a} {x} to {b}")

    def saturate(self, x: str, ds: DType, d: DType) -> str:
        """Float to int. For x86 vectors LLVM's own fptosi.sat goes lane by lane (80 instructions for 8 lanes instead of 5)."""
        a, b, kind, cond = self.ty(ds), self.ty(d), "si" if d.kind == "int" else "ui", self.cond(d)
        wide = 16 if "avx512f" in self.has else 8 if "avx" in self.has else 4
        if d.lanes > 1 and "sse2" in self.has:
            if d.bits - (d.kind == "int") <= ds.mantissa + 1 and d.bits <= 32: return self.clamp_to_int(x, ds, d)
            if d.scalar is dtypes.int32 and ds.scalar is dtypes.float32 and d.lanes in (4, 8, 16) and d.lanes <= wide:
                # the instruction gives INT_MIN for all that does not fit; turned over where x is large, emptied where it is NaN
                name, more = {4: ("sse2.cvttps2dq", ()), 8: ("avx.cvtt.ps2dq.256", ()),
                              16: ("avx512.mask.cvttps2dq.512", (f"{b} zeroinitializer", "i16 -1", "i32 4"))}[d.lanes]
                low = self.let(self.call(f"llvm.x86.{name}", b, f"{a} {x}", *more))
                large = self.let(f"fcmp oge {a} {x}, {self.constant(ds, 2.0 ** 31)}")
                turned = self.let(f"xor {b} {low}, {self.let(f'sext {cond} {large} to {b}')}")
                return self.let(f"select {cond} {self.let(f'fcmp ord {a} {x}, {x}')}, {b} {turned}, {b} zeroinitializer")
            if d.scalar is dtypes.uint32:
                least = self.pick_constant(Ops.MAX, ds, x, self.constant(ds, 0.0))
                large = self.let(f"fcmp oge {a} {least}, {self.constant(ds, 2.0 ** 32)}")
                small = self.let(f"select {cond} {large}, {a} zeroinitializer, {a} {least}")
                return self.let(f"select {cond} {large}, {b} {self.constant(d, -1)}, {b} {self.let(f'fptoui {a} {small} to {b}')}")
        return self.let(self.call(f"llvm.fpto{kind}.sat.{self.code(d)}.{self.code(ds)}", b, f"{a} {x}"))

    def clamp_to_int(self, x: str, ds: DType, d: DType) -> str:
        """Float to an int type whose bounds are floats: clamp, convert, cut."""
        a, via = self.ty(ds), d if d.bits == 32 else dtypes.int32.vec(d.lanes)
        least = self.pick_constant(Ops.MAX, ds, x, self.constant(ds, float(d.min)))            # NaN becomes the bound
        inside = self.pick_constant(Ops.MIN, ds, least, self.constant(ds, float(d.max)))
        value = self.let(f"fpto{'si' if via.kind == 'int' else 'ui'} {a} {inside} to {self.ty(via)}")
        if d.kind == "int":
            is_number = self.let(f"fcmp ord {a} {x}, {x}")
            value = self.let(f"select {self.cond(d)} {is_number}, {self.ty(via)} {value}, {self.ty(via)} zeroinitializer")
        return value if via is d else self.let(f"trunc {self.ty(via)} {value} to {self.ty(d)}")

    def unpack(self, x: str, ds: DType) -> str:
        """The float32 of a float held as its bits."""
        f32, lanes = self.ty(dtypes.float32.vec(ds.lanes)), ds.lanes
        if ds.scalar is dtypes.bfloat16:
            wide = self.let(f"zext {self.ty(ds)} {x} to {self.ty(dtypes.uint32.vec(lanes))}")
            high = self.let(f"shl {self.ty(dtypes.uint32.vec(lanes))} {wide}, {self.constant(dtypes.uint32.vec(lanes), 16)}")
            return self.let(f"bitcast {self.ty(dtypes.uint32.vec(lanes))} {high} to {f32}")
        half = self.half_type(ds)
        return self.let(f"fpext {half} {self.let(f'bitcast {self.ty(ds)} {x} to {half}')} to {f32}")

    def pack_float(self, x: str, d: DType) -> str:
        """A float32 rounded to the bits of d, ties to even."""
        f32, u32 = self.ty(dtypes.float32.vec(d.lanes)), dtypes.uint32.vec(d.lanes)
        if d.scalar is not dtypes.bfloat16:
            half = self.half_type(d)
            return self.let(f"bitcast {half} {self.let(f'fptrunc {f32} {x} to {half}')} to {self.ty(d)}")
        ty = self.ty(u32)
        bits = self.let(f"bitcast {f32} {x} to {ty}")
        odd = self.let(f"and {ty} {self.let(f'lshr {ty} {bits}, {self.constant(u32, 16)}')}, {self.constant(u32, 1)}")
        up = self.let(f"add {ty} {bits}, {self.let(f'add {ty} {odd}, {self.constant(u32, 0x7FFF)}')}")
        is_nan = self.let(f"fcmp uno {f32} {x}, {x}")
        quiet = self.let(f"or {ty} {bits}, {self.constant(u32, 0x400000)}")
        kept = self.let(f"select {self.cond(d)} {is_nan}, {ty} {quiet}, {ty} {up}")
        return self.let(f"trunc {ty} {self.let(f'lshr {ty} {kept}, {self.constant(u32, 16)}')} to {self.ty(d)}")

    def half_type(self, d: DType) -> str:
        if d.scalar is not dtypes.float16 or d.scalar not in self.target.storage_dtypes:
            raise CompilerBug(f"llvm: a cast of {d.name}, which this CPU can only store; lower_dtypes spells it out")
        return "half" if d.lanes == 1 else f"<{d.lanes} x half>"
