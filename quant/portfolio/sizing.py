"""Target weights -> proposed orders: whole shares on the share basis of the next session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, Decimal

from quant.ledger.book import BookState
from quant.trading.market import SessionMarket
from quant.trading.orders import Leg, Order, Side
from quant.trading.splits import after_split, exact_split_ratio
from quant.units import CASH_QUANTUM, ZERO, to_decimal

_ONE = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextBasis:
    """Holdings and closes of a session on the share basis of the next one: splits known to go ex then are applied.

    ``quantities`` are signed whole shares (fractions will be paid in cash), ``prices`` USD per share: accepted closes only, without those
    that are less than the ledger can hold (they would be a price of zero), so that such a name is treated like one without a close.
    """

    quantities: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    median_volume: Mapping[str, float]

    @classmethod
    def of(cls, state: BookState, market: SessionMarket) -> NextBasis:
        """Bring a book and a session's market onto the next session's basis."""

        def shares(symbol: str, quantity: Decimal) -> Decimal:
            return after_split(quantity, exact_split_ratio(market.upcoming, symbol))[0]

        closes = {
            s: to_decimal(close / market.upcoming_split_ratio(s), quantum=CASH_QUANTUM, where=f"close of {s} in {market.session}")
            for s, close in market.closes.items()
        }
        return cls(
            quantities={s: shares(s, h.quantity) for s, h in state.holdings.items()},
            prices={s: price for s, price in closes.items() if price >= CASH_QUANTUM},
            median_volume={s: v * market.upcoming_split_ratio(s) for s, v in market.median_volume.items()},
        )


def whole_shares(quantity: Decimal) -> Decimal:
    """Truncated towards zero."""
    return quantity.quantize(_ONE, rounding=ROUND_DOWN)


def proposed_orders(*, book: str, session: date, state: BookState, basis: NextBasis, weights: Mapping[str, float]) -> list[Order]:
    """Orders from what is held to what ``weights`` (signed, of net asset value) want, sorted by symbol, at most one a symbol.

    A held name without a price is frozen: it gets no order, and its value is taken out of the capital of its side. A
    held name without a target goes to zero. A flip is a close now; the next session's decision finds nothing held and opens.
    """
    targets = _target_shares(state, basis, weights)
    orders: list[Order] = []
    for symbol in sorted(set(targets) | set(basis.quantities)):
        if symbol not in basis.prices:
            continue
        held, wanted = basis.quantities.get(symbol, ZERO), targets.get(symbol, ZERO)
        leg, change = _step(held, wanted)
        if change != 0:
            orders.append(
                Order(
                    book=book,
                    session=session,
                    symbol=symbol,
                    leg=leg,
                    side=Side.BUY if change > 0 else Side.SELL,
                    quantity=abs(change),
                    reference_price=basis.prices[symbol],
                )
            )
    return orders


def _target_shares(state: BookState, basis: NextBasis, weights: Mapping[str, float]) -> dict[str, Decimal]:
    capital = {side: _free_ratio(side, state, basis, weights) for side in (-1, 1)}
    shares: dict[str, Decimal] = {}
    for symbol, weight in weights.items():
        if symbol in basis.prices and weight != 0:
            scaled = Decimal(repr(weight)) * capital[1 if weight > 0 else -1]
            shares[symbol] = whole_shares(scaled * state.nav / basis.prices[symbol])
    return shares


def _free_ratio(side: int, state: BookState, basis: NextBasis, weights: Mapping[str, float]) -> Decimal:
    """Share of a side's capital that is not held by frozen names of that side, in 0..1."""
    wanted = sum((abs(Decimal(repr(w))) for w in weights.values() if w * side > 0), ZERO) * state.nav
    frozen = sum((abs(h.market_value) for s, h in state.holdings.items() if s not in basis.prices and h.quantity * side > 0), ZERO)
    return max(ZERO, 1 - frozen / wanted) if wanted > 0 else ZERO


def _step(held: Decimal, wanted: Decimal) -> tuple[Leg, Decimal]:
    if held * wanted < 0:
        return Leg.CLOSE, -held
    return Leg.OPEN if abs(wanted) > abs(held) else Leg.CLOSE, wanted - held
