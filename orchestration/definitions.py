"""The one place that binds ports to adapters, and the code location that Dagster loads."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from adapters.brokers.alpaca import AlpacaBroker
from adapters.brokers.simulated import SimulatedExchange
from adapters.clock import SystemClock
from adapters.factor_library import load_library
from adapters.sources.alpaca import AlpacaSource
from adapters.sources.files import BadRows, FilesSource
from adapters.sources.sample import SampleSource
from assets import audit, factor_report, features, market, model, outputs, trading
from assets.chain import Chain, MarketOf
from orchestration import launcher
from orchestration.alerting import Alerting
from orchestration.freshness import Freshness, freshness_checks
from orchestration.provenance import code_version, settings_document
from orchestration.root import at_work
from orchestration.schedules import RUNS_AT, after_close
from orchestration.sensors import alert_sensors
from orchestration.settings import (
    AlertSettings,
    AlpacaSourceSettings,
    FilesSourceSettings,
    Settings,
    SourceSettings,
    alpaca_access,
    alpaca_keys,
    data_root,
    load_settings,
    profile_path,
)
from quant.alerts.alert import Alert, Observation
from quant.alerts.observations import of_trading
from quant.alerts.session_report import session_report
from quant.calendar import ExchangeCalendar, exchange_calendar
from quant.errors import AftercloseError, InputError, expected
from quant.portfolio.weights import PortfolioSettings
from quant.ports import (
    Announcer,
    BarSource,
    BatchReviewer,
    Broker,
    Clock,
    Inbox,
    Lake,
    Ledger,
    ModelStore,
    Notary,
    Notifier,
    Outbox,
    ReportPublisher,
    Warehouse,
)
from quant.risk.limit import BUFFER_RATIO
from quant.risk.settings import RiskSettings
from quant.trading.rules import BookRules
from strategies.alpha_baseline.strategy import AlphaBaseline

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from adapters.notary import FileNotary


_LOG = logging.getLogger(__name__)


def bar_source(settings: Settings, calendar: ExchangeCalendar, clock: Clock | None = None) -> BarSource:
    """The source that the profile names."""
    return _source_of(settings.source, calendar, clock)


def _source_of(source: SourceSettings, calendar: ExchangeCalendar, clock: Clock | None) -> BarSource:
    universe = None if source.universe == "all" else source.universe
    if isinstance(source, AlpacaSourceSettings):
        return AlpacaSource(
            universe=source.universe,
            keys=alpaca_keys,
            calendar=calendar,
            clock=clock or SystemClock(),
            asof=source.alpaca.asof,
            feed=source.alpaca.feed,
            first_session=source.alpaca.first_session,
            convention=source.alpaca.convention,
            publish_delay_minutes=source.alpaca.publish_delay_minutes,
            data_url=source.alpaca.data_url,
            trading_url=source.alpaca.trading_url,
            adjusted_closes=source.alpaca.adjusted_closes,
        )
    if not isinstance(source, FilesSourceSettings):
        return SampleSource(universe=universe)
    files, folder = source.files, profile_path().parent
    return FilesSource(
        bars=folder / files.bars,
        actions=None if files.actions is None else folder / files.actions,
        columns=files.columns,
        convention=files.convention,
        absent=frozenset(files.absent),
        bad_rows=BadRows(files.bad_rows),
        grows=files.grows,
        publish_delay_minutes=files.publish_delay_minutes,
        universe=universe,
        calendar=calendar,
    )


def user_library(settings: Settings) -> Mapping[str, str]:
    """The factors of the file that the profile names; none without one."""
    return {} if settings.strategy.factors is None else load_library(profile_path().parent / settings.strategy.factors)


def build_chain(settings: Settings, source: BarSource, clock: Clock, root: Path | None = None) -> Chain:
    """The profile as values, over a data root (by default the environment's); InputError where its dates do not fit the calendar or the
    source, or where its parts contradict.
    """
    require_tradable(settings.portfolio, settings.risk)
    calendar = exchange_calendar(settings.calendar.exchange)
    start = calendar.require(settings.calendar.start, where="[calendar] start")
    paper_start = calendar.require(settings.calendar.paper_start, where="[calendar] paper_start")
    paper_book_start = calendar.require(settings.paper.start or paper_start, where="[paper] start")
    has = _reach(settings, source, clock)
    if has is not None and not has[0] <= start < paper_start <= has[1]:
        order = f"{has[0]} <= start < paper_start <= {has[1]} (what the source has)"
        found = f"start {start}, paper_start {paper_start}"
        raise InputError(expected(order, found=found, where="[calendar] of the profile", do="move the dates"))
    if paper_book_start < paper_start:
        raise InputError(
            expected(
                f"a session from {paper_start} on", found=paper_book_start, where="[paper] start", do="move it to the paper start or later"
            )
        )
    if settings.paper.book == settings.backtest.book:
        found = f"{settings.paper.book} for both"
        raise InputError(expected("two books", found=found, where="[paper] book and [backtest] book", do="name one of them otherwise"))
    costs = settings.costs

    def exchange(market_of: MarketOf) -> Broker:
        return SimulatedExchange(market_of, costs)

    def alpaca(market_of: MarketOf) -> Broker:
        del market_of  # it has its own
        return alpaca_broker(settings, calendar, clock, root)

    if settings.broker.kind == "alpaca":
        alpaca_access(settings.broker)  # refused before anything is written
    brokers: dict[str, Callable[[MarketOf], Broker]] = {"simulated": exchange, "alpaca": alpaca}
    chain = Chain(
        profile=settings.name,
        source=source,
        peer=None if settings.cross_check is None else _source_of(settings.cross_check, calendar, clock),
        peer_name=None if settings.cross_check is None else settings.cross_check.kind,
        calendar=calendar,
        clock=clock,
        strategy=AlphaBaseline.configured(settings.model, user_library(settings), settings.strategy.features),
        gate=settings.gate,
        expectations=settings.expectations,
        universe=settings.universe,
        portfolio=settings.portfolio,
        rules=BookRules(costs=costs, risk=settings.risk, convention=source.facts.convention, ledger=settings.ledger),
        broker=brokers[settings.broker.kind],
        dry_run=settings.broker.dry_run,
        reconcile=settings.reconcile,
        exchange=exchange,
        start=start,
        paper_start=paper_start,
        paper_book=settings.paper.book,
        paper_book_start=paper_book_start,
        backtest_book=settings.backtest.book,
        backtest_range=(settings.backtest.start, settings.backtest.end),
        backtest_stops_on_losses=settings.backtest.stops_on_losses,
        settings=settings_document(settings),
        code=code_version,
    )
    # Known here, before anything is written: faulty actions, and too little history to train on.
    if source.facts.finite:
        source.actions(start, paper_start)
    model.folds(chain, paper_start)
    return chain


def alpaca_broker(settings: Settings, calendar: ExchangeCalendar, clock: Clock, root: Path | None = None) -> AlpacaBroker:
    """The broker of [broker] kind alpaca; its inbox is in the ledger's database."""

    def inbox() -> Inbox:
        from adapters.ledger.inbox import open_inbox

        return open_inbox(f"sqlite:///{(root or data_root()) / 'ledger.sqlite'}", clock)

    return AlpacaBroker(
        alpaca_access(settings.broker), alpaca_keys, clock, inbox, calendar, never_books=frozenset(settings.broker.never_books)
    )


def require_tradable(portfolio: PortfolioSettings, risk: RiskSettings) -> None:
    """InputError if the risk limits would deny the target weights themselves: a book that keeps to both never holds what it wants."""
    long_only = portfolio.sides == "long_only"
    gross = portfolio.gross_exposure_ratio
    a_side = gross if long_only else gross / 2
    what = f"sides {portfolio.sides} and gross_exposure_ratio {gross:g}"
    wanted = (
        ("max_gross_ratio", risk.max_gross_ratio, gross, what, "lower gross_exposure_ratio"),
        ("max_net_ratio", risk.max_net_ratio, a_side if long_only else 0.0, what, "lower gross_exposure_ratio"),
        ("max_turnover_ratio", risk.max_turnover_ratio, gross, what, "lower gross_exposure_ratio"),
        ("buying_power_multiple", risk.buying_power_multiple, gross * (1 + BUFFER_RATIO), what, "lower gross_exposure_ratio"),
        (
            "max_name_ratio",
            risk.max_name_ratio,
            a_side / portfolio.names_per_side,
            f"{what} over names_per_side {portfolio.names_per_side}",
            "names_per_side",
        ),
    )
    for limit, allowed, ratio, cause, instead in wanted:
        if ratio > allowed * (1 + 1e-9):  # a ratio at its limit is allowed, whatever its last digit
            do = f"raise it or {instead}"
            need = f"{limit} of at least {ratio:.6g} for {cause} in [portfolio]"
            raise InputError(expected(need, found=f"{allowed:g}", where="[risk] of the profile", do=do))


def _reach(settings: Settings, source: BarSource, clock: Clock) -> tuple[date, date] | None:
    """First and last session that the source can have. None of one that grows and cannot be read now: its last file may be broken, and
    what is stored can be looked at and told of all the same. Whoever asks for its rows is told why.
    """
    try:
        return source.first_session(), last_session(settings, source, clock)
    except AftercloseError as error:
        if source.facts.finite:
            raise
        _LOG.warning("the source cannot be read: %s", error)
        return None


def last_session(settings: Settings, source: BarSource, clock: Clock) -> date:
    """The last session the source can have, cut by the profile's end, which may be a day without trading."""
    last, end = source.last_session(clock.now()), settings.calendar.end
    return last if end is None or last <= end else exchange_calendar(settings.calendar.exchange).on_or_before(end)


def session_partitions(chain: Chain, last: date | None) -> dg.DailyPartitionsDefinition:
    """One partition a session from the paper start on; it exists once its UTC day is over. ``last`` ends those of a finite source."""
    holidays = [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in chain.calendar.holidays if d >= chain.paper_start]
    return dg.DailyPartitionsDefinition(
        start_date=chain.paper_start.isoformat(),
        end_date=None if last is None else (last + timedelta(days=1)).isoformat(),
        timezone="UTC",
        exclusions=["0 0 * * 6", "0 0 * * 0", *holidays],
    )


def resources(chain: Chain, settings: Settings, root: Path) -> dict[str, object]:
    """Every port with the adapter that serves it. A run has the lake for itself from its first step to its last."""
    library = chain.strategy.library
    opened: dict[str, DeltaTable] = {}  # from run to run of this process

    @dg.resource(description="The profile as values.")
    def chain_resource() -> Chain:
        return chain

    @dg.resource(description="Delta Lake tables under the data root; one run at a time.")
    def lake(context: dg.InitResourceContext) -> Iterator[Lake]:
        from adapters.lake import open_lake

        def waiting(why: str) -> None:
            if context.log:
                context.log.info(why)

        with at_work(root, settings, waiting):
            yield open_lake(root, run_id=context.run.run_id if context.run else "", opened=opened, alone=True, library=library)

    @dg.resource(description="SQLite ledger under the data root.")
    def ledger() -> Ledger:
        from adapters.ledger import open_ledger

        return open_ledger(f"sqlite:///{root / 'ledger.sqlite'}", chain.clock)

    @dg.resource(description="MLflow runs and registered models under the data root.")
    def models() -> ModelStore:
        from adapters.tracking.mlflow_store import open_model_store

        return open_model_store(root)

    @dg.resource(description="Signed anchors of the audit log under the data root, and their copy.")
    def notary() -> Notary:
        return open_notary(settings, root)

    @dg.resource(description="HTML pages and tables under the data root's reports folder.")
    def reports() -> ReportPublisher:
        from adapters.report.publisher import ReportFolder

        return ReportFolder(root / "reports")

    @dg.resource(description="Great Expectations; pages under the data root's reports folder.")
    def reviewer() -> BatchReviewer:
        from adapters.expectations import DataDocs

        return DataDocs(root / "reports" / "data-docs", pages=settings.expectations.pages)

    @dg.resource(description="afterclose.duckdb under the data root.")
    def warehouse() -> Warehouse:
        from adapters.lake import open_lake
        from adapters.lake.warehouse import DuckDBWarehouse

        return DuckDBWarehouse(open_lake(root, opened=opened, library=library), root / "afterclose.duckdb")

    return {
        "chain": chain_resource,
        "lake": lake,
        "ledger": ledger,
        "models": models,
        "notary": notary,
        "reports": reports,
        "reviewer": reviewer,
        "warehouse_file": warehouse,
    }


def open_notary(settings: Settings, root: Path) -> "FileNotary":
    """Key and anchors under the data root, or where the settings say."""
    from adapters.notary import FileNotary

    folder, named = profile_path().parent, settings.audit
    return FileNotary(
        root / "audit",
        key=None if named.key is None else folder / named.key,
        copies=None if named.anchors is None else folder / named.anchors,
        name=settings.name,
    )


LAST_DAILY_TABLE = "performance_report"
_PATIENCE_SECONDS = 5.0  # a channel takes several answers of a server, each in timeout_seconds


def notifiers(settings: AlertSettings, names: Sequence[str], where: str, root: Path, clock: Clock) -> dict[str, Notifier]:
    """The channels called ``names``; InputError for one without its section."""
    from adapters.notify import EmailNotifier, LogNotifier, MailSecurity, SlackNotifier, WebhookNotifier

    made: dict[str, Notifier] = {"log": LogNotifier(root / "alerts.log")}
    seconds = settings.timeout_seconds
    if (mail := settings.email) is not None:
        made["email"] = EmailNotifier(
            host=mail.host,
            port=mail.port,
            security=MailSecurity(mail.security),
            username=mail.username,
            password=mail.password.get_secret_value() if mail.password else None,
            sender=mail.sender,
            recipients=tuple(mail.recipients),
            timeout_seconds=seconds,
        )
    if settings.slack is not None:
        made["slack"] = SlackNotifier(url=settings.slack.url.get_secret_value(), timeout_seconds=seconds)
    if (hook := settings.webhook) is not None:
        secret = hook.secret.get_secret_value()
        made["webhook"] = WebhookNotifier(url=hook.url, secret=secret, timeout_seconds=seconds, clock=clock)
    for name in names:
        if name not in made:
            do = f"add [alerts.{name}], its secrets in the environment (docs/alerts.md), or take it out"
            raise InputError(expected(f"[alerts.{name}] for channel {name}", found="no such section", where=where, do=do))
    return {name: made[name] for name in names}


def build_alerting(
    settings: Settings, root: Path, chain: Chain, finite_end: date | None, parts: Sequence[dg.AssetsDefinition | dg.AssetChecksDefinition]
) -> Alerting:
    """The alerts of one profile and data root: what its checks expect, which tables have a session each, and who is told."""
    alerts = settings.alerts
    assets = [part for part in parts if not isinstance(part, dg.AssetChecksDefinition)]
    daily = {key.to_user_string() for part in assets if part.partitions_def is not None for key in part.keys}

    def outbox() -> Outbox:
        from adapters.ledger import open_outbox

        return open_outbox(f"sqlite:///{root / 'ledger.sqlite'}", chain.clock, alerts.channels)

    def daily_report(session: date) -> Alert | None:
        from adapters.lake import open_lake

        book = chain.paper_book
        read = {"first": session, "last": session, "where": {"book": book}}
        lake = open_lake(root, library=chain.strategy.library)
        previous = chain.calendar.previous(session)
        nav = lake.read("daily_nav", first=session, where={"book": book})
        if nav.height != 1:  # of a range that was run in one go the newest session is told
            return None
        return session_report(
            book,
            session,
            nav=nav,
            pnl=lake.read("daily_pnl", **read),
            orders=lake.read("orders", **read),
            positions=lake.read("positions", first=previous, last=session, where={"book": book}),
        )

    def trading_state() -> Sequence[Observation]:
        from adapters.ledger import open_ledger

        ledger = open_ledger(f"sqlite:///{root / 'ledger.sqlite'}", chain.clock)
        return [of_trading(chain.paper_book, ledger.state_changes(chain.paper_book))]

    return Alerting(
        root=root,
        trading=trading_state,
        clock=chain.clock,
        outbox=outbox,
        channels=notifiers(alerts, alerts.channels, "[alerts] channels", root, chain.clock),
        fallback=notifiers(alerts, alerts.fallback, "[alerts] fallback", root, chain.clock),
        ui=lambda: alerts.ui or launcher.last_address(root),
        patience_seconds=alerts.timeout_seconds + _PATIENCE_SECONDS,
        descriptions={(spec.asset_key.to_user_string(), spec.name): spec.description or "" for part in parts for spec in part.check_specs},
        freshness=Freshness(
            tables=tuple(sorted(daily)),
            last_table=LAST_DAILY_TABLE,
            source=chain.source.facts.name,
            calendar=chain.calendar,
            first=chain.paper_start,
            finite_end=finite_end,
            delay_minutes=chain.source.facts.publish_delay_minutes,
            run_at=RUNS_AT,
            freshness_minutes=alerts.freshness_minutes,
            dead_man_minutes=alerts.dead_man_minutes,
        ),
        daily_report=daily_report if alerts.daily_pnl else None,
    )


def alerting_of(definitions: dg.Definitions) -> Alerting:
    """What `build_definitions` bound for the alerts."""
    bound = (definitions.resources or {})["alerting"]
    assert isinstance(bound, Alerting)
    return bound


USER_FACTOR_REPORT = {"factor_report": "user_factor_history"}
USER_FACTOR_READERS = {"walk_forward_scores": "user_factor_history", "alpha_model": "user_factor_history", "scores": "user_factors"}
"""Assets that read the user's factors if the model does, and where from."""


def _reading(
    part: dg.AssetsDefinition | dg.AssetChecksDefinition, sources: Mapping[str, str]
) -> dg.AssetsDefinition | dg.AssetChecksDefinition:
    """``part`` with what its assets read from ``sources`` in the lineage."""

    def with_source(spec: dg.AssetSpec) -> dg.AssetSpec:
        source = sources.get(spec.key.to_user_string())
        return spec if source is None else spec.merge_attributes(deps=[source])

    return part if isinstance(part, dg.AssetChecksDefinition) else part.map_asset_specs(with_source)


def build_definitions(settings: Settings, root: Path, clock: Clock) -> dg.Definitions:
    """The code location of one profile and one data root."""
    with warnings.catch_warnings():
        # Partitioned checks are in preview; without their partitions a check would load every session.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return _definitions(settings, root, clock)


def _definitions(settings: Settings, root: Path, clock: Clock) -> dg.Definitions:

    calendar = exchange_calendar(settings.calendar.exchange)
    source = bar_source(settings, calendar, clock)
    chain = build_chain(settings, source, clock, root)
    reach = _reach(settings, source, clock) if source.facts.finite or settings.calendar.end else None
    finite_end = reach[1] if reach else settings.calendar.end and calendar.on_or_before(settings.calendar.end)
    sessions = session_partitions(chain, finite_end)
    own = features.user_factor_assets(sessions, chain.strategy.library)
    research = [
        market.market_history,
        market.history_is_clean,
        *([] if chain.peer is None else [market.history_is_cross_checked]),
        features.feature_history,
        features.label_history,
        model.walk_forward,
        model.scores_have_spread,
        trading.backtest,
        trading.backtest_parts_sum_to_nav,
        outputs.backtest_report,
        factor_report.factor_report,
    ]
    daily_assets = [
        *market.daily_market_assets(
            sessions,
            reviewed=settings.expectations.enabled,
            cross_checked=chain.peer is not None,
            announced_to=isinstance(source, Announcer),
        ),
        *features.daily_feature_assets(sessions),
        *model.daily_model_assets(sessions),
        *trading.daily_booking_assets(sessions),
        *trading.daily_reconciliation_assets(sessions),
        *trading.daily_order_assets(sessions),
        *outputs.daily_output_assets(sessions),
    ]
    read = USER_FACTOR_REPORT if own else {}
    read = {**read, **USER_FACTOR_READERS} if "user_factors" in chain.strategy.feature_tables else read
    parts = [*(_reading(part, read) for part in (*research, *daily_assets)), *own, outputs.warehouse, audit.audit_anchor]
    alerting = build_alerting(settings, root, chain, finite_end, parts)
    fresh = freshness_checks(alerting.freshness, clock)
    # Judged by the clock, not by a run: while a run is at work there is nothing to say.
    unclocked = dg.AssetSelection.checks(fresh)
    last = (outputs.warehouse, audit.audit_anchor)
    end_of_history = dg.AssetSelection.assets(outputs.backtest_report)
    history = dg.define_asset_job(
        "history",
        selection=(end_of_history.upstream() | dg.AssetSelection.assets("alpha_model", *last, *own[:1])) - unclocked,
        description="Everything before the paper start: bars, gate, adjustment, features, walk-forward training, backtest, report.",
    )
    daily = dg.define_asset_job(
        "daily",
        selection=(dg.AssetSelection.groups("market", "paper") | dg.AssetSelection.assets(LAST_DAILY_TABLE, *last)) - unclocked,
        tags={"lane": "daily"},
        description="One session: ingest, gate, book, mark, features, scores, weights, risk review, orders, report.",
    )
    factors = dg.define_asset_job(
        "factors",
        selection=dg.AssetSelection.assets(factor_report.factor_report, outputs.warehouse),
        description="The report on factors, over the history that is there; then the warehouse, which shows its table.",
    )
    return dg.Definitions(
        assets=[part for part in parts if not isinstance(part, dg.AssetChecksDefinition)],
        asset_checks=[*(part for part in parts if isinstance(part, dg.AssetChecksDefinition)), fresh],
        jobs=[history, daily, factors],
        schedules=[after_close(daily, sessions, chain, finite_end)],
        sensors=alert_sensors(alerting),
        resources={**resources(chain, settings, root), "alerting": alerting},
        executor=dg.in_process_executor,
    )


defs = build_definitions(load_settings(), data_root(), SystemClock())
