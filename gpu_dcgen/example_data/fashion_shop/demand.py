"""What is wanted when: the share of every article in each week's demand, as tables that a draw walks down.

A draw goes from a style to an article on sale that week (`Demand.cumulative` over a style-week's slots) and from an
article to another of its look (the neighboring slots). Weeks of different styles begin on different weekdays, so that
new articles come out on all days of the week.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .articles import SUMMER, WINTER, Assortment, life_curve
from .marginals import N_DAYS, day_of_year, generator

N_WEEKS = (N_DAYS + 6 + 6) // 7  # of any style: day 733 with phase 6 is in the last
# summer things sell (1 + swing) : (1 - swing) between their best and their worst day
SEASON_SWING = 0.75
BEST_DAY_OF_YEAR = {SUMMER: 165, WINTER: 310}
FITTING_ROUNDS = 12
LOOK_STRENGTH = (
    1.3,
    1.5,
)  # Beta parameters: chance that the next line of a basket stays in the look
FURTHER_LINE_SHARE = 0.62  # share of lines that are followed by another new line in the same basket
LEAST_SHARE = 1e-12  # slots below this part of a week's demand are left out


@dataclass(frozen=True)
class Demand:
    """Slots are (style, week, article) triples with demand, sorted; `n_slots` is about 21 an article."""

    phase: np.ndarray  # (styles,) int64  week of a style = (day + phase) // 7
    offsets: (
        np.ndarray
    )  # (styles * N_WEEKS + 1,) int64  slots of style s and week w: [s * N_WEEKS + w, ... + 1)
    article: np.ndarray  # (n_slots,) int32
    cumulative: (
        np.ndarray
    )  # (n_slots,) float64  cumulative demand inside the style-week, this slot included
    strength: (
        np.ndarray
    )  # (looks,) float32  chance that a further line of the basket stays in the look
    day_share: (
        np.ndarray
    )  # (N_DAYS, styles) float32  share of each style in the day's demand, sums to 1
    base_share: np.ndarray  # (styles,) float64  share over the whole log
    share: np.ndarray  # (n, N_WEEKS) float32  of each article in its style's week


def plan_demand(assortment: Assortment, day_rows: np.ndarray, seed: int) -> Demand:
    """Spread each article's rows over its life so that the weeks' sums follow `day_rows` (N_DAYS,)."""
    rng = generator(seed, purpose=3)
    n_styles = assortment.style_group.shape[0]
    phase = rng.integers(0, 7, n_styles)
    strength = rng.beta(*LOOK_STRENGTH, size=assortment.look_style.shape[0]).astype(np.float32)
    strength[np.bincount(assortment.look) == 1] = 0
    share = week_shares(assortment, phase, day_rows)

    # What a look draws in by itself is left out of what the style draws, else strong looks would
    # sell beyond their rows.
    draw = share * (1 - FURTHER_LINE_SHARE * strength[assortment.look])[:, None]
    first_of_style = np.flatnonzero(np.diff(assortment.style, prepend=-1))
    style_week = np.add.reduceat(draw, first_of_style, axis=0, dtype=np.float64)
    week = (np.arange(N_DAYS)[:, None] + phase) // 7
    day_share = style_week[np.arange(n_styles), week]
    day_share /= day_share.sum(axis=1, keepdims=True)
    base_share = (day_share * (day_rows / day_rows.sum())[:, None]).sum(axis=0)

    row, column = np.nonzero(draw > LEAST_SHARE)
    cell = assortment.style[row].astype(np.int64) * N_WEEKS + column
    order = np.argsort(cell * assortment.n + row)
    row, cell, value = row[order], cell[order], draw[row[order], column[order]].astype(np.float64)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(cell, minlength=n_styles * N_WEEKS))))
    total = np.concatenate(([0.0], np.cumsum(value)))
    return Demand(
        phase=phase,
        offsets=offsets,
        article=row.astype(np.int32),
        cumulative=total[1:] - total[offsets[cell]],
        strength=strength,
        day_share=day_share.astype(np.float32),
        base_share=base_share,
        share=share,
    )


def week_shares(assortment: Assortment, phase: np.ndarray, day_rows: np.ndarray) -> np.ndarray:
    """Share (n, N_WEEKS) float32 of each article in the demand of each of its style's weeks.

    A life rises fast and fades; iterative proportional fitting makes articles keep their rows and weeks sum to 1.
    """
    week_rows = rows_of_weeks(day_rows)
    article_phase = phase[assortment.style]
    middle = 7 * np.arange(N_WEEKS)[None, :] + 3.5 - article_phase[:, None]
    # At least a week, so that even the shortest life has a slot.
    x = (middle - assortment.launch[:, None]) / np.maximum(assortment.life, 7.5)[:, None]
    inside = (x > 0) & (x < 1)
    inside[
        np.arange(assortment.n),
        np.clip((assortment.launch + article_phase) // 7, 0, N_WEEKS - 1).astype(np.int64),
    ] |= ~inside.any(axis=1)
    x = np.clip(x, 0.02, 0.98, dtype=np.float32)
    share = np.where(inside, life_curve(x), 0).astype(np.float32)
    best = day_of_year()[np.clip(middle, 0, N_DAYS - 1).astype(np.int64)]
    for code, peak in BEST_DAY_OF_YEAR.items():
        rows = assortment.season == code
        share[rows] *= (1 + SEASON_SWING * np.cos(2 * np.pi * (best[rows] - peak) / 365.25)).astype(
            np.float32
        )

    expected = week_rows[article_phase].astype(np.float32)
    wanted = assortment.rows.astype(np.float32)
    for _ in range(FITTING_ROUNDS):
        share /= np.maximum(share.sum(axis=0, dtype=np.float64), 1e-12).astype(np.float32)
        got = np.einsum("aw,aw->a", share, expected, dtype=np.float64)
        share *= np.divide(
            wanted, got, out=np.zeros_like(wanted, dtype=np.float64), where=got > 0
        ).astype(np.float32)[:, None]
    return share


def rows_of_weeks(day_rows: np.ndarray) -> np.ndarray:
    """(7, N_WEEKS) float64: rows of each week, for each phase."""
    return np.stack(
        [
            np.bincount((np.arange(N_DAYS) + phase) // 7, day_rows, minlength=N_WEEKS)
            for phase in range(7)
        ]
    )
