"""Check a dataset with a second implementation of the rules, and certify or explain it.

Nothing here imports a stage of the build: what the audit says is independent of it. `audit`
checks a whole dataset and writes a certificate, `verify` checks a certificate against the files,
and `explain` shows how the negatives of one positive came about.
"""

from __future__ import annotations

from .certificate import read_key, verify
from .dataset_audit import audit
from .explanation import Explanation, explain

__all__ = ["Explanation", "audit", "explain", "read_key", "verify"]
