"""The report on factors: Alpha158, the user's library and the model's scores against the labels of the history."""

from collections.abc import Collection, Iterator

import dagster as dg
import polars as pl

from assets.chain import Chain, table_metadata
from assets.features import KEY, calendar_years, factor_tables
from quant.errors import SequenceError, expected
from quant.factors.library.alpha158 import alpha158
from quant.modelling.factor_statistics import factor_statistics
from quant.ports import Lake, Ledger, ModelStore, ReportPublisher, TrainedModel
from quant.reports.factors import factor_report_model

MODEL = "score"


def measured_factors(chain: Chain) -> dict[str, tuple[str, str]]:
    """Every factor with the table that holds it and what it is computed by."""
    model = f"{chain.strategy.name}: LightGBM on {chain.strategy.feature_set}, retrained every year, out of sample"
    return {
        **{name: ("alpha158", text) for name, text in alpha158().items()},
        **{name: ("user_factors", text) for name, text in sorted(chain.strategy.library.items())},
        MODEL: ("scores", model),
    }


def labelled_factors(chain: Chain, lake: Lake) -> Iterator[pl.DataFrame]:
    """session, symbol, every factor and the label, null where it is not known by the end of the history; a year at a time."""
    known = lake.read("forward_returns", last=chain.history_last, columns=[*KEY, "label"])
    tables = ("alpha158", "user_factors") if chain.strategy.library else ("alpha158",)
    for first, last in calendar_years(chain.start, chain.history_last):
        scores = lake.read("scores", first=first, last=last, columns=[*KEY, "score"]).rename({"score": MODEL})
        rows = factor_tables(chain, lake, tables, first, last)
        for right in (scores, known):
            rows = rows.join(right, on=KEY, how="left", validate="1:1", maintain_order="left")
        yield rows


def require_trained_on(trained: TrainedModel, factors: Collection[str]) -> None:
    """Raises SequenceError if the model of the stored scores reads a factor that the profile does not have: the page would leave it out."""
    for name in sorted(set(trained.features) - set(factors)):
        what, where = "scores of a model that reads the profile's factors only", f"model {trained.version}"
        do = "name the library with --profile, or run `afterclose history` for a model without it"
        raise SequenceError(expected(what, found=f"one that reads {name}", where=where, do=do))


@dg.asset(group_name="research", deps=["feature_history", "label_history", "walk_forward_scores"], kinds={"polars", "plotly"})
def factor_report(
    context: dg.AssetExecutionContext,
    chain: dg.ResourceParam[Chain],
    lake: dg.ResourceParam[Lake],
    reports: dg.ResourceParam[ReportPublisher],
    ledger: dg.ResourceParam[Ledger],
    models: dg.ResourceParam[ModelStore],
) -> dg.MaterializeResult:
    """One self-contained page on every factor's information coefficient over the history, and its figures as a table."""
    factors = measured_factors(chain)
    champion = ledger.champion(chain.strategy.name, chain.history_last)
    if champion is not None:
        require_trained_on(models.load(chain.strategy.name, champion[1]), factors)
    measures = factor_statistics(labelled_factors(chain, lake), list(factors))
    model = factor_report_model(
        measures,
        factors,
        first=chain.start,
        session=chain.history_last,
        profile=chain.profile,
        source=chain.source.facts.name,
        label=chain.strategy.settings.label,
    )
    page = reports.publish_factors(model)
    lake.replace("factor_statistics", model.figures, first=chain.start, last=chain.history_last)
    context.log.info(f"{model.chance.beyond_threshold} of {model.chance.factors} factors beyond {model.chance.threshold:.2f}")
    return dg.MaterializeResult(
        metadata={
            **table_metadata(lake, "factor_statistics", model.figures.height),
            "page": dg.MetadataValue.path(page),
            "factors": model.chance.factors,
            "beyond_2": model.chance.beyond_usual,
            "beyond_2_by_chance": model.chance.expected,
            "bonferroni_threshold": model.chance.threshold,
            "beyond_bonferroni": model.chance.beyond_threshold,
        }
    )
