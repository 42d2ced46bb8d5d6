"""The backbone stage: converts a CLIP of open_clip, by name and tag or from a local file, into a backbone's folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from rap import paths
from rap.clip import weights
from rap.clip.backbone import DEMO, build
from rap.clip.models import open_clip_config
from rap.clip.tokenizer import tokenize
from rap.clip.torchscript import is_torchscript
from rap.errors import UserError
from rap.files import atomic, digest, digest_file, read_json, write_json
from rap.params import Backbone

if TYPE_CHECKING:
    from rap.jobs import Job


def run(job: "Job") -> str:
    """Write data/backbones/NAME/weights.safetensors, config.json and their record.

    Raises UserError if the model is unknown, or if its weights are missing or belong to another model.
    """
    wanted = job.params.backbone
    folder = paths.backbone(wanted.name)
    job.reads_external()
    config = None if wanted.name == DEMO else open_clip_config(wanted.name, wanted.pretrained)
    file = source_file(wanted)
    state = weights.read(file)
    config = config or read_json(file.with_suffix(".json"))
    if is_torchscript(file) and not config["model"].get("quick_gelu"):
        raise UserError(
            f"{file}: a TorchScript archive of OpenAI, trained with QuickGELU, which {wanted.name} does not use; "
            "set backbone.pretrained: openai in addition to backbone.weights"
        )
    tokenize(["a"], config["tokenizer"], 2)  # a missing tokenizer is reported now, and not by the first search
    clip = build(config, state, str(file))
    with atomic(folder.weights) as path:
        save_file({name: tensor.contiguous() for name, tensor in clip.weights.state_dict().items()}, path)
    config["digest"] = digest_file(folder.weights)
    config["source"] = {"file": file.name, "digest": digest_file(file)}
    write_json(folder.config, config)
    files = {file.name: digest_file(file) for file in folder.files}
    job.result(digest(files), files).write(folder.record)
    count = sum(tensor.numel() for tensor in clip.weights.state_dict().values())
    gelu = "QuickGELU" if config["model"].get("quick_gelu") else "GELU"
    return (
        f"{folder}: {wanted.name} with {gelu} from {file}, {count / 1e6:.2f} M parameters, "
        f"digest {config['digest'][:12]}"
    )


def source_file(wanted: Backbone) -> Path:
    """The weights file named in params.yaml: a local file, or the file of open_clip's tag."""
    if wanted.file:
        return wanted.file
    if wanted.pretrained and wanted.name != DEMO:
        return weights.find(wanted.name, wanted.pretrained)
    raise UserError(
        f"backbone: {wanted.name} has no weights; set backbone.weights to a file or backbone.pretrained to a tag"
    )
