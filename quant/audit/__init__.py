"""The audit log as values: canonical JSON, a chain of hashes, Merkle roots, anchors, and what an order came from."""
