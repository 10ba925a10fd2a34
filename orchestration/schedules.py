"""When the daily job runs, and how missed sessions are caught up: in order, each once."""

from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from assets.chain import Chain
from orchestration.instance import fail_lost

CATCH_UP_SESSIONS = 10
RUNS_AT = time(20, 15)
"""When the daily run begins at the earliest, New York: once the session's UTC day is over, summer and winter."""
_LAST_CLOSE = time(16)
_UNDER_WAY_OR_FAILED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.FAILURE,
]


def due_sessions(sessions: dg.PartitionsDefinition, done: set[str], now: datetime) -> list[str]:
    """The oldest missing sessions first, at most ten; a session counts once its UTC day is over."""
    closed = list(sessions.get_partition_keys(current_time=now))
    return [key for key in closed if key not in done][:CATCH_UP_SESSIONS]


def cron(publish_delay_minutes: int) -> str:
    """The cron line, New York: RUNS_AT on weekdays, or when a source is expected to have published a session that closed at 16:00 if
    that is later; beyond midnight, the mornings after.
    """
    earliest, close = (at.hour * 60 + at.minute for at in (RUNS_AT, _LAST_CLOSE))
    days, minute = divmod(max(earliest, close + publish_delay_minutes), 24 * 60)
    return f"{minute % 60} {minute // 60} * * {1 + days}-{5 + days}"


def after_close(daily: object, sessions: dg.PartitionsDefinition, chain: Chain, finite_end: date | None) -> dg.ScheduleDefinition:
    """The daily schedule: 20:15 New York on weekdays, or when the source has published; holidays and finite sources are skipped with the
    reason.
    """

    @dg.schedule(
        job=daily,  # type: ignore[arg-type]
        name="after_close",
        cron_schedule=cron(chain.source.facts.publish_delay_minutes),
        execution_timezone="America/New_York",
        description="Runs the daily job for every session that is over and not done yet, in order.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        fail_lost(context.instance)  # a run that was killed would keep the lane shut
        now = context.scheduled_execution_time.astimezone(UTC)
        done = context.instance.get_materialized_partitions(dg.AssetKey("performance_report"))
        due = due_sessions(sessions, set(done), now)
        if not due:
            return dg.SkipReason(_why_nothing(chain, finite_end, now))
        first = due[0]
        filters = dg.RunsFilter(job_name="daily", tags={"dagster/partition": first}, statuses=_UNDER_WAY_OR_FAILED)
        blocking = context.instance.get_runs(filters, limit=1)
        if blocking:
            return dg.SkipReason(
                f"session {first} has a run that is {blocking[0].status.value}: later sessions build on it; "
                f"finish it with `afterclose paper-run --session {first}`"
            )
        # One lane, limit one: the queue runs them one after the other in this order.
        return [dg.RunRequest(run_key=key, partition_key=key) for key in due]

    return schedule


def _why_nothing(chain: Chain, finite_end: date | None, now: datetime) -> str:
    if finite_end is not None and now.date() > finite_end:
        return f"the source {chain.source.facts.name} ends with session {finite_end}, and every session up to it is done"
    yesterday = now.date() - timedelta(days=1)
    if not chain.calendar.is_session(yesterday):
        return f"{yesterday} is no session of {chain.calendar.name}"
    return "every session up to now is done"
