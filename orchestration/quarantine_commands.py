"""`afterclose quarantine`: what the gate keeps out, looked at, let through or confirmed, with a reason that stays on record."""

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.terminal import out, parse_session, print_rows
from quant.quality.rule import WHOLE_SESSION

if TYPE_CHECKING:
    from orchestration.workbench import Workbench

quarantine = typer.Typer(
    help="Rows that the gate keeps out: list and show them, release or confirm them with a reason, take a release back.",
    no_args_is_help=True,
)

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Session of the row, YYYY-MM-DD.")]
SymbolArgument = Annotated[str, typer.Argument(metavar="SYMBOL", help='Symbol of the row; "*": a session that a feed fault stopped.')]
ReasonOption = Annotated[str, typer.Option("--reason", help="What was checked; goes into the audit log.")]
_SHOWN = ("session", "symbol", "open", "high", "low", "close", "volume", "known_at", "origin_digest")
_STATES = {"release": "released", "confirm": "confirmed", "withdraw": "open"}


@quarantine.command(name="list")
def list_rows(
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Only sessions from this one on.")] = None,
    still_open: Annotated[bool, typer.Option("--open", help="Only rows that nobody released or confirmed.")] = False,
) -> None:
    """Every quarantined row, the rules that keep it out, and what was decided about it."""
    from orchestration.workbench import Workbench

    first = None if since is None else parse_session(since, "--since")
    with Workbench.opened() as bench:
        rows = [row for row in _listed(bench, first) if row[5] == "open" or not still_open]
    if rows:
        print_rows(rows, ["session", "symbol", "row", "close", "rules", "state", "reason"])
    else:
        out.print("Nothing is quarantined.")


@quarantine.command()
def show(session: SessionArgument, symbol: SymbolArgument) -> None:
    """A quarantined symbol-session: its rows as received, numbered, and what each rule expected and observed."""
    from assets.quarantine import quarantined
    from orchestration.workbench import Workbench

    day = parse_session(session, "SESSION")
    with Workbench.opened() as bench:
        found = quarantined(bench.chain, bench.lake, bench.open_ledger(), day, symbol)
        accepted = bench.lake.read("accepted_bars", last=day, where={"symbol": symbol})
    rows = [
        [str(number), *("" if value is None else str(value) for value in row)]
        for number, row in enumerate(found.rows.select(_SHOWN).iter_rows())
    ]
    print_rows(rows, ["row", *_SHOWN])
    out.print(f"kept out by {found.rules}", highlight=False)
    told = ("symbol", "rule", "severity", "expected", "observed", "evidence")
    for of, rule, severity, wanted, observed, evidence in found.findings.select(told).iter_rows():
        line = f"{of} {rule} ({severity}): expected {wanted}; observed {observed}; evidence: {evidence}"
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    for row in accepted.tail(1).iter_rows(named=True):
        out.print(f"last accepted: {row['session']}, close {row['close']}, volume {row['volume']:,.0f}", highlight=False)


@quarantine.command()
def release(
    session: SessionArgument,
    symbol: SymbolArgument,
    reason: ReasonOption,
    row: Annotated[int | None, typer.Option(help="Which of several rows of the key, as `show` numbers them.")] = None,
) -> None:
    """Let a row through: the next run of its session accepts it. Decisions that were made without it stay as they are."""
    _decide("release", session, symbol, reason, row)


@quarantine.command()
def confirm(session: SessionArgument, symbol: SymbolArgument, reason: ReasonOption) -> None:
    """Agree with the gate: the row stays out, and `list --open` does not show it again."""
    _decide("confirm", session, symbol, reason, None)


@quarantine.command()
def withdraw(session: SessionArgument, symbol: SymbolArgument, reason: ReasonOption) -> None:
    """Take a release back, until a session was decided with the row: the next run of its session keeps it out again."""
    from assets.quarantine import withdraw as take_back
    from orchestration.workbench import Workbench

    day = parse_session(session, "SESSION")
    with Workbench.opened() as bench:
        record = take_back(bench.chain, bench.open_ledger(), day, symbol, reason=reason)
        out.print(f"taken back: {symbol}, {day}; {record['rules']} keeps it out again", highlight=False, soft_wrap=True)
        out.print(f"It stays out from the next run of its session on: {_again(bench, day)}", highlight=False, soft_wrap=True)


def _again(bench: "Workbench", day: date) -> str:
    from orchestration.workbench import own_command

    return own_command("history" if day < bench.paper_start else f"backfill --from {day}")


def _decide(verdict: str, session: str, symbol: str, reason: str, row: int | None) -> None:
    from assets.quarantine import decide, quarantined
    from orchestration.workbench import Workbench

    day = parse_session(session, "SESSION")
    with Workbench.opened() as bench:
        ledger = bench.open_ledger()
        found = quarantined(bench.chain, bench.lake, ledger, day, symbol)
        decide(bench.chain, ledger, found, verdict=verdict, reason=reason, row=row)
        named = "the session" if symbol == WHOLE_SESSION else symbol
        out.print(f"{_STATES[verdict]}: {named}, {day}, kept out by {found.rules}", highlight=False, soft_wrap=True)
        if verdict == "release":
            out.print(f"It flows with the next run of its session: {_again(bench, day)}", highlight=False, soft_wrap=True)


def _listed(bench: "Workbench", first: date | None) -> list[list[str]]:
    """session, symbol, row, close, rules, state (open | confirmed | released: not run again yet), reason."""
    from assets.quarantine import last_verdicts

    said = last_verdicts(bench.chain, bench.lake, bench.open_ledger(), first)
    rows: list[list[str]] = []
    for kept in bench.lake.read("quarantined_bars", first=first).iter_rows(named=True):
        session, symbol = kept["session"], kept["symbol"]
        verdict = said.get((session, symbol)) or said.get((session, WHOLE_SESSION))
        state, reason = (_STATES[verdict["verdict"]], verdict["reason"]) if verdict else ("open", "")
        rows.append([str(session), symbol, str(kept["row"]), str(kept["close"]), kept["rules"], state, reason])
    return rows
