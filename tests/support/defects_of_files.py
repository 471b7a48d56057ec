"""Defects of files: structure of groups, schemas, side tables, the manifest."""

from __future__ import annotations

import pyarrow as pa

from tests.support.forgery import HARD, RANDOM, TEST, TRAIN, VAL, breaks, set_group
from tests.support.shops import DAY

# Structure


@breaks("groups")
def a_negative_with_the_label_of_a_positive(f):
    f.set(TRAIN, "label", RANDOM, 1.0)


@breaks("groups")
def a_sample_id_twice(f):
    f.set(TRAIN, "sample_id", 7, "train-0000000000-00")


@breaks("groups")
def a_hard_negative_called_random(f):
    f.set(TEST, "negative_source", HARD, "random")


@breaks("groups")
def a_group_that_ends_early(f):
    f.take(TEST, lambda rows: rows[:-1])


@breaks("weights")
def a_weight_twice_as_heavy(f):
    set_group(f, TRAIN, 0, "sample_weight", lambda weight: weight * 2)


@breaks("weights")
def a_weight_in_val(f):
    set_group(f, VAL, 0, "sample_weight", 0.5)


@breaks("repurchases")
def a_repurchase_that_was_not(f):
    set_group(f, TRAIN, 0, "is_repurchase", lambda bought: not bought)


@breaks("schema")
def a_label_in_double_precision(f):
    table = f.table(TRAIN)
    place = table.schema.get_field_index("label")
    f.write(
        TRAIN,
        table.set_column(
            place, pa.field("label", pa.float64(), False), table["label"].cast(pa.float64())
        ),
    )


@breaks("schema")
def a_column_too_few(f):
    f.write(VAL, f.table(VAL).drop_columns("month"))


@breaks("schema")
def a_user_that_is_null(f):
    table = f.table(TRAIN)
    users = pa.array([None, *table["user_id"].to_pylist()[1:]], pa.string())
    f.write(TRAIN, table.set_column(0, pa.field("user_id", pa.string()), users))


# The other files


@breaks("similarity_matrix")
def a_similarity_that_knows_the_future(f):
    f.set("item_similarity_matrix", "similarity", 0, lambda similarity: similarity * 0.999)


@breaks("similarity_matrix")
def a_pair_is_missing(f):
    f.take("item_similarity_matrix", lambda rows: rows[:-1])


@breaks("similarity_matrix")
def common_buyers_of_another_pair(f):
    f.set("item_similarity_matrix", "common_users", 1, lambda n: n + 1)


@breaks("similarity_matrix")
def a_pair_twice(f):
    f.take("item_similarity_matrix", lambda rows: [*rows, rows[-1]])
    f.set("item_similarity_matrix", "rank", -1, lambda rank: rank + 1)


@breaks("similarity_matrix")
def an_approximate_search_with_a_similarity_of_its_own(f):
    f.json("manifest.json", lambda m: m["similarity"].update(engine="approximate"))
    f.set("item_similarity_matrix", "similarity", 0, lambda similarity: similarity * 0.999)


@breaks("counts")
def an_engine_that_was_not_configured(f):
    f.json("manifest.json", lambda m: m["similarity"].update(engine="approximate"))


@breaks("similarity_matrix")
def neighbors_out_of_order(f):
    f.take("item_similarity_matrix", lambda rows: [rows[1], rows[0], *rows[2:]])


@breaks("user_sequences")
def a_sequence_with_a_purchase_after_the_window(f):
    f.set(
        "user_sequences",
        "item_indices",
        0,
        lambda items: [*items[1:], items[-1] % len(f.world.items) + 1],
    )


@breaks("user_sequences")
def a_session_that_never_ends(f):
    row = next(r for r, row in enumerate(f.world.user_sequence_rows) if max(row["session_ids"]) > 0)
    f.set("user_sequences", "session_ids", row, lambda ids: [0] * len(ids))


@breaks("user_sequences")
def a_recency_that_does_not_decay(f):
    f.set("user_sequences", "recency", 0, lambda recency: [1.0] * len(recency))


@breaks("user_sequences")
def a_user_is_missing(f):
    f.take("user_sequences", lambda rows: rows[1:])


@breaks("user_sequences")
def a_user_in_another_split(f):
    f.set("user_sequences", "split", 0, lambda split: "val" if split != "val" else "test")


@breaks("vocabularies")
def two_items_change_indices(f):
    f.take("item_vocabulary", lambda rows: [rows[1], rows[0], *rows[2:]])


@breaks("vocabularies")
def a_category_without_a_code(f):
    f.json("vocabulary.json", lambda v: v["item_features"]["color_groups"].pop())


@breaks("vocabularies")
def a_category_weight_of_another_shop(f):
    f.json(
        "category_mappings.json", lambda m: m["weights"]["item_product_group"][0].update(weight=1.5)
    )


@breaks("vocabularies")
def an_item_that_was_bought_once_more(f):
    f.set("item_vocabulary", "n_train_positives", 3, lambda n: n + 1)


@breaks("vocabularies")
def an_item_that_was_drawn_once_more(f):
    f.set("item_vocabulary", "n_train_hard_negatives", 3, lambda n: n + 1)


@breaks("mining_weights")
def a_weight_of_no_draw(f):
    f.set("item_vocabulary", "mining_weight", 3, 0)


@breaks("mining_weights")
def a_weight_beyond_the_limit(f):
    f.set("item_vocabulary", "mining_weight", 3, 65_537)


@breaks("mining_weights")
def a_weight_of_another_calibration(f):
    f.set("item_vocabulary", "mining_weight", 3, lambda weight: weight + 1)


@breaks("hard_candidates")
def a_weight_of_another_source(f):
    f.set("hard_candidates", "weight", 3, lambda weight: weight * 2)


@breaks("hard_candidates")
def a_score_that_ranks_higher(f):
    f.set("hard_candidates", "score", 3, lambda score: score + 2**-14)


@breaks("hard_candidates")
def a_candidate_with_another_popularity(f):
    f.set("hard_candidates", "popularity_score", 3, lambda popularity: popularity / 2 + 0.25)


@breaks("hard_candidates")
def a_candidate_without_its_similarity(f):
    row = next(r for r, c in enumerate(f.world.hard_candidate_rows) if c["similarity"] is not None)
    f.set("hard_candidates", "similarity", row, None)


@breaks("hard_candidates")
def a_candidate_that_changes_groups(f):
    f.set("hard_candidates", "is_own_group", 3, lambda is_own: not is_own)


@breaks("hard_candidates")
def a_candidate_is_missing(f):
    f.take("hard_candidates", lambda rows: rows[:5] + rows[6:])


@breaks("hard_candidates")
def candidates_out_of_order(f):
    f.take("hard_candidates", lambda rows: [rows[1], rows[0], *rows[2:]])


@breaks("hard_candidates")
def a_list_of_a_moment_that_is_no_snapshot(f):
    f.set("hard_candidates", "snapshot", 3, lambda time: time + DAY // 2)


@breaks("hard_candidates")
def a_list_for_no_positive(f):
    f.set("hard_candidates", "snapshot", -1, lambda time: time + 1000 * DAY)


@breaks("hard_candidates")
def a_price_category_that_is_none(f):
    f.set("hard_candidates", "price_category", 3, "Q9")


@breaks("hard_candidates")
def a_source_that_fills_up(f):
    f.set("hard_candidates", "source", 3, "fallback")


@breaks("counts")
def a_loss_that_the_ledger_lacks(f):
    f.json(
        "manifest.json",
        lambda m: m["ledger"].update(short_history=m["ledger"]["short_history"] - 1),
    )


@breaks("counts")
def a_cut_a_day_later(f):
    f.json(
        "manifest.json",
        lambda m: m["split"]["windows_ns"].update(cut1=m["split"]["windows_ns"]["cut1"] + DAY),
    )


@breaks("files")
def a_file_that_nobody_wrote(f):
    (f.folder / "notes.parquet.txt").write_text("added")


@breaks("files")
def a_file_is_missing(f):
    (f.folder / "vocabulary.json").unlink()
    f.json("manifest.json", lambda m: m["files"].pop("vocabulary.json"))
