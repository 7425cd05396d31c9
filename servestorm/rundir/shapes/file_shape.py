"""What the types of the JSON files have in common, and how a value is checked against one.

A run is evidence that anybody can edit, so every file is checked when it is read. Only what is used is asked for:
further keys are ignored. The files are written from servestorm's own types, so a fault is an edit, a file that was cut
short, or another version's.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from servestorm.errors import StudyError

Number = Annotated[float, Field(ge=-1e18, le=1e18)]
"""Neither infinite nor not-a-number: both are outside. 1e18 ns are 30 years."""
Share = Annotated[float, Field(ge=0, le=1e18)]
Whole = Annotated[int, Field(ge=0, le=10**18)]
Many = Annotated[int, Field(ge=1, le=10**9)]
Shape = TypeVar("Shape")


def _a_moment(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Moment = Annotated[str, AfterValidator(_a_moment)]
"""ISO 8601."""


class FileShape(BaseModel):
    """A JSON object of a run directory, or a part of one: no value is converted, and none changes after reading."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


def checked(path: Path, value: Any, shape: TypeAdapter[Shape]) -> Shape:
    """The JSON value of the file as its type; raises StudyError that names the file and its first fault."""
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        raise StudyError(
            f"{path} is not as servestorm wrote it ({first_fault(error)}): it was edited, or is of another version; "
            "run the study again."
        ) from error


def first_fault(error: ValidationError) -> str:
    """Where the first fault is and what it is, without a capital or a full stop."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message[:1].lower()}{message[1:]}"
