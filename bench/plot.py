"""CPU seconds for a million rows as bars: `plot.py FILE.png < {"name": [seconds, ...], ...}`, the first one is ours."""

from __future__ import annotations

import json
import statistics
import sys

from matplotlib import pyplot

OURS, OTHERS, INK = "#0b6e6e", "#b8c4ca", "#22313a"


def main(target: str, costs: dict[str, list[float]]) -> None:
    """The shortest bar first, from zero."""
    seconds = {name: statistics.median(values) for name, values in costs.items()}
    names = sorted(seconds, key=lambda name: seconds[name])
    ours = next(iter(costs))
    pyplot.rcParams.update({"font.size": 10, "text.color": INK, "ytick.color": INK})
    figure, axes = pyplot.subplots(figsize=(7.2, 0.38 * len(names) + 0.5), dpi=110, layout="constrained")
    bars = axes.barh(names, [seconds[name] for name in names], color=[OURS if name == ours else OTHERS for name in names], height=0.66)
    axes.bar_label(bars, [f"{seconds[name]:#.3g} s" for name in names], padding=5)
    axes.invert_yaxis()
    axes.set_xlim(0, max(seconds.values()) * 1.15)
    axes.set_xticks([])  # each bar has its figure
    axes.set_title("SQLite to Parquet: CPU seconds for a million rows", loc="left", fontsize=11)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == ours else "normal")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(target)


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
