"""Every family and head equal to torch: values, gradients, and the way there and back (`parity.py`)."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests import parity  # noqa: E402


@pytest.mark.filterwarnings("default")  # torch's and transformers' own
@pytest.mark.parametrize("case", parity.all_cases(), ids=lambda case: case.name)
def test_equal_to_torch(case, tmp_path):
    result = parity.compare(case, tmp_path)
    assert result.logits < parity.LOGITS and result.hidden < parity.LOGITS
    assert result.gradient <= 1, result.worst
    parity.check_saved(case, tmp_path)
