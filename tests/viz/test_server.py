"""The server: what it answers, to whom, and how a program that records itself ends."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glassgrad.uop.errors import DeviceError
from glassgrad.viz import file, server, views

ROOT = Path(__file__).parents[2]


def get(s, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of a GET."""
    c = http.client.HTTPConnection("127.0.0.1", s.server_address[1], timeout=10)
    c.request("GET", path, headers=headers)
    r = c.getresponse()
    out = r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
    c.close()
    return out


def test_listens_on_loopback_only(running):
    assert running.server_address[0] == "127.0.0.1"
    assert running.url.startswith("http://127.0.0.1:")


def test_page_and_scripts(running):
    status, headers, body = get(running, "/")
    assert status == 200 and b"<title>glassgrad</title>" in body
    assert headers["content-security-policy"].startswith("default-src 'self'") and headers["x-content-type-options"] == "nosniff"
    for name in (*file.SCRIPTS, "style.css"):
        assert get(running, f"/{name}")[2] == (file.WEB / name).read_bytes()


def test_answers_are_the_views(running, recorder):
    for path in ("index", "timeline", "memory", "group/1", "text/1/loops", "compare/1/1/1", "compare/1/0/4"):
        status, headers, body = get(running, f"/api/{path}")
        assert status == 200 and headers["content-type"].startswith("application/json")
        assert json.loads(body) == json.loads(json.dumps(views.answer(recorder, path, {}), default=repr))


def test_long_answers_are_compressed(running):
    _, headers, body = get(running, "/app.js", **{"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip" and gzip.decompress(body) == (file.WEB / "app.js").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/web/index.html",
        "//etc/passwd",
        "/style.css/../server.py",
        "/api/",
        "/api/text/1/../../x",
        "/api/group/-1",
        "/api/group/99999",
        "/api/group/1/2",
        "/api/compare/1/3/2",
        "/api/compare/1/0/99",
        "/api/text/1/secret",
        "/api/group/9999999999999999",
    ],
)
def test_nothing_else_is_served(running, path):
    status, _, body = get(running, path)
    assert status == 404 and b"root:" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "localhost.evil.example", ""])
def test_other_names_for_this_machine_are_refused(running, host):
    assert get(running, "/api/index", Host=host)[0] == 403


def test_local_names_are_answered(running):
    port = running.server_address[1]
    for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}"):
        assert get(running, "/api/index", Host=host)[0] == 200


def test_only_get(running):
    c = http.client.HTTPConnection("127.0.0.1", running.server_address[1], timeout=10)
    for method in ("POST", "PUT", "DELETE"):
        c.request(method, "/api/index")
        r = c.getresponse()
        r.read()
        assert r.status == 501
        c.close()


def test_stream_tells_new_versions(running, recorder):
    with socket.create_connection(("127.0.0.1", running.server_address[1]), timeout=10) as s:
        s.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""

        def version() -> int:
            nonlocal got
            found = re.findall(rb'"version": (\d+)', got)
            return int(found[-1]) if found else -1

        while version() < 0:
            got += s.recv(4096)
        first = version()
        recorder.launch("k", 0, 1)
        while version() == first:
            got += s.recv(4096)
        assert version() > first
        recorder.end()
        while b'"ended": true' not in got:
            got += s.recv(4096)


def test_a_taken_port_is_left_alone(recorder):
    first = server.serve(recorder, 0)
    port = first.server_address[1]
    with pytest.raises(DeviceError, match="taken"):
        server.serve(recorder, port)
    first.stop()


def test_the_default_port_gives_way(recorder, monkeypatch):
    first = server.serve(recorder, 0)
    monkeypatch.setattr(server, "PORT", first.server_address[1])
    second = server.serve(recorder)
    assert second.server_address[1] != first.server_address[1] and get(second, "/")[0] == 200
    first.stop()
    second.stop()


def test_many_readers_at_once(running):
    streams = [socket.create_connection(("127.0.0.1", running.server_address[1])) for _ in range(20)]
    for s in streams:
        s.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert get(running, "/api/index")[0] == 200
    for s in streams:
        s.close()


# ---- a program that records itself -------------------------------------------------------------------------------------------------
PROGRAM = """
import sys
sys.path.insert(0, "tests/viz")
import sample
from glassgrad.viz import record, server
r = server.start({mode!r})
assert server.start() is r and record.recorder is r
ast = sample.matmul_ast()
r.kernel_begin("k", ast)
sample.passes(r, ast)
r.kernel_end()
r.launch("k", 1, 2)
print("done", flush=True)
"""


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}


def test_without_a_terminal_a_file_is_left(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(mode="1")], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr
    assert re.search(r"VIZ: http://127\.0\.0\.1:\d+/\n", out.stdout)
    path = Path(re.search(r"python -m glassgrad\.viz (\S+)", out.stdout)[1])
    assert path.parent == tmp_path / "glassgrad" / "viz"
    r = file.load(path)
    assert [k["name"] for k in views.index(r)["kernels"]] == ["k"] and r.ended
    listed = subprocess.run(
        [sys.executable, "-m", "glassgrad.viz", "--list", "kernels"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1000" in listed.stdout.replace(",", "") and " k " in listed.stdout


def test_a_file_name_records_without_a_page(tmp_path):
    path = tmp_path / "run.viz"
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(mode=str(path))],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert out.returncode == 0 and "http://" not in out.stdout and file.load(path).ended


def test_two_records_without_a_page_into_the_folder(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(mode=2)], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0 and "http://" not in out.stdout
    assert len(list((tmp_path / "glassgrad" / "viz").glob("*.viz"))) == 1


def test_in_a_terminal_the_page_stays_until_interrupted(tmp_path):
    master, slave = pty.openpty()
    p = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(mode="1")],
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    text, deadline = "", time.monotonic() + 30
    while "Ctrl-C" not in text and time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            text += os.read(master, 4096).decode()
    url = re.search(r"http://127\.0\.0\.1:(\d+)/", text)
    c = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=10)
    c.request("GET", "/api/index")
    assert json.loads(c.getresponse().read())["ended"] is True
    c.close()
    p.send_signal(signal.SIGINT)
    assert p.wait(15) == 0
    os.close(master)


def test_old_records_are_forgotten(tmp_path):
    for i in range(server.KEPT_FILES + 5):
        (tmp_path / f"{i}.viz").write_bytes(b"")
        os.utime(tmp_path / f"{i}.viz", (i, i))
    (tmp_path / "other.txt").write_bytes(b"")
    server._forget_old(tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert len(left) == server.KEPT_FILES + 1 and "4.viz" not in left and "5.viz" in left
