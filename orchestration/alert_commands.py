"""`afterclose alerts`: what stands, whether the channels work, and sending by hand."""

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from orchestration.terminal import err, out
from quant.errors import DeliveryError

if TYPE_CHECKING:
    from orchestration.alerting import Alerting

alerts = typer.Typer(help="What is wrong and who was told; try the channels; send what waits. More: docs/alerts.md.", no_args_is_help=True)


def _bound() -> "Alerting":
    from orchestration.definitions import alerting_of, defs

    return alerting_of(defs)


@alerts.command(name="list")
def list_alerts(notices: int = typer.Option(10, "--notices", min=0, help="So many of the newest notices, too.")) -> None:
    """Alerts that stand, and the newest notices with what became of them on each channel."""
    from quant.alerts.alert import described, headline

    alerting = _bound()
    if not (alerting.root / "ledger.sqlite").exists():
        out.print(f"No data in {alerting.root} yet: run `afterclose demo`.", soft_wrap=True, highlight=False)
        return
    outbox, ui = alerting.outbox(), alerting.ui()
    standing, recent = outbox.standing(), outbox.recent(notices)
    out.print(f"[bold]{len(standing)} open[/]", highlight=False)
    for since, change in standing:
        lines = described(change, ui)
        out.print("\n".join([f"{lines[0]}, since {since:%Y-%m-%d %H:%M} UTC", *lines[1:]]), soft_wrap=True, highlight=False, markup=False)
    for notice, deliveries in recent:
        newest = {delivery.channel: delivery for delivery in deliveries}
        told = "; ".join(f"{d.channel} {d.outcome}{f': {d.detail}' if d.detail else ''}" for d in newest.values()) or "not sent yet"
        out.print(f"\n{notice.at:%Y-%m-%d %H:%M} UTC, notice {notice.id}: {told}", soft_wrap=True, highlight=False, markup=False)
        for change in notice.changes:
            out.print(f"  {headline(change)}", soft_wrap=True, highlight=False, markup=False)


@alerts.command()
def test() -> None:
    """Send a test notice to every channel, one after the other, and say what happened. Exit 1 if one did not take it."""
    from orchestration.alerting import deliver
    from quant.alerts.alert import trial
    from quant.ports import DeliveryOutcome

    alerting = _bound()
    notice = trial(alerting.clock.now(), source=alerting.freshness.source)
    failed: list[str] = []
    for name, notifier in {**alerting.channels, **alerting.fallback}.items():
        outcome, detail = deliver(notifier, notice, alerting.ui(), alerting.patience_seconds)
        well = outcome is DeliveryOutcome.SENT
        out.print(f"{name}: {'sent' if well else 'failed'}{f': {escape(detail)}' if detail else ''}", soft_wrap=True, highlight=False)
        failed += [] if well else [name]
    if failed:
        raise DeliveryError(f"{', '.join(failed)} did not take the test notice")


@alerts.command()
def drain() -> None:
    """Look for what went wrong since the last look and send what waits, channels that failed lately included. Exit 1 if something is left.

    From a crontab it is the dead man's alert when the daemon itself is dead.
    """
    from orchestration.alerting import WAIT_SECONDS
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        alerting = bench.alerting
        why_none = alerting.look(bench.instance)
        attempts = alerting.drain(force=True, wait_seconds=WAIT_SECONDS)
        outbox = alerting.outbox()
        left = {name: len(outbox.pending(name)) for name in alerting.channels}
    if why_none:
        err.print(f"No table or session is late: {why_none}.", soft_wrap=True, highlight=False)
    for attempt in attempts:
        trouble = f": {escape(attempt.detail)}" if attempt.detail else ""
        out.print(f"{attempt.notice.id} to {attempt.channel}: {attempt.outcome}{trouble}", soft_wrap=True, highlight=False)
    if any(left.values()):
        raise DeliveryError(f"still to be sent: {', '.join(f'{count} to {name}' for name, count in left.items() if count)}")
    if not attempts:
        out.print("Nothing to send.")
