"""The canary: what a served model is asked to segment when somebody wants to know whether it answers right."""

SIDE, SLICES = 48, 3  # pixels, and slices of the volume, which are all the same
SPACING_MM = 8
BACKGROUND, BODY, ORGAN = 0, 110, 170
PROMPT_3D, PROMPT_2D = "body", "liver"


def canary_slice() -> bytes:
    """A bright disc in a dark one on black: SIDE x SIDE pixels of a byte, row after row."""

    def pixel(x: int, y: int) -> int:
        if (x - SIDE * 0.35) ** 2 + (y - SIDE * 0.45) ** 2 < (SIDE * 0.16) ** 2:
            return ORGAN
        return BODY if (x - SIDE / 2) ** 2 + (y - SIDE / 2) ** 2 < (SIDE * 0.45) ** 2 else BACKGROUND

    return bytes(pixel(x, y) for y in range(SIDE) for x in range(SIDE))
