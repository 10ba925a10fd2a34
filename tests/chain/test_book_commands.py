"""`afterclose orders|fills|positions|pnl`, in processes of their own, on a book that is written beforehand."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from adapters.clock import SystemClock
from adapters.lake import open_lake
from adapters.ledger import open_ledger
from quant.tables import TABLES
from quant.trading.orders import Leg, Order, OrderEvent, OrderState, Side
from tests.chain.command_line import PROFILE, afterclose

FIRST, LAST = date(2013, 2, 26), date(2013, 2, 27)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile, and a root with orders of two sessions, of which the first was filled since, and a position."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "mine.toml").write_text(PROFILE)
    root = folder / "root"
    root.mkdir()
    schema = TABLES["positions"].schema
    held = {"book": "paper", "session": LAST, "symbol": "AAPL", "quantity": Decimal(5), "mark": Decimal("444.57"), "weight": 0.2}
    row = {**dict.fromkeys(schema, None), "market_value": Decimal("2222.85"), "stale": False, **held}
    open_lake(root).replace("positions", pl.DataFrame([row], schema=schema), first=LAST, last=LAST)
    ledger = open_ledger(f"sqlite:///{root / 'ledger.sqlite'}", SystemClock())
    orders = [
        Order(
            book="paper",
            session=session,
            symbol="AAPL",
            leg=Leg.OPEN,
            side=Side.BUY,
            quantity=Decimal(5),
            reference_price=Decimal("444.57"),
            state=OrderState.PENDING_NEW,
        )
        for session in (FIRST, LAST)
    ]
    ledger.intend(orders)
    for event in (OrderEvent.SEND, OrderEvent.ACCEPT):
        ledger.advance("paper", {order.client_order_id: event for order in orders})
    ledger.advance("paper", {orders[0].client_order_id: OrderEvent.FILL})
    return folder


@pytest.mark.slow
@pytest.mark.smoke
def test_orders_show_the_state_that_they_have_now(folder: Path) -> None:
    shown = afterclose(folder / "root", "orders", "--from", str(FIRST), "--json", profile=folder / "mine.toml")
    assert shown.returncode == 0, shown.stderr
    assert [(row["session"], row["state"], row["quantity"]) for row in json.loads(shown.stdout)] == [
        (str(FIRST), "filled", "5.000000000"),
        (str(LAST), "accepted", "5.000000000"),
    ]


@pytest.mark.slow
def test_a_table_is_for_people_or_for_programs_and_shows_the_newest_session(folder: Path) -> None:
    mine = {"profile": folder / "mine.toml"}
    newest = afterclose(folder / "root", "orders", "--csv", **mine)
    assert [row["session"] for row in csv.DictReader(io.StringIO(newest.stdout))] == [str(LAST)]
    assert "444.57" in afterclose(folder / "root", "positions", **mine).stdout
    assert afterclose(folder / "root", "fills", **mine).stdout == "No fills.\n"
    assert json.loads(afterclose(folder / "root", "pnl", "--json", **mine).stdout) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["orders", "--state", "bought"], "expected one of accepted, "),
        (["fills", "--session", "2013-02-26", "--to", "2013-02-27"], "expected --session, or --from and --to"),
        (["pnl", "--from", "2013-02-27", "--to", "2013-02-26"], "expected --from not after --to"),
        (["positions", "--json", "--csv"], "expected one of --json and --csv"),
        (["fills", "--book", "nope"], "expected one of paper, backtest"),
    ],
)
def test_a_wrong_question_about_a_book_is_answered_with_what_to_do(folder: Path, words: list[str], message: str) -> None:
    answer = afterclose(folder / "root", *words, profile=folder / "mine.toml")
    assert answer.returncode == 2
    assert message in answer.stderr


@pytest.mark.slow
def test_without_a_book_the_answer_says_how_to_make_one(folder: Path, tmp_path: Path) -> None:
    answer = afterclose(tmp_path / "none", "orders", profile=folder / "mine.toml")
    assert answer.returncode == 2
    assert "run `afterclose demo`" in answer.stderr
