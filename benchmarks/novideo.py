"""To be imported before rap where nothing is decoded: what rap imports to decode videos may then be absent."""

import sys
from importlib.util import find_spec
from unittest.mock import MagicMock

for name in ("av", "ffmpeg", "imageio_ffmpeg"):
    if find_spec(name) is None:
        sys.modules[name] = MagicMock()
