"""Damaged CSV files are read, or refused with a message: nothing else is raised."""

from __future__ import annotations

import random

import pytest

from gpu_dcgen.errors import DcgenError, InputError
from gpu_dcgen.inputs import csv_files
from tests.support.csv_tables import load_folder, pack, to_csv, write_csv_tables
from tests.support.input_tables import TRANSACTIONS

HEAD = "t_dat,customer_id,article_id,price\n"
GOOD = "2020-01-01,u1,a1,2.0\n"
PIECES = (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"\xef\xbb\xbf", b"\\", b"9" * 40, b'""', b";")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, cut out or repeat some bytes."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            changed[place:place] = rng.choice(PIECES)
        elif kind == 1 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 2:
            del changed[place : place + rng.randrange(40)]
        else:
            changed[place:place] = changed[max(0, place - 30) : place]
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zst", ".tsv"])
def test_changed_bytes_are_read_or_refused(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 512)
    rng = random.Random(suffix)
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    many = {name: values * 40 for name, values in TRANSACTIONS.items()}
    text = to_csv(many, delimiter="\t" if suffix == ".tsv" else ",")
    data = pack(text, suffix)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(120):
        (folder / f"transactions{suffix}").write_bytes(mutate(data, rng))
        try:
            load_folder(folder)
            outcomes["read"] += 1
        except DcgenError as error:
            assert "Traceback" not in str(error) and len(str(error)) < 5000
            outcomes["refused"] += 1
    assert outcomes["refused"] > 20, outcomes


def test_a_line_longer_than_a_block_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 4096)
    text = HEAD + GOOD + f'2020-01-01,u1,a1,"{"9" * 100_000}"\n'
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match="transactions.csv: line 3: "):
        load_folder(folder)


def test_a_text_that_no_id_is_is_refused(tmp_path):
    text = HEAD + GOOD + f"2020-01-01,u1,{'a' * 70_000},1\n"
    folder = write_csv_tables(tmp_path / "shop", transactions=text)
    with pytest.raises(InputError, match=r"'article_id' has a text of 70,000 bytes \(line 3\)"):
        load_folder(folder)


def test_a_packed_file_takes_no_more_memory_than_a_plain_one(tmp_path, monkeypatch):
    sizes = []
    original = csv_files.TextStream.read

    def recorded(self, n=-1):
        sizes.append(len(text := original(self, n)))
        return text

    monkeypatch.setattr(csv_files.TextStream, "read", recorded)
    bomb = pack(HEAD + "0" * 60_000_000, ".gz")
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    (folder / "transactions.csv.gz").write_bytes(bomb)
    with pytest.raises(InputError, match="transactions.csv.gz: line 2: "):
        load_folder(folder)
    assert max(sizes) <= csv_files.BLOCK_BYTES
