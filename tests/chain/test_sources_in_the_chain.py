"""The chain on a source behind a network and on a folder that grows: the same rows as from files, keys asked for, progress told."""

from __future__ import annotations

import re
import tomllib
from datetime import date, time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import stamina
from pydantic import ValidationError

from adapters.clock import SystemClock
from adapters.sources.sample import SampleSource
from assets.market import ANNOUNCED, announced, delivered_bars
from orchestration.definitions import alerting_of, bar_source, build_chain, require_tradable
from orchestration.settings import Settings, alpaca_keys
from quant.alerts.observations import REVISION_CHECK, of_check
from quant.calendar import exchange_calendar
from quant.errors import InputError
from tests.chain.command_line import afterclose
from tests.chain.conftest import Root, settings_of
from tests.conftest import REPOSITORY
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer, Fault

FIRST, LAST, PAPER = date(2010, 1, 4), date(2013, 1, 4), date(2013, 1, 2)
BARS = SampleSource().bars(FIRST, LAST).with_columns(vwap=(pl.col("high") + pl.col("low")) / 2)
ACTIONS = SampleSource().actions(FIRST, LAST)
SECTIONS = f"[calendar]\nstart = {FIRST}\npaper_start = {PAPER}\nend = {LAST}\n[backtest]\nstart = 2012-01-03\n"
FILES = """[source]
kind = "files"
[source.files]
bars = "{folder}/bars"
actions = "{folder}/actions.parquet"
grows = true
"""
ALPACA = """[source]
kind = "alpaca"
universe = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
[source.alpaca]
asof = 2013-01-04
first_session = 2010-01-04
data_url = "{url}"
trading_url = "{url}"
"""


def root_on(source: str, folder: Path, instance: dg.DagsterInstance) -> Root:
    settings = settings_of(start=str(FIRST), paper_start=str(PAPER), end=str(LAST), source=source)
    return Root.make(folder, settings, instance)


def load(root: Root) -> list[str]:
    """Materialise the market's history alone; returns what was said on the way."""
    job = root.defs.resolve_job_def("history").get_subset(asset_selection={dg.AssetKey("market_history")})
    run = job.execute_in_process(instance=root.instance)
    return [entry.user_message for entry in root.instance.all_logs(run.run_id)]


def daily_check(root: Root, session: date, check: str) -> dg.AssetCheckEvaluation:
    """What the daily run's first steps say by a check."""
    arriving = {dg.AssetKey("raw_bars"), dg.AssetKey("corporate_actions")}
    job = root.defs.resolve_job_def("daily").get_subset(asset_selection=arriving)
    run = job.execute_in_process(instance=root.instance, partition_key=str(session))
    (made,) = (e for e in run.get_asset_check_evaluations() if e.check_name == check)
    return made


def put_files(folder: Path) -> str:
    """The sample as a folder of one file a year; returns the [source] section."""
    (folder / "bars").mkdir()
    for (year,), bars in BARS.group_by(pl.col("session").dt.year()):
        bars.write_parquet(folder / "bars" / f"{year}.parquet")
    ACTIONS.write_parquet(folder / "actions.parquet")
    return FILES.format(folder=folder)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_the_history_from_alpaca_is_the_history_from_files_and_tells_how_far_it_is(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    with AlpacaServer(bars=BARS, actions=ACTIONS, page_rows=1000) as server:
        fetched = root_on(ALPACA.format(url=server.url), tmp_path / "fetched", instance)
        said = load(fetched)
    read = root_on(put_files(tmp_path), tmp_path / "read", instance)
    load(read)
    for table in ("accepted_bars", "adjusted_bars", "bar_findings"):
        assert fetched.table(table).equals(read.table(table)), table
    assert fetched.table("raw_bars")["source"].unique().to_list() == ["alpaca"]
    assert "bars of 2011 (2/3)" in said
    kept = [path for path in (tmp_path / "fetched").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def test_a_changed_file_of_a_folder_becomes_revisions_beside_the_rows_that_were_stored(tmp_path: Path, instance: dg.DagsterInstance):
    root = root_on(put_files(tmp_path), tmp_path / "data", instance)
    load(root)
    before = root.table("raw_bars")
    row = (pl.col("symbol") == "IBM") & (pl.col("session") == date(2012, 12, 31))
    revised = BARS.filter(pl.col("session").dt.year() == 2012).with_columns(close=pl.when(row).then("low").otherwise("close"))
    revised.write_parquet(tmp_path / "bars" / "2012.parquet")
    load(root)  # the same source: it looked again
    after = root.table("raw_bars")
    assert after.height == before.height + 1
    assert after.filter(row).sort("known_at")["close"].to_list() == [before.filter(row)["close"].item(), revised.filter(row)["low"].item()]
    assert not after.filter(row).sort("known_at")["known_at_assumed"][-1]


def test_a_row_that_is_not_delivered_any_more_stays_and_is_told(tmp_path: Path, instance: dg.DagsterInstance):
    root, after = root_on(put_files(tmp_path), tmp_path / "data", instance), date(2013, 1, 3)
    load(root)
    assert daily_check(root, PAPER, REVISION_CHECK).passed
    kept = BARS.filter(pl.col("session").dt.year() == 2013, (pl.col("symbol") != "IBM") | (pl.col("session") != PAPER))
    kept.write_parquet(tmp_path / "bars" / "2013.parquet")
    history = root.defs.resolve_job_def("daily").get_subset(
        asset_selection={dg.AssetKey("accepted_bars"), dg.AssetKey("bar_findings"), dg.AssetKey("quarantined_bars")}
    )
    assert history.execute_in_process(instance=root.instance, partition_key=str(PAPER)).success
    told = daily_check(root, after, REVISION_CHECK)
    assert not told.passed
    (alert,) = of_check(alerting_of(root.defs).outcome(told, partition=str(after))).alerts
    assert (alert.session, alert.symbol, alert.rule) == (PAPER, "IBM", "row_withdrawn")
    assert root.table("raw_bars").filter(pl.col("session") == PAPER)["symbol"].n_unique() == 5


@pytest.mark.slow
def test_a_broken_file_of_a_folder_stops_the_session_and_leaves_what_is_stored_to_look_at(tmp_path: Path, instance: dg.DagsterInstance):
    section = put_files(tmp_path)
    load(root_on(section, tmp_path / "data", instance))
    (tmp_path / "bars" / "2013.parquet").write_bytes((tmp_path / "bars" / "2013.parquet").read_bytes()[:300])
    broken = root_on(section, tmp_path / "data", instance)
    with pytest.raises(InputError, match=r"2013\.parquet"):
        daily_check(broken, PAPER, REVISION_CHECK)
    profile = tmp_path / "profile.toml"
    profile.write_text(f'name = "test"\n{section}{SECTIONS}')
    for words in (("status",), ("quarantine", "list"), ("revisions",), ("alerts", "list"), ("positions",)):
        done = afterclose(tmp_path / "data", *words, profile=profile)
        assert done.returncode == 0, (words, done.stderr)
    run = afterclose(tmp_path / "data", "paper-run", "--session", str(PAPER), profile=profile)
    assert (run.returncode, "2013.parquet" in run.stderr) == (2, True), run.stderr


def test_a_dividend_that_nobody_could_pay_is_not_booked_and_one_of_the_history_is_told(tmp_path: Path, instance: dg.DagsterInstance):
    section, at = put_files(tmp_path) + 'convention = "ex_date_close"\n', date(2012, 6, 4)
    root = root_on(section, tmp_path / "data", instance)

    def announce(*days: date) -> None:
        more = pl.DataFrame([(day, "IBM", "dividend", 5000.0) for day in days], schema=["ex_date", "symbol", "kind", "value"], orient="row")
        pl.concat([ACTIONS, more], how="diagonal").write_parquet(tmp_path / "actions.parquet")

    announce(at)
    history = root.defs.resolve_job_def("history").get_subset(asset_selection={dg.AssetKey("market_history")})
    made = history.execute_in_process(instance=instance).get_asset_check_evaluations()
    (check,) = (evaluation for evaluation in made if evaluation.check_name == "history_is_clean")
    assert "IBM 5000 on 2012-06-04" in str(check.metadata["unpayable_dividends"].value)
    announce(at, PAPER)
    with pytest.raises(InputError, match=r"dividends below the close before .* symbol=IBM ex_date=2013-01-02"):
        daily_check(root, PAPER, "actions_came_in_time")
    assert root.table("corporate_actions").filter(pl.col("ex_date") == PAPER).is_empty()


def test_what_the_source_says_and_nothing_follows_is_a_warning_that_becomes_an_alert(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    redeemed = {"redemptions": [{"symbol": "IBM", "rate": 10.0, "process_date": str(PAPER)}]}
    with (
        AlpacaServer(bars=BARS, actions=ACTIONS, corporate=redeemed, hours={PAPER: time(13)}) as server,
        stamina.set_testing(True, attempts=2),
    ):
        root = root_on(ALPACA.format(url=server.url), tmp_path / "data", instance)
        load(root)
        told = daily_check(root, PAPER, ANNOUNCED)
        server.faults.extend([Fault.BROKEN] * 40)
        chain = build_chain(root.settings, bar_source(root.settings, exchange_calendar()), SystemClock())
        found, silent = announced(chain, PAPER, PAPER, [])
    assert not told.passed
    assert told.severity is dg.AssetCheckSeverity.WARN
    outcome = alerting_of(root.defs).outcome(told, partition=str(PAPER))
    alerts = {alert.key: (alert.expected, alert.observed) for alert in of_check(outcome).alerts}
    assert alerts[f"finding/{PAPER}/IBM/action_not_applied"][1] == "redemptions"
    assert alerts[f"finding/{PAPER}/*/other_hours"][1] == "09:30 to 13:00 America/New_York"
    assert found.is_empty()
    assert "500 internal server error" in (silent or "")


@pytest.mark.parametrize("missing", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_missing_keys_are_one_clear_error_before_anything_is_asked(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, missing: str
):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    monkeypatch.delenv(missing)
    with AlpacaServer(bars=BARS) as server:
        root = root_on(ALPACA.format(url=server.url), tmp_path / "data", instance)
        with pytest.raises(InputError, match=rf"APCA_API_KEY_ID and APCA_API_SECRET_KEY in the environment, found no {missing}; export"):
            root.history()
        assert server.asked == []


def test_a_key_that_cannot_be_one_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APCA_API_KEY_ID", f" {KEY_ID} \n")
    monkeypatch.setenv("APCA_API_SECRET_KEY", f"{SECRET}\nX-Other: 1")
    with pytest.raises(InputError, match="APCA_API_SECRET_KEY with a character that no key has") as refused:
        alpaca_keys()
    assert SECRET not in str(refused.value)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    assert alpaca_keys().key_id == KEY_ID


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (ALPACA.format(url="http://data.example.com"), "data_url"),
        (ALPACA.format(url="https://data.example.com").replace("asof = 2013-01-04", ""), "asof"),
        (ALPACA.format(url="https://data.example.com").replace("asof = 2013-01-04", 'feed = "otc"\nasof = "-"'), "feed"),
        (ALPACA.format(url="https://data.example.com").replace('["AAPL", "FB", "GOOG", "IBM", "MSFT"]', '"all"'), "universe"),
    ],
)
def test_settings_of_alpaca_that_cannot_be_are_refused_by_name(section: str, key: str):
    with pytest.raises(ValidationError, match=key):
        settings_of(start=str(FIRST), paper_start=str(PAPER), end=str(LAST), source=section)


def test_a_long_range_is_asked_for_in_years_that_together_are_the_range():
    said: list[str] = []
    source = SampleSource()
    first, last = date(2010, 3, 15), date(2012, 2, 2)
    assert delivered_bars(source, first, last, said.append).equals(source.bars(first, last))
    assert said == ["bars of 2010 (1/3)", "bars of 2011 (2/3)", "bars of 2012 (3/3)"]
    assert delivered_bars(source, first, first, said.append).equals(source.bars(first, first))
    assert len(said) == 3


def test_the_profiles_of_the_page_on_own_data_are_profiles():
    blocks = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "docs" / "own-data.md").read_text(), flags=re.DOTALL)
    profiles = [Settings(**tomllib.loads(block)) for block in blocks if block.startswith("name")]
    assert [profile.source.kind for profile in profiles] == ["files", "alpaca"]
    for profile in profiles:
        require_tradable(profile.portfolio, profile.risk)


@pytest.mark.slow
def test_the_source_is_asked_from_the_command_line_for_what_no_bar_tells_and_for_minutes(tmp_path: Path):
    minutes = BARS.filter(pl.col("session") == PAPER).drop("session").with_columns(at=pl.datetime(2013, 1, 2, 15, time_zone="UTC"))
    redeemed = {"redemptions": [{"symbol": "IBM", "rate": 10.0, "process_date": str(LAST)}]}
    profile, root, wanted = tmp_path / "profile.toml", tmp_path / "data", tmp_path / "minutes.parquet"
    keys = {"APCA_API_KEY_ID": KEY_ID, "APCA_API_SECRET_KEY": SECRET}
    with AlpacaServer(bars=BARS, actions=ACTIONS, corporate=redeemed, minutes=minutes) as server:
        source = ALPACA.format(url=server.url)
        profile.write_text(f'name = "test"\n{source}{SECTIONS}')
        shown = afterclose(root, "source", "show", profile=profile)
        assert server.asked == [], "nothing is asked of the network"
        checked = afterclose(root, "source", "check", profile=profile, **keys)
        written = afterclose(root, "source", "minutes", str(PAPER), str(LAST), "--output", str(wanted), profile=profile, **keys)
        refused = afterclose(root, "source", "minutes", str(LAST), str(PAPER), "--output", str(wanted), profile=profile, **keys)
    assert "30 minutes after the close" in shown.stdout
    assert checked.returncode == 1, checked.stderr
    assert "redemptions" in checked.stdout
    assert written.returncode == 0, written.stderr
    assert "5 minute bars of 5 symbols" in written.stdout
    assert pl.read_parquet(wanted)["started_at"].dt.date().unique().to_list() == [PAPER]
    assert refused.returncode == 2
    assert "the first one first" in refused.stderr
    assert "one of rows alone" in afterclose(tmp_path / "sample", "source", "check").stderr
