"""Vision: pooling over any number of axes, pixels rearranged, images resampled and sampled at computed places."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glassgrad.tensor.arguments import to_ints
from glassgrad.tensor.conv import each, to_pairs, windows
from glassgrad.uop.dtype import dtypes
from glassgrad.uop.errors import ShapeError, UsageError
from glassgrad.uop.ops import Ops, UnfoldArg
from glassgrad.uop.uop import UOp

if TYPE_CHECKING:
    from glassgrad.tensor.tensor import Tensor

KEYS_CUBIC = -0.75       # the free number of Keys' cubic kernel as PyTorch and OpenCV take it; -0.5 with antialiasing, as Pillow


class VisionMixin:
    """Methods on images and signals."""
    __slots__ = ()

    # ---- convolution and pooling by the number of axes ---------------------------------------------------------------------------------
    def conv1d(self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
               groups: int = 1) -> Tensor:
        """conv2d over one axis, arguments in PyTorch's order: x (B, C, L), weight (O, C / groups, k)."""
        return self._rank_of_window(weight, 1, "conv1d").conv2d(weight, bias, groups, stride, dilation, padding)
    def conv3d(self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
               groups: int = 1) -> Tensor:
        """conv2d over three axes, arguments in PyTorch's order: x (B, C, D, H, W), weight (O, C / groups, k, k, k)."""
        return self._rank_of_window(weight, 3, "conv3d").conv2d(weight, bias, groups, stride, dilation, padding)
    def conv_transpose1d(self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                         groups: int = 1, dilation: Any = 1) -> Tensor:
        """conv_transpose2d over one axis, arguments in PyTorch's order."""
        x = self._rank_of_window(weight, 1, "conv_transpose1d")
        return x.conv_transpose2d(weight, bias, groups, stride, dilation, padding, output_padding)
    def conv_transpose3d(self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                         groups: int = 1, dilation: Any = 1) -> Tensor:
        """conv_transpose2d over three axes, arguments in PyTorch's order."""
        x = self._rank_of_window(weight, 3, "conv_transpose3d")
        return x.conv_transpose2d(weight, bias, groups, stride, dilation, padding, output_padding)
    def _rank_of_window(self, weight: Tensor, n: int, what: str) -> Tensor:
        if weight.ndim != n + 2:
            raise ShapeError(f"{what} of x {self.shape} and weight {weight.shape}\n"
                             f"  the weight must have {n + 2} axes\n  try: conv2d, which takes any number")
        return self

    def max_pool1d(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                   return_indices: bool = False) -> Any:
        """max_pool2d over the last axis."""
        return self.max_pool2d(each(kernel_size, 1, "max_pool1d", "kernel_size"), stride, dilation, padding, ceil_mode, return_indices)
    def max_pool3d(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                   return_indices: bool = False) -> Any:
        """max_pool2d over the last three axes."""
        return self.max_pool2d(each(kernel_size, 3, "max_pool3d", "kernel_size"), stride, dilation, padding, ceil_mode, return_indices)
    def avg_pool1d(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                   count_include_pad: bool = True) -> Tensor:
        """avg_pool2d over the last axis."""
        return self.avg_pool2d(each(kernel_size, 1, "avg_pool1d", "kernel_size"), stride, 1, padding, ceil_mode, count_include_pad)
    def avg_pool3d(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                   count_include_pad: bool = True) -> Tensor:
        """avg_pool2d over the last three axes."""
        return self.avg_pool2d(each(kernel_size, 3, "avg_pool3d", "kernel_size"), stride, 1, padding, ceil_mode, count_include_pad)
    def max_unpool1d(self, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None) -> Tensor:
        """max_unpool2d over the last axis."""
        return self.max_unpool2d(indices, each(kernel_size, 1, "max_unpool1d", "kernel_size"), stride, padding, output_size)
    def max_unpool3d(self, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None) -> Tensor:
        """max_unpool2d over the last three axes."""
        return self.max_unpool2d(indices, each(kernel_size, 3, "max_unpool3d", "kernel_size"), stride, padding, output_size)
    def lp_pool1d(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        return self._lp_pool(norm_type, 1, kernel_size, stride, ceil_mode)
    def lp_pool2d(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        return self._lp_pool(norm_type, 2, kernel_size, stride, ceil_mode)
    def lp_pool3d(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        return self._lp_pool(norm_type, 3, kernel_size, stride, ceil_mode)
    def _lp_pool(self, p: float, n: int, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
        """(sum x**p) ** (1 / p) of each window."""
        size = each(kernel_size, n, "lp_pool", "kernel_size")
        sums = (self ** p).avg_pool2d(size, stride, ceil_mode=ceil_mode) * math.prod(size)
        return sums.sign() * sums.abs().relu() ** (1 / p)

    def adaptive_avg_pool1d(self, output_size: Any) -> Tensor: return self._adaptive(1, output_size, "mean")
    def adaptive_avg_pool2d(self, output_size: Any) -> Tensor: return self._adaptive(2, output_size, "mean")
    def adaptive_avg_pool3d(self, output_size: Any) -> Tensor: return self._adaptive(3, output_size, "mean")
    def adaptive_max_pool1d(self, output_size: Any) -> Tensor: return self._adaptive(1, output_size, "max")
    def adaptive_max_pool2d(self, output_size: Any) -> Tensor: return self._adaptive(2, output_size, "max")
    def adaptive_max_pool3d(self, output_size: Any) -> Tensor: return self._adaptive(3, output_size, "max")
    def _adaptive(self, n: int, output_size: Any, how: str) -> Tensor:
        """Windows as PyTorch's: output i of m covers floor(i k / m) to ceil((i + 1) k / m) of k elements; axis after axis."""
        sizes = (output_size,) * n if isinstance(output_size, int) or output_size is None else tuple(output_size)
        if len(sizes) != n or self.ndim < n:
            raise ShapeError(f"adaptive pooling of {self.shape} to {sizes}\n  there must be {n} sizes and as many axes")
        x = self
        for a, m in zip(range(self.ndim - n, self.ndim), sizes):
            k = x.shape[a]
            if m is None or m == k: continue
            starts, ends = [i * k // m for i in range(m)], [-(-(i + 1) * k // m) for i in range(m)]
            widest = max(hi - lo for lo, hi in zip(starts, ends))
            rows = type(self)([[min(lo + j, k - 1) for j in range(widest)] for lo in starts])
            real = type(self)([[lo + j < hi for j in range(widest)] for lo, hi in zip(starts, ends)])
            part = x.movedim(a, -1)[..., rows]
            if how == "max": part = real.where(part, part.dtype.min).max(-1)
            else: part = real.where(part, 0).sum(-1) / real.sum(-1)
            x = part.movedim(-1, a)
        return x.cast(self.dtype) if self.dtype.is_float else x

    # ---- windows and pixels --------------------------------------------------------------------------------------------------------------
    def im2col(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
        """Each window of (B, C, H, W) as a column: (B, C kh kw, windows). What PyTorch calls Unfold."""
        size, dilation, stride = _pairs("im2col", kernel_size=kernel_size, dilation=dilation, stride=stride)
        x = self.pad((*((0, 0),) * (self.ndim - 2), *to_pairs(padding, 2, "im2col")))
        y = self._new(windows(x.uop, x.ndim - 2, size, stride, dilation))                        # (B, C, oh, ow, kh, kw)
        b, c, oh, ow, kh, kw = y.shape
        return y.permute(0, 1, 4, 5, 2, 3).reshape(b, c * kh * kw, oh * ow)
    def fold(self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
        """The adjoint of im2col: columns put back as windows of an image (B, C, *output_size), which add up where they overlap.

        errors:  ShapeError if the numbers do not fit
        """
        out, size, dilation, stride = _pairs("fold", output_size=output_size, kernel_size=kernel_size, dilation=dilation, stride=stride)
        pairs = to_pairs(padding, 2, "fold")
        whole = [m + lo + hi for m, (lo, hi) in zip(out, pairs)]
        counts = [(m - d * (k - 1) - 1) // s + 1 for m, k, d, s in zip(whole, size, dilation, stride)]
        b, rows, columns = self.shape if self.ndim == 3 else (0, 1, -1)
        if columns != math.prod(counts) or rows % math.prod(size):
            raise ShapeError(f"fold of {self.shape} to {out} by windows {size}\n"
                             f"  there must be (B, C * {math.prod(size)}, {math.prod(counts)}) elements")
        c = rows // math.prod(size)
        x = self.reshape(b, c, *size, *counts).permute(0, 1, 4, 5, 2, 3).uop
        for i in (1, 0): x = UOp(Ops.FOLD, x.dtype, (x,), UnfoldArg(2 + i, size[i], stride[i], dilation[i], whole[i]))
        return self._new(x.shrink(((0, b), (0, c), *((lo, lo + m) for m, (lo, _) in zip(out, pairs)))))
    def pixel_shuffle(self, upscale_factor: int) -> Tensor:
        """(..., C r², H, W) -> (..., C, H r, W r): channels become pixels."""
        r = upscale_factor
        *lead, c, h, w = self.shape
        if c % (r * r): raise ShapeError(f"pixel_shuffle({r}) of {self.shape}\n  {c} channels are no multiple of {r * r}")
        x, n = self.reshape(*lead, c // (r * r), r, r, h, w), len(lead)
        return x.permute(*range(n + 1), n + 3, n + 1, n + 4, n + 2).reshape(*lead, c // (r * r), h * r, w * r)
    def pixel_unshuffle(self, downscale_factor: int) -> Tensor:
        """(..., C, H r, W r) -> (..., C r², H, W): pixels become channels."""
        r = downscale_factor
        *lead, c, h, w = self.shape
        if h % r or w % r: raise ShapeError(f"pixel_unshuffle({r}) of {self.shape}\n  height and width must be multiples of {r}")
        x, n = self.reshape(*lead, c, h // r, r, w // r, r), len(lead)
        return x.permute(*range(n + 1), n + 2, n + 4, n + 1, n + 3).reshape(*lead, c * r * r, h // r, w // r)
    def channel_shuffle(self, groups: int) -> Tensor:
        """Channels (axis 1) dealt out: the first of each group, then the second of each, ..."""
        b, c, *space = self.shape
        if c % groups: raise ShapeError(f"channel_shuffle({groups}) of {self.shape}\n  {c} channels are no multiple of {groups}")
        return self.reshape(b, groups, c // groups, *space).transpose(1, 2).reshape(self.shape)
    def local_response_norm(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
        """x over (k + alpha * mean of the squares of `size` channels around) ** beta."""
        square = self.square().pad([(0, 0), (size // 2, (size - 1) // 2), *[(0, 0)] * (self.ndim - 2)])
        return self / (square.unfold(1, size).mean(-1) * alpha + k) ** beta

    # ---- resampling
    # ------------------------------------------------------------------------------------------------------------------------
    def interpolate(self, size: Any = None, mode: str = "linear", align_corners: bool = False, scale_factor: Any = None,
                    antialias: bool = False) -> Tensor:
        """The last axes resampled to `size` (or by scale_factor): "linear", "cubic", "area", "nearest" or "nearest-exact", axis after axis.

        mode:    "bilinear", "trilinear" and "bicubic" are the same as "linear" and "cubic"; antialias widens those kernels when an axis
                 shrinks
        errors:  UsageError for another mode, or unless one of size and scale_factor is given; ShapeError if the sizes do not fit
        source:  torch.nn.functional.interpolate
        """
        if (size is None) == (scale_factor is None):
            raise UsageError(f"interpolate of {self.shape} to size={size} and scale_factor={scale_factor}\n  one of both must be given")
        known = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "cubic": "cubic", "bicubic": "cubic", "area": "area",
                 "nearest": "nearest", "nearest-exact": "nearest-exact"}
        if mode not in known:
            raise UsageError(f"interpolate with mode={mode!r}\n  try: 'linear', 'cubic', 'area', 'nearest' or 'nearest-exact'")
        if size is None:
            factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * max(self.ndim - 2, 1)
            sizes = tuple(int(n * f) for n, f in zip(self.shape[self.ndim - len(factors):], factors))
        else: sizes = (size,) if isinstance(size, int) else to_ints(size, f"interpolate of {self.shape} to {size!r}")
        if not 0 < len(sizes) <= self.ndim or any(s < 1 for s in sizes) or 0 in self.shape:
            raise ShapeError(f"interpolate of {self.shape} to {sizes}\n  there must be one size, at least 1, for each of the last axes")
        way = known[mode]
        if way == "area": return self._adaptive(len(sizes), sizes, "mean")
        if self.dtype.is_bool: return self.cast(dtypes.uint8).interpolate(sizes, mode, align_corners).cast(dtypes.bool)
        x = self if self.dtype.is_float or way.startswith("nearest") else self.cast(dtypes.default_float)
        for a, m in zip(range(x.ndim - len(sizes), x.ndim), sizes):
            n = x.shape[a]
            if n == m: continue
            if way.startswith("nearest"): x = x[x._along(a, type(self)(_nearest(n, m, way)))]
            else: x = _resampled(x, a, _taps(n, m, way, align_corners, antialias and m < n))
        return x

    @classmethod
    def affine_grid(cls, theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """The places grid_sample reads for an affine map of images or volumes: theta (B, n, n + 1), size (B, C, *space) -> (B, *space, n).

        errors:  ShapeError if the shapes do not fit
        """
        _, _, *space = size
        n = len(space)
        if theta.shape[1:] != (n, n + 1):
            raise ShapeError(f"affine_grid of theta {theta.shape} for size {tuple(size)}\n  theta must be (B, {n}, {n + 1})")
        lines = [cls([(2 * i - m + 1) / max(m - 1 if align_corners else m, 1) for i in range(m)]) for m in space]
        grids = lines[0].meshgrid(*lines[1:])[::-1] if n > 1 else (lines[0],)                    # x first
        points = grids[0].stack(*grids[1:], grids[0].ones_like(), dim=-1).reshape(-1, n + 1).cast(theta.dtype)
        return points.matmul(theta.mT).reshape(theta.shape[0], *space, n)
    def grid_sample(self, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False) -> Tensor:
        """Images read at places between pixels: (-1, -1) is the upper left corner (or its pixel's centre with align_corners), (1, 1) the
        lower right.

        shapes:  x (B, C, H, W), grid (B, h, w, 2) -> (B, C, h, w); volumes with grid (B, d, h, w, 3); the last axis of the grid is x, y
                 (, z)
        mode:    "bilinear", "nearest" or (images only) "bicubic"; padding_mode: what lies outside is 0 ("zeros"), the edge ("border") or
                 mirrored ("reflection")
        errors:  UsageError for another mode, ShapeError if the shapes do not fit
        """
        n = self.ndim - 2
        if mode not in ("bilinear", "nearest", "bicubic") or padding_mode not in ("zeros", "border",
                                                                                  "reflection") or mode == "bicubic" and n != 2:
            raise UsageError(f"grid_sample of {self.shape} with mode={mode!r}, padding_mode={padding_mode!r}\n"
                             f"  try: 'bilinear' or 'nearest' ('bicubic' for images); 'zeros', 'border' or 'reflection'")
        if n not in (2, 3) or grid.ndim != n + 2 or grid.shape[-1] != n or grid.shape[0] != self.shape[0]:
            raise ShapeError(f"grid_sample of {self.shape} at {grid.shape}\n"
                             f"  x must be (B, C, *space) and the grid (B, *places, {max(n, 2)})")
        places = []
        for k, m in enumerate(reversed(self.shape[2:])):
            u = grid[..., k]
            u = (u + 1) * ((m - 1) / 2) if align_corners else ((u + 1) * m - 1) * 0.5
            places.append(u if mode == "bicubic" else _brought_in(u, m, padding_mode, align_corners))
        flat = self.flatten(2)
        total = None
        taps = [_point_taps(u, mode) for u in reversed(places)]                                   # of each axis: (index, weight)s
        combos: list[tuple[list[Tensor], Any]] = [([], None)]
        for axis in taps: combos = [([*at, i], w if v is None else v if w is None else v * w) for at, v in combos for i, w in axis]
        for at, weight in combos:
            index, inside = None, None
            for i, m in zip(at, self.shape[2:]):
                if mode == "bicubic": i = _brought_in(i, m, padding_mode, align_corners)
                ok = (i >= 0) & (i <= m - 1)
                inside = ok if inside is None else inside & ok
                i = i.clamp(0, m - 1).int()
                index = i if index is None else index * m + i
            # type: ignore[union-attr]
            index = index.reshape(index.shape[0], 1, -1).expand(index.shape[0], self.shape[1], math.prod(index.shape[1:]))
            value = flat.gather(2, index).reshape(*self.shape[:2], *grid.shape[1:-1])
            value = inside.unsqueeze(1).where(value, 0.0)  # type: ignore[union-attr]
            if weight is not None: value = value * weight.unsqueeze(1)
            total = value if total is None else total + value
        return total.cast(self.dtype)  # type: ignore[union-attr]


def _pairs(what: str, **values: Any) -> list[tuple[int, ...]]: return [each(v, 2, what, name) for name, v in values.items()]


Taps = list[list[tuple[int, float]]]


def _nearest(n: int, m: int, way: str) -> list[int]:
    return [min(int((i + 0.5 * (way != "nearest")) * n / m), n - 1) for i in range(m)]


def _cubic(t: float, a: float) -> float:
    t = abs(t)
    if t < 1: return ((a + 2) * t - (a + 3)) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0


def _taps(n: int, m: int, way: str, align_corners: bool, antialias: bool) -> Taps:
    """For each of m outputs which of n inputs it is made of, and their weights."""
    out: Taps = []
    for i in range(m):
        if antialias:
            scale = n / m
            reach, centre = (2 if way == "cubic" else 1) * scale, (i + 0.5) * scale
            lo, hi = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), n)
            weights = [(_cubic((j + 0.5 - centre) / scale, -0.5) if way == "cubic" else max(1 - abs((j + 0.5 - centre) / scale), 0.0))
                       for j in range(lo, hi)]
            total = sum(weights)
            out.append([(j, w / total) for j, w in zip(range(lo, hi), weights)])
            continue
        at = i * (n - 1) / (m - 1) if align_corners and m > 1 else 0.0 if align_corners else (i + 0.5) * n / m - 0.5
        if way == "linear": at = max(at, 0.0)
        lo = math.floor(at)
        part = at - lo
        if way == "linear": out.append([(min(lo, n - 1), 1 - part), (min(lo + 1, n - 1), part)])
        else: out.append([(min(max(lo + k, 0), n - 1), _cubic(part - k, KEYS_CUBIC)) for k in (-1, 0, 1, 2)])
    return out


def _resampled(x: Tensor, a: int, taps: Taps) -> Tensor:
    """Axis a of x as weighted sums of gathered slices."""
    cls, shape = type(x), [-1 if i == a else 1 for i in range(x.ndim)]
    total = None
    for k in range(max(map(len, taps))):
        index = cls([row[k][0] if k < len(row) else 0 for row in taps])
        weight = cls([row[k][1] if k < len(row) else 0.0 for row in taps],
                     dtype=dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32)
        part = x[x._along(a, index)] * weight.reshape(*shape).cast(x.dtype)
        total = part if total is None else total + part
    return total  # type: ignore[return-value]


def _brought_in(u: Tensor, m: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Places along an axis of m, those outside as `padding_mode` wants them."""
    if padding_mode == "zeros": return u
    if padding_mode == "reflection":
        low, span = (0.0, float(m - 1)) if align_corners else (-0.5, float(m))
        if span == 0: return u * 0
        far = (u - low).abs()
        turns = (far / span).floor()
        rest = far - turns * span
        u = (turns.int() % 2 == 0).where(rest, span - rest) + low
    return u.clamp(0, m - 1)


def _point_taps(u: Tensor, mode: str) -> list[tuple[Tensor, Any]]:
    """The pixels (as floats) that a place along an axis is made of, and their weights."""
    if mode == "nearest": return [(u.round(), None)]
    low = u.floor()
    t = u - low.detach()
    if mode == "bilinear": return [(low, 1 - t), (low + 1, t)]
    a = KEYS_CUBIC
    def near(t: Tensor) -> Tensor: return ((a + 2) * t - (a + 3)) * t * t + 1
    def far(t: Tensor) -> Tensor: return (((t - 5) * t + 8) * t - 4) * a
    return [(low - 1, far(t + 1)), (low, near(t)), (low + 1, near(1 - t)), (low + 2, far(2 - t))]
