"""The assortment: articles in products, products in looks, looks in styles; their categories, lives and rows.

Colours of one product share a `product_code`; a *look* is a few products that are bought together (a bikini's two halves,
a suit); a *style* is some eighty articles for one taste. Articles are numbered in the order (index group, price tier,
style, look, product), so every one of these is a run of neighbors, and styles near each other suit similar customers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .marginals import N_DAYS, generator, marginals, rows_by_rank

ARTICLES_PER_STYLE = 80
# a customer seldom buys an article twice, which takes from the top: the plan is steeper than the
# goal
ROWS_POWER = 1.24
PRODUCTS_PER_LOOK = (0.30, 0.30, 0.25, 0.15)  # shares of looks with 1, 2, 3, 4 products
MEDIAN_LIFE_DAYS, LIFE_SPREAD, LIFE_BY_POPULARITY = 330.0, 0.55, 0.20
FADING = 3.0  # of a life: sqrt(x) * (1 - x)^FADING, a fast rise and a long thin end
# of the logarithm of the share of a life inside the log, in an article's rank by rows
CUT_LIFE_WEIGHT = 0.3
BASICS_LIFE = 2.0  # basics live so much longer
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
    style_tier: (
        np.ndarray
    )  # (styles,) float64  price level, standard normal, rising inside an index group
    product_group: (
        np.ndarray
    )  # (n,) int8  codes into the names of `marginals()["product_group_name"]`
    index: np.ndarray  # (n,) int8  codes into INDEX_GROUP
    garment_group: np.ndarray  # (n,) int8
    season: np.ndarray  # (n,) int8  ALL_YEAR, SUMMER, WINTER
    rows: np.ndarray  # (n,) float64  rows expected over the whole log; 0 for the never sold
    launch: np.ndarray  # (n,) float64  day of the first offer; may lie before day 0
    life: np.ndarray  # (n,) float64  days on sale

    @property
    def n(self) -> int:
        return self.look.shape[0]


def names(column: str) -> list[str]:
    """A category's published names, in the order of its codes."""
    return list(marginals()[column])


INDEX_GROUPS = ("Ladieswear", "Baby/Children", "Divided", "Menswear", "Sport")


def plan_assortment(n_articles: int, n_rows: int, seed: int) -> Assortment:
    """Draw `n_articles` articles whose expected rows sum to `n_rows`."""
    rng = generator(seed, purpose=2)
    sizes = product_sizes(rng, n_articles)
    group, index, garment = product_categories(sizes)
    season = season_of(group, garment)
    look, style, tier, style_group = group_products(rng, sizes, index_group_of(index), season)

    order = np.lexsort((np.arange(sizes.shape[0]), look, style))
    product = np.repeat(order, sizes[order])
    article_look = np.cumsum(np.diff(look[product], prepend=look[product[0]]) != 0).astype(np.int32)
    article_style = style[product]

    z = popularity(rng, article_look, product)
    basic = np.isin(np.asarray(names("garment_group_name"))[garment[product]], list(BASICS))
    launch, life = draw_lives(rng, article_look, season[product], basic, z)
    # An article whose life the log cuts off sells that much less.
    rank = z + CUT_LIFE_WEIGHT * np.log(share_inside_the_log(launch, life))
    curve = rows_by_rank(n_articles, n_rows) ** ROWS_POWER
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


def product_sizes(rng: np.random.Generator, n_articles: int) -> np.ndarray:
    """Articles (colors) of each product, (products,) int64, with sum `n_articles`, by the published histogram."""
    histogram = marginals()["articles_per_product_code"]
    values = np.asarray(list(histogram), dtype=np.int64)
    shares = np.asarray(list(histogram.values()), dtype=np.float64)
    sizes = rng.choice(values, size=n_articles, p=shares / shares.sum())
    ends = np.cumsum(sizes)
    n_products = int(np.searchsorted(ends, n_articles)) + 1
    sizes = sizes[:n_products]
    sizes[-1] -= ends[n_products - 1] - n_articles
    return sizes


def joint_categories() -> np.ndarray:
    """Shares (product groups, indices, garment groups) that agree with every published table of two of them.

    The published tables are (product group, index group), (product group, garment group) and index totals; what they leave
    open starts from a prior of what shops sell where, and iterative proportional fitting does the rest.
    """
    groups, indices, garments = (
        names("product_group_name"),
        list(INDEX_GROUP),
        names("garment_group_name"),
    )
    shape = (len(groups), len(indices), len(garments))
    table = np.ones(shape)
    for g, group in enumerate(groups):
        for i, index in enumerate(indices):
            home = {"Lingeries/Tights": INTIMATE, "Ladies Accessories": SMALL_THINGS}.get(index)
            if index == "Children Accessories, Swimwear":
                home = SMALL_THINGS | {"Swimwear"}
            away = (
                home is None
                and INDEX_GROUP[index] in ("Ladieswear", "Baby/Children")
                and group in INTIMATE | SMALL_THINGS
            )
            table[g, i] *= 0.02 if away or (home is not None and group not in home) else 1.0
    for k, garment in enumerate(garments):
        for i, index in enumerate(indices):
            child, woman = (
                INDEX_GROUP[index] == "Baby/Children",
                INDEX_GROUP[index] in ("Ladieswear", "Divided", "Sport"),
            )
            if (
                (garment in WOMEN_ONLY and not woman)
                or (garment in CHILDREN_ONLY) != child
                or (garment == "Dressed") != (index == "Menswear")
            ):
                table[:, i, k] *= (
                    0.02 if garment in WOMEN_ONLY | CHILDREN_ONLY | {"Dressed"} else 1.0
                )
    member = np.asarray(
        [[INDEX_GROUP[index] == g for index in indices] for g in INDEX_GROUPS], dtype=np.float64
    )
    by_group = cross_table("joint_product_group_x_index_group", groups, list(INDEX_GROUPS))
    by_garment = cross_table("joint_product_group_x_garment_group", groups, garments)
    by_index = np.asarray([marginals()["index_name"][index] for index in indices], dtype=np.float64)
    for _ in range(60):
        table *= (by_index / np.maximum(table.sum(axis=(0, 2)), 1e-300))[None, :, None]
        now = table.sum(axis=2) @ member.T
        table *= (np.divide(by_group, now, out=np.zeros_like(now), where=now > 0) @ member)[
            :, :, None
        ]
        now = table.sum(axis=1)
        table *= np.divide(by_garment, now, out=np.zeros_like(now), where=now > 0)[:, None, :]
    return table / table.sum()


def cross_table(key: str, rows: list[str], columns: list[str]) -> np.ndarray:
    table = np.zeros((len(rows), len(columns)))
    for row, column, count in marginals()[key]:
        table[rows.index(row), columns.index(column)] = count
    return table


def product_categories(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Product group, index and garment group codes of each product, (products,) int8 each: shares of articles as published."""
    shares = joint_categories()
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    cells = np.searchsorted(np.cumsum(shares.ravel())[:-1], middle)
    parts = np.unravel_index(cells, shares.shape)
    return tuple(part.astype(np.int8) for part in parts)


def season_of(group: np.ndarray, garment: np.ndarray) -> np.ndarray:
    """ALL_YEAR, SUMMER or WINTER for each product, (products,) int8."""
    garments, groups = (
        np.asarray(names("garment_group_name"))[garment],
        np.asarray(names("product_group_name"))[group],
    )
    summer = (groups == "Swimwear") | np.isin(garments, ["Shorts", "Dresses Ladies", "Skirts"])
    winter = np.isin(garments, ["Knitwear", "Outdoor"])
    return np.select([summer, winter], [SUMMER, WINTER], ALL_YEAR).astype(np.int8)


def index_group_of(index: np.ndarray) -> np.ndarray:
    """Index group codes (int8) of index codes."""
    return np.asarray([INDEX_GROUPS.index(group) for group in INDEX_GROUP.values()], dtype=np.int8)[
        index
    ]


def group_products(rng, sizes, index_group, season):
    """Put products into looks (same index group and season) and looks into styles (same index group).

    Returns look (products,) int64, style (products,) int32, price tier (styles,) float64 and index group (styles,) int8;
    styles are numbered by (index group, tier).
    """
    n = sizes.shape[0]
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
    look_group = np.zeros(look_size.shape[0], dtype=np.int8)
    look_group[look] = index_group

    look_order = np.lexsort((rng.random(look_size.shape[0]), look_group))
    look_style = np.empty(look_size.shape[0], dtype=np.int64)
    tiers, groups, n_styles = [], [], 0
    for code in np.unique(look_group):
        members = look_order[look_group[look_order] == code]
        ends = np.cumsum(look_size[members])
        wanted = max(1, round(ends[-1] / ARTICLES_PER_STYLE))
        raw = ((ends - look_size[members] / 2) / ends[-1] * wanted).astype(np.int64)
        _, raw = np.unique(raw, return_inverse=True)
        count = int(raw.max()) + 1
        look_style[members] = n_styles + raw
        tiers.append(np.sort(rng.standard_normal(count)))
        groups.append(np.full(count, code, dtype=np.int8))
        n_styles += count
    return look, look_style[look].astype(np.int32), np.concatenate(tiers), np.concatenate(groups)


def popularity(rng: np.random.Generator, look: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Attraction (n,) float64, standard normal: colors of a product and parts of a look do about equally well."""
    by_look = rng.standard_normal(int(look.max()) + 1)[look]
    by_product = rng.standard_normal(int(product.max()) + 1)[product]
    return 0.65 * by_look + 0.45 * by_product + 0.6124 * rng.standard_normal(look.shape[0])


def draw_lives(rng, look, season, basic, z) -> tuple[np.ndarray, np.ndarray]:
    """First day on sale (may be before day 0) and days on sale, (n,) float64 each; every life meets the log for 3 days or more.

    The parts of a look come out together; summer and winter things before their season.
    """
    n_looks = int(look.max()) + 1
    first = np.flatnonzero(np.diff(look, prepend=-1))
    spread = (
        0.8 * rng.standard_normal(n_looks)[look] + 0.6 * rng.standard_normal(look.shape[0])
    ) * LIFE_SPREAD
    life = (
        MEDIAN_LIFE_DAYS
        * np.exp(spread + LIFE_BY_POPULARITY * z)
        * np.where(basic, BASICS_LIFE, 1.0)
    )
    life = np.clip(life, 10, 2 * N_DAYS)
    look_life, look_season = life[first], season[first]
    launch = -0.8 * look_life + rng.random(n_looks) * (N_DAYS - 10 + 0.8 * look_life)
    for code, (mean, sigma) in LAUNCH_DAY_OF_YEAR.items():
        day = mean + sigma * rng.standard_normal(
            n_looks
        )  # day of year; the log begins on day 262 of 2018
        # Years 2018 to 2020; a spring 2018 launch is over before the log begins, unless it lives
        # long.
        year = rng.choice([0, 365, 730], size=n_looks, p=(0.2, 0.4, 0.4))
        launch = np.where(look_season == code, day + year - 262, launch)
        life = np.where(season == code, np.minimum(life, 365), life)
    launch = launch[look] + rng.exponential(6.0, look.shape[0])
    launch = np.clip(launch, 3 - life, N_DAYS - 3)
    return launch, life


def life_curve(x: np.ndarray) -> np.ndarray:
    """Sales at share x of an article's life, 0..1, without a scale."""
    return np.sqrt(x) * (1 - x) ** FADING


def share_inside_the_log(launch: np.ndarray, life: np.ndarray) -> np.ndarray:
    """Share of each life's sales that falls on the log's days, (n,) float64, at least 0.001."""
    x = np.linspace(0, 1, 1001)
    sold = np.cumsum(life_curve(x))
    before, until = (np.interp((day - launch) / life, x, sold / sold[-1]) for day in (0, N_DAYS))
    return np.maximum(until - before, 0.001)
