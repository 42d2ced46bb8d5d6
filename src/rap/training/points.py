"""The points of a sweep: results/sweep.csv. Each line ends with a checksum of the line."""

from io import StringIO

import pandas as pd

from rap import paths
from rap.errors import UserError
from rap.files import digest, write_text
from rap.params import Params

COLUMNS = ["variant", "key", "value", "seed", "steps", "R@1", "twin", "provenance"]
HEADER = ",".join([*COLUMNS, "checksum"])


def read() -> pd.DataFrame:
    """All points so far. Raises UserError if a line is damaged."""
    file = paths.sweep()
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    header, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if header != HEADER:
        raise UserError(f"{file}: the first line is not {HEADER}; restore it from git, or remove the file")
    for number, line in enumerate(lines, start=2):
        values, _, checksum = line.rpartition(",")
        if checksum != _checksum(values):
            said = "damaged; remove the line, and `rap sweep` measures the point again"
            raise UserError(f"{file}, line {number}: {said}")
    return pd.read_csv(StringIO("\n".join([header, *lines])), dtype={"provenance": str})[COLUMNS]


def write(points: pd.DataFrame) -> None:
    text = points.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    lines = text.splitlines()[1:]
    write_text(paths.sweep(), "\n".join([HEADER, *(f"{line},{_checksum(line)}" for line in lines), ""]))


def _checksum(line: str) -> str:
    return digest(line)[:16]


def chosen(points: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """By variant, the key and the value with the highest mean of R@1 and twin accuracy over seeds; ties: the first."""
    best: dict[str, tuple[str, float]] = {}
    for name, rows in points.groupby("variant", sort=False):
        means = rows.assign(score=rows[["R@1", "twin"]].mean(axis=1)).groupby(["key", "value"], sort=False).score.mean()
        best[str(name)] = means.idxmax()
    return best


def differences(params: Params, points: pd.DataFrame) -> list[str]:
    """One line for each value in params.yaml that differs from the sweep's choice."""
    found = []
    for name, (key, value) in chosen(points).items():
        part, option = key.split(".")
        stated = params.training(name).lr if part == "train" else params.variant(name).options[part][option]
        if stated != value:
            found.append(f"{params.path(name)}.{key} is {stated:g}; the sweep chose {value:g}")
    return found
