"""What the domain asks of the outside. Adapters implement these; only orchestration/definitions.py chooses which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import polars as pl

from quant.ledger.entries import Entry
from quant.trading.orders import Execution, Expiry, Order, OrderEvent

if TYPE_CHECKING:
    from quant.alerts.alert import AlertChange, Notice, Observation
    from quant.quality.expectations import Expectation, ExpectationOutcome
    from quant.reports.factors import FactorReport
    from quant.reports.model import ReportModel
    from quant.risk.state import StateChange


class AdjustmentConvention(StrEnum):
    """How a vendor turns a cash dividend into a price factor (quant.market.adjustment has the formulas)."""

    EX_DATE_CLOSE = "ex_date_close"  # Alpha Vantage, Quandl WIKI: C_t / (C_t + D_t)
    PREVIOUS_CLOSE = "previous_close"  # Yahoo, LEAN, CRSP style: 1 - D_t / C_{t-1}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What a source says of itself. ``finite`` sources never gain sessions; ``absent`` are bar columns it never has. ``origin_digest`` is
    the SHA-256 of the one file that all its rows are of, if there is one.
    """

    name: str
    convention: AdjustmentConvention
    publish_delay_minutes: int
    absent: frozenset[str]
    finite: bool
    origin_digest: str | None = None


@runtime_checkable
class Clock(Protocol):
    """The only source of the present."""

    def now(self) -> datetime:
        """Current instant, aware, UTC."""
        ...


@runtime_checkable
class BarSource(Protocol):
    """Raw bars and corporate actions of a universe."""

    @property
    def facts(self) -> SourceFacts: ...

    def first_session(self) -> date:
        """First session it can deliver."""
        ...

    def last_session(self, now: datetime) -> date:
        """Last session it can deliver at ``now``; a finite source's own end."""
        ...

    def bars(self, first: date, last: date) -> pl.DataFrame:
        """session, symbol, open, high, low, close, volume, vwap (Date, String, Float64 ...) of sessions first..last; as delivered, faults
        included. vwap is null where the source declares it absent. A source of several files or responses may add
        origin_digest: SHA-256 of the one that a row was read from. InputError if there are sessions in the range and it has none of them.
        """
        ...

    def actions(self, first: date, last: date) -> pl.DataFrame:
        """ex_date, symbol, kind, value (see table corporate_actions), pay_date (null if unknown) with ex_date in first..last. A source that
        has renames adds new_symbol; one may add origin_digest.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """One version of a lake table: its number of rows and the absolute paths of its Parquet files."""

    version: int
    rows: int
    files: Sequence[str]


@runtime_checkable
class Lake(Protocol):
    """The tables of quant.tables as versioned, atomically replaced files."""

    def read(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """Rows with the table's clock column in first..last and each column of ``where`` equal to its value, sorted by key. An absent
        table reads as no rows.
        """
        ...

    def replace(self, table: str, rows: pl.DataFrame, *, first: date, last: date, where: Mapping[str, str] | None = None) -> int:
        """Atomically put ``rows`` in the place of every row with the clock in first..last (and ``where``). Returns the new version."""
        ...

    def append_new(self, table: str, rows: pl.DataFrame) -> int:
        """Append the rows of an append-only table whose key (with known_at and digest) it does not hold yet; returns how many were new."""
        ...

    def version(self, table: str) -> int | None:
        """Current version; None while the table does not exist."""
        ...

    def snapshot(self, table: str) -> TableSnapshot | None:
        """What the current version consists of; None while the table does not exist."""
        ...

    def digest(self, table: str) -> str:
        """SHA-256 over all rows in key order, received_at left out; equal content has equal digests whatever wrote it."""
        ...


@runtime_checkable
class Broker(Protocol):
    """Takes orders for the next session's open and reports what became of them."""

    def submit(self, order: Order) -> OrderEvent:
        """Send one order; ACCEPT or REJECT. Sending the same client_order_id again is one order."""
        ...

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        """What happened in ``session`` to ``orders`` (all still open), in the order given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A decision as it was made: its instant, the model and the lake versions it read. A replay uses these."""

    book: str
    session: date
    decision_at: datetime
    model_version: str | None
    table_versions: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart:
    """How a book began a session: the instant up to which it may know things, and the rules it follows, as JSON. It stands before
    anything of the session is booked, so whatever arrives between a crash and the next run cannot change what the session does.
    """

    book: str
    session: date
    decision_at: datetime
    rules: str


@runtime_checkable
class Ledger(Protocol):
    """Append-only store of entries, orders, sessions begun and decided, champions and the audit log. Every call is one transaction."""

    def entries(self, book: str, *, first: date | None = None, through: date | None = None) -> Sequence[Entry]:
        """Entries of a book with session in first..through, in booking order (session, then sequence)."""
        ...

    def post(self, entries: Iterable[Entry]) -> int:
        """Append all or nothing; returns how many were new. An entry whose (book, key) is there with equal content is skipped, with other
        content is a LedgerConflictError.
        """
        ...

    def intend(self, orders: Iterable[Order]) -> Sequence[Order]:
        """Write orders (PENDING_NEW or DENIED) before anything is sent, all or nothing. An order whose client_order_id is there already
        keeps its frozen quantity and state. Returns what is stored, in the order given.
        """
        ...

    def orders(self, book: str, *, decided: date | None = None, states: Collection[str] | None = None) -> Sequence[Order]:
        """Orders with their current state, sorted by (session, symbol, leg, generation)."""
        ...

    def advance(self, book: str, events: Mapping[str, OrderEvent]) -> None:
        """Apply one event to each client_order_id by the table of quant.trading.orders, all or nothing."""
        ...

    def begin(self, start: SessionStart) -> SessionStart:
        """Store the start of (book, session), or return the one that is stored already."""
        ...

    def begun(self, book: str, *, through: date | None = None) -> SessionStart | None:
        """The start of the newest session that the book began, of those up to ``through``."""
        ...

    def record_decision(self, decision: DecisionRecord, summary: Mapping[str, object]) -> DecisionRecord:
        """Store the decision of (book, session) and ``summary`` as a row of kind 'decision' in the audit log, both or none; or return the
        one that is stored already.
        """
        ...

    def decision(self, book: str, session: date) -> DecisionRecord | None:
        """The stored decision, if any."""
        ...

    def change_state(self, change: StateChange) -> bool:
        """Append a change of a book's trading state, with a row of kind 'trading_state' in the audit log, both or none. A (book, key) that
        is there already is nothing, and False.
        """
        ...

    def state_changes(self, book: str) -> Sequence[StateChange]:
        """Every change of the book's trading state, oldest first."""
        ...

    def crown(self, strategy: str, effective_session: date, version: str) -> None:
        """Append to the champion history. The same row twice is one row."""
        ...

    def champion(self, strategy: str, session: date) -> tuple[date, str] | None:
        """(effective_session, version) in force on ``session``: the newest effective_session not after it."""
        ...

    def record(self, kind: str, payload: Mapping[str, object]) -> None:
        """Append to the audit log: kind, JSON payload, instant of the Clock port."""
        ...

    def audit(self, kind: str | None = None) -> Sequence[tuple[int, datetime, str, Mapping[str, object]]]:
        """Audit rows (sequence, recorded_at, kind, payload), oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model as text plus what it needs to be used: feature names in order, and the digest that is its version."""

    version: str
    text: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What a training run leaves behind for people: parameters, metrics by name and step, data versions, importance, a sample."""

    strategy: str
    name: str
    params: Mapping[str, str | float | int]
    metrics: Sequence[tuple[str, float, int]]  # (name, value, step)
    data_versions: Mapping[str, str]
    importance: pl.DataFrame  # feature, gain, splits
    sample: pl.DataFrame  # a few feature rows, for the signature


@runtime_checkable
class ModelStore(Protocol):
    """Where training runs and models live."""

    def register(self, model: TrainedModel, record: TrainingRecord) -> str:
        """Log a run and register the model; returns the registry's version. The same model version twice is one registration."""
        ...

    def load(self, strategy: str, version: str) -> TrainedModel:
        """The model with this content version; InputError if it is not registered."""
        ...

    def crown(self, strategy: str, version: str) -> None:
        """Point the alias champion at a model version."""
        ...


@runtime_checkable
class ReportPublisher(Protocol):
    """Renders a report and puts it where people find it."""

    def publish(self, model: ReportModel) -> str:
        """Write the page and the tables behind it, atomically; returns the page's path."""
        ...

    def publish_factors(self, report: FactorReport) -> str:
        """The same for the report on factors."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReview:
    """What became of a suite of expectations, in its order, and the path of the page that shows it."""

    outcomes: Sequence[ExpectationOutcome]
    page: str


@runtime_checkable
class BatchReviewer(Protocol):
    """Holds a session's batch against expectations and leaves a page for people."""

    def review(self, batch: pl.DataFrame, suite: Sequence[Expectation], session: date) -> BatchReview:
        """Evaluate every expectation of ``suite`` on ``batch`` (quant.quality.expectations.session_batch) and write the session's page in
        the place of an older one. An expectation that cannot be evaluated has failed, and says why.
        """
        ...


@runtime_checkable
class Warehouse(Protocol):
    """The analysts' database: a view a table over one consistent snapshot of the lake."""

    def publish(self, facts: Mapping[str, str]) -> Mapping[str, int]:
        """Build it beside and rename it into place; returns the rows of every view. ``facts`` become the view `snapshot`."""
        ...


@runtime_checkable
class Notifier(Protocol):
    """A channel that tells people of alerts."""

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        """Deliver one notice, with links that start at ``ui``, in bounded time; returns the recipients that were refused where others
        took it. DeliveryError if nobody got it. Sending a notice twice is harmless: its id is the same.
        """
        ...


class DeliveryOutcome(StrEnum):
    """What became of a notice on a channel."""

    SENT = "sent"
    FAILED = "failed"  # tried again
    REFUSED = "refused"  # the channel never takes this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to send a notice on a channel."""

    recorded_at: datetime
    notice: str
    channel: str
    outcome: DeliveryOutcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelHealth:
    """Failures of a channel in a row up to now, and the last of them."""

    failures: int
    last_failure: datetime | None
    detail: str


@runtime_checkable
class Outbox(Protocol):
    """Alerts that stand and notices to be sent, durable: what was observed is never lost, what was sent is known. Every call is one
    transaction.
    """

    def observe(self, observed: Sequence[Observation], *, run: tuple[str, datetime] | None = None) -> Notice | None:
        """Write what ``observed`` changes (quant.alerts.alert.changes) as one notice for the channels in use; None if it changes nothing.
        With ``run`` (its id and end) a second call for the same run is nothing: a late look at an old run undoes no newer one.
        """
        ...

    def unseen(self, runs: Collection[str]) -> set[str]:
        """Those of ``runs`` that were not observed yet."""
        ...

    def last_run(self) -> datetime | None:
        """The newest end of a run that was observed."""
        ...

    def standing(self) -> Sequence[tuple[datetime, AlertChange]]:
        """Alerts that opened and did not clear, with the instant, oldest first."""
        ...

    def pending(self, channel: str) -> Sequence[Notice]:
        """Notices that the channel is still to get, oldest first: neither sent, refused nor tried quant.alerts.attempts.MOST_ATTEMPTS
        times.
        """
        ...

    def took(self, channel: str, notices: Collection[str]) -> set[str]:
        """Those of ``notices`` that the channel took or refused."""
        ...

    def record_delivery(self, notice: str, channel: str, outcome: DeliveryOutcome, detail: str) -> None:
        """Append what became of an attempt."""
        ...

    def health(self, channel: str) -> ChannelHealth:
        """How the channel did lately."""
        ...

    def recent(self, most: int) -> Sequence[tuple[Notice, Sequence[Delivery]]]:
        """The newest notices with every attempt to send them, newest first."""
        ...
