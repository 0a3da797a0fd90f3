"""The report stage: all tables and figures → one HTML page."""

from octdino.report.run import write_report

__all__ = ["write_report"]
