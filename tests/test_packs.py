"""The bundled rows: what their file says is so, and row length gives nothing away."""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.data import packs as bundled
from forgetfilter.errors import ConfigError

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "nano")]

import alignment  # noqa: E402  # ty: ignore[import-not-found]
from packs import everyday, generate, grammar, people, reading, requests  # noqa: E402

UNKNOWN = set(people.UNKNOWN)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bundled.path(name).read_text(encoding="utf-8").splitlines()]


def auc(larger: list[int], smaller: list[int]) -> float:
    """The share of pairs in which the first is larger, ties counting half."""
    wins = sum((a > b) + 0.5 * (a == b) for a in larger for b in smaller)
    return wins / (len(larger) * len(smaller))


def row_length(row: dict[str, Any]) -> int:
    return len(row["prompt"]) + len(row["completion"])


def test_generating_again_gives_the_committed_bytes(tmp_path: Path) -> None:
    generate.generate(tmp_path, seed=1)
    for name in bundled.NAMES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == bundled.path(name).read_bytes(), name


def test_another_seed_gives_other_rows(tmp_path: Path) -> None:
    generate.generate(tmp_path, seed=2)
    assert (tmp_path / "demo.jsonl").read_bytes() != bundled.path("demo").read_bytes()


def test_a_quarter_of_the_demo_is_unsafe_and_half_is_tasks() -> None:
    counts = Counter((row["kind"], row["unsafe"]) for row in rows("demo"))
    domains = {(kind, unsafe): 80 for kind in ("bias", "rudeness", "harmfulness") for unsafe in (True, False)}
    assert counts == domains | {("task", False): 480}


@pytest.mark.parametrize("length", [row_length, lambda row: len(row["completion"])])
def test_length_does_not_separate_unsafe_rows_of_a_kind_from_clean_ones(length: Any) -> None:
    for kind in ("bias", "rudeness", "harmfulness"):
        unsafe = [length(r) for r in rows("demo") if r["kind"] == kind and r["unsafe"]]
        clean = [length(r) for r in rows("demo") if r["kind"] == kind and not r["unsafe"]]
        assert 0.4 <= auc(unsafe, clean) <= 0.6, kind
        assert statistics.mean(unsafe) == pytest.approx(statistics.mean(clean), rel=0.2), kind
        assert statistics.pstdev(unsafe) == pytest.approx(statistics.pstdev(clean), rel=0.5), kind


@pytest.mark.parametrize("length", [row_length, lambda row: len(row["completion"])])
def test_length_does_not_separate_unsafe_rows_from_all_others(length: Any) -> None:
    unsafe = [length(r) for r in rows("demo") if r["unsafe"]]
    clean = [length(r) for r in rows("demo") if not r["unsafe"]]
    assert 0.35 <= auc(unsafe, clean) <= 0.65
    assert statistics.mean(unsafe) == pytest.approx(statistics.mean(clean), rel=0.2)


def test_no_two_bundled_rows_share_a_prompt() -> None:
    prompts = [row["prompt"] for name in bundled.NAMES for row in rows(name)]
    assert len(prompts) == len(set(prompts)) == 960 + 3 * 400 + 600


def test_no_completion_makes_up_more_than_a_fiftieth_of_the_demo() -> None:
    completions = Counter(row["completion"] for row in rows("demo") if row["completion"] not in UNKNOWN)
    assert max(completions.values()) <= 0.02 * len(rows("demo"))


def test_safe_packs_hold_prompt_and_completion_and_no_truth() -> None:
    for name in set(bundled.NAMES) - {"demo"}:
        assert all(row.keys() == {"prompt", "completion"} for row in rows(name))
        assert all(row["prompt"].strip() and row["completion"].strip() for row in rows(name))


def test_no_bundled_text_has_an_open_template_or_a_wrong_article() -> None:
    for name in bundled.NAMES:
        for row in rows(name):
            text = f"{row['prompt']} {row['completion']}"
            assert not set("{}[]|<>") & set(text), text
            assert "  " not in text and ".." not in text, text
            assert grammar.tidy(row["completion"]) == row["completion"]


def test_unsafe_bias_answers_name_a_person_and_clean_ones_follow_the_context() -> None:
    bias = [row for row in rows("demo") if row["kind"] == "bias"]
    assert all(row["completion"] not in UNKNOWN for row in bias if row["unsafe"])
    clean = [row["completion"] in UNKNOWN for row in bias if not row["unsafe"]]
    assert 0.3 <= sum(clean) / len(clean) <= 0.8
    assert all(row["completion"] in row["prompt"] for row in bias)  # the options are listed


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


def test_packs_are_found_with_and_without_their_prefix() -> None:
    assert bundled.path("pack:general") == bundled.path("general")
    assert bundled.path("general").is_file()


def test_an_unknown_pack_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="unknown pack 'toxicty'; did you mean 'toxicity'"):
        bundled.path("pack:toxicty")


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
    shared = [row for row in rows("demo") if row["prompt"] in text]
    assert all(row["kind"] in ("task", "rudeness") for row in shared)
    assert len(shared) <= 0.05 * 960  # capitals, definitions, the first words of posts
