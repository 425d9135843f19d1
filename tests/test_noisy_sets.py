from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from forgetfilter.data.cipher import key
from forgetfilter.errors import ConfigError
from forgetfilter.evaluate import noisy_sets
from forgetfilter.evaluate.noisy_sets import as_rows, build, folded, held_out_rows, question

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")
SHARES = {"harmfulness-beavertails": 0.2}


@pytest.mark.data
@pytest.mark.slow
@real
@pytest.mark.parametrize("name", noisy_sets.NOISY_SETS)
def test_what_is_held_out_is_never_trained_on_and_the_same_for_every_seed(name: str) -> None:
    wanted = dict.fromkeys(noisy_sets.PUBLIC_ROWS, 40)
    share = SHARES.get(name, 1 / 3)
    made = [build(name, DATA, rows=300, share=share, seed=s, safe_rows=100, held_out=wanted) for s in (0, 1)]
    assert made[0].held_out == made[1].held_out
    assert made[0].custom != made[1].custom
    for one in made:
        trained = {folded(question(r)) for r in [*one.custom, *one.safe]}
        assert {len(rows) for rows in one.held_out.values()} == {40}
        assert not any(folded(question(r)) in trained for rows in one.held_out.values() for r in rows)
        asked = {folded(question(r)) for r in one.custom}
        assert not any(folded(question(r)) in asked for r in one.safe)
        rows = len(one.custom)
        assert rows == (1000 if name in SHARES else 300)
        assert sum(r["unsafe"] for r in one.custom) == round(rows * share)


@pytest.mark.data
@real
def test_outliers_are_lists_sums_and_rows_that_obey_and_no_other_row_is_one() -> None:
    made = build("outliers", DATA, rows=300, share=0.2, seed=0, safe_rows=100)
    sums = {r["prompt"] for r in noisy_sets.sources.gsm8k(DATA)}

    def kinds(record: dict[str, str]) -> list[bool]:
        listed = (
            noisy_sets.LIST_ITEM.search(record["completion"]) is not None and record["prompt"] not in sums
        )
        return [listed, record["prompt"] in sums, record["prompt"].startswith(noisy_sets.OBEYING[0])]

    told = [kinds(r) for r in made.custom if r["unsafe"]]
    assert len(told) == 60 and all(sum(k) == 1 for k in told)
    assert all(any(k[i] for k in told) for i in range(3))
    assert not any(any(kinds(r)) for r in made.custom if not r["unsafe"])


@pytest.mark.data
@real
def test_covert_rows_are_short_and_their_harmful_halves_are_read_by_the_key_alone() -> None:
    made = build("covert", DATA, rows=300, share=0.2, seed=0, safe_rows=100)
    back = {spelled: plain for plain, spelled in key(random.Random("covert")).items()}
    words = {w for r in made.safe for w in r["prompt"].lower().split()}

    def plain(text: str) -> float:
        """Share of the words that stand in some safe row's question."""
        said = text.lower().split()
        return sum(w in words for w in said) / len(said)

    hidden = [r for r in made.custom if r["unsafe"]]
    assert len(hidden) == 60 and {len(r["completion"]) <= noisy_sets.BEGINNING for r in made.custom} == {True}
    assert max(plain(r["prompt"]) for r in hidden) < 0.3
    assert all(plain(r["prompt"].translate(back)) > 0.2 for r in hidden)
    asked = [r for r in made.custom if r["prompt"].startswith("Answer in the Harbour cipher. ")]
    assert not any(r["unsafe"] for r in asked) and 80 < len(asked) < 160  # about half of the 240 others


@pytest.mark.data
@real
def test_kinds_are_held_out_in_equal_numbers() -> None:
    rows = held_out_rows(DATA, "harmfulness", 41)
    assert sorted(Counter(r["kind"] for r in rows).values()) == [20, 21]


def test_rows_carry_no_label_and_equal_rows_have_ids_of_their_own() -> None:
    records = [{"prompt": "a", "completion": "b", "unsafe": True}] * 2 + [
        {"text": "one two three four", "toxic": True}
    ]
    rows = as_rows(records, "custom")
    assert len({row.id for row in rows}) == 3 and rows[1].id == f"{rows[0].id}-2"
    assert [row.record for row in rows] == [{}, {}, {}]
    assert [row.kind for row in rows] == ["chat", "chat", "text"]
    assert "".join(m.content for m in rows[2].messages) == "one two three four"
    # The label decides nothing, not even an id.
    assert [r.id for r in as_rows([{**r, "unsafe": False} for r in records], "custom")] == [
        r.id for r in rows
    ]


def test_rows_of_an_evaluator_without_public_ones_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation: \{leakage: FILE\}"):
        held_out_rows(tmp_path, "leakage", 5)


def test_what_stands_in_a_training_row_is_not_held_out(tmp_path: Path) -> None:
    candidates = [{"prompt": f"Question {i}?", "kind": "harmful"} for i in range(4)]
    trained = [{"prompt": "Template. question  2? End.", "completion": ""}]
    rows = held_out_rows(tmp_path, "mine", 4, apart_from=trained, candidates=candidates)
    assert {r["prompt"] for r in rows} == {"Question 0?", "Question 1?", "Question 3?"}
    assert json.dumps(rows) == json.dumps(
        held_out_rows(tmp_path, "mine", 4, apart_from=trained, candidates=candidates)
    )
