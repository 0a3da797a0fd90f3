"""Workflows of these tests start warm, too."""

from tests.workflow.conftest import warm

__all__ = ["warm"]
