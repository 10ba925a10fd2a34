"""A book against its broker, before it trades: ask, compare (quant.ledger.reconciliation), book. Every call can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from quant.ledger.entries import EntryKind
from quant.ledger.reconciliation import (
    WHOLE_ACCOUNT,
    BrokerReport,
    LedgerView,
    ReconcileSettings,
    Reconciliation,
    divergence_entries,
    reconcile,
)
from quant.trading.orders import OrderState
from quant.units import ZERO, price

if TYPE_CHECKING:
    from datetime import date

    from quant.ledger.entries import Entry
    from quant.ports import Ledger
    from quant.trading.brokerage import BrokerCapabilities, BrokerPosition
    from quant.trading.desk import Desk
    from quant.trading.market import SessionMarket
    from quant.trading.orders import Order

CONFIRMED = "reconciliation_confirmed"
"""Kind of the audit row of a difference that a person accepted."""
LOOKED_BACK = 10
"""So many sessions before the one at hand are looked through for what is not booked yet: a year of an account costs what two weeks do. A
difference that is older is one of shares, or of cash, that nothing explains.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What came of it; ``why_not`` says why nothing was compared, if so. ``positions``: what the broker reported; ``held``: shares of the
    ledger after what was booked.
    """

    found: Reconciliation
    positions: Sequence[BrokerPosition] = ()
    held: Mapping[str, Decimal] | None = None
    why_not: str = ""

    @property
    def blocked(self) -> Mapping[str, str]:
        """Symbols not to trade and why; WHOLE_ACCOUNT: none at all."""
        halted = {} if self.found.halt_reason is None else {WHOLE_ACCOUNT: self.found.halt_reason}
        return {**self.found.blocked, **halted}


def reconcile_book(desk: Desk, market: SessionMarket, settings: ReconcileSettings) -> Reconciled:
    """Compare the book at the close of a session with its broker and book what may be booked. The session must be settled.

    Only the session that is the newest now is compared: a broker tells of now, not of then. BrokerError if anything could not be read;
    LedgerError if the account is not the book's.
    """
    nothing = Reconciliation(deltas=(), entries=(), blocked={}, halt_reason=None)
    can = desk.broker.capabilities
    if can.embedded:
        return Reconciled(found=nothing, why_not=f"{can.name} is embedded: it has no books apart from the ledger")
    if desk.clock.now() >= desk.calendar.open_at(desk.calendar.next(market.session)):
        return Reconciled(found=nothing, why_not=f"the session after {market.session} has begun: the broker's books are of later")
    account = desk.broker.account()
    desk.ledger.bind_account(desk.book, account.account_id)
    days = desk.calendar.sessions(desk.first_session, market.session)
    diverged = _diverged(desk, days, can)
    orders = [order for day in days[-1 - LOOKED_BACK :] for order in desk.ledger.orders(desk.book, decided=day)]
    view = _view(desk, market, days[-1 - LOOKED_BACK :], diverged, orders)
    fills = desk.broker.fills(view.since)
    new = {f.symbol for f in fills if f.client_order_id is None and f.execution_id not in view.executions}
    report = BrokerReport(
        account=account,
        positions=desk.broker.positions(),
        open_orders=desk.broker.open_orders(),
        fills=fills,
        client_order_ids=_broker_ids(desk, [order for order in orders if order.symbol in new]),
    )
    found = reconcile(view, report, settings, confirmations(desk.ledger, view))
    desk.ledger.post([*diverged, *found.entries])
    held = desk.state(market.session).holdings
    return Reconciled(found=found, positions=report.positions, held={symbol: holding.quantity for symbol, holding in held.items()})


def confirmations(ledger: Ledger, view: LedgerView) -> dict[str, Decimal]:
    """The differences of a session that a person accepted, while the ledger holds what it held then: once one is booked, the same
    difference again is another one.
    """
    found: dict[str, Decimal] = {}
    for _, _, _, row in ledger.audit(CONFIRMED):
        symbol, of = str(row["symbol"]), (row["book"], row["session"])
        held = view.cash if symbol == WHOLE_ACCOUNT else view.quantities.get(symbol, ZERO)
        if of == (view.book, view.session.isoformat()) and Decimal(str(row.get("held", held))) == held:
            found[symbol] = Decimal(str(row["difference"]))
    return found


def _diverged(desk: Desk, days: Sequence[date], can: BrokerCapabilities) -> list[Entry]:
    """What the broker never books and is still among the ledger's cash, moved on in the session at hand: earlier ones are closed.

    Looked for as far back as the newest that was moved on, since with it went all before, or as the book goes.
    """
    back, booked = LOOKED_BACK, ()
    while can.never_books:
        booked = desk.ledger.entries(desk.book, first=days[-1 - back :][0], through=days[-1])
        if back >= len(days) or any(entry.kind is EntryKind.DIVERGENCE for entry in booked):
            break
        back *= 2
    keys = {entry.key for entry in booked}
    return [replace(entry, session=days[-1]) for entry in divergence_entries(booked, can) if entry.key not in keys]


def _view(desk: Desk, market: SessionMarket, days: Sequence[date], diverged: Sequence[Entry], orders: Sequence[Order]) -> LedgerView:
    state = desk.state(market.session).after(diverged)
    booked = desk.ledger.entries(desk.book, first=days[0], through=days[-1])
    standing = desk.ledger.orders(desk.book, states=[state for state in OrderState if state.at_broker])
    closes = {symbol: price(close) for symbol, close in market.closes.items()}
    executed = {entry.key.split("|", 1)[1] for entry in booked if entry.key.startswith(("trade|", "adjustment|"))}
    return LedgerView(
        book=desk.book,
        session=market.session,
        since=desk.calendar.close_at(days[0]),
        cash=state.cash,
        quantities={symbol: holding.quantity for symbol, holding in state.holdings.items()},
        marks={**{symbol: holding.mark for symbol, holding in state.holdings.items()}, **closes},
        orders=frozenset(order.client_order_id for order in (*orders, *standing) if order.denial is None),
        working=frozenset(order.client_order_id for order in standing),
        executions=frozenset(executed),
        actions=[*market.actions, *market.late],
    )


def _broker_ids(desk: Desk, orders: Sequence[Order]) -> dict[str, str]:
    found = [desk.broker.find(order.client_order_id) for order in orders if order.denial is None]
    return {held.broker_order_id: held.client_order_id for held in found if held is not None}
