"""Hidden states of rows: means worked out a second way, the user's words without what all prompts share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import llama

from forgetfilter.filter.states import read_rows, standardised, users_words
from forgetfilter.models.rendering import Encoded


def row(prompt: list[int], answer: list[int]) -> Encoded:
    ids = prompt + answer
    scored = [False] * len(prompt) + [True] * len(answer)
    return Encoded(str(ids), ids, scored, scored, len(prompt), False)


def test_the_users_words_are_the_prompt_without_what_all_prompts_share() -> None:
    words = list(range(20, 30))
    rows = [row([1, 2, *words, 9], [50]), row([1, 2, *reversed(words), 9], [51])]
    assert users_words(rows) == [(2, 12), (2, 12)]


def test_a_short_question_is_read_together_with_its_answer() -> None:
    rows = [row([1, 20, 9], [50, 51]), row([1, *range(30, 40), 9], [50])]
    assert users_words(rows) == [(1, 5), (1, 11)]


def test_a_row_that_lost_its_beginning_does_not_make_the_system_turn_of_the_others_their_users_words() -> (
    None
):
    rows = [row([1, 2, *range(20, 30), 9], [50]), row([1, 2, *range(40, 50), 9], [51])]
    cut = replace(row([*range(31, 43), 9], [52]), truncated=True)
    only_its_answer = replace(row([1, 2, *range(60, 70), 9], [53]), truncated=True)
    assert users_words([*rows, cut, only_its_answer]) == [(2, 12), (2, 12), (0, 12), (2, 12)]
    assert users_words([cut, cut]) == [
        (13, 14),
        (13, 14),
    ]  # no whole row to go by: all alike, so read the answer


def test_what_either_side_shares_is_no_users_word_on_both() -> None:
    # 7, 8: an instruction; 5: an answer's beginning. One custom row has neither, and so do half of the safe rows.
    asked = [list(range(20 * n, 20 * n + 10)) for n in range(1, 7)]
    custom = [
        row([1, 7, 8, *asked[0], 5], [50]),
        row([1, 7, 8, *asked[1], 5], [51]),
        row([1, *asked[2]], [52]),
    ]
    safe = [row([1, 7, 8, *asked[3], 5], [53]), row([1, 7, 8, *asked[4], 5], [54])]
    assert users_words(custom) == [(1, 14), (1, 14), (1, 11)]
    assert users_words(custom, safe) == [(3, 13), (3, 13), (1, 11)]
    assert users_words(safe, custom) == users_words(safe) == [(3, 13), (3, 13)]
    mixed = [*safe, row([1, *asked[5]], [55])]
    assert users_words(mixed, custom[:2]) == [(3, 13), (3, 13), (1, 11)]


def test_readings_are_the_mean_hidden_states_of_each_row_alone() -> None:
    import torch

    model = llama().eval()
    rows = [row([1, *range(2, 14), 3], [4, 5, 6]), row([1, *range(20, 29), 3], [7])]
    got = read_rows(model, rows)
    depth = model.config.num_hidden_layers
    layers = [max(1, round(depth * share)) for share in (0.4, 2 / 3, 14 / 15)]
    for i, (r, words) in enumerate(zip(rows, users_words(rows), strict=True)):
        with torch.no_grad():
            states = model(torch.tensor([r.ids]), output_hidden_states=True).hidden_states
        answer = np.concatenate([states[k][0, r.prompt_length :].mean(0).numpy() for k in layers])
        asked = states[layers[1]][0, slice(*words)].mean(0).numpy()
        assert got.answer[i] == pytest.approx(answer, abs=1e-4)
        assert got.question[i] == pytest.approx(asked, abs=1e-4)
        assert got.both()[i] == pytest.approx(np.concatenate([answer, asked]), abs=1e-4)


def test_a_constant_column_is_zero_and_others_have_variance_one() -> None:
    values = standardised(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert values[:, 1].tolist() == [0, 0]
    assert values[:, 0] == pytest.approx([-1, 1], abs=2e-3)


def test_a_row_is_brief_where_its_user_said_too_little_to_be_read_alone() -> None:
    rows = [row([1, 20, 9], [50, 51]), row([1, *range(30, 40), 9], [50])]
    assert read_rows(llama(), rows).brief.tolist() == [True, False]
