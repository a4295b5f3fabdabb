"""Where sweeps can be sent: `clusters.yaml`, checked as specs are, with every mistake in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cluster.launch import LaunchError
from cluster.target_kinds import Hosts, K8s, Slurm
from sweeps import modules, reading
from sweeps.errors import ABSENT, Problem, ProblemsError, SpecError, nearest
from sweeps.schema_values import Count, Section, refuse
from sweeps.spec import SweepSpec

KINDS = ("debug", "local", "ray", "slurm", "k8s", "hosts")
HERE = ("debug", "local")
"""Kinds that run on this machine."""
_SECRET_HOW = "{from_env: NAME} or {from_file: /path}, so that the file can be shared"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Secret(Section):
    """A value that is named here and kept elsewhere."""

    from_env: str | None = None
    """An environment variable."""
    from_file: str | None = None
    """A file; a newline at its end does not count."""

    @property
    def reference(self) -> str:
        """Where it is, as `env:NAME` or `file:PATH`."""
        return f"env:{self.from_env}" if self.from_env is not None else f"file:{self.from_file}"

    def read(self, what: str) -> str:
        """The value, read on this machine.

        Raises:
            LaunchError: it is not there.
        """
        return read_reference(self.reference, what)


def read_reference(reference: str, what: str) -> str:
    """The value that `env:NAME` or `file:PATH` names on this machine.

    Raises:
        LaunchError: it is not there.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        value = os.environ.get(place, "")
        if not value:
            raise LaunchError(f"{what}: the environment variable {place} is not set here")
        return value
    try:
        value = Path(place).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise LaunchError(f"{what}: cannot read {place}: {reason}") from None
    if not value:
        raise LaunchError(f"{what}: {place} is empty")
    return value


def _secret(value: Any) -> Any:
    """A Secret from its mapping."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, Mapping):
        refuse("a secret does not belong in this file", _SECRET_HOW)
    known = tuple(Secret.model_fields)
    if unknown := [key for key in value if key not in known]:
        refuse("unknown key", ", ".join(known), nearest(unknown[0], known), below=str(unknown[0]))
    if len(value) != 1 or not isinstance(next(iter(value.values())), str):
        refuse("not the place of a secret", _SECRET_HOW)
    place = str(next(iter(value.values())))
    if "from_env" in value and not _VARIABLE.fullmatch(place):
        refuse("not the name of an environment variable", "letters, digits and _", below="from_env")
    if "from_file" in value and not place.startswith(("/", "~/")):
        refuse("not a whole path", "an absolute path, or one that begins with ~/", below="from_file")
    return Secret(**value)


def _url(value: Any) -> Any:
    """A URL or path without a password."""
    if isinstance(value, str) and _password(value):
        refuse("a password in a URL", _SECRET_HOW)
    return value


def _url_or_secret(value: Any) -> Any:
    return _secret(value) if isinstance(value, Mapping | Secret) else _url(value)


def _env(value: Any) -> Any:
    """Variables by name, each text or the place of a secret."""
    if not isinstance(value, Mapping):
        refuse("not variables", "names with text, or with {from_env: NAME}")
    found: dict[str, Any] = {}
    for name, given in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            refuse("not the name of an environment variable", "letters, digits and _", below=str(name))
        if isinstance(given, Mapping | Secret):
            found[name] = _secret(given)
        elif not isinstance(given, str):
            refuse("not text", 'text in quotes, as in "1"', below=name)
        elif _SECRET_NAME.search(name) or _password(given):
            raise ProblemsError([Problem(f"env.{name}", "a secret does not belong in this file", ABSENT, _SECRET_HOW)])
        else:
            found[name] = given
    return found


def _password(text: str) -> bool:
    """Whether text is a URL that carries a password."""
    try:
        return "://" in text and urlsplit(text).password is not None
    except ValueError:
        return "@" in text


def _kind(value: Any) -> Any:
    if value not in KINDS:
        refuse("unknown kind", ", ".join(KINDS), nearest(value, KINDS))
    return value


Url = Annotated[str, BeforeValidator(_url)]
UrlOrSecret = Annotated[str | Secret, BeforeValidator(_url_or_secret)]
_UNITS = {
    "K": 1e-3,
    "M": 1.0,
    "G": 1e3,
    "T": 1e6,
    "Ki": 1.024e-3,
    "Mi": 1.048576,
    "Gi": 1073.741824,
    "Ti": 1099511.627776,
}
_MEMORY = r"^[0-9]+(\.[0-9]+)?(K|M|G|T|Ki|Mi|Gi|Ti)?$"


def megabytes(memory: str, parts: int = 1) -> int:
    """A size such as 16G in megabytes (bytes if it has no unit), one of so many parts of it, at least one."""
    unit = memory.lstrip("0123456789.")
    return max(1, round(float(memory[: len(memory) - len(unit)]) * _UNITS.get(unit, 1e-6) / parts))


class Resources(Section):
    """What a place gives a sweep."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores of all its workers together."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of all its workers together."""
    memory: Annotated[str, Field(pattern=_MEMORY)] | None = None
    """Of all together, as in 16G."""
    workers: Count | None = None
    """Workers of a spec that says auto."""


class Quota(Section):
    """What queued sweeps may hold at once; null: no limit."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs."""
    sweeps: Count | None = None
    """Sweeps that run."""


class Target(Section):
    """A place that sweeps can be sent to."""

    name: Annotated[str, Field(exclude=True)] = ""
    """What it is called."""
    kind: Annotated[Literal["debug", "local", "ray", "slurm", "k8s", "hosts"], BeforeValidator(_kind)]
    """debug (this process), local (this host), ray (a running cluster), slurm, k8s or hosts."""
    address: Url | None = None
    """Of a Ray cluster: its dashboard, as in http://head:8265."""
    storage: Url | None = None
    """Folder that every machine of the place sees, or a URL; sweeps lie in it by id. Default on this machine: runs."""
    python: str | None = None
    """The Python there that has musweep; default: python, on this machine the one that runs."""
    image: str | None = None
    """Container image with musweep."""
    mlflow: UrlOrSecret | None = None
    """Tracking server, as seen from there."""
    database: UrlOrSecret | None = None
    """PostgreSQL of queue and leases."""
    resources: Resources = Field(default_factory=Resources)
    """What a sweep gets there."""
    env: Annotated[dict[str, str | Secret], BeforeValidator(_env)] = Field(default_factory=dict)
    """Environment of drivers; what is from_env or from_file is read where the driver runs."""
    token: Annotated[Secret, BeforeValidator(_secret)] | None = None
    """Ray's authentication token, read on this machine."""
    allow: list[str] = Field(default_factory=list)
    """Code of users' own that specs may name, package.module:function; * stands for any part."""
    limit_mb: Annotated[float, Field(gt=0)] = 50.0
    """The most that is sent with a sweep, in MB."""
    slurm: Slurm | None = None
    """What only kind slurm needs."""
    k8s: K8s | None = None
    """What only kind k8s needs."""
    hosts: Hosts | None = None
    """What only kind hosts needs."""
    queue: bool = False
    """Whether sweeps wait in the queue for `musweep queue run` to start them."""
    quota: Quota | None = None
    """What one owner's queued sweeps may hold at once."""
    quotas: dict[str, Quota] = Field(default_factory=dict)
    """The same for owners who may have more or less than the others, by name."""
    room: Quota | None = None
    """What all queued sweeps may hold at once; default: what a Ray cluster or this host has, elsewhere no limit."""
    backfill: Annotated[int, Field(ge=0)] = 4
    """How often sweeps of its own priority may start before one that waits for room."""
    preempt: bool = False
    """Whether queued sweeps of higher priority stop those of lower, which go on later."""

    @model_validator(mode="after")
    def _together(self) -> Target:
        """Check what ties keys together."""
        found = [*self._address_problems(), *self._storage_problems()]
        if found:
            raise ProblemsError(found)
        return self

    def _address_problems(self) -> list[Problem]:
        if self.kind != "ray":
            return []
        allowed = "the dashboard's address, as in http://head:8265"
        if self.address is None:
            return [Problem("address", "missing", ABSENT, allowed)]
        if self.address.startswith("ray://"):
            return [Problem("address", "the address of Ray Client, not of Ray Jobs", self.address, allowed)]
        try:
            parts = urlsplit(self.address if "://" in self.address else f"http://{self.address}")
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
        except ValueError:
            sound = False
        return [] if sound else [Problem("address", "not the address of a Ray cluster", self.address, allowed)]

    def _storage_problems(self) -> list[Problem]:
        if self.kind in HERE:
            return []
        allowed = "a folder that every machine there sees, as /shared/sweeps, or a URL such as s3://bucket/sweeps"
        if self.storage is None:
            return [Problem("storage", "missing", ABSENT, allowed)]
        if "://" not in self.storage and not PurePosixPath(self.storage).is_absolute():
            return [Problem("storage", "relative to nothing that another machine knows", self.storage, allowed)]
        return []

    @property
    def url(self) -> str:
        """A Ray cluster's address with its scheme and without a slash at its end."""
        address = self.address or ""
        return (address if "://" in address else f"http://{address}").rstrip("/")

    def folder(self, id_: str) -> str:
        """Where a sweep lies there."""
        if self.storage is not None and "://" in self.storage:
            return f"{self.storage.rstrip('/')}/{id_}"
        storage = Path(self.storage or "runs").expanduser()
        return str((storage.absolute() if self.kind in HERE else storage) / id_)


BUILT_IN = {kind: {"kind": kind, "allow": ["*"]} for kind in HERE}
"""Targets that are there without any file; what they run is what `musweep run` would run."""


def places() -> list[Path]:
    """Where `clusters.yaml` is looked for; the first that is there counts."""
    if named := os.environ.get("MUSWEEP_CLUSTERS"):
        return [Path(named).expanduser()]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return [Path("clusters.yaml"), config / "musweep" / "clusters.yaml"]


def load(path: Path | None = None) -> dict[str, Target]:
    """All targets by name, the built-in ones among them; a file may say otherwise of those.

    Args:
        path: of the file; default: where it is looked for.

    Raises:
        SpecError: with everything wrong in the file, each in a line.
    """
    wanted = [path] if path is not None else places()
    found = next((each for each in wanted if each.exists()), None)
    if found is None:
        if path is not None or "MUSWEEP_CLUSTERS" in os.environ:
            raise SpecError([Problem("", "no such file; it says which clusters there are")], str(wanted[0]))
        return parse({}, "clusters.yaml")
    try:
        data = reading.parse(found.read_text(encoding="utf-8"))
    except ProblemsError as error:
        raise SpecError([_masked(problem) for problem in error.problems], str(found)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise SpecError([Problem("", str(reason))], str(found)) from None
    return parse(data, str(found))


def parse(data: Any, source: str) -> dict[str, Target]:
    """The targets that plain data mean, with the built-in ones.

    Raises:
        SpecError: with everything found wrong, each in a line.
    """
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise SpecError([Problem("", "not targets", ABSENT, "names, each with a section that has a kind")], source)
    found: dict[str, Target] = {}
    problems: list[Problem] = []
    for key, section in {**BUILT_IN, **data}.items():
        name = str(key)
        if not _NAME.fullmatch(name):
            problems.append(Problem(name, "not a name", ABSENT, "letters, digits, then also . - _"))
        elif not isinstance(section, Mapping):
            problems.append(Problem(name, "not a target", ABSENT, "a section with a kind, as in {kind: ray, ...}"))
        elif "name" in section:
            problems.append(Problem(f"{name}.name", "a target has the name it stands under", ABSENT))
        else:
            try:
                found[name] = Target.model_validate({**{str(k): v for k, v in section.items()}, "name": name})
            except ValidationError as error:
                problems += [p for each in error.errors(include_url=False) for p in _problems(name, each)]
    if problems:
        raise SpecError(problems, source)
    return found


def target(name: str, path: Path | None = None) -> Target:
    """The target of a name.

    Raises:
        SpecError: there is none, or the file is wrong.
    """
    found = load(path)
    if name not in found:
        source = path or next((each for each in places() if each.exists()), Path("clusters.yaml"))
        raise SpecError([Problem("", f"no target {name}", ABSENT, ", ".join(found), nearest(name, found))], str(source))
    return found[name]


def refuse_code(spec: SweepSpec, target: Target) -> None:
    """Have a spec name only code that its target allows.

    Raises:
        LaunchError: it names other code.
    """
    refuse_named(spec.model_dump(mode="json"), target)


def refuse_named(data: Mapping[str, Any], target: Target) -> None:
    """Have the plain data of a spec, such as a package's, name only code that its target allows.

    Raises:
        LaunchError: they name other code.
    """
    for key, name in modules.named(data):
        if not any(fnmatchcase(name, pattern) for pattern in target.allow):
            allowed = ", ".join(target.allow) or "none"
            raise LaunchError(
                f"{key}={name}: target {target.name} does not run this code; allowed there: {allowed}; "
                f"whoever answers for it adds it to {target.name}.allow in clusters.yaml"
            )


def _section_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The section in which a key stands."""
    inner: dict[str, type[BaseModel]] = {
        "resources": Resources, "quota": Quota, "quotas": Quota, "room": Quota,
        "slurm": Slurm, "k8s": K8s, "hosts": Hosts,
    }  # fmt: skip
    return inner.get(str(loc[0]), Target) if len(loc) > 1 else Target


def _problems(name: str, error: ErrorDetails) -> list[Problem]:
    """The problems of one of pydantic's findings about a target."""
    loc, kind, ctx, value = error["loc"], error["type"], error.get("ctx", {}), error["input"]
    path = ".".join([name, *map(str, loc)])
    if isinstance(inner := ctx.get("error"), ProblemsError):
        return [_masked(Problem(f"{name}.{p.path}", p.wrong, p.value, p.allowed, p.hint)) for p in inner.problems]
    if kind == "problem":
        if below := ctx["below"]:
            path, value = f"{path}.{below}", value.get(below, ABSENT) if isinstance(value, Mapping) else ABSENT
        return [_masked(Problem(path, ctx["wrong"], value, ctx["allowed"], ctx["hint"]))]
    if kind == "extra_forbidden":
        known = [key for key in _section_at(loc).model_fields if key != "name"]
        return [_masked(Problem(path, "unknown key", value, ", ".join(known), nearest(loc[-1], known)))]
    if kind == "missing":
        return [Problem(path, "missing", ABSENT, ", ".join(KINDS) if loc[-1] == "kind" else "")]
    words = {
        "bool_type": "neither true nor false", "string_type": "not text", "float_type": "not a number",
        "list_type": "not a list", "dict_type": "not a section", "model_type": "not a section",
        "int_type": "not a whole number", "model_attributes_type": "not a section",
        "string_pattern_mismatch": "not a size; allowed: a number with K, M, G or T behind it, as in 16G",
    }.get(kind, error["msg"])  # fmt: skip
    return [_masked(Problem(path, words, value))]


def _masked(problem: Problem) -> Problem:
    """A problem that shows no secret: neither what stands for a token nor a URL with a password."""
    private = isinstance(problem.value, str) and (_password(problem.value) or "secret" in problem.wrong)
    private = (
        private or _SECRET_NAME.search(problem.path) is not None or not isinstance(problem.value, str | int | float)
    )
    if private:
        return Problem(problem.path, problem.wrong, ABSENT, problem.allowed, problem.hint)
    return problem
