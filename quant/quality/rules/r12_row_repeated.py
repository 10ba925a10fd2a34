"""Four prices that all equal those of the session before are yesterday's row; in much of a session, yesterday's feed."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import PRICES, GateView, Rule, Severity, findings, values_of


def _find(view: GateView) -> pl.DataFrame:
    same = pl.all_horizontal(pl.col(name) == pl.col(f"before_{name}") for name in PRICES)
    traded = (pl.col("high") > pl.col("low")) | (pl.col("volume") == pl.col("before_volume"))  # one price twice happens, four do not
    bad = view.moves.filter(same & traded)
    return findings(bad, expected=pl.format("other prices than those of {}", "before_session"), observed=values_of(*PRICES, "volume"))


RULE = Rule(id="r12_row_repeated", severity=Severity.WARN, find=_find, tells_of_feed=True)
