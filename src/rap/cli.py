"""The `rap` command: parse, call one function, print its summary. A user error gives one line and exit status 2."""

import errno
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from rap import paths
from rap.errors import UserError, require

if TYPE_CHECKING:
    from rap.params import Params

T = TypeVar("T")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rap {metadata.version('rap-retrieval')}")
        raise typer.Exit


REMEDIES = {  # of errors of the operating system
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
    "`dvc repro` or `snakemake --cores 8 results/table1.csv` runs all stages in order; each also runs alone.\n\n"
    "To search a folder of your own videos, with no training and no captions:\n\n"
    "    rap dataset use folder\n"
    "    rap dataset init my-videos\n"
    "    rap index\n"
    '    rap search "a dog jumps"',
)
DATASET_HELP = "Inspect the dataset, or set params.yaml for another one.\n\nrap dataset use msrvtt"
dataset = typer.Typer(no_args_is_help=True, help=DATASET_HELP)
app.add_typer(dataset, name="dataset")
Shards = Annotated[int | None, typer.Option("--shard", help="A group of videos. Default: all `shards`, side by side.")]
Variant = Annotated[str, typer.Option(help="A name under `variants` or `ablations` in params.yaml.")]
Searcher = Annotated[
    str | None, typer.Option("--variant", help="Default: the last trained one of `run`, else zero-shot CLIP.")
]
Approximate = Annotated[
    bool,
    typer.Option("--approximate", help="Read only the cells nearest to a query, from 100,000 videos on. Needs faiss."),
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
    Videos that are gone (404, private, removed) are recorded. See docs/download.md.

        rap download --retry-dead
    """
    _stage("download", **({"retry_dead": True} if retry_dead else {}))


@app.command()
def backbone() -> None:
    """Load the CLIP that params.yaml names and store its weights and config under data/backbones/.

    rap backbone
    """
    _stage("backbone")


@app.command()
def frames(shard: Shards = None) -> None:
    """Decode the videos and store their frames. Needs: download, backbone.

    rap frames --shard 0
    """
    _stages("frames", shard=shard)


@app.command()
def features(
    cache: Annotated[str, typer.Option(help="What to compute: an entry of `features.caches`, such as video-0.")],
    shard: Shards = None,
) -> None:
    """Compute the output of the frozen part of CLIP, once for all variants. Needs: frames, backbone.

    rap features --cache video-2 --shard 0
    """
    _stages("features", cache=cache, shard=shard)


@app.command()
def train(variant: Variant, seed: Seeds = None) -> None:
    """Train one variant from the cache; a killed training continues. Needs: features.

    rap train --variant rap --seed 0
    """
    _stages("train", variant=variant, seed=seed)


@app.command()
def evaluate(variant: Variant, seed: Seeds = None) -> None:
    """Score the test split with a trained variant: metrics, ranks, similarity matrix. Needs: train.

    rap evaluate --variant rap --seed 0
    """
    _stages("evaluate", variant=variant, seed=seed)


@app.command()
def table(table: Annotated[str, typer.Option(help="A name under `tables` in params.yaml, such as table1.")]) -> None:
    """Write a table over all its variants and seeds: CSV, Markdown, picture, and costs. Needs: evaluate.

    rap table --table table1
    """
    _stage("table", table=table)


@app.command()
def report() -> None:
    """Write results/report.html: all tables, figures, examples and the state of the data on one page. Needs: table.

    rap report
    """
    _stage("report")


@app.command()
def verify() -> None:
    """Check every result: name each damaged or stale file with the command that repairs it.

    rap verify
    """
    from rap.verify import run

    _call(run)


@app.command()
def graph(
    write: Annotated[bool, typer.Option("--write", help="Generate dvc.yaml from src/rap/stages.py again.")] = False,
    ablations: Annotated[bool, typer.Option("--ablations", help="Write workflow/ablations/dvc.yaml too.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Write data/provenance.json, which DVC compares.")] = False,
) -> None:
    """List all jobs with their state: fresh, or the reason why not. Or write the DVC files.

    rap graph --write
    rap graph --ablations && dvc repro workflow/ablations/dvc.yaml:table3
    """
    if digests:
        from rap.graph import write_digests

        _call(write_digests)
    elif write or ablations:
        from rap.graph import write as generate

        _call(generate, ablations)
    else:
        from rap.verify import states

        _call(states)


@app.command()
def index() -> None:
    """Prepare a search: download, backbone, frames and features, one job after another, without an engine.

        rap index

    Existing results are kept, so a later run computes only the videos that you added to the list.
    """
    from rap.search.prepare import run

    _call(run)


@app.command()
def search(
    queries: Annotated[
        list[str] | None, typer.Argument(help='A description of the video, in quotes: "a dog jumps".')
    ] = None,
    like: Annotated[list[str] | None, typer.Option(help="Find videos similar to this video or picture.")] = None,
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
    """Rank the dataset's videos for text queries; new videos are added first. Needs: `rap index`, and train if trained.

    Several queries are several searches. Neighbouring spans of one file are one hit.

        rap search "a dog jumps" "two people talk" --top 3
        rap search --like holiday.jpg --json

    The index holds one embedding per video and adapter, under data/DATASET/index/. See docs/search.md.
    """
    form = "json" if json else "csv" if csv else "table"
    model = (variant, seed, adapter, approximate)
    from rap.search.query import run

    _call(run, queries or [], like or [], *model, split, top, form, picture)


@app.command()
def serve(
    variant: Searcher = None,
    seed: Seed = 0,
    approximate: Approximate = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other makes the page public in your network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.")] = 8000,
) -> None:
    """Search in a browser: a local page with playable results. Needs: `rap index`, and train if trained.

        rap serve --port 8080

    It serves only the videos of the manifest. End it with Ctrl-C. See docs/search.md.
    """
    require("uvicorn", "serve")
    from rap.search.serve import run

    _call(run, variant, seed, approximate, host, port)


@app.command()
def doctor() -> None:
    """Check this machine and folder (Python, packages, ffmpeg, device, disk, inputs, weights, MLflow); name remedies.

    rap doctor
    """
    from rap.doctor import run

    _call(run)


@app.command()
def pretrain() -> None:
    """Train the demo's small CLIP again from scratch (half an hour; its weights come with the project).

    rap pretrain
    """
    from rap.demo.pretrain import run

    _call(run)


@app.command()
def adapters() -> None:
    """List the methods, and the variants of params.yaml with their trainable parameters. Needs: backbone.

    rap adapters
    """
    from rap.report.methods import run

    _call(run)


@app.command()
def backbones(
    tag: Annotated[str | None, typer.Option(help="Only models with a tag that contains this, such as laion.")] = None,
    max_gflops: Annotated[float | None, typer.Option(help="Only models of at most this many GFLOPs a frame.")] = None,
    level: Annotated[
        Literal["blocks", "whole"] | None, typer.Option(help="blocks: can be cut at any block; whole: embeddings only.")
    ] = None,
) -> None:
    """List the models for `backbone.name`, with sizes, costs, tags, and the weights on this machine.

        rap backbones --tag webli --max-gflops 50

    See docs/backbones.md for how to choose.
    """
    from rap.report.backbones import run

    _call(run, tag, max_gflops, level)


@app.command()
def sweep(
    variant: Annotated[
        list[str] | None, typer.Option(help="A variant to tune; repeat it for more. Default: `run`.")
    ] = None,
    lr: Annotated[
        list[float] | None,
        typer.Option(min=0, help="A learning rate to try; repeat it for as many as sweep.lr has. Default: sweep.lr."),
    ] = None,
) -> None:
    """Tune variants on validation data, with the same number of learning rates, steps and seeds each. Needs: features.

        rap sweep --variant full --lr 1e-4 --lr 3e-4 --lr 1e-3

    The grid is under `sweep` in params.yaml; results/sweep.csv holds every point. Prints the best values on the
    validation split; copy them into params.yaml yourself. No test clips are read.
    """
    from rap.training.sweep import run

    _call(run, variant or [], lr or [])


@app.command()
def track() -> None:
    """Log every finished run under results/runs to MLflow; runs that are logged already are skipped.

    rap track
    """
    from rap.report.tracking import log_all

    _call(log_all)


@dataset.command()
def stats() -> None:
    """Report which videos are usable, which failed and why, and the lengths of clips and captions. Needs: download.

    rap dataset stats
    """
    from rap.report.dataset import run

    _call(run)


@dataset.command()
def init(
    folder: Annotated[str, typer.Argument(help="The folder that holds your videos.")],
    every: Annotated[str | None, typer.Option(help="List spans of this length: 10s, 1m. For long videos.")] = None,
    shots: Annotated[bool, typer.Option("--shots", help="List the shots: spans from one cut to the next.")] = False,
) -> None:
    """List the videos of a folder in FOLDER.csv, ready for captions.

        rap dataset init my-videos
        rap dataset init recordings --every 10s
        rap dataset init films --shots --every 20s

    List long videos in spans, so that a search finds the moment. With `--shots`, `--every` limits the length of a shot.
    """
    from rap.download.init_csv import run

    _call(run, folder, every, shots)


@dataset.command()
def use(
    name: Annotated[
        str, typer.Argument(help="folder for your own videos, or msrvtt, msvd, didemo, activitynet, lsmdc, vatex.")
    ],
    backbone: Annotated[str | None, typer.Option(help="Another model than ViT-B-32: see `rap backbones`.")] = None,
) -> None:
    """Set the keys of a dataset in params.yaml: its name and folders, backbone, frames, words, batch.

        rap dataset use folder --backbone PE-Core-B-16

    A folder without params.yaml gets one. In a checkout, the DVC files are rewritten.
    """
    from rap.graph import write
    from rap.presets.use import begin, run

    _remedied(lambda: begin(name))
    _call(run, name, backbone)
    if paths.DVC.exists():
        _call(write)


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


def _stages(name: str, **item: Any) -> None:
    """One job or, without a seed or a shard, the jobs of all, each in its own process; a single job runs in this."""
    from rap.stages import STAGES, axes

    axis = STAGES[name].together
    values = _guarded(lambda params: axes(params)[axis]) if item[axis] is None else [item[axis]]
    if len(values) == 1:
        _stage(name, **item | {axis: values[0]}, parallel=STAGES[name].gpu)
        return
    if "RANK" in os.environ:
        raise UserError(f"torchrun runs one job: add --{axis}, one of {', '.join(map(str, values))}")
    from rap.side_by_side import run

    _call(run, name, {key: value for key, value in item.items() if key != axis})


def _leave_processes() -> None:
    """Leave the process group, if there is one: its running threads would abort the process at its end."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _call(function: Callable[..., str | None], *arguments: Any) -> None:
    """Call a function with the parameters; print its summary. A command imports what it calls: others start fast."""
    summary = _guarded(lambda params: function(params, *arguments))
    if summary:
        print(summary)


def _guarded(function: "Callable[[Params], T]") -> T:
    from rap import params

    return _remedied(lambda: function(params.load()))


def _remedied(work: Callable[[], T]) -> T:
    """Call `work`; turn an error of the operating system into a UserError with its remedy."""
    try:
        return work()
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}{os.strerror(error.errno)}; {REMEDIES[error.errno]}") from None


def _is_main() -> bool:
    return not int(os.environ.get("RANK", 0))


def run() -> None:
    """Run the command line. After a user error, ends the process with status 2 and one line on stderr."""
    if other := int(os.environ.get("LOCAL_RANK", 0)):  # only the first of several processes shows progress
        os.environ["TQDM_DISABLE"] = "1"
    try:
        app()
    except UserError as error:
        time.sleep(other and 3)  # all processes find most errors; torchrun ends the others after the first has reported
        print(f"rap: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os._exit(141)
