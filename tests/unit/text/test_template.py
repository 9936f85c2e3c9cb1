"""Chat templates: transformers' dialect, the template's own refusals, and templates that mean harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from penstock.core.errors import InvalidRequest, LoadError
from penstock.core.types import Message
from penstock.files import ModelFiles
from penstock.text import ChatTemplate, load_chat_template, load_tokenizer

Folder = Callable[[dict[str, object]], ModelFiles]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def _say(*turns: str) -> list[Message]:
    """Turns of a user and an assistant by turns."""
    return [Message(role="assistant" if index % 2 else "user", content=content) for index, content in enumerate(turns)]


def _render(source: str, *turns: str) -> str:
    return ChatTemplate(source, SPECIAL).render(_say(*turns or ("hi",)), add_generation_prompt=False)


def test_generation_prompt_opens_the_answer() -> None:
    template = ChatTemplate(CHATML, SPECIAL)
    shared = "<|im_start|>user\nhi<|im_end|>\n"
    assert template.render(_say("hi")) == shared + "<|im_start|>assistant\n"
    assert template.render(_say("hi"), add_generation_prompt=False) == shared


def test_continue_leaves_the_last_turn_open() -> None:
    text = ChatTemplate(CHATML, SPECIAL).render(_say("hi", "The answer is "), add_generation_prompt=False, continue_final_message=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nThe answer is "


def test_continue_follows_a_template_that_trims() -> None:
    trimming = CHATML.replace("message['content']", "message['content'] | trim")
    text = ChatTemplate(trimming, SPECIAL).render(_say("hi", "The answer is "), add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("The answer is")


def test_continue_needs_the_message_in_the_text() -> None:
    with pytest.raises(InvalidRequest, match="cannot be continued"):
        ChatTemplate("{{ messages[0]['content'] }}", {}).render(_say("hi", "x"), add_generation_prompt=False, continue_final_message=True)


def test_continue_and_generation_prompt_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="exclude each other") as refused:
        ChatTemplate(CHATML, {}).render(_say("hi"), continue_final_message=True)
    assert refused.value.param == "continue_final_message"


def test_no_messages() -> None:
    with pytest.raises(InvalidRequest, match="no messages"):
        ChatTemplate(CHATML, {}).render([])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}x{{ eos_token }}", "<s>x</s>"),
        ("{{ {'a': 'é<'} | tojson }}", '{"a": "é<"}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}", '{\n "a": [\n  2\n ],\n "b": 1\n}'),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}", "1/1True"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% else %}none{% endfor %}", "a1"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% if tools is none and documents is none and foo is not defined %}plain{% endif %}", "plain"),
        ("{{ '%s-%5.1f' | format('a', 2) }}|{{ '%d' % 3 }}", "a-  2.0|3"),
        ("    {% if true %}\n  x\n    {% endif %}\n", "  x\n"),
        ("{{ 1234567890 | tojson }} {{ '9' * 3 }} {{ 2 ** 10 }}", "1234567890 999 1024"),
    ],
)
def test_dialect(source: str, text: str) -> None:
    assert _render(source) == text


def test_variables_reach_the_template_and_win() -> None:
    template = ChatTemplate("{{ bos_token }}{{ enable_thinking }}", SPECIAL)
    assert template.render(_say("hi"), variables={"enable_thinking": False, "bos_token": "B"}) == "BFalse"


def test_a_participants_name_is_passed_only_when_given() -> None:
    source = "{% for m in messages %}{{ m.name if 'name' in m else '-' }}{% endfor %}"
    messages = [Message(role="user", content="a", name="Ann"), Message(role="user", content="b")]
    assert ChatTemplate(source, {}).render(messages) == "Ann-"


def test_the_templates_own_words_reach_the_client() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as refused:
        _render("{{ raise_exception('roles must alternate') }}")
    assert (refused.value.status, refused.value.param) == (400, "messages")


@pytest.mark.parametrize(
    "source", ["{% if %}", "{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"]
)
def test_a_template_that_is_none(source: str) -> None:
    with pytest.raises(LoadError, match="chat template cannot be read"):
        ChatTemplate(source, {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ (messages | map(attribute='__class__') | first).__mro__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}{{ foo.bar }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_no_way_out(source: str) -> None:
    with pytest.raises(InvalidRequest, match="unsafe|undefined|cannot hold|no loader"):
        _render(source)


DOUBLING = "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = EXPR %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * ['a'] }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '%99999999d' | format(1) }}",
        "{{ '{:99999999d}'.format(1) }}",
        "{{ [1] | tojson(indent=10 ** 9) }}",
        "{{ 9 ** (9 ** 9) }}",
        DOUBLING.replace("EXPR", "ns.x ~ ns.x"),
        DOUBLING.replace("EXPR", "ns.x + ns.x"),
        DOUBLING.replace("EXPR", "[ns.x, ns.x] | join"),
        DOUBLING.replace("EXPR", "ns.x.replace('a', 'aa')"),
        DOUBLING.replace("= EXPR %}", "%}{{ ns.x }}{{ ns.x }}{% endset %}"),
    ],
)
def test_no_template_runs_or_grows_for_long(source: str) -> None:
    begin = time.process_time()
    with pytest.raises(InvalidRequest, match="size|steps|too big|far more|recursion"):
        _render(source)
    assert time.process_time() - begin < 10


def test_a_long_conversation_is_within_the_limits() -> None:
    turns = ["word " * 2000] * 500
    assert len(_render(CHATML, *turns)) > 5_000_000


def test_one_rendering_does_not_use_up_the_next_ones_budget() -> None:
    template = ChatTemplate("{% for i in range(99999) %}{% for j in range(3) %}{% endfor %}{% endfor %}ok", {})
    assert [template.render(_say("hi")) for _ in range(2)] == ["ok"] * 2


def _loaded(files: ModelFiles) -> str | None:
    template = load_chat_template(files, load_tokenizer(files))
    return template and template.render(_say("hi"))


def test_where_templates_are_found(folder: Folder, byte_level_json: str) -> None:
    plain: dict[str, object] = {"tokenizer.json": byte_level_json}
    assert _loaded(folder(plain)) is None
    assert _loaded(folder(plain | {"tokenizer_config.json": {"bos_token": "<s>", "chat_template": "{{ bos_token }}one"}})) == "<s>one"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "two"}]
    assert _loaded(folder(plain | {"tokenizer_config.json": {"chat_template": named}})) == "two"
    assert _loaded(folder(plain | {"chat_template.jinja": "three"})) == "three"


CONVERSATIONS = [
    [{"role": "user", "content": 'Hello <there> "x" é'}],
    [
        {"role": "system", "content": "Be nice."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo  "},
        {"role": "user", "content": "2+2?\n"},
    ],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "tool", "content": "a"}],
]
MODES = [(True, False), (False, False), (False, True)]


def test_templates_of_popular_models_render_as_in_transformers(shared_data: Path) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    def theirs(source: str, turns: list[dict[str, str]], opened: bool, continued: bool) -> str | None:
        try:
            options = {"add_generation_prompt": opened, "continue_final_message": continued}
            return str(render_jinja_template([turns], chat_template=source, **options, **SPECIAL)[0][0])
        except (ValueError, TypeError, jinja2.TemplateError):
            return None

    def ours(template: ChatTemplate, turns: list[dict[str, str]], opened: bool, continued: bool) -> str | None:
        messages = [Message(**turn) for turn in turns]  # type: ignore[arg-type]
        try:
            return template.render(messages, add_generation_prompt=opened, continue_final_message=continued)
        except InvalidRequest:
            return None

    files = sorted((shared_data / "tokenizers/chat_templates_llamacpp").glob("*.jinja"))
    rendered = 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        template = ChatTemplate(source, SPECIAL)
        for turns in CONVERSATIONS:
            for opened, continued in MODES:
                expected = theirs(source, turns, opened, continued)
                assert ours(template, turns, opened, continued) == expected, file.name
                rendered += expected is not None
    assert rendered > 10 * len(files)
