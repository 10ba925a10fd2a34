"""The simulated exchange: fills at the session's open from the session's market. Stateless and deterministic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.trading.execution import CostSettings, execute_at_open
from quant.trading.orders import Execution, Expiry, Order, OrderEvent, Side
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date
    from decimal import Decimal

    from quant.trading.market import SessionMarket


class SimulatedExchange:
    """Broker port. ``market_of`` gives the market of a session; asking it twice for the same orders gives the same outcomes."""

    def __init__(self, market_of: Callable[[date], SessionMarket], costs: CostSettings) -> None:
        self._market_of = market_of
        self._costs = costs

    def submit(self, order: Order) -> OrderEvent:
        """Accepts every order; it is remembered by the ledger, so sending it twice is sending it once."""
        del order
        return OrderEvent.ACCEPT

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
