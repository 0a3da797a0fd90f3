"""Settings of the audit stage: what counts as leakage."""

from typing import Literal

from pydantic import Field

from octdino.config.settings_base import Settings


class AuditSettings(Settings):
    """What must not reach training, choice or standardisation from the test patients."""

    similarity: float = Field(
        0.8, gt=0, le=1, description="correlation of fine detail from which two scans are one picture"
    )
    acknowledged: list[
        Literal["patient", "eye", "volume", "copy", "exposure", "statistics", "threshold", "weights"]
    ] = Field([], description="checks whose findings are shown and do not fail the run")
