"""The one shape of every answer that says no."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import Field

from cluster.service.models import Model


class Wrong(Model):
    """One thing wrong with what was sent."""

    key: str
    """Where, as in search.algorithm or body.target."""
    problem: str
    value: Any = None
    legal: str = ""


class Problem(Model):
    """Why a request was not done."""

    status: int
    """The HTTP status."""
    title: str
    """The status in words."""
    detail: str
    """What is wrong, and what to do."""
    problems: list[Wrong] = Field(default_factory=list)
    """Each thing that is wrong with what was sent."""


class Refused(Exception):
    """A request that is not done, and why."""

    def __init__(
        self, status: int, detail: str, problems: list[Wrong] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems, self.headers = status, detail, problems or [], headers or {}

    @property
    def problem(self) -> Problem:
        """As it is sent."""
        return Problem(
            status=self.status, title=HTTPStatus(self.status).phrase, detail=self.detail, problems=self.problems
        )
