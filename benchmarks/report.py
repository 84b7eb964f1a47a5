"""Tables and pictures of the result files: the last run of each script, in Markdown and as SVG beside the file."""

import argparse
import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from medimageparse.variants import PUBLISHED, VARIANTS
from recording import RESULTS

# text stays text, and the same rows make the same file
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "medimageparse", "font.size": 9, "axes.titlesize": 9}
Row = dict[str, str]
Bar = tuple[str, list[tuple[str, float]], str]  # its label, segments of a name and a length, the text behind them
Group = tuple[str, list[Bar]]  # a heading, and bars with one scale


def draw(title: str, groups: Sequence[Group], path: Path) -> None:
    """Horizontal bars; a legend where segments have several names."""
    sizes = [len(bars) for _, bars in groups]
    figure = Figure((12, 0.8 + sum(0.24 * size + 0.3 for size in sizes)), layout="constrained")
    figure.suptitle(title, weight="bold", size=11)
    names = list(dict.fromkeys(name for _, bars in groups for _, segments, _ in bars for name, _ in segments))
    all_axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[size + 0.6 for size in sizes])[:, 0]
    drawn = {}
    for axes, (heading, bars) in zip(all_axes, groups, strict=True):
        ends = [0.0] * len(bars)
        for y, (_, segments, text) in enumerate(bars):
            for name, length in segments:
                drawn[name] = axes.barh(y, max(length, 0), left=ends[y], color=f"C{names.index(name)}", height=0.7)
                ends[y] += max(length, 0)
            axes.annotate(text, (ends[y], y), (4, 0), textcoords="offset points", va="center")
        axes.set_title(heading, loc="left", weight="bold")
        axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
        axes.set_xlim(0, 1.5 * (max(ends) or 1))  # room for the texts
        axes.invert_yaxis()
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
    if len(names) > 1:
        figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def table(rows: Sequence[Row], columns: str) -> str:
    """A Markdown table; columns of the file as "heading=column", or the column alone; between them "; "."""
    names = [column.rpartition("=")[2] for column in columns.split("; ")]
    headings = [column.partition("=")[0] for column in columns.split("; ")]
    lines = [headings, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    keys = dict.fromkeys(tuple(row[name] for name in columns) for row in rows)
    return [[row for row in rows if tuple(row[name] for name in columns) == key] for key in keys]


def conditions_line(path: Path) -> str:
    """Under what the last run was measured."""
    rows = last_run(path, ("runtime", "precision", "others_share"))
    row = rows[-1]
    others = f"others used at most {100 * max(float(row['others_share']) for row in rows):.0f} % of the cores"
    precisions = " and ".join(dict.fromkeys(row["precision"] for row in rows))
    machine = f"{row['cpu']}, {row['cores']} cores, onnxruntime {row['onnxruntime']}, Python {row['python']}"
    return f"{run_of(row)[2]}, {precisions}, {machine}, commit {row['commit']}, {row['date']}, {others}"


def schedules(path: Path) -> tuple[list[Group], str]:
    rows, groups = last_run(path, ("model", "slices", "prompts", "way", "part")), []
    for own in grouped(rows, "model", "prompts"):
        bars = []
        for of_way in grouped(own, "way"):
            seconds = {row["part"]: float(row["median_s"]) for row in of_way}
            parts = [(part, seconds[part]) for part in ("text encoder", "image encoder", "mask decoder")]
            ratio = next(float(row["times_original"]) for row in of_way if row["part"] == "all")
            bars.append((of_way[0]["way"], parts, f"{seconds['all']:.3g} s, {ratio:.2f} of the original"))
        first = own[0]
        groups.append((f"{first['model']}, prompts: {first['prompts']}, slices: {first['slices']}", bars))
    columns = "model; prompts; part; way; median, s=median_s; best, s=best_s; of the original=times_original; "
    columns += "of the machine's rate=share_of_rate; "
    return groups, table(rows, columns + "pixels equal=label_agreement; mask IoU=mask_iou")


def scaling(path: Path) -> tuple[list[Group], str]:
    axes = ("slices", "prompts", "window_size", "threads", "instances")
    rows, groups = last_run(path, ("runtime", "axis", *axes, "at_once")), []
    for of_runtime, axis in product(grouped(rows, "runtime"), axes):
        name = axis.replace("_", " ")
        shown = [row for row in of_runtime if row["axis"] in (axis, *(["base"] if axis != "instances" else []))]
        bars = []
        for row in shown:
            text = f"{row['s_per_slice']} s per slice, RSS {row['peak_rss_sum_gb']} GB"
            bars.append((f"{name} {row[axis]}", [("s per slice", float(row["s_per_slice"]))], text))
        if bars:
            groups.append((f"{name}, {shown[0]['runtime']}", bars))
    columns = "runtime; varied=axis; slices; prompts; window=window_size; threads; instances; at once=at_once; "
    columns += "s a request=median_s; s a slice=s_per_slice; peak PSS, GB=peak_pss_gb; sum of RSS, GB=peak_rss_sum_gb"
    return groups, table(rows, columns)


def stages(path: Path) -> tuple[list[Group], str]:
    request = ("variant", "runtime", "protocol", "slices", "prompts", "window_size", "windows_in_flight")
    rows, groups = last_run(path, (*request, "stage")), []
    for own in grouped(rows, *request):
        row, is_2d = own[0], own[0]["variant"].endswith("_2D")
        size = "one image" if is_2d else f"{row['slices']} slices, windows in flight: {row['windows_in_flight']}"
        heading = f"{VARIANTS[row['variant']].model}, {row['runtime']}, {row['protocol']}, {size}, prompts: "
        heading += f"{row['prompts']}; {row['wall_ms']} ms, {row['times_direct']} times the networks alone"
        texts = [f"{row['ms']} ms, {100 * float(row['share']):.2f} %" for row in own]
        bars = [(r["stage"], [("ms", float(r["ms"]))], text) for r, text in zip(own, texts, strict=True)]
        groups.append((heading, bars))
    columns = "variant; runtime; protocol; slices; prompts; windows in flight=windows_in_flight; stage; ms; share"
    return groups, table(rows, columns)


def perf_analyzer(path: Path) -> tuple[list[Group], str]:
    rows, groups = last_run(path, ("model", "slices", "prompts", "protocol", "encoding", "concurrency")), []
    for own in grouped(rows, "model"):
        bars = []
        for row in own:
            label = f"{row['protocol']} {row['encoding']}, {row['concurrency']} at once"
            text = f"p50 {row['p50_ms']} ms, {row['requests_per_s']} a second"
            bars.append((label, [("p50", float(row["p50_ms"]))], text))
        groups.append((own[0]["model"], bars))
    columns = "model; protocol; image=encoding; at once=concurrency; requests a second=requests_per_s; "
    return groups, table(rows, columns + "p50, ms=p50_ms; p95, ms=p95_ms; queue, ms=server_queue_ms")


def roofline(path: Path) -> tuple[list[Group], str]:
    rows, groups, shown = last_run(path, ("network", "precision", "kind")), [], []
    for own in grouped(rows, "network", "precision"):
        most = own[:7]  # the sum, and the kinds that move most
        texts = [f"{row['gb']} GB, {row['gflop']} GFLOP, H100 {row['h100_ms']} ms" for row in most]
        bars = [(row["kind"], [("GB", float(row["gb"]))], text) for row, text in zip(most, texts, strict=True)]
        size = f"slices: {own[0]['slices']}, prompts: {own[0]['prompts']}"
        groups.append((f"{own[0]['network']}, {own[0]['precision']}, {size}", bars))
        shown += most
    columns = (
        "network; precision; kind; nodes; GB=gb; GFLOP=gflop; here, ms=here_ms; A100, ms=a100_ms; H100, ms=h100_ms"
    )
    return groups, table(shown, columns)


REPORTS = {
    roofline: "Bytes and arithmetic of the graphs, nothing fused",
    schedules: "The networks alone: the originals' schedule against ours",
    scaling: "How seconds and memory grow, through the server",
    stages: "Where the time of one request goes",
    perf_analyzer: "perf_analyzer: latency by protocol, encoding and requests at once",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default=PUBLISHED.name)
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the CSV files lie")
    options = parser.parse_args(arguments)
    for read, title in REPORTS.items():
        path = (options.results or RESULTS / options.variant) / f"{read.__name__}.csv"
        if path.exists():
            groups, lines = read(path)
            with matplotlib.rc_context(STYLE):
                draw(f"{title} ({options.variant})", groups, path.with_suffix(".svg"))
            print(f"\n{title}\n{conditions_line(path)}\n\n{lines}")


if __name__ == "__main__":
    main()
