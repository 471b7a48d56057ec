"""The settings of gates and of who is told, and what a section of the configuration is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..contract.gates import GATE_NAMES, Severity

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


class Quality(Section):
    thresholds: dict[str, float] = {}
    """Other thresholds of gates, by name: `{negative_quality: 0.6}` (D20)."""
    severities: dict[str, Severity] = {}
    """Other severities of gates, by name; a failing `critical` one stops publication."""
    regression: Share = 0.1
    """With a baseline: a gate's value that is worse by more than this share of the baseline's is a regression."""

    @model_validator(mode="after")
    def _gates_are_known(self):
        if unknown := sorted({*self.thresholds, *self.severities} - set(GATE_NAMES)):
            raise ValueError(
                f"quality: no gate is called {unknown[0]!r}; there are {', '.join(GATE_NAMES)}"
            )
        return self


class Monitoring(Section):
    events: Path | None = None
    """Append every event and alert to this file as JSON, one a line; the dataset's own build_log.jsonl has them too."""
    prometheus: Path | None = None
    """Write metrics to this file for Prometheus' textfile collector, ending in .prom (needs the extra `monitoring`)."""
    webhook_variable: str | None = None
    """Environment variable that holds the URL alerts are posted to as JSON; the URL itself is written nowhere."""
