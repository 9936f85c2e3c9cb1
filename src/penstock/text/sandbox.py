"""Running a chat template that came with a model: as code from a stranger.

jinja2's sandbox keeps it from Python's internals. What the sandbox leaves open is time and memory, so everything a template
does in a loop or calls takes steps from a budget, and nothing it computes may grow past a limit. One operation can
still allocate what the machine has (`MemoryError` is then an error like others); a template is no more harmless than that.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_MAX_STEPS = 500_000
_CHARS_PER_STEP = 1024
_CHECKED_OPERATORS = frozenset({"+", "*", "**", "%"})
_SIZED = (str, list, tuple, dict)
_NUMBER = re.compile(r"[0-9]{1,18}")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment as transformers sets one up, with limits. `restricted` gives a copy of it for one rendering."""

    intercepted_binops = _CHECKED_OPERATORS

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols])
        self.steps_left = _MAX_STEPS
        self.max_size = 0
        self.filters = {name: _limited(function) for name, function in self.filters.items()} | {
            "tojson": _to_json, "format": _format, _EACH: _each, _JOINED: _joined
        }  # fmt: skip
        self.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now, "namespace": _SafeNamespace, "dict": dict}
        del self.globals["lipsum"]  # a generator of nonsense, as long as one likes

    def restricted(self, max_size: int) -> Sandbox:
        """A copy with a fresh budget in which nothing may grow longer than `max_size`."""
        copy: Sandbox = self.overlay()
        copy.max_size = max_size
        return copy

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return template

    def concat(self, pieces: Iterable[str]) -> str:
        """jinja2 joins what macros and `{% set %}` blocks write with this."""
        return str(self.check("".join(pieces)))

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        if isinstance(getattr(function, "__self__", None), str):
            self.check_counts(*arguments, *named.values())
        return self.check(super().call(context, function, *arguments, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.check_size(_product_size(operator, left, right))
        return self.check(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            self.check_size(_widest(value.__self__))
        return wrapped

    def check(self, value: Any) -> Any:
        """Take a step for a computed value, and more for a long text; returns it."""
        size = value.bit_length() if isinstance(value, int) else len(value) if isinstance(value, _SIZED) else 0
        self.check_size(size)
        self.spend(1 + (size // _CHARS_PER_STEP if isinstance(value, str) else 0))
        return value

    def check_counts(self, *arguments: Any) -> None:
        """A number that is passed may say how long the result will be ("ljust")."""
        for argument in arguments:
            if isinstance(argument, int):
                self.check_size(abs(argument))

    def check_size(self, size: int) -> None:
        if size > self.max_size:
            raise SecurityError(f"it computes something of size {size}, the limit is {self.max_size}")

    def spend(self, steps: int) -> None:
        """Take steps from the budget."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise SecurityError(f"it runs for more than {_MAX_STEPS} steps")


def _product_size(operator: str, left: Any, right: Any) -> int:
    """What `left operator right` will measure, where that can be far more than its operands do."""
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * abs(right)
    if operator == "*" and isinstance(left, _SIZED) and isinstance(right, int):
        return len(left) * right
    if operator == "*" and isinstance(left, int) and isinstance(right, _SIZED):
        return left * len(right)
    if operator == "%" and isinstance(left, str):
        given = right if isinstance(right, tuple) else (right,)
        widths = [value for value in given if isinstance(value, int)] if "*" in left else []
        return max([_widest(left), *widths])
    return 0


def _widest(pattern: str) -> int:
    """The largest number in a format such as "%9999d", so at least the width that it asks for."""
    return max(map(int, _NUMBER.findall(pattern)), default=0)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training. When prompting it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it without ClassVar

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# Names that no template can write.
_EACH, _JOINED = "<each>", "<joined>"


class _Counting(NodeTransformer):
    """Has loops and `~` run through functions that keep to the limits."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja2 finds it by this name
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _EACH, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED, [], [], None, None, lineno=node.lineno)


@jinja2.pass_environment
def _each(sandbox: Sandbox, values: Iterable[Any]) -> Iterable[Any]:
    return _Loop(sandbox, values) if hasattr(values, "__len__") else _counted(sandbox, values)


class _Loop:
    """Keeps the length, which `loop.length` and `loop.last` ask for."""

    def __init__(self, sandbox: Sandbox, values: Any) -> None:
        self._sandbox = sandbox
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return _counted(self._sandbox, self._values)


def _counted(sandbox: Sandbox, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        sandbox.spend(1)
        yield value


@jinja2.pass_environment
def _joined(sandbox: Sandbox, values: list[Any]) -> Any:
    return sandbox.check("".join(map(str, values)))


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that keeps to the limits of the environment it is called in."""
    wanted = getattr(function, "jinja_pass_arg", None)

    @jinja2.pass_context
    @functools.wraps(function, assigned=("__name__",), updated=())
    def limited(context: jinja2.runtime.Context, *arguments: Any, **named: Any) -> Any:
        sandbox: Any = context.environment
        sandbox.check_counts(*arguments[1:], *named.values())
        first = {None: (), "context": (context,), "eval_context": (context.eval_ctx,), "environment": (sandbox,)}
        return sandbox.check(function(*first[wanted and wanted.name], *arguments, **named))

    return limited


@jinja2.pass_environment
def _to_json(sandbox: Sandbox, value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> Any:
    """As transformers has it: jinja2's own escapes HTML."""
    sandbox.check_counts(indent)
    return sandbox.check(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options))


@jinja2.pass_context
def _format(context: jinja2.runtime.Context, pattern: object, *arguments: Any, **named: Any) -> Any:
    sandbox: Any = context.environment
    return sandbox.call_binop(context, "%", str(pattern), named or arguments)


def _raise(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class _SafeNamespace(Namespace):
    """Refuses names that reach into Python's internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)
