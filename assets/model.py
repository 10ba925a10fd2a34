"""Walk-forward training, the champion, and the session's scores."""

from collections.abc import Iterator
from datetime import date
from hashlib import sha256

import dagster as dg
import polars as pl

from assets.chain import Chain, session_of, table_metadata, warning
from assets.features import feature_history, label_history, model_features
from assets.market import members
from quant.modelling.information_coefficient import IcSummary, information_coefficient, summarise_ic
from quant.modelling.walk_forward import Fold, yearly_folds
from quant.ports import Lake, Ledger, ModelStore, TrainedModel, TrainingRecord
from strategies.alpha_baseline.model import TrainedFold

SIGNATURE_ROWS = 5


def folds(chain: Chain, last: date) -> list[Fold]:
    """The yearly folds up to the year of ``last``."""
    settings = chain.strategy.settings
    return yearly_folds(
        chain.calendar, first=chain.start, last=last, train_years=settings.train_years, max_train_years=settings.max_train_years
    )


def train(chain: Chain, lake: Lake, fold: Fold) -> TrainedFold:
    """Train one fold from what the lake knew before its first test session."""
    before = chain.calendar.previous(fold.test_first)
    features = model_features(chain, lake, fold.train_first, before)
    labels = lake.read("forward_returns", first=fold.train_first, last=before)
    return chain.strategy.train(fold, features, labels, chain.source.facts.absent)


def fold_ic(lake: Lake, scores: pl.DataFrame) -> IcSummary | None:
    """Rank IC of out-of-sample scores against the labels known so far; None while none is."""
    return summarise_ic(information_coefficient(scores, lake.read("forward_returns", columns=["session", "symbol", "label"])))


def ic_metrics(ic: IcSummary | None) -> dict[str, float]:
    """An information coefficient with number of names, sessions and t-statistic; empty while nothing is known."""
    if ic is None:
        return {}
    measured = {"ic_mean": ic.mean, "ic_sessions": ic.sessions, "ic_names": ic.names, "ic_t_statistic": ic.t_statistic}
    return {name: float(value) for name, value in measured.items() if value is not None}


def training_record(chain: Chain, lake: Lake, trained: list[TrainedFold], ics: list[IcSummary | None]) -> TrainingRecord:
    """What people want to see of a training run: parameters, metrics per fold (step = year), data versions, importance of the last fold."""
    newest, settings = trained[-1], chain.strategy.settings
    metrics: list[tuple[str, float, int]] = []
    for fold, ic in zip(trained, ics, strict=True):
        year = fold.fold.year
        counted = {"train_rows": fold.train_rows, "valid_rows": fold.valid_rows, "rounds": fold.rounds}
        metrics += [(name, float(value), year) for name, value in {**counted, **ic_metrics(ic)}.items()]
    params = {**settings.model_dump(exclude={"params"}, exclude_none=True), **settings.params, "features": chain.strategy.feature_set}
    valid = newest.fold.valid_first
    return TrainingRecord(
        strategy=chain.strategy.name,
        name=f"walk-forward through {newest.fold.year}",
        params={**params, "dropped_columns": ",".join(newest.dropped), "train_first": str(newest.fold.train_first)},
        metrics=metrics,
        data_versions={table: str(lake.version(table)) for table in (*chain.strategy.feature_tables, "forward_returns")}
        | {"profile": chain.profile},
        importance=newest.importance,
        sample=model_features(chain, lake, chain.back(valid, SIGNATURE_ROWS), valid).tail(SIGNATURE_ROWS).select(newest.model.features),
    )


def crown(chain: Chain, ledger: Ledger, models: ModelStore, trained: TrainedFold, record: TrainingRecord) -> str:
    """Register the model and make it champion from the fold's first test session on: in the ledger, which is the truth, then as alias."""
    registered = models.register(trained.model, record)
    text = sha256(trained.model.text.encode()).hexdigest()
    evidence = {"text_sha256": text, "registry_version": registered, "data_versions": record.data_versions}
    ledger.crown(chain.strategy.name, trained.fold.test_first, trained.model.version, evidence)
    models.crown(chain.strategy.name, trained.model.version)
    return registered


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "walk_forward_scores",
            deps=[feature_history, label_history],
            group_name="research",
            kinds={"lightgbm", "deltalake"},
            description="Out-of-sample scores of the yearly retraining, up to the paper start.",
        ),
        dg.AssetSpec(
            "alpha_model",
            deps=[feature_history, label_history],
            group_name="research",
            kinds={"lightgbm", "mlflow"},
            description="The model of the last fold as an MLflow version, champion from the fold's first session on.",
        ),
    ],
    name="walk_forward",
)
def walk_forward(
    context: dg.AssetExecutionContext,
    chain: dg.ResourceParam[Chain],
    lake: dg.ResourceParam[Lake],
    ledger: dg.ResourceParam[Ledger],
    models: dg.ResourceParam[ModelStore],
) -> Iterator[dg.MaterializeResult]:
    """Retrain every year with purged folds, score the year that follows, keep the last model."""
    trained: list[TrainedFold] = []
    parts: list[pl.DataFrame] = []
    ics: list[IcSummary | None] = []
    planned, known_by = folds(chain, chain.paper_start), chain.history_instant(lake, ledger)
    for number, fold in enumerate(planned, start=1):
        context.log.info(f"fold {number} of {len(planned)}: {fold.year}")
        trained.append(train(chain, lake, fold))
        last = min(fold.test_last, chain.history_last)
        tested = members(chain, lake, ledger, model_features(chain, lake, fold.test_first, last), fold.test_first, last, known_by)
        parts.append(chain.strategy.score(trained[-1].model, tested))
        ics.append(fold_ic(lake, parts[-1]))
        context.log.info(f"{fold.year}: {trained[-1].rounds} rounds, {ic_metrics(ics[-1])}")
    dropped = ", ".join(trained[-1].dropped)
    if dropped:
        context.log.info(f"dropped from training, because the source declares their bar column absent: {dropped}")
    scores = pl.concat(parts)
    lake.replace("scores", scores, first=chain.start, last=chain.history_last)
    yield dg.MaterializeResult(
        asset_key="walk_forward_scores",
        metadata={
            **table_metadata(lake, "scores", scores.height),
            "folds": len(trained),
            **ic_metrics(fold_ic(lake, scores)),
        },
    )
    registered = crown(chain, ledger, models, trained[-1], training_record(chain, lake, trained, ics))
    yield dg.MaterializeResult(
        asset_key="alpha_model",
        metadata={
            "model_version": trained[-1].model.version,
            "registry_version": registered,
            "rounds": trained[-1].rounds,
            "train_rows": trained[-1].train_rows,
            "dropped_columns": dropped or "none",
            "top_features": ", ".join(trained[-1].importance["feature"].head(5)),
        },
    )


@dg.asset_check(asset="walk_forward_scores")
def scores_have_spread(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Warns of sessions in which the model says the same of every name: they carry no signal."""
    spread = lake.read("scores", columns=["session", "score"]).group_by("session").agg(pl.col("score").n_unique().alias("n"), pl.len())
    flat = spread.filter(pl.col("n") < 2).height
    return dg.AssetCheckResult(
        passed=flat == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"sessions": spread.height, "sessions_without_spread": flat}
    )


def model_in_force(chain: Chain, lake: Lake, ledger: Ledger, models: ModelStore, session: date) -> TrainedModel:
    """The model of a session: that of its stored decision, else the champion; the first session of a new year retrains it first."""
    stored = ledger.decision(chain.paper_book, session)
    if stored is not None and stored.model_version is not None:
        return models.load(chain.strategy.name, stored.model_version)
    champion = ledger.champion(chain.strategy.name, session)
    fold = folds(chain, session)[-1]
    if champion is not None and champion[0] >= fold.test_first:
        return models.load(chain.strategy.name, champion[1])
    trained = train(chain, lake, fold)
    crown(chain, ledger, models, trained, training_record(chain, lake, [trained], [None]))
    return trained.model


def daily_model_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The daily link from features to scores."""

    @dg.asset(
        partitions_def=sessions,
        group_name="paper",
        deps=["alpha158", "forward_returns"],
        kinds={"lightgbm", "deltalake"},
        check_specs=[
            dg.AssetCheckSpec(
                "session_scores_have_spread",
                asset="scores",
                description="Warns when the model says the same of every name: the book then keeps what it holds.",
            )
        ],
    )
    def scores(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        models: dg.ResourceParam[ModelStore],
    ) -> dg.MaterializeResult:
        """Predictions of the champion as of the session."""
        session = session_of(context)
        model = model_in_force(chain, lake, ledger, models, session)
        features = model_features(chain, lake, session, session)
        known_by = chain.decision_instant(lake, ledger, session)
        rows = chain.strategy.score(model, members(chain, lake, ledger, features, session, session, known_by))
        lake.replace("scores", rows, first=session, last=session)
        spread, distinct = rows["score"].std(), rows["score"].n_unique()
        return dg.MaterializeResult(
            metadata={
                **table_metadata(lake, "scores", rows.height),
                "model_version": model.version,
                "outside_the_universe": features.height - rows.height,
                "score_spread": float(spread) if isinstance(spread, float) else 0.0,
            },
            check_results=[warning("scores", "session_scores_have_spread", distinct > 1, {"distinct_scores": distinct})],
        )

    return [scores]
