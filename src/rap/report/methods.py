"""`rap adapters`: the registered methods, and the number of parameters that each variant trains."""

from tabulate import tabulate

from rap import paths
from rap.adapters import registry
from rap.clip.backbone import load
from rap.params import Params


def run(params: Params) -> str:
    """Two tables as text: the methods with their option groups, and the variants with their trainable parameters.

    The second also gives the parameters as a share of the configured backbone's.
    """
    clip, config = load(paths.backbone(params.backbone.name))
    whole = sum(p.numel() for p in clip.parameters())
    own = {m.name: [group for group in m.groups if group != "merge"] for m in registry.methods().values()}
    methods = [(m.name, ", ".join(own[m.name]) or "-", m.about) for m in registry.methods().values()]
    variants = []
    for name, variant in params.all_variants.items():
        if clip.visual.whole and registry.needs_blocks(params, name):
            variants.append((name, variant.adapter, "needs blocks", ""))
            continue
        count = registry.build(clip, params, name).count
        variants.append((name, variant.adapter, f"{count:,}", f"{100 * count / whole:.2f} %"))
    return "\n\n".join(
        [
            tabulate(methods, headers=["method", "options", "what it is"]),
            "Every method can also merge frames (merge).",
            f"On {config['name']} ({whole:,} parameters), {params.frames.count} frames:",
            tabulate(
                variants,
                headers=["variant", "method", "trainable", "of CLIP"],
                colalign=("left", "left", "right", "right"),
            ),
        ]
    )
