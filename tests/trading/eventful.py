"""Random sessions in which symbols are renamed, delisted and vanish, beside the splits, dividends and gaps of the simulation."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from quant.trading.market import CorporateAction, SessionMarket
from tests.trading.simulation import KNOWN, markets

if TYPE_CHECKING:
    from collections.abc import Mapping

RENAMED, DELISTED, VANISHED = "AAA", "BBB", "CCC"


def eventful_markets(seed: int, *, sessions: int = 30) -> list[SessionMarket]:
    """AAA becomes NEW, BBB is delisted, CCC is no longer quoted, each from a session of its own on; some dividends have a pay date."""
    chance = random.Random(seed)
    days = markets(seed, sessions=sessions, split_every=0.08)
    renamed, delisted, vanished = (chance.randrange(2, sessions) for _ in range(3))
    last = next((day.closes[DELISTED] for day in reversed(days[:delisted]) if DELISTED in day.closes), 1.0)
    made: list[SessionMarket] = []
    for place, day in enumerate(days):
        gone = {DELISTED} if place >= delisted else set[str]()
        gone |= {VANISHED} if place >= vanished else set()

        def shown(values: Mapping[str, float], gone: set[str] = gone, place: int = place) -> dict[str, float]:
            names = {RENAMED: "NEW"} if place >= renamed else {}
            return {names.get(symbol, symbol): value for symbol, value in values.items() if symbol not in gone}

        def due(actions: object, of: int) -> tuple[CorporateAction, ...]:
            kept: list[CorporateAction] = []
            for action in actions:  # type: ignore[attr-defined]
                if (action.symbol == DELISTED and of > delisted) or (action.symbol == VANISHED and of >= vanished):
                    continue
                pay = days[min(of + len(action.symbol + action.kind) % 5, sessions - 1)].session if action.value > 0.3 else None
                name = "NEW" if action.symbol == RENAMED and of > renamed else action.symbol
                kept.append(replace(action, symbol=name, pay_date=pay if action.kind == "dividend" else None))
            ex_date = days[of].session if of < len(days) else None
            if ex_date and of == renamed:
                kept.append(CorporateAction(symbol=RENAMED, ex_date=ex_date, kind="rename", value=1.0, known_at=KNOWN, new_symbol="NEW"))
            if ex_date and of == delisted:
                kept.append(CorporateAction(symbol=DELISTED, ex_date=ex_date, kind="delisting", value=round(last * 0.9, 4), known_at=KNOWN))
            return tuple(kept)

        made.append(
            replace(
                day,
                opens=shown(day.opens),
                closes=shown(day.closes),
                median_volume=shown(day.median_volume),
                prior_median_volume=shown(day.prior_median_volume),
                actions=due(day.actions, place),
                upcoming=due(day.upcoming, place + 1),
            )
        )
    return made
