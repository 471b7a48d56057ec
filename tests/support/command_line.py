"""Run commands as `gpu-dcgen` does, with a build that is replaced by a fake."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from typer.testing import CliRunner, Result

from gpu_dcgen.cli import app
from gpu_dcgen.contract.manifest import Manifest
from gpu_dcgen.contract.schema import CONTRACT

MANIFEST = {
    "contract": CONTRACT,
    "generator": {"name": "gpu-dcgen", "version": "0.1.0"},
    "generated_at": "2020-01-01T00:00:00+00:00",
    "seed": 42,
    "config": {},
    "versions": {"python": "3.11"},
    "inputs": {
        "files": [],
        "rows": {},
        "rejects": {},
        "data_quality_score": 1.0,
        "accepted_transactions": 11_289,
    },
    "vocabulary": {"users": 621, "items": 990},
    "split": {
        "strategy": "temporal_user_disjoint",
        "windows": dict.fromkeys(("first", "cut1", "cut2", "last"), "2020-01-01T00:00:00"),
        "windows_ns": {"first": 0, "cut1": 1, "cut2": 2, "last": 3},
        "shares": {
            "train": {"positives": 8000, "share": 0.80008, "wanted": 0.8, "users": 500},
            "val": {"positives": 1000, "share": 0.10001, "wanted": 0.1, "users": 60},
            "test": {"positives": 999, "share": 0.09991, "wanted": 0.1, "users": 61},
        },
        "positives_by_strategy": {
            "temporal_user_disjoint": {"train": 8000, "val": 1000, "test": 999},
            "hash": {"train": 4000, "val": 60, "test": 40},
            "temporal": {"train": 9000, "val": 1100, "test": 1000},
        },
    },
    "ledger": {
        "emitted": {"train": 8000, "val": 1000, "test": 999},
        "not_on_sale": 56,
        "short_history": 1234,
        "over_cap": 0,
    },
    "balancing": None,
    "similarity": {
        "engine": "exact",
        "reason": "asked for",
        "scale_bits": 20,
        "packed": True,
        "products": 1_000_000,
        "nonzeros": 9_000,
        "pairs": 54_321,
        "items_with_neighbors": 987,
    },
    "prices": {"unit": "1", "edges_p1_p25_p50_p75_p99": []},
    "negatives": {
        "verified": 160_000,
        "violations": 0,
        "by_source": {"item_cf": 10, "collaborative": 20, "category_crossing": 9, "fallback": 1},
        "shortfall": 1,
        "relaxed": 7,
    },
    "counts": {
        "train": {"groups": 8000, "rows": 128_000},
        "val": {"groups": 1000, "rows": 16_000},
        "test": {"groups": 999, "rows": 15_984},
    },
    "warnings": ["quartile Q2 is empty"],
    "digests": {},
    "content_digest": "00c0ffee00c0ffee",
    "checksums": {},
    "append": None,
    "cluster": None,
    "backend": {"name": "cpu", "reason": "asked for", "device": "a processor", "threads": 2},
    "timings": [],
    "performance": {
        "seconds": 2.5,
        "restored_seconds": 0.0,
        "samples_per_s": 63_994,
        "peak_memory_bytes": 1_500_000_000,
        "written_bytes": 3_500_000,
        "halved_blocks": 0,
        "budgets": {
            "minimum_rate": {
                "value": 63_994,
                "limit": 5000,
                "unit": "samples/s",
                "margin": 11.8,
                "met": True,
            },
            "max_cpu_usage": {
                "value": 0.9,
                "limit": 0.8,
                "unit": "share of all cores",
                "margin": -0.125,
                "met": False,
            },
        },
    },
    "quality": {
        "verdict": "passed with warnings",
        "scores": {"coverage": 0.9},
        "passed": 40,
        "failed": {"warning": ["item_coverage"], "info": []},
    },
    "files": {"train_dataset.parquet": 3_000_000, "val_dataset.parquet": 500_000},
    "manifest_sha256": "0" * 64,
}


@dataclass
class FakeBuild:
    """Record its call, report progress and a warning, and then return or raise."""

    error: BaseException | None = None
    call: SimpleNamespace | None = None

    def __call__(self, inputs, output, config, *, progress=None, **options):
        options = {
            "backend": "auto",
            "overwrite": False,
            "baseline": None,
            "resume": False,
            "workplace": None,
            **options,
        }
        self.call = SimpleNamespace(inputs=inputs, output=output, config=config, **options)
        with progress.stage("samples", total=10):
            progress.advance(10)
        progress.message("warning", "quartile Q2 is empty")
        if self.error is not None:
            raise self.error
        return SimpleNamespace(output=output, manifest=Manifest.model_validate(MANIFEST))


def run(*args: object, columns: int = 120, **environment: str) -> Result:
    """Run a command in this process; `columns` is the width of its output."""
    return CliRunner().invoke(
        app,
        [str(arg) for arg in args],
        env={"COLUMNS": str(columns), "TERM": "dumb", **environment},
    )
