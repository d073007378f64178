"""A network camera: serves images as Motion JPEG over HTTP."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class MjpegServer:
    """Serves grey images, each a little brighter, until ``close``.

    Args:
        port: Port to listen on; 0 for any.
        rate: Images per second.
    """

    def __init__(self, port: int = 0, rate: float = 20.0) -> None:
        self.is_open = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                shade = 0
                while server.is_open:
                    shade = (shade + 10) % 250
                    data = cv2.imencode(".jpg", np.full((48, 64, 3), shade, np.uint8))[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + data + b"\r\n")
                    except OSError:
                        return
                    time.sleep(1.0 / rate)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Address of the stream, with a password."""
        return f"http://user:secret@127.0.0.1:{self.port}/video.mjpg"

    def close(self) -> None:
        """Stop serving; open connections end."""
        self.is_open = False
        self._server.shutdown()
        self._server.server_close()
