"""The pictures: change per dataset with intervals, values side by side, gain against retention.

Each is drawn once by matplotlib. The PNG is for people and papers; the SVG goes into the HTML
report, where its colours become CSS variables, so that it follows light and dark.
"""

from __future__ import annotations

import colorsys
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ranksaga.compare.results import BASELINE, Comparison, ComparisonRow
from ranksaga.report.data import CurvePoint, ReportData, Selection
from ranksaga.report.tables import metric_label, percent
from ranksaga.untrusted.escape import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bars_svg", "change_svg", "comparison_png", "selection_png", "selection_svg"]

_INK, _MUTED, _GRID, _PAPER = "#1b1f24", "#5b6470", "#d9dee4", "#fefefe"
_GREY = "#8b95a1"
_REFERENCES = ("#c4b59a", "#b3c6d6", "#d3c3d6")
# Okabe and Ito's palette (2008) without yellow and black: told apart by colour-blind readers too.
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
# Inches. Two stand side by side on a desk's screen, and on a phone's one is shrunk by a quarter and still legible.
_WIDTH = 5.2
_NAME_WIDTH, _NAME_LINES = 20, 3  # characters and lines of a dataset's name beside a chart
_VARIABLES = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)", _PAPER: "var(--paper)"}
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.facecolor": _PAPER,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _INK,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


def comparison_png(data: ReportData) -> bytes:
    """``comparison_visualization.png``: change per dataset on the left, baseline against optimized on the right."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _draw_change(left, data)
        _draw_bars(right, data)

    return _render(draw, (15.5, max(5.2, _change_height(data), _bars_height(data))), "png")


def change_svg(data: ReportData) -> str:
    """Relative change per dataset and contender, with intervals."""
    return _svg(lambda figure: _draw_change(figure.subplots(), data), (_WIDTH, _change_height(data)), "change")


def bars_svg(data: ReportData) -> str:
    """Values of the baseline and all systems, dataset by dataset."""
    return _svg(lambda figure: _draw_bars(figure.subplots(), data), (_WIDTH, _bars_height(data)), "bars")


def selection_png(selection: Selection) -> bytes:
    """Gain against retention over epochs and weights, the chosen point marked."""
    return _render(lambda figure: _draw_selection(figure.subplots(), selection), (8.0, 5.2), "png")


def selection_svg(selection: Selection) -> str:
    """The same picture as SVG."""
    return _svg(
        lambda figure: _draw_selection(figure.subplots(), selection), (_WIDTH, 4.8), f"selection-{selection.system}"
    )


def _render(draw: Callable[[Figure], None], inches: tuple[float, float], kind: str, salt: str = "") -> bytes:
    # Figure without pyplot: no global state, no window system, safe in threads.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The ids in an SVG are hashes; a salt of its own keeps those of two pictures on one page apart.
    with rc_context({**_STYLE, "svg.hashsalt": f"ranksaga-{salt}"}):  # type: ignore[dict-item]
        figure = Figure(figsize=inches, layout="constrained", facecolor=_PAPER)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.04)  # type: ignore[union-attr,call-arg]
        draw(figure)
        stream = io.BytesIO()
        # No date and no version inside: equal data gives equal bytes.
        metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        figure.savefig(stream, format=kind, dpi=160, metadata=metadata, facecolor=_PAPER)
    return stream.getvalue()


def _svg(draw: Callable[[Figure], None], inches: tuple[float, float], salt: str) -> str:
    """An inline SVG: no XML head, no ids but those that are referred to, colours as CSS variables."""
    text = _render(draw, inches, "svg", salt).decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    referred = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    # Inside of tags only: a name in the picture is text, whatever it looks like.
    unreferred = partial(re.sub, r' id="([^"]*)"', lambda match: match.group() if match[1] in referred else "")
    text = re.sub(r"<[^<>]*>", lambda tag: unreferred(tag.group()), text)
    # The width is the natural one; the height follows from the view box when CSS makes it narrower.
    text = re.sub(r'<svg ([^>]*?) height="[^"]*"', r'<svg aria-hidden="true" \1', text, count=1)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def _colours(data: ReportData) -> dict[str, str]:
    """One colour a system in all pictures; the baseline and the references recede."""
    colours = {BASELINE: _GREY}
    colours |= {name: _colour(place, _REFERENCES) for place, name in enumerate(data.references)}
    return colours | {name: _colour(place, _PALETTE) for place, name in enumerate(data.contenders)}


def _colour(place: int, palette: tuple[str, ...]) -> str:
    """A colour of its own for each place: the palette's, and after its end hues that a golden section keeps apart."""
    if place < len(palette):
        return palette[place]
    beyond = place - len(palette)
    red, green, blue = colorsys.hls_to_rgb(0.07 + beyond * 0.61803 % 1, (0.42, 0.6)[beyond % 2], 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _change_height(data: ReportData) -> float:
    marks = len(data.comparison.datasets) * (len(data.contenders) + 1)
    return max(3.2, 1.7 + 0.23 * marks, 1.7 + 0.5 * len(data.comparison.datasets))


def _bars_height(data: ReportData) -> float:
    bars = len(data.comparison.datasets) * (len(data.comparison.systems) + 2)
    return max(3.2, 1.7 + 0.15 * bars, 1.7 + 0.5 * len(data.comparison.datasets))


def _draw_change(axes: Axes, data: ReportData) -> None:
    """A row of whiskers for each dataset; a filled mark is a change that the test confirms."""
    comparison, contenders = data.comparison, data.contenders
    colours = _colours(data)
    step = 0.8 / max(1, len(contenders))
    for place, name in enumerate(comparison.datasets):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color=_GRID, alpha=0.28, linewidth=0)
        for offset, system in enumerate(contenders):
            row = comparison.row(name, system)
            if row is not None and row.change_pct is not None:
                _whisker(axes, row, place + (offset - (len(contenders) - 1) / 2) * step, colours[system])
    axes.axvline(0, color=_MUTED, linewidth=1)
    axes.set_yticks(range(len(comparison.datasets)), [_dataset_label(comparison, name) for name in comparison.datasets])
    axes.set_ylim(len(comparison.datasets) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}%" if value else "0")
    axes.set_xlabel("change, 95% interval; filled: p (Holm) < 0.05")
    axes.set_title(f"{metric_label(comparison.primary)}: change per dataset")
    _legend(axes, [(system, colours[system]) for system in contenders], marker="o")


def _whisker(axes: Axes, row: ComparisonRow, y: float, colour: str) -> None:
    change = row.change_pct or 0.0
    low, high = row.interval_pct or (change, change)
    real = row.verdict in ("improved", "regressed")
    axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
    axes.plot(
        change, y, "o", markersize=6.5, color=colour, markerfacecolor=colour if real else _PAPER, markeredgewidth=1.8
    )
    # In a column beside the axes, where no line and no mark can meet it.
    axes.annotate(
        percent(change),
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=_MUTED,
    )


def _draw_bars(axes: Axes, data: ReportData) -> None:
    comparison = data.comparison
    colours = _colours(data)
    systems = (BASELINE, *comparison.systems)
    width = 0.84 / len(systems)
    for offset, system in enumerate(systems):
        rows = [(place, comparison.row(name, system)) for place, name in enumerate(comparison.datasets)]
        shown = [(place, row.value) for place, row in rows if row is not None]
        heights = [place + (offset - (len(systems) - 1) / 2) * width for place, _ in shown]
        bars = axes.barh(heights, [value for _, value in shown], width * 0.9, color=colours[system])
        # Long series of narrow bars cannot carry figures that anyone could read.
        if len(systems) <= 3:
            axes.bar_label(bars, fmt="%.3f", fontsize=9, color=_MUTED, padding=2)
    # Names stand beside their bars: side by side below them long ones would overprint each other.
    axes.set_yticks(range(len(comparison.datasets)), [_dataset_label(comparison, name) for name in comparison.datasets])
    axes.set_ylim(len(comparison.datasets) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlim(left=0)
    axes.set_title(f"{metric_label(comparison.primary)}: all systems")
    _legend(axes, [(system, colours[system]) for system in systems], marker="s")


def _draw_selection(axes: Axes, selection: Selection) -> None:
    """One line an epoch (and a weight of the documents' tower) through its weights; of the many pairs of epoch and
    documents' weight those that share one with what was chosen.

    Up is a gain on the trained sets, right keeps the guards. Without guards there is nothing to keep, and
    the horizontal axis is the weight.
    """
    guarded = any(point.kept is not None for point in selection.points)
    lines: dict[str, list[CurvePoint]] = {}
    near = [point for point in selection.points if _is_near(point, selection)]
    for point in sorted(near, key=lambda one: (one.epoch, one.document_weight or 0.0, one.weight)):
        lines.setdefault(_line_label(point), []).append(point)
    colours = {label: _colour(place, _PALETTE) for place, label in enumerate(lines)}
    for label, points in lines.items():
        colour = colours[label]
        places = [_place(point, guarded=guarded) for point in points]
        axes.plot([x for x, _ in places], [y for _, y in places], color=colour, linewidth=1.4, alpha=0.7)
        for point, place in zip(points, places, strict=True):
            _mark(axes, point, place, colour)
    for point, place in _labelled(selection, near, guarded=guarded):
        axes.annotate(f"{point.weight:g}", place, xytext=(6, 5), textcoords="offset points", fontsize=9, color=_MUTED)
    axes.axhline(0, color=_MUTED, linewidth=1)
    axes.axvline(0, color=_MUTED, linewidth=1)
    axes.plot(0, 0, "s", markersize=6, color=_GREY)
    axes.annotate("base", (0, 0), xytext=(6, -12), textcoords="offset points", fontsize=9, color=_MUTED)
    axes.grid()
    axes.tick_params(length=0)
    axes.margins(0.12)
    axes.set_xlabel(
        "guards: change on dev, %   (right: nothing forgotten)" if guarded else "weight of the fine-tuned model"
    )
    axes.set_ylabel("trained sets: mean change on dev, %")
    axes.set_title(f"{selection.system}: {'gain against retention' if guarded else 'gain by weight'}")
    _legend(axes, list(colours.items()), marker="o")


def _place(point: CurvePoint, *, guarded: bool) -> tuple[float, float]:
    return ((point.kept or 0.0) if guarded else point.weight), point.gain


def _labelled(
    selection: Selection, near: Sequence[CurvePoint], *, guarded: bool
) -> list[tuple[CurvePoint, tuple[float, float]]]:
    """The points of the chosen line whose weights are written, as far as one label does not cover another."""
    chosen = next((one for one in selection.points if one.chosen), selection.points[-1])
    everywhere = [(0.0, 0.0), *(_place(point, guarded=guarded) for point in near)]
    wide, high = (max(ends) - min(ends) or 1.0 for ends in zip(*everywhere, strict=True))
    kept: list[tuple[CurvePoint, tuple[float, float]]] = []
    for point in sorted(near, key=lambda one: not one.chosen):
        if (point.epoch, point.document_weight) != (chosen.epoch, chosen.document_weight):
            continue
        place = _place(point, guarded=guarded)
        # The base's own label stands at the origin.
        taken = [(0.0, 0.0), *(other for _, other in kept)]
        if all(abs(place[0] - x) > 0.14 * wide or abs(place[1] - y) > 0.1 * high for x, y in taken):
            kept.append((point, place))
    return kept


def _is_near(point: CurvePoint, selection: Selection) -> bool:
    chosen = next((one for one in selection.points if one.chosen), selection.points[-1])
    return point.epoch == chosen.epoch or point.document_weight == chosen.document_weight


def _line_label(point: CurvePoint) -> str:
    documents = "" if point.document_weight is None else f", documents at {point.document_weight:g}"
    return f"epoch {point.epoch}{documents}"


def _mark(axes: Axes, point: CurvePoint, place: tuple[float, float], colour: str) -> None:
    """A point: filled where it qualifies, ringed where it was chosen."""
    face = colour if point.qualifies else _PAPER
    axes.plot(*place, "o", markersize=6, color=colour, markerfacecolor=face, markeredgewidth=1.6)
    if point.chosen:
        axes.plot(*place, "o", markersize=15, color=_INK, markerfacecolor="none", markeredgewidth=1.6)


def _dataset_label(comparison: Comparison, name: str) -> str:
    row, label = comparison.row(name, BASELINE), one_line(name)
    wrapped = textwrap.wrap(label, _NAME_WIDTH, max_lines=_NAME_LINES, placeholder="…")
    lines = wrapped if len(label) > _NAME_WIDTH else [label]
    return "\n".join([*lines, "(guard)"] if row is not None and row.role == "guard" else lines)


def _legend(axes: Axes, entries: Sequence[tuple[str, str]], marker: str) -> None:
    """Below the axes, so that it never covers data; the gap is in points, whatever the height of the axes."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=8, color=colour, label=name)
        for name, colour in entries
    ]
    below = ScaledTranslation(0, -42 / 72, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + below,
        # Wide labels stand fewer in a row; a legend wider than the figure would leave the axes no room.
        ncols=max(1, min(len(handles), 6, 54 // (5 + max((len(name) for name, _ in entries), default=0)))),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.4,
        fontsize=9,
    )
