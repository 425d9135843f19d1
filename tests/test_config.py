from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from forgetfilter.errors import ConfigError
from forgetfilter.settings import HINTS, PRESETS, FilterSettings, help_texts, read_recipe, resolve


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_over_recipe_over_preset_over_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, "review_steps: 7\nphi: 0.3\nlora_rank: 5\n")
    settings, origins = resolve("paper", path, {"lora_rank": 3, "seed": None})
    assert (settings.lora_rank, origins["lora_rank"]) == (3, "flag")
    assert (settings.phi, origins["phi"]) == (0.3, "recipe.yaml")
    assert (settings.signal, origins["signal"]) == ("rouge1", "preset paper")
    assert (settings.seed, origins["seed"]) == (0, "default")
    assert set(origins) == {f.name for f in dataclasses.fields(FilterSettings)}


def test_nothing_given_is_the_dataclass() -> None:
    settings, origins = resolve(None, None, {})
    assert settings == FilterSettings()
    assert set(origins.values()) == {"default"}


def test_the_paper_preset_is_the_published_method() -> None:
    settings = resolve("paper", None, {}).settings
    assert (settings.algorithm, settings.signal) == ("paper", "rouge1")
    assert (settings.threshold, settings.phi) == ("fixed", 0.1)
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_dropout) == (8, 16, 0.05)
    assert settings.lora_target_modules == ("q_proj", "v_proj")
    assert settings.learning_rate == settings.review_learning_rate == 2e-4
    assert settings.per_device_train_batch_size == 32


def test_a_recipe_may_name_the_preset_and_the_flag_wins(tmp_path: Path) -> None:
    path = recipe(tmp_path, "preset: paper\n")
    assert resolve(None, path, {}).settings.signal == "rouge1"
    assert resolve("default", path, {}).settings == FilterSettings()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_names_only_settings(preset: str) -> None:
    assert set(PRESETS[preset]) <= set(HINTS)
    assert resolve(preset, None, {}).origins["model"] == "default"


def test_unknown_keys_stop_with_file_line_and_nearest_name(tmp_path: Path) -> None:
    path = recipe(tmp_path, "# a comment\nlerning_rate: 1\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml line 2: .*did you mean 'learning_rate'"):
        resolve(None, path, {})


def test_unknown_presets_stop_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        resolve("papper", None, {})


def test_a_preset_in_a_recipe_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 2: unknown preset"):
        resolve(None, recipe(tmp_path, "seed: 1\npreset: [paper]\n"), {})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lora_rank: 0", "0 is out of range; allowed: at least 1 and at most 4096"),
        ("lora_rank: 8.0", "8.0 is not a whole number"),
        ("lora_rank: true", "True is not a whole number"),
        ("lora_rank: null", "None is not a whole number"),
        ("learning_rate: 0", "0 is out of range; allowed: more than 0 and at most 1"),
        ("learning_rate: fast", "'fast' is not a number"),
        ("phi: .nan", "nan is out of range; allowed: any number"),
        ("phi: .inf", "inf is out of range"),
        (f"phi: {10**400}", "is not a number"),
        ("quantile: 1.01", "1.01 is out of range; allowed: at least 0 and at most 1"),
        ("threshold: quantil", "did you mean 'quantile'"),
        ("threshold: [fixed]", "unknown value"),
        ("retrain: 1", "1 is neither true nor false"),
        ("retrain: 'no'", "'no' is neither true nor false"),
        ("algorithm: papr", "did you mean 'paper'"),
        ("safe_source: mine", "unknown value 'mine'"),
        ("fdr: 0", "0 is out of range; allowed: more than 0 and at most 0.5"),
        ("fdr: 0.51", "out of range"),
        ("safe: []", "is not one or more texts"),
        ("safe: [1]", "is not one or more texts"),
        ("safe: ''", "is not one or more texts"),
        ("model: 7", "7 is not a text; put it in quotes"),
        ("model: ''", "empty text"),
        ("label_field: {a: b}", "is not a text"),
    ],
)
def test_values_that_are_not_allowed_name_file_line_setting_value_and_range(
    tmp_path: Path, line: str, said: str
) -> None:
    path = recipe(tmp_path, f"seed: 1\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        resolve(None, path, {})
    assert str(caught.value).startswith(f"{path} line 2: {line.split(':')[0]}: ")
    assert said in str(caught.value)


def test_flags_that_are_not_allowed_are_named_as_typed() -> None:
    with pytest.raises(ConfigError, match=r"^--review-steps: 0 is out of range; allowed: at least 1$"):
        resolve(None, None, {"review_steps": 0})


def test_a_setting_built_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="max_length"):
        FilterSettings(max_length=1)


@pytest.mark.parametrize("text", ["2e-4", "2.0e-4", "0.0002", "2E-04"])
def test_every_spelling_of_a_number_is_a_number(tmp_path: Path, text: str) -> None:
    found = resolve(None, recipe(tmp_path, f"learning_rate: {text}"), {}).settings.learning_rate
    assert found == 0.0002


def test_whole_numbers_do_for_floats_and_one_text_for_a_list(tmp_path: Path) -> None:
    path = recipe(tmp_path, "num_train_epochs: 2\nsafe: safe,1.jsonl\nlora_target_modules: q_proj, v_proj\n")
    settings = resolve(None, path, {}).settings
    assert settings.num_train_epochs == 2.0 and type(settings.num_train_epochs) is float
    assert settings.safe == ("safe,1.jsonl",)  # a comma may stand in a file's name
    assert settings.lora_target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nphi: 1\nseed: 2\n", r"line 3: 'seed' stands here a second time \(first: line 1\)"),
        ("- a\n- b\n", "expected lines of `setting: value`, found a list"),
        ("seed: [1\n", r"line 2, column 1: not YAML"),
        ("? [a]\n: 1\n", "line 1: the name of a setting must be a plain word"),
        ("1: 1\n", "line 1: the name of a setting must be a plain word"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not YAML: could not determine a constructor"),
        ("seed: 1\nphi: 2024-13-45\n", "line 2: '2024-13-45' looks like a number or a date and is none"),
        ("seed: !!timestamp x\n", "line 1: 'x' looks like a number or a date"),
        (f"seed: {'[' * 3000}", "lists within lists without end"),
    ],
)
def test_a_recipe_that_is_not_one_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_recipe(recipe(tmp_path, text))


def test_recipes_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot read the recipe \(No such file"):
        read_recipe(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 10"):
        read_recipe(tmp_path / "latin.yaml")


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    assert resolve(None, recipe(tmp_path, "# nothing\n"), {}).settings == FilterSettings()


def test_every_setting_is_documented_in_one_sentence_or_more() -> None:
    texts = help_texts()
    assert list(texts) == [f.name for f in dataclasses.fields(FilterSettings)]
    assert all(text.endswith(".") and "\n" not in text for text in texts.values())


def test_larger_models_get_an_adapter_and_a_gentle_rate_unless_told_otherwise():
    other = resolve(None, None, {"model": "./mine"})
    assert (other.settings.tuning, other.settings.learning_rate) == ("lora", 2e-4)
    assert other.origins["tuning"] == "default for large models"
    told = resolve(None, None, {"model": "./mine", "tuning": "full", "learning_rate": 1e-5})
    assert (told.settings.tuning, told.settings.learning_rate) == ("full", 1e-5)
    paper = resolve("paper", None, {"model": "./mine"}).settings
    assert (paper.lora_rank, paper.lora_target_modules) == (8, ("q_proj", "v_proj"))
    assert resolve(None, None, {}).settings.tuning == "full"
