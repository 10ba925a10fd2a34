"""From what Dagster recorded to people: runs of the daemon and of the command line, stale tables, sessions that did not run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pytest

from adapters.ledger import open_outbox
from adapters.notify import LogNotifier
from orchestration.alerting import Alerting, tell
from orchestration.definitions import alerting_of, build_definitions
from orchestration.freshness import Freshness, freshness_checks
from orchestration.runs import RunFailedError, run_job
from orchestration.sensors import INTERVAL_SECONDS, alert_sensors
from quant.alerts.alert import AlertChange, AlertKind
from quant.calendar import exchange_calendar
from quant.errors import InputError
from tests.chain.conftest import settings_of

SESSION = "2024-11-26"
RUN = dg.DagsterRunStatus
COLUMNS = ("session", "symbol", "rule", "severity", "expected", "observed")
FINDING = dict(zip(COLUMNS, (SESSION, "AAPL", "r03_high_is_highest", "block", "high >= close", "high 44.1, close 44.86"), strict=True))
sessions = dg.DailyPartitionsDefinition(
    "2024-11-25", timezone="UTC", exclusions=["0 0 * * 6", "0 0 * * 0", datetime(2024, 11, 28, tzinfo=UTC)]
)


@dataclass
class MovingClock:
    at: datetime = datetime(2024, 11, 27, 1, 16, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass
class Faults:
    """What the chain of the test does wrong."""

    findings: list[dict[str, str]] = field(default_factory=list)
    disk_full: bool = False


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def alerting(tmp_path: Path, clock: MovingClock) -> Alerting:
    freshness = Freshness(
        tables=("raw_bars", "performance_report"),
        last_table="performance_report",
        source="feed",
        calendar=exchange_calendar(),
        first=date(2024, 11, 25),
        finite_end=None,
        delay_minutes=30,
        run_at=time(20, 15),
        freshness_minutes=30,
        dead_man_minutes=60,
    )
    log = {"log": LogNotifier(tmp_path / "alerts.log")}
    return Alerting(
        root=tmp_path,
        clock=clock,
        outbox=lambda: open_outbox(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock, ["log"]),
        channels=log,
        fallback=log,
        ui=lambda: "http://127.0.0.1:3000",
        patience_seconds=5,
        descriptions={("raw_bars", "nothing_is_quarantined"): "Warns of symbols that the gate kept out."},
        freshness=freshness,
    )


@pytest.fixture
def defs(faults: Faults, alerting: Alerting, clock: MovingClock) -> dg.Definitions:
    quarantined = dg.AssetCheckSpec("nothing_is_quarantined", asset="raw_bars")

    @dg.asset(partitions_def=sessions, check_specs=[quarantined])
    def raw_bars() -> dg.MaterializeResult:
        if faults.disk_full:
            raise OSError("no space left on device")
        records = [dg.TableRecord(row) for row in faults.findings]
        worst = dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in COLUMNS]))
        result = dg.AssetCheckResult(
            check_name=quarantined.name,
            passed=not records,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"findings_block": len(records), "worst": worst},
        )
        return dg.MaterializeResult(check_results=[result])

    daily = dg.define_asset_job("daily", selection=dg.AssetSelection.all() - dg.AssetSelection.checks(
        *(dg.AssetCheckKey(dg.AssetKey(table), "is_fresh") for table in alerting.freshness.tables)))  # fmt: skip

    @dg.asset(partitions_def=sessions, deps=[raw_bars])
    def performance_report() -> None: ...

    return dg.Definitions(
        assets=[raw_bars, performance_report],
        asset_checks=[freshness_checks(alerting.freshness, clock)],
        jobs=[daily],
        sensors=alert_sensors(alerting),
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def home() -> Iterator[dg.DagsterInstance]:
    """An instance that sensors can be evaluated with: on disk."""
    with dg.instance_for_test() as instance:
        yield instance


def run(defs: dg.Definitions, instance: dg.DagsterInstance, session: str = SESSION) -> str:
    with suppress(RunFailedError):
        run_job(defs, instance, "daily", partition=session, watch=lambda step, done, note: None)
    return instance.get_runs(limit=1)[0].run_id


def standing(alerting: Alerting) -> list[AlertChange]:
    return [change for _, change in alerting.outbox().standing()]


def log(alerting: Alerting) -> list[str]:
    path = alerting.root / "alerts.log"
    return path.read_text().splitlines() if path.exists() else []


def tick(defs: dg.Definitions, instance: dg.DagsterInstance, sensor: str) -> str:
    context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
    return defs.resolve_sensor_def(sensor).evaluate_tick(context).skip_message or ""


def test_a_failed_check_of_a_run_that_succeeded_is_told_by_the_sensors_once_and_once_more_when_it_clears(
    defs: dg.Definitions, home: dg.DagsterInstance, alerting: Alerting, faults: Faults
):
    materialized(home, *TABLES, session="2024-11-25")
    faults.findings = [FINDING]
    assert home.get_run_by_id(run(defs, home)).status is RUN.SUCCESS  # type: ignore[union-attr]
    for _ in range(2):
        tick(defs, home, "alerts_observed")
        tick(defs, home, "alerts_sent")
    itself, finding = log(alerting)
    assert f"WARNING session {SESSION}, rule nothing_is_quarantined of raw_bars" in itself
    assert "observed: findings_block 1" in itself
    assert f"WARNING session {SESSION}, symbol AAPL, rule r03_high_is_highest" in finding
    assert "expected: high >= close; observed: high 44.1, close 44.86" in finding
    assert finding.endswith("http://127.0.0.1:3000/assets/raw_bars?view=checks&checkDetail=nothing_is_quarantined")

    faults.findings = []
    run(defs, home)
    tick(defs, home, "alerts_observed")
    assert "to log: sent" in tick(defs, home, "alerts_sent")
    assert [line.split()[2] for line in log(alerting)] == ["WARNING", "WARNING", "CLEARED", "CLEARED"]
    assert tick(defs, home, "alerts_sent") == "nothing to send"


def test_both_sensors_run_from_the_start_and_often_enough_for_a_minute(defs: dg.Definitions):
    for name in ("alerts_observed", "alerts_sent"):
        sensor = defs.resolve_sensor_def(name)
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert sensor.minimum_interval_seconds == INTERVAL_SECONDS <= 30


def test_a_failed_run_is_told_with_its_step_and_error_and_clears_when_the_session_succeeds(
    defs: dg.Definitions, instance: dg.DagsterInstance, alerting: Alerting, faults: Faults
):
    faults.disk_full = True
    failed = run(defs, instance)
    alerting.look_at_runs(instance)
    (change,) = standing(alerting)
    assert (change.alert.kind, change.alert.session) == (AlertKind.RUN, date.fromisoformat(SESSION))
    assert change.alert.observed == "step raw_bars: OSError: no space left on device"
    assert change.alert.path == f"/runs/{failed}"
    faults.disk_full = False
    run(defs, instance, "2024-11-25")  # another session says nothing of this one
    alerting.look_at_runs(instance)
    assert len(standing(alerting)) == 1
    run(defs, instance)
    alerting.look_at_runs(instance)
    assert standing(alerting) == []


def test_a_run_whose_process_died_is_told_with_what_is_known(defs: dg.Definitions, instance: dg.DagsterInstance, alerting: Alerting):
    lost = instance.create_run_for_job(defs.resolve_job_def("daily"), tags={"dagster/partition": SESSION}, status=RUN.STARTED)
    instance.report_run_failed(lost, "The process that ran it ended before the run did.")
    alerting.look_at_runs(instance)
    assert [change.alert.observed for change in standing(alerting)] == ["The process that ran it ended before the run did."]


def test_runs_are_looked_at_in_the_order_in_which_they_ended_however_late(
    defs: dg.Definitions, instance: dg.DagsterInstance, alerting: Alerting, faults: Faults, clock: MovingClock
):
    clock.at = datetime.fromtimestamp(0, UTC)  # long ago: the first look takes in all of them
    faults.findings = [FINDING]
    run(defs, instance)
    faults.findings = []
    run(defs, instance)
    alerting.look_at_runs(instance)
    assert standing(alerting) == []
    assert alerting.drain()
    assert [line.split()[2] for line in log(alerting)] == ["WARNING", "WARNING", "CLEARED", "CLEARED"]


class Unreadable(dict[tuple[str, str], str]):
    def get(self, *_: object) -> str:
        raise KeyError("unreadable")


def test_a_run_that_cannot_be_read_is_told_and_hides_none_after_it(defs: dg.Definitions, instance: dg.DagsterInstance, alerting: Alerting):
    run(defs, instance)
    replace(alerting, descriptions=Unreadable()).look_at_runs(instance)
    assert [change.alert.observed for change in standing(alerting)] == ["its checks cannot be read: KeyError 'unreadable'"]
    run(defs, instance)
    alerting.look_at_runs(instance)
    assert standing(alerting) == []


def test_a_command_tells_of_its_runs_itself_and_says_what_failed(
    defs: dg.Definitions, instance: dg.DagsterInstance, alerting: Alerting, faults: Faults, tmp_path: Path
):
    faults.findings = [FINDING]
    run(defs, instance)
    said: list[str] = []
    tell(alerting, instance, said.append)
    assert said == ["alerts: 1 to log; `afterclose alerts list` shows them"]
    assert len(log(alerting)) == 2
    tell(alerting, instance, said.append)
    assert len(said) == 1

    faults.findings = []
    run(defs, instance)
    broken = {"log": LogNotifier(tmp_path)}
    tell(replace(alerting, channels=broken, fallback={}), instance, said.append)
    assert said[1].startswith("alerts: 0 to log")
    assert "channel log: expected a log file that can be appended to" in said[2]
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"no database" * 1000)
    tell(replace(alerting, outbox=lambda: open_outbox(f"sqlite:///{other}", MovingClock(), [])), instance, said.append)
    assert said[-1].startswith("alerts could not be sent: expected a ledger that can be read")


def evaluated(instance: dg.DagsterInstance, table: str) -> list[tuple[bool, str]]:
    key = dg.AssetCheckKey(dg.AssetKey(table), "is_fresh")
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    found = [r.event.dagster_event.asset_check_evaluation_data for r in records if r.event and r.event.dagster_event]
    return [(evaluation.passed, str(evaluation.metadata["session"].value)) for evaluation in reversed(found)]


def materialized(instance: dg.DagsterInstance, *tables: str, session: str) -> None:
    for table in tables:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=table, partition=session))


TABLES = ("raw_bars", "performance_report")


def test_a_table_is_stale_half_an_hour_after_the_run_should_have_begun_and_fresh_again_once_it_has_the_session(
    instance: dg.DagsterInstance, alerting: Alerting, clock: MovingClock
):
    materialized(instance, *TABLES, session="2024-11-25")
    for minutes in (0, 29):  # after 20:15 New York
        clock.at = datetime(2024, 11, 27, 1, 15, tzinfo=UTC) + timedelta(minutes=minutes)
        alerting.look_at_sessions(instance)
    assert standing(alerting) == []
    assert evaluated(instance, "raw_bars") == [(True, "2024-11-25")]  # one evaluation, not one a look

    clock.at += timedelta(minutes=1)
    materialized(instance, "performance_report", session=SESSION)
    alerting.look_at_sessions(instance)
    (change,) = standing(alerting)
    assert (change.alert.kind, change.alert.session, change.alert.rule) == (AlertKind.STALE, date(2024, 11, 26), "is_fresh of raw_bars")
    assert change.alert.expected == "session 2024-11-26 by 2024-11-27 01:45 UTC"
    assert change.alert.observed == "newest session 2024-11-25"
    materialized(instance, "raw_bars", session=SESSION)
    alerting.look_at_sessions(instance)
    assert standing(alerting) == []
    assert evaluated(instance, "raw_bars")[-2:] == [(False, SESSION), (True, SESSION)]


def test_nothing_becomes_stale_over_thanksgiving_and_the_weekend(instance: dg.DagsterInstance, alerting: Alerting, clock: MovingClock):
    for session in ("2024-11-25", "2024-11-26", "2024-11-27"):
        materialized(instance, *TABLES, session=session)
    clock.at = datetime(2024, 11, 30, 1, 44, tzinfo=UTC)  # Friday evening: the half day is due a minute later
    alerting.look_at_sessions(instance)
    assert standing(alerting) == []
    materialized(instance, *TABLES, session="2024-11-29")
    for hours in range(0, 72, 6):
        clock.at = datetime(2024, 11, 30, 3, tzinfo=UTC) + timedelta(hours=hours)
        alerting.look_at_sessions(instance)
    assert standing(alerting) == []


def test_a_session_that_did_not_run_is_told_an_hour_after_it_should_have_begun_and_clears_when_it_is_done(
    instance: dg.DagsterInstance, alerting: Alerting, clock: MovingClock
):
    materialized(instance, *TABLES, session="2024-11-25")
    materialized(instance, "raw_bars", session=SESSION)
    missed = replace(alerting, freshness=replace(alerting.freshness, freshness_minutes=24 * 60))
    clock.at = datetime(2024, 11, 27, 2, 14, tzinfo=UTC)
    missed.look_at_sessions(instance)
    assert standing(alerting) == []
    clock.at += timedelta(minutes=1)
    missed.look_at_sessions(instance)
    (change,) = standing(alerting)
    assert (change.alert.kind, change.alert.session) == (AlertKind.MISSED, date(2024, 11, 26))
    assert change.alert.expected == "the daily run to be done by 2024-11-27 02:15 UTC"
    materialized(instance, "performance_report", session=SESSION)
    missed.look_at_sessions(instance)
    assert standing(alerting) == []


def test_a_source_that_has_ended_is_late_for_nothing_and_says_why_but_what_stands_may_clear(
    instance: dg.DagsterInstance, alerting: Alerting, clock: MovingClock
):
    clock.at = datetime(2024, 11, 26, 12, tzinfo=UTC)
    assert alerting.look_at_sessions(instance) == ""
    assert {change.alert.kind for change in standing(alerting)} == {AlertKind.STALE, AlertKind.MISSED}
    ended = replace(alerting, freshness=replace(alerting.freshness, finite_end=date(2024, 11, 25)))
    clock.at = datetime(2025, 1, 15, tzinfo=UTC)
    assert ended.look_at_sessions(instance) == "the source feed ends with 2024-11-25"
    assert len(standing(alerting)) == 3
    materialized(instance, *TABLES, session="2024-11-25")
    ended.look_at_sessions(instance)
    assert standing(alerting) == []
    for late in (0, 1):
        clock.at = datetime(2024, 11, 25 + late, 0, tzinfo=UTC)
        assert alerting.look_at_sessions(instance) == "no session from 2024-11-25 on is due yet"


def test_the_button_of_the_ui_evaluates_freshness_too(defs: dg.Definitions, instance: dg.DagsterInstance, clock: MovingClock):
    materialized(instance, "raw_bars", session=SESSION)
    clock.at = datetime(2024, 11, 27, 12, tzinfo=UTC)
    pressed = dg.define_asset_job("pressed", selection=dg.AssetSelection.checks(*(defs.asset_checks or ())))
    alone = dg.define_asset_job("alone", selection=dg.AssetSelection.assets("performance_report"))
    jobs = dg.Definitions(assets=defs.assets, asset_checks=defs.asset_checks, jobs=[pressed, alone])
    found = run_job(jobs, instance, "pressed", partition=None, watch=lambda step, done, note: None)
    assert [(check.asset, check.check, check.severity) for check in found] == [("performance_report", "is_fresh", "WARN")]
    assert run_job(jobs, instance, "alone", partition=SESSION, watch=lambda step, done, note: None) == []  # it has the session by then
    clock.at = datetime(2024, 11, 25, tzinfo=UTC)
    assert run_job(jobs, instance, "pressed", partition=None, watch=lambda step, done, note: None) == []


def test_the_chain_has_a_freshness_check_a_daily_table_and_runs_none_of_them_itself(tmp_path: Path, clock: MovingClock):
    definitions = build_definitions(settings_of(paper_start="2013-02-01", end="2013-03-01"), tmp_path, clock)
    tables = alerting_of(definitions).freshness.tables
    assert {"raw_bars", "accepted_bars", "adjusted_bars", "alpha158", "scores", "orders", "fills", "positions", "daily_pnl"} <= set(tables)
    fresh = {dg.AssetCheckKey(dg.AssetKey(table), "is_fresh") for table in tables}
    assert fresh <= set(definitions.resolve_asset_graph().asset_check_keys)
    for job in ("daily", "history"):
        assert "freshness" not in definitions.resolve_job_def(job).graph.node_dict
    with dg.DagsterInstance.ephemeral() as empty:
        assert alerting_of(definitions).look_at_sessions(empty) == "the source sample ends with 2013-03-01"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[alerts]\nchannels = ["log", "email"]', r"expected .alerts.email. for channel email in .alerts. channels, found no such section"),
        ('[alerts]\nfallback = ["webhook"]', r"expected .alerts.webhook. for channel webhook in .alerts. fallback"),
    ],
)
def test_a_channel_without_its_section_is_refused(tmp_path: Path, clock: MovingClock, extra: str, message: str):
    with pytest.raises(InputError, match=message):
        build_definitions(settings_of(paper_start="2013-02-01", end="2013-03-01", extra=extra), tmp_path, clock)


PROFILE = (
    (Path(__file__).parents[2] / "afterclose.toml").read_text()
    + """
[alerts]
channels = ["email", "slack", "webhook"]
[alerts.email]
host = "mail.example.com"
sender = "afterclose@example.com"
recipients = ["desk@example.com"]
[alerts.webhook]
url = "https://hooks.example.com"
"""
)
SECRET = "hunter2-hunter2-hunter2"
SECRETS = {"EMAIL__PASSWORD": SECRET, "SLACK__URL": f"https://hooks.example.com/{SECRET}", "WEBHOOK__SECRET": SECRET}


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE)
    monkeypatch.setenv("AFTERCLOSE_PROFILE", str(path))
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"AFTERCLOSE__ALERTS__{name}", value)
    return path


def test_secrets_come_from_the_environment_and_are_never_shown(profile: Path):
    from orchestration.settings import load_settings

    settings = load_settings()
    assert settings.alerts.email is not None
    assert settings.alerts.email.password is not None
    assert settings.alerts.email.password.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in json.dumps(settings.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f'[alerts.slack]\nurl = "{SECRET}"',
            "expected AFTERCLOSE__ALERTS__SLACK__URL in the environment",
        ),
        (f'passwrd = "{SECRET}"', "expected a known setting"),
        ("[alerts.slack]\nurls = 3", "expected a known setting"),
        ("[alerts.log]\npath = 3", "expected a known setting"),
    ],
)
def test_a_secret_in_the_profile_and_an_unknown_key_are_refused_without_showing_it(profile: Path, line: str, message: str):
    from orchestration.settings import load_settings

    place = profile.read_text().replace("[alerts.webhook]", f"{line}\n[alerts.webhook]")
    profile.write_text(place)
    with pytest.raises(InputError) as refused:
        load_settings()
    assert message.split(" in ", maxsplit=1)[0] in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AFTERCLOSE__ALRTS__EMAIL__PASSWORD", SECRET, "found AFTERCLOSE__ALRTS__EMAIL__PASSWORD;"),
        ("AFTERCLOSE__ALERTS__EMAIL__PASSWRD", SECRET, "found alerts.email.passwrd = a value that is not shown"),
        ("AFTERCLOSE__ALERTS__CHANNELS", f"log{SECRET}", r"write lists and sections as JSON: '\[\"log\"\]'"),
        ("AFTERCLOSE__ALERTS__WEBHOOK__SECRET", SECRET[:7], "alerts.webhook.secret: .*found a value that is not shown"),
    ],
)
def test_a_misspelt_or_bad_secret_in_the_environment_is_refused_without_showing_it(
    profile: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
):
    from orchestration.settings import load_settings

    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=message) as refused:
        load_settings()
    assert value not in str(refused.value)


def test_a_secret_that_is_missing_is_asked_for_without_showing_the_others(profile: Path, monkeypatch: pytest.MonkeyPatch):
    from orchestration.settings import load_settings

    monkeypatch.delenv("AFTERCLOSE__ALERTS__WEBHOOK__SECRET")
    with pytest.raises(InputError, match=r"expected alerts.webhook.secret in .*, found nothing"):
        load_settings()
    monkeypatch.delenv("AFTERCLOSE__ALERTS__SLACK__URL")
    monkeypatch.setenv("AFTERCLOSE__ALERTS__SLACK", SECRET)
    with pytest.raises(InputError, match=r"expected alerts.slack: .*found a value that is not shown"):
        load_settings()
