"""`afterclose halt`, `resume` and `session skip`: whether the book may trade, and sessions that cannot be gated; each with a reason."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.book_commands import require_data
from orchestration.terminal import bars, err, out, parse_session
from quant.errors import InputError, expected
from quant.risk.state import StateChange, TradingState, state_after

if TYPE_CHECKING:
    from orchestration.workbench import Workbench

session_commands = typer.Typer(help="One session of the paper book.", no_args_is_help=True)
SKIPPED_ASSETS = ("fills", "positions", "daily_pnl", "orders", "performance_report")

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")]


def halt(
    reason: ReasonOption,
    reducing: Annotated[bool, typer.Option("--reducing", help="Orders that only shrink a holding still go out.")] = False,
) -> None:
    """Stop the paper book: from the next decision on nothing is sent, until `afterclose resume`. Survives restarts."""
    _change(TradingState.REDUCING if reducing else TradingState.HALTED, reason)


def resume(reason: ReasonOption) -> None:
    """Let the paper book trade again; drawdown is measured from what it is worth now."""
    _change(TradingState.ACTIVE, reason)


def _change(state: TradingState, reason: str) -> None:
    from orchestration.workbench import Workbench

    _require(reason)
    require_data()
    with Workbench.opened() as bench:
        ledger, book, now = bench.open_ledger(), bench.chain.paper_book, bench.chain.clock.now()
        before = state_after(ledger.state_changes(book))
        if before is state:
            out.print(f"book {book} is {state} already", highlight=False)
            return
        if before is TradingState.HALTED and state is TradingState.REDUCING:
            do = "resume it first, with a reason; nothing else lets a halted book trade"
            raise InputError(expected("an active book", found=f"{book} halted", where="--reducing", do=do))
        begun = ledger.begun(book)
        session = begun.session if begun else bench.history_last
        ledger.change_state(
            StateChange(book=book, session=session, key=f"command|{now.isoformat()}", state=state, reason=reason, by="command")
        )
        out.print(f"book {book}: {before} -> {state}", highlight=False)
        _tell(bench)


@session_commands.command()
def skip(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Session that the gate stopped, YYYY-MM-DD.")], reason: ReasonOption
) -> None:
    """Pass over a session that cannot be gated: known actions booked, holdings stale, nothing sent; the next one can run."""
    from assets.trading import skip as skip_session
    from orchestration.runs import run_job
    from orchestration.workbench import Workbench

    _require(reason)
    with Workbench.opened() as bench:
        day = bench.require_session(parse_session(session, "SESSION"), "SESSION")
        bench.require_ready(day)
        skip_session(bench.chain, bench.lake, bench.open_ledger(), day, reason)
        with bars() as progress:
            task = progress.add_task(f"session {day}", total=len(SKIPPED_ASSETS))

            def watch(step: str, done: bool, note: str) -> None:
                progress.update(task, description=f"session {day}: {step or note}", advance=1 if done else 0)

            run_job(bench.defs, bench.instance, "daily", partition=day.isoformat(), watch=watch, assets=SKIPPED_ASSETS)
        out.print(f"{day}: skipped; {bench.told(day)}", highlight=False, soft_wrap=True)
        _tell(bench)


def _require(reason: str) -> None:
    if not reason.strip():
        raise InputError(expected("a reason", found="none", where="--reason", do="say why: it goes into the audit log"))


def _tell(bench: "Workbench") -> None:
    from orchestration.alerting import tell

    tell(bench.alerting, bench.instance, lambda what: err.print(what, soft_wrap=True, highlight=False, markup=False))
