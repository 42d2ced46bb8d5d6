"""The `rap` command: parse, call one function, print its summary. A user's mistake is one line and exit status 2."""

import errno
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rap.errors import UserError

if TYPE_CHECKING:
    from rap.params import Params

T = TypeVar("T")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rap {metadata.version('rap-retrieval')}")
        raise typer.Exit


CURES = {  # of what the operating system refuses
    errno.ENOSPC: "make room on the disk, then run the same command again",
    errno.EDQUOT: "make room in your quota, then run the same command again",
    errno.EROFS: "the file system is read-only; work in a folder that can be written",
    errno.EISDIR: "a folder lies where a file belongs; move it away, then run the same command again",
    errno.ENOTDIR: "a file lies where a folder belongs; move it away, then run the same command again",
    errno.EACCES: "change the permissions, or work in a folder of your own",
    errno.EPERM: "change the permissions, or work in a folder of your own",
}
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Text-video retrieval with adapters on a frozen, cached CLIP. Every command reads ./params.yaml.\n\n"
    "`dvc repro` or `snakemake --cores 8 results/table1.csv` runs all stages in order; each also runs alone.",
)
dataset = typer.Typer(no_args_is_help=True, help="Inspect the dataset, or set params.yaml for another one.")
app.add_typer(dataset, name="dataset")
Shard = Annotated[int, typer.Option(help="A group of videos: an entry of `shards` in params.yaml.")]
Variant = Annotated[str, typer.Option(help="A name under `variants` or `ablations` in params.yaml.")]
Searcher = Annotated[
    str | None, typer.Option("--variant", help="A variant of params.yaml. Default: rap or, if untrained, zero-shot.")
]
Approximate = Annotated[
    bool, typer.Option("--approximate", help="Read only what is near a query, from 100,000 videos on. Needs faiss.")
]
Seeds = Annotated[int | None, typer.Option("--seed", help="One seed. Default: all of params.yaml, side by side.")]
Seed = Annotated[int, typer.Option(help="Seed of the initialisation and of the order of the data.")]


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def download(
    retry_dead: Annotated[bool, typer.Option("--retry-dead", help="Retry videos that are known to be gone.")] = False,
) -> None:
    """Fetch missing videos, inspect each, and write the manifest: videos, captions, splits.

    Under `download` in params.yaml: `archives` to fetch and unpack, and the address of single `videos` or of their
    `pages` for yt-dlp. After a failure or an interruption, run it again: it continues, and fetches nothing twice.
    Videos that are gone (404, private, removed) are remembered. See docs/download.md.
    """
    _stage("download", **({"retry_dead": True} if retry_dead else {}))


@app.command()
def backbone() -> None:
    """Load the CLIP that params.yaml names and store its weights and config under data/backbones/."""
    _stage("backbone")


@app.command()
def frames(shard: Shard) -> None:
    """Decode the videos of a shard and store their frames. Needs: download, backbone."""
    _stage("frames", shard=shard)


@app.command()
def features(
    cache: Annotated[str, typer.Option(help="What to compute: an entry of `features.caches`, such as video-0.")],
    shard: Shard,
) -> None:
    """Compute the output of the frozen part of CLIP for a shard, once for all variants. Needs: frames, backbone."""
    _stage("features", cache=cache, shard=shard, parallel=True)


@app.command()
def train(variant: Variant, seed: Seeds = None) -> None:
    """Train one variant from the cache; a killed training continues. Needs: features."""
    _stages("train", variant, seed)


@app.command()
def evaluate(variant: Variant, seed: Seeds = None) -> None:
    """Score the test split with a trained variant: metrics, ranks, similarity matrix. Needs: train."""
    _stages("evaluate", variant, seed)


@app.command()
def table(table: Annotated[str, typer.Option(help="A name under `tables` in params.yaml, such as table1.")]) -> None:
    """Write a table over all its variants and seeds: CSV, Markdown, picture, and costs. Needs: evaluate."""
    _stage("table", table=table)


@app.command()
def report() -> None:
    """Write results/report.html: all tables, figures, examples and the state of the data on one page. Needs: table."""
    _stage("report")


@app.command()
def verify() -> None:
    """Check every result: report each damaged or stale file with the command that mends it."""
    _call("rap.verify", "run")


@app.command()
def graph(
    write: Annotated[bool, typer.Option("--write", help="Generate dvc.yaml from src/rap/stages.py again.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Write data/provenance.json, which DVC compares.")] = False,
) -> None:
    """List all jobs with their state: fresh, or the reason why not. Or write what DVC reads of them."""
    if write or digests:
        _call("rap.graph", "write" if write else "write_digests")
    else:
        _call("rap.verify", "states")


@app.command()
def search(
    queries: Annotated[list[str] | None, typer.Argument(help='What the video shows, in quotes: "a dog jumps".')] = None,
    like: Annotated[list[str] | None, typer.Option(help="Search for what resembles a video or a picture.")] = None,
    variant: Searcher = None,
    seed: Seed = 0,
    adapter: Annotated[str | None, typer.Option(help="An adapter.safetensors, in place of variant and seed.")] = None,
    approximate: Approximate = False,
    split: Annotated[str, typer.Option(help="Which videos: all, train, val or test.")] = "all",
    top: Annotated[int, typer.Option(help="How many videos to show.", min=1)] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    picture: Annotated[str | None, typer.Option(help="A PNG file for a contact sheet of their frames.")] = None,
) -> None:
    """Rank the dataset's videos for text queries; new videos are indexed first. Needs: features, and train if trained.

    Several queries are several searches. Neighbouring spans of one file are one hit.

        rap search "a dog jumps" "two people talk" --top 3
        rap search --like holiday.jpg --json

    The index holds one embedding per video and adapter, under data/DATASET/index/. See docs/search.md.
    """
    form = "json" if json else "csv" if csv else "table"
    model = (variant, seed, adapter, approximate)
    _call("rap.search.query", "run", queries or [], like or [], *model, split, top, form, picture)


@app.command()
def serve(
    variant: Searcher = None,
    seed: Seed = 0,
    approximate: Approximate = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Another than this one lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.")] = 8000,
) -> None:
    """Search in a browser: a local page with playable results. Needs: features, and train if trained.

    It serves the videos of the manifest and nothing else. End it with Ctrl-C. See docs/search.md.
    """
    _call("rap.search.serve", "run", variant, seed, approximate, host, port)


@app.command()
def doctor() -> None:
    """Check this machine and folder: Python, packages, ffmpeg, device, disk, inputs, weights, the store; with cures."""
    _call("rap.doctor", "run")


@app.command()
def pretrain() -> None:
    """Train the demo's small CLIP again, from nothing (about ten minutes; its weights come with the project)."""
    _call("rap.demo.pretrain", "run")


@app.command()
def adapters() -> None:
    """List the methods, and the variants of params.yaml with their trainable parameters. Needs: backbone."""
    _call("rap.report.methods", "run")


@app.command()
def backbones(
    tag: Annotated[str | None, typer.Option(help="Only models with a tag that contains this, such as laion.")] = None,
    max_gflops: Annotated[float | None, typer.Option(help="Only models up to this cost of a frame.")] = None,
    level: Annotated[str | None, typer.Option(help="blocks: can be cut at any block; whole: embeddings only.")] = None,
) -> None:
    """List the models that `backbone.name` may name, with sizes, costs, tags, and the weights that this machine has.

        rap backbones --tag webli --max-gflops 50

    See docs/backbones.md on how to choose.
    """
    _call("rap.report.backbones", "run", tag, max_gflops, level)


@app.command()
def sweep(
    variant: Annotated[
        list[str] | None, typer.Option(help="A variant to tune; repeat it for more. Default: `run`.")
    ] = None,
) -> None:
    """Tune variants on validation data: the same learning rates, steps and seeds for each. Needs: features.

    The grid stands under `sweep` in params.yaml; results/sweep.csv holds every point. It prints the values that the
    validation split prefers and changes nothing: put them into params.yaml. No test clip is read.
    """
    _call("rap.training.sweep", "run", variant or [])


@app.command()
def track() -> None:
    """Log every finished run under results/runs to MLflow; runs that are logged already are skipped."""
    _call("rap.report.tracking", "log_all")


@dataset.command()
def stats() -> None:
    """Report which videos are usable, which failed and why, and the lengths of clips and captions. Needs: download."""
    _call("rap.report.dataset", "run")


@dataset.command()
def init(
    folder: Annotated[str, typer.Argument(help="The folder that holds your videos.")],
    every: Annotated[str | None, typer.Option(help="List spans of this length: 10s, 1m. For long videos.")] = None,
    shots: Annotated[bool, typer.Option("--shots", help="List the shots: spans from one cut to the next.")] = False,
) -> None:
    """List the videos of a folder in FOLDER.csv, ready for captions.

    Long videos are best listed in spans, so that a search finds the moment: `rap dataset init recordings --every 10s`,
    or `rap dataset init films --shots --every 20s`, where the length limits that of a shot.
    """
    _call("rap.data.init_csv", "run", folder, every, shots)


@dataset.command()
def use(
    name: Annotated[str, typer.Argument(help="A file in workflow/datasets: msrvtt, msvd, didemo, …")],
    backbone: Annotated[str | None, typer.Option(help="Another model than ViT-B-32: see `rap backbones`.")] = None,
) -> None:
    """Set what a dataset needs in params.yaml: its name and folders, backbone, frames, words, batch.

    rap dataset use folder --backbone PE-Core-B-16
    """
    _call("rap.params.presets", "run", name, backbone)
    _call("rap.graph", "write")


def _stage(name: str, *, parallel: bool = False, **item: Any) -> None:
    """Run a job. A `parallel` stage starts as many processes as params.yaml says, unless torchrun did."""
    began = time.perf_counter()

    def run(params: "Params") -> str:
        from rap.jobs import perform

        if parallel and params.runtime.processes > 1:
            from rap.runtime import distributed

            if not distributed.launched():
                sys.exit(distributed.launch(params.runtime.processes, sys.argv[1:]))
        try:
            return perform(params, name, **item)
        finally:
            _leave_processes()

    summary = _guarded(run)
    if summary and _is_main():
        print(f"{summary}; {time.perf_counter() - began:.1f} s", flush=True)


def _stages(name: str, variant: str, seed: int | None) -> None:
    """The job of one seed, or those of all seeds, each in a process of its own."""
    if seed is None:
        _call("rap.side_by_side", "run", name, variant)
    else:
        _stage(name, variant=variant, seed=seed, parallel=True)


def _leave_processes() -> None:
    """Leave the process group, if there is one: its threads abort a process that ends while they run."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _call(module: str, function: str, *arguments: Any) -> None:
    """Call a function of a module, which is imported only now, with the parameters; print its summary."""
    summary = _guarded(lambda params: getattr(import_module(module), function)(params, *arguments))
    if summary:
        print(summary)


def _guarded(function: "Callable[[Params], T]") -> T:
    try:
        from rap import params

        return function(params.load())
    except OSError as error:
        if error.errno not in CURES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}{os.strerror(error.errno)}; {CURES[error.errno]}") from None


def _is_main() -> bool:
    return not int(os.environ.get("RANK", 0))


def run() -> None:
    """Do what the command line says. Ends the process with status 2 and one line on stderr after a user's mistake."""
    if other := int(os.environ.get("LOCAL_RANK", 0)):  # of several processes only the first shows its progress
        os.environ["TQDM_DISABLE"] = "1"
    try:
        app()
    except UserError as error:
        time.sleep(other and 3)  # and reports a mistake: mostly all find the same one, and end when the first does
        print(f"rap: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os._exit(141)
