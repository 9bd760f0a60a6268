"""A curve as a PNG file, with nothing but zlib and NumPy."""
import struct
import zlib

import numpy as np

WIDTH, HEIGHT, MARGIN = 640, 320, 16


def save_curve(path: str, values: list[float], smooth: int = 20) -> None:
    """Draw `values` (light) and their running mean (dark) from left to right, the largest at the top."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    values = np.nan_to_num(np.asarray(values, np.float64))
    if len(values):
        sums, last = np.concatenate([[0.0], np.cumsum(values)]), np.arange(1, len(values) + 1)
        mean = (sums[last] - sums[np.maximum(last - smooth, 0)]) / np.minimum(last, smooth)
        low, high = min(values.min(), 0.0), max(values.max(), 1e-9)
        image[HEIGHT - MARGIN, MARGIN:-MARGIN] = image[MARGIN:-MARGIN, MARGIN] = 160
        for line, color, thick in ((values, (190, 210, 240), 0), (mean, (20, 80, 180), 1)):
            across = np.arange(MARGIN, WIDTH - MARGIN)
            y = np.interp(np.linspace(0, len(line) - 1, len(across)), np.arange(len(line)), line)
            rows = (HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - 2 * MARGIN)).astype(int)
            for x, a, b in zip(across, rows, [rows[0], *rows[:-1]], strict=True): image[min(a, b):max(a, b) + 1 + thick, x] = color
    save_png(path, image)


def save_png(path: str, image: np.ndarray) -> None:
    """Write a uint8 image (height, width, 3) as PNG."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1).tobytes()
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows, 9)),
            (b"IEND", b""),
        ):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
