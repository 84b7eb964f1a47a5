"""Two runs over the same cases, paired: which differs by how much, and where (`evaluate --compare A.json B.json`)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medimageparse_client.evaluate.records import digest
from medimageparse_client.evaluate.report import cell
from medimageparse_client.evaluate.statistics import bootstrap, mean

MOST_MOVED = 10
# what must be equal for a pair to be one
SAME = ("layout", "prompt", "seed", "negatives")


class CannotCompare(ValueError):
    """The two files are not summaries of runs over the same questions; the text is one sentence."""


def read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(summary["cases"], dict) or not isinstance(summary["settings"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotCompare(f"{path} is not a summary.json of evaluate") from error
    result: dict[str, Any] = summary
    return result


def compare(first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Per metric: the number of cases that both runs have, both means, and the mean of second - first with 95 %."""
    for name in SAME:
        if first["settings"].get(name) != second["settings"].get(name):
            raise CannotCompare(f"the runs have another {name}, so their cases are not the same questions")
    a, b = first["cases"], second["cases"]
    common = [name for name in a if name in b]
    if not common:
        raise CannotCompare("the runs have no case in common")
    metrics = list(dict.fromkeys(metric for name in common for metric in a[name]))
    rows = {}
    for metric in metrics:
        pairs = [(name, a[name][metric], b[name][metric]) for name in common if metric in a[name] and metric in b[name]]
        differences = [after - before for _, before, after in pairs]
        if not pairs:
            continue
        moved = sorted(pairs, key=lambda pair: abs(pair[2] - pair[1]), reverse=True)[:MOST_MOVED]
        rows[metric] = {
            "n": len(pairs),
            "first": mean([before for _, before, _ in pairs]),
            "second": mean([after for _, _, after in pairs]),
            "difference": mean(differences),
            "interval": bootstrap(differences, seed=seed),
            "largest": max(map(abs, differences)),
            "moved": [{"case": name, "first": x, "second": y} for name, x, y in moved if x != y],
        }
    only = {"only_first": sorted(set(a) - set(b)), "only_second": sorted(set(b) - set(a))}
    return {"metrics": rows, **only, "networks": [digest(run["settings"].get("networks")) for run in (first, second)]}


def comparison_report(comparison: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The comparison as Markdown."""
    first, second = names
    lines = [
        f"# {second} against {first}",
        "",
        f"| | n | {cell(first)} | {cell(second)} | difference | 95 % | largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric, row in comparison["metrics"].items():
        interval = "-" if row["interval"] is None else "({:+.4f} to {:+.4f})".format(*row["interval"])
        lines.append(
            f"| {metric} | {row['n']} | {row['first']:.4f} | {row['second']:.4f} | {row['difference']:+.4f} "
            f"| {interval} | {row['largest']:.4f} |"
        )
    for metric, row in comparison["metrics"].items():
        if row["moved"]:
            lines += [
                "",
                f"## {metric}: the cases that moved most",
                "",
                "| case | first | second | by |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| {cell(m['case'])} | {m['first']:.4f} | {m['second']:.4f} | {m['second'] - m['first']:+.4f} |"
                for m in row["moved"]
            ]
    for key, words in (("only_first", first), ("only_second", second)):
        if comparison[key]:
            lines += ["", f"{len(comparison[key])} cases are in {words} only."]
    assert not any(math.isnan(row["difference"]) for row in comparison["metrics"].values())
    return "\n".join(lines) + "\n"
