"""A process that trades a book for one session at a broker apart from it, and that can be told at which step to die.

python -m tests.chaos.worker FOLDER URL decide|settle STEP

It is the product's own desk, ledger, inbox and Alpaca adapter; nothing in them knows of this. Each call that the desk makes of the ledger
or the broker is two steps, one before it and one after it; at number STEP (0: never) the process is killed by SIGKILL. Prints the steps.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import stamina

from adapters.brokers.alpaca import AlpacaAccess, AlpacaBroker
from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.ledger.inbox import open_inbox
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.trading.desk import Desk
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.rules import BookRules
from tests.fakes.broker_server import BARS, DAY, EVENING, NEXT

CALENDAR = exchange_calendar()
TARGETS = {"AAA": 0.3, "BBB": -0.2, "CCC": 0.1}
OPENS = {symbol: bar["open"] for symbol, bar in BARS.items()}
CLOSES = {symbol: bar["close"] for symbol, bar in BARS.items()}
VOLUMES = {symbol: bar["volume"] for symbol, bar in BARS.items()}
DEPOSIT = Decimal(1_000_000)
FREE = CostSettings(
    commission_per_share_usd=0,
    commission_minimum_usd=0,
    borrow_rate_annual=0,
    sec_fee_per_million_usd=0,
    taf_per_share_usd=0,
    taf_maximum_usd=0,
)
RULES = BookRules(
    costs=FREE,
    risk=RiskSettings(max_net_ratio=1, max_name_ratio=1, max_volume_ratio=1),
    convention=AdjustmentConvention.PREVIOUS_CLOSE,
    ledger=LedgerSettings(interest_debit_rate_annual=0),
)


class Watched:
    """An object whose calls are counted, and at one of which the process dies. Calls without a name here pass."""

    def __init__(self, inner: object, steps: list[str], die_at: int, names: tuple[str, ...]) -> None:
        self._inner, self._steps, self._die_at, self._names = inner, steps, die_at, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def watched(*args: object, **options: object) -> object:
            self._step(f"before {name}")
            done = found(*args, **options)
            self._step(f"after {name}")
            return done

        return watched

    def _step(self, what: str) -> None:
        self._steps.append(what)
        if len(self._steps) == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def market(session: Any, **changes: Any) -> SessionMarket:
    calm = SessionMarket(session=session, opens=OPENS, closes=CLOSES, median_volume=VOLUMES, prior_median_volume=VOLUMES)
    return replace(calm, **changes)


def desk_of(folder: Path, url: str, at: Any, *, steps: list[str] | None = None, die_at: int = 0, read_seconds: float = 2.0) -> Desk:
    clock, counted = FixedClock(at), [] if steps is None else steps
    database = f"sqlite:///{folder / 'ledger.sqlite'}"
    access = AlpacaAccess(url=url, connect_seconds=1, read_seconds=read_seconds, all_attempts_seconds=10)
    keys = AlpacaKeys(key_id="k", secret="s")
    broker = AlpacaBroker(access, lambda: keys, clock, lambda: open_inbox(database, clock), CALENDAR)
    ledger = open_ledger(database, clock)
    return Desk(
        book="paper",
        first_session=DAY,
        deposit=DEPOSIT,
        rules=RULES,
        calendar=CALENDAR,
        ledger=Watched(ledger, counted, die_at, ("post", "intend", "advance", "record_decision", "change_state")),  # type: ignore[arg-type]
        broker=Watched(broker, counted, die_at, ("submit", "find", "outcomes")),  # type: ignore[arg-type]
        clock=clock,
    )


def decide(
    desk: Desk,
    shown: SessionMarket | None = None,
    targets: Mapping[str, float] = TARGETS,
    blocked: Mapping[str, str] | None = None,
) -> None:
    """The decision of the session that is ``shown``, DAY by default. Without targets the book keeps what it has."""
    wanted = pl.DataFrame({"symbol": list(targets), "target_weight": list(targets.values())})
    desk.decide(shown or market(DAY), wanted, decision_at=desk.clock.now(), model_version="m", table_versions={}, blocked=blocked)


def main(folder: str, url: str, phase: str, step: str) -> None:
    steps: list[str] = []
    at = EVENING if phase == "decide" else EVENING + timedelta(days=1)
    with stamina.set_testing(True, attempts=5, cap=True):  # without the pauses
        desk = desk_of(Path(folder), url, at, steps=steps, die_at=int(step))
        if phase == "decide":
            decide(desk)
        else:
            desk.settle(market(NEXT))
    print("\n".join(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
