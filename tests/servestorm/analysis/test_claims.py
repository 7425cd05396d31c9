"""Published claims against verdicts: reproduced, contradicted or not to be told, and never by a guess."""

from dataclasses import replace

import pytest

from servestorm.analysis.claims import CLAIMS, check_claims, read_claims
from servestorm.analysis.results import compute
from servestorm.analysis.stored_results import read_results
from servestorm.rundir.record import read_run
from tests.source_tree import ROOT
from tests.stand_ins.made_up_training import study_of_trainings

RESULTS = ROOT / "docs" / "examples" / "process" / "results.json"


@pytest.fixture(scope="module")
def results():
    """A kept study: savedmodel against TorchServe, p50 under steady load 1.89 (1.86 to 1.93)."""
    return read_results(RESULTS)


def judged(results, **verdict):
    """The results with another verdict on the p50 under steady load, and no other question."""
    judgement = next(one for one in results.verdicts if one.metric == "steady.p50")
    changed = {name: verdict.pop(name) for name in ("a", "b", "metric", "withheld") if name in verdict}
    changed["verdict"] = replace(judgement.verdict, **verdict)
    return replace(results, verdicts=[replace(judgement, **changed)])


def check(results, name):
    (found,) = [one for one in check_claims(results) if one.claim.id == name]
    return found


def test_the_claims_of_the_file_are_ratios_of_documents_that_it_names():
    claims = read_claims()
    assert len({claim.id for claim in claims.claims}) == len(claims.claims) > 10
    assert {claim.document for claim in claims.claims} == set(claims.documents)
    by_id = {claim.id: claim for claim in claims.claims}
    assert by_id["D1-9-cifar10"].ratio == pytest.approx(4 / 3) and by_id["D1-9-cifar10"].favours == "tensorflow"
    assert by_id["D5-becirovic-28"].favours == "pytorch"
    assert by_id["D1-10-cifar10"].favours == "tensorflow" and by_id["D2-accuracy"].favours == "pytorch"
    assert "null, the document does not state it" in CLAIMS.read_text()


def test_the_side_that_both_call_better_is_reproduced_with_the_size(results):
    found = check(results, "D1-9-cifar10")
    assert (found.outcome, found.size) == ("reproduced", "larger than claimed")
    assert found.ratio == pytest.approx(1.892, abs=1e-3)
    assert found.interval == pytest.approx((1.855, 1.930), abs=1e-3)


def test_the_other_side_contradicts(results):
    found = check(results, "D5-novac-inference")
    assert (found.outcome, found.size) == ("contradicted", None)
    assert found.reason.startswith("There PyTorch is better, here the other one. savedmodel is better")


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [
        (1.2, 1.4, "within our interval"),
        (1.4, 1.5, "larger than claimed"),
        (1.1, 1.2, "smaller than claimed"),
    ],
)
def test_the_size_is_that_of_the_interval_against_the_claimed_ratio(results, low, high, size):
    made = judged(results, outcome="A", ratio=(low + high) / 2, ratio_ci=(low, high))
    assert check(made, "D1-9-cifar10").size == size


def test_engines_the_other_way_round_give_the_same_answer(results):
    made = judged(results, a="torchserve", b="savedmodel", outcome="B", ratio=0.5, ratio_ci=(0.4, 0.625))
    found = check(made, "D1-9-cifar10")
    assert (found.outcome, found.ratio, found.interval) == ("reproduced", 2.0, pytest.approx((1.6, 2.5)))
    made = judged(results, a="torchserve", b="savedmodel", outcome="A", ratio=2.0, ratio_ci=(1.6, 2.5))
    found = check(made, "D5-novac-inference")
    assert (found.outcome, found.interval, found.size) == (
        "reproduced",
        pytest.approx((0.4, 0.625)),
        "within our interval",
    )


def test_a_claim_about_images_of_another_size_cannot_be_told(results):
    found = check(results, "D1-9-imagenet")
    assert (found.outcome, found.size) == ("cannot tell here", None)
    assert found.reason == "The claim is about images of 224x224, and the run's network takes 32x32."


def test_no_difference_contradicts_a_claim_of_one(results):
    found = check(judged(results, outcome="equivalent", ratio=1.0, ratio_ci=(0.98, 1.02)), "D1-9-cifar10")
    assert found.outcome == "contradicted" and "no difference that matters" in found.reason


@pytest.mark.parametrize("verdict", [{"outcome": "inconclusive"}, {"outcome": "A", "withheld": "disturbed"}])
def test_what_the_run_does_not_decide_cannot_be_told(results, verdict):
    found = check(judged(results, **verdict), "D1-9-cifar10")
    assert (found.outcome, found.size) == ("cannot tell here", None)


def test_what_no_study_measures_is_said(results):
    found = check(results, "D1-11-cifar10")
    sentence = "No study here judges GPU or TPU utilisation in training."
    assert (found.outcome, found.reason) == ("cannot tell here", sentence)


def test_a_run_without_the_question_cannot_tell(results):
    for made in (replace(results, verdicts=[]), judged(results, a="savedmodel", b="tfserving")):
        found = check(made, "D1-9-cifar10")
        assert found.outcome == "cannot tell here" and not found.label


def test_the_real_server_is_the_tensorflow_side_where_it_is_there(results):
    both = judged(results, a="tfserving", b="torchserve", outcome="B", ratio=0.5, ratio_ci=(0.4, 0.6))
    other = next(one for one in results.verdicts if one.metric == "steady.p50")
    both = replace(both, engines=["savedmodel", "tfserving", "torchserve"], verdicts=[*both.verdicts, other])
    found = check(both, "D1-9-cifar10")
    assert found.outcome == "contradicted"
    assert not any("embeds TensorFlow" in sentence for sentence in found.differs)


def test_every_group_of_the_scenario_speaks(results):
    one = judged(results).verdicts[0]
    made = replace(results, verdicts=[one, replace(one, metric="steady[gRPC].p50", label="Steady load (gRPC): p50")])
    found = [each for each in check_claims(made) if each.claim.id == "D1-9-cifar10"]
    assert [each.label for each in found] == [one.label, "Steady load (gRPC): p50"]


def test_what_differs_is_listed_with_what_it_is_here(results):
    differs = "\n".join(check(results, "D1-9-cifar10").differs)
    assert "hardware: not stated; here " in differs and results.environment.cpu_model in differs
    assert "versions: not stated; here tensorflow 2.21.0" in differs
    assert "three convolutions, two dense layers on CIFAR-10 of 32x32; here cnn at 32x32" in differs
    assert "batch: not stated; here requests of 1 image" in differs
    assert "the TensorFlow side is savedmodel" in differs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of trainings on synthetic pictures of 16x16, in which Keras takes 0.75 times PyTorch's time."""
    with pytest.MonkeyPatch.context() as patch:
        return compute(read_run(study_of_trainings(patch, tmp_path_factory.mktemp("runs")).carry_out()))


def test_a_training_speaks_to_claims_about_trainings(trained):
    found = check(trained, "D5-novac-epoch")
    assert (found.outcome, found.size) == ("contradicted", None)
    assert found.ratio == pytest.approx(4 / 3, rel=0.02)
    differs = "\n".join(found.differs)
    assert "network and images: a CNN for stereo vision; here cnn at 16x16 on synthetic 16x16" in differs
    assert "batch: not stated; here batches of 32" in differs
    assert "server" not in differs and "savedmodel" not in differs


def test_a_training_on_images_of_another_size_cannot_tell(trained):
    found = check(trained, "D1-8-cifar10")
    assert found.outcome == "cannot tell here"
    assert found.reason == "The claim is about images of 32x32, and the run's network takes 16x16."


def test_an_accuracy_is_one_of_its_data(trained):
    found = check(trained, "D2-accuracy")
    assert found.outcome == "cannot tell here"
    assert found.reason == "An accuracy is one of its data: CIFAR-10 of 32x32 there, and synthetic here."


def test_a_cost_is_held_against_the_time_and_says_so(trained):
    found = check(trained, "D1-12-cifar10")
    assert found.label.endswith("time of an epoch")
    assert found.differs[0] == "at one price an hour, costs are as the times"
