"""Plan the assortment: articles in products, looks and styles; categories, lives and rows.

The colors of a product are articles that share a `product_code`; a *look* is a few products that
are bought together (the two pieces of a bikini, a suit); a *style* is some eighty articles for one
taste. Articles are numbered in the order (index group, price tier, style, look, product), so each
of these is a run of consecutive articles, and styles near each other suit similar customers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import portable_math
from .marginals import ASSORTMENT, N_DAYS, compute_rows_by_rank, load_marginals, make_generator

ARTICLES_PER_STYLE = 80
# Exponent of the planned rows: customers seldom buy an article twice, which takes rows from the
# top, so the plan is steeper than the goal.
ROWS_POWER = 1.24
PRODUCTS_PER_LOOK = (0.30, 0.30, 0.25, 0.15)  # shares of looks with 1, 2, 3, 4 products
MEDIAN_LIFE_DAYS, LIFE_SPREAD, LIFE_BY_POPULARITY = 330.0, 0.55, 0.20
FADING = 3.0  # of sales over a life, sqrt(x) * (1 - x)^FADING: a fast rise and a long decline
# weight of log(share of a life inside the log) in an article's rank by rows
CUT_LIFE_WEIGHT = 0.3
BASICS_LIFE = 2.0  # factor on the lives of basics
ALL_YEAR, SUMMER, WINTER = 0, 1, 2
LAUNCH_DAY_OF_YEAR = {SUMMER: (95, 30), WINTER: (245, 30)}  # mean and sigma

WOMEN_ONLY = {"Dresses Ladies", "Blouses", "Skirts"}
CHILDREN_ONLY = {"Dresses/Skirts girls", "Woven/Jersey/Knitted mix Baby"}
INTIMATE = {"Underwear", "Socks & Tights", "Nightwear", "Underwear/nightwear", "Swimwear"}
SMALL_THINGS = {
    "Accessories",
    "Shoes",
    "Bags",
    "Items",
    "Cosmetic",
    "Furniture",
    "Stationery",
    "Garment and Shoe care",
}
BASICS = {"Jersey Basic", "Under-, Nightwear", "Socks and Tights"}
INDEX_GROUP = {  # index -> index group
    "Ladieswear": "Ladieswear",
    "Ladies Accessories": "Ladieswear",
    "Lingeries/Tights": "Ladieswear",
    "Divided": "Divided",
    "Menswear": "Menswear",
    "Children Sizes 92-140": "Baby/Children",
    "Children Sizes 134-170": "Baby/Children",
    "Baby Sizes 50-98": "Baby/Children",
    "Children Accessories, Swimwear": "Baby/Children",
    "Sport": "Sport",
}


@dataclass(frozen=True)
class Assortment:
    """`n` articles in the order (index group, price tier, style, look, product)."""

    product: np.ndarray  # (n,) int32  0..products-1, equal for the colors of one product
    look: np.ndarray  # (n,) int32  rising
    style: np.ndarray  # (n,) int32  rising
    look_style: np.ndarray  # (looks,) int32
    style_group: np.ndarray  # (styles,) int8  code into INDEX_GROUPS, rising
    # (styles,) float64  price level, standard normal, rising inside an index group
    style_tier: np.ndarray
    # (n,) int8  codes into the names of `load_marginals()["product_group_name"]`
    product_group: np.ndarray
    index: np.ndarray  # (n,) int8  codes into INDEX_GROUP
    garment_group: np.ndarray  # (n,) int8
    season: np.ndarray  # (n,) int8  ALL_YEAR, SUMMER, WINTER
    rows: np.ndarray  # (n,) float64  rows expected over the whole log; 0 for the never sold
    launch: np.ndarray  # (n,) float64  day of the first offer; may lie before day 0
    life: np.ndarray  # (n,) float64  days on sale

    @property
    def n(self) -> int:
        """Number of articles."""
        return int(self.look.shape[0])

    @property
    def n_looks(self) -> int:
        """Number of looks."""
        return int(self.look_style.shape[0])

    @property
    def n_styles(self) -> int:
        """Number of styles."""
        return int(self.style_group.shape[0])


def list_names(column: str) -> list[str]:
    """Return a category's published names, in the order of its codes."""
    return list(load_marginals()[column])


INDEX_GROUPS = ("Ladieswear", "Baby/Children", "Divided", "Menswear", "Sport")


def plan_assortment(n_articles: int, n_rows: int, seed: int) -> Assortment:
    """Draw `n_articles` articles; their expected rows sum to `n_rows`."""
    rng = make_generator(seed, ASSORTMENT)
    sizes = draw_product_sizes(rng, n_articles)
    group, index, garment = assign_categories(sizes)
    season = assign_seasons(group, garment)
    look, style, tier, style_group = group_products(rng, sizes, to_index_group(index), season)

    order = np.lexsort((np.arange(sizes.shape[0]), look, style))
    product = np.repeat(order, sizes[order])
    article_look = np.cumsum(np.diff(look[product], prepend=look[product[0]]) != 0).astype(np.int32)
    article_style = style[product]

    z = draw_popularity(rng, article_look, product)
    is_basic = np.isin(np.asarray(list_names("garment_group_name"))[garment[product]], list(BASICS))
    launch, life = draw_lives(rng, article_look, season[product], is_basic, z)
    # An article sells less where the log has only a part of its life.
    rank = z + CUT_LIFE_WEIGHT * portable_math.log(compute_share_in_log(launch, life))
    curve = portable_math.power(compute_rows_by_rank(n_articles, n_rows), ROWS_POWER)
    rows = np.empty(n_articles)
    rows[np.argsort(-rank, kind="stable")] = curve * (n_rows / curve.sum())
    first_of_look = np.flatnonzero(np.diff(article_look, prepend=-1))
    return Assortment(
        product=product.astype(np.int32),
        look=article_look,
        style=article_style,
        look_style=article_style[first_of_look],
        style_group=style_group,
        style_tier=tier,
        product_group=group[product],
        index=index[product],
        garment_group=garment[product],
        season=season[product],
        rows=rows,
        launch=launch,
        life=life,
    )


def draw_product_sizes(rng: np.random.Generator, n_articles: int) -> np.ndarray:
    """Draw the colors of each product, (products,) int64, that sum to `n_articles`."""
    histogram = load_marginals()["articles_per_product_code"]
    values = np.asarray(list(histogram), dtype=np.int64)
    shares = np.asarray(list(histogram.values()), dtype=np.float64)
    sizes = rng.choice(values, size=n_articles, p=shares / shares.sum())
    ends = np.cumsum(sizes)
    n_products = int(np.searchsorted(ends, n_articles)) + 1
    sizes = sizes[:n_products]
    sizes[-1] -= ends[n_products - 1] - n_articles
    return sizes


def fit_category_shares() -> np.ndarray:
    """Fit shares (product groups, indices, garment groups) to all published tables of two.

    The published tables are (product group, index group), (product group, garment group) and index
    totals. Iterative proportional fitting starts from a prior of what shops sell where.
    """
    groups, garments = list_names("product_group_name"), list_names("garment_group_name")
    indices = list(INDEX_GROUP)
    table = make_category_prior(groups, indices, garments)
    index_group = to_index_group(np.arange(len(indices)))
    by_group = read_cross_table("joint_product_group_x_index_group", groups, list(INDEX_GROUPS))
    by_garment = read_cross_table("joint_product_group_x_garment_group", groups, garments)
    by_index = np.asarray(
        [load_marginals()["index_name"][index] for index in indices], dtype=np.float64
    )
    for _ in range(60):
        table *= (by_index / np.maximum(table.sum(axis=(0, 2)), 1e-300))[None, :, None]
        now = sum_by_index_group(table.sum(axis=2), index_group)
        factor = np.divide(by_group, now, out=np.zeros_like(now), where=now > 0)
        table *= factor[:, index_group, None]
        now = table.sum(axis=1)
        table *= np.divide(by_garment, now, out=np.zeros_like(now), where=now > 0)[:, None, :]
    return table / table.sum()


def sum_by_index_group(table: np.ndarray, index_group: np.ndarray) -> np.ndarray:
    """Sum the columns (rows, indices) of each index group: (rows, index groups) float64.

    Columns are added in the order of the indices.
    """
    total = np.zeros((table.shape[0], len(INDEX_GROUPS)))
    for index, group in enumerate(index_group):
        total[:, group] += table[:, index]
    return total


def make_category_prior(groups: list[str], indices: list[str], garments: list[str]) -> np.ndarray:
    """Return 1 for combinations that shops sell, less for others, in the shape of the shares."""
    table = np.ones((len(groups), len(indices), len(garments)))
    for g, group in enumerate(groups):
        for i, index in enumerate(indices):
            home = {"Lingeries/Tights": INTIMATE, "Ladies Accessories": SMALL_THINGS}.get(index)
            if index == "Children Accessories, Swimwear":
                home = SMALL_THINGS | {"Swimwear"}
            if home is None:
                is_rare = (
                    INDEX_GROUP[index] in ("Ladieswear", "Baby/Children")
                    and group in INTIMATE | SMALL_THINGS
                )
            else:
                is_rare = group not in home
            table[g, i] *= 0.02 if is_rare else 1.0
    for k, garment in enumerate(garments):
        for i, index in enumerate(indices):
            is_child = INDEX_GROUP[index] == "Baby/Children"
            is_woman = INDEX_GROUP[index] in ("Ladieswear", "Divided", "Sport")
            if (
                (garment in WOMEN_ONLY and not is_woman)
                or (garment in CHILDREN_ONLY) != is_child
                or (garment == "Dressed") != (index == "Menswear")
            ):
                table[:, i, k] *= (
                    0.02 if garment in WOMEN_ONLY | CHILDREN_ONLY | {"Dressed"} else 1.0
                )
    return table


def read_cross_table(key: str, rows: list[str], columns: list[str]) -> np.ndarray:
    """Return a published table of counts (rows, columns)."""
    table = np.zeros((len(rows), len(columns)))
    for row, column, count in load_marginals()[key]:
        table[rows.index(row), columns.index(column)] = count
    return table


def assign_categories(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return product group, index and garment group codes of each product, (products,) int8.

    The shares of the articles are as published.
    """
    shares = fit_category_shares()
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    cells = np.searchsorted(np.cumsum(shares.ravel())[:-1], middle)
    group, index, garment = (
        codes.astype(np.int8) for codes in np.unravel_index(cells, shares.shape)
    )
    return group, index, garment


def assign_seasons(group: np.ndarray, garment: np.ndarray) -> np.ndarray:
    """Return ALL_YEAR, SUMMER or WINTER for each product, (products,) int8."""
    garments = np.asarray(list_names("garment_group_name"))[garment]
    groups = np.asarray(list_names("product_group_name"))[group]
    is_summer = (groups == "Swimwear") | np.isin(garments, ["Shorts", "Dresses Ladies", "Skirts"])
    is_winter = np.isin(garments, ["Knitwear", "Outdoor"])
    return np.select([is_summer, is_winter], [SUMMER, WINTER], ALL_YEAR).astype(np.int8)


def to_index_group(index: np.ndarray) -> np.ndarray:
    """Return the index group codes (int8) of index codes."""
    codes = [INDEX_GROUPS.index(group) for group in INDEX_GROUP.values()]
    return np.asarray(codes, dtype=np.int8)[index]


def group_products(
    rng: np.random.Generator, sizes: np.ndarray, index_group: np.ndarray, season: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group products into looks, and looks into styles.

    Products of a look have the same index group and season, looks of a style the same index group.
    Returns look (products,) int64, style (products,) int32, price tier (styles,) float64 and index
    group (styles,) int8; styles are numbered by (index group, tier).
    """
    n = int(sizes.shape[0])
    order = np.lexsort((rng.random(n), season, index_group))
    planned = np.repeat(
        np.arange(n),
        rng.choice(np.arange(1, len(PRODUCTS_PER_LOOK) + 1), size=n, p=PRODUCTS_PER_LOOK),
    )[:n]
    keys = np.stack((planned, index_group[order], season[order]))
    look_sorted = np.cumsum(np.any(np.diff(keys, axis=1, prepend=keys[:, :1]), axis=0))
    look = np.empty(n, dtype=np.int64)
    look[order] = look_sorted
    look_size = np.bincount(look, weights=sizes)
    look_group = np.zeros_like(look_size, dtype=np.int8)
    look_group[look] = index_group

    n_looks = int(look_size.shape[0])
    look_order = np.lexsort((rng.random(n_looks), look_group))
    look_style = np.empty(n_looks, dtype=np.int64)
    tiers, groups, n_styles = [], [], 0
    for code in np.unique(look_group):
        members = look_order[look_group[look_order] == code]
        ends = np.cumsum(look_size[members])
        n_planned = max(1, round(ends[-1] / ARTICLES_PER_STYLE))
        raw = ((ends - look_size[members] / 2) / ends[-1] * n_planned).astype(np.int64)
        _, raw = np.unique(raw, return_inverse=True)
        count = int(raw.max()) + 1
        look_style[members] = n_styles + raw
        tiers.append(np.sort(rng.standard_normal(count)))
        groups.append(np.full(count, code, dtype=np.int8))
        n_styles += count
    return look, look_style[look].astype(np.int32), np.concatenate(tiers), np.concatenate(groups)


def draw_popularity(rng: np.random.Generator, look: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Draw popularities (n,) float64, standard normal, alike in looks and products."""
    by_look = rng.standard_normal(int(look.max()) + 1)[look]
    by_product = rng.standard_normal(int(product.max()) + 1)[product]
    return 0.65 * by_look + 0.45 * by_product + 0.6124 * rng.standard_normal(look.shape[0])


def draw_lives(
    rng: np.random.Generator,
    look: np.ndarray,
    season: np.ndarray,
    is_basic: np.ndarray,
    z: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw first days on sale (may be before day 0) and days on sale, (n,) float64 each.

    Every life shares 3 days or more with the log. The articles of a look are launched together,
    summer and winter articles before their season.
    """
    n_looks = int(look.max()) + 1
    first = np.flatnonzero(np.diff(look, prepend=-1))
    spread = (
        0.8 * rng.standard_normal(n_looks)[look] + 0.6 * rng.standard_normal(look.shape[0])
    ) * LIFE_SPREAD
    life = (
        MEDIAN_LIFE_DAYS
        * portable_math.exp(spread + LIFE_BY_POPULARITY * z)
        * np.where(is_basic, BASICS_LIFE, 1.0)
    )
    life = np.clip(life, 10, 2 * N_DAYS)
    look_life, look_season = life[first], season[first]
    launch = -0.8 * look_life + rng.random(n_looks) * (N_DAYS - 10 + 0.8 * look_life)
    for code, (mean, sigma) in LAUNCH_DAY_OF_YEAR.items():
        # Day of the year; the log begins on day 262 of 2018.
        day = mean + sigma * rng.standard_normal(n_looks)
        # Years 2018 to 2020. Articles launched in spring 2018 sell in the log only if their lives
        # are long.
        year = rng.choice([0, 365, 730], size=n_looks, p=(0.2, 0.4, 0.4))
        launch = np.where(look_season == code, day + year - 262, launch)
        life = np.where(season == code, np.minimum(life, 365), life)
    launch = launch[look] + rng.exponential(6.0, look.shape[0])
    launch = np.clip(launch, 3 - life, N_DAYS - 3)
    return launch, life


def life_curve(x: np.ndarray) -> np.ndarray:
    """Return the sales at share x of an article's life, 0..1, not scaled.

    In the shape and the dtype (float32 or float64) of `x`.
    """
    return np.sqrt(x) * portable_math.power(1 - x, FADING)


def compute_share_in_log(launch: np.ndarray, life: np.ndarray) -> np.ndarray:
    """Return the share of each life's sales inside the log, (n,) float64, at least 0.001."""
    x = np.linspace(0, 1, 1001)
    sold = np.cumsum(life_curve(x))
    before, until = (np.interp((day - launch) / life, x, sold / sold[-1]) for day in (0, N_DAYS))
    return np.maximum(until - before, 0.001)
