"""Runs in this process against the data root's Dagster instance: the history job, one session, a range of sessions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster._core.utils import make_new_run_id

from orchestration.instance import process_tags
from orchestration.workbench import own_command
from quant.errors import AftercloseError

Watcher = Callable[[str, bool, str], None]  # (step, done, what the step says of its progress)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCheck:
    """A check that did not pass in a run; ``blocking`` ones stopped it."""

    asset: str
    check: str
    severity: str


class RunFailedError(AftercloseError):
    """A run ended without success; Dagster's event log has the details."""


def run_job(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    *,
    partition: str | None,
    watch: Watcher,
    assets: Sequence[str] | None = None,
) -> list[FailedCheck]:
    """Run one job (of ``assets`` only, if given) to its end in this process and return the checks that did not pass. Errors raised on
    purpose come out as they are.
    """
    definition = defs.resolve_job_def(job)
    run_id = make_new_run_id()
    with _watched(instance, run_id, watch):
        result = definition.execute_in_process(
            instance=instance,
            partition_key=partition,
            run_id=run_id,
            raise_on_error=False,
            run_config=_QUIET,
            tags=process_tags(),
            asset_selection=None if assets is None else [dg.AssetKey(name) for name in assets],
        )
    failed = [
        FailedCheck(asset=e.asset_key.to_user_string(), check=e.check_name, severity=e.severity.value)
        for e in result.get_asset_check_evaluations()
        if not e.passed
    ]
    if not result.success:
        raise _cause(result, job, partition, failed)
    return failed


def run_sessions(
    defs: dg.Definitions, instance: dg.DagsterInstance, sessions: Sequence[date], watch: Callable[[date, str], None]
) -> Iterator[tuple[date, list[FailedCheck]]]:
    """The daily job for each session in order; the first failure ends the loop."""
    for session in sessions:

        def watch_session(step: str, _done: bool, note: str, session: date = session) -> None:
            watch(session, step or note)

        yield session, run_job(defs, instance, "daily", partition=session.isoformat(), watch=watch_session)


def job_steps(defs: dg.Definitions, job: str) -> int:
    """Number of steps of a job: the length of its progress bar."""
    return len(defs.resolve_job_def(job).graph.node_dict)


@contextmanager
def _watched(instance: dg.DagsterInstance, run_id: str, watch: Watcher) -> Iterator[None]:
    def on_event(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is not None and event.step_key and (event.is_step_start or event.is_step_success):
            watch(event.step_key, event.is_step_success, "")
        elif event is None:
            watch(entry.step_key or "", False, entry.user_message)  # noqa: FBT003

    instance.add_event_listener(run_id, on_event)
    yield


def _cause(result: dg.ExecuteInProcessResult, job: str, partition: str | None, failed: list[FailedCheck]) -> AftercloseError:
    """The error to show: the product's own if a step raised one, else what Dagster recorded, else the blocking checks."""
    where = job if partition is None else f"{job} of session {partition}"
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            chain = []
            while error is not None:
                chain.append(error)
                error = error.cause
            for link in reversed(chain):
                kind = _OWN_ERRORS.get(link.cls_name or "")
                if kind is not None:
                    return kind(link.message.split(": ", 1)[-1].strip())
            if chain and chain[-1].cls_name != "DagsterAssetCheckFailedError":
                return RunFailedError(f"{where}: step {event.step_key} failed: {chain[-1].message.strip()}")
    blocking = ", ".join(f"{c.check} of {c.asset}" for c in failed if c.severity == "ERROR")
    remedy = ""
    if any(c.check == "feed_is_sound" for c in failed) and partition is not None:
        look, skip = own_command(f'quarantine show {partition} "*"'), own_command(f"session skip {partition} --reason TEXT")
        remedy = f"; `{look}` says why. Run it again once the source has corrected it, release it, or pass over it: `{skip}`"
    return RunFailedError(f"{where} was stopped by: {blocking or 'an unknown fault; see the run in the UI'}{remedy}")


def _own_errors(kind: type[AftercloseError]) -> dict[str, type[AftercloseError]]:
    return {kind.__name__: kind} | {name: k for sub in kind.__subclasses__() for name, k in _own_errors(sub).items()}


_OWN_ERRORS = _own_errors(AftercloseError)
