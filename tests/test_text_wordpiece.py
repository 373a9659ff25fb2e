"""WordPiece from vocab.txt: as transformers' own tokenizer, lower case or not; what is damaged is one DataError."""

import json

import pytest

import jaxlm
from jaxlm.errors import DataError

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat ##s un ##der The Cat 東 京 ! ' ,".split()


def folder_of(path, pieces=PIECES, **settings):
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("lower", [True, False])
def test_ids_are_transformers_own(tmp_path, lower):
    transformers = pytest.importorskip("transformers")
    tokenizer = jaxlm.load_tokenizer(folder_of(tmp_path, do_lower_case=lower))
    peer = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in ("The cats, under 東京!", "ünder the Cat's", "[MASK] unknowable", ""):
        with_text = text.replace("[MASK]", "mask")  # in a user's text it is text; transformers makes the token of it
        assert tokenizer.encode(with_text) == peer(with_text)["input_ids"], text
    assert tokenizer.eos_id == 3 and tokenizer.pad_id == 0 and 4 not in tokenizer.encode("[MASK]")


def test_damaged_vocabularies_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"has no \[CLS\]"):
        jaxlm.load_tokenizer(folder_of(tmp_path, ["[UNK]", "[SEP]", "a"]))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe[CLS]")
    with pytest.raises(DataError, match="cannot be read"):
        jaxlm.load_tokenizer(tmp_path)
