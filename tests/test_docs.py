"""The documents say what is true: links lead somewhere, commands exist, examples run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cluster import targets
from cluster.cli import app
from cluster.retention import Rules
from sweeps.spec import parse, shipped

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sweeps/**/*.md")])
README = (ROOT / "README.md").read_text()
ROOT_COMMAND: Any = get_command(app)
COMMANDS = ROOT_COMMAND.commands


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[str]:
    """Every musweep and make command that a document shows, in a block or in a line."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        shown = [block.replace("\\\n", " ") for block in blocks("(?:sh|bash|console)", text)]
        lines = [line for block in shown for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        found += [line.removeprefix("$ ").split("  #")[0].strip() for line in lines]
    return sorted({line for line in found if re.match(r"(?:musweep|make) [a-z-]", line)})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line: str) -> None:
    words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    command, rest, known = ROOT_COMMAND, words[1:], {"--help", "-h"}
    while rest and (rest[0].startswith("-") or hasattr(command, "commands")):
        known |= {option for parameter in command.params for option in parameter.opts}
        if rest[0].startswith("-"):
            assert rest[0] in known
            taken = [each for each in command.params if rest[0] in each.opts and not getattr(each, "is_flag", False)]
            rest = rest[1 + len(taken) :]
        elif rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        else:
            assert command is not ROOT_COMMAND, rest[0]  # a group's own argument
            break
    known |= {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


def test_every_command_is_in_the_readme() -> None:
    shown = {line.split()[1] for line in commands() if line.startswith("musweep ")}
    assert set(COMMANDS) <= shown


def _yaml(*documents: str) -> list[tuple[str, dict[str, Any]]]:
    """The YAML blocks of documents that are sections, each with its document."""
    found = [(name, yaml.safe_load(text)) for name in documents for text in blocks("yaml", (ROOT / name).read_text())]
    return [(name, data) for name, data in found if isinstance(data, dict)]


def _targets(data: dict[str, Any]) -> bool:
    return any(isinstance(section, dict) and "kind" in section for section in data.values())


SPECS = [data for _, data in _yaml("README.md") if not _targets(data)]
PLACES = [each for each in _yaml("README.md", "docs/clusters.md", "docs/queue.md") if _targets(each[1])]


@pytest.mark.parametrize("data", SPECS, ids=lambda data: str(data.get("name", "")))
def test_specs_in_the_readme_are_sound(data: dict[str, Any]) -> None:
    assert parse(data, "README.md").budget.trials


@pytest.mark.parametrize(("name", "data"), PLACES)
def test_targets_in_documents_are_sound(name: str, data: dict[str, Any]) -> None:
    assert data.keys() <= targets.parse(data, name).keys()


def test_rules_in_documents_are_those_that_there_are() -> None:
    (rules,) = (data for _, data in _yaml("docs/keeping.md"))
    assert rules == Rules(days=rules["days"], sweeps=rules["sweeps"]).model_dump()


def test_where_a_spec_runs_is_sound() -> None:
    (where,) = (data for _, data in _yaml("docs/specs.md") if "storage" in data)
    assert parse({"task": "digits", "space": {"lr": [0.1, 0.01]}, **where}, "docs/specs.md").resources.gpu == 0.5


@pytest.mark.parametrize("text", blocks("python"), ids=lambda text: text.splitlines()[0])
def test_python_in_the_readme_compiles(text: str) -> None:
    compile(text, "README.md", "exec")


def test_specs_named_in_documents_are_shipped() -> None:
    for document in DOCUMENTS:
        for name in re.findall(r"sweeps/specs/([\w-]+)\.yaml", document.read_text()):
            assert name in shipped()


def test_environment_variables_are_explained() -> None:
    ours = [path for path in ROOT.glob("*/**/*.py") if not {".venv", "chaos"} & set(path.parts)]
    used = {name for path in ours for name in re.findall(r"MUSWEEP_[A-Z_]+", path.read_text())}
    explained = {name for document in DOCUMENTS for name in re.findall(r"MUSWEEP_[A-Z_]+", document.read_text())}
    assert {name for name in used if not name.startswith("MUSWEEP_TEST")} <= explained
