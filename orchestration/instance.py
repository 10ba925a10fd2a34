"""Brings a data root's Dagster instance into order: its tables, and the runs whose process died."""

import os

import dagster as dg
import psutil
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG

_PROCESS_TAG = "afterclose/process"  # id and start time of the process that a run of the command line lives in


def process_tags() -> dict[str, str]:
    """Tags for a run in this process, by which it is found to be lost should the process die."""
    return {_PROCESS_TAG: _process(os.getpid())}


def settle(instance: dg.DagsterInstance) -> list[str]:
    """Before a server starts: create or migrate the instance's tables, and fail the runs that nobody works on any more; their ids."""
    instance.upgrade()
    return [*_fail(instance, _under_way(instance, GRPC_INFO_TAG), "The server that ran it ended before the run did."), *fail_lost(instance)]


def fail_lost(instance: dg.DagsterInstance) -> list[str]:
    """Fail the command line's runs whose process is gone; their ids.

    Without it such a run stays "started" and keeps its lane shut until run_monitoring's max_runtime_seconds have passed.
    """
    lost = [run for run in _under_way(instance, _PROCESS_TAG) if not _lives(run.tags[_PROCESS_TAG])]
    return _fail(instance, lost, "The process that ran it ended before the run did.")


def _under_way(instance: dg.DagsterInstance, tag: str) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs(dg.RunsFilter(statuses=[*IN_PROGRESS_RUN_STATUSES])) if tag in run.tags]


def _fail(instance: dg.DagsterInstance, runs: list[dg.DagsterRun], why: str) -> list[str]:
    for run in runs:
        instance.report_run_failed(run, why)
        # A step that was killed in a pool still holds its place there: the next run would wait for it for good.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in runs]


def _process(pid: int) -> str:
    return f"{pid}@{psutil.Process(pid).create_time():.2f}"  # an id alone is used again


def _lives(process: str) -> bool:
    try:
        return _process(int(process.partition("@")[0])) == process
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    with dg.DagsterInstance.get() as this:
        settle(this)
