"""On the ex-date of a recorded split the raw price moves by it: if not, the split or the price is wrong."""

from __future__ import annotations

import polars as pl

from quant.quality.moves import Kind
from quant.quality.rule import GateView, Rule, Severity, change, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.jumps.filter(pl.col("kind") == Kind.SPLIT_NOT_SEEN)
    limit = view.settings.split_move_ratio
    return findings(
        bad,
        expected=pl.format(
            f"an open or close within {limit:.0%} of {{}} ({{}}) / {{}} new shares per old, dividends of {{}} allowed for",
            "before_close",
            "before_session",
            pl.col("split").round_sig_figs(6),
            pl.col("dividend").round(6) + 0.0,
        ),
        observed=pl.format("open {}, close {}: {} and {} from it", "open", "close", change(pl.col("open_ratio")), change(pl.col("ratio"))),
    )


RULE = Rule(id="r15_split_not_seen", severity=Severity.BLOCK, find=_find)
