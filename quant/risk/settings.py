"""The limits' settings: section [risk] of the profile."""

from __future__ import annotations

from pydantic import BaseModel, Field


class RiskSettings(BaseModel, frozen=True, extra="forbid"):
    """Pre-trade limits: docs/risk.md. Ratios are of net asset value unless said otherwise."""

    max_gross_ratio: float = Field(default=1.1, gt=0)
    max_net_ratio: float = Field(default=0.3, ge=0)
    max_name_ratio: float = Field(default=0.35, gt=0)
    max_order_notional_usd: float = Field(default=1_000_000, gt=0)
    max_volume_ratio: float = Field(default=0.05, gt=0, le=1)  # of the 20-session median volume
    max_sector_ratio: float = Field(default=1.1, gt=0)  # gross; a name that sectors does not have is a sector of its own
    max_turnover_ratio: float = Field(default=2.5, gt=0)
    max_collar_ratio: float = Field(default=0.1, gt=0)  # of the last close
    max_daily_loss_ratio: float = Field(default=0.2, gt=0, le=1)  # of the opening value
    max_drawdown_ratio: float = Field(default=0.5, gt=0, le=1)  # of the peak
    max_same_orders: int = Field(default=1, ge=1)  # of one name and side at once
    buying_power_multiple: float = Field(default=2.0, gt=0)
    sectors: dict[str, str] = Field(default_factory=dict)
    not_shortable: tuple[str, ...] = ()
    max_borrow_shares: dict[str, float] = Field(default_factory=dict)  # a name that is not here has no bound
