"""What every link of the chain is given: source, calendar, strategy, the book's rules. Bound in orchestration/definitions.py."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import dagster as dg

from quant.calendar import ExchangeCalendar
from quant.portfolio.weights import PortfolioSettings
from quant.ports import BarSource, Broker, Clock, Lake, Ledger
from quant.quality.gate import GateSettings
from quant.trading.desk import Desk
from quant.trading.market import SessionMarket
from quant.trading.replay import BookRules
from strategies.alpha_baseline.strategy import AlphaBaseline

Metadata = dict[str, str | int | float | dg.MetadataValue]
MarketOf = Callable[[date], SessionMarket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One profile as values. ``broker`` and ``exchange`` make the paper broker and the backtest's exchange from a session's market."""

    profile: str
    source: BarSource
    calendar: ExchangeCalendar
    clock: Clock
    strategy: AlphaBaseline
    gate: GateSettings
    portfolio: PortfolioSettings
    rules: BookRules
    broker: Callable[[MarketOf], Broker]
    exchange: Callable[[MarketOf], Broker]
    start: date
    paper_start: date
    paper_book: str
    paper_book_start: date
    backtest_book: str
    backtest_range: tuple[date | None, date | None]

    @property
    def history_last(self) -> date:
        """The last session that the history assets own."""
        return self.calendar.previous(self.paper_start)

    @property
    def deposit(self) -> Decimal:
        """Cash that a book starts with, USD."""
        return Decimal(self.portfolio.initial_cash_usd)

    def day_after_previous(self, session: date) -> date:
        """First day that belongs to a session's delivery: rows dated on days without trading go with the session after them."""
        return self.calendar.previous(session) + timedelta(days=1)

    def back(self, session: date, by: int) -> date:
        """``by`` sessions earlier, not before the start of the history."""
        days = self.calendar.sessions(self.start, session)
        return days[max(len(days) - 1 - by, 0)] if days else self.start

    def decision_instant(self, lake: Lake, ledger: Ledger, session: date) -> datetime:
        """When a session's decision is or was made: the stored instant, else the expected publish time or a later delivery."""
        stored = ledger.decision(self.paper_book, session)
        if stored is not None:
            return stored.decision_at
        expected = self.calendar.publish_at(session, self.source.facts.publish_delay_minutes)
        delivered = lake.read("raw_bars", first=session, last=session, columns=["known_at"]).get_column("known_at").max()
        return max(expected, delivered) if isinstance(delivered, datetime) else expected

    def desk(self, ledger: Ledger, market_of: MarketOf) -> Desk:
        """The paper book at work."""
        return Desk(
            book=self.paper_book,
            first_session=self.paper_book_start,
            deposit=self.deposit,
            rules=self.rules,
            calendar=self.calendar,
            ledger=ledger,
            broker=self.broker(market_of),
        )


def session_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> date:
    """The session of a partitioned run."""
    return date.fromisoformat(context.partition_key)


def table_metadata(lake: Lake, table: str, rows: int) -> Metadata:
    """What every asset says of its table."""
    return {"rows": rows, "table": table, "lake_version": lake.version(table) or 0}
