"""What an order costs to execute at an open: slippage, impact, participation, commission. Deterministic, from what was known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, Decimal
from math import sqrt

from pydantic import BaseModel, Field

from quant.trading.orders import Execution, Expiry, Order, Side
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
class Match:
    """What a market gives an order: shares, price with slippage and impact, price without them (USD per share), commission (USD)."""

    quantity: Decimal
    price: Decimal
    reference_price: Decimal
    commission: Decimal


def match(
    *,
    symbol: str,
    side: Side,
    quantity: Decimal,
    price: float,
    volume: float,
    costs: CostSettings,
    where: str,
    taken: Decimal = ZERO,
    limit_price: Decimal | None = None,
) -> Match | str:
    """The one matching function of every simulated exchange; a text says why nothing executes.

    Price = price x (1 + side x (slippage + impact)), impact = coefficient x sqrt(shares / volume) (the square-root law, e.g. Almgren et
    al. 2005), never beyond ``limit_price``. At most participation cap x volume executes, in whole shares. ``taken`` are the shares that
    earlier orders in the same symbol and direction took: the cap is what they left of it, and the impact that of all shares taken so far.
    """
    cap = to_decimal(volume * costs.participation_cap_ratio, quantum=CASH_QUANTUM, where=f"volume of {symbol}")
    shares = min(quantity, cap.quantize(Decimal(1), rounding=ROUND_DOWN) - taken)
    if shares <= 0:
        return "an earlier order took the share of the auction" if taken else "no liquidity in the last 20 sessions"
    impact = costs.impact_coefficient * sqrt(float(taken + shares) / volume)
    paid = to_decimal(price * (1 + side.sign * (costs.slippage_bps / 10_000 + impact)), quantum=CASH_QUANTUM, where=where)
    if limit_price is not None:
        paid = min(paid, limit_price) if side is Side.BUY else max(paid, limit_price)
    if paid < CASH_QUANTUM:
        return "a price of less than 0.000001 USD"
    per_share = Decimal(repr(costs.commission_per_share_usd)) * shares
    return Match(
        quantity=shares,
        price=paid,
        reference_price=to_decimal(price, quantum=CASH_QUANTUM, where=where),
        commission=cents(max(per_share, Decimal(repr(costs.commission_minimum_usd)))),
    )


def execute_at_open(
    order: Order,
    session: date,
    *,
    open_price: float | None,
    prior_median_volume: float | None,
    costs: CostSettings,
    taken: Decimal = ZERO,
) -> Execution | Expiry:
    """The outcome of a market-on-open order in ``session``, by `match`: whatever does not execute expires.

    Auction volume = prior 20-session median volume x auction share: the session's own volume is not known at its open. No bar, no known
    volume or a price that the ledger would hold as zero: nothing executes. ``taken``: a flip is two orders in one auction.
    """
    if open_price is None:
        return Expiry(order=order, session=session, reason="no accepted bar in the session")
    matched = match(
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        price=open_price,
        volume=(prior_median_volume or 0.0) * costs.auction_share_ratio,
        costs=costs,
        where=f"open of {order.symbol} in {session}",
        taken=taken,
    )
    if isinstance(matched, str):
        return Expiry(order=order, session=session, reason=matched)
    return Execution(
        execution_id=hashlib.sha256(f"{order.client_order_id}|{session}|1".encode()).hexdigest()[:32],
        order=order,
        session=session,
        quantity=matched.quantity,
        price=matched.price,
        reference_price=matched.reference_price,
        commission=matched.commission,
        unfilled=order.quantity - matched.quantity,
    )
