"""README and docs say what is there: links lead somewhere, commands and flags exist, examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from forgetfilter.cli import app

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "forgetfilter"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "PAPERS.md", "CHANGELOG.md")),
    *(ROOT / name for name in ("benchmarks/README.md", "recipes/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def anchors(page: Path) -> set[str]:
    """The places that a heading of a Markdown page can be reached at, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not place or place in anchors(file), f"{page.name}: {target}"


def test_a_link_to_nothing_would_be_found():
    assert LINK.findall("see [the filter](docs/no-such.md#cut)") == ["docs/no-such.md#cut"]
    assert "how-many-safe-rows" in anchors(ROOT / "docs" / "filter.md")


def test_readme_holds_at_most_800_words():
    assert len(re.findall(r"\S*\w\S*", (ROOT / "README.md").read_text(encoding="utf-8"))) <= 800


def commands(page: Path) -> list[list[str]]:
    """What follows `forgetfilter` on each line of the page's shell blocks, comments taken out."""
    lines = [
        line.strip()
        for kind, block in BLOCK.findall(page.read_text(encoding="utf-8"))
        if kind == "bash"
        for line in block.splitlines()
    ]
    found = [re.search(r"(?:^|[\s/])forgetfilter (?=[a-z])(.*)", line) for line in lines if line[:1] != "#"]
    return [shlex.split(each[1], comments=True) for each in found if each]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_on_the_page_name_verbs_and_flags_that_exist(page: Path):
    root = typer.main.get_command(app)
    for words in commands(page):
        verb = root
        while words and words[0] in getattr(verb, "commands", {}):
            verb = verb.commands[words.pop(0)]
        assert verb is not root, (page.name, words)
        flags = {flag for option in verb.params for flag in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= flags, (page.name, verb.name)


def test_the_readme_has_its_commands():
    verbs = [words[0] for words in commands(ROOT / "README.md")]
    assert verbs == ["demo", "filter", "finetune", "evaluate", "vet", "filter"]


def named(page: Path) -> list[tuple[Path, str]]:
    """File and name of each `folder/file.py`: `name`, `name` and of each `NAME` in `folder/file.py`."""
    text = page.read_text(encoding="utf-8")
    pairs = [
        (file, name)
        for file, names in re.findall(r"`(\w+(?:/\w+)*\.py)`: ((?:`\w+`(?:, )?)+)", text)
        for name in re.findall(r"\w+", names)
    ]
    pairs += [(file, name) for name, file in re.findall(r"`(\w+)` in `(\w+(?:/\w+)*\.py)`", text)]
    return [(ROOT / file if file.startswith("benchmarks") else SOURCE / file, name) for file, name in pairs]


@pytest.mark.parametrize(("page", "least"), [("PAPERS.md", 25), ("CONTRIBUTING.md", 10)])
def test_what_a_page_names_in_a_file_is_defined_there(page: str, least: int):
    pairs = named(ROOT / page)
    assert len(pairs) >= least
    for file, name in pairs:
        assert file.is_file(), f"{page}: {file}"
        defined = rf"^(?:    )*(?:def |class )?{name}\b"
        assert re.search(defined, file.read_text(encoding="utf-8"), re.MULTILINE), (
            f"{page}: {file.name} {name}"
        )


API = [
    code for kind, code in BLOCK.findall((ROOT / "docs/python-api.md").read_text("utf-8")) if kind == "python"
]
FAST = [code for code in API if "run_filter" not in code]


def rows_in(folder: Path) -> None:
    lines = [f'{{"prompt": "What is {i} plus 1?", "completion": "It is {i + 1}."}}\n' for i in range(30)]
    (folder / "custom.jsonl").write_text("".join(lines), encoding="utf-8")


def test_python_examples_run_one_after_the_other(tmp_path: Path, environment: dict[str, str]):
    rows_in(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(FAST)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for line in re.findall(r"# (\{.*\}|\S+\.jsonl)$", "\n".join(FAST), re.MULTILINE):
        assert line in done.stdout
    assert (tmp_path / "first.jsonl").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.slow
def test_the_filter_runs_from_python(tmp_path: Path, environment: dict[str, str]):
    rows_in(tmp_path)
    (example,) = [code for code in API if code not in FAST]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split()[-1] in ("0", "3"), done.stderr[-2000:]
