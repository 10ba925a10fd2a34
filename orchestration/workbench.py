"""A data root at work for the command line: settings, Dagster instance, lake, ledger, and what is done or missing in it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.table import Table

from orchestration.settings import REPOSITORY, Settings, data_root, load_settings
from quant.errors import AftercloseError, InputError, SequenceError, expected
from quant.risk.state import state_after

if TYPE_CHECKING:
    import dagster as dg

    from adapters.lake import DeltaLake
    from adapters.notary import FileNotary
    from assets.chain import Chain
    from orchestration.alerting import Alerting
    from quant.ports import Ledger, ModelStore

HISTORY_ASSETS = ("market_history", "feature_history", "label_history", "walk_forward_scores", "alpha_model", "backtest", "backtest_report")
LAST_DAILY_ASSET = "performance_report"


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """One data root with everything bound."""

    root: Path
    settings: Settings
    defs: "dg.Definitions"
    instance: "dg.DagsterInstance"
    chain: "Chain"
    lake: "DeltaLake"
    alerting: "Alerting"

    @classmethod
    @contextmanager
    def opened(cls) -> "Iterator[Workbench]":
        """Bind the process's settings; refuses a data root that was filled with another source or calendar."""
        from orchestration.launcher import prepare_environment
        from orchestration.root import require_same_data

        settings, root = load_settings(), data_root()
        require_same_data(root, settings)
        os.environ.update(prepare_environment(root))
        import dagster as dg

        from adapters.clock import SystemClock
        from adapters.lake import open_lake
        from orchestration import definitions
        from orchestration.instance import fail_lost

        source = definitions.bar_source(settings, definitions.exchange_calendar(settings.calendar.exchange))
        chain = definitions.build_chain(settings, source, SystemClock())
        with dg.DagsterInstance.get() as instance:
            fail_lost(instance)
            yield cls(
                root=root,
                settings=settings,
                defs=definitions.defs,
                instance=instance,
                chain=chain,
                lake=open_lake(root, library=chain.strategy.library),
                alerting=definitions.alerting_of(definitions.defs),
            )

    @property
    def source_name(self) -> str:
        """Name of the source."""
        return self.chain.source.facts.name

    @property
    def paper_start(self) -> date:
        """First session of the daily chain."""
        return self.chain.paper_start

    @property
    def history_last(self) -> date:
        """Last session of the history."""
        return self.chain.history_last

    def last_session(self) -> date:
        """The last session that is over and that the source can have."""
        from orchestration.definitions import last_session

        now = self.chain.clock.now()
        return min(last_session(self.settings, self.chain.source, self.chain.clock), self.chain.calendar.last_closed(now))

    def sessions(self, first: date, last: date) -> list[date]:
        """Sessions from first to last."""
        return self.chain.calendar.sessions(first, last)

    def require_session(self, day: date, where: str) -> date:
        """``day`` if the daily chain has a partition for it; else an InputError that says what it has."""
        self.chain.calendar.require(day, where=where)
        if not self.paper_start <= day <= self.last_session():
            span = f"a session from {self.paper_start} (paper start) to {self.last_session()} (last one of source {self.source_name})"
            raise InputError(expected(span, found=day, where=where, do="choose one, or change the profile"))
        return day

    def done_sessions(self) -> set[date]:
        """Sessions whose daily chain ran to its end."""
        import dagster as dg

        keys = self.instance.get_materialized_partitions(dg.AssetKey(LAST_DAILY_ASSET))
        return {date.fromisoformat(key) for key in keys}

    def missing_sessions(self) -> list[date]:
        """Sessions that are over and not done, oldest first."""
        done = self.done_sessions()
        return [session for session in self.sessions(self.paper_start, self.last_session()) if session not in done]

    def history_done(self) -> bool:
        """True if every history asset has been materialised in this data root."""
        import dagster as dg

        found = self.instance.get_latest_materialization_event
        return self.lake.version("scores") is not None and all(found(dg.AssetKey(name)) is not None for name in HISTORY_ASSETS)

    def require_history(self) -> None:
        """SequenceError unless the history is there."""
        if not self.history_done():
            do = "run `afterclose history` first"
            raise SequenceError(expected("the history assets", found="not all of them", where=str(self.root), do=do))

    def require_ready(self, session: date) -> None:
        """SequenceError unless the history is there and the session before ``session`` is done."""
        self.require_history()
        if session > self.chain.paper_book_start:
            previous = self.chain.calendar.previous(session)
            if self.open_ledger().decision(self.chain.paper_book, previous) is None:
                do = f"run `afterclose backfill --from {previous} --to {session}`"
                raise SequenceError(
                    expected(f"session {previous} to be done", found="no decision", where=f"book {self.chain.paper_book}", do=do)
                )

    def open_ledger(self) -> "Ledger":
        """The ledger of the data root."""
        from adapters.ledger import open_ledger

        return open_ledger(f"sqlite:///{self.root / 'ledger.sqlite'}", self.chain.clock)

    def open_models(self) -> "ModelStore":
        """The models of the data root."""
        from adapters.tracking.mlflow_store import open_model_store

        return open_model_store(self.root)

    def open_notary(self) -> "FileNotary":
        """The anchors of the data root."""
        from orchestration.definitions import open_notary

        return open_notary(self.settings, self.root)

    def require_book(self, book: str | None) -> str:
        """``book``, by default the paper book; InputError if the profile has none of this name."""
        books = (self.chain.paper_book, self.chain.backtest_book)
        if book is not None and book not in books:
            raise InputError(expected(f"one of {', '.join(books)}", found=book, where="--book", do="choose one, or change the profile"))
        return book or self.chain.paper_book

    def newest_report(self, book: str | None = None) -> Path:
        """Path of the newest page of a book."""
        folder = self.root / "reports" / self.require_book(book)
        pages = sorted(folder.glob("*.html"))
        if not pages:
            raise InputError(
                expected("a report page", found="none", where=str(folder), do="run `afterclose demo` or `afterclose paper-run`")
            )
        return pages[-1]

    def factor_page(self) -> Path:
        """Path of the page on factors."""
        from adapters.report.publisher import FACTOR_FOLDER

        return self.root / "reports" / FACTOR_FOLDER / f"{self.history_last}.html"

    def print_factors(self, out: Console, most: int = 5) -> None:
        """The strongest factors, what chance would make of so many, and where the page is."""
        from quant.modelling.factor_statistics import chance

        rows = self.lake.read("factor_statistics", last=self.history_last).sort(
            pl.col("t_statistic").abs(), descending=True, nulls_last=True
        )
        table = Table(
            "factor", "from", "t", "mean IC", "names", "sessions", title=f"Factors up to {self.history_last}", title_justify="left"
        )
        for row in rows.head(most).iter_rows(named=True):
            t, ic, names = (f"{row[name]:.{decimals}f}" for name, decimals in (("t_statistic", 2), ("ic_mean", 4), ("ic_names", 1)))
            table.add_row(row["factor"], row["origin"], t, ic, names, f"{row['ic_sessions']:,}")
        out.print(table)
        told = chance(rows["t_statistic"])
        out.print(
            f"beyond 2   {told.beyond_usual} of {told.factors} factors; chance alone would give {told.expected:.1f}\n"
            f"bound      {told.beyond_threshold} beyond {told.threshold:.2f} (Bonferroni, 5% over all of them)",
            highlight=False,
        )
        out.print(f"report     {self.factor_page()}", soft_wrap=True, highlight=False)

    def told(self, session: date) -> str:
        """What a session did, in a line."""
        read = {"first": session, "last": session, "where": {"book": self.chain.paper_book}}
        nav = self.lake.read("daily_nav", **read)["closing_nav"]
        value = f", NAV {nav[0]:,.2f} USD" if len(nav) else ""
        page = self.root / "reports" / self.chain.paper_book / f"{session}.html"
        return f"{self.lake.read('fills', **read).height} fills, {self.lake.read('orders', **read).height} orders{value}, report {page}"

    def revisions(self, since: date | None) -> list[dict[str, object]]:
        """Rows that were revised, known since a day (UTC), as quant.market.revisions.of_rows has them."""
        from assets.revisions import revisions_since
        from quant.market.revisions import of_rows

        instant = None if since is None else datetime(since.year, since.month, since.day, tzinfo=UTC)
        return of_rows(revisions_since(self.chain, self.lake, self.open_ledger(), instant))

    def print_summary(self, out: Console, books: Sequence[str] = ()) -> None:
        """A small table for each of ``books`` (default: backtest and paper), and where to look next."""
        from adapters.report.html import figures_table
        from quant.modelling.information_coefficient import information_coefficient, summarise_ic
        from quant.reports.performance import performance

        for book in books or (self.chain.backtest_book, self.chain.paper_book):
            nav = self.lake.read("daily_nav", where={"book": book})
            if nav.is_empty():
                continue
            scores = self.lake.read("scores", first=nav["session"][0], last=nav["session"][-1])
            labels = self.lake.read("forward_returns", last=nav["session"][-1])
            figures = performance(nav, summarise_ic(information_coefficient(scores, labels)))
            table = Table(title=f"{book}: {nav['session'][0]} to {nav['session'][-1]}", title_justify="left", show_header=False)
            table.add_column(style="dim")
            table.add_column(justify="right")
            for label, value in figures_table(figures):
                table.add_row(label, value)
            out.print(table)
        out.print(f"report     {self.newest_report()}", soft_wrap=True, highlight=False)
        out.print(f"warehouse  {self.root / 'afterclose.duckdb'}", soft_wrap=True, highlight=False)
        flags = own_flags()
        start = f"afterclose {flags} start" if flags else "make start   (or: afterclose start)"
        out.print(f"UI         {start}", soft_wrap=True, highlight=False)

    def print_status(self, out: Console) -> None:
        """Last session of every table, champion, positions, net asset value, gate state."""
        from quant.tables import TABLES

        tables = Table("table", "last session", "lake version", title="Assets", title_justify="left")
        for name, table in TABLES.items():
            version = self.lake.version(name)
            newest = self.lake.read(name, columns=[table.clock])[table.clock].max() if version is not None else None
            tables.add_row(name, str(newest or "-"), str(version if version is not None else "-"))
        out.print(tables)
        ledger = self.open_ledger()
        champion = ledger.champion(self.chain.strategy.name, self.chain.calendar.last_closed(self.chain.clock.now()))
        out.print(f"champion   {f'{champion[1]} from {champion[0]} on' if champion else 'none yet'}", highlight=False)
        changes = ledger.state_changes(self.chain.paper_book)
        since = f" since {changes[-1].session} by {changes[-1].by}: {changes[-1].reason}" if changes else ""
        out.print(f"trading    {state_after(changes)}{since}", highlight=False, soft_wrap=True, markup=False)
        nav = self.lake.read("daily_nav", where={"book": self.chain.paper_book}).tail(1)
        if not nav.is_empty():
            row = nav.row(0, named=True)
            out.print(f"NAV        {row['closing_nav']:,.2f} USD at the close of {row['session']}", highlight=False)
            held = self.lake.read("positions", where={"book": self.chain.paper_book}, first=row["session"], last=row["session"])
            positions = Table("symbol", "shares", "mark", "value", "weight", title="Positions", title_justify="left")
            for p in held.iter_rows(named=True):
                positions.add_row(
                    p["symbol"], f"{p['quantity']:,.0f}", f"{p['mark']:,.2f}", f"{p['market_value']:,.2f}", f"{p['weight']:+.2%}"
                )
            out.print(positions)
        findings = self.lake.read("bar_findings")
        by_severity = findings.group_by("severity").len().sort("severity")
        gate = ", ".join(f"{n} {severity}" for severity, n in by_severity.iter_rows()) or "no findings"
        out.print(f"gate       {gate}", highlight=False)
        try:
            missing = self.missing_sessions() if self.history_done() else []
            state = f"{len(missing)} sessions missing, the first is {missing[0]}" if missing else "every session is done"
        except AftercloseError as error:
            state = f"unknown, the source cannot be read: {error}"
        out.print(
            f"daily      {state if self.history_done() else 'no history yet: run `afterclose history` or `afterclose demo`'}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def own_flags() -> str:
    """The options that name this process's profile and data root, where they are not the default ones."""
    named = {"--profile": os.environ.get("AFTERCLOSE_PROFILE"), "--data": os.environ.get("AFTERCLOSE_DATA")}
    default = {"--profile": REPOSITORY / "afterclose.toml", "--data": REPOSITORY / "data"}
    return " ".join(f"{option} {path}" for option, path in named.items() if path and Path(path).resolve() != default[option])


_READING = ("SELECT", "EXPLAIN", "PRAGMA")
"""Kinds of statements that write nothing, in DuckDB's words; SHOW, DESCRIBE, FROM and WITH are SELECT to it."""


def own_command(words: str) -> str:
    """A command as it has to be typed to act on this process's profile and data root."""
    return " ".join(part for part in ("afterclose", own_flags(), words) if part)


def query_warehouse(query: str) -> pl.DataFrame:
    """The result of one read-only query; InputError for bad SQL, none at all, and a warehouse that is not there yet."""
    import duckdb

    path = data_root() / "afterclose.duckdb"
    if not path.exists():
        raise InputError(expected("a warehouse", found="no file", where=str(path), do="run `afterclose demo`"))
    do = "see `afterclose sql 'show tables'`"
    with duckdb.connect(str(path), read_only=True) as connection:
        try:
            connection.execute("SET TimeZone = 'UTC'")  # instants are written and shown in it
            # None for a query of blanks and comments, which DuckDB's types leave out
            statements = duckdb.extract_statements(query)
            if len(statements) != 1 or statements[0].type.name not in _READING:
                raise InputError(expected("one SQL statement that reads", found=repr(query), where="the query", do=do))
            relation: duckdb.DuckDBPyRelation | None = connection.sql(query)
            if relation is None:
                raise InputError(expected("one SQL statement that reads", found=repr(query), where="the query", do=do))
            result = pl.from_arrow(relation.to_arrow_table())
            return result if isinstance(result, pl.DataFrame) else result.to_frame()
        except duckdb.Error as error:
            raise InputError(expected("SQL that DuckDB can run", found=str(error), where="the query", do=do)) from None
