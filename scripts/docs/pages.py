"""Hooks of mkdocs: pages that lie outside docs/ become part of the site, and links between all of them hold there.

A page is written once, for people who read it in the repository. A link to a file that is no page (a licence, a
script) becomes plain text; one that leads nowhere stays, and `mkdocs build --strict` fails on it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
# File of the repository -> its place in the site.
OUTSIDE = {
    "README.md": "index.md",
    "PAPERS.md": "project/papers.md",
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "benchmarks/RESULTS.md": "project/results.md",
    "recipes/README.md": "project/recipes.md",
    "src/forgetfilter/nano/README.md": "project/nano.md",
    "src/forgetfilter/data/packs/README.md": "project/packs.md",
    "src/forgetfilter/models/ngram/README.md": "project/ngram.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of OUTSIDE."""
    from mkdocs.structure.files import File, InclusionLevel

    for source, place in OUTSIDE.items():
        page = File.generated(config, place, abs_src_path=str(ROOT / source))
        page.inclusion = InclusionLevel.INCLUDED if place in str(config.nav) else InclusionLevel.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with its links as the site needs them."""
    source = Path(page.file.abs_src_path)
    return LINK.sub(lambda found: _link(found, source, page.file.src_uri), markdown)


def _link(found: re.Match[str], source: Path, place: str) -> str:
    text, target = found.groups()
    name, _, anchor = target.partition("#")
    if not name or re.match(r"[a-z]+:", target):
        return found[0]
    file = (source.parent / name).resolve()
    if not file.exists():
        return found[0]
    if file.is_relative_to(DOCS):
        there = file.relative_to(DOCS).as_posix()
    elif file.relative_to(ROOT).as_posix() in OUTSIDE:
        there = OUTSIDE[file.relative_to(ROOT).as_posix()]
    else:
        return text
    way = Path(os.path.relpath(there, Path(place).parent)).as_posix()
    return f"[{text}]({way}{'#' + anchor if anchor else ''})"
