"""In a report, the names that prompts stand for."""

from dataclasses import replace

from medimageparse_client.results.image_segmentation import ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation


def with_names(result: Segmentation | ImageSegmentation, named: dict[str, str]) -> Segmentation | ImageSegmentation:
    """The result with `asked` in its report, the id or name, for each prompt that was sent in place of one."""
    if all(sentence == asked for sentence, asked in named.items()):
        return result
    described = [
        entry | ({"asked": named[prompt]} if named.get(prompt, prompt) != prompt else {})
        for prompt, entry in zip(result.prompts, result.report["prompts"], strict=True)
    ]
    return replace(result, report=result.report | {"prompts": described})
