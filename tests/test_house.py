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


def untyped_aliases(trees):
    """Names of types that hide an untyped dictionary, such as Numbers in `Numbers = Mapping[str, Any]`."""
    types = {
        target.id: ast.unparse(node.value)
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and re.fullmatch(r"[\w\[\], |.]+", ast.unparse(node.value))
    }
    aliases = set()
    while more := {name for name, text in types.items() if hides_a_dictionary(text, aliases)} - aliases:
        aliases |= more  # and then those that name one of these
    return aliases


def hides_a_dictionary(text, aliases):
    return UNTYPED.search(text) or aliases & set(re.findall(r"\w+", text))


def untyped_lines(text, aliases):
    """Numbers of the lines that write an untyped dictionary's type, directly or by an alias; one for each time."""
    direct = [number for number, line in enumerate(text.splitlines(), 1) for _ in UNTYPED.findall(line)]
    named = [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Name) and node.id in aliases and isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Attribute) and node.attr in aliases)
    ]
    return sorted([*direct, *named])


def test_servestorm_hardly_passes_dictionaries_without_types():
    texts = {path.relative_to(ROOT): path.read_text() for path in sources("servestorm")}
    aliases = untyped_aliases(map(ast.parse, texts.values()))
    lines = [f"{path}:{number}" for path, text in texts.items() for number in untyped_lines(text, aliases)]
    assert len(lines) < 40, lines


def test_a_type_that_hides_an_untyped_dictionary_counts_wherever_it_is_used():
    text = "Numbers = Mapping[str, Any]\nRows = list[Numbers]\nLimit = 5\ndef f(x: Rows, y: Limit) -> a.Numbers: ...\n"
    aliases = untyped_aliases([ast.parse(text)])
    assert aliases == {"Numbers", "Rows"}
    assert untyped_lines(text, aliases) == [1, 2, 4, 4]


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
