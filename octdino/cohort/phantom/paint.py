"""A section becomes a picture and a mask.

Everything is added up in grey levels, which are logarithms of intensity on a Spectralis: what absorbs takes grey
levels away, what scatters brings them. `contrast` scales what a lesion changes against its surroundings.
"""

import numpy as np
from numpy.typing import NDArray

from octdino.cohort.phantom import anatomy as an
from octdino.cohort.phantom import section as se
from octdino.cohort.phantom import speckle as sp
from octdino.cohort.phantom.anatomy import HEIGHT, WIDTH, Rows
from octdino.cohort.phantom.camera import Exposure, develop, exposure_of, lumens, shadows
from octdino.cohort.phantom.chance import stream
from octdino.cohort.phantom.lesions import Shapes
from octdino.cohort.phantom.section import Examined, Section

Mask = NDArray[np.uint16]

# Grey at the top and the bottom of each layer, and of the space below the retina; from real Spectralis scans
_TONES = np.array(
    [[196, 176], [136, 126], [134, 140], [104, 100], [128, 122], [78, 70], [98, 98], [84, 92], [214, 204], [158, 150]]
    + [[18, 18], [238, 222], [30, 30]],
    np.float32,
)
_STEPS = 16
_TONE = np.stack([np.interp(np.arange(_STEPS), [0, _STEPS - 1], tone) for tone in _TONES]).astype(np.float32).ravel()
_VITREOUS = -60.0  # empty: only the noise floor shows
_FACE_LINE = 92.0


def paint(seed: int, case: Examined, section: Section, difficulty: float, frame: int) -> tuple[NDArray[np.uint8], Mask]:
    """Picture uint8 [496, 504] and mask uint16 [496, 504]: bit i where BIOMARKERS[i] is to be seen.

    A lesion below the size that makes its label positive is painted but not in the mask: before the graders' errors
    a label is positive exactly when its bit is somewhere in the mask. `frame` names the noise: a second pass over a place has the same anatomy.
    """
    contrast = 1.25 - 0.6 * difficulty
    exposure = exposure_of(seed, case, difficulty)
    scene = np.full((HEIGHT, WIDTH), _VITREOUS, np.float32)
    mask = np.zeros((HEIGHT, WIDTH), np.uint16)
    _retina(seed, case, section, scene, contrast)
    _inside(seed, case, section, scene, mask, contrast)
    _vitreous(seed, case, section, scene, mask, contrast, exposure)
    _outline(section, mask)
    picture = develop(seed, case, frame, scene, exposure)
    return (picture + 0.5).astype(np.uint8), mask


def _retina(seed: int, case: Examined, s: Section, scene: Rows, contrast: float) -> None:
    """Layers, choroid, shadows."""
    fields, eye = sp.bank(seed), stream(seed, "texture", case.eye.key)
    surfaces = s.surfaces
    top = max(0, int(surfaces[0].min()))
    bottom = min(HEIGHT, int(surfaces[-1].max()) + 2)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    layer = np.zeros((bottom - top, WIDTH), np.int32)
    for surface in surfaces[1:-1]:
        layer += rows >= surface
    columns = np.arange(WIDTH, dtype=np.int32)
    place = layer * WIDTH + columns
    thick = np.maximum(np.diff(surfaces, axis=0), 0.5)
    depth = (rows - surfaces[:-1].ravel()[place]) * (_STEPS / thick).astype(np.float32).ravel()[place]
    index = np.clip(depth, 0, _STEPS - 1).astype(np.int32)
    index += layer * _STEPS
    tones = _TONE[index]
    _layer_changes(s, tones, layer, contrast)
    tones += 3.2 * sp.window(eye, fields.mottle, bottom - top, WIDTH)
    lost = shadows(case, s)
    tones -= lost * (layer >= an.IPL)
    # Blending over a row each way is the axial point spread; done on the small window only
    tones[1:-1] = 0.25 * (tones[:-2] + tones[2:]) + 0.5 * tones[1:-1]
    inside = (rows >= surfaces[0]) & (rows < surfaces[-1])
    np.copyto(scene[top:bottom], tones, where=inside)
    _choroid(seed, case, s, scene, lost)


def _layer_changes(s: Section, tones: Rows, layer: NDArray[np.int32], contrast: float) -> None:
    """Changes of a whole layer over some columns: EZ, RPE, DRIL, sponge-like swelling, fluid below the retina."""
    if s.ez_gap.any():
        tones[:, s.ez_gap] -= np.where(np.isin(layer[:, s.ez_gap], (an.EZ, an.OS)), 82 * contrast, 0)
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


def _choroid(seed: int, case: Examined, s: Section, scene: Rows, lost: Rows) -> None:
    fields, rng = sp.bank(seed), stream(seed, "choroid", case.eye.key)
    top = max(0, int(s.surfaces[-1].min()))
    height = HEIGHT - top
    rows = np.arange(top, HEIGHT, dtype=np.float32)[:, None]
    below = rows - s.surfaces[-1]
    thick = case.anatomy.choroid / an.AXIAL
    profile_at = np.array([-1, 0, 3, 10, 30, thick, thick * 1.5, thick * 3.2, 500], float)
    profile = np.interp(np.arange(500), profile_at, [186, 176, 150, 126, 106, 74, 50, 14, -40]).astype(np.float32)
    tones = profile[np.clip(below, 0, 499).astype(np.int32)]
    # The eye's own vessel pattern moves on slowly from slice to slice, and returns at the next visit
    row, column = rng.integers(0, sp.SIDE - HEIGHT), rng.integers(0, sp.SIDE - WIDTH - 150)
    start = int(column) + 3 * s.number
    fade = np.interp(np.arange(500), [0, 4, 14, thick, thick * 1.6], [0, 4, 17, 15, 3]).astype(np.float32)
    tones += fields.clouds[row : row + height, start : start + WIDTH] * fade[np.clip(below, 0, 499).astype(np.int32)]
    tones -= 0.8 * lost
    tones += 35 * (s.rpe_gap | (s.thinned & False))  # light that no RPE holds back
    np.copyto(scene[top:], tones, where=below >= 0)


def _inside(seed: int, case: Examined, s: Section, scene: Rows, mask: Mask, contrast: float) -> None:
    """Cysts, haemorrhages, foci and vessels within the layers."""
    rng = stream(seed, "inside", case.eye.key, case.visit.index, s.number)
    for column, width in lumens(case, s):
        c = int(np.clip(column, 0, WIDTH - 1))
        row = float(s.surfaces[an.GCL, c] * 0.6 + s.surfaces[an.IPL, c] * 0.4)
        _ellipse(scene, row, column, 0.55 * width * 2.2, 0.5 * width, add=26)
    retina = (s.surfaces[-1] - s.surfaces[0]) * an.AXIAL
    for x, rx, z, size in _each(s.cysts):
        row, column = _at(s, x, z)
        half = min(size, 0.36 * float(retina[int(column)])) / an.AXIAL
        bit = se.IRF if s.labels[se.IRF] else None
        fluid = 105 - 72 * contrast
        _ellipse(scene, row, column, half, rx / an.LATERAL, towards=fluid, mask=mask, bit=bit)
    for x, rx, z, size in _each(s.haemorrhage):
        row, column = _at(s, x, z)
        bit = se.HAEMORRHAGE if s.labels[se.HAEMORRHAGE] else None
        _ellipse(scene, row, column, size / an.AXIAL, rx / an.LATERAL, towards=120 + 75 * contrast, mask=mask, bit=bit)
        below = slice(int(row + size / an.AXIAL), int(s.surfaces[-1, int(column)]) + 60)
        reach = slice(max(0, int(column - rx / an.LATERAL)), int(column + rx / an.LATERAL) + 1)
        scene[below, reach] -= 42 * contrast
    for x, rx, z, size in _each(s.foci):
        row, column = _at(s, x, z)
        bit = se.HRF if s.labels[se.HRF] else None
        level = rng.uniform(150, 190) + 45 * contrast
        _ellipse(scene, row, column, size / an.AXIAL, rx / an.LATERAL, towards=level, mask=mask, bit=bit)


def _each(shapes: Shapes) -> list[tuple[float, float, float, float]]:
    inside = np.abs(shapes.x) < -an.X[0] - 0.02
    return list(zip(shapes.x[inside], shapes.rx[inside], shapes.z[inside], shapes.size[inside], strict=True))


def _at(s: Section, x: float, z: float) -> tuple[float, float]:
    """Row and column of a place given in mm and layer coordinates."""
    column = float(np.clip((x - an.X[0]) / an.LATERAL, 0, WIDTH - 1))
    c, layer = int(column), int(z)
    return float(s.surfaces[layer, c] + (z - layer) * (s.surfaces[layer + 1, c] - s.surfaces[layer, c])), column


def _ellipse(
    scene: Rows,
    row: float,
    column: float,
    half_height: float,
    half_width: float,
    towards: float | None = None,
    add: float = 0.0,
    mask: Mask | None = None,
    bit: int | None = None,
) -> None:
    """Draw a soft-edged ellipse in place: shift the grey by `add`, or pull it to the level `towards`."""
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


def _vitreous(
    seed: int, case: Examined, s: Section, scene: Rows, mask: Mask, contrast: float, exposure: Exposure
) -> None:
    """Gel, vitreous face, debris, tissue on the retina."""
    ilm = s.surfaces[0]
    reach = min(HEIGHT, int(ilm.max()) + 1)
    rows = np.arange(reach, dtype=np.float32)[:, None]
    above = (ilm - rows) * an.AXIAL  # µm over the ILM
    free = above > 0
    view = scene[:reach]
    if s.face is not None:
        over = above - s.face
        gel = 14 + exposure.haze + 12 * contrast
        grey = gel - np.abs(over) * 0.085
        np.copyto(view, np.maximum(view, grey), where=free & (over > 0))
        attached = not s.labels[se.PAVF]
        # An attached face is seen as a fine line close to the ILM, broken where it lies on it
        offset = 22.0 if attached else 0.0
        line = np.exp(-(((over - offset) / (5.5 if attached else 8.0)) ** 2))
        breaks = np.clip(0.75 + 0.5 * np.sin(1.7 * an.X + case.anatomy.wave[2] + s.y), 0.25, 1)
        level = (_FACE_LINE - 12 if attached else _FACE_LINE) * (0.55 + 0.45 * contrast) + 0.5 * exposure.haze
        bright = level + 28 * np.log(np.maximum(line * breaks, 1e-4))
        np.copyto(view, np.maximum(view, bright), where=free)
        bit = se.FAVF if attached else se.PAVF
        mask[:reach] |= ((np.abs(over - offset) < 9) & free).astype(np.uint16) << np.uint16(bit)
    if s.tissue.any():
        band = (above > -6) & (above < s.tissue)
        view[band] = 112 + 72 * contrast
        if s.labels[se.PRERETINAL]:
            mask[:reach] |= band.astype(np.uint16) << np.uint16(se.PRERETINAL)
    rng = stream(seed, "debris look", case.eye.key, case.visit.index)
    for x, rx, z, size in _each(s.debris):
        column = (x - an.X[0]) / an.LATERAL
        row = float(ilm[int(column)]) - z / an.AXIAL
        bit = se.DEBRIS if s.labels[se.DEBRIS] else None
        _ellipse(
            scene, row, column, size / an.AXIAL, rx / an.LATERAL, rng.uniform(50, 80) + 28 * contrast, 0, mask, bit
        )


def _outline(s: Section, mask: Mask) -> None:
    """Masks of the findings that are regions between two surfaces."""
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
    for bit, upper, lower, columns in regions:
        if s.labels[bit]:
            c = np.flatnonzero(columns)
            top, bottom = np.floor(s.surfaces[upper, c]), np.ceil(s.surfaces[lower, c])
            first, last = max(0, int(top.min())), min(HEIGHT, int(bottom.max()) + 1)
            rows = np.arange(first, last)[:, None]
            mask[first:last, c] |= ((rows >= top) & (rows <= bottom)).astype(np.uint16) << np.uint16(bit)
