"""HTTP services. They bind adapters like orchestration does."""
