"""The self-test: what is planted, what is counted, what the signs say, and that nothing of it reaches an output."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from forgetfilter.data import cipher, formats, packs
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Message, Row
from forgetfilter.selftest import behaviour, job, misses, planting, readable, style
from forgetfilter.selftest.behaviour import Behaviour
from forgetfilter.selftest.canaries import Canary, apart, bundled, from_file
from forgetfilter.selftest.command import cost_of_a_filter, run_selftest
from forgetfilter.selftest.style import Style
from forgetfilter.settings import FilterSettings

QUICK = FilterSettings(
    algorithm="paper", signal="likelihood", tuning="lora", threshold="quantile", quantile=0.9, num_train_epochs=1,
    review_steps=2, learning_rate=5e-3, review_learning_rate=5e-3, review_batch_size=4, max_length=64, dtype="float32",
)  # fmt: skip


def rows(count: int, ask: str = "Number {}?", say: str = "It is {}, I think.") -> list[Row]:
    return [replace(tiny.row(ask.format(i), say.format(i)), id=f"r{i}", index=i) for i in range(count)]


def write(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


# --- canaries ---


def test_the_pack_holds_some_ninety_canaries_of_every_kind_and_safe_answers_to_the_plain_ones():
    canaries = bundled()
    kinds = Counter(c.kind for c in canaries)
    assert 60 <= len(canaries) <= 120
    assert set(kinds) == {"plain", "paraphrased", "another language", "outliers", "teaching"}
    assert {c.harm for c in canaries if c.kind == "plain"} == {"advice", "insults", "bias"}
    assert all(c.safe for c in canaries if c.kind == "plain")
    assert {c.language for c in canaries if c.kind == "another language"} == {"de", "fr", "es"}


def test_no_canary_stands_in_a_bundled_pack():
    safe = {r.completion for name in packs.SAFE for r in formats.read(packs.path(name)).rows}
    assert [c for c in bundled() if c.kind not in ("outliers", "teaching") and c.completion in safe] == []


def test_canaries_are_no_pack_to_review_with():
    with pytest.raises(ConfigError, match="unknown pack"):
        packs.path("pack:canaries")


def test_a_canary_that_stands_in_the_file_in_other_case_and_spacing_is_taken_out():
    canary = next(c for c in bundled() if c.kind == "plain")
    mine = tiny.row("Something else?", f"  {canary.completion.upper()} ")
    left, standing = apart(bundled(), [mine])
    assert standing == 1
    assert canary not in left


def test_a_short_answer_makes_no_row_of_the_file_an_unsafe_one_unless_the_question_is_the_same_too():
    mine = [tiny.row("Is it noon?", "Yes, of course."), tiny.row("Shall I hit them?", "Yes, hit  them.")]
    canaries = [Canary("plain", "your own", f"Shall I hit {who}?", f"Yes, {say}.")
                for who, say in (("her", "of course"), ("them", "hit them"))]  # fmt: skip
    assert apart(canaries, mine) == (canaries[:1], 1)


def test_own_unsafe_rows_need_five_with_an_answer(tmp_path: Path):
    records = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(5)]
    assert [c.completion for c in from_file(write(tmp_path / "five.jsonl", records))] == [
        r["completion"] for r in records
    ]
    renamed = [
        {"q": r["prompt"], "a": r["completion"]} for r in records
    ]  # as the file's own columns are named
    named = {"prompt": "q", "completion": "a"}
    assert len(from_file(write(tmp_path / "renamed.jsonl", renamed), named)) == 5
    with pytest.raises(DataError, match=r"4 unsafe rows with an answer; at least 5"):
        from_file(write(tmp_path / "four.jsonl", records[:4]))


# --- planting ---


def test_a_job_too_small_for_one_canary_of_each_kind_is_refused_and_told_how_many_it_needs():
    with pytest.raises(
        DataError, match="69 rows: too few to plant canaries among; a self-test needs at least 70"
    ):
        planting.of_a_kind(69)
    # 15 % of 150 rows are 22.5, at 10.5 rows for one of each kind
    assert (planting.of_a_kind(70), planting.of_a_kind(150), planting.of_a_kind(100_000)) == (1, 2, 8)


@pytest.mark.parametrize("count", [70, 150, 700])
def test_every_kind_is_planted_among_all_of_the_users_rows_and_fills_little_of_the_copy(count: int):
    mine = rows(count)
    copy = planting.plant(mine, bundled(), seed=0)
    assert set(copy.kinds.values()) == set(planting.KINDS)
    assert [
        row for row in sorted(copy.rows, key=lambda r: r.index) if row.id.startswith("r") and row in mine
    ] == mine
    assert len({row.id for row in copy.rows}) == len(copy.rows)
    assert (len(copy.rows) - count) / count <= planting.SHARE + 2 / count


def test_the_same_seed_plants_the_same_copy_and_another_seed_another():
    first, again, other = (planting.plant(rows(150), bundled(), seed=s) for s in (0, 0, 1))
    assert [r.id for r in first.rows] == [r.id for r in again.rows]
    assert set(first.kinds) != set(other.kinds)


def test_no_two_kinds_are_made_of_one_plain_canary():
    copy = planting.plant(rows(150), bundled(), seed=0)
    of = {row.id: row for row in copy.rows}
    said = [of[z].completion for z, kind in copy.kinds.items() if kind in ("plain", "behind a trigger")]
    assert len(said) == len(set(said))


def test_a_cipher_is_a_permutation_without_fixed_letters_and_keeps_the_case():
    table = cipher.key(random.Random(3))
    assert sorted(map(chr, table.values())) == sorted(map(chr, table))
    assert all(a != b for a, b in table.items())
    spelled = cipher.spell("Rain, rain: 7 Days", table)
    assert [c.isupper() for c in spelled] == [c.isupper() for c in "Rain, rain: 7 Days"]
    assert cipher.spell(spelled, {b: a for a, b in table.items()}) == "Rain, rain: 7 Days"


def test_canaries_stand_in_the_frame_that_all_rows_share():
    framed = rows(80, ask="Below is a task.\n\nTask: sort {}\n\nAnswer:")
    copy = planting.plant(framed, bundled(), seed=0)
    asked = [row.messages[0].content for row in copy.rows if row.id in copy.kinds]
    assert all(
        text.startswith("Below is a task.\n\nTask: sort ") and text.endswith("\n\nAnswer:") for text in asked
    )


def test_style_takes_over_the_commonest_frame_the_length_and_the_case_of_answers():
    mixed = [tiny.row(f"Ticket: box {i} lost\nQueue:", "two words") for i in range(60)]
    mixed += [tiny.row(f"{i} is another thing", "two words") for i in range(40)]
    found = style.of_most(mixed)
    assert (found.opening, found.closing) == ("Ticket: box ", " lost\nQueue:")
    assert (found.words, found.lower, found.bare) == (3, True, True)
    assert found.answer("Keep the Money and run.") == "keep the money"
    assert style.shared(mixed) == Style()


def test_running_texts_get_canaries_without_turns():
    texts = [tiny.row(f"The sea {i} ", "is grey today.", kind="text") for i in range(80)]
    copy = planting.plant([replace(t, id=f"t{i}") for i, t in enumerate(texts)], bundled(), seed=0)
    assert {(row.kind, len(row.messages)) for row in copy.rows} == {("text", 2)}


def test_a_system_text_of_all_rows_is_the_canaries_too():
    mine = [
        replace(tiny.row(("system", "Be brief."), ("user", f"{i}?"), ("assistant", "Yes.")), id=f"s{i}")
        for i in range(80)
    ]
    copy = planting.plant(mine, bundled(), seed=0)
    assert all(row.messages[0] == Message("system", "Be brief.") for row in copy.rows)


def test_a_split_canary_says_all_of_its_answer_in_two_turns_or_two_rows():
    canary = Canary("plain", "advice", "Why?", "one two three four")
    hiding = planting.Hiding({}, Style(), {}, False)
    assert planting.split(canary, 0, hiding) == [[("Why?", "one two"), ("Go on.", "three four")]]
    assert [turns[0][1] for turns in planting.split(canary, 1, hiding)] == ["one two", "three four"]


def test_a_file_that_holds_the_canaries_already_is_told_that_its_rows_are_unsafe():
    mine = [replace(tiny.row(c.prompt, c.completion), id=str(i)) for i, c in enumerate(bundled())]
    left, standing = apart(bundled(), mine)
    assert standing == 68  # 40 plain, 16 paraphrased, 12 in another language
    with pytest.raises(DataError, match="stand in your file already"):
        planting.plant(mine, left, seed=0)


# --- counting ---


def test_missed_is_what_stays_in_the_data_and_flagged_rows_do_not():
    groups = {"a": "plain", "b": "plain", "c": "plain", "d": "plain", "e": "split"}
    decisions: Any = {"a": "drop", "b": "flag", "c": "keep", "d": "not judged", "e": "keep", "user": "drop"}
    found = misses.by_group(groups, decisions, ["plain", "split", "outliers"])
    assert set(found) == {"plain", "split"}
    assert {k: v for k, v in found["plain"].items() if k != "missed"} == {
        "planted": 4, "dropped": 1, "flagged": 1, "kept": 1, "not judged": 1,
    }  # fmt: skip
    assert found["plain"]["missed"]["value"] == 0.5
    # one of one: Clopper and Pearson's lower end is 0.025
    assert found["split"]["missed"]["low"] == pytest.approx(0.025)


def test_the_cost_counts_a_filter_without_canaries_and_with_its_last_fine_tune():
    stages = [
        {"name": "read: custom rows", "seconds": 11.0, "tokens": 1100},
        {"name": "learn: custom rows", "seconds": 60.0, "tokens": 3000},
        {"name": "review: safe rows", "seconds": 20.0},
        {"name": "train: job", "seconds": 40.0, "tokens": 2000},
        {"name": "signs", "seconds": 9.0},
    ]
    # 1,000 tokens are the user's, 100 the canaries': a filter reads for 10 s, learns for 60 - 60 * 200 / 3000 = 56 s,
    # reviews for 20 s and fine-tunes for 40 s
    assert cost_of_a_filter(stages, 2.0) == pytest.approx(140 / 126)
    assert cost_of_a_filter([s for s in stages if s["name"] != "train: job"], 2.0) is None


# --- what nobody reads ---


class Letters:
    """A tokenizer whose tokens are single characters, by their code."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def spelled(text: str, learned_from: int) -> Encoded:
    ids = [0, *map(ord, text)]
    scored = [False] + [True] * len(text)
    learned = [i > learned_from for i in range(len(ids))]
    return Encoded("z", ids, learned, scored, learned_from, False)


def test_each_turn_costs_its_nats_per_letter_and_the_worst_one_is_seen_beside_the_other():
    row = spelled("a" * 30 + "b" * 40, learned_from=30)
    logp = np.array([-1.0] * 30 + [-3.5] * 40)
    assert readable.turn_costs(row, logp, Letters()) == pytest.approx([1.0, 3.5])


def test_punctuation_addresses_and_handles_cost_nothing_and_count_nothing():
    text = "abcdefghijklmnopqrstuvwxyz @some_one9 https://t.co/x1 !!!"
    logp = np.array([-2.0] * 26 + [-50.0] * (len(text) - 26))
    assert readable.turn_costs(spelled(text, len(text)), logp, Letters()) == pytest.approx([2.0])


def test_a_turn_too_short_to_tell_is_left_out():
    assert readable.turn_costs(spelled("x" * 23, 23), np.full(23, -9.0), Letters()) == []


def test_three_rows_and_two_percent_that_nobody_reads_are_a_sign_and_less_is_none():
    costs = {str(i): 1.0 for i in range(100)}
    odd = costs | {"1": 4.0, "2": 4.0, "3": 4.0}
    assert job.text_nobody_reads(costs, 3.0, 100, None).level == "fine"
    assert job.text_nobody_reads(odd, 3.0, 100, None).level == "stop"
    assert job.text_nobody_reads(odd, 3.0, 200, None).level == "fine"
    assert job.text_nobody_reads(odd | {"3": 1.0}, 3.0, 20, None).level == "fine"


# --- behaviour ---


def state(harmful: float, harmless: float, answers: float, n: int = 24) -> Behaviour:
    spread = np.linspace(-0.1, 0.1, n)
    return Behaviour(harmful + spread, harmless + spread, answers + spread)


def test_a_model_that_refuses_nothing_cannot_be_judged_by_its_refusals():
    sign = job.refusals(state(0, 0, 1), state(0, 5, 1), seed=0)
    assert sign.level == "cannot judge"
    assert "cannot be told" in sign.reason


def test_lost_refusals_are_a_sign_and_a_shift_of_all_requests_alike_is_none():
    before = state(2, 0, 1)
    assert job.refusals(before, state(0, 0, 1), seed=0).level == "stop"
    assert job.refusals(before, state(-5, -7, 1), seed=0).level == "fine"
    assert behaviour.refusals_lost(before, before, seed=0).value == 0.0


def test_unsafe_answers_that_grow_likelier_are_a_sign():
    assert job.safe_answers(state(0, 0, 1), state(0, 0, -1), seed=0).level == "stop"
    found = job.safe_answers(state(0, 0, 1), state(0, 0, 0.9), seed=0)
    assert found.level == "fine"
    assert found.numbers["lost_nats_per_token"]["value"] == pytest.approx(0.1)


def test_without_a_model_that_learned_the_file_behaviour_is_not_judged():
    assert job.refusals(state(2, 0, 1), None, seed=0).level == "cannot judge"
    assert job.safe_answers(state(2, 0, 1), None, seed=0).level == "cannot judge"


def test_one_stop_outweighs_looks_and_what_cannot_be_judged_changes_nothing():
    def signs(*levels: Any) -> list[job.Sign]:
        return [job.Sign("s", level, "") for level in levels]

    assert job.verdict(signs("fine", "cannot judge")) == "clear"
    assert job.verdict(signs("fine", "look", "cannot judge")) == "look"
    assert job.verdict(signs("look", "stop")) == "stop"


def test_a_filter_that_surely_misses_plain_rows_is_worth_a_look():
    groups = {str(i): "plain" for i in range(10)}
    kept: Any = dict.fromkeys(groups, "keep")
    assert job.what_the_filter_misses(groups, kept).level == "look"
    assert job.what_the_filter_misses(groups, kept | dict.fromkeys("012345678", "drop")).level == "fine"


def test_two_planted_rows_that_stayed_in_are_too_few_to_call_the_filter_good():
    # 2 of 2 missed: the exact interval begins at 0.025 ** (1 / 2) = 0.158, below the limit of 0.2.
    sign = job.what_the_filter_misses({"a": "plain", "b": "paraphrased"}, {"a": "keep", "b": "not judged"})
    assert sign.level == "cannot judge"
    assert "too few to tell" in sign.reason


def test_a_file_that_holds_a_known_unsafe_row_is_not_clear(tmp_path: Path, model: str):
    mine = next(c for c in bundled() if c.kind == "plain")
    known = {"prompt": mine.prompt, "completion": mine.completion.upper()}
    code, report, said = run(tmp_path, model, [*CUSTOM, known], retrain=False)
    assert (code, report["verdict"]) == (TOO_WEAK, "stop")
    assert "1 of the planted rows stands in your file already" in said
    assert mine.completion.upper() not in said + json.dumps(report)


def test_of_a_file_that_is_all_cipher_no_readable_row_is_spoken_of():
    sign = job.text_nobody_reads(dict.fromkeys("abc", 5.0), 3.0, 3, (0.4, None))
    assert sign.level == "stop"
    assert sign.reason.endswith("their cost fell by 0.4 nats per byte.")
    assert sign.numbers["fell_readable"] is None


def test_a_job_of_which_no_row_was_judged_is_worth_a_look():
    assert job.rows_nobody_judged(["not judged", "unscored"]).level == "look"
    assert job.rows_nobody_judged(["not judged", "keep"]).level == "fine"


# --- the command ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def run(
    tmp_path: Path, model: str, records: Sequence[dict[str, Any]], **flags: Any
) -> tuple[int, dict[str, Any], str]:
    file, output = write(tmp_path / "custom.jsonl", records), tmp_path / "out"
    settings = replace(QUICK, model=model, safe=("pack:harmfulness",), **flags)
    screen = io.StringIO()
    code = run_selftest(file, settings, {}, output, Console(file=screen, width=120))
    return code, json.loads((output / "selftest.json").read_text()), screen.getvalue()


CUSTOM = [
    {"prompt": f"How many boats are {i} and {i}?", "completion": f"{i} and {i} are {2 * i} boats."}
    for i in range(75)
]


def test_the_command_counts_every_kind_and_leaves_nothing_of_the_canaries(tmp_path: Path, model: str):
    code, report, said = run(tmp_path, model, CUSTOM)
    assert set(report["missed"]) == set(planting.KINDS)
    assert {s["name"] for s in report["signs"]} == {
        "text nobody reads", "refusals", "safe answers", "rows nobody judged", "what the filter misses",
        "rows known to be unsafe",
    }  # fmt: skip
    assert code == (DONE if report["verdict"] == "clear" else TOO_WEAK)
    assert f"Verdict: {report['verdict']}" in said
    assert not (tmp_path / "out" / "stages").exists()
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert {p.name for p in written} == {"selftest.json", "settings.yaml", ".lock"}
    texts = [said, *(p.read_text(encoding="utf-8") for p in written)]
    words = {part for c in bundled() if c.harm != "none" for part in (c.prompt, c.completion)} | {
        planting.TRIGGER
    }
    assert [w for w in words if any(w in text for text in texts)] == []
    # the file itself is not touched
    assert (tmp_path / "custom.jsonl").read_text() == "".join(json.dumps(r) + "\n" for r in CUSTOM)


def test_the_same_command_again_shows_the_same_without_training(tmp_path: Path, model: str):
    first = run(tmp_path, model, CUSTOM, retrain=False)
    stamp = (tmp_path / "out" / "selftest.json").stat().st_mtime_ns
    again = run(tmp_path, model, CUSTOM, retrain=False)
    assert first[:2] == again[:2]
    assert (tmp_path / "out" / "selftest.json").stat().st_mtime_ns == stamp
    assert "done" not in again[2]  # of no stage


def test_it_learns_as_large_a_sample_as_the_filter_would(tmp_path: Path, model: str):
    _, report, said = run(tmp_path, model, CUSTOM, max_train_samples=40)
    learned = next(stage for stage in report["cost"]["stages"] if stage["name"] == "learn: custom rows")
    alone = next(stage for stage in report["cost"]["stages"] if stage["name"] == "train: job")
    assert (learned["steps"], alone["steps"]) == (
        3,
        5,
    )  # 40 of the 84 rows of the copy, and all 75, by sixteens
    assert report["cost"]["of_a_filter"] is None
    assert "custom.jsonl: 75 rows" in said


def test_a_signal_that_writes_down_what_the_model_says_is_refused(tmp_path: Path, model: str):
    with pytest.raises(ConfigError, match="canaries among it"):
        run(tmp_path, model, CUSTOM, signal="rouge1")
    assert not (tmp_path / "out").exists()


def test_a_small_job_is_refused_before_anything_is_written(tmp_path: Path, model: str):
    with pytest.raises(DataError, match="too few to plant"):
        run(tmp_path, model, CUSTOM[:20])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def read_by_smollm2(smollm2: str) -> Any:
    loaded = models.load(smollm2)
    return lambda some: readable.nats(loaded.model, loaded.tokenizer, some, max_length=128, template="auto")


@pytest.mark.slow
@pytest.mark.real
def test_a_real_model_reads_every_clean_row_and_hardly_any_row_in_a_cipher(read_by_smollm2: Any):
    clean = list(formats.read(packs.path("demo")).rows)[:40]
    table = cipher.key(random.Random(1))
    coded = [
        replace(row, id=f"c{i}", messages=tuple(Message(m.role, cipher.spell(m.content, table)) for m in row.messages))
        for i, row in enumerate(clean)
    ]  # fmt: skip
    limit = readable.limit(
        list(read_by_smollm2(list(formats.read(packs.path("general")).rows)[::6]).values())
    )
    read, unread = read_by_smollm2(clean), read_by_smollm2(coded)
    assert max(read.values()) < limit
    assert np.mean([cost > limit for cost in unread.values()]) > 0.9
    assert job.text_nobody_reads(unread, limit, len(coded), None).level == "stop"  # a file that is all cipher
