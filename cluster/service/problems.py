"""Answers that say no."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from cluster.service.models import Problem, Wrong


class Refused(HTTPException):
    """A request that is not done, and why. Of FastAPI's own kind, so that it gets through while a body is read."""

    def __init__(
        self, status: int, detail: str, problems: list[Wrong] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.problems = problems or []

    @property
    def problem(self) -> Problem:
        """As it is sent."""
        return problem(self.status_code, self.detail, self.problems)


def problem(status: int, detail: str, problems: list[Wrong] | None = None) -> Problem:
    """A refusal as plain data, whatever was sent being text that can be sent back."""
    found = [
        Wrong(key=_sound(each.key), problem=_sound(each.problem), value=_sound(each.value), legal=_sound(each.legal))
        for each in problems or []
    ]
    return Problem(status=status, title=HTTPStatus(status).phrase, detail=_sound(detail), problems=found)


def _sound(value: Any) -> Any:
    """Text without halves of characters, which JSON can name and UTF-8 cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
