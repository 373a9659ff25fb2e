"""Every family and head equal to torch: values, gradients, and the way there and back (`parity.py`); `pytest -m slow` for the rest."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests import parity  # noqa: E402

LABELS = ("next-sentence", "sequence-classification", "token-classification", "question-answering", "multiple-choice")


@pytest.mark.filterwarnings("default")  # torch's and transformers' own
@pytest.mark.parametrize("case", parity.all_cases(), ids=lambda case: case.name)
def test_equal_to_torch(case, tmp_path):
    """Of bodies alone and heads over labels, which are parts of what other cases differentiate, the values alone."""
    result = parity.compare(case, tmp_path, gradient=case.task not in (*LABELS, "features"))
    assert result.logits < parity.LOGITS and result.hidden < parity.LOGITS
    assert result.gradient <= 1, result.worst
    parity.check_saved(case, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", [case for case in parity.all_cases() if case.task in (*LABELS, "features")], ids=lambda case: case.name)
def test_the_other_gradients_equal_torchs(case, tmp_path):
    result = parity.compare(case, tmp_path)
    assert result.gradient <= 1, result.worst
