"""A price of a hundred times, or a hundredth of, the one before is in other units: cents for dollars, pence for pounds."""

from __future__ import annotations

import polars as pl

from quant.quality.moves import Kind
from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.jumps.filter(pl.col("kind") == Kind.MIX_UP)
    near = view.settings.scale_tolerance
    return findings(
        bad,
        expected=pl.format(f"a close not within {near:.0%} of 100 or 0.01 times {{}} ({{}})", "from_close", "from_session"),
        observed=pl.format("open {}, close {}: {} times", "open", "close", pl.col("times").round_sig_figs(4)),
    )


RULE = Rule(id="r14_unit_mix_up", severity=Severity.BLOCK, find=_find)
