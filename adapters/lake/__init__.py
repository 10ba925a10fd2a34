"""The lake on Delta Lake tables."""

from adapters.lake.delta import DeltaLake, open_lake

__all__ = ["DeltaLake", "open_lake"]
