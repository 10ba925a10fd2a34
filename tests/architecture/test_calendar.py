from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files

import pytest

from adapters.freeze_calendar import frozen_xnys
from quant.calendar import exchange_calendar
from quant.errors import InputError


@pytest.mark.filterwarnings("ignore:Series.values returning an ndarray that drops timezone")  # exchange_calendars on pandas 3.1
def test_the_frozen_calendar_is_the_one_of_exchange_calendars() -> None:
    assert json.loads((files("quant") / "xnys.json").read_text(encoding="utf-8")) == frozen_xnys()


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        (date(2001, 9, 11), date(2001, 9, 14), "attack on New York"),
        (date(2004, 6, 11), date(2004, 6, 11), "mourning for Reagan"),
        (date(2012, 10, 29), date(2012, 10, 30), "hurricane Sandy"),
        (date(2018, 12, 5), date(2018, 12, 5), "mourning for Bush"),
        (date(2022, 6, 20), date(2022, 6, 20), "Juneteenth, observed"),
    ],
)
def test_days_on_which_new_york_did_not_trade_are_no_sessions(first: date, last: date, why: str) -> None:
    calendar = exchange_calendar()
    assert calendar.sessions(first, last) == [], why
    assert calendar.is_session(first - timedelta(days=1)) or calendar.is_session(first - timedelta(days=3))


def test_the_day_after_thanksgiving_closes_early() -> None:
    assert exchange_calendar().close_at(date(2012, 11, 23)) == datetime(2012, 11, 23, 18, 0, tzinfo=UTC)  # 13:00 New York
    assert exchange_calendar().close_at(date(2012, 11, 26)) == datetime(2012, 11, 26, 21, 0, tzinfo=UTC)


def test_a_year_has_as_many_sessions_as_the_exchange_says() -> None:
    calendar = exchange_calendar()
    counted = {year: len(calendar.sessions(date(year, 1, 1), date(year, 12, 31))) for year in (2001, 2012, 2020, 2021)}
    assert counted == {2001: 248, 2012: 250, 2020: 253, 2021: 252}


@pytest.mark.parametrize("day", [date(1989, 12, 29), date(2036, 1, 2)])
def test_a_day_beyond_the_frozen_years_is_refused_instead_of_answered_with_the_nearest_session(day: date) -> None:
    calendar = exchange_calendar()
    for ask in (calendar.on_or_before, calendar.on_or_after):
        with pytest.raises(InputError, match="1990-01-02 to 2035-12-31"):
            ask(day)
    with pytest.raises(InputError, match="make calendar"):
        calendar.shift(date(2035, 12, 31), 1)
