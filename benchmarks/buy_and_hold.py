"""A year of buy and hold in the ledger against the adjusted close that a vendor published: every name, splits and dividends included.

python -m benchmarks.buy_and_hold --bars daily.parquet --actions actions.parquet --published adj_close_published.parquet [--year 2020]

Each name is bought for a million dollars at the close before the year; dividends are reinvested, in fractions of shares, at the close of
their ex-date; no costs. The ledger's own settlement does it. Files have the columns date, symbol and: close; kind and value; adj_close.
A name's published series is consistent if its year is what its own closes and actions make of it, to 1 bp.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from math import prod
from pathlib import Path

import polars as pl

from quant.ledger.book import BookState
from quant.ledger.entries import EntryKind
from quant.ledger.settings import FractionalLedgerSettings
from quant.ports import AdjustmentConvention
from quant.trading.corporate_actions import corporate_action_entries
from quant.trading.execution import CostSettings
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.orders import Execution, Leg, Order, Side
from quant.trading.settlement import settle
from quant.units import CASH_QUANTUM, PRICE_QUANTUM, ZERO, to_decimal

STAKE = Decimal(1_000_000)
LIMIT = 1e-4  # 1 bp
FREE_OF = (
    "slippage_bps",
    "impact_coefficient",
    "commission_per_share_usd",
    "commission_minimum_usd",
    "sec_fee_per_million_usd",
    "taf_per_share_usd",
)
FREE = CostSettings(**dict.fromkeys(FREE_OF, 0.0))
RULES = FractionalLedgerSettings(dividends_paid="ex_date", interest_debit_rate_annual=0)
CONVENTION = AdjustmentConvention.EX_DATE_CLOSE


def bought(symbol: str, session: date, amount: Decimal, close: float) -> Execution:
    """``amount`` USD of a symbol at its close."""
    price = to_decimal(close, quantum=CASH_QUANTUM, where=f"close of {symbol}")
    quantity = (amount / price).quantize(PRICE_QUANTUM)
    order = Order(book="hold", session=session, symbol=symbol, leg=Leg.OPEN, side=Side.BUY, quantity=quantity, reference_price=price)
    return Execution(
        execution_id=f"{symbol}|{session}",
        order=order,
        session=session,
        quantity=quantity,
        price=price,
        reference_price=price,
        commission=ZERO,
        unfilled=ZERO,
    )


def held(markets: list[SessionMarket]) -> tuple[dict[str, float], int]:
    """Value of every name at the end over its value at the start, and how many entries that took."""
    first = markets[0]
    fills = [bought(symbol, first.session, STAKE, close) for symbol, close in first.closes.items()]
    done = settle(
        book="hold", opening=BookState(), outcomes=fills, market=first, convention=CONVENTION, costs=FREE, ledger=RULES,
        deposit=STAKE * len(fills),
    )  # fmt: skip
    start, waiting, entries = dict(done.closing.holdings), dict.fromkeys(done.closing.holdings, ZERO), len(done.entries)
    for market in markets[1:]:
        for entry in corporate_action_entries("hold", done.closing, market, CONVENTION, RULES):
            if entry.kind is EntryKind.DIVIDEND and entry.symbol is not None:
                waiting[entry.symbol] += entry.cash
        paid = [symbol for symbol, amount in waiting.items() if amount > 0 and symbol in market.closes]
        fills = [bought(symbol, market.session, waiting[symbol], market.closes[symbol]) for symbol in paid]
        waiting.update(dict.fromkeys(paid, ZERO))
        done = settle(book="hold", opening=done.closing, outcomes=fills, market=market, convention=CONVENTION, costs=FREE, ledger=RULES)
        entries += len(done.entries)
    end = done.closing.holdings
    return {symbol: float(end[symbol].market_value / start[symbol].market_value) for symbol in start}, entries


def by_formula(closes: dict[date, float], actions: list[CorporateAction], first: date, last: date) -> float:
    """The same from the vendor's rule for adjusting: every action of the year lifts the total return by split x (C + D) / C."""
    lift = prod(a.value if a.kind == "split" else (closes[a.ex_date] + a.value) / closes[a.ex_date] for a in actions if a.ex_date in closes)
    return closes[last] / closes[first] * lift


def measure(bars: pl.DataFrame, actions: pl.DataFrame, published: pl.DataFrame, year: int) -> bool:
    """Print a year's result; True if every consistent name is within the limit."""
    before, last = (bars.filter(pl.col("date").dt.year() == y)["date"].max() for y in (year - 1, year))
    if not isinstance(before, date) or not isinstance(last, date):
        raise SystemExit(f"no bars of {year - 1} and {year}")
    window = bars.filter(pl.col("date").is_between(before, last))
    whole = sorted(set(window.filter(pl.col("date") == before)["symbol"]) & set(window.filter(pl.col("date") == last)["symbol"]))
    window = window.filter(pl.col("symbol").is_in(whole))
    known = datetime(1999, 1, 1, tzinfo=UTC)
    ex: dict[date, list[CorporateAction]] = {}
    of: dict[str, list[CorporateAction]] = {symbol: [] for symbol in whole}
    rows = actions.filter(pl.col("date").is_between(before, last, closed="right"), pl.col("symbol").is_in(whole)).sort(
        "date", "symbol", "kind"
    )
    for day, symbol, kind, value in rows.select("date", "symbol", "kind", "value").iter_rows():
        action = CorporateAction(symbol=symbol, ex_date=day, kind=kind, value=value, known_at=known)
        ex.setdefault(day, []).append(action)
        of[symbol].append(action)
    markets = [
        SessionMarket(session=key[0], closes=dict(part.select("symbol", "close").iter_rows()), actions=tuple(ex.get(key[0], ())))
        for key, part in sorted(window.partition_by("date", as_dict=True).items())
    ]
    began = time.monotonic()
    values, entries = held(markets)
    seconds = time.monotonic() - began
    ends = published.filter(pl.col("date").is_in([before, last]), pl.col("symbol").is_in(whole)).sort("date")
    wanted = {key[0]: part["adj_close"][1] / part["adj_close"][0] for key, part in ends.partition_by("symbol", as_dict=True).items()}
    closes = {key[0]: dict(part.select("date", "close").iter_rows()) for key, part in window.partition_by("symbol", as_dict=True).items()}
    off = {symbol: values[symbol] / wanted[symbol] - 1 for symbol in whole}
    consistent = {s for s in whole if abs(by_formula(closes[s], of[s], before, last) / wanted[s] - 1) < LIMIT}
    within = {s for s in whole if abs(off[s]) < LIMIT}
    worst = max((abs(off[s]) for s in consistent), default=0.0)
    splits, dividends = (sum(a.kind == kind for some in of.values() for a in some) for kind in ("split", "dividend"))
    print(
        f"{year}: {len(within)} of {len(whole)} names within 1 bp ({len(within) / len(whole):.1%}), "
        f"{len(within & consistent)} of {len(consistent)} consistent ones, worst of those {worst * 1e4:.4f} bp; "
        f"{splits} splits, {dividends} dividends, {entries:,} entries, {seconds:.1f} s",
        flush=True,
    )
    for symbol in sorted(set(whole) - within):
        why = "" if symbol in consistent else ": published is not what its closes and actions make"
        print(f"    {symbol} {off[symbol] * 1e4:+.2f} bp{why}")
    return consistent <= within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bars", "actions", "published"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--year", type=int, action="append", help="calendar year; again for another one; default 2020")
    given = parser.parse_args()
    bars, actions, published = (pl.read_parquet(path) for path in (given.bars, given.actions, given.published))
    good = [measure(bars, actions, published, year) for year in given.year or [2020]]
    if not all(good):
        raise SystemExit("a consistent name is beyond 1 bp")


if __name__ == "__main__":
    main()
