"""How long it takes to verify an audit log, against parsing every payload and making its canonical JSON again.

python -m benchmarks.audit [--entries 1000000]
"""

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from benchmarks.measure import MemoryPeak
from quant.audit.anchor import next_anchor, verify
from quant.audit.canonical import canonical_json
from quant.audit.chain import GENESIS, ChainEntry, entry_hash

BEGIN = datetime(2013, 1, 2, tzinfo=UTC)
PEER_SHARE = 20  # the peer does so much less, and is scaled up


def filled(path: Path, count: int) -> None:
    """A log of ``count`` entries, each with two orders in its payload."""
    rows = [[f"paper-20130207-{n:024x}", "AAPL", "close", 1, "sell", "6", "468.22", None, None, None, None] for n in range(2)]
    payload = canonical_json({"book": "paper", "session": "2013-02-07", "rows": rows}).decode()

    def entries() -> Iterator[tuple[object, ...]]:
        head = GENESIS
        for sequence in range(1, count + 1):
            at = f"{BEGIN + timedelta(seconds=sequence):%Y-%m-%d %H:%M:%S.%f}"
            head = entry_hash(head, ChainEntry(sequence, f"{at.replace(' ', 'T')}Z", "intents", None, payload).content)
            yield sequence, at, "intents", None, payload, head

    open_ledger(f"sqlite:///{path}", FixedClock(BEGIN))
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", entries())


def again(path: Path, count: int) -> int:
    """The peer: every payload parsed, and the entry's canonical JSON made of it."""
    import json

    head = bytes(32)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT sequence, recorded_at, kind, key, payload, hash FROM audit WHERE sequence <= ?", (count,))
        for sequence, at, kind, key, payload, stored in rows:
            instant = f"{at.replace(' ', 'T')}Z"
            entry = {"sequence": sequence, "recorded_at": instant, "kind": kind, "key": key, "payload": json.loads(payload)}
            head = sha256(head + canonical_json(entry)).digest()
            assert head.hex() == stored
    return count


def timed(what: str, entries: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    print(f"{what:<42} {entries:>9,} entries  {seconds:6.2f} s  {entries / seconds:>9,.0f} a second")
    return seconds / entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    count, memory = parser.parse_args().entries, MemoryPeak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        filled(path, count)
        ledger = open_ledger(f"sqlite:///{path}", FixedClock(BEGIN))
        memory.reset()
        ours = timed("verify", count, lambda: ledger.walk_audit(lambda entries: verify(entries, [])))
        print(f"{'peak memory':<42} {memory.peak_gb():.2f} GB")
        anchor = ledger.walk_audit(lambda entries: next_anchor(entries, [], written_at="", public_key=""))
        assert anchor is not None
        timed("verify against an anchor of all entries", count, lambda: ledger.walk_audit(lambda entries: verify(entries, [anchor])))
        peer = timed("every payload made again (rfc8785)", count // PEER_SHARE, lambda: again(path, count // PEER_SHARE))
    print(f"{'ratio':<42} {peer / ours:.1f}")


if __name__ == "__main__":
    main()
