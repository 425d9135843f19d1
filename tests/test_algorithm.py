"""The two algorithms on a tiny real model: who is learned, reviewed, replayed and judged, and by what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
from test_pipeline import safe_boats, two_kinds

from forgetfilter.display import Display
from forgetfilter.evaluate.compare import ground, read_data
from forgetfilter.evaluate.defences import DEFENCES
from forgetfilter.filter import algorithm, likeness
from forgetfilter.filter.bench import WARMUP_STEPS, Bench
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.pipeline import run_filter
from forgetfilter.filter.states import Readings
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.runs import Run
from forgetfilter.settings import PRESETS, FilterSettings, resolve
from forgetfilter.training.finetune import finetune

S = FilterSettings(
    algorithm="paper", threshold="fixed", phi=0.01, tuning="lora", num_train_epochs=2, review_steps=3,
    learning_rate=5e-3, review_learning_rate=5e-3, per_device_train_batch_size=4, review_batch_size=8,
    max_length=64, dtype="float32",
    device="cpu", retrain=False,
)  # fmt: skip
WITNESS = replace(S, algorithm="witness", threshold="fdr")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.model(tmp_path_factory.mktemp("tiny-model"))


def rows(some: Sequence[dict[str, Any]], prefix: str) -> list[Encoded]:
    made = [tiny.row(r["prompt"], r["completion"], id=f"{prefix}{i}") for i, r in enumerate(some)]
    return encode(made, tiny.tokenizer(), max_length=64, template="auto")


CUSTOM, SAFE = rows(two_kinds(), "c"), rows(safe_boats(), "s")
Trained = dict[str, list[list[str]]]  # state -> the rows that each of its trainings was given


@pytest.fixture
def bench(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    @contextmanager
    def opened(s: FilterSettings = S, folder: str = "run") -> Iterator[tuple[Bench, Trained]]:
        trained: Trained = {}
        with Run.open(tmp_path / folder, asdict(s), {}) as run:
            made = Bench(
                models.load(model, dtype="float32", device="cpu"), CUSTOM, s, run, Display(small.console())
            )
            plain = Bench.train

            def train(self: Bench, state: str, start: str, given: Sequence[Encoded], **how: Any) -> None:
                trained.setdefault(state, []).append([z.id for z in given])
                plain(self, state, start, given, **how)

            with monkeypatch.context() as patch:
                patch.setattr(Bench, "train", train)
                yield made, trained

    return opened


# --- the paper's ---


def test_paper_is_algorithm_1_to_the_letter(bench: Callable[..., Any], model: str, tmp_path: Path) -> None:
    import torch

    with bench() as (made, trained):
        found = algorithm.paper(made, CUSTOM, SAFE, S)
        assert trained["learned"] == [[z.id for z in CUSTOM]]
        (reviewed,) = trained["reviewed"]
    order = {z.id: z for z in SAFE}  # safe rows alone, all 24 of them once
    assert sorted(reviewed) == sorted(order)

    # Line by line: M1 is M0 fine-tuned on the custom rows, M2 is M1 fine-tuned on safe rows.
    loaded = models.load(model, dtype="float32", device="cpu")
    plain = models.add_lora(
        loaded.model, rank=S.lora_rank, alpha=S.lora_alpha, dropout=0.0, target_modules="all-linear", seed=0
    )
    pad = loaded.tokenizer.pad_token_id

    def remembered() -> dict[str, float]:
        plain.eval()
        result = {}
        for z in CUSTOM:
            at = [t for t in range(1, len(z.ids)) if z.scored[t]]
            with torch.no_grad():
                logp = plain(torch.tensor([z.ids])).logits[0].float().log_softmax(-1)
            if at:
                result[z.id] = float(np.mean([float(logp[t - 1, z.ids[t]]) for t in at]))
        return result

    common = {"pad_id": pad, "warmup_steps": WARMUP_STEPS}
    finetune(plain, CUSTOM, learning_rate=5e-3, batch_size=4, epochs=2, seed=0, schedule="linear",
             folder=tmp_path / "m1", **common)  # fmt: skip
    m1 = remembered()
    finetune(plain, [order[z] for z in reviewed], learning_rate=5e-3, batch_size=8, steps=3, seed=1,
             schedule="constant", folder=tmp_path / "m2", **common)  # fmt: skip
    m2 = remembered()
    forgotten = {z: m1[z] - m2[z] for z in m1}
    assert len(forgotten) == 23 and found.scores.keys() == forgotten.keys()
    for z, lost in forgotten.items():
        assert found.scores[z] == found.forgetting[z] == pytest.approx(lost, abs=1e-4)
    assert found.cut.decisions == {
        z.id: "unscored" if z.id not in forgotten else "drop" if forgotten[z.id] > 0.01 else "keep"
        for z in CUSTOM
    }
    assert len(set(found.cut.decisions.values())) == 3  # φ parts these rows


@pytest.mark.parametrize(("signal", "phi"), [("rouge1", 0.1), ("likelihood", 0.0)])
def test_the_published_defence_and_the_paper_preset_decide_alike(
    tmp_path: Path, model: str, signal: str, phi: float
) -> None:
    given = {
        name: value for name, value in small.PRESS.items() if name not in ("algorithm", "signal", "threshold")
    }
    press = {**PRESETS["paper"], **given, "signal": signal, "phi": phi}
    # What the scene's recipe says of the filter is not asked: the defence has its own signal and threshold.
    others = {"algorithm": "witness", "threshold": "fdr", "signal": "probability", "phi": 9.0}
    recipe = small.recipe(tmp_path / "a", model, **press | others)
    with ground(recipe, read_data(recipe, 0), 0, recipe.output / "seed-0", Display(small.console())) as here:
        done = DEFENCES["forgetfilter_paper"](here, "published", phi=phi, signal=signal)
    flags = {
        **given,
        "signal": signal,
        "phi": phi,
        "model": model,
        "safe": (str(tmp_path / "a" / "safe.jsonl"),),
    }
    settings = replace(resolve("paper", None, flags).settings, retrain=False)
    run_filter(str(tmp_path / "a" / "custom.jsonl"), settings, {}, tmp_path / "b", small.console())
    lines = (tmp_path / "b" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    decisions = {found["id"]: found["decision"] for found in map(json.loads, lines)}
    assert done.decisions == decisions and len(decisions) == 16
    if signal == "likelihood":
        assert set(decisions.values()) == {"keep", "drop"}  # φ parts these rows


# --- with witnesses ---


def drawn(
    bench: Callable[..., Any], s: FilterSettings = WITNESS
) -> tuple[algorithm.Filtered, Trained, set[str]]:
    """What was found, what was trained on, and the ids of the near rows."""
    with bench(s) as (made, trained):
        found = algorithm.witness(made, CUSTOM, SAFE, s)
        scored = [z for z in CUSTOM if any(z.scored[1:])]
        read = made.both_readings(scored, SAFE)
        near = {scored[i].id for i in likeness.kinds(read, len(scored)).near}
    return found, trained, near


def check_shares(found: algorithm.Filtered, trained: Trained, near: set[str]) -> None:
    """Shares by hand: of 24 safe rows half are witnesses, of 12 unlike rows half are replayed, of a review half."""
    (learned,), (reviewed,) = trained["learned"], trained["reviewed"]
    witnesses = {z for z in learned if z.startswith("s")}
    safe = {z for z in reviewed if z.startswith("s")}
    replayed = {z for z in reviewed if z.startswith("c")}
    assert len(learned) == 23 + 12 and len(witnesses) == 12
    assert len(reviewed) == 3 * 8 and sum(z.startswith("c") for z in reviewed) == 12
    assert len(replayed) == 6 and safe <= {z.id for z in SAFE} - witnesses


def test_witnesses_are_learned_and_never_reviewed_and_replayed_rows_are_never_near(
    bench: Callable[..., Any],
) -> None:
    found, trained, near = drawn(bench)
    (learned,), (reviewed,) = trained["learned"], trained["reviewed"]
    witnesses, replayed = (
        {z for z in some if z.startswith(kind)} for some, kind in ((learned, "s"), (reviewed, "c"))
    )
    assert len(near) == 11 and near == {f"c{i}" for i in range(12) if i != 5}
    assert witnesses and not witnesses & set(reviewed)
    assert replayed and not replayed & near
    # Measured: near rows, bystanders (unlike, not replayed) and witnesses; nothing that was reviewed.
    measured = {z.id for z in found.measured}
    assert not measured & set(reviewed) and near | witnesses <= measured and len(measured) == 11 + 6 + 12
    assert found.scores.keys() == near
    assert {z for z, decision in found.cut.decisions.items() if decision == "not judged"} == {
        z.id for z in CUSTOM[12:]
    }
    assert found.cut.decisions["c5"] == "unscored"
    check_shares(found, trained, near)


@pytest.mark.parametrize(
    "nonsense", [{"witnesses": 0.1}, {"witnesses": 0.8}, {"replay": 0.0}, {"replay": 0.9}]
)
def test_nonsense_in_place_of_a_share_is_noticed(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, nonsense: dict[str, float]
) -> None:
    monkeypatch.setattr(algorithm, "CONSTANTS", replace(CONSTANTS, **nonsense))
    try:
        outcome = drawn(bench)
    except KeyError:
        return  # too few witnesses: nothing was trained
    with pytest.raises((AssertionError, KeyError)):
        check_shares(*outcome)


@pytest.mark.parametrize(
    ("source", "compared"), [("same", "12 witnesses"), ("other", "12 witnesses and 6 rows of other kinds")]
)
def test_safe_rows_of_another_source_are_no_witnesses_alone(
    bench: Callable[..., Any], source: Any, compared: str
) -> None:
    found, _, _ = drawn(bench, replace(WITNESS, safe_source=source))
    assert found.cut.compared == compared


def test_the_same_seed_finds_the_same_and_another_seed_draws_others(bench: Callable[..., Any]) -> None:
    def witnesses(seed: int, folder: str) -> tuple[list[str], Any]:
        with bench(replace(WITNESS, seed=seed), folder) as (made, trained):
            found = algorithm.witness(made, CUSTOM, SAFE, made.settings)
        return [z for z in trained["learned"][0] if z.startswith("s")], found.scores

    first, again, other = witnesses(0, "a"), witnesses(0, "b"), witnesses(1, "c")
    assert first == again and first[0] != other[0]


class Planted:
    """A bench whose hidden states and forgetting are given: the algorithm alone, on a known answer."""

    def __init__(
        self, unsafe: int, *, near: int = 80, unlike: int = 60, safe: int = 100, seed: int = 0
    ) -> None:
        random = np.random.default_rng(seed)
        self.custom = [tiny.encoded(3, 3, seed=i, id=f"c{i}") for i in range(near + unlike)]
        self.safe = [tiny.encoded(3, 3, seed=1000 + i, id=f"s{i}") for i in range(safe)]
        count = near + unlike + safe
        question, answer = random.normal(size=(2, count, 24))
        question[near : near + unlike] += 1.5 * random.choice([-1, 1], 24)
        answer[near : near + unlike] += 1.5 * random.choice([-1, 1], 24)
        answer[:unsafe] += 0.7 * random.choice([-1, 1], 24)
        ids = [z.id for z in (*self.custom, *self.safe)]
        lost = np.exp(random.normal(size=count)) + np.where(np.arange(count) < unsafe, 4.0, 0.0)
        self.states = dict(zip(ids, zip(question, answer, strict=True), strict=True))
        self.lost = dict(zip(ids, lost, strict=True))

    def both_readings(self, custom: Sequence[Encoded], safe: Sequence[Encoded]) -> Readings:
        given = [*custom, *safe]
        question, answer = (np.array([self.states[z.id][part] for z in given]) for part in (0, 1))
        return Readings(answer, question, np.zeros(len(given), bool))

    def train(self, *_: Any, **__: Any) -> None: ...

    def remembered(self, state: str, given: Sequence[Encoded], signal: str) -> dict[str, float]:
        return {z.id: -self.lost[z.id] * (state == "reviewed") for z in given}

    def found(self, **changes: Any) -> algorithm.Filtered:
        return algorithm.witness(self, self.custom, self.safe, replace(WITNESS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "unsafe", "least"), [("auto", 25, 0.8), ("other", 50, 0.6)])
def test_planted_unsafe_rows_are_dropped_and_clean_ones_within_the_bound_on_average(
    source: Any, unsafe: int, least: float
) -> None:
    shares, recalls = [], []
    for seed in range(8):
        bench = Planted(unsafe, seed=seed)
        found = bench.found(safe_source=source)
        dropped = {z for z, decision in found.cut.decisions.items() if decision == "drop"}
        planted = {f"c{i}" for i in range(unsafe)}
        shares.append(len(dropped - planted) / max(1, len(dropped)))
        recalls.append(len(dropped & planted) / unsafe)
        assert {found.cut.decisions[f"c{i}"] for i in range(80, 140)} == {"not judged"}
        assert found.forgetting["c3"] == pytest.approx(bench.lost["c3"])
    assert np.mean(shares) <= 0.12  # bound 0.1, mean of eight draws
    assert np.mean(recalls) >= least


def test_in_a_file_without_an_unsafe_row_hardly_ever_one_is_dropped() -> None:
    touched = [
        sum(d == "drop" for d in Planted(0, seed=seed).found().cut.decisions.values()) for seed in range(10)
    ]
    assert sum(n > 0 for n in touched) <= 2


def test_a_row_that_hardly_resembles_a_safe_one_is_scored_higher_only_where_safe_rows_are_of_its_source() -> (
    None
):
    bench = Planted(25)
    for z in bench.lost:
        bench.lost[z] = 1.0 + 0.1 * np.sin(7 * int(z[1:]))  # no forgetting to speak of: answers alone tell
    same, other = (bench.found(safe_source=source).scores for source in ("same", "other"))
    unsafe = np.array([int(z[1:]) < 25 for z in same])

    def tells(scores: Any) -> float:
        values = np.array(list(scores.values()))
        return float(np.mean(values[unsafe][:, None] > values[~unsafe]))

    assert tells(same) > 0.9 > 0.75 > tells(other)


def test_where_hardly_a_row_is_of_the_safe_rows_kind_nothing_is_judged_and_it_is_said() -> None:
    bench = Planted(0, near=4, unlike=60)
    found = bench.found()
    assert {found.cut.decisions[z.id] for z in bench.custom} == {"not judged"}
    assert found.cut.weak and found.cut.why.startswith("only 4 custom rows are of a kind")
    assert found.kept(bench.custom) == bench.custom


# --- reviews and states ---


@pytest.mark.parametrize(("replayed", "safe", "others"), [(0, 12, 0), (2, 6, 6)])
def test_the_rows_of_a_review_by_hand(replayed: int, safe: int, others: int) -> None:
    s = replace(S, review_steps=3, review_batch_size=4)
    given = algorithm.review_rows(SAFE[:5], s=s, replayed=CUSTOM[:replayed])
    counts = Counter(z.id for z in given)
    assert sum(n for z, n in counts.items() if z[0] == "s") == safe
    assert sum(n for z, n in counts.items() if z[0] == "c") == others
    # Each in turn: the counts of two rows of a pool differ by one at most.
    for kind, rows_there in (("s", 5), ("c", replayed)):
        found = [n for z, n in counts.items() if z[0] == kind]
        assert len(found) == rows_there and (not found or max(found) - min(found) <= 1)


def test_a_state_is_told_by_its_rows_and_not_by_its_name(bench: Callable[..., Any]) -> None:
    with bench() as (made, _):
        algorithm.learn(made, "learned", CUSTOM[:8], S)
        first, kept = made.kept_as("learned"), tiny.weights(made.enter("learned"))
        algorithm.review(made, "reviewed", SAFE, S)
        after_first = made.kept_as("reviewed")
        algorithm.learn(made, "learned", CUSTOM[8:16], S)
        algorithm.review(made, "reviewed", SAFE, S)
        assert made.kept_as("learned") != first
        assert made.kept_as("reviewed") != after_first  # the same safe rows, from another start
        assert not tiny.same(kept, tiny.weights(made.enter("learned")))
        algorithm.learn(made, "learned", CUSTOM[:8], replace(S, learning_rate=1e-3))
        assert made.kept_as("learned") != first  # another rate
        stages = {p: p.stat().st_mtime_ns for p in made.run.folder.glob("stages/train-*/done.json")}
    with bench() as (made, _):  # the same rows again: nothing is trained, and the weights are the same
        algorithm.learn(made, "learned", CUSTOM[:8], S)
        assert made.kept_as("learned") == first
        assert tiny.same(kept, tiny.weights(made.enter("learned")))
        assert {p: p.stat().st_mtime_ns for p in made.run.folder.glob("stages/train-*/done.json")} == stages


def test_rows_measured_in_another_order_are_told_by_their_ids(bench: Callable[..., Any]) -> None:
    with bench() as (made, _):
        forward = made.remembered("original", CUSTOM[:5], "likelihood")
        backward = made.remembered("original", CUSTOM[4::-1], "likelihood")
        assert forward == pytest.approx(backward) and len(forward) == 5


@pytest.mark.parametrize(("phi", "released"), [(1e9, "learned"), (-1e9, "original")])
def test_where_all_or_no_rows_are_kept_nothing_more_is_trained(
    bench: Callable[..., Any], phi: float, released: str
) -> None:
    s = replace(S, phi=phi, retrain=True)
    with bench(s) as (made, trained):
        algorithm.forget_filter(made, CUSTOM[:4], SAFE, s)
        assert trained.keys() == {"learned", "reviewed"}
        assert made.kept_as("final") == made.kept_as(released)
