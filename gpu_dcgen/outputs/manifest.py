"""The content of the JSON files: vocabularies, category mappings and the manifest."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import DatasetConfig
from ..contract.manifest import (
    AppendSummary,
    BackendSummary,
    Balancing,
    ClusterSummary,
    Generator,
    InputFile,
    Inputs,
    Ledger,
    Manifest,
    Negatives,
    Performance,
    Prices,
    QualitySummary,
    SimilaritySummary,
    SplitCounts,
    StageTiming,
    TableRows,
    VocabularySizes,
)
from ..contract.schema import (
    AGE_GROUPS,
    CONTRACT,
    NEGATIVE_DETAILS,
    NEGATIVE_SOURCES,
    PRICE_CATEGORIES,
    SEASONS,
)
from ..contract.split_summary import SplitShare, SplitSummary, WindowEdges, WindowEdgesNs
from ..digest import ContentDigest
from ..inputs.shop import InputReport
from ..negative_sampler import list_sources
from ..preparation.balancing import Balance
from ..preparation.features import PRICE_UNIT
from ..preparation.splits import SplitPlan
from ..preparation.windows import format_time
from ..quality_validator.metrics import QualityMetrics
from ..quality_validator.statistics import Statistics
from ..samples import StageResults
from ..storage.checksums import sha256_of
from ..storage.integrity import OWN_CHECKSUM, own_checksum
from .samples import WrittenSamples

_PACKAGES = ("numpy", "scipy", "pyarrow", "numba", "pydantic")
_PLURALS = {
    "product_group": "product_groups",
    "color_group": "color_groups",
    "garment_group": "garment_groups",
    "department": "departments",
    "index_group": "index_groups",
}


def vocabularies(results: StageResults, config: DatasetConfig) -> dict[str, Any]:
    """Return the content of vocabulary.json: values as read from the data, in code order."""
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
    """Return the content of category_mappings.json.

    For every categorical column: value -> dictionary code; and the weights (D18).
    """
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


@dataclass(frozen=True)
class PipelineResult:
    """What the stages of a build computed and wrote."""

    report: InputReport
    results: StageResults
    balance: Balance | None
    written: WrittenSamples
    files: dict[str, ContentDigest]  # by table
    statistics: Statistics
    append: AppendSummary | None


@dataclass(frozen=True)
class RunRecord:
    """What is known of the process that ran the stages."""

    backend: BackendSummary
    cluster: ClusterSummary | None
    timings: list[StageTiming]
    performance: Performance
    quality: QualitySummary
    warnings: list[str]


def build_manifest(
    folder: Path, config: DatasetConfig, built: PipelineResult, run: RunRecord
) -> Manifest:
    """Describe the dataset in `folder`, with the sizes and checksums of its files."""
    results, digests = built.results, {name: digest.hex() for name, digest in built.files.items()}
    # An interrupted build that was resumed may have left a manifest.
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "manifest.json"
    }
    known = {path.relative_to(folder).as_posix(): s for path, s in built.written.sha256.items()}
    manifest = Manifest(
        contract=CONTRACT,
        generator=Generator(name="gpu-dcgen", version=__version__),
        generated_at=format_time(results.generated_at),
        seed=config.seed,
        config=config.model_dump(mode="json"),
        versions={
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        inputs=_inputs(built),
        vocabulary=VocabularySizes(
            users=results.interactions.n_users, items=results.interactions.n_items
        ),
        split=_split(results.plan, config.split.strategy),
        ledger=Ledger.model_validate({**results.plan.ledger, **results.interactions.dropped}),
        balancing=describe_balance(built.balance),
        similarity=SimilaritySummary.model_validate(results.neighbors.info),
        prices=Prices(
            unit=f"2^-{PRICE_UNIT.bit_length() - 1}",
            edges_p1_p25_p50_p75_p99=list(results.features.price_edges),
        ),
        negatives=_negatives(
            built.written.metrics, built.statistics.values["hard_similarity"], results
        ),
        counts={
            p.split: SplitCounts(groups=len(p), rows=len(p) * config.rows_per_positive)
            for p in results.plan.positives
        },
        warnings=run.warnings,
        digests=digests,
        content_digest=hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        checksums={name: known.get(name) or sha256_of(path) for name, path in files.items()},
        append=built.append,
        cluster=run.cluster,
        backend=run.backend,
        timings=run.timings,
        performance=run.performance,
        quality=run.quality,
        files={name: path.stat().st_size for name, path in files.items()},
        manifest_sha256="",
    )
    return manifest.model_copy(update={OWN_CHECKSUM: own_checksum(manifest.to_dict())})


def describe_balance(balance: Balance | None) -> Balancing | None:
    """Return the manifest's section on the weights of train positives; None without weights."""
    return None if balance is None else Balancing.model_validate(balance.info)


def _inputs(built: PipelineResult) -> Inputs:
    report = built.report
    return Inputs(
        files=[InputFile.model_validate(file._asdict()) for file in report.files],
        rows={
            table: TableRows.model_validate(rows._asdict()) for table, rows in report.rows.items()
        },
        rejects=report.rejects,
        left_out=report.left_out,
        data_quality_score=report.quality_score,
        accepted_transactions=built.results.interactions.n_accepted,
    )


def _split(plan: SplitPlan, strategy: str) -> SplitSummary:
    windows = plan.windows
    edges = {name: getattr(windows, name) for name in ("first", "cut1", "cut2", "last")}
    return SplitSummary(
        strategy=strategy,
        windows=WindowEdges(**{name: format_time(edge) for name, edge in edges.items()}),
        windows_ns=WindowEdgesNs(**edges),
        shares={name: SplitShare.model_validate(share) for name, share in plan.shares.items()},
        positives_by_strategy=plan.by_strategy,
    )


def _negatives(
    metrics: QualityMetrics, similar_share: float | None, results: StageResults
) -> Negatives:
    sources = list_sources(results.interactions)
    return Negatives(
        verified=metrics.negatives_verified,
        violations=sum(metrics.violations.values()),
        by_source={name: metrics.hard_by_source[name] for name in sources},
        shortfall=metrics.hard_by_source["fallback"],
        relaxed=metrics.relaxed if results.interactions.has_groups else None,
        similar_share=similar_share,
    )


def _strings(results: StageResults, name: str) -> list[str]:
    return results.vocabularies[name].strings.to_pylist()


@functools.cache  # reading metadata of packages takes milliseconds
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
