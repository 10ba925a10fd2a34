"""The command line. Exit 0: done. Exit 1: failed. Exit 2: wrong input, nothing written."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from orchestration import book_commands
from orchestration.alert_commands import alerts
from orchestration.audit_commands import audit
from orchestration.broker_commands import broker
from orchestration.factor_commands import factors
from orchestration.lake_commands import lake
from orchestration.quarantine_commands import quarantine
from orchestration.risk_commands import halt, resume, session_commands
from orchestration.source_commands import source
from orchestration.terminal import LABEL_WIDTH, bars, err, out, parse_session, plain, print_rows, revision_lines
from quant.errors import AftercloseError, InputError, expected

if TYPE_CHECKING:
    from orchestration.workbench import Workbench

app = typer.Typer(
    name="afterclose",
    help="Batch quant research and paper trading as one lineage graph: from raw bars to paper orders, fills, P&L and a report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(factors, name="factors")
app.add_typer(alerts, name="alerts")
app.add_typer(quarantine, name="quarantine")
app.add_typer(lake, name="lake")
app.add_typer(source, name="source")
app.add_typer(broker, name="broker")
app.add_typer(audit, name="audit")
for table in (book_commands.orders, book_commands.fills, book_commands.positions, book_commands.pnl, book_commands.reconcile):
    app.command()(table)
app.add_typer(session_commands, name="session")
app.command()(halt)
app.command()(resume)

SessionOption = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Session to run; default: the last one the source can have.")]


@app.callback()
def common(
    profile: Annotated[Path | None, typer.Option(help="Profile to use instead of afterclose.toml (or AFTERCLOSE_PROFILE).")] = None,
    data: Annotated[Path | None, typer.Option(help="Data root to use instead of data/ (or AFTERCLOSE_DATA).")] = None,
) -> None:
    """Every command reads one profile and one data root."""
    if profile is not None:
        os.environ["AFTERCLOSE_PROFILE"] = str(profile.resolve())
    if data is not None:
        os.environ["AFTERCLOSE_DATA"] = str(data.resolve())


def main() -> None:
    """Entry point: runs the command and turns errors raised on purpose into one line and an exit code."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        err.print(f"[bold red]wrong input:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except AftercloseError as error:
        err.print(f"[bold red]failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def demo() -> None:
    """The main job: the history up to the paper start, then the daily job for every session, then report and warehouse."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        missing = bench.missing_sessions()
        if not bench.history_done():
            _history(bench)
        elif not missing:
            sessions = len(bench.done_sessions())
            out.print(f"Everything is in place in {bench.root}: the history and {sessions} daily sessions.", soft_wrap=True)
        if missing:
            _sessions(bench, missing)
        bench.print_summary(out)


@app.command()
def history() -> None:
    """Everything before the paper start: bars, gate, adjustment, features, walk-forward training, backtest."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        _history(bench)


@app.command(name="paper-run")
def paper_run(session: SessionOption = None) -> None:
    """One session's whole chain: ingest, gate, book, mark, features, scores, weights, risk review, orders, report."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        chosen = bench.last_session() if session is None else bench.require_session(parse_session(session, "--session"), "--session")
        if session is None:
            out.print(f"Session {chosen}: the last one the source {bench.source_name} can have.")
        bench.require_ready(chosen)
        _sessions(bench, [chosen], tell=True)
        bench.print_summary(out, [bench.chain.paper_book])


@app.command()
def backfill(
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First session; default: the paper start.")] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last session; default: the last one there can be.")
    ] = None,
) -> None:
    """Replay a range of daily sessions in order, in this process. Sessions that are done are run again and change nothing."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        begin = bench.paper_start if first is None else bench.require_session(parse_session(first, "--from"), "--from")
        end = bench.last_session() if last is None else bench.require_session(parse_session(last, "--to"), "--to")
        if begin > end:
            raise InputError(expected("--from not after --to", found=f"{begin} > {end}", where="backfill", do="swap them"))
        bench.require_ready(begin)
        _sessions(bench, [day for day in bench.sessions(begin, end) if not _passed_over(bench, day)], tell=True)
        bench.print_summary(out, [bench.chain.paper_book])


def _passed_over(bench: "Workbench", day: date) -> bool:
    """True for a session that was skipped; says so."""
    from assets.chain import skipped
    from orchestration.workbench import own_command

    reason = skipped(bench.open_ledger(), bench.chain.paper_book, day)
    if reason is not None:
        out.print(
            f"{day}: was skipped ({reason}); `{own_command(f'paper-run --session {day}')}` judges it again", highlight=False, soft_wrap=True
        )
    return reason is not None


@app.command()
def status() -> None:
    """Last session of every asset, champion, positions, net asset value and state of the gate."""
    from orchestration.settings import data_root, load_settings
    from orchestration.workbench import Workbench

    load_settings()
    if not (data_root() / "lake").exists():
        out.print(f"No data in {data_root()} yet: run `afterclose demo`.", soft_wrap=True, highlight=False)
        return
    with Workbench.opened() as bench:
        bench.print_status(out)


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    book: Annotated[str | None, typer.Option(help="Book; default: the paper book.")] = None,
) -> None:
    """Path of the newest report page of a book; --open shows it."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        page = bench.newest_report(book)
    out.print(str(page), soft_wrap=True, highlight=False)
    if open_it:
        typer.launch(page.as_uri())


@app.command(name="factor-report")
def factor_report(open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False) -> None:
    """Measure every factor over the history: information coefficient, t-statistic, coverage, stability; a page and a table."""
    from orchestration.runs import run_job
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        bench.require_history()
        with _telling(bench), err.status("measuring factors"):
            run_job(bench.defs, bench.instance, "factors", partition=None, watch=lambda step, done, note: None)
        bench.print_factors(out)
        page = bench.factor_page()
    if open_it:
        typer.launch(page.as_uri())


@app.command()
def revisions(
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Only what became known on this day (UTC) or later.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document: a list of revised rows.")] = False,
) -> None:
    """What bars and corporate actions changed after they were known, and which decisions used the old values."""
    from orchestration.workbench import Workbench

    day = None if since is None else parse_session(since, "--since")
    with Workbench.opened() as bench:
        rows = bench.revisions(day)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif rows:
        columns, lines = revision_lines(rows)
        print_rows(lines, columns)
    else:
        out.print("No revision" + (f" since {day}." if day else "."), highlight=False)


@app.command()
def explain(
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID", help="The order's id, or enough of its beginning to be the only one.")],
    replay: Annotated[bool, typer.Option("--replay", help="Compute score and weight again; exit 1 unless every bit is met.")] = False,
    rows: Annotated[int, typer.Option(min=0, help="So many of the newest rows of each kind, and of the factor values.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with every row.")] = False,
) -> None:
    """Where an order comes from: fill, order, risk review, weight, score, model, feature row, adjusted bars, raw rows, gate."""
    from assets.lineage import lineage_of
    from orchestration.audit_commands import lineage_tree, recomputed_lines
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        lineage = lineage_of(bench.chain, bench.lake, bench.open_ledger(), bench.open_models(), order_id)
        tree = lineage.tree()
        again = lineage.replay() if replay else []
    if as_json:
        document = {"lineage": tree.document, **({"replay": [item.document for item in again]} if replay else {})}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        out.print(lineage_tree(tree, rows), highlight=False)
        for line in recomputed_lines(again):
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    if unmet := [item.what for item in again if not item.met]:
        err.print(f"[bold red]failed:[/] not met: {escape(', '.join(unmet))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB SQL over the views: one a table, see `show tables`.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    rows: Annotated[int, typer.Option(help="At most this many rows in the table format.")] = 50,
) -> None:
    """Query the warehouse, read-only, during a run too."""
    from orchestration.workbench import query_warehouse

    result = query_warehouse(query)
    if output == "csv":
        sys.stdout.write(result.write_csv())
    elif output == "json":
        sys.stdout.write(result.write_json() + "\n")
    elif output == "table":
        print_rows([[plain(value) for value in row] for row in result.head(rows).iter_rows()], result.columns)
        if result.height > rows:
            out.print(f"{rows} of {result.height} rows; --rows shows more.")
    else:
        raise InputError(expected("table, csv or json", found=output, where="--format", do="choose one"))


@app.command()
def start(port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000) -> None:
    """Start the UI and the daemon in the background and wait until the page answers. Twice is harmless."""
    from orchestration import launcher
    from orchestration.settings import data_root, load_settings

    load_settings()
    with err.status("starting the UI and the daemon (about 15 s)"):
        told = launcher.start(data_root(), port)
    out.print(told, soft_wrap=True, highlight=False)


@app.command()
def stop() -> None:
    """Stop what `start` started. Twice is harmless."""
    from orchestration import launcher
    from orchestration.settings import data_root

    out.print(launcher.stop(data_root()), soft_wrap=True)


@app.command()
def server() -> None:
    """Whether the UI and the daemon run, and where."""
    from orchestration import launcher
    from orchestration.settings import data_root

    out.print(launcher.status(data_root()), soft_wrap=True)


@app.command()
def logs(follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False) -> None:
    """The log of the UI and the daemon."""
    from orchestration import launcher
    from orchestration.settings import data_root

    launcher.logs(data_root(), follow=follow)


@contextmanager
def _telling(bench: "Workbench") -> Iterator[Callable[[], None]]:
    """Runs of the command line have no daemon that tells of what they find: whatever way they end, and whenever the function is called."""
    from orchestration.alerting import tell

    def say(what: str) -> None:
        err.print(what, soft_wrap=True, highlight=False, markup=False)

    def tell_now() -> None:
        tell(bench.alerting, bench.instance, say)

    try:
        yield tell_now
    finally:
        tell_now()


def _history(bench: "Workbench") -> None:
    from orchestration.runs import job_steps, run_job

    with _telling(bench), bars() as progress:
        task = progress.add_task("history", total=job_steps(bench.defs, "history"))
        run_job(bench.defs, bench.instance, "history", partition=None, watch=_stepper(progress, task, "history"))
        progress.update(task, description="history")


def _stepper(progress: Progress, task: object, label: str) -> Callable[[str, bool, str], None]:
    def watch(step: str, done: bool, note: str) -> None:
        said = f"{label}: {', '.join(part for part in (step, note) if part)}"
        progress.update(task, description=said[:LABEL_WIDTH], advance=1 if done else 0)  # type: ignore[arg-type]

    return watch


def _sessions(bench: "Workbench", sessions: list[date], *, tell: bool = False) -> None:
    """Run sessions in order under a progress bar; ``tell`` prints a line about each."""
    from orchestration.runs import run_sessions

    done = bench.done_sessions()
    with _telling(bench) as tell_now, bars() as progress:
        task = progress.add_task("daily sessions", total=len(sessions))

        def watch(session: date, step: str) -> None:
            progress.update(task, description=f"session {session}: {step}")

        for session, failed in run_sessions(bench.defs, bench.instance, sessions, watch):
            progress.update(task, description=f"session {session}", advance=1)
            for check in failed:
                progress.console.print(f"  {session} {check.severity}: {check.check} of {check.asset}", highlight=False)
            if failed:
                tell_now()  # a range may take hours
            if tell:
                again = "; it was done before, and the book is as it was" if session in done else ""
                progress.console.print(f"{session}: {bench.told(session)}{again}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
