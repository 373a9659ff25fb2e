"""Files of records that are no tables: SQuAD's JSON, CoNLL's columns of words, and plain lines. Read next: `records.py`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxlm.data.files import Row, text_lines
from jaxlm.errors import DataError

DOCSTART = "-DOCSTART-"  # between the documents of CoNLL 2003: no word


def _read_squad(stream: BinaryIO, path: Path) -> Iterator[Row]:
    """A question a record: the official files of SQuAD 1.1 and 2 hold articles of paragraphs of questions."""
    try:
        articles = json.loads(stream.read().decode("utf-8-sig"))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield f"{path}, question {question['id']}", _question(article, paragraph, question)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}): copy it again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no file in SQuAD's format ({error!r:.60}): write records a line each, as .jsonl") from error


def _question(article: dict[str, Any], paragraph: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    row = {"id": question["id"], "title": article.get("title"), "context": paragraph["context"], "question": question["question"]}
    if "answers" in question:  # a test set has none
        row["answers"] = {key: [answer[key] for answer in question["answers"]] for key in ("text", "answer_start")}
        row["is_impossible"] = question.get("is_impossible", False)
    return row


def _read_conll(stream: BinaryIO, path: Path) -> Iterator[Row]:
    """A sentence a record: words are lines of columns with blanks or tabs between them; an empty line ends a sentence."""
    words: list[list[str]] = []
    with text_lines(stream) as lines:
        for number, line in enumerate(lines, 1):
            cells = re.split(r"[ \t]+", line.strip())
            if cells[0] and cells[0] != DOCSTART:
                if words and len(cells) != len(words[0]):
                    raise DataError(f"{path}:{number} has {len(cells)} columns, but the line before has {len(words[0])}: mend the line")
                words.append(cells)
            elif words:
                yield _sentence(words, f"{path}:{number - len(words)}")
                words = []
        if words:
            yield _sentence(words, f"{path}:{number - len(words) + 1}")


def _sentence(words: list[list[str]], where: str) -> Row:
    columns = [list(column) for column in zip(*words, strict=True)]
    tags = {"tags": columns[-1]} if len(columns) > 1 else {}
    return where, {"tokens": columns[0], **tags, **dict(enumerate(columns))}


def _read_lines(stream: BinaryIO, path: Path) -> Iterator[Row]:
    """A line a record, in the column "line"; empty lines are none."""
    with text_lines(stream) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", {"line": line.rstrip("\r\n")}


RECORD_FILES = {".json": _read_squad, ".txt": _read_lines, **dict.fromkeys((".conll", ".iob", ".bio"), _read_conll)}
