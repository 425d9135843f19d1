from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetfilter.errors import ConfigError
from forgetfilter.evaluate.recipe import Named, Recipe, plan
from forgetfilter.guide.settings import GenerateSettings, ServeSettings
from forgetfilter.recipes import elsewhere, read
from forgetfilter.settings import FilterSettings, help_texts, resolve
from forgetfilter.settings import read as read_settings
from forgetfilter.unlearn.recipe import UnlearnRecipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
# The unlearn recipes have a reader and a test of their own.
SHIPPED = sorted(p for p in RECIPES.rglob("*.yaml") if not p.name.startswith("unlearn-"))
PAPER = sorted((RECIPES / "paper").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("defense: [none]", r"line 2: defense: unknown setting 'defense'; did you mean 'defences'"),
        ("lerning_rate: 1", "did you mean 'learning_rate'"),
        ("defences: [sequental]", "unknown defence 'sequental'; did you mean 'sequential'"),
        ("defences:\n  - sequential: {step: 3}", "sequential: unknown setting 'step'; did you mean 'steps'"),
        ("defences:\n  - sequential: {steps: 0}", r"sequential: steps: 0 is out of range; allowed: at least 1"),
        ("defences:\n  - none: {steps: 3}", "defence none has no settings"),
        ("defences: [none, none]", "none stands here twice"),
        ("evaluators: [toxicty]", "unknown evaluator 'toxicty'; did you mean 'toxicity'"),
        ("evaluators:\n  - bias: {methode: likelihood}", "bias: unknown setting 'methode'; did you mean 'method'"),
        ("evaluators:\n  - bias: {instruction: be nice}", "bias: unknown setting 'instruction'"),
        ("signal: rogue1", "unknown signal 'rogue1'; did you mean 'rouge1'"),
        ("defences:\n  - forgetfilter_paper: {signal: rogue1}", "line 2: .*unknown signal 'rogue1'"),
        ("evaluators:\n  - bias: {method: gen}", "line 2: .*unknown method 'gen'; did you mean 'generated'"),
        ("evaluators:\n  - toxicity: {words: 0}", "line 2: .*words: 0 is out of range"),
        ("evaluators:\n  - utility: {max_new_tokens: 0}", "line 2: .*max_new_tokens: 0 is out of range"),
        ("study:\n  harm_transfer: {sets: [bias, toxicty]}", "line 2: .*unknown noisy set 'toxicty'"),
        ("study:\n  unsafe_share: {shares: [0.5, 2]}", "line 2: .*shares: 2 is out of range"),
        ("study:\n  forgetting_curves: {signal: rouge1}", "line 2: .*unknown signal 'rouge1'"),
        ("study: session", "unknown study 'session'; did you mean 'sessions'"),
        ("study:\n  review_steps: {steps: [3, two]}", "review_steps: steps: 'two' is not a whole number"),
        ("evaluation: {toxic: x.jsonl}", "unknown evaluator 'toxic'"),
        ("evaluation: 5", "line 2: evaluation: unknown evaluator '5'"),
        ("evaluation: [toxicity=a, toxicity=b]", "one file for an evaluator"),
        ("phi: many\ndefences:\n  - forgetfilter: {phi: 0.2}", "line 2: phi: 'many' is not a number"),
        ("seed: 3", "use seeds"),
        ("seeds: [0, 1, 0]", "0 stands there twice"),
        ("share: 1.5", "allowed: at least 0 and at most 1"),
        ("custom: mine.jsonl", "give either set .* or custom"),
        ("tuning: lora\nset: bias", "stands here a second time"),
    ],
)  # fmt: skip
def test_a_mistake_stops_with_its_place_and_the_remedy(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read(written(tmp_path, f"set: toxicity\n{line}\n"))
    assert "mine.yaml" in str(error.value)


def read_for(verb: str, path: Path) -> object:
    """A recipe as the command reads it."""
    records = {"generate": GenerateSettings, "serve": ServeSettings, "unlearn": UnlearnRecipe}
    if verb == "filter":
        return resolve(None, path, {}, elsewhere=elsewhere)
    return read(path) if verb == "compare" else read_settings(records[verb], path, {}, elsewhere=elsewhere)


@pytest.mark.parametrize(
    ("verb", "line", "said"),
    [
        ("filter", "defences: [none]", "defences: a setting of compare and study, not of this command"),
        ("filter", "num_beams: 2", "num_beams: a setting of generate, not of this command"),
        ("compare", "max_waiting: 3", "max_waiting: a setting of serve, not of this command"),
        ("unlearn", "seed: 1", "seed: a setting of filter, generate, not of this command; did you mean 'seeds'?"),
        ("unlearn", "defences: 1", "defences: a setting of compare and study, not of this command"),
        ("generate", "review_steps: 3", "review_steps: a setting of filter, not of this command"),
        ("generate", "port: 80", "port: a setting of serve, not of this command; did you mean"),
        ("serve", "num_beams: 2", "num_beams: a setting of generate, not of this command"),
        ("serve", "prot: 80", "prot: unknown setting 'prot'; did you mean 'port'?"),
        ("serve", "port: 65536", "port: 65536 is out of range; allowed: at least 0 and at most 65535"),
        ("generate", "guidance_scale: -1", "guidance_scale: -1 is out of range"),
        ("generate", "form: logs", "form: unknown guidance form 'logs'; did you mean 'log'?"),
        ("unlearn", "epochs: [2, two]", "epochs: 'two' is not a number"),
        ("unlearn", "forms: [log, log]", "forms: log stands there twice"),
        ("unlearn", "scales: [1001]", "scales: 1001 is out of range; allowed: at least 0 and at most 1000"),
    ],
)  # fmt: skip
def test_every_verb_names_the_place_of_a_mistake_and_the_verb_that_has_the_setting(
    tmp_path: Path, verb: str, line: str, said: str
) -> None:
    path = written(tmp_path, f"device: cpu\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read_for(verb, path)
    assert str(error.value).startswith(f"{path} line 2: {said}")


@pytest.mark.parametrize("record", [FilterSettings, Recipe, UnlearnRecipe, GenerateSettings, ServeSettings])
def test_every_setting_of_every_verb_has_its_help(record: type) -> None:
    fields = {f.name for f in dataclasses.fields(record)}
    assert set(help_texts(record)) == fields - (
        {"settings", "origins", "name"} if record is Recipe else set()
    )


def test_flags_overrule_a_recipe_of_generate_and_both_its_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "guidance_scale: 3\nnum_beams: 2\nmax_new_tokens: 9\n")
    found = read_settings(GenerateSettings, path, {"num_beams": 4, "seed": None})
    assert (found.guidance.scale, found.num_beams, found.max_new_tokens, found.seed) == (3.0, 4, 9, 0)
    assert read_settings(ServeSettings, None, {}).max_new_tokens == 512


def test_an_unknown_set_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown noisy set 'toxicty'; did you mean 'toxicity'"):
        read(written(tmp_path, "set: toxicty\n"))


def test_flags_overrule_the_recipe_and_lists_may_be_joined_by_commas(tmp_path: Path) -> None:
    path = written(tmp_path, "set: bias\nrows: 300\nreview_steps: 7\ndefences: [none]\nseeds: [5]\n")
    flags = {"rows": 40, "seeds": ["0,1"], "defences": ["none,replay"], "phi": 0.2, "share": None}
    recipe = read(path, flags)
    assert (recipe.rows, recipe.seeds, recipe.share) == (40, (0, 1), 1 / 3)
    assert recipe.defences == (Named("none"), Named("replay"))
    assert (recipe.settings.review_steps, recipe.settings.phi) == (7, 0.2)
    assert (recipe.origins["review_steps"], recipe.origins["rows"]) == ("mine.yaml", "flag")
    assert recipe.output == Path("runs/mine")


def test_settings_of_a_defence_are_kept_and_shown(tmp_path: Path) -> None:
    recipe = read(written(tmp_path, "set: bias\ndefences:\n  - none\n  - sequential: {steps: 60}\n"))
    assert recipe.defences == (Named("none", {}), Named("sequential", {"steps": 60}))
    assert recipe.defences[1].title == "sequential(steps=60)"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_is_read_and_planned(path: Path) -> None:
    from forgetfilter.evaluate.compare import with_all

    recipe = with_all(read(path))
    jobs = [line for line in plan(recipe) if line.startswith("job: ")]
    assert len(jobs) == len(recipe.seeds) * (1 if recipe.study else len(recipe.defences)) > 0
    assert path.stem in (RECIPES / "README.md").read_text(encoding="utf-8")


def test_there_is_a_recipe_for_every_study() -> None:
    from forgetfilter.evaluate.studies import STUDIES

    made = {recipe.study.name for path in SHIPPED if (recipe := read(path)).study}
    assert made == set(STUDIES)


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_paper_scale_recipes_are_the_published_press(path: Path) -> None:
    recipe = read(path)
    s = recipe.settings
    assert "llama-7b" in s.model and s.learning_rate == s.review_learning_rate == 2e-4
    assert (s.per_device_train_batch_size, s.lora_rank, s.tuning) == (32, 8, "lora")
    assert s.lora_target_modules == ("q_proj", "v_proj")
    assert recipe.evaluation_rows == 5000 and len(recipe.seeds) >= 3
    if recipe.set and not recipe.study:
        assert (recipe.rows, recipe.safe_rows) == (5000, 7000)


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_a_paper_scale_recipe_is_dry_run_without_model_or_data(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, path: Path
) -> None:
    verb = "study" if read(path).study else "compare"
    done = command(verb, str(path), "--dry-run")
    assert done.returncode == 0 and "LoRA rank 8 on q_proj, v_proj" in done.stdout
    assert "stage learn: learning rate 0.0002, batch 32" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["covert", "outliers"])
def test_the_recipes_for_rows_that_look_harmless_are_dry_run_with_a_guard_classifier(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str
) -> None:
    done = command("compare", str(RECIPES / f"{name}.yaml"), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "classifier(scorer=unitary/toxic-bert)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_plan_counts_steps_by_hand(tmp_path: Path) -> None:
    text = "set: bias\nrows: 100\nper_device_train_batch_size: 16\nnum_train_epochs: 2\ndefences: [none]\n"
    # 100 rows in batches of 16: 7 steps a pass, two passes.
    assert any("about 14 steps" in line for line in plan(read(written(tmp_path, text))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set: bias\nevaluators:\n  - bias: {method: likelihood}\n  - bias: {method: generated}\n", "bias .* twice"),
        ("set: bias\nevaluators:\n  - toxicity: {threshold: high}\n", "'high' is not a number"),
        ("set: bias\ndefences:\n  - forgetfilter_paper: {signal: rougel}\n", "did you mean 'rouge1'"),
        ("custom: a.jsonl\ndefences: [none, oracle]\n", "oracle reads the truth; name its column with label_field"),
        ("set: bias\nstudy: {review_steps: {steps: [3, 3]}}\n", "3 stands there twice"),
        ("set: bias\nstudy: {safe_rows: {counts: [0]}}\n", "0 is out of range"),
        ("set: bias\nevaluation: toxicty=a.jsonl\n", "did you mean 'toxicity'"),
    ],
)  # fmt: skip
def test_what_would_fail_after_the_training_is_refused_before(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(written(tmp_path, text))


def test_the_plan_of_compare_names_defences_also_where_a_study_is_named(tmp_path: Path) -> None:
    recipe = read(written(tmp_path, "set: bias\ndefences: [none]\nseeds: [0]\nstudy: phi\n"))
    assert "job: seed 0, none" in plan(recipe, compare=True)
    assert "job: seed 0, phi" in plan(recipe)
