"""The page's files: read once, sent gzipped, asked for again only where they changed.

Owns what may be fetched under ``/`` and ``/static``: files of this package's folder, by the names found in it. A name
from outside is only ever looked up, never made a path.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from console.squeeze import squeeze

FOLDER: Final = Path(__file__).with_name("static")
INDEX: Final = "index.html"
LOOK_S: Final = 1.0
"""The folder is looked through at most this often: names nobody has are asked for without a login, 2 ms each."""
TYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".html": "text/html"}
TEXT: Final = (".js", ".mjs", ".css", ".html", ".svg", ".json", ".md", ".txt")
NO_PAGE: Final = (
    "<!doctype html><title>Yuzui</title><p>The page is not installed; the API answers under /api."
)


@dataclass(frozen=True, slots=True)
class _File:
    stamp: tuple[int, int]
    kind: str
    body: bytes
    packed: bytes | None
    etag: str


class StaticFiles:
    """The files of a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._known: dict[str, _File] = {}
        self._names: dict[str, Path] = {}
        self._looked_at = float("-inf")

    def answer(self, request: web.Request, name: str) -> web.Response:
        """A file by its name relative to the folder; 404 where there is none."""
        found = self._find(name)
        if found is None:
            if name == INDEX:
                return web.Response(text=NO_PAGE, content_type="text/html")
            raise web.HTTPNotFound(reason="no such file")
        headers = {"ETag": found.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if found.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        body = found.body
        if found.packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", found.packed
        return web.Response(body=body, headers={**headers, "Content-Type": found.kind})

    def _find(self, name: str) -> _File | None:
        if name not in self._names and time.monotonic() - self._looked_at >= LOOK_S:
            # Also files that came since: the page is worked on while the engine runs.
            self._looked_at = time.monotonic()
            self._names = {
                path.relative_to(self._folder).as_posix(): path
                for path in self._folder.rglob("*")
                if path.is_file() and not path.is_symlink()
            }
        path = self._names.get(name)
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        stamp = stat.st_mtime_ns, stat.st_size
        known = self._known.get(name)
        if known is None or known.stamp != stamp:
            known = self._known[name] = _read(path, stamp)
        return known


def _read(path: Path, stamp: tuple[int, int]) -> _File:
    body = path.read_bytes()
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_text = path.suffix in TEXT
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    if is_text and "vendor" not in path.parts:
        body = squeeze(body.decode(), path.suffix).encode()
    packed = gzip.compress(body, 9, mtime=0) if is_text else None
    return _File(stamp, f"{kind}; charset=utf-8" if is_text else kind, body, packed, etag)
