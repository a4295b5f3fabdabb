from collections.abc import Generator
from pathlib import Path

import pytest

from cluster import notify
from cluster.launch import LaunchError
from tests.cluster.hook import Hook

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 32


@pytest.fixture
def hook() -> Generator[Hook]:
    made = Hook()
    yield made
    made.close()


def test_a_message_arrives_with_its_picture(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT", f"json://{hook.address}/hook")
    assert notify.send(["env:CHAT"], "nightly: worse", "1.2 times the error", "worse", PNG) == []
    (sent,) = hook.got
    assert (sent["title"], sent["message"], sent["type"]) == ("nightly: worse", "1.2 times the error", "failure")
    (attached,) = sent["attachments"]
    assert attached["filename"] == "nights.png"
    assert attached["mimetype"] == "image/png"


def test_each_address_that_refuses_is_one_line_without_its_secret(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.code = 500
    secret = tmp_path / "chat"
    secret.write_text(f"json://me:hunter2@{hook.address}/T00/B00/s3cr3t\n")
    monkeypatch.setenv("NONE", "no url at all")
    monkeypatch.delenv("ABSENT", raising=False)
    failed = notify.send([f"file:{secret}", "env:NONE", "env:ABSENT"], "a", "b")
    assert len(failed) == 3
    assert failed[0].startswith(f"notify file:{secret}: ")
    assert "500" in failed[0]
    assert failed[1] == "notify env:NONE: what it holds is no URL of apprise, as slack://... or json://host/path"
    assert failed[2] == "notify env:ABSENT: the environment variable ABSENT is not set here"
    assert not [words for words in failed if "hunter2" in words or "s3cr3t" in words or "no url at all" in words]


def test_a_ping_asks_for_its_url_and_tells_when_it_fails(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PING", f"http://{hook.address}/ping/s3cr3t")
    notify.ping("env:PING")
    assert hook.asked == ["/ping/s3cr3t"]
    hook.code = 404
    with pytest.raises(notify.NotifyError, match=r"^ping env:PING: answered 404$"):
        notify.ping("env:PING")
    hook.server.server_close()
    with pytest.raises(notify.NotifyError, match=r"^ping env:PING: [A-Za-z]+$"):
        notify.ping("env:PING")
    with pytest.raises(LaunchError, match="NOWHERE is not set"):
        notify.ping("env:NOWHERE")
