"""--preset and --by-name: sentences of the catalogue in place of prompts."""

import argparse

from medimageparse_contract.catalogue import Model, presets, rows_of_presets, structures

from medimageparse_client.cli.console import WrongCommandLine
from medimageparse_client.formats.body_part import AUTO


def known_prompts(args: argparse.Namespace, model: Model, prompts: list[str]) -> dict[str, str]:
    """Prompt to send -> the catalogue's id or name that it stands for; of a prompt that stands for itself, itself."""
    if args.preset == AUTO and model == "3d":
        return {}  # each series says what it shows
    if args.preset:
        return preset_prompts(args.preset, model)
    if not args.by_name:
        if args.modality:
            raise WrongCommandLine("--modality says which of a name's sentences is meant; give --by-name too")
        return {prompt: prompt for prompt in prompts}
    sent: dict[str, str] = {}
    for prompt in prompts:
        sentence = sentence_of(prompt, model, args.modality)
        if sentence in sent:
            raise WrongCommandLine(f"{sent[sentence]!r} and {prompt!r} are the same prompt; leave one of them out")
        sent[sentence] = prompt
    return sent


def preset_prompts(names: str, model: Model) -> dict[str, str]:
    rows = rows_of_presets(names, model)
    if not rows:
        raise WrongCommandLine(f"--preset {names} is not known; there are {', '.join(sorted(presets(model)))}")
    return {row.prompt: row.id for row in rows}


def sentence_of(prompt: str, model: Model, modality: str | None) -> str:
    """The recommended sentence of an id or a name; any other prompt as it is."""
    asked = prompt.strip().casefold()
    named = [row for row in structures(model) if asked in (row.id.casefold(), row.name.casefold())]
    rows = [row for row in named if modality is None or row.modalities.casefold() == modality.casefold()]
    if named and not rows:
        known = ", ".join(sorted({row.modalities for row in named}))
        raise WrongCommandLine(f"{prompt!r} is not known in {modality}; --modality is one of {known}")
    sentences = list(dict.fromkeys(row.prompt for row in rows))
    if len(sentences) > 1:
        told = ", ".join(repr(sentence) for sentence in sentences)
        way_out = "name a --modality, or write one of them" if modality is None else "write one of them"
        raise WrongCommandLine(f"{prompt!r} has several sentences: {told}; {way_out}")
    return sentences[0] if sentences else prompt
