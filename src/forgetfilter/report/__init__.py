"""The HTML report of a run: `write_report(path, report, rows)`."""

from forgetfilter.report.page import ReportRow, render_report, write_report

__all__ = ["ReportRow", "render_report", "write_report"]
