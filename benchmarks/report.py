"""Tables and pictures of the result files: the last run of each script, in Markdown and as SVG beside the file."""

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

from medimageparse.variants import PUBLISHED, VARIANTS
from recording import RESULTS

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#e45756", "#eeca3b", "#79706e")
WIDTH, LABEL_WIDTH, ROW, BAR = 960, 330, 22, 15
Row = dict[str, str]


@dataclass(frozen=True)
class Bar:
    """One line of a picture: segments are (name, length), a colour for each name; text stands behind them."""

    label: str
    segments: list[tuple[str, float]]
    text: str


@dataclass(frozen=True)
class Group:
    """Lines that share a heading and a scale."""

    heading: str
    bars: list[Bar]


def picture(title: str, groups: Sequence[Group]) -> str:
    """Horizontal bars as SVG; a legend where segments have several names."""
    names = list(dict.fromkeys(name for group in groups for bar in group.bars for name, _ in bar.segments))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    lines, y = [text(10, 22, title, "bold")], 40
    if len(names) > 1:
        for k, name in enumerate(names):
            x = 10 + (k % 5) * 190
            lines += [rectangle(x, y, 12, colours[name]), text(x + 18, y + 12, name)]
            y += ROW if k % 5 == 4 or k == len(names) - 1 else 0
    for group in groups:
        y += ROW
        lines.append(text(10, y, group.heading, "bold"))
        y += 8
        longest = max(sum(max(length, 0) for _, length in bar.segments) for bar in group.bars) or 1
        for bar in group.bars:
            lines.append(text(LABEL_WIDTH - 8, y + 12, bar.label, anchor="end"))
            x = float(LABEL_WIDTH)
            for name, length in bar.segments:
                width = max(length, 0) / longest * (WIDTH - LABEL_WIDTH - 230)
                lines.append(rectangle(x, y, width, colours[name]))
                x += width
            lines.append(text(x + 6, y + 12, bar.text))
            y += ROW
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" font-family="sans-serif" '
    return "\n".join([f'{start}font-size="13"><rect width="100%" height="100%" fill="white"/>', *lines, "</svg>\n"])


def text(x: float, y: float, content: str, weight: str = "normal", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}" text-anchor="{anchor}">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'


def table(rows: Sequence[Row], columns: dict[str, str]) -> str:
    """A Markdown table; columns: heading -> column of the file."""
    lines = [list(columns), ["---"] * len(columns), *([row[column] for column in columns.values()] for row in rows)]
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


def conditions_line(path: Path) -> str:
    """Under what the last run was measured."""
    rows = last_run(path, ("runtime", "precision", "others_share"))
    row = rows[-1]
    others = f"others used at most {100 * max(float(row['others_share']) for row in rows):.0f} % of the cores"
    precisions = " and ".join(dict.fromkeys(row["precision"] for row in rows))
    runtime = f"onnxruntime {row['onnxruntime']}, Python {row['python']}"
    machine = f"{row['cpu']}, {row['cores']} cores"
    return f"{run_of(row)[2]}, {precisions}, {machine}, {runtime}, commit {row['commit']}, {row['date']}, {others}"


def schedules(path: Path) -> tuple[list[Group], str]:
    rows = last_run(path, ("model", "slices", "prompts", "way", "part"))
    requests = list(dict.fromkeys((row["model"], row["prompts"]) for row in rows))
    groups = []
    for model, prompts in requests:
        own = [row for row in rows if (row["model"], row["prompts"]) == (model, prompts)]
        bars = []
        for whole in (row for row in own if row["part"] == "all"):
            parts = [
                r
                for r in own
                if r["way"] == whole["way"] and r["part"] in ("text encoder", "image encoder", "mask decoder")
            ]
            ratio = f"{float(whole['median_s']):.3g} s, {float(whole['times_original']):.2f} of the original"
            bars.append(Bar(whole["way"], [(part["part"], float(part["median_s"])) for part in parts], ratio))
        groups.append(Group(f"{model}, prompts: {prompts}, slices: {own[0]['slices']}", bars))
    columns = {"model": "model", "prompts": "prompts", "part": "part", "way": "way", "median, s": "median_s"}
    columns |= {"best, s": "best_s", "of the original": "times_original"}
    columns |= {"pixels equal": "label_agreement", "mask IoU": "mask_iou"}
    return groups, table(rows, columns)


def scaling(path: Path) -> tuple[list[Group], str]:
    axes = ("slices", "prompts", "window_size", "threads", "instances")
    rows = last_run(path, ("runtime", "axis", *axes, "at_once"))
    groups = []
    for runtime, axis in product(dict.fromkeys(row["runtime"] for row in rows), axes):
        own = [row for row in rows if (row["runtime"], row["axis"]) == (runtime, axis)]
        base = [row for row in rows if (row["runtime"], row["axis"]) == (runtime, "base")]
        own = own if axis == "instances" else [*base, *own]
        bars = [
            Bar(
                f"{axis.replace('_', ' ')} {row[axis]}",
                [("s per slice", float(row["s_per_slice"]))],
                f"{row['s_per_slice']} s per slice, RSS {row['peak_rss_sum_gb']} GB",
            )
            for row in own
        ]
        if bars:
            groups.append(Group(f"{axis.replace('_', ' ')}, {runtime}", bars))
    columns = {
        "runtime": "runtime",
        "varied": "axis",
        "slices": "slices",
        "prompts": "prompts",
        "window": "window_size",
        "threads": "threads",
    }
    columns |= {"instances": "instances", "at once": "at_once", "s a request": "median_s", "s a slice": "s_per_slice"}
    return groups, table(rows, columns | {"peak PSS, GB": "peak_pss_gb", "sum of RSS, GB": "peak_rss_sum_gb"})


def stages(path: Path) -> tuple[list[Group], str]:
    request = ("variant", "runtime", "protocol", "slices", "prompts", "window_size", "windows_in_flight")
    rows = last_run(path, (*request, "stage"))
    groups = []
    for way in dict.fromkeys(tuple(row[name] for name in request) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in request) == way]
        variant, runtime, protocol, slices, prompts, _, in_flight = way
        size = "one image" if variant.endswith("_2D") else f"{slices} slices, windows in flight: {in_flight}"
        heading = f"{VARIANTS[variant].model}, {runtime}, {protocol}, {size}, prompts: {prompts}; "
        heading += f"{own[0]['wall_ms']} ms, {own[0]['times_direct']} times the networks alone"
        bars = [
            Bar(r["stage"], [("ms", float(r["ms"]))], f"{r['ms']} ms, {100 * float(r['share']):.2f} %") for r in own
        ]
        groups.append(Group(heading, bars))
    columns = {"variant": "variant", "runtime": "runtime", "protocol": "protocol", "slices": "slices"}
    columns |= {"prompts": "prompts", "windows in flight": "windows_in_flight"}
    return groups, table(rows, columns | {"stage": "stage", "ms": "ms", "share": "share"})


def perf_analyzer(path: Path) -> tuple[list[Group], str]:
    rows = last_run(path, ("model", "slices", "prompts", "protocol", "encoding", "concurrency"))
    groups = []
    for model in dict.fromkeys(row["model"] for row in rows):
        bars = [
            Bar(
                f"{r['protocol']} {r['encoding']}, {r['concurrency']} at once",
                [("p50", float(r["p50_ms"]))],
                f"p50 {r['p50_ms']} ms, {r['requests_per_s']} a second",
            )
            for r in rows
            if r["model"] == model
        ]
        groups.append(Group(model, bars))
    columns = {"model": "model", "protocol": "protocol", "image": "encoding", "at once": "concurrency"}
    columns |= {
        "requests a second": "requests_per_s",
        "p50, ms": "p50_ms",
        "p95, ms": "p95_ms",
        "queue, ms": "server_queue_ms",
    }
    return groups, table(rows, columns)


REPORTS: dict[str, tuple[str, Callable[[Path], tuple[list[Group], str]]]] = {
    "schedules": ("The networks alone: the originals' schedule against ours", schedules),
    "scaling": ("How seconds and memory grow, through the server", scaling),
    "stages": ("Where the time of one request goes", stages),
    "perf_analyzer": ("perf_analyzer: latency by protocol, encoding and requests at once", perf_analyzer),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default=PUBLISHED.name)
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the CSV files lie")
    options = parser.parse_args(arguments)
    folder = options.results or RESULTS / options.variant
    for name, (title, read) in REPORTS.items():
        path = folder / f"{name}.csv"
        if path.exists():
            groups, lines = read(path)
            path.with_suffix(".svg").write_text(picture(f"{title} ({options.variant})", groups))
            print(f"\n{title}\n{conditions_line(path)}\n\n{lines}")


if __name__ == "__main__":
    main()
