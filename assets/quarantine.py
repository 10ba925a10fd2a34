"""What people decide about quarantined rows: records of the audit log, which the gate reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from assets.chain import Chain
from quant.errors import ContractError, InputError, expected
from quant.market.as_of import bars_as_of
from quant.market.contracts import checked
from quant.ports import Lake, Ledger
from quant.quality.release import RELEASES
from quant.quality.rule import WHOLE_SESSION
from quant.tables import TABLES

QUARANTINE = "quarantine"
"""Kind of the audit log's records: verdict (release | confirm | withdraw), session, symbol, digests, rules, reason, decided_through."""
RELEASE, CONFIRM, WITHDRAW = "release", "confirm", "withdraw"


def verdicts(ledger: Ledger) -> list[Mapping[str, Any]]:
    """Every decision about a quarantined row, oldest first."""
    return [payload for *_, payload in ledger.audit(QUARANTINE)]


def releases(ledger: Ledger, *, after: date | None = None) -> pl.DataFrame:
    """quant.quality.release.RELEASES of the audit log; with ``after`` only those that the decision of that session did not see."""
    standing = _standing(verdicts(ledger))
    rows = [(_day(v["session"]), v["symbol"], digest, _day(v["decided_through"])) for v in standing for digest in v["digests"] or [None]]
    found = pl.DataFrame(rows, schema=RELEASES, orient="row")
    return found if after is None else found.filter(pl.col("decided_through") >= after)


def _standing(said: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The releases among ``said`` that were not taken back."""
    standing: list[Mapping[str, Any]] = []
    for verdict in said:
        if verdict["verdict"] == WITHDRAW:
            about = (verdict["session"], verdict["symbol"])
            standing = [other for other in standing if (other["session"], other["symbol"]) != about]
        elif verdict["verdict"] == RELEASE:
            standing.append(verdict)
    return standing


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A symbol-session that the gate keeps out: its rows of raw_bars as the gate saw them, and the rules."""

    session: date
    symbol: str
    rows: pl.DataFrame
    rules: str
    findings: pl.DataFrame


def quarantined(chain: Chain, lake: Lake, ledger: Ledger, session: date, symbol: str) -> Quarantined:
    """What is kept out under (session, symbol); InputError if nothing is. Symbol "*" is a session that was stopped, with the findings of
    all its symbols.
    """
    kept = lake.read("quarantined_bars", first=session, last=session)
    every = lake.read("bar_findings", first=session, last=session).filter(pl.col("severity") != "warn")
    own = every.filter(pl.col("symbol") == symbol)
    kept = kept.filter(pl.lit(not own.is_empty()) if symbol == WHOLE_SESSION else pl.col("symbol") == symbol)
    if kept.is_empty():
        do = "see `afterclose quarantine list`; a session's rows are judged when it is run"
        raise InputError(expected("a quarantined row", found="none", where=f"{symbol} in {session}", do=do))
    rows = _as_judged(chain, lake, ledger, session).join(releases(ledger), on=["session", "symbol", "digest"], how="anti")
    rules = ",".join(sorted(own["rule"].unique())) or str(kept["rules"][0])
    mine = rows.filter((pl.col("symbol") == symbol) | (symbol == WHOLE_SESSION))
    return Quarantined(session=session, symbol=symbol, rows=mine, rules=rules, findings=every if symbol == WHOLE_SESSION else own)


def _as_judged(chain: Chain, lake: Lake, ledger: Ledger, session: date) -> pl.DataFrame:
    """Rows of raw_bars of a day as the gate sees them, several of one key in its order."""
    known_by = chain.instant(lake, ledger, chain.calendar.on_or_after(session))
    return bars_as_of(lake.read("raw_bars", first=session, last=session), known_by).sort("symbol", "digest")


def last_verdicts(chain: Chain, lake: Lake, ledger: Ledger, first: date | None = None) -> dict[tuple[date, str], Mapping[str, Any]]:
    """The newest verdict about what is received under each session and symbol now; one about an older version of a row is none."""
    found: dict[tuple[date, str], Mapping[str, Any]] = {}
    for verdict in verdicts(ledger):
        session = date.fromisoformat(verdict["session"])
        if first is None or session >= first:
            held = _as_judged(chain, lake, ledger, session)["digest"]
            if not verdict["digests"] or held.is_in(verdict["digests"]).any():
                found[session, verdict["symbol"]] = verdict
    return found


def decide(chain: Chain, ledger: Ledger, found: Quarantined, *, verdict: str, reason: str, row: int | None = None) -> Mapping[str, object]:
    """Put a verdict into the audit log and return it. A release is of one row: of duplicates number ``row`` says which.

    InputError without a reason, for a row that was released before, and for the release of a row that no step after the gate can take.
    """
    where = f"{found.symbol} in {found.session}"
    if not reason.strip():
        raise InputError(expected("a reason", found="none", where=f"--reason of {verdict}", do="say what you checked"))
    digests = [] if found.symbol == WHOLE_SESSION else found.rows["digest"].to_list()
    if verdict == RELEASE and digests:
        digests = [digests[_number(found, row, where)]]
        _require_usable(chain, found.rows.filter(pl.col("digest").is_in(digests)), where)
    begun = ledger.begun(chain.paper_book)
    record = {
        "verdict": verdict,
        "session": found.session.isoformat(),
        "symbol": found.symbol,
        "digests": digests,
        "rules": found.rules,
        "reason": reason.strip(),
        "decided_through": None if begun is None else begun.session.isoformat(),
    }
    ledger.record(QUARANTINE, record)
    return record


def withdraw(chain: Chain, ledger: Ledger, session: date, symbol: str, *, reason: str) -> Mapping[str, object]:
    """Take back the releases of a symbol-session, and return the record. InputError without a reason, if nothing was released, or if a
    session was begun since: it was decided with the row, and what is decided stays.
    """
    where = f"{symbol} in {session}"
    if not reason.strip():
        raise InputError(expected("a reason", found="none", where="--reason of withdraw", do="say what you found"))
    mine = [v for v in _standing(verdicts(ledger)) if (v["session"], v["symbol"]) == (session.isoformat(), symbol)]
    if not mine:
        raise InputError(expected("a release", found="none", where=where, do="see `afterclose quarantine list`"))
    begun = ledger.begun(chain.paper_book)
    decided_through = None if begun is None else begun.session.isoformat()
    if any(v["decided_through"] != decided_through for v in mine):
        do = "have the source correct the row: a later version of it is judged anew"
        raise InputError(expected("no session begun since the release", found=decided_through, where=where, do=do))
    record = {
        "verdict": WITHDRAW,
        "session": session.isoformat(),
        "symbol": symbol,
        "digests": [digest for v in mine for digest in v["digests"]],
        "rules": mine[-1]["rules"],
        "reason": reason.strip(),
        "decided_through": decided_through,
    }
    ledger.record(QUARANTINE, record)
    return record


def _number(found: Quarantined, row: int | None, where: str) -> int:
    if row is None and found.rows.height == 1:
        return 0
    if row is None or not 0 <= row < found.rows.height:
        what = f"--row 0 to {found.rows.height - 1}"
        do = "see `afterclose quarantine show`: it numbers the rows of one key"
        raise InputError(expected(what, found="none" if row is None else row, where=where, do=do))
    return row


def _require_usable(chain: Chain, rows: pl.DataFrame, where: str) -> None:
    do = "have the source correct it; a corrected row is judged anew"
    if not all(chain.calendar.is_session(day) for day in rows["session"]):
        raise InputError(expected(f"a session of {chain.calendar.name}", found="another day", where=where, do=do))
    numbers = [name for name in ("open", "high", "low", "close", "volume") if not rows[name].is_finite().all() or (rows[name] < 0).any()]
    try:
        checked(rows.select(TABLES["accepted_bars"].schema.names()), TABLES["accepted_bars"])
    except ContractError as broken:
        raise InputError(f"{broken} ({where}: {do})") from None
    if numbers or (rows["close"] == 0).any():
        raise InputError(expected("finite prices above zero", found=", ".join(numbers) or "close 0", where=where, do=do))
