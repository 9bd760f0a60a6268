"""Every lesson runs, in a process of its own: lessons add rows to tables."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.py"))


@pytest.mark.parametrize("lesson", LESSONS, ids=[p.stem for p in LESSONS])
def test_lesson_runs(lesson):
    assert len(lesson.read_text().splitlines()) < 80
    env = os.environ | {"PYTHONPATH": str(ROOT), "CACHE": "0"}
    done = subprocess.run([sys.executable, str(lesson)], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip(), "a lesson prints what it shows"
