"""Which of the forms that an answer can have a caller wants."""

from collections.abc import Sequence

from medimageparse_gateway.errors import HttpError


def choose(accept: str, offered: Sequence[str]) -> str:
    """The media type of `offered` that an Accept header likes best; of equals the first. HttpError 406 if none."""
    wanted = [wish for wish in map(_wish, accept.split(",")) if wish[0]] or [("*/*", 1.0)]
    quality = {media: max((q for pattern, q in wanted if _fits(media, pattern)), default=0.0) for media in offered}
    # what is named stands before what a star lets through, as browsers and curl add */* to their list
    for media in offered:
        named = [q for pattern, q in wanted if pattern == media]
        quality[media] = named[0] if named else quality[media] * 0.999
    best = max(offered, key=lambda media: quality[media])
    if not quality[best]:
        raise HttpError(406, f"this address answers with {', '.join(offered)}; name one in Accept")
    return best


def _wish(text: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return media, quality


def _fits(media: str, pattern: str) -> bool:
    return pattern in (media, "*/*") or pattern == media.partition("/")[0] + "/*"
