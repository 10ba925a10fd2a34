"""A small desk of its own: random-walk prices, a long-short book traded on them, and the lake tables both leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from quant.calendar import exchange_calendar
from quant.tables import TABLES
from quant.trading.attribution import COSTS, GAINS

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
LAST = date(2013, 3, 1)
ZERO = Decimal(0)
Tables = Mapping[str, pl.DataFrame]


class Desk:
    """Trades ``sessions`` sessions up to 2013-03-01; every number of the book follows from the prices and the fills."""

    def __init__(self, sessions: int, book: str, seed: int, flows: Mapping[int, int]) -> None:
        self.random = np.random.default_rng(seed)
        self.book, self.flows = book, flows
        self.days = exchange_calendar().sessions(date(1995, 1, 3), LAST)[-sessions:]
        shape = (sessions, len(SYMBOLS))
        moves = self.random.normal(0.0003, 0.015, shape)
        self.close = np.round(50 * np.exp(np.cumsum(moves, axis=0)), 2)
        self.open = np.round(np.vstack([self.close[:1], self.close[:-1]]) * np.exp(self.random.normal(0, 0.004, shape)), 2)
        self.scores = np.vstack([self.open[2:] / self.open[1:-1] - 1, np.zeros((min(2, sessions), len(SYMBOLS)))])[:sessions]
        noise = self.random.normal(0, 0.02, shape)
        for at in range(1, sessions):
            noise[at] = 0.95 * noise[at - 1] + 0.3 * noise[at]
        self.scores = 0.08 * self.scores + noise
        self.rows: dict[str, list[dict[str, object]]] = {name: [] for name in TABLES}
        self.cash, self.nav, self.held = ZERO, ZERO, dict.fromkeys(SYMBOLS, 0)
        self.orders: list[tuple[str, int, Decimal]] = []

    def run(self) -> Tables:
        for at, day in enumerate(self.days):
            self.settle(at, day)
            self.decide(at, day)
            self.market(at, day)
        return {name: pl.DataFrame(rows, schema=TABLES[name].schema, orient="row") for name, rows in self.rows.items()}

    def settle(self, at: int, day: date) -> None:
        opening, before = self.nav, dict(self.held)
        pnl: dict[str, dict[str, Decimal]] = {s: dict.fromkeys(PNL, ZERO) for s in SYMBOLS}
        for symbol, quantity, _ in self.orders:
            self.fill(at, day, symbol, quantity, pnl[symbol])
        for i, symbol in enumerate(SYMBOLS):
            mark = Decimal(str(self.close[at, i]))
            if before[symbol]:
                pnl[symbol]["price_pnl"] += before[symbol] * (mark - Decimal(str(self.close[at - 1, i])))
            if before[symbol] and at % 63 == 5:
                pnl[symbol]["dividends"] = before[symbol] * Decimal("0.25")
            pnl[symbol]["borrow"] = (max(-before[symbol], 0) * mark * Decimal("0.005") / 252).quantize(Decimal("0.01"))
            side = "short_pnl" if before[symbol] < 0 else "long_pnl"
            pnl[symbol][side] = sum((pnl[symbol][term] for term in ("price_pnl", "dividends")), ZERO)
            pnl[symbol][side] -= sum((pnl[symbol][term] for term in ("commissions", "regulatory_fees", "borrow")), ZERO)
            if before[symbol] or any(pnl[symbol].values()):
                self.rows["daily_pnl"].append({"book": self.book, "session": day, "symbol": symbol, **pnl[symbol]})
        self.close_books(at, day, opening, {term: sum((p[term] for p in pnl.values()), ZERO) for term in PNL})

    def fill(self, at: int, day: date, symbol: str, quantity: int, pnl: dict[str, Decimal]) -> None:
        i, sign = SYMBOLS.index(symbol), 1 if quantity > 0 else -1
        reference = Decimal(str(self.open[at, i]))
        price = (reference * (1 + sign * Decimal("0.0002"))).quantize(Decimal("0.0001"))
        commission = max(Decimal("1.00"), (abs(quantity) * Decimal("0.005")).quantize(Decimal("0.01")))
        slippage = quantity * (price - reference)
        pnl["price_pnl"] += quantity * (Decimal(str(self.close[at, i])) - price)
        pnl["commissions"] += commission
        pnl["regulatory_fees"] += Decimal("0.07") if quantity < 0 else ZERO
        pnl["slippage"] += slippage
        pnl["turnover"] += abs(quantity) * price
        self.held[symbol] += quantity
        self.rows["fills"].append(
            {
                "book": self.book,
                "session": day,
                "symbol": symbol,
                "leg": "open",
                "generation": 1,
                "execution_id": f"x-{day}-{symbol}",
                "client_order_id": f"{self.book}-{day:%Y%m%d}-{symbol}",
                "side": "buy" if quantity > 0 else "sell",
                "quantity": Decimal(abs(quantity)),
                "unfilled": ZERO,
                "price": price,
                "reference_price": reference,
                "slippage": slippage,
                "commission": commission,
            }
        )

    def close_books(self, at: int, day: date, opening: Decimal, total: dict[str, Decimal]) -> None:
        values = {s: self.held[s] * Decimal(str(self.close[at, i])) for i, s in enumerate(SYMBOLS)}
        flow = Decimal(self.flows.get(at, 0))
        gain = sum((total[term] for term in ("price_pnl", "dividends", "cash_in_lieu")), ZERO)
        interest = (self.cash * Decimal("0.01") / 252).quantize(Decimal("0.01"))
        self.nav = opening + gain - total["commissions"] - total["regulatory_fees"] - total["borrow"] + interest + flow
        row = {"book": self.book, "session": day, "opening_nav": opening, **total, "external_flows": flow, "closing_nav": self.nav}
        self.cash = self.nav - sum(values.values())
        row |= {
            "interest": interest,
            "receivables": ZERO,
            "broker_divergence": ZERO,
            "cash": self.cash,
            "decision_at": datetime.combine(day, time(23), UTC),
        }
        row |= {"long_value": sum(max(v, ZERO) for v in values.values()), "short_value": sum(min(v, ZERO) for v in values.values())}
        self.rows["daily_nav"].append(row)
        for i, symbol in enumerate(SYMBOLS):
            if self.held[symbol]:
                key = {"book": self.book, "session": day, "symbol": symbol, "quantity": Decimal(self.held[symbol])}
                value = {"market_value": values[symbol], "weight": float(values[symbol] / self.nav), "stale": False}
                self.rows["positions"].append({**key, "mark": Decimal(str(self.close[at, i])), **value})

    def decide(self, at: int, day: date) -> None:
        ranks = self.scores[at].argsort().argsort()
        weights = np.select([ranks >= 3, ranks <= 1], [0.25, -0.25], 0.0)
        self.orders = []
        for i, symbol in enumerate(SYMBOLS):
            weight = float(weights[i])
            row = {"book": self.book, "session": day, "symbol": symbol, "signal": 0.02 * float(ranks[i] - 2), "sleeve": weight * 2}
            self.rows["target_weights"].append({**row, "target_weight": weight})
            mark = Decimal(str(self.close[at, i]))
            change = int(Decimal(str(weight)) * self.nav / mark) - self.held[symbol]
            if change:
                self.order(day, symbol, change, mark, denied=bool(self.random.random() < 0.004))

    def order(self, day: date, symbol: str, change: int, mark: Decimal, *, denied: bool) -> None:
        notional = float(abs(change) * mark)
        denial = {"denied_by": "max_order_notional", "observed": notional, "allowed": 200_000.0, "unit": "USD"}
        row = {"book": self.book, "session": day, "symbol": symbol, "leg": "open", "generation": 1}
        row |= {"side": "buy" if change > 0 else "sell", "quantity": Decimal(abs(change)), "reference_price": mark}
        row |= {"client_order_id": f"{self.book}-{day:%Y%m%d}-{symbol}", "state": "denied" if denied else "accepted"}
        self.rows["orders"].append(row | denial if denied else row)
        if not denied:
            self.orders.append((symbol, change, mark))

    def market(self, at: int, day: date) -> None:
        for i, symbol in enumerate(SYMBOLS):
            close, key = float(self.close[at, i]), {"session": day, "symbol": symbol}
            dividends = 1.005 ** ((at + 58) // 63)
            prices = {"open": float(self.open[at, i]), "high": close, "low": close, "close": close, "volume": 1e6, "vwap": None}
            self.rows["adjusted_bars"].append({**key, **prices, "split_index": 1.0, "total_index": dividends})
            version = {"model_version": "3f9a2c71d0e84b55", "feature_digest": "00"}
            self.rows["scores"].append({**key, "score": float(self.scores[at, i]), **version})
            if at + 2 < len(self.days):
                label = float(self.open[at + 2, i] / self.open[at + 1, i] - 1)
                self.rows["forward_returns"].append({**key, "label": label, "known_session": self.days[at + 2]})
            if self.random.random() < 0.01:
                self.rows["bar_findings"].append({**key, **FINDINGS[int(self.random.integers(len(FINDINGS)))]})


PNL = (*GAINS, *COSTS, "long_pnl", "short_pnl", "slippage", "turnover")
FINDINGS = (
    {"rule": "r03_high_is_highest", "severity": "block", "expected": "high >= 44.86", "observed": "high 44.10"},
    {"rule": "r10_zero_volume", "severity": "warn", "expected": "volume > 0 while close moves", "observed": "volume 0, close +1.2 %"},
    {"rule": "r17_volume_spike", "severity": "warn", "expected": "volume <= 10 x median 1,204,300", "observed": "volume 14,902,118"},
)


@pytest.fixture(scope="session")
def book_tables() -> Callable[..., Tables]:
    """Lake tables of a book of this many sessions; ``flows`` are deposits by number of the session, 0 being the funding."""

    def make(sessions: int, book: str = "paper", seed: int = 7, flows: Mapping[int, int] | None = None) -> Tables:
        return Desk(sessions, book, seed, {0: 1_000_000} | dict(flows or {})).run()

    return make
