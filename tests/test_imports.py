"""The folders are the flow: no circle of imports and no arrow backwards, imports inside functions counted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "forgetfilter"
Arrows = dict[str, set[str]]  # module -> the modules it imports


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(package: Path) -> Arrows:
    """What each module of a package imports of it: at the top, in functions, and for types alone."""
    files = modules(package)
    return {name: set(imported(path, files)) - {name} for name, path in files.items()}


def imported(path: Path, files: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                yield from [name for name in (within, str(node.module)) if name in files][:1]


def circle(found: Arrows) -> list[str] | None:
    """Modules that import each other in a ring, the first one again at the end; None where there is no ring."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def backwards(found: Arrows, order: list[str]) -> list[str]:
    """`a -> b` where b comes after a in `order`: names of folders and files directly below the package."""
    place = {name: i for i, name in enumerate(order)}

    def part(module: str) -> str:
        return module.split(".")[1] if "." in module else "__init__"

    return [
        f"{a} -> {b}" for a, some in found.items() for b in sorted(some) if place[part(b)] > place[part(a)]
    ]


def written_order() -> list[str]:
    """The order that CONTRIBUTING states, as names in code quotes after its words."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"^Imports go one way[^\n]*\n\n((?:    [^\n]*\n)+)", text, re.MULTILINE)
    assert found, "CONTRIBUTING.md states no order"
    return re.findall(r"\w+", found[1])


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert circle(arrows(SRC)) is None


def test_no_import_goes_against_the_order_that_contributing_states() -> None:
    assert backwards(arrows(SRC), written_order()) == []


def test_the_order_names_every_folder_and_file_directly_below_the_package_once() -> None:
    there = {path.stem for path in SRC.glob("*.py")} | {
        path.parent.name for path in SRC.glob("*/__init__.py")
    }
    assert sorted(written_order()) == sorted(there)


def package(folder: Path, **files: str) -> Path:
    """A package whose modules hold these lines; `__` in a name is a folder."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "small" / f"{name if name == '__init__' else name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "small"


@pytest.mark.parametrize(
    "inside",
    [
        "from small import a",
        "import small.a",
        "def f():\n    from small.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from small.a import X",
    ],
)
def test_a_ring_is_found_whatever_way_it_is_closed(tmp_path: Path, inside: str) -> None:
    found = arrows(package(tmp_path, a="from small import b", b="from small.c import y", c=inside))
    assert sorted((circle(found) or [])[1:]) == ["small.a", "small.b", "small.c"]


def test_a_chain_is_no_ring_and_goes_forwards_only_in_its_order(tmp_path: Path) -> None:
    found = arrows(
        package(tmp_path, a="", b__x="def f():\n    from small import a", c="from small.b import x")
    )
    assert circle(found) is None
    assert backwards(found, ["a", "b", "c", "__init__"]) == []
    assert backwards(found, ["b", "a", "c", "__init__"]) == ["small.b.x -> small.a"]
