"""Things that stand between a sweep and its server, and misbehave: a TCP proxy to order, an HTTP proxy by seed."""

import contextlib
import http.client
import random
import selectors
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TcpProxy:
    """Forwards to a port of this machine. `mode`: `pass`; `stall`: bytes stay on the way; `refuse`: all lines end."""

    def __init__(self, target: int) -> None:
        self.mode = "pass"
        self.cut = 0
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._server.getsockname()[1])
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.mode == "refuse":
                self.cut += 1
                client.close()
            else:
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
            selectors.DefaultSelector() as selector,
        ):
            others = {client: server, server: client}
            for end in others:
                selector.register(end, selectors.EVENT_READ)
            while not self._over.is_set():
                if self.mode == "refuse":
                    self.cut += 1
                    return
                if self.mode == "stall":
                    time.sleep(0.05)
                    continue
                for key, _ in selector.select(0.2):
                    end = key.fileobj
                    assert isinstance(end, socket.socket)
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    others[end].sendall(data)


class HttpProxy:
    """Forwards requests to a port here; by seed some get a 500, a 429, a late answer, or none though carried out."""

    FAULTS = ("500", "429", "slow", "lost")

    def __init__(self, target: int, seed: int, share: float = 0.4, slow_s: float = 10.0) -> None:
        self.share, self.slow_s = share, slow_s
        self.done = dict.fromkeys(self.FAULTS, 0)
        self._random, self._turn = random.Random(seed), threading.Lock()
        self._target = target
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.serve(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self) -> str:
        with self._turn:
            if self._random.random() >= self.share:
                return ""
            weights = (4, 3, 1, 4)  # few are slow, or a test would be
            kind = self._random.choices(self.FAULTS, weights)[0]
            self.done[kind] += 1
            return kind

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = self.fault()
        if kind in ("500", "429"):
            self.reply(request, int(kind), [], b"chaos")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
            upstream.request(request.command, request.path, body, headers)
            response = upstream.getresponse()
            data = response.read()
        except OSError:
            self.reply(request, 502, [], b"no server")
            return
        finally:
            upstream.close()
        if kind == "slow":
            time.sleep(self.slow_s)
        if kind == "lost":
            request.close_connection = True
            with contextlib.suppress(OSError):
                request.connection.shutdown(socket.SHUT_RDWR)
            return
        self.reply(request, response.status, response.getheaders(), data)

    @staticmethod
    def reply(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        with contextlib.suppress(OSError):
            request.send_response(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)
