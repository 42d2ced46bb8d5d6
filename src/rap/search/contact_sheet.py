"""A contact sheet: a strip of frames for each hit of a search, best first."""

from matplotlib.figure import Figure

from rap.errors import UserError
from rap.files import atomic
from rap.frames.pictures import Pictures
from rap.params import Params
from rap.report.plots import INK, PALE, style
from rap.search.hits import Hit

LEAST, MOST = 4, 8  # the least width of the sheet in frames, and the most frames of a strip
SIDE, GAP, HEAD = 1.25, 0.04, 0.55  # inches: side of a frame, gap between frames, space above the strips
LARGE, SMALL = 8, 11  # characters per inch, in the query and in the names


def sheet(params: Params, query: str, hits: list[Hit]) -> Figure:
    """Draw frames of a query's hits; for a merged hit, of its best span. Raises UserError if there are none."""
    pictures = Pictures(params)
    strips = [pictures.strip(hit.id, MOST) for hit in hits]
    width = max(LEAST, *map(len, strips)) * (SIDE + GAP) + 0.3
    height = HEAD + len(strips) * (SIDE + 0.42)
    with style(**{"text.parse_math": False}):  # a query may contain $
        figure = Figure(figsize=(width, height), facecolor="white")
        title = f"“{_fit(query, LARGE * width)}”"
        figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
        for row, (strip, hit) in enumerate(zip(strips, hits, strict=True)):
            top = height - HEAD - row * (SIDE + 0.42)
            caption = f"{row + 1}    {_fit(hit.name, SMALL * (width - 1.5))}"
            figure.text(0.15 / width, (top - 0.13) / height, caption, fontsize=9.5, color=INK, va="center")
            figure.text(
                1 - 0.15 / width, (top - 0.13) / height, f"{hit.cosine:.3f}", fontsize=9.5, color=PALE, va="center",
                ha="right",
            )  # fmt: skip
            for column, frame in enumerate(strip):
                left = (0.15 + column * (SIDE + GAP)) / width
                axes = figure.add_axes((left, (top - 0.26 - SIDE) / height, SIDE / width, SIDE / height))
                axes.imshow(frame, interpolation="bilinear")
                axes.set_axis_off()
    return figure


def save(figure: Figure, file: str) -> None:
    """Write a PNG without metadata. Raises UserError if the file cannot be written."""
    try:
        with atomic(file) as path:
            figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"--picture: {file} cannot be written ({error.strerror}); name another file") from None


def _fit(text: str, most: float) -> str:
    """Replace the middle of a text that is longer than `most` characters with an ellipsis."""
    half = int(most) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
