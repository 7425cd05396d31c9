"""Does an engine beat itself? Real studies of one engine, its runs dealt to two sides as if they were two engines.

    python benchmarks/calibration/same_engine.py [--studies 5] [--runs 3] [--engine savedmodel --engine torchserve]

Each study is a whole one: a fresh server for every run, the usual order, audit and validity. Odd repetitions are side
A, even ones side B, so both sides see the same drift of the machine, as interleaved engines do. Verdicts come from the
same questions, the same family and the same margin as a study of two engines. With no difference to find, a verdict of
A or B is a false one; one study in twenty may have one. Ends with 1 where more than two in ten studies have one.

A study that lies complete in --out, of the same plan, is not run again: hours can be spread over quiet ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE))

from servestorm.analysis.judgements import QUESTIONS  # noqa: E402
from servestorm.analysis.results import Results, compute  # noqa: E402
from servestorm.methods.verdict import Question, Verdict, verdicts  # noqa: E402
from servestorm.plan.study_plan import Plan, parse_plan  # noqa: E402
from servestorm.rundir.record import read_run  # noqa: E402
from servestorm.study.runner import Study  # noqa: E402

MOST_FALSE = 0.2
"""Share of the studies that may have one: two in ten, which chance alone exceeds in one of ninety sets of ten."""


def plan_text(engine: str, study: int, options: argparse.Namespace) -> str:
    """A study of one engine under steady load, with twice the runs of a side."""
    return f"""\
name: same-{engine}-{study}
engines: [{engine}]
cold_starts: {2 * options.runs if options.cold_starts else 0}
repetitions: {2 * options.runs}
load_attempts: 3
steady: {{ rate_per_s: {options.rate}, duration_s: {options.seconds}, warmup_s: 2 }}
seed: {study}
"""


def judged(results: Results, plan: Plan, engine: str) -> dict[str, Verdict]:
    """The verdict on each question: odd runs against even ones."""
    family = {}
    for metric in results.metrics:
        if metric.key in QUESTIONS and metric.values[engine].counts:
            runs = metric.values[engine].runs
            names = ("odd runs", "even runs")
            family[metric.key] = Question(runs[0::2], runs[1::2], metric.better, names=names)
    return verdicts(family, plan.margin_percent / 100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=5, help="of each engine (default: 5)")
    parser.add_argument("--runs", type=int, default=3, help="of each side (default: 3)")
    parser.add_argument("--engine", action="append", help="default: savedmodel and torchserve")
    parser.add_argument("--rate", type=float, default=70, help="requests a second (default: 70)")
    parser.add_argument("--seconds", type=float, default=10, help="of a run, after its warm-up (default: 10)")
    parser.add_argument("--cold-starts", action="store_true", help="judge cold starts too")
    parser.add_argument("--out", type=Path, default=Path("build/same-engine"), help="for the run directories")
    options = parser.parse_args()
    rows = []
    for study in range(1, options.studies + 1):
        for engine in options.engine or ["savedmodel", "torchserve"]:
            rows += carried_out(engine, study, options)
    print(table(rows))
    studies = {(row["engine"], row["study"]) for row in rows}
    false = {(row["engine"], row["study"]) for row in rows if row["outcome"] in ("A", "B")}
    print(f"\n{len(false)} of {len(studies)} studies gave a verdict of A or B.")
    (options.out / "verdicts.json").write_text(json.dumps(rows, indent=2) + "\n")
    return 1 if len(false) > MOST_FALSE * len(studies) else 0


def carried_out(engine: str, study: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Run one study; a row for each of its questions."""
    text = plan_text(engine, study, options)
    plan = parse_plan(text, "the plan of this benchmark")
    path = finished(text, plan.name, options.out) or Study(plan, text, options.out).carry_out()
    results = compute(read_run(path))
    found = judged(results, plan, engine)
    if not found:
        raise SystemExit(f"{path}: no valid run, so nothing was judged.")
    return [
        {
            "engine": engine,
            "study": study,
            "question": key,
            "runs": f"{verdict.n_a} + {verdict.n_b}",
            "difference_percent": verdict.difference_percent,
            "ci_percent": verdict.ci_percent,
            "p": verdict.p,
            "p_holm": verdict.p_holm,
            "outcome": verdict.outcome,
        }
        for key, verdict in found.items()
    ]


def finished(text: str, name: str, out: Path) -> Path | None:
    """The run directory of a study of this very plan that was carried out whole."""
    for path in sorted(out.glob(f"*-{name}")):
        record = read_run(path)
        if record.study.state == "complete" and (path / "plan.yaml").read_text() == text:
            return path
    return None


def table(rows: list[dict[str, object]]) -> str:
    """Markdown."""
    columns = ("engine", "study", "question", "runs", "difference, %", "95 % interval", "p (Holm)", "verdict")
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for row in rows:
        interval = " to ".join(f"{end:+.1f}" for end in row["ci_percent"] or ())
        figures = (told(row["difference_percent"], "+.1f"), interval or "none", told(row["p_holm"], ".3f"))
        cells = (row["engine"], row["study"], row["question"], row["runs"], *figures, row["outcome"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def told(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
