"""Who gets in, and what is refused: roles, tokens, other sites' pages, sizes, rates; and what is noted of it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.folders import UserError
from cluster.service import audit, serving
from cluster.service.access import Access
from cluster.service.app import Settings, create
from cluster.service.gate import MOST_BODY, Buckets
from cluster.service.roles import ROLES
from cluster.service.tokens import Token, TokenError, Tokens
from tests.cluster.served import Served, served, shelf_of

CLOSED = Settings(open=False, rate=10_000)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    return tmp_path / "state"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf_of(tmp_path_factory.mktemp("runs"))


def store(folder: Path) -> Tokens:
    return Tokens(f"sqlite:///{folder / 'access.db'}", kept_s=0.0)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return store(tmp_path)


@pytest.fixture
def closed(root: Path, tokens: Tokens, tmp_path: Path) -> Iterator[tuple[Served, dict[str, str]]]:
    """A service that asks for tokens, and one of each role."""
    secrets = {role: tokens.add(f"a {role}", role)[1] for role in ROLES}
    with served(root, CLOSED, tokens, tmp_path / "audit.jsonl") as made:
        yield made, secrets


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


NEEDED = {
    ("get", "/health"): "",
    ("get", "/tokens"): "admin",
    ("get", "/audit"): "admin",
    ("post", "/check"): "reader",
}


def test_every_route_of_the_api_asks_for_its_role(closed: tuple[Served, dict[str, str]], root: Path) -> None:
    made, secrets = closed
    paths = create(root).openapi()["paths"]
    assert len(paths) > 25
    tried = 0
    for path, item in paths.items():
        for method, told in item.items():
            short = path.removeprefix("/api/v1")
            needed = NEEDED.get((method, short), "reader" if method == "get" else "operator")
            assert told["security"] == ([] if not needed else [{"token": []}, {"session": []}])
            if short.endswith("events"):
                continue  # streams go on: tried on their own
            filled = path.replace("{id_}", "nope").replace("{trial}", "1").replace("{name}", "nope")
            body = {} if method == "post" else None
            for role in ("", *ROLES):
                sent = bearer(secrets[role]) if role else {}
                answer = made.ask(method.upper(), filled, body, headers=sent)
                allowed = not needed or (role != "" and ROLES.index(role) >= ROLES.index(needed))
                wanted = answer.status not in (401, 403) if allowed else answer.status == (403 if role else 401)
                assert wanted, (method, path, role, answer.status, answer.body)
                assert answer.status < 500, (method, path, role, answer.body)
                tried += 1
    assert tried > 100


def test_streams_ask_for_a_token(closed: tuple[Served, dict[str, str]]) -> None:
    made, _ = closed
    assert made.get("/api/v1/events").status == 401
    assert made.get("/api/v1/sweeps/done/events").status == 401


def test_only_a_whole_valid_token_opens(root: Path, tmp_path: Path) -> None:
    now = [1_000_000.0]
    tokens = Tokens(f"sqlite:///{tmp_path / 'access.db'}", clock=lambda: now[0], kept_s=0.0)
    kept, secret = tokens.add("kept", "reader")
    short, dies = tokens.add("short", "reader", days=1)
    gone, revoked = tokens.add("gone", "reader")
    with served(root, CLOSED, tokens) as made:

        def opens(text: str, kind: str = "Bearer") -> bool:
            return made.get("/api/v1/version", Authorization=f"{kind} {text}").status == 200

        assert opens(secret)
        assert opens(dies)
        assert opens(revoked)
        assert not opens(secret[:-1])
        assert not opens(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
        assert not opens(f"msw_{short.id}_{secret.rpartition('_')[2]}")  # one's id with another's secret
        assert not opens(f"msw_{'0' * 12}_{secret.rpartition('_')[2]}")
        assert not opens(secret, "Basic")
        assert not opens("")
        made.service.limits.__init__(10_000, 10.0)  # enough wrong ones for now
        tokens.revoke(gone.id)
        assert not opens(revoked)
        now[0] += 86_399
        assert opens(dies)
        now[0] += 2
        assert not opens(dies)
        assert opens(secret)
    assert {token.name: token.state(now[0]) for token in tokens.all()} == {
        "kept": "valid", "short": "expired", "gone": "revoked",
    }  # fmt: skip
    assert next(each for each in tokens.all() if each.id == kept.id).used is not None


def test_the_database_holds_no_secret(tokens: Tokens, tmp_path: Path) -> None:
    made, secret = tokens.add("someone", "admin")
    assert secret.startswith(f"msw_{made.id}_")
    assert len(secret.rpartition(f"{made.id}_")[2]) == 43  # 256 bits in base 64
    stored = (tmp_path / "access.db").read_bytes()
    assert made.id.encode() in stored
    assert secret.rpartition(f"{made.id}_")[2].encode() not in stored


@pytest.mark.parametrize(("name", "role", "days"), [("x", "root", None), ("", "reader", None), ("x\n", "reader", None),
                                                    ("x", "reader", 0), ("x", "reader", float("nan"))])  # fmt: skip
def test_what_is_no_token_is_refused(tokens: Tokens, name: str, role: str, days: float | None) -> None:
    with pytest.raises(TokenError, match="legal: "):
        tokens.add(name, role, days)


def test_a_token_is_revoked_by_what_tells_it_from_others(tokens: Tokens) -> None:
    first, _ = tokens.add("ann", "reader")
    second, _ = tokens.add("ann", "admin")
    with pytest.raises(TokenError, match="2 tokens are meant"):
        tokens.revoke("ann")
    assert tokens.revoke(first.id[:8]).id == first.id
    assert tokens.revoke("ann").id == second.id
    with pytest.raises(TokenError, match="no tokens are meant by 'zzz'"):
        tokens.revoke("zzz")


def test_a_session_is_as_good_as_its_token(root: Path, tokens: Tokens) -> None:
    timer = [0.0]
    access = Access(tokens, open_=False, timer=lambda: timer[0])
    made, secret = tokens.add("ann", "operator")
    assert access.sign_in("msw_wrong") is None
    found = access.sign_in(f" {secret}\n")
    assert found is not None
    who, cookie = found
    assert (who.name, who.role, who.how) == ("ann", "operator", "session")
    assert access.who("", cookie) == who
    assert access.who("", cookie + "x").how == "nobody"
    assert access.who("Bearer nonsense", cookie).how == "nobody"  # a wrong header is not mended by a cookie
    timer[0] += 13 * 3600
    assert access.who("", cookie).how == "nobody"
    again = access.sign_in(secret)
    assert again is not None
    assert again[1] != cookie
    tokens.revoke(made.id)
    assert access.who("", again[1]).how == "nobody"


# -- other sites' pages ----------------------------------------------------------------------------------------------


@pytest.fixture
def open_(root: Path, tmp_path: Path) -> Iterator[Served]:
    with served(root, audit=tmp_path / "audit.jsonl") as made:
        yield made


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a b", "localhost@x",
                                  "[::2]", "169.254.169.254"])  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(open_: Served, host: str) -> None:
    for path in ("/api/v1/health", "/api/v1/sweeps", "/sweeps", "/static/x"):
        assert open_.get(path, Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8321", "127.0.0.1", "[::1]:80"])
def test_loopback_has_several_names(open_: Served, host: str) -> None:
    assert open_.get("/api/v1/health", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another port is another site
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://[::1"},
    ],
)
def test_another_sites_page_changes_nothing(open_: Served, headers: dict[str, str]) -> None:
    for body, kind in (
        (b"{}", "text/plain"),
        (b"spec=x", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ):
        answer = open_.ask("POST", "/api/v1/sweeps", body, {**headers, "Content-Type": kind})
        assert answer.status == 403, answer.body
        assert "another site" in answer.json["detail"]


def test_a_browsers_request_needs_what_only_our_pages_have(open_: Served) -> None:
    ours = {"Origin": open_.url, "Sec-Fetch-Site": "same-origin"}
    who = open_.service.access.who("", "")
    spec = {"spec": "task: nope"}
    assert open_.ask("POST", "/api/v1/check", spec, ours).status == 403
    assert open_.ask("POST", "/api/v1/check", spec, {**ours, "X-CSRF-Token": "wrong"}).status == 403
    assert open_.ask("POST", "/api/v1/check", spec, {**ours, "X-CSRF-Token": who.csrf}).status == 422
    assert open_.ask("POST", "/api/v1/check", spec).status == 422  # a program's, which no site can have sent


def test_a_sessions_form_needs_its_own_token(closed: tuple[Served, dict[str, str]]) -> None:
    made, secrets = closed
    one, other = (made.service.access.sign_in(secrets["operator"]) for _ in range(2))
    assert one is not None
    assert other is not None
    cookie = {"Cookie": f"musweep={one[1]}"}
    path = "/api/v1/sweeps/nope/stop"
    assert made.ask("POST", path, {}, cookie).status == 403
    assert made.ask("POST", path, {}, {**cookie, "X-CSRF-Token": other[0].csrf}).status == 403
    assert made.ask("POST", path, {}, {**cookie, "X-CSRF-Token": one[0].csrf}).status == 404
    form = {**cookie, "Content-Type": "application/x-www-form-urlencoded"}
    assert made.ask("POST", path, headers=form, form=f"csrf={other[0].csrf}".encode()).status == 403
    assert made.ask("POST", path, headers=form, form=f"csrf={one[0].csrf}".encode()).status == 404


def test_every_answer_says_what_browsers_may_do(open_: Served) -> None:
    for path in ("/api/v1/health", "/api/v1/nothing", "/nothing", "/api/v1/sweeps", "/sweeps"):
        headers = open_.get(path).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")  # forms of pages must say where they are
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


# -- sizes and rates -------------------------------------------------------------------------------------------------


def test_too_large_a_body_is_refused_whether_it_says_so_or_not(open_: Served) -> None:
    import http.client

    assert open_.ask("POST", "/api/v1/check", b"x" * (MOST_BODY + 1)).status == 413
    connection = http.client.HTTPConnection(open_.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/api/v1/check", iter([b'{"spec":"'] + [b"x" * 1_000_000] * 6), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()
    assert open_.ask("POST", "/api/v1/check", {"spec": "x" * 1_500_000}).status == 413


def test_a_bucket_gives_its_rate_and_its_burst() -> None:
    now = [0.0]
    bucket = Buckets(2.0, 6.0, lambda: now[0])
    assert [bucket.take("a") for _ in range(6)] == [0.0] * 6
    assert bucket.take("a") == pytest.approx(0.5)
    assert bucket.take("b") == 0.0  # another client has its own
    given = 0
    for tenth in range(100):
        now[0] = tenth / 10
        given += bucket.take("a") == 0.0
    assert given == 19  # two a second
    now[0] += 1e6
    assert bucket.left("a") == 6.0


def test_who_asks_too_fast_is_told_when_to_come_again(root: Path) -> None:
    with served(root, Settings(rate=1.0)) as made:
        answers = [made.get("/api/v1/version") for _ in range(8)]
    assert [each.status for each in answers[:4]] == [200] * 4
    last = answers[-1]
    assert last.status == 429
    assert int(last.headers["retry-after"]) >= 1
    assert last.json["title"] == "Too Many Requests"


def test_guessing_tokens_is_slow(closed: tuple[Served, dict[str, str]]) -> None:
    made, secrets = closed
    statuses = [made.get("/api/v1/version", Authorization=f"Bearer guess{n}").status for n in range(14)]
    assert statuses == [401] * 10 + [429] * 4
    assert made.get("/api/v1/version", **bearer(secrets["reader"])).status == 429  # nor may the right one follow


# -- what is noted ---------------------------------------------------------------------------------------------------


def test_the_audit_log_says_who_did_what_and_holds_no_secret(
    closed: tuple[Served, dict[str, str]], tmp_path: Path
) -> None:
    made, secrets = closed
    made.ask("GET", "/api/v1/sweeps", headers=bearer(secrets["reader"]))  # reading is not noted
    made.ask("POST", "/api/v1/sweeps/nope/stop", {}, headers=bearer(secrets["operator"]))
    made.ask("POST", "/api/v1/sweeps/nope/stop", {}, headers=bearer(secrets["reader"]))
    made.ask("GET", "/api/v1/audit", headers=bearer(secrets["reader"]))
    made.ask("POST", "/api/v1/sweeps/nope/stop", {}, headers=bearer("msw_guess"))
    path = tmp_path / "audit.jsonl"
    until = time.monotonic() + 10
    while len(lines := audit.read(path)) < 4 and time.monotonic() < until:
        time.sleep(0.02)  # a line is written when its answer has left
    assert [(each["who"], each["status"]) for each in lines] == [
        ("a operator", 404), ("a reader", 403), ("a reader", 403), ("", 401),
    ]  # fmt: skip
    assert all(each["from"] == "127.0.0.1" and abs(each["time"] - time.time()) < 60 for each in lines)
    assert lines[0]["what"] == "POST /api/v1/sweeps/nope/stop"
    text = path.read_text()
    assert not any(secret.partition("_")[2] in text for secret in secrets.values())
    assert path.stat().st_mode & 0o077 == 0
    told = made.ask("GET", "/api/v1/audit?last=2", headers=bearer(secrets["admin"])).json
    assert [each["what"] for each in told] == [each["what"] for each in lines[-2:]]
    listed = made.ask("GET", "/api/v1/tokens", headers=bearer(secrets["admin"])).json
    assert [each["role"] for each in listed] == list(ROLES)
    assert not any("hash" in each or "secret" in each for each in listed)


def test_a_line_of_the_log_cannot_be_forged(tmp_path: Path) -> None:
    log = audit.Audit(tmp_path / "a" / "audit.jsonl")
    log.write('x"\n{"who":"admin"}', "reader", "1.2.3.4", "GET /\n/x", 200, note="password=hunter2&x=1", none="")
    (line,) = (tmp_path / "a" / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["who"] == 'x"\n{"who":"admin"}'
    assert "hunter2" not in line
    assert "none" not in json.loads(line)


# -- how it may be started -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed", "proxy", "require"),
    [
        ("0.0.0.0", (), None, False),
        ("::", (), None, False),
        ("10.0.0.7", (), None, False),
        ("127.0.0.1", ("sweeps.example.org",), None, False),
        ("127.0.0.1", (), "127.0.0.1", False),
        ("localhost", (), None, True),
    ],
)
def test_where_others_reach_it_it_does_not_start_without_a_token(
    tokens: Tokens, host: str, allowed: tuple[str, ...], proxy: str | None, require: bool, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="musweep token add NAME --role admin"):
        serving.settings_of(host, allowed, proxy, require, 10.0, tokens)
    assert not (tmp_path / "access.db").exists()  # nothing is made by asking
    old = Token("0", "x", "admin", 0.0, 1.0, None, None)
    assert old.state(2.0) == "expired"
    tokens.add("ann", "admin")
    assert not serving.settings_of(host, allowed, proxy, require, 10.0, tokens).open


def test_loopback_is_open_and_knows_its_names(tokens: Tokens) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        made = serving.settings_of(host, (), None, False, 10.0, tokens)
        assert made.open
        assert {"127.0.0.1", "localhost", "[::1]"} <= made.hosts
    tokens.add("ann", "admin")
    closed = serving.settings_of("0.0.0.0", ("Sweeps.example.org",), None, False, 10.0, tokens)
    assert "sweeps.example.org" in closed.hosts
    assert "0.0.0.0" not in closed.hosts


def test_a_port_in_use_is_one_line() -> None:
    with serving.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"--port {port} on 127.0.0.1: Address already in use"),
            serving.listening("127.0.0.1", port),
        ):
            pass
