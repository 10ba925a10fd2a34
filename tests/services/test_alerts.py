"""The daemon tells of what went wrong within a minute, also in runs that are not its own."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg
import pytest

from orchestration import launcher
from orchestration.runs import run_job
from tests.alerts.servers import free_port, web_server

SOON_SECONDS = 60.0


@dg.asset(check_specs=[dg.AssetCheckSpec("nothing_is_quarantined", asset="elsewhere")])
def elsewhere() -> dg.MaterializeResult:
    warning = dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, metadata={"observed": "IBM kept out"})
    return dg.MaterializeResult(check_results=[warning])


@pytest.mark.services
@pytest.mark.slow
def test_a_warning_of_a_run_that_succeeded_reaches_a_webhook_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as server:
        monkeypatch.setenv("AFTERCLOSE__ALERTS__CHANNELS", '["webhook"]')
        monkeypatch.setenv("AFTERCLOSE__ALERTS__WEBHOOK__URL", server.url)
        monkeypatch.setenv("AFTERCLOSE__ALERTS__WEBHOOK__SECRET", "a secret of the test")
        try:
            launcher.start(tmp_path, free_port())
            defs = dg.Definitions(assets=[elsewhere], jobs=[dg.define_asset_job("run_of_the_command_line")])
            with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
                run_job(defs, instance, "run_of_the_command_line", partition=None, watch=lambda step, done, note: None)
            ended = time.monotonic()
            while not server.posts and time.monotonic() < ended + SOON_SECONDS:
                time.sleep(0.2)
            (body,) = [body.decode() for _, body in server.posts]
            assert "IBM kept out" in body
            assert f"{launcher.address(tmp_path)}/assets/elsewhere?view=checks&checkDetail=nothing_is_quarantined" in body
            print(f"told after {time.monotonic() - ended:.1f} s")
        finally:
            launcher.stop(tmp_path)
