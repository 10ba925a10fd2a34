"""What a book goes by, whatever the market does."""

from __future__ import annotations

from dataclasses import dataclass, field

from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.trading.execution import CostSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRules:
    """Everything that decides what a book does with scores and a market."""

    costs: CostSettings
    risk: RiskSettings
    convention: AdjustmentConvention
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
