"""What the JSON files say: vocabularies, category mappings with weights, and the manifest."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import DatasetConfig
from ..contract.schema import (
    AGE_GROUPS,
    CONTRACT,
    NEGATIVE_DETAILS,
    NEGATIVE_SOURCES,
    PRICE_CATEGORIES,
    SEASONS,
)
from ..digest import ContentDigest
from ..inputs.shop import InputReport
from ..preparation.balancing import Balance
from ..preparation.features import PRICE_UNIT
from ..preparation.windows import format_time
from ..samples import StageResults
from ..storage.checksums import sha256_of
from ..storage.integrity import OWN_CHECKSUM, own_checksum
from .samples import Written

_PACKAGES = ("numpy", "scipy", "pyarrow", "numba", "pydantic")
_PLURALS = {
    "product_group": "product_groups",
    "color_group": "color_groups",
    "garment_group": "garment_groups",
    "department": "departments",
    "index_group": "index_groups",
}


def vocabularies(results: StageResults, config: DatasetConfig) -> dict[str, Any]:
    """vocabulary.json (contract, "Vocabulary Mappings"): values as read from the data, in code order."""
    sources = [
        name
        for name in NEGATIVE_SOURCES
        if name != "in_batch" or config.negative_sampling.in_batch_negatives
    ]
    return {
        "user_features": {
            "age_groups": list(AGE_GROUPS),
            "club_status": _strings(results, "club_status"),
            "news_frequency": _strings(results, "news_frequency"),
        },
        "item_features": {
            **{plural: _strings(results, name) for name, plural in _PLURALS.items()},
            "price_categories": list(PRICE_CATEGORIES),
        },
        "interaction_features": {
            "negative_sources": sources,
            "negative_details": list(NEGATIVE_DETAILS),
            "seasons": list(SEASONS),
            "channels": {
                str(channel): kind for channel, kind in sorted(config.inputs.channels.items())
            },
        },
        "sizes": {
            "users": results.interactions.n_users,
            "items": results.interactions.n_items,
            "padding_index": 0,
        },
    }


def category_mappings(results: StageResults, balance: Balance | None) -> dict[str, Any]:
    """category_mappings.json: value -> dictionary code of every categorical column, and the weights (D18)."""
    columns = {
        "user_age_group": "age_group",
        "user_club_status": "club_status",
        "user_news_frequency": "news_frequency",
        **{f"item_{name}": name for name in _PLURALS},
        "item_price_category": "price_category",
        "season": "season",
        "negative_source": "negative_source",
        "negative_detail": "negative_detail",
    }
    mappings = {
        column: {value: code for code, value in enumerate(_strings(results, name))}
        for column, name in columns.items()
    }
    weights = None
    if balance is not None:
        names = [None, *_strings(results, "product_group")]
        weights = {
            "item_product_group": [
                {"value": name, "weight": weight}
                for name, weight in zip(names, balance.category, strict=True)
                if weight
            ],
            "user_segments": {
                name: part["weight"] for name, part in balance.info["segments"].items()
            },
        }
    return {"mappings": mappings, "weights": weights}


def manifest(
    folder: Path,
    config: DatasetConfig,
    report: InputReport,
    results: StageResults,
    balance: Balance | None,
    files: dict[str, ContentDigest],
    written: Written,
    warnings: list[str],
) -> dict[str, Any]:
    """manifest.json but for backend and timings: all that is needed to trust, repeat and compare a dataset."""
    plan, log, features, metrics = (
        results.plan,
        results.interactions,
        results.features,
        written.metrics,
    )
    digests = {name: digest.hex() for name, digest in files.items()}
    windows = plan.windows
    return {
        "contract": CONTRACT,
        "generator": {"name": "gpu-dcgen", "version": __version__},
        "generated_at": format_time(results.generated_at),
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "inputs": {
            "files": list(report.files),
            "rows": report.rows,
            "rejects": report.rejects,
            "data_quality_score": report.quality_score,
            "accepted_transactions": log.n_accepted,
        },
        "vocabulary": {"users": log.n_users, "items": log.n_items},
        "split": {
            "strategy": config.split.strategy,
            "windows": {
                name: format_time(getattr(windows, name))
                for name in ("first", "cut1", "cut2", "last")
            },
            "windows_ns": {
                name: getattr(windows, name) for name in ("first", "cut1", "cut2", "last")
            },
            "shares": plan.shares,
        },
        "ledger": {**plan.ledger, **log.dropped},
        "balancing": None if balance is None else balance.info,
        "similarity": results.neighbors.info,
        "prices": {
            "unit": f"2^-{PRICE_UNIT.bit_length() - 1}",
            "edges_p1_p25_p50_p75_p99": list(features.price_edges),
        },
        "negatives": {
            "verified": metrics.negatives_verified,
            "violations": sum(metrics.violations.values()),
            "by_source": metrics.hard_by_source,
            "shortfall": metrics.hard_by_source["fallback"],
            "relaxed": metrics.relaxed,
        },
        "counts": {
            p.split: {"groups": len(p), "rows": len(p) * config.rows_per_positive}
            for p in plan.positives
        },
        "warnings": warnings,
        "digests": digests,
        "content_digest": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        "checksums": {
            path.relative_to(folder).as_posix(): sha256 for path, sha256 in written.sha256.items()
        },
    }


def complete(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The manifest with what can only be said at the end: size and SHA-256 of every other file, and its own (`integrity`)."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    files.pop(
        "manifest.json", None
    )  # of a build that died before it published, where this one went on from it
    known = manifest["checksums"]
    listed = {
        **manifest,
        "files": {name: path.stat().st_size for name, path in files.items()},
        "checksums": {name: known.get(name) or sha256_of(path) for name, path in files.items()},
    }
    return {**listed, OWN_CHECKSUM: own_checksum(listed)}


def _strings(results: StageResults, name: str) -> list[str]:
    return results.vocabularies[name].strings.to_pylist()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
