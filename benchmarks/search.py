"""Search: an index of a million embeddings, built and asked, exact and approximate.

    python benchmarks/search.py [--videos 1000000]

Exact is `rap.search.index.nearest`, one matrix product and a look through all cosines. Approximate is an inverted file
of faiss: the embeddings in cells around centres, of which a query looks into a few. The embeddings are unit vectors in
clusters of many sizes, the queries lie near some of them. Recall is the share of the ten best that is found.
"""

import statistics
import time

import faiss
import numpy as np
import report
import torch
import typer
from tqdm import tqdm

from rap.search.index import nearest

WIDTH, TOP, QUERIES = 512, 10, 50
PROBES = (1, 4, 16, 64)  # cells looked into


def main(videos: int = 1_000_000, threads: int = 2, results: report.Path = report.RESULTS) -> None:
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    about = report.machine()
    random = np.random.default_rng(0)
    embeddings = clustered(random, videos)
    queries = unit(embeddings[random.integers(0, videos, QUERIES)] + 0.03 * random.standard_normal((QUERIES, WIDTH)))
    queries = queries.astype(np.float32)
    exact, wanted = asked(lambda query: nearest(embeddings, query, TOP)[0], queries)
    rows = [{"index": "exact", "build, s": "0", "ms a query": f"{1000 * exact:.1f}", "recall, %": "100.0"}]
    began = time.perf_counter()
    index = built(embeddings)
    build = time.perf_counter() - began
    for probes in PROBES:
        index.nprobe = probes
        seconds, found = asked(lambda query: index.search(query[None], TOP)[1][0], queries)
        recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, wanted, strict=True)])
        row = {"index": f"{index.nlist} cells, {probes} looked into", "build, s": f"{build:.0f}"}
        rows.append(row | {"ms a query": f"{1000 * seconds:.1f}", "recall, %": f"{100 * recall:.1f}"})
    report.write(
        results.resolve(),
        "search",
        {"machine": about, "videos": videos, "width": WIDTH, "rows": rows, "faiss": faiss.__version__},
        report.sentence(about),
        f"{videos:,} embeddings of {WIDTH} numbers, {embeddings.nbytes / 1e9:.2f} GB; medians over {QUERIES} queries, "
        f"asked one at a time, {threads} threads, the {TOP} best; faiss {faiss.__version__}.",
        report.table(rows),
        doc=report.ROOT / "docs/performance.md",
    )


def clustered(random: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors [count, WIDTH] float32 around centres that are chosen with very unequal odds."""
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


def built(embeddings: np.ndarray) -> faiss.IndexIVFFlat:
    """About 4 sqrt(N) cells, whose centres are learnt from 40 embeddings each."""
    cells = int(4 * len(embeddings) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(embeddings[:: max(1, len(embeddings) // (40 * cells))])
    index.add(embeddings)
    return index


def asked(find, queries: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Median seconds of a query, and what each found."""
    taken, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(find(query))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), found


if __name__ == "__main__":
    typer.run(main)
