"""The filters from a decoded picture to the backbone's input, in RGB, shared by both decoders.

The picture is scaled to the backbone's size on its shortest side and cropped at its centre, as CLIP's own transform
does with PIL; or, for backbones trained that way, squashed to a square.
"""

# PIL's bicubic kernel is Keys' with a = -0.5: B = 0, C = 0.5. The default of swscale is C = 0.6.
KERNELS: dict[str, dict] = {
    "bicubic": {"flags": "bicubic", "param0": 0, "param1": 0.5},
    "bilinear": {"flags": "bilinear"},
}
EXACT = "+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
FORMAT = "rgb24"  # of the output: one byte each of red, green and blue
MODES = ("shortest", "squash")


def filters(size: int, interpolation: str, mode: str) -> list[tuple[str, dict]]:
    """Names and options of the ffmpeg filters from a picture of any size to [size, size].

    The caller converts the output to FORMAT.
    """
    kernel = KERNELS[interpolation]
    sides = {"w": str(size), "h": str(size)} if mode == "squash" else _shortest_side(size)
    return [
        # Convert to RGB before scaling, as PIL does: chroma is subsampled.
        ("scale", {"flags": "bicubic" + EXACT}),
        ("format", {"pix_fmts": "gbrp"}),
        ("scale", {**sides, **kernel, "flags": kernel["flags"] + EXACT}),
        ("format", {"pix_fmts": "gbrp"}),
        ("crop", {"out_w": size, "out_h": size, "x": _middle("iw", size), "y": _middle("ih", size)}),
    ]


def _shortest_side(size: int) -> dict[str, str]:
    """torchvision's Resize(size), of the picture as displayed: shortest side `size`, longest side rounded down."""
    return {
        "w": f"if(gte(dar,1),trunc({size}*dar+1e-6),{size})",
        "h": f"if(gte(dar,1),{size},trunc({size}/dar+1e-6))",
    }


def _middle(side: str, size: int) -> str:
    """torchvision's CenterCrop: (side - size) / 2, rounded half to even."""
    spare = f"({side}-{size})"
    return f"if(mod({spare},2),2*round({spare}/4),{spare}/2)"
