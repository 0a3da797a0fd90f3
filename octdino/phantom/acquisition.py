"""Acquisition effects of the OCT camera: noise floor, speckle, gain, roll-off, vessel shadows, registration fill."""

from dataclasses import dataclass

import numpy as np

from octdino.phantom import speckle as sp
from octdino.phantom.anatomy import HEIGHT, LATERAL, WIDTH, FloatArray, X
from octdino.phantom.random_streams import stream
from octdino.phantom.section import ExaminedEye, Section


@dataclass(frozen=True)
class Acquisition:
    """Acquisition parameters of one visit; in gray levels of 255 unless stated otherwise."""

    gain: float
    floor: float  # level of the noise floor
    grain: int  # which speckle field
    strength: float  # of the speckle, 1 = five looks
    rolloff: float  # gray levels lost per row
    focus: float  # row of best signal
    fill: tuple[float, float] | None  # registration fill at the top: row at the middle, rows per mm
    margin: int  # black columns at one side, signed
    haze: float


def acquisition_of(seed: int, case: ExaminedEye, difficulty: float) -> Acquisition:
    """Sample the acquisition parameters: device by trial, gain and noise level by patient, the rest by visit."""
    eye = case.eye
    of_patient, of_visit = stream(seed, "exposure", eye.patient), stream(seed, "exposure", eye.key, case.visit.index)
    trex = eye.trial == "TREX"
    nuisance = 0.6 + 0.8 * difficulty
    gain = nuisance * (of_patient.normal(0, 7) + of_visit.normal(0, 6)) + (2 if trex else -2)
    floor = 5 + nuisance * (of_patient.normal(0, 10) + of_visit.normal(0, 6)) + (6 if trex else -4)
    if of_visit.random() < 0.05:  # a poor volume: lens opacity, blink
        gain -= 38
    grain = int(np.clip(of_patient.integers(0, 3) + (1 if trex else 0) - of_visit.integers(0, 2), 0, 2))
    fill = None
    if of_visit.random() < 0.3:
        fill = (of_visit.uniform(-35, 45), case.anatomy.tilt + of_visit.normal(0, 4))
    margin = int(of_visit.integers(2, 9)) * int(of_visit.choice([-1, 1])) if of_visit.random() < 0.3 else 0
    return Acquisition(
        gain=float(gain),
        floor=float(np.clip(floor, -25, 34)),
        grain=grain,
        strength=float((0.78 + 0.44 * difficulty) * np.clip(of_patient.normal(1, 0.12), 0.7, 1.35)),
        rolloff=of_visit.uniform(0.01, 0.05),
        focus=of_visit.uniform(120, 260),
        fill=fill,
        margin=margin,
        haze=float(nuisance * of_patient.normal(0, 7)),
    )


def vessel_shadows(case: ExaminedEye, section: Section) -> FloatArray:
    """Return the attenuation below retinal vessels in gray levels per column."""
    lost = np.zeros(WIDTH, np.float32)
    for vessel in case.anatomy.vessels:
        x = vessel.x + vessel.slope * section.y + vessel.bend * section.y**2
        if abs(x) < 3:
            lost = np.maximum(lost, vessel.depth * np.exp(-(((X - x) / (0.55 * vessel.width)) ** 2)).astype(np.float32))
    return lost


def vessel_lumens(case: ExaminedEye, section: Section) -> list[tuple[float, float]]:
    """Return column and width, in columns, of the vessels that cross the B-scan."""
    crossing = [(v.x + v.slope * section.y + v.bend * section.y**2, v.width) for v in case.anatomy.vessels]
    return [((x - X[0]) / LATERAL, width / LATERAL) for x, width in crossing if X[0] < x < X[-1]]


def apply_acquisition(
    seed: int, case: ExaminedEye, number: int, scene: FloatArray, exposure: Acquisition
) -> FloatArray:
    """Apply speckle, noise and gain to mean gray (log intensity): the displayed image [496, 504], gray levels 0 to 255.

    Speckle multiplies the intensity, the noise floor adds to it; both in linear intensity, then the log display.
    """
    rng = stream(seed, "noise", case.eye.key, case.visit.index, number)
    fields = sp.noise_fields(seed)
    columns = np.interp(X, np.linspace(-3, 3, 9), rng.normal(0, 3, 9)).astype(np.float32)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    scene += exposure.gain + columns
    scene -= np.float32(exposure.rolloff) * np.abs(rows - np.float32(exposure.focus))
    scene += np.float32(exposure.strength) * sp.random_window(rng, fields.speckle[exposure.grain])
    scene *= np.float32(1 / sp.GRAY_PER_NEPER)
    np.exp(scene, out=scene)
    level = np.float32(np.exp((exposure.floor + rng.normal(0, 1.5)) / sp.GRAY_PER_NEPER))
    scene += level * sp.random_window(rng, fields.floor[int(rng.integers(0, 2))])
    np.log(scene, out=scene)
    scene *= np.float32(sp.GRAY_PER_NEPER)
    np.clip(scene, 0, 255, out=scene)
    _fill(scene, exposure, rng)
    return scene


def _fill(image: FloatArray, exposure: Acquisition, rng: np.random.Generator) -> None:
    """Set to black, in place, where registration moved the frame out of view."""
    if exposure.fill is not None:
        level, slope = exposure.fill
        edge = level + slope * X + rng.normal(0, 2)
        top = int(max(0, edge.max() + 1))
        image[:top] *= np.arange(top)[:, None] >= edge[None, :]
    if exposure.margin > 0:
        image[:, : exposure.margin] = 0
    elif exposure.margin < 0:
        image[:, exposure.margin :] = 0
