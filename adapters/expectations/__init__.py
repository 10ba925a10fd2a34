"""The BatchReviewer port on Great Expectations, which is imported with the first review: that takes seconds."""

from adapters.expectations.data_docs import DataDocs

__all__ = ["DataDocs"]
