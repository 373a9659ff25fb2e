"""The kinds of tokenizers, and chats. Read `fast.py` first; `../tokenizer.py` says which file of a folder is whose."""
