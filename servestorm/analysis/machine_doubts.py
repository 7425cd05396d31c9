"""Doubts about what the machine, its clocks and the engines beside each other did while a run was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from servestorm.analysis.doubt_facts import RunFacts
from servestorm.methods.disturbance import OTHER_PERCENT, REMEDIES, STEAL_PERCENT, Cause
from servestorm.rundir.shapes.cell import Watch

Severity = Literal["grave", "doubt", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("grave", "doubt", "note")
"""grave: the numbers are probably wrong; doubt: they may be; note: a reader should know."""
Found = tuple[Severity, str, float, str]
"""Severity, kind, how bad (to find the worst run) and the sentence."""

GOOD_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr")
"""Sources that a program reads without asking the kernel, or nearly so: any other costs microseconds a reading."""
OTHER_SHARE, GRAVE_OTHER_SHARE = 0.03, OTHER_PERCENT / 100
STEAL_SHARE, GRAVE_STEAL_SHARE = 0.01, STEAL_PERCENT / 100
DRIFT_MS = 20.0
IDLE_SHARE = 0.01
"""Of one core."""


def turn_doubts(run: RunFacts) -> Iterable[Found]:
    """What engines that stand together do to each other."""
    if run.idle_share is not None and run.idle_share > IDLE_SHARE:
        yield (
            "doubt",
            "idle_engine",
            run.idle_share,
            (
                f"Without a load its servers used {100 * run.idle_share:.1f} % of a core while other engines were "
                "loaded, and slowed them by it: let them do nothing without a request, or set design: blocks."
            ),
        )
    count = run.slices.count() if run.slices else None
    if count and count.too_many_undrained:
        yield (
            "doubt",
            "undrained",
            count.undrained / count.planned,
            (
                f"{count.undrained} of {count.planned} slices began while requests of the slice before were "
                "unanswered, too many to leave them out: an engine of the round cannot take the rate, and takes time "
                "from the others; lower the rate, or set design: blocks."
            ),
        )


def _by_slices(run: RunFacts, cause: Cause) -> bool:
    """Whether what that cause disturbed is left out slice by slice, so that the rest of the run stands."""
    slices = run.slices
    return slices is not None and cause in slices.watched and slices.disturbance is None


def _left_out(run: RunFacts, cause: Cause) -> str:
    if not _by_slices(run, cause) or not run.slices or not run.slices.disturbed.any():
        return ""
    return ", and its DISTURBED slices are left out"


def machine_doubts(run: RunFacts) -> Iterable[Found]:
    """What other programs and other machines took."""
    watch = run.use.watch
    whole_s = (watch.elapsed_s or 0.0) * len(watch.cores or [])
    if not whole_s:
        return
    other = (watch.other_s or 0.0) / whole_s
    if other > OTHER_SHARE:
        grave = other > GRAVE_OTHER_SHARE and not _by_slices(run, "other_load")
        severity: Severity = "grave" if grave else "doubt"
        yield (
            severity,
            "other_load",
            other,
            (
                f"Other programs used {100 * other:.0f} % of the study's cores{_left_out(run, 'other_load')}: "
                f"{REMEDIES['other_load']}."
            ),
        )
    steal = (watch.steal_s or 0.0) / whole_s
    if steal > STEAL_SHARE:
        grave = steal > GRAVE_STEAL_SHARE and not _by_slices(run, "steal")
        severity = "grave" if grave else "doubt"
        yield (
            severity,
            "steal",
            steal,
            (
                f"The hypervisor took {100 * steal:.0f} % of the study's cores for other machines (steal)"
                f"{_left_out(run, 'steal')}: {REMEDIES['steal']}."
            ),
        )


def clock_doubts(watch: Watch) -> Iterable[Found]:
    """Whether the clocks can be trusted."""
    source = watch.clocksource
    if source is not None and source not in GOOD_CLOCKS:
        yield (
            "doubt",
            "clocksource",
            1,
            (f"The kernel's clock source is {source}, which is slow to read: choose tsc or the hypervisor's own."),
        )
    drift_ms = abs(watch.wall_drift_ms or 0.0)
    if drift_ms > DRIFT_MS:
        yield (
            "note",
            "clock_set",
            drift_ms,
            (
                f"The wall clock was moved by {drift_ms:.0f} ms during the load: latencies do not depend on it, but "
                "the times of the servers' own metrics do."
            ),
        )
