"""docs/exactly-once.md says what the tests are marked with."""

from __future__ import annotations

import re

import pytest

from tests.chaos.table import HEAD, PAGE, SCENARIOS, Counts, marked, page


def test_every_scenario_has_a_test():
    assert sorted(marked()) == list(range(1, 26)) == list(SCENARIOS)


def test_the_page_names_the_tests_that_are_marked_now_and_all_of_their_cases_passed():
    text = PAGE.read_text()
    tests = marked()
    assert text.startswith(HEAD), "run `make chaos`"
    assert text[text.index("## The tests") :] == page(tests, Counts())[page(tests, Counts()).index("## The tests") :], "run `make chaos`"
    rows = re.findall(r"^\| (\d+) \|.*\| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(SCENARIOS)
    assert all(int(passed) == int(ran) >= len(tests[int(number)]) for number, ran, passed in rows)


def test_a_case_that_failed_in_any_of_its_phases_has_not_passed_and_a_skipped_one_did_not_run():
    counts = Counts()
    for case, phases in {
        "t.py::a[1]": "passed passed passed",
        "t.py::a[2]": "passed failed passed",
        "t.py::b": "passed skipped passed",
    }.items():
        for outcome in phases.split():
            counts.pytest_runtest_logreport(pytest.TestReport(case, ("t.py", 1, case), {}, outcome, None, "call"))  # type: ignore[arg-type]
    assert (counts.of(["t.py::a"]), counts.of(["t.py::b"])) == ((2, 1), (0, 0))
