"""A service of the tests' own, in this process, on a port of its own."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster.service.app import Settings, create
from cluster.service.serving import listening, server
from cluster.service.tokens import Tokens


@contextlib.contextmanager
def serving(root: Path, tokens: Tokens | None = None, rate: float = 1e6, audit: Path | None = None) -> Iterator[str]:
    """The address of a service over a folder; with tokens it asks for one."""
    app = create(root, Settings(open=tokens is None, rate=rate), tokens, audit)
    with listening("127.0.0.1", 0) as sock:
        made = server(app)
        thread = threading.Thread(target=made.run, args=([sock],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            made.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the service does not end"
