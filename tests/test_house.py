"""House rules that a machine can check: layers, docstrings, nothing left behind. Reads the source as text, imports nothing of it."""
from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "glassgrad"
FILES = sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)
# a package may import itself and these; `flow` sees the passes, and whoever stands above them
BELOW = {
    "uop": set(), "rewrite": {"uop"}, "target": {"uop", "rewrite"}, "device": {"uop", "target"},
    "passes": {"uop", "rewrite", "target"}, "flow": {"uop", "rewrite", "target", "passes"},
}
BELOW["engine"] = {*BELOW["flow"], "flow", "device", "viz"}      # viz.record listens to what the engine does
BELOW["tensor"] = {*BELOW["engine"], "engine"}
BELOW["nn"] = {*BELOW["tensor"], "tensor"}


def layer_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def tree_of(path: Path) -> ast.Module: return ast.parse(path.read_text())
def name_of(path: Path) -> str: return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module) of every import from glassgrad."""
    out = []
    for n in ast.walk(tree):
        if isinstance(n, ast.Import): out += [(n.lineno, a.name) for a in n.names]
        elif isinstance(n, ast.ImportFrom) and n.module == "glassgrad": out += [(n.lineno, f"glassgrad.{a.name}") for a in n.names]
        elif isinstance(n, ast.ImportFrom): out.append((n.lineno, "." * n.level + (n.module or "")))
    return [(line, name) for line, name in out if name.split(".")[0] in ("glassgrad", "")]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    layer = layer_of(path)
    if layer not in BELOW: return       # viz, tools and the package itself stand above all
    for line, name in imported(tree_of(path)):
        to = (name.split(".") + ["", ""])[1]
        assert to == layer or to in BELOW[layer], f"{name_of(path)}:{line} imports {name}: {layer} may see {', '.join(sorted(BELOW[layer])) or 'nothing'}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_docstrings(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for n in tree.body:
        if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) or n.name.startswith("_") or ast.get_docstring(n): continue
        one_line = isinstance(n, ast.FunctionDef) and n.body[-1].end_lineno == n.lineno      # its name and its line say it all
        is_rules = any("algebra" in ast.unparse(d) for d in n.decorator_list)                # a block of rows: the rows are named
        assert one_line or is_rules, f"{name_of(path)}:{n.lineno}: {n.name} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stand_at_the_top(path):
    """Inside functions only third-party packages, which not everybody has."""
    for n in ast.walk(tree_of(path)):
        if not isinstance(n, ast.FunctionDef): continue
        for line, name in imported(n): raise AssertionError(f"{name_of(path)}:{line}: {n.name} imports {name}")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_left_behind(path):
    with tokenize.open(path) as file:
        comments = [t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT]
    for t in comments:
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", t.string), f"{name_of(path)}:{t.start[0]}: {t.string}"


def test_package_files_hold_names_only():
    for path in FILES:
        if path.name != "__init__.py": continue
        for n in tree_of(path).body:
            fine = isinstance(n, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign)) or \
                (isinstance(n, ast.FunctionDef) and n.name in ("__getattr__", "__dir__"))
            assert fine, f"{name_of(path)}:{n.lineno}: logic in a package file"


def test_rule_names_are_unique_and_said_once():
    """A name is what traces, VIZ and errors call a rule by."""
    from glassgrad.passes import algebra
    names = [r.name for r in algebra.tensor.rules]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"[a-z][a-z0-9_]*", n) for n in names)
