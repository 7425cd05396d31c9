"""Compares the tests of two source trees and fails if the new one lost a test or an assertion without an explanation.

    python tests/inventory.py OLD_TREE NEW_TREE

Prints the names of the collected tests that only one tree has, their numbers without and with parameters, and the
number of `assert` statements and `pytest.raises` calls in each file. A test is recognised by its name and parameters,
so it may move to another file. Every test that is gone, and every test function with fewer assertions than before,
needs a line in NEW_TREE/tests/moved_assertions.txt:

    tests/old_file.py::test_name[parameter] -> where its assertions are now

A line without `[parameter]` covers all parameters. The exit code is 1 if such a line is missing, or if the new tree
has fewer assertions in all.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

EXPLANATIONS = Path("tests", "moved_assertions.txt")


@dataclass(frozen=True)
class Tests:
    """Of one tree: node ids, and the number of assertions of each file and of each of its test functions."""

    cases: list[str]
    files: dict[str, int]
    functions: dict[str, int]


def without_parameters(case: str) -> str:
    """`file::test[x]` -> `file::test`."""
    return case.split("[", 1)[0]


def _name(case: str) -> str:
    """`file::Class::test[x]` -> `Class::test[x]`."""
    return case.split("::", 1)[1]


def tests_of(tree: Path) -> Tests:
    """Collect with the tree's own environment, if it has one; count assertions in its sources."""
    files, functions = {}, {}
    for path in sorted((tree / "tests").rglob("*.py")):
        name, module = str(path.relative_to(tree)), ast.parse(path.read_text())
        files[name] = assertions(module)
        functions |= {
            f"{name}::{node.name}": assertions(node)
            for node in ast.walk(module)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        }
    return Tests(collected(tree), files, functions)


def collected(tree: Path) -> list[str]:
    """Node ids of every case."""
    python = tree / ".venv" / "bin" / "python"
    command = [str(python if python.exists() else sys.executable), "-m", "pytest", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tree}: the tests cannot be collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [line for line in done.stdout.splitlines() if "::" in line and line.startswith("tests/")]


def assertions(node: ast.AST) -> int:
    """The number of `assert` statements and of calls of `pytest.raises` within the node."""
    return sum(isinstance(part, ast.Assert) or _is_raises(part) for part in ast.walk(node))


def _is_raises(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises"


def gone(old: Tests, new: Tests) -> list[str]:
    """Old node ids whose name and parameters occur less often in the new tree."""
    missing = Counter(map(_name, old.cases)) - Counter(map(_name, new.cases))
    return [case for case in old.cases if missing[_name(case)]]


def weakened(old: Tests, new: Tests) -> list[str]:
    """Old test functions of which the new tree has a namesake, and no namesake with as many assertions."""
    most: dict[str, int] = {}
    for case, count in new.functions.items():
        most[_name(case)] = max(count, most.get(_name(case), 0))
    return [case for case, count in old.functions.items() if most.get(_name(case), count) < count]


def explained(tree: Path) -> set[str]:
    """Old node ids that have a line in the list of explanations."""
    path = tree / EXPLANATIONS
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.split(" -> ", 1) for line in lines if line.strip() and not line.startswith("#")]
    if bad := [part[0] for part in parts if len(part) != 2 or not part[1].strip()]:
        sys.exit(f"{path}: no `OLD_NODE_ID -> WHERE` in the line {bad[0]!r}")
    return {part[0].strip() for part in parts}


def successor(file: str, old: Tests, new: Tests) -> str | None:
    """The new tree's file with most of the old file's tests; without tests, the file of the same name."""
    names = {_name(case) for case in old.functions if case.startswith(f"{file}::")}
    places = Counter(case.split("::")[0] for case in new.functions if _name(case) in names)
    if places:
        return max(places, key=lambda place: (places[place], Path(place).name == Path(file).name))
    return next((path for path in new.files if Path(path).name == Path(file).name), None)


def print_tables(old: Tests, new: Tests) -> None:
    """Assertions a file, then the totals."""
    print("| file before | file now | assertions before | now |\n|---|---|---:|---:|")
    followed = {file: successor(file, old, new) for file in old.files}
    for file, place in followed.items():
        if old.files[file] or (place and new.files[place]):
            print(f"| {file} | {place or '-'} | {old.files[file]} | {new.files[place] if place else '-'} |")
    for place in sorted(set(new.files) - set(followed.values())):
        if new.files[place]:
            print(f"| - | {place} | - | {new.files[place]} |")
    print("\n| | before | now |\n|---|---:|---:|")
    for title, count in (
        ("test functions", lambda tests: len({without_parameters(case) for case in tests.cases})),
        ("tests with parameters", lambda tests: len(tests.cases)),
        ("assertions", lambda tests: sum(tests.files.values())),
    ):
        print(f"| {title} | {count(old)} | {count(new)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD_TREE")
    parser.add_argument("new", type=Path, metavar="NEW_TREE")
    options = parser.parse_args()
    old, new = tests_of(options.old), tests_of(options.new)
    print_tables(old, new)
    lost, weaker, known = gone(old, new), weakened(old, new), explained(options.new)
    print(f"\nOnly in {options.new}:", *gone(new, old), sep="\n  ")
    print(f"\nOnly in {options.old}:", *lost, sep="\n  ")
    print("\nWith fewer assertions:", *weaker, sep="\n  ")
    open_cases = [case for case in [*lost, *weaker] if not {case, without_parameters(case)} & known]
    if open_cases:
        print(f"\nWithout a line in {EXPLANATIONS}:", *open_cases, sep="\n  ")
    if fewer := sum(old.files.values()) > sum(new.files.values()):
        print("\nThere are fewer assertions than before.")
    return 1 if open_cases or fewer else 0


if __name__ == "__main__":
    sys.exit(main())
