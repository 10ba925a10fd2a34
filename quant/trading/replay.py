"""The daily decisions replayed over a range: the same settle and decide, session by session, on a book of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import polars as pl

from quant.ledger.book import BookState
from quant.ports import Broker
from quant.risk.state import TradingState, Watermark, automatic_changes, state_after
from quant.trading.brokerage import Answer
from quant.trading.decision import decide
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Order
from quant.trading.records import fill_rows, nav_rows, order_rows, pnl_rows, position_rows
from quant.trading.rules import BookRules
from quant.trading.settlement import settle, unforeseen_actions
from quant.units import ZERO


def replay(
    *,
    book: str,
    markets: Iterable[SessionMarket],
    targets: pl.DataFrame,
    broker: Broker,
    rules: BookRules,
    deposit: Decimal,
    decision_at: Callable[[SessionMarket], datetime],
    progress: Callable[[SessionMarket], None] = lambda market: None,
) -> dict[str, pl.DataFrame]:
    """Rows of orders, fills, positions, daily_pnl and daily_nav of ``book`` over the sessions of ``markets``.

    ``targets``: rows of target_weights of the book; sessions without rows keep what is held.
    """
    by_session = {key[0]: part for key, part in targets.partition_by("session", as_dict=True).items()}
    state, pending, previous_decision = BookState(), list[Order](), None
    watermark, trading = Watermark(), TradingState.ACTIVE
    out: dict[str, list[pl.DataFrame]] = {name: [] for name in ("orders", "fills", "positions", "daily_pnl", "daily_nav")}
    for market in markets:
        late = unforeseen_actions(pending, market, previous_decision)
        live = [order for order in pending if order.client_order_id not in {x.order.client_order_id for x in late}]
        outcomes = [*broker.outcomes(market.session, live), *late]
        funds = ZERO if previous_decision else deposit
        done = settle(
            book=book,
            opening=state,
            outcomes=outcomes,
            market=market,
            convention=rules.convention,
            costs=rules.costs,
            ledger=rules.ledger,
            deposit=funds,
        )
        watermark = watermark.after(float(done.closing.nav), float(done.external_flows))
        trading = state_after(automatic_changes(book, market.session, trading, watermark, rules.risk), trading)
        decision = decide(
            book=book,
            state=done.closing,
            market=market,
            targets=by_session.get(market.session, targets.clear()),
            risk=rules.risk,
            watermark=watermark,
            trading=trading,
        )
        pending = [order for order in decision.allowed if broker.submit(order).answer is Answer.ACCEPTED]
        state, previous_decision = done.closing, decision_at(market)
        fills = [x for x in outcomes if isinstance(x, Execution)]
        rows = (
            ("orders", decision.orders, order_rows(decision.orders) if decision.orders else None),
            ("fills", fills, fill_rows(fills) if fills else None),
            ("positions", state.holdings, position_rows(book, market.session, state)),
            ("daily_pnl", done.pnl, pnl_rows(book, market.session, done.pnl)),
            ("daily_nav", (1,), nav_rows(book, market.session, done, previous_decision)),
        )
        for name, present, made in rows:
            if present and made is not None:
                out[name].append(made)
        progress(market)
    return {name: _stacked(name, parts) for name, parts in out.items()}


def _stacked(name: str, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    from quant.tables import TABLES

    return pl.concat(parts) if parts else TABLES[name].empty()
