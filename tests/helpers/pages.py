"""The Markdown pages of this checkout: their links, tables and blocks of code."""

import re
from dataclasses import dataclass
from pathlib import Path

from helpers.places import ROOT

NOT_OURS = ("build", "checkpoints", "demo_output")
ROOMS = [path.name for path in ROOT.glob("[!.]*/") if path.name not in NOT_OURS]
FILES = [*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(FILES)}
FENCE = re.compile(r"^```(?P<info>\S.*)\n(?P<code>(?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and after it the mark that says how it is tested.

    No mark: it is run. `server`: it starts what the others ask. `skip: REASON`: it cannot run here.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return not self.mark


def blocks(page: str) -> list[Block]:
    """Those with a language; others show what a file holds."""
    found = []
    for match in FENCE.finditer(PAGES[page]):
        language, _, mark = match["info"].partition(" ")
        line = PAGES[page][: match.start()].count("\n") + 1
        found.append(Block(page, line, language, mark, match["code"]))
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def prose(page: str) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)


def spans(page: str) -> list[str]:
    """What stands in backticks in the prose, in one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def section(page: str, heading: str) -> str:
    """The prose under a heading, up to the next heading of the same or a higher level."""
    lines = prose(page).splitlines()
    [start] = (i for i, line in enumerate(lines) if re.fullmatch(rf"#+ {re.escape(heading)}", line))
    level = len(lines[start]) - len(lines[start].lstrip("#"))
    ends = (i for i in range(start + 1, len(lines)) if re.match(rf"#{{1,{level}}} ", lines[i]))
    return "\n".join(lines[start + 1 : next(ends, len(lines))])


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with the cell `first`; [] if there is none."""
    rows: list[list[str]] = []
    is_inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if is_inside and not cells:
            break
        if is_inside:
            rows.append(cells)
        is_inside = is_inside or cells[:1] == [first]
    return rows[1:]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: str) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> list[tuple[Path, str]]:
    """The files that a page links to or shows, and the headings there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            found.append(((ROOT / page).parent / path if path else ROOT / page, anchor))
    return found
