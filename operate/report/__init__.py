"""The report of a run: report.html, a table for the terminal, the same as JSON. It reads results/<run>/ only."""

from operate.report.folder import newest_run
from operate.report.page import write_report
from operate.report.quiz import ask
from operate.report.table import as_json, outcome, summary

__all__ = ["as_json", "ask", "newest_run", "outcome", "summary", "write_report"]
