"""gpu-dcgen cards: one schema in three descriptions, accepted by the standards' tools."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from gpu_dcgen.auditing import audit, verify
from gpu_dcgen.cards import write_cards
from gpu_dcgen.cards.readme import escape
from gpu_dcgen.cli import app
from gpu_dcgen.contract.schema import (
    CARDS,
    FILES,
    SHAPES,
    get_columns,
    list_tables,
    make_arrow_schema,
)
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError, OutputError
from gpu_dcgen.storage.integrity import validate
from tests.support.shops import random_shop, tiny_config, write_shop

HOSTILE = "| a `b` <script>\n[x](y) \u202e# *"
CROISSANT = {
    "string": "sc:Text",
    "float": "cr:Float32",
    "bool": "sc:Boolean",
    "timestamp[ns]": "sc:DateTime",
}
LOGICAL = {"string": "string", "float": "number", "bool": "boolean", "timestamp[ns]": "timestamp"}
FORMS = {
    "whole": {"groups_per_part": 262_144, "hard_candidates": True},
    "parts": {"groups_per_part": 16, "groups_per_row_group": 8},
    "n_tuple": {"shape": "n_tuple"},
    "triplet": {"shape": "triplet"},
    "plain": {"extra_columns": False, "groups_per_part": 262_144},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a dataset of a form with its cards, once; the input is in the folder beside it."""
    folder = tmp_path_factory.mktemp("cards")
    tables = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True)
    for k, article in enumerate(tables["articles"]):
        article |= {"product_group_name": HOSTILE + "secret"[k % 3 :], "department_name": HOSTILE}
    write_shop(tables, folder / "input")
    known: dict[str, Path] = {}

    def build_once(form: str) -> Path:
        if form not in known:
            known[form] = folder / form
            build(folder / "input", known[form], tiny_config(output=FORMS[form]), backend="cpu")
            write_cards(known[form])
        return known[form]

    return build_once


def list_tables_of(form: str) -> list[str]:
    return list_tables(hard_candidates=FORMS[form].get("hard_candidates", False))


def front_and_body(dataset: Path) -> tuple[dict, str]:
    _, front, body = (dataset / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def plain(type_: pa.DataType) -> str:
    """The name of a value's type; of a list's or a dictionary's elements."""
    return plain(type_.value_type) if hasattr(type_, "value_type") else str(type_)


def schema_of(dataset: Path, table: str) -> pa.Schema:
    path = dataset / f"{table}.parquet"
    return pq.read_schema(next(iter(sorted(path.glob("*"))), path) if path.is_dir() else path)


@pytest.mark.parametrize("form", FORMS)
def test_every_column_has_its_name_order_and_type_in_all_three(built, form):
    dataset = built(form)
    front, body = front_and_body(dataset)
    croissant = json.loads((dataset / "croissant.json").read_text("utf-8"))
    contract = yaml.safe_load((dataset / "datacontract.yaml").read_text("utf-8"))
    records = {entry["@id"]: entry["field"] for entry in croissant["recordSet"]}
    tables = {entry["name"]: entry["properties"] for entry in contract["schema"]}
    features = {entry["config_name"]: entry["features"] for entry in front["dataset_info"]}
    assert list(tables) == list_tables_of(form)
    for table in tables:
        schema = schema_of(dataset, table)
        lists = [hasattr(t, "value_type") and not pa.types.is_dictionary(t) for t in schema.types]
        sizes = [getattr(t, "list_size", None) for t in schema.types]
        values = [plain(t) for t in schema.types]
        fields = records[f"{table}_records"]
        assert [f["name"] for f in fields] == [p["name"] for p in tables[table]] == schema.names
        assert [f["dataType"] for f in fields] == [
            CROISSANT.get(v, f"cr:{v.capitalize()}") for v in values
        ]
        assert (
            [f.get("isArray", False) for f in fields]
            == [p["logicalType"] == "array" for p in tables[table]]
            == lists
        )
        assert [int(f.get("arrayShape", -1)) for f in fields] == [size or -1 for size in sizes]
        assert [p.get("items", p)["logicalType"] for p in tables[table]] == [
            LOGICAL.get(v, "integer") for v in values
        ]
        assert [p["required"] for p in tables[table]] == [not field.nullable for field in schema]
        entries = features["samples" if table.endswith("_dataset") else table]
        assert [f["name"] for f in entries] == schema.names
        assert [f.get("list", f.get("dtype")) for f in entries] == [
            {"float": "float32"}.get(v, v) for v in values
        ]
        assert [f.get("length") for f in entries] == sizes
        assert all(f"| `{name}` |" in body for name in schema.names)


@pytest.mark.parametrize("form", ["whole", "parts"])
def test_files_and_checksums_are_those_of_the_manifest(built, form):
    dataset = built(form)
    manifest = json.loads((dataset / "manifest.json").read_text("utf-8"))
    entries = json.loads((dataset / "croissant.json").read_text("utf-8"))["distribution"]
    files = {entry["contentUrl"]: entry for entry in entries if entry["@type"] == "cr:FileObject"}
    assert {name: entry["sha256"] for name, entry in files.items()} == manifest["checksums"]
    assert {name: entry["contentSize"] for name, entry in files.items()} == {
        n: f"{s} B" for n, s in manifest["files"].items()
    }
    for entry in front_and_body(dataset)[0]["configs"]:
        for data in (
            entry["data_files"]
            if isinstance(entry["data_files"], list)
            else [{"path": entry["data_files"]}]
        ):
            assert list(dataset.glob(data["path"]))
    assert any(entry["@type"] == "cr:FileSet" for entry in entries) == (form == "parts")


def test_the_readme_gives_the_numbers_of_the_manifest(built):
    manifest = json.loads((built("whole") / "manifest.json").read_text("utf-8"))
    body = front_and_body(built("whole"))[1]
    for k, split in enumerate(("train", "val", "test")):
        groups, rows = manifest["counts"][split]["groups"], manifest["counts"][split]["rows"]
        edges = [manifest["split"]["windows"][name] for name in ("first", "cut1", "cut2", "last")][
            k : k + 2
        ]
        users = manifest["split"]["shares"][split]["users"]
        assert f"| {split} | {edges[0]} | {edges[1]} | {groups:,} | {rows:,} | {users:,} |" in body


@pytest.mark.parametrize("shape", SHAPES)
def test_every_column_of_the_contract_is_described_in_a_sentence(shape):
    for file in FILES:
        for column in get_columns(file, shape=shape):
            assert re.fullmatch(r"[A-Z01].+\.", column.description), (file, column.name)
    for field in make_arrow_schema("train_dataset", shape=shape):
        assert b"description" not in field.metadata  # footers stay as they were


def test_cards_name_nothing_of_the_inputs_and_are_the_same_again(built, tmp_path):
    dataset = built("whole")
    again = write_cards(shutil.copytree(dataset, tmp_path / "elsewhere"), overwrite=True)
    for name, path in zip(CARDS, again, strict=True):
        text = path.read_text("utf-8")
        assert text == (dataset / name).read_text("utf-8")
        assert (
            "<script>" not in text
            and str(dataset.parent) not in text
            and "transactions.parquet" not in text
        )


def test_hostile_text_stays_in_its_cell_and_its_scalar(built, tmp_path):
    assert escape(HOSTILE) == r"\| a \`b\` \<script\> \[x\](y) \\u202e\# \*"
    assert len(escape("x" * 1000)) == 120
    dataset = shutil.copytree(built("whole"), tmp_path / "forged")
    manifest = json.loads((dataset / "manifest.json").read_text("utf-8"))
    manifest |= {"generated_at": HOSTILE, "generator": {"name": HOSTILE, "version": HOSTILE}}
    manifest["ledger"] |= {HOSTILE: 7}
    (dataset / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    write_cards(dataset, overwrite=True)
    body = front_and_body(dataset)[1]
    assert "<script>" not in body and "\u202e" not in body and r"\<script\>" in body
    assert (
        yaml.safe_load((dataset / "datacontract.yaml").read_text("utf-8"))["contractCreatedTs"]
        == HOSTILE
    )


def test_cards_do_not_disturb_what_was_proved(built, tmp_path):
    dataset = shutil.copytree(built("parts"), tmp_path / "audited")
    for name in CARDS:
        (dataset / name).unlink()
    certificate = dataset / "certificate.json"
    assert (
        audit(built("parts").parent / "input", dataset, certificate=certificate)["verdict"]
        == "holds"
    )
    result = CliRunner().invoke(app, ["cards", str(dataset)])
    assert result.exit_code == 0 and "croissant.json" in result.stdout
    assert verify(certificate, dataset) == [] == validate(dataset, checksums=True)
    assert (
        audit(built("parts").parent / "input", dataset, certificate=certificate)["verdict"]
        == "holds"
    )
    (dataset / "NOTES.md").write_text("mine")
    assert verify(certificate, dataset) == ["NOTES.md: was added after the audit"]


def test_a_readme_of_somebody_is_not_replaced_unasked(built, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        write_cards(built("whole"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md"]
    with pytest.raises(InputError, match="manifest.json: does not exist; expected a dataset"):
        write_cards(tmp_path, tmp_path / "other")
    with pytest.raises(OutputError, match="cannot be written"):
        write_cards(built("whole"), tmp_path / "README.md" / "below")
    paths = write_cards(built("whole"), tmp_path / "a" / "new folder")
    assert all(path.parent == tmp_path / "a" / "new folder" and path.is_file() for path in paths)


@pytest.mark.parametrize("form", FORMS)
def test_hugging_face_accepts_the_readme(built, form):
    hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    card = hub.DatasetCard.load(built(form) / "README.md")
    assert (
        card.data.license == "other"
        and [c["config_name"] for c in card.data.configs][0] == "samples"
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", FORMS)
def test_datasets_loads_every_table_by_the_readme(built, form, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    load = datasets.load_dataset
    rows = load(str(built(form)), "samples", split="validation", cache_dir=str(tmp_path))
    assert rows.num_rows == pq.read_table(built(form) / "val_dataset.parquet").num_rows
    for table in (name for name in list_tables_of(form) if not name.endswith("_dataset")):
        loaded = load(str(built(form)), table, split="train", cache_dir=str(tmp_path))
        assert loaded.num_rows == pq.read_table(built(form) / f"{table}.parquet").num_rows


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", FORMS)
def test_mlcroissant_accepts_it_and_reads_the_rows(built, form):
    mlc = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    dataset = mlc.Dataset(jsonld=built(form) / "croissant.json")
    assert not dataset.metadata.issues.errors
    for table in list_tables_of(form):
        records = list(itertools.islice(dataset.records(record_set=f"{table}_records"), 3))
        ids = pq.read_table(built(form) / f"{table}.parquet").column(0).to_pylist()
        values = [next(iter(record.values())) for record in records]
        assert (
            [v.decode() if isinstance(v, bytes) else v for v in values] == ids[:3]
            if form != "parts"
            else len(values) == 3
        )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", FORMS)
def test_datacontract_finds_the_files_as_the_contract_says(built, form, tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    datacontract = pytest.importorskip(
        "datacontract.data_contract", reason="pip install 'datacontract-cli[duckdb]'"
    )
    monkeypatch.chdir(built(form))
    contract = datacontract.DataContract
    assert contract(data_contract_file="datacontract.yaml").lint().result == "passed"
    assert contract(data_contract_file="datacontract.yaml").test().result in ("passed", "warning")
    text = Path("datacontract.yaml").read_text("utf-8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(re.sub(r"mustBe: (\d\d+)", "mustBe: 1", text, count=1), "utf-8")
    assert contract(data_contract_file=str(wrong)).test().result == "failed"
