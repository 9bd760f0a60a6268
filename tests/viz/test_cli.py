"""The command line: the same record for scripts and for a terminal."""

from __future__ import annotations

import json

import pytest

from glassgrad.viz import cli, file


@pytest.fixture
def path(recorder, tmp_path):
    file.save(recorder, tmp_path / "x.viz")
    return str(tmp_path / "x.viz")


def test_kernels_slowest_first(path, capsys):
    assert cli.main([path, "--list", "kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "kernel", "runs", "ms", "%", "GFLOP/s", "GB/s", "predicted", "passes", "from"]
    assert "matmul" in lines[1] and "train.py:" in lines[1]


def test_schedules_say_why(path, capsys):
    assert cli.main([path, "--list", "schedules"]) == 0
    out = capsys.readouterr().out
    assert "why: it is read by two kernels" in out and "not fused: its reduction over 784" in out


def test_failures_are_named(path, capsys):
    assert cli.main([path, "--list", "kernels"]) == 0
    assert "train.py:40  failed: CompilerBug: lower dtypes" in capsys.readouterr().out
    assert cli.main([path, "--kernel", "broken"]) == 0
    assert "failed: CompilerBug" in capsys.readouterr().out


def test_a_kernel_its_listing_and_a_pass(path, capsys):
    assert cli.main([path, "--kernel", "softmax_64_10"]) == 0
    assert "lower ops" in capsys.readouterr().out
    assert cli.main([path, "--kernel", "3", "--text", "loops"]) == 0
    assert "for r0 in range(16)" in capsys.readouterr().out
    assert cli.main([path, "--kernel", "softmax", "--pass", "lower ops"]) == 0
    out = capsys.readouterr().out
    assert "2 x exp_to_exp2" in out and "+ %" in out and "- %" in out


def test_json_is_complete(path, capsys):
    assert cli.main([path, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {g["name"] for g in data["groups"]} >= {"relu_matmul_64_128", "broken"}
    assert data["index"]["kernels"] and data["groups"][1]["steps"] and data["memory"]["CPU"]["peak"]
    assert cli.main([path, "--json", "--kernel", "softmax_64_10", "--pass", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == {"exp_to_exp2": 2}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--kernel", "nope"], "no kernel or schedule is named 'nope'"),
        (["--kernel", "99"], "no kernel or schedule number 99"),
        (["--kernel", "softmax_64_10", "--pass", "nope"], "has no pass 'nope'"),
        (["--text", "asm"], "belong to one kernel"),
    ],
)
def test_mistakes_are_explained(path, capsys, args, text):
    assert cli.main([path, *args]) == 1
    assert text in capsys.readouterr().err


def test_no_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["--json"]) == 1
    assert "VIZ=1 python train.py" in capsys.readouterr().err


def test_html(path, tmp_path):
    assert cli.main([path, "--html", str(tmp_path / "page.html")]) == 0
    assert "relu_matmul_64_128" in (tmp_path / "page.html").read_text()
