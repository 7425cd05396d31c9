"""`servestorm run`: a study from plan to report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from servestorm.cli.exit_codes import INTERRUPTED, INVALID, OBJECTIVE_MISSED, OK, explain, tell, work_begins
from servestorm.cli.option_types import RUNS, AddVerb, name, path
from servestorm.cli.verbs.report import show
from servestorm.errors import StudyError
from servestorm.plan.bundled_plans import BUNDLED_PLANS, plan_path
from servestorm.plan.labels import ENGINE_SHORT

if TYPE_CHECKING:
    from servestorm.analysis.results import Results
    from servestorm.plan.cells import Cell
    from servestorm.plan.study_plan import Plan
    from servestorm.rundir.record import RunRecord
    from servestorm.study.study_run import StudyRun


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "run",
        "run the study of a plan: cold starts, loads, capacity, scaling, sweeps, autoscaling, trainings; then a report",
        "servestorm run",
        "servestorm run quickstart.yaml --dry-run",
        "servestorm run --resume latest",
    )
    parser.add_argument(
        "plan",
        type=path,
        nargs="?",
        metavar="PLAN",
        help="YAML file (default: the plan quickstart; `servestorm init` writes it, to be changed)",
    )
    parser.add_argument(
        "--resume",
        type=name,
        metavar="RUN",
        help="continue a stopped study, whose complete runs are kept: ID of a run in DIR of --out, `latest`, or a run "
        "directory",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the runs and the expected time, start nothing")
    parser.add_argument(
        "--load-from",
        choices=("here", "cluster"),
        help="load from this machine, or from pods beside the servers (default: as planned)",
    )
    parser.add_argument(
        "--ignore-disturbance",
        action="store_true",
        help="count runs that other programs or machines disturbed, as with `disturbance: ignored` in the plan",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="in a cluster: stop at the first failed run and keep its release",
    )
    parser.add_argument("--out", type=path, default=RUNS, metavar="DIR", help="run directory: DIR/ID (default: runs)")


def run(arguments: argparse.Namespace) -> int:
    """Carry the plan out; whatever stops it, what was measured is written and shown."""
    from servestorm.rundir.files import PLAN, require_place
    from servestorm.rundir.run_names import find_run

    if arguments.resume and arguments.plan:
        raise StudyError(f"--resume goes on with the plan of {arguments.resume}: leave {arguments.plan} out.")
    # the generator works in the folder of its load
    resume = find_run(arguments.resume, arguments.out).resolve() if arguments.resume else None
    file = resume / PLAN if resume else arguments.plan or plan_path(BUNDLED_PLANS[0])
    record = _recorded(resume) if resume else None
    plan = _planned(file, arguments.load_from, record, arguments.ignore_disturbance)
    if arguments.keep and plan.backend != "kubernetes":
        raise StudyError(f"--keep leaves a Helm release, and backend {plan.backend} makes none: leave it out.")
    if record is None:
        require_place(arguments.out)
    _refuse_early(plan)
    if arguments.dry_run:
        return _dry_run(plan, record)
    from servestorm.study.child_processes import end_all
    from serving.descriptors import allow_descriptors

    allow_descriptors()  # servers and generators inherit it, and each needs one a connection
    study = _study(plan, file.read_text(encoding="utf-8"), arguments, record)
    code = OK
    work_begins()
    try:
        study.carry_out()
    except KeyboardInterrupt:
        state = "what was measured is kept" if study.path else "nothing was measured yet"
        code = tell(f"interrupted; {state}.", INTERRUPTED)
    except Exception as error:
        if study.path is None:
            raise
        code = tell(*explain(error))
    finally:
        end_all()
    if study.path is None:
        return code
    if code:
        return _shown_after(study.path, code)
    results = show(study.path)
    judged = _judge(results)
    if results.state == "incomplete":
        sys.stderr.write(f"servestorm: {results.reason}.\n")
        return judged or INVALID
    return judged


def _study(plan: Plan, text: str, arguments: argparse.Namespace, record: RunRecord | None) -> StudyRun:
    """The study of servers or of trainings that the plan asks for."""
    if plan.training:
        from servestorm.study.trainings.study import TrainingStudy

        return TrainingStudy(plan, text, arguments.out, resume=record)
    from servestorm.study.runner import Study

    return Study(plan, text, arguments.out, resume=record, keep=arguments.keep)


def _recorded(run: Path) -> RunRecord:
    """The run as it lies there, which a study that still writes into it may leave half changed at any moment.

    Raises StudyError where another process owns it.
    """
    from servestorm.rundir.owner import owned
    from servestorm.rundir.record import read_run

    if not run.is_dir():
        return read_run(run)  # which says what it is instead
    with owned(run):
        return read_run(run)


def _shown_after(path: Path, code: int) -> int:
    """Show what a study that was stopped has measured, and how to go on; the code of what stopped it.

    That is what a person must read: a disk that is full is full for the report too.
    """
    from servestorm.errors import StudyEnvironmentError

    with suppress(StudyEnvironmentError):
        show(path)
    return tell(f"`servestorm run --resume {path}` goes on with it.", code)


def _planned(
    file: Path, load_from: Literal["here", "cluster"] | None, begun: RunRecord | None, ignore_disturbance: bool = False
) -> Plan:
    """The plan with what the command line says of it, or said when a run that goes on began."""
    from servestorm.plan.study_plan import ignoring_disturbance, load_plan, loaded_from

    plan = load_plan(file)
    if begun and not load_from:
        load_from = begun.study.plan.load_from
    if load_from:
        plan = loaded_from(plan, load_from)
    if begun and "design" not in plan.model_fields_set:  # one that began before there were rounds goes on without
        plan = plan.model_copy(update={"design": begun.study.plan.design})
    ignored = ignore_disturbance or (begun is not None and begun.study.plan.disturbance == "ignored")
    return ignoring_disturbance(plan) if ignored else plan


def _refuse_early(plan: Plan) -> None:
    """Raise what the run would raise later, before anything starts and without starting anything."""
    from servestorm.analysis.cost import load_prices
    from servestorm.analysis.row_keys import refuse_unknown_objectives
    from servestorm.study.early_refusals import refuse_early

    refuse_unknown_objectives(plan)
    load_prices(plan.prices)
    refuse_early(plan)


def _dry_run(plan: Plan, begun: RunRecord | None) -> int:
    """Print the cells that would run in their order, and the expected time; nothing is started."""
    from servestorm.plan.cells import variants_of
    from servestorm.study.expected_time import PREPARE_GUESS_S, expected_s, title
    from servestorm.study.model_preparation import is_missing

    variants = variants_of(plan)
    rounds = _rounds_left(plan, begun)
    missing = [] if plan.training else [model for model in plan.model if is_missing(model)]
    for model in missing:
        print(f"{'':>4}  {PREPARE_GUESS_S:5.0f} s  train and export {model.name}")
    for cells in rounds:
        print(f"{cells[0].index:4d}  {expected_s(plan, cells):5.0f} s  {title(plan, variants, cells)}")
    runs = sum(map(len, rounds))
    total_s = PREPARE_GUESS_S * len(missing) + sum(expected_s(plan, cells) for cells in rounds)
    if plan.budget:
        print(f"at most {runs} runs and {max(1, round(plan.budget / 60))} min; nothing was started.")
    else:
        print(f"{runs} runs, about {max(1, round(total_s / 60))} min; nothing was started.")
    return OK


def _rounds_left(plan: Plan, begun: RunRecord | None) -> list[list[Cell]]:
    """All rounds, or those that a run which goes on still needs. Raises StudyError where it cannot go on."""
    from servestorm.plan.cells import cells_of, rounds_of
    from servestorm.study.resume import complete_cells

    cells = cells_of(plan)
    complete = complete_cells(begun, cells, plan) if begun else set()
    rounds = ([cell for cell in together if cell.id not in complete] for together in rounds_of(plan, cells))
    return [left for left in rounds if left]


def _judge(results: Results) -> int:
    """1 where an objective is missed; 4 where a group of runs of an engine has none that counts, or an objective has
    no number.
    """
    if missed := [objective for objective in results.objectives if objective.met is False]:
        names = ", ".join(f"{objective.metric} of {ENGINE_SHORT[objective.engine]}" for objective in missed)
        sys.stderr.write(f"servestorm: missed objectives: {names}.\n")
        return OBJECTIVE_MISSED
    if open_questions := results.unanswered():
        sys.stderr.writelines(f"servestorm: {sentence}\n" for sentence in _open_questions(results, open_questions))
        return INVALID
    if unknown := [objective for objective in results.objectives if objective.met is None]:
        names = ", ".join(f"{objective.metric} of {ENGINE_SHORT[objective.engine]}" for objective in unknown)
        sys.stderr.write(f"servestorm: objectives without a number: {names}. The keys are those of results.json.\n")
        return INVALID
    return OK


def _open_questions(results: Results, unanswered: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A sentence on what has no run that counts because the machine was disturbed, and one on all the rest."""
    from servestorm.methods.disturbance import REMEDIES, worst

    disturbed = {place: found for place in unanswered if (found := results.disturbed(*place))}
    names = {place: f"{results.groups[place[0]].lower()} of {ENGINE_SHORT[place[1]]}" for place in unanswered}
    if rest := [name for place, name in names.items() if place not in disturbed]:
        yield f"no valid run of: {', '.join(rest)}. The report says why."
    if found := worst(disturbed.values()):
        yield (
            f"every run was DISTURBED of: {', '.join(names[place] for place in disturbed)} ({found.reason}): "
            f"{REMEDIES[found.cause]}, or count them all the same with --ignore-disturbance."
        )
