"""What was found in a volume, as lines for a person."""

from medimageparse_client.cli.kinds import CUT
from medimageparse_client.results.report import VolumePrompt
from medimageparse_client.results.segmentation import Segmentation

WHY_ABSENT = {
    "low_score": "its score is at most 0.5 on every slice",
    "overlap": "other prompts have what it found",
    "empty_mask": "it scored, but no voxel is more probable than not",
}


def volume_table(result: Segmentation) -> str:
    """One line a prompt, then what was used."""
    facts = result.facts
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        found = facts.prompts[label - 1]
        ml = "-" if found.volume_ml is None else f"{found.volume_ml:.1f}"
        told = besides(found) + CUT * found.truncated + "".join(f"  ({reason})" for reason in reasons(found))
        lines.append(f"{label:>5}  {found.highest_score:>5.2f}  {found.voxels:>9}  {ml:>8}  {prompt}{told}\n")
    used = facts.image
    sides = f"stored as {used.stored_orientation}, read as {used.orientation}"
    words = (
        f"intensity {used.intensity}",
        sides if used.sides_known else "which side is left is not known",
        f"sliced along axis {'xyz'[used.slice_axis_stored]}",
    )
    return "".join(lines) + f"used: {' | '.join(words)}\n"


def besides(found: VolumePrompt) -> str:
    """What draws and instances say of a prompt."""
    words = ""
    if found.draws:
        ml = "{minimum:.1f}..{maximum:.1f}".format(**found.draws.volume_ml)
        words += f"  (draws: {ml} ml, Dice {found.draws.dice:.3f})"
    return words if found.instances is None else f"{words}  ({len(found.instances)} instances)"


def reasons(found: VolumePrompt) -> list[str]:
    """Why a prompt is absent, and to which labels it lost slices."""
    why = WHY_ABSENT.get(found.why_absent or "", found.why_absent)
    lost = [f"overlaps label {lost.label}, which has {lost.slices} of its slices" for lost in found.lost_to]
    return [*([f"absent: {why}"] if why else []), *lost]
