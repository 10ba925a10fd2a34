from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import FactorError, LookaheadError
from quant.factors.expression import Elementwise, Feature, Number, Rolling, Shift, features, parse
from quant.factors.reach import Reach, reach, refuse_lookahead

CLOSE, OPEN, VOLUME = Feature(name="close"), Feature(name="open"), Feature(name="volume")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("$close", CLOSE),
        ("Ref($close, 5)/$close", Elementwise(op="Div", args=(Shift(arg=CLOSE, by=5), CLOSE))),
        ("Ref($close,-2)", Shift(arg=CLOSE, by=-2)),
        ("-1*$close", Elementwise(op="Mul", args=(Number(value=-1.0), CLOSE))),
        ("-$close", Elementwise(op="Mul", args=(CLOSE, Number(value=-1.0)))),
        ("$close+1e-12", Elementwise(op="Add", args=(CLOSE, Number(value=1e-12)))),
        ("$close**2", Elementwise(op="Power", args=(CLOSE, Number(value=2.0)))),
        ("Greater($open, $close)", Elementwise(op="Greater", args=(OPEN, CLOSE))),
        ("$close>$open", Elementwise(op="Gt", args=(CLOSE, OPEN))),
        ("Quantile($close, 5, 0.8)", Rolling(op="Quantile", args=(CLOSE,), window=5, level=0.8)),
        ("Med($close, 5)", Rolling(op="Quantile", args=(CLOSE,), window=5, level=0.5)),
        ("Delta($close, 3)", Elementwise(op="Sub", args=(CLOSE, Shift(arg=CLOSE, by=3)))),
        ("Corr($close, $volume, 5)", Rolling(op="Corr", args=(CLOSE, VOLUME), window=5)),
        ("  Mean(\n $close,\n 5 )", Rolling(op="Mean", args=(CLOSE,), window=5)),
    ],
)
def test_an_expression_becomes_its_node(text: str, node: object) -> None:
    assert parse(text) == node
    assert hash(parse(text)) == hash(node)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 1, "a factor expression"),
        ("Mean($close, 5", 5, "never closed"),
        ("$close @ 5", 8, "'@'"),
        ("$close + $clsoe", 10, "found $clsoe; perhaps $close"),
        ("Meen($close, 5)", 1, "found Meen; perhaps Mean"),
        ("Xyzzy($close)", 1, "found Xyzzy; use one of them"),
        ("  $close + $clsoe", 12, "$clsoe"),
        ("$$close", 1, "$$close"),
        ("close", 1, "one of $open"),
        ("Zclose", 1, "one of $open"),
        ("a$close", 1, "one of $open"),
        ("1$0*$close", 1, "a factor expression"),
        ("Mean($close)", 1, "2 argument(s) of Mean"),
        ("Mean($close, 0)", 14, "other than 0"),
        ("EMA($close, 253)", 13, "an EMA over at most 252 rows"),
        ("TResample($close, 12)", 1, "one of Abs"),
        ("CSRank($close, 3)", 16, "a column to group by"),
        ("CSRank()", 1, "a series and perhaps a group"),
        ("Mean($close, 0.5)", 14, "whole number"),
        ("Mean($close, -5)", 14, "cannot reach forward"),
        ("Mean($close, 99999)", 14, "at most 2520"),
        ("Mean($close, $open)", 14, "whole number"),
        ("Mean(5, 5)", 6, "a series"),
        ("Ref($close, 0)", 13, "other than 0"),
        ("Quantile($close, 5, 1.5)", 21, "between 0 and 1"),
        ("Quantile($close, 5, 0.1*2)", 21, "a finite number"),
        ("$close + 1e999", 10, "a finite number"),
        ("$close + True", 10, "found True"),
        ("2*3", 1, "a series"),
        ("$close.real", 1, "Attribute"),
        ("__import__(1)", 1, "one of Abs"),
        ("(lambda: 1)($close)", 8, "found ':'"),
        ("$open < $close < $high", 1, "Compare"),
        ("$open and $close", 1, "BoolOp"),
        ("$open // $close", 1, "BinOp"),
        ("Mean($close, N=5)", 1, "Call"),
        ("Mean(*$close, 5)", 6, "Starred"),
        ("($open>1) + ($close>1)", 1, "two comparisons"),
        ("($open>1) & $close", 13, "a comparison in And"),
        ("If($open, 1, $close)", 4, "a comparison in If"),
        ("+" * 2001 + "$close", 1, "at most 2000 characters"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_position(text: str, position: int, words: str) -> None:
    with pytest.raises(FactorError, match=re.escape(words)) as refused:
        parse(text)
    assert f"at position {position}, found" in str(refused.value)
    assert refused.value.position == position


@given(
    st.lists(
        st.sampled_from(["$close", "$", "Z", "Mean", "Ref", "(", ")", ",", "-", "+", "**", "<", "&", "1", "0.5", "if", " ", "\n"]),
        max_size=14,
    )
)
def test_any_text_is_parsed_or_refused_and_nothing_else(parts: list[str]) -> None:
    with suppress(FactorError):
        assert features(parse("".join(parts))) == {"close"}


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(FactorError, match="nested"):
        parse("(" * 900 + "$close" + ")" * 900)


def test_nested_deltas_are_refused_before_they_double_out_of_hand() -> None:
    with pytest.raises(FactorError, match=r"at most 10000 parts.*nested Delta doubles"):
        parse("Delta(" * 90 + "$close" + ",1)" * 90)


@pytest.mark.parametrize(
    ("text", "past", "future"),
    [
        ("$close/$open", 0, 0),
        ("Ref($close, 5)/$close", 5, 0),
        ("Mean($close, 5)", 4, 0),
        ("Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), 60)", 60, 0),
        ("Ref($open,-2)/Ref($open,-1)-1", 0, 2),
        ("Mean(Ref($close,-3),5)", 4, 3),
        ("Ref(Ref($close,-2),5)", 5, 2),
        ("Mean(Mean(Ref($close,1),10),20)", 29, 0),
    ],
)
def test_reach_is_read_off_the_expression(text: str, past: int, future: int) -> None:
    assert reach(parse(text)) == Reach(past=past, future=future)


def test_a_feature_that_reaches_forward_is_refused() -> None:
    with pytest.raises(LookaheadError, match="feature PEEK, found a reach of 1 session"):
        refuse_lookahead("PEEK", parse("Mean(Ref($close,-1),5)"))
