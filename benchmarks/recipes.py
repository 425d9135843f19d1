"""Run the CPU-scale recipes and put their tables into RESULTS.md.

    python benchmarks/recipes.py --data ../shared/data --work build/recipes

Each recipe is run by the command a user would type, into a folder of its own under `--work`, where an interrupted
run goes on and a finished one is only read. `--only-table` runs nothing and writes what is finished.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from sections import RESULTS, write_section

from forgetfilter.settings import read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
# Left out where not asked for by name: a model that needs a GPU, and one that scripts/nano has to make first.
NEEDS_MORE = ("unlearn-paper", "model-size")
PER_EVALUATOR = ", version "  # in the headings of tables that report.html is the place for


def verb(recipe: Path) -> str:
    """The command that takes this recipe."""
    found, _ = read_recipe(recipe)
    return "study" if "study" in found else "compare" if "set" in found or "custom" in found else "unlearn"


def command(recipe: Path, data: Path, work: Path) -> list[str]:
    root = "--sets" if verb(recipe) == "unlearn" else "--data-root"
    shown = recipe.relative_to(RECIPES.parent)
    return [verb(recipe), str(shown), root, str(data), "--output", str(work / recipe.stem)]


def section(recipe: Path, data: Path, work: Path) -> str | None:
    """What RESULTS.md says of a recipe; None where it has not been run to its end."""
    folder = work / recipe.stem
    table = folder / ("results.md" if verb(recipe) == "unlearn" else "table.md")
    if not table.exists():
        return None
    record = next(folder / name for name in ("points.json", "results.json") if (folder / name).exists())
    versions = json.loads(record.read_text(encoding="utf-8"))
    code = versions.get("commit") or versions["versions"].get("forgetfilter")
    ran = sorted({str(p["seed"]) for p in versions.get("points", [])})
    some = ["--seeds", ",".join(ran)] if ran and len(ran) < len(read_recipe(recipe)[0]["seeds"]) else []
    text = [
        f"### Recipe {recipe.stem}",
        f"    forgetfilter {' '.join([*command(recipe, data, work)[:4], *some])}",
    ]
    for part in table.read_text(encoding="utf-8").split("\n### "):
        title, _, rest = part.removeprefix("### ").partition("\n")
        if PER_EVALUATOR not in title:
            text += [f"#### {title.lstrip('# ')}", rest.strip()]
    return "\n\n".join([*text, f"Code: {code}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--work", type=Path, default=Path("build/recipes"))
    parser.add_argument(
        "--only", help="recipes by name, joined by commas; otherwise all whose models are at hand"
    )
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else sorted(p.stem for p in RECIPES.glob("*.yaml"))
    for name in names:
        recipe = RECIPES / f"{name}.yaml"
        if not args.only and name in NEEDS_MORE:
            continue
        if not args.only_table:
            run = [sys.executable, "-m", "forgetfilter", *command(recipe, args.data, args.work)]
            if (code := subprocess.run(run, cwd=RECIPES.parent, check=False).returncode) != 0:
                sys.exit(code)
        text = section(recipe, args.data, args.work)
        write_section(RESULTS, f"recipe-{name}", text or f"### Recipe {name}\n\nNot run to its end.")


if __name__ == "__main__":
    main()
