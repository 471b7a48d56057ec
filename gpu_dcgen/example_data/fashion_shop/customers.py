"""Customers, a chunk at a time: who they are, when they visit, what they like. A chunk depends on (seed, chunk) only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .demand import Demand
from .marginals import N_DAYS, SIZES, ages, generator, marginals

CHUNK = 65_536  # customers; part of the format: another number gives other logs

# A customer process fitted to the published activity (rows and days per customer, who was there in
# the last quarter).
RATE_MU, RATE_SIGMA = -4.68, 1.0  # visits a day are lognormal
ONCE_SHARE = 0.235  # customers who come once, whatever their rate
OLD_SHARE = 0.68  # customers from before day 0
NEVER_LAPSE_SHARE, LIFE_DAYS = 0.286, 933.0
BASKET_MEAN, BASKET_SHAPE, BASKET_SIGMA = (
    2.42,
    1.67,
    0.26,
)  # lines beyond the first: negative binomial, lognormal by customer

ONLINE_BETA = (1.5, 0.63)  # a customer's chance to buy online, before the fit's mean
N_FAVOURITES = 4
FAVOURITE_WEIGHTS = (0.55, 0.25, 0.13, 0.07)
TASTE_SPREAD = 0.03  # sigma around the customer's place on the ring of styles
STRAY_SHARE = 0.25  # favorites anywhere on the ring
AGE_SHIFT = (
    0.15,
    0.0,
    -0.7,
    0.1,
    0.0,
)  # of the standard normal age rank, by index group of the first favorite


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


def visit_intensity(day_rows: np.ndarray) -> np.ndarray:
    """Cumulative intensity of visits (N_DAYS + 1,) float64, rising by 1 a day on average.

    Days' rows over the share of customers who are there on that day, so that the sum of all customers follows the days.
    """
    day = np.arange(N_DAYS) + 0.5
    lasting = np.exp(-day / LIFE_DAYS)
    old = NEVER_LAPSE_SHARE + (1 - NEVER_LAPSE_SHARE) * lasting
    new = (NEVER_LAPSE_SHARE * day + (1 - NEVER_LAPSE_SHARE) * LIFE_DAYS * (1 - lasting)) / N_DAYS
    there = OLD_SHARE * old + (1 - OLD_SHARE) * new
    intensity = day_rows / there
    return np.concatenate(([0.0], np.cumsum(intensity / intensity.mean())))


def draw_customers(
    chunk: int, n: int, intensity: np.ndarray, demand: Demand, style_group: np.ndarray, seed: int
) -> Customers:
    """The `n` customers of chunk number `chunk`."""
    rng = generator(seed, purpose=4, part=chunk)
    favorites = draw_tastes(rng, n, demand.base_share)
    attributes = draw_attributes(rng, style_group[favorites[:, 0]])
    bought = rng.random(n) < marginals()["rows"]["customers_with_tx"] / SIZES["customers"]
    return Customers(
        first=chunk * CHUNK,
        favorites=favorites,
        **attributes,
        **draw_visits(rng, np.flatnonzero(bought), intensity),
    )


def draw_tastes(rng: np.random.Generator, n: int, base_share: np.ndarray) -> np.ndarray:
    """Favourite styles (n, N_FAVOURITES) int32: near the customer's place on the ring of styles, some anywhere.

    The ring measures styles by demand, so uniform places give every style the customers it needs; neighbors on
    it share index group and price level, and customers near each other share styles.
    """
    place = rng.random(n)[:, None] + TASTE_SPREAD * rng.standard_normal((n, N_FAVOURITES))
    stray = rng.random((n, N_FAVOURITES)) < STRAY_SHARE
    place = np.where(stray, rng.random((n, N_FAVOURITES)), place) % 1.0
    ring = np.cumsum(base_share)
    return np.searchsorted(ring[:-1] / ring[-1], place, side="right").astype(np.int32)


def draw_attributes(rng: np.random.Generator, group: np.ndarray) -> dict[str, np.ndarray]:
    """Age, club, news, FN and Active of customers whose first favorite is of index `group` (n,), with the published shares."""
    n = group.shape[0]
    facts, total = marginals(), SIZES["customers"]
    values, cumulative = ages()
    z = rng.standard_normal(n) + np.asarray(AGE_SHIFT)[group]
    rank = np.empty(n)
    rank[np.argsort(z, kind="stable")] = (np.arange(n) + rng.random()) / n
    age = values[np.minimum(np.searchsorted(cumulative, rank, side="right"), values.shape[0] - 1)]
    age[rng.random(n) < facts["age_null"] / total] = np.nan

    def code(shares: dict[str, int], known: tuple[str, ...]) -> np.ndarray:
        edges = np.cumsum([shares[name] for name in known]) / total
        drawn = np.searchsorted(edges, rng.random(n), side="right")
        return np.where(drawn == len(known), -1, drawn).astype(np.int8)

    club = code(facts["club_member_status"], CLUB)
    news = code(facts["fashion_news_frequency"], NEWS)
    reads = (news == NEWS.index("Regularly")) | (news == NEWS.index("Monthly"))
    readers = sum(facts["fashion_news_frequency"][name] for name in ("Regularly", "Monthly"))
    fn = reads & (rng.random(n) < facts["FN"]["1.0"] / readers)
    active = fn & (rng.random(n) < facts["Active"]["1.0"] / facts["FN"]["1.0"])
    return {"age": age, "club": club, "news": news, "fn": fn, "active": active}


def draw_visits(
    rng: np.random.Generator, buyers: np.ndarray, intensity: np.ndarray
) -> dict[str, np.ndarray]:
    """Visits of the `buyers` (b,), at least one each, sorted by (customer, day)."""
    reset_counters, end, n_visits = draw_life_lines(rng, buyers.shape[0], intensity)
    owner = np.repeat(np.arange(buyers.shape[0]), n_visits)
    n = owner.shape[0]
    at = reset_counters[owner] + rng.random(n) * (end - reset_counters)[owner]
    day = np.clip(np.searchsorted(intensity, at, side="right") - 1, 0, N_DAYS - 1)
    key = np.sort(owner * N_DAYS + day)
    owner, day = key // N_DAYS, key % N_DAYS

    taste = np.exp(BASKET_SIGMA * rng.standard_normal(buyers.shape[0]) - BASKET_SIGMA**2 / 2)
    further = rng.poisson(rng.gamma(BASKET_SHAPE, BASKET_MEAN / BASKET_SHAPE, n) * taste[owner])
    online = rng.random(n) < rng.beta(*ONLINE_BETA, size=buyers.shape[0])[owner]
    return {
        "visit_customer": buyers[owner].astype(np.int32),
        "visit_day": day.astype(np.int16),
        "visit_lines": (1 + further).astype(np.int32),
        "visit_channel": np.where(online, 2, 1).astype(np.int8),
    }


def draw_life_lines(
    rng: np.random.Generator, n: int, intensity: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begin and end on the axis of cumulative intensity, and visits (1 or more), (n,) each.

    Customers who would not visit at all in the log's two years are not in H&M's table: they are drawn again.
    """
    found: list[tuple[np.ndarray, ...]] = []
    missing = n
    while missing > 0:
        m = 2 * missing + 64
        rate = np.exp(RATE_MU + RATE_SIGMA * rng.standard_normal(m))
        reset_counters = np.where(rng.random(m) < OLD_SHARE, 0.0, rng.random(m) * N_DAYS)
        life = np.where(rng.random(m) < NEVER_LAPSE_SHARE, np.inf, rng.exponential(LIFE_DAYS, m))
        span = np.interp(
            (reset_counters, np.minimum(reset_counters + life, N_DAYS)),
            np.arange(N_DAYS + 1),
            intensity,
        )
        visits = np.where(rng.random(m) < ONCE_SHARE, 1, rng.poisson(rate * (span[1] - span[0])))
        kept = np.flatnonzero(visits > 0)[:missing]
        found.append((span[0][kept], span[1][kept], visits[kept]))
        missing -= kept.shape[0]
    reset_counters, end, visits = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return reset_counters, end, visits
