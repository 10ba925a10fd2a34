"""What arrives late, wrong or between a crash and the next run: the book trades on one version of the truth, and books what it owes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import Result
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from adapters.clock import SystemClock
from adapters.lake.delta import frame_digest
from adapters.sources.sample import SampleSource
from assets.features import compute_features, compute_labels
from assets.market import gate_bars
from assets.quarantine import decide, last_verdicts, quarantined, releases, withdraw
from assets.revisions import as_findings
from orchestration.cli import app
from orchestration.definitions import alerting_of, bar_source, build_chain
from quant.alerts.alert import AlertKind
from quant.calendar import exchange_calendar
from quant.errors import AftercloseError, InputError, SequenceError
from quant.ledger.entries import EntryKind
from quant.market.as_of import bars_as_of
from quant.ports import SessionStart
from quant.tables import TABLES
from quant.trading.desk import Desk
from quant.trading.orders import OrderState
from strategies.alpha_baseline.features import alpha158_features
from tests.chain.conftest import PROFILE, Root, files_source, settings_of

FIRST, LAST = date(2011, 1, 3), date(2013, 1, 8)
D1, D2, D3, D4 = date(2013, 1, 2), date(2013, 1, 3), date(2013, 1, 4), date(2013, 1, 7)


class Case:
    """A data root on files that a test may rewrite between runs."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, extra: str = "") -> None:
        self.folder, self.instance = folder, instance
        described = files_source(folder, convention="previous_close")
        self.settings = settings_of(start=str(FIRST), paper_start=str(D1), end=str(LAST), source=described, extra=extra)

    @property
    def root(self) -> Root:
        return Root.make(self.folder / "data", self.settings, self.instance)

    def put(self, *, bars: pl.DataFrame | None = None, actions: pl.DataFrame | None = None) -> None:
        for name, rows in (("bars", bars), ("actions", actions)):
            if rows is not None:
                rows.write_parquet(self.folder / f"{name}.parquet")

    def held(self, session: date) -> dict[str, Decimal]:
        """Shares by symbol at the session's close."""
        rows = self.root.lake.read("positions", first=session, last=session, where={"book": "paper"})
        return dict(rows.select("symbol", "quantity").iter_rows())


def real_bars() -> pl.DataFrame:
    return SampleSource().bars(FIRST, LAST).drop("vwap")


def real_actions(*more: tuple[date, str, str, float]) -> pl.DataFrame:
    rows = SampleSource().actions(FIRST, LAST).select("ex_date", "symbol", "kind", "value")
    return pl.concat([rows, pl.DataFrame(list(more), schema=rows.schema, orient="row")])


def split_from(symbol: str, ex_date: date, ratio: float) -> pl.DataFrame:
    """The real bars as they would have traded after one more split."""
    after = (pl.col("symbol") == symbol) & (pl.col("session") >= ex_date)
    prices = [pl.when(after).then(pl.col(name) / ratio).otherwise(name).alias(name) for name in ("open", "high", "low", "close")]
    return real_bars().with_columns(*prices, volume=pl.when(after).then(pl.col("volume") * ratio).otherwise("volume"))


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root through D2: the book holds what it decided on D1, and has orders for D3."""
    folder = tmp_path_factory.mktemp("late") / "base"
    folder.mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        case = Case(folder, instance)
        case.put(bars=real_bars(), actions=real_actions())
        case.root.history()
        case.root.days([D1, D2])
    return folder


@pytest.fixture
def case(two_days: Path, tmp_path: Path) -> Iterator[Case]:
    shutil.copytree(two_days, tmp_path / "case")
    (tmp_path / "case" / "data" / "identity.json").unlink()  # the copy has another path
    with dg.DagsterInstance.ephemeral() as instance:
        yield Case(tmp_path / "case", instance)


def tables(root: Root) -> dict[str, str]:
    return {name: root.lake.digest(name) for name in TABLES}


def revisions_told(case: Case) -> list[tuple[date | None, str | None, str]]:
    """Session, symbol and rule of the standing alerts about revisions."""
    alerting = alerting_of(case.root.defs)
    alerting.look_at_runs(case.root.instance)
    told = [change.alert for _, change in alerting.outbox().standing() if change.alert.kind is AlertKind.REVISION]
    return [(alert.session, alert.symbol, alert.rule) for alert in told]


def test_an_order_sized_before_a_split_was_announced_expires_and_the_holding_is_split_on_its_day(case: Case):
    order = next(o for o in case.root.ledger.orders("paper", decided=D2) if o.denial is None and o.symbol in case.held(D2))
    case.put(bars=split_from(order.symbol, D3, 0.1), actions=real_actions((D3, order.symbol, "split", 0.1)))
    case.root.days([D3])
    ended = next(o for o in case.root.ledger.orders("paper", decided=D2) if o.client_order_id == order.client_order_id)
    assert ended.state is OrderState.EXPIRED
    before, after = case.held(D2)[order.symbol], case.held(D3)[order.symbol]
    assert after == (before * Decimal("0.1")).to_integral_value("ROUND_DOWN")


def test_a_split_learned_days_later_is_booked_once_on_what_was_held_and_restates_prices_from_its_ex_date(case: Case):
    symbol, before = next(iter(case.held(D2).items()))
    case.put(bars=split_from(symbol, D3, 1.25))  # the gate would keep a larger one out until it is recorded
    case.root.days([D3])
    assert case.root.table("adjusted_bars").filter(pl.col("symbol") == symbol, pl.col("session") == D3)["split_index"].item() == 1
    case.put(actions=real_actions((D3, symbol, "split", 1.25)))
    failed = case.root.days([D4])[D4]
    assert ("actions_came_in_time", "WARN") in {(c.check, c.severity) for c in failed}
    assert revisions_told(case) == [(D3, symbol, "late_split")]
    booked = [e for e in case.root.ledger.entries("paper") if e.kind is EntryKind.SPLIT]
    gained = (before * Decimal("1.25")).to_integral_value("ROUND_DOWN") - before
    assert [(e.symbol, e.session, e.quantity) for e in booked] == [(symbol, D4, gained)]
    after = case.root.table("adjusted_bars").filter(pl.col("symbol") == symbol, pl.col("session") >= D3)
    assert after["split_index"].to_list() == [1.25, 1.25]
    label = case.root.table("forward_returns").filter(pl.col("symbol") == symbol, pl.col("known_session") >= D3)["label"]
    assert label.abs().max() < 0.15  # type: ignore[operator]  (the split is in none of them)
    restated, entries = tables(case.root), case.root.ledger.entries("paper")
    case.root.days([D3, D4])
    again = tables(case.root)
    assert {name for name in again if again[name] != restated[name]} == {"performance"}  # D3's universe has the split now
    assert case.root.ledger.entries("paper") == entries


def test_a_dividend_of_a_file_is_receivable_from_its_ex_date_to_its_pay_date(case: Case):
    symbol, shares = next(iter(case.held(D2).items()))
    paid = real_actions((D3, symbol, "dividend", 0.35))
    case.put(actions=paid.with_columns(pay_date=pl.when(pl.col("ex_date") == D3).then(pl.lit(D4))))
    case.root.days([D3, D4])
    nav = case.root.table("daily_nav").filter(pl.col("book") == "paper").sort("session")
    amount = (shares * Decimal("0.35")).quantize(Decimal("0.01"))
    assert nav["receivables"].to_list() == [0, 0, amount, 0]
    assert nav["dividends"].to_list() == [0, 0, amount, 0]
    booked = [e for e in case.root.ledger.entries("paper") if e.kind in (EntryKind.DIVIDEND, EntryKind.PAYMENT)]
    assert [(e.session, e.symbol, e.due, e.cash, e.assumed) for e in booked] == [
        (D3, symbol, D4, 0, False),
        (D4, symbol, D4, amount, False),
    ]


def test_actions_that_were_unreadable_when_a_session_first_ran_are_applied_when_it_runs_again(case: Case):
    symbol, before = next(iter(case.held(D2).items()))
    case.put(bars=split_from(symbol, D3, 2.0), actions=real_actions((D3, symbol, "spilt", 2.0)))
    with pytest.raises(InputError, match="spilt"):
        case.root.days([D3])
    case.put(actions=real_actions((D3, symbol, "split", 2.0)))
    case.root.days([D3])
    assert [(e.symbol, e.session, e.quantity) for e in case.root.ledger.entries("paper") if e.kind is EntryKind.SPLIT] == [
        (symbol, D3, before)
    ]


def test_an_impossible_dividend_is_refused_before_it_is_stored_and_can_be_corrected(case: Case):
    symbol = next(iter(case.held(D2)))
    case.put(actions=real_actions((D3, symbol, "dividend", 35000.0)))
    with pytest.raises(InputError, match="dividends below the close before"):
        case.root.days([D3])
    case.put(actions=real_actions((D3, symbol, "dividend", 0.35)))
    case.root.days([D3])
    paid = case.root.table("daily_pnl").filter(pl.col("book") == "paper", pl.col("session") == D3, pl.col("symbol") == symbol)["dividends"]
    assert abs(paid.item()) > 0


def test_what_is_revised_between_a_crash_and_the_next_run_changes_nothing_of_the_session(case: Case, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    undisturbed = Case(shutil.copytree(case.folder, case.folder.with_name("undisturbed")), case.instance)
    undisturbed.root.days([D3])
    with monkeypatch.context() as patched:
        patched.setattr(Desk, "decide", dies)
        with pytest.raises(AftercloseError, match="power cut"):
            case.root.days([D3])
    revised = pl.when(pl.col("session") == D3).then(pl.col("close") * 1.004).otherwise("close")
    case.put(bars=real_bars().with_columns(close=pl.min_horizontal(revised, "high")))
    case.root.days([D3])
    assert case.root.lake.read("raw_bars", first=D3, last=D3).height > 5  # the revisions are stored
    assert case.root.ledger.entries("paper") == undisturbed.root.ledger.entries("paper")
    assert case.root.ledger.orders("paper") == undisturbed.root.ledger.orders("paper")


def test_a_session_is_not_run_over_a_hole_and_not_again_under_other_rules(case: Case):
    with pytest.raises(SequenceError, match="accepted bars of session 2013-01-04"):
        case.root.days([D4])
    other = Case(case.folder, case.instance, extra="[costs]\nslippage_bps = 10.0\n")
    before = tables(case.root)
    with pytest.raises(InputError, match=r"booked under, \[costs\] slippage_bps = 5.0 in session .*, found \[costs\] slippage_bps = 10.0"):
        other.root.days([D2])
    assert tables(case.root) == before


def test_an_action_late_for_a_session_under_the_old_settings_restates_prices_under_the_new_ones(case: Case):
    symbol = next(iter(case.held(D2)))
    case.put(actions=real_actions((D2, symbol, "dividend", 0.35)))
    other = Case(case.folder, case.instance, extra="[costs]\nslippage_bps = 10.0\n")
    failed = other.root.days([D3])[D3]
    assert ("actions_came_in_time", "WARN") in {(c.check, c.severity) for c in failed}
    index = other.root.lake.read("adjusted_bars", first=D2, last=D3).filter(pl.col("symbol") == symbol)["total_index"]
    assert index[0] == index[1] > 1


def restated(symbol: str, session: date, ratio: float) -> pl.DataFrame:
    """The real bars with one close and high moved."""
    here = (pl.col("symbol") == symbol) & (pl.col("session") == session)
    return real_bars().with_columns(pl.when(here).then(pl.col(name) * ratio).otherwise(name).alias(name) for name in ("close", "high"))


def profile_of(case: Case) -> str:
    """The case's profile as a file, for the command line."""
    path = case.folder / "profile.toml"
    source = files_source(case.folder, convention="previous_close")
    text = PROFILE.format(start=FIRST, paper_start=D1, end=LAST, paper="", backtest="")
    path.write_text(text.replace('[source]\nkind = "sample"\n', source))
    return str(path)


@pytest.mark.scenario(21)
def test_a_restated_bar_is_told_with_the_decisions_that_used_it_and_a_rerun_as_of_then_is_the_same_to_the_byte(
    case: Case, monkeypatch: pytest.MonkeyPatch
):
    symbol, past = next(iter(case.held(D2))), case.root.ledger.begun("paper", through=D2)
    assert past is not None
    derived = [name for name, table in TABLES.items() if not table.append_only]

    def as_of_then() -> dict[str, str]:
        lake = case.root.lake
        seen = {name: frame_digest(lake.read(name, first=D1, last=D2), TABLES[name]) for name in derived}
        return {**seen, "raw_bars": frame_digest(bars_as_of(lake.read("raw_bars"), past.decision_at), TABLES["raw_bars"])}

    before = as_of_then()
    case.put(bars=restated(symbol, D1, 1.01))
    failed = case.root.days([D3])[D3]
    assert ("no_used_row_was_revised", "WARN") in {(c.check, c.severity) for c in failed}
    assert revisions_told(case) == [(D1, symbol, "r22_used_row_revised")]
    (told,) = [payload for *_, payload in case.root.ledger.audit("revision")]
    assert (told["symbol"], told["session"], [c["column"] for c in told["changes"]]) == (symbol, str(D1), ["high", "close"])
    assert told["used_by"] == [{"book": "paper", "sessions": [str(D1), str(D2)]}]
    (finding,) = as_findings([told]).iter_rows(named=True)
    assert (finding["symbol"], finding["session"], finding["rule"]) == (symbol, D1, "r22_used_row_revised")
    assert f"as used by paper in {D1} to {D2} (2 sessions)" in finding["expected"]
    again = case.root.days([D2])[D2]
    assert as_of_then() == before
    assert len(case.root.ledger.audit("revision")) == 1
    assert "no_used_row_was_revised" not in {check.check for check in again}

    monkeypatch.setenv("DAGSTER_HOME", str(case.folder))
    monkeypatch.setenv("AFTERCLOSE_PROFILE", profile_of(case))
    monkeypatch.setenv("AFTERCLOSE_DATA", str(case.folder / "data"))
    shown = CliRunner().invoke(app, ["revisions", "--since", "2013-01-01", "--json"])
    used_since = [{"book": "paper", "sessions": [str(D1), str(D2), str(D3)]}]  # D3 was decided on what the gate accepted of D1
    assert json.loads(shown.output) == [{**told, "used_by": used_since}]
    assert f"paper: {D1}, {D2}, {D3}" in " ".join(CliRunner().invoke(app, ["revisions"]).output.split())
    assert "No revision since 2999-01-01." in CliRunner().invoke(app, ["revisions", "--since", "2999-01-01"]).output


def test_a_renamed_security_keeps_its_window_and_who_is_scored_is_decided_by_the_prices_of_the_session(case: Case):
    held = next(iter(case.held(D2)))
    renamed = pl.when((pl.col("symbol") == held) & (pl.col("session") >= D3)).then(pl.lit("NEW")).otherwise("symbol").alias("symbol")
    actions = real_actions((D3, held, "rename", 1.0)).with_columns(new_symbol=pl.when(pl.col("kind") == "rename").then(pl.lit("NEW")))
    case.put(bars=real_bars().with_columns(renamed), actions=actions)
    case = Case(case.folder, case.instance, extra="[universe]\nmin_price_usd = 100.0\n")
    case.root.days([D3])
    lake = case.root.lake
    assert lake.read("bar_findings", first=D3, last=D3).is_empty()
    listed = lake.read("instruments").filter(pl.col("security") == "NEW").select("symbol", "first_session", "last_session", "ended_by")
    assert listed.sort("first_session").rows() == [(held, listed["first_session"].min(), D2, "rename"), ("NEW", D3, None, None)]
    whole = lake.read("adjusted_bars", last=D3).with_columns(pl.col("symbol").replace(held, "NEW"))
    wanted = alpha158_features(whole, exchange_calendar(), D3, D3).sort("symbol")
    assert_frame_equal(lake.read("alpha158", first=D3, last=D3), wanted, check_exact=True)
    assert wanted.filter(pl.col("symbol") == "NEW")["ROC60"].item() is not None
    label = lake.read("forward_returns", first=D3, last=D3)  # decided on D1, when it had the old name, sold on D3 under the new one
    assert held in label["symbol"].to_list()
    closes = lake.read("accepted_bars", first=D3, last=D3)
    assert lake.read("scores", first=D3, last=D3)["symbol"].to_list() == closes.filter(pl.col("close") >= 100)["symbol"].to_list()
    positions = lake.read("positions", first=D3, last=D3, where={"book": "paper"})
    moved = positions.filter(pl.col("symbol") == "NEW")
    assert held not in positions["symbol"].to_list()
    assert moved["stale"].to_list() == [False]
    traded = lake.read("fills", first=D3, last=D3, where={"book": "paper", "symbol": "NEW"})  # the order went out under the new name
    signed = sum(q if s == "buy" else -q for q, s in traded.select("quantity", "side").iter_rows())
    assert moved["quantity"].item() == case.held(D2)[held] + signed

    source, ledger = bar_source(case.settings, exchange_calendar()), case.root.ledger
    chain, daily = build_chain(case.settings, source, SystemClock()), (lake.digest("alpha158"), lake.digest("forward_returns"))
    for compute in (partial(compute_features, chain, lake, ledger), partial(compute_labels, chain, lake)):
        compute(D1, D3, chain.instant(lake, ledger, D3))  # at once, as the history does it
    assert (lake.digest("alpha158"), lake.digest("forward_returns")) == daily


def test_a_bar_that_comes_late_makes_no_symbol_missing_in_an_older_session_that_is_judged_again(case: Case):
    root, chain = case.root, build_chain(case.settings, bar_source(case.settings, exchange_calendar()), SystemClock())
    stranger = root.lake.read("raw_bars", first=D1, last=D1).head(1).with_columns(symbol=pl.lit("LATE"))
    stranger = stranger.with_columns(known_at=pl.lit(datetime(2020, 1, 2, tzinfo=UTC)))
    root.lake.append_new("raw_bars", stranger)
    gate_bars(chain, root.lake, root.ledger, D2, D2, chain.instant(root.lake, root.ledger, D2))
    assert root.lake.read("bar_findings", first=D2, last=D2).is_empty()


def test_a_verdict_needs_a_reason_and_a_row_that_can_flow_and_counts_for_the_version_that_was_looked_at(case: Case):
    root, chain = case.root, build_chain(case.settings, bar_source(case.settings, exchange_calendar()), SystemClock())
    lake, ledger, instant = root.lake, root.ledger, chain.instant(root.lake, root.ledger, D2)

    def arrives(symbol: str, digest: str, **values: float | None) -> None:
        row = lake.read("raw_bars", first=D2, last=D2).head(1).with_columns(symbol=pl.lit(symbol), digest=pl.lit(digest))
        changed = [pl.lit(value, pl.Float64).alias(name) for name, value in values.items()]
        lake.append_new("raw_bars", row.with_columns(*changed, known_at=pl.lit(instant)))

    arrives("TWO", "a", volume=1000.0)
    arrives("TWO", "b", volume=2000.0)
    arrives("BAD", "c", close=None)
    lenient = replace(chain, gate=chain.gate.model_copy(update={"feed_fault_ratio": 1.0}))
    gate_bars(lenient, lake, ledger, D2, D2, instant)
    two = quarantined(chain, lake, ledger, D2, "TWO")
    assert (two.rows["digest"].to_list(), two.rules) == (["a", "b"], "r01_key_unique")
    with pytest.raises(InputError, match="expected a reason"):
        decide(chain, ledger, two, verdict="confirm", reason="  ")
    with pytest.raises(InputError, match="expected --row 0 to 1 in TWO in 2013-01-03, found none"):
        decide(chain, ledger, two, verdict="release", reason="the second is right")
    with pytest.raises(InputError, match="close without nulls"):
        decide(chain, ledger, quarantined(chain, lake, ledger, D2, "BAD"), verdict="release", reason="no")
    with pytest.raises(InputError, match="expected a quarantined row in NOPE in 2013-01-03, found none"):
        quarantined(chain, lake, ledger, D2, "NOPE")
    assert ledger.audit("quarantine") == []
    decide(chain, ledger, two, verdict="release", reason="the second is right", row=1)
    assert releases(ledger).rows() == [(D2, "TWO", "b", D2)]
    assert (releases(ledger, after=D2).height, releases(ledger, after=D3).height) == (1, 0)
    gate_bars(lenient, lake, ledger, D2, D2, instant)
    assert lake.read("accepted_bars", first=D2, last=D2, where={"symbol": "TWO"})["volume"].to_list() == [2000.0]
    assert quarantined(chain, lake, ledger, D2, "TWO").rows["digest"].to_list() == ["a"]
    assert last_verdicts(chain, lake, ledger)[D2, "TWO"]["reason"] == "the second is right"
    ledger.record("quarantine", {**ledger.audit("quarantine")[0][-1], "symbol": "BAD", "digests": ["of an older version"]})
    assert (D2, "BAD") not in last_verdicts(chain, lake, ledger)


def test_a_jump_that_is_released_lets_the_sessions_after_it_flow(case: Case):
    root, chain = case.root, build_chain(case.settings, bar_source(case.settings, exchange_calendar()), SystemClock())
    lake, ledger, came, then = root.lake, root.ledger, chain.instant(root.lake, root.ledger, D2), chain.publish_at(D4)
    row = lake.read("raw_bars", first=D2, last=D2).head(1)
    for day in (D3, D4):
        halved = row.with_columns(pl.col("open", "high", "low", "close") / 2, volume=pl.col("volume") * 2, session=day)
        lake.append_new("raw_bars", halved.with_columns(digest=pl.lit(f"halved {day}"), known_at=pl.lit(came)))
    lenient = replace(chain, gate=chain.gate.model_copy(update={"feed_fault_ratio": 1.0, "universe_stop_ratio": 1.0}))

    def kept_out() -> list[tuple[date, str]]:
        return gate_bars(lenient, lake, ledger, D3, D4, then).quarantined.select("session", "rules").rows()

    assert kept_out() == [(D3, "r16_split_suspect"), (D4, "r16_split_suspect")]
    decide(chain, ledger, quarantined(chain, lake, ledger, D3, row["symbol"].item()), verdict="release", reason="it lost a lawsuit")
    assert kept_out() == []
    assert gate_bars(lenient, lake, ledger, D4, D4, then).quarantined.is_empty()  # as the daily chain does it


def test_a_release_can_be_taken_back_until_a_session_was_begun_with_it(case: Case):
    root, chain = case.root, build_chain(case.settings, bar_source(case.settings, exchange_calendar()), SystemClock())
    lake, ledger, came = root.lake, root.ledger, chain.instant(root.lake, root.ledger, D2)
    row = lake.read("raw_bars", first=D2, last=D2).head(1)
    tenfold = row.with_columns(pl.col("open", "high", "low", "close") * 10, session=D3, digest=pl.lit("tenfold"), known_at=pl.lit(came))
    lake.append_new("raw_bars", tenfold)
    lenient = replace(chain, gate=chain.gate.model_copy(update={"feed_fault_ratio": 1.0, "universe_stop_ratio": 1.0}))
    symbol, then = row["symbol"].item(), chain.publish_at(D3)

    def kept_out() -> int:
        return gate_bars(lenient, lake, ledger, D3, D3, then).quarantined.height

    assert kept_out() == 1
    with pytest.raises(InputError, match="expected a release"):
        withdraw(chain, ledger, D3, symbol, reason="never mind")
    decide(chain, ledger, quarantined(chain, lake, ledger, D3, symbol), verdict="release", reason="the news says so")
    assert kept_out() == 0
    with pytest.raises(InputError, match="expected a reason"):
        withdraw(chain, ledger, D3, symbol, reason=" ")
    withdraw(chain, ledger, D3, symbol, reason="the news was of another company")
    assert kept_out() == 1
    decide(chain, ledger, quarantined(chain, lake, ledger, D3, symbol), verdict="release", reason="it was of this one")
    assert kept_out() == 0
    ledger.begin(SessionStart(book="paper", session=D3, decision_at=then, rules="{}"))
    with pytest.raises(InputError, match="expected no session begun since the release"):
        withdraw(chain, ledger, D3, symbol, reason="too late")


@pytest.mark.slow
def test_a_row_released_from_quarantine_flows_and_changes_nothing_that_was_decided_without_it(case: Case, monkeypatch: pytest.MonkeyPatch):
    symbol = next(iter(case.held(D2)))
    here = (pl.col("symbol") == symbol) & (pl.col("session") == D3)
    case.put(bars=real_bars().with_columns(high=pl.when(here).then(pl.col("low")).otherwise("high")))
    case.root.days([D3])
    monkeypatch.setenv("DAGSTER_HOME", str(case.folder))
    monkeypatch.setenv("AFTERCLOSE_PROFILE", profile_of(case))
    monkeypatch.setenv("AFTERCLOSE_DATA", str(case.folder / "data"))

    def typed(*words: str) -> Result:
        return CliRunner().invoke(app, ["quarantine", *words])

    def decided() -> tuple[object, ...]:
        root = case.root
        kept = ("alpha158", "scores", "target_weights", "orders", "fills", "positions", "daily_pnl", "daily_nav")
        return root.ledger.entries("paper"), root.ledger.orders("paper"), {name: root.lake.digest(name) for name in kept}

    assert f"{symbol} in {D3}" not in typed("show", str(D2), symbol).output  # that one is fine
    assert "r03_high_is_highest (block): expected" in typed("show", str(D3), symbol).output
    assert typed("release", str(D3), symbol).exit_code == 2  # a reason is needed
    assert typed("confirm", str(D3), symbol, "--reason", "looks wrong").exit_code == 0
    assert "Nothing" in typed("list", "--open").output
    before = decided()
    done = typed("release", str(D3), symbol, "--reason", "the high is misprinted, the close is right")
    assert f"backfill --from {D3}" in done.output
    assert "misprinted" in " ".join(typed("list").output.split())
    case.root.days([D3])
    assert decided() == before
    accepted = case.root.lake.read("accepted_bars", first=D3, last=D3)
    assert symbol in accepted["symbol"].to_list()
    assert case.root.lake.read("quarantined_bars", first=D3, last=D3).is_empty()
    assert case.root.lake.read("bar_findings", first=D3, last=D3)["severity"].to_list() == ["warn"]
    assert symbol in case.root.lake.read("adjusted_bars", first=D3, last=D3)["symbol"].to_list()

    case.root.days([D4])  # the book's next decision sees the row
    root, chain = case.root, build_chain(case.settings, bar_source(case.settings, exchange_calendar()), SystemClock())
    window = root.lake.read("adjusted_bars", last=D4)
    assert_frame_equal(
        root.lake.read("alpha158", first=D4, last=D4),
        alpha158_features(window, exchange_calendar(), D4, D4).sort("symbol"),
        check_exact=True,
    )
    gated = ("bar_findings", "accepted_bars", "quarantined_bars")
    daily = {name: root.lake.digest(name) for name in gated}
    gate_bars(chain, root.lake, root.ledger, D1, D4, chain.instant(root.lake, root.ledger, D4))  # as the history does it
    assert {name: root.lake.digest(name) for name in gated} == daily
    case.root.days([D3, D4])
    assert [v["verdict"] for *_, v in root.ledger.audit("quarantine")] == ["confirm", "release"]
