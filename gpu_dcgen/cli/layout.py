"""Tables and fields, the two forms in which the commands show results."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

VERDICT_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def make_table(*columns: str) -> Table:
    """Make a table without borders; a column named `>...` is right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", overflow="fold")
        else:
            table.add_column(column, overflow="fold")
    return table


def make_fields(fields: Mapping[str, str]) -> Table:
    """Make a grid of names and texts, one field per line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in fields.items():
        grid.add_row(name, Text(text))
    return grid
