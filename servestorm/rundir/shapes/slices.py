"""slices.json: when a cell of a round was under load, and what its servers' CPU did meanwhile."""

from __future__ import annotations

from pydantic import model_validator

from servestorm.rundir.shapes.file_shape import FileShape, Share, Whole


class SliceFile(FileShape):
    """One slice of load, on the monotonic clock of the samples. None is what could not be read in the gaps."""

    begin_ns: Whole
    """Of its lead-in, which counts for nothing."""
    end_ns: Whole
    """Of its load."""
    cpu_s: Share | None
    """CPU time of the cell's servers between the readings in the gaps before and after the slice."""
    idle_cpu_s: Share | None
    """CPU time of the cell's servers while the others' slices of the same number ran."""
    idle_s: Share | None
    """How long that was."""


class SlicesFile(FileShape):
    """slices.json: the slices in order; the time from `begin_ns` + lead to `end_ns` is measured."""

    lead_s: Share
    length_s: Share
    slices: list[SliceFile]

    @model_validator(mode="after")
    def _slices_follow_each_other(self) -> SlicesFile:
        times = [moment for one in self.slices for moment in (one.begin_ns, one.end_ns)]
        if times != sorted(times):
            raise ValueError("slices: they are not in order")
        return self
