"""Render the results of the commands on finished datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from .layout import VERDICT_STYLE, make_fields, make_table

if TYPE_CHECKING:
    from ..auditing import Explanation

_MAX_CANDIDATES = 20  # beside those that were drawn
_RULE_VERDICTS = {"holds": "ok", "fails": "fail", "skipped": "warn"}
_METRICS = {"recall@10": "recall@10", "recall@50": "recall@50", "ndcg@10": "NDCG@10"}
# Parts of a candidate's score: key -> heading and width of its column. They add up to the score.
_SCORE_PARTS = {
    "similarity": ("similar", 7),
    "collaborative": ("together", 8),
    "price": ("price", 6),
    "popularity": ("popular", 7),
}


def render_probe(result: Mapping[str, Any]) -> RenderableType:
    """Render the metrics of each ranking in percent, the comparisons, and the finding (D21)."""
    parts: list[RenderableType] = []
    for split, positives in result["positives"].items():
        parts.append(
            Text(
                f"{split}: {positives['all']:,} positives of {result['users'][split]:,} users,"
                f" {positives['repurchased']:,} of them bought before",
                style="bold",
            )
        )
        table = make_table("percent", *(f">{target}" for target in positives))
        table.add_row("", *(["@10/@50/NDCG"] * len(positives)), style="dim")
        for name, figures in result["figures"].items():
            table.add_row(
                name,
                *(
                    "/".join(f"{100 * figures[split][target][metric]:.1f}" for metric in _METRICS)
                    for target in positives
                ),
            )
        parts.append(table)
    comparisons = make_table("difference", ">val", ">test", "")
    for each in result["comparisons"]:
        if each["verdict"] != "no clear effect" or each["metric"] == "ndcg@10":
            comparisons.add_row(
                f"{each['ranking']} against {each['reference']}:"
                f" {_METRICS[each['metric']]}, {each['target']}",
                *(_format_difference(each["by_split"][split]) for split in result["positives"]),
                each["verdict"],
            )
    verdict = "reached" if result["target_reached"] else "missed"
    recall = result["figures"]["default recipe"]["val"]["all"]["recall@50"]
    fields = {
        "target": f"recall@50 of {result['recall_target']:.2f} on val: {verdict}, {recall:.3f}",
        "vs. popularity": f"{result['ratio_to_popularity']:.1f} times its recall@50 on val",
        **{f"not tried: {name}": reason for name, reason in result["skipped"].items()},
        "finding": result["summary"],
    }
    return Group(*parts, comparisons, make_fields(fields))


def _format_difference(difference: Mapping[str, float]) -> Text:
    mean, low, high = (100 * difference[name] for name in ("difference", "low", "high"))
    return Text(f"{mean:+.1f} ({low:+.1f}, {high:+.1f})", no_wrap=True)


def render_audit(certificate: Mapping[str, Any], path: Path) -> RenderableType:
    """Render every rule with its verdict, then the first offenders of each that does not hold."""
    checks = certificate["checks"]
    failed = [check for check in checks if check["verdict"] == "fails"]
    head = "Every rule holds."
    if failed:
        head = f"{len(failed)} of {len(checks)} rules do not hold."
    table = make_table("", "rule", ">checked", "meaning")
    for check in checks:
        scope = "" if check["scope"] == "all" else f" ({check['scope']})"
        table.add_row(
            Text(check["verdict"], style=VERDICT_STYLE[_RULE_VERDICTS[check["verdict"]]]),
            check["name"],
            f"{check['n_checked']:,}",
            Text(f"{check['claim']}{scope}"),
        )
    label_probe = next(check["facts"] for check in checks if check["name"] == "label_probe")
    signature = certificate["signature"]
    fields = {
        "label probe": _describe_label_probe(label_probe),
        "signature": f"{signature['algorithm']} {signature['value']}",
        "certificate": str(path),
    }
    offenders = [line for check in failed for line in _list_offenders(check)]
    return Group(Text(head, style="bold"), table, *offenders, make_fields(fields))


def _list_offenders(check: Mapping[str, Any]) -> Iterator[Text]:
    yield Text(f"{check['name']} ({check['rule']}): {check['n_bad']:,} wrong", style="bold red")
    for offender in check["offenders"]:
        row = "" if offender["row"] is None else f" row {offender['row']}"
        yield Text(
            f"  {offender['file']}{row}: found {offender['found']}; expected {offender['expected']}"
        )


def _describe_label_probe(facts: Mapping[str, Any]) -> str:
    """Give the AUCs of the label from all features and from popularity alone."""
    suffixes = {"all": "", "without_repurchases": " without repurchases"}
    texts = [
        f"AUC {facts[part]['classifier_auc']:.3f} from all features,"
        f" {facts[part]['popularity_auc']:.3f} from popularity{suffix}"
        for part, suffix in suffixes.items()
        if "classifier_auc" in facts.get(part, {})
    ]
    return "; ".join(texts) or "not run: it needs rows with both labels"


def render_explanation(explanation: Explanation) -> RenderableType:
    """Render the candidates of a positive, best ones first, and its negatives."""
    head = Text(f"How {explanation.sample_id} came about", style="bold")
    verdict = Text("The derived negatives are those of the dataset.", style=VERDICT_STYLE["ok"])
    if not explanation.agrees:
        verdict = Text(
            "The derived negatives differ from those of the dataset.", style=VERDICT_STYLE["fail"]
        )
    return Group(
        head,
        _make_fields_of_explanation(explanation),
        _make_table_of_candidates(explanation),
        _make_table_of_negatives(explanation),
        verdict,
    )


def _make_fields_of_explanation(explanation: Explanation) -> RenderableType:
    candidates = explanation.candidates
    n_refused = Counter(
        candidate["refused"] for candidate in candidates if candidate["refused"] is not None
    )
    n_offered = Counter(source for candidate in candidates for source in candidate["sources"])
    return make_fields(
        {
            "bought": f"{_describe_item(explanation.positive)} by {explanation.user_id} at"
            f" {explanation.timestamp}, after {explanation.history:,} purchases",
            "on sale": f"{explanation.corpus:,} items; {explanation.allowed:,} not owned by the"
            f" user at the end of {explanation.split}'s window",
            "offered": ", ".join(f"{n:,} by {source}" for source, n in n_offered.items())
            or "nothing",
            "refused": ", ".join(f"{n:,} {reason}" for reason, n in n_refused.most_common())
            or "nothing",
            "candidates": f"{len(candidates) - n_refused.total():,} items; below, the best"
            f" {_MAX_CANDIDATES} by score and those that were drawn, with their slots",
            "group limit": f"exceeded by {explanation.relaxed}, since others are too few"
            if explanation.relaxed
            else "not exceeded",
        }
    )


def _make_table_of_candidates(explanation: Explanation) -> RenderableType:
    """Show score, its parts, weight and probability of each candidate, then its sources."""
    headings = [f"{'score':>6}", *(f"{text:>{width}}" for text, width in _SCORE_PARTS.values())]
    headings += [f"{'weight':>8}", f"{'chance':>6}"]
    table = make_table(">slot", "  ".join(headings))
    allowed = [candidate for candidate in explanation.candidates if candidate["refused"] is None]
    for place, candidate in enumerate(allowed):
        slot, weight = candidate["slot"], candidate["weight"]
        if place >= _MAX_CANDIDATES and slot is None:
            continue
        parts = [
            f"{candidate['parts'][part]:>+{width}.3f}" for part, (_, width) in _SCORE_PARTS.items()
        ]
        numbers = "  ".join(
            [
                f"{candidate['score']:>6.4f}",
                *parts,
                f"{'' if weight is None else f'{weight:.3f}':>8}",
                f"{candidate['probability']:>6.1%}",
            ]
        )
        name = f"{_describe_item(candidate)} by {', '.join(candidate['sources'])}"
        table.add_row(
            "" if slot is None else str(slot),
            Text(f"{numbers}\n{name}"),
            style="" if slot is None else "bold",
        )
    return table


def _make_table_of_negatives(explanation: Explanation) -> RenderableType:
    table = make_table(">slot", "item", "source", ">similarity", ">score", ">log q", "in file")
    for negative in explanation.negatives:
        source, detail = negative["source"], negative["detail"]
        if detail != source:
            detail = f"{source}: {detail}"
        similarity, score = (
            "" if negative[name] is None else f"{negative[name]:.4f}"
            for name in ("similarity", "score")
        )
        written, item_id = negative["written"], negative["item_id"]
        differs = f"differs: {written}" if written != item_id else "differs"
        table.add_row(
            str(negative["slot"]),
            Text(item_id),
            detail,
            similarity,
            score,
            f"{negative['log_q']:.4f}",
            "same" if negative["agrees"] else differs,
            style="reverse" if negative["slot"] == explanation.slot else "",
        )
    return table


def _describe_item(item: Mapping[str, Any]) -> str:
    """Join id, name and product group, as far as they are known."""
    name = " ".join(item[key] for key in ("item_id", "name") if item[key])
    return name + (f" ({item['product_group']})" if item["product_group"] else "")
