"""The shops that `first_light` builds, and the digests that are expected of them.

A digest file says for each shop what the CPU's build gave: the digest of each column of each file,
which a GPU must give too, and hashes of the tables, because others give other digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import gpu_dcgen
from cpu_fallback import NumpyBackend
from gpu_dcgen.config import count_usable_cores
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.digest import digest_file
from gpu_dcgen.example_data import complete_journey
from gpu_dcgen.example_data.fashion_shop import generate
from tests.gpu.asking import NotAsked

SCALES = {"tiny": 0.001, "synth_0.1": 0.1, "synth_1.0": 1.0}
SEED = 42

Digests = dict[str, dict[str, str]]  # by file and column


def find_tables(shop: str, settings: dict[str, Any]) -> Path:
    """Return the folder of a shop's tables, made where they are not there.

    NotAsked where nobody has said where Online Retail's are.
    """
    if shop == "online_retail":
        if settings["online_retail"] is None:
            raise NotAsked("no --online-retail FOLDER was given")
        return Path(settings["online_retail"])
    folder = Path(settings["work"]) / shop
    if not (folder / "transactions.parquet").exists():  # the last one that is written
        if shop == "complete_journey":
            complete_journey.write_tables(folder)
        else:
            generate(folder, scale=SCALES[shop], seed=SEED)
    return folder


def hash_tables(folder: Path) -> dict[str, str]:
    """Return SHA-256 of the rows of each table, by name, however they are stored."""
    return {path.stem: _hash_table(path) for path in sorted(folder.glob("*.parquet"))}


def _hash_table(path: Path) -> str:
    digest = hashlib.sha256()
    table = pq.read_table(path)
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        is_valid = column.is_valid().to_numpy(zero_copy_only=False)
        digest.update(f"{name}\0{len(column)}\0".encode() + np.packbits(is_valid).tobytes())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            # A concatenated array begins at the first byte of its buffers.
            text = pa.concat_arrays([column.cast(pa.large_string()).fill_null("")])
            digest.update(np.diff(np.frombuffer(text.buffers()[1], np.int64)).tobytes())
            digest.update(b"" if text.buffers()[2] is None else text.buffers()[2].to_pybytes())
        else:
            values = column.to_numpy(zero_copy_only=False)
            digest.update(np.ascontiguousarray(values[is_valid]).tobytes())
    return digest.hexdigest()


def make_digests(settings: dict[str, Any], shops: list[str]) -> None:
    """Build the shops on the CPU and write the digest file, whole or not at all."""
    digests_by_shop: dict[str, Any] = {}
    for shop in shops:
        began = time.perf_counter()
        try:
            tables = find_tables(shop, settings)
        except NotAsked as reason:
            print(f"{shop}: left out, {reason}")
            continue
        output = Path(settings["work"]) / f"{shop}_expected"
        backend = NumpyBackend(count_usable_cores())
        manifest = build(tables, output, backend=backend, overwrite=True).manifest
        if digest_files(output, manifest.digests) != manifest.digests:
            raise AssertionError(f"{shop}: the CPU's files are not what it computed")
        digests_by_shop[shop] = {
            "tables": hash_tables(tables),
            "content_digest": manifest.content_digest,
            "digests": manifest.digests,
        }
        seconds = time.perf_counter() - began
        print(f"{shop}: {manifest.content_digest} ({seconds:.0f} s)", flush=True)
    path = Path(settings["digests"])
    part = path.with_name(f"{path.name}.part")
    part.write_text(
        json.dumps({"gpu_dcgen": gpu_dcgen.__version__, "shops": digests_by_shop}, indent=1)
    )
    os.replace(part, path)


def read_digests(shop: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is expected of a shop; NotAsked where the digest file does not say."""
    content = json.loads(Path(settings["digests"]).read_text())
    if shop not in content["shops"]:
        raise NotAsked(f"{settings['digests']} has no digests of {shop}")
    expected: dict[str, Any] = content["shops"][shop]
    return expected


def digest_files(dataset: Path, names: Any) -> Digests:
    """Return the digests of a dataset's files by name and column, from what is on disk."""
    backend = NumpyBackend(count_usable_cores())
    return {name: digest_file(dataset / f"{name}.parquet", backend) for name in names}


def list_differences(expected: Digests, actual: Digests) -> list[str]:
    """Return the columns, as `file.column`, that one has and the other has not, or not so."""
    pairs = {
        f"{file}.{column}"
        for digests in (expected, actual)
        for file in digests
        for column in digests[file]
    }
    return sorted(
        pair
        for pair in pairs
        for file, _, column in [pair.partition(".")]
        if expected.get(file, {}).get(column) != actual.get(file, {}).get(column)
    )
