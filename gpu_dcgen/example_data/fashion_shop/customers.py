"""Draw customers a chunk at a time: attributes, visits and tastes.

A chunk depends on (seed, chunk) only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import portable_math
from .demand import Demand
from .marginals import CUSTOMERS, N_DAYS, SIZES, load_ages, load_marginals, make_generator

CHUNK = 65_536  # customers; part of the format: another number gives other logs

# A customer process fitted to the published activity (rows and days per customer, customers of the
# last quarter).
RATE_MU, RATE_SIGMA = -4.68, 1.0  # the rate of visits per day is lognormal
ONCE_SHARE = 0.235  # customers with one visit, whatever their rate
OLD_SHARE = 0.68  # customers from before day 0
NEVER_LAPSE_SHARE, LIFE_DAYS = 0.286, 933.0
# lines of a basket beyond the first: negative binomial, with a lognormal factor by customer
BASKET_MEAN, BASKET_SHAPE, BASKET_SIGMA = 2.42, 1.67, 0.26

ONLINE_BETA = (1.5, 0.63)  # of a customer's chance to buy online
N_FAVORITES = 4
FAVORITE_WEIGHTS = (0.55, 0.25, 0.13, 0.07)
TASTE_SPREAD = 0.03  # sigma around the customer's place on the ring of styles
STRAY_SHARE = 0.25  # favorites anywhere on the ring
# of the standard normal age rank, by index group of the first favorite
AGE_SHIFT = (0.15, 0.0, -0.7, 0.1, 0.0)


@dataclass(frozen=True)
class Customers:
    """One chunk of `n` customers and their visits, by (customer, day)."""

    first: int  # number of the first customer
    favorites: np.ndarray  # (n, N_FAVOURITES) int32  styles
    age: np.ndarray  # (n,) float64  NaN for null
    club: np.ndarray  # (n,) int8  code into CLUB, -1 for null
    news: np.ndarray  # (n,) int8  code into NEWS, -1 for null
    fn: np.ndarray  # (n,) bool  FN is 1.0, else null
    active: np.ndarray  # (n,) bool  Active is 1.0, else null
    visit_customer: np.ndarray  # (v,) int32  0..n-1
    visit_day: np.ndarray  # (v,) int16
    visit_lines: np.ndarray  # (v,) int32  1 or more
    visit_channel: np.ndarray  # (v,) int8  1 store, 2 online


CLUB = ("ACTIVE", "PRE-CREATE", "LEFT CLUB")
NEWS = ("NONE", "Regularly", "Monthly")


def compute_visit_intensity(day_rows: np.ndarray) -> np.ndarray:
    """Return the cumulative intensity of visits (N_DAYS + 1,) float64, by 1 a day on average.

    A day's rows over the share of customers who are active on it, so that the visits of all
    customers follow the days.
    """
    day = np.arange(N_DAYS) + 0.5
    lasting = portable_math.exp(-day / LIFE_DAYS)
    old = NEVER_LAPSE_SHARE + (1 - NEVER_LAPSE_SHARE) * lasting
    new = (NEVER_LAPSE_SHARE * day + (1 - NEVER_LAPSE_SHARE) * LIFE_DAYS * (1 - lasting)) / N_DAYS
    active = OLD_SHARE * old + (1 - OLD_SHARE) * new
    intensity = day_rows / active
    return np.concatenate(([0.0], np.cumsum(intensity / intensity.mean())))


def draw_customers(
    chunk: int, n: int, intensity: np.ndarray, demand: Demand, style_group: np.ndarray, seed: int
) -> Customers:
    """Draw the `n` customers of chunk number `chunk`."""
    rng = make_generator(seed, CUSTOMERS, chunk)
    favorites = draw_tastes(rng, n, demand.base_share)
    attributes = draw_attributes(rng, style_group[favorites[:, 0]])
    bought = rng.random(n) < load_marginals()["rows"]["customers_with_tx"] / SIZES["customers"]
    return Customers(
        first=chunk * CHUNK,
        favorites=favorites,
        **attributes,
        **draw_visits(rng, np.flatnonzero(bought), intensity),
    )


def draw_tastes(rng: np.random.Generator, n: int, base_share: np.ndarray) -> np.ndarray:
    """Draw favorite styles (n, N_FAVORITES) int32, most near the customer's place on a ring.

    The styles lie on the ring in their order, each as long as its demand, so uniform places give
    every style the customers it needs. Styles near each other share index group and price level,
    and customers near each other share styles.
    """
    place = rng.random(n)[:, None] + TASTE_SPREAD * rng.standard_normal((n, N_FAVORITES))
    is_stray = rng.random((n, N_FAVORITES)) < STRAY_SHARE
    place = np.where(is_stray, rng.random((n, N_FAVORITES)), place) % 1.0
    ring = np.cumsum(base_share)
    return np.searchsorted(ring[:-1] / ring[-1], place, side="right").astype(np.int32)


def draw_attributes(rng: np.random.Generator, group: np.ndarray) -> dict[str, np.ndarray]:
    """Draw age, club, news, FN and Active with the published shares.

    `group` (n,) int8 is the index group of each customer's first favorite; age depends on it.
    """
    n = group.shape[0]
    published, total = load_marginals(), SIZES["customers"]
    values, cumulative = load_ages()
    z = rng.standard_normal(n) + np.asarray(AGE_SHIFT)[group]
    rank = np.empty(n)
    rank[np.argsort(z, kind="stable")] = (np.arange(n) + rng.random()) / n
    age = values[np.minimum(np.searchsorted(cumulative, rank, side="right"), values.shape[0] - 1)]
    age[rng.random(n) < published["age_null"] / total] = np.nan

    def draw_codes(counts: dict[str, int], values: tuple[str, ...]) -> np.ndarray:
        edges = np.cumsum([counts[name] for name in values]) / total
        code = np.searchsorted(edges, rng.random(n), side="right")
        return np.where(code == len(values), -1, code).astype(np.int8)

    club = draw_codes(published["club_member_status"], CLUB)
    news = draw_codes(published["fashion_news_frequency"], NEWS)
    is_reader = (news == NEWS.index("Regularly")) | (news == NEWS.index("Monthly"))
    n_readers = sum(published["fashion_news_frequency"][name] for name in ("Regularly", "Monthly"))
    fn = is_reader & (rng.random(n) < published["FN"]["1.0"] / n_readers)
    active = fn & (rng.random(n) < published["Active"]["1.0"] / published["FN"]["1.0"])
    return {"age": age, "club": club, "news": news, "fn": fn, "active": active}


def draw_visits(
    rng: np.random.Generator, buyers: np.ndarray, intensity: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw the visits of the `buyers` (b,), at least one each, sorted by (customer, day)."""
    n_buyers = int(buyers.shape[0])
    start, end, n_visits = draw_active_times(rng, n_buyers, intensity)
    owner = np.repeat(np.arange(n_buyers), n_visits)
    n = int(owner.shape[0])
    place = start[owner] + rng.random(n) * (end - start)[owner]
    day = np.clip(np.searchsorted(intensity, place, side="right") - 1, 0, N_DAYS - 1)
    key = np.sort(owner * N_DAYS + day)
    owner, day = key // N_DAYS, key % N_DAYS

    sigma = BASKET_SIGMA
    size = portable_math.exp(sigma * rng.standard_normal(n_buyers) - sigma * sigma / 2)
    n_further = rng.poisson(rng.gamma(BASKET_SHAPE, BASKET_MEAN / BASKET_SHAPE, n) * size[owner])
    is_online = rng.random(n) < rng.beta(*ONLINE_BETA, size=n_buyers)[owner]
    return {
        "visit_customer": buyers[owner].astype(np.int32),
        "visit_day": day.astype(np.int16),
        "visit_lines": (1 + n_further).astype(np.int32),
        "visit_channel": np.where(is_online, 2, 1).astype(np.int8),
    }


def draw_active_times(
    rng: np.random.Generator, n: int, intensity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw start and end in cumulative intensity, and visits (1 or more), (n,) each.

    Customers without a visit in the log's two years are not in H&M's table: they are drawn again.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    n_missing = n
    while n_missing > 0:
        m = 2 * n_missing + 64
        rate = portable_math.exp(RATE_MU + RATE_SIGMA * rng.standard_normal(m))
        start = np.where(rng.random(m) < OLD_SHARE, 0.0, rng.random(m) * N_DAYS)
        life = np.where(rng.random(m) < NEVER_LAPSE_SHARE, np.inf, rng.exponential(LIFE_DAYS, m))
        span = np.interp(
            (start, np.minimum(start + life, N_DAYS)),
            np.arange(N_DAYS + 1),
            intensity,
        )
        visits = np.where(rng.random(m) < ONCE_SHARE, 1, rng.poisson(rate * (span[1] - span[0])))
        visitors = np.flatnonzero(visits > 0)[:n_missing]
        parts.append((span[0][visitors], span[1][visitors], visits[visitors]))
        n_missing -= visitors.shape[0]
    start, end, visits = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return start, end, visits
