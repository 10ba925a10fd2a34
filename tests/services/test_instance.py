from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration import launcher
from orchestration.instance import fail_lost, process_tags, settle


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", launcher.prepare_environment(tmp_path)["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as made:
        yield made


def started_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    @dg.job
    def daily() -> None: ...

    run = instance.create_run_for_job(daily, tags=tags)
    event = dg.DagsterEvent(event_type_value=dg.DagsterEventType.PIPELINE_START.value, job_name="daily", message="started")
    instance.report_dagster_event(event, run_id=run.run_id)
    return run.run_id


def test_a_run_that_died_with_its_server_fails_and_one_of_a_living_command_goes_on(instance: dg.DagsterInstance) -> None:
    lost = started_run(instance, {".dagster/grpc_info": '{"host": "localhost", "socket": "gone"}'})
    alive = started_run(instance, process_tags())
    assert settle(instance) == [lost]
    states = {run.run_id: run.status for run in instance.get_runs()}
    assert states == {lost: dg.DagsterRunStatus.FAILURE, alive: dg.DagsterRunStatus.STARTED}
    assert settle(instance) == []


def test_a_run_of_the_command_line_fails_once_its_process_is_gone_and_those_of_others_go_on(instance: dg.DagsterInstance) -> None:
    code = "from orchestration.instance import process_tags as tags; print(*tags().values())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    tag = next(iter(process_tags()))
    lost, reused = started_run(instance, {tag: process}), started_run(instance, {tag: process_tags()[tag] + "1"})
    alive, served = started_run(instance, process_tags()), started_run(instance, {".dagster/grpc_info": "{}"})
    assert set(fail_lost(instance)) == {lost, reused}
    under_way = {run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))}
    assert under_way == {alive, served}


def test_a_run_that_died_in_a_pool_gives_its_place_back(instance: dg.DagsterInstance) -> None:
    slots = instance.event_log_storage
    lost = started_run(instance, {next(iter(process_tags())): "1@0.00"})
    slots.set_concurrency_slots("broker", 1)
    assert slots.claim_concurrency_slot("broker", lost, "orders").is_claimed
    assert not slots.claim_concurrency_slot("broker", "another", "orders").is_claimed
    assert fail_lost(instance) == [lost]
    assert slots.claim_concurrency_slot("broker", "another", "orders").is_claimed


def test_the_shipped_instance_settings_are_understood_by_dagster(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert instance.run_retries_max_retries == 1
    assert instance.run_monitoring_enabled
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled
    assert Path(instance.storage_directory()).is_relative_to(tmp_path / "dagster")
