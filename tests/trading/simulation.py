"""A tiny market for the tests: random walks with splits, dividends, gaps, and scores that change their mind."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl

from adapters.brokers.simulated import SimulatedExchange
from quant.calendar import exchange_calendar
from quant.portfolio.weights import PortfolioSettings, target_weights
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.trading.execution import CostSettings
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.rules import BookRules

CALENDAR = exchange_calendar()
SESSIONS = CALENDAR.sessions(date(2020, 1, 2), date(2020, 3, 31))
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")
KNOWN = datetime(2019, 1, 1, tzinfo=UTC)
DEPOSIT = Decimal(1_000_000)
RULES = BookRules(costs=CostSettings(), risk=RiskSettings(max_name_ratio=0.6), convention=AdjustmentConvention.EX_DATE_CLOSE)


def decided(market: SessionMarket) -> datetime:
    """The decision instant of a session in the tests."""
    return CALENDAR.publish_at(market.session, 30)


def markets(seed: int, *, sessions: int = 30, split_every: float = 0.03, gap: float = 0.03) -> list[SessionMarket]:
    """Random sessions; a split divides the price, a dividend lowers it, a gap leaves the symbol without a bar."""
    chance = random.Random(seed)
    days = SESSIONS[: sessions + 1]
    price = {s: chance.uniform(5, 500) for s in SYMBOLS}
    actions: dict[date, list[CorporateAction]] = {day: [] for day in days}
    for day in days[1:]:
        for s in SYMBOLS:
            if chance.random() < split_every:
                ratio = chance.choice([2.0, 1.5, 7.000007, 0.1])
                actions[day].append(CorporateAction(symbol=s, ex_date=day, kind="split", value=ratio, known_at=KNOWN))
            if chance.random() < split_every:
                paid = round(price[s] * 0.01, 4)
                actions[day].append(CorporateAction(symbol=s, ex_date=day, kind="dividend", value=paid, known_at=KNOWN))
    out: list[SessionMarket] = []
    for place, day in enumerate(days[:-1]):
        opens, closes, volume = {}, {}, {}
        for s in SYMBOLS:
            for action in actions[day]:
                if action.symbol == s:
                    price[s] = price[s] / action.value if action.kind == "split" else max(price[s] - action.value, 0.5)
            opening = price[s] * chance.uniform(0.98, 1.02)
            price[s] = opening * chance.uniform(0.97, 1.03)
            volume[s] = chance.uniform(1e3, 1e7)
            if chance.random() >= gap:
                opens[s], closes[s] = round(opening, 4), round(price[s], 4)
        out.append(
            SessionMarket(
                session=day,
                previous=days[place - 1] if place else None,
                opens=opens,
                closes=closes,
                median_volume=volume,
                prior_median_volume=volume,
                actions=tuple(actions[day]),
                upcoming=tuple(actions[days[place + 1]]),
            )
        )
    return out


def random_targets(seed: int, sessions: list[SessionMarket], *, book: str = "backtest", names_per_side: int = 2) -> pl.DataFrame:
    """Target weights from random scores of the symbols that have a close."""
    chance = random.Random(seed)
    rows = [(m.session, s, chance.gauss(0, 1)) for m in sessions for s in sorted(m.closes)]
    scores = pl.DataFrame(rows, schema={"session": pl.Date, "symbol": pl.String, "score": pl.Float64}, orient="row")
    return target_weights(scores, book=book, settings=PortfolioSettings(names_per_side=names_per_side))


def exchange(sessions: list[SessionMarket], costs: CostSettings = RULES.costs) -> SimulatedExchange:
    """A simulated exchange over these sessions."""
    return SimulatedExchange({m.session: m for m in sessions}.__getitem__, costs)
