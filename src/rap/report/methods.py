"""`rap adapters`: the registered methods, and what each variant trains on the configured backbone."""

from tabulate import tabulate

from rap import paths
from rap.adapters import registry
from rap.clip.backbone import load
from rap.params import Params


def run(params: Params) -> str:
    """Two tables: methods with their option groups; variants with trainable parameters, also as a share of CLIP."""
    clip, config = load(paths.backbone(params.backbone.name))
    whole = sum(p.numel() for p in clip.parameters())
    methods = [(m.name, ", ".join(m.groups) or "-", m.about) for m in registry.methods().values()]
    variants = []
    for name, variant in params.all_variants.items():
        count = registry.build(clip, params, name).count
        variants.append((name, variant.adapter, f"{count:,}", f"{100 * count / whole:.2f} %"))
    return "\n\n".join(
        [
            tabulate(methods, headers=["method", "options", "what it is"]),
            f"On {config['name']} ({whole:,} parameters), {params.frames.count} frames:",
            tabulate(
                variants,
                headers=["variant", "method", "trainable", "of CLIP"],
                colalign=("left", "left", "right", "right"),
            ),
        ]
    )
