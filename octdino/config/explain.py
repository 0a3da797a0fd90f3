"""Settings of the explain stage."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import NETWORK_MODES, check_arm, check_method_name, check_once, check_seeds
from octdino.config.settings_base import Settings, checked


class ExplainSettings(Settings):
    """What the networks look at: maps, their overlap with true masks, neighbours. No choice rests on it."""

    inits: list[str] | None = Field(
        None, description="whose weights: scratch, imagenet, pretraining methods; null: scratch and every method"
    )
    arms: list[str] | None = Field(
        None,
        description="linear or finetune arms whose classifiers make a map a label; null: the linear ones of "
        "classify.arms",
    )
    seeds: list[int] = Field([0], min_length=1, description="of the pretraining runs and classifiers that are shown")
    split: Literal["test", "val", "train", "all"] = Field("test", description="whose scans, in fold 0")
    size: int | None = Field(None, ge=16, description="px, side of the input; null: the classifier's, or the store's")
    scans: int = Field(300, ge=1, description="at most so many scans in the tables")
    examples: int = Field(3, ge=0, description="scans in a figure")
    attention_mass: float = Field(
        0.6, gt=0, le=1, description="share of a map's mass that its mask keeps (0.6: Caron 2021)"
    )
    attention_masses: list[float] = Field(
        [0.1, 0.3, 0.6], description="the same where overlap with lesions is measured"
    )
    min_blob: float = Field(0.02, ge=0, lt=1, description="smaller parts of a mask go, as share of the image")
    neighbors: list[int] = Field([1, 5, 10], min_length=1, description="k of precision among the k nearest scans")
    retrieval_gallery: int = Field(2000, ge=2, description="at most so many scans among which neighbours are sought")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of patients")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")

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
        """The part that each run depends on, as plain values."""
        return self.model_dump(mode="json", exclude={"inits", "arms", "seeds"})
