"""Source ``sample``: daily bars of AAPL, FB, GOOG, IBM and MSFT, 2000-03-01 to 2013-03-01, embedded in the wheel bokeh_sampledata.

The file has raw prices and an adjusted close (convention EX_DATE_CLOSE) but no corporate actions. They are recovered from the changes
of f = (adjusted / raw) on the day before : (adjusted / raw) on the day, the factor applied to all earlier prices:

- split: 1 / f is a simple ratio p/q and the raw price jumped with it;
- dividend: f = C / (C + D), so D = C (1 / f - 1), in whole cents where these give back the published number.
"""

from __future__ import annotations

import gzip
import hashlib
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import polars as pl

from adapters.sources.span import require_reachable
from adapters.sources.universe import chosen_symbols
from quant.calendar import exchange_calendar
from quant.ports import AdjustmentConvention, SourceFacts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

_NAMES = {
    "Date": "session", "Ticker": "symbol", "Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume",
}  # fmt: skip
_CHANGED = 1e-8  # published with 13 digits: ratios that did not change agree to 1e-12
_SAME = 1e-10  # relative: how closely an action must give back the published ratio
_SIMPLE = 20  # largest denominator of a split ratio
_JUMP = 0.25  # how far the raw price may move besides a split; only larger steps can be one


class SampleSource:
    """The embedded data. Finite; no vwap; expected 30 minutes after the close."""

    def __init__(self, *, universe: Sequence[str] | None = None) -> None:
        symbols = chosen_symbols(universe, embedded_bars()["symbol"].unique().to_list(), where="source sample")
        self._published = embedded_bars().filter(pl.col("symbol").is_in(symbols))
        self._actions = recovered_actions(self._published)
        self._bars = self._published.drop("adj_close")

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(
            name="sample",
            convention=AdjustmentConvention.EX_DATE_CLOSE,
            publish_delay_minutes=30,
            absent=frozenset({"vwap"}),
            finite=True,
            origin_digest=_packed_digest(),
        )

    def first_session(self) -> date:
        return self._bars["session"][0]

    def last_session(self, now: datetime) -> date:
        return self._bars["session"][-1]

    def bars(self, first: date, last: date) -> pl.DataFrame:
        has = (self._bars["session"][0], self._bars["session"][-1])
        require_reachable(first, last, has=has, calendar=exchange_calendar(), where="source sample", do="ask for what it has")
        return self._bars.filter(pl.col("session").is_between(first, last))

    def actions(self, first: date, last: date) -> pl.DataFrame:
        return self._actions.filter(pl.col("ex_date").is_between(first, last))


def _packed() -> bytes:
    return (files("bokeh_sampledata") / "_data" / "stocks.csv.gz").read_bytes()


@cache
def _packed_digest() -> str:
    return hashlib.sha256(_packed()).hexdigest()


@cache
def embedded_bars() -> pl.DataFrame:
    """session, symbol, open, high, low, close, volume, vwap (null), adj_close as published; sorted by session and symbol."""
    rows = pl.read_csv(gzip.decompress(_packed()), schema_overrides={"Date": pl.Date, "Volume": pl.Float64})
    bars = rows.select(pl.col(list(_NAMES)).name.map(_NAMES.__getitem__), vwap=pl.lit(None, pl.Float64), adj_close=pl.col("Adj Close"))
    return bars.sort("session", "symbol")


def recovered_actions(published: pl.DataFrame) -> pl.DataFrame:
    """ex_date, symbol, kind, value, pay_date (null) of every change of adj_close / close in ``published`` (as embedded_bars)."""
    ratio, close = pl.col("adj_close") / pl.col("close"), pl.col("close")
    changes = published.select(
        "session",
        "symbol",
        "close",
        growth=(ratio / ratio.shift(1)).over("symbol", order_by="session"),
        jump=(close.shift(1) / close).over("symbol", order_by="session"),
    ).filter((pl.col("growth") - 1).abs() > _CHANGED)
    rows = [(day, symbol, *_action(close, growth, jump), None) for day, symbol, close, growth, jump in changes.iter_rows()]
    schema = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64, "pay_date": pl.Date}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _action(close: float, growth: float, jump: float) -> tuple[str, float]:
    """Kind and value of the action behind a step of the adjusted close. growth: 1 / factor; jump: close before : close on the ex-date."""
    split = float(Fraction(growth).limit_denominator(_SIMPLE))
    if abs(split / growth - 1) < _SAME and abs(jump / growth - 1) < _JUMP < abs(growth - 1):
        return "split", split
    exact = close * (growth - 1)
    rounded = (round(exact, digits) for digits in (2, 4, 6))
    return "dividend", next((value for value in rounded if abs((close + value) / close / growth - 1) < _SAME), exact)
