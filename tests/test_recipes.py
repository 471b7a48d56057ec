"""The recipes of docs/guide/recipes.md lead from a log to a batch, as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from gpu_dcgen.example_data.fashion_shop import generate
from tests.support.known_logs import read_shop, write_hm, write_movielens, write_retailrocket

pytest.importorskip("torch", reason="pip install '.[torch]'")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "recipes.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+\.yaml)\n")  # the first line of a configuration


def list_recipes() -> dict[str, list[tuple[str, str]]]:
    """The blocks of each section, in order: language and text."""
    _, *sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    return {section.partition("\n")[0]: BLOCK.findall(section) for section in sections}


def write_orders(shop, data: Path) -> None:
    lines = [
        f"{row['customer_id']},{row['article_id']},{row['t_dat']}T10:00:00"
        for row in shop["transactions"]
    ]
    data.mkdir()
    (data / "orders.csv").write_text("\n".join(["user,item,bought_at", *lines]) + "\n")


def write_database(shop, data: Path) -> None:
    data.mkdir()
    log, articles = (pa.Table.from_pylist(shop[name]) for name in ("transactions", "articles"))
    with duckdb.connect(str(data / "shop.duckdb")) as connection:
        connection.register("log", log)
        connection.register("range_of_goods", articles)
        connection.execute(
            "CREATE TABLE orders AS SELECT customer_id AS buyer, article_id AS product, "
            "t_dat AS bought_at, price FROM log"
        )
        connection.execute(
            "CREATE TABLE products AS SELECT article_id AS product, "
            "product_group_name AS category FROM range_of_goods"
        )


RECIPES = list_recipes()
LOGS = {
    "H&M, as downloaded from Kaggle": lambda shop, data: write_hm(shop, data / "hm"),
    "MovieLens": lambda shop, data: write_movielens(shop, data / "movielens"),
    "RetailRocket": lambda shop, data: write_retailrocket(shop, data / "retailrocket"),
    "A polars frame": write_orders,
    "A DuckDB table": write_database,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "shop"
    generate(folder, scale=0.001)
    return read_shop(folder)


@pytest.mark.parametrize("title", RECIPES)
def test_each_recipe_leads_to_a_batch(shop, tmp_path, title):
    LOGS[title](shop, tmp_path / "data")
    tool = tmp_path / "gpu-dcgen"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpu_dcgen "$@"\n')
    tool.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    output = ""
    for language, text in RECIPES[title]:
        if language == "yaml":
            (tmp_path / FILE.match(text)[1]).write_text(text)
            continue
        commands = (
            [[sys.executable, "-c", text]]
            if language == "python"
            else [["sh", "-c", line] for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE)]
        )
        assert commands, language
        for command in commands:
            run = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
            )
            assert run.returncode == 0, run.stdout + run.stderr
            output = run.stdout
    # The last block prints the shapes of a batch: 64 positives with 15 negatives each.
    assert "torch.Size([1024" in output or "torch.Size([64, 16" in output, output


def test_the_first_recipe_is_one_command():
    first = next(iter(RECIPES.values()))
    assert [(language, len(text.splitlines())) for language, text in first][0] == ("console", 1)
    assert not any(language == "yaml" for language, _ in first)


def test_each_log_has_its_recipe():
    assert RECIPES.keys() == LOGS.keys()
