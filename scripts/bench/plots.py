"""The plots, as SVG that is the same for the same figures, and legible on light and dark backgrounds."""

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402 (after the choice of what draws)
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: E402

INK = "#808890"
COLOURS = {"remap": "#2f8fdd", "passthru": "#e0762a", "hits": "#2aa36b"}
SIZE = (7.2, 4.2)
STYLE = {
    "svg.hashsalt": "bdev_remap", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "lines.linewidth": 1.8,
}


def write(directory, series):
    with plt.rc_context(STYLE):
        for name, draw in (("iops", _iops), ("latency", _latency), ("rescues", _rescues)):
            if series.get(name):
                figure = draw(series[name])
                figure.savefig(directory / ("benchmarks-%s.svg" % name), transparent=True, bbox_inches="tight",
                               metadata={"Date": None, "Creator": None})
                plt.close(figure)


def _iops(series):
    """Medians, and from the lowest to the highest round."""
    figure, axes = plt.subplots(figsize=SIZE)

    def million(one, field="value"):
        return one[field] / 1e6

    def line(points, positions, **how):
        values = [million(point) for point in points]
        spread = [[value - million(point, "low") for point, value in zip(points, values)],
                  [million(point, "high") - value for point, value in zip(points, values)]]
        axes.errorbar(positions, values, yerr=spread, capsize=3, marker="o", markersize=4, elinewidth=0.8, **how)

    misses, hits, passthru = series["misses"], series["hits"], series["passthru"]
    counts = [point["remaps"] for point in misses]
    positions = list(range(len(counts)))
    axes.axhline(million(passthru), color=COLOURS["passthru"], linestyle="--", label="passthru")
    axes.axhspan(million(passthru, "low"), million(passthru, "high"), color=COLOURS["passthru"], alpha=0.12, linewidth=0)
    line(misses, positions, color=COLOURS["remap"], label="Remap, I/O on other blocks")
    line(hits, [counts.index(point["remaps"]) for point in hits], color=COLOURS["hits"], linestyle=":",
         label="Remap, every I/O on a remapped block")
    axes.set_xticks(positions, [f"{count:,}" for count in counts])
    axes.set(xlabel="remapped blocks", ylabel="million reads a second", ylim=(0, None),
             title="4 KiB random reads, queue depth 128, one reactor, null bdev of 4 TiB")
    axes.legend(loc="lower left")
    return figure


def _latency(series):
    """The further right, the rarer: the axis tells how many I/Os of a hundred take longer."""
    figure, axes = plt.subplots(figsize=SIZE)
    for name, label, colour in (("passthru", "passthru", "passthru"), ("remap 0", "Remap, nothing remapped", "remap")):
        points = [(1 / (1 - at / 100), us) for at, us in series[name] if 0 < at < 100]
        axes.plot(*zip(*points), color=COLOURS[colour], label=label, marker="o", markersize=3)
    shown = [50, 90, 99, 99.9, 99.99, 99.999, 99.9999]
    axes.set(xscale="log", yscale="log", xlabel="percentile of reads", ylabel="latency (µs)",
             title="4 KiB random reads, queue depth 1, null bdevs")
    axes.xaxis.set_major_locator(FixedLocator([1 / (1 - at / 100) for at in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "%g" % round(100 - 100 / value, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "%g" % value))
    axes.legend(loc="upper left")
    return figure


def _rescues(series):
    figure, (above, below) = plt.subplots(2, 1, figsize=(SIZE[0], 5.2), sharex=True)
    seconds, rates, latencies = zip(*series)
    above.plot(seconds, [rate / 1000 for rate in rates], color=COLOURS["remap"])
    above.set(ylabel="thousand rescues a second", ylim=(0, None), title="Every write fails on the base, queue depth 128")
    below.plot(seconds, [latency / 1000 for latency in latencies], color=COLOURS["hits"])
    below.set(xlabel="seconds", ylabel="mean latency (ms)", ylim=(0, None))
    return figure
