"""What an order costs to execute: slippage, impact, participation, commission. Deterministic, from what was known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, Decimal
from math import sqrt

from pydantic import BaseModel, Field

from quant.trading.orders import Execution, Expiry, Order, OrderType, Side
from quant.units import CASH_QUANTUM, ZERO, cents, to_decimal


class CostSettings(BaseModel, frozen=True, extra="forbid"):
    """Execution and holding costs. They are always on: zero is a choice somebody writes down."""

    slippage_bps: float = Field(default=5.0, ge=0, le=500)
    impact_coefficient: float = Field(default=0.01, ge=0, le=1)  # price move, as a ratio, of an order as large as the auction
    commission_per_share_usd: float = Field(default=0.005, ge=0, le=1)
    commission_minimum_usd: float = Field(default=1.0, ge=0, le=100)
    auction_share_ratio: float = Field(default=0.05, gt=0, le=1)  # of a session's volume that trades in the opening auction
    participation_cap_ratio: float = Field(default=0.2, gt=0, le=1)  # of the auction's volume that a side of one symbol may be
    borrow_rate_annual: float = Field(default=0.005, ge=0, le=1)
    sec_fee_per_million_usd: float = Field(default=27.8, ge=0, le=1000)  # of what is sold
    taf_per_share_usd: float = Field(default=0.000166, ge=0, le=1)  # of shares sold
    taf_maximum_usd: float = Field(default=8.3, ge=0, le=1000)  # an execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A symbol's session as far as an execution needs it, raw, USD per share, and the median volume of the 20 sessions before, shares on
    the session's basis. high and low decide on limit orders only.
    """

    open: float
    close: float
    high: float | None = None
    low: float | None = None
    prior_median_volume: float | None = None


def execute(order: Order, session: date, *, bar: Bar | None, costs: CostSettings, taken: Decimal = ZERO) -> Execution | Expiry:
    """The outcome of an order in ``session``; None: no bar, so nothing executes.

    Price = reference x (1 + side x (slippage + impact)), impact = coefficient x sqrt(shares / auction volume) (the square-root law, e.g.
    Almgren et al. 2005), auction volume = prior 20-session median volume x auction share: the session's own volume is not known at its
    open. The reference is the open for market orders and those on the open, the close for those on the close; a limit order has its limit
    where the session traded through it (the open, where that is better) and never a worse price. At most participation cap x auction volume
    executes; the rest expires. No bar, no known volume or a price that the ledger would hold as zero: nothing executes.

    ``taken`` are the shares that earlier orders in the same symbol and direction took from this auction (a flip is two orders): the cap
    is what they left of it, and the impact that of all shares taken so far.
    """
    reference = None if bar is None else _reference(order, bar)
    if bar is None or reference is None:
        reason = "no accepted bar in the session" if bar is None else f"the session did not trade at {order.limit_price}"
        return Expiry(order=order, session=session, reason=reason)
    auction_shares = (bar.prior_median_volume or 0.0) * costs.auction_share_ratio
    cap = to_decimal(auction_shares * costs.participation_cap_ratio, quantum=CASH_QUANTUM, where=f"volume of {order.symbol}")
    quantity = min(order.quantity, cap.quantize(Decimal(1), rounding=ROUND_DOWN) - taken)
    if quantity <= 0:
        reason = "an earlier order took the share of the auction" if taken else "no liquidity in the last 20 sessions"
        return Expiry(order=order, session=session, reason=reason)
    impact = costs.impact_coefficient * sqrt(float(taken + quantity) / auction_shares)
    where = f"price of {order.symbol} in {session}"
    paid = to_decimal(reference * (1 + order.side.sign * (costs.slippage_bps / 10_000 + impact)), quantum=CASH_QUANTUM, where=where)
    if order.limit_price is not None:
        paid = min(paid, order.limit_price) if order.side is Side.BUY else max(paid, order.limit_price)
    if paid < CASH_QUANTUM:
        return Expiry(order=order, session=session, reason="a price of less than 0.000001 USD")
    per_share = Decimal(repr(costs.commission_per_share_usd)) * quantity
    return Execution(
        execution_id=hashlib.sha256(f"{order.client_order_id}|{session}|1".encode()).hexdigest()[:32],
        order=order,
        session=session,
        quantity=quantity,
        price=paid,
        reference_price=to_decimal(reference, quantum=CASH_QUANTUM, where=where),
        commission=cents(max(per_share, Decimal(repr(costs.commission_minimum_usd)))),
        unfilled=order.quantity - quantity,
    )


def _reference(order: Order, bar: Bar) -> float | None:
    """The price before slippage and impact; None if a limit order's limit was not reached."""
    if order.order_type is OrderType.MARKET_ON_CLOSE:
        return bar.close
    if order.limit_price is None:
        return bar.open
    limit, buys = float(order.limit_price), order.side is Side.BUY
    best = min(bar.open, limit) if buys else max(bar.open, limit)
    extreme = bar.low if buys else bar.high
    traded = bar.open if extreme is None else extreme
    return best if (traded <= limit if buys else traded >= limit) else None
