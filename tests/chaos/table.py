"""Runs every test that is marked as proof of a scenario, and all of tests/chaos, and writes docs/exactly-once.md.

python -m tests.chaos.table

The exit code is that of the tests; the page has what came out either way.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]  # tests.conftest imports what pytest wants to import first
PAGE = REPOSITORY / "docs" / "exactly-once.md"
SCENARIOS = {
    1: ("Partial fill, then cancelled", "What executed is kept; only the rest is ordered again"),
    2: ("Fill after the cancellation", "Booked once, by whoever sees it first, and told"),
    3: ("The same fill told again", "One booking, by the id of the execution"),
    4: ("Fill told before the acknowledgement", "Kept until its order is known; what has executed never falls"),
    5: ("Split of a holding", "Shares by the ratio, cost unchanged, the fraction in cash, once"),
    6: ("Position that nobody here opened", "Quarantined; its symbol is not traded until a person confirms"),
    7: ("Position that the broker does not have", "Its symbol is not traded; nothing is booked"),
    8: ("Beyond the buying power", "Recorded as rejected, not sent again; sells went first"),
    9: ("Halted, or not tradable", "Ends unexecuted; wanted again in the next session"),
    10: ("No bar any more, delisted", "Keeps its mark up to the limit, then is written off; never ordered"),
    11: ("Clocks that do not agree", "Nothing is sent"),
    12: ("Weeks in which the clocks change", "The cut-off is New York's"),
    13: ("Half days", "Hours follow the early close"),
    14: ("The session run again on the same day", "No new order, no new entry"),
    15: ("A past session run later", "Its orders are missed; none is sent"),
    16: ("Two runs at once", "One trades"),
    17: ("The ledger locked", "Tried again; nothing is sent before the intents are in it"),
    18: ("The disk full at a write", "Rolled back; nothing is sent that is not written down, nothing twice"),
    19: ("kill -9 at each step, and in the recovery", "The same book; every order once"),
    20: ("Parquet file damaged", "Refused, by its digest"),
    21: ("Late revision of a bar", "A new version; the old decision comes out again to the byte"),
    22: ("500, 504, empty 200, 302, replies cut", "Looked up by id; no order lost, none twice"),
    23: ("Storm of 429", "Waited out within bounds; the next run finds the rest"),
    24: ("Short that can no longer be borrowed", "Denied before it is sent, or cancelled, and recorded"),
    25: ("Account reset", "Refused before anything is decided"),
}
HEAD = """# Orders exactly once

1. An order's id is made of book, session, symbol and leg, not of quantity or price: a rerun makes the same one, and the broker refuses a
   second.
2. The intent is in the ledger, quantity frozen, before anything is sent; a lock lets one run at a time send for a book.
3. `sent` is committed before the order is posted. Only a definite answer is recorded; anything else is looked up by the id, never guessed.
4. The decision is recorded after all its orders. A run that was killed goes on from the intents; from 09:28 on, what never arrived is
   `missed`.
5. Executions, splits, dividends and fees are booked under keys of their own, each once; a reconciliation precedes every decision.

The tests run the product's own desk, ledger and Alpaca adapter against the [stand-in](broker.md) for a broker, a server with its own log:
what became of an order is judged by that log, not by the ledger alone. Processes are killed by SIGKILL before and after each call of the
ledger and the broker, and again while they recover. Where a scenario needs no broker, the test is beside what it tests.

`make chaos` runs them and writes this page. The counts are of its last run: cases are tests with each of their parameters.

"""


def marked() -> dict[int, list[str]]:
    """Tests (path::name) by the number of the scenario that they are marked with."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        text = path.read_text()
        for test in ast.parse(text).body if "mark.scenario(" in text else []:
            if isinstance(test, ast.FunctionDef):
                for mark in test.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.scenario":
                        found[ast.literal_eval(mark.args[0])].append(f"{path.relative_to(REPOSITORY)}::{test.name}")
    return dict(found)


class Counts:
    """A plugin: cases that ran and that passed, by path::name."""

    def __init__(self) -> None:
        self.ran: dict[str, bool] = {}
        self.skipped: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case has passed if none of set-up, call and tear-down failed; one that was skipped did not run."""
        if report.skipped:
            self.skipped.add(report.nodeid)
            self.ran.pop(report.nodeid, None)
        elif report.nodeid not in self.skipped:
            self.ran[report.nodeid] = self.ran.get(report.nodeid, True) and report.passed

    def of(self, tests: Sequence[str]) -> tuple[int, int]:
        """Cases of ``tests`` that ran, and that passed."""
        mine = [passed for case, passed in self.ran.items() if case.partition("[")[0] in tests]
        return len(mine), sum(mine)


def page(tests: Mapping[int, Sequence[str]], counts: Counts) -> str:
    """The page."""
    lines = ["| | scenario | what comes out | cases | passed |", "|---|---|---|---|---|"]
    for number, (scenario, outcome) in SCENARIOS.items():
        ran, passed = counts.of(tests.get(number, ()))
        lines.append(f"| {number} | {scenario} | {outcome} | {ran} | {passed} |")
    files = Counter(case.partition("::")[0] for case in counts.ran)
    passed = sum(counts.ran.values())
    total = f"{len(counts.ran)} cases of {len(files)} files ran, {passed} passed. One that shows two scenarios is in both rows."
    shown = ["## The tests", ""]
    for number, (scenario, _) in SCENARIOS.items():
        shown.append(f"{number}. {scenario}")
        shown += [f"    - [{name}](../{path})" for path, _, name in (test.partition("::") for test in tests.get(number, ()))]
    return HEAD + "\n".join([*lines, "", total, "", *shown, ""])


def main() -> int:
    """Run, count, write."""
    tests, counts = marked(), Counts()
    elsewhere = sorted({test for some in tests.values() for test in some if not test.startswith("tests/chaos/")})
    options = ["-q", "-p", "no:cacheprovider", "-n", "logical", "--maxprocesses", "4", "--ignore=tests/chaos/test_table.py"]
    code = pytest.main([*options, "tests/chaos", *elsewhere, *sys.argv[1:]], plugins=[counts])
    PAGE.write_text(page(tests, counts))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
