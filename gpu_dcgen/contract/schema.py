"""The contract's files, columns and vocabularies, as data ("Output Specifications").

Order and type names of columns are the contract's; columns of our own (D17) follow them.
`make_arrow_schema` returns the schema that a file has, whichever backend writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .. import __version__
from .descriptions import DESCRIPTIONS

CONTRACT = "DC-002 1.0.0"
SPLITS = ("train", "val", "test")
InputTable = Literal["articles", "customers", "transactions", "views"]
# Only transactions are required; views may be beside them.
TABLES: tuple[InputTable, ...] = ("articles", "customers", "transactions")
# Written by `gpu-dcgen cards` into a dataset; they are about its files, not among them.
CARDS = ("README.md", "croissant.json", "datacontract.yaml")

AGE_GROUPS = ("16-24", "25-34", "35-44", "45-54", "55+")
CLUB_STATUS = ("ACTIVE", "PRE-CREATION", "LEFT CLUB")
NEWS_FREQUENCY = ("NONE", "Regularly", "Monthly", "None")
SEASONS = ("Spring", "Summer", "Fall", "Winter")
NEGATIVE_SOURCES = ("random", "hard", "in_batch")  # D14: the contract names them twice, differently
# D13, D17. Their places are codes in files: a new source comes last.
NEGATIVE_DETAILS = (
    "item_cf",
    "collaborative",
    "category_crossing",
    "fallback",
    "random",
    "viewed",
)
# Those that list candidates.
CANDIDATE_SOURCES = tuple(name for name in NEGATIVE_DETAILS if name not in ("fallback", "random"))
PRICE_CATEGORIES = ("Q1", "Q2", "Q3", "Q4")  # D6

InputRole = Literal["key", "category", "number", "price", "time"]


@dataclass(frozen=True)
class InputColumn:
    """A column of an input table, under its name in H&M's files."""

    name: str
    role: InputRole
    is_required: bool = False
    becomes: str = ""  # the categorical column of users or items that it is read into


# All that is read (D1). Other columns are never opened: DC-001's aggregates know the future.
INPUT_COLUMNS: dict[InputTable, tuple[InputColumn, ...]] = {
    "articles": (
        InputColumn("article_id", "key", is_required=True),
        InputColumn("product_group_name", "category", becomes="product_group"),
        InputColumn("colour_group_name", "category", becomes="color_group"),
        InputColumn("garment_group_name", "category", becomes="garment_group"),
        InputColumn("department_name", "category", becomes="department"),
        InputColumn("index_group_name", "category", becomes="index_group"),
        # Read where there is no index_group_name, which is then derived from it.
        InputColumn("index_name", "category"),
        InputColumn("product_code", "category", becomes="product_code"),
        InputColumn("section_name", "category", becomes="section"),
        InputColumn("prod_name", "category", becomes="name"),
    ),
    "customers": (
        InputColumn("customer_id", "key", is_required=True),
        InputColumn("age", "number"),
        InputColumn("club_member_status", "category", becomes="club_status"),
        InputColumn("fashion_news_frequency", "category", becomes="news_frequency"),
    ),
    "transactions": (
        InputColumn("t_dat", "time", is_required=True),
        InputColumn("customer_id", "key", is_required=True),
        InputColumn("article_id", "key", is_required=True),
        InputColumn("price", "price"),  # required or not: `inputs.price`
        InputColumn("sales_channel_id", "number"),
        InputColumn("event", "category", is_required=True),  # read for `inputs.events`
        InputColumn("rating", "number", is_required=True),  # read for `inputs.min_rating`
    ),
    "views": (
        InputColumn("t_dat", "time", is_required=True),
        InputColumn("customer_id", "key", is_required=True),
        InputColumn("article_id", "key", is_required=True),
    ),
}

Role = Literal["id", "feature", "label", "metadata"]
Encoding = Literal["DICTIONARY", "PLAIN", "DELTA_BYTE_ARRAY"]


@dataclass(frozen=True)
class Column:
    """One column of a file; `encoding` and `statistics` say how it is stored."""

    name: str
    # As the contract spells it: `list[int]` is list<int32>; `tuple[...]` has an entry per negative.
    type: str
    role: Role
    nullable: bool = False
    encoding: Encoding | None = None  # None: `_ENCODINGS` by type
    # Minima and maxima, for columns by which a filter can skip row groups: of all columns they
    # would take a fifth of the time of writing.
    statistics: bool = False

    @property
    def description(self) -> str:
        """One sentence; of a triplet's negative, that of the item's column."""
        own = DESCRIPTIONS.get(self.name)
        return own or f"Of the hard negative: {DESCRIPTIONS[self.name.removeprefix('negative_')]}"


@dataclass(frozen=True)
class File:
    """One Parquet file (or folder of parts) of the output."""

    row: str  # what one row is
    columns: tuple[Column, ...]
    extra_columns: tuple[Column, ...] = ()  # D17; `output.extra_columns: false` leaves them out
    compression: Literal["zstd", "snappy"] = "zstd"


# Chosen by `tests/benchmarks/encodings.py`, on blocks like H&M's: nanoseconds of one core and bytes
# per row. Figures in parentheses are pyarrow's, of encodings that our encoder does not write.
#
#   numbers of user or calendar  dictionary 3.5 ns, 0.06 B; PLAIN 3.8 ns, 0.1 B
#   numbers of the item          dictionary 12 ns, 1.8 B; PLAIN 30 ns, 2.9 B;
#                                (BYTE_STREAM_SPLIT 16 ns, 3.3 B)
#   item indices in sequences    PLAIN 52 ns, 2.4 B; dictionary 184 ns, 2.5 B;
#                                (DELTA_BINARY_PACKED 337 ns, 9.4 B)
#   sample_id                    DELTA_BYTE_ARRAY 13 ns, 0.01 B; (PLAIN 50 ns, 0.6 B)
#   similarity_score             PLAIN 5 ns, 0.33 B; dictionary 10 ns, 0.33 B
#   negative_log_q               PLAIN 9 ns, 3.3 B; (BYTE_STREAM_SPLIT 18 ns, 3.1 B)
_ENCODINGS: dict[str, Encoding] = dict.fromkeys(("float32", "bool", "list[int]"), "PLAIN")

_USER_COLUMNS = (
    Column("user_id", "string", "id", statistics=True),
    Column("user_age", "int16", "feature", nullable=True),
    Column("user_age_group", "category", "feature", nullable=True),
    Column("user_club_status", "category", "feature", nullable=True),
    Column("user_news_frequency", "category", "feature", nullable=True),
    Column("user_lifetime_days", "int16", "feature"),
    Column("user_total_purchases", "int32", "feature"),
    Column("user_avg_basket_size", "float32", "feature", encoding="DICTIONARY"),
    Column("user_preferred_channel", "int8", "feature", nullable=True),
    Column("user_interaction_sequence", "list[int]", "feature"),
    Column("user_sequence_lengths", "int16", "feature"),
)

_ITEM_CATEGORIES = tuple(
    Column(name, "category", "feature", nullable=True)
    for name in (
        "item_product_group",
        "item_color_group",
        "item_garment_group",
        "item_department",
        "item_index_group",
    )
)

_ITEM_COLUMNS = (
    Column("item_id", "string", "id"),
    *_ITEM_CATEGORIES,
    Column("item_popularity_score", "float32", "feature", encoding="DICTIONARY"),
    Column("item_price_category", "category", "feature", nullable=True),
    Column("item_price_normalized", "float32", "feature", nullable=True, encoding="DICTIONARY"),
)

_TIME_COLUMNS = (
    Column("timestamp", "datetime64[ns]", "metadata", statistics=True),
    Column("sales_channel", "int8", "feature", nullable=True),
    Column("day_of_week", "int8", "feature", statistics=True),
    Column("month", "int8", "feature", statistics=True),
    Column("season", "category", "feature", statistics=True),
)

_BUILD_COLUMNS = (
    Column("sample_id", "string", "metadata", encoding="DELTA_BYTE_ARRAY"),
    Column("generation_timestamp", "datetime64[ns]", "metadata"),
)

_SIMILARITY = Column("similarity_score", "float32", "metadata", nullable=True)
_WEIGHT = Column("sample_weight", "float32", "metadata", encoding="DICTIONARY")
_REPURCHASE = Column("is_repurchase", "bool", "metadata")

SAMPLES = File(
    row="a sample: a user, an item, a label",
    columns=(
        *_USER_COLUMNS,
        *_ITEM_COLUMNS,
        Column("label", "float32", "label"),
        *_TIME_COLUMNS,
        Column("negative_source", "category", "metadata", nullable=True),
        _SIMILARITY,
        *_BUILD_COLUMNS,
    ),
    extra_columns=(
        _WEIGHT,
        Column("negative_detail", "category", "metadata", nullable=True),
        Column("negative_log_q", "float32", "metadata", nullable=True),
        _REPURCHASE,
    ),
)

N_TUPLES = File(
    row="a purchase with all of its negatives, as lists of equal length",
    columns=(
        *_USER_COLUMNS,
        *_ITEM_COLUMNS,
        *_TIME_COLUMNS,
        Column("negative_item_id", "tuple[string]", "id"),
        Column("negative_item_index", "tuple[int]", "feature"),
        Column("negative_popularity_score", "tuple[float32]", "feature"),
        Column("negative_price_normalized", "tuple[float32]", "feature"),
        Column("negative_source", "tuple[category]", "metadata"),
        Column("negative_similarity_score", "tuple[float32]", "metadata", encoding="PLAIN"),
        *_BUILD_COLUMNS,
    ),
    extra_columns=(
        _WEIGHT,
        Column("negative_detail", "tuple[category]", "metadata"),
        Column("negative_log_q", "tuple[float32]", "metadata", encoding="PLAIN"),
        _REPURCHASE,
    ),
)

TRIPLETS = File(
    row="a purchase beside its first hard negative",
    columns=(
        *_USER_COLUMNS,
        *_ITEM_COLUMNS,
        *_TIME_COLUMNS,
        *(replace(column, name=f"negative_{column.name}") for column in _ITEM_COLUMNS),
        Column("negative_source", "category", "metadata"),
        _SIMILARITY,
        *_BUILD_COLUMNS,
    ),
    extra_columns=(_WEIGHT, Column("negative_detail", "category", "metadata"), _REPURCHASE),
)

SHAPES = {"labeled_pair": SAMPLES, "n_tuple": N_TUPLES, "triplet": TRIPLETS}  # D19

HARD_CANDIDATES = "hard_candidates"  # written where `output.hard_candidates` is true

FILES: dict[str, File] = {
    **{f"{split}_dataset": SAMPLES for split in SPLITS},
    "item_similarity_matrix": File(
        "an item and one of its most similar items",
        (
            Column("item_id", "string", "id", statistics=True),
            Column("similar_item_id", "string", "id"),
            Column("similarity", "float32", "feature", statistics=True),
            Column("common_users", "int32", "feature", encoding="DICTIONARY"),
            Column("rank", "int32", "metadata", encoding="DICTIONARY"),
        ),
        compression="snappy",
    ),
    "user_sequences": File(
        "a user's latest purchases, in sessions, with temporal encodings",
        (
            Column("user_id", "string", "id", statistics=True),
            Column("split", "category", "metadata"),
            Column("item_indices", "list[int]", "feature"),
            Column("timestamps", "list[datetime64[ns]]", "metadata"),
            Column("session_ids", "list[int16]", "metadata"),
            *(
                Column(name, "list[float32]", "feature")
                for name in (
                    "recency",
                    "day_of_week_sin",
                    "day_of_week_cos",
                    "season_sin",
                    "season_cos",
                )
            ),
            Column("sequence_length", "int16", "feature"),
        ),
    ),
    "item_vocabulary": File(
        "an item, its integer index (0 is padding) and its categories",
        (
            Column("item_index", "int32", "id", statistics=True),
            Column("item_id", "string", "id", statistics=True),
            *_ITEM_CATEGORIES,
            *(
                Column(f"item_{name}", "string", "metadata", nullable=True)
                for name in ("product_code", "section", "name")
            ),
            Column("mining_weight", "int32", "metadata"),
            Column("n_train_positives", "int32", "metadata"),
            Column("n_train_hard_negatives", "int32", "metadata"),
        ),
    ),
    HARD_CANDIDATES: File(
        "a candidate in a list that hard negatives are drawn from",
        (
            Column("item_id", "string", "id"),
            Column("snapshot", "datetime64[ns]", "metadata", statistics=True),
            Column("candidate_id", "string", "id"),
            Column("source", "category", "metadata"),
            Column("score", "float32", "metadata", encoding="DICTIONARY"),
            Column("similarity", "float32", "metadata", nullable=True),
            Column("weight", "int32", "metadata", encoding="DICTIONARY"),
            Column("is_own_group", "bool", "metadata"),
            Column("popularity_score", "float32", "feature", encoding="DICTIONARY"),
            Column("price_category", "category", "feature", nullable=True),
            Column("price_normalized", "float32", "feature", nullable=True, encoding="DICTIONARY"),
        ),
    ),
}


@dataclass(frozen=True)
class WriterSettings:
    """How a part writer stores a file."""

    compression: str
    compression_level: int | None  # None where the codec has no levels
    rows_per_row_group: int  # at most; row groups hold whole groups (D16)
    # Of columns that are not dictionary-encoded.
    encodings: dict[str, str] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()  # columns with minima and maxima
    created_by: str = f"gpu-dcgen version {__version__}"


def list_tables(*, hard_candidates: bool) -> list[str]:
    """Return the names of the files that a dataset has, with or without the optional one."""
    return [name for name in FILES if hard_candidates or name != HARD_CANDIDATES]


def get_file(file: str, shape: str = "labeled_pair") -> File:
    """Return a file by its name without suffix; a split's dataset in one of the `SHAPES`."""
    return SHAPES[shape] if FILES[file] is SAMPLES else FILES[file]


def get_columns(
    file: str, extra_columns: bool = True, shape: str = "labeled_pair"
) -> tuple[Column, ...]:
    """Return the columns of a file, in order; without D17's where `extra_columns` is False."""
    entry = get_file(file, shape)
    return entry.columns + (entry.extra_columns if extra_columns else ())


def make_writer_settings(
    file: str,
    *,
    compression_level: int = 3,
    rows_per_row_group: int = 131_072,
    shape: str = "labeled_pair",
) -> WriterSettings:
    """Return how to write a file; `compression_level` is used by ZSTD only."""
    columns, compression = get_columns(file, shape=shape), get_file(file, shape).compression
    encodings = {
        column.name: column.encoding or _ENCODINGS.get(column.type, "DICTIONARY")
        for column in columns
    }
    return WriterSettings(
        compression=compression,
        compression_level=compression_level if compression == "zstd" else None,
        rows_per_row_group=rows_per_row_group,
        encodings={
            name: encoding for name, encoding in encodings.items() if encoding != "DICTIONARY"
        },
        statistics=tuple(column.name for column in columns if column.statistics),
    )


def make_arrow_schema(
    file: str, extra_columns: bool = True, shape: str = "labeled_pair", n_negatives: int = 15
) -> Any:
    """Return the pyarrow schema of a file, with roles in its metadata and its fields' (D17).

    `n_negatives` is the length of the n-tuple's lists.
    """
    import pyarrow as pa

    named = {
        "string": pa.string(),
        "category": pa.dictionary(pa.int32(), pa.string()),
        "datetime64[ns]": pa.timestamp("ns"),
        "bool": pa.bool_(),
        "int": pa.int32(),
    }

    def arrow_type(name: str) -> Any:
        if name.startswith("list["):
            return pa.list_(pa.field("element", arrow_type(name[5:-1]), nullable=False))
        if name.startswith("tuple["):
            return pa.list_(pa.field("element", arrow_type(name[6:-1])), n_negatives)
        return named[name] if name in named else getattr(pa, name)()

    columns = get_columns(file, extra_columns, shape)
    fields = [
        pa.field(c.name, arrow_type(c.type), c.nullable, {"role": c.role, "contract_type": c.type})
        for c in columns
    ]
    roles = {column.name: column.role for column in columns}
    return pa.schema(fields, {"contract": CONTRACT, "roles": json.dumps(roles)})
