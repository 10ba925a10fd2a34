"""The paper book's session (fills, positions, P&L, weights, orders) and the backtest that replays the same decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cache

import dagster as dg
import polars as pl

from assets.audit import evidence_of, record_replay
from assets.chain import SKIPPED, Chain, MarketOf, Metadata, session_of, skipped, table_metadata, warning
from assets.market import MOST_REVISIONS, as_decided, known_actions, late_actions, worst
from quant.errors import SequenceError, expected
from quant.ledger.entries import Account, Entry, EntryKind
from quant.ledger.reconciliation import WHOLE_ACCOUNT
from quant.portfolio.weights import target_weights as weight_rows
from quant.ports import Lake, Ledger
from quant.quality.rule import WHOLE_SESSION, Severity
from quant.risk.state import halt_of_break
from quant.tables import TABLES
from quant.trading.market import LIQUIDITY_SESSIONS, SessionMarket, corporate_actions, session_markets
from quant.trading.orders import Execution, Expiry, Order, OrderState
from quant.trading.reconciling import reconcile_book
from quant.trading.records import broker_position_rows, fill_rows, nav_rows, order_rows, pnl_rows, position_rows, reconciliation_rows
from quant.trading.replay import replay
from quant.units import CENT

PINNED_TABLES = (
    "raw_bars",
    "peer_bars",
    "corporate_actions",
    "accepted_bars",
    "adjusted_bars",
    "alpha158",
    "user_factors",
    "scores",
    "target_weights",
)


def market_lookup(chain: Chain, lake: Lake, ledger: Ledger) -> MarketOf:
    """The market of a session as known at its decision; asked twice, it is made once."""

    @cache
    def market_of(session: date) -> SessionMarket:
        known_by = chain.decision_instant(lake, ledger, session)
        window = as_decided(chain, lake, ledger, chain.back(session, LIQUIDITY_SESSIONS), session, known_by)
        known = known_actions(lake, known_by)
        market = next(session_markets(window, known, [session], chain.calendar, known_by=lambda _: known_by))
        if skipped(ledger, chain.paper_book, session):
            market = replace(market, opens={}, closes={})  # nothing of the session is trusted: every mark is carried, and stale
        return replace(market, late=corporate_actions(late_actions(chain, lake, ledger, session)))

    return market_of


def skip(chain: Chain, lake: Lake, ledger: Ledger, session: date, reason: str) -> None:
    """Mark a session that cannot be gated as one without prices and orders; its booking assets do the rest. Twice is once.

    SequenceError if it was decided or if the gate let it through.
    """
    book = chain.paper_book
    if skipped(ledger, book, session) is not None:
        return
    where = f"session {session} of book {book}"
    if ledger.decision(book, session) is not None:
        raise SequenceError(expected("a session without a decision", found="a decision", where=where, do="leave it: its orders stand"))
    if ledger.entries(book, first=session, through=session):
        do = f"finish it by `afterclose backfill --from {session} --to {session}`"
        raise SequenceError(expected("a session of which nothing is booked", found="entries in the ledger", where=where, do=do))
    chain.begin(lake, ledger, session)
    ledger.record(SKIPPED, {"book": book, "session": session.isoformat(), "reason": reason})


def backtest_sessions(chain: Chain, lake: Lake) -> Sequence[date]:
    """Sessions with scores before the paper start, cut to the range of the profile."""
    first, last = chain.backtest_range
    scored = lake.read("scores", last=min(last or chain.history_last, chain.history_last), columns=["session"])["session"]
    if scored.is_empty():
        return []
    earliest = scored.min()
    begin = max(first, earliest) if first is not None and isinstance(earliest, date) else earliest
    end = scored.max()
    return chain.calendar.sessions(begin, end) if isinstance(begin, date) and isinstance(end, date) else []


@dg.asset(group_name="research", deps=["walk_forward_scores"], kinds={"polars", "deltalake"})
def backtest(
    context: dg.AssetExecutionContext, chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], ledger: dg.ResourceParam[Ledger]
) -> dg.MaterializeResult:
    """The daily decisions replayed over the walk-forward range: same weights, risk review, exchange, costs and ledger arithmetic."""
    book, sessions = chain.backtest_book, backtest_sessions(chain, lake)
    if not sessions:
        return dg.MaterializeResult(metadata={"sessions": 0})
    first, last = sessions[0], sessions[-1]
    known_by = chain.history_instant(lake, ledger)
    window = as_decided(chain, lake, ledger, chain.back(first, LIQUIDITY_SESSIONS), last, known_by)
    actions = known_actions(lake, known_by)
    today: dict[date, SessionMarket] = {}  # the exchange is asked for the session at hand only: one market at a time is in memory

    def markets() -> Iterator[SessionMarket]:
        for market in session_markets(window, actions, sessions, chain.calendar, known_by=chain.publish_at):
            today.clear()
            today[market.session] = market
            yield market

    targets = weight_rows(lake.read("scores", first=first, last=last), book=book, settings=chain.portfolio)

    tables = replay(
        book=book,
        markets=markets(),
        targets=targets,
        broker=chain.exchange(today.__getitem__),
        rules=chain.backtest_rules,
        deposit=chain.deposit,
        decision_at=lambda market: chain.publish_at(market.session),
    )
    for name, rows in {**tables, "target_weights": targets}.items():
        lake.replace(name, rows, first=chain.start, last=chain.history_last, where={"book": book})
    record_replay(chain, lake, ledger, sessions, known_by, (*PINNED_TABLES, "forward_returns"))
    nav = tables["daily_nav"]["closing_nav"].cast(pl.Float64)
    context.log.info(f"replayed {len(sessions)} sessions from {first} to {last}")
    return dg.MaterializeResult(
        metadata={
            "sessions": len(sessions),
            "fills": tables["fills"].height,
            "denied_orders": tables["orders"].filter(pl.col("state") == "denied").height,
            "closing_nav": float(nav[-1]),
            "total_return": float(nav[-1] / float(chain.deposit) - 1),
            "lake_version": lake.version("daily_nav") or 0,
        }
    )


@dg.asset_check(asset=backtest)
def backtest_parts_sum_to_nav(chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Opening NAV + price P&L + dividends + cash in lieu + write-offs - commissions - fees - borrow + interest + flows = closing NAV."""
    return _identity(lake.read("daily_nav", where={"book": chain.backtest_book}), "backtest_parts_sum_to_nav")


def _identity(nav: pl.DataFrame, check: str) -> dg.AssetCheckResult:
    gap = (
        pl.col("opening_nav")
        + pl.col("price_pnl")
        + pl.col("dividends")
        + pl.col("cash_in_lieu")
        + pl.col("write_offs")
        - pl.col("commissions")
        - pl.col("regulatory_fees")
        - pl.col("borrow")
        + pl.col("interest")
        + pl.col("external_flows")
        - pl.col("closing_nav")
    )
    gaps = nav.select("session", gap=gap.abs())
    broken = gaps.filter(pl.col("gap") >= CENT)
    worst = gaps["gap"].max() if gaps.height else 0
    return dg.AssetCheckResult(
        check_name=check,
        passed=broken.is_empty(),
        metadata={"sessions": gaps.height, "broken_sessions": broken.height, "largest_gap_usd": float(worst or 0)},  # type: ignore[arg-type]
    )


def _kept(entries: Sequence[Entry]) -> dg.AssetCheckResult:
    gone = [entry for entry in entries if entry.kind is EntryKind.WRITE_OFF]
    shown = [f"{e.symbol}: {-e.quantity} shares at {e.price} USD, {-e.amount(Account.WRITE_OFFS):,.2f} USD" for e in gone]
    return warning("daily_pnl", "nothing_is_written_off", not gone, {"written_off": len(gone), "observed": "; ".join(shown) or "none"})


def _whole(sleeve: pl.Series, sides: str) -> dg.AssetCheckResult:
    longs, shorts = float(sleeve.filter(sleeve > 0).sum()), float(sleeve.filter(sleeve < 0).sum())
    wanted = -1.0 if sides == "long_short" else 0.0
    whole = sleeve.is_empty() or (abs(longs - 1) < 1e-9 and abs(shorts - wanted) < 1e-9)
    return dg.AssetCheckResult(
        check_name="sleeves_are_whole", passed=whole, metadata={"longs": longs, "shorts": shorts, "names": sleeve.len()}
    )


def _agreement(rows: pl.DataFrame) -> dg.AssetCheckResult:
    """Not passing is an alert; the orders of what it names are denied. A fill that came after its order had ended is a warning: booked, and
    told.
    """
    open_ones = rows.filter(pl.col("outcome") != "booked")
    told = rows.filter((pl.col("outcome") != "booked") | (pl.col("kind") == "missed_fill"))
    said = "; ".join(f"{r['symbol']} {r['outcome']}: {r['evidence']}" for r in told.iter_rows(named=True))
    return dg.AssetCheckResult(
        check_name="broker_agrees",
        passed=told.is_empty(),
        severity=dg.AssetCheckSeverity.WARN if open_ones.is_empty() else dg.AssetCheckSeverity.ERROR,
        metadata={"differences": rows.height, "expected": "a broker that agrees with the ledger", "observed": said or "it does"},
    )


def _blocked(lake: Lake, session: date, book: str) -> dict[str, str]:
    """Symbols that the session's reconciliation stopped at, and why."""
    rows = lake.read("reconciliations", first=session, last=session, where={"book": book}).filter(pl.col("outcome") != "booked")
    return {WHOLE_ACCOUNT if r["outcome"] == "halted" else r["symbol"]: r["evidence"] for r in rows.iter_rows(named=True)}


def _undenied(orders: pl.DataFrame) -> dg.AssetCheckResult:
    denied = orders.filter(pl.col("state") == "denied")
    shown = [f"{r['symbol']}: {r['denied_by']} {r['observed']} > {r['allowed']} {r['unit']}" for r in denied.iter_rows(named=True)]
    return warning("orders", "nothing_is_denied", denied.is_empty(), {"denied": denied.height, "reasons": "; ".join(shown) or "none"})


def _sent(ledger: Ledger, session: date, orders: Sequence[Order]) -> dg.AssetCheckResult:
    """A finding for each order that the broker did not take, and one for all that were not sent, with why."""
    told = {
        order: f"{_in_words(order)}: {ledger.order_history(order.client_order_id)[-1].note}" for order in orders if order.state in _UNSENT
    }
    found = [
        (order.symbol, "order_rejected", "an order that the broker takes", words)
        for order, words in told.items()
        if order.state is OrderState.REJECTED
    ]
    missed = "; ".join(words for order, words in told.items() if order.state is OrderState.MISSED)
    if missed:
        found.append((WHOLE_SESSION, "orders_missed", "orders that are sent, in time for the next session's open", missed))
    columns = ("session", "symbol", "rule", "severity", "expected", "observed")
    rows = [(session, symbol, rule, str(Severity.WARN), wanted, observed) for symbol, rule, wanted, observed in found]
    schema = dict.fromkeys(columns, pl.String) | {"session": pl.Date}
    metadata: Metadata = {"not_sent": len(found), "worst": worst(pl.DataFrame(rows, schema=schema, orient="row"), most=MOST_REVISIONS)}
    return warning("orders", "everything_was_sent", not found, metadata)


_UNSENT = (OrderState.REJECTED, OrderState.MISSED)


def _in_words(order: Order) -> str:
    return f"{order.side} {order.quantity.normalize():f} {order.symbol}"


def daily_booking_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The daily links from yesterday's orders to the session's result: book, mark, explain."""

    @dg.asset(partitions_def=sessions, group_name="paper", deps=["accepted_bars", "corporate_actions"], kinds={"sqlite", "deltalake"})
    def fills(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """What executed at the session's open. Corporate actions, fills, fees and marks go into the ledger here, once by key."""
        session, book = session_of(context), chain.paper_book
        market_of = market_lookup(chain, lake, ledger)
        desk = chain.desk(ledger, market_of)
        done: Sequence[Execution | Expiry] = ()
        if desk.trades(session):
            market = market_of(session)  # before the session is begun: what cannot be computed must not fix the instant
            chain.begin(lake, ledger, session)
            done = desk.settle(market).outcomes
        executions = [outcome for outcome in done if isinstance(outcome, Execution)]
        lake.replace("fills", fill_rows(executions), first=session, last=session, where={"book": book})
        unfilled = sum(float(x.unfilled) for x in executions) + sum(float(o.order.quantity) for o in done if not isinstance(o, Execution))
        return dg.MaterializeResult(
            metadata={**table_metadata(lake, "fills", len(executions)), "expired_shares": unfilled, "orders_ended": len(done)}
        )

    @dg.asset(partitions_def=sessions, group_name="paper", deps=["reconciliations"], kinds={"sqlite", "deltalake"})
    def positions(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """Holdings at the session's close: the fold of the ledger's entries."""
        session, book = session_of(context), chain.paper_book
        state = chain.desk(ledger, market_lookup(chain, lake, ledger)).state(session)
        lake.replace("positions", position_rows(book, session, state), first=session, last=session, where={"book": book})
        stale = [symbol for symbol, held in state.holdings.items() if held.stale]
        return dg.MaterializeResult(
            metadata={
                **table_metadata(lake, "positions", len(state.holdings)),
                "net_asset_value": float(state.nav),
                "cash": float(state.cash),
                "stale": ", ".join(stale) or "none",
            }
        )

    @dg.asset(
        partitions_def=sessions,
        group_name="paper",
        deps=[positions],
        kinds={"sqlite", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "parts_sum_to_nav",
                asset="daily_pnl",
                blocking=True,
                description="Opening NAV + price P&L + dividends + cash in lieu + write-offs - commissions - fees - borrow + interest "
                "+ flows = closing NAV of the ledger, to the cent.",
            ),
            dg.AssetCheckSpec(
                "nothing_is_written_off",
                asset="daily_pnl",
                description="Warns of holdings that left the book: delisted, or without a price for stale_limit_sessions.",
            ),
        ],
    )
    def daily_pnl(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The session's result by name and term, and the net asset value that it explains."""
        session, book = session_of(context), chain.paper_book
        where = {"book": book}
        market_of = market_lookup(chain, lake, ledger)
        desk = chain.desk(ledger, market_of)
        if not desk.trades(session):
            for name in ("daily_pnl", "daily_nav"):
                lake.replace(name, lake.read(name).clear(), first=session, last=session, where=where)
            nothing = _identity(lake.read("daily_nav", first=session, last=session, where=where), "parts_sum_to_nav")
            return dg.MaterializeResult(metadata=table_metadata(lake, "daily_pnl", 0), check_results=[nothing, _kept(())])
        done = desk.settlement(market_of(session))
        instant = chain.decision_instant(lake, ledger, session)
        nav = nav_rows(book, session, done, instant).with_columns(closing_nav=pl.lit(desk.state(session).nav).cast(pl.Decimal(38, 6)))
        lake.replace("daily_pnl", pnl_rows(book, session, done.pnl), first=session, last=session, where=where)
        lake.replace("daily_nav", nav, first=session, last=session, where=where)
        return dg.MaterializeResult(
            metadata={
                **table_metadata(lake, "daily_pnl", len(done.pnl)),
                "closing_nav": float(done.closing.nav),
                "pnl": float(done.closing.nav - done.opening.nav - done.external_flows),
                "commissions": float(sum(p.commissions for p in done.pnl)),
                "assumed_pay_dates": ", ".join(sorted({f"{e.symbol} {e.due}" for e in done.entries if e.assumed})) or "none",
            },
            check_results=[
                _identity(lake.read("daily_nav", first=session, last=session, where=where), "parts_sum_to_nav"),
                _kept(done.entries),
            ],
        )

    return [fills, positions, daily_pnl]


def daily_reconciliation_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The daily link between what executed and what is held: whether the broker agrees."""

    @dg.asset(
        partitions_def=sessions,
        group_name="paper",
        deps=["fills"],
        pool="broker",
        kinds={"sqlite", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "broker_agrees",
                asset="reconciliations",
                description="The broker's positions, cash, open orders and executions are the ledger's, or what differs was booked.",
            )
        ],
    )
    def reconciliations(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The ledger against the broker before anything is traded: differences named, booked within the tolerance, else stopped at."""
        session, book = session_of(context), chain.paper_book
        market_of = market_lookup(chain, lake, ledger)
        desk, where = chain.desk(ledger, market_of), {"book": book}
        read = {"first": session, "last": session, "where": where}
        rows, why_not = lake.read("reconciliations", **read), "the book has not begun"
        if desk.trades(session):
            market = market_of(session)
            done = reconcile_book(desk, market, chain.reconcile)
            why_not = done.why_not
            if done.found.halt_reason is not None:
                ledger.change_state(halt_of_break(book, session, done.found.halt_reason))
            if not why_not:  # what was compared in time stays, whoever looks later
                if done.found.entries:
                    desk.settle(market)  # marks of what came
                rows = reconciliation_rows(book, session, done)
                booked = lake.read("reconciliations", **read).filter(pl.col("outcome") == "booked")
                rows = pl.concat([booked, rows]).with_columns(number=pl.int_range(pl.len()))
                lake.replace("reconciliations", rows, first=session, last=session, where=where)
                lake.replace("broker_positions", broker_position_rows(book, session, done), first=session, last=session, where=where)
        if lake.version("reconciliations") is None:
            for table in ("reconciliations", "broker_positions"):
                lake.replace(table, TABLES[table].empty(), first=session, last=session, where=where)
        return dg.MaterializeResult(
            metadata={**table_metadata(lake, "reconciliations", rows.height), "compared": why_not or "yes"},
            check_results=[_agreement(rows)],
        )

    return [reconciliations]


def daily_order_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The daily links from scores to tomorrow's orders: weigh, review, submit."""

    @dg.asset(
        partitions_def=sessions,
        group_name="paper",
        deps=["scores"],
        kinds={"polars", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "sleeves_are_whole",
                asset="target_weights",
                blocking=True,
                description="Longs sum to +1 and shorts to -1 (no shorts in a long-only book), or there is no signal at all.",
            )
        ],
    )
    def target_weights(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """Top-N long and bottom-N short sleeves from the session's normalised scores; no rows means no new signal."""
        session, book = session_of(context), chain.paper_book
        chain.begun(ledger, session)  # refuses other rules than the session was booked under
        scored = lake.read("scores", first=session, last=session)
        rows = weight_rows(scored if session >= chain.paper_book_start else scored.clear(), book=book, settings=chain.portfolio)
        if rows.is_empty():
            context.log.warning(
                f"no new signal in {session}: {scored.height} scores without spread, or too few names; the book keeps its holdings"
            )
        lake.replace("target_weights", rows, first=session, last=session, where={"book": book})
        longs = rows.filter(pl.col("sleeve") > 0)["symbol"].to_list()
        shorts = rows.filter(pl.col("sleeve") < 0)["symbol"].to_list()
        return dg.MaterializeResult(
            metadata={
                **table_metadata(lake, "target_weights", rows.height),
                "long": ", ".join(longs) or "none",
                "short": ", ".join(shorts) or "none",
            },
            check_results=[_whole(rows["sleeve"], chain.portfolio.sides)],
        )

    @dg.asset(
        partitions_def=sessions,
        group_name="paper",
        deps=[target_weights, "daily_pnl"],
        pool="broker",
        kinds={"sqlite", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "nothing_is_denied",
                asset="orders",
                description="Warns of orders that a limit denied, with what it saw and what it allows.",
            ),
            dg.AssetCheckSpec(
                "everything_was_sent",
                asset="orders",
                description="Warns of orders that the broker rejected, and of those that were not sent, too late or stopped.",
            ),
        ],
    )
    def orders(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """Orders for the next session's open: proposed, reviewed, submitted once; what was denied, and by which limit."""
        session, book = session_of(context), chain.paper_book
        market_of = market_lookup(chain, lake, ledger)
        desk = chain.desk(ledger, market_of)
        rows = order_rows(())
        decided: Sequence[Order] = ()
        if desk.trades(session):
            scored = lake.read("scores", first=session, last=session, columns=["model_version"])
            targets = lake.read("target_weights", first=session, last=session, where={"book": book})
            decided = desk.decide(
                market_of(session),
                targets.clear() if skipped(ledger, book, session) else targets,
                decision_at=chain.decision_instant(lake, ledger, session),
                model_version=scored.item(0, 0) if scored.height else None,
                table_versions={table: lake.version(table) or 0 for table in PINNED_TABLES},
                evidence=evidence_of(chain, lake, ledger),
                blocked=_blocked(lake, session, book),
            )
            rows = order_rows(decided)
        lake.replace("orders", rows, first=session, last=session, where={"book": book})
        notional = (rows["quantity"].cast(pl.Float64) * rows["reference_price"].cast(pl.Float64)).sum()
        return dg.MaterializeResult(
            metadata={
                **table_metadata(lake, "orders", rows.height),
                "submitted": rows.filter(pl.col("state") == "accepted").height,
                "denied": rows.filter(pl.col("state") == "denied").height,
                "notional_usd": float(notional),
            },
            check_results=[_undenied(rows), _sent(ledger, session, decided)],
        )

    return [target_weights, orders]
