"""The steps of `../clean.py`, one or a few a file; `shingles.py` to `duplicates.py` find what was there before."""
