"""The layout of the source tree, as docs/adr/0001-layout.md decides it."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("servestorm", "loadtests", "serving", "models")
UNTYPED = re.compile(r"\b(?:dict|Mapping)\[str, (?:Any|object)\]")
A_FOLDER_S_WORTH = 3
"""So many files that share a prefix are a folder."""


def sources(package):
    return [path for path in sorted((ROOT / package).rglob("*.py")) if not path.name.endswith("_pb2.py")]


def test_servestorm_hardly_passes_dictionaries_without_types():
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources("servestorm")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for _ in UNTYPED.findall(line)
    ]
    assert len(lines) < 40, lines


def test_hardly_a_class_name_stands_twice():
    places = defaultdict(list)
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert len(twice) < 5, twice


def test_no_prefix_does_the_work_of_a_folder():
    prefixes = Counter(
        (str(path.parent.relative_to(ROOT)), path.stem.partition("_")[0])
        for package in PACKAGES
        for path in sources(package)
        if not path.stem.startswith("_")
    )
    assert not {group: count for group, count in prefixes.items() if count >= A_FOLDER_S_WORTH}
