"""What goes into the audit log with each decision and replay, and the anchor that closes a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import isfinite

import dagster as dg
import polars as pl

from assets.chain import Chain, warning
from assets.market import as_decided
from quant.audit.anchor import Anchor, next_anchor
from quant.audit.canonical import digest
from quant.audit.rows import frame_digest
from quant.errors import DeliveryError, LedgerError, SequenceError, expected
from quant.ports import Clock, DecisionRecord, Lake, Ledger, Notary, TableSnapshot
from quant.tables import TABLES
from quant.trading.desk import Evidence
from quant.trading.orders import Order

SETTINGS, CODE = "settings", "code"
DATA, SCORES, WEIGHTS, RISK, REPLAY = "data", "scores", "weights", "risk", "replay"
"""Kinds of the audit log's entries: what decisions were made with, and by; a backtest's replay."""
SCORE_COLUMNS = ("symbol", "score", "feature_digest")
WEIGHT_COLUMNS = ("symbol", "signal", "sleeve", "target_weight")
RISK_COLUMNS = ("client_order_id", "verdict", "limit", "observed", "allowed", "unit")


def provenance(chain: Chain, ledger: Ledger) -> dict[str, str]:
    """Digests of the settings and of the code version; the values are in the log once each, under their digest."""
    documents = {SETTINGS: {"settings": chain.settings, "rules": chain.rules_in_force}, CODE: chain.code()}
    named = {kind: digest(document) for kind, document in documents.items()}
    for kind, document in documents.items():
        ledger.record(kind, {"digest": named[kind], **document}, key=f"{kind}|{named[kind]}")
    return named


def evidence_of(chain: Chain, lake: Lake, ledger: Ledger) -> Evidence:
    """What a decision of the paper book is recorded with: digests of what was read, scores, weights, and the risk review's verdicts."""

    def evidence(record: DecisionRecord, orders: Sequence[Order]) -> Mapping[str, Mapping[str, object]]:
        of = {"book": record.book, "session": record.session}
        pinned = PinnedLake(lake, record.table_versions)
        made = provenance(chain, ledger)
        return {
            DATA: {**of, "known_by": record.decision_at, **made, **hashed_inputs(chain, pinned, ledger, record)},
            SCORES: {**of, "model_version": record.model_version, **_columns(score_rows(pinned, record.session), SCORE_COLUMNS)},
            WEIGHTS: {**of, **_columns(weight_rows(pinned, record.book, record.session), WEIGHT_COLUMNS)},
            RISK: {**of, "limits": chain.rules.risk.model_dump(mode="json"), "columns": RISK_COLUMNS, "rows": list(map(_verdict, orders))},
        }

    return evidence


def _columns(rows: pl.DataFrame, columns: Sequence[str]) -> dict[str, object]:
    return {"columns": columns, "rows": rows.select(columns).rows()}


def _verdict(order: Order) -> Sequence[object]:
    if (denial := order.denial) is None:
        return (order.client_order_id, "allowed")
    numbers = (value if isfinite(value) else None for value in (denial.observed, denial.allowed))
    return (order.client_order_id, "denied", denial.limit, *numbers, denial.unit)


def score_rows(lake: Lake, session: date) -> pl.DataFrame:
    """Rows of table scores of a session."""
    return lake.read("scores", first=session, last=session)


def weight_rows(lake: Lake, book: str, session: date) -> pl.DataFrame:
    """Rows of table target_weights of a book's session."""
    return lake.read("target_weights", first=session, last=session, where={"book": book})


def hashed_inputs(chain: Chain, lake: Lake, ledger: Ledger, record: DecisionRecord) -> dict[str, object]:
    """``tables``: version and digest of the rows that the decision read of its session (of all corporate actions); ``inputs``: digest of
    the adjusted bars that its features were computed from, as it saw them.
    """
    session = record.session
    begun = {"raw_bars": chain.day_after_previous(session)}
    tables: dict[str, object] = {}
    for table, version in sorted(record.table_versions.items()):
        first, last = (None, None) if table == "corporate_actions" else (begun.get(table, session), session)
        where = {"book": record.book} if table == "target_weights" else None
        tables[table] = {"version": version, "sha256": lake.digest(table, first=first, last=last, where=where)}
    return {"tables": tables, "inputs": _inputs(chain, lake, ledger, session, record.decision_at)}


def _inputs(chain: Chain, lake: Lake, ledger: Ledger, session: date, known_by: datetime) -> dict[str, object]:
    first = chain.back(session, max(chain.strategy.feature_reach, chain.strategy.library_reach))
    window = as_decided(chain, lake, ledger, first, session, known_by)
    rows = window.select(TABLES["adjusted_bars"].schema.names())
    return {"first": first, "last": session, "rows": rows.height, "sha256": frame_digest(rows, TABLES["adjusted_bars"])}


def record_replay(chain: Chain, lake: Lake, ledger: Ledger, sessions: Sequence[date], known_by: datetime, tables: Sequence[str]) -> None:
    """Put a backtest into the audit log: the versions that it read, and digests of what it made."""
    made, where = provenance(chain, ledger), {"book": chain.backtest_book}
    results = ("orders", "fills", "daily_nav", "target_weights")
    payload = {
        "book": chain.backtest_book,
        "first": sessions[0],
        "last": sessions[-1],
        "known_by": known_by,
        **made,
        "tables": {name: lake.version(name) or 0 for name in tables},
        "results": {name: {"version": lake.version(name), "sha256": lake.digest(name, where=where)} for name in results},
    }
    ledger.record(REPLAY, payload)


@dataclass(frozen=True, slots=True)
class PinnedLake:
    """The lake as a decision read it: tables at its versions, others as they are now. It is read only."""

    lake: Lake
    versions: Mapping[str, int]

    def read(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """See quant.ports.Lake.read."""
        pinned = self.versions.get(table) if version is None else version
        return self.lake.read(table, first=first, last=last, where=where, columns=columns, version=pinned)

    def digest(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> str:
        """See quant.ports.Lake.digest."""
        pinned = self.versions.get(table) if version is None else version
        return self.lake.digest(table, first=first, last=last, where=where, version=pinned)

    def version(self, table: str) -> int | None:
        """See quant.ports.Lake.version."""
        return self.versions.get(table, self.lake.version(table))

    def snapshot(self, table: str) -> TableSnapshot | None:
        """See quant.ports.Lake.snapshot."""
        return self.lake.snapshot(table)

    def replace(self, table: str, rows: pl.DataFrame, *, first: date, last: date, where: Mapping[str, str] | None = None) -> int:
        """Refused: SequenceError."""
        raise self._read_only(table, f"{rows.height} rows for {first} to {last}, {where or 'all'}")

    def append_new(self, table: str, rows: pl.DataFrame) -> int:
        """Refused: SequenceError."""
        raise self._read_only(table, f"{rows.height} rows")

    def _read_only(self, table: str, what: str) -> SequenceError:
        do = "write to the lake itself"
        return SequenceError(expected("no change of the past", found=what, where=f"table {table} as it was read", do=do))


def anchor_log(ledger: Ledger, notary: Notary, clock: Clock) -> Anchor | None:
    """Sign what was recorded since the last anchor; None if nothing was. LedgerError if the log is not what was recorded."""
    public_key = notary.public_key()

    def make(anchors: Sequence[Anchor]) -> Anchor | None:
        written_at, last = f"{clock.now():%Y-%m-%dT%H:%M:%S.%fZ}", anchors[-1].last if anchors else 0
        return ledger.walk_audit(lambda entries: next_anchor(entries, anchors, written_at=written_at, public_key=public_key), after=last)

    return notary.add(make)


ANCHORED = "audit_log_is_anchored"


@dg.asset(
    group_name="outputs",
    deps=["warehouse"],
    kinds={"sqlite"},
    check_specs=[
        dg.AssetCheckSpec(
            ANCHORED,
            asset="audit_anchor",
            description="Warns if the audit log is not what was recorded, or the copy of its anchors cannot be written or is another one.",
        )
    ],
)
def audit_anchor(
    chain: dg.ResourceParam[Chain], ledger: dg.ResourceParam[Ledger], notary: dg.ResourceParam[Notary]
) -> dg.MaterializeResult:
    """Merkle roots of what the run recorded, signed and written outside of the database."""
    anchor, copied, told = None, 0, "none"
    try:
        anchor = anchor_log(ledger, notary, chain.clock)
        copied = notary.copy()
    except (LedgerError, DeliveryError) as error:
        told = str(error)
    seen = {"fault": told, "copied": copied}
    if anchor is not None:
        seen |= {"anchor": anchor.number, "entries": len(anchor.leaves), "last_entry": anchor.last, "root": anchor.days[-1].root}
    return dg.MaterializeResult(metadata=seen, check_results=[warning("audit_anchor", ANCHORED, told == "none", seen)])
