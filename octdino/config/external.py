"""Settings of external validation: cohorts that no arm has seen, and which of their labels are which of ours."""

from typing import Annotated, Any, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from octdino.config.cohort import COHORTS, TITLE, UNPUBLISHED, CohortSettings, ImageSettings, SplitSettings
from octdino.config.names import check_once
from octdino.config.settings_base import Settings


def _as_names(value: Any) -> Any:
    """Return a single label as a list of one, and no label (null) as an empty list."""
    return [] if value is None else [value] if isinstance(value, str) else value


InternalLabels = Annotated[list[str], BeforeValidator(_as_names)]


def mapped_labels(
    configured: dict[str, list[str]], external: list[str], internal: list[str], compared: list[str] | None
) -> dict[str, list[str]]:
    """Return the internal labels that each external label stands for; external labels that are not tested are left out.

    Labels of the same name stand for each other unless it is configured. A label that stands for one that is not
    compared is not tested: its ground truth would be of more labels than its probability.

    Args:
        configured: `labels` of an external cohort.
        external, internal: the labels of the two cohorts.
        compared: `evaluate.labels`; None: all internal labels.
    """
    names_of = {label: configured.get(label, [label] if label in internal else []) for label in external}
    kept = set(internal if compared is None else compared)
    return {label: names for label, names in names_of.items() if names and kept.issuperset(names)}


class ExternalSettings(Settings):
    """An external cohort: it is read like the internal one, and all of it is test."""

    name: str = Field(description="its folder in results/{cohort}/external/, of characters as in cohort.title")
    cohort: CohortSettings = Field(
        description="the same keys as the section cohort, but title, image and split: images are prepared as those of "
        "the internal cohort are, and all patients are test"
    )
    labels: dict[str, InternalLabels] = Field(
        {},
        description="external label: the internal labels that it stands for, any of them, such as AMD: [CNV, DRUSEN]; "
        "null: not tested. Labels of the same name need no entry",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not TITLE.fullmatch(self.name):
            raise ValueError(
                f"name: {self.name!r} is no folder name; expected 1 to 100 letters, digits, _, - and ., the first one "
                "a letter, a digit or _"
            )
        if self.name in set(get_args(COHORTS)) - {self.cohort.name}:
            raise ValueError(f"name: {self.name!r} is the name of another kind of cohort; expected another name")
        if self.cohort.title is not None:
            raise ValueError("cohort.title: the name of the external cohort is its title; leave it out")
        if self.cohort.image != ImageSettings():
            raise ValueError("cohort.image: images are prepared as those of the internal cohort are; leave it out")
        if self.cohort.split != SplitSettings():
            raise ValueError("cohort.split: all patients of an external cohort are test; leave it out")
        for label, internal in self.labels.items():
            try:
                check_once(internal)
            except ValueError as error:
                raise ValueError(f"labels.{label}: {error}") from None
        return self

    def titled(self, image: ImageSettings) -> CohortSettings:
        """Return the settings with which its files are read.

        Args:
            image: of the internal cohort.
        """
        values = self.cohort.model_dump(exclude={"image", "title"}, exclude_unset=True)
        return CohortSettings.model_validate({**values, "title": self.name, "image": image})

    def same_patients(self, internal: CohortSettings) -> bool:
        """Return whether these are the files, or the published patients, of the internal cohort."""
        own = self.cohort
        if own.name != internal.name:
            return False
        if own.name == "phantom":
            return own.phantom.seed == internal.phantom.seed
        if own.name not in UNPUBLISHED:
            return True
        roots = [each.root.resolve() if each.root else None for each in (own, internal)]
        tables = [each.table_file.resolve() if each.table_file else None for each in (own, internal)]
        return roots[0] == roots[1] and (tables[0] == tables[1] or None in tables)
