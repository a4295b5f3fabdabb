"""What one night of a sweep that is run again and again came to: `night.json` of its folder (docs/nights.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps import remote

FILE = "night.json"
SCHEMA_VERSION = 1
RESULTS = ("ok", "worse", "better", "broken")
_NOT_SAID = ("name", "modules", "storage", "protocol", "mlflow", "night", "resolved")
"""Keys of a spec that change no result: places, names, and how nights are judged."""
_CODE = ("git", "musweep")
_MACHINE = ("cpu", "cores", "platform")
_SHA = 10


@dataclass(frozen=True, slots=True)
class Night:
    """A judged night: its result, and what later nights need of it."""

    at: float
    """When it was due, in seconds since 1970."""
    sweep: str
    """The id of its sweep."""
    kind: str
    """fixed or fresh, as its spec says; plain: its spec has no `night`, so only whether it ended is judged."""
    result: str
    """One of RESULTS."""
    sentence: str
    """The result in words, for a message."""
    spec: str = ""
    """Digest of what the spec asks for; only nights of one digest are compared."""
    since: float = 0.0
    """When the present state began."""
    event: str = ""
    """Empty if ok; else the same text while the same thing is wrong, so that one message goes out."""
    accepted: bool = False
    """Whether a person said that this night's level is right: it begins a new reference."""
    about: str = ""
    """The trial or arm that `effect` or `difference` is of, in words."""
    effect: float | None = None
    """Errors of this night, or of the last `nights` ones, as a multiple of the reference's (geometric means)."""
    low: float | None = None
    high: float | None = None
    """Fresh: the 95% interval of `effect`."""
    nights: int = 1
    """Fresh: how many last nights `effect` is of."""
    could_find: float | None = None
    """Fresh: the smallest factor that would be found with 80% power if it had lasted all nights since the reference."""
    could_find_tonight: float | None = None
    """Fresh: the same of a change that began this night."""
    collected: int = 0
    """Fresh: how many nights of the reference there are, this one included."""
    wanted: int = 0
    """Fresh: how many it takes."""
    restart: float | None = None
    """Fresh: an earlier change is over since then; nights before it are no longer pooled with later ones."""
    tolerance: float | None = None
    """Fixed: the largest relative difference that is none."""
    difference: float | None = None
    """Fixed: the largest relative difference from the reference; None: there was nothing to compare."""
    reference: str = ""
    """The sweep that it was held against, or the last of them."""
    changed: tuple[str, ...] = ()
    """What of code, libraries and machine is not as it was then: `torch 2.9 -> 2.10`."""
    versions: dict[str, str] = field(default_factory=dict)
    """What it ran on (`sweeps.versions`)."""
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fixed: what each trial came to (`nights_fixed.measured`)."""
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fresh: label, errors and stuck flags of each confirmed point (`nights_fresh.measured`)."""

    def __post_init__(self) -> None:
        assert self.result in RESULTS, self.result

    @property
    def sound(self) -> bool:
        """Whether its values can be used by later nights."""
        return self.result != "broken"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Night:
        """The inverse of `to_dict`, also after a trip through JSON.

        Raises:
            ValueError: of a newer musweep, or no night.
        """
        data = dict(data)
        version = data.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"a night of format {version}: this musweep reads format {SCHEMA_VERSION}")
        try:
            return cls(**{**data, "changed": tuple(data.get("changed", ()))})
        except TypeError as error:
            raise ValueError(f"no night: {error}") from None


def accept(night: Night) -> Night:
    """The same night as a person has accepted it: later ones are held against it."""
    return replace(night, accepted=True)


def write(folder: Path, night: Night) -> None:
    """Write night.json, whole or not at all.

    Raises:
        OSError: it could not be written.
    """
    from sweeps.store import atomic_write

    atomic_write(folder / FILE, json.dumps(night.to_dict(), indent=1, allow_nan=False).encode())
    remote.keep(folder / FILE, folder)


def read(folder: Path) -> Night | None:
    """The night of a sweep folder; None if it has not been judged.

    Raises:
        ValueError: the file is damaged, or of a newer musweep.
    """
    try:
        return Night.from_dict(json.loads((folder / FILE).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / FILE}: {error}; `musweep` judges the night anew if it is removed") from None


def digest(spec: Mapping[str, Any], *, seed: bool) -> str:
    """Ten hex digits of what a resolved spec asks for, without places and names.

    Args:
        spec: plain values, as in spec.json.
        seed: whether the seed of the search counts; that of fresh nights is another every night.
    """
    said = {key: value for key, value in spec.items() if key not in _NOT_SAID}
    said["resources"] = {key: (spec.get("resources") or {}).get(key) for key in ("engine", "device")}
    if not seed:
        said["search"] = {key: value for key, value in (spec.get("search") or {}).items() if key != "seed"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What of code, libraries and machine differs, code first."""
    names = dict.fromkeys([*_CODE, *before, *now, *_MACHINE])
    order = [*_CODE, *(name for name in names if name not in (*_CODE, *_MACHINE)), *_MACHINE]
    return tuple(
        f"{name} {_short(name, before.get(name))} -> {_short(name, now.get(name))}"
        for name in order
        if before.get(name) != now.get(name)
    )


def _short(name: str, value: str | None) -> str:
    if not value:
        return "unknown"
    if name != "git":
        return value
    sha, plus, rest = value.partition("+")
    return sha[:_SHA] + plus + rest


def said_of(changed: Iterable[str], day: str) -> str:
    """A sentence on what has changed since the reference's day."""
    found = list(changed)
    if not found:
        return f"Code, libraries and machine are those of {day}."
    kinds = {"code": _CODE, "machine": _MACHINE}
    words = []
    for kind in ("code", "libraries", "machine"):
        of = [each for each in found if _kind(each, kinds) == kind]
        if of:
            words.append(f"{kind} ({', '.join(of)})")
    return f"Changed since {day}: {'; '.join(words)}."


def _kind(change: str, kinds: Mapping[str, tuple[str, ...]]) -> str:
    name = change.split(" ")[0]
    return next((kind for kind, names in kinds.items() if name in names), "libraries")
