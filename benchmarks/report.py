"""Tables of the result files: the last run of each script, in Markdown; and the picture of docs/performance.md."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from medimageparse.variants import PUBLISHED
from recording import RESULTS

# text stays text, and the same rows make the same file
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "medimageparse", "font.size": 9, "axes.titlesize": 9}
PARTS = ("text encoder", "image encoder", "mask decoder")
Row = dict[str, str]


@dataclass(frozen=True)
class Report:
    """key: columns that tell a row from all others of a run; columns: shown as "heading=column", or the column alone.

    most: rows of each value of the first two columns of the key
    """

    title: str
    key: str
    columns: str
    most: int | None = None

    def table(self, rows: Sequence[Row]) -> str:
        names = [column.rpartition("=")[2] for column in self.columns.split("; ")]
        headings = [column.partition("=")[0] for column in self.columns.split("; ")]
        shown = [row for own in grouped(rows, *self.key.split()[:2]) for row in own[: self.most]]
        lines = [headings, ["---"] * len(names), *([row[name] for name in names] for row in shown)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


REPORTS = {
    "roofline": Report(
        "Bytes and arithmetic of the graphs, nothing fused",
        "network precision kind",
        "network; precision; kind; nodes; GB=gb; GFLOP=gflop; here, ms=here_ms; A100, ms=a100_ms; H100, ms=h100_ms; "
        "engine, MB=engine_mb",
        most=7,  # the sum, and the kinds that move most
    ),
    "schedules": Report(
        "The networks alone: the originals' schedule against ours",
        "model slices prompts way part",
        "model; prompts; part; way; median, s=median_s; best, s=best_s; of the original=times_original; "
        "of the machine's rate=share_of_rate; pixels equal=label_agreement; mask IoU=mask_iou",
    ),
    "scaling": Report(
        "How seconds and memory grow, through the server",
        "runtime axis slices prompts window_size threads instances at_once",
        "runtime; varied=axis; slices; prompts; window=window_size; threads; instances; at once=at_once; "
        "s a request=median_s; s a slice=s_per_slice; peak PSS, GB=peak_pss_gb; sum of RSS, GB=peak_rss_sum_gb",
    ),
    "stages": Report(
        "Where the time of one request goes",
        "variant runtime protocol slices prompts window_size windows_in_flight stage",
        "variant; runtime; protocol; slices; prompts; windows in flight=windows_in_flight; stage; ms; share",
    ),
    "perf_analyzer": Report(
        "perf_analyzer: latency by protocol, encoding and requests at once",
        "model slices prompts protocol encoding concurrency",
        "model; protocol; image=encoding; at once=concurrency; requests a second=requests_per_s; p50, ms=p50_ms; "
        "p95, ms=p95_ms; queue, ms=server_queue_ms",
    ),
}


def last_run(path: Path, key: Sequence[str]) -> list[Row]:
    """The rows with day, commit and variant of the last one; of those with the same key, the later."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    same = [row for row in rows if run_of(row) == run_of(rows[-1])]
    return list({tuple(row[name] for name in key): row for row in same}.values())


def run_of(row: Row) -> tuple[str, str, str]:
    """Rows with the same belong together; the 2D model's sizes have a name of their own."""
    return row["date"], row["commit"], row["variant"].removesuffix("_2D")


def grouped(rows: Sequence[Row], *columns: str) -> list[list[Row]]:
    """The rows of each value of some columns, in their order."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in columns), []).append(row)
    return list(found.values())


def conditions_line(path: Path) -> str:
    """Under what the last run was measured."""
    rows = last_run(path, ("runtime", "precision", "others_share"))
    row = rows[-1]
    others = f"others used at most {100 * max(float(row['others_share']) for row in rows):.0f} % of the cores"
    precisions = " and ".join(dict.fromkeys(row["precision"] for row in rows))
    machine = f"{row['cpu']}, {row['cores']} cores, onnxruntime {row['onnxruntime']}, Python {row['python']}"
    return f"{run_of(row)[2]}, {precisions}, {machine}, commit {row['commit']}, {row['date']}, {others}"


def draw(title: str, rows: Sequence[Row], path: Path) -> None:
    """Bars of the ways for each request, made of the seconds of the three networks."""
    requests = grouped(rows, "model", "prompts")
    figure = Figure((12, 1.2 + 1.2 * len(requests)), layout="constrained")
    figure.suptitle(title, weight="bold", size=11)
    for axes, own in zip(figure.subplots(len(requests), 1, squeeze=False)[:, 0], requests, strict=True):
        by_way = {of_way[0]["way"]: {row["part"]: row for row in of_way} for of_way in grouped(own, "way")}
        ends = np.zeros(len(by_way))
        for part in PARTS:
            seconds = np.array([float(of_way[part]["median_s"]) for of_way in by_way.values()])
            bars = axes.barh(list(by_way), seconds, 0.7, ends, label=part)
            ends += seconds
        whole = [(float(of["all"]["median_s"]), float(of["all"]["times_original"])) for of in by_way.values()]
        axes.bar_label(bars, [f"{took:.3g} s, {ratio:.2f} of the original" for took, ratio in whole], padding=4)
        axes.set_title(f"{own[0]['model']}, prompts: {own[0]['prompts']}, slices: {own[0]['slices']}", loc="left")
        axes.set_xlim(0, 1.5 * max(ends))  # room for the texts
        axes.invert_yaxis()
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(PARTS), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default=PUBLISHED.name)
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the CSV files lie")
    options = parser.parse_args(arguments)
    for name, report in REPORTS.items():
        path = (options.results or RESULTS / options.variant) / f"{name}.csv"
        if path.exists():
            rows = last_run(path, report.key.split())
            print(f"\n{report.title}\n{conditions_line(path)}\n\n{report.table(rows)}")
            if name == "schedules":
                with matplotlib.rc_context(STYLE):
                    draw(f"{report.title} ({options.variant})", rows, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
