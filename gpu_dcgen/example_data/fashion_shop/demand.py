"""Plan demand: the share of every article in each week, as tables to draw from.

A draw selects a style, then an article on sale that week (`Demand.cumulative` over a style-week's
slots), or another article of the same look (the adjacent slots). Weeks of different styles begin on
different weekdays, so that new articles are launched on all days of the week.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import portable_math
from .articles import SUMMER, WINTER, Assortment, life_curve
from .marginals import DEMAND, N_DAYS, compute_days_of_year, make_generator

N_WEEKS = (N_DAYS + 6 + 6) // 7  # of any style: day 733 with phase 6 is in the last
# summer articles sell (1 + swing) : (1 - swing) between their best and their worst day
SEASON_SWING = 0.75
BEST_DAY_OF_YEAR = {SUMMER: 165, WINTER: 310}
FITTING_ROUNDS = 12
# Beta parameters of the chance that the next line of a basket is of the same look
LOOK_STRENGTH = (1.3, 1.5)
FURTHER_LINE_SHARE = 0.62  # share of lines that are followed by another new line in the same basket
MIN_SHARE = 1e-12  # of a week's demand; slots with less are left out


@dataclass(frozen=True)
class Demand:
    """Demand by slot: a (style, week, article) with demand, sorted; about 21 per article."""

    phase: np.ndarray  # (styles,) int64  week of a style = (day + phase) // 7
    # (styles * N_WEEKS + 1,) int64  slots of style s and week w: [s * N_WEEKS + w, ... + 1)
    offsets: np.ndarray
    article: np.ndarray  # (n_slots,) int32
    # (n_slots,) float64  cumulative demand inside the style-week, this slot included
    cumulative: np.ndarray
    # (looks,) float32  chance that a further line of the basket is of the same look
    strength: np.ndarray
    # (N_DAYS, styles) float32  share of each style in the day's demand, sums to 1
    day_share: np.ndarray
    base_share: np.ndarray  # (styles,) float64  share over the whole log
    share: np.ndarray  # (n, N_WEEKS) float32  of each article in its style's week


def plan_demand(assortment: Assortment, day_rows: np.ndarray, seed: int) -> Demand:
    """Spread articles' rows over their lives so that weeks follow `day_rows` (N_DAYS,)."""
    rng = make_generator(seed, DEMAND)
    n_styles = assortment.n_styles
    phase = rng.integers(0, 7, n_styles)
    strength = rng.beta(*LOOK_STRENGTH, size=assortment.n_looks).astype(np.float32)
    strength[np.bincount(assortment.look) == 1] = 0
    share = fit_week_shares(assortment, phase, day_rows)

    # Lines that follow another of the same look are left out of the style's draws, else strong
    # looks would sell more than their rows.
    draw = share * (1 - FURTHER_LINE_SHARE * strength[assortment.look])[:, None]
    first_of_style = np.flatnonzero(np.diff(assortment.style, prepend=-1))
    style_week = np.add.reduceat(draw, first_of_style, axis=0, dtype=np.float64)
    week = (np.arange(N_DAYS)[:, None] + phase) // 7
    day_share = style_week[np.arange(n_styles), week]
    day_share /= day_share.sum(axis=1, keepdims=True)
    base_share = (day_share * (day_rows / day_rows.sum())[:, None]).sum(axis=0)

    row, column = np.nonzero(draw > MIN_SHARE)
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


def fit_week_shares(assortment: Assortment, phase: np.ndarray, day_rows: np.ndarray) -> np.ndarray:
    """Fit the share (n, N_WEEKS) float32 of each article in each week of its style.

    Starts from the life curve and the season; iterative proportional fitting gives articles their
    rows and makes weeks sum to 1.
    """
    week_rows = sum_rows_by_week(day_rows)
    article_phase = phase[assortment.style]
    middle = 7 * np.arange(N_WEEKS)[None, :] + 3.5 - article_phase[:, None]
    # At least a week, so that the shortest life has a slot.
    x = (middle - assortment.launch[:, None]) / np.maximum(assortment.life, 7.5)[:, None]
    is_inside = (x > 0) & (x < 1)
    launch_week = np.clip((assortment.launch + article_phase) // 7, 0, N_WEEKS - 1).astype(np.int64)
    is_inside[np.arange(assortment.n), launch_week] |= ~is_inside.any(axis=1)
    x = np.clip(x, 0.02, 0.98, dtype=np.float32)
    share = np.zeros_like(x)
    share[is_inside] = life_curve(x[is_inside])
    day = np.clip(middle, 0, N_DAYS - 1).astype(np.int64)
    for code, peak in BEST_DAY_OF_YEAR.items():
        is_in_season = assortment.season == code
        angle = 2 * np.pi * (compute_days_of_year() - peak) / 365.25
        swing = (1 + SEASON_SWING * portable_math.cos(angle)).astype(np.float32)
        share[is_in_season] *= swing[day[is_in_season]]

    expected = week_rows[article_phase].astype(np.float32)
    target = assortment.rows.astype(np.float32)
    for _ in range(FITTING_ROUNDS):
        share /= np.maximum(share.sum(axis=0, dtype=np.float64), 1e-12).astype(np.float32)
        rows = np.multiply(share, expected, dtype=np.float64).sum(axis=1)
        factor = np.divide(
            target, rows, out=np.zeros_like(target, dtype=np.float64), where=rows > 0
        )
        share *= factor.astype(np.float32)[:, None]
    return share


def sum_rows_by_week(day_rows: np.ndarray) -> np.ndarray:
    """Return the rows of each week for each phase, (7, N_WEEKS) float64."""
    return np.stack(
        [
            np.bincount((np.arange(N_DAYS) + phase) // 7, day_rows, minlength=N_WEEKS)
            for phase in range(7)
        ]
    )
