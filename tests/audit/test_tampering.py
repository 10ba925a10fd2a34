"""Whatever is done to the log behind the ledger's back is found, at the first entry that it touched."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.ledger.states import FOLD
from adapters.notary import FileNotary, read_anchors, signed
from assets.audit import anchor_log
from quant.audit.anchor import Anchor, Verification, anchor_fault, days, verify
from quant.audit.chain import GENESIS, ChainEntry, entry_hash
from quant.audit.merkle import MerkleTree, leaf_hash
from quant.errors import LedgerError
from quant.ports import DecisionRecord, SessionStart
from quant.risk.state import StateChange, TradingState
from tests.adapters.ledger.worker import SESSION, numbered_entry, numbered_order

BEGIN = datetime(2013, 2, 27, 22, 0, tzinfo=UTC)
DAYS, A_DAY, LATER = 3, 6, 4
ANCHORED = DAYS * A_DAY


@dataclass
class Log:
    """Three days of six entries, each day closed by an anchor, and four entries since."""

    path: Path
    notary: FileNotary

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path / 'ledger.sqlite'}"

    @property
    def file(self) -> Path:
        return self.path / "audit" / "anchors.jsonl"

    def fill(self) -> None:
        for day in range(DAYS + 1):
            clock = FixedClock(BEGIN + timedelta(days=day))
            ledger = open_ledger(self.url, clock)
            for number in range(A_DAY if day < DAYS else LATER):
                ledger.record("orders", {"day": day, "number": number, "cash": "1.50", "names": ["ÄÖ", None, 0.1]}, key=f"{day}|{number}")
            if day < DAYS:
                anchor_log(ledger, self.notary, clock)

    def sql(self, *statements: str) -> None:
        """As somebody who has the file would."""
        with closing(sqlite3.connect(self.path / "ledger.sqlite", isolation_level=None)) as database:
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                database.execute(statement)

    def hash_again(self) -> None:
        """Number all rows again and give each the hash that fits it: what somebody does who knows how the log is made."""
        entries = self.entries()
        with closing(sqlite3.connect(self.path / "ledger.sqlite", isolation_level=None)) as database:
            head = GENESIS
            for sequence, entry in enumerate(entries, start=1):
                head = entry_hash(head, replace(entry, sequence=sequence).content)
                database.execute("UPDATE audit SET sequence = ?, hash = ? WHERE sequence = ?", (sequence, head, entry.sequence))

    def entries(self) -> list[ChainEntry]:
        return open_ledger(self.url, FixedClock(BEGIN)).walk_audit(list)

    def verified(self, anchors: list[Anchor] | None = None) -> Verification:
        ledger, held = open_ledger(self.url, FixedClock(BEGIN)), read_anchors(self.file) if anchors is None else anchors
        sound, fault = anchor_fault(held, public_key=self.notary.public_key(), signed=signed)
        found = ledger.walk_audit(lambda entries: verify(entries, sound))
        return found if fault is None else replace(found, faults=(fault, *found.faults))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(path=tmp_path, notary=FileNotary(tmp_path / "audit"))
    made.fill()
    return made


def test_a_log_that_nobody_touched_is_sound(log: Log) -> None:
    found = log.verified()
    assert (found.sound, found.entries, found.anchors, found.anchored) == (True, ANCHORED + LATER, DAYS, ANCHORED)
    assert log.verified([]) == replace(found, anchors=0, anchored=0)


EDIT = "UPDATE audit SET payload = replace(payload, '1.50', '1.51') WHERE sequence = 9"
SWAP = (
    "UPDATE audit SET sequence = -8 WHERE sequence = 8",
    "UPDATE audit SET sequence = 8 WHERE sequence = 9",
    "UPDATE audit SET sequence = 9 WHERE sequence = -8",
)
MOVE_UP = ("UPDATE audit SET sequence = 1 - sequence WHERE sequence > 9", "UPDATE audit SET sequence = -sequence WHERE sequence < 0")
MOVE_DOWN = ("UPDATE audit SET sequence = -1 - sequence WHERE sequence > 8", "UPDATE audit SET sequence = -sequence WHERE sequence < 0")
TWIN = "INSERT INTO audit SELECT 9, recorded_at, kind, NULL, payload, hash FROM audit WHERE sequence = 8"
HASHED, SIGNED = "its content is not what was hashed", "rewritten: its content is not what anchor"

TAMPERED: dict[str, tuple[list[str], bool, int, str]] = {
    # name: statements, are the hashes made anew, first bad entry, what is said
    "a payload is edited": ([EDIT], False, 9, HASHED),
    "a payload gets a blank": (["UPDATE audit SET payload = payload || ' ' WHERE sequence = 9"], False, 9, HASHED),
    "a date is edited": (["UPDATE audit SET recorded_at = '2013-02-28 22:00:00.000001' WHERE sequence = 9"], False, 9, HASHED),
    "a kind is edited": (["UPDATE audit SET kind = 'fills' WHERE sequence = 1"], False, 1, HASHED),
    "a key is edited": (["UPDATE audit SET key = NULL WHERE sequence = 9"], False, 9, HASHED),
    "a hash is edited": ([f"UPDATE audit SET hash = '{GENESIS}' WHERE sequence = 9"], False, 9, HASHED),
    "an entry is deleted": (["DELETE FROM audit WHERE sequence = 9"], False, 9, "missing: the next one there is 10"),
    "the first entry is deleted": (["DELETE FROM audit WHERE sequence = 1"], False, 1, "missing: the next one there is 2"),
    "an entry is deleted and the rest moves up": (["DELETE FROM audit WHERE sequence = 9", *MOVE_UP], False, 9, HASHED),
    "two entries change places": ([*SWAP], False, 8, HASHED),
    "an entry is put in between": ([*MOVE_DOWN, TWIN], False, 9, HASHED),
    "the tail is cut": (["DELETE FROM audit WHERE sequence > 15"], False, 16, "cut off: anchor 3"),
    "everything is deleted": (["DELETE FROM audit"], False, 1, "cut off: anchor 1"),
    "an edit is hashed into the chain": ([EDIT], True, 9, f"{SIGNED} 2"),
    "a date is hashed into the chain": (
        ["UPDATE audit SET recorded_at = '2013-02-28 23:00:00.000000' WHERE sequence = 18"], True, 18, f"{SIGNED} 3",
    ),
    "a deletion is hashed into the chain": (["DELETE FROM audit WHERE sequence = 3"], True, 3, f"{SIGNED} 1"),
    "a swap is hashed into the chain": ([*SWAP], True, 8, f"{SIGNED} 2"),
    "a cut is hashed over and the log goes on": (
        ["DELETE FROM audit WHERE sequence > 15", TWIN.replace("SELECT 9", "SELECT 16")], True, 16, f"{SIGNED} 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_the_first_bad_entry_is_named(log: Log, case: str) -> None:
    statements, hashed, first_bad, told = TAMPERED[case]
    log.sql(*statements)
    if hashed:
        log.hash_again()
        assert log.verified([]).sound  # only the anchors tell
    (fault,) = log.verified().faults
    assert (fault.sequence, fault.anchor) == (first_bad, None)
    assert fault.reason.startswith(told)
    assert log.verified().entries == first_bad - 1


def test_one_anchor_alone_tells_of_what_was_done_before_it(log: Log) -> None:
    log.sql("UPDATE audit SET payload = replace(payload, '1.50', '1.51') WHERE sequence = 9")
    log.hash_again()
    (fault,) = log.verified([read_anchors(log.file)[2]]).faults
    assert (fault.sequence, "it, or one before it, was rewritten: anchor 3" in fault.reason) == (12, True)


def test_an_edit_after_the_last_anchor_is_found_by_the_chain(log: Log) -> None:
    log.sql(f"UPDATE audit SET payload = replace(payload, '1.50', '1.51') WHERE sequence = {ANCHORED + 2}")
    assert log.verified().faults[0].sequence == ANCHORED + 2


def with_line(change: Callable[[dict[str, object]], None], number: int = 2) -> Callable[[Log], None]:
    def edited(log: Log) -> None:
        lines = [json.loads(line) for line in log.file.read_text().splitlines()]
        change(lines[number - 1])
        log.file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return edited


def dropped(log: Log) -> None:
    lines = log.file.read_text().splitlines(keepends=True)
    log.file.write_text(lines[0] + lines[2])


def by_another_key(log: Log) -> None:
    """The whole file written again by somebody with a key of their own."""
    log.file.unlink()
    stranger = FileNotary(log.path / "audit", key=log.path / "stranger.pem")
    anchor_log(open_ledger(log.url, FixedClock(BEGIN)), stranger, FixedClock(BEGIN))


ANCHORS: dict[str, tuple[Callable[[Log], None], int, str]] = {
    "a leaf is edited": (with_line(lambda line: line["leaves"].__setitem__(0, "0" * 64)), 2, "its signature is not that of its content"),
    "a head is edited": (with_line(lambda line: line.update(head="0" * 64)), 2, "its signature is not that of its content"),
    "a root is edited": (with_line(lambda line: line["days"][0].update(root="0" * 64)), 2, "its signature is not that of its content"),
    "a signature is edited": (with_line(lambda line: line.update(signature="0" * 128)), 2, "its signature is not that of its content"),
    "a signature is no number": (with_line(lambda line: line.update(signature="?")), 2, "its signature is not that of its content"),
    "an anchor is left out": (dropped, 3, "do not follow anchor 1, which ends with entry 6"),
    "another key signed": (by_another_key, 1, "signed by key"),
}


@pytest.mark.parametrize("case", ANCHORS)
def test_an_anchor_that_was_touched_is_named(log: Log, case: str) -> None:
    tamper, number, told = ANCHORS[case]
    tamper(log)
    fault, *others = log.verified().faults
    assert (fault.anchor, fault.sequence, others) == (number, None, [])
    assert told in fault.reason


def test_a_line_that_is_no_anchor_is_told_with_its_number(log: Log) -> None:
    with_line(lambda line: line.pop("head"))(log)
    with pytest.raises(LedgerError, match=r"expected an anchor in line 2 of .*anchors.jsonl"):
        log.verified()


def test_nothing_is_signed_of_a_log_that_was_changed_since_the_last_anchor(log: Log) -> None:
    log.sql(f"UPDATE audit SET payload = replace(payload, '1.50', '1.51') WHERE sequence = {ANCHORED + 2}")
    with pytest.raises(LedgerError, match=f"expected entry {ANCHORED + 2} as it was recorded"):
        anchor_log(open_ledger(log.url, FixedClock(BEGIN)), log.notary, FixedClock(BEGIN))
    assert len(log.notary.anchors()) == DAYS


def test_a_day_has_one_root_over_its_entries_however_many_anchors_it_took(log: Log) -> None:
    ledger = open_ledger(log.url, clock := FixedClock(BEGIN + timedelta(days=DAYS)))
    anchor_log(ledger, log.notary, clock)
    for number in range(5):
        ledger.record("halt", {"number": number})
        anchor_log(ledger, log.notary, clock)
    assert log.verified().sound
    roots = days(log.notary.anchors())
    assert [(root.first, root.last) for root in roots] == [(1, 6), (7, 12), (13, 18), (19, 27)]
    for root in roots:
        tree = MerkleTree()
        for entry in log.entries()[root.first - 1 : root.last]:
            assert entry.day == root.day
            tree.add(leaf_hash(entry.content))
        assert tree.root == root.root


def test_an_anchor_of_a_log_to_which_nothing_came_is_none(log: Log) -> None:
    ledger, clock = open_ledger(log.url, FixedClock(BEGIN)), FixedClock(BEGIN)
    made = anchor_log(ledger, log.notary, clock)
    assert made is not None
    assert (made.number, made.first, made.last) == (DAYS + 1, ANCHORED + 1, ANCHORED + LATER)
    assert anchor_log(ledger, log.notary, clock) is None


def test_the_hash_of_an_entry_can_be_made_by_anybody_from_its_canonical_json(log: Log) -> None:
    """The example of docs/audit.md, without a line of ours."""
    import hashlib

    import rfc8785

    head = bytes(32)
    with closing(sqlite3.connect(log.path / "ledger.sqlite")) as database:
        rows = database.execute("SELECT sequence, recorded_at, kind, key, payload, hash FROM audit ORDER BY sequence").fetchall()
    for sequence, recorded_at, kind, key, payload, stored in rows:
        instant = recorded_at.replace(" ", "T") + "Z"
        entry = {"sequence": sequence, "recorded_at": instant, "kind": kind, "key": key, "payload": json.loads(payload)}
        head = hashlib.sha256(head + rfc8785.dumps(entry)).digest()
        assert head.hex() == stored


OTHERS = "entries 1 to 2 of book paper, session 2013-03-01, are not those of audit entry"
TWIN_ENTRY = (
    "INSERT INTO entries SELECT 3, recorded_at, book, session, 'x', kind, symbol, price, stale, due, assumed, new_symbol "
    "FROM entries WHERE sequence = 2"
)
FORGED_STATE = f"""INSERT INTO book_states (book, session, sequence, fold, recorded_at, state) VALUES ('paper', '2013-03-01', 2, {FOLD},
'2030-01-01 00:00:00', '{{"values": [], "cash": "9", "divergence": "0", "holdings": {{}}, "receivables": []}}')"""
BOOKED = {
    "UPDATE postings SET amount = amount + 1 WHERE leg = 0 AND entry = 2": OTHERS,
    "UPDATE entries SET price = 1 WHERE sequence = 2": OTHERS,
    "UPDATE orders SET quantity = quantity + 1": "is not the one of audit entry",
    "UPDATE orders SET side = 'sell'": "is not the one of audit entry",
    "UPDATE champion_history SET version = 'v2'": "the promotion of audit entry",
    "INSERT INTO champion_history VALUES (9, '2030-01-01 00:00:00', 's', '2013-03-02', 'v3')": "champion v3 of s from 2013-03-02 on is",
    "DELETE FROM trading_states WHERE state = 'halted'": "the trading state of audit entry",
    "UPDATE trading_states SET state = 'active'": "the trading state of audit entry",
    "INSERT INTO trading_states VALUES (9, '2030-01-01 00:00:00', 'paper', '2013-03-01', 'x', 'active', 'r', 'command')": (
        "trading state active of book paper (x) is not in the log"
    ),
    "UPDATE trading_states SET sequence = 9 WHERE key = 'a'": "trading states are not in the order of the log",
    "UPDATE decisions SET model_version = 'w'": "the decision of book paper, session 2013-03-01, is not the one of audit entry",
    "DELETE FROM decisions": "the decision of book paper, session 2013-03-01, is gone: audit entry",
    "INSERT INTO decisions SELECT book, '2013-03-04', decision_at, model_version, table_versions FROM decisions": (
        "the decision of book paper, session 2013-03-04, is not in the log"
    ),
    "UPDATE session_starts SET rules = '{}'": "the start of book paper, session 2013-03-01, is not the one of audit entry",
    FORGED_STATE: "the state of book paper that is kept of session 2013-03-01 is not what its entries say",
    TWIN_ENTRY: "3 ledger entries from number 1 on, 2 in the log",
}


@pytest.mark.parametrize("statement", BOOKED)
def test_a_row_of_the_ledger_that_is_not_what_the_log_tells_is_named(tmp_path: Path, statement: str) -> None:
    log = Log(path=tmp_path, notary=FileNotary(tmp_path / "audit"))
    ledger = open_ledger(log.url, FixedClock(BEGIN))
    ledger.post([numbered_entry(1), numbered_entry(2)])
    ledger.intend([numbered_order(1)])
    ledger.crown("s", SESSION, "v1")
    ledger.begin(SessionStart(book="paper", session=SESSION, decision_at=BEGIN, rules="rules"))
    for key, state in (("a", TradingState.HALTED), ("b", TradingState.ACTIVE)):
        ledger.change_state(StateChange(book="paper", session=SESSION, key=key, state=state, reason="r", by="command"))
    made = DecisionRecord(book="paper", session=SESSION, decision_at=BEGIN, model_version="v1", table_versions={"bars": 1})
    ledger.record_decision(made, {**asdict(made), "session": str(SESSION), "decision_at": BEGIN.isoformat()})
    assert ledger.unlike_the_log() == []
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        if "postings" in statement:  # balanced, or it could not be read at all
            database.execute(statement.replace("+ 1", "- 1").replace("leg = 0", "leg = 1"))
        database.execute(statement)
    assert BOOKED[statement] in ledger.unlike_the_log()[0]
    assert log.verified([]).sound  # the log itself is what it was


def test_rows_from_before_the_log_told_of_them_are_left_alone(tmp_path: Path) -> None:
    ledger = open_ledger(url := f"sqlite:///{tmp_path / 'ledger.sqlite'}", FixedClock(BEGIN))
    ledger.post([numbered_entry(1)])
    ledger.intend([numbered_order(1)])
    ledger.crown("s", SESSION, "v1")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as database:
        database.execute("DROP TRIGGER audit_no_delete")
        database.execute("DELETE FROM audit")
    later = open_ledger(url, FixedClock(BEGIN + timedelta(days=1)))
    assert later.unlike_the_log() == []
    later.post([numbered_entry(2)])
    later.intend([numbered_order(2)])
    later.crown("s", SESSION + timedelta(days=1), "v2")
    assert later.unlike_the_log() == []
