"""Brings a data root's Dagster instance into order before a server starts on it."""

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG


def settle(instance: dg.DagsterInstance) -> list[str]:
    """Create or migrate the instance's tables, and fail the runs that a server was working on when it died; their ids.

    Without it such a run stays "started" and keeps its lane shut until run_monitoring's max_runtime_seconds have passed. Runs of the
    command line are not touched: only a code server leaves this tag.
    """
    instance.upgrade()
    lost = [run for run in instance.get_runs(dg.RunsFilter(statuses=[*IN_PROGRESS_RUN_STATUSES])) if GRPC_INFO_TAG in run.tags]
    for run in lost:
        instance.report_run_failed(run, "The server that ran it ended before the run did.")
    return [run.run_id for run in lost]


if __name__ == "__main__":
    with dg.DagsterInstance.get() as this:
        settle(this)
