"""`rap search`: the hits, as a table, as JSON or as CSV."""

import csv
import json
from io import StringIO

from tabulate import tabulate

from rap.errors import UserError
from rap.params import Params
from rap.progress import note
from rap.search.hits import Hit
from rap.search.library import Library

Found = dict[str, list[Hit]]  # the hits of each query, best first
COLUMNS = ("query", "rank", "cosine", "file", "start", "end", "split")


def run(
    params: Params,
    queries: list[str],
    like: list[str],
    variant: str | None,
    seed: int,
    adapter: str | None,
    approximate: bool,
    split: str,
    top: int,
    form: str,
    picture: str | None,
) -> str:
    """The best videos for each query and each example in the `form` table, json or csv; `picture` gets their frames.

    Raises UserError if there is no query, a query is empty, or nothing is cached yet.
    """
    asked = [*queries, *like]
    if not asked:
        raise UserError(
            'search: nothing to search for; give a text, such as `rap search "a dog jumps"`, or --like FILE'
        )
    if picture and len(asked) > 1:
        raise UserError(f"--picture: a contact sheet shows one search, and there are {len(asked)}; ask one at a time")
    library = Library.open(params, variant, seed, adapter, approximate)
    found = {query: library.text(query, top, split) for query in queries}
    found |= {example: library.like(example, top, split) for example in like}
    if picture:
        from rap.search import contact_sheet  # which imports matplotlib

        contact_sheet.save(contact_sheet.sheet(params, asked[0], found[asked[0]]), picture)
    if library.note and form != "table":  # whose last line has it
        note(library.note)
    return FORMS[form](found, library, picture)


def table(found: Found, library: Library, picture: str | None) -> str:
    """A table for each query, and a line on the searched videos."""
    parts = []
    for query, hits in found.items():
        rows = [(rank, f"{hit.cosine:.3f}", hit.name) for rank, hit in enumerate(hits, start=1)]
        text = tabulate(rows, ("rank", "cosine", "video"), disable_numparse=True, colalign=("right", "right", "left"))
        parts.append(f"{query}\n\n{text}" if len(found) > 1 else text)
    about = f"{len(library.index.videos)} videos searched by {library.variant}"
    about += f", {library.made} indexed now" if library.made else ""
    about += f"; {library.note}" if library.note else ""
    return "\n\n".join([*parts, about + (f"; their frames: {picture}" if picture else "")])


def as_json(found: Found, library: Library, picture: str | None) -> str:
    """One object: `searched`, `variant`, `note`, and under `queries` the hits of each."""
    queries = [{"query": query, "hits": [hit.values() for hit in hits]} for query, hits in found.items()]
    about = {"searched": len(library.index.videos), "variant": library.variant, "note": library.note}
    return json.dumps(about | {"queries": queries}, indent=2, ensure_ascii=False)


def as_csv(found: Found, library: Library, picture: str | None) -> str:
    """A row for each hit; an empty start or end means that of the file."""
    text = StringIO()
    rows = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for query, hits in found.items():
        for rank, hit in enumerate(hits, start=1):
            row = {"query": query, "rank": rank, **hit.values()}
            rows.writerow({name: inert(value) for name, value in row.items()})
    return text.getvalue().rstrip("\n")


def inert(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; it then stays text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


FORMS = {"table": table, "json": as_json, "csv": as_csv}
