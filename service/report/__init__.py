"""A run as one page for the laboratory notebook: a single HTML file that needs nothing else and prints well."""

from service.report.page import report_task as report_task
from service.report.page import write_report as write_report
