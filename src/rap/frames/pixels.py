"""From a picture as decoded to the backbone's, in RGB: one list of filters, for every decoder.

The picture is scaled, shortest side first, and cropped at its centre, as CLIP's own transform does it with PIL.
"""

# PIL's bicubic is Keys' with a = -0.5, so B = 0 and C = 0.5; swscale's own default is C = 0.6.
KERNELS = {
    "bicubic": {"flags": "bicubic", "param0": 0, "param1": 0.5},
    "bilinear": {"flags": "bilinear"},
}
EXACT = "+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
FORMAT = "rgb24"  # what comes out: bytes of red, green and blue in turn


def filters(size: int, interpolation: str) -> list[tuple[str, dict]]:
    """Names and options of ffmpeg's filters that make [size, size] of a picture of any size; the last step to FORMAT is
    the caller's.
    """
    kernel = KERNELS[interpolation]
    return [
        # To RGB at full size, then to the backbone's: PIL does it in this order, and chroma is subsampled.
        ("scale", {"flags": "bicubic" + EXACT}),
        ("format", {"pix_fmts": "gbrp"}),
        ("scale", {**_shortest_side(size), **kernel, "flags": kernel["flags"] + EXACT}),
        ("format", {"pix_fmts": "gbrp"}),
        ("crop", {"out_w": size, "out_h": size, "x": _middle("iw", size), "y": _middle("ih", size)}),
    ]


def _shortest_side(size: int) -> dict[str, str]:
    """torchvision's Resize(size): the shortest side becomes `size`, the longest is rounded down. As displayed."""
    return {
        "w": f"if(gte(dar,1),trunc({size}*dar+1e-6),{size})",
        "h": f"if(gte(dar,1),{size},trunc({size}/dar+1e-6))",
    }


def _middle(side: str, size: int) -> str:
    """torchvision's CenterCrop: (side - size) / 2, half rounded to even."""
    spare = f"({side}-{size})"
    return f"if(mod({spare},2),2*round({spare}/4),{spare}/2)"
