"""The schema at every revision: what the code expects, append-only, and nothing lost on the way to the next."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.ledger.append_only import VERSION_TABLE
from adapters.ledger.migrate import MIGRATIONS, bring_to_head, revision
from adapters.ledger.schema import HEAD, metadata
from adapters.ledger.sqlite import sqlite_engine, transact
from quant.audit.anchor import Verification, verify
from quant.errors import InputError, LedgerError
from quant.ledger.entries import Account, Entry, EntryKind, transfer

ROOT = Path(__file__).parents[3]
CLOCK = FixedClock(datetime(2013, 3, 1, 22, tzinfo=UTC))
ENTRY = Entry(
    book="paper",
    session=date(2013, 3, 1),
    key="deposit",
    kind=EntryKind.DEPOSIT,
    symbol=None,
    postings=transfer(Account.EXTERNAL, Account.CASH, Decimal("1000000.01")),
)
REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]

NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "next", "{head}"


def upgrade() -> None:
    for table in ("entries", "orders"):
        with op.batch_alter_table(table, recreate="always") as batch:
            batch.add_column(sa.Column("note", sa.String))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def migrated(file: Path, target: str, migrations: Path = MIGRATIONS) -> None:
    engine = sqlite_engine(f"sqlite:///{file}")
    bring_to_head(engine, target=target, migrations=migrations)
    engine.dispose()


def tables(connection: sqlite3.Connection) -> list[str]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return sorted(name for (name,) in names if name != VERSION_TABLE)


def refused(connection: sqlite3.Connection, statement: str) -> bool:
    try:
        connection.execute(statement)
    except sqlite3.IntegrityError as error:
        return "append-only" in str(error)
    return False


def with_one_row_a_table(connection: sqlite3.Connection) -> None:
    """Whatever the revision: a text, number or document that its columns take."""
    for table in tables(connection):
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        values = ["1" if "INT" in kind or kind == "FLOAT" else "'{}'" for _, _, kind, *_ in columns]
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join(values)})")


def test_the_newest_revision_is_the_one_the_code_knows() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_the_migrated_database_is_what_the_code_declares(file: Path) -> None:
    migrated(file, HEAD)
    differences = transact(
        sqlite_engine(f"sqlite:///{file}"),
        lambda connection: compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata),
    )
    assert differences == []


@pytest.mark.parametrize("target", REVISIONS)
def test_no_row_can_be_changed_deleted_or_replaced_at_any_revision(file: Path, target: str) -> None:
    migrated(file, target)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        with_one_row_a_table(connection)
        assert tables(connection)
        for table in tables(connection):
            column = connection.execute(f"PRAGMA table_info({table})").fetchone()[1]
            assert refused(connection, f"UPDATE {table} SET {column} = {column}")
            assert refused(connection, f"DELETE FROM {table}")
            assert refused(connection, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


@pytest.mark.parametrize("start", REVISIONS)
def test_an_upgrade_leaves_every_row_from_any_revision(file: Path, start: str) -> None:
    migrated(file, start)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        with_one_row_a_table(connection)
        before = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables(connection)}
    migrated(file, HEAD)
    with closing(sqlite3.connect(file)) as connection:
        assert {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in before} == before


def test_what_was_recorded_before_entries_were_chained_is_chained_as_it_stands(file: Path) -> None:
    migrated(file, "0003")
    rows = [
        (1, "2013-02-28 22:00:00.000001", "decision", '{"book": "paper", "nav": 1.0, "ö": null}'),
        (2, "2013-03-01 22:00:00", "halt", "{}"),
    ]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executemany("INSERT INTO audit VALUES (?, ?, ?, ?)", rows)
    ledger = open_ledger(f"sqlite:///{file}", CLOCK)
    ledger.record("halt", {"reason": "since"})
    entries = ledger.walk_audit(list)
    assert verify(entries, []) == Verification(entries=3, head=entries[-1].hash, anchors=0, anchored=0)
    assert [(e.sequence, e.kind, e.recorded_at[:10]) for e in entries[:2]] == [(1, "decision", "2013-02-28"), (2, "halt", "2013-03-01")]
    assert entries[0].payload == '{"book":"paper","nav":1,"ö":null}'
    assert ledger.audit("decision") == [(1, datetime(2013, 2, 28, 22, 0, 0, 1, UTC), "decision", {"book": "paper", "nav": 1.0, "ö": None})]


def test_a_revision_that_copies_tables_keeps_their_rows_and_gets_its_triggers_back(file: Path, tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", CLOCK)
    ledger.post([ENTRY])
    later = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, later)
    (later / "versions" / "9999_next.py").write_text(NEXT.format(head=HEAD))
    migrated(file, "next", later)
    assert ledger.entries("paper") == [ENTRY]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        assert "note" in {row[1] for row in connection.execute("PRAGMA table_info(entries)")}
        for table in ("entries", "postings"):
            assert refused(connection, f"DELETE FROM {table}")
            assert refused(connection, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")


def test_a_migration_that_fails_leaves_the_database_as_it_was(file: Path, tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", CLOCK)
    ledger.post([ENTRY])
    later = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, later)
    (later / "versions" / "9999_next.py").write_text(NEXT.format(head=HEAD) + "    op.execute('no such statement')\n")
    with pytest.raises(LedgerError, match="no"):
        migrated(file, "next", later)
    assert ledger.entries("paper") == [ENTRY]
    assert transact(sqlite_engine(f"sqlite:///{file}"), revision) == HEAD


def test_a_ledger_of_a_newer_version_is_refused(file: Path) -> None:
    migrated(file, HEAD)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'future'")
    with pytest.raises(LedgerError, match=f"expected a ledger at revision {HEAD} or before"):
        open_ledger(f"sqlite:///{file}", CLOCK)


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    file.write_text("session,symbol,quantity\n" * 100)
    with pytest.raises(LedgerError, match="found file is not a database"):
        open_ledger(f"sqlite:///{file}", CLOCK)
    assert file.read_text().startswith("session,")


@pytest.mark.parametrize("url", ["ledger.sqlite", "postgresql://localhost/ledger", ""])
def test_a_url_that_is_not_sqlites_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected a URL sqlite:///path/to/file"):
        open_ledger(url, CLOCK)


def test_a_ledger_in_memory_works_and_two_of_them_are_two() -> None:
    one, other = open_ledger("sqlite://", CLOCK), open_ledger("sqlite://", CLOCK)
    one.post([ENTRY])
    assert (one.entries("paper"), other.entries("paper")) == ([ENTRY], [])


def test_an_up_to_date_ledger_opens_without_alembic_and_a_fresh_one_without_a_word(file: Path) -> None:
    script = f"""
import logging, sys
from datetime import UTC, datetime
from adapters.clock import SystemClock
from adapters.ledger import open_ledger
logging.basicConfig(level=logging.INFO)
open_ledger("sqlite:///{file}", SystemClock())
print("alembic" in sys.modules)
"""
    for imports_alembic in (True, False):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        assert (done.stdout.strip(), done.stderr) == (str(imports_alembic), "")
