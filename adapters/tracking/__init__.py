"""Training runs and models in MLflow, imported when first used."""

from adapters.tracking.mlflow_store import MlflowModelStore, open_model_store

__all__ = ["MlflowModelStore", "open_model_store"]
