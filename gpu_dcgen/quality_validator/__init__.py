"""Stage 9 (contract module): checks, counts, gates, report."""

from .metrics import QualityMetrics

__all__ = ["QualityMetrics"]
