"""No public name of the installed tinygrad is missing but those that tools/names.py says we do without."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("tinygrad", reason="tinygrad is absent: nothing to compare names with")


def test_no_name_is_missing():
    spec = importlib.util.spec_from_file_location("names", Path(__file__).parent.parent / "tools" / "names.py")
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    found = list(names.compare())
    assert len(found) > 300
    assert [n.full for n in found if not n.is_here and n.full not in names.DELIBERATE] == []
