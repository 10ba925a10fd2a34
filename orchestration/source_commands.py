"""`afterclose source`: what the profile's source is and says, and minute bars for a closer look."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchestration.terminal import bars, out, parse_session, print_rows
from quant.errors import InputError, SourceUnavailableError, expected
from quant.ports import Announcer

source = typer.Typer(help="What the source of the profile is and says; minute bars of single days.", no_args_is_help=True)

_MOST_DAYS = 31  # they are gathered in memory, and asked for at a limited rate


@source.command()
def show() -> None:
    """Name, sessions it can be asked for, publish delay, convention, columns it never has. Asks nothing of a network."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        asked, facts, now = bench.chain.source, bench.chain.source.facts, bench.chain.clock.now()
        lines = [
            ["source", facts.name],
            ["sessions", f"{asked.first_session()} to {asked.last_session(now)}{'' if facts.finite else ', growing'}"],
            ["publish delay", f"{facts.publish_delay_minutes} minutes after the close"],
            ["dividends as factors", facts.convention.value],
            ["columns it never has", ", ".join(sorted(facts.absent)) or "none"],
            ["announcements and minutes", "yes" if isinstance(asked, Announcer) else "no"],
        ]
    print_rows(lines, ["fact", "value"])


@source.command()
def check(
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Without: the last ten sessions.")] = None,
) -> None:
    """Ask the source what no bar tells: corporate actions that nothing here follows, trading hours other than the calendar's, symbols that
    cannot be traded any more. Exit 1 if there are any. The daily run asks the same, and sends alerts.
    """
    from assets.chain import LATE_SESSIONS
    from assets.market import announced
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        _announcer(bench.chain.source)
        last = bench.last_session()
        first = bench.chain.back(last, LATE_SESSIONS) if since is None else parse_session(since, "--since")
        traded = bench.chain.source.bars(last, last)["symbol"].unique().to_list()
        said, silent = announced(bench.chain, first, last, traded)
    if silent is not None:
        raise SourceUnavailableError(silent)
    if said.is_empty():
        out.print(f"Nothing from {first} on that is not followed.")
        return
    shown = said.drop("severity").rename({"session": "day", "rule": "what"})
    print_rows([[str(value) for value in row] for row in shown.iter_rows()], shown.columns)
    raise typer.Exit(1)


@source.command()
def minutes(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="First day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Argument(metavar="LAST", help="Last day, YYYY-MM-DD.")],
    output: Annotated[Path, typer.Option(help="A .parquet or .csv file; one that is there is replaced.")],
) -> None:
    """Write the universe's minute bars of some days to a file: what the tape did around an auction, a halt or a fill. Nothing of the chain
    reads it.
    """
    import polars as pl

    from orchestration.workbench import Workbench

    begin, end = parse_session(first, "FIRST"), parse_session(last, "LAST")
    if begin > end or (end - begin).days >= _MOST_DAYS:
        found, do = f"{begin} to {end}", "ask for less at a time"
        raise InputError(expected(f"1 to {_MOST_DAYS} days, the first one first", found=found, where="FIRST, LAST", do=do))
    if output.suffix not in {".parquet", ".csv"}:
        raise InputError(expected("a name ending in .parquet or .csv", found=output.name, where="--output", do="choose one of them"))
    days = [begin + timedelta(days=n) for n in range((end - begin).days + 1)]
    with Workbench.opened() as bench:
        asked, parts = _announcer(bench.chain.source), list[pl.DataFrame]()
        wanted: list[date] = [day for day in days if bench.chain.calendar.is_session(day)]
        with bars() as progress:
            task = progress.add_task("minute bars", total=len(wanted))
            for day in wanted:
                parts.append(asked.minute_bars(day, day))
                progress.advance(task)
    if not parts:
        raise InputError(expected("a session", found=f"none from {begin} to {end}", where="FIRST, LAST", do="ask for trading days"))
    rows = pl.concat(parts)
    partial = output.with_name(f".{output.name}.part")
    rows.write_parquet(partial) if output.suffix == ".parquet" else rows.write_csv(partial)
    partial.replace(output)
    out.print(f"{rows.height:,} minute bars of {rows['symbol'].n_unique()} symbols: {output}", highlight=False, soft_wrap=True)


def _announcer(source: object) -> Announcer:
    if not isinstance(source, Announcer):
        do = "this needs a source such as alpaca (docs/own-data.md)"
        raise InputError(expected("a source that can be asked", found="one of rows alone", where="[source] of the profile", do=do))
    return source
