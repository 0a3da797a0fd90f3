"""Rendering of a B-scan: image and lesion mask of a section.

All terms are added in gray levels, which are logarithms of intensity on a Spectralis: absorption subtracts gray levels,
scattering adds them. `contrast` scales the difference between a lesion and its surroundings.
"""

import numpy as np
from numpy.typing import NDArray

from octdino.phantom import anatomy as an
from octdino.phantom import section as se
from octdino.phantom import speckle as sp
from octdino.phantom.acquisition import Acquisition, acquisition_of, apply_acquisition, vessel_lumens, vessel_shadows
from octdino.phantom.anatomy import HEIGHT, WIDTH, FloatArray
from octdino.phantom.lesions import Shapes
from octdino.phantom.random_streams import stream
from octdino.phantom.section import ExaminedEye, Section

Mask = NDArray[np.uint16]

# Gray at the top and the bottom of each layer, and of the space below the retina; from real Spectralis scans
_TONES = np.array(
    [
        *[[208, 190], [146, 138], [146, 150], [110, 106], [138, 130]],  # RNFL, GCL, IPL, INL, OPL
        *[[80, 72], [102, 102], [88, 96], [228, 218], [168, 160]],  # ONL, ELM, IS, EZ, OS
        *[[16, 16], [250, 236], [26, 26]],  # SUB (fluid), RPE, PED
    ],
    np.float32,
)
_STEPS = 16
_TONE = np.stack([np.interp(np.arange(_STEPS), [0, _STEPS - 1], tone) for tone in _TONES]).astype(np.float32).ravel()
_VITREOUS = -60.0  # empty: only the noise floor shows
_FACE_LINE = 92.0


def render_scan(
    seed: int, case: ExaminedEye, section: Section, difficulty: float, frame: int
) -> tuple[NDArray[np.uint8], Mask]:
    """Render image uint8 [496, 504] and mask uint16 [496, 504], whose bit i is set where BIOMARKERS[i] is visible.

    A lesion below the size that makes its label positive is rendered but not in the mask: before the graders' errors
    a label is positive exactly when its bit is somewhere in the mask. `frame` selects the noise: a second pass over the
    same slice has the same anatomy.
    """
    contrast = 1.25 - 0.6 * difficulty
    exposure = acquisition_of(seed, case, difficulty)
    scene = np.full((HEIGHT, WIDTH), _VITREOUS, np.float32)
    mask = np.zeros((HEIGHT, WIDTH), np.uint16)
    _render_retina(seed, case, section, scene, contrast)
    _render_inside_retina(seed, case, section, scene, mask, contrast)
    _render_vitreous(seed, case, section, scene, mask, contrast, exposure)
    _mask_regions(section, mask)
    image = apply_acquisition(seed, case, frame, scene, exposure)
    return (image + 0.5).astype(np.uint8), mask


def _render_retina(seed: int, case: ExaminedEye, s: Section, scene: FloatArray, contrast: float) -> None:
    """Render layers, choroid and vessel shadows in place."""
    fields, eye = sp.noise_fields(seed), stream(seed, "texture", case.eye.key)
    surfaces = s.surfaces
    top = max(0, int(surfaces[0].min()))
    bottom = min(HEIGHT, int(surfaces[-1].max()) + 2)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    layer = np.zeros((bottom - top, WIDTH), np.uint8)
    for surface in surfaces[1:-1]:
        layer += (rows >= surface).view(np.uint8)
    place = layer * np.int32(WIDTH) + np.arange(WIDTH, dtype=np.int32)
    thick = np.maximum(np.diff(surfaces, axis=0), 0.5)
    depth = (rows - surfaces[:-1].ravel()[place]) * (_STEPS / thick).astype(np.float32).ravel()[place]
    index = np.clip(depth, 0, _STEPS - 1).astype(np.int32)
    index += layer * np.int32(_STEPS)
    tones = _TONE[index]
    _layer_changes(s, tones, layer, contrast)
    tones += 3.2 * sp.random_window(eye, fields.mottle, bottom - top, WIDTH)
    lost = vessel_shadows(case, s)
    tones -= lost * (layer >= an.IPL)
    # Blending over a row each way is the axial point spread; done on the small window only
    tones[1:-1] = 0.25 * (tones[:-2] + tones[2:]) + 0.5 * tones[1:-1]
    inside = (rows >= surfaces[0]) & (rows < surfaces[-1])
    np.copyto(scene[top:bottom], tones, where=inside)
    _render_choroid(seed, case, s, scene, lost)


def _layer_changes(s: Section, tones: FloatArray, layer: NDArray[np.uint8], contrast: float) -> None:
    """Apply lesions of whole layers in place: EZ, RPE, DRIL, sponge-like swelling, fluid below the retina."""
    if s.ez_gap.any():
        tones[:, s.ez_gap] -= np.where(np.isin(layer[:, s.ez_gap], (an.EZ, an.OS)), 128 * contrast, 0)
    if s.rpe_gap.any():
        tones[:, s.rpe_gap] -= np.where(layer[:, s.rpe_gap] == an.RPE, 110 * contrast, 0)
    if s.dril.any():
        inner = (layer >= an.GCL) & (layer <= an.OPL) & s.dril
        tones[inner] = tones[inner] * 0.25 + 118 * 0.75
    swollen = s.swelling > 25
    if swollen.any():  # fluid between the cells dims and blurs what is swollen
        part = (layer >= an.INL) & (layer <= an.ONL)
        tones -= part * np.minimum(s.swelling * 0.05, 14)
    if s.shrm.any():
        tones[(layer == an.SUB) & (s.shrm > s.srf)] = 18 + 142 * min(contrast, 1.15)
    if s.srf.any():  # what lies over fluid is bright at its rim, what lies under it shines
        tones += (layer == an.RPE) * np.where(s.srf > 20, 8, 0)


def _render_choroid(seed: int, case: ExaminedEye, s: Section, scene: FloatArray, lost: FloatArray) -> None:
    """Render the choroid flat, then shift each column to Bruch's membrane."""
    fields, rng = sp.noise_fields(seed), stream(seed, "choroid", case.eye.key)
    thick = case.anatomy.choroid / an.AXIAL
    deep = min(int(2.2 * thick), 240)
    depth = np.arange(deep)
    at = np.array([0, 3, 12, 26, 40, 40 + 0.45 * thick, deep])
    profile = np.interp(depth, at, [178, 136, 106, 84, 66, 34, -90]).astype(np.float32)[:, None]
    fade = np.interp(depth, [0, 4, 14, thick, 1.6 * thick], [0, 3, 15, 13, 4]).astype(np.float32)[:, None]
    # The eye's own vessel pattern moves on slowly from slice to slice, and returns at the next visit
    row, column = int(rng.integers(0, sp.SIDE - 240)), int(rng.integers(0, sp.SIDE - WIDTH - 150)) + 3 * s.number
    flat = np.full((deep + 1, WIDTH), _VITREOUS, np.float32)
    flat[:-1] = profile + fade * fields.clouds[row : row + deep, column : column + WIDTH]
    flat[:-1] -= 0.7 * lost
    flat[:-1] += 35 * s.rpe_gap  # light that no RPE holds back
    bottom = s.surfaces[-1]
    top, end = max(0, int(bottom.min())), min(HEIGHT, int(bottom.max()) + deep)
    below = np.arange(top, end, dtype=np.float32)[:, None] - bottom
    index = np.clip(below, 0, deep).astype(np.int32) * np.int32(WIDTH) + np.arange(WIDTH, dtype=np.int32)
    np.copyto(scene[top:end], flat.ravel()[index], where=below >= 0)


def _render_inside_retina(
    seed: int, case: ExaminedEye, s: Section, scene: FloatArray, mask: Mask, contrast: float
) -> None:
    """Render cysts, haemorrhages, foci and vessels within the layers, in place."""
    rng = stream(seed, "inside", case.eye.key, case.visit.index, s.number)
    for column, width in vessel_lumens(case, s):
        c = int(np.clip(column, 0, WIDTH - 1))
        row = float(s.surfaces[an.GCL, c] * 0.6 + s.surfaces[an.IPL, c] * 0.4)
        _ellipse(scene, row, column, 0.55 * width * 2.2, 0.5 * width, add=26)
    retina = (s.surfaces[-1] - s.surfaces[0]) * an.AXIAL
    bit = se.IRF if s.labels[se.IRF] else None
    for x, rx, z, size in _rows_of(s.cysts):
        row, column = _row_and_column(s, x, z)
        c = int(column)
        half = min(size, 0.36 * float(retina[c])) / an.AXIAL
        # A cyst has retina around it
        ilm, ez = float(s.surfaces[0, c]), float(s.surfaces[an.EZ, c])
        row = min(max(row, ilm + half + 5), max(ez - half - 2, ilm + 6))
        fluid = 96 - 78 * contrast
        _ellipse(scene, row, column, half, rx / an.LATERAL, towards=fluid, mask=mask, bit=bit)
    bit = se.HAEMORRHAGE if s.labels[se.HAEMORRHAGE] else None
    for x, rx, z, size in _rows_of(s.haemorrhage):
        row, column = _row_and_column(s, x, z)
        _ellipse(scene, row, column, size / an.AXIAL, rx / an.LATERAL, towards=120 + 75 * contrast, mask=mask, bit=bit)
        _shadow(scene, row, column, rx / an.LATERAL, float(s.surfaces[-1, int(column)]), 48 * contrast)
    bit = se.HRF if s.labels[se.HRF] else None
    for x, rx, z, size in _rows_of(s.foci):
        row, column = _row_and_column(s, x, z)
        level = rng.uniform(150, 190) + 45 * contrast
        _ellipse(scene, row, column, size / an.AXIAL, rx / an.LATERAL, towards=level, mask=mask, bit=bit)


def _shadow(scene: FloatArray, row: float, column: float, half_width: float, bm: float, depth: float) -> None:
    """Render the shadow below an absorbing lesion, in place; it fades into the choroid."""
    c0, c1 = max(0, int(column - 2 * half_width)), min(WIDTH, int(column + 2 * half_width) + 1)
    r0, r1 = max(0, int(row)), min(HEIGHT, int(bm) + 70)
    across = np.exp(-(((np.arange(c0, c1) - column) / (0.8 * half_width)) ** 2))
    along = np.interp(np.arange(r0, r1), [row, row + 8, bm, bm + 70], [0, 1, 1, 0.2])
    scene[r0:r1, c0:c1] -= (depth * along[:, None] * across).astype(np.float32)


def _rows_of(shapes: Shapes) -> list[tuple[float, float, float, float]]:
    return list(zip(shapes.x, shapes.rx, shapes.z, shapes.size, strict=True))


def _row_and_column(s: Section, x: float, z: float) -> tuple[float, float]:
    """Return row and column of a position in mm and layer coordinates."""
    column = min(max((x - float(an.X[0])) / an.LATERAL, 0.0), WIDTH - 1.0)
    c, layer = int(column), int(z)
    return float(s.surfaces[layer, c] + (z - layer) * (s.surfaces[layer + 1, c] - s.surfaces[layer, c])), column


def _ellipse(
    scene: FloatArray,
    row: float,
    column: float,
    half_height: float,
    half_width: float,
    towards: float | None = None,
    add: float = 0.0,
    mask: Mask | None = None,
    bit: int | None = None,
) -> None:
    """Draw a soft-edged ellipse in place: shift the gray by `add`, or pull it to the level `towards`."""
    half_height, half_width = max(half_height, 1.0), max(half_width, 1.0)
    r0, r1 = max(0, int(row - half_height - 1)), min(HEIGHT, int(row + half_height + 3))
    c0, c1 = max(0, int(column - half_width - 1)), min(WIDTH, int(column + half_width + 3))
    if r0 >= r1 or c0 >= c1:
        return
    y = ((np.arange(r0, r1, dtype=np.float32) - row) / half_height)[:, None]
    x = (np.arange(c0, c1, dtype=np.float32) - column) / half_width
    distance = y * y + x * x
    # The rim is about one and a half pixels wide whatever the size
    weight = np.clip((1.12 - distance) * (0.35 * min(half_height, half_width) + 0.9), 0, 1)
    part = scene[r0:r1, c0:c1]
    part += weight * (add if towards is None else towards - part)
    if mask is not None and bit is not None:
        mask[r0:r1, c0:c1] |= (distance <= max(1.0, float(distance.min()))).astype(np.uint16) << np.uint16(bit)


def _render_vitreous(
    seed: int, case: ExaminedEye, s: Section, scene: FloatArray, mask: Mask, contrast: float, exposure: Acquisition
) -> None:
    """Render vitreous gel and face, preretinal tissue and debris, in place."""
    ilm = s.surfaces[0]
    reach = min(HEIGHT, int(ilm.max()) + 1)
    view, marks = scene[:reach], mask[:reach]
    above = (ilm - np.arange(reach, dtype=np.float32)[:, None]) * np.float32(an.AXIAL)  # µm over the ILM
    if s.face is not None:
        _render_gel_and_face(case, s, s.face, view, marks, above, contrast, exposure.haze)
    if s.tissue.any():
        band = (above > -6) & (above < s.tissue)
        view[band] = 112 + 72 * contrast
        if s.labels[se.PRERETINAL]:
            marks |= band.astype(np.uint16) << np.uint16(se.PRERETINAL)
    rng = stream(seed, "debris look", case.eye.key, case.visit.index)
    bit = se.DEBRIS if s.labels[se.DEBRIS] else None
    for x, rx, z, size in _rows_of(s.debris):
        column = (x - an.X[0]) / an.LATERAL
        row = float(ilm[int(column)]) - z / an.AXIAL
        level = rng.uniform(58, 92) + 30 * contrast
        _ellipse(scene, row, column, size / an.AXIAL, rx / an.LATERAL, level, mask=mask, bit=bit)


def _render_gel_and_face(
    case: ExaminedEye,
    s: Section,
    face: FloatArray,
    view: FloatArray,
    marks: Mask,
    above: FloatArray,
    contrast: float,
    haze: float,
) -> None:
    """Render the weakly scattering gel and the vitreous face, a thin line close to the ILM where it is attached."""
    attached = bool(face.max() < se.FACE)
    free = above > 0
    over = above - face
    gel = np.float32(14 + haze + 12 * contrast) - np.float32(0.085) * np.abs(over)
    np.copyto(view, np.maximum(view, gel), where=free & (over > 0))
    offset, width, level = (22.0, 5.5, _FACE_LINE - 12) if attached else (0.0, 8.0, _FACE_LINE)
    level = level * (0.55 + 0.45 * contrast) + 0.5 * haze
    breaks = np.clip(0.75 + 0.5 * np.sin(1.7 * an.X + case.anatomy.wave[2] + s.y), 0.25, 1)
    over -= np.float32(offset)
    line = (level + 28 * np.log(breaks)).astype(np.float32) - np.float32(28 / width**2) * over * over
    np.copyto(view, np.maximum(view, line), where=free)
    bit = se.FAVF if attached else se.PAVF
    if s.labels[bit]:
        marks |= ((np.abs(over) < 9) & free).astype(np.uint16) << np.uint16(bit)


def _mask_regions(s: Section, mask: Mask) -> None:
    """Set the mask bits of lesions that are regions between two surfaces, in place."""
    regions = [
        (se.ATROPHY, 0, an.ELM, s.thinned),
        (se.EZ, an.EZ, an.OS + 1, s.ez_gap),
        (se.DRIL, an.GCL, an.ONL, s.dril),
        (se.DRT, 0, an.ELM, s.swelling >= se.SWOLLEN),
        (se.SRF, an.SUB, an.RPE, s.srf >= 30),
        (se.RPE, an.RPE, an.RPE + 1, s.rpe_gap),
        (se.PED, an.PED, an.PED + 1, s.ped >= 40),
        (se.SHRM, an.SUB, an.RPE, s.shrm >= 30),
        (se.VMT, 0, an.ELM, np.abs(an.X) < 0.5),
    ]
    for label, upper, lower, columns in regions:
        if s.labels[label]:
            c = np.flatnonzero(columns)
            top, bottom = np.floor(s.surfaces[upper, c]), np.ceil(s.surfaces[lower, c])
            first, last = max(0, int(top.min())), min(HEIGHT, int(bottom.max()) + 1)
            rows = np.arange(first, last)[:, None]
            mask[first:last, c] |= ((rows >= top) & (rows <= bottom)).astype(np.uint16) << np.uint16(label)
