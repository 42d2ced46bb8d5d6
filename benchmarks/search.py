"""Search over a million embeddings: building an index and querying it, exact and approximate.

    python benchmarks/search.py [--videos 1000000]

Exact is `rap.search.index.best`: one matrix product and a pass over all cosines. Approximate is an inverted file of
faiss, which groups the embeddings around centres and searches a few groups per query. The embeddings are unit vectors
in clusters of many sizes; the queries lie near some of them. Recall is the share of the ten best that is found.
"""

import statistics
import time

import faiss
import numpy as np
import torch
import typer
from lib import report
from tqdm import tqdm

from rap.search.index import best

WIDTH, TOP, QUERIES = 512, 10, 50
PROBES = (1, 4, 16, 64)  # groups searched per query
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
    index = built(embeddings)
    build = time.perf_counter() - began
    for probes in PROBES:
        index.nprobe = probes
        ms, found = asked(lambda query: index.search(query[None], TOP)[1][0], queries)
        recall = 100 * np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, wanted, strict=True)])
        rows.append({"index": f"{index.nlist} groups, {probes} searched", "build": build, "ms": ms, "recall": recall})
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


def built(embeddings: np.ndarray) -> faiss.IndexIVFFlat:
    """An inverted file of about 4 sqrt(N) groups, whose centres are learnt from 40 embeddings each."""
    groups = int(4 * len(embeddings) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, groups, faiss.METRIC_INNER_PRODUCT)
    index.train(embeddings[:: max(1, len(embeddings) // (40 * groups))])
    index.add(embeddings)
    return index


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
