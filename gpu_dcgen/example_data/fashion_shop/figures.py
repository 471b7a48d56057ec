"""Figures of a log of H&M's schema, each beside its published value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from . import portable_math
from .marginals import (
    FIRST_DAY,
    N_DAYS,
    SIZES,
    UNITS_PER_PRICE,
    compute_months,
    load_ages,
    load_marginals,
)
from .similarity_fit import measure_neighbors
from .transactions import Lines

TOP_SHARE = 1000 / SIZES["articles"]  # the published top 1000, as a share of the articles
LAST_QUARTER, LAST_WEEK = 91, 7  # days
# product groups with a smaller share of the rows are left out of the price comparison
MAIN_GROUP_ROWS = 0.01


@dataclass(frozen=True)
class Figure:
    """A figure of a log and of H&M's."""

    name: str
    target: float | None  # H&M's; None where it is not published
    measured: float
    # "rows", "days", "weeks", "years", "share", "price", "distance" (total variation, 0 is equal),
    # "ratio"
    unit: str


def measure_sizes(n_customers: int, n_articles: int, lines: Lines) -> list[Figure]:
    """Measure the rows."""
    scale = n_customers / SIZES["customers"]
    return [
        Figure("rows", SIZES["transactions"] * scale, lines.day.shape[0], "rows"),
        Figure(
            "rows per article",
            SIZES["transactions"] / SIZES["articles"],
            lines.day.shape[0] / n_articles,
            "rows",
        ),
        Figure(
            "rows in the last 91 days",
            load_marginals()["last_91_days"]["rows"] / SIZES["transactions"],
            float(np.mean(lines.day >= N_DAYS - LAST_QUARTER)),
            "share",
        ),
    ]


def measure_activity(n_customers: int, lines: Lines) -> list[Figure]:
    """Measure rows, days and baskets per customer."""
    published, rows = load_marginals()["customer_activity"], load_marginals()["rows"]
    per_customer = np.bincount(lines.customer, minlength=n_customers)
    bought = per_customer[per_customer > 0]
    visits = np.sort(lines.customer.astype(np.int64) * N_DAYS + lines.day)
    visits = visits[np.diff(visits, prepend=-1) > 0]
    days = np.bincount(visits // N_DAYS, minlength=n_customers)
    days = days[days > 0]
    quarter = np.unique(lines.customer[lines.day >= N_DAYS - LAST_QUARTER]).shape[0]
    week = np.unique(lines.customer[lines.day >= N_DAYS - LAST_WEEK]).shape[0]
    return [
        Figure("rows per customer: mean", published["mean"], bought.mean(), "rows"),
        Figure("rows per customer: standard deviation", published["std"], bought.std(), "rows"),
        Figure("rows per customer: median", published["median"], float(np.median(bought)), "rows"),
        Figure("rows per customer: 75 %", published["p75"], np.quantile(bought, 0.75), "rows"),
        Figure("rows per customer: 99 %", published["p99"], np.quantile(bought, 0.99), "rows"),
        Figure(
            "customers with one row",
            published["one_row_only_customers"] / rows["customers_with_tx"],
            np.mean(bought == 1),
            "share",
        ),
        Figure(
            "days per customer: mean",
            rows["customer_days"] / rows["customers_with_tx"],
            days.mean(),
            "days",
        ),
        Figure(
            "days per customer: median", published["median_active_days"], np.median(days), "days"
        ),
        Figure(
            "rows per customer-day",
            SIZES["transactions"] / rows["customer_days"],
            lines.day.shape[0] / visits.shape[0],
            "rows",
        ),
        Figure(
            "customers in the last 91 days",
            load_marginals()["last_91_days"]["customers"] / SIZES["customers"],
            quarter / n_customers,
            "share",
        ),
        Figure(
            "customers in the last week",
            load_marginals()["last_week"]["customers"] / SIZES["customers"],
            week / n_customers,
            "share",
        ),
    ]


def measure_popularity(n_articles: int, lines: Lines) -> list[Figure]:
    """Measure rows, weeks and days with sales per article."""
    published, rows = load_marginals()["article_popularity"], load_marginals()["rows"]
    curve = dict(published["rank_value"])
    per_article = np.bincount(lines.article, minlength=n_articles)
    sold = np.sort(per_article[per_article > 0])[::-1]
    weeks = np.zeros((n_articles, N_DAYS // 7 + 1), dtype=bool)
    weeks[lines.article, lines.day // 7] = True
    days = np.zeros((n_articles, N_DAYS), dtype=bool)
    days[lines.article, lines.day] = True
    top = sold[: max(1, round(TOP_SHARE * n_articles))].sum() / sold.sum()
    return [
        Figure("rows per article: median", curve[52274], np.median(sold), "rows"),
        Figure("rows of the top 0.95 % of articles", published["top1000"], top, "share"),
        Figure(
            "rows of the top 20 % of articles",
            published["implied_top20pct_share"],
            sold[: sold.shape[0] // 5].sum() / sold.sum(),
            "share",
        ),
        Figure(
            "articles with 10 rows or more",
            published["implied_share_of_sold_items_ge10"],
            float(np.mean(sold >= 10)),
            "share",
        ),
        Figure(
            "articles never sold",
            1 - rows["articles_with_tx"] / SIZES["articles"],
            1 - sold.shape[0] / n_articles,
            "share",
        ),
        Figure(
            "weeks with sales per article",
            rows["article_weeks"] / rows["articles_with_tx"],
            weeks.sum() / sold.shape[0],
            "weeks",
        ),
        Figure(
            "days with sales per article",
            rows["article_days"] / rows["articles_with_tx"],
            days.sum() / sold.shape[0],
            "days",
        ),
        Figure(
            "articles sold in the last 91 days",
            load_marginals()["last_91_days"]["articles"] / SIZES["articles"],
            days[:, -LAST_QUARTER:].any(1).mean(),
            "share",
        ),
        Figure(
            "articles sold in the last week",
            load_marginals()["last_week"]["articles"] / SIZES["articles"],
            days[:, -LAST_WEEK:].any(1).mean(),
            "share",
        ),
    ]


def measure_repeats(n_customers: int, n_articles: int, lines: Lines) -> list[Figure]:
    """Measure duplicate lines, articles bought again, and cosines of article pairs."""
    # One sortable word per line: customer 21 bits, article 17, day 10, price 15 (as a code: H&M has
    # 9,857 prices), online 1.
    price = (np.cumsum(np.bincount(lines.cents) > 0) - 1).astype(np.uint64)
    key = lines.customer.astype(np.uint64) << np.uint64(17) | lines.article.astype(np.uint64)
    key = (key << np.uint64(10) | lines.day.astype(np.uint64)) << np.uint64(16)
    key |= price[lines.cents] << np.uint64(1) | (lines.channel == 2).astype(np.uint64)
    key.sort()
    duplicate_share = np.mean(key[1:] == key[:-1])
    key >>= np.uint64(16)
    key = key[np.append(True, key[1:] != key[:-1])]
    day, pair = (key & np.uint64(1023)).astype(np.int16), key >> np.uint64(10)
    repeated_share = np.mean((pair[1:] == pair[:-1]) & (day[1:] - day[:-1] <= 14))
    pair = pair[np.append(True, pair[1:] != pair[:-1])]
    customer = (pair >> np.uint64(17)).astype(np.int32)
    article = (pair & np.uint64((1 << 17) - 1)).astype(np.int32)
    with_neighbor, with_one, with_five, below = measure_neighbors(
        customer, article, n_customers, n_articles
    )
    rows = load_marginals()["rows"]
    return [
        Figure(
            "exact duplicate lines",
            rows["exact_duplicate_rows_removed"] / rows["transactions"],
            duplicate_share,
            "share",
        ),
        Figure(
            "same article again within 14 days",
            load_marginals()["repurchase_14d"]["same_article"],
            repeated_share,
            "share",
        ),
        Figure("articles with a neighbor (5 customers in common)", None, with_neighbor, "share"),
        Figure("articles with a neighbor of cosine 0.3 to 0.8", None, with_one, "share"),
        Figure("articles with 5 neighbors of cosine 0.3 to 0.8", None, with_five, "share"),
        Figure("neighbors of cosine below 0.3", None, below, "share"),
    ]


def measure_calendar(lines: Lines) -> list[Figure]:
    """Measure rows by month and weekday, and the highest day."""
    rows = np.bincount(lines.day, minlength=N_DAYS)
    month = np.bincount(compute_months(), rows)
    weekday = np.bincount((np.arange(N_DAYS) + FIRST_DAY.weekday()) % 7, rows)
    published = load_marginals()
    monthly = [count for _, count, _ in published["monthly_rows"]]
    highest = max(count for _, count in published["daily"]["spikes"])
    return [
        Figure("rows by month", 0.0, total_variation(month, monthly), "distance"),
        Figure(
            "rows by weekday",
            0.0,
            total_variation(weekday, published["weekday_mean_rows_mon_sun"]),
            "distance",
        ),
        Figure(
            "highest day over the median day",
            highest / published["daily"]["median"],
            rows.max() / np.median(rows),
            "ratio",
        ),
    ]


def total_variation(a: ArrayLike, b: ArrayLike) -> float:
    """Return half the summed difference of shares: 0 equal, 1 disjoint."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def measure_prices(articles: pa.Table, lines: Lines) -> list[Figure]:
    """Measure the prices paid, by product group and by month."""
    published = load_marginals()["price"]
    price = lines.cents / (100.0 * UNITS_PER_PRICE)
    q25, q50, q75 = np.quantile(price, (0.25, 0.5, 0.75))
    group = articles["product_group_name"].combine_chunks().dictionary_encode()
    code = group.indices.to_numpy()[lines.article]
    count, total = np.bincount(code), np.bincount(code, price)
    target = np.asarray(
        [published["mean_by_product_group"][name] for name in group.dictionary.to_pylist()]
    )[: count.shape[0]]
    is_main = count > MAIN_GROUP_ROWS * count.sum()
    month = compute_months()[lines.day]
    by_month = np.bincount(month, price) / np.bincount(month)
    monthly = np.asarray([mean for _, _, mean in load_marginals()["monthly_rows"]])
    return [
        Figure("price: mean", published["mean"], price.mean(), "price"),
        Figure("price: standard deviation", published["std"], price.std(), "price"),
        Figure("price: 25 %", published["q25"], q25, "price"),
        Figure("price: median", published["q50"], q50, "price"),
        Figure("price: 75 %", published["q75"], q75, "price"),
        Figure(
            "amounts ending in .99",
            published["share_ending_99_day1"],
            np.mean(lines.cents % 100 == 99),
            "share",
        ),
        Figure(
            "mean price of a product group, furthest off",
            1.0,
            find_furthest(total[is_main] / count[is_main] / target[is_main]),
            "ratio",
        ),
        Figure(
            "mean price of a month, furthest off", 1.0, find_furthest(by_month / monthly), "ratio"
        ),
    ]


def find_furthest(ratios: np.ndarray) -> float:
    """Return the ratio that is furthest from 1."""
    return float(ratios[np.argmax(np.abs(portable_math.log(ratios)))])


def measure_categories(articles: pa.Table) -> list[Figure]:
    """Measure the articles by their categories."""
    published = load_marginals()
    figures = []
    for column in (
        "product_group_name",
        "index_name",
        "index_group_name",
        "garment_group_name",
        "colour_group_name",
        "section_name",
    ):
        figures.append(
            Figure(
                f"articles by {column}",
                0.0,
                measure_distance(articles, (column,), published[column].items()),
                "distance",
            )
        )
    for key, columns in {
        "joint_product_group_x_index_group": ("product_group_name", "index_group_name"),
        "joint_product_group_x_garment_group": ("product_group_name", "garment_group_name"),
    }.items():
        counts = (((a, b), n) for a, b, n in published[key])
        figures.append(
            Figure(
                f"articles by {columns[0]} and {columns[1]}",
                0.0,
                measure_distance(articles, columns, counts),
                "distance",
            )
        )
    products = len(pc.unique(articles["product_code"])) / articles.num_rows
    figures.append(
        Figure(
            "products per article",
            sum(published["articles_per_product_code"].values()) / SIZES["articles"],
            products,
            "ratio",
        )
    )
    return figures


def measure_distance(
    table: pa.Table,
    columns: tuple[str, ...],
    published: Iterable[tuple[str | tuple[str, ...], int]],
) -> float:
    """Return the total variation between counts of a table's columns and the published ones."""
    rows = table.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()
    measured = {tuple(row[c] for c in columns): row["count_all"] for row in rows}
    target = {key if isinstance(key, tuple) else (key,): n for key, n in published}
    keys = sorted(measured.keys() | target.keys())
    return total_variation(
        [measured.get(key, 0) for key in keys], [target.get(key, 0) for key in keys]
    )


def measure_customers(customers: pa.Table, lines: Lines) -> list[Figure]:
    """Measure channels, ages and attributes of customers."""
    published, n = load_marginals(), SIZES["customers"]
    online_share = np.mean(lines.channel == 2)

    def share(column: str, value: str | float | None) -> float:
        values = customers[column]
        hits = pc.is_null(values, nan_is_null=True) if value is None else pc.equal(values, value)
        return (pc.sum(hits).as_py() or 0) / customers.num_rows

    inactive_share = 1 - np.unique(lines.customer).shape[0] / customers.num_rows
    figures = [
        Figure(
            "rows online",
            published["sales_channel_id"]["2 (online)"] / SIZES["transactions"],
            online_share,
            "share",
        ),
        Figure(
            "customers who never bought",
            1 - published["rows"]["customers_with_tx"] / n,
            inactive_share,
            "share",
        ),
        Figure("age null", published["age_null"] / n, share("age", None), "share"),
        Figure(
            "age: median",
            float(np.interp(0.5, *load_ages()[::-1])),
            pc.quantile(customers["age"], 0.5)[0].as_py(),
            "years",
        ),
        Figure("FN 1.0", published["FN"]["1.0"] / n, share("FN", 1.0), "share"),
        Figure("Active 1.0", published["Active"]["1.0"] / n, share("Active", 1.0), "share"),
    ]
    for column, values in {
        "club_member_status": ("ACTIVE", "PRE-CREATE", None),
        "fashion_news_frequency": ("NONE", "Regularly", None),
    }.items():
        for value in values:
            target = published[column]["null" if value is None else value] / n
            figures.append(
                Figure(f"{column} {value or 'null'}", target, share(column, value), "share")
            )
    return figures
