"""Tokens for the service: made, listed, revoked and checked. The database holds no secret, only its hash."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from cluster.database import Database, DatabaseError, Kind, place
from cluster.service.roles import ROLES

KEPT_S = 2.0
"""For how long a check is believed without asking the database: so long may a revoked token live on."""
_USED_S = 60.0
"""How exact the last use is."""
_MOST = 4096
_TOKEN = re.compile(r"msw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[\w][\w .@+-]{0,63}")

_tables = sa.MetaData()
_tokens = sa.Table(
    "musweep_tokens",
    _tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("made", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("revoked", sa.Float),
    sa.Column("used", sa.Float),
)


class TokenError(DatabaseError):
    """Something about tokens that a person can put right, in one line."""


ACCESS = Kind("access", (_tables.create_all,), TokenError)


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret."""

    id: str
    name: str
    role: str
    made: float
    """Seconds since 1970, as are the others."""
    expires: float | None
    """None: never."""
    revoked: float | None
    used: float | None
    """To the minute."""

    def valid(self, now: float) -> bool:
        """Whether it opens anything."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """In a word."""
        return "revoked" if self.revoked is not None else "valid" if self.valid(now) else "expired"


_COLUMNS = [_tokens.c[name] for name in Token.__slots__]


def _hash(secret: str) -> str:
    # One round of SHA-256 is enough: the secret is 256 random bits, which nobody guesses however fast the hash is.
    # Slow hashes are for passwords, and would let anyone who knocks keep the service busy.
    return hashlib.sha256(secret.encode()).hexdigest()


class Tokens:
    """The tokens of one database.

    Args:
        url: of the database; default: $MUSWEEP_DATABASE, else access.db where musweep keeps its state.
        clock: seconds since 1970.
        kept_s: for how long a check is believed.
    """

    def __init__(self, url: str | None = None, clock: Callable[[], float] = time.time, kept_s: float = KEPT_S) -> None:
        self._url = url or place("access.db")
        self._fresh = self._url.startswith("sqlite") and not Path(self._url.removeprefix("sqlite:///")).exists()
        self._database = Database(self._url, ACCESS, patience_s=10.0)
        self._clock, self._kept_s = clock, kept_s
        self._known: dict[str, tuple[float, Token, str]] = {}
        self._turn = threading.Lock()

    def add(self, name: str, role: str, days: float | None = None) -> tuple[Token, str]:
        """Make a token; the text that opens the service is returned here and kept nowhere.

        Raises:
            TokenError: name, role or days are not legal.
        """
        if role not in ROLES:
            raise TokenError(f"role {role!r}; legal: {', '.join(ROLES)}")
        if not _NAME.fullmatch(name):
            raise TokenError(f"name {name!r}; legal: up to 64 letters, digits, spaces and . _ @ + -")
        if days is not None and not 0 < days <= 36500:
            raise TokenError(f"days {days:g}; legal: more than 0, up to 36500")
        now, secret = self._clock(), secrets.token_urlsafe(32)
        token = Token(secrets.token_hex(6), name, role, now, days and now + days * 86400, None, None)
        values = {each: getattr(token, each) for each in Token.__slots__} | {"hash": _hash(secret)}
        self._database.run(lambda connection: connection.execute(_tokens.insert().values(values)))
        return token, f"msw_{token.id}_{secret}"

    def all(self) -> list[Token]:
        """All that were ever made, the oldest first."""
        asked = sa.select(*_COLUMNS).order_by(_tokens.c.made, _tokens.c.id)
        found = self._database.run(lambda connection: connection.execute(asked).all(), write=False)
        return [Token(*row) for row in found]

    def any_valid(self) -> bool:
        """Whether any token opens the service now."""
        if self._fresh:  # to look must not make a database
            self._fresh = not Path(self._url.removeprefix("sqlite:///")).exists()
        return not self._fresh and any(token.valid(self._clock()) for token in self.all())

    def revoke(self, id_: str) -> Token:
        """Have a token open nothing any more, given its id, how that begins, or its name if only one has that.

        Raises:
            TokenError: none or several are meant.
        """
        tokens = self.all()
        found = [token for token in tokens if token.id.startswith(id_.removeprefix("msw_")) or token.name == id_]
        exact = [token for token in found if token.id == id_.removeprefix("msw_")]
        found = exact or [token for token in found if token.revoked is None] or found
        if len(found) != 1 or not id_:
            known = ", ".join(f"{token.id} ({token.name})" for token in (found or tokens)[:5]) or "none was made"
            raise TokenError(f"{len(found) or 'no'} tokens are meant by {id_!r}; legal: {known}")
        token, now = found[0], self._clock()
        if token.revoked is None:
            change = _tokens.update().where(_tokens.c.id == token.id).values(revoked=now)
            self._database.run(lambda connection: connection.execute(change))
        with self._turn:
            self._known.pop(token.id, None)
        return Token(token.id, token.name, token.role, token.made, token.expires, token.revoked or now, token.used)

    def check(self, text: str) -> Token | None:
        """The token of a text that opens the service; None for any other text."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        id_, secret = match.groups()
        found = self._find(id_)
        # Compared in constant time, and also where there is no such token: how long it takes tells nothing.
        same = secrets.compare_digest(_hash(secret), found[1] if found is not None else "0" * 64)
        return found[0] if found is not None and same and found[0].valid(self._clock()) else None

    def valid(self, id_: str) -> bool:
        """Whether a token that was checked before still opens the service."""
        found = self._find(id_)
        return found is not None and found[0].valid(self._clock())

    def _find(self, id_: str) -> tuple[Token, str] | None:
        """A token and its hash, from the database or as it was there a moment ago; notes that it is in use."""
        now = self._clock()
        with self._turn:
            known = self._known.get(id_)
        if known is not None and 0 <= now - known[0] < self._kept_s:
            return known[1], known[2]

        def look(connection: sa.Connection) -> tuple[Token, str] | None:
            row = connection.execute(sa.select(*_COLUMNS, _tokens.c.hash).where(_tokens.c.id == id_)).one_or_none()
            return None if row is None else (Token(*row[:-1]), str(row[-1]))

        found = self._database.run(look, write=False)
        if found is None:
            return None
        if found[0].valid(now) and (found[0].used is None or now - found[0].used > _USED_S):
            used = _tokens.update().where(_tokens.c.id == id_).values(used=now)
            self._database.run(lambda connection: connection.execute(used))
        with self._turn:
            if len(self._known) > _MOST:
                self._known.clear()
            self._known[id_] = now, *found
        return found
