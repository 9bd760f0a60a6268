"""A curve as a PNG file, drawn with Pillow."""
import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, MARGIN = 720, 360, 56, 28
GREY, LIGHT, DARK = (120, 120, 120), (190, 210, 240), (20, 80, 180)


def save_curve(path: str, values: list[float], title: str = "loss", smooth: int = 20) -> None:
    """Draw `values` (light) and the mean of the last `smooth` of them (dark) from left to right, with the numbers along both axes."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    values = np.nan_to_num(np.asarray(values, np.float64))
    low, high = min(values.min(initial=0.0), 0.0), max(values.max(initial=0.0), 1e-9)
    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN

    def place(i, value): return LEFT + i / max(len(values) - 1, 1) * (right - LEFT), bottom - (value - low) / (high - low) * (bottom - MARGIN)

    for value in np.linspace(low, high, 5):
        _, y = place(0, value)
        draw.line((LEFT, y, right, y), (230, 230, 230))
        draw.text((LEFT - 8, y), f"{value:.3g}", GREY, anchor="rm")
    for i in np.linspace(0, max(len(values) - 1, 0), 5).astype(int): draw.text((place(i, low)[0], bottom + 8), str(i), GREY, anchor="mt")
    draw.text((LEFT, MARGIN - 10), f"{title} by step", GREY, anchor="lb")
    last = np.arange(1, len(values) + 1)
    sums, first = np.concatenate([[0.0], np.cumsum(values)]), np.maximum(last - smooth, 0)
    mean = (sums[last] - sums[first]) / (last - first)
    for line, color, thick in ((values, LIGHT, 1), (mean, DARK, 2)): draw.line([place(i, y) for i, y in enumerate(line)], color, thick)
    image.save(path)
