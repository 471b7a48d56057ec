"""Plant one defect at a time in a dataset, and see that the rule against it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.dataset_generator.builder import build
from tests.support import defects_of_files, defects_of_samples, reference
from tests.support.audited_shops import get_check, get_faults
from tests.support.forgery import CONFIG, DEFECTS, WIDTH, Forgery
from tests.support.shops import random_shop, write_shop

assert defects_of_samples and defects_of_files  # importing them fills DEFECTS


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, reference.World]:
    """A folder with `input` and the published `output`, and what the reference says of it."""
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True)
    folder = tmp_path_factory.mktemp("shop")
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", CONFIG, backend="cpu")
    return folder, reference.build(tables, CONFIG)


def failing(certificate: dict) -> set[str]:
    return set(get_faults(certificate))


def test_the_untouched_dataset_passes(shop, tmp_path):
    certificate = audit(
        shop[0] / "input", shop[0] / "output", certificate=tmp_path / "certificate.json"
    )
    assert certificate["verdict"] == "holds" and not failing(certificate)
    assert {check["name"] for check in certificate["checks"]} == {rule for rule, _ in DEFECTS} | {
        "inputs",
        "digests",
    }


def test_there_are_many_defects_and_each_rule_has_one():
    assert len({defect for _, defect in DEFECTS}) == len(DEFECTS) >= 20


@pytest.mark.parametrize(
    ("rule", "defect"), DEFECTS, ids=[defect.__name__ for _, defect in DEFECTS]
)
def test_a_planted_defect_is_caught(rule, defect, shop, tmp_path):
    """By its own rule: the manifest was updated, so the digests agree."""
    folder, world = shop
    shutil.copytree(folder / "output", tmp_path / "output")
    forgery = Forgery(tmp_path / "output", world, WIDTH)
    defect(forgery)
    forgery.update_manifest()
    certificate = audit(folder / "input", tmp_path / "output")
    assert rule in failing(certificate)
    # Columns of other types are not read, so they have no digests.
    assert "digests" not in failing(certificate) or rule == "schema"
    check = get_check(certificate, rule)
    assert check["n_bad"] >= 1 and check["offenders"] and certificate["verdict"] == "fails"


def test_a_changed_value_without_a_changed_manifest_breaks_the_digests(shop, tmp_path):
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    Forgery(tmp_path / "output", shop[1], WIDTH).set(
        "item_similarity_matrix", "similarity", 0, 0.25
    )
    check = get_check(audit(shop[0] / "input", tmp_path / "output"), "digests")
    files = [offender["file"] for offender in check["offenders"]]
    assert files == ["item_similarity_matrix", "manifest.json"]


def test_inputs_that_are_not_those_of_the_build_are_found(shop, tmp_path):
    """A purchase more, after the last cut: the build did not have it."""
    shutil.copytree(shop[0] / "input", tmp_path / "input")
    log = pq.read_table(tmp_path / "input" / "transactions.parquet")
    pq.write_table(
        pa.concat_tables([log, log.slice(0, 1)]), tmp_path / "input" / "transactions.parquet"
    )
    certificate = audit(
        tmp_path / "input", shop[0] / "output", certificate=tmp_path / "certificate.json"
    )
    assert "inputs" in failing(certificate)


def test_an_approximate_search_may_miss_pairs_and_nothing_else(shop, tmp_path):
    """A missing pair is a defect of an exact search, and none of an approximate one."""
    for engine, expected in (("exact", True), ("approximate", False)):
        shutil.copytree(shop[0] / "output", tmp_path / engine)
        forgery = Forgery(tmp_path / engine, shop[1], WIDTH)
        forgery.take("item_similarity_matrix", lambda rows: rows[:-1])
        forgery.json(
            "manifest.json", lambda m, engine=engine: m["similarity"].update(engine=engine)
        )
        forgery.update_manifest()
        assert (
            "similarity_matrix" in failing(audit(shop[0] / "input", tmp_path / engine))
        ) == expected


@pytest.mark.parametrize(
    "file", ["train_dataset", "item_similarity_matrix", "user_sequences", "item_vocabulary"]
)
def test_nulls_everywhere_are_findings_and_no_crash(file, shop, tmp_path):
    """All columns of a file null in one row, and each of them alone in another."""
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    forgery = Forgery(tmp_path / "output", shop[1], WIDTH)
    table = forgery.table(file)
    columns = {}
    for n, name in enumerate(table.column_names):
        values = table[name].to_pylist()
        values[0], values[n % len(values)] = None, None
        columns[name] = pa.array(values, table.schema.field(name).type)
    forgery.write(file, pa.table(columns, metadata=table.schema.metadata))
    certificate = audit(shop[0] / "input", tmp_path / "output")
    assert {"schema", "digests"} <= failing(certificate)


@pytest.mark.parametrize("value", [None, [], "none of ours"], ids=["null", "list", "text"])
@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("counts", "split.windows_ns"),
        ("counts", "similarity.engine"),
        ("counts", "negatives"),
        ("counts", "counts.val"),
        ("inputs", "inputs.files"),
        ("inputs", "inputs.rows.articles"),
        ("files", "files"),
        ("digests", "digests.train_dataset"),
    ],
)
def test_manifest_entries_of_another_type_are_findings_and_no_crash(
    rule, path, value, shop, tmp_path
):
    *parents, name = path.split(".")
    content = json.loads((shop[0] / "output" / "manifest.json").read_text("utf-8"))
    entry = content
    for parent in parents:
        entry = entry[parent]
    entry[name] = value
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    (tmp_path / "output" / "manifest.json").write_text(json.dumps(content), "utf-8")
    assert rule in failing(audit(shop[0] / "input", tmp_path / "output"))
