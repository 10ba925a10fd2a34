"""What depends on the level of prices is found and refused, and nothing else is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import FactorError
from quant.factors.library.frozen import LIBRARIES, frozen_library
from quant.factors.scale import refuse_scale, scale_faults, volume_matters

FREE = [
    "$close/$open-1",
    "$close/Ref($close,1)-1",
    "Log($close/Ref($close,1))",
    "Log($close)-Log(Ref($close,1))",
    "Rank($close,5)",
    "IdxMax($high,5)/5",
    "Mean($close>Ref($close,1),20)",
    "Std($close,20)/$close",
    "Slope($close,60)/$close",
    "Resi($close,2)/$close",
    "Std($close,5)/Resi($close,5)",
    "Skew($close,10)+Kurt($close,10)",
    "Corr($close,Log($volume+1),10)",
    "Corr($close,$volume,2)",
    "EMA($close,12)/EMA($close,26)-1",
    "WMA($close,9)/Mean($close,9)",
    "($close-$open)/($high-$low+1e-12)",
    "Power($close-$open,2)/(Power($high-$low,2)+1e-12)",
    "Power($close/Ref($close,1),50)",
    "Sign($close-Ref($close,1))*Log($volume)",
    "$volume",
    "Log($volume+1)",
    "If($volume>5e6,$close/$open,1)",
    "1/($close-$close)",
    "$close>0",
    "Count($close,5)",
    "CSRank($close/Ref($close,5))",
    "CSRank($volume,$sector)",
    "CSZScore(Log($close/Ref($close,5)),$sector)",
    "CSScale(CSDemean($close/$open))",
    "Ref($close,600)/$close",
    "Mean($close,2520)/$close",
]
DEPENDENT = [
    "$close",
    "Mean($close,5)",
    "Std($close,5)",
    "Sum($vwap,3)",
    "$close-Ref($close,1)",
    "$close/Ref($volume,1)",
    "$close*$volume",
    "Log($close)",
    "Log($close*$volume)",
    "1/$close",
    "$close*1e-10",
    "$close/$open+1e-6*$close",
    "Sign($close-50)",
    "$close>5",
    "$close<20000",
    "If($close>1,$close/$open,1)",
    "Power($close,0.1)",
    "Cov($close,$open,5)",
    "Corr(Log($close+1),$volume,10)",
    "Slope($close,5)",
    "Resi($close,5)",
    "CSRank($close)",
    "CSRank($close,$sector)",
    "CSZScore($close)",
    "CSDemean($close/100)",
    "CSScale($vwap)",
    "If(CSRank($close)>0.5,1,0)",
    "Ref($close,600)",
    "Mean($high,2520)",
    "If($open==$close,$close,$close/$open)",
    "If($low==$high,$close,1)",
    "If($volume==0,$close,$close/$open)",
    "If(Min($volume,5)==0,$close,0)",
    "If(Count($close,20)<5,$close,1)",
    "If(Count($close,2)<2,Ref($close,1),1)",
    "($close==Ref($close,1))*$close",
    "Mean($close,5)/$close+If(Max($close/Ref($close,1),5)>1.8,$close,0)",
    "If(Min($close/Ref($close,1),5)<0.4,$close,0)",
    "$close<0.5",
    "If($close>0.5,$close/Ref($close,5)-1,0)",
    "($high-$low)<0.005",
    "Mean($close,5)>300000",
    "Less($close,400000)/$close",
    "($close/$open)*($close>100000)",
    "Rsquare($close*1e-3,20)",
]


@pytest.mark.parametrize("text", FREE)
def test_what_does_not_depend_on_the_level_of_prices_is_accepted(text: str) -> None:
    refuse_scale("F", text)


@pytest.mark.parametrize("text", DEPENDENT)
def test_what_depends_on_the_level_of_prices_is_refused(text: str) -> None:
    with pytest.raises(
        FactorError, match=r"does not depend on the level of prices in factor F, found .* that becomes .*; divide by \$close"
    ):
        refuse_scale("F", text)


def test_the_refusal_shows_a_value_before_and_after() -> None:
    with pytest.raises(FactorError) as refused:
        refuse_scale("MOVE", "Max($close,1)/$open*$close*0+Max($close,3)/Max($close,3)*Max(If($close>3,2,1),1)")
    assert "in factor MOVE, found 2 that becomes 1 where prices are 0.0137 times as high" in str(refused.value)


@pytest.mark.parametrize("library", LIBRARIES)
def test_qlibs_own_libraries_do_not_depend_on_the_level_of_prices(library: str) -> None:
    assert scale_faults(frozen_library(library)) == {}


@pytest.mark.parametrize("text", ["Log(0-$close)", "Log($volume-1e300)", "Ref(Ref(Ref($close,2520),2520),2520)/$close"])
def test_a_factor_without_a_value_on_ordinary_bars_is_refused(text: str) -> None:
    with pytest.raises(FactorError, match="expected a value on ordinary bars in factor F, found none at all"):
        refuse_scale("F", text)


def test_every_fault_of_several_factors_is_found_in_their_order() -> None:
    faults = scale_faults({"LEVEL": "Mean($close,60)", "FREE": "$close/$open", "NEVER": "Log(0-$close)", "MOVE": "$close-$open"})
    assert list(faults) == ["LEVEL", "NEVER", "MOVE"]


@pytest.mark.parametrize(
    ("text", "matters"),
    [
        ("$volume", True),
        ("Log($volume+1)", True),
        ("CSRank($volume)", True),
        ("Corr($close,Log($volume+1),5)", True),
        ("$close/$open", False),
        ("Log($volume/Ref($volume,1)+1)", False),
        ("$volume/(Mean($volume,5)+1e-12)", False),
        ("Corr($close,$volume,5)", False),
    ],
)
def test_whether_the_level_of_volume_matters_is_told(text: str, matters: bool) -> None:
    assert volume_matters(text) is matters


PRICE = st.sampled_from(["$open", "$high", "$low", "$close", "$vwap"])
SMOOTHED = st.builds("{}({},{})".format, st.sampled_from(["Mean", "Max", "Min", "Med", "Ref", "Sum", "EMA"]), PRICE, st.integers(2, 30))


@settings(max_examples=40, deadline=None)
@given(left=SMOOTHED, right=SMOOTHED, operator=st.sampled_from(["+", "-"]), power=st.sampled_from([0.5, 1, 2]))
def test_a_quotient_of_prices_is_accepted_and_its_numerator_refused(left: str, right: str, operator: str, power: float) -> None:
    numerator = f"Power(Abs({left}{operator}2*({right})),{power})"
    refuse_scale("F", f"{numerator}/Power({right},{power})")
    with pytest.raises(FactorError, match="level of prices"):
        refuse_scale("F", numerator)


def test_an_ordinary_expression_takes_less_than_a_tenth_of_a_second() -> None:
    refuse_scale("WARM", "Mean($close,60)/$close")
    begun = time.perf_counter()
    refuse_scale("F", "Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), 60)")
    assert time.perf_counter() - begun < 0.1
