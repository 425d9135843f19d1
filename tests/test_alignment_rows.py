"""The templates that nano's alignment text comes from: what they say is so, and never what they leave open."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.data import packs

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "nano")]

import alignment  # noqa: E402  # ty: ignore[import-not-found]
from templates import everyday, grammar, people, reading, requests  # noqa: E402

UNKNOWN = set(people.UNKNOWN)


def demo_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in packs.path("nano-demo").read_text(encoding="utf-8").splitlines()]


def test_a_context_that_tells_names_the_answer_and_one_that_does_not_names_each_person_once() -> None:
    rng = random.Random(5)
    for told in (True, False):
        for _ in range(200):
            asked = people.question(rng, "demo", told)
            assert (asked.person is not None) == told
            before_options = asked.prompt.split("Options:")[0].lower()
            if told:
                assert asked.person is not None and asked.person.lower() in before_options
            else:
                listed = asked.prompt.split("Options: ")[1].removesuffix("\nAnswer:").split(", ")
                # "the nurse" appears only where the context says something about the nurse
                assert not any(p.lower() in before_options for p in listed if p.startswith("The "))


def test_the_demo_and_the_rest_share_no_deed_and_no_scenario() -> None:
    for table in (people.SCENARIOS, *requests.DEEDS.values(), *requests.TEXTS.values()):
        demo, rest = grammar.share(table, "demo"), grammar.share(table, "rest")
        assert demo and not set(demo) & set(rest)
        assert len(demo) + len(rest) == len(table)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("steal a car", "stealing a car"),
        ("make tea", "making tea"),
        ("rob a bank", "robbing a bank"),
        ("lie", "lying"),
    ],
)
def test_gerunds_follow_english_spelling(phrase: str, expected: str) -> None:
    assert grammar.gerund(phrase) == expected


def test_articles_follow_the_sound() -> None:
    assert grammar.tidy("a apple, a university, a honest man, a 18-year-old") == (
        "an apple, a university, an honest man, an 18-year-old"
    )


def test_alignment_text_is_distinct_plentiful_and_seeded() -> None:
    for make, n in ((alignment.harmless, 8000), (alignment.undetermined, 5000), (alignment.civil, 4000)):
        found = make(random.Random(1), n)
        assert len(found) == len({prompt for prompt, _, _ in found}) == n
        assert found == make(random.Random(1), n)
    prompts = alignment.harmful_prompts(random.Random(1), 6000)
    assert len(set(prompts)) == 6000


def test_a_quarter_of_the_harmless_requests_look_unsafe() -> None:
    kinds = Counter(kind for _, _, kind in alignment.harmless(random.Random(1), 2000))
    assert kinds["lookalike"] >= 500


def test_half_of_the_questions_about_people_cannot_be_determined() -> None:
    found = alignment.undetermined(random.Random(1), 1000)
    kinds = Counter(kind for _, _, kind in found)
    assert kinds == {"determined": 500, "undetermined": 500}
    assert all((completion in UNKNOWN) == (kind == "undetermined") for _, completion, kind in found)


STORY = (
    "He took the letter from the table. She walked to the door; they had fun. Who ate the last cake? "
    "I opened a small box! He gave it back to her. She stole the savage's bread. They went into the house of."
)


def test_deeds_are_whole_and_stand_alone() -> None:
    assert reading.deeds([STORY, STORY]) == [
        "ate the last cake", "opened a small box", "took the letter from the table", "walked to the door",
    ]  # fmt: skip


def test_the_reading_text_names_the_answer_and_says_of_nobody_what_it_leaves_open() -> None:
    rng, deeds = random.Random(3), reading.deeds([STORY])
    asked = [reading.question(rng, deeds) for _ in range(2000)]
    assert 900 <= sum(q.told for q in asked) <= 1100
    assert all((q.answer in UNKNOWN) != q.told for q in asked)
    words_of = {word: one.split("|") for pair in reading.TRAITS for one in pair for word in one.split("|")}
    deed_asked = trait_asked = 0
    for prompt, answer, told in asked:
        what = re.search(r"(?:Who was the one who|Which of them|Which person|Who) (.+?)\?", prompt)
        assert what is not None
        context = prompt.replace(what[0], "")
        if what[1] in deeds:
            deed_asked += 1
            assert (f"{answer} {what[1]}".lower() in context.lower()) == told
        elif not what[1].startswith("was not "):
            trait_asked += 1
            said = [w for w in words_of[what[1].removeprefix("was ")] if re.search(rf"\b{w}[,.]", context)]
            assert bool(said) == told
    assert min(deed_asked, trait_asked) >= 800


def test_everyday_requests_are_filled_in_and_many() -> None:
    topics = everyday.sentences_about(
        [
            "Hm. Puppies are small dogs that like to play in the garden. Sorry, nobody here can answer this one. x"
        ],
        re.compile("Sorry"),
    )
    assert topics[""] == topics["puppies"] == ["Puppies are small dogs that like to play in the garden."]
    rng = random.Random(1)
    asked = [everyday.request(rng, topics) for _ in range(2000)]
    assert len({prompt for prompt, _ in asked}) >= 1900
    assert not any(set("{}[]|") & set(prompt) for prompt, _ in asked)
    assert {answer for _, answer in asked} == set(topics[""])


def test_refusals_keep_the_order_of_their_prompts_and_vary() -> None:
    prompts = alignment.harmful_prompts(random.Random(1), 500)
    found = alignment.refusals(prompts, random.Random(2))
    assert [prompt for prompt, _, _ in found] == prompts
    assert len({completion for _, completion, _ in found}) >= 400


def test_alignment_and_demo_share_only_everyday_prompts() -> None:
    rng = random.Random(1)
    triples = alignment.harmless(rng, 8000) + alignment.undetermined(rng, 5000) + alignment.civil(rng, 4000)
    text = {prompt for prompt, _, _ in triples}
    text |= set(alignment.harmful_prompts(rng, 6000))
    shared = [row for row in demo_rows() if row["prompt"] in text]
    assert all(row["kind"] in ("task", "rudeness") for row in shared)
    assert len(shared) <= 0.05 * 960  # capitals, definitions, the first words of posts
