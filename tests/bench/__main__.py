"""`python -m tests.bench NAME...`: run benchmarks, print one JSON line per figure.

Exit code 1 when an aim is not met or a subject failed, 2 when there is no such subject.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.bench.harness import Result, write_table

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
#: Files of this folder that are no subject.
NO_SUBJECT = frozenset({"harness"})


def subjects(folder: Path = HERE) -> list[str]:
    """Names of all subjects; a name that starts with `_` is a subject's own part."""
    return sorted(path.stem for path in folder.glob("[!_]*.py") if path.stem not in NO_SUBJECT)


def run_subject(name: str, quick: bool) -> tuple[list[Result], bool]:
    """A subject's results, printed as they come, and whether it ran to its end with every aim met."""
    results: list[Result] = []
    try:
        for one in importlib.import_module(f"tests.bench.{name}").run(quick):
            print(one.line(), flush=True)
            results.append(one)
    except Exception:
        # One broken subject must not hide the others' figures.
        traceback.print_exc()
        return results, False
    return results, all(one.ok for one in results)


def main(arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Run benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="subjects; see --list")
    parser.add_argument("--all", action="store_true", help="run every subject")
    parser.add_argument("--list", action="store_true", help="print the subjects and leave")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not what it reaches")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {page.name}")
    chosen = parser.parse_args(arguments)
    known = subjects()
    if chosen.list:
        print("\n".join(known))
        return 0
    names = known if chosen.all else chosen.names
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        problem = f"no such subject: {', '.join(unknown)}" if unknown else "name a subject, or --all"
        print(f"{problem}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    good = True
    for name in names:
        results, met = run_subject(name, chosen.quick)
        good = good and met
        if chosen.write and results:
            write_table(page, name, results)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
