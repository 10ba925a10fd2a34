"""From what Dagster recorded to alerts in the outbox, and from the outbox to people: one look and one drain, which the daemon's sensors and
the command line both call.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg

from orchestration.freshness import Freshness, observed_freshness
from quant.alerts.alert import Alert, AlertSeverity, Notice, Observation, one_line
from quant.alerts.attempts import may_try
from quant.alerts.observations import FINDING_COLUMNS, CheckOutcome, of_channel, of_check, of_missed, of_run
from quant.errors import AftercloseError, DeliveryError, SequenceError, expected
from quant.ports import Clock, DeliveryOutcome, Notifier, Outbox

FIRST_LOOK = timedelta(days=1)
OVERLAP = timedelta(minutes=10)
DRAIN_SECONDS = 40.0
WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.2
_ROUNDS = 2  # the second one tells of channels that failed in the first


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to send a notice on a channel."""

    channel: str
    notice: Notice
    outcome: DeliveryOutcome
    detail: str


@dataclass(frozen=True, kw_only=True)
class Alerting:
    """What the alerts of one data root need. ``channels`` all get every notice; of ``fallback`` the first that works gets, too, what one of
    them did not take. ``descriptions``: what a check expects, by asset and check. ``daily_report``: what is told of a session whose
    daily run succeeded; None, or an answer of None: nothing.
    """

    root: Path
    clock: Clock
    outbox: Callable[[], Outbox]
    channels: Mapping[str, Notifier]
    fallback: Mapping[str, Notifier]
    ui: Callable[[], str]
    patience_seconds: float
    descriptions: Mapping[tuple[str, str], str]
    freshness: Freshness
    daily_report: Callable[[date], Alert | None] | None = None
    trading: Callable[[], Sequence[Observation]] = tuple

    def look(self, instance: dg.DagsterInstance) -> str:
        """Observe what happened since the last look: ended runs with their checks, stale tables, sessions that did not run. Says why
        tables and sessions were not looked at, if so.
        """
        self.look_at_runs(instance)
        return self.look_at_sessions(instance)

    def look_at_runs(self, instance: dg.DagsterInstance) -> None:
        """Observe whether the book may trade, and every run that succeeded or failed and was not observed yet, in the order in which they
        ended.
        """
        outbox = self.outbox()
        outbox.observe(self.trading())
        since = (outbox.last_run() or self.clock.now() - FIRST_LOOK) - OVERLAP
        over = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], updated_after=since)
        ended = {record.dagster_run.run_id: record for record in instance.get_run_records(over)}
        for run_id in sorted(outbox.unseen(ended), key=lambda run_id: ended[run_id].end_time or 0.0):
            self._observe_run(instance, outbox, ended[run_id])

    def look_at_sessions(self, instance: dg.DagsterInstance) -> str:
        """Observe the tables' freshness (as evaluations of the checks, so that the UI shows it) and the sessions that did not run."""
        outbox, now = self.outbox(), self.clock.now()
        fresh = observed_freshness(instance, self.freshness, now)
        standing = {change.alert.key for _, change in outbox.standing()}
        observed = [
            *(of_check(self.outcome(evaluation)) for evaluation in fresh.evaluations),
            of_missed(fresh.missed, path=f"/assets/{self.freshness.last_table}?view=partitions"),
        ]
        if fresh.why_none:  # a source that has ended: nothing new is expected of it, but what stands may clear
            observed = [type(o)(scope=o.scope, alerts=tuple(alert for alert in o.alerts if alert.key in standing)) for o in observed]
        outbox.observe(observed)
        return fresh.why_none

    def _observe_run(self, instance: dg.DagsterInstance, outbox: Outbox, record: dg.RunRecord) -> None:
        run, partition = record.dagster_run, record.dagster_run.tags.get("dagster/partition")
        failure = _failure(instance, run.run_id) if run.status is dg.DagsterRunStatus.FAILURE else None
        try:
            observed = [of_check(self.outcome(evaluation, partition=partition)) for evaluation in _evaluations(instance, run.run_id)]
        except Exception as error:  # noqa: BLE001  one run that cannot be read must not hide those after it
            observed, failure = [], failure or one_line(f"its checks cannot be read: {type(error).__name__} {error}")
        observed.append(of_run(job=_job(run), partition=partition, run=run.run_id, failure=failure))
        if failure is None and run.job_name == "daily" and partition is not None and self.daily_report is not None:
            report = self.daily_report(date.fromisoformat(partition))
            if report is not None:
                outbox.report(report)  # before the run counts as seen: a kill between tells it next time, and its key only once
        outbox.observe(observed, run=(run.run_id, datetime.fromtimestamp(record.end_time or 0.0, UTC)))

    def outcome(self, evaluation: dg.AssetCheckEvaluation, *, partition: str | None = None) -> CheckOutcome:
        """An evaluation as the domain sees it. Checks without a partition of their own judge everything, or say their session."""
        asset, metadata = evaluation.asset_key.to_user_string(), evaluation.metadata
        tables = [value for value in metadata.values() if isinstance(value, dg.TableMetadataValue)]
        rows = [{k: str(v) for k, v in record.data.items()} for table in tables for record in table.records]
        scalars = (dg.TextMetadataValue, dg.IntMetadataValue, dg.FloatMetadataValue, dg.BoolMetadataValue)
        warns = evaluation.severity is dg.AssetCheckSeverity.WARN
        return CheckOutcome(
            asset=asset,
            check=evaluation.check_name,
            partition=evaluation.partition or (partition if asset in self.freshness.tables else None),
            passed=evaluation.passed,
            severity=AlertSeverity.WARNING if warns else AlertSeverity.ERROR,
            description=self.descriptions.get((asset, evaluation.check_name), ""),
            said={name: str(value.value) for name, value in metadata.items() if isinstance(value, scalars)},
            findings=[row for row in rows if row.keys() >= FINDING_COLUMNS],
        )

    def drain(self, *, force: bool = False, wait_seconds: float = 0.0, seconds: float = DRAIN_SECONDS) -> list[Attempt]:
        """Send what is to be sent, in bounded time; every attempt. ``force``: channels that failed lately, too.

        SequenceError if another process is at it for longer than ``wait_seconds``.
        """
        attempts: list[Attempt] = []
        with _alone(self.root / "alerts.lock", wait_seconds):
            outbox, deadline = self.outbox(), time.monotonic() + seconds
            for number in range(_ROUNDS):
                tried = self._round(outbox, deadline, force=force and number == 0)
                attempts += tried
                if outbox.observe([of_channel(name, failure) for name, failure in _verdicts(tried).items()]) is None:
                    break
        return attempts

    def _round(self, outbox: Outbox, deadline: float, *, force: bool) -> list[Attempt]:
        """Every channel at once, then what one did not take to the first fallback that does."""
        now = self.clock.now()

        def ready(name: str) -> bool:
            health = outbox.health(name)
            return force or may_try(health.failures, health.last_failure, now)

        queues = {name: outbox.pending(name) for name in self.channels}
        tried = self._send({name: queue for name, queue in queues.items() if ready(name)}, self.channels, outbox, deadline)
        failed = {name for name in queues if outbox.health(name).failures}
        left = {notice.id: notice for name in failed for notice in outbox.pending(name)}
        left |= {attempt.notice.id: attempt.notice for attempt in tried if attempt.outcome is DeliveryOutcome.REFUSED}
        for name in self.fallback:
            missing = [notice for notice in left.values() if notice.id not in outbox.took(name, left)]
            if missing and not ready(name):
                continue
            taken = self._send({name: missing}, self.fallback, outbox, deadline)
            tried += taken
            if not outbox.health(name).failures:
                break
        return tried

    def _send(
        self, queues: Mapping[str, Sequence[Notice]], notifiers: Mapping[str, Notifier], outbox: Outbox, deadline: float
    ) -> list[Attempt]:
        """One thread a channel; each ends with its queue, at its first failure, or once it sees ``deadline`` passed."""
        tried: list[Attempt] = []
        ui = self.ui()

        def work(name: str, queue: Sequence[Notice]) -> None:
            for notice in queue:
                if time.monotonic() >= deadline:
                    return
                outcome, detail = deliver(notifiers[name], notice, ui, self.patience_seconds)
                outbox.record_delivery(notice.id, name, outcome, detail)
                tried.append(Attempt(channel=name, notice=notice, outcome=outcome, detail=detail))
                if outcome is DeliveryOutcome.FAILED:
                    return

        threads = [threading.Thread(target=work, args=item, name=f"alerts-{item[0]}") for item in queues.items() if item[1]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()  # bounded: deliver() is, and the deadline
        return tried


def deliver(notifier: Notifier, notice: Notice, ui: str, patience_seconds: float) -> tuple[DeliveryOutcome, str]:
    """One attempt in a thread that is left behind if it takes longer: a server that sends a byte now and then outlasts every time-out."""
    answer: list[tuple[DeliveryOutcome, str]] = []

    def work() -> None:
        try:
            refused = notifier.notify(notice, ui)
        except DeliveryError as error:
            answer.append((DeliveryOutcome.REFUSED if error.refused else DeliveryOutcome.FAILED, str(error)))
        except Exception as error:  # noqa: BLE001  whatever a channel raises, the others go on and tell of it
            answer.append((DeliveryOutcome.FAILED, one_line(f"{type(error).__name__} {error}")))
        else:
            answer.append((DeliveryOutcome.SENT, f"refused recipients {', '.join(refused)}" if refused else ""))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience_seconds)
    if answer:
        return answer[0]
    do = "look at the server"
    return DeliveryOutcome.FAILED, expected(f"an end within {patience_seconds:g} s", found="none", where="the channel", do=do)


def _verdicts(attempts: Sequence[Attempt]) -> dict[str, str | None]:
    """What is wrong with each channel that was tried; None: nothing."""
    verdicts: dict[str, str | None] = {}
    for attempt in attempts:
        verdicts[attempt.channel] = attempt.detail or verdicts.get(attempt.channel)
    return verdicts


@contextmanager
def _alone(path: Path, wait_seconds: float) -> Iterator[None]:
    """One process at a time sends; a killed one lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    message = expected("one process at a time to send alerts", found="another one at it", where=str(path), do="try again")
                    raise SequenceError(message) from None
                time.sleep(_POLL_SECONDS)
            else:
                break
        yield


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetCheckEvaluation]:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            yield event.asset_check_evaluation_data


def _job(run: dg.DagsterRun) -> str:
    """The job's name; of assets that were chosen by hand, their names, too: another choice is another job."""
    chosen = sorted(key.to_user_string() for key in run.asset_selection or ())
    return f"{run.job_name} {', '.join(chosen)}" if chosen else run.job_name


def _failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed: its first failed step's innermost error, else what the run's own event says."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if event is not None and error is not None:
            return one_line(f"step {event.step_key}: {error.message}")
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records:
        return one_line(record.event_log_entry.message or "no reason recorded")
    return "no reason recorded"


def tell(alerting: Alerting, instance: dg.DagsterInstance, say: Callable[[str], None]) -> None:
    """For a command: look at what its runs left, send it, and ``say`` what went wrong with that; the command itself goes on."""
    try:
        alerting.look_at_runs(instance)
        attempts = alerting.drain(wait_seconds=WAIT_SECONDS)
    except AftercloseError as error:
        say(f"alerts could not be sent: {error}")
        return
    sent = {name: sum(a.outcome is DeliveryOutcome.SENT for a in attempts if a.channel == name) for name in {a.channel for a in attempts}}
    if attempts:
        say(f"alerts: {', '.join(f'{count} to {name}' for name, count in sorted(sent.items()))}; `afterclose alerts list` shows them")
    for name, trouble in _verdicts(attempts).items():
        if trouble:
            say(f"alerts: channel {name}: {trouble}")
