"""A local page to drop photos on: the requests, one queue, and one thread that restores.

Nothing is written to disk. What is held in memory is bounded; what does not fit is refused for now,
and the page tries again. Needs the extra ``serve``.
"""

import io
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal
from urllib.parse import quote

from PIL import Image as PillowImage
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deblurcli.batch.run import failure_of
from deblurcli.deblurrer import Deblurrer
from deblurcli.io import media, photos
from deblurcli.io.image import to_uint8
from deblurcli.weights import hub

PAGE = Path(__file__).with_name("serve.html")
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
PREVIEW_PX = 2048  # the longest side of the pictures under the page's slider
REMEDIES = {"--max-pixels": "--max-megapixels", ", or restore what is left: --damaged keep": ""}
"""What errors of photos name options of other commands by, and what is said of them here."""
TOLD = ("state", "name", "result_name", "seconds", "notes", "error")
"""What the page hears of an `Upload`."""


@dataclass(frozen=True)
class ServeOptions:
    """What is accepted, and from whom."""

    token: str | None = None
    """What requests have to bring; None lets every program of this computer in."""
    max_upload_bytes: int = 100_000_000
    max_pixels: int = 100_000_000
    max_held_bytes: int = 2**30  # of all uploads and results together
    keep_seconds: float = 900.0  # how long a result waits to be fetched


@dataclass
class Upload:
    """A photo on its way. `data` is the upload at first, then the result."""

    name: str
    weights: str
    strength: float
    data: bytes
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: Literal["waiting", "working", "done", "failed"] = "waiting"
    result_name: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    previews: dict[str, bytes] = field(default_factory=dict)
    ended: float = 0.0

    @property
    def held_bytes(self) -> int:
        return len(self.data) + sum(map(len, self.previews.values()))

    def restore(self, deblurrer: Deblurrer, max_pixels: int) -> None:
        """Puts the result in place of the upload, and adds previews."""
        reading = photos.ReadOptions(max_pixels=max_pixels)
        photo = photos.read(io.BytesIO(self.data), name=self.name, options=reading)
        deblurrer.strength = self.strength
        start = time.perf_counter()
        restored = deblurrer.restore(photo.pixels)
        self.seconds = round(time.perf_counter() - start, 2)
        result = io.BytesIO()
        path, suffix = PurePath(self.name), photos.FORMATS[photo.format].suffixes[0]
        if path.suffix.lower() in photos.PHOTO_SUFFIXES:
            suffix = path.suffix
        photos.write(photo, restored, result, format=suffix)
        self.result_name = f"{path.stem}{media.OWN_MARK}{suffix}"
        for side, pixels in (("before", photo.pixels), ("after", restored)):
            preview = PillowImage.fromarray(to_uint8(pixels))
            preview.thumbnail((PREVIEW_PX, PREVIEW_PX))
            encoded = io.BytesIO()
            preview.save(encoded, "JPEG", quality=92, subsampling=0)
            self.previews[side] = encoded.getvalue()
        self.notes, self.data = photo.notes, result.getvalue()


class PhotoQueue:
    """The uploads, and the one thread that restores them in the order in which they came."""

    def __init__(self, load: Callable[[str], Deblurrer], options: ServeOptions) -> None:
        """Starts the thread; `load` gives the network of a name, and is called in the thread."""
        self.uploads: dict[str, Upload] = {}
        self.receiving_bytes = 0
        self._options = options
        self._load = load
        self._deblurrers: dict[str, Deblurrer] = {}
        self._waiting: queue.SimpleQueue[Upload] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="deblur-serve", daemon=True).start()

    def has_room(self, more_bytes: int) -> bool:
        """Whether so many bytes more may be held; forgets results that nobody fetched."""
        held, now = self.receiving_bytes + more_bytes, time.monotonic()
        for upload in list(self.uploads.values()):
            if upload.ended and now - upload.ended > self._options.keep_seconds:
                self.uploads.pop(upload.id, None)
            else:
                held += upload.held_bytes
        return held <= self._options.max_held_bytes

    def add(self, upload: Upload) -> None:
        self.uploads[upload.id] = upload
        self._waiting.put(upload)

    def position(self, upload: Upload) -> int:
        """How many are restored before this one."""
        before = list(self.uploads.values())
        return sum(u.state in ("waiting", "working") for u in before[: before.index(upload)])

    def _work(self) -> None:
        while True:
            upload = self._waiting.get()
            if upload.id not in self.uploads:  # taken back
                continue
            upload.state = "working"
            try:
                if upload.weights not in self._deblurrers:  # one at a time
                    self._deblurrers = {upload.weights: self._load(upload.weights)}
                upload.restore(self._deblurrers[upload.weights], self._options.max_pixels)
                upload.state = "done"
            except Exception as error:
                upload.data = b""
                upload.error = str(failure_of(upload.name, error))
                for words, ours in REMEDIES.items():
                    upload.error = upload.error.replace(words, ours)
                upload.state = "failed"
            upload.ended = time.monotonic()


def make_app(  # noqa: PLR0915  (all requests on one page)
    load: Callable[[str], Deblurrer], default: str, options: ServeOptions
) -> Starlette:
    """Makes the ASGI application; `load` gives the network for a name, `default` comes first."""
    waiting = PhotoQueue(load, options)
    # The page names weights that lie here, never files.
    here = [listing.entry.name for listing in hub.listings() if listing.state == "intact"]
    same = hub.catalogue().default if default == "default" else default
    usable = [default, *(name for name in here if name != same)]

    async def guard(request: Request, answer: RequestResponseEndpoint) -> Response:
        """Lets requests through that bring the token and come from our own page."""
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return _refusal(403, "request: from another page; open this server's own page")
        if options.token is None:
            # A name of somebody else's that leads to this computer is not ours.
            host = re.sub(r":\d+$", "", request.headers.get("host", "")).strip("[]")
            if host not in LOCAL_HOSTS:
                return _refusal(403, f"{host}: not this server; open http://127.0.0.1")
        else:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            given = request.query_params.get("token") or request.cookies.get("token") or bearer
            if not secrets.compare_digest(given.encode(), options.token.encode()):
                return _refusal(401, "token: missing or wrong; open the address with ?token=")
        response = await answer(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def show_page(_: Request) -> Response:
        own = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        policy = {"Content-Security-Policy": f"{own}img-src 'self' blob:; connect-src 'self'"}
        response = HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=policy)
        if options.token is not None:
            response.set_cookie("token", options.token, httponly=True, samesite="strict")
        return response

    async def add_photo(request: Request) -> Response:
        name = PurePath(request.query_params.get("name") or "photo").name
        weights = request.query_params.get("weights") or default
        try:
            strength = float(request.query_params.get("strength") or 1)
        except ValueError:
            strength = -1.0
        if not 0 <= strength <= 1:
            return _refusal(400, "strength: not a number from 0 to 1; give one")
        if weights not in usable:
            return _refusal(400, f"{weights}: no such weights here; see 'deblur weights list'")
        data = bytearray()
        try:
            async for piece in request.stream():
                data += piece
                waiting.receiving_bytes += len(piece)
                if len(data) > options.max_upload_bytes:
                    limit = f"{name}: larger than {options.max_upload_bytes / 1e6:g} MB"
                    remedy = "scale it down, or allow more with --max-megabytes"
                    return _refusal(413, f"{limit}; {remedy}")
                if not waiting.has_room(0):
                    busy = f"{name}: too many photos are waiting; try again in a moment"
                    return _refusal(503, busy, {"Retry-After": "1"})
            upload = Upload(name, weights, strength, bytes(data))
            waiting.add(upload)
        finally:
            waiting.receiving_bytes -= len(data)
        return JSONResponse({"id": upload.id}, 202)

    async def tell(request: Request) -> Response:
        upload = waiting.uploads.get(request.path_params["id"])
        if upload is None:
            return _refusal(404, "photo: not here any more; upload it again")
        facts = {name: getattr(upload, name) for name in TOLD}
        return JSONResponse(facts | {"before_it": waiting.position(upload)})

    async def give(request: Request) -> Response:
        upload = waiting.uploads.get(request.path_params["id"])
        if upload is None or upload.state != "done":
            return _refusal(404, "photo: not here; ask for its state first")
        part = request.path_params["part"]
        if part in upload.previews:
            return Response(upload.previews[part], media_type="image/jpeg")
        disposition = f"attachment; filename*=UTF-8''{quote(upload.result_name)}"
        headers = {"Content-Disposition": disposition}
        return Response(upload.data, media_type="application/octet-stream", headers=headers)

    async def forget(request: Request) -> Response:
        waiting.uploads.pop(request.path_params["id"], None)
        return Response(status_code=204)

    routes = [
        Route("/", show_page),
        Route("/api/weights", lambda _: JSONResponse({"weights": usable})),
        Route("/api/photos", add_photo, methods=["POST"]),
        Route("/api/photos/{id}", tell),
        Route("/api/photos/{id}", forget, methods=["DELETE"]),
        Route("/api/photos/{id}/{part}", give),
    ]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


def _refusal(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": line}, status, headers)
