"""What training a tokenizer needs: counted words, samples, folders written whole. Read `../training.py` first."""
