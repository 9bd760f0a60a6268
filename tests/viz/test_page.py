"""The page in a real browser: headless Chromium by its DevTools protocol."""

from __future__ import annotations

import browser
import pytest
import sample

from glassgrad.viz import file, server

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def recorder():
    return sample.with_big(sample.record(repeats=5))


@pytest.fixture(scope="module")
def served(recorder):
    s = server.serve(recorder, 0)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def page():
    with browser.Browser() as b:
        yield b


@pytest.fixture(autouse=True)
def quiet(page):
    """No test may leave an error on the page."""
    page.errors.clear()
    yield
    assert page.errors == []


DRAWN = "document.getElementById('counts')?.dataset.ready === '{}'"


def texts(page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def test_overview(page, served):
    page.open(served.url)
    assert page.run("document.title") == "train.py · glassgrad"
    names = texts(page, ".row.kernel .name")
    assert names[:2] == ["relu_matmul_64_128", "matmul_64_10"] and "broken" in names
    assert texts(page, ".row.schedule .name") == ["train.py:21", "train.py:31"]
    assert texts(page, "[role=tab]") == ["Overview", "Why", "Timeline", "Memory"]
    assert (
        "relu_matmul_64_128"
        in texts(page, ".slow tr:first-child td:first-child")[0] + texts(page, ".slow tr:nth-child(2) td:first-child")[0]
    )


def test_a_pass_is_drawn(page, served):
    page.open(served.url + "#k=3&tab=passes&p=2&view=changes")
    page.until(DRAWN.format("3/2/2"))
    assert texts(page, ".step .what") == ["simplify", "tile", "lower ops", "lower dtypes", "add grid", "linearize"]
    assert "25 → 28 nodes · 5 new · 2 gone" in texts(page, "#counts")[0]
    assert texts(page, "#inspector summary .mono") == ["exp_to_exp2"]
    assert page.run("views.changes.nodes.filter(n => n.mark === 'new').map(n => n.label.op).sort().join()") == "EXP2,EXP2,MUL,MUL"
    assert page.run("views.changes.nodes.filter(n => n.mark === 'gone').map(n => n.label.op).join()") == "EXP,EXP"
    ink = page.run(
        "(() => { const c = views.changes.canvas, d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })()"
    )
    assert ink > 5_000


def test_layers_run_downwards_and_boxes_do_not_overlap(page, served):
    for kernel, step in ((1, 1), (3, 2), (0, 0)):
        page.open(f"{served.url}#k={kernel}&tab=passes&p={step}&view=changes")
        page.until(DRAWN.format(f"{kernel}/{step}/{step}"))
        assert page.run("views.changes.edges.every(e => e.points[0][1] <= e.points[e.points.length - 1][1])")
        assert (
            page.run(
                "(() => { const n = views.changes.nodes; let hits = 0; for (const a of n) for (const b of n) if (a.id < b.id && "
                "Math.abs(a.x - b.x) < (a.w + b.w) / 2 - 1 && Math.abs(a.y - b.y) < (a.h + b.h) / 2 - 1) hits++; return hits; })()"
            )
            == 0
        )


def test_click_on_a_node_and_on_a_rule(page, served):
    page.open(served.url + "#k=3&tab=passes&p=2&view=after")
    page.until(DRAWN.format("3/2/2"))
    x, y = page.run(
        "(() => { const v = views.after, n = v.nodes.find(n => n.label.op === 'EXP2'), r = v.canvas.getBoundingClientRect();"
        " return [r.x + v.x + n.x * v.scale, r.y + v.y + n.y * v.scale]; })()"
    )
    page.click(x, y)
    page.until("document.querySelector('.node-card')")
    card = texts(page, ".node-card")[0]
    assert "EXP2" in card and "exp_to_exp2" in card and "made it" in card
    page.run("document.querySelector('.case').click()")
    assert page.run("views.after.glow.size") == 1


def test_keys(page, served):
    page.open(served.url + "#k=1&tab=passes&p=0&view=changes")
    page.until(DRAWN.format("1/0/0"))
    page.key("ArrowRight")
    page.until(DRAWN.format("1/1/1"))
    page.key("s")
    page.until("!document.getElementById('side-before').hidden && views.before.nodes.length > 0")
    page.key("x")
    page.until("document.querySelectorAll('.listing .line.gone').length === 2")
    page.key("2")
    page.until("document.querySelector('.code')")
    assert "for r0 in range(16)" in texts(page, ".lines")[0]
    page.key("ArrowDown")
    page.until("document.querySelector('h1').textContent === 'matmul_64_10'")
    page.key("/")
    assert page.run("document.activeElement.id") == "search"
    page.send("Input.insertText", text="softmax")
    page.until("document.querySelectorAll('.row.kernel').length === 1")
    page.key("Escape")
    page.until("document.querySelectorAll('.row.kernel').length > 3")
    page.key("?")
    page.until("document.getElementById('keys').open")


def test_search_finds_user_lines(page, served):
    page.open(served.url)
    page.run("(() => { const s = document.getElementById('search'); s.value = 'train.py:33'; s.dispatchEvent(new Event('input')); })()")
    assert texts(page, ".row.kernel .name") == ["sgd_784_128"]


def test_several_passes_at_once(page, served):
    page.open(served.url + "#k=3&tab=passes&p=1-4&view=changes")
    page.until(DRAWN.format("3/1/4"))
    assert page.run("document.querySelectorAll('.step.chosen').length") == 4
    assert "4 passes" in texts(page, "#inspector h2")[0]


def test_why_timeline_memory_and_errors(page, served):
    page.open(served.url + "#k=0&tab=why")
    page.until("document.querySelectorAll('.call').length === 4")
    assert "Not fused: its reduction over 784" in texts(page, ".reason.no")[0]
    page.open(served.url + "#k=-1&tab=timeline")
    page.until("timeline && timeline.lanes.length === 4 && document.querySelectorAll('#window tr').length > 5")
    assert page.run("timeline.lanes.map(l => l.name).join()") == "compile,schedule,CPU,PYTHON"
    page.open(served.url + "#k=-1&tab=memory")
    page.until("memory.length === 1 && memory[0].data.peak > 0")
    page.open(served.url + "#k=8&tab=passes&p=1")
    page.until("document.querySelector('.error')")
    assert "bf16 has no decomposition" in texts(page, ".error")[0]


def test_a_graph_of_thousands_of_nodes(page, served):
    page.open(served.url + "#k=9&tab=passes&p=0&view=changes")
    page.until(DRAWN.format("9/0/0"), 30)
    assert page.run("views.changes.nodes.length") > 2000
    frame = page.run(
        "(() => { const v = views.changes, t = performance.now(); for (let i = 0; i < 5; i++) v.paint();"
        " return (performance.now() - t) / 5; })()"
    )
    assert frame < 250, f"a frame took {frame:.0f} ms"


def test_names_are_text_not_markup(page):
    r = sample.record(repeats=1)
    k = r.kernel_begin("<img src=x onerror=alert(1)>", sample.softmax_ast(8, 8))
    r.program(source="<b>bold</b>", note="<i>x</i>")
    r.kernel_end()
    s = server.serve(r, 0)
    page.open(f"{s.url}#k={k}&tab=source")
    page.until("document.querySelector('.code')")
    assert page.run("document.querySelectorAll('main img, main .code b, main .chip i').length") == 0
    assert texts(page, "h1") == ["<img src=x onerror=alert(1)>"]
    s.stop()
    page.send("Page.navigate", url="about:blank")
    page.errors.clear()


def test_follows_a_running_program(page):
    r = sample.Recorder("live.py")
    s = server.serve(r, 0)
    page.open(s.url)
    assert "Nothing has been compiled yet" in texts(page, "#view")[0]
    ast = sample.matmul_ast()
    r.kernel_begin("first", ast)
    sample.passes(r, ast)
    r.kernel_end()
    page.until("[...document.querySelectorAll('.row.kernel .name')].some(e => e.textContent === 'first')")
    r.launch("first", 0.0, 0.001)
    page.until("document.getElementById('totals').textContent.startsWith('1 launch ')")
    r.end()
    page.until("document.getElementById('live').textContent === 'ended'")
    page.send("Page.navigate", url="about:blank")
    s.stop()


def test_the_saved_page_works_from_disk(page, recorder, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(file.page_with_data(recorder), encoding="utf-8")
    page.open(path.as_uri() + "#k=3&tab=passes&p=2&view=changes")
    page.until(DRAWN.format("3/2/2"))
    assert texts(page, "#live") == ["saved"]
    page.key("ArrowRight")
    page.until("document.getElementById('counts').textContent === 'no change'")
    page.key("4")
    page.until("document.querySelector('.code')")
