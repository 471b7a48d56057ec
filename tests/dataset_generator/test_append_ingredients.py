"""Each ingredient of a split, changed alone, has the split rebuilt, with its reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table
from pyarrow.types import is_dictionary

from gpu_dcgen.dataset_generator import build_key
from gpu_dcgen.dataset_generator import reuse as earlier
from gpu_dcgen.dataset_generator.builder import append, build
from gpu_dcgen.dataset_generator.reuse import PreviousDataset
from gpu_dcgen.storage.integrity import validate
from tests.support.growing import (
    TEST_FROM,
    TODAY,
    VAL_FROM,
    build_and_append,
    build_once,
    cut_log,
    growing_config,
    make_log,
    select_rows,
)
from tests.support.seeds import spread_seeds
from tests.support.shops import DAY, FIRST_DAY, Tables, write_shop


def regular(tables: Tables, name: str, row: int = 0) -> str:
    """The customer or article of most purchases."""
    ids = [line[name] for line in select_rows(tables, 0, VAL_FROM)]
    return sorted(set(ids), key=lambda key: (-ids.count(key), key))[row]


def another_price(tables: Tables) -> None:
    select_rows(tables, 5, 15)[3]["price"] *= 1.5


def another_channel(tables: Tables) -> None:
    row = select_rows(tables, 5, 15)[3]
    row["sales_channel_id"] = 1 if row["sales_channel_id"] != 1 else 2


def a_late_row_in_train(tables: Tables) -> None:
    row = select_rows(tables, 15, 25)[2]
    tables["transactions"].append(
        {**row, "t_dat": row["t_dat"] + DAY, "article_id": regular(tables, "article_id")}
    )


def a_row_of_train_less(tables: Tables) -> None:
    tables["transactions"].remove(select_rows(tables, 10, 25)[2])


def a_late_row_in_val(tables: Tables) -> None:
    row = select_rows(tables, VAL_FROM, TEST_FROM)[2]
    customer, article = regular(tables, "customer_id"), regular(tables, "article_id")
    tables["transactions"].append(
        {**row, "t_dat": row["t_dat"] + 1, "customer_id": customer, "article_id": article}
    )


def an_older_customer(tables: Tables) -> None:
    customer = regular(tables, "customer_id")
    next(row for row in tables["customers"] if row["customer_id"] == customer)["age"] = 77.0


def another_club(tables: Tables) -> None:
    customer = regular(tables, "customer_id")
    next(row for row in tables["customers"] if row["customer_id"] == customer)[
        "club_member_status"
    ] = "SUSPENDED"


def another_group(tables: Tables) -> None:
    article = regular(tables, "article_id")
    next(row for row in tables["articles"] if row["article_id"] == article)[
        "product_group_name"
    ] = "Bags"


def another_department(tables: Tables) -> None:
    article = regular(tables, "article_id")
    next(row for row in tables["articles"] if row["article_id"] == article)["department_name"] = (
        "Bags"
    )


def an_unsold_article_of_a_new_group(tables: Tables) -> None:
    tables["articles"].append({"article_id": "zzz unsold", "product_group_name": "Bags"})


def a_new_customer_of_a_new_club(tables: Tables) -> None:
    next(row for row in tables["customers"] if row["customer_id"] == "0 new")[
        "club_member_status"
    ] = "0 NEW"


def another_product_code(tables: Tables) -> None:
    first, second = regular(tables, "article_id"), regular(tables, "article_id", 1)
    code = next(row for row in tables["articles"] if row["article_id"] == second)[
        "product_code"
    ] = "twins"
    next(row for row in tables["articles"] if row["article_id"] == first)["product_code"] = code


def another_view(tables: Tables) -> None:
    view = {"t_dat": (FIRST_DAY + 3) * DAY}
    for n in range(6):
        view = {
            **view,
            "customer_id": regular(tables, "customer_id", n),
            "article_id": regular(tables, "article_id", n + 2),
        }
        tables["views"].append(view)


def a_late_view_in_val(tables: Tables) -> None:
    line = select_rows(tables, VAL_FROM, TEST_FROM)[2]
    view = {name: line[name] for name in ("t_dat", "customer_id")}
    tables["views"].append({**view, "article_id": regular(tables, "article_id")})


def an_earlier_beginning(tables: Tables) -> None:
    tables["transactions"].append({**select_rows(tables, 0, 9)[0], "t_dat": (FIRST_DAY - 9) * DAY})


MUTATIONS: dict[Callable[[Tables], None], tuple[set[str], str]] = {
    another_price: (set(), "not the same purchases before"),
    another_channel: (set(), "not the same purchases before"),
    a_late_row_in_train: (set(), " purchases before 2018-10-30 instead of "),
    a_row_of_train_less: (set(), " purchases before 2018-10-30 instead of "),
    a_late_row_in_val: ({"train"}, " purchases before 2018-10-30 instead of "),
    an_older_customer: (set(), "not the same users"),
    another_club: (set(), "not the same users"),
    another_group: (set(), "not the same items"),
    another_department: (set(), "not the same items"),
    an_unsold_article_of_a_new_group: (set(), " categories instead of "),
    a_new_customer_of_a_new_club: (set(), " categories instead of "),
    another_product_code: (set(), "not the same items"),
    another_view: (set(), " views instead of "),
    a_late_view_in_val: ({"train"}, " views instead of "),
    an_earlier_beginning: (set(), "the log begins with 2018-09-1"),
}


@pytest.mark.parametrize(("mutate", "seed"), spread_seeds(MUTATIONS, range(2)))
def test_a_split_of_other_ingredients_is_rebuilt(mutate, seed, tmp_path):
    tables = make_log(seed)
    before = cut_log(copy.deepcopy(tables), TODAY)
    mutate(tables)
    config = growing_config(similarity={"min_common_users": 1, "view_weight": 1.0, "top_k": 30})
    _, whole, new = build_and_append(tmp_path, config, tables, before)
    reused, word = MUTATIONS[mutate]
    assert new.manifest.digests == whole.manifest.digests
    assert new.manifest.append.reused.keys() == reused
    assert word in new.manifest.append.rebuilt["val"]


def categories_of(dataset: Path, split: str) -> dict[str, list[str]]:
    """The dictionary of each column of categories, as a split's first file has it."""
    file = min(
        dataset.glob(f"{split}_dataset.parquet/*.parquet"),
        default=dataset / f"{split}_dataset.parquet",
    )
    table = read_table(file)
    return {
        name: table[name].chunk(0).dictionary.to_pylist()
        for name in table.column_names
        if is_dictionary(table[name].type)
    }


@pytest.mark.parametrize("comes", [True, False], ids=["comes", "goes"])
def test_a_code_means_the_same_in_every_split(comes, tmp_path):
    """A model trained on the codes of a reused train predicts with those of a rebuilt test."""
    tables = make_log()
    before, more = cut_log(copy.deepcopy(tables), TODAY), copy.deepcopy(tables)
    an_unsold_article_of_a_new_group(more if comes else before)
    _, whole, new = build_and_append(tmp_path, growing_config(), more, before)
    assert new.manifest.digests == whole.manifest.digests
    mappings = json.loads((new.output / "category_mappings.json").read_text())["mappings"]
    for split in ("train", "val", "test"):
        dictionaries = categories_of(new.output, split)
        assert len(dictionaries) == len(mappings)
        assert dictionaries == {
            name: sorted(codes, key=codes.get) for name, codes in mappings.items()
        }


def test_cuts_that_move_with_the_log_are_said(tmp_path):
    tables = make_log()
    _, whole, new = build_and_append(
        tmp_path,
        growing_config(split={"val_from": None, "test_from": None}),
        tables,
        cut_log(tables, TODAY),
    )
    assert new.manifest.digests == whole.manifest.digests
    assert not new.manifest.append.reused
    assert "split.val_from and split.test_from pin them" in new.manifest.append.rebuilt["train"]


def test_users_that_change_places_are_said(tmp_path):
    tables = make_log(2)
    _, whole, new = build_and_append(
        tmp_path, growing_config("temporal_user_disjoint"), tables, cut_log(tables, TODAY)
    )
    assert new.manifest.digests == whole.manifest.digests
    reasons = new.manifest.append.rebuilt
    assert "with split.strategy hash or temporal it does not" in reasons["train"]


def test_users_that_reach_the_minimum_of_the_whole_log_are_said(tmp_path):
    tables = make_log()
    config = growing_config(filtering={"counts": "log", "min_user_interactions": 20})
    _, whole, new = build_and_append(tmp_path, config, tables, cut_log(tables, TODAY))
    assert new.manifest.digests == whole.manifest.digests
    assert not new.manifest.append.reused
    assert (
        "which filtering.counts: window lets in from then on"
        in new.manifest.append.rebuilt["train"]
    )


def test_another_version_keeps_nothing(tmp_path, monkeypatch):
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    monkeypatch.setattr(build_key, "digest_of_code", lambda: "another")
    new = append(write_shop(tables, tmp_path / "now"), old.output, backend="cpu")
    assert set(new.manifest.append.rebuilt.values()) == {
        "the dataset was built by another version of gpu-dcgen"
    }


def test_other_settings_keep_nothing(tmp_path):
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    write_shop(tables, tmp_path / "now")
    options = {"backend": "cpu", "overwrite": True, "earlier": PreviousDataset(old.output)}
    new = build(tmp_path / "now", old.output, growing_config(seed=7), **options)
    assert set(new.manifest.append.rebuilt.values()) == {
        "the dataset was built with other settings"
    }


def test_a_damaged_file_is_made_anew(tmp_path):
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    train = next(old.output.glob("train_dataset.parquet"), None)
    file = train if train.is_file() else sorted(train.iterdir())[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    new = append(write_shop(tables, tmp_path / "now"), old.output, backend="cpu")
    assert new.manifest.append.reused.keys() == {"val"}
    assert "was changed after the dataset was published" in new.manifest.append.rebuilt["train"]
    whole = build_once(tables, tmp_path / "now", tmp_path / "whole", growing_config())
    assert (
        new.manifest.digests == whole.manifest.digests
        and validate(new.output, checksums=True) == []
    )


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(earlier.os, "link", refuse)
    tables = make_log()
    _, whole, new = build_and_append(tmp_path, growing_config(), tables, cut_log(tables, TODAY))
    assert new.manifest.digests == whole.manifest.digests
    assert new.manifest.append.reused.keys() == {"train", "val"}
    assert validate(new.output, checksums=True) == []
