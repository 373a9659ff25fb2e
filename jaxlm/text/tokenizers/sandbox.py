"""Chat templates come from strangers: jinja2's immutable sandbox with bounds on work and size, and with marked text (see `marked.py`).

What a template sees is what Transformers gives it: `raise_exception`, `strftime_now`, `tojson`, loop controls, `{% generation %}`.
Read next: `chat.py`.
"""

import datetime
import functools
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.errors import DataError, extra
from jaxlm.text.tokenizers.marked import TEMPLATE, Marked, blend, join, touched

STEPS = 1_000_000  # turns of loops, calls and filters
SECONDS = 20.0
SIZE, ITEMS = 1 << 24, 1 << 17  # characters of a text, items of a list
NUMBER = 1 << 20  # that may be an argument
PADDING = ("indent", "expandtabs", "wordwrap")  # which add their number many times
WIDE = re.compile(r"\d{5}|\{[^{}]*\{")


class Exceeded(Exception):
    """A template that does not come to an end."""


class Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self.steps, self.stop = 0, time.monotonic() + SECONDS

    def spend(self, *values: Any) -> None:
        """Count one step, and look at the size of its values."""
        self.steps += 1
        if self.steps > STEPS or (self.steps % 256 == 0 and time.monotonic() > self.stop):
            raise Exceeded("it does not come to an end")
        for value in values:
            if isinstance(value, str | list | tuple | dict) and len(value) > (SIZE if isinstance(value, str) else ITEMS):
                raise Exceeded("it makes a value without bound")
            if isinstance(value, int) and abs(value) > NUMBER << 32:
                raise Exceeded("it makes a number without bound")


def render(template: str, variables: Mapping[str, Any]) -> Marked:
    """The text of a template, marked; raises DataError, one line, where it is damaged, refuses its messages or runs away."""
    with extra("chat", "jinja2"):
        import jinja2
    try:
        budget = Budget()
        environment = _environment(budget)
        made = environment.from_string(_with_ticks(environment, template))
        return join("", made.root_render_func(made.new_context(dict(variables))))
    except DataError:
        raise
    except (jinja2.exceptions.TemplateError, Exceeded, RecursionError, MemoryError) as error:
        raise DataError(f"the chat template refuses or fails ({_short(error)}): mend the messages, or give chat_template=") from error
    except Exception as error:  # whatever Python's operators raise on what strangers wrote
        reason = f"{type(error).__name__}: {_short(error)}"
        raise DataError(f"the chat template fails ({reason}): mend the messages, or give chat_template=") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _environment(budget: Budget) -> Any:
    """An environment for one rendering: its operators, calls and filters keep marks and spend the budget."""
    from jinja2 import ext

    made = _kind()(trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _generation()], finalize=_finalized)
    made.budget = budget
    made.globals.pop("lipsum")  # which makes text without bound
    made.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    made.filters |= {"tojson": tojson, "join": functools.partial(_joined, budget), "string": _finalized}
    made.filters = {name: _counted(budget, name, work) for name, work in made.filters.items()}
    made.filters["tick"] = _ticking(budget)
    return made


@functools.cache
def _kind() -> type:
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class MarkingEnvironment(ImmutableSandboxedEnvironment):
        """The sandbox, with marks and bounds at each operator and call."""

        intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
        concat = staticmethod(functools.partial(join, ""))

        def call_binop(self, context, operator, left, right):
            _foresee_operator(operator, left, right)
            result = super().call_binop(context, operator, left, right)
            self.budget.spend(result)
            return blend(result, (left, right))

        def call(self, context, function, *args, **kwargs):
            owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
            given = (*args, *kwargs.values())
            if type(owner) is str and name in ("join", "replace") and touched(given):
                function = getattr(Marked(owner, TEMPLATE), name)
            _foresee_call(name, owner, given)
            result = super().call(context, function, *args, **kwargs)
            self.budget.spend(result)
            return blend(result, (owner, *given))

        def wrap_str_format(self, value):
            owner, name = getattr(value, "__self__", None), getattr(value, "__name__", "")
            if isinstance(owner, str) and name.startswith("format") and WIDE.search(owner):
                raise SecurityError("format with a width of five digits, or one taken from an argument")
            return super().wrap_str_format(value)

    return MarkingEnvironment


def _foresee_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse what would be too large before it is made."""
    if operator == "+" and isinstance(left, list) and isinstance(right, list) and len(left) + len(right) > ITEMS:
        raise Exceeded("it makes a value without bound")
    if operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(times, int) and len(value) * times > ITEMS:
                raise Exceeded("it makes a value without bound")
    if operator == "**" and isinstance(right, int) and isinstance(left, int) and right * left.bit_length() > 64:
        raise Exceeded("it makes a number without bound")
    if operator == "%" and isinstance(left, str):
        raise Exceeded("it formats text by %, whose widths have no bound: use ~ or +")


def _foresee_call(name: str, value: Any, given: Sequence[Any]) -> None:
    if any(isinstance(number, int) and abs(number) > NUMBER for number in given):
        raise Exceeded(f"it gives {name} a number beyond {NUMBER:,}")
    if not isinstance(value, str):
        return
    if name == "replace" and len(given) > 1 and isinstance(given[0], str) and isinstance(given[1], str):
        growth = str.count(value, given[0]) * len(given[1])
    else:
        growth = max((number for number in given if type(number) is int), default=0) * (name in PADDING and len(value) + 1)
    if growth > SIZE:
        raise Exceeded("it makes a value without bound")


def _counted(budget: Budget, name: str, work: Any) -> Any:
    """A filter that spends the budget and keeps marks; jinja2 passes its context to some, which counts as nobody's text."""
    skipped = int(hasattr(work, "jinja_pass_arg"))

    def filtered(*args: Any, **kwargs: Any) -> Any:
        given = (*args[skipped:], *kwargs.values())
        _foresee_call(name, given[0] if given else None, given[1:])
        result = work(*args, **kwargs)
        budget.spend(result)
        return blend(result, given)

    filtered.__dict__.update(getattr(work, "__dict__", {}))
    return filtered


def _ticking(budget: Budget) -> Any:
    from jinja2 import pass_context

    @pass_context  # a filter that asks for it is not worked out at compile time
    def tick(context: Any, nothing: str) -> str:
        budget.spend()
        return nothing

    return tick


def _joined(budget: Budget, value: Any, d: str = "", attribute: Any = None) -> Marked:
    if attribute is not None:
        value = [part.get(attribute) if isinstance(part, Mapping) else getattr(part, str(attribute).lstrip("_")) for part in value]
    parts = list(value)
    budget.spend(parts)
    if sum(len(part) for part in parts if isinstance(part, str)) + len(d) * len(parts) > SIZE:
        raise Exceeded("it makes a value without bound")
    return join(d, parts)


def _finalized(value: Any) -> str:
    """What is printed; lists and mappings print as Python does, and are the user's where one of his strings is in them."""
    return value if isinstance(value, str) else Marked(str(value)) if touched(value) else str(value)


def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """JSON as Transformers' templates get it, without HTML's escapes; the user's where one of his strings is in it."""
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return Marked(text) if touched(value) else text


def _refuse(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _now(style: str) -> str:
    return datetime.datetime.now().strftime(style)


def _with_ticks(environment: Any, template: str) -> Any:
    """The template's syntax tree, each turn of a loop counted, and `~` done by `join`."""
    from jinja2 import nodes

    tree = environment.parse(template)
    for loop in list(tree.find_all(nodes.For)):
        loop.body.insert(0, nodes.Output([nodes.Filter(nodes.Const(""), "tick", [], [], None, None)]).set_lineno(loop.lineno))
    return _without_tildes(tree).set_environment(environment)


def _without_tildes(node: Any) -> Any:
    from jinja2 import nodes

    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, field, _without_tildes(value))
        elif isinstance(value, list):
            value[:] = [_without_tildes(part) if isinstance(part, nodes.Node) else part for part in value]
    if isinstance(node, nodes.Concat):
        return nodes.Filter(nodes.List(node.nodes, lineno=node.lineno), "join", [], [], None, None, lineno=node.lineno)
    return node


@functools.cache
def _generation() -> type:
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}` marks an assistant's words for training: here it is its body."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True)).set_lineno(line)

    return Generation
