"""The faults: a name, a file, the text that is replaced, and the tests of which one must go red."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOP, ASA, LORM = "tests/training/test_loop.py", "tests/adapters/test_asa.py", "tests/adapters/test_lorm.py"


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
)
