"""What every adapter of the ModelStore port promises. A further adapter is one line in STORES."""

from __future__ import annotations

import warnings
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl
import pytest

from adapters.tracking.mlflow_store import open_model_store
from quant.errors import InputError
from quant.ports import ModelStore, TrainedModel, TrainingRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STORES: dict[str, Callable[[Path], ModelStore]] = {
    "mlflow": open_model_store,
}
FEATURES = ("KMID", "ROC5", "STD20")


@pytest.fixture(scope="module")
def text() -> str:
    """A small LightGBM model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightgbm
        import numpy as np

    rows = np.random.default_rng(7).random((200, len(FEATURES)))
    data = lightgbm.Dataset(rows, rows[:, 0] - rows[:, 1], feature_name=list(FEATURES))
    return lightgbm.train({"verbosity": -1, "num_threads": 1}, data, num_boost_round=5).model_to_string()


@pytest.fixture(scope="module")
def trained(text: str) -> tuple[TrainedModel, TrainingRecord]:
    record = TrainingRecord(
        strategy="alpha_baseline",
        name="walk-forward through 2012",
        params={"learning_rate": 0.05, "rounds": 5, "label": "open_to_open"},
        metrics=[("ic_mean", 0.01, 2011), ("ic_mean", 0.02, 2012), ("train_rows", 1000.0, 2012)],
        data_versions={"alpha158": "3", "forward_returns": "4"},
        importance=pl.DataFrame({"feature": FEATURES, "gain": [3.0, 2.0, 0.0], "splits": [4, 3, 0]}),
        sample=pl.DataFrame({name: [0.1, 0.2, None] for name in FEATURES}, schema=dict.fromkeys(FEATURES, pl.Float32)),
    )
    return TrainedModel(version="lgbm-2012-0123456789ab", text=text, features=FEATURES), record


@pytest.fixture(scope="module", params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ModelStore]:
    """Opens the same store again and again."""
    root = tmp_path_factory.mktemp("models") / "a data root"
    return lambda: STORES[request.param](root)


@pytest.fixture(scope="module")
def store(opened: Callable[[], ModelStore]) -> ModelStore:
    return opened()


def test_the_adapter_is_a_model_store(store: ModelStore) -> None:
    assert isinstance(store, ModelStore)


def test_a_model_comes_back_bit_for_bit(store: ModelStore, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = trained
    store.register(model, record)
    assert store.load(record.strategy, model.version) == model


def test_a_text_keeps_its_line_ends(store: ModelStore, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = trained
    odd = replace(model, version="odd", text=model.text + "\r\n\n")
    store.register(odd, record)
    assert store.load(record.strategy, "odd") == odd


def test_registering_again_is_one_registration_also_from_a_store_opened_later(
    opened: Callable[[], ModelStore], store: ModelStore, trained: tuple[TrainedModel, TrainingRecord]
) -> None:
    model, record = trained
    first = store.register(model, record)
    assert store.register(model, replace(record, name="again")) == first
    assert opened().register(model, record) == first


def test_another_version_and_another_strategy_are_registrations_of_their_own(
    store: ModelStore, trained: tuple[TrainedModel, TrainingRecord]
) -> None:
    model, record = trained
    first = store.register(model, record)
    second = replace(model, version="lgbm-2013-ba9876543210")
    assert store.register(second, record) != first
    store.register(second, replace(record, strategy="other"))
    assert store.load("other", second.version) == store.load(record.strategy, second.version) == second
    with pytest.raises(InputError):
        store.load("other", model.version)


def test_a_model_that_is_not_registered_is_neither_loaded_nor_crowned(store: ModelStore) -> None:
    for ask in (store.load, store.crown):
        with pytest.raises(InputError, match=r"expected model v0 of alpha_baseline in .*, found no such version; train and register it"):
            ask("alpha_baseline", "v0")


def test_crowning_twice_and_crowning_another_are_fine(store: ModelStore, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = trained
    other = replace(model, version="lgbm-2013-ba9876543210")
    for one in (model, other):
        store.register(one, record)
        store.crown(record.strategy, one.version)
        store.crown(record.strategy, one.version)
    assert store.load(record.strategy, model.version) == model


def test_a_model_says_which_run_made_it_of_which_data(
    opened: Callable[[], ModelStore], trained: tuple[TrainedModel, TrainingRecord]
) -> None:
    model, record = trained
    store = opened()
    number = store.register(model, record)
    told = store.provenance(record.strategy, model.version)
    assert told["run"]
    assert {name: value for name, value in told.items() if name != "run"} == {
        "registry_version": number,
        "text_sha256": sha256(model.text.encode()).hexdigest(),
        "data.alpha158": "3",
        "data.forward_returns": "4",
    }
    with pytest.raises(InputError, match="expected model nobody of alpha_baseline"):
        store.provenance(record.strategy, "nobody")
