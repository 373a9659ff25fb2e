"""What a model's answers are worth, and where they come from. `calibration.py`: probabilities that one can trust."""
