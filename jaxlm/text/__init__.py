"""Text to ids and back, cleaning, word vectors.

Four doors: `tokenizer.py` (its kinds in `tokenizers/`), `training.py` (`learning/`), `clean.py` (`cleaning/`), `vectors.py`
(`embeddings/`).
"""
