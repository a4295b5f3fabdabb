import contextlib
import html as entities
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from cluster.service import pages
from cluster.service.pages_render import coded
from cluster.service.tokens import Tokens
from sweeps import history
from tests.cluster.serving import serving
from tests.dashboards.synthetic import SPACE, Sweep, make
from tests.dashboards.synthetic_contest import make_contest

ROOT = Path(__file__).parents[2]
NASTY = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'"
ODD = "ünï sweep, 1+1=2"
PAGES = ("/", "/sweeps", "/compare", "/schedules", "/queue", "/baselines", "/audit")


class Read(HTMLParser):
    """Tags with their attributes of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def links(self) -> set[str]:
        return {attrs["href"] or "" for tag, attrs in self.tags if tag in ("a", "link") and "href" in attrs}


@contextlib.contextmanager
def place(folder: Path) -> Iterator[str]:
    """A service over three sweeps: one with a verdict, one of a nasty spec, one without trials."""
    space = SPACE | {"init": {"type": "choice", "values": [NASTY, "he"], "when": {}}}
    make_contest(folder / "contest")
    make(folder / ODD, Sweep(trials=40, name=NASTY, space=space))
    make(folder / "none", Sweep(trials=0, close=None))
    (folder / "contest" / "logs").mkdir()
    (folder / "contest" / "logs" / "driver.log").write_text(f"hello {NASTY}\nanother line\n")
    (folder / "contest" / "report.html").write_text("<!DOCTYPE html><title>report</title>")
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("MUSWEEP_DATABASE", raising=False)
        with place(tmp_path_factory.mktemp("runs")) as address:
            yield address


def page(address: str, path: str, **more: object) -> requests.Response:
    found = requests.get(address + path, headers={"Accept": "text/html"}, timeout=30, **more)  # type: ignore[arg-type]
    assert found.headers["content-type"].startswith("text/html"), found.text[:300]
    return found


def numbers(source: str) -> list[int]:
    """The trials of a table, in its order."""
    return [int(each) for each in re.findall(r'data-key="row-(\d+)"', source)]


def test_every_link_of_every_page_leads_somewhere(there: str) -> None:
    seen: set[str] = set()
    wanted = ["/"]
    while wanted:
        path = wanted.pop(0)
        trials = sum("/trials/" in each for each in seen)
        if path in seen or "&" in path or ("/trials/" in path and trials > 20):
            continue
        seen.add(path)
        found = requests.get(there + path, headers={"Accept": "text/html"}, timeout=30)
        assert found.status_code == 200, (path, found.text[:300])
        if not found.headers["content-type"].startswith("text/html") or path.endswith("/report"):
            continue
        for link in Read(found.text).links():
            whole = urljoin(there + path, link)
            if whole.startswith(there) and "page=" not in whole:
                wanted.append(whole[len(there) :].split("#")[0])
    assert seen.issuperset(PAGES)
    assert {"/sweeps/contest", "/sweeps/none", "/sweeps/contest/logs", "/sweeps/contest/report"} <= seen
    assert any("/trials/" in path for path in seen)


@pytest.mark.parametrize("path", [*PAGES, "/sweeps/contest", "/compare?sweep=contest", "/login", "/sweeps/gone"])
def test_a_page_is_whole_and_has_nothing_that_the_policy_forbids(there: str, path: str) -> None:
    found = page(there, path)
    policy = found.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    tags = Read(found.text).tags
    assert found.text.count("<title>") - found.text.count("><title>") == 1  # others are of marks in plots
    names = [tag for tag, _ in tags]
    assert names.count("h1") == names.count("main") == 1
    for tag, attrs in tags:
        assert "style" not in attrs, (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert tag != "style"
        if tag == "script":
            assert (attrs["src"] or "").startswith("/static/")
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in tags:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert name not in attrs or attrs[name] in ids, (tag, attrs)


@pytest.mark.parametrize(
    "path", ["/", "/sweeps", f"/sweeps/{ODD}", f"/sweeps/{ODD}/trials/0", "/sweeps/contest/logs", f"/sweeps?q={NASTY}",
             f"/sweeps/contest?q={NASTY}", f"/compare?sweep=contest&against={NASTY}", f"/login?next={NASTY}",
             f"/sweeps/{NASTY}", f"/schedules/{NASTY}"],
)  # fmt: skip
def test_names_of_others_stay_text(there: str, path: str) -> None:
    source = page(there, path).text
    for part in ("<script>alert", "<img src=x", "onerror=alert(1)>"):
        assert part not in source
    if ODD in path and "trials" not in path:
        assert entities.escape(NASTY, quote=False)[:30] in source or "&lt;/script&gt;" in source


def test_pages_of_trials_together_have_each_trial_once_in_order(there: str) -> None:
    folder = history.load(_root(there) / "contest")
    seen: list[int] = []
    for number in range(1, 9):
        found = numbers(page(there, f"/sweeps/contest?page={number}").text)
        seen += found
        if not found:
            break
    assert sorted(seen) == sorted(folder.trials)
    values = [folder.trials[each].objective for each in seen]
    ended = [each for each in values if each is not None]
    assert values[: len(ended)] == sorted(ended)  # the best first, those without a value last


@pytest.mark.parametrize("key", ["number", "lr", "updates", "wall_s", "state"])
def test_a_column_sorts_both_ways(there: str, key: str) -> None:
    trials = history.load(_root(there) / "contest").trials
    up, down = (numbers(page(there, f"/sweeps/contest?sort={key}&order={o}&stage=search").text) for o in ("up", "down"))
    assert len(up) == len(down) == 64

    def value(number: int) -> object:
        trial = trials[number]
        return trial.params.get(key) if key == "lr" else getattr(trial, key)

    assert [value(each) for each in up] == sorted(map(value, up))  # type: ignore[type-var]
    assert [value(each) for each in down] == sorted(map(value, down), reverse=True)  # type: ignore[type-var]
    source = page(there, f"/sweeps/contest?sort={key}&order=up").text
    assert source.count("aria-sort=") == 1
    assert re.search(rf'data-key="head-{key}"[^>]* aria-sort="ascending"', source)


def test_filters_let_pass_just_what_they_say(there: str) -> None:
    trials = history.load(_root(there) / "contest").trials.values()
    expected = [t.number for t in trials if t.params.get("method") == "nag" and t.state == "stopped"]
    assert expected
    assert sorted(numbers(page(there, "/sweeps/contest?q=method:nag&state=stopped").text)) == expected
    few = page(there, "/sweeps/contest?q=lr<0&state=complete")
    assert not numbers(few.text)
    assert "No trial fits" in few.text


def test_a_filter_keeps_the_order_also_without_a_script(there: str) -> None:
    source = page(there, "/sweeps/contest?sort=lr&order=down").text
    given = re.findall(r'type="hidden" name="(sort|order)" value="(\w+)"', source)
    assert given == [("sort", "lr"), ("order", "down")]
    assert 'name="sort"' not in page(there, "/sweeps/contest").text


def test_a_filter_that_cannot_be_understood_says_so_and_shows_all(there: str) -> None:
    found = page(there, "/sweeps/contest?q=learning_rate<1&sort=nothing")
    assert found.status_code == 200
    assert 'role="alert"' in found.text
    assert "All trials are shown" in found.text
    assert len(numbers(found.text)) == 100


def test_who_has_a_page_gets_nothing_again(there: str) -> None:
    first = page(there, "/baselines")
    again = requests.get(there + "/baselines", headers={"If-None-Match": first.headers["etag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")


def test_the_script_gets_the_main_part_of_the_same_page(there: str) -> None:
    part = requests.get(there + "/baselines", headers={"X-Part": "main"}, timeout=30).text
    assert part.strip()
    assert "<html" not in part
    assert part.strip() in page(there, "/baselines").text


def test_static_files_are_kept_by_their_hash(there: str) -> None:
    for link in Read(page(there, "/").text).links():
        if link.startswith("/static/"):
            found = requests.get(there + link, timeout=30)
            assert "immutable" in found.headers["cache-control"]
            assert "immutable" not in requests.get(there + link.split("?")[0], timeout=30).headers["cache-control"]
    for name in ("nothing.css", "..%2fpages.py", ".hidden"):
        assert requests.get(f"{there}/static/{name}", timeout=30).status_code == 404


def test_the_report_runs_apart_from_the_pages(there: str) -> None:
    found = requests.get(there + "/sweeps/contest/report", timeout=30)
    assert found.text == "<!DOCTYPE html><title>report</title>"
    policy = found.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert page(there, "/sweeps/none/report").status_code == 404


def test_a_comparison_shows_its_sentence_arms_and_refusals(there: str) -> None:
    stored = json.loads((_root(there) / "contest" / "comparison.json").read_text())
    source = page(there, "/compare?sweep=contest").text
    assert f"<h1>{entities.escape(stored['contrasts'][0]['sentence'], quote=False)}".replace("'", "&#39;") in source
    assert source.count('data-name="stuck or diverged"') == len(stored["arms"])
    only = page(there, "/compare?sweep=contest&method=hf").text
    assert only.count('data-name="stuck or diverged"') == sum(arm["method"] == "hf" for arm in stored["arms"])
    refused = page(there, "/compare?sweep=none")
    assert refused.status_code == 200
    assert 'role="alert"' in refused.text


def test_published_values_are_marked_and_complete(there: str) -> None:
    from sweeps import published

    source = page(there, "/baselines").text
    assert source.count("published, not measured here") == len(published.names())
    assert source.count('<tr><th scope="row">') >= sum(len(published.table(n).values) for n in published.names())
    one = page(there, "/baselines?task=curves").text
    curves = [name for name in published.names() if "curves" in published.table(name).tasks]
    assert one.count("published, not measured here") == len(curves)


def test_what_does_not_run_cannot_be_stopped(there: str) -> None:
    found = page(there, "/sweeps/contest/stop")
    assert found.status_code == 409
    assert "contest does not run: it is" in found.text
    assert "/sweeps/contest/stop" not in page(there, "/sweeps/contest").text


def _root(there: str) -> Path:
    return Path(requests.get(there + "/api/v1/version", timeout=30).json()["root"])


# -- who may -------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A service that asks for tokens, and one of each role."""
    make(tmp_path / "runs" / "cut", Sweep(trials=6, close="interrupted"))
    tokens = Tokens(f"sqlite:///{tmp_path / 'tokens.db'}")
    known = {role: tokens.add(role, role)[1] for role in ("reader", "operator", "admin")}
    with serving(tmp_path / "runs", tokens, audit=tmp_path / "audit.jsonl") as address:
        yield address, known


def signed_in(address: str, token: str, then: str = "/") -> requests.Session:
    browser = requests.Session()
    browser.headers.update({"Accept": "text/html", "Origin": address})
    browser.post(f"{address}/login", data={"token": token, "next": then}, timeout=30)
    return browser


def test_one_who_is_not_signed_in_is_led_to_the_login_and_back(closed: tuple[str, dict[str, str]]) -> None:
    address, known = closed
    for path in (*PAGES, "/sweeps/cut?sort=lr", "/sweeps/gone"):
        found = page(address, path, allow_redirects=False) if path == "/login" else requests.get(
            address + path, headers={"Accept": "text/html"}, allow_redirects=False, timeout=30
        )  # fmt: skip
        assert found.status_code == 303, path
        assert found.headers["location"].startswith("/login")
    asked = requests.get(address + "/sweeps/cut?sort=lr", headers={"Accept": "text/html"}, timeout=30)
    assert 'name="next" value="/sweeps/cut?sort=lr"' in asked.text
    assert "<nav" not in asked.text
    browser = requests.Session()
    there = browser.post(
        f"{address}/login", data={"token": known["reader"], "next": "/sweeps/cut?sort=lr"}, timeout=30,
        headers={"Accept": "text/html"},
    )  # fmt: skip
    assert there.url == f"{address}/sweeps/cut?sort=lr"
    assert there.status_code == 200


def test_a_wrong_token_says_so_and_lets_nobody_in(closed: tuple[str, dict[str, str]]) -> None:
    address, known = closed
    for given in ("", "msw_wrong", known["reader"][:-1], known["reader"] + "x"):
        found = requests.post(f"{address}/login", data={"token": given}, timeout=30)
        assert found.status_code == 401
        assert "does not count" in found.text
        assert given == "" or given not in found.text
        assert "set-cookie" not in found.headers


@pytest.mark.parametrize("role", ["reader", "operator", "admin"])
def test_a_role_sees_what_it_may_do(closed: tuple[str, dict[str, str]], role: str) -> None:
    address, known = closed
    browser = signed_in(address, known[role])
    source = browser.get(f"{address}/sweeps/cut", timeout=30).text
    assert ("/sweeps/cut/resume" in source) == (role != "reader")
    assert ("/audit" in source) == (role == "admin")
    assert browser.get(f"{address}/audit", timeout=30).status_code == (200 if role == "admin" else 403)
    if role == "reader":
        token = re.search(r'name="csrf" value="([^"]+)"', source)
        assert token
        refused = browser.post(f"{address}/sweeps/cut/resume", data={"csrf": token.group(1)}, timeout=30)
        assert refused.status_code == 403
        assert "reader" in refused.text
    if role == "admin":
        assert "POST /login" in browser.get(f"{address}/audit", timeout=30).text


def test_signing_out_ends_the_session(closed: tuple[str, dict[str, str]]) -> None:
    address, known = closed
    browser = signed_in(address, known["reader"])
    kept = dict(browser.cookies)
    token = re.search(r'name="csrf" value="([^"]+)"', browser.get(address, timeout=30).text)
    assert token
    browser.post(f"{address}/logout", data={"csrf": token.group(1)}, timeout=30)
    again = requests.get(address, cookies=kept, headers={"Accept": "text/html"}, allow_redirects=False, timeout=30)
    assert again.status_code == 303


@pytest.mark.parametrize(
    ("words", "expected"),
    [("`musweep run`, then", "<code>musweep run</code>, then"), ("a ` alone", "a ` alone"),
     ("`<b>`", "<code>&lt;b&gt;</code>"), ("</code>`&`", "&lt;/code&gt;<code>&amp;</code>")],
)  # fmt: skip
def test_code_in_a_sentence_is_marked_and_escaped(words: str, expected: str) -> None:
    assert str(coded(words)) == expected


@pytest.mark.parametrize("given", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/a\nb"])
def test_a_login_never_leads_to_another_site(given: str) -> None:
    assert pages.local(given) == "/"
    assert pages.local("/sweeps/a?b=c") == "/sweeps/a?b=c"


# -- documentation -------------------------------------------------------------------------------------------------


def test_each_page_of_the_documentation_exists(there: str) -> None:
    source = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(/[^`]*)` \|", source, re.M)
    for path in told:
        filled = path.replace("ID", "contest").replace("/trials/N", "/trials/0")
        if "NAME" not in filled:
            assert page(there, filled).status_code == (409 if filled.endswith("/stop") else 200), path
    assert set(PAGES) <= set(told)
