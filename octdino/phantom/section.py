"""Geometry of one B-scan: layer surfaces, lesions that it cuts, and the ground-truth labels; no pixels.

Labels follow from the geometry alone: a lesion is positive from the size at which a grader would see it, never from a
hidden severity.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octdino.data.olives_names import BIOMARKERS
from octdino.phantom import anatomy as an
from octdino.phantom.anatomy import Anatomy, FloatArray, Pose, anatomy_of, pose_of
from octdino.phantom.lesions import GONE, Lesions, Shapes, lesions_of, swelling_at
from octdino.phantom.patients import SLICES_PER_VOLUME, Eye, Visit

Columns = NDArray[np.bool_]

# In the order of BIOMARKERS, the real table's; bit i of a mask is the i-th.
ATROPHY, EZ, DRIL, HAEMORRHAGE, HRF, PAVF, FAVF, PRERETINAL, DEBRIS, VMT, DRT, IRF, SRF, RPE, PED, SHRM = range(16)

SWOLLEN = 50.0  # µm above the healthy eye: oedematous
FACE = 18.0  # µm between retina and vitreous face: detached


@dataclass(frozen=True)
class ExaminedEye:
    """Anatomy, pose and lesions of one eye at one visit: all that `cut_section` needs."""

    eye: Eye
    visit: Visit
    anatomy: Anatomy
    pose: Pose
    lesions: Lesions


def examine_eye(seed: int, eye: Eye, visit: Visit) -> ExaminedEye:
    """Sample anatomy, pose and lesions of an eye at one visit."""
    anatomy = anatomy_of(seed, eye)
    return ExaminedEye(eye, visit, anatomy, pose_of(seed, eye, visit), lesions_of(seed, eye, visit, anatomy))


@dataclass(frozen=True)
class Section:
    """A slice. Column arrays have 504 entries, surfaces are rows of the image."""

    number: int
    y: float
    surfaces: FloatArray  # [14, 504]: top of each of the 13 layers, then BM; surfaces[0] is the ILM
    swelling: FloatArray  # µm
    thinned: Columns
    ez_gap: Columns
    rpe_gap: Columns
    dril: Columns
    srf: FloatArray  # µm
    shrm: FloatArray
    ped: FloatArray
    tissue: FloatArray  # µm of preretinal tissue on the ILM
    face: FloatArray | None  # µm of the vitreous face above the ILM; None: it has left the image
    cysts: Shapes
    foci: Shapes
    debris: Shapes
    haemorrhage: Shapes
    labels: Columns  # [16] before the graders' errors


def cut_section(case: ExaminedEye, number: int) -> Section:
    """Return the geometry of slice `number` (from 0 of 49) of a visit."""
    y, x, lesions = an.height_of(number), an.X, case.lesions
    layers = an.thickness(case.anatomy, x, y)
    swelling = np.asarray(swelling_at(lesions.swelling, x, y), np.float32)
    thinned = _covered_columns(lesions.atrophy, y)
    _swell(layers, swelling)
    if thinned.any():
        loss = _dome_heights(lesions.atrophy, y, power=0.8)
        layers[an.GCL : an.ELM] *= 1 - np.minimum(loss, 0.7)
    r = an.distance(case.anatomy, x, y)
    if lesions.traction:
        layers[an.ONL] += lesions.traction * np.exp(-((r / 0.32) ** 2))
    srf, shrm, ped = (
        _dome_heights(lesions.srf, y, power=1.5),
        _dome_heights(lesions.shrm, y, power=0.9),
        _dome_heights(lesions.ped, y, power=0.8),
    )
    layers[an.SUB] = np.maximum(srf, shrm)
    layers[an.PED] = ped
    rpe_gap = _covered_columns(lesions.rpe, y)
    tissue = _dome_heights(lesions.preretinal, y, power=0.35)
    if tissue.any():  # a membrane wrinkles the retina below it
        fold = 0.5 + 0.5 * np.sin(2 * np.pi * 1.9 * x + case.anatomy.wave[2])
        layers[an.RNFL] += 14 * np.clip(tissue / 40, 0, 1) * fold
    bottom = an.bruch(case.anatomy, case.pose, x, y, number)
    surfaces = np.empty((an.LAYERS + 1, an.WIDTH), np.float32)
    surfaces[-1] = bottom
    surfaces[:-1] = bottom - np.cumsum(layers[::-1], axis=0)[::-1] / an.AXIAL
    found = Section(
        number=number,
        y=y,
        surfaces=surfaces,
        swelling=swelling,
        thinned=thinned,
        ez_gap=_covered_columns(lesions.ez, y),
        rpe_gap=rpe_gap,
        dril=_covered_columns(lesions.dril, y),
        srf=srf,
        shrm=shrm,
        ped=ped,
        tissue=tissue,
        face=_vitreous_face(case, y, x),
        cysts=_inside_image(lesions.cysts.cut(y)),
        foci=_inside_image(lesions.foci.cut(y, 0.15)),
        debris=_inside_image(lesions.debris.cut(y), surfaces[0]),
        haemorrhage=_inside_image(lesions.haemorrhage.cut(y)),
        labels=np.zeros(len(BIOMARKERS), bool),
    )
    found.labels[:] = _labels(found, case)
    return found


def _inside_image(shapes: Shapes, ilm: FloatArray | None = None) -> Shapes:
    """Return the shapes whose center is inside the image; with `ilm`, z is µm above it."""
    seen = np.abs(shapes.x) < -an.X[0] - 0.05
    if ilm is not None:
        column = np.clip((shapes.x - an.X[0]) / an.LATERAL, 0, an.WIDTH - 1).astype(np.intp)
        seen &= ilm[column] - shapes.z / an.AXIAL > 3
    return shapes if seen.all() else shapes.only(seen)


def _swell(layers: FloatArray, swelling: FloatArray) -> None:
    layers[an.INL] += 0.24 * swelling
    layers[an.OPL] += 0.24 * swelling
    layers[an.ONL] += 0.52 * swelling


def _covered_columns(shapes: Shapes, y: float) -> Columns:
    """Return the columns that a patch covers at height y, bool [504]."""
    inside = np.zeros(an.WIDTH, bool)
    if len(shapes):
        crossed = shapes.cut(y)
        for x, rx in zip(crossed.x, crossed.rx, strict=True):
            inside |= np.abs(an.X - x) < rx
    return inside


def _dome_heights(shapes: Shapes, y: float, power: float = 0.5) -> FloatArray:
    """Heights (the shapes' size) over the columns, falling to 0 at their rim; a small power makes a plateau."""
    height = np.zeros(an.WIDTH, np.float32)
    if len(shapes):
        crossed = shapes.cut(y)
        for x, rx, size in zip(crossed.x, crossed.rx, crossed.size, strict=True):
            height = np.maximum(height, size * np.maximum(1 - ((an.X - x) / rx) ** 2, 0).astype(np.float32) ** power)
    return height


def _vitreous_face(case: ExaminedEye, y: float, x: FloatArray) -> FloatArray | None:
    """Height of the vitreous face above the ILM in µm: 0 where attached, V-shaped about the fovea when detaching."""
    stage = case.lesions.detachment + case.lesions.slope * y
    if stage <= 0:
        return np.zeros(an.WIDTH, np.float32)
    if stage >= GONE:
        return None
    top = 28 + 300 * stage
    side = 1 + 0.16 * x * np.sign(case.lesions.slope)
    hold = np.clip((1.0 - stage) / 0.35, 0, 1)  # the fovea lets go last
    return np.asarray(top * side * (1 - hold * np.exp(-(((x - case.anatomy.fovea_x) / 0.9) ** 2))), np.float32)


def area(shapes: Shapes) -> float:
    """Summed cross-section in pixels."""
    return float((np.pi * shapes.rx / an.LATERAL * shapes.size / an.AXIAL).sum())


def _labels(s: Section, case: ExaminedEye) -> list[bool]:
    mm = an.LATERAL
    detached = s.face is not None and bool(s.face.max() >= FACE)
    in_view = s.face is not None and ((s.face >= FACE) & (s.surfaces[0] - s.face / an.AXIAL > 3)).sum() * mm >= 0.3
    at_fovea = abs(s.y - case.anatomy.fovea_y) < 0.22
    return [
        s.thinned.sum() * mm >= 0.4,
        s.ez_gap.sum() * mm >= 0.15,
        s.dril.sum() * mm >= 0.6,
        area(s.haemorrhage) >= 55,
        len(s.foci) >= 3,
        in_view,
        s.face is not None and not detached,
        (s.tissue >= 10).sum() * mm >= 0.3,
        area(s.debris) >= 95,
        in_view and case.lesions.traction > 0 and at_fovea,
        (s.swelling >= SWOLLEN).sum() * mm >= 0.6,
        area(s.cysts) >= 100,
        (s.srf >= 30).sum() * mm >= 0.2,
        s.rpe_gap.sum() * mm >= 0.12,
        (s.ped >= 40).sum() * mm >= 0.2,
        (s.shrm >= 30).sum() * mm >= 0.12,
    ]


@dataclass(frozen=True)
class CentralSubfield:
    """The central 1 mm circle: mean ILM to BM in µm, and whether there is an EZ gap or SRF in it."""

    cst: float
    ez_gap: bool
    srf: bool


def central_subfield(case: ExaminedEye) -> CentralSubfield:
    """Measure the central 1 mm circle on the geometry."""
    total, count, ez_gap, srf = 0.0, 0, False, False
    for number in range(SLICES_PER_VOLUME):
        y = an.height_of(number)
        if abs(y - case.anatomy.fovea_y) <= 0.5:
            inside = an.distance(case.anatomy, an.X, y) <= 0.5
            section = cut_section(case, number)
            total += float(((section.surfaces[-1] - section.surfaces[0])[inside]).sum()) * an.AXIAL
            count += int(inside.sum())
            ez_gap |= bool(section.ez_gap[inside].sum() * an.LATERAL > 0.1)
            srf |= bool((section.srf[inside] > 30).any())
    return CentralSubfield(total / count, ez_gap, srf)
