"""Rows that a person let through: what the gate found on them stays on record as a warning."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import WHOLE_SESSION, Severity

RELEASES = pl.Schema({"session": pl.Date, "symbol": pl.String, "digest": pl.String, "decided_through": pl.Date})
"""One row for each released row of raw_bars, by its digest: a later version of it is judged anew. Symbol "*" without a digest releases a
session that a feed fault stopped. decided_through: the newest session that was begun when it was released; it and earlier ones were decided
without the row."""
_KEY = ["session", "symbol"]


def in_force(releases: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The ``releases`` (RELEASES) of ``rows`` of raw_bars, and those of whole sessions."""
    return pl.concat([
        releases.filter(pl.col("symbol") == WHOLE_SESSION),
        releases.join(rows.select(*_KEY, "digest"), on=[*_KEY, "digest"], how="semi"),
    ])  # fmt: skip


def as_warnings(findings: pl.DataFrame, released: pl.DataFrame) -> pl.DataFrame:
    """``findings`` (rows of bar_findings) with those on ``released`` symbol-sessions and sessions made warnings."""
    if released.is_empty():
        return findings
    named = findings.join(released.select(*_KEY, let=pl.lit(value=True)).unique(), on=_KEY, how="left", maintain_order="left")
    severity = pl.when(pl.col("let").fill_null(value=False)).then(pl.lit(Severity.WARN.value)).otherwise("severity")
    return named.with_columns(severity=severity).select(findings.columns)


def unseen(rows: pl.DataFrame, released: pl.DataFrame) -> pl.DataFrame:
    """``rows`` (session, symbol, ...) without those that are there only because of a release."""
    if released.is_empty():
        return rows
    whole = released.filter(pl.col("symbol") == WHOLE_SESSION)["session"]
    return rows.join(released, on=_KEY, how="anti", maintain_order="left").filter(~pl.col("session").is_in(whole.implode()))
