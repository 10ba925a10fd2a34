"""One session of a book, second half: from scores to reviewed orders for the next session's open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from quant.ledger.book import BookState
from quant.ledger.reconciliation import WHOLE_ACCOUNT
from quant.portfolio.sizing import NextBasis, proposed_orders
from quant.risk.limit import Exposure
from quant.risk.review import Cut, review
from quant.risk.settings import RiskSettings
from quant.risk.state import TradingState, Watermark
from quant.trading.corporate_actions import new_names, under_new_names
from quant.trading.market import SessionMarket
from quant.trading.orders import Denial, Order, OrderEvent, Side, next_state

RECONCILIATION = "reconciliation"
"""Name of the limit that denies what the broker and the ledger do not agree on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The orders of one session, PROPOSED (allowed) or DENIED; of the allowed, which a limit made smaller and what each limit saw."""

    orders: Sequence[Order]
    cuts: Sequence[Cut] = ()
    seen: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])

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
    blocked: Mapping[str, str] | None = None,
    shortable: Callable[[str], bool] = lambda symbol: True,
) -> Decision:
    """Reviewed orders for the next session from rows of table target_weights of this session.

    No rows means no new signal: the book keeps what it holds. Orders have the symbols of the next session, as far as its renames are known.
    ``live`` counts orders that are still at the broker, by name and side. ``blocked``: symbols that a reconciliation found at fault
    (WHOLE_ACCOUNT: every one) and why; their orders are denied before the review. ``shortable`` is asked of what is sold that is not held.
    """
    if targets.is_empty():
        return Decision(orders=())
    names = new_names(market.upcoming)
    weights: dict[str, float] = {names.get(str(s), str(s)): w for s, w in targets.select("symbol", "target_weight").iter_rows()}
    state, market = under_new_names(state, market)
    basis = NextBasis.of(state, market)
    proposed = proposed_orders(book=book, session=market.session, state=state, basis=basis, weights=weights)
    marks = {s: float(h.mark) / market.upcoming_split_ratio(s) for s, h in state.holdings.items()}
    lent_out = [o.symbol for o in proposed if o.side is Side.SELL and basis.quantities.get(o.symbol, 0) <= 0 and not shortable(o.symbol)]
    exposure = Exposure(
        nav=float(state.nav),
        quantities={symbol: float(quantity) for symbol, quantity in basis.quantities.items()},
        prices={**marks, **{s: float(p) for s, p in basis.prices.items()}},
        median_volume=basis.median_volume,
        sectors=risk.sectors,
        borrow_shares={**risk.max_borrow_shares, **dict.fromkeys(risk.not_shortable, 0.0), **dict.fromkeys(lent_out, 0.0)},
        stale=frozenset(s for s in state.holdings if s not in market.closes),
        live=live or {},
        watermark=watermark,
        state=trading,
    )
    looked_at = [_denied(o) if blocked and (o.symbol in blocked or WHOLE_ACCOUNT in blocked) else o for o in proposed]
    reviewed = review([o for o in looked_at if o.denial is None], exposure, risk)
    named = {o.client_order_id: o for o in reviewed.orders}
    orders = [o if o.denial is not None else named.get(o.client_order_id) for o in looked_at]
    return Decision(orders=[o for o in orders if o is not None], cuts=reviewed.cuts, seen=reviewed.seen)


def _denied(order: Order) -> Order:
    state = next_state(order.state, OrderEvent.DENY, order=order.client_order_id)
    return replace(order, state=state, denial=Denial(limit=RECONCILIATION, observed=1.0, allowed=0.0, unit="breaks"))
