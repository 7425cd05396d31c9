"""The results of a run whose other files are gone, from its results.json."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from servestorm.analysis.results import Results
from servestorm.rundir.results_file import not_as_written, read_document, without_nulls


def read_results(path: Path) -> Results:
    """The results that a results.json was written from.

    Raises StudyError with one sentence where it is half-written, of another version or not as servestorm wrote it.
    """
    document = read_document(path)
    models = document.get("models")
    manifests = [without_nulls(model) for model in models] if isinstance(models, list) else models
    stored = {"study": document.get("study"), "environment": document.get("environment"), "manifests": models}
    try:
        return _adapter().validate_python({**document, "models": manifests, "stored": stored})
    except ValidationError as error:
        raise not_as_written(path, error) from error


@cache
def _adapter() -> TypeAdapter[Results]:
    return TypeAdapter(Results)
