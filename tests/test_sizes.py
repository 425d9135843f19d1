"""Modules and functions that a person can hold in the head."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from statistics import median

from forgetfilter.filter.constants import Constants

SRC = Path(__file__).resolve().parents[1] / "src" / "forgetfilter"
LONGEST_MODULE, LONGEST_FUNCTION, MEDIAN_FUNCTION = 500, 80, 12  # lines
LONGEST_PAGE, MOST_CONSTANTS = 150, 8  # of the algorithm


def functions(text: str) -> dict[str, int]:
    """`name line` of each function -> its lines, docstring included."""
    return {
        f"{node.name} {node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def too_long(package: Path) -> list[str]:
    """Modules and functions beyond their limits, each with its lines."""
    found = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > LONGEST_MODULE:
            found.append(f"{path.relative_to(package)}: {lines} lines")
        for name, length in functions(text).items():
            if length > LONGEST_FUNCTION:
                found.append(f"{path.relative_to(package)}: {name}: {length} lines")
    return found


def test_no_module_and_no_function_is_too_long() -> None:
    assert too_long(SRC) == []


def test_half_of_the_functions_are_short() -> None:
    lengths = [n for path in SRC.rglob("*.py") for n in functions(path.read_text(encoding="utf-8")).values()]
    assert median(lengths) <= MEDIAN_FUNCTION


def test_the_algorithm_stands_on_one_page_with_few_constants() -> None:
    page = (SRC / "filter" / "algorithm.py").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= LONGEST_PAGE
    assert len(fields(Constants)) <= MOST_CONSTANTS


def test_a_long_module_and_a_long_function_are_found(tmp_path: Path) -> None:
    body = "\n".join("    x = 1" for _ in range(LONGEST_FUNCTION))
    (tmp_path / "long.py").write_text(f"def f():\n{body}\n" + "y = 2\n" * (LONGEST_MODULE - LONGEST_FUNCTION))
    (tmp_path / "short.py").write_text(
        'def f():\n    """Says\n    much."""\n    return 1\n' + "y = 2\n" * 496
    )
    assert too_long(tmp_path) == ["long.py: 501 lines", "long.py: f 1: 81 lines"]
