"""A record on disk: the same answers, and no trust in what is read."""

from __future__ import annotations

import json
import re
import zlib

import pytest
import sample

from glassgrad.uop.errors import FileError
from glassgrad.viz import file, views


def test_round_trip_gives_the_same_answers(recorder, tmp_path):
    path = tmp_path / "a" / "x.viz"
    assert file.save(recorder, path) == path.stat().st_size
    again = file.load(path)

    def plain(x):
        return json.loads(json.dumps(x, default=repr))

    for g in recorder.groups.values():
        before, after = plain(views.group(recorder, g.id)), plain(views.group(again, g.id))
        assert before == after
        for key in before["texts"]:
            assert views.text(recorder, g.id, key) == views.text(again, g.id, key)
        for s in before["steps"]:
            assert plain(views.compare(recorder, g.id, s["index"], s["index"])) == plain(views.compare(again, g.id, s["index"], s["index"]))
    assert plain(views.timeline(recorder)) == plain(views.timeline(again))
    assert plain(views.memory(recorder)) == plain(views.memory(again))
    one, two = plain(views.index(recorder)), plain(views.index(again))
    for k in ("version", "ended"):
        del one[k], two[k]
    assert one == two
    assert [p.name for p in path.parent.iterdir()] == ["x.viz"]


def written(recorder, tmp_path, change):
    """A record with its data changed."""
    path = tmp_path / "x.viz"
    file.save(recorder, path)
    data = json.loads(zlib.decompress(path.read_bytes()))
    change(data)
    path.write_bytes(zlib.compress(json.dumps(data).encode()))
    return path


def source_after_itself(d):
    d["groups"][1]["rows"][3][3] = [3]


def root_that_is_not_there(d):
    d["groups"][1]["steps"][0][2] = 10**6


def negative_root(d):
    d["groups"][1]["steps"][0][2] = -1


def no_groups(d):
    del d["groups"]


def event_of_text(d):
    d["events"][0][3] = "soon"


def group_is_a_number(d):
    d["groups"][0] = 3


def call_too_short(d):
    d["groups"][0]["calls"][0] = ["x"]


@pytest.mark.parametrize(
    "change", [source_after_itself, root_that_is_not_there, negative_root, no_groups, event_of_text, group_is_a_number, call_too_short]
)
def test_damaged_data_is_a_file_error(recorder, tmp_path, change):
    with pytest.raises(FileError, match="is damaged"):
        file.load(written(recorder, tmp_path, change))


def test_other_formats_are_named(recorder, tmp_path):
    with pytest.raises(FileError, match="format 2"):
        file.load(written(recorder, tmp_path, lambda d: d.update({"glassgrad viz": 99})))


def test_any_cut_and_any_flipped_byte_is_a_file_error_or_a_record(recorder, tmp_path):
    path = tmp_path / "x.viz"
    file.save(recorder, path)
    whole = path.read_bytes()
    for cut in (0, 1, 2, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            file.load(path)
    for at in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(FileError):
            file.load(path)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "BYTES_LIMIT", 1 << 20)
    path = tmp_path / "x.viz"
    path.write_bytes(zlib.compress(b" " * (64 << 20)))
    with pytest.raises(FileError, match="unpacks to more than 1 MiB"):
        file.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileError, match="cannot read"):
        file.load(tmp_path / "none.viz")


def test_one_file_of_html_needs_nothing_else_and_cannot_be_broken_out_of(recorder):
    recorder.kernel_begin("</script><script>alert(1)</script>", sample.softmax_ast(8, 8))
    recorder.kernel_end()
    page = file.page_with_data(recorder)
    assert not re.search(r'(src|href)="(?!data:|/export)[^"]*"', page)
    assert "https://" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert any(k["name"].startswith("</script>") for k in json.loads(data[1])["index"]["kernels"])
    assert page.count("<script") == page.count("</script>") == 1 + len(file.SCRIPTS)
