"""What a model's answers are worth, and where they come from.

`calibration.py`: probabilities that one can trust. `alignments.py`: which words of a source an output looks at.
"""
