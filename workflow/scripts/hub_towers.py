"""Write the configurations of open_clip's text towers of the hub into a cache of the hub, without weights.

    python workflow/scripts/hub_towers.py FOLDER [LAYERS]
    HF_HUB_CACHE=FOLDER HF_HUB_OFFLINE=1 python workflow/scripts/backbones.py
    HF_HUB_CACHE=FOLDER HF_HUB_OFFLINE=1 MODELS=hub pytest tests/clip/test_whole.py

A text tower of the hub is built from its config.json there. Where no hub is in reach, these few numbers are enough to
build one with random weights: to count its parameters, or to compare its embeddings, with at most LAYERS layers if the
machine is small. They are those of the config.json of the same name on huggingface.co; the parameters agree with
docs/model_profile.csv of open_clip. Needs the extra `hub`.
"""

import sys
from pathlib import Path

ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
MT5 = {"vocab_size": 250112, "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
NLLB = {"vocab_size": 256206, "d_model": 1024, "encoder_attention_heads": 16, "decoder_attention_heads": 16}
TOWERS = {
    "roberta-base": ("roberta", ROBERTA | {"vocab_size": 50265}),
    "xlm-roberta-base": ("xlm-roberta", ROBERTA | {"vocab_size": 250002}),
    "xlm-roberta-large": ("xlm-roberta", ROBERTA | LARGE | {"vocab_size": 250002}),
    "google/mt5-base": ("mt5", MT5 | {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
    "google/mt5-xl": ("mt5", MT5 | {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}),
    "facebook/nllb-200-distilled-600M": ("m2m_100", NLLB | {"encoder_layers": 12, "encoder_ffn_dim": 4096}),
    "facebook/nllb-200-distilled-1.3B": ("m2m_100", NLLB | {"encoder_layers": 24, "encoder_ffn_dim": 8192}),
}


def write(folder: Path, layers: int) -> None:
    """A cache of the hub with one file per tower: the layout of huggingface_hub, under a made-up revision."""
    from transformers import AutoConfig  # of an extra that the lock leaves out

    for name, (kind, values) in TOWERS.items():
        home = folder / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text("written-here")
        config = AutoConfig.for_model(kind, **values)
        config.num_hidden_layers = min(config.num_hidden_layers, layers)  # each kind maps it to its own name
        config.save_pretrained(home / "snapshots" / "written-here")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("hub_towers: name a folder for the cache, and at most one number of layers")
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 1000)
