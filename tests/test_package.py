"""The package: light to import, complete as a wheel, nothing but NumPy and llvmlite needed."""
from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_readme import ROOT, example

import glassgrad

IMPORT_MS = 60          # `import glassgrad`, on a quiet machine
TENSOR_MS = 200         # `from glassgrad import Tensor` in CPU time: generous, the machine may be busy; 55 when quiet
HEAVY = ("numpy", "llvmlite", "http", "socket", "subprocess", "tempfile", "zipfile", "json", "asyncio", "importlib.resources")

PATH = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"


def run(code: str, *flags: str, python: str | Path = sys.executable, cwd: Path = ROOT) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run([str(python), *flags, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line,limit", [("import glassgrad", IMPORT_MS), ("from glassgrad import Tensor", TENSOR_MS)])
def test_import_is_quick(line, limit, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))        # compiled files, whatever the tests run under
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    code = f"{PATH}import time\nstart = time.process_time()\n{line}\nprint((time.process_time() - start) * 1000)"
    assert min(float(run(code, "-S")) for _ in range(6)) <= limit


def test_import_brings_nothing_heavy():
    """Without site packages, some of which bring modules of their own into every process."""
    code = f"{PATH}from glassgrad import Tensor\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code, "-S").strip() == ""


def test_every_public_name_is_there():
    for name in glassgrad.__all__: assert getattr(glassgrad, name) is not None
    assert set(glassgrad.__all__) <= set(dir(glassgrad))
    with pytest.raises(AttributeError, match="glassgrad"): print(glassgrad.no_such_name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what belongs into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"): shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "glassgrad", source / "glassgrad", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    done = subprocess.run(build, capture_output=True, text=True, cwd=source)
    assert done.returncode == 0, done.stderr
    return next((source / "dist").glob("glassgrad-*.whl"))


def test_the_wheel_holds_all_files(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "glassgrad").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts: assert str(path.relative_to(ROOT)) in held
    assert not [name for name in held if not name.startswith("glassgrad")]


def test_the_wheel_works_alone(wheel, tmp_path):
    """In a venv that sees NumPy, llvmlite and nothing else, the README's program prints what the README says."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = Path(run("import sysconfig; print(sysconfig.get_path('purelib'))", python=python).strip())
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", packages, wheel]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("numpy", "llvmlite"):
        folder = Path(find_spec(name).origin).parent
        for found in (folder, folder.with_name(f"{name}.libs")):
            if found.exists(): (packages / found.name).symlink_to(found)
    assert str(packages) in run("import glassgrad; print(glassgrad.__file__)", "-I", python=python, cwd=tmp_path)
    program, printed = example()
    assert run(program, "-I", python=python, cwd=tmp_path) == printed


def test_dependencies_are_few():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(d.partition(">")[0] for d in project["dependencies"]) == ["llvmlite", "numpy"]
    assert project["license"] == "MIT" and "MIT" in (ROOT / "LICENSE").read_text()
    assert project["requires-python"] == ">=3.11"


def test_a_warm_start_compiles_nothing(tmp_path):
    """The second process finds the plan on disk: it needs no pass, no rule, no flow."""
    code = f"""{PATH}import os, sys
os.environ.update(CACHE={str(tmp_path)!r}, CHECK="0")
from glassgrad import Tensor
print((Tensor([1., 2.]) * 3).softmax().tolist()[0] < 0.5, *[m for m in sys.modules if m.startswith(("glassgrad.passes", "glassgrad.flow")) and m.count(".") > 1
      and m != "glassgrad.passes.gradient" or m == "glassgrad.flow"])"""
    assert "glassgrad.flow" in run(code)
    assert run(code).strip() == "True"
