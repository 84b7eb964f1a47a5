"""A case and its answer -> the record of the case."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medimageparse_client.evaluate.answers import Answers, ImageAnswer, MaskAnswer, VolumeAnswer, read_mask
from medimageparse_client.evaluate.cases import Annotation, CaseError, ImageCase, Sentences, VolumeCase, VolumeQuestion
from medimageparse_client.evaluate.image_layouts import standard_sentence, target_of
from medimageparse_client.evaluate.image_metrics import MaskCounts
from medimageparse_client.evaluate.records import NAN, Row
from medimageparse_client.evaluate.statistics import mean
from medimageparse_client.evaluate.volume_metrics import (
    LabelScores,
    Volume,
    instance_scores,
    instance_scores_copy,
    instance_scores_no_wrap,
    label_scores,
    official_labels,
    semantic_scores,
)

FOUND_SCORE = 0.5  # of a slice
INSTANCE_METRICS = {"": instance_scores, "_no_wrap": instance_scores_no_wrap, "_copy": instance_scores_copy}


def volume_metrics(
    question: VolumeQuestion, answer: VolumeAnswer, *, surface: bool
) -> tuple[dict[str, float], tuple[Row, ...]]:
    """The metrics of a 3D case, and a row a prompt."""
    truth, predicted = question.truth, answer.labels
    if question.is_instance:
        metrics: dict[str, float] = {}
        for name, score in INSTANCE_METRICS.items():
            scores = score(truth, predicted)
            metrics |= {f"F1{name}": scores.f1, f"DSC_TP{name}": scores.dsc_tp}
        # every instance has the one prompt of the case
        [(label, prompt)] = list(question.prompts.items())[:1]
        counts = MaskCounts.of(truth > 0, predicted > 0)
        scores_of = LabelScores(label, counts.truth, counts.predicted, counts.common, NAN, NAN)
        return metrics, (volume_row(scores_of, prompt, question, answer, 0, truth > 0, is_scored=True),)
    labels = label_scores(truth, predicted, question.spacing, question.prompts, surface=surface)
    counted = official_labels(truth)
    means = semantic_scores(labels, counted)
    rows = tuple(
        volume_row(
            scores, question.prompts[scores.label], question, answer, k, truth == scores.label, scores.label in counted
        )
        for k, scores in enumerate(labels)
    )
    metrics = {"DSC": means.dsc, "NSD": means.nsd, "NSD_array_order": means.nsd_array_order, "DSC_all": means.dsc_all}
    return metrics, rows


def volume_row(
    scores: LabelScores,
    prompt: str,
    question: VolumeQuestion,
    answer: VolumeAnswer,
    index: int,
    truth: npt.NDArray[np.bool_],
    is_scored: bool,
) -> Row:
    highest, slices = NAN, None
    if answer.scores is not None:
        of_prompt = answer.scores[index]
        highest = float(of_prompt.max())
        slices = slice_counts(truth, of_prompt, answer.axis)
    return Row(
        label=scores.label,
        task=question.names.get(scores.label, prompt),
        prompt=prompt,
        is_present=scores.truth_voxels > 0,
        is_found=scores.predicted_voxels > 0,
        is_scored=is_scored,
        truth=scores.truth_voxels,
        predicted=scores.predicted_voxels,
        common=scores.common_voxels,
        nsd=scores.nsd,
        nsd_array_order=scores.nsd_array_order,
        score=highest,
        slices=slices,
    )


def slice_counts(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], axis: int) -> tuple[int, int, int, int]:
    """Slices with true and false positives, false and true negatives: found is a score above 0.5."""
    is_present = truth.any(tuple(other for other in range(3) if other != axis))
    is_found = scores > FOUND_SCORE
    return tuple(  # type: ignore[return-value]
        int(np.count_nonzero((is_found == found) & (is_present == present)))
        for found, present in ((True, True), (True, False), (False, True), (False, False))
    )


def negative_rows(answers: Answers, case: VolumeCase, question: VolumeQuestion, prompts: Sequence[str]) -> list[Row]:
    """Prompts of other data sets of the modality, in a request of their own; nothing of them is in the volume."""
    if not prompts:
        return []
    numbered = dict(enumerate(prompts, start=1))
    answer = answers.of_volume(case, question, numbered)
    absent = np.zeros(question.truth.shape, np.bool_)
    rows = []
    for index, (label, prompt) in enumerate(numbered.items()):
        n = int(np.count_nonzero(answer.labels == label))
        rows.append(volume_row(LabelScores(0, 0, n, 0, NAN, NAN), prompt, question, answer, index, absent, False))
    return rows


def sentence_of_task(task: str, sentences: Sentences) -> str:
    return target_of(task) if sentences.choice == "target" else standard_sentence(task)


def sentence_of(annotation: Annotation, case: ImageCase, sentences: Sentences) -> str:
    if sentences.choice in ("standard", "target"):
        return sentence_of_task(annotation.task, sentences)
    if not annotation.sentences:
        raise CaseError("an annotation has no sentence; --prompt standard makes one of the mask's name")
    return sentences.of(annotation.sentences, case.name, annotation.mask.name)


def image_rows(case: ImageCase, answers: Answers, sentences: Sentences) -> tuple[tuple[Row, ...], ImageAnswer]:
    """A row a mask of the image, and a row a task that is not on it; and the answer they are made of."""
    present = [sentence_of(annotation, case, sentences) for annotation in case.annotations]
    absent = [sentence_of_task(task, sentences) for task in case.absent]
    answer = answers.of_image(case, [*present, *absent], image_type_of(case))
    rows = []
    pairs: list[tuple[Annotation | str, str]] = [*zip(case.annotations, present, strict=True)]
    pairs += zip(case.absent, absent, strict=True)
    # a folder of predictions has no answers about what is absent
    for label, ((asked, prompt), given) in enumerate(zip(pairs, answer.masks, strict=False), start=1):
        rows.append(image_row(label, asked, prompt, given))
    return tuple(rows), answer


def image_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the masks of an image; a published table has a unit a mask, so these are for comparing runs."""
    masks = [MaskCounts(row.truth, row.predicted, row.common) for row in rows if row.is_scored]
    return {"Dice": mean([mask.dice for mask in masks]), "IoU": mean([mask.iou for mask in masks])}


def image_row(label: int, asked: Annotation | str, prompt: str, given: MaskAnswer) -> Row:
    truth: Volume | npt.NDArray[np.bool_] = np.zeros(given.mask.shape, np.bool_)
    right_category = None
    if isinstance(asked, Annotation):
        truth = read_mask(asked.mask)
        if truth.shape != given.mask.shape:
            raise CaseError(f"a mask is {truth.shape[0]} x {truth.shape[1]} and its image is not")
        right_category = given.category == asked.category if asked.category and given.category else None
    counts = MaskCounts.of(truth.astype(np.bool_), given.mask)
    return Row(
        label=label,
        task=asked.task if isinstance(asked, Annotation) else asked,
        prompt=prompt,
        is_present=isinstance(asked, Annotation),
        is_found=counts.predicted > 0,
        is_scored=isinstance(asked, Annotation),
        truth=counts.truth,
        predicted=counts.predicted,
        common=counts.common,
        score=given.mean_probability,
        p_value=given.p_value,
        category=given.category,
        has_right_category=right_category,
    )


# (modality, site) of a task, as the published data name them -> the image type whose p-values are known
IMAGE_TYPES: Mapping[tuple[str, str], str] = {
    ("CT", "abdomen"): "CT-Abdomen",
    ("CT", "lung"): "CT-Chest",
    ("CT", "liver"): "CT-Liver",
    ("MRI", "abdomen"): "MRI-Abdomen",
    ("MRI", "heart"): "MRI-Cardiac",
    ("MRI-FLAIR", "brain"): "MRI-FLAIR-Brain",
    ("MRI-T1-Gd", "brain"): "MRI-T1-Gd-Brain",
    ("pathology", ""): "Pathology",  # of any site
    ("X-Ray", "chest"): "X-Ray-Chest",
    ("ultrasound", "heart"): "Ultrasound-Cardiac",
    ("endoscope", "colon"): "Endoscopy",
    ("fundus", "retinal"): "Fundus",
    ("dermoscopy", "skin"): "Dermoscopy",
    ("OCT", "retinal"): "OCT",
}


def image_type_of(case: ImageCase) -> str | None:
    """The image type of the case's masks, if they have one and the same."""
    types = {IMAGE_TYPES.get((a.modality, a.site)) or IMAGE_TYPES.get((a.modality, "")) for a in case.annotations}
    return types.pop() if len(types) == 1 else None
