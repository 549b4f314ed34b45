"""The source as the architecture tests see it: parsed modules and what they import."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
#: A module's docstring declares it pure with the sentence "Pure." or "Pure: ...".
PURE_SENTENCE = re.compile(r"\bPure[.:;,]")


@dataclass(frozen=True)
class Module:
    """One parsed file."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def __repr__(self) -> str:
        return self.name

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def room(self) -> str:
        """`nodeagent.<room>`, or the top package."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 and parts[0] == "nodeagent" else parts[0]

    @property
    def is_pure(self) -> bool:
        return self.name.startswith("nodeagent.contract") or bool(PURE_SENTENCE.search(self.docstring))

    @property
    def package(self) -> list[str]:
        parts = self.name.split(".")
        return parts if self.path.name == "__init__.py" else parts[:-1]


def for_each(items: Iterable[T]) -> Callable[[Callable[[T], None]], Callable[[], None]]:
    """Makes one test of a check of one item; it names every item that fails, not the first only."""

    def made(check: Callable[[T], None]) -> Callable[[], None]:
        def test() -> None:
            failures = []
            for item in items:
                try:
                    check(item)
                except AssertionError as exc:
                    failures.append(str(exc).splitlines()[0])
            assert not failures, "\n".join(failures)

        # Not functools.wraps: pytest would follow it to the check and ask for a fixture of its argument's name.
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return made


@cache
def modules() -> tuple[Module, ...]:
    paths = [path for top in ("nodeagent", "registry") for path in sorted((ROOT / top).rglob("*.py"))]
    return tuple(_module(path) for path in paths)


def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text()
    return Module(name, path, text, ast.parse(text))


def imports(module: Module, tree: ast.AST | None = None) -> set[str]:
    """Dotted names that a module imports, lazy ones too; `from a import b` gives `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(tree or module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.package[: len(module.package) - node.level + 1]) if node.level else ""
            whole = ".".join(part for part in (base, node.module) if part)
            found |= {whole} | {f"{whole}.{alias.name}" for alias in node.names}
    return found


def room_of(dotted: str) -> str | None:
    """Room of an imported name; None for what is not of this project."""
    parts = dotted.split(".")
    if parts[0] == "registry":
        return "registry"
    return parts[1] if parts[0] == "nodeagent" and len(parts) > 1 else None
