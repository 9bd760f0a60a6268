"""A progress bar: tqdm's if it is installed, else a line that is written over."""
import importlib.util
import sys
import time


def progress(items, text: str = ""):
    """Yield `items`, showing how far it is."""
    if importlib.util.find_spec("tqdm") is None: return _plain(items, text)
    return importlib.import_module("tqdm").tqdm(items, desc=text, mininterval=0.2)


def _plain(items, text: str):
    total, start, shown = len(items), time.perf_counter(), 0.0
    for i, item in enumerate(items):
        yield item
        now = time.perf_counter()
        if now - shown > 0.2 or i + 1 == total:
            shown, done = now, (i + 1) / total
            bar = "#" * int(30 * done)
            print(f"\r{text} [{bar:30}] {i + 1}/{total} {(i + 1) / (now - start):.1f}/s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
