"""The healthy eye: layer thicknesses, foveal pit, tilt, curvature, vessels. Lengths in mm across, µm along depth.

Thicknesses follow healthy Spectralis eyes (ILM to BM 218, 249, 321, 356, 370, 365, 343, 314 µm at 0 … 2.5 mm from
the fovea; central 1 mm about 278 µm, PMC5498048). An image is 496 rows of 3.87 µm and 504 columns of 11.5 µm; the
49 slices of a volume are 120 µm apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octdino.phantom.patients import SLICES_PER_VOLUME, Eye, Visit
from octdino.phantom.random_streams import stream

FloatArray = NDArray[np.float32]

HEIGHT, WIDTH = 496, 504
AXIAL, LATERAL, SPACING = 3.87, 0.0115, 0.12  # µm a row, mm a column, mm a slice
X = ((np.arange(WIDTH) - (WIDTH - 1) / 2) * LATERAL).astype(np.float32)  # mm from the image's middle

# Layers from the vitreous down. SUB is the space between photoreceptors and RPE (empty unless there is SRF or SHRM),
# PED the space below the RPE.
RNFL, GCL, IPL, INL, OPL, ONL, ELM, IS, EZ, OS, SUB, RPE, PED = range(13)
LAYERS = 13

_KNOTS = np.array([0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.2, 4.2])
_TOTAL = np.array([218, 249, 321, 356, 370, 365, 343, 314, 292, 280])
_INNER = np.array(  # RNFL … ONL, before scaling to the total
    [
        [5, 8, 13, 18, 22, 28, 32, 36, 40, 44],
        [2, 8, 34, 47, 49, 42, 32, 23, 18, 16],
        [3, 12, 32, 40, 41, 37, 33, 29, 26, 24],
        [5, 15, 34, 40, 41, 37, 34, 31, 29, 28],
        [10, 18, 26, 30, 31, 29, 27, 26, 25, 25],
        [100, 92, 84, 78, 76, 71, 66, 61, 57, 55],
    ],
    float,
)
_OUTER = np.array(  # ELM … PED
    [
        [7] * 10,
        [18, 16, 15, 14, 14, 14, 14, 14, 14, 14],
        [13] * 10,
        [24, 21, 19, 18, 18, 17, 17, 17, 17, 17],
        [0] * 10,
        [23, 22, 21, 20, 20, 20, 20, 20, 20, 20],
        [0] * 10,
    ],
    float,
)
_STEP = 0.01  # mm: the table's resolution in distance from the fovea


def _thickness_table() -> FloatArray:
    inner = _INNER * ((_TOTAL - _OUTER.sum(0)) / _INNER.sum(0))
    knots = np.concatenate([inner, _OUTER])  # [layers, knots]
    r = np.arange(0, _KNOTS[-1], _STEP)
    table = np.stack([np.interp(r, _KNOTS, row) for row in knots])
    kernel = np.hanning(27)
    padded = np.pad(table, ((0, 0), (13, 13)), mode="reflect")
    return np.stack([np.convolve(row, kernel / kernel.sum(), "valid") for row in padded]).astype(np.float32)


TABLE = _thickness_table()


@dataclass(frozen=True)
class Vessel:
    """A retinal vessel crossing the slices: its column at height y is x + slope·y + bend·y², all in mm."""

    x: float
    slope: float
    bend: float
    width: float  # mm
    depth: float  # attenuation below it in gray levels


@dataclass(frozen=True)
class Anatomy:
    """Parameters of a healthy eye, constant over its visits."""

    fovea_x: float
    fovea_y: float
    nasal: float  # +1: the optic disc lies to the right (OD), -1: to the left
    scale: float  # total thickness against the average eye
    pit: float  # how steep the pit is: distances are multiplied by it
    tilt: float  # rows per mm
    curvature: float  # rows per mm²
    wave: tuple[float, float, float]  # rows, waves per mm, phase
    middle: float  # row of the BM at the fovea
    choroid: float  # µm
    vessels: tuple[Vessel, ...]


def anatomy_of(seed: int, eye: Eye) -> Anatomy:
    """Sample the anatomy of an eye; the two eyes of a patient share thickness, pit, curvature and choroid."""
    own, shared = stream(seed, "eye", eye.key), stream(seed, "patient", eye.patient)
    vessels = [
        Vessel(
            own.uniform(-2.8, 2.8),
            own.normal(0, 0.5),
            own.normal(0, 0.12),
            float(np.clip(own.lognormal(np.log(0.07), 0.4), 0.03, 0.16)),
            own.uniform(14, 50),
        )
        for _ in range(own.integers(4, 10))
    ]
    return Anatomy(
        fovea_x=own.normal(0, 0.14),
        fovea_y=own.normal(0, 0.1),
        nasal=1.0 if eye.side == "OD" else -1.0,
        scale=float(np.clip(shared.normal(0.97, 0.055), 0.84, 1.12)),
        pit=float(np.clip(shared.normal(1.0, 0.12), 0.75, 1.3)),
        tilt=own.normal(0, 7.5),
        curvature=float(np.clip(shared.normal(1.8, 1.8), -1.5, 7)),
        wave=(abs(own.normal(0, 1.2)), own.uniform(0.15, 0.5), own.uniform(0, 2 * np.pi)),
        middle=float(np.clip(shared.normal(225, 22) + own.normal(0, 8), 165, 290)),
        choroid=float(np.clip(shared.normal(260, 60), 170, 420)),
        vessels=tuple(vessels),
    )


@dataclass(frozen=True)
class Pose:
    """Position of the eye before the camera at one visit: rows, rows per mm."""

    shift: float
    tilt: float
    jitter: FloatArray  # [49] rows: motion between slices


def pose_of(seed: int, eye: Eye, visit: Visit) -> Pose:
    """Shift, tilt and motion between slices of one visit's volume."""
    rng = stream(seed, "pose", eye.key, visit.index)
    jitter = np.cumsum(rng.normal(0, 0.8, SLICES_PER_VOLUME)) + rng.normal(0, 1.0, SLICES_PER_VOLUME)
    jitter -= np.linspace(jitter[0], jitter[-1], SLICES_PER_VOLUME)  # eye tracking keeps the volume from drifting away
    return Pose(rng.normal(0, 9), rng.normal(0, 2.5), jitter.astype(np.float32))


def distance(anatomy: Anatomy, x: FloatArray, y: float) -> FloatArray:
    """Distance from the fovea in mm."""
    return np.asarray(np.hypot(x - anatomy.fovea_x, y - anatomy.fovea_y), np.float32)


def thickness(anatomy: Anatomy, x: FloatArray, y: float) -> FloatArray:
    """Healthy layer thicknesses [13, len(x)] in µm along a slice at height y (mm)."""
    index = np.minimum((distance(anatomy, x, y) * (anatomy.pit / _STEP)).astype(np.intp), TABLE.shape[1] - 1)
    layers = TABLE[:, index] * np.float32(anatomy.scale)
    nasal = np.clip(x * np.float32(anatomy.nasal), -2.9, 2.9)
    layers[RNFL] *= 1 + np.float32(0.28) * nasal * (nasal > 0) - np.float32(0.08) * nasal * (nasal < 0)
    return layers


def bruch(anatomy: Anatomy, pose: Pose, x: FloatArray, y: float, number: int) -> FloatArray:
    """Row of Bruch's membrane [len(x)]: tilt, the eyeball's curvature, a slow wave, motion."""
    amplitude, frequency, phase = anatomy.wave
    rows = anatomy.middle + pose.shift + pose.jitter[number] + (anatomy.tilt + pose.tilt) * x
    rows -= anatomy.curvature * (x * x + y * y) + 1.5 * anatomy.curvature * 0.5
    rows += amplitude * np.sin(2 * np.pi * frequency * x + phase + y)
    return np.asarray(rows, np.float32)


def height_of(number: int) -> float:
    """Position of slice `number` (from 0) in mm from the middle of the volume."""
    return (number - (SLICES_PER_VOLUME - 1) / 2) * SPACING
