"""The review between a proposed order and the broker. Limits fail closed; orders towards zero always pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import quant.risk.limits
from quant.trading.orders import Denial, Order, OrderEvent, next_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.risk.limit import Exposure, Limit, RiskSettings


@cache
def limits() -> tuple[Limit, ...]:
    """Every limit in quant/risk/limits, those on single orders before those on the portfolio, then by name."""
    modules = [import_module(f"quant.risk.limits.{found.name}") for found in iter_modules(quant.risk.limits.__path__)]
    found: list[Limit] = [module.LIMIT for module in modules]
    return tuple(sorted(found, key=lambda limit: (limit.on_portfolio, limit.name)))


def review(orders: Sequence[Order], exposure: Exposure, settings: RiskSettings) -> list[Order]:
    """``orders`` in their order, each PROPOSED or DENIED with the limit that denied it.

    Each limit looks at the portfolio that would result from all orders still standing. While it is breached, the largest opening order that
    contributes is denied and the rest is looked at again; at most one round an order. So a denied long can cost a short its place
    under the net limit, and what remains is within all limits as far as opening orders can make it so.
    """
    reviewed = {order.client_order_id: order for order in orders}
    for _ in orders:
        denied = _first_breach(list(reviewed.values()), exposure, settings)
        if denied is None:
            break
        reviewed[denied.client_order_id] = denied
    return list(reviewed.values())


def _first_breach(orders: Sequence[Order], exposure: Exposure, settings: RiskSettings) -> Order | None:
    standing = [order for order in orders if order.denial is None]
    resulting = exposure.after(standing)
    for limit in limits():
        allowed = limit.allowed(settings)
        offenders = [o for o in standing if limit.contributes(resulting, o) and not limit.observe(resulting, o) <= allowed]
        if offenders:
            worst = max(offenders, key=lambda o: (o.quantity * o.reference_price, o.symbol))
            denial = Denial(limit=limit.name, observed=limit.observe(resulting, worst), allowed=allowed, unit=limit.unit)
            state = next_state(worst.state, OrderEvent.DENY, order=worst.client_order_id)
            return replace(worst, state=state, denial=denial)
    return None
