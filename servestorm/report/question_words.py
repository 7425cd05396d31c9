"""What the questions of the first line are called, and how an engine that is better at one is praised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from servestorm.analysis.printable_ratio import Ratio
from servestorm.plan.labels import times_text


@dataclass(frozen=True)
class QuestionWords:
    """A question in words."""

    noun: str
    """'p50'."""
    place: str
    """'under steady load', or ''."""
    verb: str
    """What the better engine does: 'answers'."""
    kind: Literal["speed", "share"]
    """speed: '1.62 times as fast as X'; share: '0.48 times X's CPU time an image'."""
    vaguely: str
    """The same where no number is known: 'faster'."""
    at: str = ""
    """What follows the size: 'at the p99'."""
    note: str = ""
    """What the size is of, in brackets."""


_P50: Final = ("answers", "speed", "faster", "", "p50")
_P99: Final = ("is", "speed", "faster", "at the p99", "")
QUESTION_WORDS: Final = {
    "steady.p50": QuestionWords("p50", "under steady load", *_P50),
    "bursty.p50": QuestionWords("p50", "in bursty load", *_P50),
    "steady.p99": QuestionWords("p99", "under steady load", *_P99),
    "bursty.p99": QuestionWords("p99", "in bursty load", *_P99),
    "steady.cpu_ms_per_image": QuestionWords("CPU time an image", "", "uses", "share", "less CPU time an image"),
    "coldstart.total_s": QuestionWords("cold start", "", "starts", "speed", "faster"),
    **dict.fromkeys(
        ("capacity.crossing_images_per_s", "capacity.images_per_s"),
        QuestionWords("rate under the objective", "", "sustains", "share", "a higher rate"),
    ),
    "autoscaling.ready_s": QuestionWords("time to a new replica", "under a burst", "adds a replica", "speed", "faster"),
    "autoscaling.recover_s": QuestionWords("time to recover", "from a burst", "recovers", "speed", "faster"),
    "autoscaling.violations_percent": QuestionWords(
        "share of late requests", "", "has", "share", "a smaller share of late requests"
    ),
    "autoscaling.replica_seconds": QuestionWords("replica time", "", "needs", "share", "less replica time"),
    "training.epoch_s": QuestionWords("time of an epoch", "", "trains", "speed", "faster"),
    "training.cpu_ms_per_image": QuestionWords(
        "CPU time of training", "", "uses", "share", "less CPU time of training"
    ),
    "training.top1_percent": QuestionWords("top-1 accuracy", "", "reaches", "share", "a higher accuracy"),
    "training.rss_peak_mib": QuestionWords("peak memory", "", "needs", "share", "less memory"),
}


def noun_of(question: str) -> str:
    """'p50 under steady load'."""
    words = QUESTION_WORDS[question]
    return f"{words.noun} {words.place}".strip()


def interval_text(ratio: Ratio | None) -> str:
    """'1.55 to 1.70'; '' where there is no interval."""
    return " to ".join(map(times_text, ratio.interval)) if ratio and ratio.interval else ""
