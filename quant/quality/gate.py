"""The gate: every rule over the raw rows of some sessions, and the verdict on each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import polars as pl

import quant.quality.rules
from quant.market.contracts import checked
from quant.market.securities import endings
from quant.quality.moves import measured
from quant.quality.release import RELEASES, as_warnings, in_force
from quant.quality.rule import SEEN, WHOLE_SESSION, Beside, GateSettings, GateView, Rule, Severity
from quant.tables import TABLES

if TYPE_CHECKING:
    from datetime import date

    from quant.calendar import ExchangeCalendar

_KEY = ("session", "symbol")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The tables bar_findings, accepted_bars and quarantined_bars of the sessions judged, each sorted by its key."""

    findings: pl.DataFrame
    accepted: pl.DataFrame
    quarantined: pl.DataFrame


@cache
def rules() -> tuple[Rule, ...]:
    """The rule of every module in quant/quality/rules, by id."""
    names = sorted(module.name for module in iter_modules(quant.quality.rules.__path__))
    return tuple(import_module(f"quant.quality.rules.{name}").RULE for name in names)


def reasons() -> dict[str, str]:
    """Rule id -> why, the first line of the rule's file."""
    return {rule.id: (import_module(f"quant.quality.rules.{rule.id}").__doc__ or "").partition("\n")[0] for rule in rules()}


def gate(
    rows: pl.DataFrame,
    *,
    first: date,
    last: date,
    context: pl.DataFrame,
    calendar: ExchangeCalendar,
    settings: GateSettings,
    absent: frozenset[str],
    last_closed_session: date,
    beside: Beside | None = None,
    releases: pl.DataFrame | None = None,
) -> GateResult:
    """Judge ``rows`` of raw_bars (as of an instant) of the days first..last. A range gives the rows that its parts give, if days between
    sessions go with the session after them: judge D from the day after the session before D. No verdict depends on a later session.

    ``context`` has the SEEN columns of the bars received in the ``settings.earlier_sessions`` sessions before ``first``; more do no harm.
    ``beside`` is what else was known at the instant; from a rename or delisting among its actions on, the symbol is not expected for having
    been there before. ``releases`` (quant.quality.release) makes what is found on a row a warning; of duplicates the
    released one is accepted. Symbol-sessions with a blocking finding and whole sessions with a stopping one are quarantined, the rest
    accepted. ContractError if ``rows`` has not the columns and types of raw_bars.
    """
    known = beside or Beside()
    judged = checked(rows, TABLES["raw_bars"]).filter(pl.col("session").is_between(first, last)).sort(*_KEY, "digest")
    before = calendar.sessions(calendar.days[0], first - timedelta(days=1))[-settings.earlier_sessions :]
    earlier = context.select(SEEN).filter(pl.col("session").is_in(before))
    ends = endings(known.actions)
    moved, jumped = measured(judged, earlier, known, ends, calendar=calendar, last_closed=last_closed_session, settings=settings)
    in_range = pl.col("session").is_between(first, last)
    view = GateView(
        rows=judged,
        earlier=earlier,
        moves=moved.filter(in_range),
        jumps=jumped.filter(in_range),
        beside=known,
        flagged=judged.select(_KEY).clear(),
        first=first,
        last=last,
        last_closed=last_closed_session,
        calendar=calendar,
        absent=absent,
        settings=settings,
        ended=ends,
    )
    released = in_force(RELEASES.to_frame() if releases is None else releases, judged)
    on_rows = _found(view, over_findings=False)
    telling = [rule.id for rule in rules() if rule.tells_of_feed]
    of_feed = on_rows.filter((pl.col("severity") == Severity.BLOCK) | pl.col("rule").is_in(telling))
    flagged = of_feed.join(released, on=_KEY, how="anti").select(_KEY).unique()
    found = pl.concat([on_rows, _found(replace(view, flagged=flagged), over_findings=True)]).sort(*_KEY, "rule")
    marked = _marked(judged, found, released)
    return GateResult(
        findings=_with_evidence(as_warnings(found, released), judged, moved),
        accepted=marked.filter(pl.col("rules") == "").select(list(TABLES["accepted_bars"].columns)),
        quarantined=_quarantined(marked.filter(pl.col("rules") != "")),
    )


def stopped_sessions(findings: pl.DataFrame) -> list[date]:
    """Sessions of bar_findings that have no accepted row because the feed was at fault, in order."""
    return findings.filter(pl.col("severity") == Severity.STOP)["session"].unique().sort().to_list()


def _found(view: GateView, *, over_findings: bool) -> pl.DataFrame:
    """Rows of bar_findings of the rules of one stage; one for a key that a rule found several times (duplicate rows)."""
    found = [_attributed(rule.find(view), rule) for rule in rules() if rule.over_findings == over_findings]
    empty = TABLES["bar_findings"].empty().drop("evidence")
    columns = empty.columns
    every = pl.concat([empty, *(frame.select(columns) for frame in found)])
    return every.sort(columns).unique([*_KEY, "rule"], keep="first", maintain_order=True)


def _with_evidence(found: pl.DataFrame, judged: pl.DataFrame, moved: pl.DataFrame) -> pl.DataFrame:
    """``found`` with the versions of the raw rows that were judged and what their move was measured by."""
    known = pl.col("known_at").dt.to_string("%Y-%m-%d %H:%M UTC")
    row = pl.format("raw row {} known {}", pl.col("digest").str.head(12), known)
    rows = judged.rechunk().group_by(_KEY).agg(row=row.str.join(" and "))
    whole = judged.group_by("session").agg(received=pl.format("{} rows received", pl.len()))
    volume = pl.format(", volume {} x its median", pl.col("volume_ratio").round(1)).fill_null("")
    market = pl.format(", market {} %", ((pl.col("market").exp() - 1) * 100).round(1) + 0.0).fill_null("")
    before = pl.format("; close {} in {} before it{}{}", "before_close", "before_session", volume, market)
    measured_by = moved.join(found, on=_KEY, how="semi").rechunk().select(*_KEY, before=before)
    joined = found.join(rows, on=_KEY, how="left", maintain_order="left").join(whole, on="session", how="left", maintain_order="left")
    told = joined.join(measured_by, on=_KEY, how="left", maintain_order="left")
    evidence = pl.coalesce("row", "received", pl.lit("no row received")) + pl.col("before").fill_null("")
    return told.with_columns(evidence=evidence).select(list(TABLES["bar_findings"].columns))


def _attributed(found: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    severity = pl.col("severity") if "severity" in found.columns else pl.lit(rule.severity.value)
    return found.with_columns(rule=pl.lit(rule.id), severity=severity)


def _marked(rows: pl.DataFrame, found: pl.DataFrame, released: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with ``rules``: the blocking and stopping rules that fired on them, comma separated; empty for an accepted row. Of several
    rows of a key the released one alone is let through.
    """
    fired = found.filter(pl.col("severity") != Severity.WARN)
    stopped = fired.filter(pl.col("symbol") == WHOLE_SESSION).join(released, on=_KEY, how="anti")
    on_session = stopped.group_by("session").agg(session_rules=pl.col("rule").sort().str.join(","))
    on_symbol = fired.filter(pl.col("symbol") != WHOLE_SESSION).group_by(_KEY).agg(symbol_rules=pl.col("rule").sort().str.join(","))
    both = rows.join(on_symbol, on=_KEY, how="left", maintain_order="left").join(
        on_session, on="session", how="left", maintain_order="left"
    )
    let = pl.col("digest").is_in(released["digest"].drop_nulls().implode())
    of_row = pl.when(~let).then("symbol_rules")
    return both.with_columns(rules=pl.concat_str(of_row, "session_rules", separator=",", ignore_nulls=True))


def _quarantined(marked: pl.DataFrame) -> pl.DataFrame:
    return marked.with_columns(row=pl.int_range(pl.len()).over(_KEY)).select(list(TABLES["quarantined_bars"].columns))
