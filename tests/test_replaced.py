"""What a user of 0.1 typed or wrote into a recipe is answered: it goes on, with a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetfilter import recipes, replaced
from forgetfilter.errors import ConfigError
from forgetfilter.settings import HINTS, FilterSettings, checked, resolve


@pytest.mark.parametrize(
    ("line", "name", "now"),
    [
        ("threshold: auto", "threshold", "fdr"),
        ("signal: weighted_likelihood", "signal", "likelihood"),
        ("contrast: true", "fdr", 0.1),
        ("contrast: false", "fdr", 0.1),
        ("smooth: true", "fdr", 0.1),
        ("smooth: false", "fdr", 0.1),
        ("rehearse: 0", "fdr", 0.1),
        ("review_average: 0.5", "fdr", 0.1),
        ("second_look: false", "fdr", 0.1),
        ("rehearse: 0.25", "fdr", 0.1),
        ("review_average: 0", "fdr", 0.1),
    ],
)
def test_a_setting_of_0_1_goes_on_and_the_note_names_file_line_and_setting(
    tmp_path: Path, line: str, name: str, now: Any
):
    path, said = tmp_path / "old.yaml", list[str]()
    path.write_text(f"max_length: 128\n{line}\n", encoding="utf-8")
    settings, origins = resolve(None, path, {}, say=said.append)
    assert getattr(settings, name) == now and settings.max_length == 128
    assert origins[name] == ("old.yaml" if name in line else "default")
    assert len(said) == 1 and said[0].startswith(f"note: {path} line 2: {line.split(':')[0]}: ")
    recipe = recipes.read(path, {"custom": "rows.jsonl"}, say=said.append)
    assert getattr(recipe.settings, name) == now and len(said) == 2


def test_a_defence_that_is_gone_names_the_one_to_use(tmp_path: Path):
    path = tmp_path / "old.yaml"
    path.write_text("custom: rows.jsonl\ndefences: [none, forgetfilter_contrast]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"forgetfilter_contrast is gone since 0\.2; use forgetfilter: "):
        recipes.read(path)


def test_every_row_of_the_table_leads_to_settings_of_today():
    for old in replaced.OLD:
        assert (old.name in HINTS) != (old.name in replaced.GONE)
        for name, value in old.now.items():
            assert checked(name, value, HINTS[name]) == value
    assert {old.name for old in replaced.OLD} >= set(replaced.GONE)
    assert not set(replaced.GONE) & set(FilterSettings.__dataclass_fields__)


def test_old_flags_are_answered_on_the_command_line_and_not_shown(command: Callable[..., Any]):
    done = command("filter", "no-such.jsonl", "--threshold", "auto", "--contrast", "--rehearse", "0.5")
    notes = [line.split(" is gone")[0] for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == ["note: --threshold: auto", "note: --contrast: true", "note: --rehearse: 0.5"]
    assert done.returncode == 2 and "no such file" in done.stderr
    passed = command("filter", "no-such.jsonl", "--no-smooth")
    assert passed.returncode == 2 and passed.stderr.startswith(
        "note: --smooth: false is gone since 0.2; passed over"
    )
    shown = command("filter", "--help").stdout
    assert not any(f"--{name.replace('_', '-')}" in shown for name in replaced.GONE)


def test_help_shows_a_default_for_each_size_of_model(command: Callable[..., Any]):
    shown = " ".join(command("filter", "--help").stdout.split())
    for line in (
        "[default: full for nano, lora for other models]",
        "[default: 0.001 for nano, 0.0005 up to 500M parameters, 0.0002 for larger models]",
        "[default: 2 for nano, 3 up to 500M parameters, 2 for larger models]",
        "[default: 256 for nano, 1024 for other models]",
        "--threshold <fdr|fixed|quantile>",
    ):
        assert line in shown, line
