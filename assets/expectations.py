"""A session's accepted bars held against the suite of expectations, for people to read and for alerts."""

from datetime import date

import polars as pl

from assets.chain import Chain
from quant.ports import BatchReview, BatchReviewer, Lake
from quant.quality.expectations import Expectation, ExpectationOutcome, session_batch, session_suite

CHECK = "expectations_are_met"


def review_session(chain: Chain, lake: Lake, reviewer: BatchReviewer, session: date, accepted: pl.DataFrame) -> BatchReview:
    """``accepted`` of the session after the accepted bars of the sessions before it. A reviewer that breaks is a failed expectation: what
    is there for people to read must not stop the session that it tells of.
    """
    eve, settings = chain.calendar.previous(session), chain.expectations
    before = lake.read("accepted_bars", first=chain.back(eve, settings.sessions - 1), last=eve)
    batch = session_batch(accepted, before, session)
    suite = session_suite(batch, before, session, absent=chain.source.facts.absent, settings=settings)
    try:
        return reviewer.review(batch, suite, session)
    except Exception as error:  # noqa: BLE001  of a library, or of the disk
        told = Expectation(id="e00_evaluated", type="", arguments={}, expected="the suite to be evaluated", sure=True)
        observed = f"{type(error).__name__}: {error}"
        return BatchReview(outcomes=(ExpectationOutcome(expectation=told, passed=False, observed=observed),), page="")
