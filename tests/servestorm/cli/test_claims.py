"""`servestorm claims` on the kept study."""

from servestorm.cli.main import main
from tests.source_tree import ROOT

RESULTS = ROOT / "docs" / "examples" / "process" / "results.json"


def test_claims_that_the_run_speaks_to_are_printed_with_their_document(capsys):
    assert main(["claims", str(RESULTS)]) == 0
    out = capsys.readouterr().out
    assert "D1, figure 9: inference of an image, CIFAR-10 of 32x32: TensorFlow 1.5 ms, PyTorch 2 ms (ratio 1.33)" in out
    assert "  reproduced: Steady load: p50 latency, ratio 1.89 (1.86 to 1.93), larger than claimed" in out
    assert "D5: Ba Alawi (Alfaisal University): A Comparative Survey" in out and "D2: " not in out
    assert out.splitlines()[-1] == (
        "17 claims: 1 reproduced, 3 cannot tell here, 1 contradicted, 12 have no question here (--all lists them)."
    )


def test_all_lists_the_others_too(capsys):
    assert main(["claims", str(RESULTS), "--all"]) == 0
    out = capsys.readouterr().out
    assert "D2: " in out and "cannot tell here: The run has no verdict on training.epoch_s" in out
    assert out.endswith("17 claims: 1 reproduced, 3 cannot tell here, 1 contradicted.\n")


def test_a_missing_run_is_one_sentence(tmp_path, capsys):
    assert main(["claims", str(tmp_path / "nowhere")]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1
