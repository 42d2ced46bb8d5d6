"""The `rap` command: parse, call one stage, print its summary. A user's mistake is one line and exit status 2."""

import importlib
import os
import sys
import time
from typing import Annotated

import typer

from rap.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text-video retrieval with adapters on a frozen, cached CLIP. Every command reads ./params.yaml.\n\n"
    "`dvc repro` or `snakemake --cores 8 results/table1.csv` runs all stages in order; each also runs alone.",
)
dataset = typer.Typer(no_args_is_help=True, help="Look at the dataset, or set params.yaml for another one.")
app.add_typer(dataset, name="dataset")
Shard = Annotated[int, typer.Option(help="Which group of videos: an entry of `shards` in params.yaml.")]
Variant = Annotated[str, typer.Option(help="A name under `variants` in params.yaml.")]
Seed = Annotated[int, typer.Option(help="Seed of initialisation and of the order of the data.")]


@app.command()
def download(
    retry_dead: Annotated[bool, typer.Option("--retry-dead", help="Ask again for what was gone for good.")] = False,
) -> None:
    """Bring what is missing of the videos, look at each, and write the manifest: videos, captions, splits.

    Under `download` in params.yaml: `archives` to fetch and unpack, and where single `videos`, or their `pages` for
    yt-dlp, are to be had. Run it again after a failure or an interruption: it goes on where it stopped, and asks for
    nothing that is there. What is gone for good (404, private, removed) is remembered. See docs/download.md.
    """
    _stage("rap.download.stage", retry_dead)


@app.command()
def backbone() -> None:
    """Load the CLIP that params.yaml names and store its weights and config under data/backbones/."""
    _stage("rap.clip.backbone")


@app.command()
def frames(shard: Shard) -> None:
    """Decode the videos of a shard and store their frames. Needs: download, backbone."""
    _stage("rap.frames.stage", shard)


@app.command()
def features(
    cache: Annotated[str, typer.Option(help="What to compute: an entry of `features.caches`, such as video-0.")],
    shard: Shard,
) -> None:
    """Compute what the frozen part of CLIP makes of a shard, once for all variants. Needs: frames, backbone."""
    _stage("rap.features.stage", cache, shard, together=True)


@app.command()
def train(variant: Variant, seed: Seed) -> None:
    """Train one variant with one seed from the cache; goes on where a killed run stopped. Needs: features."""
    _stage("rap.training.stage", variant, seed, together=True)


@app.command()
def evaluate(variant: Variant, seed: Seed) -> None:
    """Score the test split with a trained variant: metrics, ranks, similarity matrix. Needs: train."""
    _stage("rap.evaluation.stage", variant, seed, together=True)


@app.command()
def table(table: Annotated[str, typer.Option(help="A name under `tables` in params.yaml, such as table1.")]) -> None:
    """Write a table over all its variants and seeds: CSV, Markdown, picture, and costs. Needs: evaluate."""
    _stage("rap.report.table", table)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='What the video shows, in quotes: "a dog jumps".')],
    variant: Variant = "rap",
    seed: Seed = 0,
    adapter: Annotated[str | None, typer.Option(help="An adapter.safetensors, in place of variant and seed.")] = None,
    split: Annotated[str, typer.Option(help="Whose videos: all, train, val or test.")] = "all",
    top: Annotated[int, typer.Option(help="How many videos to show.", min=1)] = 10,
    picture: Annotated[str | None, typer.Option(help="A PNG file for a contact sheet of their frames.")] = None,
) -> None:
    """Rank the dataset's videos by a sentence, and index first what is new. Needs: features; train, but for zero-shot.

    The index holds one embedding per video and adapter, under data/DATASET/index/. See docs/search.md.
    """
    print(_call("rap.search.query", "run", query, variant, seed, adapter, split, top, picture))


@app.command()
def pretrain() -> None:
    """Train the demo's small CLIP again, from nothing (about ten minutes; its weights come with the project)."""
    _stage("rap.demo.pretrain")


@app.command()
def adapters() -> None:
    """List the methods, and the variants of params.yaml with their trainable parameters. Needs: backbone."""
    print(_call("rap.report.methods", "run"))


@app.command()
def track() -> None:
    """Log every finished run under results/runs to MLflow; runs that are there already are left alone."""
    print(_call("rap.report.tracking", "log_all"))


@dataset.command()
def stats() -> None:
    """Tell what is there, what failed and why, lengths of videos and captions; draw the durations. Needs: download."""
    print(_call("rap.report.dataset", "run"))


@dataset.command()
def init(folder: Annotated[str, typer.Argument(help="The folder that holds your videos.")]) -> None:
    """List a folder's videos in FOLDER.csv, ready for captions."""
    print(_call("rap.data.init_csv", "run", folder))


@dataset.command()
def use(name: Annotated[str, typer.Argument(help="A file in workflow/datasets: msrvtt, msvd, didemo, …")]) -> None:
    """Set what a dataset asks for in params.yaml: its name and folders, backbone, frames, words, batch."""
    print(_call("rap.params.presets", "run", name))


def _stage(module: str, *arguments, together: bool = False) -> None:
    """Run a stage; one that works `together` starts as many processes as params.yaml says, unless torchrun did."""
    began = time.perf_counter()
    summary = _call(module, "run", *arguments, together=together)
    if summary:
        print(f"{summary}; {time.perf_counter() - began:.1f} s", flush=True)


def _call(module: str, function: str, *arguments, together: bool = False) -> str:
    try:
        from rap import adapters, params
        from rap.runtime import distributed

        settings = adapters.check(params.load())
        if together and settings.runtime.processes > 1 and not distributed.launched():
            sys.exit(distributed.launch(settings.runtime.processes, sys.argv[1:]))
        return getattr(importlib.import_module(module), function)(settings, *arguments)
    except KeyboardInterrupt:  # here, and not in main: typer would end the process without a word
        print("rap: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Entry point. Exit status 2: the user's to fix, one line on stderr. 130: interrupted."""
    if other := int(os.environ.get("LOCAL_RANK", 0)):  # of several processes the first one shows how far it is,
        os.environ["TQDM_DISABLE"] = "1"
    try:
        app()
    except UserError as error:
        time.sleep(other and 3)  # and says what is wrong: mostly all find the same, and end when one does
        print(f"rap: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os._exit(141)


if __name__ == "__main__":
    main()
