"""The simulated exchange with an account as a broker in the process of a test: the port without a server between."""

from __future__ import annotations

from datetime import time
from typing import TYPE_CHECKING

from quant.errors import BrokerError, expected
from quant.trading.brokerage import (
    Acknowledgement,
    Answer,
    BrokerAccount,
    BrokerAsset,
    BrokerCapabilities,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
)
from quant.trading.exchange import Filled, Placed, RefusalKind, Ticket
from quant.trading.orders import Execution, Expiry, OrderState, OrderType
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from quant.ports import Clock
    from quant.trading.exchange import SimulatedAccountExchange
    from quant.trading.orders import Order

_STATES = {state.value: state for state in OrderState}


class AccountExchange:
    """Broker port over one exchange. Somebody else runs its sessions."""

    def __init__(self, exchange: SimulatedAccountExchange, clock: Clock) -> None:
        self._exchange, self._clock = exchange, clock

    @property
    def capabilities(self) -> BrokerCapabilities:
        return BrokerCapabilities(
            name="exchange", embedded=False, order_types=frozenset(OrderType), fractional=True, opening_cutoff=time(9, 28)
        )

    def now(self) -> datetime:
        return self._clock.now()

    def submit(self, order: Order) -> Acknowledgement:
        ticket = Ticket(
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            order_type=order.order_type,
            quantity=order.quantity,
            limit_price=order.limit_price,
        )
        said = self._exchange.place(ticket, self._clock.now())
        if isinstance(said, Placed):
            return Acknowledgement(answer=Answer.ACCEPTED, broker_order_id=said.order_id)
        answer = {RefusalKind.DUPLICATE: Answer.UNKNOWN, RefusalKind.TOO_LATE: Answer.THROTTLED}.get(said.kind, Answer.REJECTED)
        return Acknowledgement(answer=answer, reason=said.message)

    def find(self, client_order_id: str) -> BrokerOrder | None:
        order_id = self._exchange.by_client_id.get(client_order_id)
        return None if order_id is None else _order(self._exchange.orders[order_id])

    def cancel(self, client_order_id: str) -> None:
        order_id = self._exchange.by_client_id.get(client_order_id)
        if order_id is None:
            where, do = f"order {client_order_id}", "reconcile before trading"
            raise BrokerError(expected("an order to cancel", found="none of this id", where=where, do=do))
        self._exchange.cancel(order_id, self._clock.now())

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        found: list[Execution | Expiry] = []
        for order in orders:
            order_id = self._exchange.by_client_id.get(order.client_order_id)
            placed = None if order_id is None else self._exchange.orders[order_id]
            if placed is None or placed.status.open:
                state, where = "none of this id" if placed is None else placed.status, f"order {order.client_order_id} in {session}"
                raise BrokerError(expected("an order that ended", found=state, where=where, do="run this again later"))
            found += self._of(placed, order, session)
        return found

    def _of(self, placed: Placed, order: Order, session: date) -> list[Execution | Expiry]:
        fills = [fill for fill in self._exchange.fills if fill.order_id == placed.order_id]
        if not fills:
            return [Expiry(order=order, session=session, reason=placed.status.value)]
        return [
            Execution(
                execution_id=fill.execution_id,
                order=order,
                session=session,
                quantity=fill.quantity,
                price=fill.price,
                reference_price=fill.price,
                commission=fill.commission,
                unfilled=placed.left if fill is fills[-1] else ZERO,
            )
            for fill in fills
        ]

    def open_orders(self) -> Sequence[BrokerOrder]:
        return [_order(placed) for placed in self._exchange.open_orders()]

    def account(self) -> BrokerAccount:
        exchange = self._exchange
        return BrokerAccount(
            account_id=exchange.account_number,
            active=True,
            cash=exchange.cash,
            equity=exchange.equity,
            buying_power=exchange.buying_power,
        )

    def positions(self) -> Sequence[BrokerPosition]:
        held = self._exchange.positions
        return [
            BrokerPosition(symbol=symbol, quantity=held[symbol].quantity, average_entry_price=held[symbol].cost / held[symbol].quantity)
            for symbol in sorted(held)
        ]

    def fills(self, since: datetime) -> Sequence[BrokerFill]:
        return [self._fill(fill) for fill in self._exchange.fills if fill.at > since]

    def asset(self, symbol: str) -> BrokerAsset | None:
        listing = self._exchange.listings.get(symbol)
        if listing is None:
            return None
        return BrokerAsset(
            symbol=symbol,
            tradable=listing.tradable,
            shortable=listing.shortable and listing.easy_to_borrow,
            fractionable=listing.fractionable,
        )

    def _fill(self, fill: Filled) -> BrokerFill:
        return BrokerFill(
            execution_id=fill.execution_id,
            broker_order_id=fill.order_id,
            client_order_id=self._exchange.orders[fill.order_id].ticket.client_order_id,
            symbol=fill.symbol,
            side=fill.side,
            quantity=fill.quantity,
            price=fill.price,
            executed_at=fill.at,
        )


def _order(placed: Placed) -> BrokerOrder:
    terms = placed.ticket
    ended = OrderState.ACCEPTED if placed.status.open else OrderState.EXPIRED
    return BrokerOrder(
        client_order_id=terms.client_order_id,
        broker_order_id=placed.order_id,
        symbol=terms.symbol,
        side=terms.side,
        order_type=terms.order_type,
        quantity=terms.quantity,
        filled_quantity=placed.filled,
        average_price=placed.average_price,
        state=_STATES.get(placed.status.value, ended),
        updated_at=placed.updated_at,
    )
