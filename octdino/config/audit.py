"""Settings of the audit stage: what counts as leakage."""

from pydantic import Field

from octdino.config.names import AuditCheck
from octdino.config.settings_base import Settings


class AuditSettings(Settings):
    """Leakage checks: no test patient may reach training, model selection or standardization."""

    similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="correlation of fine detail from which two scans count as the same image, also mirrored",
    )
    acknowledged: list[AuditCheck] = Field([], description="checks whose findings are reported without failing the run")
