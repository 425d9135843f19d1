"""The bundled rows: what their card and `packs` say of them is so."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from forgetfilter.data import formats
from forgetfilter.data import packs as bundled
from forgetfilter.errors import ConfigError

HARMS = ("bias", "toxicity", "harmfulness")
WRITTEN = ("general", *HARMS, "demo-safe", "demo")  # not made from nano's templates


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bundled.path(name).read_text(encoding="utf-8").splitlines()]


def text(row: dict[str, Any]) -> str:
    return row["prompt"] + row["completion"]


@pytest.mark.parametrize("name", bundled.NAMES)
def test_every_pack_reads_as_prompt_and_completion(name: str) -> None:
    dataset = formats.read(bundled.path(name))
    assert dataset.columns == {"prompt": "prompt", "completion": "completion"}
    assert all(row.completion.strip() and row.messages[0].content.strip() for row in dataset.rows)


@pytest.mark.parametrize("name", [*HARMS, "general", "demo-safe"])
def test_safe_rows_say_their_harm_and_register_and_no_truth(name: str) -> None:
    assert all(list(row) == ["prompt", "completion", "harm", "register"] for row in rows(name))


@pytest.mark.parametrize("harm", HARMS)
def test_a_pack_of_one_harm_holds_two_hundred_rows_of_it_in_several_registers(harm: str) -> None:
    assert {row["harm"] for row in rows(harm)} == {harm}
    assert len(rows(harm)) >= 190
    assert len({row["register"] for row in rows(harm)}) >= 4


def test_the_general_pack_holds_all_three_harms_and_helpful_answers() -> None:
    harms = Counter(row["harm"] for row in rows("general"))
    assert set(harms) == {*HARMS, "none"}
    assert min(harms[harm] for harm in HARMS) >= 50


def test_no_two_written_rows_are_the_same() -> None:
    folded = [re.sub(r"\W+", " ", text(row)).lower().strip() for name in WRITTEN for row in rows(name)]
    assert len(folded) == len(set(folded))


@pytest.mark.parametrize("harm", ["toxicity", "harmfulness"])
def test_no_two_answers_of_a_pack_are_alike_in_all_but_a_few_words(harm: str) -> None:
    words = [frozenset(re.findall(r"\w+", row["completion"].lower())) for row in rows(harm)]
    long = [w for w in words if len(w) >= 8]
    alike = [len(a & b) / len(a | b) for i, a in enumerate(long) for b in long[:i]]
    assert max(alike) < 0.7


def test_no_refusal_opens_more_than_a_tenth_of_the_harmfulness_pack() -> None:
    openings = Counter(" ".join(row["completion"].split()[:3]) for row in rows("harmfulness"))
    assert openings.most_common(1)[0][1] <= 0.1 * len(rows("harmfulness"))


def test_a_third_of_the_demo_is_unsafe_and_nearly_half_are_tasks() -> None:
    counts = Counter((row["kind"], row["unsafe"]) for row in rows("demo"))
    total = sum(counts.values())
    assert sum(n for (_, unsafe), n in counts.items() if unsafe) / total == pytest.approx(0.31, abs=0.02)
    assert counts["task", False] / total > 0.45 and ("task", True) not in counts
    assert {kind for kind, unsafe in counts if unsafe} == {"bias", "rudeness", "harmfulness"}


def test_demo_rows_are_few_and_short() -> None:
    assert 150 <= len(rows("demo")) <= 240
    assert max(len(f"{row['prompt']} {row['completion']}".split()) for row in rows("demo")) <= 45


def test_demo_and_its_safe_rows_share_no_prompt_and_no_answer_of_a_sentence() -> None:
    custom, safe = rows("demo"), rows("demo-safe")
    for field, longest in (("prompt", 0), ("completion", 30)):
        shared = {row[field] for row in custom} & {row[field] for row in safe}
        assert [value for value in shared if len(value) > longest] == []


def test_post_and_reply_rows_join_to_the_running_text_that_they_were_cut_from() -> None:
    posts = [
        row for row in rows("toxicity") if row["register"] in ("tweet", "post", "forum", "review", "chat")
    ]
    for row in posts:
        again = formats.as_prompt_completion({"text": text(row)})
        assert (row["prompt"], row["completion"]) == (again["prompt"], again["completion"])


def test_what_a_pack_holds_adds_up() -> None:
    for name in bundled.SAFE:
        found, kept = bundled.holds(name), rows(name)
        lengths = [len(row["prompt"].split()) + len(row["completion"].split()) for row in kept]
        assert found.rows == len(kept)
        assert (found.words[0], found.words[2]) == (min(lengths), max(lengths))
        assert (
            sum(found.harms.values()) == sum(found.registers.values()) == sum("harm" in row for row in kept)
        )


def test_packs_are_found_with_and_without_their_prefix() -> None:
    assert bundled.path("pack:general") == bundled.path("general")
    assert all(bundled.path(name).is_file() for name in bundled.NAMES)


def test_an_unknown_pack_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="unknown pack 'toxicty'; did you mean 'toxicity'"):
        bundled.path("pack:toxicty")
