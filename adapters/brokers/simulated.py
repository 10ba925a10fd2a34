"""The embedded simulated exchange: fills at the session's open from the session's market. Stateless and deterministic: the ledger is its
only memory, so there is no account apart to ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.errors import BrokerError, expected
from quant.trading.brokerage import Acknowledgement, Answer, BrokerCapabilities
from quant.trading.execution import CostSettings, execute_at_open
from quant.trading.orders import Execution, Expiry, Order, OrderType, Side
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date, datetime
    from decimal import Decimal
    from typing import NoReturn

    from quant.trading.brokerage import BrokerAccount, BrokerAsset, BrokerFill, BrokerOrder, BrokerPosition
    from quant.trading.market import SessionMarket


class SimulatedExchange:
    """Broker port. ``market_of`` gives the market of a session; asking it twice for the same orders gives the same outcomes."""

    def __init__(self, market_of: Callable[[date], SessionMarket], costs: CostSettings) -> None:
        self._market_of = market_of
        self._costs = costs

    @property
    def capabilities(self) -> BrokerCapabilities:
        return BrokerCapabilities(name="simulated", embedded=True, order_types=frozenset({OrderType.MARKET_ON_OPEN}), fractional=False)

    def now(self) -> datetime:
        return self._refuse("the time")

    def submit(self, order: Order) -> Acknowledgement:
        """Accepts every order; it is remembered by the ledger, so sending it twice is sending it once."""
        del order
        return Acknowledgement(answer=Answer.ACCEPTED)

    def find(self, client_order_id: str) -> BrokerOrder | None:
        """None: whatever was not acknowledged in the ledger was never sent."""
        del client_order_id
        return None

    def cancel(self, client_order_id: str) -> None:
        self._refuse(f"order {client_order_id}")

    def open_orders(self) -> Sequence[BrokerOrder]:
        return self._refuse("open orders")

    def account(self) -> BrokerAccount:
        return self._refuse("the account")

    def positions(self) -> Sequence[BrokerPosition]:
        return self._refuse("positions")

    def fills(self, since: datetime) -> Sequence[BrokerFill]:
        del since
        return self._refuse("fills")

    def asset(self, symbol: str) -> BrokerAsset | None:
        return self._refuse(f"what may be done with {symbol}")

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        """Market-on-open outcomes in the order given, in which orders of one symbol and side share its part of the auction."""
        market = self._market_of(session)
        taken: dict[tuple[str, Side], Decimal] = {}
        outcomes: list[Execution | Expiry] = []
        for order in orders:
            auction = (order.symbol, order.side)
            outcome = execute_at_open(
                order,
                session,
                open_price=market.opens.get(order.symbol),
                prior_median_volume=market.prior_median_volume.get(order.symbol),
                costs=self._costs,
                taken=taken.get(auction, ZERO),
            )
            if isinstance(outcome, Execution):
                taken[auction] = taken.get(auction, ZERO) + outcome.quantity
            outcomes.append(outcome)
        return outcomes

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        do = "ask the ledger: this broker is embedded"
        raise BrokerError(expected("a question that the embedded exchange can answer", found=what, where="the simulated broker", do=do))
