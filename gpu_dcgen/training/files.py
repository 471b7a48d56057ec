"""The files of a split: parts, row groups and manifest, checked before they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract.json_files import REBUILD, read_json
from ..contract.manifest import Manifest
from ..contract.schema import CONTRACT, SPLITS
from ..errors import InputError
from ..storage.locations import require_local

_Result = TypeVar("_Result")
_SUFFIX = "_dataset.parquet"
# Files that define the meaning of the samples' integers. Those of another build would fit, and mean
# something else, so their sizes are checked.
_VOCABULARY_FILES = (
    "item_vocabulary.parquet",
    "user_sequences.parquet",
    "vocabulary.json",
    "category_mappings.json",
)


@dataclass(frozen=True)
class RowGroup:
    """Where a row group lies, and which groups (a positive and its negatives) it holds."""

    part: int  # index into `SplitFiles.parts`
    number: int  # within the part
    first: int  # number of its first group within the split
    n_groups: int


@dataclass(frozen=True)
class SplitFiles:
    """One split of a dataset on disk; small and immutable, and can be pickled."""

    folder: Path  # of the dataset, absolute
    split: str
    shape: str  # labeled_pair, n_tuple or triplet (D19)
    parts: tuple[Path, ...]
    footers: tuple[pq.FileMetaData, ...]  # of the parts
    row_groups: tuple[RowGroup, ...]
    schema: pa.Schema
    n_hard: int  # hard negatives of a positive
    n_random: int  # random negatives of a positive
    max_length: int  # of a sequence
    manifest: Manifest

    @property
    def width(self) -> int:
        """Number of candidates of a group: the positive and its negatives."""
        return 1 + self.n_hard + self.n_random

    @property
    def rows_per_group(self) -> int:
        """Number of rows of the file that hold one group."""
        return _count_rows_per_group(self.shape, self.width)

    @property
    def n_groups(self) -> int:
        """Number of groups, which is the number of positives."""
        return sum(group.n_groups for group in self.row_groups)

    def read(self, row_group: RowGroup, columns: list[str], dictionaries: list[str]) -> pa.Table:
        """Read columns of a row group; texts named in `dictionaries` become dictionary arrays.

        Opens the file each time, so that any number of threads may read at once. Raises InputError
        if it cannot be read.
        """

        def read(part: Path) -> pa.Table:
            file = pq.ParquetFile(
                part,
                metadata=self.footers[row_group.part],
                memory_map=False,
                read_dictionary=dictionaries,
                pre_buffer=False,
            )
            with file:
                return file.read_row_group(row_group.number, columns=columns, use_threads=False)

        return self.read_with(read, row_group)

    def read_with(self, read: Callable[[Path], _Result], row_group: RowGroup) -> _Result:
        """Call `read` with the part of a row group. InputError if that cannot be read."""
        part = self.parts[row_group.part]
        try:
            return read(part)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{part}: row group {row_group.number} cannot be read ({error}).\n"
                f"The file is damaged. {REBUILD}"
            ) from error


def open_split(path: Path | str, split: str | None = None) -> SplitFiles:
    """Open a split of a dataset and check its files.

    Args:
        path: Folder of the dataset, or a split's file or folder inside it.
        split: Name of the split; train, or that of `path`, unless given.

    Raises:
        InputError: A file is missing or damaged, has another size than the manifest says, or is of
            another version of the contract.
        ConfigError: `path` is a URL; copy the dataset first.
    """
    folder, split = _locate(require_local(path), split)
    folder = folder.resolve()  # so that the working directory may change while the split is read
    manifest = _load_manifest(folder / "manifest.json")
    for name in _VOCABULARY_FILES:
        _check_size(folder, name, manifest.files.get(name))
    parts = _list_parts(folder, split, manifest)
    footers = tuple(_read_footer(part) for part in parts)
    schema = footers[0].schema.to_arrow_schema()
    for part, footer in zip(parts, footers, strict=True):
        _check_schema(part, footer.schema.to_arrow_schema(), schema)
    shape: str = manifest.config["output"]["shape"]
    sampling: dict[str, int] = manifest.config["negative_sampling"]
    is_triplet = shape == "triplet"
    n_hard = 1 if is_triplet else sampling["hard_negatives_per_positive"]
    n_random = 0 if is_triplet else sampling["random_negatives_per_positive"]
    row_groups = _lay_out(parts, footers, _count_rows_per_group(shape, 1 + n_hard + n_random))
    n_found, n_expected = sum(g.n_groups for g in row_groups), manifest.counts[split].groups
    if n_found != n_expected:
        raise InputError(
            f"{parts[0]}: the split {split!r} has {n_found:,} positives, manifest.json says"
            f" {n_expected:,}.\n{REBUILD}"
        )
    return SplitFiles(
        folder=folder,
        split=split,
        shape=shape,
        parts=parts,
        footers=footers,
        row_groups=row_groups,
        schema=schema,
        n_hard=n_hard,
        n_random=n_random,
        max_length=manifest.config["sequence_processing"]["max_sequence_length"],
        manifest=manifest,
    )


def require_file(folder: Path, name: str, manifest: Manifest) -> Path:
    """Return the path of a dataset's file. InputError if its size is not the manifest's."""
    _check_size(folder, name, manifest.files.get(name))
    return folder / name


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a single file of a dataset. InputError if it cannot be read."""
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}).\n{REBUILD}") from error


def _count_rows_per_group(shape: str, width: int) -> int:
    return width if shape == "labeled_pair" else 1


def _locate(path: Path, split: str | None) -> tuple[Path, str]:
    """Return the folder of the dataset, and the split."""
    if path.name.endswith(_SUFFIX):
        named = path.name.removesuffix(_SUFFIX)
        if split not in (None, named):
            raise InputError(
                f"{path}: is the split {named!r}, but {split!r} was asked for.\n"
                "Leave out the split."
            )
        return path.parent, named
    split = split or "train"
    if split not in SPLITS:
        raise InputError(f"split {split!r}: expected one of {', '.join(SPLITS)}.")
    return path, split


def _load_manifest(path: Path) -> Manifest:
    """Read the manifest of a dataset of this version of the contract."""
    content = read_json(path, "Give the folder of a dataset, or a split's file inside it.")
    if content.get("contract") != CONTRACT:
        raise InputError(
            f"{path}: contract {content.get('contract')!r}, expected {CONTRACT!r}.\n"
            "Build the dataset again with this version, or read it with the version that built it."
        )
    return Manifest.parse(content, path, REBUILD)


def _list_parts(folder: Path, split: str, manifest: Manifest) -> tuple[Path, ...]:
    """List the part files of the split in order, and check their sizes."""
    name = f"{split}{_SUFFIX}"
    sizes = {
        file: size
        for file, size in manifest.files.items()
        if file == name or file.startswith(f"{name}/")
    }
    if not sizes:
        raise InputError(
            f"{folder / 'manifest.json'}: lists no file of the split {split!r}.\n{REBUILD}"
        )
    for file, size in sizes.items():
        _check_size(folder, file, size)
    return tuple(folder / file for file in sorted(sizes))


def _check_size(folder: Path, file: str, expected: int | None) -> None:
    path = folder / file
    if expected is None:
        raise InputError(f"{folder / 'manifest.json'}: does not list {file}.\n{REBUILD}")
    if not path.is_file():
        raise InputError(f"{path}: does not exist, but manifest.json lists it.\n{REBUILD}")
    if (size := path.stat().st_size) != expected:
        raise InputError(
            f"{path}: {size:,} bytes, manifest.json says {expected:,}: a damaged copy, or a file of"
            f" another dataset.\n{REBUILD}"
        )


def _read_footer(part: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(part)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{part}: its footer cannot be read ({error}).\n{REBUILD}") from error


def _check_schema(part: Path, schema: pa.Schema, expected: pa.Schema) -> None:
    metadata = schema.metadata or {}
    contract = metadata.get(b"contract", b"").decode()
    if contract != CONTRACT or b"roles" not in metadata:
        raise InputError(
            f"{part}: its schema has the contract {contract!r}, expected {CONTRACT!r} and the roles"
            " of the columns.\nUse the files as 'gpu-dcgen build' wrote them: other writers drop"
            " the metadata."
        )
    if not schema.equals(expected):
        raise InputError(
            f"{part}: other columns than in the first part.\n"
            f"Parts of two datasets are mixed. {REBUILD}"
        )


def _lay_out(
    parts: tuple[Path, ...], footers: tuple[pq.FileMetaData, ...], rows_per_group: int
) -> tuple[RowGroup, ...]:
    """Count the groups up to each row group. InputError unless it holds whole groups."""
    places = [
        (part, number, footer.row_group(number).num_rows)
        for part, footer in enumerate(footers)
        for number in range(footer.num_row_groups)
    ]
    for part, number, n_rows in places:
        if n_rows % rows_per_group:
            raise InputError(
                f"{parts[part]}: row group {number} has {n_rows:,} rows, expected whole groups of"
                f" {rows_per_group} (D16).\nUse the files as 'gpu-dcgen build' wrote them."
            )
    sizes = [n_rows // rows_per_group for _, _, n_rows in places]
    return tuple(
        RowGroup(part, number, first, n)
        for (part, number, _), n, first in zip(
            places, sizes, accumulate(sizes, initial=0), strict=False
        )
    )
