"""Judge the gates, and write JUnit XML; a critical failure stops publication (D20)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import DatasetConfig
from ..contract.budgets import MIN_RATED_SECONDS
from ..contract.gate_rows import Severity
from ..contract.gates import GATES, OUR_THRESHOLDS, Gate
from ..contract.manifest import Performance
from ..errors import GateError

_HOLDS = {
    ">=": lambda value, threshold: value >= threshold,
    ">": lambda value, threshold: value > threshold,
    "<=": lambda value, threshold: value <= threshold,
    "<": lambda value, threshold: value < threshold,
}


@dataclass(frozen=True)
class Verdict:
    """A gate with its value; `skip` without a value in this build, `info` without a threshold."""

    gate: Gate
    value: float | None
    verdict: Literal["pass", "fail", "skip", "info"]

    @property
    def failed(self) -> bool:
        """Whether the value is on the wrong side of the threshold."""
        return self.verdict == "fail"

    def text(self) -> str:
        """Say what was measured and what was expected."""
        gate = self.gate
        expected = f"{gate.relation} {_number(gate.threshold)}"
        return f"{gate.name}: {gate.metric} is {_number(self.value)}, expected {expected}"

    def as_dict(self) -> dict[str, Any]:
        """Return the gate's entry in quality_report.json."""
        reason = OUR_THRESHOLDS.get(self.gate.name)
        return {
            **asdict(self.gate),
            "threshold_reason": reason,
            "value": self.value,
            "verdict": self.verdict,
        }


def evaluate(values: dict[str, float | None], config: DatasetConfig) -> list[Verdict]:
    """Judge each of GATES by the thresholds and severities of `config.quality`."""
    verdicts = []
    for gate in GATES:
        gate = _as_configured(gate, config)
        value = values[gate.name]
        verdicts.append(Verdict(gate, value, _judge(gate, value)))
    return verdicts


def _as_configured(gate: Gate, config: DatasetConfig) -> Gate:
    quality = config.quality
    severity: Severity = quality.severities.get(gate.name, gate.severity)
    few = config.output.shape == "triplet" or config.negatives_per_positive < (gate.threshold or 0)
    if gate.name == "positive_negative_ratio" and few and gate.name not in quality.severities:
        severity = "warning"  # fewer were asked for
    return Gate(
        **{
            **asdict(gate),
            "severity": severity,
            "threshold": quality.thresholds.get(gate.name, gate.threshold),
        },
    )


def _judge(gate: Gate, value: float | None) -> Literal["pass", "fail", "skip", "info"]:
    if value is None:
        return "skip"
    if gate.threshold is None:
        return "info"
    return "pass" if _HOLDS[gate.relation](value, gate.threshold) else "fail"


def performance_values(performance: Performance) -> dict[str, float | None]:
    """Return the values of the gates on times and resources; rates of short builds are None."""
    values: dict[str, float | None] = {
        name: budget.value for name, budget in performance.budgets.items()
    }
    if performance.seconds < MIN_RATED_SECONDS:
        values.update(dict.fromkeys((name for name in values if name.endswith("_rate"))))
    return values


def failures(verdicts: Sequence[Verdict], severity: Severity) -> list[Verdict]:
    """Return the failed gates of a severity."""
    return [verdict for verdict in verdicts if verdict.failed and verdict.gate.severity == severity]


def overall(
    verdicts: Sequence[Verdict],
) -> Literal["passed", "passed with warnings", "failed"]:
    """Return `failed`, `passed with warnings` or `passed`."""
    if failures(verdicts, "critical"):
        return "failed"
    return "passed with warnings" if failures(verdicts, "warning") else "passed"


def require(verdicts: Sequence[Verdict], staging: Path) -> None:
    """Raise GateError, which names the staging folder, if a critical gate failed."""
    if broken := failures(verdicts, "critical"):
        reasons = "\n".join(f"{verdict.text()}. {verdict.gate.remedy}" for verdict in broken)
        raise GateError(
            f"critical gate failed, nothing was published:\n{reasons}\n"
            f"The files and quality_report.json are in {staging}."
        )


def write_junit(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write JUnit XML for CI systems: a suite a section, a case a gate.

    Critical failures are failures there; the others are output of their case.
    """
    root = ElementTree.Element("testsuites", name="gpu-dcgen quality gates")
    for section in dict.fromkeys(verdict.gate.section for verdict in verdicts):
        inside = [verdict for verdict in verdicts if verdict.gate.section == section]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=section,
            tests=str(len(inside)),
            failures=str(len(failures(inside, "critical"))),
            skipped=str(sum(verdict.verdict == "skip" for verdict in inside)),
        )
        for verdict in inside:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"gpu_dcgen.{section}", name=verdict.gate.name
            )
            if verdict.verdict == "skip":
                ElementTree.SubElement(case, "skipped", message="has no value in this build")
            elif verdict.failed and verdict.gate.severity == "critical":
                ElementTree.SubElement(
                    case, "failure", message=verdict.text()
                ).text = verdict.gate.remedy
            elif verdict.failed:
                ElementTree.SubElement(
                    case, "system-out"
                ).text = f"{verdict.gate.severity}: {verdict.text()}"
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
