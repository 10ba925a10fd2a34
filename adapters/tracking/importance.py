"""Feature importance as a picture."""

# pyright: reportUnknownMemberType=false
# (Matplotlib leaves its keyword arguments unannotated.)

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

BARS = 30


def importance_chart(importance: pl.DataFrame, *, title: str) -> Figure:
    """Horizontal bars of the BARS features (feature, gain) with the highest gain, highest on top. Needs no display."""
    from matplotlib.figure import Figure

    top = importance.sort("gain", "feature", descending=[True, False]).head(BARS).reverse()
    figure = Figure(figsize=(7, 1 + 0.22 * max(top.height, 1)), layout="constrained")
    axes = figure.subplots()
    axes.barh(top["feature"].to_list(), top["gain"].to_list(), color="#3b6ea5")
    axes.set_xlabel("gain")
    axes.set_title(title)
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
