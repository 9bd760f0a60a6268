"""Server: the page on the loopback interface, by the standard library alone.

The answers are small JSON documents and one stream of version numbers, for one reader on the same machine; an asynchronous server
would add three packages and a slower start, and make nothing here faster.
"""
from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from glassgrad.rewrite import trace
from glassgrad.uop.errors import DeviceError, UsageError
from glassgrad.viz import file, record, views
from glassgrad.viz.record import Recorder

PORT = 8321
HOST = "127.0.0.1"
KEPT_FILES = 20
_PAGES = {"/": ("index.html", "text/html"), "/style.css": ("style.css", "text/css"),
          **{f"/{s}": (s, "text/javascript") for s in file.SCRIPTS}}
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?\Z", re.I)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET; the files it may send are a fixed table, so no path can lead anywhere else."""
    server: VizServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None: pass

    def do_GET(self) -> None:
        # another site's name may be made to point here (DNS rebinding): only requests to this machine by its own name are answered
        if not _LOCAL.match(self.headers.get("Host", "")): return self._send(403, b"this page is only for this machine", "text/plain")
        url = urlsplit(self.path)
        try:
            if url.path in _PAGES:
                name, kind = _PAGES[url.path]
                return self._send(200, (file.WEB / name).read_bytes(), kind)
            if url.path == "/api/events": return self._events()
            r = self.server.recorder
            if url.path.startswith("/api/"): return self._json(views.answer(r, url.path[5:], dict(parse_qsl(url.query))))
            if url.path == "/export.html":
                return self._send(200, file.page_with_data(r).encode(), "text/html", 'attachment; filename="glassgrad.html"')
            self._send(404, b"not found", "text/plain")
        except UsageError as error: self._send(404, str(error).encode(), "text/plain")
        except (ConnectionError, TimeoutError): self.close_connection = True   # the reader has left

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps(data, default=repr, separators=(",", ":")).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, disposition: str | None = None) -> None:
        self.send_response(status)
        if len(body) > 10_000 and "gzip" in self.headers.get("Accept-Encoding", ""):
            pack = zlib.compressobj(1, wbits=31)
            body = pack.compress(body) + pack.flush()
            self.send_header("Content-Encoding", "gzip")
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store",
                   "X-Content-Type-Options": "nosniff", "Content-Security-Policy": _POLICY, "Cross-Origin-Resource-Policy": "same-origin"}
        if disposition: headers["Content-Disposition"] = disposition
        for k, v in headers.items(): self.send_header(k, v)
        self.end_headers()
        self.wfile.write(body)

    def _events(self) -> None:
        """A stream of version numbers, at most four a second: the page asks again when one is new."""
        self.send_response(200)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Connection": "close"}
        for k, v in headers.items(): self.send_header(k, v)
        self.end_headers()
        self.close_connection = True
        told, said = -1, 0.0
        while not self.server.closing.is_set():
            r = self.server.recorder
            if r.version != told or time.monotonic() - said > 15:
                told, said = r.version, time.monotonic()
                self.wfile.write(f"data: {json.dumps({'version': told, 'ended': r.ended})}\n\n".encode())
                self.wfile.flush()
            self.server.closing.wait(0.25)


class VizServer(ThreadingHTTPServer):
    """Serves one recorder from background threads that never keep the program alive."""
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, recorder: Recorder, port: int = PORT) -> None:
        self.recorder, self.closing = recorder, threading.Event()
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str: return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that closes its window is no error; anything else goes to stderr."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)): super().handle_error(request, client_address)

    def begin(self) -> VizServer:
        """Serve in a background thread."""
        threading.Thread(target=self.serve_forever, args=(0.2,), name="glassgrad-viz", daemon=True).start()
        return self

    def stop(self) -> None:
        """End the streams and the thread, free the port."""
        self.closing.set()
        self.shutdown()
        self.server_close()


def serve(recorder: Recorder, port: int | None = None) -> VizServer:
    """A running server on `port`; without one on 8321 or, if that is taken, on a free port."""
    for p in (PORT, 0) if port is None else (port,):
        if p and _is_taken(p): continue   # with address reuse, some systems let two servers listen on one port
        try: return VizServer(recorder, p).begin()
        except OSError as error: found = error
    raise DeviceError(f"viz: cannot listen on {HOST}:{port}" + (f": {found.strerror}" if "found" in locals() else ": the port is taken")
                      + "\n  try: another port, or none to let one be chosen")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0


# ---- a program that records itself -------------------------------------------------------------------------------------------------
def start(mode: int | str = 1, folder: Path | None = None, say: Callable[[str], None] = print) -> Recorder:
    """Begin to record, once per process. `mode` is the value of VIZ: 1 serves the page, 2 only leaves a file, a path leaves that file.

    At the end of the program the page stays up until Ctrl-C if stdout is a terminal; else the record goes to `folder`.
    """
    mode = str(mode)
    if record.recorder is not None: return record.recorder
    record.recorder = r = Recorder()
    trace.listen(r)
    folder = folder or _folder()
    if mode != "1":
        atexit.register(_write, r, folder / _file_name(r) if mode.isdigit() else Path(mode).absolute(), say)
        return r
    server = serve(r)
    say(f"VIZ: {server.url}")
    atexit.register(_finish, r, server, folder, say)
    return r


def _file_name(r: Recorder) -> str:
    name = re.sub(r"[^\w.-]+", "-", Path(r.title).stem).strip("-.") or "record"
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.viz"


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "glassgrad" / "viz"


def _finish(r: Recorder, server: VizServer, folder: Path, say: Callable[[str], None]) -> None:
    """The program has ended: wait for its reader, or leave a file behind."""
    r.end()
    if sys.stdout is not None and sys.stdout.isatty():
        say(f"VIZ: the program has ended, the page stays at {server.url} (Ctrl-C to leave)")
        with contextlib.suppress(KeyboardInterrupt): server.closing.wait()
    else:
        _write(r, folder / _file_name(r), say)
    server.stop()


def _write(r: Recorder, path: Path, say: Callable[[str], None]) -> None:
    r.end()
    if not r.groups and not r.events: return
    try: file.save(r, path)
    except OSError as error: say(f"VIZ: the record could not be written to {path}: {error.strerror}")
    else: say(f"VIZ: open the record with  python -m glassgrad.viz {path}")
    if path.parent == _folder(): _forget_old(path.parent)


def _forget_old(folder: Path) -> None:
    """Keep the newest records of a folder."""
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("*.viz"), key=lambda p: p.stat().st_mtime)[:-KEPT_FILES]: old.unlink()


def latest() -> Path | None:
    """The newest record that a program left behind."""
    found = sorted(_folder().glob("*.viz"), key=lambda p: p.stat().st_mtime) if _folder().is_dir() else []
    return found[-1] if found else None
