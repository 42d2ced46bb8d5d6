"""The figure of the README: a motion, its reversal, and the methods that tell them apart. Needs the finished demo."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rap import params, paths
from rap.data.manifest import Manifest
from rap.demo.motions import MOTIONS
from rap.frames.pictures import Pictures
from rap.report.plots import COLOURS, INK, PALE, save, style

KIND = "orbit"
SHOWN = ("late", "static", "shuffled", "lorm", "asa", "st_adapter", "rap")
FILE = Path("assets/twins.png")


def main() -> None:
    settings = params.load()
    manifest = Manifest.read(paths.manifest(settings.dataset.name)).split("test")
    captions = manifest.captions[manifest.captions.kind == KIND].set_index("video_id").caption
    video = captions.index[0]
    twin = manifest.videos.set_index("video_id").twin[video]
    rows = pd.read_csv(paths.table("table1").csv).set_index("variant").loc[list(SHOWN)]
    with style():
        figure = Figure(figsize=(12.6, 3.5), layout="constrained", facecolor="white")
        left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
        _strips(left, settings, {captions[id]: Pictures(settings).strip(id, 8) for id in (video, twin)})
        _bars(right, rows)
        save(figure, FILE)
    print(f"{FILE}: {video} and {twin}")


def _strips(figure, settings: params.Params, clips: dict) -> None:
    for row, (caption, clip) in zip(figure.subfigures(len(clips)), clips.items(), strict=True):
        row.suptitle(f"“{caption}”", fontsize=11, x=0.01, ha="left")
        for axes, frame in zip(row.subplots(1, settings.frames.count), clip, strict=True):
            axes.imshow(frame)
            axes.set_axis_off()


def _bars(figure, rows: pd.DataFrame) -> None:
    axes = figure.subplots()
    means = sum(rows[f"twin_{kind}_mean"] for kind in MOTIONS) / len(MOTIONS)
    colours = [PALE if "control" in label else COLOURS[0] for label in rows.label]
    axes.barh(range(len(rows)), means - 50, left=50, color=colours, height=0.62)
    for place, mean in enumerate(means):
        axes.annotate(
            f"{mean:.0f}", (max(mean, 50), place), (5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.axvline(50, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), rows.label)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(45, 100)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Motions told apart (%)")
    axes.set_xlabel("mean over five kinds; 50 is chance", color=PALE)


if __name__ == "__main__":
    main()
