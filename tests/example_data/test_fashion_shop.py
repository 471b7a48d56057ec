"""The synthetic log has H&M's schema and figures; it depends on scale and seed alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.example_data.fashion_shop import Figure, generate, measure_files, tables
from gpu_dcgen.example_data.fashion_shop.articles import (
    INDEX_GROUPS,
    fit_category_shares,
    list_names,
    plan_assortment,
    read_cross_table,
    to_index_group,
)
from gpu_dcgen.example_data.fashion_shop.baskets import build_tables, fill_baskets
from gpu_dcgen.example_data.fashion_shop.customers import (
    compute_visit_intensity,
    draw_customers,
    draw_tastes,
)
from gpu_dcgen.example_data.fashion_shop.demand import plan_demand
from gpu_dcgen.example_data.fashion_shop.figures import find_furthest, total_variation
from gpu_dcgen.example_data.fashion_shop.marginals import (
    FIRST_DAY,
    N_DAYS,
    compute_months,
    compute_rows_by_rank,
    draw_daily_rows,
    load_marginals,
    scale_sizes,
)
from gpu_dcgen.example_data.fashion_shop.prices import plan_prices
from gpu_dcgen.example_data.fashion_shop.similarity_fit import measure_neighbors

TABLES = ("articles", "customers", "transactions")


def digest(folder, name: str) -> str:
    """A hash of a table's values in row order, whatever its row groups."""
    table = pq.read_table(folder / f"{name}.parquet").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth")
    return folder, generate(folder, scale=0.01, seed=42)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    generate(folder, scale=0.002, seed=7)
    return folder


def read(folder, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


def test_one_seed_gives_one_log(small, tmp_path):
    generate(tmp_path, scale=0.002, seed=7)
    for name in TABLES:
        assert digest(tmp_path, name) == digest(small, name)


def test_another_seed_gives_another_log(small, tmp_path):
    generate(tmp_path, scale=0.002, seed=8)
    for name in TABLES:
        assert digest(tmp_path, name) != digest(small, name)


def test_a_chunk_of_customers_does_not_depend_on_the_chunks_before_it():
    days = draw_daily_rows(3)
    assortment = plan_assortment(600, 180_000, 3)
    demand = plan_demand(assortment, days, 3)
    tables = build_tables(assortment, demand, plan_prices(assortment, demand, days, 3), 3)

    def lines(chunk: int):
        customers = draw_customers(
            chunk, 500, compute_visit_intensity(days), demand, assortment.style_group, 3
        )
        return customers.visit_day, *fill_baskets(customers, *tables, 3)

    forward = [lines(0), lines(1)]
    backward = [lines(1), lines(0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(*forward, strict=True):
        assert not np.array_equal(a[:100], b[:100])


def test_row_groups_bound_memory_and_do_not_change_the_content(small, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 20_000)
    generate(tmp_path, scale=0.002, seed=7)
    with pq.ParquetFile(tmp_path / "transactions.parquet") as file:
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    assert len(groups) > 2
    assert set(groups[:-1]) == {20_000}
    assert groups[-1] <= 20_000
    assert digest(tmp_path, "transactions") == digest(small, "transactions")


def test_a_row_group_stores_only_the_strings_that_occur_in_it():
    encoded = tables.encode_compactly(np.array([5, 2, 5]), pa.array(list("abcdefgh")))
    assert encoded.to_pylist() == ["f", "c", "f"]
    assert encoded.dictionary.to_pylist() == ["c", "f"]


def test_schema_is_the_raw_one_with_plain_strings(shop):
    folder, _ = shop
    schema = read(folder, "transactions").schema
    assert schema.names == ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
    assert [str(t) for t in schema.types] == ["date32[day]", "string", "string", "float", "int8"]
    customers = [
        "customer_id",
        "FN",
        "Active",
        "club_member_status",
        "fashion_news_frequency",
        "age",
    ]
    assert read(folder, "customers").schema.names == customers
    articles = read(folder, "articles").schema
    assert {"article_id", "product_code", "prod_name", "section_name", "department_name"} <= set(
        articles.names
    )
    assert articles.field("article_id").type == pa.string()


def test_ids_look_like_theirs_and_are_unique(shop):
    folder, report = shop
    articles, customers = read(folder, "articles"), read(folder, "customers")
    ids = articles["article_id"].to_pylist()
    assert all(len(i) == 10 and i[0] == "0" and i.isdigit() for i in ids)
    assert [int(i) // 1000 for i in ids] == articles["product_code"].to_pylist()
    assert len(set(ids)) == len(ids) == report.rows["articles"] == 1055
    people = customers["customer_id"].to_pylist()
    assert all(len(i) == 64 and set(i) <= set("0123456789abcdef") for i in people[:500])
    assert len(set(people)) == len(people) == report.rows["customers"] == 13_720


def test_every_line_is_of_a_known_customer_and_article(shop):
    folder, report = shop
    lines = read(folder, "transactions")
    for table, key in (("articles", "article_id"), ("customers", "customer_id")):
        assert pc.all(pc.is_in(lines[key], read(folder, table)[key].combine_chunks())).as_py()
    assert lines.num_rows == report.rows["transactions"]
    assert sum(column.null_count for column in lines.columns) == 0


def test_lines_are_in_order_of_date_and_cover_all_dates(shop):
    folder, _ = shop
    days = read(folder, "transactions")["t_dat"].cast(pa.int32()).to_numpy() - np.datetime64(
        FIRST_DAY
    ).astype(int)
    assert np.all(np.diff(days) >= 0)
    assert np.array_equal(np.unique(days), np.arange(N_DAYS))


def test_prices_are_amounts_of_two_decimals_over_590(shop):
    price = read(shop[0], "transactions")["price"].to_numpy().astype(np.float64)
    cents = price * 590 * 100
    assert np.abs(cents - np.rint(cents)).max() < 0.005
    assert np.rint(cents).min() >= 1
    assert np.rint(cents).max() <= 34_900


def test_a_day_of_a_customer_repeats_an_article_only_as_more_pieces_or_a_second_visit(shop):
    lines = read(shop[0], "transactions").select(["t_dat", "customer_id", "article_id"]).to_pandas()
    key = lines.t_dat.astype(str) + lines.customer_id
    inside = key.eq(key.shift())
    adjacent = (inside & lines.article_id.eq(lines.article_id.shift())).sum()
    repeated = lines.duplicated().sum()
    assert (
        0 < repeated - adjacent < 0.35 * repeated
    )  # a second visit on the same day, or a taste with little on sale


def test_colours_of_a_product_share_its_categories_and_name(shop):
    articles = read(shop[0], "articles").to_pandas()
    columns = [
        "prod_name",
        "product_group_name",
        "garment_group_name",
        "index_name",
        "department_name",
        "section_name",
    ]
    per_product = articles.groupby("product_code")[columns].nunique()
    assert per_product.max().max() == 1
    assert 0.40 < articles.product_code.nunique() / len(articles) < 0.52


# Sampling at 1 % of the size moves these figures by a few per cent; the full size is nearer.
TOLERANCES = {
    "rows": 0.08,
    "rows in the last 91 days": 0.06,
    "rows per customer: mean": 0.08,
    "rows per customer: standard deviation": 0.15,
    "rows per customer: median": 0.12,
    "rows per customer: 75 %": 0.10,
    "rows per customer: 99 %": 0.15,
    "customers with one row": 0.12,
    "days per customer: mean": 0.08,
    "rows per customer-day": 0.05,
    "customers in the last 91 days": 0.06,
    "rows per article: median": 0.25,
    "rows of the top 0.95 % of articles": 0.30,
    "rows of the top 20 % of articles": 0.06,
    "articles with 10 rows or more": 0.06,
    "articles never sold": 0.10,
    "weeks with sales per article": 0.15,
    "days with sales per article": 0.15,
    "articles sold in the last 91 days": 0.15,
    "exact duplicate lines": 0.20,
    "price: mean": 0.05,
    "price: standard deviation": 0.20,  # some 490 products only
    "price: 25 %": 0.10,
    "price: median": 0.16,
    "price: 75 %": 0.06,
    "amounts ending in .99": 0.04,
    "rows online": 0.04,
    "customers who never bought": 0.30,
    "age null": 0.25,
    "FN 1.0": 0.05,
    "Active 1.0": 0.05,
    "club_member_status ACTIVE": 0.02,
    "fashion_news_frequency NONE": 0.03,
    "fashion_news_frequency null": 0.35,
}
DISTANCES = {
    "rows by month": 0.03,
    "rows by weekday": 0.03,
    "articles by product_group_name": 0.02,
    "articles by index_name": 0.06,
    "articles by colour_group_name": 0.03,
    "articles by product_group_name and index_group_name": 0.06,
}


@pytest.mark.parametrize("name", TOLERANCES)
def test_figure_is_near_the_published_one(shop, name):
    figure = next(f for f in shop[1].fit if f.name == name)
    assert figure.measured == pytest.approx(figure.target, rel=TOLERANCES[name])


@pytest.mark.parametrize("name", DISTANCES)
def test_distribution_is_near_the_published_one(shop, name):
    assert next(f for f in shop[1].fit if f.name == name).measured < DISTANCES[name]


def test_articles_are_bought_again_now_and_then(shop):
    again = next(f for f in shop[1].fit if f.name == "same article again within 14 days")
    assert 0.042 < again.measured < 0.065  # 0.036 where nobody returns for more


def test_tastes_give_articles_similar_ones_and_less_similar_ones(shop):
    got = {f.name: f.measured for f in shop[1].fit}
    assert 0.4 < got["articles with a neighbor of cosine 0.3 to 0.8"] < 0.95
    assert got["articles with 5 neighbors of cosine 0.3 to 0.8"] > 0.05
    assert 0.9 < got["neighbors of cosine below 0.3"] < 1


def test_favourites_are_near_each_other_and_every_style_gets_its_share():
    favorites = draw_tastes(np.random.default_rng(0), 20_000, np.full(100, 0.01))
    apart = np.abs(favorites[:, 1:] - favorites[:, :1])
    near = np.minimum(apart, 100 - apart) <= 10
    assert 0.5 < near.mean() < 0.8  # a fifth, were they anywhere
    assert np.bincount(favorites.ravel(), minlength=100) == pytest.approx(
        np.full(100, 800), rel=0.15
    )


def test_customers_keep_to_few_index_groups(shop):
    folder, _ = shop
    articles = read(folder, "articles").select(["article_id", "index_group_name"])
    lines = read(folder, "transactions").join(articles, "article_id").to_pandas()
    counts = lines.groupby(["customer_id", "index_group_name"]).size()
    per_customer = counts.groupby("customer_id").agg(["max", "sum"])
    busy = per_customer[per_customer["sum"] >= 20]
    overall = lines.index_group_name.value_counts(normalize=True).max()
    assert (busy["max"] / busy["sum"]).mean() > overall + 0.15


def test_measuring_the_files_gives_the_figures_of_the_report(shop):
    folder, report = shop
    assert measure_files(folder) == report.fit


def test_figures_notice_a_log_without_duplicates(shop, tmp_path):
    folder, report = shop
    lines = read(folder, "transactions")
    lines = lines.group_by(lines.column_names).aggregate([]).select(lines.column_names)
    pq.write_table(lines, tmp_path / "transactions.parquet")
    for name in ("articles", "customers"):
        pq.write_table(read(folder, name), tmp_path / f"{name}.parquet")
    got = {f.name: f.measured for f in measure_files(tmp_path)}
    assert got["exact duplicate lines"] == 0
    assert (
        got["rows per customer: mean"]
        < next(f for f in report.fit if f.name == "rows per customer: mean").measured
    )


def test_measuring_another_shop_is_refused(small, tmp_path):
    for name in ("articles", "customers"):
        pq.write_table(read(small, name), tmp_path / f"{name}.parquet")
    lines = read(small, "transactions")
    early = pa.array(np.full(lines.num_rows, np.datetime64("2010-12-01")))
    pq.write_table(lines.set_column(0, "t_dat", early), tmp_path / "transactions.parquet")
    with pytest.raises(InputError, match="dates outside 2018-09-20"):
        measure_files(tmp_path)


@pytest.mark.parametrize("scale", [0, -0.1, 10.5, float("nan")])
def test_a_scale_outside_its_range_is_refused(scale, tmp_path):
    with pytest.raises(ConfigError, match="scale"):
        generate(tmp_path / "never", scale=scale)
    assert not (tmp_path / "never").exists()


def test_sizes_are_in_proportion_and_never_too_small():
    assert scale_sizes(1) == {
        "articles": 105_542,
        "customers": 1_371_980,
        "transactions": 31_788_324,
    }
    assert scale_sizes(0.1)["articles"] == 10_554
    assert scale_sizes(1e-6) == {
        "articles": 500,
        "customers": 200,
        "transactions": 200 * 31_788_324 // 1_371_980,
    }


def test_the_smallest_shop_can_be_made(tmp_path):
    report = generate(tmp_path, scale=1e-6, seed=0)
    assert report.rows["customers"] == 200
    assert report.rows["transactions"] > 1000


def test_days_follow_the_published_months_and_spikes():
    rows = draw_daily_rows(1)
    months = np.bincount(compute_months(), rows)
    assert months == pytest.approx([count for _, count, _ in load_marginals()["monthly_rows"]])
    assert (
        rows[int((np.datetime64("2019-09-28") - np.datetime64(FIRST_DAY)).astype(int))] == 198_622
    )
    assert rows.min() > 0


def test_rows_by_rank_keep_the_published_shares_at_any_size():
    for n in (500, 1055, 105_542):
        curve = compute_rows_by_rank(n, 301 * n)
        assert curve.sum() == pytest.approx(301 * n)
        assert np.all(np.diff(curve) <= 1e-9)
        assert np.count_nonzero(curve == 0) == round(n * 995 / 105_542)
    assert compute_rows_by_rank(105_542, 31_788_324)[:1000].sum() / 31_788_324 == pytest.approx(
        0.1816, abs=0.002
    )


def test_joint_categories_agree_with_both_published_tables():
    table = fit_category_shares()
    garments = list_names("garment_group_name")
    member = np.eye(len(INDEX_GROUPS))[to_index_group(np.arange(table.shape[1]))]
    groups = list_names("product_group_name")
    by_group = read_cross_table("joint_product_group_x_index_group", groups, list(INDEX_GROUPS))
    by_garment = read_cross_table("joint_product_group_x_garment_group", groups, garments)
    assert total_variation(table.sum(axis=2) @ member, by_group) < 0.002
    assert total_variation(table.sum(axis=1), by_garment) < 0.002


def test_neighbor_shares_by_hand():
    # 20 customers buy articles 0 and 1 together (cosine 1: above the band); 10 of them article 2
    # (cosine 10 / sqrt(200) = 0.71).
    customer = np.repeat(np.arange(20), np.where(np.arange(20) < 10, 3, 2)).astype(np.int32)
    article = np.concatenate([[0, 1, 2]] * 10 + [[0, 1]] * 10).astype(np.int32)
    assert measure_neighbors(customer, article, 20, 4) == (1.0, 1.0, 0.0, 0.0)


def test_distances_know_equal_from_disjoint():
    assert total_variation(np.array([1.0, 3.0]), np.array([2.0, 6.0])) == 0
    assert total_variation(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == 1
    assert find_furthest(np.array([1.1, 0.5, 1.9])) == 0.5


def test_a_figure_without_a_published_value_says_so(shop):
    assert {f.name for f in shop[1].fit if f.target is None} == {
        "articles with a neighbor (5 customers in common)",
        "articles with a neighbor of cosine 0.3 to 0.8",
        "articles with 5 neighbors of cosine 0.3 to 0.8",
        "neighbors of cosine below 0.3",
    }
    assert all(isinstance(f, Figure) and isinstance(f.measured, float) for f in shop[1].fit)
