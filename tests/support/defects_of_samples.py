"""What may be wrong with samples: their times and users, histories, features, negatives."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.support.forgery import (
    CONFIG,
    HARD,
    RANDOM,
    TEST,
    TRAIN,
    VAL,
    WIDTH,
    Forgery,
    breaks,
    set_group,
)
from tests.support.reference import Positive
from tests.support.reference.candidates import Candidate, Candidates
from tests.support.shops import DAY


def owned(f: Forgery, split: int, group: int) -> set[int]:
    """Items that a group's user buys before the split's window ends."""
    user, end = f.world.positives[split][group].user, f.world.cuts.end(split)
    return {e.item for e in f.world.interactions if e.user == user and e.time < end}


def in_group(f: Forgery, split: int, group: int) -> set[int]:
    rows = f.world.rows[split][group * WIDTH : (group + 1) * WIDTH]
    return {f.world.items.index(row["item_id"]) for row in rows}


def replace_first(
    f: Forgery,
    slot: int,
    wanted: Callable[[int, int, int], bool],
    splits: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Replace the item in `slot` of the first group that has an item with wanted(...) true."""
    for split in splits:
        for group in range(len(f.world.positives[split])):
            for item in range(len(f.world.items)):
                if wanted(split, group, item):
                    f.replace_item(split, group, slot, item)
                    return
    raise AssertionError("the shop has no such item: use another shop")


# Time and users


@breaks("positives")
def a_positive_at_another_time(f):
    set_group(f, TRAIN, 3, "timestamp", lambda time: time + DAY)


@breaks("window")
def a_positive_from_the_next_window(f):
    set_group(f, TRAIN, 3, "timestamp", f.world.cuts.cut1)


@breaks("positives")
def a_positive_is_missing(f):
    f.take(TRAIN, lambda rows: rows[: WIDTH * 2] + rows[WIDTH * 3 :])


@breaks("positives")
def a_positive_twice(f):
    f.take(VAL, lambda rows: rows + rows[-WIDTH:])


@breaks("positives")
def two_positives_change_places(f):
    f.take(TRAIN, lambda rows: rows[WIDTH : 2 * WIDTH] + rows[:WIDTH] + rows[2 * WIDTH :])


@breaks("disjoint_users")
def a_user_of_train_in_val(f):
    set_group(f, VAL, 0, "user_id", f.world.users[f.world.positives[0][0].user])


@breaks("references")
def an_unknown_user(f):
    set_group(f, TRAIN, 1, "user_id", "nobody")


# Histories and features


def a_positive_with_a_basket(f: Forgery) -> int:
    """Return a train group with other purchases in its positive's basket."""
    for group, p in enumerate(f.world.positives[0]):
        if sum(e.user == p.user and e.time == p.time for e in f.world.interactions) > 1:
            return group
    raise AssertionError("the shop has no basket: use another shop")


@breaks("sequences")
def a_history_sees_its_own_basket(f):
    group = a_positive_with_a_basket(f)
    p = f.world.positives[0][group]
    basket = [
        e.item
        for e in f.world.interactions
        if e.user == p.user and e.time == p.time and e.item != p.item
    ]
    index = f.world.item_index[f.world.items[basket[0]]]
    set_group(f, TRAIN, group, "user_interaction_sequence", lambda history: [*history[1:], index])


@breaks("sequences")
def a_history_holds_the_positive_itself(f):
    index = f.world.item_index[f.world.items[f.world.positives[0][-1].item]]
    set_group(
        f,
        TRAIN,
        len(f.world.positives[0]) - 1,
        "user_interaction_sequence",
        lambda history: [*history[1:], index],
    )


@breaks("sequences")
def a_negative_with_another_history_than_its_positive(f):
    f.set(TRAIN, "user_interaction_sequence", 10 * WIDTH + RANDOM, [1])


@breaks("sequences")
def a_length_that_is_not_the_histories(f):
    f.set(TRAIN, "user_sequence_lengths", 5, lambda n: n + 1)


@breaks("user_features")
def purchases_that_count_the_present_one(f):
    set_group(f, TRAIN, 5, "user_total_purchases", lambda n: n + 1)


@breaks("user_features")
def a_lifetime_a_day_too_long(f):
    set_group(f, VAL, 1, "user_lifetime_days", lambda days: days + 1)


@breaks("user_features")
def a_basket_size_of_the_whole_log(f):
    set_group(f, TEST, 0, "user_avg_basket_size", lambda size: size * 1.01)


@breaks("user_features")
def a_channel_that_the_user_came_to_prefer_later(f):
    set_group(f, TRAIN, 8, "user_preferred_channel", lambda channel: 1 if channel == 2 else 2)


@breaks("user_features")
def an_age_that_was_made_up(f):
    set_group(f, TRAIN, 2, "user_age", lambda age: 33 if age is None else age + 1)


@breaks("item_features")
def a_popularity_of_the_next_snapshot(f):
    for group, p in enumerate(f.world.positives[0]):
        later = float(f.world.snapshots.popularity(p.snapshot + 1, p.item))
        if later != float(f.world.snapshots.popularity(p.snapshot, p.item)):
            f.set(TRAIN, "item_popularity_score", group * WIDTH, later)
            return
    raise AssertionError("no popularity ever changes: use another shop")


@breaks("item_features")
def a_positive_with_the_price_of_its_own_transaction(f):
    f.set(TRAIN, "item_price_normalized", 4 * WIDTH, lambda price: (price + 0.001) % 1)


@breaks("item_features")
def a_price_category_one_too_high(f):
    f.set(VAL, "item_price_category", 2, lambda category: "Q4" if category != "Q4" else "Q1")


@breaks("item_features")
def a_color_of_another_item(f):
    f.set(TEST, "item_color_group", 1, lambda color: "Black" if color != "Black" else "White")


@breaks("calendar")
def a_weekday_that_begins_on_sunday(f):
    set_group(f, TRAIN, 0, "day_of_week", lambda day: (day + 1) % 7)


@breaks("calendar")
def a_channel_that_the_purchase_did_not_have(f):
    set_group(f, TRAIN, 0, "sales_channel", lambda channel: 1 if channel != 1 else 2)


@breaks("label_probe")
def positives_without_a_price(f):
    n = f.table(TRAIN).num_rows
    f.set_rows(TRAIN, "item_price_normalized", dict.fromkeys(range(0, n, WIDTH), None))


# Negatives


@breaks("false_negatives")
def a_negative_that_the_user_had_bought(f):
    replace_first(f, RANDOM, lambda s, g, j: j in owned(f, s, g) and j not in in_group(f, s, g))


@breaks("false_negatives")
def a_negative_that_the_user_buys_later_in_the_window(f):
    def later(split: int, group: int, item: int) -> bool:
        p = f.world.positives[split][group]
        before = {e.item for e in f.world.interactions if e.user == p.user and e.time <= p.time}
        return item in owned(f, split, group) - before and item not in in_group(f, split, group)

    replace_first(f, RANDOM, later)


@breaks("duplicates")
def a_negative_that_is_the_positive(f):
    f.replace_item(0, 2, RANDOM, f.world.positives[0][2].item)


@breaks("duplicates")
def a_negative_twice(f):
    other = f.world.rows[0][6 * WIDTH + HARD]["item_id"]
    f.replace_item(0, 6, RANDOM, f.world.items.index(other))


@breaks("on_sale")
def a_negative_that_was_not_on_sale(f):
    def unsold(split: int, group: int, item: int) -> bool:
        return item not in f.world.snapshots.on_sale(f.world.positives[split][group].snapshot)

    replace_first(f, RANDOM, unsold)


@breaks("siblings")
def a_hard_negative_in_another_color(f):
    log = f.world.snapshots.log

    def sibling(split: int, group: int, item: int) -> bool:
        own = f.world.positives[split][group].item
        return item != own and log.siblings(own, item) and item not in in_group(f, split, group)

    replace_first(f, HARD, sibling)


@breaks("negatives")
def another_random_negative_that_is_allowed(f):
    def is_allowed(split: int, group: int, item: int) -> bool:
        on_sale = f.world.snapshots.on_sale(f.world.positives[split][group].snapshot)
        return item in on_sale and item not in owned(f, split, group) | in_group(f, split, group)

    replace_first(f, RANDOM, is_allowed)


@breaks("negatives")
def random_negatives_in_another_order(f):
    f.take(
        TRAIN,
        lambda rows: [*rows[: RANDOM - 1], rows[RANDOM], rows[RANDOM - 1], *rows[RANDOM + 1 :]],
    )


@breaks("negatives")
def negatives_of_another_seed(f):
    f.json("manifest.json", lambda m: (m.update(seed=43), m["config"].update(seed=43)))


@breaks("negatives")
def another_hard_negative_that_is_a_candidate(f):
    """The draw took others; the candidate is as allowed as they are."""
    group, p, allowed = a_group_with_a_choice(f)
    row = group * WIDTH + HARD
    candidate = next(c for c in allowed if c.item not in in_group(f, 0, group))
    f.replace_item(0, group, HARD, candidate.item)
    f.set(TRAIN, "negative_detail", row, candidate.detail)
    similarity = {n.item: float(n.similarity) for n in f.world.neighbors[p.item]}
    f.set(TRAIN, "similarity_score", row, similarity.get(candidate.item))


@breaks("negatives")
def hard_negatives_by_rising_score(f):
    group, _, _ = a_group_with_a_choice(f)
    first = group * WIDTH + HARD
    order = [first + 1, first]
    f.take(TRAIN, lambda rows: [*rows[:first], *order, *rows[first + 2 :]])
    f.set_rows(
        TRAIN,
        "sample_id",
        {first + n: f"train-{group:010d}-{HARD + n:02d}" for n in range(2)},
    )


def a_group_with_a_choice(f: Forgery) -> tuple[int, Positive, list[Candidate]]:
    """Return a train group with more candidates than it has hard negatives, and these."""
    listed = Candidates(f.world.snapshots.log, CONFIG, f.world.snapshots, f.world.neighbors)
    for group, p in enumerate(f.world.positives[0]):
        bought = owned(f, 0, group)
        allowed = [c for c in listed.listed(p.item, p.snapshot) if c.item not in bought]
        if len(allowed) > RANDOM:
            return group, p, allowed
    raise AssertionError("the shop has no such group: use another shop")


def a_row(f: Forgery, detail: str | None) -> int:
    """Return the first row of train with such a negative."""
    for row, values in enumerate(f.world.rows[0]):
        if values["negative_detail"] == detail:
            return row
    raise AssertionError("the shop has no such row: use another shop")


# Probabilities


@breaks("negative_log_q")
def a_log_q_of_other_weights(f):
    """Possible in itself: only a draw shows that it is wrong."""
    row = next(
        r
        for r, row in enumerate(f.world.rows[0])
        if row["negative_source"] == "hard" and row["negative_log_q"]
    )
    f.set(TRAIN, "negative_log_q", row, lambda log_q: log_q / 2)


@breaks("negative_log_q")
def a_positive_log_q(f):
    f.set(TRAIN, "negative_log_q", a_row(f, "collaborative"), 0.5)


@breaks("negative_log_q")
def a_log_q_of_one_random_negative_of_all_items(f):
    f.set(TRAIN, "negative_log_q", a_row(f, "random"), -math.log(len(f.world.items)))


@breaks("negative_log_q")
def a_log_q_on_a_positive(f):
    f.set(TRAIN, "negative_log_q", 0, 0.0)


@breaks("negative_log_q")
def a_hard_negative_without_a_log_q(f):
    f.set(TRAIN, "negative_log_q", a_row(f, "collaborative"), None)


@breaks("negative_details")
def a_neighbor_outside_the_band(f):
    row = next(
        r
        for r, row in enumerate(f.world.rows[0])
        if row["negative_source"] == "hard" and not row["similarity_score"]
    )
    f.set(TRAIN, "negative_detail", row, "item_cf")


@breaks("negative_details")
def a_view_in_a_log_without_views(f):
    f.set(TRAIN, "negative_detail", a_row(f, "collaborative"), "viewed")


@breaks("similarity_scores")
def a_similarity_of_the_whole_log(f):
    row = next(r for r, row in enumerate(f.world.rows[0]) if row["similarity_score"])
    f.set(TRAIN, "similarity_score", row, lambda similarity: similarity * 0.99)


@breaks("similarity_scores")
def a_similarity_on_a_random_negative(f):
    f.set(TRAIN, "similarity_score", RANDOM, 0.5)


@breaks("references")
def a_negative_that_no_shop_sells(f):
    f.set(TRAIN, "item_id", RANDOM, "none of them")
