"""How near a log of H&M's schema is to the published aggregates of H&M's log: one line a figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import InputError
from .marginals import FIRST_DAY, N_DAYS, SIZES, UNITS_PER_PRICE, ages, marginals, month_of_day
from .similarity_fit import neighbor_shares

TOP_SHARE = 1000 / SIZES["articles"]  # the published top 1000, as a share of the articles
LAST_QUARTER, LAST_WEEK = 91, 7  # days
# product groups with a smaller share of the rows are left out of the price comparison
MAIN_GROUP_ROWS = 0.01


@dataclass(frozen=True)
class Fit:
    """One figure of a log: what H&M's is, and what this one's is. A target of None: not published, for information."""

    name: str
    target: float | None
    got: float
    # "rows", "days", "weeks", "years", "share", "price", "distance" (total variation, 0 is equal),
    # "ratio"
    unit: str


@dataclass(frozen=True)
class Lines:
    """A log as codes: rows of the articles and customers tables; (t,) each, in any order."""

    day: np.ndarray  # int16  0..N_DAYS - 1
    customer: np.ndarray  # int32
    article: np.ndarray  # int32
    cents: np.ndarray  # int32
    channel: np.ndarray  # int8


def fit(folder: str | Path) -> list[Fit]:
    """Measure the log in `folder` (raw H&M schema, one Parquet file a table) against the published figures.

    InputError where the dates or sizes are not H&M's: the figures would mean nothing.
    """
    folder = Path(folder)
    articles, customers = (
        pq.read_table(folder / "articles.parquet"),
        pq.read_table(folder / "customers.parquet"),
    )
    return measure(
        articles,
        customers,
        read_lines(
            folder / "transactions.parquet", articles["article_id"], customers["customer_id"]
        ),
    )


def read_lines(path: Path, article_ids: pa.ChunkedArray, customer_ids: pa.ChunkedArray) -> Lines:
    """Read transactions as codes, a row group at a time."""
    parts: list[tuple[np.ndarray, ...]] = []
    article_ids, customer_ids = article_ids.combine_chunks(), customer_ids.combine_chunks()
    with pq.ParquetFile(path, read_dictionary=["customer_id", "article_id"]) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group).combine_chunks()
            day = rows["t_dat"].cast(pa.date32()).cast(pa.int32()).to_numpy() - np.datetime64(
                FIRST_DAY, "D"
            ).astype(np.int32)
            customer, article = (
                codes_of(rows["customer_id"], customer_ids),
                codes_of(rows["article_id"], article_ids),
            )
            if day.min() < 0 or day.max() >= N_DAYS or customer.min() < 0 or article.min() < 0:
                raise InputError(
                    f"{path.name}: row group {group} has dates outside {FIRST_DAY} + {N_DAYS} days or ids unknown.\n"
                    "The published figures are of H&M's two years; measure a log that `gpu-dcgen synth` wrote, or H&M's own."
                )
            cents = np.rint(
                rows["price"].to_numpy().astype(np.float64) * UNITS_PER_PRICE * 100
            ).astype(np.int32)
            parts.append(
                (
                    day.astype(np.int16),
                    customer,
                    article,
                    cents,
                    rows["sales_channel_id"].to_numpy().astype(np.int8),
                )
            )
    return Lines(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def codes_of(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Position of each value of a dictionary column among `ids`, (rows,) int32, -1 where absent."""
    encoded = column.combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    place = (
        pc.fill_null(pc.index_in(encoded.dictionary.cast(ids.type), ids), -1)
        .to_numpy()
        .astype(np.int32)
    )
    return place[encoded.indices.to_numpy()]


def measure(articles: pa.Table, customers: pa.Table, lines: Lines) -> list[Fit]:
    """All figures of a log."""
    n_customers, n_articles = customers.num_rows, articles.num_rows
    if (
        n_customers >= 1 << 21
        or n_articles >= 1 << 17
        or lines.cents.max() >= 1 << 16
        or lines.cents.min() < 0
    ):
        raise InputError(
            f"fit: {n_customers} customers, {n_articles} articles, amounts in cents {lines.cents.min()}..{lines.cents.max()}; "
            "expected fewer than 2,097,152, fewer than 131,072, and 0..65,535.\nMeasure a log of H&M's size or smaller."
        )
    figures = [
        *sizes(n_customers, n_articles, lines),
        *activity(n_customers, lines),
        *popularity(n_articles, lines),
        *repeats(n_customers, n_articles, lines),
        *calendar(lines),
        *prices(articles, lines),
        *categories(articles),
        *people(customers, lines),
    ]
    return [replace(figure, got=float(figure.got)) for figure in figures]


def sizes(n_customers: int, n_articles: int, lines: Lines) -> list[Fit]:
    scale = n_customers / SIZES["customers"]
    return [
        Fit("rows", SIZES["transactions"] * scale, lines.day.shape[0], "rows"),
        Fit(
            "rows per article",
            SIZES["transactions"] / SIZES["articles"],
            lines.day.shape[0] / n_articles,
            "rows",
        ),
        Fit(
            "rows in the last 91 days",
            marginals()["last_91_days"]["rows"] / SIZES["transactions"],
            share_since(lines, LAST_QUARTER),
            "share",
        ),
    ]


def share_since(lines: Lines, days: int) -> float:
    return float(np.count_nonzero(lines.day >= N_DAYS - days) / lines.day.shape[0])


def activity(n_customers: int, lines: Lines) -> list[Fit]:
    facts, rows = marginals()["customer_activity"], marginals()["rows"]
    per_customer = np.bincount(lines.customer, minlength=n_customers)
    bought = per_customer[per_customer > 0]
    visits = np.sort(lines.customer.astype(np.int64) * N_DAYS + lines.day)
    visits = visits[np.diff(visits, prepend=-1) > 0]
    days = np.bincount(visits // N_DAYS, minlength=n_customers)
    days = days[days > 0]
    quarter = np.unique(lines.customer[lines.day >= N_DAYS - LAST_QUARTER]).shape[0]
    week = np.unique(lines.customer[lines.day >= N_DAYS - LAST_WEEK]).shape[0]
    return [
        Fit("rows per customer: mean", facts["mean"], bought.mean(), "rows"),
        Fit("rows per customer: standard deviation", facts["std"], bought.std(), "rows"),
        Fit("rows per customer: median", facts["median"], np.median(bought), "rows"),
        Fit("rows per customer: 75 %", facts["p75"], np.quantile(bought, 0.75), "rows"),
        Fit("rows per customer: 99 %", facts["p99"], np.quantile(bought, 0.99), "rows"),
        Fit(
            "customers with one row",
            facts["one_row_only_customers"] / rows["customers_with_tx"],
            np.mean(bought == 1),
            "share",
        ),
        Fit(
            "days per customer: mean",
            rows["customer_days"] / rows["customers_with_tx"],
            days.mean(),
            "days",
        ),
        Fit("days per customer: median", facts["median_active_days"], np.median(days), "days"),
        Fit(
            "rows per customer-day",
            SIZES["transactions"] / rows["customer_days"],
            lines.day.shape[0] / visits.shape[0],
            "rows",
        ),
        Fit(
            "customers in the last 91 days",
            marginals()["last_91_days"]["customers"] / SIZES["customers"],
            quarter / n_customers,
            "share",
        ),
        Fit(
            "customers in the last week",
            marginals()["last_week"]["customers"] / SIZES["customers"],
            week / n_customers,
            "share",
        ),
    ]


def popularity(n_articles: int, lines: Lines) -> list[Fit]:
    facts, rows, curve = (
        marginals()["article_popularity"],
        marginals()["rows"],
        dict(marginals()["article_popularity"]["rank_value"]),
    )
    per_article = np.bincount(lines.article, minlength=n_articles)
    sold = np.sort(per_article[per_article > 0])[::-1]
    weeks = np.zeros((n_articles, N_DAYS // 7 + 1), dtype=bool)
    weeks[lines.article, lines.day // 7] = True
    days = np.zeros((n_articles, N_DAYS), dtype=bool)
    days[lines.article, lines.day] = True
    top = sold[: max(1, round(TOP_SHARE * n_articles))].sum() / sold.sum()
    return [
        Fit("rows per article: median", curve[52274], np.median(sold), "rows"),
        Fit("rows of the top 0.95 % of articles", facts["top1000"], top, "share"),
        Fit(
            "rows of the top 20 % of articles",
            facts["implied_top20pct_share"],
            sold[: sold.shape[0] // 5].sum() / sold.sum(),
            "share",
        ),
        Fit(
            "articles with 10 rows or more",
            facts["implied_share_of_sold_items_ge10"],
            np.mean(sold >= 10),
            "share",
        ),
        Fit(
            "articles never sold",
            1 - rows["articles_with_tx"] / SIZES["articles"],
            1 - sold.shape[0] / n_articles,
            "share",
        ),
        Fit(
            "weeks with sales per article",
            rows["article_weeks"] / rows["articles_with_tx"],
            weeks.sum() / sold.shape[0],
            "weeks",
        ),
        Fit(
            "days with sales per article",
            rows["article_days"] / rows["articles_with_tx"],
            days.sum() / sold.shape[0],
            "days",
        ),
        Fit(
            "articles sold in the last 91 days",
            marginals()["last_91_days"]["articles"] / SIZES["articles"],
            days[:, -LAST_QUARTER:].any(1).mean(),
            "share",
        ),
        Fit(
            "articles sold in the last week",
            marginals()["last_week"]["articles"] / SIZES["articles"],
            days[:, -LAST_WEEK:].any(1).mean(),
            "share",
        ),
    ]


def repeats(n_customers: int, n_articles: int, lines: Lines) -> list[Fit]:
    """Duplicate lines, articles bought again, and what customers in common make of article pairs."""
    # One sortable word a line: customer 21 bits, article 17, day 10, price 15 (as a code: H&M has
    # 9,857 prices), online 1.
    price = (np.cumsum(np.bincount(lines.cents) > 0) - 1).astype(np.uint64)
    key = lines.customer.astype(np.uint64) << np.uint64(17) | lines.article.astype(np.uint64)
    key = (key << np.uint64(10) | lines.day.astype(np.uint64)) << np.uint64(16)
    key |= price[lines.cents] << np.uint64(1) | (lines.channel == 2).astype(np.uint64)
    key.sort()
    duplicates = np.mean(key[1:] == key[:-1])
    key >>= np.uint64(16)
    key = key[np.append(True, key[1:] != key[:-1])]
    day, pair = (key & np.uint64(1023)).astype(np.int16), key >> np.uint64(10)
    again = np.mean((pair[1:] == pair[:-1]) & (day[1:] - day[:-1] <= 14))
    pair = pair[np.append(True, pair[1:] != pair[:-1])]
    customer, article = (
        (pair >> np.uint64(17)).astype(np.int32),
        (pair & np.uint64((1 << 17) - 1)).astype(np.int32),
    )
    any_neighbour, in_band, five_in_band, below = neighbor_shares(
        customer, article, n_customers, n_articles
    )
    rows = marginals()["rows"]
    return [
        Fit(
            "exact duplicate lines",
            rows["exact_duplicate_rows_removed"] / rows["transactions"],
            duplicates,
            "share",
        ),
        Fit(
            "same article again within 14 days",
            marginals()["repurchase_14d"]["same_article"],
            again,
            "share",
        ),
        Fit("articles with a neighbor (5 customers in common)", None, any_neighbour, "share"),
        Fit("articles with a neighbor of cosine 0.3 to 0.8", None, in_band, "share"),
        Fit("articles with 5 neighbors of cosine 0.3 to 0.8", None, five_in_band, "share"),
        Fit("neighbors of cosine below 0.3", None, below, "share"),
    ]


def calendar(lines: Lines) -> list[Fit]:
    rows = np.bincount(lines.day, minlength=N_DAYS)
    month = np.bincount(month_of_day(), rows)
    weekday = np.bincount((np.arange(N_DAYS) + FIRST_DAY.weekday()) % 7, rows)
    published = np.asarray([count for _, count, _ in marginals()["monthly_rows"]], dtype=np.float64)
    highest = sorted((count for _, count in marginals()["daily"]["spikes"]), reverse=True)[0]
    return [
        Fit("rows by month", 0.0, total_variation(month, published), "distance"),
        Fit(
            "rows by weekday",
            0.0,
            total_variation(
                weekday, np.asarray(marginals()["weekday_mean_rows_mon_sun"], dtype=np.float64)
            ),
            "distance",
        ),
        Fit(
            "highest day over the median day",
            highest / marginals()["daily"]["median"],
            rows.max() / np.median(rows),
            "ratio",
        ),
    ]


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the summed difference of shares: 0 equal, 1 disjoint."""
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def prices(articles: pa.Table, lines: Lines) -> list[Fit]:
    facts = marginals()["price"]
    price = lines.cents / (100.0 * UNITS_PER_PRICE)
    q25, q50, q75 = np.quantile(price, (0.25, 0.5, 0.75))
    group = articles["product_group_name"].combine_chunks().dictionary_encode()
    code = group.indices.to_numpy()[lines.article]
    count, total = np.bincount(code), np.bincount(code, price)
    wanted = np.asarray(
        [facts["mean_by_product_group"][name] for name in group.dictionary.to_pylist()]
    )[: count.shape[0]]
    main = count > MAIN_GROUP_ROWS * count.sum()
    month = month_of_day()[lines.day]
    by_month = np.bincount(month, price) / np.bincount(month)
    monthly = np.asarray([mean for _, _, mean in marginals()["monthly_rows"]])
    return [
        Fit("price: mean", facts["mean"], price.mean(), "price"),
        Fit("price: standard deviation", facts["std"], price.std(), "price"),
        Fit("price: 25 %", facts["q25"], q25, "price"),
        Fit("price: median", facts["q50"], q50, "price"),
        Fit("price: 75 %", facts["q75"], q75, "price"),
        Fit(
            "amounts ending in .99",
            facts["share_ending_99_day1"],
            np.mean(lines.cents % 100 == 99),
            "share",
        ),
        Fit(
            "mean price of a product group, furthest off",
            1.0,
            furthest(total[main] / count[main] / wanted[main]),
            "ratio",
        ),
        Fit("mean price of a month, furthest off", 1.0, furthest(by_month / monthly), "ratio"),
    ]


def furthest(ratios: np.ndarray) -> float:
    return float(ratios[np.argmax(np.abs(np.log(ratios)))])


def categories(articles: pa.Table) -> list[Fit]:
    published = marginals()
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
            Fit(
                f"articles by {column}",
                0.0,
                distance(articles, (column,), published[column].items()),
                "distance",
            )
        )
    for key, columns in {
        "joint_product_group_x_index_group": ("product_group_name", "index_group_name"),
        "joint_product_group_x_garment_group": ("product_group_name", "garment_group_name"),
    }.items():
        counts = (((a, b), n) for a, b, n in published[key])
        figures.append(
            Fit(
                f"articles by {columns[0]} and {columns[1]}",
                0.0,
                distance(articles, columns, counts),
                "distance",
            )
        )
    products = len(pc.unique(articles["product_code"])) / articles.num_rows
    figures.append(
        Fit(
            "products per article",
            sum(published["articles_per_product_code"].values()) / SIZES["articles"],
            products,
            "ratio",
        )
    )
    return figures


def distance(table: pa.Table, columns: tuple[str, ...], published) -> float:
    """Total variation between a table's and the published counts of one or two columns."""
    counted = table.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()
    got = {tuple(row[c] for c in columns): row["count_all"] for row in counted}
    wanted = {key if isinstance(key, tuple) else (key,): n for key, n in published}
    keys = sorted(got.keys() | wanted.keys())
    return total_variation(
        *(
            np.asarray([side.get(key, 0) for key in keys], dtype=np.float64)
            for side in (got, wanted)
        )
    )


def people(customers: pa.Table, lines: Lines) -> list[Fit]:
    published, n = marginals(), SIZES["customers"]
    online = np.mean(lines.channel == 2)

    def share(column: str, value: str | float | None) -> float:
        values = customers[column]
        hits = pc.is_null(values, nan_is_null=True) if value is None else pc.equal(values, value)
        return (pc.sum(hits).as_py() or 0) / customers.num_rows

    never = 1 - np.unique(lines.customer).shape[0] / customers.num_rows
    figures = [
        Fit(
            "rows online",
            published["sales_channel_id"]["2 (online)"] / SIZES["transactions"],
            online,
            "share",
        ),
        Fit(
            "customers who never bought",
            1 - published["rows"]["customers_with_tx"] / n,
            never,
            "share",
        ),
        Fit("age null", published["age_null"] / n, share("age", None), "share"),
        Fit(
            "age: median",
            float(np.interp(0.5, *ages()[::-1])),
            pc.quantile(customers["age"], 0.5)[0].as_py(),
            "years",
        ),
        Fit("FN 1.0", published["FN"]["1.0"] / n, share("FN", 1.0), "share"),
        Fit("Active 1.0", published["Active"]["1.0"] / n, share("Active", 1.0), "share"),
    ]
    for column, values in {
        "club_member_status": ("ACTIVE", "PRE-CREATE", None),
        "fashion_news_frequency": ("NONE", "Regularly", None),
    }.items():
        for value in values:
            wanted = published[column]["null" if value is None else value] / n
            figures.append(
                Fit(f"{column} {value or 'null'}", wanted, share(column, value), "share")
            )
    return figures
