"""Seconds and memory of reading a log from CSV.

`python -m tests.benchmarks.csv_reading TABLES FOLDER` writes the Parquet tables in TABLES into
FOLDER as CSV, unless they are there, reads them as a build does, in a process of its own, and
prints a line of JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from cpu_fallback import NumpyBackend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.inputs.opening import open_tables
from gpu_dcgen.inputs.shop import load_shop

from .measure import ROOT

_BATCH_ROWS = 1 << 19


def write_csv(tables: Path, folder: Path) -> None:
    """Write each table as CSV, a batch at a time; a file that is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(tables.glob("*.parquet")):
        target = folder / f"{file.stem}.csv"
        if target.exists():
            continue
        with pq.ParquetFile(file) as parquet:
            kinds = [
                pa.float64() if pa.types.is_floating(field.type) else field.type
                for field in parquet.schema_arrow
            ]
            schema = pa.schema(list(zip(parquet.schema_arrow.names, kinds, strict=True)))
            with pa_csv.CSVWriter(target, schema) as writer:
                for batch in parquet.iter_batches(_BATCH_ROWS):
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def measure_reading(folder: Path) -> dict[str, Any]:
    """Read the tables of a folder; return seconds, rows and the peak of this process's memory."""
    config = DatasetConfig()
    with tempfile.TemporaryDirectory(dir=folder.parent) as workplace:
        start_s = time.perf_counter()
        tables = open_tables(folder, config.inputs, Path(workplace) / "tables")
        opened_s = time.perf_counter()
        shop = load_shop(tables, config, NumpyBackend(2))
        loaded_s = time.perf_counter()
    return {
        "rows": int(shop.time.shape[0]),
        "bytes": sum(file.bytes for file in shop.report.files),
        "convert_s": round(opened_s - start_s, 2),
        "load_s": round(loaded_s - opened_s, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measure_reading(Path(sys.argv[1]))))
    else:
        write_csv(Path(sys.argv[1]), Path(sys.argv[2]))
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.csv_reading", sys.argv[2]],
            cwd=ROOT,
            check=True,
        )
