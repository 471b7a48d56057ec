"""Plant one defect at a time in a dataset, and see that the rule against it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.dataset_generator.builder import build
from tests.support import defects_of_files, defects_of_samples, reference
from tests.support.audited_shops import get_check, get_faults
from tests.support.forgery import CONFIG, DEFECTS, TRAIN, WIDTH, Forgery
from tests.support.shops import DAY, random_shop, tiny_config, write_shop

assert defects_of_samples and defects_of_files  # importing them fills DEFECTS


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, reference.World]:
    """A folder with `input` and the published `output`, and what the reference says of it."""
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True)
    folder = tmp_path_factory.mktemp("shop")
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", CONFIG, backend="cpu")
    return folder, reference.build(tables, CONFIG)


def failing(certificate: dict) -> set[str]:
    return set(get_faults(certificate))


def test_the_untouched_dataset_passes(shop, tmp_path):
    certificate = audit(
        shop[0] / "input", shop[0] / "output", certificate=tmp_path / "certificate.json"
    )
    assert certificate["verdict"] == "holds" and not failing(certificate)
    assert {check["name"] for check in certificate["checks"]} == {rule for rule, _ in DEFECTS} | {
        "inputs",
        "digests",
    }


def test_there_are_many_defects_and_each_rule_has_one():
    assert len({defect for _, defect in DEFECTS}) == len(DEFECTS) >= 20


@pytest.mark.parametrize(
    ("rule", "defect"), DEFECTS, ids=[defect.__name__ for _, defect in DEFECTS]
)
def test_a_planted_defect_is_caught(rule, defect, shop, tmp_path):
    """By its own rule: the manifest was updated, so the digests agree."""
    folder, world = shop
    shutil.copytree(folder / "output", tmp_path / "output")
    forgery = Forgery(tmp_path / "output", world, WIDTH)
    defect(forgery)
    forgery.update_manifest()
    certificate = audit(folder / "input", tmp_path / "output")
    assert rule in failing(certificate)
    # Columns of other types are not read, so they have no digests.
    assert "digests" not in failing(certificate) or rule == "schema"
    check = get_check(certificate, rule)
    assert check["n_bad"] >= 1 and check["offenders"] and certificate["verdict"] == "fails"


def test_beyond_the_sample_a_wrong_weight_shows_in_the_draws(shop, tmp_path):
    """Weights are derived again only where the sample holds all train positives."""
    folder, world = shop
    n_train = len(world.positives[0])
    for sample, rules in ((n_train, {"mining_weights"}), (n_train - 1, set())):
        shutil.copytree(folder / "output", tmp_path / str(sample))
        forgery = Forgery(tmp_path / str(sample), world, WIDTH)
        item = a_heavy_candidate(world)
        forgery.set("item_vocabulary", "mining_weight", item, lambda weight: 1 + weight // 99)
        forgery.update_manifest()
        certificate = audit(folder / "input", tmp_path / str(sample), sample=sample)
        assert failing(certificate) == {"negatives", "negative_log_q", "hard_candidates"} | rules
        scope = get_check(certificate, "mining_weights")["scope"]
        assert (scope == "all") == (rules != set())


def a_heavy_candidate(world: reference.World) -> int:
    """Return the row of item_vocabulary of the item that is a hard negative most often."""
    hard = [
        world.item_index[row["item_id"]] - 1
        for rows in world.rows
        for row in rows
        if row["negative_source"] == "hard"
    ]
    return max(set(hard), key=hard.count)


def test_items_that_no_train_positive_could_have_drawn_are_neutral(tmp_path):
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True)
    config = tiny_config(
        split={"train_share": 0.45, "val_share": 0.25}, output=CONFIG.output.model_dump()
    )
    write_shop(tables, tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", config, backend="cpu").output
    world = reference.build(tables, config)
    late = late_item(world)
    assert not failing(audit(tmp_path / "input", output, sample=1))
    forgery = Forgery(output, world, WIDTH)
    forgery.set("item_vocabulary", "mining_weight", late, 257)
    forgery.update_manifest()
    check = get_check(audit(tmp_path / "input", output, sample=1), "mining_weights")
    assert check["offenders"] == [
        {"file": "item_vocabulary.parquet", "row": late, "found": 257, "expected": 256}
    ]


def late_item(world: reference.World) -> int:
    """Return the row of item_vocabulary of an item that is on sale after train only."""
    last = world.snapshots.at(world.cuts.cut1 - 1)
    on_sale = set().union(*(world.snapshots.on_sale(k) for k in range(last + 1)))
    return next(
        world.item_index[world.items[j]] - 1 for j in range(len(world.items)) if j not in on_sale
    )


def test_impossible_numbers_are_found_without_drawing_again(shop, tmp_path):
    """Logarithms: of a drawn negative above 0, of a random one of another corpus, of a positive.
    Weights: below and above the limits.
    """
    folder, world = shop
    shutil.copytree(folder / "output", tmp_path / "output")
    drawn = [
        row
        for row, cells in enumerate(world.rows[0])
        if cells["negative_detail"] not in (None, "fallback", "random")
    ]
    forgery = Forgery(tmp_path / "output", world, WIDTH)
    groups = sorted({row // WIDTH for row in drawn})
    changes = {
        next(row for row in drawn if row // WIDTH == groups[0]): 0.5,
        groups[1] * WIDTH + WIDTH - 1: lambda log_q: log_q - 0.5,
        groups[2] * WIDTH: -0.5,
    }
    forgery.set_rows(TRAIN, "negative_log_q", changes)
    forgery.set_rows("item_vocabulary", "mining_weight", {3: 0, 4: 65_537})
    forgery.update_manifest()
    certificate = audit(folder / "input", tmp_path / "output", sample=0)
    assert failing(certificate) == {"negative_log_q", "mining_weights", "hard_candidates"}
    assert get_check(certificate, "mining_weights")["n_bad"] == 2
    assert get_check(certificate, "negative_log_q")["n_bad"] == 3


@pytest.mark.parametrize("shape", ["labeled_pair", "n_tuple"])
def test_without_a_draw_every_weight_and_every_log_q_is_known(shape, tmp_path):
    config = tiny_config(
        negative_sampling={"selection": "greedy"},
        output={**CONFIG.output.model_dump(), "shape": shape},
    )
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True)
    write_shop(tables, tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", config, backend="cpu").output
    assert not failing(audit(tmp_path / "input", output, sample=0))
    forgery = Forgery(output, reference.build(tables, config), WIDTH)
    forgery.set("item_vocabulary", "mining_weight", 0, 257)
    if shape == "n_tuple":
        forgery.set(TRAIN, "negative_log_q", 5, lambda log_q: [-0.5, *log_q[1:]])
    else:
        forgery.set(TRAIN, "negative_log_q", 5 * WIDTH + 1, -0.5)
    forgery.update_manifest()
    certificate = audit(tmp_path / "input", output, sample=0)
    assert failing(certificate) == {"mining_weights", "negative_log_q", "hard_candidates"}
    (offender,) = get_check(certificate, "negative_log_q")["offenders"]
    assert (offender["found"], offender["expected"]) == ("slot 1: -0.5", "slot 1: 0")


def test_a_fallback_is_as_probable_as_their_number_among_the_items_on_sale(tmp_path):
    """Without sources all hard negatives are fallbacks; one wrong log_q in one group is found."""
    sampling = {"item_cf_top_k": 0, "collaborative_buyers": 0, "category_draws": 0}
    config = tiny_config(negative_sampling=sampling, output=CONFIG.output.model_dump())
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True)
    write_shop(tables, tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", config, backend="cpu").output
    assert not failing(audit(tmp_path / "input", output, sample=0))
    forgery = Forgery(output, reference.build(tables, config), WIDTH)
    forgery.set(TRAIN, "negative_log_q", 5 * WIDTH + 2, lambda log_q: log_q - 0.5)
    forgery.update_manifest()
    certificate = audit(tmp_path / "input", output, sample=0)
    assert failing(certificate) == {"negative_log_q"}
    assert get_check(certificate, "negative_log_q")["n_bad"] == 1


@pytest.fixture(scope="module")
def watched_shop(tmp_path_factory) -> tuple[Path, reference.World]:
    """As `shop`, of a log with views."""
    tables = random_shop(7, n_users=26, n_items=30, n_rows=520, minutes=True, views=True)
    folder = tmp_path_factory.mktemp("watched")
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", CONFIG, backend="cpu")
    return folder, reference.build(tables, CONFIG)


@pytest.mark.parametrize("is_viewed", [True, False], ids=["viewed", "not viewed"])
def test_a_wrong_item_that_is_called_viewed_is_found(is_viewed, watched_shop, tmp_path):
    """Not viewed lately: the row alone shows it. Viewed, by others: a draw shows it."""
    folder, world = watched_shop
    shutil.copytree(folder / "output", tmp_path / "output")
    forgery = Forgery(tmp_path / "output", world, WIDTH)
    group, slot, item = a_wrong_viewed_item(world, is_viewed)
    forgery.replace_item(0, group, slot, item)
    forgery.update_manifest()
    for sample, rules in ((0, set()), (1000, {"negatives"})):
        faults = failing(audit(folder / "input", tmp_path / "output", sample=sample))
        assert ("negative_details" in faults) == (not is_viewed)
        assert rules <= faults


def a_wrong_viewed_item(world: reference.World, is_viewed: bool) -> tuple[int, int, int]:
    """Return group and slot of a negative of `viewed`, and another item that may be bought then.

    It was viewed lately by someone who had not bought it, or by nobody.
    """
    log, snapshots = world.snapshots.log, world.snapshots
    for row, cells in enumerate(world.rows[0]):
        if cells["negative_detail"] != "viewed":
            continue
        group, slot = divmod(row, WIDTH)
        p = world.positives[0][group]
        start = snapshots.start(p.snapshot)
        since = start - CONFIG.negative_sampling.collaborative_days * DAY
        viewed = {
            item
            for user, item, time in log.views
            if since <= time < start and item not in log.owned(user, start)
        }
        names = {cells["item_id"] for cells in world.rows[0][group * WIDTH : (group + 1) * WIDTH]}
        for j in snapshots.on_sale(p.snapshot):
            is_free = j not in log.owned(p.user, log.cuts.end(0)) and not log.siblings(p.item, j)
            if is_free and world.items[j] not in names and (j in viewed) == is_viewed:
                return group, slot, j
    raise AssertionError("the shop has no such row: use another shop")


def test_a_changed_value_without_a_changed_manifest_breaks_the_digests(shop, tmp_path):
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    Forgery(tmp_path / "output", shop[1], WIDTH).set(
        "item_similarity_matrix", "similarity", 0, 0.25
    )
    check = get_check(audit(shop[0] / "input", tmp_path / "output"), "digests")
    files = [offender["file"] for offender in check["offenders"]]
    assert files == ["item_similarity_matrix", "manifest.json"]


def test_inputs_that_are_not_those_of_the_build_are_found(shop, tmp_path):
    """A purchase more, after the last cut: the build did not have it."""
    shutil.copytree(shop[0] / "input", tmp_path / "input")
    log = pq.read_table(tmp_path / "input" / "transactions.parquet")
    pq.write_table(
        pa.concat_tables([log, log.slice(0, 1)]), tmp_path / "input" / "transactions.parquet"
    )
    certificate = audit(
        tmp_path / "input", shop[0] / "output", certificate=tmp_path / "certificate.json"
    )
    assert "inputs" in failing(certificate)


def test_an_approximate_search_may_miss_pairs_and_nothing_else(shop, tmp_path):
    """A missing pair is a defect of an exact search, and none of an approximate one."""
    for engine, expected in (("exact", True), ("approximate", False)):
        shutil.copytree(shop[0] / "output", tmp_path / engine)
        forgery = Forgery(tmp_path / engine, shop[1], WIDTH)
        forgery.take("item_similarity_matrix", lambda rows: rows[:-1])
        forgery.json(
            "manifest.json", lambda m, engine=engine: m["similarity"].update(engine=engine)
        )
        forgery.update_manifest()
        assert (
            "similarity_matrix" in failing(audit(shop[0] / "input", tmp_path / engine))
        ) == expected


@pytest.mark.parametrize(
    "file",
    [
        "train_dataset",
        "item_similarity_matrix",
        "user_sequences",
        "item_vocabulary",
        "hard_candidates",
    ],
)
def test_nulls_everywhere_are_findings_and_no_crash(file, shop, tmp_path):
    """All columns of a file null in one row, and each of them alone in another."""
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    forgery = Forgery(tmp_path / "output", shop[1], WIDTH)
    table = forgery.table(file)
    columns = {}
    for n, name in enumerate(table.column_names):
        values = table[name].to_pylist()
        values[0], values[n % len(values)] = None, None
        columns[name] = pa.array(values, table.schema.field(name).type)
    forgery.write(file, pa.table(columns, metadata=table.schema.metadata))
    certificate = audit(shop[0] / "input", tmp_path / "output")
    assert {"schema", "digests"} <= failing(certificate)


@pytest.mark.parametrize("value", [None, [], "none of ours"], ids=["null", "list", "text"])
@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("counts", "split.windows_ns"),
        ("counts", "similarity.engine"),
        ("counts", "negatives"),
        ("counts", "counts.val"),
        ("inputs", "inputs.files"),
        ("inputs", "inputs.rows.articles"),
        ("files", "files"),
        ("digests", "digests.train_dataset"),
    ],
)
def test_manifest_entries_of_another_type_are_findings_and_no_crash(
    rule, path, value, shop, tmp_path
):
    *parents, name = path.split(".")
    content = json.loads((shop[0] / "output" / "manifest.json").read_text("utf-8"))
    entry = content
    for parent in parents:
        entry = entry[parent]
    entry[name] = value
    shutil.copytree(shop[0] / "output", tmp_path / "output")
    (tmp_path / "output" / "manifest.json").write_text(json.dumps(content), "utf-8")
    assert rule in failing(audit(shop[0] / "input", tmp_path / "output"))
