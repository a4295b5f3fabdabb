"""Ray's Jobs API over HTTP: the few requests that submitting needs, each with a time limit and errors in one line.

Not by Ray's own client, which waits without limit, takes the token from the process's environment only, and takes
two seconds to import.
"""

from __future__ import annotations

import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cluster.launch import LaunchError, Unreachable

if TYPE_CHECKING:
    import requests

    from cluster.targets import Target

CONNECT_S, ANSWER_S = 4.0, 6.0
"""How long the first answer may take: a wrong address is told within ten seconds."""
WORK_S = 300.0
"""How long a later one may take: a busy head starts a driver or stores a package in its own time."""
_VERSION, _JOBS = "/api/version", "/api/jobs/"
_TOKEN = "`ray get-auth-token` on its head shows it"
MOST_UPLOAD = 100 * 2**20
"""What a dashboard takes in one request."""


class RayJobs:
    """The Jobs API of a target's cluster; the token is read once, when first needed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._session: requests.Session | None = None
        self._patience_s = ANSWER_S

    def ask(self, method: str, path: str, json: Any = None, data: bytes | None = None, missing_ok: bool = False) -> Any:
        """The JSON of an answer; None for a thing that is not there, if that may be.

        Raises:
            Unreachable: nothing answers, or the cluster has a fault now.
            LaunchError: what is wrong with address, token or request, in one line.
        """
        import requests

        place = f"target {self.target.name}: {self.target.url}"
        try:
            answer = self._opened().request(
                method, self.target.url + path, json=json, data=data, allow_redirects=False,
                timeout=(CONNECT_S, self._patience_s),
            )  # fmt: skip
        except requests.exceptions.SSLError as error:
            raise LaunchError(f"{place}: no secure connection: {_cause(error)}; is it http:// there?") from None
        except requests.exceptions.Timeout:
            raise Unreachable(
                f"{place} gives no answer in {CONNECT_S + self._patience_s:.0f} s; is it up, or is a firewall between?"
            ) from None
        except requests.exceptions.ConnectionError as error:
            raise Unreachable(f"{place}: {_cause(error)}") from None
        except requests.exceptions.RequestException as error:
            raise LaunchError(f"{place}: {_cause(error)}") from None
        self._refuse(answer, place, path)
        self._patience_s = WORK_S
        if answer.status_code == 404 and missing_ok:
            return None
        if answer.status_code != 200:
            words = _words(answer)
            kind = Unreachable if answer.status_code in (429, 502, 503, 504) else LaunchError
            raise kind(f"{place}: {method} {path}: {answer.status_code} {words}")
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise LaunchError(f"{place} answers, but is no Ray dashboard (no JSON at {path})") from None

    def _refuse(self, answer: requests.Response, place: str, path: str) -> None:
        """Refuse what no request gets past: a wrong token, or another kind of server."""
        token = self.target.token
        if answer.status_code == 401:
            if token is not None:
                raise LaunchError(f"{place} wants another token than that of {token.reference}; {_TOKEN}")
            key = f"{self.target.name}.token"
            raise LaunchError(f"{place} wants a token: {key} in clusters.yaml names it, {{from_env: NAME}}; {_TOKEN}")
        if answer.status_code == 403:
            told = "there is none" if token is None else f"the one of {token.reference} is not this cluster's"
            raise LaunchError(f"{place} refuses the token: {told}; {_TOKEN}")
        if 300 <= answer.status_code < 400:
            raise LaunchError(
                f"{place} sends us on to {answer.headers.get('Location', 'another place')}: give that address"
            )
        if path in (_VERSION, _JOBS) and answer.status_code in (404, 405):
            raise LaunchError(f"{place} answers, but is no Ray dashboard (no {path}); its port is 8265 by default")

    def _opened(self) -> requests.Session:
        if self._session is None:
            import requests

            self._session = requests.Session()
            if self.target.token is not None:
                value = self.target.token.read(f"target {self.target.name}: token")
                if not value.isascii() or not value.isprintable():
                    raise LaunchError(f"target {self.target.name}: token: {self.target.token.reference} holds no token")
                self._session.auth = _Bearer(value)
            else:
                self._session.auth = _Bearer("")  # a password in ~/.netrc is for somebody else
        return self._session

    def versions(self) -> tuple[str, str]:
        """Ray's version there and here, alike in their first two numbers.

        Raises:
            LaunchError: they differ, so that musweep there cannot be this one.
        """
        told = self.ask("GET", _VERSION)
        there, here = told.get("ray_version") if isinstance(told, dict) else None, version("ray")
        if not isinstance(there, str):
            raise LaunchError(f"target {self.target.name}: {self.target.url} answers, but is no Ray dashboard")
        if there.split(".")[:2] != here.split(".")[:2]:
            raise LaunchError(
                f"target {self.target.name}: {self.target.url} runs Ray {there}, this musweep needs Ray {here}: "
                f"start the cluster with Ray {here} and musweep installed, or use the musweep that fits {there}"
            )
        return there, here


class _Bearer:
    """Puts a token into a request, and nothing that another file would."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _cause(error: BaseException) -> str:
    """What lies at the bottom of an error of the network, in words."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return "no such host; check the target's address"
        if isinstance(seen, ConnectionRefusedError):
            return "nothing listens there; is the dashboard up, and is this its port (by default 8265)?"
        if isinstance(seen, ConnectionResetError):
            return "hangs up on us; is this the dashboard's port?"
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
            inner = seen.__cause__ or seen.__context__
            if inner is None:
                return words
        after = seen.__cause__ or seen.__context__
        if after is None and seen.args and isinstance(seen.args[0], BaseException):
            after = seen.args[0]
        if after is None and isinstance(reason := getattr(seen, "reason", None), BaseException):
            after = reason
        if after is None:
            return " ".join(str(seen).split())[:200] or type(seen).__name__
        seen = after
    return type(error).__name__


def _words(answer: requests.Response) -> str:
    """The last line of an answer that says what is wrong; an agent's traceback in a head's ends with a full stop."""
    lines = [line.strip() for line in answer.text.splitlines() if any(map(str.isalpha, line))]
    return (lines[-1] if lines else answer.reason or "")[:300]
