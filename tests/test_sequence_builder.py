"""Stage 6: histories, user sequences with sessions and recency, and the calendar (D6, D15)."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest

from gpu_dcgen.contract.schema import SEASONS, SPLITS
from gpu_dcgen.kernels.users import count_rows_before
from gpu_dcgen.sequence_builder import (
    UserSequences,
    build_calendar,
    build_user_sequences,
    history_windows,
)
from tests.support.reference.samples import user_sequence_rows
from tests.support.reference.splits import assign
from tests.support.shops import DAY, loose_config, random_shop, sales, tiny_config
from tests.support.stage_shops import Stages

HOUR = DAY // 24
CASES = {
    "one split a user": tiny_config(),
    "hashed users": tiny_config(split={"strategy": "hash"}),
    "long histories only": tiny_config(
        sequence_processing={"min_sequence_length": 5, "max_sequence_length": 3}
    ),
    "a day's gap": tiny_config(
        sequence_processing={"temporal_gap_hours": 24},
        category_balancing={"recency_half_life_days": 3},
    ),
}


@pytest.fixture(params=CASES)
def stages(request, backend) -> Stages:
    shop = random_shop(7, n_users=18, n_items=22, n_rows=330, minutes=True)
    return Stages(backend, shop, CASES[request.param])


def test_histories_are_the_latest_strictly_before(stages):
    log, most = stages.expected_log, stages.config.sequence_processing.max_sequence_length
    rows = stages.backend.xp.arange(len(log), dtype=stages.backend.xp.int64)
    start, length = map(stages.host, history_windows(stages.log, rows, most, stages.backend))
    for e, first, n in zip(log, start, length, strict=True):
        history = stages.oracle.history(e.user, e.time)[-most:]
        assert [(h.user, h.time, h.item) for h in log[first : first + n]] == [
            (h.user, h.time, h.item) for h in history
        ]


def sequences(stages: Stages) -> UserSequences:
    return build_user_sequences(stages.log, stages.plan, stages.config, stages.backend)


def test_user_sequences_are_the_oracles(stages):
    ours = sequences(stages)
    expected = user_sequence_rows(
        stages.oracle, stages.config, assign(stages.oracle, stages.config)
    )
    offsets, row, log = stages.host(ours.offsets), stages.host(ours.row), stages.expected_log
    session, recency = stages.host(ours.session), stages.host(ours.recency)
    assert [stages.oracle.users[user] for user in stages.host(ours.user)] == [
        line["user_id"] for line in expected
    ]
    assert [SPLITS[split] for split in stages.host(ours.split)] == [
        line["split"] for line in expected
    ]
    assert len(offsets) == len(expected) + 1
    for line, start, stop in zip(expected, offsets[:-1], offsets[1:], strict=True):
        assert [stages.oracle.index(log[r].item) for r in row[start:stop]] == line["item_indices"]
        assert [log[r].time for r in row[start:stop]] == line["timestamps"]
        assert session[start:stop] == line["session_ids"]
        assert [np.float32(value) for value in recency[start:stop]] == line["recency"]


def test_users_of_several_windows_count_to_the_last_they_have_a_positive_in(backend):
    config = tiny_config(split={"strategy": "temporal"})
    stages = Stages(
        backend, random_shop(7, n_users=18, n_items=22, n_rows=330, minutes=True), config
    )
    log, ours = stages.expected_log, sequences(stages)
    last = {
        log[r].user: k
        for k, positives in enumerate(stages.plan.positives)
        for r in stages.host(positives.row)
    }
    assert dict(zip(stages.host(ours.user), stages.host(ours.split), strict=True)) == last
    assert set(last.values()) == {0, 1, 2}
    offsets, row = stages.host(ours.offsets), stages.host(ours.row)
    for user, start, stop in zip(stages.host(ours.user), offsets[:-1], offsets[1:], strict=True):
        history = stages.oracle.history(user, stages.windows.ends[last[user]])[-6:]
        assert [(log[r].time, log[r].item) for r in row[start:stop]] == [
            (h.time, h.item) for h in history
        ]


def three_shoppers(gap: float):
    """One buys in each window; `u` twice with a gap in hours between. Train ends on day 12, val on
    day 16, test with day 20.
    """
    train = [("u", "a", 0), ("u", "b", gap / 24), ("u", "c", 9)]
    val = [("v", item, day) for item, day in (("a", 1), ("b", 2), ("c", 12.5), ("d", 14))]
    test = [("w", item, day) for item, day in (("b", 1), ("c", 17), ("d", 20))]
    return sales(*train, *val, *test, ("x", "e", 0.5), ("x", "f", 11))


def of_users(gap: float, backend) -> dict[str, list[tuple[int, float]]]:
    """(session, recency) of each user's sequence."""
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0, "corpus": "all"}
    balancing = {"recency_half_life_days": 4}
    stages = Stages(
        backend,
        three_shoppers(gap),
        loose_config(negative_sampling=few, category_balancing=balancing),
    )
    ours = sequences(stages)
    users, offsets = (
        [stages.oracle.users[user] for user in stages.host(ours.user)],
        stages.host(ours.offsets),
    )
    rows = list(zip(stages.host(ours.session), stages.host(ours.recency), strict=True))
    return {
        user: rows[start:stop]
        for user, start, stop in zip(users, offsets[:-1], offsets[1:], strict=True)
    }


def test_a_purchase_at_the_very_end_of_a_window_is_behind_it(backend):
    offsets, time = [0, 3, 5, 6], [1, 5, 9, 2, 5, 7]
    split, ends = np.array([0, 1, -1], dtype=np.int8), [5, 6, 10]
    arrays = [backend.from_host(np.asarray(values)) for values in (offsets, time, split, ends)]
    n_before = backend.xp.empty(3, dtype=backend.xp.int64)
    backend.for_each(count_rows_before, 3, *arrays, n_before)
    assert backend.to_host(n_before).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("gap", "sessions"), [(48, [0, 0, 1]), (48 + 1e-9, [0, 1, 2]), (1, [0, 0, 1])]
)
def test_a_session_ends_where_the_gap_is_longer(gap, sessions, backend):
    assert [session for session, _ in of_users(gap, backend)["u"]] == sessions


def test_recency_halves_in_whole_days_before_the_users_own_window_end(backend):
    users = of_users(24, backend)
    assert [2 ** (-days / 4) for days in (12, 11, 3)] == pytest.approx(
        [recency for _, recency in users["u"]]
    )
    assert [2 ** (-days / 4) for days in (15, 14, 3, 2)] == pytest.approx(
        [recency for _, recency in users["v"]]
    )
    assert [2 ** (-days / 4) for days in (19, 3, 0)] == pytest.approx(
        [recency for _, recency in users["w"]]
    )


@pytest.mark.parametrize("hemisphere", ["northern", "southern"])
def test_calendar_knows_every_day_of_many_years(hemisphere, backend):
    """Six years with a leap day in 2000, from the epoch's day number on; seasons turn half a year
    in the south.
    """
    days = [dt.date(1999, 11, 20) + dt.timedelta(days=n) for n in range(2300)]
    first = (days[0] - dt.date(1970, 1, 1)).days
    config = tiny_config(features={"hemisphere": hemisphere})
    calendar = build_calendar(first * DAY + 5, (first + len(days)) * DAY - 1, config, backend)
    day_of_week, month, season = (
        backend.to_host(table) for table in (calendar.day_of_week, calendar.month, calendar.season)
    )
    assert day_of_week.tolist() == [day.weekday() for day in days]
    assert month.tolist() == [day.month for day in days]
    northern = {12: "Winter", 3: "Spring", 6: "Summer", 9: "Fall"}
    southern = {12: "Summer", 3: "Fall", 6: "Winter", 9: "Spring"}
    start = {"northern": northern, "southern": southern}[hemisphere]
    names = [start[day.month - day.month % 3 or 12] for day in days]
    assert [SEASONS[code] for code in season.tolist()] == names
    of_year = [(day - dt.date(day.year, 1, 1)).days for day in days]
    assert max(of_year) == 365
    for angles, turns in (
        (calendar.week_angle, [day.weekday() / 7 for day in days]),
        (calendar.year_angle, [n / 365.25 for n in of_year]),
    ):
        exact = [[f(2 * math.pi * turn) for turn in turns] for f in (math.sin, math.cos)]
        assert np.abs(backend.to_host(angles) - np.array(exact)).max() < 1e-6


def test_calendar_rows_are_days_of_the_log(backend):
    calendar = build_calendar(10 * DAY + 7, 12 * DAY, tiny_config(), backend)
    times = backend.from_host(np.array([10 * DAY, 10 * DAY + 7, 11 * DAY - 1, 11 * DAY, 12 * DAY]))
    assert backend.to_host(calendar.rows(times)).tolist() == [0, 0, 0, 1, 2]
    assert backend.to_host(calendar.day_of_week).tolist() == [6, 0, 1]  # 1970-01-11 was a Sunday
