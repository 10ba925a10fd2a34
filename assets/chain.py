"""What every link of the chain is given: source, calendar, strategy, the book's rules. Bound in orchestration/definitions.py."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import polars as pl
from pydantic import BaseModel

from quant.calendar import ExchangeCalendar
from quant.errors import InputError, expected
from quant.ledger.reconciliation import ReconcileSettings
from quant.ledger.settings import LedgerSettings
from quant.market.universe import UniverseSettings
from quant.portfolio.weights import PortfolioSettings
from quant.ports import BarSource, Broker, Clock, Lake, Ledger, SessionStart
from quant.quality.expectations import ExpectationSettings
from quant.quality.gate import GateSettings
from quant.risk.settings import RiskSettings
from quant.tables import TABLES
from quant.trading.desk import Desk
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.rules import BookRules
from strategies.alpha_baseline.strategy import AlphaBaseline

Metadata = dict[str, str | int | float | dg.MetadataValue | dg.TableColumnLineage]
MarketOf = Callable[[date], SessionMarket]
_FACTOR = "[strategy] factors: "  # of the stored rules; the factor's name follows
_PEER = "[cross_check] kind"
_BEFORE: dict[str, object] = {
    "[costs] sec_fee_per_million_usd": 0.0,
    "[costs] taf_per_share_usd": 0.0,
    "[ledger] dividends_paid": "ex_date",
    "[ledger] interest_debit_rate_annual": 0.0,
    "[ledger] stale_limit_sessions": 10_000,
}
"""What sessions did that were booked before these settings were there, where that is not their default."""
_FIRST_LIMITS = frozenset(f"[risk] max_{name}" for name in ("gross_ratio", "net_ratio", "name_ratio", "order_notional_usd", "volume_ratio"))
SKIPPED = "session_skipped"
"""Kind of the audit row that says why a session was skipped."""
LATE_SESSIONS = 10
"""For so many sessions after its own a bar or an action is asked for again; an action is booked late if it was not known in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One profile as values. ``broker`` and ``exchange`` make the paper broker and the backtest's exchange from a session's market.
    ``peer`` is the second source, if there is one, and ``peer_name`` its name, which is asked for while it may not answer. ``settings`` are
    those of the profile without secrets, ``code`` tells the version of the code: both go into the audit log.
    """

    profile: str
    source: BarSource
    calendar: ExchangeCalendar
    clock: Clock
    strategy: AlphaBaseline
    gate: GateSettings
    expectations: ExpectationSettings
    universe: UniverseSettings
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
    backtest_stops_on_losses: bool = True
    peer: BarSource | None = None
    peer_name: str | None = None
    reconcile: ReconcileSettings = field(default_factory=ReconcileSettings)
    dry_run: bool = False
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    code: Callable[[], Mapping[str, object]] = dict[str, object]

    @property
    def history_last(self) -> date:
        """The last session that the history assets own."""
        return self.calendar.previous(self.paper_start)

    @property
    def backtest_rules(self) -> BookRules:
        """Of the backtest: those of the paper book, perhaps without the limits on losses, which there is nobody to lift."""
        if self.backtest_stops_on_losses:
            return self.rules
        return replace(self.rules, risk=self.rules.risk.model_copy(update={"max_daily_loss_ratio": 1.0, "max_drawdown_ratio": 1.0}))

    @property
    def deposit(self) -> Decimal:
        """Cash that a book starts with, USD."""
        return Decimal(self.portfolio.initial_cash_usd)

    def day_after_previous(self, session: date) -> date:
        """First day that belongs to a session's delivery: rows dated on days without trading go with the session after them."""
        return self.calendar.previous(session) + timedelta(days=1)

    def publish_at(self, session: date) -> datetime:
        """When the source is expected to have a session's bars."""
        return self.calendar.publish_at(session, self.source.facts.publish_delay_minutes)

    def back(self, session: date, by: int) -> date:
        """``by`` sessions earlier, not before the start of the history."""
        days = self.calendar.sessions(self.start, session)
        return days[max(len(days) - 1 - by, 0)] if days else self.start

    def peer_rows(self, lake: Lake, first: date, last: date, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of peer_bars of the second source for first..last; none without one."""
        if self.peer_name is None:
            return TABLES["peer_bars"].empty().select(columns)
        return lake.read("peer_bars", first=first, last=last, where={"source": self.peer_name}, columns=columns)

    @property
    def rules_in_force(self) -> dict[str, object]:
        """The settings that decide what a book does with a session: gate, second source, universe, portfolio, costs, limits, convention,
        factors.
        """
        kept = _values(gate=self.gate, universe=self.universe, portfolio=self.portfolio, costs=self.rules.costs, risk=self.rules.risk)
        kept |= _values(ledger=self.rules.ledger)
        factors = {f"{_FACTOR}{name}": text for name, text in sorted(self.strategy.library.items())}
        kept[_PEER] = self.peer_name or "none"
        return {**kept, "convention": self.rules.convention, "[strategy] features": self.strategy.feature_set, **factors}

    def under(self, rules: Mapping[str, Any]) -> "Chain":
        """This chain with ``rules_in_force`` of another day, as far as they are its own settings; what they do not tell has its default."""

        def held(section: str) -> dict[str, object]:
            head = f"[{section}] "
            return {key.removeprefix(head): value for key, value in rules.items() if key.startswith(head)}

        library = {key.removeprefix(_FACTOR): text for key, text in rules.items() if key.startswith(_FACTOR)}
        strategy = replace(self.strategy, library=library, feature_set=rules.get("[strategy] features", "alpha158"))
        book = replace(self.rules, costs=CostSettings.model_validate(held("costs")), risk=RiskSettings.model_validate(held("risk")))
        return replace(
            self,
            strategy=strategy,
            rules=book,
            gate=GateSettings.model_validate(held("gate")),
            universe=UniverseSettings.model_validate(held("universe")),
            portfolio=PortfolioSettings.model_validate(held("portfolio")),
        )

    def begun(self, ledger: Ledger, session: date) -> SessionStart | None:
        """How the paper book began the session, if it did; InputError if that was under other rules: what is booked cannot be redone."""
        start = ledger.begun(self.paper_book, through=session)
        if start is None or start.session != session:
            return None
        where = f"session {session} of book {self.paper_book}"
        try:
            stored = json.loads(start.rules)
        except json.JSONDecodeError:
            do = "run later sessions here, or fill a new data root"
            raise InputError(expected("a session booked with its settings", found="only their digest", where=where, do=do)) from None
        # A key that the stored rules do not know came with a later version: they had the effect of its default, or of what it was before.
        # Not so with limits: nothing that is booked depends on one that came later, and what is still to be decided is decided under
        # those in force.
        sections = {"gate": GateSettings(), "universe": UniverseSettings(), "portfolio": PortfolioSettings()}
        defaults = _values(**sections, costs=CostSettings(), risk=RiskSettings())
        later = {key: value for key, value in self.rules_in_force.items() if key.startswith("[risk] ") and key not in _FIRST_LIMITS}
        before = {**_values(ledger=LedgerSettings()), **_BEFORE, "[strategy] features": "alpha158", _PEER: "none"}
        held = {**defaults, **later, **before, **stored}
        known = {**{key: "none" for key in held if key.startswith(_FACTOR)}, **self.rules_in_force}
        other = [(key, held.get(key, "none"), value) for key, value in known.items() if held.get(key, "none") != value]
        if other:
            booked, found = (", ".join(f"{key} = {values[side]}" for key, *values in other) for side in (0, 1))
            do = "put them back to run this session again; later sessions take the new ones"
            raise InputError(expected(f"the settings that the session was booked under, {booked}", found=found, where=where, do=do))
        return start

    def begin(self, lake: Lake, ledger: Ledger, session: date) -> SessionStart:
        """Fix what the session may know, before anything of it is booked; the first one fixes the history's instant, too."""

        def start(of: date, at: datetime) -> SessionStart:
            return ledger.begin(SessionStart(book=self.paper_book, session=of, decision_at=at, rules=json.dumps(self.rules_in_force)))

        if ledger.begun(self.paper_book) is None:
            start(self.history_last, self.history_instant(lake, ledger))
        return start(session, self.decision_instant(lake, ledger, session))

    def decision_instant(self, lake: Lake, ledger: Ledger, session: date) -> datetime:
        """The instant of a session that is about to be run; InputError if it was booked under other rules."""
        if session > self.history_last:
            self.begun(ledger, session)
        return self.instant(lake, ledger, session)

    def instant(self, lake: Lake, ledger: Ledger, session: date) -> datetime:
        """Up to when a session may know things, whatever its rules: the stored instant; else its expected publish time, or the delivery of
        what it needs or the instant of an earlier session if that came later.
        """
        if session <= self.history_last:
            return self.history_instant(lake, ledger)
        newest = ledger.begun(self.paper_book, through=session)
        if newest is not None and newest.session == session:
            return newest.decision_at
        earlier = newest.decision_at if newest else self.history_instant(lake, ledger)
        return max(earlier, self._complete_at(lake, self.day_after_previous(session), session))

    def history_instant(self, lake: Lake, ledger: Ledger) -> datetime:
        """Up to when the history may know things: everything loaded until the paper book began its first session."""
        start = ledger.begun(self.paper_book, through=self.history_last)
        return start.decision_at if start else self._complete_at(lake, self.start, self.history_last)

    def _complete_at(self, lake: Lake, first: date, last: date) -> datetime:
        """When the bars of first..last, a second source's too, and the actions up to the session after it are, or were, all there."""
        upcoming = self.calendar.next(last)
        late = self.back(first, LATE_SESSIONS)
        delivered = [
            lake.read("raw_bars", first=first, last=last, columns=["known_at"]),
            self.peer_rows(lake, first, last, ["known_at"]),
            lake.read("corporate_actions", first=late, last=upcoming, columns=["known_at"]),
        ]
        newest = [rows.get_column("known_at").max() for rows in delivered]
        return max([self.publish_at(last), *(at for at in newest if isinstance(at, datetime))])

    def decided_through(self, ledger: Ledger, last: date) -> date | None:
        """The newest session up to ``last`` that decisions were made on: what arrives for it or earlier ones is late."""
        start = ledger.begun(self.paper_book, through=last)
        return start.session if start else None

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
            clock=self.clock,
            dry_run=self.dry_run,
        )


def _values(**sections: BaseModel) -> dict[str, object]:
    """Every key of settings with its value, as JSON has it."""
    return {f"[{name}] {key}": value for name, part in sections.items() for key, value in part.model_dump(mode="json").items()}


def skipped(ledger: Ledger, book: str, session: date) -> str | None:
    """Why the session of a book was skipped, if it was."""
    rows = [said for _, _, _, said in ledger.audit(SKIPPED) if (said["book"], said["session"]) == (book, session.isoformat())]
    return str(rows[0]["reason"]) if rows else None


def session_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> date:
    """The session of a partitioned run."""
    return date.fromisoformat(context.partition_key)


def table_metadata(lake: Lake, table: str, rows: int) -> Metadata:
    """What every asset says of its table."""
    return {"rows": rows, "table": table, "lake_version": lake.version(table) or 0}


def warning(asset: str, check: str, passed: bool, metadata: Metadata) -> dg.AssetCheckResult:
    """The result of a check that stops nothing. Daily checks are made in the step of their asset: a step of their own costs 0.1 s each."""
    warn = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(asset_key=asset, check_name=check, passed=passed, severity=warn, metadata=metadata)
