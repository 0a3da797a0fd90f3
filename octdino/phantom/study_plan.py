"""Plan of the files to write: one `Volume` per visit and side, with the flaws of the real release.

The kinds of flaws are those found in OLIVES: identical volumes within a patient and across two patients, missing
label cells, a visit without BCVA and CST, volumes with too many or too few slices, an eye whose side differs between
the two tables, files that cannot be read or are not what they should be, and files that no table names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from octdino.config.cohort import PhantomSettings
from octdino.phantom.patients import SLICES_PER_VOLUME, Eye, Visit, slice_numbers
from octdino.phantom.random_streams import stream
from octdino.phantom.section import DEBRIS, FAVF, PAVF, PRERETINAL

UNREADABLE = ("truncated", "empty", "wrong size", "missing")
ODD_BUT_READABLE = ("16 bit", "rgb")


@dataclass(frozen=True)
class Volume:
    """One visit's files. `number` in a file name is the slice, plus 49 for a second pass."""

    eye: Eye  # eye whose name, clinical values and labels are written
    visit: Visit
    seen: Eye  # eye whose retina is rendered, and the visit of that eye
    seen_visit: Visit
    side: str
    numbers: tuple[int, ...]
    graded: bool  # has rows in the biomarker table
    charted: bool  # has rows in the clinical table
    chart_missing: bool = False
    defects: tuple[tuple[int, str], ...] = ()  # (number, kind)
    blank_labels: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (number, labels without a value)
    fundus: bool = False
    array: bool = False

    @property
    def tabled(self) -> bool:
        return self.graded or self.charted


def volumes_of(settings: PhantomSettings, eyes: list[Eye]) -> list[Volume]:
    """Return all volumes in table order, with flaws if the settings ask for them."""
    numbers = tuple(slice_numbers(settings.slices))
    volumes = [
        Volume(eye, visit, eye, visit, eye.side, numbers, graded=visit.labeled, charted=True)
        for eye in eyes
        for visit in eye.visits
    ]
    return _FlawPlanner(settings, volumes).all() if settings.flaws else volumes


class _FlawPlanner:
    """Inserts flaws, at most one per volume, so that statistics and quarantine reasons stay readable."""

    def __init__(self, settings: PhantomSettings, volumes: list[Volume]) -> None:
        self.rng = stream(settings.seed, "flaws")
        self.volumes = volumes
        self.extra: list[Volume] = []
        self.free = set(range(len(volumes)))
        self.few = max(1, round(settings.patients / 60))

    def all(self) -> list[Volume]:
        self._clash()
        for _ in range(self.few):
            self._copy_within_patient()
            self._copy_across_patients()
            self._counts_and_charts()
        self._files()
        self._blank_cells()
        self._untabled()
        return sorted([*self.volumes, *self.extra], key=lambda v: v.eye.key)  # stable: table order

    def _take(self, fits: Callable[[Volume], bool]) -> int | None:
        candidates = [i for i in sorted(self.free) if fits(self.volumes[i])]
        if not candidates:
            return None
        index = int(self.rng.choice(candidates))
        self.free.discard(index)
        return index

    def _change(self, index: int | None, **changes: Any) -> None:
        if index is not None:
            self.volumes[index] = replace(self.volumes[index], **changes)

    def _clash(self) -> None:
        """One PRIME eye: the biomarker table names one side, the clinical table the other; both sides have files."""
        keys = sorted({v.eye.key for v in self.volumes if v.eye.trial == "PRIME" and v.eye.pattern.endswith(".tif")})
        if not keys:
            return
        key = int(self.rng.choice(keys))
        own = [i for i, v in enumerate(self.volumes) if v.eye.key == key]
        self.extra += [fellow_eye_volume(self.volumes[i], charted=True) for i in own]
        for index in own:
            self._change(index, charted=False)
            self.free.discard(index)
        drop = {i for i in own if not self.volumes[i].graded}
        kept = [i for i in range(len(self.volumes)) if i not in drop]
        self.free = {new for new, old in enumerate(kept) if old in self.free}
        self.volumes = [self.volumes[i] for i in kept]

    def _copy_within_patient(self) -> None:
        index = self._take(lambda v: not v.graded)
        if index is not None:
            volume = self.volumes[index]
            others = [v for v in volume.eye.visits if v.index != volume.visit.index]
            others.sort(key=lambda v: (v.labeled, abs(v.index - volume.visit.index)))
            self._change(index, seen_visit=others[0])
            self.free -= {i for i, v in enumerate(self.volumes) if v.eye.key == volume.eye.key and not v.graded}

    def _copy_across_patients(self) -> None:
        first = self._take(lambda v: not v.graded)
        if first is None:
            return
        source = self.volumes[first]
        second = self._take(lambda v: not v.graded and v.eye.patient != source.eye.patient)
        self._change(second, seen=source.eye, seen_visit=source.visit)

    def _counts_and_charts(self) -> None:
        index = self._take(lambda v: not v.graded)
        if index is not None:
            numbers = self.volumes[index].numbers
            self._change(index, numbers=(*numbers, *(n + SLICES_PER_VOLUME for n in numbers)))
        index = self._take(lambda v: not v.graded and len(v.numbers) > 1)
        if index is not None:
            numbers = self.volumes[index].numbers
            self._change(index, numbers=numbers[: max(1, round(0.7 * len(numbers)))])
        self._change(self._take(lambda v: not v.graded), chart_missing=True)

    def _files(self) -> None:
        """Bad files lie in unlabeled volumes; one truncated file is a labeled row. Odd ones can be anywhere."""
        for _ in range(self.few):
            index = self._take(lambda v: not v.graded and v.eye.pattern.endswith(".tif"))
            if index is None:  # a small cohort: then in the labeled ones
                index = self._take(lambda v: v.eye.pattern.endswith(".tif"))
            self._spoil(index, UNREADABLE)
        self._spoil(self._take(lambda v: v.graded and v.eye.pattern.endswith(".tif")), ("truncated",))
        for _ in range(self.few):
            self._spoil(self._take(lambda v: v.graded and v.eye.pattern.endswith(".tif")), ODD_BUT_READABLE)

    def _spoil(self, index: int | None, kinds: tuple[str, ...]) -> None:
        if index is not None:
            numbers = self.volumes[index].numbers
            picked = self.rng.permutation(len(numbers))
            # Fewer slices than kinds: the remaining kinds go to other volumes
            here = tuple((numbers[int(i)], kind) for i, kind in zip(picked, kinds, strict=False))
            self._change(index, defects=here)
            if len(here) < len(kinds):
                index = self._take(lambda v: v.eye.pattern.endswith(".tif"))
                self._spoil(index, kinds[len(here) :])

    def _blank_cells(self) -> None:
        """Remove labels of the vitreous: only these four lack values in the real table."""
        for _ in range(max(1, len({v.eye.key for v in self.volumes}) // 24)):
            index = self._take(lambda v: v.graded)
            if index is not None:
                numbers = self.rng.permutation(self.volumes[index].numbers)[: int(self.rng.integers(1, 4))]
                blank = tuple((int(n), self._two_of_the_vitreous()) for n in numbers)
                self._change(index, blank_labels=blank)

    def _two_of_the_vitreous(self) -> tuple[int, ...]:
        labels = (PAVF, FAVF, PRERETINAL, DEBRIS)
        return tuple(sorted(int(i) for i in self.rng.choice(labels, self.rng.integers(1, 3), replace=False)))

    def _untabled(self) -> None:
        """Fellow eyes, fundus scans and arrays that a search of the folders would pick up."""
        own = {v.eye.folder for v in self.extra}
        candidates = [v for v in self.volumes if v.eye.folder not in own]
        for index in self.rng.choice(len(candidates), min(2 * self.few, len(candidates)), replace=False):
            self.extra.append(fellow_eye_volume(candidates[int(index)], charted=False))
        for index in self.rng.choice(len(self.volumes), min(2 * self.few, len(self.volumes)), replace=False):
            self._change(int(index), fundus=True)
        self._change(int(self.rng.integers(len(self.volumes))), array=True)


def fellow_eye_volume(volume: Volume, charted: bool) -> Volume:
    """The same visit's scan of the other eye: another retina, in the other eye's folder."""
    side = "OS" if volume.side == "OD" else "OD"
    other = replace(volume.eye, key=volume.eye.key + 100_000, side=side)
    return Volume(volume.eye, volume.visit, other, volume.visit, side, volume.numbers, graded=False, charted=charted)
