"""What this strategy's model learns to predict: forward returns that can be traded after a decision at the close."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.factors.compile import compute
from quant.factors.expression import parse
from quant.factors.panel import panel_of
from quant.factors.reach import reach
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from quant.calendar import ExchangeCalendar

LABELS: Mapping[str, str] = {
    "open_to_open": "Ref($open,-2)/Ref($open,-1)-1",  # bought at the next session's open, sold at the one after
    "close_to_close": "Ref($close,-2)/Ref($close,-1)-1",  # Qlib's own
}


@cache
def label_reach(label: str) -> int:
    """Sessions after the decision until the label is known. Raises InputError for a label that is not in LABELS."""
    if label not in LABELS:
        raise InputError(expected(f"one of {', '.join(LABELS)}", found=label, where="the label setting", do="use one of them"))
    return reach(parse(LABELS[label])).future


def forward_returns(adjusted: pl.DataFrame, calendar: ExchangeCalendar, label: str, first_known: date, last_known: date) -> pl.DataFrame:
    """Rows of table forward_returns that become known in sessions ``first_known`` to ``last_known``, sorted by the table's key.

    One row per session and symbol of ``adjusted`` (table adjusted_bars), which has to hold label_reach(label) sessions before
    ``first_known`` too. A symbol without the bars that its label needs has no row. Returns are simple total returns, not annualised.
    """
    ahead = label_reach(label)
    panel = panel_of(adjusted.filter(pl.col("session") <= last_known), calendar)
    returns = compute({"label": LABELS[label], "close": "$close"}, panel, dtype=pl.Float64, allow_future=True)
    traded = returns.filter(pl.col("label").is_finite(), pl.col("close").is_not_null())
    decided = pl.DataFrame({"session": calendar.days[:-ahead], "known_session": calendar.days[ahead:]})
    known = decided.filter(pl.col("known_session").is_between(first_known, last_known))
    table = TABLES["forward_returns"]
    return traded.join(known, on="session").select(table.schema.names()).sort(table.key)
