"""Raw texts to batches: `sources.py` -> `prepare.py` -> `store.py` -> `rows.py` -> `batches.py` -> `loader.py`, in this order.

The only room that imports TensorFlow, and only inside `tf_loader.py` and `tfds.py`.
"""
