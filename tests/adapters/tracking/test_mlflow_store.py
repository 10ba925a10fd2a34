"""What people find in MLflow, and that a kill at any step converges to one run and one version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import polars as pl
import pytest

from adapters.tracking.mlflow_store import MlflowModelStore, quiet
from quant.errors import InputError
from tests.contract.test_model_store import FEATURES, text, trained

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from quant.ports import TrainedModel, TrainingRecord

__all__ = ["text", "trained"]  # fixtures
STRATEGY = "alpha_baseline"


@dataclass(frozen=True)
class FirstUse:
    """A fresh store after its first registration and load in an empty folder, with all it said and left there."""

    root: Path
    said: str
    left: list[str]
    uri_before: str
    uri_after: str
    client: MlflowClient

    def runs(self, version: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name(STRATEGY)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], f"tags.content_version = '{version}'"))

    def versions(self, version: str) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{STRATEGY}' and tag.content_version = '{version}'"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, trained: tuple[TrainedModel, TrainingRecord]) -> FirstUse:
    root, here, said = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("cwd"), StringIO()
    model, record = trained
    with quiet():
        import mlflow
    with chdir(here), redirect_stdout(said), redirect_stderr(said):
        before = mlflow.get_tracking_uri()
        store = MlflowModelStore(root)
        store.register(model, record)
        store.load(STRATEGY, model.version)
        store.crown(STRATEGY, model.version)
        after = mlflow.get_tracking_uri()
    left = [path.name for path in here.rglob("*")]
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db")
    return FirstUse(root=root, said=said.getvalue(), left=left, uri_before=before, uri_after=after, client=client)


def test_mlflow_is_quiet_leaves_nothing_in_the_working_folder_and_its_global_state_alone(first: FirstUse) -> None:
    assert (first.said, first.left, first.uri_after) == ("", [], first.uri_before)
    assert {path.name for path in first.root.iterdir()} == {"mlflow.db", "mlflow.lock", "mlruns"}
    locations = {experiment.artifact_location for experiment in first.client.search_experiments()}
    assert all(location.startswith((str(first.root), first.root.as_uri())) for location in locations)


def test_a_run_shows_parameters_metrics_by_step_and_data_versions(first: FirstUse, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    (run,) = first.runs(trained[0].version)
    data = {"data.alpha158": "3", "data.forward_returns": "4"}
    assert run.info.run_name == "walk-forward through 2012"
    assert run.data.params == {"learning_rate": "0.05", "rounds": "5", "label": "open_to_open", **data}
    assert data.items() <= run.data.tags.items()
    history = first.client.get_metric_history(run.info.run_id, "ic_mean")
    assert [(metric.step, metric.value) for metric in history] == [(2011, 0.01), (2012, 0.02)]
    assert run.data.metrics["train_rows"] == 1000


def test_a_run_has_the_importance_as_a_table_and_as_a_picture(first: FirstUse, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = trained
    (run,) = first.runs(model.version)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert pl.read_csv(folder / "importance.csv").equals(record.importance)
    assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")


def test_the_champion_loads_as_an_mlflow_model_with_a_signature_and_the_same_predictions(
    first: FirstUse, trained: tuple[TrainedModel, TrainingRecord]
) -> None:
    model, record = trained
    champion = first.client.get_model_version_by_alias(STRATEGY, "champion")
    with quiet():
        import lightgbm
        import mlflow

        loaded = mlflow.pyfunc.load_model(first.client.get_model_version_download_uri(STRATEGY, champion.version))
        found = loaded.predict(record.sample.to_pandas())
        wanted = lightgbm.Booster(model_str=model.text).predict(record.sample.to_numpy())
    assert champion.tags["content_version"] == model.version
    assert champion.run_id == first.runs(model.version)[0].info.run_id
    assert loaded.metadata.signature.inputs.input_names() == list(FEATURES)
    assert list(found) == list(wanted)


class Killed(BaseException):
    """Nobody catches it."""


def killed(*_: object, **__: object) -> NoReturn:
    raise Killed


STEPS = ["log_batch", "set_terminated", "create_model_version"]
MORE_STEPS = ["log_text", "create_logged_model", "log_model_artifacts", "log_outputs"]


@pytest.mark.parametrize("step", [*STEPS, *(pytest.param(step, marks=pytest.mark.chaos) for step in MORE_STEPS)])
def test_a_registration_killed_at_a_step_converges_on_the_next_call(
    first: FirstUse, trained: tuple[TrainedModel, TrainingRecord], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, record = replace(trained[0], version=f"killed-at-{step}"), trained[1]
    store = MlflowModelStore(first.root)
    with monkeypatch.context() as patched:
        patched.setattr(store._client, step, killed)
        with pytest.raises(Killed):
            store.register(model, record)
    assert first.versions(model.version) == []
    registered = MlflowModelStore(first.root).register(model, record)
    assert MlflowModelStore(first.root).register(model, record) == registered
    assert [run.info.status for run in first.runs(model.version)] == ["FINISHED"]
    assert [str(version.version) for version in first.versions(model.version)] == [registered]
    assert store.load(STRATEGY, model.version) == model


def test_a_finished_run_is_not_logged_again_when_only_its_registration_is_missing(
    first: FirstUse, trained: tuple[TrainedModel, TrainingRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, record = replace(trained[0], version="finished"), trained[1]
    store = MlflowModelStore(first.root)
    with monkeypatch.context() as patched:
        patched.setattr(store._client, "create_model_version", killed)
        with pytest.raises(Killed):
            store.register(model, record)
    (run,) = first.runs("finished")
    monkeypatch.setattr(store._client, "create_run", killed)
    store.register(model, record)
    assert first.versions("finished")[0].run_id == run.info.run_id


def test_two_that_register_the_same_model_at_once_make_one_run(first: FirstUse, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = replace(trained[0], version="at-once"), trained[1]
    with ThreadPoolExecutor(2) as pool:
        registered = set(pool.map(lambda _: MlflowModelStore(first.root).register(model, record), range(2)))
    assert (len(registered), len(first.runs("at-once")), len(first.versions("at-once"))) == (1, 1, 1)


def test_a_text_that_was_changed_on_disk_is_refused(first: FirstUse, trained: tuple[TrainedModel, TrainingRecord]) -> None:
    model, record = replace(trained[0], version="changed"), trained[1]
    store = MlflowModelStore(first.root)
    store.register(model, record)
    (run,) = first.runs("changed")
    file = Path(run.info.artifact_uri.removeprefix("file://"), "model.txt")
    file.write_text(model.text.replace("tree", "twig"))
    with pytest.raises(InputError, match="expected SHA-256"):
        store.load(STRATEGY, "changed")


def test_a_data_root_that_was_moved_keeps_its_models_and_trains_new_ones_at_its_new_place(
    trained: tuple[TrainedModel, TrainingRecord], tmp_path: Path
) -> None:
    model, record = trained
    newer = replace(model, version="trained-after-the-move")
    MlflowModelStore(tmp_path / "old").register(model, record)
    moved = MlflowModelStore((tmp_path / "old").rename(tmp_path / "new"))
    assert moved.load(STRATEGY, model.version) == model
    moved.register(newer, record)
    moved.crown(STRATEGY, newer.version)
    assert moved.load(STRATEGY, newer.version) == newer
    assert not (tmp_path / "old").exists()
