"""Conversations to ids, by a tokenizer's chat template: the template's control tokens are control tokens, and nobody else's.

The template is rendered with text that remembers who wrote which character (`marked.py`). A control token of the rendered text
counts when every character of it is the template's own; one that a message spells, in whole or in part, is text.
Read next: `sandbox.py`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.tokenizers import sandbox
from jaxlm.text.tokenizers.marked import MIXED, USER, Marked, mark, marks_of
from jaxlm.text.unicode import well_formed

Template = str | Mapping[str, str] | None
# Words by which templates choose; any other role is a user's text.
PLACES = {"system", "user", "assistant", "tool", "function", "developer", "model", "ipython", "context", "documents", "human", "bot"}
LARGEST = 1 << 20  # characters of a template
REPLACED = re.compile("[\ud800-\udfff]")
# Arguments of Transformers' method that mean something to its caller and not to a template.
UNKNOWN = ("continue_final_message", "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length")


def apply(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tokenize: bool = True,
    **variables: Any,
) -> Any:
    """Ids of a conversation, or its text with `tokenize=False`; equal to Transformers' where no message spells a control token.

    Args:
      messages: [{"role": "user", "content": "..."}, ...], and whatever else the template reads.
      add_generation_prompt: end with what begins an answer.
      tools: JSON schemas of functions.
      variables: what else the template reads; `chat_template` is another template, or the name of one of several.
    Raises DataError where there is no template, or it refuses the messages, or does not end.
    """
    unknown = [name for name in UNKNOWN if name in variables]
    if unknown:
        raise ConfigError(f"apply_chat_template gives ids or, with tokenize=False, text: {unknown[0]} is not supported")
    template = _choose(tokenizer, variables.pop("chat_template", None), tools)
    given = {"messages": [_message(message) for message in messages], "tools": mark(tools), "documents": None} | mark(variables)
    text = sandbox.render(template, {**_names(tokenizer), **given, "add_generation_prompt": add_generation_prompt})
    return encode(tokenizer, text) if tokenize else str.__str__(text)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f'a message is a {type(message).__name__}: give {{"role": "user", "content": "..."}}')
    role = message.get("role")
    return mark(message) | ({"role": role} if isinstance(role, str) and role in PLACES else {})


def _names(tokenizer: Any) -> dict[str, str]:
    from jaxlm.text.tokenizers import fast  # not at the top: it needs this module

    return fast.names_of_roles(tokenizer)


def _choose(tokenizer: Any, wanted: str | None, tools: Any) -> str:
    held = tokenizer.chat_template
    if wanted is not None and not (isinstance(held, Mapping) and wanted in held):
        return wanted
    if held is None:
        raise DataError("this tokenizer has no chat template: give chat_template=, or load a folder with chat_template.jinja")
    if isinstance(held, str):
        return held
    name = wanted or ("tool_use" if tools is not None and "tool_use" in held else "default")
    if name not in held:
        raise DataError(f"the tokenizer has several chat templates and none called default: give chat_template=, one of {', '.join(held)}")
    return held[name]


def encode(tokenizer: Any, text: Marked) -> list[int]:
    """The ids of a rendered template: its own control tokens as such, all else as text.

    Raises DataError where it cannot be told who wrote a control token.
    """
    fixed, marks = _well_formed(text)
    found = tokenizer.encode(fixed, add_special_tokens=False, allow_special=True)
    spans = _controls(tokenizer, fixed, 0, len(fixed), found)
    if all(_ours(fixed, marks, span) for span in spans):
        return list(found)
    ids, place = [], 0
    for i, start, stop in _own(tokenizer, fixed, marks):
        ids += [*tokenizer.encode(fixed[place:start], add_special_tokens=False), i] if place < start else [i]
        place = stop
    return ids + list(tokenizer.encode(fixed[place:], add_special_tokens=False))


def _well_formed(text: Marked) -> tuple[str, bytes]:
    plain, marks = str.__str__(text), marks_of(text)
    if len(well_formed(plain)) == len(plain):
        return well_formed(plain), marks
    return REPLACED.sub("\ufffd", plain), marks


def _controls(tokenizer: Any, text: str, start: int, stop: int, found: Any = None) -> list[tuple[int, int, int]]:
    """(id, start, stop) of the control tokens that are found in a part of the text, with the spaces that they swallow."""
    found = tokenizer.encode(text[start:stop], add_special_tokens=False, allow_special=True) if found is None else found
    names = {i: name for name, i in tokenizer.controls.items()}
    spans = [(i, start + a, start + b) for i, (a, b) in zip(found, found.offsets, strict=True) if i in names and b > a]
    spelt = lambda i, a, b: text[a:b].strip() == names[i].strip()
    return [span for span in spans if span[0] != tokenizer.unk_id or spelt(*span)]  # what is unknown has that id too


def _ours(text: str, marks: bytes, span: tuple[int, int, int]) -> bool:
    """Whether the template wrote all of a control token; the spaces around it may be anybody's."""
    _, start, stop = span
    written = text[start:stop]
    bare = written.strip() or written
    start += written.index(bare)
    found = marks[start : start + len(bare)]
    if MIXED in found and USER not in found:
        raise DataError(f"the chat template mixes {bare[:30]!r} with messages so that nobody can tell who wrote it: use + or ~ there")
    return not any(found)


def _own(tokenizer: Any, text: str, marks: bytes) -> list[tuple[int, int, int]]:
    """The template's control tokens: those of others are cut apart, until none is found."""
    own, parts = [], [(0, len(text))]
    while parts:
        start, stop = parts.pop()
        spans = _controls(tokenizer, text, start, stop)
        wrong = [(a, b) for i, a, b in spans if not _ours(text, marks, (i, a, b))]
        if not wrong:
            own += spans
        cuts = sorted({start, stop} | {cut for a, b in wrong for cut in _cuts(marks, a, b)})
        parts += [part for part in zip(cuts[:-1], cuts[1:], strict=True) if part != (start, stop)] if wrong else []
    return sorted(own, key=lambda span: span[1])


def _cuts(marks: bytes, start: int, stop: int) -> list[int]:
    """Where to cut a control token that a user wrote a part of: no token that he has no part in lies across it."""
    first = next(i for i in range(start, stop) if marks[i])
    return [first, first + 1]


def find(folder: Path, settings: Mapping[str, Any]) -> Template:
    """The chat template of a folder: chat_template.jinja, else what its settings hold: one, or several by name. None: it has none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return _bounded(path.read_text(encoding="utf-8"), path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    held = settings.get("chat_template")
    if isinstance(held, list):
        pairs = [(row.get("name"), row.get("template")) for row in held if isinstance(row, dict)]
        held = {str(name): _bounded(template, folder) for name, template in pairs}
        return held or None
    return None if held is None else _bounded(held, folder)


def _bounded(template: Any, where: Path) -> str:
    if not isinstance(template, str) or len(template) > LARGEST:
        raise DataError(f"{where}: its chat template is no text of at most {LARGEST:,} characters: copy it again")
    return template


def to_settings(template: Template) -> dict[str, Any]:
    """What a tokenizer_config.json says of a chat template."""
    if template is None or isinstance(template, str):
        return {} if template is None else {"chat_template": template}
    return {"chat_template": [{"name": name, "template": text} for name, text in template.items()]}
