"""audit() on data sets that nobody has touched: it agrees with the build, whatever the settings and the dress of the inputs."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gpu_dcgen import audit as auditing
from gpu_dcgen.audit import audit, read_key, verify
from gpu_dcgen.audit.checks import RULES
from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import InputError, OutputError
from tests.shops import Tables, random_shop, tiny_config, write_shop
from tests.test_against_reference import VARIANTS

MORE_VARIANTS = {
    **VARIANTS,
    "n-tuples": {"output": {"shape": "n_tuple"}},
    "n-tuples of the contract alone": {"output": {"shape": "n_tuple", "extra_columns": False}},
    "the contract's columns alone": {"output": {"extra_columns": False}},
    "no neighbors": {"similarity": {"min_common_users": 100}},
    "no in-batch negatives": {"negative_sampling": {"in_batch_negatives": False}},
    "resampled and shuffled": {"category_balancing": {"mode": "resample"}, "output": {"order": "shuffled"}},
}
MAY_BE_SKIPPED = {"label_probe", "disjoint_users", "weights", "repurchases", "negative_details", "similarity_matrix"}


def shop(seed: int = 2) -> Tables:
    return random_shop(seed, n_users=18, n_items=26, n_rows=320, minutes=True, views=True)


def built(tables: Tables, folder: Path, config: Any = None) -> Path:
    if tables is not None:
        write_shop(tables, folder / "input")
    return build(folder / "input", folder / "output", config or tiny_config(), backend="cpu", overwrite=True).output


def faults(certificate: dict) -> dict[str, list]:
    return {check["name"]: check["offenders"] for check in certificate["checks"] if check["verdict"] == "fails"}


@pytest.mark.parametrize("variant", MORE_VARIANTS)
@pytest.mark.parametrize("seed", range(2))
def test_what_was_built_passes(variant, seed, tmp_path):
    output = built(shop(seed), tmp_path, tiny_config(**MORE_VARIANTS[variant]))
    certificate = audit(tmp_path / "input", output)
    assert faults(certificate) == {}
    assert certificate["verdict"] == "holds"
    skipped = {check["name"] for check in certificate["checks"] if check["verdict"] == "skipped"}
    assert skipped <= MAY_BE_SKIPPED


def test_the_default_settings_pass_too(tmp_path):
    """Groups of 16, five hard negatives, weekly snapshots: on a shop of its size."""
    from gpu_dcgen.config import DatasetConfig
    from gpu_dcgen.synth import generate

    generate(tmp_path / "input", scale=0.001)
    assert faults(audit(tmp_path / "input", built(None, tmp_path, DatasetConfig()), sample=40)) == {}


# -- inputs in another dress ---------------------------------------------------------------------------------------


def rewrite(folder: Path, table: str, **columns: Any) -> pa.Table:
    """The table with columns replaced by what functions make of their Python values."""
    path = folder / f"{table}.parquet"
    content = pq.read_table(path)
    for name, change in columns.items():
        place = content.schema.get_field_index(name)
        content = content.set_column(place, name, change(content[name]))
    pq.write_table(content, path)
    return content


def test_tables_in_hive_folders(tmp_path):
    write_shop(shop(), tmp_path / "input")
    for table, key in (("articles", "product_group_name"), ("transactions", "sales_channel_id")):
        content = pq.read_table(tmp_path / "input" / f"{table}.parquet")
        (tmp_path / "input" / f"{table}.parquet").unlink()
        parts = ds.partitioning(pa.schema([content.schema.field(key)]), flavor="hive")
        ds.write_dataset(content, tmp_path / "input" / table, format="parquet", partitioning=parts)
    assert faults(audit(tmp_path / "input", built(None, tmp_path))) == {}


def test_integer_ids_text_times_decimal_prices_and_dictionaries(tmp_path):
    write_shop(shop(), tmp_path / "input")
    for table in ("articles", "transactions", "views"):
        rewrite(tmp_path / "input", table, article_id=lambda ids: ids.cast(pa.int64()))
    iso = lambda times: pa.array([f"{time.isoformat()}.5+02:00" for time in times.cast(pa.timestamp("us")).to_pylist()])  # noqa: E731
    prices = lambda values: pa.array([Decimal(f"{value:.4f}") for value in values.to_pylist()], pa.decimal128(9, 4))  # noqa: E731
    rewrite(tmp_path / "input", "transactions", t_dat=iso, price=prices, customer_id=lambda ids: ids.dictionary_encode())
    rewrite(tmp_path / "input", "customers", age=lambda ages: ages.cast(pa.string()))
    output = built(None, tmp_path, tiny_config(inputs={"article_id_width": 10}))
    assert faults(audit(tmp_path / "input", output)) == {}


def test_dates_other_column_names_and_index_names(tmp_path):
    tables = random_shop(1, n_users=18, n_items=26, n_rows=320)
    write_shop(tables, tmp_path / "input", unit="date")
    log = pq.read_table(tmp_path / "input" / "transactions.parquet")
    pq.write_table(log.rename_columns(["day", *log.column_names[1:]]), tmp_path / "input" / "transactions.parquet")
    articles = pq.read_table(tmp_path / "input" / "articles.parquet")
    names = [(["Baby Sizes 50-98", "Divided", None, "Ladies Accessories"])[n % 4] for n in range(articles.num_rows)]
    articles = articles.drop_columns("index_group_name").append_column("index_name", pa.array(names))
    pq.write_table(articles, tmp_path / "input" / "articles.parquet")
    output = built(None, tmp_path, tiny_config(inputs={"columns": {"transactions": {"t_dat": "day"}}}))
    assert faults(audit(tmp_path / "input", output)) == {}


def test_bad_rows_that_the_build_set_aside(tmp_path):
    """One of each reason: the audit gives each row the reason that the build gave it."""
    tables = shop()
    good = dict(tables["transactions"][0])
    for name, value in (
        ("customer_id", None), ("article_id", ""), ("article_id", "nothing"), ("customer_id", "nobody"), ("t_dat", None),
        ("t_dat", -1), ("price", None), ("price", 0.0), ("price", float("nan")), ("price", 2e9),
    ):  # fmt: skip
        tables["transactions"].append({**good, name: value})
    tables["articles"] += [
        dict(tables["articles"][0]),
        {**tables["articles"][1], "colour_group_name": "Neon"},
        {"article_id": ""},
    ]
    tables["customers"] += [dict(tables["customers"][0])] * 2
    output = built(tables, tmp_path, tiny_config(inputs={"on_bad_rows": "reject", "min_quality_score": 0.5}))
    manifest = json.loads((output / "manifest.json").read_text())
    assert len(manifest["inputs"]["rejects"]["transactions"]) >= 7 and manifest["inputs"]["rejects"]["articles"]
    assert faults(audit(tmp_path / "input", output)) == {}


def test_hostile_category_names(tmp_path):
    """Right-to-left, quotes, markup and 10 kB of text go through digests and vocabularies unharmed."""
    tables = shop()
    names = ["<script>alert('x')</script>", "مرحبا", 'a "quoted", name', "x" * 10_000, "\u202eevil", "ß\u0000é"]
    for n, article in enumerate(tables["articles"]):
        article["colour_group_name"] = names[n % len(names)]
    config = tiny_config(resources={"batch_size": 10_000}, output={"groups_per_row_group": 10_000})
    assert faults(audit(tmp_path / "input", built(tables, tmp_path, config))) == {}


# -- what it cannot read -------------------------------------------------------------------------------------------


def test_a_folder_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no data set"):
        audit(tmp_path, tmp_path)


def test_another_shape_is_refused_with_a_way_out(tmp_path):
    output = built(shop(), tmp_path, tiny_config(output={"shape": "triplet"}))
    with pytest.raises(InputError, match="has the shape triplet; the audit reads labeled_pair and n_tuple"):
        audit(tmp_path / "input", output)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"config": {"output": {}}}'])
def test_a_manifest_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is no manifest of gpu-dcgen"):
        audit(tmp_path, tmp_path)


def test_inputs_that_are_not_there_are_refused(tmp_path):
    output = built(shop(), tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        audit(tmp_path / "nowhere", output)
    (tmp_path / "input" / "customers.parquet").unlink()
    with pytest.raises(InputError, match="there is no customers.parquet"):
        audit(tmp_path / "input", output)


def test_a_part_that_is_no_parquet_file_is_a_finding(tmp_path):
    output = built(shop(), tmp_path, tiny_config(output={"groups_per_part": 10_000}))
    (output / "val_dataset.parquet").write_bytes(b"torn")
    found = faults(audit(tmp_path / "input", output))
    assert {"files", "schema", "digests"} <= found.keys() and "unreadable" in found["schema"][0]["found"]


def test_similarities_beyond_the_limit_are_a_sample(tmp_path, monkeypatch):
    output = built(shop(), tmp_path)
    monkeypatch.setattr(auditing, "MOST_PRODUCTS", 300)
    certificate = audit(tmp_path / "input", output)
    (check,) = [check for check in certificate["checks"] if check["name"] == "similarity_matrix"]
    assert certificate["verdict"] == "holds" and "seeded items of" in check["scope"] and check["n_checked"] > 0


# -- the certificate -----------------------------------------------------------------------------------------------

KEY = b"sixteen bytes or more"


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """A folder with input, output and certificates: plain.json and keyed.json."""
    folder = tmp_path_factory.mktemp("audited")
    output = built(shop(), folder)
    audit(folder / "input", output, certificate=folder / "plain.json")
    audit(folder / "input", output, certificate=folder / "keyed.json", key=KEY)
    return folder


def test_the_certificate_says_what_it_speaks_of(audited):
    certificate = json.loads((audited / "plain.json").read_text("utf-8"))
    manifest = json.loads((audited / "output" / "manifest.json").read_text("utf-8"))
    assert certificate["content_digest"] == manifest["content_digest"] and certificate["digests"] == manifest["digests"]
    assert certificate["inputs"] == manifest["inputs"]["files"] and certificate["config"] == manifest["config"]
    assert {entry["file"] for entry in certificate["outputs"]} == manifest["files"].keys() | {"manifest.json"}
    assert dt.datetime.fromisoformat(certificate["audited_at"]).tzinfo is not None
    assert "whoever can change the certificate can compute the value anew" in certificate["signature"]["proves"]


def test_an_untouched_certificate_and_data_set_verify(audited):
    assert verify(audited / "plain.json", audited / "output") == []
    assert verify(audited / "keyed.json", audited / "output", KEY) == []


@pytest.mark.parametrize(("name", "key"), [("plain.json", None), ("keyed.json", KEY)])
def test_a_changed_certificate_does_not_verify(name, key, audited, tmp_path):
    certificate = json.loads((audited / name).read_text("utf-8"))
    certificate["checks"][0]["n_checked"] += 1
    (tmp_path / name).write_text(json.dumps(certificate), "utf-8")
    assert "the signature does not fit" in verify(tmp_path / name, key=key)[0]


def test_another_key_does_not_verify(audited):
    assert "the signature does not fit" in verify(audited / "keyed.json", key=b"another key of 16 bytes")[0]
    with pytest.raises(InputError, match="was signed with a key"):
        verify(audited / "keyed.json")
    with pytest.raises(InputError, match="was signed without a key"):
        verify(audited / "plain.json", key=KEY)


def test_files_that_changed_after_the_audit_are_named(tmp_path):
    output = built(shop(), tmp_path)
    audit(tmp_path / "input", output)
    (output / "vocabulary.json").write_text("{}")
    (output / "item_vocabulary.parquet").unlink()
    (output / "more.txt").write_text("more")
    assert verify(output / "certificate.json", output) == [
        "item_vocabulary.parquet: is missing",
        "more.txt: was added after the audit",
        "vocabulary.json: was changed after the audit",
    ]


def test_a_second_audit_of_the_same_folder_sees_the_same(tmp_path):
    """The certificate beside the data set is no file of it."""
    output = built(shop(), tmp_path)
    first, second = (audit(tmp_path / "input", output) for _ in range(2))
    moving = {"audited_at", "signature"}
    assert {k: v for k, v in first.items() if k not in moving} == {k: v for k, v in second.items() if k not in moving}


def test_a_key_must_be_there_and_long_enough(tmp_path):
    with pytest.raises(InputError, match="the key cannot be read"):
        read_key(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(InputError, match="has 5 bytes; expected at least 16"):
        read_key(tmp_path / "short")
    assert read_key(None) is None


def test_a_certificate_that_cannot_be_written_is_an_error(audited, tmp_path):
    with pytest.raises(OutputError, match="the certificate cannot be written"):
        audit(audited / "input", audited / "output", certificate=tmp_path / "no" / "such" / "folder.json")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"signature": {}}'])
def test_what_is_no_certificate_is_refused(content, tmp_path):
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(InputError, match="is no certificate of gpu-dcgen"):
        verify(tmp_path / "certificate.json")


# -- the commands --------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "160", "TERM": "dumb"})


def test_the_command_shows_every_rule_and_verifies(audited, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    path = tmp_path / "certificate.json"
    result = run("audit", audited / "input", audited / "output", "--certificate", path, "--key", tmp_path / "key", "--sample", 5)
    assert result.exit_code == 0, result.output
    assert "Every rule holds." in result.stdout and str(path) in result.stdout.replace("\n", "")
    assert all(rule in result.stdout for rule in RULES)
    checked = run("verify", path, audited / "output", "--key", tmp_path / "key")
    assert (checked.exit_code, checked.stdout.split(":")[1][:10]) == (0, " unchanged")


def test_a_rule_that_does_not_hold_is_exit_3_and_shown(tmp_path):
    output = built(shop(), tmp_path)
    manifest = json.loads((output / "manifest.json").read_text("utf-8"))
    manifest["ledger"]["history"] += 1
    (output / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    result = run("audit", tmp_path / "input", output)
    assert result.exit_code == 3
    assert "1 of 27 rules do not hold." in result.stdout and "counts (D7, D20): 1 wrong" in result.stdout
    events = [json.loads(line) for line in run("audit", tmp_path / "input", output, "--json").stdout.splitlines()]
    assert events[-1]["event"] == "audited" and events[-1]["certificate"]["verdict"] == "fails"
    refused = run("verify", output / "certificate.json", output)
    assert refused.exit_code == 3 and "the audit's verdict is 'fails'" in refused.stdout


def test_bad_input_is_exit_2(tmp_path):
    assert run("audit", tmp_path, tmp_path).exit_code == 2
    assert run("verify", tmp_path / "none.json").exit_code == 2


# -- real shops ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_online_retail_passes(online_retail, tmp_path):
    output = build(online_retail, tmp_path / "output", backend="cpu").output
    certificate = audit(online_retail, output)
    assert faults(certificate) == {}
    (probe,) = [check for check in certificate["checks"] if check["name"] == "label_probe"]
    for part in ("all", "without_repurchases"):
        assert 0.5 < probe["facts"][part]["popularity_auc"] < 0.8
        assert probe["facts"][part]["classifier_auc"] < probe["facts"][part]["popularity_auc"] + 0.1
    assert probe["facts"]["known_exception"]["auc"] > 0.6


@pytest.mark.slow
def test_the_complete_journey_passes(tmp_path):
    from gpu_dcgen.demo import write_tables

    write_tables(tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", backend="cpu").output
    assert faults(audit(tmp_path / "input", output)) == {}
