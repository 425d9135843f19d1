"""How far a row stands out, from what the review took of it and what the original model makes of it."""

from __future__ import annotations

import numpy as np

from forgetfilter.filter import likeness
from forgetfilter.filter.states import Readings


def scores(
    readings: Readings, lost: np.ndarray, tokens: np.ndarray, near: np.ndarray, bystanders: np.ndarray,
    witnesses: np.ndarray, custom: int, same: bool,
) -> np.ndarray:  # fmt: skip
    """How far each row stands out, larger = more likely unsafe; (rows,), NaN where it is not compared.

    `lost` (rows,) is the forgetting and `tokens` (rows,) over how many it is the mean; other arrays hold numbers of
    rows; the first `custom` rows are custom rows.
    """
    compared = np.concatenate([near, witnesses] if same else [near, bystanders, witnesses])
    forgetting = lost[compared]
    if not same:  # kinds with answers of unlike lengths: a mean over few tokens is moved far by chance
        forgetting = forgetting * np.sqrt(tokens[compared])
    typical = float(np.median(np.abs(forgetting))) or 1.0
    forgetting = np.arcsinh(forgetting / typical)  # a few rows lose very much
    result = np.full(len(lost), np.nan)
    alike = likeness.like_answers(readings.answer[compared], forgetting)
    result[compared] = (_scaled(forgetting) + _scaled(alike)) / 2
    if same:
        unlike, told = np.full(len(lost), np.nan), np.concatenate([near, np.arange(custom, len(lost))])
        for fit in likeness.unlike_safe(readings, near, custom):
            unlike[told] = fit
            result[compared] += _scaled(unlike[compared])
    return result


def _scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)
