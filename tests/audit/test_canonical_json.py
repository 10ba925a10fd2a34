"""Canonical JSON against the examples of RFC 8785, and what has to hold of any document."""

from __future__ import annotations

import json
import struct
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.audit.canonical import canonical_json, digest

# RFC 8785, appendix B: IEEE 754 double as hexadecimal -> its text.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize("ieee", NUMBERS)
def test_a_number_is_written_as_the_rfc_says(ieee: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(ieee))
    assert canonical_json(number).decode() == NUMBERS[ieee]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**53, -(2**53)], ids=str)
def test_a_number_that_json_cannot_hold_exactly_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"nan|inf|exceeds"):
        canonical_json({"n": number})


def test_the_example_of_section_3_2_2() -> None:
    given = r"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    wanted = (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )
    assert canonical_json(json.loads(given)).decode() == wanted


def test_the_keys_of_section_3_2_3_are_sorted_by_their_utf_16_code_units() -> None:
    given = r"""{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"""
    assert list(json.loads(canonical_json(json.loads(given))).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_dates_instants_and_decimals_become_text() -> None:
    document = {"at": datetime(2013, 3, 1, 21, 30, tzinfo=UTC), "cash": Decimal("1.50"), "none": Decimal("0E-9"), "day": date(2013, 3, 1)}
    wanted = '{"at":"2013-03-01T21:30:00+00:00","cash":"1.50","day":"2013-03-01","none":"0.000000000"}'
    assert canonical_json(document).decode() == wanted


@pytest.mark.parametrize("value", [{1, 2}, object(), "\ud800"], ids=["set", "object", "half a surrogate pair"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json([value])


texts = st.text(st.characters(exclude_categories=("Cs",)))
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_a_document_comes_back_as_it_was_and_is_written_the_same_again(document: object) -> None:
    written = canonical_json(document)
    assert json.loads(written, parse_int=number) == document
    assert canonical_json(json.loads(written, parse_int=number)) == written


def number(text: str) -> float:
    """JSON has one kind of number: a whole one beyond 2**53 was written from a double."""
    return int(text) if abs(int(text)) < 2**53 else float(text)


@given(st.dictionaries(texts, documents, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter_and_their_sorting_is_that_of_utf_16(document: dict[str, object], random: object) -> None:
    shuffled = list(document.items())
    random.shuffle(shuffled)
    assert digest(dict(shuffled)) == digest(document)
    assert list(json.loads(canonical_json(document))) == sorted(document, key=lambda name: name.encode("utf-16-be"))
