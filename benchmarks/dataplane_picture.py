"""The picture of `results.json`: each way for the bytes as a share of the direct one, by number of connections.

`python benchmarks/dataplane_picture.py RESULTS.json PICTURE.svg` draws it again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

__all__ = ["draw"]

_OURS: Final = "#1f6fb2"
_DEPLOYED: Final = "#b4b4b4"
_INK: Final = "#333333"
_FAINT: Final = "#e4e4e4"
# From top to bottom; a blank line apart where the second part begins.
_PLAIN: Final = (
    ("nftables", "ours"),
    ("haproxy", "ours"),
    ("haproxy", "deployed"),
    ("nginx", "ours"),
    ("nginx", "deployed"),
)
_TUNNELLED: Final = (("haproxy", "ours"), ("nginx", "ours"), ("stunnel", "ours"), ("stunnel", "deployed"))
_NAMES: Final = {"haproxy": "HAProxy", "nginx": "Nginx", "stunnel": "Stunnel", "nftables": "nftables"}
_HEIGHT: Final = 0.72
_GAP: Final = 1.1
# Letters stay letters, and the same figures give the same file.
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scistream",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows into a file, whose suffix says of what kind (svg, png)."""
    compared = [row for row in found if row["congestion"] == "cubic"]
    with mpl.rc_context(_STYLE):
        _figure(compared).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _figure(found: Sequence[dict[str, Any]]) -> Figure:
    counts = sorted({row["connections"] for row in found})
    figure = Figure(figsize=(3.0 + 3.1 * len(counts), 5.4), layout="constrained")
    panels = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for panel, connections in zip(panels, counts, strict=True):
        _panel(panel, [row for row in found if row["connections"] == connections], connections)
    panels[0].set_xlim(0, _reach(found))
    title = "Throughput through both gateways, as a share of the direct path"
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=12.5, weight="bold")
    figure.supxlabel(
        "Bars: median of the runs; strokes: least and most of them. At each bar: Gb/s, and in brackets how many times "
        "the deployed one's.\nEncrypted ones are compared with the deployed Stunnel, nftables with deployed HAProxy.",
        fontsize=8.5,
    )
    keys = [
        Patch(color=_OURS, label="this version"),
        Patch(color=_DEPLOYED, label="as deployed"),
        Line2D([], [], color=_INK, linewidth=1.4, label="direct path"),
    ]
    figure.legend(handles=keys, loc="outside upper right", frameon=False, ncols=3, fontsize=9)
    return figure


def _reach(found: Sequence[dict[str, Any]]) -> float:
    return max(1.45, *(1.05 * (row["ratio_to_direct_max"] or 0) for row in found))


def _panel(panel: Axes, found: Sequence[dict[str, Any]], connections: int) -> None:
    direct = next((row for row in found if row["engine"] == "direct"), None)
    words = "1 connection" if connections == 1 else f"{connections} connections"
    panel.set_title(f"{words}; direct: {direct['gbps']:.1f} Gb/s" if direct else words, fontsize=10, weight="bold")
    panel.axvline(1.0, color=_INK, linewidth=1.4, zorder=1)
    ticks = _part(panel, [row for row in found if row["encryption"] == "none"], _PLAIN, 0.0)
    rest = [row for row in found if row["encryption"] != "none"]
    ticks |= _part(panel, rest, _TUNNELLED, len(_PLAIN) + _GAP)
    panel.set_yticks(list(ticks), list(ticks.values()))
    panel.set_ylim(len(_PLAIN) + len(_TUNNELLED) + _GAP - 0.4, -1.0)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    panel.grid(axis="x", color=_FAINT, zorder=0)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _part(
    panel: Axes, found: Sequence[dict[str, Any]], order: Sequence[tuple[str, str]], top: float
) -> dict[float, str]:
    """One half of the picture; the places of its bars, with their names."""
    title = "Not encrypted between the gateways" if order is _PLAIN else "Encrypted between the gateways"
    panel.text(0, top - 0.62, title, fontsize=8.5, style="italic", va="center")
    by_key = {(row["engine"], row["settings"]): row for row in found}
    for place, key in enumerate(order):
        if key in by_key and by_key[key]["ratio_to_direct"] is not None:
            _bar(panel, by_key[key], top + place)
    return {top + place: _name(*key, is_plain=order is _PLAIN) for place, key in enumerate(order)}


def _name(engine: str, settings: str, *, is_plain: bool) -> str:
    if settings == "ours":
        return _NAMES[engine]
    return f"{_NAMES[engine]} as deployed" if is_plain else f"{_NAMES[engine]} as deployed\n(does not encrypt)"


def _bar(panel: Axes, row: dict[str, Any], place: float) -> None:
    share, is_ours = row["ratio_to_direct"], row["settings"] == "ours"
    least, most = row["ratio_to_direct_min"], row["ratio_to_direct_max"]
    panel.barh(place, share, height=_HEIGHT, color=_OURS if is_ours else _DEPLOYED, zorder=2)
    spread = ([share - least], [most - share])
    panel.errorbar(share, place, xerr=spread, color=_INK, linewidth=1, capsize=2.5, zorder=3)
    words = f"{row['gbps']:.1f}"
    if is_ours and row["ratio_to_deployed"]:
        words += f"  ({row['ratio_to_deployed']:.1f} x)"
    panel.text(
        most + 0.025,
        place,
        words,
        va="center",
        fontsize=8.5,
        weight="bold" if is_ours else "normal",
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
    )


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
