"""Cases of encoder-decoders for `parity.py`: every head, every variant switched on somewhere."""

CASES = []
