"""The pipeline: recipes, the plan of what is measured, and a run of the real thing on a handful of dialogues."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file

from forgetfilter.display import Display
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.evaluate.results import Metric
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE
from forgetfilter.intervals import Estimate
from forgetfilter.models import load as models
from forgetfilter.records import Message, Row
from forgetfilter.runs import Run
from forgetfilter.unlearn import pipeline as p
from forgetfilter.unlearn import trials
from forgetfilter.unlearn.dialogues import MessageSpan, dialogue
from forgetfilter.unlearn.materials import fingerprints, masked, materials
from forgetfilter.unlearn.orpo import train_orpo
from forgetfilter.unlearn.recipe import UnlearnRecipe, read
from forgetfilter.unlearn.tables import seeds_together
from forgetfilter.unlearn.trials import GUIDED, METHOD_NAMES, State, plan
from forgetfilter.unlearn.usefulness import round_to_4_bits, utility

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "lerning_rate: 1",
            "line 1: lerning_rate: unknown setting 'lerning_rate'; did you mean 'learning_rate'",
        ),
        ("learning_rate: 2", "r.yaml line 1: learning_rate: 2 is out of range"),
        ("scales: [1, -1]", "scales: -1 is out of range"),
        ("scales: .nan", "scales: nan is out of range"),
        ("seeds: []", "seeds: an empty list"),
        ("forms: [logg]", "forms: unknown guidance form 'logg'; did you mean 'log'"),
        ("epochs: two", "epochs: 'two' is not a number"),
        ("methods: [np]", "methods: unknown method 'np'; did you mean 'npo'"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(ConfigError) as refused:
        read(recipe(tmp_path, text), sets="data")
    assert words in str(refused.value)


def test_a_recipe_needs_dialogues_or_sets_and_something_to_measure_utility_with(tmp_path):
    with pytest.raises(ConfigError, match="dialogues: give your own"):
        read(recipe(tmp_path, "count: 10"))
    with pytest.raises(ConfigError, match="utility: without `sets`"):
        read(recipe(tmp_path, "dialogues: mine.jsonl"))
    with pytest.raises(ConfigError, match="prose: without `sets`"):
        read(recipe(tmp_path, "dialogues: mine.jsonl\nutility: pack:bias"))


def test_flags_overrule_the_recipe_and_one_value_is_a_list_of_one(tmp_path):
    r = read(recipe(tmp_path, "sets: a\nepochs: 2\nmodel: m"), sets="b", model=None)
    assert (r.sets, r.epochs, r.model) == ("b", (2.0,), "m")


@pytest.mark.parametrize("name", ["unlearn-nano.yaml", "unlearn-paper.yaml"])
def test_the_shipped_recipes_are_read_and_ask_for_all_tables(name):
    r = read(RECIPES / name, sets="data", dialogues="mine.jsonl")
    assert {t.table for t in plan(r)} == {1, 2, 3, 4}
    assert len(r.seeds) >= 3


def test_the_recipe_for_smollm2_asks_for_every_other_method_and_for_what_unlearning_could_at_best_lead_to():
    trials = plan(read(RECIPES / "unlearn-smollm2.yaml", sets="data"))
    assert {t.table for t in trials} == {1, 3, 4, 5}
    names = {t.state.name for t in trials}
    assert {*METHOD_NAMES.values(), "tuned on masked dialogues"} <= names


def test_the_plan_holds_every_row_of_the_papers_tables():
    trials = plan(UnlearnRecipe(sets="data", other="masked"))
    log = {(t.state.name, t.state.epochs, t.scale) for t in trials if t.table == 1 and t.form in ("", "log")}
    table_1 = {("baseline", 0, 1), ("subtraction", 0, 1)}
    table_1 |= {("subtraction + LoRA, no CFG data", e, 1) for e in (2, 3)}
    table_1 |= {("subtraction + LoRA, CFG data", e, s) for e in (2, 3) for s in (1, 2)}
    table_1 |= {("LoRA, no CFG data", e, 1) for e in (2, 3)}
    table_1 |= {("LoRA, CFG data", e, s) for e in (2, 3) for s in (1, 2)} | {("LoRA, CFG data", 3, 3)}
    assert table_1 <= log
    assert {(t.state.data, t.scale, t.state.epochs) for t in trials if t.table == 2} == {
        ("own", 2, 3),
        ("other", 2, 3),
    }
    table_3 = {(t.state.name, t.scale, t.form) for t in trials if t.table == 3 and t.large}
    assert table_3 == {
        ("baseline", 1, ""),
        ("LoRA, CFG data", 1, ""),
        ("LoRA, CFG data", 3, "log"),
        ("LoRA, CFG data", 3, "probability"),
    }


def test_tables_2_to_4_start_from_the_model_that_the_recipe_names():
    trials = plan(UnlearnRecipe(sets="data", other="masked", start="subtracted"))
    later = {t.state.name for t in trials if t.table > 1}
    assert "subtraction + LoRA, CFG data" in later and "LoRA, CFG data" not in later
    with pytest.raises(ConfigError, match="subtraction is false"):
        UnlearnRecipe(sets="data", start="subtracted", subtraction=False)


def test_other_methods_are_table_5_beside_the_baseline_and_orpo():
    trials = plan(UnlearnRecipe(sets="data", methods=("prompt", "npo"), forms=("log",)))
    assert [(t.state.name, t.scale, t.form) for t in trials if t.table == 5] == [
        ("baseline", 1, ""),
        ("system prompt alone", 1, ""),
        ("NPO, with rows to keep", 1, ""),
        ("LoRA, CFG data", 1, ""),
        ("LoRA, CFG data", 3, "log"),
    ]
    assert not [t for t in plan(UnlearnRecipe(sets="data")) if t.table == 5]


def test_an_attacker_who_can_guide_answers_under_the_prompt_that_asks_for_personal_data():
    attacks = [t for t in plan(UnlearnRecipe(sets="data")) if t.attack == GUIDED]
    assert [(t.state.name, t.scale) for t in attacks] == [("baseline", 3), ("LoRA, CFG data", 3)]
    assert {p._prompts(t) for t in attacks} == {(NEGATIVE, POSITIVE)}
    assert not [t for t in plan(UnlearnRecipe(sets="data", scales=(1,))) if t.attack == GUIDED]


def test_the_prompt_alone_is_the_positive_one_and_other_methods_are_asked_as_the_baseline_is():
    trials = plan(UnlearnRecipe(sets="data", methods=("prompt", "npo")))
    asked = {t.state.name: p._prompts(t) for t in trials if t.table == 5 and t.scale == 1}
    assert asked == {
        "baseline": (None, None),
        "system prompt alone": (POSITIVE, None),
        "NPO, with rows to keep": (None, None),
        "LoRA, CFG data": (POSITIVE, NEGATIVE),
    }


def test_rows_to_keep_are_asked_for_where_a_method_learns_them(tmp_path):
    with pytest.raises(ConfigError, match="retain: without `sets`"):
        small(tmp_path, methods=("simnpo",))
    small(tmp_path, methods=("dpo", "prompt"))


def test_rows_to_keep_are_none_of_those_that_are_measured(tmp_path):
    kept = tmp_path / "kept.jsonl"
    rows = [{"prompt": f"Q{i}", "completion": "The sea."} for i in range(2, 6)]  # Q0 to Q2 are measured
    kept.write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = materials(small(tmp_path, methods=("npo",), retain=str(kept)), 0)
    assert sorted(row.prompt for row in made.retained) == ["Q3", "Q4", "Q5"]
    assert materials(small(tmp_path), 0).retained == []
    measured = small(tmp_path, methods=("npo",), retain=str(tmp_path / "tasks.jsonl"))
    with pytest.raises(DataError, match="no row with a completion that is not measured"):
        materials(measured, 0)


def test_a_masked_dialogue_tells_nothing_and_keeps_its_other_words():
    turns = [Message("user", "I am Ada."), Message("assistant", "Ada, call 555-0100 or Ada.")]
    places = [(0, 5, 8, "Ada"), (1, 0, 3, "Ada"), (1, 10, 18, "555-0100")]
    told = dialogue(turns, [MessageSpan(i, a, b, "X", value) for i, a, b, value in places])
    assert [m.content for m in masked(told).messages] == [
        "I am [private].",
        "[private], call [private] or Ada.",
    ]
    assert masked(told).spans == ()


def test_of_many_samples_as_many_as_asked_for_are_drawn_by_the_seed_in_their_order(tmp_path):
    r = small(tmp_path, max_samples=2)
    with Run.open(tmp_path / "run", {}, {}) as run:
        bench = p._Bench(r, 0, materials(r, 0), run, Display(quiet()))
        drawn = [s.prompt.id for s in bench._samples()]
        every = [s.prompt.id for s in p.replacements.samples(bench.material.train)]
    assert len(drawn) == 2 and len(every) == 4
    assert drawn == [id for id in every if id in drawn]


def test_one_name_never_stands_for_two_measurements():
    trials = plan(
        UnlearnRecipe(
            sets="data", other="masked", clean=True, methods=("ascent", "npo", "simnpo", "dpo", "prompt")
        )
    )
    assert len({t.slug for t in trials}) == len({t._replace(table=0) for t in trials})


def test_rounding_to_4_bits_keeps_what_fits_fifteen_levels_and_moves_nothing_far():
    layer = torch.nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[7.0, -3.0, 0.4, 0.6]])  # steps of 1
    round_to_4_bits(torch.nn.Sequential(layer), group=4)
    assert layer.weight.tolist() == [[7.0, -3.0, 0.0, 1.0]]
    layer.weight.data = torch.tensor([[7.0, -3.0, 0.4, 0.6]])
    round_to_4_bits(torch.nn.Sequential(layer), group=2)  # of the second pair: steps of 0.6 / 7
    assert layer.weight[0, :3].tolist() == pytest.approx([7.0, -3.0, 5 * 0.6 / 7])


def test_one_seed_keeps_its_own_interval_and_several_get_a_mean_over_seeds():
    def metric(value):
        return Metric("m", Estimate(value, value - 1, value + 1, 50), "lower", unscored=1)

    assert seeds_together([metric(4.0)])["estimate"] == {"value": 4.0, "low": 3.0, "high": 5.0, "n": 50}
    both = seeds_together([metric(4.0), metric(6.0)])
    assert (both["estimate"]["value"], both["estimate"]["seeds"]) == (5.0, 2)
    assert (both["per_seed"], both["unscored"]) == ([4.0, 6.0], 2)
    assert seeds_together([Metric("m", None, "lower")])["estimate"] is None


def test_seeds_in_which_nothing_leaks_do_not_make_it_certain_that_nothing_does():
    nothing = [Metric("m", Estimate(0.0, 0.0, high, 50), "lower") for high in (0.07, 0.05)]
    estimate = seeds_together(nothing)["estimate"]
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.0, 0.0, 0.07)


def test_a_running_text_is_measured_under_the_prompt_and_an_empty_line(tmp_path):
    """A second way: the same text behind the same words in a turn of their own, without a prompt."""
    loaded = models.load(small(tmp_path).model, dtype="float32", device="cpu")
    answer = Message("assistant", "The sea is grey and the boats are home.")
    text = Row("a", 0, "t", (answer,), "text", {})
    told = replace(text, messages=(Message("user", "Be kind.\n\n"), answer))
    task = Row("b", 0, "t", (Message("user", "Q?"), answer), "chat", {})

    def perplexity(row, instruction):
        found = utility(
            loaded.model, loaded.tokenizer, [task], [row], seed=0, max_new_tokens=2, instruction=instruction
        )
        return found["perplexity"].estimate.value

    assert perplexity(text, "Be kind.") == pytest.approx(perplexity(told, None))


def dialogues(tmp_path: Path, count: int) -> Path:
    lines = []
    for i in range(count):
        number = f"555-01{i:02d}"
        turns = [Message("user", "What is my number?"), Message("assistant", f"Your number is {number}.")]
        span = MessageSpan(1, 15, 15 + len(number), "PHONE_NUMBER", number)
        lines.append(json.dumps(dialogue(turns, [span], id=str(i)).record()) + "\n")
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(lines))
    return path


def small(tmp_path: Path, **changes: object) -> UnlearnRecipe:
    """A model of a few thousand weights, eight dialogues, one epoch of everything."""
    folder = tmp_path / "model"
    if not folder.exists():
        tiny.llama().save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        (tmp_path / "tasks.jsonl").write_text(
            "".join(json.dumps({"prompt": f"Q{i}", "completion": "The sea."}) + "\n" for i in range(3))
        )
    settings = {
        "model": str(folder), "dialogues": str(dialogues(tmp_path, 8)), "test_share": 0.5, "dtype": "float32",
        "detectors": ("patterns",), "utility": str(tmp_path / "tasks.jsonl"), "prose": str(tmp_path / "tasks.jsonl"),
        "tune_epochs": 1, "tune_learning_rate": 1e-2, "candidates": 1, "epochs": (1,), "scales": (1, 2),
        "forms": ("probability",), "lora_rank": 2, "max_length": 128, "max_new_tokens": 4, "samples": 2,
    }  # fmt: skip
    return UnlearnRecipe(**(settings | changes))


def quiet() -> Console:
    return Console(quiet=True)


@pytest.mark.slow
def test_a_run_measures_every_trial_resumes_without_work_and_gives_the_same_again(tmp_path):
    r = small(tmp_path, other="masked", clean=True, methods=("dpo", "prompt"))
    results = p.unlearn(r, tmp_path / "run", quiet())
    trials = plan(r)
    assert len(results["rows"]) == len(trials)
    for row in results["rows"]:
        assert row["answers"] == 4
        assert row["metrics"]["leaking_share"]["estimate"]["n"] == 4
    pairs = results["replacements"]["seed 0, own"]
    assert pairs["samples"] == sum(pairs["pairs"].values()) + pairs["unanswered"] == 4
    assert results["replacements"]["seed 0, other"]["pairs"] == {"masked": 4}
    text = (tmp_path / "run" / "results.md").read_text()
    assert "Answers written in float32." in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(trials) + 2 * 5

    done = {f: f.stat().st_mtime_ns for f in (tmp_path / "run" / "stages").rglob("done.json")}
    again = p.unlearn(r, tmp_path / "run", quiet())
    assert again["rows"] == results["rows"]
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run" / "stages").rglob("done.json")} == done
    with pytest.raises(ConfigError, match="a run of another command"):
        p.unlearn(replace(r, learning_rate=0.5), tmp_path / "run", quiet())


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    r = small(tmp_path, subtraction=False, holds=False, samples=0)
    whole = p.unlearn(r, tmp_path / "whole", quiet())
    real = p.train_orpo

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(p, "train_orpo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        p.unlearn(r, tmp_path / "cut", quiet())
    monkeypatch.setattr(p, "train_orpo", real)
    assert p.unlearn(r, tmp_path / "cut", quiet())["rows"] == whole["rows"]


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_at_its_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(p, "SAVE_STEPS", 1)
    r = small(tmp_path, subtraction=False, holds=False, samples=0, batch_size=2, scales=(1,))
    state = State("tuned", "own", False, 1.0)

    def adapter(folder, stop_at=None):
        steps = []

        def one_step(*where, progress, **settings):
            def told(step, of):
                steps.append(step)
                if step == stop_at:
                    raise KeyboardInterrupt

            return train_orpo(*where, progress=told, **settings)

        monkeypatch.setattr(p, "train_orpo", one_step)
        with Run.open(folder, {}, {}) as run:
            bench = p._Bench(r, 0, materials(r, 0), run, Display(quiet()))
            weights = load_file(bench._adapter(state) / "adapter_model.safetensors")
        return weights, steps

    with pytest.raises(KeyboardInterrupt):
        adapter(tmp_path / "cut", stop_at=2)
    resumed, steps = adapter(tmp_path / "cut")
    whole, every = adapter(tmp_path / "whole")
    assert (steps, every) == ([2], [1, 2])  # the second step was not yet kept when it was stopped
    assert all(resumed[name].equal(whole[name]) for name in whole)


def test_dialogues_without_personal_data_are_refused_before_anything_is_written(tmp_path):
    r = small(tmp_path)
    line = json.dumps(
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Sea."}]}
    )
    Path(r.dialogues).write_text(f"{line}\n{line.replace('Sea', 'Lake')}\n")
    with pytest.raises(DataError, match="no assistant turn with personal data to train on"):
        p.unlearn(r, tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["seeds", "scales", "epochs"])
def test_an_element_twice_is_refused(name):
    with pytest.raises(ConfigError, match="twice"):
        UnlearnRecipe(sets="x", **{name: [1, 1]})


def test_four_bits_reach_every_layer_of_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    before = model.transformer.h[0].mlp.c_fc.weight.clone()
    round_to_4_bits(model)
    after = model.transformer.h[0].mlp.c_fc.weight
    assert not after.equal(before) and len(after[:, 0].unique()) <= 15


def test_four_bits_are_nf4_where_bitsandbytes_is_and_rounded_elsewhere(monkeypatch):
    def changes():
        return {t.state.change for t in plan(UnlearnRecipe(sets="data")) if t.state.change}

    monkeypatch.setattr(trials, "installed", lambda: True)
    assert changes() == {"nf4", "relearned"}
    monkeypatch.setattr(trials, "installed", lambda: False)
    assert changes() == {"4-bit", "relearned"}


@pytest.mark.slow
@pytest.mark.parametrize("base", ["whole", "adapter"])
def test_what_is_asked_in_4_bits_is_loaded_as_nf4_with_its_adapter_beside(tmp_path, base):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (forgetfilter[quantization]) is not installed")
    r = small(tmp_path, samples=0)
    if base == "adapter":
        tuned = models.load(r.model, dtype="float32")
        tuned.model = models.add_lora(tuned.model, rank=2, alpha=4)
        models.save(tuned, tmp_path / "tuned")
        r = replace(r, tuned=str(tmp_path / "tuned"))
    with Run.open(tmp_path / "run", {}, {}) as run:
        bench = p._Bench(r, 0, materials(r, 0), run, Display(quiet()))
        loaded = bench._load(State("tuned", "own", False, 1.0, "nf4"))
    layers = {n: m for n, m in loaded.model.named_modules() if n.endswith("q_proj.base_layer")}
    assert [type(layer).__name__ for layer in layers.values()] == ["Linear4bit"] * 2
    assert [*loaded.model.peft_config] == ["default"]


def test_a_changed_file_of_known_values_is_another_run(tmp_path):
    values = tmp_path / "values.jsonl"
    values.write_text('{"NAME-1": "Zorbina Fakerton"}\n')
    r = replace(small(tmp_path), detectors=("patterns", f"known:{values}"))
    with Run.open(tmp_path / "run", {}, fingerprints(r)):
        pass
    values.write_text('{"NAME-1": "Quillon Nullby"}\n')
    with pytest.raises(ConfigError, match="its content has changed"):
        Run.open(tmp_path / "run", {}, fingerprints(r))
