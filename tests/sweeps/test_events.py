import json
import os
import threading
from pathlib import Path

import pytest

from sweeps import events, journal
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]


def written(folder: Path) -> list[dict]:
    data = (folder / events.FILE).read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def test_every_line_says_when_what_and_whose(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    events.rebuild(folder)
    found = written(folder)
    wanted = [(n, record) for n, record in enumerate(SAID) if record["type"] != "report"]
    assert [event["record"] for event in found] == [n for n, _ in wanted]
    for event, (_, record) in zip(found, wanted, strict=True):
        assert list(event)[:4] == ["schema_version", "time", "type", "sweep_id"]
        assert (event["time"], event["type"], event["sweep_id"]) == (record["time"], record["type"], told.SWEEP_ID)
        assert event.get("trial_id") == (f"t{record['trial']:05d}" if "trial" in record else None)
        assert not {"config", "trial"} & event.keys()


def test_live_lines_are_what_a_rebuild_makes(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    live = events.Live(folder, SAID[:3])
    for record in SAID[3:]:
        live.add([record])
    live.close()
    lived = (folder / events.FILE).read_bytes()
    (folder / events.FILE).unlink()
    events.rebuild(folder)
    assert (folder / events.FILE).read_bytes() == lived


def test_a_resume_goes_on_after_any_tear(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    events.rebuild(folder)
    whole = (folder / events.FILE).read_bytes()
    for cut in range(0, len(whole), 97):
        (folder / events.FILE).write_bytes(whole[:cut])
        events.Live(folder, SAID).close()
        assert (folder / events.FILE).read_bytes() == whole


def test_what_a_driver_told_survives_a_rebuild_in_its_place(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    live = events.Live(folder, SAID[:10])
    live.tell("trouble", source="mlflow", words="away", time=told.START + 3.5)
    live.add(SAID[10:])
    live.close()
    found = written(folder)
    place = next(n for n, event in enumerate(found) if event["type"] == "trouble")
    lines = (folder / events.FILE).read_bytes().splitlines(keepends=True)
    lines[0] = b'{"schema_version":1,"time":0,"type":"open","sweep_id":"another","record":0}\n'
    (folder / events.FILE).write_bytes(b"".join(lines))
    events.rebuild(folder)
    again = written(folder)
    assert [event for event in again if event["type"] != "trouble"] == [e for e in found if e["type"] != "trouble"]
    here = next(n for n, event in enumerate(again) if event["type"] == "trouble")
    assert again[here - 1]["time"] <= told.START + 3.5 <= again[here + 1]["time"]
    assert abs(here - place) <= len(again)


def test_a_full_disk_keeps_lines_whole_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = told.write(tmp_path / "told")
    live = events.Live(folder, SAID[:3])
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: len(data) // 2]))  # half of it fits
    live.add(SAID[3:9])
    assert all("time" in event for event in written(folder))
    monkeypatch.setattr(os, "write", real)
    live.add(SAID[9:])
    live.close()
    lived = (folder / events.FILE).read_bytes()
    (folder / events.FILE).unlink()
    events.rebuild(folder)
    assert (folder / events.FILE).read_bytes() == lived


def test_a_file_made_anew_beside_the_writer_is_found(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    live = events.Live(folder, SAID[:3])
    (folder / events.FILE).unlink()
    events.rebuild(folder, SAID[:6])
    live.tell("driver_stopped", reason="done")
    live.close()
    assert written(folder)[-1]["type"] == "driver_stopped"


def test_followers_see_each_event_once(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    live, ended = events.Live(folder, SAID[:3]), threading.Event()
    seen: list[dict] = []
    reader = threading.Thread(target=lambda: seen.extend(events.follow(folder, ended.is_set)))
    reader.start()
    for n, record in enumerate(SAID[3:]):
        live.add([record])
        if n == 4:
            live.tell("trouble", source="journal", words="full")
        if n == 8:
            (folder / events.FILE).write_bytes((folder / events.FILE).read_bytes())
            os.replace(_copy(folder), folder / events.FILE)  # noqa: PTH105
        ended.wait(0.05)
    ended.set()
    reader.join(10)
    live.close()
    assert seen == written(folder)


def _copy(folder: Path) -> Path:
    copy = folder / "copy"
    copy.write_bytes((folder / events.FILE).read_bytes())
    return copy


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:s3cr@t@host/db is away", "postgresql://me:***@host/db is away"),
        ("GET https://h/x?token=abc123&a=1", "GET https://h/x?token=***&a=1"),
        ("https://b/k?x=1&X-Amz-Signature=ff00;rest", "https://b/k?x=1&X-Amz-Signature=***;rest"),
        ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
        ("Authorization: Bearer eyJhbGciOi.x.y rejected", "Authorization: Bearer *** rejected"),
        ("a basic training of 20 updates, no tokens here", "a basic training of 20 updates, no tokens here"),
    ],
)
def test_secrets_are_scrubbed(text: str, clean: str) -> None:
    assert events.scrub(text) == clean


def test_no_event_holds_a_secret(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    live = events.Live(folder, SAID)
    live.tell("trouble", source="mlflow", words="http://u:pass1@h: 500", deep=[{"url": "s3://k:pass2@b"}])
    live.add([{"type": "close", "time": 1.0, "reason": "failed", "note": "postgresql://x:pass3@h/d"}])
    live.close()
    events.append(folder, "preflight", words="password=pass4")
    assert "pass" not in (folder / events.FILE).read_text().replace("password=***", "")


def test_numbers_that_are_not_finite_stay_json(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    events.append(folder, "preflight", seconds=float("inf"))
    assert journal.number(float("inf")) == written(folder)[-1]["seconds"] == "inf"
