"""The numbers of README.md are those of docs/performance.md, and these are the last rows of its machine."""

import csv
import re

import pytest
from helpers.pages import PAGES, quoted, section, table
from helpers.places import ROOT

PAGE, MACHINE = "docs/performance.md", "AMD EPYC"  # which the page names above the table
WAYS = ("original", "ours, ONNX Runtime", "ours, image encoder in bf16")
ROWS = {  # row of the page -> model, prompts and part of schedules.csv
    "3D, a slice of 512 x 512, 1 prompt": ("medimageparse_3d", "1", "all"),
    "3D, a slice, 15 prompts": ("medimageparse_3d", "15", "all"),
    "each extra prompt of a slice": ("medimageparse_3d", "15", "each extra prompt"),
    "2D, an image, 1 prompt": ("medimageparse", "1", "all"),
}
SECONDS = {"s": 1.0, "ms": 0.001}


def recorded():
    """(model, prompts, part, way) -> median seconds and ratio; of several rows the last."""
    with (ROOT / "benchmarks/results/PUBLISHED/schedules.csv").open(newline="") as file:
        return {
            (row["model"], row["prompts"], row["part"], row["way"]): (row["median_s"], row["times_original"])
            for row in csv.DictReader(file)
            if row["cpu"] == MACHINE
        }


def assert_rounded(shown, value):
    assert float(shown) == pytest.approx(value, abs=0.5001 * 10.0 ** -len(shown.partition(".")[2]))


def test_the_networks_took_what_is_recorded():
    measured = recorded()
    text = section(PAGE, "The networks against the originals")
    rows = table(text, "networks alone")
    assert MACHINE in text
    assert [row[0] for row in rows] == list(ROWS)
    for name, *cells in rows:
        for way, cell in zip(WAYS, cells, strict=True):
            took_s, ratio = (float(value) for value in measured[*ROWS[name], way])
            number, unit, shown_ratio = re.fullmatch(r"([\d.]+) (m?s)(?: \(([\d.]+)\))?", cell).groups()
            assert_rounded(number, took_s / SECONDS[unit])
            assert_rounded(shown_ratio or "1", ratio)


def test_what_the_readme_measured_stands_on_the_page():
    rows = table(section("README.md", "Measured"), "what")
    assert len(rows) == 5
    for _, result in rows:
        for number in re.findall(r"\d+\.\d+", result):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", PAGES[PAGE]), number


def test_the_picture_of_the_demo_stands_in_the_readme():
    assert "](demo/medimageparse_demo/masks.png)" in PAGES["README.md"]
    assert (ROOT / "demo/medimageparse_demo/masks.png").is_file()


def test_every_benchmark_is_named():
    programs = {path.name for path in ROOT.glob("benchmarks/*.py") if '__name__ == "__main__"' in path.read_text()}
    told = {name for cell, _ in table(section(PAGE, "Measure it yourself"), "script") for name in quoted(cell)}
    assert programs - {"report.py"} == told
