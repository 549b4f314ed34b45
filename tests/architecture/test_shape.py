"""Sizes, names and docstrings.  Small files with one noun each are what keeps this readable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.architecture.source_tree import ROOT, Module, for_each, modules

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 150
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core", "stuff", "manager"}
_NUMBER = re.compile(r"^[A-Z][A-Z0-9_]*$")

#: Migrations are written once and never read again: one long function each is their form.
SOURCES = [module for module in modules() if ".migrations.versions." not in module.name]

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@for_each(SOURCES)
def test_files_are_small(module: Module) -> None:
    assert module.text.count("\n") <= MAX_FILE_LINES, f"{module} has more than {MAX_FILE_LINES} lines"


def test_the_median_file_is_small() -> None:
    sizes = sorted(module.text.count("\n") for module in modules())
    assert sizes[len(sizes) // 2] <= MAX_MEDIAN_LINES


@for_each(SOURCES)
def test_functions_are_small(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or 0) - node.lineno + 1
            assert size <= MAX_FUNCTION_LINES, f"{module}: {node.name} has {size} lines"


@for_each(SOURCES)
def test_files_are_named_for_what_they_hold(module: Module) -> None:
    assert module.path.stem not in BANNED_NAMES, f"{module}: name the file for what it holds"


@for_each(SOURCES)
def test_modules_and_public_names_are_documented(module: Module) -> None:
    if not module.text.strip():
        return
    assert module.docstring, f"{module} has no docstring"
    for node in module.tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}: {node.name} has no docstring"


@for_each(SOURCES)
def test_limits_say_their_unit_and_reason(module: Module) -> None:
    """A public number has a `#:` line above it; neighbours may share one."""
    lines = module.text.splitlines()
    explained = -1
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
        if above.startswith("#") or explained == node.lineno - 1:
            explained = node.end_lineno or node.lineno
        elif isinstance(target, ast.Name) and _NUMBER.match(target.id):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            assert not isinstance(value, float | int) or value in (0, 1), f"{module}: {target.id} has no `#:` line"


def test_no_class_inherits_behaviour() -> None:
    """Behaviour is shared by functions and protocols: only data models and errors have a base of this project."""
    own = {node.name for module in modules() for node in module.tree.body if isinstance(node, ast.ClassDef)}
    data = {"Frozen", "FrozenStrict", "RuleBase", "ZoneRule", "AgentError"}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).split("[")[0] for base in node.bases} & own - data
                strange = {base for base in bases if not _is_error_or_protocol(base)}
                assert not strange, f"{module}: {node.name} inherits from {strange}"


def _is_error_or_protocol(name: str) -> bool:
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                bases = {ast.unparse(base) for base in node.bases}
                if any(base in {"Exception", "AgentError", "Protocol"} for base in bases):
                    return True
                return any(_is_error_or_protocol(base) for base in bases)
    return False


@for_each(sorted((ROOT / "tests").rglob("test_*.py")))
def test_every_test_asserts_something(path: Path) -> None:
    """A test without assert, raises or a helper that asserts proves nothing."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            text = ast.unparse(node)
            said = any(
                word in text for word in ("assert", "raises", "eventually(", "check", "expect", "wait_", "pytest.fail")
            )
            assert said, f"{path}: {node.name} asserts nothing"


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
