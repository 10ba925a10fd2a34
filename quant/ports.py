"""What the domain asks of the outside. Adapters implement these; only orchestration/definitions.py chooses which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import polars as pl

from quant.audit.anchor import Anchor
from quant.audit.chain import ChainEntry
from quant.ledger.book import BookState, SessionValue
from quant.ledger.entries import Entry
from quant.ledger.lots import LotBook
from quant.trading.brokerage import Acknowledgement, BrokerAccount, BrokerAsset, BrokerCapabilities, BrokerFill, BrokerOrder, BrokerPosition
from quant.trading.inbox import BrokerEvent
from quant.trading.orders import Execution, Expiry, Order, OrderEvent, OrderState

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from quant.alerts.alert import Alert, AlertChange, Notice, Observation
    from quant.quality.expectations import Expectation, ExpectationOutcome
    from quant.reports.audit import AuditReport
    from quant.reports.factors import FactorReport
    from quant.reports.model import ReportModel
    from quant.risk.state import StateChange

T = TypeVar("T")


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

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
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
class Announcement:
    """What a source says and no bar or corporate action of ours carries: a person should know. ``symbol`` "*": of all of them."""

    day: date
    symbol: str
    what: str
    expected: str
    observed: str
    evidence: str


@runtime_checkable
class Announcer(Protocol):
    """A source that can be asked for announcements and for minutes."""

    def announcements(self, first: date, last: date, traded: Collection[str]) -> Sequence[Announcement]:
        """What it says about the days first..last; ``traded`` are the symbols with a bar in the newest session that is over by ``last``."""
        ...

    def minute_bars(self, first: date, last: date) -> pl.DataFrame:
        """started_at (UTC), symbol, open, high, low, close, volume, vwap of every minute of the days first..last with a trade, sorted by
        symbol and time.
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

    def digest(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> str:
        """SHA-256 over rows in key order (all, or those that read would give), received_at left out; equal content has equal digests
        whatever wrote it.
        """
        ...


@runtime_checkable
class Broker(Protocol):
    """Takes orders for the next session and reports what became of them. What cannot be answered is a BrokerError, never an empty answer:
    a failed report is not "flat".
    """

    @property
    def capabilities(self) -> BrokerCapabilities: ...

    def now(self) -> datetime:
        """The broker's clock, aware, UTC."""
        ...

    def submit(self, order: Order) -> Acknowledgement:
        """Send one order, once: no retry inside. Sending the same client_order_id again is one order at the broker."""
        ...

    def find(self, client_order_id: str) -> BrokerOrder | None:
        """The broker's view of an order; None only if the broker says that it has none of this id."""
        ...

    def cancel(self, client_order_id: str) -> None:
        """Ask for the end of an order that may still be open; whether it came in time is for `find` to tell."""
        ...

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        """What happened in ``session`` to ``orders`` (all still open), in the order given; an order may have several
        executions. BrokerError while one of them may still execute.
        """
        ...

    def open_orders(self) -> Sequence[BrokerOrder]:
        """Every order of the account that is not terminal."""
        ...

    def account(self) -> BrokerAccount:
        """The account now."""
        ...

    def positions(self) -> Sequence[BrokerPosition]:
        """Every holding of the account."""
        ...

    def fills(self, since: datetime) -> Sequence[BrokerFill]:
        """Executions of the account after an instant, oldest first."""
        ...

    def asset(self, symbol: str) -> BrokerAsset | None:
        """What may be done with a symbol; None if the broker does not know it."""
        ...


@runtime_checkable
class Inbox(Protocol):
    """What a broker reported, as it came, by polling or by a stream: append-only, each event once."""

    def receive(self, events: Sequence[BrokerEvent]) -> int:
        """Append those whose (account, event_id) is not there yet, all or nothing; returns how many were new."""
        ...

    def events(self, account: str, since: datetime) -> Sequence[BrokerEvent]:
        """Events of an account that happened at an instant or later, in the order of their arrival."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStep:
    """One thing that happened to an order, and the state it led to."""

    recorded_at: datetime
    event: OrderEvent
    state: OrderState
    note: str | None


@runtime_checkable
class Ledger(Protocol):
    """Append-only store of entries, orders, sessions begun and decided, champions and the audit log. Every call is one transaction."""

    def entries(self, book: str, *, first: date | None = None, through: date | None = None) -> Sequence[Entry]:
        """Entries of a book with session in first..through, in booking order (session, then sequence)."""
        ...

    def state(self, book: str, *, through: date) -> BookState:
        """The book at the close of ``through``: the fold of ``entries``, going on from an earlier one if nothing older was booked since."""
        ...

    def values(self, book: str, *, through: date) -> Sequence[SessionValue]:
        """The book's value at the close of every session up to ``through`` in which something was booked, oldest first; as ``state`` is."""
        ...

    def lots(self, book: str, *, through: date) -> LotBook:
        """Tax lots at the close of ``through``: the fold of all ``entries`` up to it."""
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

    def advance(self, book: str, events: Mapping[str, OrderEvent], *, notes: Mapping[str, str] | None = None) -> None:
        """Apply one event to each client_order_id by the table of quant.trading.orders, all or nothing. ``notes`` (by client_order_id) say
        what the broker said: its own id of an accepted order, the reason of a rejection.
        """
        ...

    def order_history(self, client_order_id: str) -> Sequence[OrderStep]:
        """Everything that happened to an order, oldest first; none for an order that is not there."""
        ...

    def trading(self, book: str) -> AbstractContextManager[None]:
        """Hold the one lock of a book while orders are sent; a holder that dies lets go of it. LedgerError at once if another process, or
        this one, holds it.
        """
        ...

    def begin(self, start: SessionStart) -> SessionStart:
        """Store the start of (book, session), or return the one that is stored already."""
        ...

    def begun(self, book: str, *, through: date | None = None) -> SessionStart | None:
        """The start of the newest session that the book began, of those up to ``through``."""
        ...

    def bind_account(self, book: str, account_id: str) -> None:
        """Bind a book to the broker's account that it trades in, once and for ever. LedgerError if it is bound to another one, or another
        book to this one.
        """
        ...

    def record_decision(
        self, decision: DecisionRecord, summary: Mapping[str, object], evidence: Mapping[str, Mapping[str, object]] = ...
    ) -> DecisionRecord:
        """Store the decision of (book, session), ``summary`` as an entry of kind 'decision' in the audit log, and ``evidence`` (kind ->
        payload) as entries after it, all or none; or return the decision that is stored already.
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

    def crown(self, strategy: str, effective_session: date, version: str, evidence: Mapping[str, object] = ...) -> None:
        """Append to the champion history, and to the audit log with ``evidence``. The same row twice is one row."""
        ...

    def champion(self, strategy: str, session: date) -> tuple[date, str] | None:
        """(effective_session, version) in force on ``session``: the newest effective_session not after it."""
        ...

    def record(self, kind: str, payload: Mapping[str, object], *, key: str | None = None) -> bool:
        """Append to the audit log: kind, JSON payload, instant of the Clock port, and the hash that chains it to the entry before. With a
        ``key`` that the log has already, nothing happens; returns whether it was appended.
        """
        ...

    def audit(self, kind: str | None = None, *, containing: str | None = None) -> Sequence[tuple[int, datetime, str, Mapping[str, object]]]:
        """Audit rows (sequence, recorded_at, kind, payload), oldest first; with ``containing`` those whose payload's JSON has the text."""
        ...

    def unlike_the_log(self) -> Sequence[str]:
        """What entries, orders and champions are stored otherwise than the audit log tells, in words: somebody was at the tables. What was
        stored before the log told of it is left alone.
        """
        ...

    def walk_audit(self, work: Callable[[Iterator[ChainEntry]], T], *, after: int = 0) -> T:
        """What ``work`` makes of the audit log's entries after a sequence, oldest first, as they are stored at one moment. They are read as
        it asks for them, so a log of any length fits.
        """
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

    def provenance(self, strategy: str, version: str) -> Mapping[str, str]:
        """Where a model comes from: run, registry_version, text_sha256, and data.TABLE for the version of each table that it was trained
        on. InputError if it is not registered.
        """
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

    def publish_audit(self, report: AuditReport) -> str:
        """The same for a book's month for compliance, its tables as CSV, and all of it as JSON beside the page."""
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


@runtime_checkable
class Notary(Protocol):
    """Signs what the audit log was, and keeps that outside the database."""

    def public_key(self) -> str:
        """Ed25519, hex. The private key is made when it is first needed."""
        ...

    def anchors(self) -> Sequence[Anchor]:
        """All anchors, oldest first; LedgerError for a file that does not hold anchors."""
        ...

    def add(self, make: Callable[[Sequence[Anchor]], Anchor | None]) -> Anchor | None:
        """Sign and append what ``make`` makes of the anchors so far, if anything; nobody else adds one in between."""
        ...

    def copy(self) -> int:
        """Bring the copy of the anchors outside the data root, if the settings name a place, up to date; how many were new there.
        LedgerError if it holds other anchors than these: then somebody changed one of the two. DeliveryError if it cannot be written.
        """
        ...

    def signed(self, anchor: Anchor) -> bool:
        """True if the signature is that of the anchor's content by the anchor's own key."""
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

    def report(self, alert: Alert) -> Notice | None:
        """Write a report (AlertState.TOLD) as a notice for the channels in use, once: None if its key was reported before."""
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
