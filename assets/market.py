"""Raw bars, corporate actions, the gate and adjustment: for a range of sessions (history) and for one (daily), by the same functions."""

from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from assets import expectations
from assets.chain import LATE_SESSIONS, Chain, Metadata, session_of, skipped, table_metadata, warning
from assets.quarantine import releases
from assets.revisions import as_findings, record_revisions
from quant.errors import FeedFaultError, InputError, SequenceError, SourceUnavailableError, expected
from quant.market.adjustment import adjusted_bars as adjusted_rows
from quant.market.adjustment import adjustment_indices, refuse_unpayable, unpayable
from quant.market.as_of import actions_as_of, bars_as_of
from quant.market.delivery import action_rows, raw_bar_rows
from quant.market.revisions import worth_telling
from quant.market.securities import actions_by_security, as_traded, by_security, endings, instruments, listings
from quant.market.universe import universe
from quant.ports import Announcer, BarSource, BatchReview, BatchReviewer, Lake, Ledger
from quant.quality.expectations import expectation_findings
from quant.quality.gate import GateResult, gate, stopped_sessions
from quant.quality.release import RELEASES, in_force, unseen
from quant.quality.rule import SEEN, Beside
from quant.tables import TABLES, UTC_INSTANT

WORST_ROWS = 10
MOST_REVISIONS = 100
ANNOUNCED = "announcements_are_followed"


def delivered_bars(source: BarSource, first: date, last: date, tell: Callable[[str], None]) -> pl.DataFrame:
    """What the source delivers for first..last, asked for a calendar year at a time: a long fetch tells how far it is."""
    years = [(max(first, date(year, 1, 1)), min(last, date(year, 12, 31))) for year in range(first.year, last.year + 1)]
    parts = []
    for number, (begin, end) in enumerate(years, start=1):
        if len(years) > 1:
            tell(f"bars of {begin.year} ({number}/{len(years)})")
        parts.append(source.bars(begin, end))
    return pl.concat(parts)


def ingest_bars(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, tell: Callable[[str], None]) -> tuple[int, pl.DataFrame]:
    """Append what the source delivers for first..last and the lake does not hold yet; returns the number of new rows, and the rows of
    raw_bars, the newest version of each, that the source delivered once and does not deliver any more.
    """
    delivered = delivered_bars(chain.source, first, last, tell)
    known = lake.read("raw_bars", first=first, last=last)
    rows = raw_bar_rows(
        delivered,
        facts=chain.source.facts,
        calendar=chain.calendar,
        received_at=chain.clock.now(),
        known=known,
        decided_through=chain.decided_through(ledger, last),
    )
    own = known.filter(pl.col("source") == chain.source.facts.name).sort("known_at").unique(["session", "symbol"], keep="last")
    gone = own.join(delivered, on=["session", "symbol"], how="anti").sort("session", "symbol")
    return lake.append_new("raw_bars", rows), gone


def withdrawn_findings(gone: pl.DataFrame) -> pl.DataFrame:
    """Rows that are not delivered any more, in the columns of bar_findings. What was stored stays: decisions were made on it."""
    return (
        gone.rechunk()
        .select(
            "session",
            "symbol",
            rule=pl.lit("row_withdrawn"),
            severity=pl.lit("warn"),
            expected=pl.lit("a row that was delivered once to be delivered again; the stored one stays"),
            observed=pl.format(
                "not delivered any more; close {}, known since {}", "close", pl.col("known_at").dt.to_string("%Y-%m-%d %H:%M UTC")
            ),
            evidence=pl.format("row {}", pl.col("digest").str.head(12)),
        )
        .select(list(TABLES["bar_findings"].columns))
    )


def ingest_peer_bars(
    chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, tell: Callable[[str], None]
) -> tuple[int, str | None]:
    """Append what the second source, if there is one, delivers of first..last; the number of new rows, and why it did not answer, if so: to
    compare is worth a warning, and no session's failure.
    """
    if chain.peer is None:
        return 0, None
    try:
        begin, end = max(first, chain.peer.first_session()), min(last, chain.peer.last_session(chain.clock.now()))
        if begin > end:
            return 0, f"source {chain.peer_name} of [cross_check] has no session of {first} to {last}"
        rows = raw_bar_rows(
            delivered_bars(chain.peer, begin, end, tell),
            facts=chain.peer.facts,
            calendar=chain.calendar,
            received_at=chain.clock.now(),
            known=chain.peer_rows(lake, begin, end, ["session", "symbol", "source", "known_at", "digest"]),
            decided_through=chain.decided_through(ledger, last),
        )
        return lake.append_new("peer_bars", rows), None
    except (InputError, SourceUnavailableError) as error:
        return 0, f"[cross_check]: {error}"


def peer_closes(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """session, symbol, close of the second source for first..last as known by an instant; none without one."""
    rows = chain.peer_rows(lake, first, last, ["session", "symbol", "source", "close", "known_at"])
    return bars_as_of(rows, known_by).select("session", "symbol", "close")


def ingest_actions(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date) -> int:
    """Append the actions with ex-date from first to the session after last; returns the number of new rows.

    What cannot be applied to the prices is refused before it is stored: the table is append-only. So is, from the paper start on, a
    dividend that nobody could pay: it would be booked. One of the history is told by ``history_is_clean``.
    """
    upcoming = chain.calendar.next(last)
    rows = action_rows(
        chain.source.actions(first, upcoming),
        facts=chain.source.facts,
        calendar=chain.calendar,
        received_at=chain.clock.now(),
        known=lake.read("corporate_actions", first=first, last=upcoming),
        decided_through=chain.decided_through(ledger, last),
    )
    if not rows.is_empty():
        closes = lake.read("raw_bars", last=upcoming, columns=["session", "symbol", "close"])
        applied = closes.filter(pl.col("symbol").is_in(rows["symbol"].unique().implode()), pl.col("close") > 0)
        adjustment_indices(applied, rows, chain.source.facts.convention)
        booked = rows.filter(pl.col("ex_date") >= chain.paper_start)
        refuse_unpayable(unpayable(applied, booked, chain.source.facts.convention))
    return lake.append_new("corporate_actions", rows)


def require_previous(chain: Chain, lake: Lake, ledger: Ledger, session: date) -> None:
    """SequenceError unless the session before was gated or skipped on purpose: a hole in the bars is one in every window after it."""
    previous = chain.calendar.previous(session)
    if skipped(ledger, chain.paper_book, previous) is not None:
        return
    if lake.read("accepted_bars", first=previous, last=previous, columns=["session"]).is_empty():
        do = f"run `afterclose backfill --from {previous} --to {session}`" if session > chain.paper_start else "run `afterclose history`"
        raise SequenceError(expected(f"accepted bars of session {previous}", found="none", where=f"before session {session}", do=do))


def gate_bars(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> GateResult:
    """Judge first..last as known by an instant and put findings, accepted and quarantined rows in the place of the old ones."""
    raw = bars_as_of(lake.read("raw_bars", first=first, last=last), known_by)
    before, eve = chain.back(first, chain.gate.earlier_sessions), first - timedelta(days=1)
    context = bars_as_of(lake.read("raw_bars", first=before, last=eve, columns=[*SEEN, "source", "known_at", "digest"]), known_by)
    actions, released = known_actions(lake, known_by), releases(ledger)
    ends = endings(actions)
    rows = pl.concat(frame.select("session", "symbol", "digest") for frame in (context, raw))
    result = gate(
        raw,
        first=first,
        last=last,
        context=context,
        calendar=chain.calendar,
        settings=chain.gate,
        absent=chain.source.facts.absent,
        releases=released,
        last_closed_session=chain.calendar.on_or_before(known_by.date()),
        beside=Beside(
            actions=actions,
            peer_closes=peer_closes(chain, lake, first, last, known_by),
            listings=listings(ends, chain.calendar),
            released=in_force(released, rows),
        ),
    )
    lake.replace("bar_findings", result.findings, first=first, last=last)
    lake.replace("quarantined_bars", result.quarantined, first=first, last=last)
    lake.replace("accepted_bars", result.accepted, first=first, last=last)
    return result


def known_actions(lake: Lake, known_by: datetime) -> pl.DataFrame:
    """The newest version of every corporate action known by an instant."""
    return actions_as_of(lake.read("corporate_actions"), known_by)


def as_decided(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """``adjusted`` as the decision of ``last`` sees it: without rows that were released from quarantine after it was made."""
    return adjusted(chain, lake, first, last, known_by, without=releases(ledger, after=last))


def adjusted(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime, *, without: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows of adjusted_bars for first..last with the actions known by an instant, under the names of securities where one was renamed or
    delisted (quant.market.securities; as_traded gives the symbols back).

    Computed from accepted bars and actions each time, so an action learned late is in every row of a window at once.
    """
    actions = known_actions(lake, known_by)
    ends = endings(actions)
    left_out = RELEASES.to_frame() if without is None else without
    closes = by_security(unseen(lake.read("accepted_bars", last=last, columns=["session", "symbol", "close"]), left_out), ends)
    accepted = by_security(unseen(lake.read("accepted_bars", first=first, last=last), left_out), ends)
    rows = adjusted_rows(accepted, actions_by_security(actions, ends), chain.source.facts.convention, indices_from=closes)
    if ends.is_empty():
        return rows
    names = accepted.select("session", "symbol", "traded_as")
    return rows.join(names, on=["session", "symbol"], how="left", maintain_order="left")


def write_adjusted(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the adjusted bars of first..last in the place of the old ones."""
    window = adjusted(chain, lake, first, last, known_by)
    rows = as_traded(window, window)
    lake.replace("adjusted_bars", rows, first=first, last=last)
    return rows


def write_instruments(chain: Chain, lake: Lake, ledger: Ledger, known_by: datetime) -> pl.DataFrame:
    """Write the instruments of all accepted bars again, by the actions known by an instant or to the newest session of the book."""
    newest = ledger.begun(chain.paper_book)
    ends = endings(known_actions(lake, max(known_by, newest.decision_at) if newest else known_by))
    rows = instruments(lake.read("accepted_bars", columns=["session", "symbol"]), ends, chain.calendar)
    lake.replace("instruments", rows, first=chain.start, last=chain.calendar.days[-1])
    return rows


def members(chain: Chain, lake: Lake, ledger: Ledger, rows: pl.DataFrame, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """``rows`` (session, symbol, ...) of first..last that are of the universe of their session."""
    if chain.universe.everybody:
        return rows
    window = as_decided(chain, lake, ledger, chain.back(first, chain.universe.window_sessions - 1), last, known_by)
    listed = universe(window, first=first, last=last, calendar=chain.calendar, settings=chain.universe)
    return rows.join(listed, on=["session", "symbol"], how="semi", maintain_order="left")


def late_actions(chain: Chain, lake: Lake, ledger: Ledger, session: date) -> pl.DataFrame:
    """Actions known to a session that went ex before it and were not known to the session of their ex-date."""
    first, before = chain.back(session, LATE_SESSIONS), chain.calendar.previous(session)
    window = lake.read("corporate_actions", first=first, last=before)
    own = {day: chain.calendar.on_or_after(day) for day in window["ex_date"].unique()}
    published = pl.col("ex_date").replace_strict({day: chain.publish_at(at) for day, at in own.items()}, return_dtype=UTC_INSTANT)
    if window.is_empty() or window.filter(pl.col("known_at") > published).is_empty():
        return window.clear()  # the usual case, without a look into the ledger
    known = actions_as_of(window, chain.instant(lake, ledger, session))
    instants = {day: chain.instant(lake, ledger, at) for day, at in own.items()}
    return known.filter(pl.col("known_at") > pl.col("ex_date").replace_strict(instants, return_dtype=UTC_INSTANT))


def late_findings(late: pl.DataFrame) -> pl.DataFrame:
    """Late actions in the columns of bar_findings: a finding an action, the same one in each session that it is late for."""
    return late.rechunk().select(
        session="ex_date",
        symbol="symbol",
        rule=pl.format("late_{}", "kind"),
        severity=pl.lit("warn"),
        expected=pl.lit("known by its ex-date"),
        observed=pl.format("{}, known since {}", "value", pl.col("known_at").dt.to_string("%Y-%m-%d %H:%M UTC")),
        evidence=pl.format("action {}", pl.col("digest").str.head(12)),
    )


def announced(chain: Chain, first: date, session: date, traded: Collection[str]) -> tuple[pl.DataFrame, str | None]:
    """What the source says of first to the session after ``session``, in the columns of bar_findings, and why it did not answer, if so:
    worth a warning, and no session's failure.
    """
    empty = TABLES["bar_findings"].empty()
    if not isinstance(chain.source, Announcer):
        return empty, None
    try:
        said = chain.source.announcements(first, chain.calendar.next(session), traded)
    except (InputError, SourceUnavailableError, FeedFaultError) as error:
        return empty, str(error)
    rows = [(s.day, s.symbol, s.what, "warn", s.expected, s.observed, s.evidence) for s in said]
    columns = ("session", "symbol", "rule", "severity", "expected", "observed", "evidence")
    found = pl.DataFrame(rows, schema={name: empty.schema[name] for name in columns}, orient="row")
    # Several of a day and symbol are one alert, as findings of one rule are.
    told = found.group_by("session", "symbol", "rule", maintain_order=True)
    return told.agg(pl.col("severity", "expected").first(), pl.col("observed", "evidence").str.join("; ")).select(columns), None


def relearned(chain: Chain, lake: Lake, ledger: Ledger, session: date) -> tuple[date, datetime]:
    """The first session whose prices are to be written again with this one, and the instant to write them as known at: the newest one of
    the book, so that running an old session again forgets nothing.
    """
    late, newest = late_actions(chain, lake, ledger, session), ledger.begun(chain.paper_book)
    instant = chain.decision_instant(lake, ledger, session)
    first = late["ex_date"].min()
    return (
        max(first, chain.paper_start) if isinstance(first, date) else session,
        max(instant, newest.decision_at) if newest else instant,
    )


def worst(findings: pl.DataFrame, most: int = WORST_ROWS) -> dg.MetadataValue:
    """The first findings as a table, the most severe ones first."""
    severity = pl.col("severity").replace_strict({"stop": 0, "block": 1, "warn": 2}, default=3)
    shown = findings.sort(severity, "session", "symbol", descending=[False, True, False]).head(most)
    records = [dg.TableRecord({k: str(v) for k, v in row.items()}) for row in shown.iter_rows(named=True)]
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in findings.columns])
    return dg.MetadataValue.table(records, schema=schema)


def counts(findings: pl.DataFrame) -> dict[str, int]:
    """Findings by severity."""
    return {f"findings_{s}": findings.filter(pl.col("severity") == s).height for s in ("stop", "block", "warn")}


@dg.asset(group_name="research", kinds={"polars", "deltalake"})
def market_history(
    context: dg.AssetExecutionContext, chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], ledger: dg.ResourceParam[Ledger]
) -> dg.MaterializeResult:
    """Bars, corporate actions, gate verdicts and adjusted bars of every session before the paper start."""
    first, last = chain.start, chain.history_last
    new, gone = ingest_bars(chain, lake, ledger, first, last, context.log.info)
    context.log.info(f"{new} new raw bars from {first} to {last}")
    peers, silent = ingest_peer_bars(chain, lake, ledger, first, last, context.log.info)
    if silent is not None:
        context.log.warning(f"not cross-checked: {silent}")
    actions = ingest_actions(chain, lake, ledger, first, last)
    revised = [r for table in ("raw_bars", "corporate_actions") for r in record_revisions(chain, lake, ledger, table, first, last)]
    known_by = chain.history_instant(lake, ledger)
    result = gate_bars(chain, lake, ledger, first, last, known_by)
    rows = write_adjusted(chain, lake, first, last, known_by)
    write_instruments(chain, lake, ledger, known_by)
    return dg.MaterializeResult(
        metadata={
            **table_metadata(lake, "adjusted_bars", rows.height),
            **counts(result.findings),
            "symbols": rows["symbol"].n_unique(),
            "new_raw_bars": new,
            "new_actions": actions,
            **({} if chain.peer is None else {"new_peer_bars": peers}),
            "used_rows_revised": len(revised),
            "rows_withdrawn": gone.height,
            "quarantined": result.quarantined.height,
            "stopped_sessions": len(stopped_sessions(result.findings)),
        }
    )


@dg.asset_check(asset=market_history)
def history_is_clean(chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Warns of quarantined rows, stopped sessions and dividends that nobody could pay in the history, with the worst of them."""
    findings = lake.read("bar_findings", last=chain.history_last)
    actions = actions_as_of(lake.read("corporate_actions", last=chain.history_last), chain.clock.now())
    closes = lake.read("raw_bars", last=chain.history_last, columns=["session", "symbol", "close"]).filter(pl.col("close") > 0)
    eaten = unpayable(closes, actions, chain.source.facts.convention)
    shown = ", ".join(f"{symbol} {value:g} on {day} after a close of {close:g}" for symbol, day, value, close in eaten.iter_rows())
    metadata: Metadata = {**counts(findings), "worst": worst(findings), "unpayable_dividends": shown or "none"}
    clean = eaten.is_empty() and findings.filter(pl.col("severity") != "warn").is_empty()
    return dg.AssetCheckResult(passed=clean, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def reviewed_bars(review: BatchReview, session: date) -> tuple[dg.AssetCheckResult, Metadata]:
    """The check of the session's expectations, and the link to their page for the metadata of the bars. It stops nothing; it is an error
    where an expectation failed that holds whatever the market did.
    """
    failed = [outcome for outcome in review.outcomes if not outcome.passed]
    page: Metadata = {}
    if review.page:
        index = Path(review.page).with_name("index.html")
        page = {"expectations_page": dg.MetadataValue.path(review.page), "expectations_index": dg.MetadataValue.path(str(index))}
    sure = any(outcome.expectation.sure for outcome in failed)
    result = dg.AssetCheckResult(
        asset_key="accepted_bars",
        check_name=expectations.CHECK,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if sure else dg.AssetCheckSeverity.WARN,
        metadata={
            "expectations": len(review.outcomes),
            "failed": len(failed),
            **page,
            "worst": worst(expectation_findings(review.outcomes, session)),
        },
    )
    return result, page


@dg.asset_check(
    asset=market_history,
    description="Warns of sessions of the history of which the second source ([cross_check]) has no bar; the log of the run says why.",
)
def history_is_cross_checked(chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Whether rule 19 had closes to compare with in every session."""
    covered = chain.peer_rows(lake, chain.start, chain.history_last, ["session"])["session"].unique()
    sessions = chain.calendar.sessions(chain.start, chain.history_last)
    without = sorted(set(sessions) - set(covered))
    span = f", {without[0]} to {without[-1]}" if without else ""
    observed = f"none in {len(without)} of {len(sessions)} sessions{span}"
    metadata = {"expected": f"bars of the second source, {chain.peer_name}, in every session", "observed": observed}
    return dg.AssetCheckResult(passed=not without, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def daily_peer_bars(sessions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """The daily link to the second source."""

    @dg.asset(
        partitions_def=sessions,
        group_name="market",
        kinds={"deltalake"},
        deps=["raw_bars"],  # after it: a session that is refused there asks nobody here
        check_specs=[
            dg.AssetCheckSpec(
                "second_source_answered",
                asset="peer_bars",
                description="Warns if the second source ([cross_check]) has no bar of the session: rule 19 has nothing to compare with.",
            )
        ],
    )
    def peer_bars(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The session's bars of the second source as received; append-only. Their closes are compared, nothing else reads them."""
        session = session_of(context)
        new, silent = ingest_peer_bars(chain, lake, ledger, chain.day_after_previous(session), session, context.log.info)
        held = chain.peer_rows(lake, session, session, ["symbol"])["symbol"].n_unique()
        seen: Metadata = {"expected": f"bars of the second source, {chain.peer_name}", "observed": silent or f"bars of {held} symbols"}
        return dg.MaterializeResult(
            metadata={**table_metadata(lake, "peer_bars", held), "new_rows": new},
            check_results=[warning("peer_bars", "second_source_answered", silent is None and held > 0, seen)],
        )

    return peer_bars


def daily_market_assets(
    sessions: dg.PartitionsDefinition, *, reviewed: bool, cross_checked: bool = False, announced_to: bool = False
) -> list[dg.AssetsDefinition]:
    """The daily links from the source to adjusted bars. ``reviewed``: the accepted bars are held against the suite of expectations, too;
    ``cross_checked``: with a second source; ``announced_to``: the source is an Announcer.
    """
    everything_applied = dg.AssetCheckSpec(
        ANNOUNCED,
        asset="corporate_actions",
        description="Warns of what the source says and nothing here follows: actions of other kinds or without a price, other trading "
        "hours, symbols that cannot be traded any more.",
    )
    suite = dg.AssetCheckSpec(
        expectations.CHECK,
        asset="accepted_bars",
        description="Tells of a session whose accepted bars as a whole are not what the sessions before let expect; it stops nothing.",
    )
    peers = [daily_peer_bars(sessions)] if cross_checked else []

    @dg.asset(
        partitions_def=sessions,
        group_name="market",
        kinds={"deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "no_used_row_was_revised",
                asset="raw_bars",
                description="Warns of rows that decisions were made on and that came back with other values: stored as new versions, "
                "listed by `afterclose revisions`, restating nothing; and of rows that are not delivered any more, which stay.",
            )
        ],
    )
    def raw_bars(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The session's bars as received, and revisions of the last ten daily sessions; append-only: a revision is a new row."""
        session = session_of(context)
        require_previous(chain, lake, ledger, session)
        own = chain.day_after_previous(session)
        new, gone = ingest_bars(chain, lake, ledger, own, session, context.log.info)
        first = max(chain.paper_start, chain.back(session, LATE_SESSIONS), chain.source.first_session())
        if first < own:
            earlier, of_earlier = ingest_bars(chain, lake, ledger, first, own - timedelta(days=1), context.log.info)
            new, gone = new + earlier, pl.concat([of_earlier, gone])
        held = lake.read("raw_bars", first=session, last=session, columns=["symbol"])
        revised = record_revisions(chain, lake, ledger, "raw_bars", min(first, own), session)
        told = worth_telling(revised, chain.gate.revised_volume_ratio)
        found = pl.concat([as_findings(told), withdrawn_findings(gone)])
        seen = {"revised": len(revised), "told": len(told), "withdrawn": gone.height, "worst": worst(found, most=MOST_REVISIONS)}
        return dg.MaterializeResult(
            metadata={**table_metadata(lake, "raw_bars", held.height), "new_rows": new},
            check_results=[warning("raw_bars", "no_used_row_was_revised", found.is_empty(), seen)],
        )

    @dg.asset(
        partitions_def=sessions,
        group_name="market",
        kinds={"deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "actions_came_in_time",
                asset="corporate_actions",
                description="Warns of actions that became known after their ex-date: prices and labels are restated from then on, and "
                "holdings booked late.",
            ),
            *([everything_applied] if announced_to else []),
        ],
        deps=["raw_bars"] if announced_to else [],  # whose symbols the source is asked about
    )
    def corporate_actions(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """Splits and dividends that go ex up to the next session, and late ones of the last ten; append-only."""
        session = session_of(context)
        first = chain.back(session, LATE_SESSIONS)
        new = ingest_actions(chain, lake, ledger, first, session)
        revised = record_revisions(chain, lake, ledger, "corporate_actions", first, chain.calendar.next(session))
        held = lake.read("corporate_actions", first=session, last=session, columns=["symbol"])
        late = late_actions(chain, lake, ledger, session)
        told = set(late.select(pl.col("ex_date").cast(pl.String), "symbol", "kind").iter_rows())  # once, as late
        others = [row for row in revised if (row["session"], row["symbol"], row["kind"]) not in told]
        shown = ", ".join(f"{kind} of {symbol}, ex {ex}" for symbol, kind, ex in late.select("symbol", "kind", "ex_date").iter_rows())
        seen = {
            "late": late.height,
            "actions": shown or "none",
            "worst": worst(pl.concat([late_findings(late), as_findings(others)]), most=MOST_REVISIONS),
        }
        checks = [warning("corporate_actions", "actions_came_in_time", late.is_empty(), seen)]
        if announced_to:
            traded = lake.read("raw_bars", first=session, last=session, columns=["symbol"])["symbol"].unique().to_list()
            said, silent = announced(chain, first, session, traded)
            told_of: Metadata = {"announcements": said.height, "worst": worst(said, most=MOST_REVISIONS)}
            if silent is not None:
                told_of |= {"expected": "an answer of the source", "observed": silent}
            checks.append(warning("corporate_actions", ANNOUNCED, silent is None and said.is_empty(), told_of))
        return dg.MaterializeResult(
            metadata={**table_metadata(lake, "corporate_actions", held.height), "new_rows": new},
            check_results=checks,
        )

    # The actions too: the session's instant is that of everything it needs.
    arrived = [raw_bars, corporate_actions, *peers]

    @dg.multi_asset(
        specs=[
            dg.AssetSpec("bar_findings", deps=arrived, description="What every rule of the gate found in the session."),
            dg.AssetSpec("accepted_bars", deps=arrived, description="The session's bars that passed the gate."),
            dg.AssetSpec("quarantined_bars", deps=arrived, description="The session's rows that the gate kept out, with the rules."),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "feed_is_sound",
                asset="accepted_bars",
                blocking=True,
                description="Stops the session when too much of the feed is faulty to trust the rest (rule 21), or nothing was accepted.",
            ),
            dg.AssetCheckSpec(
                "nothing_is_quarantined",
                asset="quarantined_bars",
                description="Warns of symbols that the gate kept out of the session.",
            ),
            *([suite] if reviewed else []),
        ],
        partitions_def=sessions,
        group_name="market",
        name="gated_bars",
    )
    def gated_bars(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        reviewer: dg.ResourceParam[BatchReviewer],
    ):
        """Judge the session's bars as known at its decision."""
        session = session_of(context)
        first, known_by = chain.day_after_previous(session), chain.decision_instant(lake, ledger, session)
        result = gate_bars(chain, lake, ledger, first, session, known_by)
        review = expectations.review_session(chain, lake, reviewer, session, result.accepted) if reviewed else None
        told, page = reviewed_bars(review, session) if review else (None, {})
        tables = (("bar_findings", result.findings), ("accepted_bars", result.accepted), ("quarantined_bars", result.quarantined))
        for name, rows in tables:
            extra = counts(result.findings) if name == "bar_findings" else page if name == "accepted_bars" else {}
            yield dg.MaterializeResult(asset_key=name, metadata={**table_metadata(lake, name, rows.height), **extra})
        seen, accepted = {**counts(result.findings), "worst": worst(result.findings)}, result.accepted.height
        blocked = result.findings.filter(pl.col("severity") != "warn")
        yield warning("quarantined_bars", "nothing_is_quarantined", blocked.is_empty(), seen)
        if told:
            yield told
        sound = accepted > 0 and not stopped_sessions(result.findings)
        yield dg.AssetCheckResult(
            asset_key="accepted_bars", check_name="feed_is_sound", passed=sound, metadata={**seen, "accepted": accepted}
        )

    judged = ["accepted_bars", corporate_actions]

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                "adjusted_bars",
                deps=judged,
                kinds={"polars", "deltalake"},
                description="Accepted bars with their forward split and total-return indices; an action learned late rewrites from its "
                "ex-date.",
            ),
            dg.AssetSpec(
                "instruments",
                deps=judged,
                kinds={"polars", "deltalake"},
                description="Listing and delisting dates of every symbol, and the security that it stood for.",
            ),
        ],
        partitions_def=sessions,
        group_name="market",
        name="adjusted_bars",
    )
    def adjusted_assets(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ):
        """Adjust the session's accepted bars, and list who trades."""
        session = session_of(context)
        require_sound_feed(lake, session)
        first, known_by = relearned(chain, lake, ledger, session)
        rows = write_adjusted(chain, lake, first, session, known_by)
        yield dg.MaterializeResult(
            asset_key="adjusted_bars", metadata={**table_metadata(lake, "adjusted_bars", rows.height), "from": str(first)}
        )
        listed = write_instruments(chain, lake, ledger, known_by)
        gone = listed["last_session"].count()
        yield dg.MaterializeResult(
            asset_key="instruments", metadata={**table_metadata(lake, "instruments", listed.height), "listed": listed.height - gone}
        )

    return [raw_bars, *peers, corporate_actions, gated_bars, adjusted_assets]


def require_sound_feed(lake: Lake, session: date) -> None:
    """FeedFaultError if the gate stopped the session: a blocking check acts within its own run only, this across runs too."""
    stops = lake.read("bar_findings", first=session, last=session).filter(pl.col("severity") == "stop")
    if not stops.is_empty():
        finding = stops.row(0, named=True)
        where = f"the feed of {session}"
        raise FeedFaultError(
            expected(finding["expected"], found=finding["observed"], where=where, do="fix the source and run the session again")
        )
