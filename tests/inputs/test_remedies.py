"""A remedy that a message prints works when it is pasted, on the command line and into a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.config.section import Section
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.inputs.shop import load_shop
from tests.support.input_tables import (
    ARTICLES,
    CPU,
    CUSTOMERS,
    TRANSACTIONS,
    list_sales,
    load_tables,
    to_list,
    write_tables,
)

ROOT = Path(__file__).parents[2]
# Where texts name settings; elsewhere, also entries of a manifest look like that.
ROOMS = ("backend", "config", "dataset_generator", "inputs", "preflight", "preparation")
SETTING = re.compile(r"\binputs\.\w+: .*")


def find_settings(error: pytest.ExceptionInfo | str) -> list[str]:
    """Return the settings that a message prints."""
    text = error if isinstance(error, str) else str(error.value)
    return SETTING.findall(text)


def load_with(folder: Path, settings: list[str], way: str, tmp_path: Path):
    """Load a shop with settings given in one of the ways that a user may paste them."""
    if way == "file":
        (file := tmp_path / "mine.yaml").write_text("\n".join(settings), "utf-8")
        config = load_config(file)
    elif way == "set":
        config = load_config(overrides=[setting.replace(": ", "=", 1) for setting in settings])
    else:  # quoted in a shell
        words = shlex.split(" ".join(f"--set {shlex.quote(setting)}" for setting in settings))
        config = load_config(overrides=words[1::2])
    return load_shop(folder, config, CPU)


@pytest.mark.parametrize("way", ["file", "set", "shell"])
@pytest.mark.parametrize(
    "name",
    [
        "\ufeffarticle_id",
        "article_id ",
        " article_id",
        "Article_ID",
        "article-id",
        '"article_id"',
        "'article_id'",
        "article_id\n",
        "article id",
        "article\u00a0id",
        "article_id\u200b",
        "{article_id}",
        "article_id: #1",
        "articlé_id",
    ],
)
def test_a_printed_mapping_is_accepted_and_helps(tmp_path, name, way):
    articles = {name: ARTICLES["article_id"], "product_group_name": ["a", "b", "c"]}
    folder = write_tables(tmp_path / "shop", articles=articles)
    with pytest.raises(InputError, match="column 'article_id' is missing") as caught:
        load_tables(folder)
    (setting,) = find_settings(caught)
    assert load_with(folder, [setting], way, tmp_path).item_ids.to_pylist() == ["a1", "a2", "a3"]


def test_one_mapping_names_all_columns_of_all_tables(tmp_path):
    def upper(table: dict) -> dict:
        return {name.upper(): values for name, values in table.items()}

    folder = write_tables(
        tmp_path,
        articles=upper(ARTICLES),
        customers=upper(CUSTOMERS | {"age": [30, 40]}),
        transactions=upper(TRANSACTIONS),
    )
    with pytest.raises(InputError) as caught:
        load_tables(folder)
    text = str(caught.value)
    assert "articles.parquet: column 'article_id' is missing" in text
    assert "transactions.parquet: columns 't_dat', 'customer_id', 'article_id', 'price' are" in text
    setting = next(setting for setting in find_settings(text) if "columns" in setting)
    shop = load_with(folder, [setting], "file", tmp_path)
    plain = load_tables(write_tables(tmp_path / "plain", customers=CUSTOMERS | {"age": [30, 40]}))
    assert list_sales(shop) == list_sales(plain)
    assert to_list(shop.age) == [30, 40]


def test_a_mapping_keeps_what_the_configuration_maps(tmp_path):
    transactions = {
        "when": TRANSACTIONS["t_dat"],
        "Customer_Id": TRANSACTIONS["customer_id"],
        "article_id": TRANSACTIONS["article_id"],
        "price": TRANSACTIONS["price"],
    }
    folder = write_tables(tmp_path / "shop", transactions=transactions)
    with pytest.raises(InputError) as caught:
        load_tables(folder, columns={"transactions": {"t_dat": "when"}})
    assert len(load_with(folder, find_settings(caught), "set", tmp_path).time) == 3


def test_an_optional_column_of_another_spelling_comes_with_its_mapping(tmp_path):
    customers = CUSTOMERS | {" Age": [30, 40], "Club-Member-Status": ["ACTIVE", None]}
    folder = write_tables(tmp_path / "shop", customers=customers)
    (warning,) = [text for text in load_tables(folder).report.warnings if "is not read" in text]
    shop = load_with(folder, find_settings(warning), "set", tmp_path)
    assert to_list(shop.age) == [30, 40]
    assert shop.user_columns["club_status"].values == ("ACTIVE",)


def test_a_column_of_another_spelling_in_a_later_file_is_pointed_out(tmp_path):
    folder = write_tables(tmp_path, customers=None)
    for number, table in enumerate(({"customer_id": ["u1"]}, {"customer_id": ["u2"], "AGE": [3]})):
        part = write_tables(folder / "customers", articles=None, transactions=None, customers=table)
        (part / "customers.parquet").rename(part / f"{number}.parquet")
    assert any("column 'AGE' is not read" in text for text in load_tables(folder).report.warnings)


def test_the_limit_that_a_message_prints_lets_the_good_rows_through(tmp_path):
    prices = {"price": [1.0, -1.0, 1.0]}
    folder = write_tables(tmp_path / "shop", transactions=TRANSACTIONS | prices)
    with pytest.raises(InputError, match=r'"on_bad_rows": "reject"') as caught:
        load_tables(folder)
    settings = [*find_settings(caught), "inputs.on_bad_rows: reject"]
    with pytest.raises(InputError, match="found a quality score") as caught:
        load_tables(folder, on_bad_rows="reject")
    assert find_settings(caught) == settings[:1] == ["inputs.min_quality_score: 0.87"]
    config = load_config(overrides=settings)
    shop = load_shop(folder, config, CPU, rejects=tmp_path / "rejects.parquet")
    assert len(shop.time) == 2


def test_a_log_without_prices_builds_with_the_printed_setting(tmp_path):
    transactions = {name: values for name, values in TRANSACTIONS.items() if name != "price"}
    transactions["price_level"] = ["low"] * 3  # looks like a price
    folder = write_tables(tmp_path / "shop", transactions=transactions)
    with pytest.raises(InputError) as caught:
        load_tables(folder)
    setting = find_settings(caught)[-1].removesuffix(".")
    assert setting == "inputs.price: none"
    assert len(load_with(folder, [setting], "file", tmp_path).time) == 3


def test_a_setting_named_twice_in_a_file_is_refused(tmp_path):
    (file := tmp_path / "mine.yaml").write_text("inputs: {price: none}\ninputs.price: column\n")
    with pytest.raises(ConfigError, match=r"found inputs.price twice"):
        load_config(file)
    file.write_text("inputs: {views: false}\ninputs.price: none\nsplit.train_share: 0.7\n")
    config = load_config(file)
    assert (config.inputs.price, config.inputs.views) == ("none", False)
    assert config.split.train_share == 0.7
    file.write_text("inputs.prize: none\n")
    with pytest.raises(ConfigError, match=r"inputs.prize: unknown key; did you mean price"):
        load_config(file)


def list_settings() -> set[str]:
    """Return `section.key` of every setting."""
    return {
        f"{name}.{key}"
        for name, field in DatasetConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key in field.annotation.model_fields
    }


def test_every_setting_that_a_text_names_exists():
    settings = list_settings()
    sections = {setting.partition(".")[0] for setting in settings}
    pattern = re.compile(rf"(?<![\w./])({'|'.join(sections)})\.([a-z_]+\*?)(?![\w.(*])")
    strays, n_seen = [], 0
    for path in (
        path for room in ROOMS for path in sorted((ROOT / "gpu_dcgen" / room).rglob("*.py"))
    ):
        for line in re.findall(r'f?"(?:[^"\\]|\\.)*"', path.read_text("utf-8")):
            for section, key in pattern.findall(line):
                n_seen += 1
                known = any(
                    setting.startswith(f"{section}.{key.rstrip('*')}") for setting in settings
                )
                if not known:
                    strays.append(f"{path.name}: {section}.{key}")
    assert n_seen > 40
    assert not strays


def test_settings_are_found_in_texts():
    assert find_settings("map it: inputs.columns: {a: {b: c}}\nor not") == [
        "inputs.columns: {a: {b: c}}"
    ]
    assert yaml.safe_load("inputs.columns: {a: {b: c}}") == {"inputs.columns": {"a": {"b": "c"}}}
