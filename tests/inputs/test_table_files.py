"""All of a table's folder is read, or left out by name, or refused (D1)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError, Problems
from gpu_dcgen.inputs.table_files import list_table_files
from tests.support.input_tables import (
    TRANSACTIONS,
    VIEWS,
    list_sales,
    load_tables,
    to_list,
    write_tables,
)

LOG = pa.table(TRANSACTIONS)


def split_log(folder: Path, first: str = "a.parquet", second: str = "b.parquet") -> Path:
    """Write the shop with its log in two files of a folder, which is returned."""
    write_tables(folder, transactions=None)
    for name, part in ((first, LOG.slice(0, 1)), (second, LOG.slice(1))):
        (folder / "transactions" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, folder / "transactions" / name)
    return folder / "transactions"


def whole_log(tmp_path: Path) -> list:
    return sorted(list_sales(load_tables(write_tables(tmp_path / "plain"))))


@pytest.mark.parametrize(
    "name",
    ["b.PARQUET", "b.pq", "b.parq", "b.parquet.gzip", "b.snappy", "b", "b.parquet.tmp", "x=1/b"],
)
def test_files_of_any_suffix_are_read(tmp_path, name):
    log = split_log(tmp_path / "shop", second=name)
    assert sorted(list_sales(load_tables(log.parent))) == whole_log(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["transactions", "transactions.pq", "Transactions.PARQUET", "transactions.parquet.gz"],
)
def test_a_table_may_have_any_suffix_and_case(tmp_path, name):
    folder = write_tables(tmp_path / "shop")
    (folder / "transactions.parquet").rename(folder / name)
    assert sorted(list_sales(load_tables(folder))) == whole_log(tmp_path)


def test_views_of_another_suffix_are_not_overlooked(tmp_path):
    folder = write_tables(tmp_path, views=VIEWS)
    (folder / "views.parquet").rename(folder / "Views.pq")
    assert load_tables(folder).views is not None
    (folder / "views").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"found both Views.pq and views; expected one"):
        load_tables(folder)


def test_what_is_behind_links_is_read(tmp_path):
    log = split_log(tmp_path / "shop", "part=1/a.parquet", "part=2/b.parquet")
    (log / "part=2").rename(tmp_path / "far")
    (log / "part=2").symlink_to(tmp_path / "far")
    (log / "part=1" / "a.parquet").rename(tmp_path / "near")
    (log / "part=1" / "a.parquet").symlink_to("../../near")  # as seen from elsewhere
    log.rename(tmp_path / "elsewhere")
    log.symlink_to(tmp_path / "elsewhere")
    shop = load_tables(log.parent)
    assert sorted(list_sales(shop)) == whole_log(tmp_path)
    assert [file.file for file in shop.report.files][2:] == [
        "transactions/part=1/a.parquet",
        "transactions/part=2/b.parquet",
    ]


def test_a_link_back_ends_and_is_named(tmp_path):
    log = split_log(tmp_path / "shop", "part=1/a.parquet")
    (log / "part=1" / "again").symlink_to(log)
    shop = load_tables(log.parent)
    assert sorted(list_sales(shop)) == whole_log(tmp_path)
    assert any("part=1/again is a link back" in warning for warning in shop.report.warnings)


def link(name: str, target: str):
    return lambda log: (log / name).symlink_to(target)


REFUSED = {
    "dangling": (link("c.parquet", "/nowhere/c"), r"c.parquet: is a link to /nowhere/c, which"),
    "dangling folder": (link("part=3", "gone"), "part=3: is a link to gone, which cannot be"),
    "link to itself": (link("c", "c"), "c: is a link to c, which cannot be opened"),
    "second link": (link("c.parquet", "a.parquet"), r"c.parquet: is a link to a.parquet, which is"),
    "hard link": (
        lambda log: os.link(log / "a.parquet", log / "c.parquet"),
        "c.parquet: is a link to a.parquet.*read twice",
    ),
    "folder twice": (link("z", "part=2"), "z: is a link to part=2.*read twice"),
    "text": (lambda log: (log / "README.md").write_text("read me first\n"), "README.md: cannot be"),
    "other format": (lambda log: (log / "c.csv").write_text("t_dat\n"), "c.csv: cannot be read"),
    "no bytes": (lambda log: (log / "c").touch(), "c: cannot be read as Parquet"),
    "pipe": (lambda log: os.mkfifo(log / "c"), "c: is neither a file nor a folder"),
    "name": (
        lambda log: (log / os.fsdecode(b"c\xff.parquet")).symlink_to("a.parquet"),
        r"its name is not UTF-8\.\nRename it",
    ),
    "partition": (
        lambda log: (log / "part=2").rename(log / "part=%FF"),
        r"escape \(%XX\) that is not UTF-8",
    ),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, damage, message):
    log = split_log(tmp_path / "shop", second="part=2/b.parquet")
    damage(log)
    with pytest.raises(InputError, match=f"(?s){message}"):
        load_tables(log.parent)


def test_hidden_files_are_left_out_and_counted(tmp_path):
    log = split_log(tmp_path / "shop", "_day=1/a.parquet")
    pq.write_table(LOG, log / "_copy.parquet")
    (log / "_temporary").mkdir()
    for name in (".b.parquet.crc", "_SUCCESS", "day_$folder$", "_temporary/half.parquet"):
        (log / name).write_text("?")
    shop = load_tables(log.parent)
    assert sorted(list_sales(shop)) == whole_log(tmp_path)
    assert [text for text in shop.report.warnings if "hidden" in text] == [
        "transactions: 5 hidden files (.b.parquet.crc, _SUCCESS, _copy.parquet, ...) are left out: "
        'names that begin with "." or "_" are hidden.'
    ]


def test_a_folder_of_hidden_files_alone_says_so(tmp_path):
    folder = write_tables(tmp_path, transactions=None)
    (folder / "transactions").mkdir()
    pq.write_table(LOG, folder / "transactions" / "_a.parquet")
    with pytest.raises(InputError, match=r"no .parquet files but 1 hidden file \(_a.parquet\)"):
        load_tables(folder)


def as_user(function) -> None:
    """Call a function in a process without the rights of root."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if os.getuid() == 0:
                os.setuid(65_534)
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("name", ["part=2", "part=2/b.parquet"])
def test_what_may_not_be_read_is_refused(name):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        log = split_log(Path(folder) / "shop", second="part=2/b.parquet")

        def try_to_load():
            with pytest.raises(InputError, match=rf"(?s){name}.*Permission denied"):
                load_tables(log.parent)

        (log / name).chmod(0)
        try:
            as_user(try_to_load)
        finally:
            (log / name).chmod(0o755)


def test_the_audit_lists_the_same_files(tmp_path):
    from gpu_dcgen.auditing.input_files import find_table, list_files

    log = split_log(tmp_path / "shop", "part=1/a.PQ", "_x=2/b")
    (log / "part=1" / "again").symlink_to(log)
    (log / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far").mkdir()
    pq.write_table(LOG.slice(0, 0), tmp_path / "far" / "c")
    (log / "_SUCCESS").touch()
    assert find_table(log.parent, "transactions") == log
    assert tuple(list_files(log)) == list_table_files(log, Problems()).paths
    assert len(list_files(log)) == 3


@pytest.fixture
def delta(tmp_path) -> Path:
    """A shop whose log is a Delta table with a file that was removed."""
    log = split_log(tmp_path / "shop", "old.parquet", "part=1/new.parquet")
    (log / "_delta_log").mkdir()
    actions = [{"add": {"path": "old.parquet"}}], [{"remove": {"path": "old.parquet"}}]
    for number, lines in enumerate(actions):
        text = "\n".join(map(json.dumps, lines))
        (log / "_delta_log" / f"{number:020}.json").write_text(text)
    return log


def install(monkeypatch, table: type) -> None:
    """Make `from deltalake import DeltaTable` give the stand-in `table`."""
    module = ModuleType("deltalake")
    module.DeltaTable = table
    monkeypatch.setitem(sys.modules, "deltalake", module)


class StandIn:
    """`deltalake.DeltaTable` as documented, of the live files `uris`."""

    uris: tuple[str, ...] = ("part=1/new.parquet",)
    features: tuple[str, ...] | None = None
    configuration: dict[str, str] = {}
    vectors: tuple[list[int], ...] = ()
    partition_columns: tuple[str, ...] = ("part",)

    def __init__(self, path: str) -> None:
        self.path = path

    def file_uris(self) -> list[str]:
        return [os.path.join(os.path.abspath(self.path), uri) for uri in self.uris]

    def protocol(self):
        return SimpleNamespace(reader_features=self.features)

    def metadata(self):
        return SimpleNamespace(
            partition_columns=self.partition_columns, configuration=self.configuration
        )

    def deletion_vectors(self):
        return iter(self.vectors)


def test_a_delta_table_is_never_read_without_its_library(delta, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(
        InputError,
        match=r"(?s)transactions: is a Delta table.*\npip install 'gpu-dcgen\[lake\]'\n",
    ):
        load_tables(delta.parent)


@pytest.mark.parametrize("is_relative", [False, True])
def test_of_a_delta_table_the_live_files_are_read(delta, monkeypatch, is_relative):
    install(monkeypatch, StandIn)
    monkeypatch.chdir(delta.parent.parent)
    shop = load_tables(Path("shop") if is_relative else delta.parent)
    assert len(to_list(shop.time)) == 2
    assert [file.file for file in shop.report.files][2:] == ["transactions/part=1/new.parquet"]


BAD_TABLES = {
    "deletion vectors": ({"features": ("deletionVectors",), "vectors": ([1],)}, "deletionVectors"),
    "unknown features": ({"features": ("newest",)}, "a Delta table with newest"),
    "mapped columns": ({"configuration": {"delta.columnMapping.mode": "name"}}, "columnMapping"),
    "values in the log": ({"partition_columns": ("day",)}, "values of column 'day' are neither"),
    "files elsewhere": ({"uris": ("/far/part=1/a.parquet",)}, "is not in the folder"),
    "no files": ({"uris": ()}, "without rows"),
}


@pytest.mark.parametrize(("members", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_delta_tables_whose_files_do_not_tell_their_rows(delta, monkeypatch, members, message):
    install(monkeypatch, type("Table", (StandIn,), members))
    with pytest.raises(InputError, match=message):
        load_tables(delta.parent)


def test_a_delta_table_whose_log_is_damaged(delta, monkeypatch):
    def fail(path):
        raise ValueError("no metadata")

    install(monkeypatch, fail)
    with pytest.raises(InputError, match=r"deltalake cannot read .*\(ValueError: no metadata\)"):
        load_tables(delta.parent)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("_spark_metadata/0", "the output of a Spark stream"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        ("metadata/version-hint.text", "an Iceberg table"),
        ("part=1/_delta_log/0.json", "a Delta table inside of the folder of a table"),
    ],
)
def test_tables_of_other_formats_are_refused(tmp_path, monkeypatch, marker, words):
    log = split_log(tmp_path / "shop", second="part=1/b.parquet")
    (log / marker).parent.mkdir(parents=True, exist_ok=True)
    (log / marker).write_text("1")
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    with pytest.raises(InputError, match=f"is {words}"):
        load_tables(log.parent)


@pytest.mark.parametrize("n_deleted", [0, 1])
def test_of_an_iceberg_table_the_live_files_are_read(tmp_path, monkeypatch, n_deleted):
    log = split_log(tmp_path / "shop", "data/old.parquet", "data/new.parquet")
    (log / "metadata").mkdir()
    for name in ("00000-a.metadata.json", "00001-b.metadata.json"):
        (log / "metadata" / name).write_text("{}")

    class Table:
        metadata = SimpleNamespace(location="s3://lake/log/")

        @classmethod
        def from_metadata(cls, location):
            assert location.endswith("00001-b.metadata.json")
            return cls()

        def scan(self):
            file = SimpleNamespace(file_path="s3://lake/log/data/new.parquet")
            task = SimpleNamespace(file=file, delete_files=[1] * n_deleted)
            return SimpleNamespace(plan_files=lambda: [task])

    module = ModuleType("pyiceberg.table")
    module.StaticTable = Table
    monkeypatch.setitem(sys.modules, "pyiceberg", ModuleType("pyiceberg"))
    monkeypatch.setitem(sys.modules, "pyiceberg.table", module)
    if n_deleted:
        with pytest.raises(InputError, match="is an Iceberg table with deleted rows in"):
            load_tables(log.parent)
    else:
        assert len(to_list(load_tables(log.parent).time)) == 2
    (log / "metadata" / "00001-c.metadata.json").write_text("{}")
    with pytest.raises(InputError, match="found 2 metadata files of version 1; expected one"):
        load_tables(log.parent)
