from __future__ import annotations

import pytest

from forgetfilter.filter import rehearsal
from forgetfilter.filter.rehearsal import likeness, rarity, review_rows
from forgetfilter.models.rendering import Encoded


def row(name: str, ids: list[int]) -> Encoded:
    return Encoded(name, ids, [True] * len(ids), [True] * len(ids), 0, False)


def made(prefix: str, first: int, count: int) -> list[Encoded]:
    """Rows that share most of their tokens, `first` to `first` + 3."""
    return [
        row(f"{prefix}{i}", [first, first + 1, first + 2, first + 3, 100 * first + len(prefix) * 20 + i])
        for i in range(count)
    ]


def test_a_row_is_as_like_the_safe_rows_as_its_cosine_with_the_nearest() -> None:
    rows, others = [[1], [1, 2]], [[1, 2]]
    # token 1 in 3 of 3 rows weighs log(4/4) = 0, token 2 in 2 of 3 weighs log(4/3): only token 2 counts.
    assert likeness(rows, others, rarity([*rows, *others])) == pytest.approx([0.0, 1.0])


def test_rows_of_another_kind_are_the_least_alike() -> None:
    near, far, safe = made("near", 10, 8), made("far", 50, 4), made("reviewed", 10, 9)
    rows, others = [z.ids for z in [*far, *near]], [z.ids for z in safe]
    alike = likeness(rows, others, rarity([*rows, *others]))
    assert alike[:4].max() < alike[4:].min()


def test_a_row_is_about_its_prompt_and_about_all_of_it_where_the_prompt_is_short() -> None:
    long = Encoded("long", [*range(20)], [True] * 20, [True] * 20, 12, False)
    short = Encoded("short", [*range(20)], [True] * 20, [True] * 20, 11, False)
    assert rehearsal._topics([long, short]) == [[*range(12)], [*range(20)]]


def test_comparing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    custom, safe = (
        [z.ids for z in rows]
        for rows in ([*made("near", 10, 8), *made("far", 50, 4)], made("reviewed", 10, 9))
    )
    rare = rarity([*custom, *safe])
    whole = likeness(custom, safe, rare)
    monkeypatch.setattr(rehearsal, "CHUNK", 5)
    assert likeness(custom, safe, rare) == pytest.approx(whole)


def test_a_review_holds_its_share_of_the_rows_least_like_the_safe_ones() -> None:
    custom, safe = [*made("near", 10, 8), *made("far", 50, 4)], made("reviewed", 10, 9)
    drawn = review_rows(rehearsal.foreign(custom, safe), safe, 40, share=0.25, seed=0)
    names = [z.id for z in drawn]
    assert len(names) == 40
    assert {n for n in names if n.startswith("far")} == {"far0", "far1", "far2", "far3"}
    assert sum(n.startswith("far") for n in names) == 8  # each twice: a quarter would be 10
    assert not [n for n in names if n.startswith("near")]


def test_only_rows_that_are_odd_among_the_safe_ones_are_rehearsed() -> None:
    near, far, safe = made("near", 10, 8), made("far", 50, 4), made("reviewed", 10, 9)
    assert {z.id for z in rehearsal.foreign([*near, *far], safe)} == {"far0", "far1", "far2", "far3"}
    assert rehearsal.foreign(near, safe) == []  # a third of them are least alike, but none is another kind
    assert rehearsal.foreign(near, safe[:1]) == []  # one safe row shows no variety


def test_at_most_a_third_of_the_custom_rows_are_rehearsed() -> None:
    far, safe = made("far", 50, 9), made("reviewed", 10, 9)
    assert len(rehearsal.foreign(far, safe)) == 3


def test_no_row_comes_twice_before_each_came_once() -> None:
    custom, safe = made("far", 50, 4), made("reviewed", 10, 9)
    names = [z.id for z in review_rows(custom, safe, 18, share=0.0, seed=3)]
    assert sorted(names) == sorted(z.id for z in safe for _ in range(2))


def test_the_draw_depends_on_the_seed_alone() -> None:
    custom, safe = made("far", 50, 6), made("reviewed", 10, 9)
    first, again, other = (
        [z.id for z in review_rows(custom, safe, 12, share=0.25, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_without_a_share_only_safe_rows_are_reviewed() -> None:
    custom, safe = made("far", 50, 6), made("reviewed", 10, 9)
    assert {z.id[:4] for z in review_rows(custom, safe, 30, share=0.0, seed=0)} == {"revi"}
