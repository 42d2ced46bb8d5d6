"""A room imports only from rooms below it in the list, also inside functions. So no two rooms import each other."""

from rap.provenance import PACKAGE, _file, _imports

ROOMS = ("presets", "search", "report", "evaluation", "training", "retrieval", "adapters", "features", "frames")
ROOMS += ("download", "demo", "clip", "data", "runtime", "params")
UPWARD = {("download", "frames")}  # a downloaded file is probed with the ffprobe and ffmpeg of frames


def room(module: str) -> str:
    """The folder of a module of the package, or an empty text for the modules beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


def test_imports_point_down_the_list_of_rooms():
    found = set()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        imported = {room(other) for other in _imports(module, file) if _file(other)}
        found |= {(room(module), other) for other in imported if room(module) and other and other != room(module)}
    assert {place for pair in found for place in pair} == set(ROOMS)
    assert {(here, other) for here, other in found if ROOMS.index(here) > ROOMS.index(other)} == UPWARD
