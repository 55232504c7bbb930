"""Put the files of a report into a run's folder, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ranksaga.compare.results import BASELINE
from ranksaga.errors import DataError
from ranksaga.files import atomic_open, file_name, write_text
from ranksaga.report.charts import comparison_png, selection_png
from ranksaga.report.data import ReportData
from ranksaga.report.html import html_text
from ranksaga.report.markdown import markdown_text
from ranksaga.report.tables import csv_text

__all__ = ["write_report"]


def write_report(data: ReportData, folder: Path) -> list[Path]:
    """Write ``comparison_table.csv``, ``comparison_report.md``, ``report.html`` and the pictures.

    Returns the paths, ``report.html`` last: when it is there, the rest is too.

    Raises:
        DataError: the headline or the shipped system is not in the comparison.
    """
    systems = data.comparison.systems
    for what, name, known in (("headline", data.headline, systems), ("shipped", data.shipped, (BASELINE, *systems))):
        if name not in known:
            raise DataError(
                f"the {what} system {name!r} was not compared (found: {', '.join(known)}); name one of them"
            )
    pictures = {"comparison_visualization.png": comparison_png(data)}
    charts = {f"selection_{file_name(selection.system)}.png": selection_png(selection) for selection in data.selections}
    texts = {
        "comparison_table.csv": csv_text(data.comparison),
        "comparison_report.md": markdown_text(data, selection_charts=tuple(charts)),
        "report.html": html_text(data),
    }
    for name, content in (pictures | charts).items():
        with atomic_open(folder / name, "wb") as stream:
            stream.write(content)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in (*pictures, *charts, *texts)]
