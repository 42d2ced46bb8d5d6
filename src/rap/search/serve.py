"""`rap serve`: a local web page that searches the library and plays the hits.

Four addresses: the page, /search (JSON), /video/ID and /poster/ID. An id is looked up in the manifest, so no path from
outside reaches the disk. Requests with another Host header are rejected, so that no other web page can reach this one
through its own name.
"""

import socket
from contextlib import suppress
from functools import cache, partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from threading import Lock

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rap import paths
from rap.data.manifest import Manifest
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.frames.pictures import Pictures
from rap.params import Params
from rap.runtime.signals import Ended
from rap.search.library import SPLITS, Library, unfit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST = 100  # hits of one answer
POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
POLICY += "script-src 'unsafe-inline'"


def run(params: Params, variant: str | None, seed: int, approximate: bool, host: str, port: int) -> str:
    """Serve until Ctrl-C. Raises UserError if nothing is cached, or the port is taken."""
    app = application(params, variant, seed, approximate, host)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; name another, or 0 for any free one") from None
    print(f"http://{host}:{listening.getsockname()[1]}/ serves until Ctrl-C", flush=True)
    with suppress(Ended):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])
    return "stopped"


def application(
    params: Params, variant: str | None, seed: int, approximate: bool = False, host: str = LOOPBACK[0]
) -> Starlette:
    """The web application; every address is a method of Site."""
    site = Site(params, variant, seed, approximate)
    addresses = {
        "/": site.page,
        "/choices": site.choices,
        "/search": site.search,
        "/video/{id:path}": site.video,
        "/poster/{id:path}": site.poster,
    }
    hosts = [*LOOPBACK, host] if host != "0.0.0.0" else ["*"]
    return Starlette(
        routes=[Route(path, endpoint) for path, endpoint in addresses.items()],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={HTTPException: lambda _, error: JSONResponse({"error": error.detail}, error.status_code)},
    )


class Site:
    """The answers to requests. The first model is loaded now, others on request."""

    def __init__(self, params: Params, variant: str | None, seed: int, approximate: bool):
        self.params, self.seed = params, seed
        self.lock = Lock()  # torch and the cache of models are shared by the threads of the server
        self.loaded = cache(partial(Library.open, params, seed=seed, approximate=approximate))
        self.first = self.loaded(variant)
        self.videos = Manifest.read(paths.manifest(params.dataset.name)).videos.set_index("video_id")
        self.folder, self.pictures = videos_folder(params), Pictures(params)

    def page(self, request: Request) -> Response:
        text = files("rap.search").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    def choices(self, request: Request) -> Response:
        return JSONResponse({"variants": usable(self.params, self.first.variant, self.seed), "splits": SPLITS})

    def search(self, request: Request) -> Response:
        asked = request.query_params
        top, name = asked.get("top", "12"), asked.get("variant") or self.first.variant
        if not top.isdecimal() or not 0 < int(top) <= MOST:
            raise HTTPException(400, f"top is {top!r}; give a number from 1 to {MOST}")
        try:
            with self.lock:
                library = self.first if name == self.first.variant else self.loaded(name)
                find = library.like if "like" in asked else library.text
                if "like" in asked and asked["like"] not in self.videos.index:
                    raise HTTPException(404, "no such video")
                hits = find(asked.get("like", asked.get("query", "")), int(top), asked.get("split", "all"))
        except UserError as error:
            raise HTTPException(400, str(error)) from None
        return JSONResponse({"variant": library.variant, "note": library.note, "hits": [hit.values() for hit in hits]})

    def video(self, request: Request) -> Response:
        file = self.folder / self.path(request)
        if not file.is_file():
            raise HTTPException(404, "this video no longer exists")
        return FileResponse(file)  # which supports the Range requests of players

    def poster(self, request: Request) -> Response:
        self.path(request)
        try:
            picture = self.pictures.strip(request.path_params["id"], 3)
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        data = BytesIO()
        Image.fromarray(picture[len(picture) // 2]).save(data, "jpeg", quality=90)
        return Response(data.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    def path(self, request: Request) -> Path:
        """The path of a video of the manifest, relative to the folder of the videos."""
        if request.path_params["id"] not in self.videos.index:
            raise HTTPException(404, "no such video")
        return Path(self.videos.path[request.path_params["id"]])


def usable(params: Params, first: str, seed: int) -> list[str]:
    """The variants that can search: the first one, variants trained on these caches, and untrained ones."""
    known = params.all_variants
    ready = (name for name, one in known.items() if one.adapter == "none" or not unfit(params, name, seed))
    return list(dict.fromkeys([first, *ready]))
