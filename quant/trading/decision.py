"""One session of a book, second half: from scores to reviewed orders for the next session's open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from quant.ledger.book import BookState
from quant.portfolio.sizing import NextBasis, proposed_orders
from quant.risk.limit import Exposure, RiskSettings
from quant.risk.review import Cut, review
from quant.risk.state import TradingState, Watermark
from quant.trading.market import SessionMarket
from quant.trading.orders import Order, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The orders of one session, PROPOSED (allowed) or DENIED, and which of the allowed a limit made smaller."""

    orders: Sequence[Order]
    cuts: Sequence[Cut] = ()

    @property
    def allowed(self) -> list[Order]:
        """Orders to submit."""
        return [order for order in self.orders if order.denial is None]

    @property
    def denied(self) -> list[Order]:
        """Orders the risk review stopped, with their denial."""
        return [order for order in self.orders if order.denial is not None]


def decide(
    *,
    book: str,
    state: BookState,
    market: SessionMarket,
    targets: pl.DataFrame,
    risk: RiskSettings,
    watermark: Watermark,
    trading: TradingState,
    live: Mapping[tuple[str, Side], int] | None = None,
) -> Decision:
    """Reviewed orders for the next session from rows of table target_weights of this session.

    No rows means no new signal: the book keeps what it holds. ``live`` counts orders that are still at the broker, by name and side.
    """
    if targets.is_empty():
        return Decision(orders=())
    weights = dict(zip(targets["symbol"].to_list(), targets["target_weight"].to_list(), strict=True))
    basis = NextBasis.of(state, market)
    proposed = proposed_orders(book=book, session=market.session, state=state, basis=basis, weights=weights)
    marks = {s: float(h.mark) / market.upcoming_split_ratio(s) for s, h in state.holdings.items()}
    exposure = Exposure(
        nav=float(state.nav),
        quantities={symbol: float(quantity) for symbol, quantity in basis.quantities.items()},
        prices={**marks, **{s: float(p) for s, p in basis.prices.items()}},
        median_volume=basis.median_volume,
        sectors=risk.sectors,
        borrow_shares={**risk.max_borrow_shares, **dict.fromkeys(risk.not_shortable, 0.0)},
        stale=frozenset(s for s in state.holdings if s not in market.closes),
        live=live or {},
        watermark=watermark,
        state=trading,
    )
    reviewed = review(proposed, exposure, risk)
    return Decision(orders=reviewed.orders, cuts=reviewed.cuts)
