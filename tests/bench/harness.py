"""What the benchmarks share: the result, the fair comparison of two ways, and the tables of docs/performance.md.

A subject is a module `tests/bench/<name>.py` with `run(quick: bool) -> Iterable[Result]`.  Figures are ratios of two
ways measured in one run, because absolute numbers of a shared machine mean little; where there is a bare figure, its
detail names what it depends on.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    Attributes:
        name: what was measured; unique within its subject.
        value: the figure.
        unit: its unit, `ratio` for a ratio.
        aim: what it should be, in words (`>= 0.95`); empty when the figure is only for information.
        ok: whether the aim is met; true when there is none.
        detail: one sentence: against what, with which sizes, how often.
    """

    name: str
    value: float
    unit: str
    aim: str
    ok: bool
    detail: str = ""

    def line(self) -> str:
        """The result as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


#: Comparisons that an aim may make.
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
    "==": lambda value, bound: value == bound,
}


def result(name: str, value: float, unit: str, aim: str = "", detail: str = "") -> Result:
    """A result whose `ok` follows from its aim: empty, or a comparison and a number such as `>= 0.95`.

    Raises:
        ValueError: the aim is neither.
    """
    return Result(name, value, unit, aim, not aim or _is_met(value, aim), detail)


def _is_met(value: float, aim: str) -> bool:
    found = re.fullmatch(r"(>=|<=|>|<|==) (-?\d+(?:\.\d+)?)", aim)
    if not found:
        raise ValueError(f"an aim is a comparison and a number, got {aim!r}")
    return _COMPARE[found[1]](value, float(found[2]))


@dataclass(frozen=True, slots=True)
class Compared:
    """CPU seconds of a round of each of two ways.

    Attributes:
        a_s: the way that is judged.
        b_s: what it is judged against.
        rounds: how often each ran.
    """

    a_s: float
    b_s: float
    rounds: int

    @property
    def cost(self) -> float:
        """CPU of `a` in units of `b`: below 1 when `a` is cheaper."""
        return self.a_s / self.b_s

    @property
    def speed(self) -> float:
        """Speed of `a` in units of `b`: above 1 when `a` is faster."""
        return self.b_s / self.a_s


def compare(
    a: Callable[[], object],
    b: Callable[[], object],
    rounds: int = 9,
    timer: Callable[[], float] = time.process_time,
    pick: Callable[[Sequence[float]], float] = min,
) -> Compared:
    """Run two ways in turn, best round of each, in this process's CPU time.

    Interleaved, and the order swapped at each round, so that a busy neighbour or a warming clock meets both; the best
    round is the one that was disturbed least.  For very many very short rounds `statistics.median` is the better
    `pick`.  Work in child processes does not show in CPU time of this process.
    """
    a()
    b()
    took: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for way in (0, 1) if turn % 2 == 0 else (1, 0):
            started = timer()
            (b if way else a)()
            took[way].append(timer() - started)
    return Compared(pick(took[0]), pick(took[1]), rounds)


def table(name: str, results: Sequence[Result]) -> str:
    """The section of docs/performance.md on one subject, between its markers."""
    rows = "\n".join(
        f"| {_cell(one.name)} | {one.value:.4g} {_cell(one.unit)} | {_cell(one.aim) or '-'}"
        f" | {'yes' if one.ok else '**no**'} | {_cell(one.detail)} |"
        for one in results
    )
    return (
        f"<!-- bench:{name} -->\n`python -m tests.bench {name}`\n\n"
        f"| figure | measured | aim | met | how |\n|---|---|---|---|---|\n{rows}\n\n"
        f"Machine: {_machine()}.\n<!-- /bench -->"
    )


def write_table(page: Path, name: str, results: Sequence[Result]) -> None:
    """Put a subject's table into the page: in place of its old one, or in a new section at the end."""
    text = page.read_text() if page.exists() else "# Performance\n"
    new = table(name, results)
    marked = re.compile(rf"<!-- bench:{re.escape(name)} -->.*?<!-- /bench -->", re.DOTALL)
    text, found = marked.subn(lambda _: new, text)
    if not found:
        text = f"{text.rstrip()}\n\n## {name.replace('_', ' ')}\n\n{new}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    cores = len(re.findall(r"^processor\s*:", info.read_text(), re.MULTILINE)) if info.exists() else 0
    return f"{model[1] if model else platform.machine()}, {cores} cores, Python {platform.python_version()}"
