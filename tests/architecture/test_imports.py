"""Who may import whom, and what a pure module may know.  A failure names the module and the rule."""

from __future__ import annotations

import ast
import sys

from tests.architecture.source_tree import ROOT, Module, for_each, imports, modules, room_of

_FLOOR = {"contract", "infra", "ring"}
#: Rooms that each room may import besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "contract": set(),
    "infra": {"contract"},
    "ring": {"contract", "infra"},
    "capture": _FLOOR,
    "inference": _FLOOR,
    "judge": _FLOOR,
    "alarm": _FLOOR,
    # What the stages do one after another on the bus, in one process without one.
    "backtest": {*_FLOOR, "capture", "inference", "judge"},
    # The stages' workers are named by dotted path only: the parent process must not load what they need.
    "supervisor": _FLOOR,
    "cli": {*_FLOOR, "capture", "inference", "judge", "alarm", "backtest", "supervisor"},
    "registry": {"contract", "infra"},
    # `python -m nodeagent`.
    "__main__": {"cli"},
    # The package itself: its version only.
    "nodeagent": set(),
}
#: Where the thinking is: these must be pure whatever their docstring says.
MUST_BE_PURE = (
    "nodeagent.alarm.merge",
    "nodeagent.alarm.payload",
    "nodeagent.alarm.plan",
    "nodeagent.alarm.states",
    "nodeagent.backtest.episodes",
    "nodeagent.backtest.truth",
    "nodeagent.capture.retention",
    "nodeagent.capture.sampler",
    "nodeagent.capture.segmenter",
    "nodeagent.capture.timeline",
    "nodeagent.cli.status_view",
    "nodeagent.cli.toml_text",
    "nodeagent.inference.letterbox",
    "nodeagent.inference.postprocess",
    "nodeagent.infra.bus.topology",
    "nodeagent.infra.cluster_answers",
    "nodeagent.infra.cluster_view",
    "nodeagent.infra.settings.crosscheck",
    "nodeagent.infra.settings.faults",
    "nodeagent.infra.times",
    "nodeagent.judge.association",
    "nodeagent.judge.camera",
    "nodeagent.judge.episodes",
    "nodeagent.judge.late",
    "nodeagent.judge.leavers",
    "nodeagent.judge.ledger",
    "nodeagent.judge.reorder",
    "nodeagent.judge.ruleset",
    "nodeagent.judge.snapshot",
    "nodeagent.judge.tracker",
    "nodeagent.judge.zones",
    "nodeagent.ring.layout",
    "nodeagent.supervisor.backoff",
    "nodeagent.supervisor.decide",
    "nodeagent.supervisor.kinds",
    "nodeagent.supervisor.lifecycle",
    "nodeagent.supervisor.link.costs",
    "nodeagent.supervisor.link.reconcile",
    "nodeagent.supervisor.roster",
    "registry.brake",
    "registry.explain",
    "registry.membership",
    "registry.placement",
    "registry.placement_crowd",
    "registry.placement_fill",
    "registry.placement_load",
    "registry.placement_offer",
    "registry.placement_rules",
    "registry.placement_table",
    "registry.rebalance",
    "registry.tasks",
)
#: Third-party packages that only compute.
PURE_PACKAGES = {"cv2", "numpy", "pydantic", "pydantic_core", "scipy", "shapely"}
#: Parts of the standard library that reach out of the program or hold hidden state.
IMPURE_STDLIB = {
    "asyncio", "http", "logging", "mmap", "multiprocessing", "os", "random", "secrets", "select", "shutil",
    "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip
#: Calls that read the clock, the disk or the terminal without an import that would show it.
IMPURE_CALLS = {
    "open", "print", "input", "now", "utcnow", "today", "read_text", "read_bytes", "write_text", "write_bytes",
    "unlink", "mkdir", "iterdir", "stat", "exists", "is_file", "is_dir", "rglob", "glob",
}  # fmt: skip
#: What would make bytes from outside run, or tie memory to a process that does not own it.
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "marshal", "shelve", "multiprocessing.shared_memory"}


@for_each(modules())
def test_a_room_imports_only_what_it_may(module: Module) -> None:
    for name in sorted(imports(module)):
        theirs = room_of(name)
        if theirs is None or theirs == module.room or name == "nodeagent.__version__":
            continue
        assert theirs in MAY_IMPORT[module.room], f"{module} imports {name}: room {module.room} may not"


@for_each([m for m in modules() if m.is_pure])
def test_pure_modules_import_no_clock_and_no_io(module: Module) -> None:
    pure = {other.name for other in modules() if other.is_pure}
    packages = {other.name for other in modules() if other.path.name == "__init__.py"}
    known = {other.name for other in modules()}
    for name in sorted(imports(module)):
        top = name.split(".")[0]
        assert not {top, name} & IMPURE_STDLIB, f"{module} is pure and imports {name}: pass the value in"
        if top in ("nodeagent", "registry"):
            owner, _, what = ("", "", name) if name in known else name.rpartition(".")
            # A type or constant from elsewhere is a word, not a deed: pure modules may name one.
            is_word = what[:1].isupper()
            impure = {owner or name} - pure - packages
            assert is_word or not impure or _only_words(module, name), f"{module} is pure and imports {name}"
        else:
            assert top in sys.stdlib_module_names or top in PURE_PACKAGES, f"{module} is pure and imports {name}"


def _only_words(module: Module, source: str) -> bool:
    """Whether all that `module` takes from the module `source` are types or constants."""
    taken = {name.rpartition(".")[2] for name in imports(module) if name.startswith(f"{source}.")}
    return bool(taken) and all(name[:1].isupper() for name in taken)


@for_each([m for m in modules() if m.is_pure])
def test_pure_modules_call_no_clock_and_no_io(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called not in IMPURE_CALLS, f"{module}:{node.lineno} is pure and calls {called}()"


@for_each(MUST_BE_PURE)
def test_the_thinking_is_pure(name: str) -> None:
    found = [module for module in modules() if module.name == name]
    assert found, f"{name} is gone: correct the list"
    assert found[0].is_pure, f"{name} must say that it is pure in its docstring, and be so"


def test_no_import_cycles() -> None:
    known = {module.name: module for module in modules()}
    graph = {name: sorted(_needs(module, set(known))) for name, module in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, "cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


def _needs(module: Module, known: set[str]) -> set[str]:
    """Modules that an import runs; `from package import module` needs the module, not what the package re-exports."""
    names = imports(module) & known
    return {n for n in names if not any(other.startswith(f"{n}.") for other in names)} - {module.name}


@for_each(modules())
def test_imports_stand_at_the_top(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = sorted(imports(module, node))
            assert not inner, f"{module}:{node.lineno} {node.name} imports {inner[0]} inside the function"


@for_each(modules())
def test_nothing_is_unpickled_or_evaluated(module: Module) -> None:
    bad = imports(module) & FORBIDDEN_IMPORTS
    assert not bad, f"{module} imports {bad}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{module}:{node.lineno} calls {node.func.id}"
        elif ast.unparse(node.func) in {"np.load", "numpy.load"}:
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("allow_pickle") == "False", f"{module}:{node.lineno} np.load without allow_pickle=False"


def test_both_packages_are_seen() -> None:
    rooms = {module.room for module in modules()}
    assert {"contract", "infra", "ring", "capture", "inference", "judge", "alarm", "supervisor", "cli"} <= rooms
    assert "registry" in rooms
    assert (ROOT / "setup.cfg").is_file()
