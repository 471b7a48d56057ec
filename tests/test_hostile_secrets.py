"""Secrets stay out of messages, and files are as private as the user's umask says."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpu_dcgen.errors import ConfigError, DcgenError, InputError, escape_controls, redact
from tests.support.input_tables import CUSTOMERS, load_tables, write_tables

SECRET = "hunter2/+x"
SECRETS = {
    "user and password": (f"s3://key:{SECRET}@bucket/x: there", "s3://***@bucket/x: there"),
    "the same as Path has it": (f"s3:/key:{SECRET}@bucket/x", "s3:/***@bucket/x"),
    "a token as user": ("https://ghp_token@example.org/x.git", "https://***@example.org/x.git"),
    "a signed query": (
        f"'https://a.example.org/c/f.parquet?sv=1&sig={SECRET}' is",
        "'https://a.example.org/c/f.parquet?***' is",
    ),
    "a query alone": (f"X-Amz-Signature={SECRET}&X-Amz-Date=1", "X-Amz-Signature=***&X-Amz-Date=1"),
    "a database": (f"postgresql://me:{SECRET}@host:5432/db", "postgresql://***@host:5432/db"),
    "a connection string": (
        f"AccountName=a;AccountKey={SECRET};End=x",
        "AccountName=a;AccountKey=***;End=x",
    ),
    "a setting": (f"{{'password': '{SECRET}'}}", "{'password': '***'}"),
    "a header": ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
    "a webhook": (
        "post to https://hooks.slack.com/services/T0/B0/abc failed",
        "post to https://hooks.slack.com/*** failed",
    ),
    "a webhook in a path": (
        "https://discord.com/api/webhooks/1/abc",
        "https://discord.com/api/webhooks/***",
    ),
}
HARMLESS = (
    "transactions.parquet: column 'price' has 12 values below 0 (first: row 48211, -3.99).",
    "inputs.columns: {transactions: {price: Price_SEK}}",
    'missing_key: the id is null or empty (first: row 3, customer_id "a@b.org")',
    "see https://example.org/docs/columns and C:/data/shop",
)


@pytest.mark.parametrize(("text", "shown"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_hidden_and_the_rest_is_shown(text, shown):
    assert redact(text) == shown
    assert str(DcgenError(text)) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_shown(text):
    assert redact(text) == escape_controls(text) == text


def test_no_secret_is_cut_open_where_a_long_text_is_shortened():
    for n in range(9_900, 10_100):
        assert SECRET[:6] not in redact(
            "x" * 50_000 + f" s3://key:{SECRET}@bucket " + "y" * (n - 9_000)
        )


@pytest.mark.parametrize(
    "text", ["s3://" * 200_000, "https://hook/" * 80_000, "passwd=" * 150_000, "a:/?" * 250_000]
)
def test_hostile_texts_take_no_time(text):
    assert len(redact(text)) < 30_000


def test_controls_directions_and_halves_are_escaped():
    assert (
        escape_controls("a\x1b[31m\u202e\x00\ud800\r\nb\tü")
        == "a\\x1b[31m\\u202e\\x00\\ud800\\r\nb\tü"
    )


def test_an_input_url_shows_no_password():
    with pytest.raises(InputError) as caught:
        load_tables(Path(f"s3://key:{SECRET}@bucket/shop"))
    assert SECRET not in str(caught.value) and "bucket/shop" in str(caught.value)


def test_a_config_url_shows_no_signature():
    from gpu_dcgen.config import load_config

    with pytest.raises(ConfigError) as caught:
        load_config(Path(f"https://example.org/c.yaml?sig={SECRET}"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_rejects_are_as_private_as_the_umask_says(tmp_path, umask, mode):
    """They hold rows of customers."""
    folder, before = (
        write_tables(tmp_path, customers=CUSTOMERS | {"customer_id": ["u1", None]}),
        os.umask(umask),
    )
    try:
        load_tables(
            folder,
            rejects=tmp_path / "out" / "rejects.parquet",
            on_bad_rows="reject",
            min_quality_score=0.0,
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out" / "rejects.parquet").stat().st_mode) == mode
