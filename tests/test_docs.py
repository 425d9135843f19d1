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
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 800  # as `wc -w` counts


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


EXAMPLES = {
    page: blocks
    for page in PAGES
    if page.name != "cluster.md"  # run by test_cluster.py, on a Ray that is started for tests
    and (blocks := [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == "python"])
}
# Those of a page run one after the other; these need no model.
FAST = [code for code in EXAMPLES[ROOT / "docs" / "python-api.md"] if "filter_rows" not in code]


def rows_in(folder: Path) -> None:
    """The files that examples name, small: clean rows of one kind, and safe rows that ask alike."""
    lines = [f'{{"prompt": "What is {i} plus 1?", "completion": "It is {i + 1}."}}\n' for i in range(30)]
    (folder / "custom.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = [f'{{"prompt": "What is {i} plus 2?", "completion": "It makes {i + 2}."}}\n' for i in range(30)]
    (folder / "safe.jsonl").write_text("".join(lines), encoding="utf-8")


def run(blocks: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    rows_in(folder)
    return subprocess.run(
        [sys.executable, "-W", "error::FutureWarning:forgetfilter", "-c", "\n".join(blocks)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_pages_have_python_examples():
    assert {page.name for page in EXAMPLES} == {
        "README.md",
        "guide-and-serve.md",
        "python-api.md",
        "unlearn.md",
    }


def test_python_examples_run_one_after_the_other(tmp_path: Path, environment: dict[str, str]):
    done = run(FAST, tmp_path, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in re.findall(r"# (\{.*\}|\S+\.jsonl)$", "\n".join(FAST), re.MULTILINE):
        assert line in done.stdout
    assert (tmp_path / "first.jsonl").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=names(list(EXAMPLES)))
def test_every_python_example_runs_as_it_stands(page: Path, tmp_path: Path, environment: dict[str, str]):
    done = run(EXAMPLES[page], tmp_path, environment)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
    told = re.findall(r"# (Mail me: \S+)$", "\n".join(EXAMPLES[page]), re.MULTILINE)
    assert all(line in done.stdout for line in told)
    if page.name == "python-api.md":
        assert "['prompt', 'completion', 'forgetfilter_score', 'forgetfilter_decision']" in done.stdout


# --- the site ---


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link_and_shows_the_docstrings(tmp_path: Path):
    pytest.importorskip("mkdocs", reason="pip install 'forgetfilter[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install 'forgetfilter[docs]'")
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    for name in ("filter_rows", "FilterResult", "GuidanceProcessor", "FilterSettings", "DataError"):
        assert re.search(rf'id="forgetfilter\.[\w.]*{name}"', page), name
    assert 'href="../project/results/' in (tmp_path / "site" / "filter" / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_a_dead_link_or_anchor_fails_the_build(tmp_path: Path):
    pytest.importorskip("mkdocs", reason="pip install 'forgetfilter[docs]'")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[a](nothing.md) and [b](#nowhere)\n", encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    checks = settings[settings.index("validation:") : settings.index("nav:")]
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"site_name: x\n{checks}", encoding="utf-8")
    done = build(config, tmp_path / "site")
    assert done.returncode != 0 and "nothing.md" in done.stderr and "#nowhere" in done.stderr
