"""Where the lesions of one visit lie in three dimensions, and how a slice cuts them.

Everything is an ellipsoid or an elliptic cylinder with center (x, y) in mm and radii (rx, ry) in mm, so that
neighboring slices cut the same lesion and agree as they do in the real table (kappa .59 to .97).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from octdino.phantom.anatomy import INL, ONL, OPL, Anatomy
from octdino.phantom.patients import Eye, Visit
from octdino.phantom.random_streams import stream

Column = NDArray[np.float64]
Reals = NDArray[np.floating]


@dataclass(frozen=True)
class Shapes:
    """n lesions of one kind. z: layer coordinate (3.5 is the middle of the INL) or µm above the ILM; size: µm."""

    x: Column
    y: Column
    rx: Column
    ry: Column
    z: Column
    size: Column

    def cut(self, y: float, least: float = 0.05) -> "Shapes":
        """The cross-sections at height y, with rx and size shrunk as an ellipsoid's are; slivers are left out."""
        left = 1 - ((y - self.y) / self.ry) ** 2
        keep = left > least
        shrink = np.sqrt(left[keep])
        return Shapes(
            self.x[keep], self.y[keep], self.rx[keep] * shrink, self.ry[keep], self.z[keep], self.size[keep] * shrink
        )

    def only(self, keep: NDArray[np.bool_]) -> "Shapes":
        return Shapes(self.x[keep], self.y[keep], self.rx[keep], self.ry[keep], self.z[keep], self.size[keep])

    def __len__(self) -> int:
        return len(self.x)


NONE = Shapes(*[np.zeros(0)] * 6)


@dataclass(frozen=True)
class Lesions:
    """All lesions of one visit.

    The vitreous is not a shape: `detachment` + `slope`·y is its stage along the slices (below 0 attached, up to `GONE`
    a partly detached face is in view, above it has left the scan).
    """

    swelling: Shapes  # Gaussian bumps; size: µm at the top
    cysts: Shapes
    foci: Shapes
    debris: Shapes
    haemorrhage: Shapes
    ez: Shapes
    atrophy: Shapes  # size: share of the thickness that is lost
    preretinal: Shapes  # size: µm thick
    srf: Shapes
    shrm: Shapes
    ped: Shapes
    rpe: Shapes
    dril: Shapes
    detachment: float
    slope: float
    traction: float  # µm by which the vitreous pulls the fovea up


GONE = 1.02  # with slope .8 and a standard normal stage: FAVF 55.5 %, PAVF 31.7 % of slices, a third of volumes mixed
SLOPE = 0.80


def lesions_of(seed: int, eye: Eye, visit: Visit, anatomy: Anatomy) -> Lesions:
    """The lesions of a visit. Places belong to the eye (they return at the next visit), sizes to the visit."""
    swelling = _swelling(seed, eye, visit, anatomy)
    vitreous = stream(seed, "vitreous", eye.key)
    trial = 0.12 if eye.trial == "PRIME" else -0.26
    traction = 0.0
    stage = visit.scores["vitreous"] - 0.06 + trial + 0.14 * (visit.time - 0.5)
    if "vmt" in eye.carries and visit.time < 0.6:  # traction needs a face that is detached around the fovea
        traction, stage = vitreous.uniform(90, 160), 0.45
    return Lesions(
        swelling=swelling,
        cysts=_cysts(seed, eye, visit, anatomy, swelling),
        foci=_foci(seed, eye, visit, anatomy, swelling),
        debris=_debris(seed, eye, visit),
        detachment=stage,
        slope=float(vitreous.choice([-1, 1])) * SLOPE / 5.76,
        traction=traction,
        **_carried(seed, eye, visit, anatomy),
    )


def foveal_swelling(eye: Eye, visit: Visit) -> float:
    """Swelling at the fovea in µm. TREX eyes start thick (CST 469 ± 118) and end near normal; PRIME eyes are thin."""
    score = visit.scores["oedema"]
    if eye.trial == "PRIME":
        return max(0.0, 8 * score - 4)
    start = max(0.0, 204 + 98 * score)
    end = max(0.0, 12 + 55 * score + 24 * max(score, 0.0) ** 2)
    left = np.exp(-3.0 * visit.time) if visit.time < 1 else 0.0
    return float(end + (start - end) * left)


def _swelling(seed: int, eye: Eye, visit: Visit, anatomy: Anatomy) -> Shapes:
    rng = stream(seed, "swelling", eye.key)
    top = foveal_swelling(eye, visit)
    center = (anatomy.fovea_x + rng.normal(0, 0.25), anatomy.fovea_y + rng.normal(0, 0.25))
    radius = rng.uniform(0.9, 1.45) * (0.9 + 0.2 * min(top / 250, 1.6))
    rows = [(*center, radius * rng.uniform(0.9, 1.3), radius, 0.0, top)]
    # Patches beside the fovea: they make slices oedematous where CST stays normal
    early = 1 - 0.75 * visit.time
    for number in range(3):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(1.4, 2.4)
        threshold = rng.normal(0.55 if eye.trial == "TREX" else 1.15, 0.5) + 0.25 * number
        excess = visit.scores["oedema"] + 0.9 * early - threshold
        size = 0.0 if excess <= 0 else min(170.0, 70 + 60 * excess)
        spread = rng.uniform(0.35, 0.65)
        x, y = anatomy.fovea_x + far * np.cos(angle), anatomy.fovea_y + far * np.sin(angle)
        rows.append((x, y, spread * rng.uniform(1, 1.5), spread, 0.0, size))
    return Shapes(*np.array(rows).T)


def swelling_at(swelling: Shapes, x: Reals, y: float | Reals) -> Reals:
    """Added thickness in µm at the places (x, y) in mm."""
    total: Reals = np.zeros(np.shape(x), np.float32)
    for sx, sy, rx, ry, top in zip(swelling.x, swelling.y, swelling.rx, swelling.ry, swelling.size, strict=True):
        if top > 2:
            total = total + top * np.exp(-0.5 * (((x - sx) / rx) ** 2 + ((y - sy) / ry) ** 2))
    return total


def _cysts(seed: int, eye: Eye, visit: Visit, anatomy: Anatomy, swelling: Shapes) -> Shapes:
    """Clusters of cysts: some of their own, most where the retina is swollen, larger the more it is."""
    early = 1 - visit.time
    trial = 0.0 if eye.trial == "TREX" else -0.5
    own = np.exp(1.2 + trial + 0.3 * early + 0.95 * visit.scores["cysts"] + 0.25 * visit.scores["oedema"])
    sites = [(anatomy.fovea_x, anatomy.fovea_y, 1.1, own)]
    sites += [
        (x, y, 0.85 * r, top / 13 if top > 25 else 0.0)
        for x, y, r, top in zip(swelling.x, swelling.y, swelling.ry, swelling.size, strict=True)
    ]
    parts = []
    for number, (x, y, spread, rate) in enumerate(sites):
        # A pool of places per eye: a visit shows the first of them, so that cysts come back where they were
        pool = stream(seed, "cysts", eye.key, number)
        places = np.array([x, y]) + pool.normal(0, spread, (60, 2))
        members = pool.integers(2, 7, 60)
        shown = min(60, int(stream(seed, "cyst count", eye.key, visit.index, number).poisson(rate)))
        parent = np.repeat(np.arange(60), members)
        inside = places[parent] + pool.normal(0, 1, (len(parent), 2)) * (0.26, 0.16)
        look = pool.random((len(parent), 4))
        keep = parent < shown
        parts.append(np.column_stack([inside[keep], look[keep]]))
    rows = np.concatenate(parts)
    cx, cy = rows[:, 0], rows[:, 1]
    grow = np.exp(0.42 * ndtri(np.clip(rows[:, 2], 1e-3, 1 - 1e-3)))
    layer = np.where(rows[:, 3] < 0.5, INL + 0.5, np.where(rows[:, 3] < 0.65, OPL + 0.6, ONL + 0.38))
    local = np.asarray(swelling_at(swelling, cx, cy), float)
    size = np.clip((26 + 0.22 * local) * grow, 15, 150)
    rx = np.clip(0.066 * grow * (0.8 + rows[:, 4]) * (1 + 0.0035 * local), 0.03, 0.27)
    return Shapes(cx, cy, rx, np.clip(rx * 1.2, 0.09, 0.32), layer + 0.3 * (rows[:, 5] - 0.5), size)


def _foci(seed: int, eye: Eye, visit: Visit, anatomy: Anatomy, swelling: Shapes) -> Shapes:
    rng = stream(seed, "foci", eye.key, visit.index)
    early = 1 - visit.time
    trial = 0.16 if eye.trial == "TREX" else -0.06
    per_slice = np.exp(1.0 + trial + 0.18 * early + 0.75 * visit.scores["foci"])
    count = int(rng.poisson(min(per_slice, 25) * 49 / 2.0))
    x = anatomy.fovea_x + rng.normal(0, 1.3, count)
    y = np.where(rng.random(count) < 0.45, rng.normal(0, 1.2, count), rng.uniform(-2.95, 2.95, count))
    for sx, sy, r, top in zip(swelling.x, swelling.y, swelling.ry, swelling.size, strict=True):
        extra = int(rng.poisson(min(top * 0.6, 160)))
        x = np.concatenate([x, rng.normal(sx, r, extra)])
        y = np.concatenate([y, rng.normal(sy, 0.9 * r, extra)])
    total = len(x)
    return Shapes(
        x,
        y,
        rng.uniform(0.018, 0.032, total),
        rng.uniform(0.09, 0.16, total),
        rng.uniform(INL + 0.1, ONL + 0.75, total),
        rng.uniform(8, 18, total),
    )


def _debris(seed: int, eye: Eye, visit: Visit) -> Shapes:
    rng = stream(seed, "debris", eye.key, visit.index)
    trial = 0.42 if eye.trial == "PRIME" else -0.24
    rate = np.exp(1.5 + trial + 0.30 * (0.5 - visit.time) + 1.15 * visit.scores["debris"])
    clumps = int(rng.poisson(min(rate, 60)))
    parent = np.repeat(np.arange(clumps), rng.integers(2, 8, clumps))
    total = len(parent)
    x, y, z = rng.uniform(-2.6, 2.6, clumps), rng.uniform(-2.9, 2.9, clumps), rng.uniform(60, 420, clumps)
    return Shapes(
        x[parent] + rng.normal(0, 0.16, total),
        y[parent] + rng.normal(0, 0.12, total),
        rng.uniform(0.026, 0.07, total),
        rng.uniform(0.11, 0.28, total),
        np.clip(z[parent] + rng.normal(0, 45, total), 30, 600),
        rng.uniform(12, 30, total),
    )


Range = tuple[float, float]


def _patches(
    rng: np.random.Generator, n: int, at: Range, spread: float, rx: Range, ry: Range, size: Range, z: float = 0.0
) -> Shapes:
    """n patches scattered about the place `at`; rx, ry, size: lowest and highest value; z: a layer coordinate."""
    return Shapes(
        at[0] + rng.normal(0, spread, n),
        at[1] + rng.normal(0, spread, n),
        rng.uniform(*rx, n),
        rng.uniform(*ry, n),
        np.full(n, z),
        rng.uniform(*size, n),
    )


def _carried(seed: int, eye: Eye, visit: Visit, anatomy: Anatomy) -> dict[str, Shapes]:
    """Lesions that only carriers have. Presence at a visit and number follow the real first/last prevalences."""
    result = {}
    fovea = (anatomy.fovea_x, anatomy.fovea_y)
    for kind in ("haemorrhage", "ez", "atrophy", "preretinal", "srf", "shrm", "ped", "rpe", "dril"):
        place = stream(seed, kind, eye.key)
        u = stream(seed, kind, "present", eye.key, visit.index).random()
        score = 0.8 * eye.sizes[kind] + 0.6 * visit.scores["small"]
        share = float(np.clip(0.5 + score / 4, 0.02, 0.98))  # roughly uniform: small to large
        shapes = NONE
        if kind in eye.carries:
            shapes = _grown(kind, place, fovea, share, u, visit.time)
        result[kind] = shapes
    return result


def _grown(
    kind: str, rng: np.random.Generator, fovea: tuple[float, float], share: float, u: float, time: float
) -> Shapes:
    quantiles = np.array([0, 0.25, 0.5, 0.75, 1])
    if kind == "haemorrhage" and u < 0.80 - 0.52 * time:
        n = round(float(np.interp(share, quantiles, [1, 1.6, 2.8, 4.8, 9]) * (1.0 - 0.35 * time)))
        return _patches(rng, max(n, 1), fovea, 1.25, (0.06, 0.15), ry=(0.16, 0.32), size=(18, 44), z=INL + 0.1)
    if kind == "ez" and u < 0.35 + 0.55 * time:
        n = round(float(np.interp(share, quantiles, [1, 2, 4.5, 10, 22]) * (0.5 + 0.95 * time)))
        return _patches(rng, max(n, 1), fovea, 0.9, (0.09, 0.36), ry=(0.08, 0.20), size=(1, 1))
    if kind == "atrophy":
        ry = float(np.interp(share, quantiles, [0.05, 0.12, 0.35, 0.9, 1.5])) * (0.42 + 0.9 * time)
        return _patches(rng, 1, fovea, 0.8, (0.5, 1.3), ry=(ry, ry * 1.05), size=(0.4, 0.6))
    if kind == "preretinal" and u < 0.8:
        ry = float(np.interp(share, quantiles, [0.08, 0.16, 0.45, 1.7, 3.6]))
        rx = float(np.clip(ry * 0.9, 0.3, 1.9))
        return _patches(rng, 1, fovea, 0.6, (rx, rx * 1.3), ry=(ry, ry * 1.05), size=(22, 52))
    if kind == "srf" and u < 0.95 - 0.65 * time:
        ry = float(np.interp(share, quantiles, [0.2, 0.3, 0.42, 0.62, 1.0])) * (1 - 0.35 * time)
        return _patches(rng, 1, fovea, 0.12, (ry, ry * 1.4), ry=(ry, ry * 1.05), size=(60, 60 + 170 * share))
    if kind == "shrm" and u < 0.65:
        ry = float(np.interp(share, quantiles, [0.08, 0.1, 0.18, 0.35, 0.8]))
        return _patches(rng, 1, fovea, 0.5, (0.15, 0.5), ry=(ry, ry * 1.1), size=(45, 110))
    if kind == "ped":
        return _patches(rng, 1, fovea, 0.7, (0.25, 0.5), ry=(0.25, 0.35), size=(110, 260))
    if kind == "rpe" and u < 0.6:
        return _patches(rng, 1, fovea, 0.8, (0.12, 0.3), ry=(0.07, 0.14), size=(1, 1))
    if kind == "dril" and u < 0.7:
        ry = float(np.interp(share, quantiles, [0.15, 0.25, 0.4, 0.5, 0.7]))
        return _patches(rng, 1, fovea, 0.1, (0.6, 1.1), ry=(ry, ry * 1.1), size=(1, 1))
    return NONE
