"""The report stage: all tables and figures → one HTML page."""

from octdino.report.write_page import write_report

__all__ = ["write_report"]
