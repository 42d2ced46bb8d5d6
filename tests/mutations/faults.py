"""The faults: a name, a file, the text that is replaced, and the tests of which one must go red."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLED, SIGNALS = "tests/test_unfinished.py", "tests/runtime/test_signals.py"
LOOP, ASA, LORM = "tests/training/test_loop.py", "tests/adapters/test_asa.py", "tests/adapters/test_lorm.py"
FAMILIES = "tests/clip/test_families.py"


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutated(fault: Fault) -> str:
    """The file with the fault. Raises ValueError unless the text to replace is there exactly once."""
    text = (ROOT / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.file} has {fault.old!r} {text.count(fault.old)} times")
    return text.replace(fault.old, fault.new)


FAULTS = (
    Fault("worst epoch", "src/rap/training/loop.py", "recall > state.best[0]", "recall < state.best[0]", (LOOP,)),
    Fault(
        "selects on test", "src/rap/training/loop.py", "corpus.split(settings.select)", 'corpus.split("test")', (LOOP,)
    ),
    Fault(
        "best weights not restored",
        "src/rap/training/stage.py",
        "        model.adapter.load_state_dict(state.best[2])",
        "        pass",
        (LOOP,),
    ),
    Fault("schedule not stepped", "src/rap/training/loop.py", "            state.schedule.step()\n", "", (LOOP,)),
    Fault("no clipping", "src/rap/training/loop.py", "(weights, settings.clip_norm)", "(weights, 1e9)", (LOOP,)),
    Fault("no decay", "src/rap/training/optimiser.py", '"weight_decay": decay', '"weight_decay": 0.0', (LOOP,)),
    Fault(
        "no mask of the same video",
        "src/rap/training/loop.py",
        "positives.to(device))",
        "torch.eye(len(positives), dtype=torch.bool, device=device))",
        (LOOP,),
    ),
    Fault(
        "twins apart",
        "src/rap/training/batches.py",
        "corpus.manifest.videos, settings.twins)",
        "corpus.manifest.videos, False)",
        ("tests/training/test_training.py",),
    ),
    Fault(
        "(1 + S)(x + C)",
        "src/rap/adapters/lorm.py",
        "torch.addcmul(x + shift.to(x.dtype), x, scale.to(x.dtype))",
        "(x + shift.to(x.dtype)) * (1 + scale.to(x.dtype))",
        (LORM,),
    ),
    Fault("half a frame off", "src/rap/adapters/layers.py", "time * len(table) - 0.5", "time * len(table)", (LORM,)),
    Fault(
        "length ignored",
        "src/rap/adapters/layers.py",
        "+ 0.5) / length[:, None]",
        "+ 0.5).expand(len(length), -1) / frames",
        (LORM,),
    ),
    Fault(
        "offset in time reversed", "src/rap/adapters/asa.py", "frames) + self.delta[", "frames) - self.delta[", (ASA,)
    ),
    Fault(
        "bias in time reversed",
        "src/rap/adapters/asa.py",
        "[:, None, :, None] - self.delta",
        "[:, None, :, None] + self.delta",
        (ASA,),
    ),
    Fault(
        "rows and columns swapped",
        "src/rap/adapters/asa.py",
        "[place % grid, place // grid]",
        "[place // grid, place % grid]",
        (ASA,),
    ),
    Fault(
        "least responsive patches",
        "src/rap/adapters/asa.py",
        "attention.mean(2).topk(self.top_k, dim=-1)",
        "(-attention.mean(2)).topk(self.top_k, dim=-1)",
        (ASA,),
    ),
    Fault(
        "least responsive patches to a text",
        "src/rap/adapters/asa.py",
        "response.topk(self.top_k, dim=-1)",
        "(-response).topk(self.top_k, dim=-1)",
        (ASA,),
    ),
    Fault(
        "queries as clusters",
        "src/rap/report/table.py",
        'index.get_level_values("cluster")',
        'index.get_level_values("id")',
        ("tests/report/test_table.py",),
    ),
    Fault(
        "no Holm",
        "src/rap/report/table.py",
        "statistics.holm(found.p[tested].tolist())",
        "found.p[tested].tolist()",
        ("tests/report/test_table.py",),
    ),
    Fault(
        "first seed only",
        "src/rap/report/table.py",
        "for seed in params.seeds}",
        "for seed in params.seeds[:1]}",
        ("tests/report/test_table.py",),
    ),
    Fault(
        "a damaged row of an unfinished shard is kept",
        "src/rap/unfinished.py",
        "if checksum(array[self.places[id]]) == row.checksum",
        "if True",
        (KILLED,),
    ),
    Fault("half a batch is kept", "src/rap/shards.py", "if len(begun.waiting) == together:", "if True:", (KILLED,)),
    Fault(
        "disk space is not taken first",
        "src/rap/unfinished.py",
        "allocate(self.array_file, self.array_file.stat().st_size)",
        "pass",
        (KILLED,),
    ),
    Fault("leftovers are not swept", "src/rap/runtime/alone.py", "left.unlink(missing_ok=True)", "pass", (SIGNALS,)),
    Fault("children live on", "src/rap/runtime/signals.py", "    end_children()\n    raise", "    raise", (SIGNALS,)),
    Fault(
        "a server may drip",
        "src/rap/download/http.py",
        "if gained < LEAST_RATE * taken",
        "if False",
        ("tests/download/test_http.py",),
    ),
    Fault(
        "a key may stand twice",
        "src/rap/params/reading.py",
        "names.count(key.value) > 1",
        "False",
        ("tests/params/test_params.py",),
    ),
    Fault(
        "names on the page are code",
        "src/rap/report/page/stage.py",
        "autoescape=True",
        "autoescape=False",
        ("tests/report/test_page.py",),
    ),
    Fault(
        "the gallery shows the worst clips",
        "src/rap/report/page/gallery.py",
        "np.argsort(-similarity",
        "np.argsort(similarity",
        ("tests/report/test_page.py",),
    ),
    Fault(
        "MLflow shows the time of logging",
        "src/rap/report/mlflow_run.py",
        "return int(1000 * min(begun, ended)),",
        "return int(1000 * time.time()),",
        ("tests/report/test_tracking.py",),
    ),
    Fault(
        "a length in the journal is believed",
        "src/rap/unfinished.py",
        "if sum == xxhash.xxh3_64_hexdigest(text.encode()) else None",
        "if sum else None",
        ("tests/test_unfinished.py",),
    ),
    Fault(
        "an array may go on after its last row",
        "src/rap/unfinished.py",
        "if file.stat().st_size != array.offset + array.nbytes:",
        "if False:",
        ("tests/test_hurt_files.py",),
    ),
    Fault(
        "a header that numpy cannot parse is a traceback",
        "src/rap/unfinished.py",
        "    except Exception as error:  # numpy",
        "    except EOFError as error:  # numpy",
        ("tests/test_shard_histories.py",),
    ),
    Fault(
        "an evaluation believes the adapter",
        "src/rap/evaluation/stage.py",
        "job.reads(folder.record, folder.adapter.name)",
        "job.reads(folder.record)",
        ("tests/test_hurt_files.py",),
    ),
    Fault(
        "a full disk is an error of torch",
        "src/rap/training/state.py",
        "raise error.__context__ or error from None",
        "raise",
        ("tests/test_full_disk.py",),
    ),
    Fault(
        "ffmpeg lives on after SIGKILL",
        "src/rap/frames/ffmpeg.py",
        "subprocess.run(tied(command),",
        "subprocess.run(command,",
        ("tests/runtime/test_signals.py",),
    ),
    Fault(
        "processes live on after SIGKILL",
        "src/rap/runtime/distributed.py",
        "tied([sys.executable,",
        "([sys.executable,",
        ("tests/runtime/test_signals.py",),
    ),
    Fault(
        "a signal to several processes is a traceback",
        "src/rap/runtime/distributed.py",
        "        raise Ended(signal.sigval) from None",
        "        raise",
        ("tests/runtime/test_signals.py",),
    ),
    Fault(
        "a redirect to any host is followed",
        "src/rap/download/http.py",
        'if new.scheme in ("http", "https") and not any(',
        "if False and not any(",
        ("tests/download/test_http.py",),
    ),
    Fault(
        "a changed video is not named",
        "src/rap/download/stage.py",
        "if digest and known.get(path, digest) != digest",
        "if False",
        ("tests/download/test_download.py",),
    ),
    Fault(
        "a crop is rounded",
        "src/rap/frames/sparse.py",
        "    decoder.flags |= av.codec.context.Flags.unaligned",
        "    pass",
        ("tests/frames/test_sparse.py",),
    ),
    Fault(
        "a squashed picture is cropped",
        "src/rap/frames/pixels.py",
        'if mode == "squash" else',
        "if False else",
        ("tests/frames/test_frames.py",),
    ),
    Fault(
        "a method that needs blocks is built without",
        "src/rap/adapters/registry.py",
        "if clip.visual.whole and needs_blocks(params, variant):",
        "if False:",
        ("tests/clip/test_whole.py",),
    ),
    Fault(
        "patches have no place",
        "src/rap/clip/timm_eva.py",
        "apply_rot_embed_cat(x[..., fixed:, :], rope, half=self.inner.attn.rotate_half)",
        "x[..., fixed:, :]",
        (FAMILIES,),
    ),
    Fault(
        "padding is read",
        "src/rap/clip/variants.py",
        "allowed & (words <= context.length[:, None])[:, None]",
        "allowed.expand(len(x), -1, -1)",
        (FAMILIES,),
    ),
    Fault(
        "a pool sees one token",
        "src/rap/clip/timm_vit.py",
        'trunk.attn_pool is None and trunk.global_pool == "token"',
        "True",
        (FAMILIES,),
    ),
    Fault(
        "a caption ends a word early",
        "src/rap/clip/tokenizer.py",
        '(ids if end == "argmax" else ids == end).argmax(1) + 1',
        '(ids if end == "argmax" else ids == end).argmax(1)',
        (FAMILIES,),
    ),
    Fault(
        "a clock set back gives a negative time",
        "src/rap/report/mlflow_run.py",
        "int(1000 * min(begun, ended))",
        "int(1000 * begun)",
        ("tests/report/test_tracking.py",),
    ),
    Fault(
        "a finished job keeps what it continued from",
        "src/rap/jobs.py",
        "        file.unlink(missing_ok=True)",
        "        pass",
        (SIGNALS,),
    ),
    Fault(
        "half of a checkpoint stays",
        "src/rap/stages.py",
        "        parts=lambda params, item: [paths.run(**item).checkpoint],",
        "",
        (SIGNALS,),
    ),
    Fault(
        "an end between two renames loses the rows",
        "src/rap/shards.py",
        "    begun.finish(stem.array)",
        "        begun.finish(stem.array)",
        ("tests/test_shards.py",),
    ),
    Fault("signals are obeyed late", "src/rap/__main__.py", "        obey()\n", "        pass\n", (SIGNALS,)),
    Fault(
        "two searches write one index",
        "src/rap/search/index.py",
        'with alone(stem.record, "rap search"):',
        "if True:",
        ("tests/search/test_search.py",),
    ),
    Fault(
        "an adapter of another backbone answers",
        "src/rap/search/library.py",
        'return "trained on another backbone"',
        'return ""',
        ("tests/search/test_library.py",),
    ),
    Fault(
        "a list of files passes for a video",
        "src/rap/frames/ffmpeg.py",
        'FORMATS = "mov,',
        'FORMATS = "concat,mov,',
        ("tests/frames/test_hostile.py",),
    ),
    Fault(
        "names that are not listed count",
        "src/rap/data/datasets/didemo.py",
        "if listed is not None and moment.video not in listed:",
        "if False:",
        ("tests/data/datasets/test_benchmarks.py",),
    ),
    Fault(
        "another caption of the video is a negative",
        "src/rap/retrieval/loss.py",
        ".masked_fill(_others(positives), 0)",
        "",
        ("tests/training/test_training.py",),
    ),
)
