"""Names and colours of the labels, as viewers of label maps read them."""

from collections.abc import Mapping

from medimageparse_client.results.colours import colours_of

SNAP, SLICER = (".label", ".txt"), (".ctbl",)
ENDINGS = (*SNAP, *SLICER)


def encode_label_table(labels: Mapping[str, int], ending: str) -> bytes:
    """For ITK-SNAP (.label, .txt) or 3D Slicer (.ctbl); in the colours of the preview."""
    lines = slicer_lines(labels) if ending in SLICER else snap_lines(labels)
    return "".join(f"{line}\n" for line in lines).encode()


def snap_lines(labels: Mapping[str, int]) -> list[str]:
    """Label, red, green, blue, opacity, whether it is shown, whether its mesh is, name."""
    lines = ["# ITK-SnAP Label Description File", '0 0 0 0 0 0 0 "Clear Label"']
    colours = colours_of(labels, "3d")
    for prompt, label in labels.items():
        red, green, blue = colours[label]
        name = " ".join(prompt.replace('"', "'").split())
        lines.append(f'{label} {red} {green} {blue} 1 1 1 "{name}"')
    return lines


def slicer_lines(labels: Mapping[str, int]) -> list[str]:
    """Label, name, red, green, blue, opacity; a name has no blank in it."""
    lines = ["# 3D Slicer color table", "0 background 0 0 0 0"]
    colours = colours_of(labels, "3d")
    for prompt, label in labels.items():
        lines.append(" ".join([str(label), "_".join(prompt.split()), *map(str, colours[label]), "255"]))
    return lines
