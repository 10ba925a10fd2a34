"""Two sources have the same close; the further apart they are, the less either is believed.

Finds nothing where only one source is known.
"""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    warn, block = view.settings.peer_warn_ratio, view.settings.peer_block_ratio
    peers = view.beside.peer_closes.select("session", "symbol", peer="close").filter(pl.col("peer").is_finite(), pl.col("peer") > 0)
    both = view.rows.select("session", "symbol", "close").join(peers, on=["session", "symbol"])
    apart = (pl.col("close") / pl.col("peer") - 1).abs()
    bad = both.filter(apart > warn)
    severity = pl.when(apart > block).then(pl.lit(Severity.BLOCK.value)).otherwise(pl.lit(Severity.WARN.value))
    return findings(
        bad,
        expected=pl.format(f"a close within {warn:.2%} of the other source's {{}}", "peer"),
        observed=pl.format("close {}: {} % apart", "close", (apart * 100).round(2)),
        severity=severity,
    )


RULE = Rule(id="r19_sources_differ", severity=Severity.BLOCK, find=_find)
