"""The contract's schema as data: names, order, types, roles, and how files are stored."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from gpu_dcgen.contract import schema as contract

# "Training Sample Schema" of DC-002, copied.
CONTRACT_TYPES = {
    "user_id": "string",
    "user_age": "int16",
    "user_age_group": "category",
    "user_club_status": "category",
    "user_news_frequency": "category",
    "user_lifetime_days": "int16",
    "user_total_purchases": "int32",
    "user_avg_basket_size": "float32",
    "user_preferred_channel": "int8",
    "user_interaction_sequence": "list[int]",
    "user_sequence_lengths": "int16",
    "item_id": "string",
    "item_product_group": "category",
    "item_color_group": "category",
    "item_garment_group": "category",
    "item_department": "category",
    "item_index_group": "category",
    "item_popularity_score": "float32",
    "item_price_category": "category",
    "item_price_normalized": "float32",
    "label": "float32",
    "timestamp": "datetime64[ns]",
    "sales_channel": "int8",
    "day_of_week": "int8",
    "month": "int8",
    "season": "category",
    "negative_source": "category",
    "similarity_score": "float32",
    "sample_id": "string",
    "generation_timestamp": "datetime64[ns]",
}
ARROW_TYPES = {
    "string": pa.string(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "datetime64[ns]": pa.timestamp("ns"),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "float32": pa.float32(),
}
EVERY_FILE = [(file, "labeled_pair") for file in contract.FILES] + [
    ("train_dataset", "n_tuple"),
    ("train_dataset", "triplet"),
]


def values_of(type_):
    return (
        type_.value_type if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_) else type_
    )


def test_sample_columns_are_the_contracts_in_its_order():
    columns = contract.get_columns("train_dataset", extra_columns=False)
    assert [(c.name, c.type) for c in columns] == list(CONTRACT_TYPES.items())


@pytest.mark.parametrize("split", contract.SPLITS)
def test_every_split_has_the_contracts_arrow_types(split):
    schema = contract.make_arrow_schema(f"{split}_dataset", extra_columns=False)
    assert {
        field.name: field.type for field in schema if field.name != "user_interaction_sequence"
    } == {
        name: ARROW_TYPES[type_] for name, type_ in CONTRACT_TYPES.items() if type_ != "list[int]"
    }
    sequence = schema.field("user_interaction_sequence").type
    assert pa.types.is_list(sequence)
    assert sequence.value_type == pa.int32()


def test_extra_columns_follow_the_contracts():
    schema = contract.make_arrow_schema("val_dataset")
    assert schema.names[: len(CONTRACT_TYPES)] == list(CONTRACT_TYPES)
    assert schema.names[len(CONTRACT_TYPES) :] == [
        "sample_weight",
        "negative_detail",
        "negative_log_q",
        "is_repurchase",
    ]


@pytest.mark.parametrize("shape", contract.SHAPES)
def test_what_gives_the_label_away_is_never_a_feature(shape):
    leaks = (
        "similarity_score",
        "negative_source",
        "negative_detail",
        "negative_log_q",
        "sample_id",
        "is_repurchase",
        "negative_similarity_score",
    )
    roles = {c.name: c.role for c in contract.get_columns("train_dataset", shape=shape)}
    assert all(roles.get(name, "metadata") == "metadata" for name in leaks)
    assert roles["user_id"] == roles["item_id"] == "id"


def test_roles_are_written_on_each_field_and_on_the_schema():
    schema = contract.make_arrow_schema("train_dataset")
    assert json.loads(schema.metadata[b"roles"]) == {
        f.name: f.metadata[b"role"].decode() for f in schema
    }
    assert [f.name for f in schema if f.metadata[b"role"] == b"label"] == ["label"]
    assert schema.field("user_interaction_sequence").metadata[b"contract_type"] == b"list[int]"


def test_keys_and_labels_are_never_null():
    schema = contract.make_arrow_schema("train_dataset")
    assert not any(
        schema.field(n).nullable
        for n in ("user_id", "item_id", "label", "timestamp", "sample_id", "sample_weight")
    )
    assert all(
        schema.field(n).nullable
        for n in ("user_age", "similarity_score", "negative_source", "item_price_normalized")
    )


def test_ids_of_sequences_and_negatives_are_strings_in_every_file():
    for file, shape in EVERY_FILE:
        for field in contract.make_arrow_schema(file, shape=shape):
            if field.name.endswith("item_id") or field.name == "user_id":
                assert values_of(field.type) == pa.string(), (file, shape, field.name)


def test_n_tuples_have_one_entry_a_negative():
    schema = contract.make_arrow_schema("train_dataset", shape="n_tuple", n_negatives=7)
    negatives = [f for f in schema if f.name.startswith("negative_")]
    assert len(negatives) == 8
    assert all(f.type.list_size == 7 for f in negatives)
    assert "label" not in schema.names


def test_triplets_have_the_same_columns_for_both_items():
    names = contract.make_arrow_schema("train_dataset", shape="triplet").names
    assert {n for n in names if n.startswith("item_")} == {
        n[9:] for n in names if n.startswith("negative_item_")
    }


def test_the_shape_changes_the_splits_only():
    assert contract.make_arrow_schema(
        "user_sequences", shape="n_tuple"
    ) == contract.make_arrow_schema("user_sequences")


def test_settings_follow_the_contracts_codecs():
    assert (
        contract.make_writer_settings("train_dataset", compression_level=5).compression_level == 5
    )
    assert contract.make_writer_settings("user_sequences").compression == "zstd"
    matrix = contract.make_writer_settings("item_similarity_matrix", compression_level=5)
    assert (matrix.compression, matrix.compression_level) == ("snappy", None)


@pytest.mark.parametrize("file, shape", EVERY_FILE)
def test_settings_name_columns_of_their_file(file, shape):
    settings = contract.make_writer_settings(file, shape=shape)
    names = {c.name for c in contract.get_columns(file, shape=shape)}
    assert {*settings.encodings, *settings.statistics} <= names
    assert set(settings.encodings.values()) <= {"PLAIN", "DELTA_BYTE_ARRAY"}


def test_importing_the_contract_loads_no_table_library():
    code = (
        "import sys, gpu_dcgen.contract.schema; "
        "print([m for m in ('pyarrow', 'pandas', 'polars') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
