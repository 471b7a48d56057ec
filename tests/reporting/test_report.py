"""gpu-dcgen report: the page agrees with the files, loads nothing, and escapes names."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

pytest.importorskip("jinja2", reason="pip install '.[report]'")
pytest.importorskip("vl_convert", reason="pip install '.[report]'")

from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError, OutputError
from gpu_dcgen.reporting import write_report
from gpu_dcgen.reporting.numbers import format_value, shorten
from tests.support.shops import random_shop, tiny_config, write_shop

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\"' onmouseover='document.title=1' {{ 7 * 7 }} </title></style>",
    "\u202etfel ot thgir\u202c שלום",
    "long" * 2500,
)
VOID = {"meta", "br", "img", "link", "input", "hr"}


def hostile_shop() -> dict:
    tables = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True)
    for k, article in enumerate(tables["articles"]):
        name = HOSTILE[k % len(HOSTILE)]
        article |= {"product_group_name": name, "department_name": name, "prod_name": f"{name}{k}"}
    return tables


def build_dataset(folder: Path, tables: dict, config) -> Path:
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", config, backend="cpu")
    return folder / "output"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return build_dataset(
        tmp_path_factory.mktemp("report"),
        hostile_shop(),
        tiny_config(sequence_processing={"max_sequence_length": 9}),
    )


@pytest.fixture(scope="module")
def page(dataset) -> Path:
    return write_report(dataset)


class Page(HTMLParser):
    """The elements with attributes, and texts of `<data>`; tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.numbers: list[tuple[dict, str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "data":
            self.numbers[-1] = (self.numbers[-1][0], data)


def parse(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def resolve(documents: dict, pointer: str):
    """The value at `manifest.json#/counts/train/rows`."""
    file, _, path = pointer.partition("#/")
    value = documents[file]
    for step in path.split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def wrong_numbers(page: Page, dataset: Path) -> list[str]:
    """List places with another number than the JSON files, or another text than the number."""
    documents = {
        name: json.loads((dataset / name).read_text("utf-8"))
        for name in ("manifest.json", "quality_report.json", "probe.json")
        if (dataset / name).exists()
    }
    forms = ("count", "share", "bytes", "bytes/s", "seconds", "number", "hundredths")
    wrong = []
    for attributes, text in page.numbers:
        value = json.loads(attributes["value"])
        written = {
            format_value(value, form)
            for form in forms
            if form != "count" or isinstance(value, int | None)
        }
        place = attributes.get("data-from")
        if text not in written or (place and resolve(documents, place) != value):
            wrong.append(f"{place}: {value} as {text!r}")
    return wrong


def test_every_number_is_the_one_of_its_place_in_the_json_files(page, dataset):
    content = parse(page)
    places = [
        attributes["data-from"] for attributes, _ in content.numbers if "data-from" in attributes
    ]
    assert len(places) > 300
    assert not wrong_numbers(content, dataset)
    named = {place.split("#/")[1].split("/")[0] for place in places}
    assert named >= {
        "gates",
        "funnel",
        "split",
        "distributions",
        "popularity",
        "completeness",
        "scores",
        "performance",
        "files",
    }


def test_the_figures_of_a_probe_of_this_dataset_are_shown(dataset, tmp_path):
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    figures = {"all": {"recall@10": 0.25, "ndcg@10": 0.125}, "new": {"recall@10": 0, "ndcg@10": 0}}
    probe = {
        "content_digest": manifest["content_digest"],
        "summary": f"found {HOSTILE[0]}",
        "figures": {"a/b": {"val": figures, "test": figures}, HOSTILE[1]: {"test": figures}},
    }
    (copy / "probe.json").write_text(json.dumps(probe))
    content = parse(write_report(copy))
    assert not wrong_numbers(content, copy)
    places = [attributes.get("data-from", "") for attributes, _ in content.numbers]
    assert "probe.json#/figures/a~1b/test/all/ndcg@10" in places
    assert sum(place.startswith("probe.json") for place in places) == 8
    assert f"found {HOSTILE[0]}" in "".join(content.texts)
    (copy / "probe.json").write_text(json.dumps({**probe, "content_digest": "other"}))
    assert ("section", {"id": "probe"}) not in parse(write_report(copy, overwrite=True)).elements


def test_a_changed_number_is_reported(page, dataset):
    text = page.read_text("utf-8")
    place = 'data-from="quality_report.json#/funnel/negatives/drawn">'
    assert wrong_numbers(Page(text.replace(place, f"{place}1", 1)), dataset)
    moved = text.replace(
        'data-from="quality_report.json#/funnel/transactions/read"',
        'data-from="manifest.json#/seed"',
        1,
    )
    assert wrong_numbers(Page(moved), dataset)


def test_the_outcomes_of_the_transactions_add_up_to_those_read(page, dataset):
    funnel = json.loads((dataset / "quality_report.json").read_text())["funnel"]["transactions"]
    numbers = [(a.get("data-from", ""), json.loads(a["value"])) for a, _ in parse(page).numbers]
    outcomes = {
        place: value
        for place, value in numbers
        if place.startswith("quality_report.json#/funnel/transactions/")
    }
    read = outcomes.pop("quality_report.json#/funnel/transactions/read")
    rows = {
        place: value
        for place, value in numbers
        if place.startswith("manifest.json#/inputs/rows/transactions/")
    }
    n_rejected = sum(
        value for place, value in rows.items() if place.endswith(("rejected", "collapsed"))
    )
    assert read == funnel["read"] == sum(outcomes.values()) + n_rejected


def test_nothing_is_loaded_and_nothing_can_run(page):
    content = parse(page)
    assert not content.open
    tags = {tag for tag, _ in content.elements}
    assert not tags & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "foreignobject",
        "image",
        "use",
        "base",
    }
    for tag, attributes in content.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action", "style"):
            assert "//" not in (attributes.get(name) or ""), (tag, attributes)
    (policy,) = [a["content"] for tag, a in content.elements if tag == "meta" and "http-equiv" in a]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "@import" not in page.read_text("utf-8") and "url(" not in page.read_text("utf-8")


def test_hostile_names_are_shown_as_text_and_short(page):
    content = parse(page)
    text = "".join(content.texts)
    assert (
        "<script>document.title" in text
        and "<img src=x" in text
        and "{{ 7 * 7 }}" in text
        and "שלום" in text
    )
    assert "49" not in [part.strip() for part in content.texts if "onmouseover" in part]
    assert (
        "\u202e" not in text and "longlong" in text and "long" * 100 not in page.read_text("utf-8")
    )
    names = [shorten(name) for name in HOSTILE]
    assert all(len(name) <= 60 for name in names) and names[4].endswith("…")


def test_every_chart_has_a_name_and_its_numbers_in_a_table(page):
    content = parse(page)
    charts = [attributes for tag, attributes in content.elements if tag == "svg"]
    figures = sum(tag == "figure" for tag, _ in content.elements)
    assert len(charts) == figures == 8
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    text = page.read_text("utf-8")
    assert all("<table>" in part.split("</figure>")[0] for part in text.split("<figure")[1:])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_browser_runs_nothing_of_it(page, tmp_path):
    def dom(path: Path) -> str:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        command = [CHROMIUM, *options, "--virtual-time-budget=1000", "--dump-dom", path.as_uri()]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    control = tmp_path / "control.html"
    control.write_text(f"<title>mine</title>{HOSTILE[0]}", "utf-8")
    assert "<title>owned</title>" in dom(control)  # a script that runs is seen
    seen = Page(dom(page))
    assert not {tag for tag, _ in seen.elements} & {"script", "img"}
    assert "<title>owned" not in dom(page) and "output: passed" in "".join(seen.texts)


@pytest.mark.parametrize("shape", ["n_tuple", "triplet"])
def test_samples_are_those_of_the_files_in_every_shape(shape, tmp_path):
    tables = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True)
    output = build_dataset(tmp_path, tables, tiny_config(output={"shape": shape}))
    text = "".join(parse(write_report(output, n_samples=3)).texts)
    for split in ("train", "val", "test"):
        folder = output / f"{split}_dataset.parquet"
        ids = pq.read_table(folder, columns=["sample_id"])["sample_id"].to_pylist()
        assert ids[len(ids) // 2] in text


def test_samples_say_what_the_rows_say(dataset):
    from gpu_dcgen.reporting.documents import read_documents
    from gpu_dcgen.reporting.samples import read_samples

    samples = read_samples(read_documents(dataset), 6)
    assert [sample.split for sample in samples] == ["train", "train", "val", "val", "test", "test"]
    items = {
        row["item_index"]: row["item_id"]
        for row in pq.read_table(dataset / "item_vocabulary.parquet").to_pylist()
    }
    for sample in samples:
        table = pq.read_table(dataset / f"{sample.split}_dataset.parquet")
        names = (
            "sample_id",
            "item_id",
            "negative_source",
            "negative_detail",
            "similarity_score",
            "item_popularity_score",
        )
        rows = table.select([*names, "user_interaction_sequence"]).to_pylist()
        first = next(
            k for k, row in enumerate(rows) if row["sample_id"] == sample.about["sample_id"]
        )
        group = rows[first : first + 6]
        assert sample.positive.item_id == group[0]["item_id"]
        shown = [
            (i.item_id, i.source, i.detail, i.similarity, i.popularity)
            for i in (*sample.hard, *sample.random)
        ]
        assert shown == [tuple(row[name] for name in names[1:]) for row in group[1:]]
        history = [items[index] for index in group[0]["user_interaction_sequence"]]
        assert [item.item_id for item in sample.history] == history[
            -6:
        ] and sample.n_earlier == max(0, len(history) - 6)


def test_the_histogram_counts_every_pair_of_items(dataset):
    from gpu_dcgen.reporting.documents import count_similarities, read_documents

    counts = count_similarities(read_documents(dataset))
    similarity = pq.read_table(dataset / "item_similarity_matrix.parquet")["similarity"].to_pylist()
    assert (
        counts == [sum(min(19, int(20 * s)) == k for s in similarity) for k in range(20)]
        and sum(counts) > 0
    )


def test_the_command_writes_beside_the_dataset_and_replaces_nothing_unasked(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "training")
    files = sorted(path.name for path in copy.iterdir())
    result = CliRunner().invoke(app, ["report", str(copy), "--samples", "0"])
    assert result.exit_code == 0 and "training.report.html" in result.stdout
    assert sorted(path.name for path in copy.iterdir()) == files
    text = (tmp_path / "training.report.html").read_text("utf-8")
    assert "A few samples" not in text and "What to look at" in text
    assert CliRunner().invoke(app, ["report", str(copy)]).exit_code == 2
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(copy, tmp_path / "training.report.html" / "page.html")
    assert write_report(copy, tmp_path / "a" / "new folder" / "page.html").is_file()
    with pytest.raises(InputError, match="holds no manifest.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1234567, "count", "1,234,567"),
        (None, "share", "–"),
        (0.7939, "share", "79.4%"),
        (0.00028, "share", "< 0.1%"),
        (868331520, "bytes", "868 MB"),
        (16 * 10**9, "bytes", "16 GB"),
        (12, "bytes", "12 bytes"),
        (642128.58, "bytes/s", "642 kB/s"),
        (45.58, "seconds", "45.6 s"),
        (0.1168796, "number", "0.1169"),
        (3e-24, "number", "< 0.0001"),
        (1.0, "number", "1"),
    ],
)
def test_numbers_are_written_for_readers(value, form, text):
    assert format_value(value, form) == text
