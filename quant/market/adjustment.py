"""Adjustment by forward indices: computed from the actions, never chained from row to row.

Each action multiplies what a share is worth to its old holder by a step, the inverse of the factor that a vendor applies to all earlier
prices. With S the split ratio (new shares per old), D the dividend (USD per share) and C a raw close:

- split: S, in both indices;
- dividend, EX_DATE_CLOSE (Alpha Vantage, Quandl WIKI): (C + D) / C, C the first accepted close on or after the ex_date;
- dividend, PREVIOUS_CLOSE (Yahoo, LEAN, CRSP style): C / (C - D), C the last accepted close before the ex_date;
- spinoff: as a dividend of its value a share; with a dividend of the same date, as one of their sum;
- rename, delisting: nothing. Their rows come here under the name of the security (quant.market.securities).

Share basis: where a split goes ex on the same date, D counts per new share under EX_DATE_CLOSE (the split applies first) and per old share
under PREVIOUS_CLOSE (the dividend applies first). Where the day has no accepted close and splits lie between it and the session that C
comes from, C is brought to D's share basis. An index at t is the product of the steps with ex_date <= t since the symbol's first row, in
the order in which they apply: nothing after t enters it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.market.contracts import first_rows
from quant.ports import AdjustmentConvention
from quant.tables import TABLES

if TYPE_CHECKING:
    from datetime import date

KINDS = ("split", "dividend", "spinoff", "rename", "delisting")
_EATEN = ("symbol", "ex_date", "value", "close")
_CLOSE = ("session", "symbol", "close")
_PRICES = ("open", "high", "low", "close", "vwap")


def adjustment_indices(closes: pl.DataFrame, actions: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """symbol, ex_date, split_index, total_index: the indices from that ex_date on (1.0 before the first), sorted by symbol and ex_date.

    ``closes`` (session, symbol, close) are accepted raw closes: each symbol's first one and those that the convention asks for at the
    ex_dates; more do no harm. An action on or before the symbol's first row moves nothing, and a dividend without its close not yet.
    InputError for an action of unknown kind and for a dividend that is not below the previous close.
    """
    if (unknown := actions.filter(~pl.col("kind").is_in(KINDS))).height:
        shown = first_rows(unknown.select("symbol", "ex_date", "kind", "value"))
        raise InputError(expected(f"kind {' or '.join(KINDS)}", found=shown, where="corporate_actions", do="correct the action"))
    steps = _with_steps(_with_closes(_based(closes, actions, convention), closes, convention), convention)
    indices = steps.select("symbol", "ex_date", "split_index", total_index=pl.col("step").cum_prod().over("symbol"))
    return indices.unique(subset=["symbol", "ex_date"], keep="last", maintain_order=True)


def unpayable(closes: pl.DataFrame, actions: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """symbol, ex_date, value, close of the dividends that are not below the close before their ex-date, on the share basis on which the
    convention applies them: nobody pays out more than there was, and a misprint would be booked in full.

    ``closes`` as for adjustment_indices; a dividend without a close before it is none of them.
    """
    before = _with_closes(_based(closes, actions, convention), closes, AdjustmentConvention.PREVIOUS_CLOSE)
    return before.filter(pl.col("kind") != "split", pl.col("value") >= pl.col("close")).select(_EATEN)


def refuse_unpayable(rows: pl.DataFrame) -> None:
    """InputError that names them, if there are any."""
    if rows.height:
        found, do = first_rows(rows.select(_EATEN)), "correct the dividend, or the source's convention"
        raise InputError(expected("dividends below the close before", found=found, where="corporate_actions", do=do))


def _based(closes: pl.DataFrame, actions: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """Actions that move a price, each symbol's in the order in which the convention applies them, with the split_index after each."""
    first = closes.group_by("symbol").agg(first_session=pl.col("session").min())
    due = _priced(actions).join(first, on="symbol").filter(pl.col("ex_date") > pl.col("first_session"))
    split_first = convention is AdjustmentConvention.EX_DATE_CLOSE
    ordered = due.sort("symbol", "ex_date", "kind", descending=[False, False, split_first])  # "split" > "dividend"
    split = pl.when(pl.col("kind") == "split").then("value").otherwise(1.0)
    return ordered.with_columns(split_index=split.cum_prod().over("symbol"))


def _priced(actions: pl.DataFrame) -> pl.DataFrame:
    """symbol, ex_date, kind (split | dividend), value of the actions that move the price; spinoffs and dividends of a date are one."""
    priced = actions.select("symbol", "ex_date", pl.col("kind").replace("spinoff", "dividend"), "value").filter(
        pl.col("kind").is_in(("split", "dividend"))
    )
    splits, cash = (priced.filter(pl.col("kind") == kind) for kind in ("split", "dividend"))
    paid = cash.group_by("symbol", "ex_date", "kind", maintain_order=True).agg(pl.col("value").sort().sum())
    return pl.concat([splits, paid])


def _with_closes(actions: pl.DataFrame, closes: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """``actions`` with the close that the convention divides by, on the share basis on which the action applies; null if there is none."""
    exact = convention is AdjustmentConvention.EX_DATE_CLOSE
    relevant = closes.select(_CLOSE).join(actions.select("symbol").unique(), on="symbol", how="semi").sort("session")
    found = actions.join_asof(
        relevant,
        left_on="ex_date",
        right_on="session",
        by="symbol",
        strategy="forward" if exact else "backward",
        allow_exact_matches=exact,
        coalesce=False,
        check_sortedness=False,  # both are sorted within a symbol, which polars cannot check
    )
    basis = actions.select("symbol", "ex_date", close_basis="split_index").unique(["symbol", "ex_date"], keep="last", maintain_order=True)
    both = found.with_columns(at=pl.col("session").fill_null(pl.col("ex_date")))
    based = both.join_asof(basis, left_on="at", right_on="ex_date", by="symbol", check_sortedness=False)
    return based.with_columns(pl.col("close") * (pl.col("close_basis").fill_null(1.0) / pl.col("split_index")))


def _with_steps(actions: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """``actions`` with the step of each; dividends without a close left out."""
    close, value, is_split = pl.col("close"), pl.col("value"), pl.col("kind") == "split"
    if convention is AdjustmentConvention.EX_DATE_CLOSE:
        dividend = (close + value) / close
    else:
        dividend = close / (close - value)
        refuse_unpayable(actions.filter(~is_split & (value >= close)))
    return actions.filter(is_split | close.is_not_null()).with_columns(step=pl.when(is_split).then(value).otherwise(dividend))


def adjusted_bars(
    accepted: pl.DataFrame, actions: pl.DataFrame, convention: AdjustmentConvention, *, indices_from: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Rows of adjusted_bars for the rows of accepted_bars, sorted by session and symbol.

    ``indices_from`` (session, symbol, close): accepted closes of other sessions, if ``accepted`` does not start at the beginning: see
    adjustment_indices for those it takes. Rows of the sessions in ``accepted`` are ignored there: ``accepted`` is newer. One session
    computed in this way has the same bits as in the whole range.
    """
    closes = accepted.select(_CLOSE)
    if indices_from is not None:
        sessions = accepted["session"].unique().implode()
        closes = pl.concat([indices_from.select(_CLOSE).filter(~pl.col("session").is_in(sessions)), closes])
    rows = accepted.sort("session", "symbol").join_asof(
        adjustment_indices(closes, actions, convention), left_on="session", right_on="ex_date", by="symbol", check_sortedness=False
    )
    return rows.with_columns(pl.col("split_index", "total_index").fill_null(1.0)).select(list(TABLES["adjusted_bars"].columns))


def seen_from(adjusted: pl.DataFrame, session: date) -> pl.DataFrame:
    """session, symbol, open, high, low, close, volume, vwap of every row up to ``session``, adjusted as seen from it: prices x
    total_index_t / total_index_T, volume x split_index_T / split_index_t, T the symbol's last row up to ``session``, which keeps its raw
    values.
    """
    rows = adjusted.filter(pl.col("session") <= session)
    split, total = (pl.col(name) / pl.col(name).last().over("symbol", order_by="session") for name in ("split_index", "total_index"))
    prices = [pl.col(name) * total for name in _PRICES]
    return rows.with_columns(*prices, pl.col("volume") / split).drop("split_index", "total_index")
