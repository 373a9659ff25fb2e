"""Text to ids and back. Read `tokenizer.py` first, then `bpe.py` and `characters.py`."""
