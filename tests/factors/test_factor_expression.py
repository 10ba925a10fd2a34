from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quant.errors import FactorError, LookaheadError
from quant.factors.expression import MAX_LENGTH, Elementwise, Feature, Node, Number, Rolling, Shift, features, parse, text
from quant.factors.reach import Reach, reach, refuse_lookahead
from tests.factors.random_expressions import trees

CLOSE, OPEN, VOLUME = Feature(name="close"), Feature(name="open"), Feature(name="volume")


@pytest.mark.parametrize(
    ("written", "node"),
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
def test_an_expression_becomes_its_node(written: str, node: object) -> None:
    assert parse(written) == node
    assert hash(parse(written)) == hash(node)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 1, "a factor expression"),
        ("Mean($close, 5", 5, "never closed"),
        ("$close @ 5", 8, "'@'"),
        ("$close + $clsoe", 10, "found $clsoe; perhaps $close"),
        ("Meen($close, 5)", 1, "expected an operator in 'Meen($close, 5)' at position 1, found Meen; perhaps Mean"),
        ("Xyzzy($close)", 1, "found Xyzzy; use one of them"),
        ("MEAN($close, 5)", 1, "found MEAN; perhaps Mean"),
        ("$close / $roe", 10, "found $roe; use one of them"),
        ("$CLOSE", 1, "found $CLOSE; perhaps $close"),
        ("  $close + $clsoe", 12, "$clsoe"),
        ("$$close", 1, "$$close"),
        ("close", 1, "one of $open"),
        ("Zclose", 1, "one of $open"),
        ("a$close", 1, "one of $open"),
        ("1$0*$close", 1, "a factor expression"),
        ("Mean($close)", 1, "expected Mean(x, N) in 'Mean($close)' at position 1, found 1 argument; give it 2"),
        ("Corr($close, 5)", 1, "expected Corr(x, y, N)"),
        ("Quantile($close, 5)", 1, "expected Quantile(x, N, q)"),
        ("If($close > 1)", 1, "expected If(c, x, y)"),
        ("And($close > 1)", 1, "expected And(c, d)"),
        ("Delta($close)", 1, "expected Delta(x, N)"),
        ("Log()", 1, "expected Log(x) in 'Log()' at position 1, found 0 arguments; give it 1"),
        ("Mean($close, 0)", 14, "other than 0"),
        ("Mean($close, 0)", 14, "Qlib's 0 (expanding) and below 1 (exponential) depend on how much history is stored"),
        ("EMA($close, 253)", 13, "an EMA over at most 252 rows"),
        ("TResample($close, 12)", 1, "found TResample"),
        ("CSRank($close, 3)", 16, "a column to group by"),
        ("CSRank()", 1, "expected CSRank(x) or CSRank(x, $sector)"),
        (
            "CSRank($volume,$close)",
            16,
            "expected a column of labels to group by in 'CSRank($volume,$close)' at position 16, found $close, a number of the bar",
        ),
        ("CSRank($close,$session)", 15, "found $session, part of the key of a row; name one such as $sector"),
        ("CSRank($close, $symbol)", 16, "found $symbol"),
        ("CSRank($close, $listing)", 16, "found $listing"),
        ("Mean($close, 0.5)", 14, "give 1 or more: Qlib's 0 (expanding)"),
        ("Mean($close, -5)", 14, "cannot reach forward"),
        ("Mean($close, 99999)", 14, "at most 2520"),
        ("Mean($close, $open)", 14, "whole number"),
        ("Mean(5, 5)", 6, "a series"),
        ("Ref($close, 0)", 13, "Qlib's 0 is the first value ever stored"),
        ("Quantile($close, 5, 1.5)", 21, "between 0 and 1"),
        ("Quantile($close, 5, 0.1*2)", 21, "a finite number"),
        ("$close + 1e999", 10, "a finite number"),
        ("$close + True", 10, "found True"),
        ("2*3", 1, "a series"),
        ("$close.real", 1, "found a dot after"),
        ("__import__(1)", 1, "one of Abs"),
        ("(lambda: 1)($close)", 8, "found ':'"),
        ("$open < $close < $high", 1, "found several comparisons in a row; put each comparison into parentheses"),
        ("$open and $close", 1, "found and; use & between comparisons in parentheses"),
        ("$open > 1 or $close > 1", 1, "found or; use |"),
        ("$open // $close", 1, "found //; use /"),
        ("Mean($close, N=5)", 1, "found an argument with a name; give the values alone"),
        ("$open if $open > 1 else $close", 1, "found if ... else; use If(c, x, y)"),
        ("not $open > 1", 1, "found not; use Not(c)"),
        ("+$close", 1, "leave it out"),
        ("$open in $close", 1, "found in; use =="),
        ("$open, $close", 1, "found a comma outside of a call"),
        ("(Mean)($close)($open)", 1, "found a call of something else"),
        ("($open for Z in $close)", 1, "found other Python"),
        ("Mean(*$close, 5)", 6, "found a * without anything before it"),
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


@given(trees("wild", 5))
def test_what_is_printed_is_read_as_the_same_tree(node: Node) -> None:
    assume(len(text(node)) <= MAX_LENGTH)
    assert parse(text(node)) == node
    assert text(parse(text(node))) == text(node)


@given(st.text(max_size=40))
def test_any_characters_are_parsed_or_refused(scribble: str) -> None:
    with suppress(FactorError):
        parse(scribble)


@given(trees("wild", 3), st.integers(0, 200), st.integers(0, 3), st.text(st.sampled_from("$(),.+-*/<>=!&|eZ0159 _\t\0é"), max_size=3))
def test_a_damaged_expression_is_parsed_or_refused_with_a_position(node: Node, at: int, cut: int, put: str) -> None:
    whole = text(node)
    damaged = whole[: min(at, len(whole))] + put + whole[at + cut :]
    try:
        parse(damaged)
    except FactorError as refused:
        refusal = str(refused)
    else:
        return
    assert re.search(r"at position \d+, found ", refusal, re.DOTALL)


@given(st.sampled_from(["Delta({},1)", "-{}", "Med({},2)", "({})+1e14"]), st.integers(1, 200))
def test_whatever_is_read_can_be_printed_and_read_again(pattern: str, times: int) -> None:
    written = "$close"
    for _ in range(times):
        written = pattern.format(written)
    with suppress(FactorError):
        node = parse(written)
        assert len(text(node)) <= MAX_LENGTH
        assert parse(text(node)) == node


def test_what_is_too_long_once_it_is_written_out_is_refused() -> None:
    with pytest.raises(FactorError, match=r"at most 2000 characters, written out.*Delta has its argument twice"):
        parse("Delta(" * 8 + "$close" + ",1)" * 8)


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
