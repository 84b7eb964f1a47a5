"""Synthetic CT torsos and MR heads with known labels: ellipsoids and tubes on a warped grid. No real anatomy."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

CT_STRUCTURES = (
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "gallbladder",
    "stomach",
    "aorta",
    "spine",
    "left lung",
    "right lung",
    "heart",
    "bladder",
)
MR_STRUCTURES = ("brain", "ventricles", "tumour")
STRUCTURES = {name: label for label, name in enumerate(CT_STRUCTURES + MR_STRUCTURES, start=1)}
MODALITY_STRUCTURES = {"CT": CT_STRUCTURES, "MR": MR_STRUCTURES}

# share of patients whose organ was taken out (or never seen)
REMOVED = {
    "spleen": 0.12,
    "left kidney": 0.12,
    "right kidney": 0.12,
    "gallbladder": 0.25,
    "stomach": 0.12,
    "bladder": 0.15,
    "left lung": 0.06,
    "right lung": 0.06,
    "tumour": 0.3,
}

# name: probability, lowest and highest height seen (0 = pelvic floor, 1 = top of the lungs)
FIELDS_OF_VIEW = {
    "chest": (0.17, 0.64, 1.0),
    "upper abdomen": (0.30, 0.36, 0.78),
    "abdomen and pelvis": (0.20, 0.02, 0.76),
    "torso": (0.25, 0.02, 0.98),
    "pelvis": (0.08, 0.02, 0.36),
}
TORSO_MM = 600.0
HEAD_MM = 180.0

AIR, LUNG, FAT, WATER, MUSCLE, BONE = -1000.0, -840.0, -100.0, 8.0, 55.0, 420.0
# a cross-section smaller than this share of the image, or with less than this share of its area in whole cells of
# the mask grid, is taken out of picture and labels
SMALLEST_SLICE, THINNEST_SLICE = 0.0015, 0.25


@dataclass(frozen=True)
class Phantom:
    """One volume [x,y,z] stored LAS: HU in int16 for CT, arbitrary units in float32 for MR; labels are uint8."""

    intensities: np.ndarray
    labels: np.ndarray
    structures: dict[str, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    modality: str


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and radii in (left, front, height): half body widths, half body depths, heights of the torso."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    angle: float = 0.0  # in-plane, radians, from left towards front
    bluntness: float = 4.0  # exponent along the height; large = cylinder


def make_phantom(seed: int, modality: str | None = None, shape: tuple[int, int, int] | None = None) -> Phantom:
    """Draws one phantom; the same seed gives the same volume. `shape` is (slices, rows, columns)."""
    rng = np.random.default_rng(seed)
    drawn = "MR" if rng.random() < 0.25 else "CT"
    return {"CT": _torso, "MR": _head}[modality or drawn](rng, shape)


def windowed(phantom: Phantom) -> np.ndarray:
    """Slices-first uint8 [D,H,W], by the server's rule: CT soft-tissue window, MR 0.5 to 99.5 percentiles."""
    slices = phantom.intensities.transpose(2, 1, 0).astype(np.float32)
    if phantom.modality == "CT":
        lowest, highest = -160.0, 240.0
    else:
        lowest, highest = np.percentile(slices[slices != 0], (0.5, 99.5))
    return np.clip((slices - lowest) * (255.0 / (highest - lowest)), 0, 255).astype(np.uint8)


def labels_dhw(phantom: Phantom) -> np.ndarray:
    """Slices-first labels [D,H,W]."""
    return np.ascontiguousarray(phantom.labels.transpose(2, 1, 0))


class Canvas:
    """Slices-first intensities and labels, with warped body coordinates for every voxel."""

    def __init__(self, rng, shape, heights, half_width, half_depth, warp):
        self.rng, self.shape = rng, shape
        self.half_width, self.half_depth = half_width * shape[2], half_depth * shape[1]  # pixels
        self.heights = np.linspace(*heights, shape[0], dtype=np.float32)
        self.tilt = rng.normal(0, 0.05)
        self.middle = np.array(shape[:0:-1]) * rng.uniform(0.48, 0.52, 2)  # x, y
        y, x = np.ogrid[: shape[1], : shape[2]]
        x, y = x - self.middle[0], y - self.middle[1]
        left = (np.cos(self.tilt) * x + np.sin(self.tilt) * y) / self.half_width
        front = (np.cos(self.tilt) * y - np.sin(self.tilt) * x) / self.half_depth
        self.left = left.astype(np.float32) + warp * smooth_field(rng, shape, (3, 5, 5))
        self.front = front.astype(np.float32) + warp * smooth_field(rng, shape, (3, 5, 5))
        self.intensities = np.zeros(shape, np.float32)
        self.labels = np.zeros(shape, np.uint8)

    def box(self, solid: Ellipsoid) -> tuple[slice, slice, slice]:
        """Index ranges that hold the solid, with room for warp and wobble."""
        reach = 1.3 * solid.radii[2]
        first, last = np.searchsorted(self.heights, (solid.centre[2] - reach, solid.centre[2] + reach))
        x, y = solid.centre[0] * self.half_width, solid.centre[1] * self.half_depth
        middle = self.middle + (
            x * np.cos(self.tilt) - y * np.sin(self.tilt),
            x * np.sin(self.tilt) + y * np.cos(self.tilt),
        )
        radii = np.array((solid.radii[0] * self.half_width, solid.radii[1] * self.half_depth))
        radii = np.full(2, radii.max()) if solid.angle else radii + 0.1 * radii.max()
        low = np.maximum(middle - 1.3 * radii - 0.1 * self.half_width, 0).astype(int)
        high = np.maximum(middle + 1.3 * radii + 0.1 * self.half_width, 0).astype(int)
        return slice(first, last), slice(low[1], high[1]), slice(low[0], high[0])

    def squared_radius(self, solid: Ellipsoid, box) -> np.ndarray:
        """1 on the solid's surface, less inside, on the box."""
        left, front = self.left[box] - solid.centre[0], self.front[box] - solid.centre[1]
        if solid.angle:
            aspect = self.half_depth / self.half_width
            front = front * aspect
            cos, sin = np.cos(solid.angle), np.sin(solid.angle)
            left, front = cos * left + sin * front, (cos * front - sin * left) / aspect
        along = np.abs((self.heights[box[0]] - solid.centre[2]) / solid.radii[2]) ** solid.bluntness
        return (left / solid.radii[0]) ** 2 + (front / solid.radii[1]) ** 2 + along[:, None, None].astype(np.float32)

    def paint(self, solids, intensity, name=None, gap=1.6, wobble=0.06, gap_intensity=FAT, inside_of=None):
        """Fills a union of ellipsoids, cutting it out of what was there with a thin gap; returns box and mask."""
        solids = [solids] if isinstance(solids, Ellipsoid) else solids
        boxes = [self.box(solid) for solid in solids]
        box = tuple(slice(min(b[i].start for b in boxes), max(b[i].stop for b in boxes)) for i in range(3))
        size = self.labels[box].shape
        if 0 in size:
            return box, np.zeros(size, bool)
        surface = 1.0 + (wobble * smooth_field(self.rng, size, (3, 4, 4)) if wobble else 0.0)
        radius = np.sqrt(self.squared_radius(solids[0], box))
        for solid in solids[1:]:
            radius = np.minimum(radius, np.sqrt(self.squared_radius(solid, box)))
        radius -= surface
        mask = radius < 0
        if inside_of is not None:
            mask &= self.labels[box] == STRUCTURES[inside_of]
        if gap:
            thinnest = min(min(s.radii[0] * self.half_width, s.radii[1] * self.half_depth) for s in solids)
            shell = radius < gap * self.shape[2] / 192 / thinnest
            self.intensities[box][shell] = gap_intensity
            self.labels[box][shell] = 0
        self.intensities[box][mask] = intensity
        if name is not None:
            self.labels[box][mask] = STRUCTURES[name]
        return box, mask

    def drop_slivers(self, fill):
        """Takes cross-sections too small or too thin for the mask grid out of the picture and the labels."""
        n_labels = len(STRUCTURES) + 1
        smallest = SMALLEST_SLICE * self.shape[1] * self.shape[2]
        cell = max(2, self.shape[2] // 48)  # pixels of one mask cell
        for labels, intensities in zip(self.labels, self.intensities, strict=True):
            rows, columns = (size // cell for size in labels.shape)
            cells = labels[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
            highest = cells.max((1, 3))
            whole_cells = highest[highest == cells.min((1, 3))]
            areas = np.bincount(labels.ravel(), minlength=n_labels)
            thick = np.bincount(whole_cells, minlength=n_labels) * cell**2 >= THINNEST_SLICE * areas
            for label in np.flatnonzero((areas > 0) & ~((areas >= smallest) & thick)):
                sliver = labels == label
                intensities[ndimage.binary_dilation(sliver)] = fill
                labels[sliver] = 0


def smooth_field(rng, shape, knots) -> np.ndarray:
    """Random field of about unit spread, as smooth as cubic B-splines on so many knots."""
    field = rng.standard_normal(knots, dtype=np.float32) * 1.6  # 1.6: splines flatten the knots' spread
    for n_points, n_knots in zip(shape, knots, strict=True):
        field = np.tensordot(field, _spline_weights(n_points, n_knots), axes=(0, 1))  # moves the axis to the end
    return field


@lru_cache(maxsize=4096)
def _spline_weights(n_points: int, n_knots: int) -> np.ndarray:
    at = np.linspace(0, n_knots - 1, n_points) if n_points > 1 else np.array([(n_knots - 1) / 2])
    distance = np.abs(at[:, None] - np.arange(n_knots))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - np.minimum(distance, 2)) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _torso(rng, shape) -> Phantom:
    views = list(FIELDS_OF_VIEW.values())
    _, low, high = views[rng.choice(len(views), p=[view[0] for view in views])]
    low, high = np.clip((low + rng.uniform(-0.03, 0.03), high + rng.uniform(-0.03, 0.03)), 0.0, 1.0)
    shape = shape or (int(np.clip(round((high - low) * 44), 16, 40)), 192, 192)
    half_width = rng.uniform(0.40, 0.47)
    canvas = Canvas(rng, shape, (low, high), half_width, half_width * rng.uniform(0.66, 0.80), warp=0.02)
    enhanced = rng.random() < 0.6
    kept = {name for name in CT_STRUCTURES if rng.random() >= REMOVED.get(name, 0.0)}

    _paint_body(canvas)
    _paint_lungs(canvas, kept)
    _paint_abdomen(canvas, kept, enhanced)
    _paint_pelvis(canvas, kept, enhanced)
    _paint_midline(canvas, enhanced)
    canvas.drop_slivers(fill=MUSCLE - 15)

    volume = canvas.intensities
    volume = _blur_in_plane(volume, 0.16)
    volume += (volume > -500) * rng.uniform(3, 9) * smooth_field(rng, shape, (shape[0], 24, 24))
    volume += rng.uniform(4, 16) * rng.standard_normal(shape, dtype=np.float32)
    np.clip(volume, -1024, 1800, out=volume)
    volume = np.rint(volume).astype(np.int16)

    in_plane = rng.uniform(150, 185) / canvas.half_width  # mm; half the patient's width over its pixels
    spacing = (in_plane, in_plane, (high - low) * TORSO_MM / shape[0])
    return _phantom(volume, canvas.labels, spacing, "CT")


def _jitter(rng, solid: Ellipsoid, place=0.03, size=0.10) -> Ellipsoid:
    """Moves and scales a solid; left and front independently of the height."""
    shift = rng.uniform(-place, place, 3) * (1, 1, 0.5)
    scale = rng.uniform(1 - size, 1 + size) * rng.uniform(1 - size / 2, 1 + size / 2, 3)
    centre = tuple(np.add(solid.centre, shift).tolist())
    radii = tuple(np.multiply(solid.radii, scale).tolist())
    return Ellipsoid(centre, radii, solid.angle + (rng.normal(0, 0.1) if solid.angle else 0), solid.bluntness)


def _column(left, front, radius_left, radius_front) -> Ellipsoid:
    """A tube through all heights."""
    return Ellipsoid((left, front, 0.5), (radius_left, radius_front, 2.0), bluntness=20.0)


def _paint_body(canvas):
    rng = canvas.rng
    canvas.intensities[:] = AIR
    table = np.abs(canvas.front + 1.12 - 0.12 * canvas.left**2) < 0.025
    canvas.intensities[table & (np.abs(canvas.left) < 0.8)] = rng.uniform(-300, 0)
    canvas.paint(_column(0, 0, 1.0, 1.0), FAT, gap=0, wobble=0.02)
    wall = 1 - rng.uniform(0.03, 0.12)  # thin to well padded
    canvas.paint(_column(0, 0, wall, wall - 0.02), MUSCLE, gap=0, wobble=0.01)
    inner = wall - rng.uniform(0.06, 0.09)
    canvas.paint(_column(0, 0.0, inner, inner - 0.03), FAT, gap=0, wobble=0.01)
    for side in (-1, 1):
        back = Ellipsoid((0.30 * side, -0.72, 0.5), (0.26, 0.15, 2.0), bluntness=20)
        canvas.paint(back, MUSCLE - 5, gap=0)
        psoas = Ellipsoid((0.22 * side, -0.42, 0.26), (0.10, 0.15, 0.2))
        canvas.paint(psoas, MUSCLE, gap=0)
        hip = Ellipsoid((0.58 * side, -0.25, 0.14), (0.11, 0.42, 0.16), angle=-0.5 * side)
        canvas.paint(_jitter(rng, hip), BONE * rng.uniform(0.7, 1.1), gap=0)
        for rib in range(7):  # two rows of cuts through slanted ribs, higher ones further back
            turn = np.pi * (0.12 + 0.13 * rib) + rng.normal(0, 0.03)
            at = (side * np.sin(turn) * (wall - 0.05), -np.cos(turn) * (wall - 0.07), rng.uniform(0.72, 0.80))
            canvas.paint(Ellipsoid(at, (0.055, 0.06, 0.26)), BONE * rng.uniform(0.8, 1.2), gap=0, wobble=0)
    for _ in range(rng.integers(6, 14)):  # bowel
        place = (rng.uniform(-0.6, 0.6), rng.uniform(-0.05, 0.6), rng.uniform(0.20, 0.46))
        radii = (*rng.uniform(0.08, 0.15, 2), rng.uniform(0.04, 0.08))
        canvas.paint(Ellipsoid(place, radii), rng.uniform(20, 60), gap=1.5, wobble=0.1)
        if rng.random() < 0.4:
            canvas.paint(Ellipsoid(place, tuple(np.multiply(radii, 0.6))), rng.choice((-800, 160)), gap=0)


def _paint_lungs(canvas, kept):
    rng = canvas.rng
    bottom, density = rng.uniform(0.70, 0.73), LUNG + rng.normal(0, 40)
    for side, name in ((1, "left lung"), (-1, "right lung")):
        middle = (bottom + 1.05) / 2
        lung = Ellipsoid((side * 0.44, 0.0, middle), (0.34, 0.66, 1.05 - middle), bluntness=6)
        if name in kept:
            canvas.paint(_jitter(rng, lung, place=0.02, size=0.06), density, name, gap_intensity=MUSCLE, wobble=0.03)
            for _ in range(6):  # vessels and nodules are part of the lung
                at = (side * rng.uniform(0.3, 0.6), rng.uniform(-0.4, 0.4), rng.uniform(bottom, 1))
                dot = Ellipsoid(at, (0.03, 0.04, rng.uniform(0.02, 0.06)))
                canvas.paint(dot, rng.uniform(-100, 60), name, gap=0, wobble=0, inside_of=name)
        else:
            canvas.paint(lung, rng.uniform(10, 35))


def _paint_abdomen(canvas, kept, enhanced):
    rng = canvas.rng
    liver_hu = rng.normal(108 if enhanced else 58, 8)
    right = _jitter(rng, Ellipsoid((-0.42, 0.06, 0.595), (0.40, 0.62, 0.145), bluntness=6))
    lobe = _jitter(rng, Ellipsoid((-0.02, 0.36, 0.655), (0.34, 0.28, 0.085)))
    canvas.paint([right, lobe], liver_hu, "liver", wobble=0.08)
    if rng.random() < 0.3:  # cyst or metastasis, part of the liver
        canvas.paint(Ellipsoid(right.centre, (0.09, 0.11, 0.03)), liver_hu - 45, "liver", gap=0, inside_of="liver")

    if "stomach" in kept:
        stomach = _jitter(rng, Ellipsoid((0.40, 0.34, 0.61), (0.27, 0.30, 0.105), angle=0.3))
        canvas.paint(stomach, 45, "stomach", wobble=0.08)
        lumen = Ellipsoid(stomach.centre, tuple(np.multiply(stomach.radii, 0.84)), stomach.angle)
        box, mask = canvas.paint(lumen, rng.choice((15, 25, 40, 180)), "stomach", gap=0, inside_of="stomach")
        gas = mask & (canvas.front[box] > stomach.centre[1] + rng.uniform(0.05, 0.3))
        canvas.intensities[box][gas] = -900
    if "spleen" in kept:
        spleen = _jitter(rng, Ellipsoid((0.64, -0.26, 0.61), (0.17, 0.36, 0.105), angle=0.35))
        canvas.paint(spleen, rng.normal(122 if enhanced else 50, 6), "spleen")
    for side, name, height in ((1, "left kidney", 0.48), (-1, "right kidney", 0.455)):
        if name not in kept:
            continue
        kidney = _jitter(rng, Ellipsoid((side * 0.41, -0.40, height), (0.17, 0.21, 0.105), angle=side * 0.4))
        cortex = rng.normal(190, 15) if enhanced else rng.normal(34, 3)
        canvas.paint(kidney, cortex, name)
        pelvis = Ellipsoid(
            (kidney.centre[0] - side * 0.05, kidney.centre[1], kidney.centre[2]),
            (0.07, 0.09, 0.05),
        )
        canvas.paint(pelvis, rng.uniform(60, 140) if enhanced else 10, name, gap=0, inside_of=name)
    if "gallbladder" in kept:
        gallbladder = _jitter(rng, Ellipsoid((-0.20, 0.50, 0.525), (0.13, 0.17, 0.06), bluntness=6))
        canvas.paint(gallbladder, rng.uniform(0, 18), "gallbladder", gap=1.2)


def _paint_pelvis(canvas, kept, enhanced):
    rng = canvas.rng
    if "bladder" in kept:
        bladder = _jitter(rng, Ellipsoid((0.0, 0.26, 0.11), (0.27, 0.28, 0.085)), size=0.15)
        canvas.paint(bladder, 45, "bladder", gap=2)
        urine = Ellipsoid(bladder.centre, tuple(np.multiply(bladder.radii, 0.86)))
        excreted = enhanced and rng.random() < 0.25
        canvas.paint(urine, rng.uniform(150, 300) if excreted else rng.uniform(0, 14), "bladder", gap=0)
    rectum = _jitter(rng, Ellipsoid((0.0, -0.32, 0.10), (0.10, 0.12, 0.12)))
    canvas.paint(rectum, 35)


def _paint_midline(canvas, enhanced):
    rng = canvas.rng
    blood = rng.uniform(150, 230) if enhanced else rng.uniform(38, 48)
    heart = _jitter(rng, Ellipsoid((0.13, 0.28, 0.80), (0.36, 0.36, 0.095), angle=-0.4), size=0.12)
    canvas.paint(heart, rng.uniform(90, 110) if enhanced else blood, "heart")
    for left, front, size in ((0.22, 0.24, 0.16), (-0.02, 0.28, 0.14)):
        chamber = Ellipsoid((left, front, 0.80), (size, size, 0.07))
        canvas.paint(chamber, blood, "heart", gap=0, inside_of="heart")
    cava = Ellipsoid((-0.16, -0.24, 0.49), (0.085, 0.09, 0.22), bluntness=12)
    canvas.paint(_jitter(rng, cava), blood - rng.uniform(5, 60) * enhanced)
    aorta = Ellipsoid((0.12, -0.25, 0.60), (0.115, 0.14, 0.30), bluntness=20)
    canvas.paint(_jitter(rng, aorta, place=0.02, size=0.10), blood, "aorta")
    _paint_spine(canvas)


def _paint_spine(canvas):
    rng = canvas.rng
    body = _jitter(rng, _column(0, -0.53, 0.18, 0.20), place=0.015, size=0.08)
    arch = Ellipsoid((body.centre[0], body.centre[1] - 0.26, 0.5), (0.15, 0.12, 2), bluntness=20)
    spongy = rng.uniform(150, 260)
    box, mask = canvas.paint([body, arch], spongy + 150, "spine")
    inner = Ellipsoid(body.centre, tuple(np.multiply(body.radii, 0.84)), bluntness=20)
    box, mask = canvas.paint(inner, spongy, "spine", gap=0)
    pitch, start = rng.uniform(0.045, 0.055), rng.random()
    disc = (canvas.heights[box[0]] / pitch + start) % 1 < 0.2
    canvas.intensities[box][mask & disc[:, None, None]] = rng.uniform(80, 110)
    canal = Ellipsoid((body.centre[0], body.centre[1] - 0.22, 0.5), (0.075, 0.07, 2), bluntness=20)
    canvas.paint(canal, rng.uniform(20, 40), "spine", gap=0, wobble=0)


def _head(rng, shape) -> Phantom:
    low, high = rng.uniform(0.12, 0.38), rng.uniform(0.88, 0.99)
    shape = shape or (int(rng.integers(20, 33)), 192, 192)
    half_width = rng.uniform(0.32, 0.38)
    canvas = Canvas(rng, shape, (low, high), half_width, half_width * rng.uniform(1.12, 1.28), warp=0.015)
    stripped = rng.random() < 0.4  # skull taken off, background exactly 0
    white = rng.uniform(620, 780)
    grey, fluid = white * rng.uniform(0.70, 0.82), white * rng.uniform(0.22, 0.34)

    scalp = Ellipsoid((0, 0, 0.45), (1.0, 1.0, 0.56), bluntness=3)
    canvas.paint(scalp, white * rng.uniform(1.0, 1.4), gap=0, wobble=0.02)
    skull = Ellipsoid((0, 0, 0.45), (0.93, 0.94, 0.525), bluntness=3)
    canvas.paint(skull, white * 0.1, gap=0, wobble=0.01)
    for side in (-1, 1):  # below the brain: orbits and muscle
        canvas.paint(Ellipsoid((side * 0.4, 0.6, 0.1), (0.22, 0.2, 0.09)), white * 0.5, gap=0)
        canvas.paint(Ellipsoid((side * 0.5, -0.2, 0.1), (0.3, 0.4, 0.09)), white * 0.7, gap=0)
    brain_case = _paint_brain(canvas, white, grey, fluid)
    canvas.drop_slivers(fill=fluid)

    volume, labels = canvas.intensities, canvas.labels
    if stripped:
        volume *= brain_case
    head = volume > 0
    volume = _blur_in_plane(volume, 0.16)
    volume *= np.exp(rng.uniform(0.03, 0.12) * smooth_field(rng, shape, (2, 3, 3)))
    volume += rng.uniform(8, 28) * rng.standard_normal(shape, dtype=np.float32)
    volume = np.abs(volume)
    if stripped:
        volume *= head
    volume *= rng.uniform(0.3, 3.0)

    in_plane = rng.uniform(70, 80) / canvas.half_width
    spacing = (in_plane, in_plane, (high - low) * HEAD_MM / shape[0])
    return _phantom(volume, labels, spacing, "MR")


def _paint_brain(canvas, white, grey, fluid):
    """Brain, lesion and ventricles; returns the mask of all that lies within the skull."""
    rng = canvas.rng
    case = Ellipsoid((0, 0, 0.55), (0.86, 0.87, 0.40), bluntness=3.5)
    box, mask = canvas.paint(case, fluid, gap=0, wobble=0.015)
    brain_case = np.zeros(canvas.shape, bool)
    brain_case[box][mask] = True
    brain = Ellipsoid(case.centre, (0.81, 0.83, 0.385), bluntness=3.5)
    box, mask = canvas.paint(brain, grey, "brain", gap=0, wobble=0.02)
    folds = smooth_field(rng, mask.shape, (max(4, canvas.shape[0] // 2), 20, 20))
    core = np.sqrt(canvas.squared_radius(brain, box)) < 0.82 + 0.07 * folds
    canvas.intensities[box][mask & core] = white

    if rng.random() >= REMOVED["tumour"]:
        side, turn = rng.choice((-1, 1)), rng.uniform(0, np.pi)
        at = (side * (0.20 + 0.26 * np.sin(turn)), 0.5 * np.cos(turn), rng.uniform(0.45, 0.75))
        radius = rng.uniform(0.17, 0.28)
        tumour = Ellipsoid(at, (radius, radius * rng.uniform(0.7, 1.0), radius * rng.uniform(0.4, 0.6)))
        edema = Ellipsoid(at, tuple(np.multiply(tumour.radii, 1.5)))
        canvas.paint(edema, grey * 0.85, gap=0, wobble=0.15, inside_of="brain")
    else:
        tumour = None
    wide, long = rng.uniform(0.10, 0.16), rng.uniform(0.34, 0.44)
    horns = [
        Ellipsoid((side * (wide + 0.05), 0.02, 0.60), (wide, long, 0.13), angle=-0.2 * side, bluntness=5)
        for side in (-1, 1)
    ]
    canvas.paint(horns, fluid, "ventricles", gap=0)
    if tumour:
        canvas.paint(tumour, white * rng.uniform(1.5, 1.9), "tumour", gap=0, wobble=0.1)
        if rng.random() < 0.7:
            necrosis = Ellipsoid(tumour.centre, tuple(np.multiply(tumour.radii, rng.uniform(0.4, 0.65))))
            canvas.paint(necrosis, grey * 0.7, "tumour", gap=0, wobble=0.1)
    return brain_case


def _blur_in_plane(volume, neighbour):
    """A three-point blur along rows and columns: the partial volume at the edges."""
    for axis in (1, 2):
        weights = np.array((neighbour, 1 - 2 * neighbour, neighbour), np.float32)
        volume = ndimage.correlate1d(volume, weights, axis=axis, mode="nearest")
    return volume


def _phantom(slices, labels, spacing, modality) -> Phantom:
    intensities, labels = slices.transpose(2, 1, 0), labels.transpose(2, 1, 0)
    spacing = tuple(round(float(step), 4) for step in spacing)
    affine = np.diag((-spacing[0], spacing[1], spacing[2], 1.0))  # LAS: the first axis grows to the left
    affine[:3, 3] = -affine[:3, :3] @ (np.array(labels.shape) - 1) / 2
    present = np.unique(labels)
    structures = {name: label for name, label in STRUCTURES.items() if label in present}
    return Phantom(intensities, labels, structures, spacing, affine, modality)
