"""A close that jumps from the one before is explained by something, or is not believed: a crash has a volume, a market or a path.

Corporate actions are allowed for first. What then explains a jump, warns only: it goes back to where the price was before another jump;
the session traded its way there from the old price; the market moved, too; the volume is a crash's. Two symbols that jump to each other's
prices have changed places, whatever their volume.
"""

from __future__ import annotations

import polars as pl

from quant.quality.moves import Kind
from quant.quality.rule import GateView, Rule, Severity, change, findings

_EXPLAINED = {
    Kind.RETURNED: "back to the price before an earlier jump",
    Kind.TRADED: "traded all the way from the old price",
    Kind.MARKET: "the market moved, too",
    Kind.VOLUME: "with the volume of a crash or a rally",
}
_SWAPPED, _UNEXPLAINED = "the price of {} in the session before, and the reverse", "nothing explains it"


def _find(view: GateView) -> pl.DataFrame:
    bad = view.jumps.filter(pl.col("kind").is_in([*_EXPLAINED, Kind.SWAPPED, Kind.UNEXPLAINED]))
    swapped = pl.format(_SWAPPED, pl.col("other").fill_null("?"))
    told = pl.when(pl.col("kind") == Kind.SWAPPED).then(swapped).otherwise(pl.col("kind").replace_strict(_EXPLAINED, default=_UNEXPLAINED))
    volume = pl.format("{} x its median", pl.col("volume_ratio").round(1)).fill_null("unknown")
    warned = pl.col("kind").is_in(list(_EXPLAINED))
    return findings(
        bad,
        expected=pl.format(f"a close within {view.settings.jump_ratio:.0%} of {{}} ({{}}), or a reason", "before_close", "before_session"),
        observed=pl.format(
            "close {} ({}), open {} ({}), volume {}, market {}: {}",
            "close",
            change(pl.col("ratio")),
            "open",
            change(pl.col("open_ratio")),
            volume,
            change(pl.col("market").exp()),
            told,
        ),
        severity=pl.when(warned).then(pl.lit(Severity.WARN.value)).otherwise(pl.lit(Severity.BLOCK.value)),
    )


RULE = Rule(id="r13_unexplained_jump", severity=Severity.BLOCK, find=_find)
