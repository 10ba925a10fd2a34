from __future__ import annotations

from datetime import date, timedelta
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from quant.calendar import exchange_calendar
from quant.errors import ContractError
from quant.market.contracts import checked
from quant.market.securities import endings, listings
from quant.quality.gate import GateResult, gate, stopped_sessions
from quant.quality.release import RELEASES
from quant.quality.rule import Beside, GateSettings
from quant.tables import TABLES
from tests.quality.rows import Row, actions, bar, raw, sound_bars, times

if TYPE_CHECKING:
    from collections.abc import Callable

XNYS = exchange_calendar()
THU, FRI = "2013-02-28", "2013-03-01"
THURSDAY, FRIDAY = date(2013, 2, 28), date(2013, 3, 1)
NO_CONTEXT = raw()
FIVE = "ABCDE"


def judged(
    rows: pl.DataFrame,
    first: date = THURSDAY,
    last: date = FRIDAY,
    *,
    context: pl.DataFrame = NO_CONTEXT,
    thresholds: GateSettings = GateSettings(),  # noqa: B008
    absent: frozenset[str] = frozenset(),
    last_closed: date = FRIDAY,
    beside: Beside | None = None,
    releases: pl.DataFrame | None = None,
) -> GateResult:
    return gate(
        rows,
        first=first,
        last=last,
        context=context,
        calendar=XNYS,
        settings=thresholds,
        absent=absent,
        last_closed_session=last_closed,
        beside=beside,
        releases=releases,
    )


def rows_of(*, symbols: str = FIVE, **changed: dict[str, float | None]) -> pl.DataFrame:
    """Thursday and Friday of the symbols; ``changed``: symbol -> changes to its Friday."""
    return raw(*(bar(day, symbol, **(changed.get(symbol, {}) if day == FRI else {})) for day, symbol in product((THU, FRI), symbols)))


def accepted_on_friday(result: GateResult) -> list[str]:
    return result.accepted.filter(pl.col("session") == FRIDAY)["symbol"].to_list()


def test_the_three_results_are_the_tables():
    result = judged(rows_of(A={"low": -1.0}))
    checked(result.findings, TABLES["bar_findings"])
    checked(result.accepted, TABLES["accepted_bars"])
    checked(result.quarantined, TABLES["quarantined_bars"])


def test_a_negative_price_is_quarantined_and_the_rest_of_the_session_flows():
    result = judged(rows_of(B={"low": -9.0}))
    assert accepted_on_friday(result) == ["A", "C", "D", "E"]
    assert result.quarantined.select("session", "symbol", "row", "low", "rules").rows() == [(FRIDAY, "B", 0, -9.0, "r05_prices_positive")]
    assert result.findings["severity"].to_list() == ["block"]
    assert result.accepted.filter(pl.col("session") == THURSDAY).height == 5


def test_all_rows_of_a_duplicate_key_are_quarantined_with_their_numbers():
    rows = pl.concat([rows_of(), raw(*[bar(FRI, "C", close=close) for close in (10.1, 10.2)]).with_columns(digest=pl.col("digest") + "x")])
    result = judged(rows)
    assert result.quarantined.select("symbol", "row", "close").rows() == [("C", 0, 10.1), ("C", 1, 10.2), ("C", 2, 10.5)]
    assert accepted_on_friday(result) == ["A", "B", "D", "E"]


def test_a_row_names_every_rule_that_fired():
    result = judged(rows_of(A={"low": -9.0, "volume": -1.0}))
    assert result.quarantined["rules"].item() == "r05_prices_positive,r06_volume_not_negative"


def test_a_missing_bar_has_a_finding_but_no_row():
    rows = rows_of().filter(~((pl.col("symbol") == "A") & (pl.col("session") == FRIDAY)))
    result = judged(rows)
    assert result.quarantined.is_empty()
    assert result.findings.select("session", "symbol", "rule").rows() == [(FRIDAY, "A", "r09_missing_session")]


def test_two_of_five_bad_symbols_are_a_feed_fault_and_the_whole_session_stops():
    result = judged(rows_of(A={"low": -9.0}, B={"volume": -1.0}))
    assert stopped_sessions(result.findings) == [FRIDAY]
    assert accepted_on_friday(result) == []
    assert result.accepted.filter(pl.col("session") == THURSDAY).height == 5
    assert result.quarantined.select("symbol", "rules").rows() == [
        ("A", "r05_prices_positive,r21_feed_fault"),
        ("B", "r06_volume_not_negative,r21_feed_fault"),
        *((symbol, "r21_feed_fault") for symbol in "CDE"),
    ]


@pytest.mark.parametrize("symbols", ["AB", "ABC", "ABCD", "ABCDE"])
def test_one_bad_symbol_is_no_feed_fault_however_few_there_are(symbols: str):
    assert stopped_sessions(judged(rows_of(symbols=symbols, A={"low": -9.0})).findings) == []


def test_exactly_a_fifth_is_no_feed_fault_and_more_is():
    ten = "ABCDEFGHIJ"
    assert stopped_sessions(judged(rows_of(symbols=ten, A={"low": -9.0}, B={"low": -9.0})).findings) == []
    assert stopped_sessions(judged(rows_of(symbols=ten, A={"low": -9.0}, B={"low": -9.0}, C={"low": -9.0})).findings) == [FRIDAY]


def test_missing_symbols_count_towards_a_feed_fault():
    rows = rows_of(A={"low": -9.0}).filter(~((pl.col("symbol") == "B") & (pl.col("session") == FRIDAY)))
    assert stopped_sessions(judged(rows).findings) == [FRIDAY]


def test_a_session_without_any_row_is_a_feed_fault():
    result = judged(rows_of().filter(pl.col("session") == THURSDAY))
    assert stopped_sessions(result.findings) == [FRIDAY]
    stops = result.findings.filter(pl.col("severity") == "stop").select("rule", "observed").rows()
    assert stops == [("r20_universe_shrinks", "0 symbols, 100.0 % fewer"), ("r21_feed_fault", "5 of 5 faulty (100.0 %)")]


def test_thresholds_are_settings():
    strict = GateSettings(feed_fault_ratio=0.0, feed_fault_min_symbols=1)
    assert stopped_sessions(judged(rows_of(A={"low": -9.0}), thresholds=strict).findings) == [FRIDAY]
    rows = rows_of().filter(~((pl.col("symbol") == "A") & (pl.col("session") == FRIDAY)))
    context = raw(bar("2013-02-27", "Z"))
    assert set(judged(rows, context=context).findings["symbol"]) == {"A", "Z", "*"}
    assert judged(rows, FRIDAY, context=context, thresholds=GateSettings(active_sessions=1)).findings.is_empty()


@pytest.mark.parametrize(
    "wrong", [{"feed_fault_ratio": 1.5}, {"active_sessions": 0}, {"feed_fault_min_symbols": 0}, {"jump_ratio": 1.0}, {"typo": 1}]
)
def test_a_setting_out_of_range_or_unknown_is_refused(wrong: dict[str, float]):
    with pytest.raises(ValidationError):
        GateSettings.model_validate(wrong)


def test_an_all_null_column_stops_the_session_unless_it_is_declared_absent():
    rows = rows_of().with_columns(vwap=pl.lit(None, pl.Float64))
    assert stopped_sessions(judged(rows).findings) == [THURSDAY, FRIDAY]
    flows = judged(rows, absent=frozenset({"vwap"}))
    assert flows.findings.is_empty()
    assert flows.accepted.height == 10
    assert stopped_sessions(judged(rows_of().with_columns(close=pl.lit(None, pl.Float64))).findings) == [THURSDAY, FRIDAY]


def test_a_wrong_type_is_refused_by_the_contract():
    with pytest.raises(ContractError, match="expected volume of type Float64 in raw_bars, found Int64"):
        judged(rows_of().with_columns(pl.col("volume").cast(pl.Int64)))


def test_days_outside_the_range_are_not_judged():
    result = judged(rows_of(A={"low": -9.0}), FRIDAY, context=rows_of())
    assert result.accepted["session"].unique().to_list() == [FRIDAY]
    assert result.findings.height == 1


def test_context_of_the_sessions_judged_does_not_hide_a_missing_bar():
    rows = rows_of().filter(~((pl.col("symbol") == "A") & (pl.col("session") == FRIDAY)))
    assert judged(rows, context=rows_of()).findings["symbol"].to_list() == ["A"]


def test_stray_rows_on_a_day_without_a_session_do_not_count_as_a_feed_fault():
    weekend = raw(*(bar("2013-03-02", symbol) for symbol in FIVE)).with_columns(digest=pl.col("digest") + "x")
    result = judged(pl.concat([rows_of(), weekend]), last=date(2013, 3, 3))
    assert stopped_sessions(result.findings) == []
    assert result.quarantined.height == 5
    assert result.accepted.height == 10


# Faults on a small market of sixteen sessions around a weekend and a holiday (2013-02-18); a verdict reads nine sessions before its own.
DAYS = XNYS.sessions(date(2013, 2, 6), date(2013, 2, 28))
SHORT = GateSettings(volume_sessions=5, hold_sessions=2, market_min_symbols=4)
CLOSED = DAYS[-2]
faults: dict[str, Callable[[Row], list[Row]]] = {
    "missing": lambda row: [],
    "doubled": lambda row: [row, {**row, "close": 10.4}],
    "negative": lambda row: [{**row, "low": -1.0}],
    "null": lambda row: [{**row, "open": None}],
    "nan": lambda row: [{**row, "high": float("nan")}],
    "crossed": lambda row: [{**row, "high": 1.0}],
    "weekend": lambda row: [{**row, "session": date(2013, 2, 17)}],
    "holiday": lambda row: [row, {**row, "session": date(2013, 2, 18), "volume": -5.0}],
    "gone": lambda row: [row],
    "halved": lambda row: [times(row, 0.5, 2)],
    "hundredfold": lambda row: [times(row, 100)],
    "crashed": lambda row: [times(row, 0.59, 8)],
    "repeated": lambda row: [{**row, "open": 10.0}],
    "quiet": lambda row: [{**row, "volume": 0.0}],
    "busy": lambda row: [{**row, "volume": 60_000.0}],
}
cells = st.tuples(st.integers(0, len(DAYS) - 1), st.sampled_from(FIVE))


splits = st.dictionaries(cells, st.sampled_from([2.0, 0.5, 1.5]), max_size=3)
Ends = dict[str, tuple[int, str]]  # of a symbol: the session from which on it is not its company's, and that one's new symbol or ""
endings_of = st.dictionaries(st.sampled_from(FIVE), st.tuples(st.integers(1, len(DAYS) - 1), st.sampled_from(["", "new"])), max_size=3)
levels = st.dictionaries(cells, st.sampled_from([2.0, 0.5, 1.5, 0.01]), max_size=3)


def panel(
    at: dict[tuple[int, str], str],
    level: dict[tuple[int, str], float],
    listed: dict[str, int] | None = None,
    delisted: dict[str, int] | None = None,
    ends: Ends | None = None,
) -> pl.DataFrame:
    """``at``: faults of one row; ``level``: new shares per old from a session on, recorded or not. A symbol delisted by ``ends`` is
    used again at once.
    """

    def rows(n: int, symbol: str) -> list[Row]:
        new = prod(value for (since, whose), value in level.items() if whose == symbol and since <= n)
        return faults[at.get((n, symbol), "gone")](times(bar(str(DAYS[n]), symbol), 1 / new, new))

    there = [
        (n, symbol)
        for n, symbol in product(range(len(DAYS)), FIVE)
        if (listed or {}).get(symbol, 0) <= n <= (delisted or {}).get(symbol, 99)
    ]
    bars = raw(*(row for n, symbol in there for row in rows(n, symbol)))
    for symbol, (n, new) in (ends or {}).items():
        moved = (pl.col("symbol") == symbol) & (pl.col("session") >= DAYS[n])
        bars = bars.with_columns(symbol=pl.when(moved).then(pl.lit(symbol + new)).otherwise("symbol"))
    return bars


def recorded(at: dict[tuple[int, str], float], ends: Ends | None = None, *, through: date = DAYS[-1]) -> Beside:
    """The splits and endings that go ex up to ``through``."""
    split = [(str(DAYS[n]), symbol, "split", value) for (n, symbol), value in at.items()]
    renamed = [(str(DAYS[n]), symbol, "rename", 1.0, symbol + new) for symbol, (n, new) in (ends or {}).items() if new]
    delisted = [(str(DAYS[n]), symbol, "delisting", 1.0) for symbol, (n, new) in (ends or {}).items() if not new]
    known = actions(*split, *renamed, *delisted).filter(pl.col("ex_date") <= through)
    return Beside(actions=known, listings=listings(endings(known), XNYS))


@settings(max_examples=6)
@given(
    at=st.dictionaries(cells, st.sampled_from(sorted(faults)), min_size=3, max_size=25),
    level=levels,
    split=splits,
    listed=st.dictionaries(st.sampled_from(FIVE), st.integers(0, 6)),
    delisted=st.dictionaries(st.sampled_from(FIVE), st.integers(3, 9)),
    ends=endings_of,
)
@example(
    at={(8, "A"): "busy"}, level={(8, "A"): 2.0}, split={}, listed={}, delisted={}, ends={}
)  # held or not: by the volumes before the jump
def test_a_range_gives_the_rows_that_its_sessions_give_one_by_one(
    at: dict[tuple[int, str], str],
    level: dict[tuple[int, str], float],
    split: dict[tuple[int, str], float],
    listed: dict[str, int],
    delisted: dict[str, int],
    ends: Ends,
):
    rows, known = panel(at, level, listed, delisted, ends), recorded(split, ends)
    whole = judged(rows, DAYS[0], DAYS[-1], last_closed=CLOSED, thresholds=SHORT, beside=known)
    starts = [DAYS[0], *(day + timedelta(days=1) for day in DAYS[:-1])]
    parts = [
        judged(rows, first, last, context=rows, last_closed=CLOSED, thresholds=SHORT, beside=known)
        for first, last in zip(starts, DAYS, strict=True)
    ]
    for table in ("findings", "accepted", "quarantined"):
        assert_frame_equal(pl.concat([getattr(part, table) for part in parts]), getattr(whole, table), check_exact=True)
    assert whole.accepted.height + whole.quarantined.height == rows.height


@settings(max_examples=8)
@given(
    at=st.dictionaries(cells, st.sampled_from(sorted(faults)), min_size=3, max_size=25),
    level=levels,
    split=splits,
    ends=endings_of,
    until=st.integers(0, 14),
)
def test_a_verdict_knows_no_later_session(
    at: dict[tuple[int, str], str], level: dict[tuple[int, str], float], split: dict[tuple[int, str], float], ends: Ends, until: int
):
    rows, known, last = panel(at, level, ends=ends), recorded(split, ends), DAYS[until]
    early = recorded(split, ends, through=last)
    whole = judged(rows, DAYS[0], DAYS[-1], last_closed=CLOSED, thresholds=SHORT, beside=known)
    then = judged(rows.filter(pl.col("session") <= last), DAYS[0], last, last_closed=CLOSED, thresholds=SHORT, beside=early)
    for table in ("findings", "accepted", "quarantined"):
        assert_frame_equal(getattr(then, table), getattr(whole, table).filter(pl.col("session") <= last), check_exact=True)


@settings(max_examples=8)
@given(
    at=st.dictionaries(cells, st.sampled_from(sorted(faults)), min_size=3, max_size=25),
    level=levels,
    split=splits,
    power=st.integers(-9, 9),
    seed=st.integers(0, 99),
)
def test_neither_the_unit_of_prices_nor_the_order_of_rows_changes_a_verdict(
    at: dict[tuple[int, str], str], level: dict[tuple[int, str], float], split: dict[tuple[int, str], float], power: int, seed: int
):
    rows, known = panel(at, level), recorded(split)
    scaled = rows.with_columns(pl.col("open", "high", "low", "close", "vwap") * 2.0**power).sample(fraction=1, shuffle=True, seed=seed)
    one, other = (judged(frame, DAYS[0], DAYS[-1], thresholds=SHORT, beside=known) for frame in (rows, scaled))
    verdict = ("session", "symbol", "rule", "severity")
    assert_frame_equal(one.findings.select(verdict), other.findings.select(verdict))
    assert_frame_equal(one.accepted.select("session", "symbol"), other.accepted.select("session", "symbol"))


def test_a_symbol_that_was_renamed_or_delisted_is_not_missed_from_then_on():
    ended = Beside(actions=actions((FRI, "B", "rename", 1.0, "D"), (THU, "C", "delisting", 10.0)))
    rows = rows_of(symbols="AD").vstack(raw(bar(THU, "B")).with_columns(digest=pl.lit("x")))
    context = raw(*(bar("2013-02-27", symbol) for symbol in "CD"))
    gone = judged(rows, context=context, beside=ended)
    assert gone.findings.is_empty()
    missed = judged(rows, context=context).findings.filter(pl.col("symbol") != "*").select("session", "symbol").rows()
    assert missed == [(THURSDAY, "C"), (FRIDAY, "B"), (FRIDAY, "C")]


def test_a_renamed_symbol_is_missed_under_its_new_name():
    renamed = Beside(actions=actions((THU, "OLD", "rename", 1.0, "MID"), (FRI, "MID", "rename", 1.0, "NEW"), (FRI, "B", "delisting", 1.0)))
    context = raw(*sound_bars("OLD", before=THU), *sound_bars("B", before=THU))
    found = judged(raw(bar(THU, "B")), context=context, beside=renamed).findings
    missed = found.filter(pl.col("rule") == "r09_missing_session").select("session", "symbol", "observed").rows()
    assert missed == [(THURSDAY, "MID", "no row, the last one is of 2013-02-27"), (FRIDAY, "NEW", "no row, the last one is of 2013-02-27")]


def test_the_first_bar_after_a_rename_is_held_to_the_last_one_under_the_old_symbol():
    context = raw(*sound_bars("OLD", before=FRI, sessions=8))
    renamed = Beside(actions=actions((FRI, "OLD", "rename", 1.0, "NEW")))
    rows = raw(times(bar(FRI, "NEW"), 0.5, 2.0))
    found = judged(rows, first=FRIDAY, context=context, beside=renamed).findings
    assert found.select("symbol", "rule").rows() == [("NEW", "r16_split_suspect")]
    assert "like 2:1 from 10.5 (2013-02-28)" in found["expected"].item()
    assert judged(rows, first=FRIDAY, context=context, beside=Beside()).findings.filter(pl.col("symbol") == "NEW").is_empty()


def test_a_split_under_the_old_symbol_explains_the_first_bar_under_the_new_one():
    context = raw(*sound_bars("OLD", before=FRI, sessions=8))
    known = Beside(actions=actions((FRI, "OLD", "rename", 1.0, "NEW"), (FRI, "OLD", "split", 2.0)))
    assert judged(raw(times(bar(FRI, "NEW"), 0.5, 2.0)), first=FRIDAY, context=context, beside=known).findings.is_empty()


def test_a_symbol_that_is_used_again_is_not_compared_with_the_company_that_had_it():
    context = raw(*sound_bars("A", before=THU, sessions=8))
    known = Beside(actions=actions((THU, "A", "delisting", 10.0)))
    rows = raw(times(bar(FRI), 4.0))
    assert judged(rows, first=FRIDAY, context=context, beside=known).findings.is_empty()
    assert judged(rows, first=FRIDAY, context=context).findings["rule"].to_list() == ["r16_split_suspect"]


def test_a_symbol_that_is_used_again_is_told_for_as_long_as_it_takes_to_be_somebody_elses():
    days = XNYS.sessions(date(2013, 2, 1), FRIDAY)
    rows = raw(*(bar(str(day), close=10.5 + n / 100) for n, day in enumerate(days)))
    ended = pl.DataFrame({"symbol": ["A"], "listed": [None], "delisted": [days[3]]}, schema=Beside().listings.schema)
    whole = judged(rows, days[0], days[-1], beside=Beside(listings=ended)).findings
    assert whole["rule"].unique().to_list() == ["r24_not_listed"]
    assert whole["session"].to_list() == days[4:9]
    parts = [judged(rows, day, day, context=rows.filter(pl.col("session") < day), beside=Beside(listings=ended)).findings for day in days]
    assert pl.concat(parts).equals(whole)


def test_a_symbol_that_is_somebody_elses_is_not_told_again_for_a_bar_that_is_missing():
    days = XNYS.sessions(date(2013, 1, 2), FRIDAY)
    rows = raw(*(bar(str(day), close=10.5 + n / 100) for n, day in enumerate(days) if n not in (20, 21, 30)))
    ended = pl.DataFrame({"symbol": ["A"], "listed": [None], "delisted": [days[3]]}, schema=Beside().listings.schema)
    found = judged(rows, days[0], days[-1], beside=Beside(listings=ended)).findings
    assert found.filter(pl.col("rule") == "r24_not_listed")["session"].to_list() == days[4:9]


def test_two_symbols_that_change_places_after_a_rename_are_told_by_the_symbols_that_they_trade_under():
    context = raw(*sound_bars("OLD", before=FRI, sessions=8), *(times(row, 3.0) for row in sound_bars("B", before=FRI, sessions=8)))
    known = Beside(actions=actions((FRI, "OLD", "rename", 1.0, "NEW")))
    found = judged(raw(times(bar(FRI, "NEW"), 3.0), bar(FRI, "B")), first=FRIDAY, context=context, beside=known).findings
    told = dict(zip(found["symbol"], found["expected"] + found["observed"], strict=True))
    assert "of NEW" in told["B"]
    assert "of B" in told["NEW"]


def test_a_finding_has_the_raw_row_that_was_judged_and_what_its_move_was_measured_by_as_evidence():
    context = raw(*sound_bars("A", before=FRI, sessions=8))
    found = judged(raw(times(bar(FRI), 0.5, 2.0)).with_columns(digest=pl.lit("0123456789abcdef")), first=FRIDAY, context=context).findings
    assert found["evidence"].to_list() == [
        "raw row 0123456789ab known 2013-03-04 00:00 UTC; close 10.5 in 2013-02-28 before it, volume 2.0 x its median"
    ]
    missing = judged(rows_of(symbols="A"), context=raw(*sound_bars("B", before=THU))).findings
    assert missing.filter(pl.col("symbol") == "B")["evidence"].unique().to_list() == ["1 rows received"]


def test_frames_in_any_number_of_chunks_are_judged_the_same():
    rows = rows_of(B={"high": 9.5}, C={"close": 30.0, "high": 31.0}, D={"volume": -1.0})
    context = raw(*(row for symbol in FIVE for row in sound_bars(symbol, before=THU, sessions=8)))
    whole = judged(rows, context=context)
    pieces = pl.concat([raw(), *(rows[n : n + 1] for n in range(rows.height)), raw()], rechunk=False)
    chunked = judged(pieces, context=pl.concat([raw(), context, raw()], rechunk=False))
    assert (chunked.findings.equals(whole.findings), chunked.accepted.equals(whole.accepted)) == (True, True)


def released(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    """(session, symbol, digest)."""
    made = [(date.fromisoformat(day), symbol, digest, None) for day, symbol, digest in rows]
    return pl.DataFrame(made, schema=RELEASES, orient="row")


def test_a_released_row_is_accepted_and_what_was_found_on_it_is_a_warning():
    rows = rows_of(B={"high": 9.5})
    digest = rows.filter(pl.col("session") == FRIDAY, pl.col("symbol") == "B")["digest"].item()
    result = judged(rows, releases=released((FRI, "B", digest)))
    assert accepted_on_friday(result) == list(FIVE)
    assert result.quarantined.is_empty()
    assert ("B", "r03_high_is_highest", "warn") in result.findings.select("symbol", "rule", "severity").rows()
    assert set(result.findings["severity"]) == {"warn"}


def test_a_release_is_of_the_row_that_was_looked_at_and_a_later_version_is_judged_anew():
    result = judged(rows_of(B={"high": 9.5}), releases=released((FRI, "B", "digest of an older version")))
    assert accepted_on_friday(result) == ["A", "C", "D", "E"]
    assert "block" in result.findings["severity"].to_list()


def test_of_duplicates_the_released_one_is_accepted_and_the_other_stays_out():
    twice = raw(*[bar(FRI, "C", close=close) for close in (10.1, 10.2)]).with_columns(digest=pl.col("digest") + "x")
    rows = pl.concat([rows_of(symbols="ABDE"), raw(bar(THU, "C")).with_columns(digest=pl.lit("y")), twice])
    result = judged(rows, releases=released((FRI, "C", "0001x")))
    assert result.accepted.filter(pl.col("symbol") == "C")["close"].to_list() == [10.5, 10.2]
    assert result.quarantined.select("symbol", "close", "rules").rows() == [("C", 10.1, "r01_key_unique")]


def test_a_released_row_does_not_count_as_a_fault_of_the_feed():
    rows = rows_of(A={"low": -1.0}, B={"high": 9.5})
    digest = rows.filter(pl.col("session") == FRIDAY, pl.col("symbol") == "B")["digest"].item()
    assert stopped_sessions(judged(rows).findings) == [FRIDAY]
    result = judged(rows, releases=released((FRI, "B", digest)))
    assert stopped_sessions(result.findings) == []
    assert accepted_on_friday(result) == ["B", "C", "D", "E"]


def test_a_session_that_was_stopped_flows_when_it_is_released_but_for_its_bad_rows():
    result = judged(rows_of(A={"low": -1.0}, B={"low": -1.0}), releases=released((FRI, "*", None)))
    assert stopped_sessions(result.findings) == []
    assert accepted_on_friday(result) == ["C", "D", "E"]
    assert result.quarantined["symbol"].to_list() == ["A", "B"]
