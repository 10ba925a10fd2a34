"""Whether every daily table has the session that it should have by now, as asset checks, and which sessions did not run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from quant.alerts.due import due_sessions, missed
from quant.alerts.observations import FRESHNESS_CHECK
from quant.calendar import ExchangeCalendar
from quant.ports import Clock


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """What is expected of the daily tables. ``tables`` have a partition a session; ``last_table`` is the chain's end. ``finite_end`` is the
    last session of a source that ends.
    """

    tables: tuple[str, ...]
    last_table: str
    source: str
    calendar: ExchangeCalendar
    first: date
    finite_end: date | None
    delay_minutes: int
    run_at: time | None
    freshness_minutes: int
    dead_man_minutes: int

    def due(self, now: datetime, grace_minutes: int) -> tuple[dict[date, datetime], str]:
        """The sessions due at ``now`` with the instant of each, up to the end of the source; and why no new one is expected, if so."""
        due = due_sessions(
            now,
            first=self.first,
            last=None,
            calendar=self.calendar,
            delay_minutes=self.delay_minutes,
            run_at=self.run_at,
            grace_minutes=grace_minutes,
        )
        if not due:
            return due, f"no session from {self.first} on is due yet"
        if self.finite_end is not None and max(due) > self.finite_end:
            return {s: at for s, at in due.items() if s <= self.finite_end}, f"the source {self.source} ends with {self.finite_end}"
        return due, ""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Freshness at an instant. ``why_none``: why nothing new is expected; empty if it is."""

    evaluations: list[dg.AssetCheckEvaluation] = field(default_factory=list)
    missed: dict[date, datetime] = field(default_factory=dict)
    why_none: str = ""


def observed_freshness(instance: dg.DagsterInstance, freshness: Freshness, now: datetime) -> Observed:
    """Judge every table and session at ``now``. An evaluation that says something new is written into Dagster's event log."""
    evaluations = list(_evaluations(instance, freshness, now))
    due, why_none = freshness.due(now, freshness.dead_man_minutes)
    done = {date.fromisoformat(key) for key in instance.get_materialized_partitions(dg.AssetKey(freshness.last_table))} if due else set()
    if not why_none:
        _report_news(instance, evaluations)
    return Observed(evaluations=evaluations, missed=missed(due, done), why_none=why_none)


def freshness_checks(freshness: Freshness, clock: Clock) -> dg.AssetChecksDefinition:
    """A check a table; the daemon's sensor evaluates them, and so does the button in the UI."""
    description = (
        f"Warns if the newest session that is due is not there {freshness.freshness_minutes} minutes after its expected publish time "
        "(the exchange's close + the source's delay), or after the start of the daily run if that is later."
    )

    @dg.multi_asset_check(
        name="freshness",
        specs=[dg.AssetCheckSpec(FRESHNESS_CHECK, asset=table, description=description) for table in freshness.tables],
        can_subset=True,  # who materialises one asset by hand evaluates its check alone
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        now = clock.now()
        judged = {evaluation.asset_check_key: evaluation for evaluation in _evaluations(context.instance, freshness, now)}
        _, why_none = freshness.due(now, freshness.freshness_minutes)
        for key in sorted(context.selected_asset_check_keys):
            made = judged.get(key)
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=made is None or made.passed,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"skipped": why_none} if made is None else made.metadata,
            )

    return check


def _evaluations(instance: dg.DagsterInstance, freshness: Freshness, now: datetime) -> Iterator[dg.AssetCheckEvaluation]:
    due, why_none = freshness.due(now, freshness.freshness_minutes)
    if not due:
        return
    session = max(due)
    for table in freshness.tables:
        held = instance.get_materialized_partitions(dg.AssetKey(table))
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(table),
            check_name=FRESHNESS_CHECK,
            passed=session.isoformat() in held,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "session": session.isoformat(),
                "expected": f"session {session} by {due[session]:%Y-%m-%d %H:%M} UTC",
                "observed": f"newest session {max(held, default='none')}",
                **({"skipped": why_none} if why_none else {}),
            },
        )


def _report_news(instance: dg.DagsterInstance, evaluations: list[dg.AssetCheckEvaluation]) -> None:
    """A row of the event log a table and change: an evaluation every 30 s would be 3,000 a day."""
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([e.asset_check_key for e in evaluations])
    for evaluation in evaluations:
        record = latest.get(evaluation.asset_check_key)
        passed = record is not None and record.status is AssetCheckExecutionRecordStatus.SUCCEEDED
        event = record.event.dagster_event if record is not None and record.event is not None else None
        session = event.asset_check_evaluation_data.metadata.get("session") if event is not None else None
        if event is None or passed != evaluation.passed or session != evaluation.metadata["session"]:
            instance.report_runless_asset_event(evaluation)
