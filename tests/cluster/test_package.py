import os
import socket
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import ignored
from cluster.launch import LaunchError
from cluster.package import Package, pack, sized, sweep_id
from sweeps.spec import SweepSpec, load, parse

ODD = [
    "a b.py",
    "it's.txt",
    'say "hi".txt',
    "new\nline.txt",
    "-rf.txt",
    "über/naïve.txt",
    "*.txt",
    "#x.txt",
    "!y.txt",
    " lead",
]


def git(folder: Path, *words: str) -> None:
    config = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "protocol.file.allow=always",
        "-c",
        "init.defaultBranch=main",
    ]
    subprocess.run(["git", *config, *words], cwd=folder, check=True, capture_output=True)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def sent(folder: Path) -> list[str]:
    return sorted(ignored.listed(folder))


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    """A spec that names code of its own, in a folder that is no repository."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "mine.py").write_text("def train(trial): ...\n")
    (project / "s.yaml").write_text("trainer: mine:train\nspace: {x: [1, 2]}\nobjective: loss\n")
    return load(project / "s.yaml")


@pytest.mark.parametrize("repository", [True, False])
def test_what_git_would_send(repository: bool, tmp_path: Path) -> None:
    write(tmp_path, "kept.py", "sub/kept.txt", "secret.key", "sub/deep/no.log", "sub/yes.log", "build/x", *ODD)
    write(tmp_path, "runs/s/journal.jsonl", ".venv/bin/python", "sub/__pycache__/a.pyc", "big/data.bin", "big/keep.bin")
    (tmp_path / ".gitignore").write_text("*.key\n/build/\n*.log\n!/sub/yes.log\n")
    (tmp_path / ".musweepignore").write_text("big/*\n!big/keep.bin\n")
    if repository:
        git(tmp_path, "init")
        git(tmp_path, "add", "kept.py", "big")  # one is tracked, others are not, and one tracked is not sent
        git(tmp_path, "commit", "-m", "x")
        write(tmp_path, "tracked-then-deleted")
        git(tmp_path, "add", "tracked-then-deleted")
        (tmp_path / "tracked-then-deleted").unlink()
    rest = [".gitignore", ".musweepignore", "big/keep.bin", "kept.py", "sub/kept.txt", "sub/yes.log"]
    assert sent(tmp_path) == sorted([*rest, *ODD])


names = st.sampled_from(["a", "b", "c.x", "d.x"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
patterns = st.sampled_from(
    ["a", "/a", "a/", "b/*", "*.x", "!c.x", "!/a/c.x", "a/**", "**/b", "!b", "# no", "", "/a/b/", "[cd].x", "!a/"]
)


@settings(deadline=None)  # git is run each time
@example(files=["a/b/a"], top=["**/b", "!a/"], below=[])
@given(
    files=st.lists(paths, min_size=1, max_size=8),
    top=st.lists(patterns, max_size=4),
    below=st.lists(patterns, max_size=3),
)
def test_a_walk_sees_what_git_sees(files: list[str], top: list[str], below: list[str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("walk")
    for name in files:
        path = folder / name
        if not any((folder / part).is_file() for part in map(str, Path(name).parents)) and not path.is_dir():
            write(folder, name)
    (folder / ".gitignore").write_text("\n".join(top) + "\n")
    if (folder / "a").is_dir():
        (folder / "a" / ".gitignore").write_text("\n".join(below) + "\n")
    walked = sent(folder)
    git(folder, "init")
    assert walked == sent(folder)


def test_repositories_inside_a_repository(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for each in (inner, outer):
        each.mkdir()
        git(each, "init")
    write(inner, "code.py", "no.log")
    (inner / ".gitignore").write_text("*.log\n")
    git(inner, "add", "code.py", ".gitignore")
    git(inner, "commit", "-m", "x")
    git(outer, "submodule", "add", str(inner), "module")
    write(outer, "top.py", "module/new.py", "module/no.log")
    assert sent(outer) == [".gitmodules", "module/.gitignore", "module/code.py", "module/new.py", "top.py"]


def test_only_the_folder_itself_of_a_larger_repository(tmp_path: Path) -> None:
    git(tmp_path, "init")
    write(tmp_path, "above.py", "project/mine.py", "project/no.log")
    (tmp_path / ".gitignore").write_text("*.log\n")
    assert sent(tmp_path / "project") == ["mine.py"]


def test_links_sockets_and_names_that_cannot_travel(spec: SweepSpec, tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(tmp_path, "outside.txt")
    write(project, "data/one.txt", "back\\slash.txt", "C:drive.txt")
    (project / "inside.txt").symlink_to("data/one.txt")
    (project / "folder").symlink_to("data")
    (project / "out.txt").symlink_to(tmp_path / "outside.txt")
    (project / "gone.txt").symlink_to("nothing")
    (project / "up").symlink_to(".")
    (project / "data" / "loop").symlink_to("loop")
    (project / os.fsdecode(b"latin-\xe9.txt")).write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(project)  # a socket's path must be short
        listener.bind("s.sock")
        os.chdir(here)
        package = pack(spec)
    assert sorted(package.files) == ["data/one.txt", "folder/one.txt", "inside.txt", "mine.py", "s.yaml"]
    told = "\n".join(package.notes)
    for words in (
        "out.txt, a link out of the folder",
        "gone.txt, a link to nothing",
        "up, a link to",
        "data/loop, a link",
    ):
        assert words in told
    for words in ("s.sock, no file", "name that is not UTF-8", "a name with a backslash", "looks like a drive"):
        assert words in told
    assert package.files["inside.txt"].read_text() == "data/one.txt"


def test_the_same_contents_are_the_same_bytes(spec: SweepSpec, tmp_path: Path) -> None:
    write(tmp_path / "project", *ODD)
    (tmp_path / "project" / "tool.sh").write_text("#!/bin/sh\n")
    (tmp_path / "project" / "tool.sh").chmod(0o755)
    first = pack(spec)
    digest = first.write(tmp_path / "1.zip")
    for path in first.files.values():
        os.utime(path, (1e9, 1e9))
    assert pack(spec).write(tmp_path / "2.zip") == digest == first.digest
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        names = packed.namelist()
        assert names == sorted(names, key=str.encode)
        assert set(ODD) < set(names)
        packed.extractall(tmp_path / "out")
    assert (tmp_path / "out" / "new\nline.txt").read_text() == "new\nline.txt"
    (tmp_path / "project" / "mine.py").write_text("def train(trial): return\n")
    assert pack(spec).digest != digest
    assert not list(tmp_path.glob(".*.tmp"))


def test_too_much_is_refused_with_the_largest(spec: SweepSpec, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for n in range(12):
        (project / f"part {n:02}.bin").write_bytes(b"x" * (1000 * (n + 1)))
    with (project / "weights.bin").open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(LaunchError) as caught:
        pack(spec)
    line = str(caught.value)
    assert "200.1 MB to send, the limit is 50 MB" in line
    assert line.index('"weights.bin" 200.0 MB') < line.index('"part 11.bin" 12 kB') < line.index('"part 03.bin" 4 kB')
    assert "part 02.bin" not in line  # ten are named
    assert line.endswith("put /weights.bin into .musweepignore")
    (project / ".musweepignore").write_text("/weights.bin\n")
    assert pack(spec).size < 100_000
    (project / ".musweepignore").write_text(f"{ignored.how_to_ignore('part 11.bin').split()[1]} 11.bin\n*.bin\n")
    assert not [name for name in pack(spec).files if name.endswith(".bin")]


def test_too_many_files_are_refused(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cluster.package._MOST_FILES", 3)
    write(tmp_path / "project", *(f"{n}.txt" for n in range(9)))
    with pytest.raises(LaunchError, match="more than 3 files to send"):
        pack(spec)


def test_what_cannot_be_read_is_named(spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "project", "my secret")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "secret" not in str(path) and real(path, mode))  # root may all
    with pytest.raises(LaunchError, match=r"my secret: permission denied; put /my\\ secret into \.musweepignore"):
        pack(spec)


def test_a_spec_without_code_is_sent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "huge.py")
    package = pack(parse({"task": "digits", "space": {"lr": [0.1, 0.2]}}))
    assert (package.root, dict(package.files)) == (None, {})
    assert list(pack(parse({"task": "digits", "space": {"lr": [0.1, 0.2]}}), tmp_path).files) == ["huge.py"]


def test_own_code_is_found_where_the_package_is_unpacked(spec: SweepSpec, tmp_path: Path) -> None:
    pack(spec).write(tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as packed:
        packed.extractall(tmp_path / "there")
    again = load(tmp_path / "there" / "spec.json")
    assert again.modules == str(tmp_path / "there")
    assert sweep_id(again) == sweep_id(spec)
    assert again.model_copy(update={"modules": spec.modules}) == spec


def test_a_folder_above_the_code_can_be_sent(spec: SweepSpec, tmp_path: Path) -> None:
    write(tmp_path, "shared/x.txt")
    package = pack(spec, tmp_path)
    assert "project/mine.py" in package.files
    package.write(tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as packed:
        packed.extractall(tmp_path / "there")
    assert load(tmp_path / "there" / "spec.json").modules == str(tmp_path / "there" / "project")
    (tmp_path / "other").mkdir()
    with pytest.raises(LaunchError, match="does not hold the spec's own code"):
        pack(spec, tmp_path / "other")
    with pytest.raises(LaunchError, match="no such folder to send"):
        pack(spec, tmp_path / "none")


def test_code_that_is_ignored_is_missed(spec: SweepSpec, tmp_path: Path) -> None:
    (tmp_path / "project" / ".musweepignore").write_text("mine.py\n")
    with pytest.raises(LaunchError, match=r"trainer=mine:train: .*mine is ignored"):
        pack(spec)


def test_ids(spec: SweepSpec, tmp_path: Path) -> None:
    plain = {"name": "n", "task": "digits", "space": {"lr": [0.1, 0.2]}}
    first = sweep_id(parse(plain))
    assert first.startswith("n-")
    assert len(first) == 12
    assert (
        sweep_id(parse({**plain, "space": {"lr": {"type": "choice", "values": [0.1, 0.2]}}})) == first
    )  # written short
    assert sweep_id(parse({**plain, "storage": "elsewhere"})) == first
    assert sweep_id(parse({**plain, "search": {"seed": 1}})) != first
    assert sweep_id(spec.model_copy(update={"modules": "/elsewhere"})) == sweep_id(spec)


def test_a_users_own_spec_json_gives_way(spec: SweepSpec, tmp_path: Path) -> None:
    write(tmp_path / "project", "spec.json")
    package = pack(spec)
    assert "spec.json" not in package.files
    assert any("your spec.json" in note for note in package.notes)


def test_sizes() -> None:
    assert [sized(n) for n in (0, 999, 1000, 82_400, 200_000_000)] == ["0 B", "999 B", "1 kB", "82 kB", "200.0 MB"]
    assert Package("x", None, {}, b"{}").digest != Package("x", None, {}, b"{ }").digest
