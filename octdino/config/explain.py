"""Settings of the explain stage: attention and saliency maps, lesion masks, retrieval of neighbors."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import NETWORK_MODES, check_arm, check_method_name, check_once, check_seeds
from octdino.config.settings_base import Settings, checked


class ExplainSettings(Settings):
    """Attention and saliency maps, overlap with ground-truth masks, retrieval; not for model selection."""

    inits: list[str] | None = Field(
        None,
        description="initial weights to explain: scratch, imagenet, methods; null: scratch and every method; []: none",
    )
    arms: list[str] | None = Field(
        None,
        description="linear or finetune arms whose classifiers give one saliency map per label; null: the linear arms "
        "of classify.arms",
    )
    seeds: list[int] = Field(
        [0], min_length=1, description="seeds of the pretraining runs and classifiers that are explained"
    )
    split: Literal["test", "val", "train", "all"] = Field(
        "test", description="split whose scans are explained, in fold 0"
    )
    size: int | None = Field(
        None, ge=16, description="px, side of the input; null: the classifier's, or else the store's"
    )
    scans: int = Field(300, ge=1, description="largest number of scans in the tables")
    examples: int = Field(3, ge=0, description="number of scans per figure")
    attention_mass: float = Field(
        0.6, gt=0, le=1, description="share of a map's mass that its binary mask keeps (0.6: Caron 2021)"
    )
    attention_masses: list[float] = Field([0.1, 0.3, 0.6], description="the same for the overlap with lesion masks")
    min_blob: float = Field(
        0.02, ge=0, lt=1, description="smaller connected parts of a mask are removed, as share of the image"
    )
    neighbors: list[int] = Field(
        [1, 5, 10], min_length=1, description="k of retrieval precision among the k nearest scans of other patients"
    )
    retrieval_gallery: int = Field(2000, ge=2, description="largest number of scans to retrieve neighbors from")
    resamples: int = Field(1000, ge=100, description="number of bootstrap resamples of patients")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of every confidence interval")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("arms", lambda arm: check_arm(arm, NETWORK_MODES), *(self.arms or []))
        checked("inits", check_method_name, *(self.inits or []))
        for key in ("inits", "arms"):
            checked(key, check_once, getattr(self, key) or [])
        checked("seeds", check_seeds, self.seeds)
        if not all(0 < mass <= 1 for mass in self.attention_masses):
            raise ValueError("attention_masses: each above 0 and at most 1")
        if not all(1 <= k <= 100_000 for k in self.neighbors):
            raise ValueError("neighbors: each from 1 to 100,000")
        return self

    def needed(self) -> dict[str, Any]:
        """Return the settings that each run depends on as plain values (`params` of its rule, its rerun trigger)."""
        return self.model_dump(mode="json", exclude={"inits", "arms", "seeds"})
