"""Search over a million embeddings: building an index and querying it, exact and approximate.

    python benchmarks/search.py [--videos 1000000]

Exact is one matrix product and `rap.search.index.best`, a pass over all cosines. Approximate is `rap.search.cells`,
which reads a few groups of embeddings per query. The embeddings are unit vectors in clusters of many sizes; the queries
lie near some of them. Recall is the share of the ten best that is found.
"""

import statistics
import time

import faiss
import numpy as np
import torch
import typer
from lib import report
from tqdm import tqdm

from rap.search import cells
from rap.search.index import best

WIDTH, TOP, QUERIES = 512, 10, 50
READ = (1, 4, cells.READ, 64)  # cells that a query reads
TABLE = (
    "index | build, s | ms per query | recall, %",
    "{index} | {build:.0f} | {ms:.1f} | {recall:.1f}",
)


def main(videos: int = 1_000_000, threads: int = 2) -> None:
    out, random = report.Report("search"), np.random.default_rng(0)
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    embeddings = clustered(random, videos)
    queries = unit(embeddings[random.integers(0, videos, QUERIES)] + 0.03 * random.standard_normal((QUERIES, WIDTH)))
    queries = queries.astype(np.float32)
    ms, wanted = asked(lambda query: best(embeddings @ query, TOP), queries)
    rows = [{"index": "exact", "build": 0, "ms": ms, "recall": 100.0}]
    began = time.perf_counter()
    made, usable = cells.build(embeddings), np.ones(videos, bool)
    build = time.perf_counter() - began
    for read in READ:

        def near(query: np.ndarray, read: int = read) -> np.ndarray:
            rows = made.near(query, usable, TOP, read)
            return rows[best(embeddings[rows] @ query, TOP)]

        ms, found = asked(near, queries)
        recall = 100 * np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, wanted, strict=True)])
        rows.append({"index": f"{len(made.centres)} cells, {read} read", "build": build, "ms": ms, "recall": recall})
    out.write(
        {"videos": videos, "width": WIDTH, "rows": rows, "faiss": faiss.__version__},
        f"{videos:,} embeddings of {WIDTH} numbers, {embeddings.nbytes / 1e9:.2f} GB; medians over {QUERIES} queries, "
        f"one at a time, {threads} threads, the {TOP} best; faiss {faiss.__version__}.",
        report.table(rows, TABLE),
    )


def clustered(random: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors float32 [count, WIDTH] around centres of very unequal probability."""
    centres = random.standard_normal((max(10, count // 500), WIDTH)).astype(np.float32)
    odds = 1 / np.arange(1, len(centres) + 1) ** 0.5
    found = np.empty((count, WIDTH), np.float32)
    for start in tqdm(range(0, count, 50_000), desc="embeddings"):
        part = found[start : start + 50_000]
        chosen = random.choice(len(centres), len(part), p=odds / odds.sum())
        part[:] = unit(centres[chosen] + 0.8 * random.standard_normal(part.shape).astype(np.float32))
    return found


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def asked(find, queries: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Median milliseconds of a query, and the result of each."""
    taken, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(find(query))
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken), found


if __name__ == "__main__":
    typer.run(main)
