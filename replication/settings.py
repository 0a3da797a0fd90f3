"""Settings of the replication: the section `replication` of the presets in this folder."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config import Arm, ClassifySettings, Settings
from octdino.config.names import NETWORK_MODES, check_arm, check_backbone_name, check_fraction, check_once
from octdino.config.settings_base import checked


class ProtocolSettings(Settings):
    """The report's training protocol, faults included.

    Its score is the best of all epochs on a random part of the test scans, and its frozen probe freezes a backbone that
    has been fine-tuned before.
    """

    arms: list[str] = Field([], description="arms (linear or finetune) that are trained once more with this protocol")
    epochs: int = Field(50, ge=1, description="passes over the labeled training scans; the best one counts")
    test_share: float = Field(0.2, gt=0, le=1, description="share of the test scans, sampled at random")
    contaminated: bool = Field(True, description="linear: the backbone is fine-tuned on the same labels first")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("arms", lambda arm: check_arm(arm, NETWORK_MODES), *self.arms)
        checked("arms", check_once, self.arms)
        return self

    def needed(self, arm: str, classify: ClassifySettings) -> dict[str, Any]:
        """Return the settings that a run of `arm` depends on: those of fine-tuning, and this protocol's."""
        protocol = self.model_dump(mode="json", exclude={"arms"})
        return {**classify.needed(f"{Arm.parse(arm).init}-finetune"), "protocol": protocol}


class NumberSettings(Settings):
    """Where a number of the table is read: one value of a results table."""

    table: Literal["metrics", "protocol", "history", "jaccard"] = Field(
        "metrics",
        description="metrics: an arm on test scans; protocol: an arm trained with the report's protocol, its best "
        "epoch; history: a pretraining run; jaccard: an explained network",
    )
    name: str = Field(description="the arm; history: the method; jaccard: the init")
    backbone: str
    fraction: float = Field(1.0, description="metrics and protocol: share of labeled training scans")
    column: str = Field("accuracy", description="metrics: the metric; history: the column; jaccard: the protocol")
    take: Literal["last", "max"] = Field("last", description="history: which epoch")
    blobs: Literal["kept", "removed"] = Field("kept", description="jaccard: minor blobs of the masks")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("name", check_backbone_name, self.name)  # an arm's has a dash, like a backbone's
        checked("backbone", check_backbone_name, self.backbone)
        checked("fraction", check_fraction, self.fraction)
        return self


class QuotedSettings(Settings):
    """One number quoted from the report, and where ours are read."""

    item: str = Field(description="what was measured")
    source: str = Field(description="where in the report")
    value: float | None = Field(None, description="as reported, in percent; null: a figure without a number")
    fault: str = Field("", description="what is wrong with it")
    repeated: NumberSettings | None = Field(None, description="ours with the report's protocol")
    corrected: NumberSettings | None = Field(None, description="ours without the fault")


class ReplicationSettings(Settings):
    """The section `replication`."""

    protocol: ProtocolSettings = ProtocolSettings()
    numbers: list[QuotedSettings] = Field([], description="numbers of the report, tabulated beside ours")
