"""A headless Chromium, driven over its remote debugging protocol: open, wait, click, type, look."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIND = """
(() => {
  const wanted = %s, exact = %s;
  const seen = element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const all = [...document.querySelectorAll(%s)].filter(e => e.innerText !== undefined && seen(e));
  const hit = all.filter(e => exact ? e.innerText.trim() === wanted : e.innerText.includes(wanted));
  const smallest = hit.sort((a, b) => a.innerText.length - b.innerText.length)[0];
  if (!smallest) return null;
  smallest.scrollIntoView({block: 'nearest'});
  const box = smallest.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()
"""


def _console(told: dict[str, Any]) -> str:
    words = " ".join(str(each.get("value", each.get("description", ""))) for each in told["args"])
    return f"console: {words}" if told["type"] in ("error", "assert") else ""


def _logged(told: dict[str, Any]) -> str:
    entry = told["entry"]
    return f"log: {entry['text']} {entry.get('url', '')}" if entry["level"] == "error" else ""


def _lost(told: dict[str, Any]) -> str:
    return "" if told.get("canceled") else f"request: {told['errorText']}"


FAULTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Runtime.consoleAPICalled": _console,
    "Runtime.exceptionThrown": lambda told: f"exception: {told['exceptionDetails'].get('text')}",
    "Log.entryAdded": _logged,
    "Network.loadingFailed": _lost,
}
"""What the browser tells of, and how it is told on; empty if it is no fault."""


class Page:
    """A tab. Selectors are CSS's, times are in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self._heard: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> Any:
        """One command and its answer.

        Raises:
            RuntimeError: the browser refused it.
        """
        return self._loop.run_until_complete(asyncio.wait_for(self._send(method, params), 120))

    async def _send(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            answer = json.loads((await self._socket.receive()).data)
            if answer.get("method") in FAULTS:
                self._heard.append(answer)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def listen(self) -> None:
        """Note from now on what goes wrong: errors on the console, exceptions, requests that fail."""
        for domain in ("Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def faults(self) -> list[str]:
        """What went wrong since this was asked last."""
        self.evaluate("0")  # what has come in by now is read with its answer
        found = [words for told in self._heard if (words := FAULTS[told["method"]](told["params"]))]
        self._heard.clear()
        return found

    def evaluate(self, code: str) -> Any:
        """The value of a JavaScript expression, of a promise what it came to."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"].get("exception", found))[:500])
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page, afresh even if only what follows the # differs."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)

    def wait(self, code: str, timeout: float = 60.0) -> float:
        """Seconds until a JavaScript expression is true.

        Raises:
            TimeoutError: it never was; with what the page shows.
        """
        began = time.perf_counter()
        while time.perf_counter() - began < timeout:
            with contextlib.suppress(RuntimeError):  # between two pages there is none
                if self.evaluate(code):
                    return time.perf_counter() - began
            time.sleep(0.05)
        raise TimeoutError(f"{code}: not in {timeout} s; the page says {self.text()[:1500]!r}")

    def text(self) -> str:
        """What the page shows."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(self, text: str, css: str = "*", exact: bool = True, timeout: float = 30.0) -> None:
        """Click the smallest element with this text.

        Raises:
            TimeoutError: there is none.
        """
        code = FIND % (json.dumps(text), json.dumps(exact), json.dumps(css))
        self.wait(f"{code} !== null", timeout)
        self.press(*self.evaluate(code))

    def click_css(self, css: str, nth: int = 0, timeout: float = 30.0) -> None:
        """Click the nth element of a selector."""
        code = f"document.querySelectorAll({json.dumps(css)})[{nth}]"
        self.wait(f"!!{code}", timeout)
        self.evaluate(f"{code}.scrollIntoView({{block: 'nearest'}})")
        self.press(*self.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({code}.getBoundingClientRect())"))

    def press(self, x: float, y: float) -> None:
        """Click at a place."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str, css: str) -> None:
        """Replace what a field holds."""
        self.click_css(css)
        self.key("a", "KeyA", 65, modifiers=2, commands=["selectAll"])
        self.send("Input.insertText", text=text)

    def key(self, key: str, code: str, number: int, **more: Any) -> None:
        """Press a key."""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, windowsVirtualKeyCode=number, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=code, windowsVirtualKeyCode=number)

    def picture(self, path: Path) -> None:
        """What is seen now, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browser(profile: Path, width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A page in a browser of its own, ended with it.

    Raises:
        FileNotFoundError: no Chromium on the PATH.
    """
    if CHROMIUM is None:
        raise FileNotFoundError("no Chromium (chromium, chromium-browser or google-chrome) on the PATH")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        f"--user-data-dir={profile}", f"--window-size={width},{height}", "--remote-debugging-port=0", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        with contextlib.closing(loop):
            session, socket = loop.run_until_complete(_attach(profile / "DevToolsActivePort"))
            page = Page(loop, socket)
            page.send("Page.enable")
            page.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            try:
                yield page
            finally:
                loop.run_until_complete(session.close())
    finally:
        process.terminate()
        process.wait(20)


async def _attach(port_file: Path) -> tuple[Any, Any]:
    import aiohttp

    for _ in range(300):
        if port_file.exists() and port_file.read_text().strip():
            break
        await asyncio.sleep(0.1)
    port = port_file.read_text().split()[0]
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = await answer.json(content_type=None)
    address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return session, await session.ws_connect(address, max_msg_size=2**28)
