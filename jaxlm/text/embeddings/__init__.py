"""Word vectors in files, trained, evaluated, and as the start of a model. Read `../../vectors.py` first."""
