"""From an order back to the rows that it came from, as they were read then; and its score and weight computed again from them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from hashlib import sha256
from math import isfinite
from typing import Any

import polars as pl

from assets.audit import DATA, REPLAY, SETTINGS, PinnedLake, hashed_inputs, score_rows, weight_rows
from assets.chain import Chain
from assets.features import feature_rows, side_by_side, user_factor_rows
from assets.market import as_decided, known_actions, members
from assets.model import folds, train
from assets.quarantine import QUARANTINE
from quant.audit.lineage import Link, Recomputed, bits
from quant.errors import AftercloseError, InputError, SequenceError, expected
from quant.portfolio.weights import target_weights
from quant.ports import DecisionRecord, Lake, Ledger, ModelStore, TrainedModel
from quant.quality.rule import WHOLE_SESSION

_CONTENT = ("session", "symbol", "open", "high", "low", "close", "volume")
_ROWS = 20  # quarantine verdicts and the like that are listed


def find_order(chain: Chain, lake: Lake, ledger: Ledger, order_id: str) -> Mapping[str, Any]:
    """The row of table orders whose id begins with ``order_id``; InputError if there is none or more than one."""
    decided = _session_in(order_id)
    rows = lake.read("orders", first=decided, last=decided).filter(pl.col("client_order_id").str.starts_with(order_id))
    found = rows["client_order_id"].sort().to_list()
    found = found or [o.client_order_id for o in ledger.orders(chain.paper_book, decided=decided) if o.client_order_id.startswith(order_id)]
    if len(found) != 1 and order_id not in found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} others" if len(found) > 3 else "")
        do = "see `afterclose sql 'select client_order_id from orders'`"
        raise InputError(expected("the id of one order, or its beginning", found=shown or "none", where=f"ORDER_ID {order_id}", do=do))
    chosen = order_id if order_id in found else found[0]
    rows = rows.filter(pl.col("client_order_id") == chosen)
    if rows.is_empty():
        do = "run its session to its end: `afterclose paper-run --session`"
        raise SequenceError(expected("an order of a session that was decided", found="only its intent", where=f"order {chosen}", do=do))
    return rows.row(0, named=True)


def _session_in(order_id: str) -> date | None:
    """The session that an id, if it is long enough, tells of: book-YYYYMMDD-hash."""
    told = re.match(r"[a-z0-9]+-(\d{4})(\d{2})(\d{2})", order_id)
    try:
        return date(*map(int, told.groups())) if told else None
    except ValueError:
        return None


def lineage_of(chain: Chain, lake: Lake, ledger: Ledger, models: ModelStore, order_id: str) -> "Lineage":
    """What is on record about an order of the paper book or of the backtest."""
    order = find_order(chain, lake, ledger, order_id)
    book, session = str(order["book"]), order["session"]
    if book == chain.backtest_book:
        entries = [entry for entry in ledger.audit(REPLAY) if _covers(entry[-1], book, session)]
        if not entries:
            do = "run `afterclose history` again: it records which rows it read"
            raise SequenceError(expected("a replay in the audit log", found="none", where=f"book {book}, session {session}", do=do))
        number, _, _, replayed = entries[-1]
        rules = _rules(ledger, str(replayed[SETTINGS]))
        record = DecisionRecord(
            book=book,
            session=session,
            decision_at=datetime.fromisoformat(str(replayed["known_by"])),
            model_version=None,
            table_versions=replayed["tables"],  # type: ignore[arg-type]
        )
        return Lineage(chain=_under(chain, rules), now=lake, ledger=ledger, models=models, order=order, record=record, entry=number)
    record = ledger.decision(book, session)
    if record is None:
        do = f"run `afterclose paper-run --session {session}`"
        raise SequenceError(expected("a decision", found="none", where=f"book {book}, session {session}", do=do))
    evidence = [entry for entry in ledger.audit(DATA, containing=f'"session":"{session}"') if entry[-1]["book"] == book]
    rules = _rules(ledger, str(evidence[0][-1][SETTINGS])) if evidence else _begun_under(ledger, book, session)
    entry = evidence[0][0] if evidence else None
    return Lineage(chain=_under(chain, rules), now=lake, ledger=ledger, models=models, order=order, record=record, entry=entry)


def _covers(replayed: Mapping[str, Any], book: str, session: date) -> bool:
    return replayed["book"] == book and replayed["first"] <= session.isoformat() <= replayed["last"]


def _rules(ledger: Ledger, digest: str) -> Mapping[str, Any]:
    """The rules that the settings of a digest stand for."""
    found = [payload["rules"] for *_, payload in ledger.audit(SETTINGS, containing=digest) if payload["digest"] == digest]
    return found[0] if found else {}  # type: ignore[return-value]


def _begun_under(ledger: Ledger, book: str, session: date) -> Mapping[str, Any]:
    """The rules that a session was begun with, from before decisions had them in the log."""
    start = ledger.begun(book, through=session)
    if start is None or start.session != session or not start.rules.startswith("{"):
        return {}
    return json.loads(start.rules)


def _under(chain: Chain, rules: Mapping[str, Any]) -> Chain:
    return chain.under(rules) if rules else chain


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """An order with the decision behind it. ``chain`` has the settings of that day, ``now`` is the lake as it is, ``entry`` the entry of
    the audit log with the hashes of what was read (none for decisions that are older than those).
    """

    chain: Chain
    now: Lake
    ledger: Ledger
    models: ModelStore
    order: Mapping[str, Any]
    record: DecisionRecord
    entry: int | None

    @cached_property
    def lake(self) -> PinnedLake:
        """The lake as the decision read it."""
        return PinnedLake(self.now, self.record.table_versions)

    @property
    def session(self) -> date:
        """Session of the decision."""
        return self.record.session

    @property
    def symbol(self) -> str:
        """Symbol of the order."""
        return str(self.order["symbol"])

    def entries(self, kind: str, containing: str | None = None) -> Sequence[tuple[int, datetime, str, Mapping[str, Any]]]:
        """Audit entries of a kind about the order's book and session."""
        said = self.ledger.audit(kind, containing=containing or f'"session":"{self.session}"')
        return [entry for entry in said if containing or entry[-1].get("book") == self.record.book]

    # The tree

    def tree(self) -> Link:
        """Order <- fills, events, review, decision <- weight <- score <- model and features <- bars <- raw rows, actions, gate."""
        shown = ("book", "session", "symbol", "side", "quantity", "leg", "generation", "reference_price")
        return Link(
            what=f"order {self.order['client_order_id']}",
            facts={**{name: self.order[name] for name in shown}, "state_when_decided": self.order["state"]},
            origins=[*self._fills(), *self._events(), self._review(), self._decision(), self._weight()],
        )

    def _fills(self) -> Iterator[Link]:
        order_id = str(self.order["client_order_id"])
        filled = self.now.read("fills", first=self.session, where={"client_order_id": order_id})
        shown = ("session", "quantity", "price", "reference_price", "slippage", "commission", "unfilled")
        booked = self.ledger.audit("bookings", containing=order_id) if self.record.book != self.chain.backtest_book else ()
        for row in filled.iter_rows(named=True):
            facts = {name: row[name] for name in shown} | _entry(booked)
            yield Link(what=f"fill {row['execution_id']}", facts=facts)
        if filled.is_empty():
            yield Link(what="no fill", facts={})

    def _events(self) -> Iterator[Link]:
        order_id = str(self.order["client_order_id"])
        rows = [
            {"at": at, "event": told["events"][order_id][0], "state": told["events"][order_id][1], "entry": number}  # type: ignore[index]
            for number, at, _, told in self.ledger.audit("order_events", containing=order_id)
        ]
        if rows:
            yield Link(what="life of the order", facts={}, rows=rows)

    def _review(self) -> Link:
        denied = self.order["denied_by"] is not None
        seen = {name: self.order[name] for name in ("denied_by", "observed", "allowed", "unit")} if denied else {}
        limits = self.chain.rules.risk.model_dump(mode="json")
        order_id = str(self.order["client_order_id"])
        told = [payload for *_, payload in self.entries("decision")]
        saw: dict[str, object] = told[0].get("seen", {}).get(order_id, {}) if told else {}
        return Link(
            what="risk review",
            facts={"verdict": "denied" if denied else "allowed", **seen, **limits, **_entry(self.entries("risk"))},
            rows=[{"limit": limit, "saw": value} for limit, value in sorted(saw.items())],
        )

    def _decision(self) -> Link:
        told = next((payload for *_, payload in self.entries(DATA)), None)
        if told is None:
            told = next((p for n, _, _, p in self.ledger.audit(REPLAY) if n == self.entry), {})
        made = {name: told[name] for name in ("settings", "code") if name in told}
        code = next((p for *_, p in self.ledger.audit("code", containing=str(made.get("code", "none")))), {})
        running = {name: code[name] for name in ("version", "commit") if code.get(name)}
        read = [{"table": table, "version": version} for table, version in sorted(self.record.table_versions.items())]
        facts = {"known_by": self.record.decision_at, **made, **running, "entry": self.entry}
        return Link(what=f"decision at the close of {self.session}", facts=facts, rows=read)

    def _weight(self) -> Link:
        rows = weight_rows(self.lake, self.record.book, self.session).filter(pl.col("symbol") == self.symbol)
        if rows.is_empty():
            return Link(what="no target weight: the name is not in the signal", facts={}, origins=[self._score()])
        shown = ("target_weight", "sleeve", "signal")
        return Link(
            what="target weight", facts={**{n: rows[n][0] for n in shown}, **_entry(self.entries("weights"))}, origins=[self._score()]
        )

    def _score(self) -> Link:
        rows = score_rows(self.lake, self.session)
        mine = rows.filter(pl.col("symbol") == self.symbol)
        if mine.is_empty():
            return Link(what="no score: the name is not in the universe of the session", facts={}, origins=[self._bars()])
        row = mine.row(0, named=True)
        rank = rows.filter(pl.col("score") > row["score"]).height + 1
        facts = {"score": row["score"], "rank": f"{rank} of {rows.height}", **_entry(self.entries("scores"))}
        return Link(what="score", facts=facts, origins=[self._model(row["model_version"]), self._features(row["feature_digest"])])

    def _model(self, version: str) -> Link:
        strategy = self.chain.strategy.name
        champion = self.ledger.champion(strategy, self.session)
        promoted = [entry for entry in self.ledger.audit("promotion", containing=version) if entry[-1]["version"] == version]
        from_session = {"champion_from": champion[0]} if champion and champion[1] == version else {}
        try:
            registered: Mapping[str, object] = self.models.provenance(strategy, version)
        except InputError:
            registered = {"registered": "no: only the last model of a walk-forward is; --replay trains it again"}
        return Link(what=f"model {version}", facts={**from_session, **registered, **_entry(promoted)})

    def _features(self, digest: str) -> Link:
        parts = [self.lake.read(table, first=self.session, last=self.session) for table in self.chain.strategy.feature_tables]
        row = side_by_side(self.chain, parts, self.session, self.session).filter(pl.col("symbol") == self.symbol)
        values = {name: _finite(value) for name, value in row.drop("session", "symbol").row(0, named=True).items()}
        tables = ", ".join(f"{name} version {self.lake.version(name)}" for name in self.chain.strategy.feature_tables)
        facts = {"digest": digest, "columns": len(values), "tables": tables}
        return Link(what="feature row", facts=facts, values=values, origins=[self._bars()])

    @cached_property
    def _window(self) -> tuple[pl.DataFrame, Sequence[str]]:
        """Adjusted bars of the order's security that its features look at, and the symbols that it traded under."""
        reach = max(self.chain.strategy.feature_reach, self.chain.strategy.library_reach)
        first = self.chain.back(self.session, reach)
        window = as_decided(self.chain, self.lake, self.ledger, first, self.session, self.record.decision_at)
        traded = pl.col("traded_as") if "traded_as" in window.columns else pl.col("symbol")
        security = window.filter(pl.col("session") == self.session, traded == self.symbol)["symbol"]
        rows = window.filter(pl.col("symbol").is_in(security.implode()))
        return rows, sorted(rows.select(traded).to_series().unique())

    def _bars(self) -> Link:
        rows, symbols = self._window
        shown = ("session", "open", "high", "low", "close", "volume", "split_index", "total_index")
        listed = [{name: row[name] for name in shown} for row in rows.iter_rows(named=True)]
        told = next((payload for *_, payload in self.entries(DATA)), {})
        inputs: Mapping[str, object] = told.get("inputs", {})
        facts: dict[str, object] = {"bars": rows.height, "symbols": ", ".join(symbols)}
        facts |= {"sha256": inputs["sha256"], "of_all_names": inputs["rows"]} if inputs else {}
        return Link(
            what="adjusted bars", facts=facts, rows=listed, origins=[self._raw(symbols), self._actions(symbols), *self._gate(symbols)]
        )

    def _raw(self, symbols: Sequence[str]) -> Link:
        """The rows as received: of several versions, the ones with the content that the gate accepted."""
        window = self._window[0]
        first, last = window["session"].min(), window["session"].max()
        if not isinstance(first, date) or not isinstance(last, date):
            return Link(what="no raw rows", facts={})
        accepted = self.lake.read("accepted_bars", first=first, last=last).filter(pl.col("symbol").is_in(symbols))
        raw = self.lake.read("raw_bars", first=first, last=last).join(accepted, on=_CONTENT, how="semi")
        used = raw.sort("known_at").unique(["session", "symbol"], keep="last").sort("session")
        shown = (*_CONTENT, "source", "known_at", "known_at_assumed", "digest", "origin_digest")
        origins = used["origin_digest"].drop_nulls().n_unique()
        facts = {"rows": used.height, "files_or_responses": origins, "lake_version": self.lake.version("raw_bars")}
        return Link(what="raw rows", facts=facts, rows=used.select(shown).to_dicts())

    def _actions(self, symbols: Sequence[str]) -> Link:
        known = known_actions(self.lake, self.record.decision_at).filter(pl.col("symbol").is_in(symbols), pl.col("ex_date") <= self.session)
        shown = ("ex_date", "symbol", "kind", "value", "source", "known_at", "digest", "origin_digest")
        return Link(what="corporate actions that entered", facts={"actions": known.height}, rows=known.select(shown).to_dicts())

    def _gate(self, symbols: Sequence[str]) -> Iterator[Link]:
        sessions = self._window[0]["session"]
        found = self.now.read("bar_findings", first=sessions.min(), last=self.session).filter(  # type: ignore[arg-type]
            pl.col("symbol").is_in([*symbols, WHOLE_SESSION])
        )
        shown = ("session", "symbol", "rule", "severity", "expected", "observed")
        yield Link(what="gate", facts={"findings": found.height}, rows=found.select(shown).to_dicts())
        verdicts = [
            {"session": said["session"], "symbol": said["symbol"], "verdict": said["verdict"], "reason": said["reason"], "entry": number}
            for number, _, _, said in self.ledger.audit(QUARANTINE)
            if said["symbol"] in {*symbols, WHOLE_SESSION} and date.fromisoformat(str(said["session"])) in set(sessions)
        ]
        if verdicts:
            yield Link(what="verdicts on quarantined rows", facts={}, rows=verdicts[-_ROWS:])

    # Again

    def replay(self) -> list[Recomputed]:
        """Hashes of the inputs, the features, the score and the weight, computed again from the rows as they were read."""
        made = [*self._inputs_again()]
        scored = score_rows(self.lake, self.session)
        mine = scored.filter(pl.col("symbol") == self.symbol)
        if mine.is_empty():
            return [*made, *self._weight_again(scored)]
        row = mine.row(0, named=True)
        features = self._features_again()
        try:
            model = self._model_again(row["model_version"])
        except AftercloseError as error:
            return [*made, Recomputed(what="score", recorded=bits(row["score"]), again=None, why=str(error))]
        chosen = members(self.chain, self.lake, self.ledger, features, self.session, self.session, self.record.decision_at)
        again = self.chain.strategy.score(model, chosen)
        now = again.filter(pl.col("symbol") == self.symbol).to_dicts()
        text = sha256(model.text.encode()).hexdigest()
        promoted = [e[-1] for e in self.ledger.audit("promotion", containing=row["model_version"])]
        known = str(promoted[0]["text_sha256"]) if promoted and "text_sha256" in promoted[0] else row["model_version"]
        return [
            *made,
            Recomputed(what="feature row", recorded=row["feature_digest"], again=now[0]["feature_digest"] if now else None),
            Recomputed(what="model", recorded=known, again=text if len(known) == len(text) else model.version),
            *self._audited("scores", "score", row["score"]),
            Recomputed(what="score", recorded=bits(row["score"]), again=bits(now[0]["score"]) if now else None),
            *self._weight_again(again),
        ]

    def _inputs_again(self) -> Iterator[Recomputed]:
        told = next((payload for *_, payload in self.entries(DATA)), None)
        if told is None:
            return
        again: dict[str, Any] = hashed_inputs(self.chain, self.lake, self.ledger, self.record)
        for table, held in told["tables"].items():
            yield Recomputed(what=f"rows of {table}", recorded=held["sha256"], again=again["tables"][table]["sha256"])
        yield Recomputed(what="adjusted bars", recorded=told["inputs"]["sha256"], again=again["inputs"]["sha256"])

    def _features_again(self) -> pl.DataFrame:
        computed = {"alpha158": feature_rows, "user_factors": user_factor_rows}
        at, known_by = self.session, self.record.decision_at
        tables = self.chain.strategy.feature_tables
        parts = [computed[table](self.chain, self.lake, self.ledger, at, at, known_by).sort("session", "symbol") for table in tables]
        return side_by_side(self.chain, parts, at, at)

    def _model_again(self, version: str) -> TrainedModel:
        """As it is stored; one of an earlier fold is trained again, and has to be the same."""
        try:
            return self.models.load(self.chain.strategy.name, version)
        except InputError:
            fold = next(fold for fold in folds(self.chain, self.session) if fold.test_first <= self.session <= fold.test_last)
            return train(self.chain, self.lake, fold).model

    def _weight_again(self, scored: pl.DataFrame) -> Iterator[Recomputed]:
        held = weight_rows(self.lake, self.record.book, self.session).filter(pl.col("symbol") == self.symbol)
        again = target_weights(scored, book=self.record.book, settings=self.chain.portfolio).filter(pl.col("symbol") == self.symbol)
        if held.is_empty():
            yield Recomputed(what="target weight", recorded="none", again="none" if again.is_empty() else bits(again["target_weight"][0]))
            return
        yield from self._audited("weights", "target_weight", held["target_weight"][0])
        for name in ("signal", "target_weight"):
            now = None if again.is_empty() else bits(again[name][0])
            yield Recomputed(what=name.replace("_", " "), recorded=bits(held[name][0]), again=now)

    def _audited(self, kind: str, column: str, stored: float) -> Iterator[Recomputed]:
        """The number in the audit log against the one in the lake."""
        for *_, told in self.entries(kind):
            place = told["columns"].index(column)
            value = next((float(row[place]) for row in told["rows"] if row[0] == self.symbol), None)
            yield Recomputed(what=f"{column.replace('_', ' ')} in the audit log", recorded=bits(value), again=bits(stored + 0.0))


def _entry(entries: Sequence[tuple[int, datetime, str, Mapping[str, Any]]]) -> dict[str, object]:
    """Number of the audit entry, if there is one."""
    return {"entry": entries[-1][0]} if entries else {}


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
