"""Training runs and models in MLflow: a SQLite backend store and plain files under one root.

Every call works with its own client, never with MLflow's global tracking URI or active run.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (MLflow annotates only part of its parameters.)

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
import warnings
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.tracking.importance import importance_chart
from quant.errors import InputError, expected
from quant.ports import TrainedModel

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from quant.ports import ModelStore, TrainingRecord

CONTENT = "content_version"  # tag of runs and registered versions: TrainedModel.version
DIGEST = "text_sha256"
CHAMPION = "champion"
LOCK_SECONDS = 120


def open_model_store(root: Path) -> ModelStore:
    """The model store under ``root``: mlflow.db and mlruns/, made when first used."""
    return MlflowModelStore(root)


@contextmanager
def quiet() -> Generator[None]:
    """MLflow without telemetry, progress lines and the warnings of its own dependencies."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("mlflow")  # sets its logger to INFO
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        yield


class MlflowModelStore:
    """See quant.ports.ModelStore. One experiment and one registered model a strategy; safe between processes."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._root.mkdir(parents=True, exist_ok=True)

    @quiet()
    def register(self, model: TrainedModel, record: TrainingRecord) -> str:
        """Killed at any point, the next call converges: a run is complete once it is finished, and is then registered in one step; one
        that is not complete is deleted (MLflow keeps it in its bin).
        """
        with self._alone():
            registered = self._find(record.strategy, model.version)
            if registered is None:
                run_id = self._finished_run(model, record) or self._log_run(model, record)
                registered = self._register_run(run_id, model, record.strategy)
            return str(registered.version)

    @quiet()
    def load(self, strategy: str, version: str) -> TrainedModel:
        """The text comes back bit for bit; InputError also if its file is not what was registered."""
        registered = self._registered(strategy, version)
        text, features = self._artifact(registered, "model.txt"), self._artifact(registered, "features.json")
        if (found := sha256(text).hexdigest()) != registered.tags[DIGEST]:
            where = f"model.txt of {strategy} {version}"
            raise InputError(expected(f"SHA-256 {registered.tags[DIGEST]}", found=found, where=where, do="restore the file, or retrain"))
        return TrainedModel(version=version, text=text.decode(), features=tuple(json.loads(features)))

    @quiet()
    def crown(self, strategy: str, version: str) -> None:
        """InputError if the version is not registered."""
        self._client.set_registered_model_alias(strategy, CHAMPION, str(self._registered(strategy, version).version))

    @quiet()
    def provenance(self, strategy: str, version: str) -> Mapping[str, str]:
        """The data versions are tags of the run."""
        registered = self._registered(strategy, version)
        tags = self._client.get_run(str(registered.run_id)).data.tags
        data = {name: value for name, value in sorted(tags.items()) if name.startswith("data.")}
        return {
            "registry_version": str(registered.version), "run": str(registered.run_id), "text_sha256": registered.tags[DIGEST], **data
        }  # fmt: skip

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        database = self._root / "mlflow.db"
        if not database.exists():
            self._create(database)
        return MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")

    def _create(self, database: Path) -> None:
        """Made aside and put into place in one step: MLflow's migrations are no transaction, and killed half-way they cannot go on."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with tempfile.TemporaryDirectory(dir=self._root, prefix=".mlflow-") as folder:
            fresh = Path(folder) / database.name
            SqlAlchemyStore(f"sqlite:///{fresh}", str(self._root / "mlruns")).engine.dispose()
            with suppress(FileExistsError):  # another process was first; a rename would replace its database
                database.hardlink_to(fresh)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time. SQLite's lock has a timeout, and a killed holder releases it."""
        with closing(sqlite3.connect(self._root / "mlflow.lock", timeout=LOCK_SECONDS, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield

    def _find(self, strategy: str, version: str) -> ModelVersion | None:
        found = self._client.search_model_versions(f"name = '{strategy}' and tag.{CONTENT} = '{version}'")
        return found[0] if found else None

    def _registered(self, strategy: str, version: str) -> ModelVersion:
        if (found := self._find(strategy, version)) is None:
            where = f"the model registry under {self._root}"
            raise InputError(expected(f"model {version} of {strategy}", found="no such version", where=where, do="train and register it"))
        return found

    def _artifact(self, registered: ModelVersion, name: str) -> bytes:
        # Not by MLflow's address of it, which is absolute: a data root can be moved or copied.
        return (self._root / "mlruns" / registered.name / str(registered.run_id) / "artifacts" / name).read_bytes()

    def _experiment(self, strategy: str) -> str:
        found = self._client.get_experiment_by_name(strategy)
        location = (self._root / "mlruns" / strategy).as_uri()
        if found and found.artifact_location == location:
            return found.experiment_id
        if found:  # made before the data root was moved: it would write to the old place
            self._client.rename_experiment(found.experiment_id, f"{strategy}, until it was moved here ({found.experiment_id})")
        return self._client.create_experiment(strategy, artifact_location=location)

    def _finished_run(self, model: TrainedModel, record: TrainingRecord) -> str | None:
        """Id of the complete run of this content, if an earlier call got that far; incomplete ones are deleted."""
        runs = self._client.search_runs([self._experiment(record.strategy)], f"tags.{CONTENT} = '{model.version}'")
        for run in runs:
            if run.info.status == "FINISHED":
                return run.info.run_id
            self._client.delete_run(run.info.run_id)
        return None

    def _log_run(self, model: TrainedModel, record: TrainingRecord) -> str:
        from mlflow.entities import Metric, Param

        data = {f"data.{table}": version for table, version in record.data_versions.items()}
        run = self._client.create_run(self._experiment(record.strategy), tags={CONTENT: model.version, **data}, run_name=record.name)
        run_id, at = run.info.run_id, run.info.start_time
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, at, step) for name, value, step in record.metrics],
            params=[Param(name, str(value)) for name, value in {**record.params, **data}.items()],
        )
        self._client.log_text(run_id, record.importance.write_csv(), "importance.csv")
        self._client.log_figure(run_id, importance_chart(record.importance, title=f"{record.name}: importance by gain"), "importance.png")
        self._log_model(run, model, record)
        self._client.set_terminated(run_id)
        return run_id

    def _log_model(self, run: Run, model: TrainedModel, record: TrainingRecord) -> None:
        """Twice: text and features as they are, for load(); and as a LightGBM flavour with a signature, for everybody else."""
        import lightgbm
        from mlflow.entities import LoggedModelOutput
        from mlflow.lightgbm import save_model
        from mlflow.models import Model, infer_signature

        booster = lightgbm.Booster(model_str=model.text)
        sample = record.sample.select(model.features)
        logged = self._client.create_logged_model(run.info.experiment_id, record.strategy, run.info.run_id, model_type="lightgbm")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in (("model.txt", model.text), ("features.json", json.dumps(model.features))):
                path = Path(folder, name)
                path.write_bytes(content.encode())
                self._client.log_artifact(run.info.run_id, path)
            save_model(
                booster,
                Path(folder, "model"),
                mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run.info.run_id, model_id=logged.model_id),
                signature=infer_signature(sample.to_pandas(), booster.predict(sample.to_numpy())),
                pip_requirements=[f"lightgbm=={lightgbm.__version__}"],  # else MLflow runs the model in a child process to find out
            )
            self._client.log_model_artifacts(logged.model_id, str(Path(folder, "model")))
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, 0)])

    def _register_run(self, run_id: str, model: TrainedModel, strategy: str) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(strategy)
        except MlflowException:
            self._client.create_registered_model(strategy)
        outputs = self._client.get_run(run_id).outputs
        model_ids = [output.model_id for output in outputs.model_outputs] if outputs else []
        logged = self._client.get_logged_model(model_ids[0])
        return self._client.create_model_version(
            strategy,
            # Not models:/<id>: MLflow would look that up through its global tracking URI.
            source=logged.artifact_location,
            run_id=run_id,
            tags={CONTENT: model.version, DIGEST: sha256(model.text.encode()).hexdigest()},
        )
