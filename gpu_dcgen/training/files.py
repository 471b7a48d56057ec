"""What a split of a dataset consists of: its parts, their row groups, its manifest; checked before the first row is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract.json_files import read_json
from ..contract.schema import CONTRACT, SPLITS
from ..errors import InputError
from ..storage.locations import require_local

_SUFFIX = "_dataset.parquet"
_NEEDED = ("contract", "config", "split", "counts", "files", "content_digest")  # of the manifest
# What the samples' integers mean; another build's files would fit, and mean something else.
_BESIDE = (
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
    """One split of a dataset on disk; small, immutable and fit to be pickled."""

    folder: Path  # the dataset's
    split: str
    shape: str  # labeled_pair, n_tuple or triplet (D19)
    parts: tuple[Path, ...]
    footers: tuple[pq.FileMetaData, ...]  # of the parts
    row_groups: tuple[RowGroup, ...]
    schema: pa.Schema
    n_hard: int  # hard negatives of a positive
    n_random: int
    max_length: int  # of a sequence
    manifest: dict[str, Any]

    @property
    def width(self) -> int:
        """Candidates of a group: the positive and its negatives."""
        return 1 + self.n_hard + self.n_random

    @property
    def rows_per_group(self) -> int:
        return self.width if self.shape == "labeled_pair" else 1

    @property
    def n_groups(self) -> int:
        return sum(group.n_groups for group in self.row_groups)

    @property
    def roles(self) -> dict[str, str]:
        """Column -> id, feature, label or metadata (D17)."""
        return json.loads(self.schema.metadata[b"roles"])

    def read(self, row_group: RowGroup, columns: list[str], dictionaries: list[str]) -> pa.Table:
        """The row group's `columns`; strings named in `dictionaries` arrive as dictionaries. InputError if unreadable.

        Opens the file anew, so that any number of threads may read at once.
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

        return self.reading(row_group, read)

    def reading(self, row_group: RowGroup, read: Callable[[Path], Any]) -> Any:
        """What `read` makes of the row group's part; InputError where that cannot be read."""
        part = self.parts[row_group.part]
        try:
            return read(part)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{part}: row group {row_group.number} cannot be read ({error}).\n"
                "The file is damaged: copy the dataset again, or build it anew."
            ) from error


def open_split(path: Path | str, split: str | None = None) -> SplitFiles:
    """The files of `split` in the dataset `path`, or those of the split's file or folder `path` itself.

    InputError when something is missing, damaged, of another size than the manifest says, or of another contract; ConfigError
    for a URL: copy the dataset first.
    """
    folder, split = _place(require_local(path), split)
    manifest = read_json(folder / "manifest.json", "Give its folder, or a split's file inside it.")
    if missing := [name for name in _NEEDED if name not in manifest]:
        raise InputError(
            f"{folder / 'manifest.json'}: has no {missing[0]!r}.\nCopy the dataset again, or build it anew."
        )
    if manifest.get("contract") != CONTRACT:
        raise InputError(
            f"{folder / 'manifest.json'}: contract {manifest.get('contract')!r}, expected {CONTRACT!r}.\n"
            "Build the dataset anew with this version, or read it with the version that built it."
        )
    for name in _BESIDE:
        _check_size(folder, name, manifest["files"].get(name))
    parts = _parts(folder, split, manifest)
    footers = tuple(_footer(part) for part in parts)
    schema = footers[0].schema.to_arrow_schema()
    for part, footer in zip(parts, footers, strict=True):
        _check_schema(part, footer.schema.to_arrow_schema(), schema)
    output, sampling = manifest["config"]["output"], manifest["config"]["negative_sampling"]
    one_negative = output["shape"] == "triplet"
    files = SplitFiles(
        folder=folder,
        split=split,
        shape=output["shape"],
        parts=parts,
        footers=footers,
        row_groups=(),
        schema=schema,
        n_hard=1 if one_negative else sampling["hard_negatives_per_positive"],
        n_random=0 if one_negative else sampling["random_negatives_per_positive"],
        max_length=manifest["config"]["sequence_processing"]["max_sequence_length"],
        manifest=manifest,
    )
    return _with_row_groups(files)


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Columns of a single file of a dataset; InputError when it cannot be read."""
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({error}).\nCopy the dataset again, or build it anew."
        ) from error


def _place(path: Path, split: str | None) -> tuple[Path, str]:
    """The dataset's folder and the split that are meant."""
    if path.name.endswith(_SUFFIX):
        named = path.name.removesuffix(_SUFFIX)
        if split not in (None, named):
            raise InputError(
                f"{path}: is the split {named!r}, asked for was {split!r}.\nLeave the split out."
            )
        return path.parent, named
    split = split or "train"
    if split not in SPLITS:
        raise InputError(f"split {split!r}: expected one of {', '.join(SPLITS)}.")
    return path, split


def _parts(folder: Path, split: str, manifest: dict[str, Any]) -> tuple[Path, ...]:
    """The split's part files, in order, each of the size that the manifest says."""
    name = f"{split}{_SUFFIX}"
    sizes = {
        file: size
        for file, size in manifest["files"].items()
        if file == name or file.startswith(f"{name}/")
    }
    if not sizes:
        raise InputError(
            f"{folder / 'manifest.json'}: lists no file of the split {split!r}.\nBuild the dataset anew."
        )
    for file, size in sizes.items():
        _check_size(folder, file, size)
    return tuple(folder / file for file in sorted(sizes))


def _check_size(folder: Path, file: str, size: int | None) -> None:
    path = folder / file
    if size is None:
        raise InputError(
            f"{folder / 'manifest.json'}: does not list {file}.\nCopy the dataset again, or build it anew."
        )
    if not path.is_file():
        raise InputError(
            f"{path}: not there, but manifest.json lists it.\nCopy the dataset again, or build it anew."
        )
    if path.stat().st_size != size:
        raise InputError(
            f"{path}: {path.stat().st_size:,} bytes, manifest.json says {size:,}: a damaged copy, or another dataset's file.\n"
            "Copy the dataset again, or build it anew."
        )


def _footer(part: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(part)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{part}: its footer cannot be read ({error}).\nCopy the dataset again, or build it anew."
        ) from error


def _check_schema(part: Path, found: pa.Schema, expected: pa.Schema) -> None:
    metadata = found.metadata or {}
    if metadata.get(b"contract", b"").decode() != CONTRACT or b"roles" not in metadata:
        raise InputError(
            f"{part}: its schema names the contract {metadata.get(b'contract', b'').decode()!r}, expected {CONTRACT!r} and the "
            "columns' roles.\nUse files as 'gpu-dcgen build' wrote them: other writers drop the metadata."
        )
    if not found.equals(expected):
        raise InputError(
            f"{part}: other columns than in the first part.\nParts of two datasets are mixed: build it anew."
        )


def _with_row_groups(files: SplitFiles) -> SplitFiles:
    """Lay the row groups out; InputError unless they hold whole groups, as many as the manifest says."""
    width = files.rows_per_group
    places = [
        (part, number, footer.row_group(number).num_rows)
        for part, footer in enumerate(files.footers)
        for number in range(footer.num_row_groups)
    ]
    for part, number, rows in places:
        if rows % width:
            raise InputError(
                f"{files.parts[part]}: row group {number} has {rows:,} rows, expected whole groups of {width} (D16).\n"
                "Use files as 'gpu-dcgen build' wrote them."
            )
    sizes = [rows // width for _, _, rows in places]
    counted = files.manifest["counts"][files.split]["groups"]
    if sum(sizes) != counted:
        raise InputError(
            f"{files.parts[0]}: the split {files.split!r} has {sum(sizes):,} positives, manifest.json says {counted:,}.\n"
            "Copy the dataset again, or build it anew."
        )
    firsts = accumulate(sizes, initial=0)
    groups = (
        RowGroup(part, number, first, n)
        for (part, number, _), n, first in zip(places, sizes, firsts, strict=False)
    )
    return SplitFiles(**{**files.__dict__, "row_groups": tuple(groups)})
