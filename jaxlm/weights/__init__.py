"""Foreign weights: files in, tensors with Hugging Face's names out, and back. Third-party files are hostile.

`mapping.py` is told by a family's name table which tensor is which parameter. No model class is known here.
"""
