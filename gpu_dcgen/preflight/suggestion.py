"""Suggest a configuration for the tables of a folder, as YAML to edit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..contract.schema import INPUT_COLUMNS, InputTable
from ..contract.table_names import is_table_name
from ..errors import InputError
from ..inputs.missing_columns import find_price_columns
from .column_guesses import LogGuess, guess_articles, guess_customers, guess_log, guess_times
from .known_logs import KnownLog, find_known_log
from .table_samples import FolderSample, TableSample, read_samples

_WIDTH = 100  # characters of a comment line
_VIEW_WORDS = ("view", "click", "browse", "impression")  # in the names of tables of views


def suggest_config(folder: Path) -> str:
    """Return a configuration for the tables in `folder`, with what could not be decided.

    Known logs are recognized by their columns; others are guessed by types, names and values. The
    text is YAML that `build --config` accepts. InputError where no table has users, items and
    times, or a known log needs another form first.
    """
    samples = read_samples(folder)
    known = find_known_log(samples)
    logs = {table.name: guess for table in samples.tables if (guess := guess_log(table))}
    # Once a table of transactions has been made of it, a log needs no advice how to.
    is_made = any(is_table_name(name, "transactions") for name in logs)
    if known is not None and not (known[0].obstacle and is_made):
        return _suggest_known(folder, samples, *known)
    if not logs:
        raise InputError(_explain_no_log(folder, samples))
    return _suggest_guessed(folder, samples, logs)


def _suggest_known(
    folder: Path, samples: FolderSample, log: KnownLog, tables: dict[InputTable, TableSample]
) -> str:
    if log.obstacle:
        raise InputError(f"{folder}: this is {log.name}: {log.obstacle}")
    names = {known.table: known.names for known in log.tables if known.table in tables}
    inputs = _describe_tables(tables, names) | log.inputs
    inputs |= _describe_times(log, tables)
    return _write(folder, log.name, {"inputs": inputs, **log.sections}, log.notes, samples, tables)


def _describe_times(log: KnownLog, tables: dict[InputTable, TableSample]) -> dict[str, str]:
    """Return how the times of a known log are written, which differs among its copies."""
    if "time_unit" in log.inputs:
        return {}
    name = log.tables[0].names.get("t_dat", "t_dat")
    return dict(guess_times(tables["transactions"].columns[name]).settings)


def _suggest_guessed(folder: Path, samples: FolderSample, logs: dict[str, LogGuess]) -> str:
    """Suggest settings for the tables of an unknown log."""
    by_name = {table.name: table for table in samples.tables}
    views = [name for name in logs if any(word in name.casefold() for word in _VIEW_WORDS)]
    purchases = [name for name in logs if name not in views] or views
    log_name = next((n for n in purchases if is_table_name(n, "transactions")), purchases[0])
    log, doubts = logs[log_name], [*logs[log_name].doubts]
    tables: dict[InputTable, TableSample] = {"transactions": by_name[log_name]}
    names: dict[InputTable, dict[str, str]] = {"transactions": log.names}
    if len(purchases) > 1:
        doubts.append(f"Transactions are {log_name}, or {' or '.join(purchases[1:])}?")
    if views and log_name not in views:
        tables["views"] = by_name[views[0]]
        names["views"] = {
            own: name for own, name in logs[views[0]].names.items() if own in _names_of("views")
        }
        if logs[views[0]].times != log.times:
            doubts.append(f"{views[0]}: times are written otherwise than in {log_name}.")
    for table in samples.tables:
        if table.name in logs:
            continue
        if "articles" not in tables and (
            articles := guess_articles(table, log.names["article_id"])
        ):
            tables["articles"], (names["articles"], more) = table, articles
            doubts += more
        elif "customers" not in tables and (
            customers := guess_customers(table, log.names["customer_id"])
        ):
            tables["customers"], names["customers"] = table, customers
    doubts += _list_lacks(tables)
    prices = find_price_columns(list(by_name[log_name].columns))
    inputs: dict[str, Any] = _describe_tables(tables, names) | dict(log.times.settings)
    if "price" not in log.names and prices:
        inputs["price"] = "none"
        doubts.append(f"{log_name}: prices are not read: {' or '.join(prices)} has no numbers.")
    if log.events:
        inputs["events"] = log.events
    if log.min_rating is not None:
        inputs["min_rating"] = log.min_rating
    numbers = [log.names[own] for own in ("price", "rating") if own in log.names]
    if any(by_name[log_name].columns[name].has_commas for name in numbers):
        inputs["csv"] = {"decimal_point": ","}
    return _write(folder, "an unknown log", {"inputs": inputs}, doubts, samples, tables)


def _names_of(table: InputTable) -> set[str]:
    return {column.name for column in INPUT_COLUMNS[table]}


def _list_lacks(tables: Mapping[InputTable, TableSample]) -> Iterable[str]:
    if "articles" not in tables:
        yield "No table of articles: items have no categories."
    if "customers" not in tables:
        yield "No table of customers: samples have no demographics."


def _describe_tables(
    tables: Mapping[InputTable, TableSample], names: Mapping[InputTable, dict[str, str]]
) -> dict[str, Any]:
    """Return the settings `files` and `columns`, as far as names are not the usual ones."""
    files = {
        str(table): sample.name
        for table, sample in tables.items()
        if not is_table_name(sample.name, table)
    }
    columns = {
        str(table): mapping
        for table in tables
        if (mapping := {own: its for own, its in names[table].items() if own != its})
    }
    settings: dict[str, Any] = {"files": files} if files else {}
    return settings | ({"columns": columns} if columns else {})


def _write(
    folder: Path,
    name: str,
    config: dict[str, Any],
    notes: Iterable[str],
    samples: FolderSample,
    tables: Mapping[InputTable, TableSample],
) -> str:
    """Return the text: what was found, the settings, and what is left to decide."""
    roles = ", ".join(f"{sample.name} as {table}" for table, sample in tables.items())
    read = {sample.name for sample in tables.values()}
    unread = [table.name for table in samples.tables if table.name not in read]
    lines = [f"{folder.name}: {name}.", f"Read: {roles}."]
    if unread:
        lines.append(f"Not read: {', '.join(unread)}.")
    lines += [f"Not read: {file}, {why}." for file, why in samples.unreadable.items()]
    text = "".join(_comment(line) for line in lines)
    config = {section: settings for section, settings in config.items() if settings}
    if config:
        text += _dump(config)
    notes = list(notes)
    if notes:
        text += "".join(_comment(note, "- ") for note in ["To decide, or to know:", *notes])
    return text


def _dump(config: dict[str, Any]) -> str:
    """Return settings as YAML, with escapes in names that could break its lines."""
    form: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": _WIDTH}
    text = yaml.safe_dump(config, allow_unicode=True, **form)
    is_plain = all(line.isprintable() for line in text.split("\n"))
    return text if is_plain else yaml.safe_dump(config, **form)


def _comment(text: str, bullet: str = "") -> str:
    """Return a text as comment lines; what cannot be printed is escaped."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    first = "" if shown.endswith(":") else bullet
    lines = textwrap.wrap(
        shown, _WIDTH, initial_indent=f"# {first}", subsequent_indent=f"# {' ' * len(first)}"
    )
    return "".join(f"{line}\n" for line in lines)


def _explain_no_log(folder: Path, samples: FolderSample) -> str:
    """Return the text of an InputError about a folder without a table of purchases."""
    lines = [f"{folder}: found no table with columns of users, items and times:"]
    lines += [f"  {table.name}: {', '.join(table.columns)}" for table in samples.tables]
    lines += [f"  {name}: {why}" for name, why in samples.unreadable.items()]
    lines.append(
        "Write the log as one table, CSV or Parquet, or name its columns: inputs.columns: "
        "{transactions: {customer_id: ITS_NAME, article_id: ITS_NAME, t_dat: ITS_NAME}}"
    )
    return "\n".join(lines)
