"""Synthetic pictures with known masks: chest X-rays, abdominal CT slices and stained tissue. No real anatomy."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medimageparse_demo.phantoms import smooth_field

# the kinds have the names of the image types that a request can give
KIND_STRUCTURES = {
    "X-Ray-Chest": ("left lung", "right lung", "heart", "infection"),
    "CT-Abdomen": ("liver", "spleen", "left kidney", "right kidney", "stomach", "pancreas", "aorta", "tumor"),
    "Pathology": ("neoplastic cells", "inflammatory cells", "connective tissue cells"),
}
STRUCTURES = tuple(name for names in KIND_STRUCTURES.values() for name in names)

SHORTEST_SIDE, LONGEST_SIDE = 180, 420  # pixels
WIDEST = 1.3  # long side over short side
SMALLEST = 0.0025  # of the square around the picture; what shows less than that of itself is not in the masks

FAT, MUSCLE, BONE = 52.0, 128.0, 235.0  # greys of a CT slice in a soft-tissue window
# how strongly the two stains absorb red, green and blue
HAEMATOXYLIN, EOSIN = np.array((0.65, 0.70, 0.29)), np.array((0.07, 0.92, 0.36))


@dataclass(frozen=True)
class PhantomImage:
    """One picture, uint8 [H, W, 3], and what it shows: structure -> mask, bool [H, W]. Masks may overlap.

    In X-rays and CT slices the patient's left is on the right of the picture.
    """

    pixels: np.ndarray
    masks: dict[str, np.ndarray]
    kind: str


@dataclass(frozen=True)
class Ellipse:
    """Centre and radii to the right and down, in units of the plane."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    turn: float = 0.0  # radians, from right towards down
    bluntness: float = 2.0  # 2 is an ellipse, more is squarer


def make_image(seed: int, kind: str | None = None) -> PhantomImage:
    """Draws one picture; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    drawn = tuple(KIND_STRUCTURES)[rng.integers(len(KIND_STRUCTURES))]
    kind = kind or drawn
    short = rng.uniform(SHORTEST_SIDE, LONGEST_SIDE / WIDEST)
    sides = round(short), round(short * (1 if rng.random() < 0.2 else rng.uniform(1, WIDEST)))
    shape = sides if rng.random() < 0.5 else sides[::-1]
    pixels, masks = {"X-Ray-Chest": _chest, "CT-Abdomen": _abdomen, "Pathology": _tissue}[kind](rng, shape)
    smallest = SMALLEST * max(shape) ** 2
    shown = {name: masks[name] for name in KIND_STRUCTURES[kind] if name in masks and masks[name].sum() >= smallest}
    return PhantomImage(np.clip(pixels, 0, 255).round().astype(np.uint8), shown, kind)


class Plane:
    """Warped coordinates of every pixel, 0 in the middle and growing to the right and down."""

    def __init__(self, rng, shape, unit, middle=(0.0, 0.0), tilt=0.0, warp=0.02):
        self.rng, self.shape, self.unit = rng, shape, unit  # pixels of one unit
        self.middle, self.tilt = np.array(middle), tilt
        y, x = np.ogrid[: shape[0], : shape[1]]
        x, y = (x - shape[1] / 2) / unit - middle[0], (y - shape[0] / 2) / unit - middle[1]
        self.x = (np.cos(tilt) * x + np.sin(tilt) * y).astype(np.float32)
        self.y = (np.cos(tilt) * y - np.sin(tilt) * x).astype(np.float32)
        if warp:
            self.x += warp * smooth_field(rng, shape, (5, 5))
            self.y += warp * smooth_field(rng, shape, (5, 5))

    def depth(self, *ellipses: Ellipse, wobble: float = 0.05) -> np.ndarray:
        """Pixels to the edge of a union of ellipses with uneven edges: positive inside, negative outside."""
        depth = np.full(self.shape, -99.0, np.float32)
        for ellipse in ellipses:
            box = self._box(ellipse)
            x, y = self.x[box] - ellipse.x, self.y[box] - ellipse.y
            if x.size == 0:
                continue
            cos, sin = np.cos(ellipse.turn), np.sin(ellipse.turn)
            x, y = (cos * x + sin * y) / ellipse.radius_x, (cos * y - sin * x) / ellipse.radius_y
            if ellipse.bluntness == 2:
                radius = np.sqrt(x * x + y * y)
            else:
                radius = (np.abs(x) ** ellipse.bluntness + np.abs(y) ** ellipse.bluntness) ** (1 / ellipse.bluntness)
            edge = 1 + wobble * smooth_field(self.rng, radius.shape, (4, 4)) if wobble else 1
            thinnest = min(ellipse.radius_x, ellipse.radius_y) * self.unit
            np.maximum(depth[box], (edge - radius) * thinnest, out=depth[box])
        return depth

    def _box(self, ellipse: Ellipse) -> tuple[slice, slice]:
        """Rows and columns that hold the ellipse, with room for warp and wobble."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        x, y = cos * ellipse.x - sin * ellipse.y, sin * ellipse.x + cos * ellipse.y
        centre = np.array((y, x)) + self.middle[::-1]
        reach = 1.35 * max(ellipse.radius_x, ellipse.radius_y) + 0.08
        low = np.maximum((centre - reach) * self.unit + np.array(self.shape) / 2, 0).astype(int)
        high = np.maximum((centre + reach) * self.unit + np.array(self.shape) / 2, 0).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1])


def cover(depth: np.ndarray, soft: float = 1.5) -> np.ndarray:
    """How much of each pixel is covered, 0..1, where the edge is so many pixels wide."""
    return np.clip(0.5 + depth / soft, 0, 1)


def jitter(rng, ellipse: Ellipse, place: float = 0.03, size: float = 0.12) -> Ellipse:
    """Moves, scales and turns a little."""
    x, y = (ellipse.x, ellipse.y) + rng.uniform(-place, place, 2)
    scale = rng.uniform(1 - size, 1 + size) * rng.uniform(0.94, 1.06, 2)
    turn = ellipse.turn + (rng.normal(0, 0.1) if ellipse.turn else 0)
    radii = (ellipse.radius_x, ellipse.radius_y) * scale
    return Ellipse(x, y, *radii, turn, ellipse.bluntness)


def _chest(rng, shape):
    """Attenuations added up: air is dark, bone and heart are bright."""
    unit = min(shape) / 2 * rng.uniform(0.82, 1.02)
    plane = Plane(rng, shape, unit, rng.uniform(-0.07, 0.07, 2), rng.normal(0, 0.04), warp=0.015)
    apart, wide, tall = rng.uniform(0.41, 0.48), rng.uniform(0.28, 0.36), rng.uniform(0.58, 0.72)
    middle = rng.uniform(-0.12, 0.0)
    fields, domes = {}, []
    for side, name in ((-1, "right lung"), (1, "left lung")):  # in the picture, the right lung is left
        lung = Ellipse(side * apart, middle, wide, tall, side * rng.uniform(0.08, 0.2), rng.uniform(2, 2.8))
        fields[name] = plane.depth(jitter(rng, lung, size=0.05), wobble=0.04)
        top = middle + tall * rng.uniform(0.45, 0.65) + 0.03 * side + rng.uniform(-0.02, 0.02)
        domes.append(Ellipse(side * apart, top + 0.5, wide * 1.6, 0.5, side * 0.1))
    floor = max(dome.y for dome in domes)
    belly = plane.depth(*domes, Ellipse(0, floor + 0.6, 1.6, 0.75, bluntness=3), wobble=0.02)
    ratio = rng.uniform(0.9, 1.35)  # a small or an enlarged heart
    apex = Ellipse(0.15 * ratio, floor - 0.62, 0.31 * ratio, 0.27, 0.5)
    base = Ellipse(0.02, floor - 0.74, 0.21 * ratio, 0.25)
    heart = np.minimum(plane.depth(jitter(rng, apex, size=0.06), base, wobble=0.03), -belly)
    vessels = plane.depth(Ellipse(0.01, middle - 0.35, rng.uniform(0.13, 0.18), 0.8), wobble=0.05)
    for name, field in fields.items():
        fields[name] = np.minimum.reduce((field, -belly, -heart, -vessels))

    torso = plane.depth(
        Ellipse(0, 0.6, rng.uniform(0.95, 1.08), 1.7, bluntness=3),
        Ellipse(0, -0.35, 1.25, 0.42, bluntness=3),
        Ellipse(0, -1.1, 0.3, 0.6),
        wobble=0.02,
    )
    soft = unit / 50
    lungs = cover(np.maximum(*fields.values()), 3 * soft)
    picture = rng.uniform(0.42, 0.52) * cover(torso, 12 * soft)
    picture -= lungs * rng.uniform(0.26, 0.36)
    picture += rng.uniform(0.15, 0.22) * cover(heart, 4 * soft) + rng.uniform(0.14, 0.22) * cover(belly, 4 * soft)
    picture += rng.uniform(0.06, 0.14) * cover(vessels, 6 * soft)
    picture += rng.uniform(0.04, 0.08) * lungs * smooth_field(rng, shape, (18, 18))  # vessels in the lungs
    picture += _chest_bones(plane, middle, rng.uniform(0.05, 0.10))
    masks = {name: field > 0 for name, field in fields.items()} | {"heart": heart > 0}
    if rng.random() < 0.55:
        name = ("left lung", "right lung")[rng.integers(2)]
        patch = np.minimum(_patch(plane, masks[name], rng.uniform(0.17, 0.28)), fields[name])
        masks["infection"] = patch > 0
        cloud = 1 + 0.25 * smooth_field(rng, shape, (24, 24))
        picture += rng.uniform(0.2, 0.28) * cover(patch, 5 * soft) * cloud
    picture += rng.uniform(0.008, 0.03) * rng.standard_normal(shape, dtype=np.float32)
    picture = np.clip(picture + rng.uniform(0.0, 0.06), 0, 1) ** rng.uniform(0.8, 1.25) * rng.uniform(235, 290)
    return _grey(picture, rng.uniform(0.4, 0.9)), masks


def _chest_bones(plane, middle, strength):
    """Two rows of slanted ribs, the spine and the collar bones, to be added to the picture."""
    rng, aside = plane.rng, np.abs(plane.x)
    cage = cover(plane.depth(Ellipse(0, middle + 0.1, 0.86, 0.95, bluntness=2.6), wobble=0), 10)
    cage *= np.clip((aside - 0.08) * 20, 0, 1)
    bones = np.zeros(plane.shape, np.float32)
    spacing = rng.uniform(0.17, 0.21)
    for slope, share in ((rng.uniform(0.35, 0.6), 1.0), (-rng.uniform(0.5, 0.9), 0.6)):  # back and front
        height = plane.y - slope * (aside - 0.35 * aside**2)
        wave = np.cos((height / spacing + rng.random()) * np.float32(2 * np.pi))
        bones += share * cage * np.clip(2.5 * wave - 0.6, 0, 1)
    bones += 1.2 * cover(plane.depth(Ellipse(0, 0, 0.10, 5), wobble=0), 6)
    collars = (Ellipse(side * 0.42, middle - 0.58, 0.4, 0.045, -side * rng.uniform(0.1, 0.35)) for side in (-1, 1))
    bones += 1.2 * cover(plane.depth(*collars), 3)
    return strength * bones * np.clip(1.3 - 0.7 * (plane.y - middle), 0.3, 1)  # fewer towards the belly


def _patch(plane, where, radius):
    """Depth in an uneven patch of about so many units whose centre lies well inside of a mask."""
    rng = plane.rng
    rows, columns = np.nonzero(where)
    middle = np.array((rows.mean(), columns.mean()))
    at = middle + 0.6 * (np.array((rows, columns)).T[rng.integers(len(rows))] - middle)
    row, column = np.clip(at.astype(int), 0, np.array(plane.shape) - 1)
    stretch = rng.uniform(0.8, 1.25)
    x, y = plane.x[row, column], plane.y[row, column]
    return plane.depth(Ellipse(x, y, radius * stretch, radius / stretch, rng.uniform(0, np.pi)), wobble=0.1)


class Slice:
    """A CT slice in greys: each organ painted cuts its place, with a thin rim of fat, out of those before it."""

    def __init__(self, plane):
        self.plane, self.masks = plane, {}
        self.greys = np.zeros(plane.shape, np.float32)

    def paint(self, ellipses, grey, name=None, gap=1.2, wobble=0.06):
        """Returns the mask."""
        depth = self.plane.depth(*ellipses, wobble=wobble)
        rim = depth > -gap * self.plane.unit / 90 if gap else depth > 0
        for mask in self.masks.values():
            mask &= ~rim
        if gap:
            self.greys[rim] = FAT
        self.fill(depth, grey)
        if name:
            self.masks[name] = depth > 0
        return depth > 0

    def fill(self, depth, grey):
        part = cover(depth)
        self.greys += part * (grey - self.greys)


def _abdomen(rng, shape):
    flat = rng.uniform(0.70, 0.84)  # depth of the body over its width
    unit = rng.uniform(0.86, 0.97) * min(shape[1] / 2, shape[0] / 2 / flat)
    room = (np.array(shape[::-1]) / 2 / unit - (1, flat)) * 0.4
    plane = Plane(rng, shape, unit, rng.uniform(-room, room), rng.normal(0, 0.05))
    scan = Slice(plane)
    enhanced = rng.random() < 0.6
    _paint_wall(scan, flat)

    def place(x, y, radius_x, radius_y, turn=0.0):
        """An organ of a body as deep as wide, moved and pressed into this one."""
        return jitter(rng, Ellipse(x, y * flat / 0.78, radius_x, radius_y * flat / 0.78, turn))

    present = {name for name in KIND_STRUCTURES["CT-Abdomen"] if rng.random() >= 0.12}
    liver_grey = rng.normal(172 if enhanced else 140, 8)
    if "liver" in present:
        organ = [place(-0.47, -0.06, 0.36, 0.46), place(-0.08, -0.30, 0.30, 0.19, -0.2)]
        liver = scan.paint(organ, liver_grey, "liver", wobble=0.07)
    if "stomach" in present:
        stomach = place(0.36, -0.28, 0.27, 0.21, rng.uniform(-0.4, 0.4))
        inside = scan.paint([stomach], rng.uniform(95, 125), "stomach")
        lumen = Ellipse(stomach.x, stomach.y, 0.86 * stomach.radius_x, 0.86 * stomach.radius_y, stomach.turn)
        content = plane.depth(lumen)
        scan.fill(content, rng.choice((100, 112, 185, 215)))
        if rng.random() < 0.6:  # gas rises to the front
            gas = inside & (content > 0) & (plane.y < stomach.y - rng.uniform(0.0, 0.1))
            scan.greys[gas] = rng.uniform(0, 12)
    if "spleen" in present:
        scan.paint([place(0.68, 0.12, 0.15, 0.29, -0.35)], rng.normal(180 if enhanced else 136, 6), "spleen")
    if "pancreas" in present:
        tail, head = place(0.12, -0.02, 0.26, 0.085, -0.35), place(-0.13, 0.04, 0.11, 0.10)
        scan.paint([tail, head], rng.normal(150 if enhanced else 122, 5), "pancreas", wobble=0.05)
    for side, name in ((-1, "right kidney"), (1, "left kidney")):
        if name in present:
            kidney = place(side * 0.40, 0.31, 0.155, 0.18, side * rng.uniform(0.2, 0.6))
            scan.paint([kidney], rng.normal(222, 10) if enhanced else rng.normal(124, 4), name)
            pelvis = Ellipse(kidney.x - side * 0.06, kidney.y, 0.06, 0.05, kidney.turn)
            scan.fill(plane.depth(pelvis, wobble=0.1), rng.uniform(70, 160) if enhanced else 80)
    _paint_spine(scan, flat)
    wide = rng.uniform(0.085, 0.11)
    blood = rng.normal(228, 8) if enhanced else rng.normal(133, 4)
    scan.paint([Ellipse(rng.uniform(0.03, 0.10), 0.16 * flat, wide, wide)], blood, "aorta", wobble=0.03)
    cava = place(-0.15, 0.14, 0.10, 0.07)
    scan.paint([cava], blood - (rng.uniform(10, 50) if enhanced else 0), wobble=0.05)
    if "tumor" in present and "liver" in present and rng.random() < 0.7:
        patch = np.minimum(_patch(plane, liver, rng.uniform(0.12, 0.20)), np.where(scan.masks["liver"], 99.0, -99.0))
        scan.masks["tumor"] = patch > 0
        scan.fill(patch, liver_grey - rng.uniform(45, 75))
        if rng.random() < 0.5:  # a bright rim
            scan.fill(2 - np.abs(patch - 1.5), liver_grey + 25)

    greys = scan.greys + (scan.greys > 20) * rng.uniform(2, 5) * smooth_field(rng, shape, (30, 30))
    greys = ndimage.gaussian_filter(greys, rng.uniform(0.4, 0.9))
    greys += rng.uniform(2, 9) * rng.standard_normal(shape, dtype=np.float32) * (greys > 3)
    return _grey((greys - 128) * rng.uniform(0.88, 1.12) + 128 + rng.uniform(-12, 12), 0), scan.masks


def _paint_wall(scan, flat):
    """Body outline with table, muscle, ribs and the fat and bowel within."""
    rng, plane = scan.plane.rng, scan.plane
    scan.greys[np.abs(plane.y - flat * 1.1 + 0.1 * plane.x**2) < 0.02] = rng.uniform(20, 60)
    scan.paint([Ellipse(0, 0, 1, flat)], FAT, gap=0, wobble=0.02)
    wall = 1 - rng.uniform(0.03, 0.13)  # thin to well padded
    scan.paint([Ellipse(0, 0, wall, flat * (wall - 0.01))], MUSCLE, gap=0, wobble=0.01)
    scan.paint([Ellipse(0, 0, wall - 0.07, flat * (wall - 0.09))], FAT, gap=0, wobble=0.01)
    for side in (-1, 1):
        scan.paint([Ellipse(side * 0.27, flat * 0.72, 0.22, 0.14)], MUSCLE, gap=0)
        for turn in np.pi * np.arange(0.12, 0.75, 0.13):
            turn += rng.normal(0, 0.04)
            at = side * np.sin(turn) * (wall - 0.035), np.cos(turn) * flat * (wall - 0.045)
            rib = Ellipse(*at, 0.07, 0.03, -side * turn)
            scan.fill(plane.depth(rib, wobble=0), BONE * rng.uniform(0.85, 1))
    for _ in range(rng.integers(5, 11)):
        at, radii = (rng.uniform(-0.5, 0.6), flat * rng.uniform(-0.6, 0.35)), rng.uniform(0.07, 0.12, 2)
        scan.paint([Ellipse(*at, *radii)], rng.uniform(95, 130), wobble=0.1)
        if rng.random() < 0.3:
            scan.fill(plane.depth(Ellipse(*at, *(radii * 0.6))), rng.choice((5, 215)))


def _paint_spine(scan, flat):
    rng = scan.plane.rng
    y = flat * rng.uniform(0.46, 0.52)
    process = Ellipse(0, y + 0.26, 0.045, 0.13)
    arms = Ellipse(0, y + 0.17, 0.24, 0.045)
    scan.paint([process, arms], BONE, gap=0)
    scan.paint([Ellipse(0, y, rng.uniform(0.15, 0.18), 0.13)], BONE, gap=0.8, wobble=0.03)
    scan.fill(scan.plane.depth(Ellipse(0, y, 0.13, 0.10)), rng.uniform(185, 215))
    scan.fill(scan.plane.depth(Ellipse(0, y + 0.16, 0.075, 0.06)), 115)


def _grey(picture, blur):
    """Three equal channels."""
    if blur:
        picture = ndimage.gaussian_filter(picture, blur)
    return np.repeat(picture[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class CellType:
    """Ranges; radii in sides of the square around the picture."""

    counts: tuple[int, int]
    radii: tuple[float, float]
    length: tuple[float, float]  # over width
    stain: tuple[float, float]
    spread: tuple[float, float]  # of the group, in sides
    wobble: float


CELL_TYPES = {
    "neoplastic cells": CellType((4, 11), (0.052, 0.080), (1.0, 1.5), (0.75, 1.1), (0.15, 0.32), 0.10),
    "inflammatory cells": CellType((7, 20), (0.032, 0.040), (1.0, 1.15), (1.6, 2.1), (0.10, 0.22), 0.04),
    "connective tissue cells": CellType((5, 11), (0.028, 0.035), (3.2, 4.5), (0.8, 1.2), (0.25, 0.40), 0.06),
}


def _tissue(rng, shape):
    """Haematoxylin colours nuclei purple, eosin all else pink; light is absorbed by both."""
    side = max(shape)
    plane = Plane(rng, shape, side, warp=0.01)
    flow = rng.uniform(0, np.pi)  # direction of the fibres
    across = np.cos(flow) * plane.y - np.sin(flow) * plane.x + 0.03 * smooth_field(rng, shape, (5, 5))
    eosin = rng.uniform(0.28, 0.5) + 0.07 * smooth_field(rng, shape, (8, 8)) + 0.03 * smooth_field(rng, shape, (40, 40))
    eosin += rng.uniform(0.04, 0.10) * np.sin(across * rng.uniform(60, 110)) * smooth_field(rng, shape, (6, 6))
    haematoxylin = np.full(shape, rng.uniform(0.03, 0.10), np.float32)
    for _ in range(rng.integers(0, 4)):  # clefts without tissue
        place, radii = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.03, 0.12, 2)
        cleft = cover(plane.depth(Ellipse(*place, *radii, rng.uniform(0, np.pi)), wobble=0.15), 3)
        eosin *= 1 - 0.85 * cleft
    present = [name for name in CELL_TYPES if rng.random() < 0.75] or [tuple(CELL_TYPES)[rng.integers(3)]]
    taken: list[tuple[float, float, float]] = []
    masks = {}
    chromatin = smooth_field(rng, shape, (60, 60))
    for name in present:
        kind = CELL_TYPES[name]
        cells = _cells(rng, kind, shape, flow, taken)
        if not cells:
            continue
        nuclei = plane.depth(*cells, wobble=kind.wobble)
        if name == "neoplastic cells":
            bodies = [Ellipse(c.x, c.y, 1.5 * c.radius_x, 1.5 * c.radius_y, c.turn) for c in cells]
            eosin += rng.uniform(0.08, 0.2) * cover(plane.depth(*bodies, wobble=0.1), 4)
        masks[name] = nuclei > 0
        inside = cover(nuclei)
        haematoxylin += inside * (rng.uniform(*kind.stain) + 0.12 * chromatin)
        if name == "neoplastic cells":  # paler within, with a dark nucleolus
            haematoxylin -= 0.25 * cover(nuclei - 0.012 * side, 0.02 * side)
            nucleoli = [Ellipse(c.x, c.y, 0.012, 0.012) for c in cells]
            haematoxylin += 0.5 * cover(plane.depth(*nucleoli, wobble=0))
    stains = [stain * rng.uniform(0.88, 1.12, 3) for stain in (HAEMATOXYLIN, EOSIN)]
    absorbed = np.maximum(haematoxylin, 0)[:, :, None] * stains[0].astype(np.float32)
    absorbed += np.maximum(eosin, 0.02)[:, :, None] * stains[1].astype(np.float32)
    picture = rng.uniform(228, 252) * np.exp(-absorbed)
    picture = ndimage.gaussian_filter(picture, (blur := rng.uniform(0.3, 0.9), blur, 0))
    return picture + rng.uniform(1, 6) * rng.standard_normal((*shape, 3), dtype=np.float32), masks


def _cells(rng, kind, shape, flow, taken):
    """A group of nuclei that touch no other ones; `taken` holds places and radii of all, and is added to."""
    half = np.array(shape[::-1]) / max(shape) / 2
    group, spread = rng.uniform(-0.7, 0.7, 2) * half, rng.uniform(*kind.spread)
    wanted, cells = rng.integers(*kind.counts, endpoint=True), []
    for _ in range(12 * wanted):
        width, length = rng.uniform(*kind.radii), rng.uniform(*kind.length)
        x, y = group + rng.normal(0, spread, 2)
        spindle = length > 2
        turn = flow + rng.normal(0, 0.15) if spindle else rng.uniform(0, np.pi)
        # a spindle is three discs in a row
        discs = [(x + k * np.cos(turn), y + k * np.sin(turn)) for k in width * (length - 1) * np.array((-0.8, 0, 0.8))]
        room = 1.25 * width if spindle else 1.2 * width * length
        free = all(np.hypot(u - a, v - b) > room + r for a, b, r in taken for u, v in discs)
        if free and abs(x) < half[0] and abs(y) < half[1]:
            taken += [(u, v, room) for u, v in (discs if spindle else [(x, y)])]
            cells.append(Ellipse(x, y, width * length, width, turn))
        if len(cells) == wanted:
            break
    return cells
