"""What is expected of a session's accepted bars as a whole, for people to read: shares, sums and comparisons with the sessions before that
no rule on a row tells. Expectations are data, in the vocabulary of Great Expectations; an adapter evaluates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from quant.quality.rule import WHOLE_SESSION, Severity
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import date


class ExpectationSettings(BaseModel):
    """The suite of expectations on a session's accepted bars: docs/quality-gate.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    sessions: int = Field(default=20, ge=1, le=250)
    rows_ratio: float = Field(default=0.10, ge=0, lt=1)
    volume_multiple: float = Field(default=4.0, gt=1)
    median_move_ratio: float = Field(default=0.10, gt=0, lt=1)
    unchanged_ratio: float = Field(default=0.25, ge=0, lt=1)
    null_ratio: float = Field(default=0.05, ge=0, lt=1)
    highest_price_usd: float = Field(default=1_000_000.0, gt=0)
    pages: int = Field(default=250, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One expectation. ``type`` and ``arguments`` say it in the vocabulary of Great Expectations, ``expected`` in words, with numbers.
    ``sure``: where it fails, something is wrong whatever the market did.
    """

    id: str
    type: str
    arguments: Mapping[str, object]
    expected: str
    sure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationOutcome:
    """What became of an expectation: what was observed, with numbers, and the symbols of the rows at fault, where it judges rows."""

    expectation: Expectation
    passed: bool
    observed: str
    symbols: tuple[str, ...] = ()


def session_batch(accepted: pl.DataFrame, before: pl.DataFrame, session: date) -> pl.DataFrame:
    """What is judged: the session's rows of accepted_bars, by symbol, and ``move``, the raw close over the symbol's last one in ``before``
    less 1 (null if it has none). No split is taken out: shares and medians over symbols stand that.
    """
    last = before.sort("session").group_by("symbol").agg(last=pl.col("close").last())
    rows = accepted.filter(pl.col("session") == session).join(last, on="symbol", how="left").sort("symbol")
    return rows.with_columns(pl.col("session").dt.to_string("%Y-%m-%d"), move=pl.col("close") / pl.col("last") - 1).drop("last")


def session_suite(
    batch: pl.DataFrame, before: pl.DataFrame, session: date, *, absent: Collection[str], settings: ExpectationSettings
) -> tuple[Expectation, ...]:
    """The expectations on ``batch``, after the accepted bars of the ``settings.sessions`` sessions before it; without any, those that
    compare are left out. ``absent``: columns that the source never has.
    """
    return (*_shape(session), *_values(absent, settings), *_compared(batch, before, settings))


def _shape(session: date) -> Iterator[Expectation]:
    columns = [*TABLES["accepted_bars"].columns, "move"]
    yield Expectation(
        id="e01_columns",
        type="expect_table_columns_to_match_set",
        arguments={"column_set": columns, "exact_match": True},
        expected=f"columns {', '.join(columns)}",
        sure=True,
    )
    for name in ("close", "volume"):  # the contract of the table has the others, too: an expectation costs 6 ms
        yield Expectation(
            id=f"e02_type_of_{name}",
            type="expect_column_values_to_be_of_type",
            arguments={"column": name, "type_": "float64"},
            expected=f"{name} a float of 64 bits",
            sure=True,
        )
    yield Expectation(
        id="e03_one_session",
        type="expect_column_values_to_be_in_set",
        arguments={"column": "session", "value_set": [str(session)]},
        expected=f"session {session} in every row",
        sure=True,
    )
    yield Expectation(
        id="e04_symbol_unique",
        type="expect_compound_columns_to_be_unique",
        arguments={"column_list": ["session", "symbol"]},
        expected="a symbol once in a session",
        sure=True,
    )


def _values(absent: Collection[str], settings: ExpectationSettings) -> Iterator[Expectation]:
    for name in ("close", "volume"):
        yield Expectation(
            id=f"e05_{name}_there",
            type="expect_column_values_to_not_be_null",
            arguments={"column": name},
            expected=f"{name} in every row",
            sure=True,
        )
    if "vwap" not in absent:
        yield Expectation(
            id="e05_vwap_there",
            type="expect_column_values_to_not_be_null",
            arguments={"column": "vwap", "mostly": 1 - settings.null_ratio},
            expected=f"vwap in at least {1 - settings.null_ratio:.4g} of the rows",
        )
    for greater, lesser in (("high", "open"), ("high", "close"), ("open", "low"), ("close", "low")):
        yield Expectation(
            id=f"e06_{lesser}_not_above_{greater}",
            type="expect_column_pair_values_a_to_be_greater_than_b",
            arguments={"column_A": greater, "column_B": lesser, "or_equal": True},
            expected=f"{greater} >= {lesser}",
            sure=True,
        )
    yield Expectation(
        id="e07_price_range",
        type="expect_column_values_to_be_between",
        arguments={"column": "close", "min_value": 0, "strict_min": True, "max_value": settings.highest_price_usd},
        expected=f"close above 0 and at most {settings.highest_price_usd:,.10g} USD",
    )
    yield Expectation(
        id="e08_volume_range",
        type="expect_column_values_to_be_between",
        arguments={"column": "volume", "min_value": 0},
        expected="volume not negative",
        sure=True,
    )


def _compared(batch: pl.DataFrame, before: pl.DataFrame, settings: ExpectationSettings) -> Iterator[Expectation]:
    """Against the sessions before: what a session of this universe usually looks like."""
    if before.is_empty():
        return
    sums = before.group_by("session").agg(rows=pl.len(), volume=pl.col("volume").sum())
    rows, volume = (float(sums[name].median()) for name in ("rows", "volume"))  # type: ignore[arg-type]  # not empty
    since = f"of {sums.height} sessions before"
    fewest, most = floor(rows * (1 - settings.rows_ratio)), ceil(rows * (1 + settings.rows_ratio))
    yield Expectation(
        id="e09_row_count",
        type="expect_table_row_count_to_be_between",
        arguments={"min_value": fewest, "max_value": most},
        expected=f"{fewest} to {most} rows, after a median of {rows:g} {since}",
    )
    known = before["symbol"].unique().sort().to_list()
    yield Expectation(
        id="e10_symbols_known",
        type="expect_column_values_to_be_in_set",
        arguments={"column": "symbol", "value_set": known},
        expected=f"one of the {len(known)} symbols {since}",
    )
    low, high = volume / settings.volume_multiple, volume * settings.volume_multiple
    yield Expectation(
        id="e11_volume_sum",
        type="expect_column_sum_to_be_between",
        arguments={"column": "volume", "min_value": low, "max_value": high},
        expected=f"{low:,.0f} to {high:,.0f} shares in all, after a median of {volume:,.0f} {since}",
    )
    moved = batch["move"].count()
    if not moved:
        return
    limit = settings.median_move_ratio
    yield Expectation(
        id="e12_median_move",
        type="expect_column_median_to_be_between",
        arguments={"column": "move", "min_value": -limit, "max_value": limit},
        expected=f"a median move of the close of at most {limit:.4g} either way",
    )
    changed = min(1 - settings.unchanged_ratio, (moved - 1) / moved)  # one symbol may always stand still
    yield Expectation(
        id="e13_closes_change",
        type="expect_column_values_to_not_be_in_set",
        arguments={"column": "move", "value_set": [0.0], "mostly": changed},
        expected=f"at least {changed:.4g} of the closes changed",
    )


def expectation_findings(outcomes: Sequence[ExpectationOutcome], session: date) -> pl.DataFrame:
    """Those that failed in the columns of bar_findings, all of severity warn, since nothing follows from them. The symbol is that of the
    only row at fault, else '*'.
    """
    failed = [
        {
            "session": session,
            "symbol": outcome.symbols[0] if len(outcome.symbols) == 1 else WHOLE_SESSION,
            "rule": outcome.expectation.id,
            "severity": Severity.WARN.value,
            "expected": outcome.expectation.expected,
            "observed": outcome.observed,
            "evidence": "the session's accepted bars",
        }
        for outcome in outcomes
        if not outcome.passed
    ]
    return pl.DataFrame(failed, schema=TABLES["bar_findings"].schema)
