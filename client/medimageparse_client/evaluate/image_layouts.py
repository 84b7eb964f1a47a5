"""2D cases of BiomedParseData: sets of images, masks and a COCO-like list (`evaluation.md`, section 2)."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medimageparse_client.evaluate.cases import Annotation, CaseError, ImageCase

FIELDS = 3  # of a task: modality, site, target


def biomedparse_cases(root: Path) -> list[ImageCase]:
    """All images with masks of all sets under `root`: `<set>/<split>.json` beside `<split>/` and `<split>_mask/`."""
    return [case for path in sorted(lists(root)) for case in cases_of(path, root)]


def lists(root: Path) -> Iterator[Path]:
    """The lists of the sets; sets may be nested."""
    return (path for path in root.rglob("*.json") if path.with_suffix("").is_dir())


def cases_of(path: Path, root: Path) -> list[ImageCase]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        files = {image["id"]: str(image["file_name"]) for image in table["images"]}
        categories = {entry["id"]: str(entry["name"]) for entry in table.get("categories", ())}
        annotations: dict[str, list[Annotation]] = defaultdict(list)
        for entry in table["annotations"]:
            file = files[entry["image_id"]]
            annotations[file].append(annotation_of(entry, file, path, categories))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CaseError(f"{path.name} is not a list of images and annotations") from error
    data_set = path.parent.relative_to(root).as_posix()
    tasks = {(a.modality, a.site, a.task) for several in annotations.values() for a in several}
    return [
        ImageCase(
            name=f"{data_set}/{path.stem}/{file}",
            data_set=data_set,
            image=within(path.with_suffix(""), file),
            annotations=tuple(several),
            absent=absent_tasks(several, tasks),
        )
        for file, several in sorted(annotations.items())
    ]


def annotation_of(entry: dict[str, Any], image: str, path: Path, categories: dict[Any, str]) -> Annotation:
    mask = str(entry.get("mask_file") or image)
    parts = Path(mask).stem.split("_")
    if len(parts) <= FIELDS:
        raise CaseError(f"a mask of {path.name} is not named NAME_MODALITY_SITE_TARGET.png")
    modality, site, target = (part.replace("+", " ") for part in parts[-FIELDS:])
    return Annotation(
        task="_".join(parts[-FIELDS:]),
        modality=modality,
        site=site,
        target=target,
        sentences=tuple(str(sentence["raw"]).lower() for sentence in entry.get("sentences", ())),
        mask=within(path.with_name(f"{path.stem}_mask"), mask),
        category=categories.get(entry.get("category_id"), ""),
    )


def within(folder: Path, name: str) -> Path:
    """A file of a folder; a name that leads out of it is refused."""
    if Path(name).name != name:
        raise CaseError("a list names a file that is not in its folder")
    return folder / name


def absent_tasks(present: list[Annotation], tasks: set[tuple[str, str, str]]) -> tuple[str, ...]:
    """Tasks of the set, of the image's modality and site, without a mask on it."""
    kinds = {(a.modality, a.site) for a in present}
    here = {a.task for a in present}
    return tuple(sorted(task for modality, site, task in tasks if (modality, site) in kinds and task not in here))


def target_of(task: str) -> str:
    return task.split("_")[-1].replace("+", " ")


def standard_sentence(task: str) -> str:
    """Upstream's sentence for evaluation: TARGET in SITE MODALITY."""
    modality, site, target = (part.replace("+", " ") for part in task.split("_"))
    return f"{target} in {site} {modality}"
