"""How every command talks: two consoles, one look of progress bars and tables, dates as people type them."""

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from quant.errors import InputError, expected

# Texts of the data are printed as they are: ":x:" is not a picture.
out = Console(soft_wrap=False, emoji=False)
err = Console(stderr=True, emoji=False)
LABEL_WIDTH = 46


def parse_session(text: str, where: str) -> date:
    """A date typed by a person."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(expected("a date as YYYY-MM-DD", found=repr(text), where=where, do="write it like 2013-02-01")) from None


def bars() -> Progress:
    """The one look of progress bars."""
    columns = (TextColumn(f"{{task.description:<{LABEL_WIDTH}}}"), BarColumn(bar_width=36), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err)


def revision_lines(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Revised rows as columns and lines: one a changed column."""
    columns = ["symbol", "session", "column", "old", "new", "known at", "used by"]
    lines: list[list[str]] = []
    for record in records:
        uses = "; ".join(f"{use['book']}: {_sessions(use['sessions'])}" for use in record["used_by"]) or "no decision"
        for change in record["changes"]:
            name = f"{record['kind']} {change['column']}" if record["kind"] else change["column"]
            values = ["" if change[side] is None else str(change[side]) for side in ("old", "new")]
            lines.append([record["symbol"], record["session"], name, *values, record["known_at"], uses])
    return columns, lines


def _sessions(days: Sequence[str]) -> str:
    return ", ".join(days) if len(days) <= 3 else f"{days[0]} to {days[-1]} ({len(days)})"


def print_rows(rows: list[list[str]], columns: list[str]) -> None:
    """A table if it fits the width of the terminal, else one block a row: a number is never cut."""
    widths = [max(len(name), *(len(row[place]) for row in rows), 1) if rows else len(name) for place, name in enumerate(columns)]
    if sum(widths) + 3 * len(widths) + 1 <= out.width:
        table = Table(*columns)
        for row in rows:
            table.add_row(*map(escape, row))
        out.print(table)
        return
    label = max(map(len, columns))
    for number, row in enumerate(rows, start=1):
        out.print(f"-- row {number}", highlight=False)
        for name, value in zip(columns, row, strict=True):
            out.print(f"{name:<{label}}  {escape(value)}", highlight=False, soft_wrap=True)


def plain(value: object) -> str:
    """A value as a table shows it: decimals whole, without the zeros of their scale, other numbers to six digits, nothing for a null."""
    if isinstance(value, Decimal):
        return format(value.normalize() + 0, "f")  # never 1E+3
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def print_frame(frame: pl.DataFrame, *, as_json: bool, as_csv: bool, nothing: str) -> None:
    """Rows for people, or exact ones for programs: decimals are text in JSON. ``nothing`` is said to people if there are none."""
    if as_json and as_csv:
        raise InputError(expected("one of --json and --csv", found="both", where="the command", do="choose one"))
    if as_json:
        sys.stdout.write(frame.rechunk().write_json() + "\n")  # of several chunks polars 2.1 writes none
    elif as_csv:
        sys.stdout.write(frame.write_csv())
    elif frame.is_empty():
        out.print(nothing, highlight=False, soft_wrap=True)
    else:
        print_rows([[plain(value) for value in row] for row in frame.iter_rows()], frame.columns)
