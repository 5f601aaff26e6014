"""A webhook receiver over real HTTP that counts webhook-ids: was anybody called twice?"""

from __future__ import annotations

import http.server
import threading
from collections import Counter


class Receiver(http.server.ThreadingHTTPServer):
    """Takes every call; ``heard`` counts webhook-ids."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.heard: Counter[str] = Counter()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Receiver)
        self.server.heard[self.headers["webhook-id"]] += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""
