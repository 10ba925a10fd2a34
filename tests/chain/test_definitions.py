"""The code location: every port is bound to something that serves it, partitions are sessions, the schedule knows when not to run."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from pydantic import ValidationError

from adapters.clock import FixedClock
from adapters.sources.sample import SampleSource
from assets.chain import Chain
from orchestration.definitions import alerting_of, build_definitions, last_session
from orchestration.schedules import CATCH_UP_SESSIONS, cron, due_sessions
from orchestration.settings import FilesSourceSettings
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.ports import (
    BarSource,
    BatchReviewer,
    Broker,
    Clock,
    Lake,
    Ledger,
    ModelStore,
    Notary,
    Notifier,
    Outbox,
    ReportPublisher,
    SessionStart,
    Warehouse,
)
from tests.chain.conftest import settings_of

NEW_YORK = ZoneInfo("America/New_York")
LATER = FixedClock(datetime(2020, 1, 1, tzinfo=UTC))
SETTINGS = settings_of(paper_start="2013-02-01", end="2013-03-01")


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_definitions(SETTINGS, tmp_path, LATER)


def sessions(defs: dg.Definitions) -> dg.PartitionsDefinition:
    found = defs.resolve_assets_def("orders").partitions_def
    assert found is not None
    return found


def test_every_resource_serves_its_port(defs: dg.Definitions):
    ports = {"lake": Lake, "ledger": Ledger, "models": ModelStore, "reports": ReportPublisher, "reviewer": BatchReviewer}
    ports |= {"warehouse_file": Warehouse, "notary": Notary}
    assert defs.resources is not None
    with dg.build_resources(dict(defs.resources)) as bound:
        for name, port in ports.items():
            assert isinstance(getattr(bound, name), port), name
        chain: Chain = bound.chain
    assert isinstance(chain.source, BarSource)
    assert isinstance(chain.clock, Clock)
    assert isinstance(chain.broker(lambda session: None), Broker)  # type: ignore[arg-type, return-value]
    assert all(isinstance(notifier, Notifier) for notifier in alerting_of(defs).channels.values())
    assert isinstance(alerting_of(defs).outbox(), Outbox)
    assert set(ports) | {"chain", "alerting"} == set(defs.resources)


def test_a_server_can_load_them(defs: dg.Definitions):
    defs.get_repository_def().load_all_definitions()


def test_partitions_are_the_exchange_sessions_up_to_the_end_of_a_finite_source(defs: dg.Definitions):
    keys = sessions(defs).get_partition_keys(current_time=datetime(2020, 1, 1, tzinfo=UTC))
    assert len(keys) == 20
    assert (keys[0], keys[-1]) == ("2013-02-01", "2013-03-01")
    assert "2013-02-18" not in keys  # Presidents' Day
    assert "2013-02-16" not in keys  # Saturday


def test_the_partition_of_a_friday_exists_on_friday_evening_in_new_york(defs: dg.Definitions):
    afternoon, evening = (datetime(2013, 2, 8, *at, tzinfo=NEW_YORK) for at in ((18, 59), (20, 15)))
    assert "2013-02-08" not in sessions(defs).get_partition_keys(current_time=afternoon.astimezone(UTC))
    assert "2013-02-08" in sessions(defs).get_partition_keys(current_time=evening.astimezone(UTC))


def test_missed_sessions_are_due_in_order_and_at_most_ten_at_a_time(defs: dg.Definitions):
    now = datetime(2013, 2, 14, 1, 15, tzinfo=UTC)
    assert due_sessions(sessions(defs), {"2013-02-01", "2013-02-05"}, now)[:2] == ["2013-02-04", "2013-02-06"]
    assert len(due_sessions(sessions(defs), set(), datetime(2020, 1, 1, tzinfo=UTC))) == CATCH_UP_SESSIONS


@pytest.mark.parametrize(
    ("delay", "line"), [(0, "15 20 * * 1-5"), (255, "15 20 * * 1-5"), (300, "0 21 * * 1-5"), (480, "0 0 * * 2-6"), (960, "0 8 * * 2-6")]
)
def test_the_schedule_waits_for_the_source(delay: int, line: str):
    assert cron(delay) == line


def evaluate(defs: dg.Definitions, instance: dg.DagsterInstance, at: datetime) -> dg.SkipReason | list[dg.RunRequest]:
    schedule = defs.resolve_schedule_def("after_close")
    context = dg.build_schedule_context(instance=instance, repository_def=defs.get_repository_def(), scheduled_execution_time=at)
    data = schedule.evaluate_tick(context)
    return dg.SkipReason(data.skip_message) if data.skip_message else list(data.run_requests or [])


def done(instance: dg.DagsterInstance, keys: list[str]) -> None:
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key="performance_report", partition=key))


def test_the_schedule_requests_each_missing_session_once_in_order(defs: dg.Definitions):
    at = datetime(2013, 2, 7, 1, 15, tzinfo=UTC)
    with dg.instance_for_test() as instance:
        done(instance, ["2013-02-01", "2013-02-04"])
        asked = evaluate(defs, instance, at)
        assert isinstance(asked, list)
        assert [(r.partition_key, r.run_key) for r in asked] == [("2013-02-05", "2013-02-05"), ("2013-02-06", "2013-02-06")]


def test_the_schedule_says_that_a_finite_source_has_ended(defs: dg.Definitions):
    with dg.instance_for_test() as instance:
        done(instance, sessions(defs).get_partition_keys(current_time=datetime(2020, 1, 1, tzinfo=UTC)))
        skipped = evaluate(defs, instance, datetime(2013, 3, 5, 1, 15, tzinfo=UTC))
    assert isinstance(skipped, dg.SkipReason)
    assert "ends with session 2013-03-01" in str(skipped.skip_message)


def test_the_schedule_skips_a_holiday_and_waits_behind_a_failed_session(defs: dg.Definitions):
    with dg.instance_for_test() as instance:
        keys = sessions(defs).get_partition_keys(current_time=datetime(2013, 2, 19, 1, 15, tzinfo=UTC))
        done(instance, list(keys))
        skipped = evaluate(defs, instance, datetime(2013, 2, 19, 1, 15, tzinfo=UTC))
        assert isinstance(skipped, dg.SkipReason)
        assert "2013-02-18 is no session" in str(skipped.skip_message)
    with dg.instance_for_test() as instance:
        job = defs.resolve_job_def("daily")
        run = instance.create_run_for_job(job, tags={"dagster/partition": "2013-02-01"}, status=dg.DagsterRunStatus.FAILURE)
        assert run.job_name == "daily"
        skipped = evaluate(defs, instance, datetime(2013, 2, 5, 1, 15, tzinfo=UTC))
        assert isinstance(skipped, dg.SkipReason)
        assert "paper-run --session 2013-02-01" in str(skipped.skip_message)


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"paper_start": "2013-02-18", "end": "2013-03-01"}, "session of XNYS in .calendar. paper_start, found 2013-02-18"),
        ({"paper_start": "2013-02-01", "end": "2013-01-02"}, "move the dates"),
        ({"paper_start": "2013-02-01", "end": "2013-03-01", "paper": "start = 2012-12-31"}, "paper. start, found 2012-12-31"),
        (
            {"paper_start": "2010-06-01", "end": "2013-03-01"},
            "a paper start in 2011 or later .*found start 2009-01-02, paper start 2010-06-01; move",
        ),
    ],
)
def test_dates_that_do_not_fit_are_refused_by_name(tmp_path: Path, dates: dict[str, str], message: str):
    with pytest.raises(InputError, match=message):
        build_definitions(settings_of(**dates), tmp_path, LATER)  # type: ignore[arg-type]


def test_two_books_of_one_name_are_refused(tmp_path: Path):
    settings = settings_of(paper_start="2013-02-01", end="2013-03-01", paper='book = "backtest"')
    with pytest.raises(InputError, match=r"expected two books in .paper. book and .backtest. book, found backtest for both"):
        build_definitions(settings, tmp_path, LATER)


@pytest.mark.parametrize(("end", "session"), [("2013-02-18", "2013-02-15"), ("2013-02-24", "2013-02-22"), ("2030-01-01", "2013-03-01")])
def test_an_end_without_trading_is_the_session_before_it(end: str, session: str):
    settings = settings_of(paper_start="2013-02-01", end=end)
    assert last_session(settings, SampleSource(), LATER) == date.fromisoformat(session)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            "[portfolio]\ngross_exposure_ratio = 1.2",
            "expected max_gross_ratio of at least 1.2 for .* gross_exposure_ratio 1.2 .*found 1.1; raise it or lower gross_exposure_ratio",
        ),
        (
            "[portfolio]\nnames_per_side = 1",
            "expected max_name_ratio of at least 0.5 for .* over names_per_side 1 .*found 0.35; raise it or names_per_side",
        ),
        ('[portfolio]\nsides = "long_only"', "expected max_net_ratio of at least 1 for sides long_only .*found 0.3; raise it or lower"),
        (
            '[portfolio]\nsides = "long_only"\n[risk]\nmax_net_ratio = 1',
            "expected max_name_ratio of at least 0.5 for sides long_only and gross_exposure_ratio 1 over names_per_side 2",
        ),
    ],
)
def test_limits_that_would_deny_the_weights_they_are_for_are_refused(tmp_path: Path, extra: str, message: str):
    with pytest.raises(InputError, match=message):
        build_definitions(settings_of(paper_start="2013-02-01", end="2013-03-01", extra=extra), tmp_path, LATER)


@pytest.mark.parametrize(
    "extra",
    [
        "[portfolio]\nnames_per_side = 3\ngross_exposure_ratio = 0.9\n[risk]\nmax_name_ratio = 0.15\nmax_gross_ratio = 0.9",
        '[portfolio]\nsides = "long_only"\n[risk]\nmax_net_ratio = 1\nmax_name_ratio = 0.5',
    ],
)
def test_limits_that_the_weights_just_reach_are_accepted(tmp_path: Path, extra: str):
    build_definitions(settings_of(paper_start="2013-02-01", end="2013-03-01", extra=extra), tmp_path, LATER)


FILES = """[source]
kind = "files"
[source.files]
bars = "bars.parquet"
publish_delay_minutes = {delay}
"""


def test_a_source_cannot_publish_after_the_next_open():
    source = settings_of(paper_start="2013-02-01", end="2013-03-01", source=FILES.format(delay=960)).source
    assert isinstance(source, FilesSourceSettings)
    calendar, delay = exchange_calendar(), source.files.publish_delay_minutes
    for session, following in pairwise(calendar.days):
        assert calendar.publish_at(session, delay) < calendar.open_at(following)
    with pytest.raises(ValidationError, match="publish_delay_minutes"):
        settings_of(paper_start="2013-02-01", end="2013-03-01", source=FILES.format(delay=961))


def test_the_daily_job_holds_every_daily_asset_and_the_history_job_every_other_one_but_the_report_on_factors(defs: dg.Definitions):
    def keys(job: str) -> set[str]:
        return {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys}

    everything = {key.to_user_string() for key in defs.resolve_asset_graph().executable_asset_keys}
    assert keys("daily") | keys("history") == everything - {"factor_report"}
    assert keys("factors") == {"factor_report", "warehouse"}
    assert keys("daily") & keys("history") == {"warehouse", "audit_anchor"}
    assert date.fromisoformat("2013-02-01") == SETTINGS.calendar.paper_start


@pytest.mark.parametrize(("slippage_bps", "refused"), [(5.0, False), (9.0, True)])
def test_a_setting_that_is_newer_than_the_booked_session_counts_as_its_default(data_root: Path, slippage_bps: float, refused: bool):
    settings = settings_of(paper_start="2013-02-01", end="2013-03-01", extra=f"[costs]\nslippage_bps = {slippage_bps}\n")
    defs, session = build_definitions(settings, data_root, LATER), date(2013, 2, 1)
    assert defs.resources is not None
    with dg.build_resources({name: defs.resources[name] for name in ("chain", "ledger")}) as bound:
        chain: Chain = bound.chain
        older = {key: value for key, value in chain.rules_in_force.items() if key != "[costs] slippage_bps"}
        start = SessionStart(book="paper", session=session, decision_at=LATER.now(), rules=json.dumps(older))
        bound.ledger.begin(start)
        if refused:
            with pytest.raises(InputError, match=r"\[costs\] slippage_bps = 5.0 in session .*, found \[costs\] slippage_bps = 9.0"):
                chain.begun(bound.ledger, session)
        else:
            assert chain.begun(bound.ledger, session) == start


BEFORE_RECEIVABLES = """
[costs]
sec_fee_per_million_usd = 0.0
taf_per_share_usd = 0.0
[ledger]
dividends_paid = "ex_date"
interest_debit_rate_annual = 0.0
stale_limit_sessions = 10000
"""


@pytest.mark.parametrize("extra", ["", BEFORE_RECEIVABLES])
def test_a_session_booked_before_the_ledger_knew_receivables_and_fees_runs_again_without_them(data_root: Path, extra: str):
    settings = settings_of(paper_start="2013-02-01", end="2013-03-01", extra=extra)
    defs, session = build_definitions(settings, data_root, LATER), date(2013, 2, 1)
    assert defs.resources is not None
    with dg.build_resources({name: defs.resources[name] for name in ("chain", "ledger")}) as bound:
        chain: Chain = bound.chain
        older = {
            key: value for key, value in chain.rules_in_force.items() if "[ledger]" not in key and "_fee" not in key and "taf" not in key
        }
        start = SessionStart(book="paper", session=session, decision_at=LATER.now(), rules=json.dumps(older))
        bound.ledger.begin(start)
        if extra:
            assert chain.begun(bound.ledger, session) == start
        else:
            with pytest.raises(InputError, match=r"\[ledger\] dividends_paid = ex_date.*found.*\[ledger\] dividends_paid = pay_date"):
                chain.begun(bound.ledger, session)


def test_a_session_booked_before_settings_were_stored_is_refused_clearly(data_root: Path):
    defs, session = build_definitions(SETTINGS, data_root, LATER), date(2013, 2, 1)
    assert defs.resources is not None
    with dg.build_resources({name: defs.resources[name] for name in ("chain", "ledger")}) as bound:
        bound.ledger.begin(SessionStart(book="paper", session=session, decision_at=LATER.now(), rules="3f2a" * 16))
        with pytest.raises(InputError, match="session 2013-02-01 of book paper, found only their digest"):
            bound.chain.begun(bound.ledger, session)
