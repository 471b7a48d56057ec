"""Damaged and malicious Parquet files: shops in many layouts, mutated by a seed.

A corrupt file may kill the process that reads it, so cases run in processes of their own, with
bounded memory and time: `python -m tests.support.hostile_files FOLDER FIRST LAST` reports each case
on a line, and `survey` restarts it after a death.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    load_tables,
    write_tables,
)

ROOT = Path(__file__).parents[2]
ROWS = 400  # of each table
# How the mutated file was written.
LAYOUTS = (
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 100},
    {"compression": "gzip", "version": "1.0", "row_group_size": 57},
    {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": "encodings",
        "data_page_size": 256,
    },
    {
        "compression": "brotli",
        "write_page_index": True,
        "write_page_checksum": True,
        "store_schema": False,
    },
    {
        "compression": "lz4",
        "use_dictionary": False,
        "use_byte_stream_split": ["price"],
        "data_page_version": "2.0",
    },
)
ENCODINGS = {
    "article_id": "DELTA_BYTE_ARRAY",
    "customer_id": "DELTA_LENGTH_BYTE_ARRAY",
    "price": "BYTE_STREAM_SPLIT",
    "t_dat": "DELTA_BINARY_PACKED",
    "sales_channel_id": "DELTA_BINARY_PACKED",
}
# Bytes that a worker may map; Python, Arrow and numba take 2 GiB of it before the first case.
ADDRESS_SPACE = 6 << 30
MAX_CPU_S = 10  # of processor time; a case that takes longer hangs
MAX_S = 120  # of time; machines that do much else are slow


def many(table: dict, n: int) -> pa.Table:
    """Return the table's rows repeated up to `n`; ids of entities are made distinct."""
    columns = {
        name: [values[row % len(values)] for row in range(n)] for name, values in table.items()
    }
    for key in ("article_id", "customer_id"):
        if next(iter(table)) == key:
            columns[key] = [*table[key], *(f"{key}-{row}" for row in range(len(table[key]), n))]
    return pa.table(columns)


def sound_shop(folder: Path, rng: random.Random) -> Path:
    """Write a shop that loads, and return the file of it that is to be damaged."""
    tables = {
        "articles": ARTICLES,
        "customers": CUSTOMERS,
        "transactions": TRANSACTIONS,
        "views": VIEWS,
    }
    write_tables(folder, views=VIEWS)
    victim = rng.choice(["articles", "customers", "transactions", "transactions", "views"])
    layout = dict(rng.choice(LAYOUTS))
    table = many(tables[victim], ROWS)
    if layout.pop("column_encoding", None):
        layout["column_encoding"] = {
            name: ENCODINGS[name] for name in table.column_names if name in ENCODINGS
        }
    if "use_byte_stream_split" in layout and "price" not in table.column_names:
        del layout["use_byte_stream_split"]
    path = folder / f"{victim}.parquet"
    pq.write_table(table, path, **layout)
    return path


def footer_start(raw: bytes) -> int:
    return len(raw) - 8 - struct.unpack("<I", raw[-8:-4])[0]


def flip_anywhere(raw: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return raw


def flip_in_footer(raw: bytearray, rng: random.Random) -> bytearray:
    start = footer_start(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        raw[rng.randrange(start, len(raw) - 8)] = rng.choice(
            [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
        )
    return raw


def flip_in_pages(raw: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 1, 2, 4])):
        raw[rng.randrange(4, footer_start(raw))] = rng.choice(
            [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
        )
    return raw


def flip_in_page_headers(raw: bytearray, rng: random.Random) -> bytearray:
    """Change the start of a column chunk, where the header of its first page is."""
    metadata = pq.read_metadata(pa.BufferReader(bytes(raw)))
    chunk = metadata.row_group(rng.randrange(metadata.num_row_groups)).column(
        rng.randrange(metadata.num_columns)
    )
    first = (
        chunk.dictionary_page_offset
        if chunk.has_dictionary_page and rng.random() < 0.5
        else chunk.data_page_offset
    )
    for _ in range(rng.choice([1, 1, 2, 3])):
        raw[min(len(raw) - 1, first + rng.randrange(24))] = rng.choice(
            [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
        )
    return raw


def huge_number(raw: bytearray, rng: random.Random) -> bytearray:
    """Replace a varint of the footer by one of the numbers at which integer types end."""
    start, length = footer_start(raw), struct.unpack("<I", raw[-8:-4])[0]
    number = rng.choice(
        [2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1, 2**33, 10**6, 2 * 10**9]
    )
    varint = bytearray()
    while number > 0x7F:
        varint.append(number & 0x7F | 0x80)
        number >>= 7
    varint.append(number)
    at = rng.randrange(start, len(raw) - 8)
    n_replaced = rng.choice([1, 1, 2, 3])
    raw[at : at + n_replaced] = varint
    raw[-8:-4] = struct.pack("<I", (length + len(varint) - n_replaced) % 2**32)
    return raw


def cut(raw: bytearray, rng: random.Random) -> bytearray:
    at, n = rng.randrange(len(raw)), rng.choice([1, 7, 100, len(raw)])
    return rng.choice([raw[:at], raw[:at] + raw[at + n :], raw[at:]])


def repeat(raw: bytearray, rng: random.Random) -> bytearray:
    at, n = rng.randrange(len(raw)), rng.choice([1, 8, 300])
    return raw[: at + n] + raw[at:]


def swap(raw: bytearray, rng: random.Random) -> bytearray:
    first, second, n = rng.randrange(len(raw)), rng.randrange(len(raw)), rng.choice([4, 40, 400])
    piece = bytes(raw[first : first + n])
    raw[first : first + n] = raw[second : second + n]
    raw[second : second + len(piece)] = piece
    return raw


def blank(raw: bytearray, rng: random.Random) -> bytearray:
    at, n = rng.randrange(len(raw)), rng.choice([4, 40, 400])
    return raw[:at] + bytes([rng.choice([0, 0xFF])]) * n + raw[at + n :]


def wrong_length(raw: bytearray, rng: random.Random) -> bytearray:
    raw[-8:-4] = struct.pack(
        "<I",
        rng.choice(
            [0, 1, 8, len(raw), len(raw) - 8, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)]
        ),
    )
    return raw


Mutation = Callable[[bytearray, random.Random], bytearray]
MUTATIONS: tuple[Mutation, ...] = (
    flip_anywhere,
    flip_in_footer,
    flip_in_footer,
    flip_in_pages,
    flip_in_page_headers,
    flip_in_page_headers,
    huge_number,
    huge_number,
    cut,
    repeat,
    swap,
    blank,
    wrong_length,
)


def damage(folder: Path, case: int) -> str:
    """Write the shop of a case into `folder`, and return what was done to it."""
    rng = random.Random(case)
    path = sound_shop(folder, rng)
    raw, names = bytearray(path.read_bytes()), []
    for mutation in rng.choices(MUTATIONS, k=1 if rng.random() < 0.9 else 2):
        names.append(mutation.__name__)
        try:
            raw = mutation(raw, rng)
        except (ValueError, IndexError, OSError, pa.ArrowException):
            break  # the first mutation left nothing that the second can parse
    path.write_bytes(raw)
    return f"{path.name}: {', '.join(names)}"


def run_case(folder: Path, case: int) -> dict:
    """Load the shop of a case, and return its outcome, seconds and bytes.

    Bytes are those of the peak of memory above the memory before.
    """
    damage_done = damage(folder, case)
    reset_peak()
    before, began = peak_bytes(), time.process_time()
    settings = {"on_bad_rows": "reject", "min_quality_score": 0.0} if case % 2 else {}
    try:
        load_tables(folder, rejects=folder / "rejects.parquet" if settings else None, **settings)
        outcome, text = "loaded", ""
    except Exception as error:
        outcome, text = type(error).__name__, str(error)[:400]
    seconds, n_bytes = time.process_time() - began, peak_bytes() - before
    return {
        "case": case,
        "what": damage_done,
        "outcome": outcome,
        "text": text,
        "seconds": round(seconds, 3),
        "bytes": n_bytes,
    }


def reset_peak() -> None:
    """Reset the peak of memory; where that is not allowed, it is that of all cases so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(
        int(line.split()[1]) * 1024
        for line in status.read_text().splitlines()
        if line.startswith("VmHWM")
    )


def main(folder: Path, first: int, last: int) -> None:
    """Run the cases first..last-1; print one JSON object before each case and one after it."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in range(first, last):
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)  # ends the process, as the alarm does
        signal.alarm(MAX_S)
        print(json.dumps({"case": case}), flush=True)
        print(json.dumps(run_case(folder / str(case % 8), case)), flush=True)


@dataclass
class Survey:
    """The outcomes of many cases."""

    results: list[dict]

    def outcomes(self) -> dict[str, int]:
        names = [result["outcome"] for result in self.results]
        return {name: names.count(name) for name in sorted(set(names))}


def survey(folder: Path, first: int, last: int) -> Survey:
    """Run the cases first..last-1 in processes; a death or a hang is the outcome of its case."""
    results = []
    while first < last:
        results += (batch := list(_until_death(folder, first, last)))
        first = batch[-1]["case"] + 1
    return Survey(results)


def _until_death(folder: Path, first: int, last: int) -> Iterator[dict]:
    command = [
        sys.executable,
        "-m",
        "tests.support.hostile_files",
        str(folder),
        str(first),
        str(last),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        case, began = first, time.monotonic()
        for line in worker.stdout:
            event = json.loads(line)
            if "outcome" in event:
                yield event
            case, began = event["case"] + ("outcome" in event), time.monotonic()
        worker.wait()
        if case < last:
            died = {
                "case": case,
                "what": "",
                "outcome": f"died with {worker.returncode}",
                "text": worker.stderr.read()[-400:],
            }
            yield died | {"seconds": time.monotonic() - began, "bytes": 0}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
