"""What rules do to a request: redacted or refused before anything is computed, by key, by budget, and told."""

from __future__ import annotations

import base64
from contextlib import aclosing

import pytest
from guarded import Broken, Shouting, chat, enforcing, guard_of
from msgspec.structs import replace

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.core.types import Finish, Judgement, Message, Principal, Request, Tool, ToolCall
from penstock.guard import AllowAll, Checked, Guard
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream

pytest.importorskip("re2")

KEY = RuleSettings(kind="regex", name="key", patterns=[r"\bsk-[a-z0-9]{4,8}\b"], action="redact", budget_s=10.0)
SECRET = RuleSettings(kind="regex", name="secret", patterns=["(?i)top secret"], budget_s=10.0)
SHOUT = RuleSettings(kind="shout", budget_s=10.0)


async def check(guard: Guard, request: Request) -> tuple[Checked, list[Judgement]]:
    judged: list[Judgement] = []
    return await guard.check(request, judged.append), judged


def contents(checked: Checked) -> list[str]:
    return [message.content for message in checked.request.messages or ()]


async def test_the_same_value_has_the_same_placeholder_in_every_turn() -> None:
    checked, judged = await check(guard_of(KEY), chat("mine is sk-aaaa", "yours is sk-bbbb", "again sk-aaaa"))
    assert contents(checked) == ["mine is [KEY_1]", "yours is [KEY_2]", "again [KEY_1]"]
    assert checked.originals == {"[KEY_1]": "sk-aaaa", "[KEY_2]": "sk-bbbb"}
    assert checked.refusal is None
    assert [(judgement.rule, judgement.action, judgement.shadow) for judgement in judged] == [("key", "redact", False)]


async def test_every_text_that_a_model_reads_is_judged() -> None:
    call = ToolCall(id="c", name="f", arguments='{"key": "sk-cccc"}')
    messages = (
        Message(role="system", content="sk-aaaa"),
        Message(role="user", content="sk-bbbb"),
        Message(role="assistant", content="", tool_calls=(call,), reasoning="sk-dddd"),
        Message(role="tool", content="sk-eeee", tool_call_id="c"),
    )
    request = Request(id="r", model="m", messages=messages, tools=(Tool(name="f", description="needs sk-ffff"),))
    checked, _ = await check(guard_of(KEY), request)
    assert "sk-" not in str(checked.request)
    assert sorted(checked.originals.values()) == [f"sk-{letter * 4}" for letter in "abcdef"]
    prompt, _ = await check(guard_of(KEY), Request(id="r", model="m", prompt="sk-aaaa"))
    assert prompt.request.prompt == "[KEY_1]"
    inputs, _ = await check(guard_of(KEY), Request(id="r", model="m", inputs=("sk-aaaa", "b")))
    assert inputs.request.inputs == ("[KEY_1]", "b")


async def test_a_placeholder_that_the_request_has_already_is_not_given() -> None:
    checked, _ = await check(guard_of(KEY), chat("what is [KEY_1]?", "sk-aaaa"))
    assert contents(checked) == ["what is [KEY_1]?", "[KEY_2]"]


async def test_a_value_in_arguments_is_kept_as_it_is_meant() -> None:
    quoted = RuleSettings(kind="regex", name="name", patterns=[r"O[\\u0-9]*Brien"], action="redact", budget_s=10.0)
    call = ToolCall(id="c", name="f", arguments='{"who": "O\\u0027Brien"}')
    request = Request(id="r", model="m", messages=(Message(role="assistant", content="", tool_calls=(call,)),))
    checked, _ = await check(guard_of(quoted), request)
    assert checked.originals == {"[NAME_1]": "O'Brien"}


@pytest.mark.parametrize("rules", [(KEY, SECRET), (SECRET, KEY)])
async def test_the_strictest_action_wins_whatever_the_order(rules: tuple[RuleSettings, ...]) -> None:
    checked, judged = await check(guard_of(*rules), chat("sk-aaaa is Top Secret"))
    assert checked.refusal is not None and checked.refusal.rule == "secret"
    assert {judgement.rule for judgement in judged} == {"key", "secret"}
    assert contents(checked) == ["[KEY_1] is [SECRET_1]"]  # for whoever writes it down
    assert all("sk-aaaa" not in judgement.why for judgement in judged)


async def test_keys_have_their_own_actions() -> None:
    rule = Shouting()
    guard = enforcing((rule, replace(SHOUT, keys={"boss": "allow", "bob": "redact"})))

    async def by(name: str) -> tuple[Checked, list[Judgement]]:
        return await check(guard, chat("DEAR me", principal=Principal(name=name, key_id=name)))

    assert (await by("eve"))[0].refusal is not None
    assert contents((await by("bob"))[0]) == ["[LOUD_1] me"]
    asked = len(rule.asked)
    assert await by("boss") == (Checked(request=chat("DEAR me", principal=Principal(name="boss", key_id="boss"))), [])
    assert len(rule.asked) == asked


@pytest.mark.parametrize(("dry_run", "mode"), [(True, "on"), (False, "shadow")])
async def test_a_dry_run_changes_nothing_and_is_told(dry_run: bool, mode: str) -> None:
    guard = guard_of(replace(SECRET, dry_run=dry_run), mode=mode)
    checked, judged = await check(guard, chat("Top secret"))
    assert checked == Checked(request=chat("Top secret"))
    assert [(judgement.action, judgement.shadow) for judgement in judged] == [("refuse", True)]


@pytest.mark.parametrize(("when_failed", "action"), [("closed", "refuse"), ("open", "allow")])
@pytest.mark.parametrize(("error", "why"), [(None, "longer than 0.01 s"), (ValueError("about sk-aaaa"), "failed with ValueError")])
async def test_a_rule_that_fails(
    when_failed: str, action: str, error: Exception | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = enforcing((Broken(error), RuleSettings(kind="broken", when_failed=when_failed, budget_s=0.01)))
    checked, judged = await check(guard, chat("sk-aaaa"))
    assert [judgement.action for judgement in judged] == [action]
    assert why in judged[0].why
    assert (checked.refusal is not None) == checked.failed == (action == "refuse")
    assert "sk-aaaa" not in caplog.text + judged[0].why


async def test_what_was_judged_is_remembered_for_its_key_alone() -> None:
    rule = Shouting()
    guard = enforcing((rule, SHOUT))
    await check(guard, chat("one", "two"))
    await check(guard, chat("one", "two", "three"))
    assert sorted(text.text for text in rule.asked) == ["one", "three", "two"]
    await check(guard, chat("one", principal=Principal(key_id="other")))
    assert [text.text for text in rule.asked].count("one") == 2


async def test_a_failure_is_not_remembered() -> None:
    rule = Broken(ValueError())
    guard = enforcing((rule, RuleSettings(kind="broken", budget_s=10.0)))
    assert (await check(guard, chat("a")))[0].refusal is not None
    rule.judge = Shouting().judge
    assert (await check(guard, chat("a")))[0].refusal is None


@pytest.mark.parametrize(("when_failed", "refused"), [("closed", True), ("open", False)])
async def test_token_ids_cannot_be_read(when_failed: str, refused: bool) -> None:
    request = Request(id="r", model="m", prompt_token_ids=(1, 2))
    checked, judged = await check(guard_of(replace(SECRET, when_failed=when_failed)), request)
    assert (checked.refusal is not None) == refused
    assert judged[0].why == "token ids cannot be read" and not checked.failed


async def test_what_is_hidden_is_found_and_goes_as_a_whole() -> None:
    hidden = base64.b64encode(b"please use sk-aaaa for all of it").decode()
    checked, judged = await check(guard_of(KEY), chat(f"Decode {hidden} now"))
    assert contents(checked) == ["Decode [KEY_1] now"]
    assert checked.originals == {"[KEY_1]": hidden}
    assert "base64" in judged[0].why


async def test_rules_read_what_they_are_set_to() -> None:
    messages = (Message(role="user", content="top secret"), Message(role="tool", content="fine", tool_call_id="c"))
    request = Request(id="r", model="m", messages=messages)
    assert (await check(guard_of(replace(SECRET, on=["tools", "output"])), request))[0].refusal is None
    assert (await check(guard_of(replace(SECRET, on=["input"])), request))[0].refusal is not None


def test_no_rules_is_no_guard() -> None:
    assert isinstance(guard_of(), AllowAll)
    assert isinstance(guard_of(KEY, mode="off"), AllowAll)
    assert isinstance(guard_of(replace(KEY, action="allow")), AllowAll)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (RuleSettings(kind="regx"), "did you mean 'regex'"),
        (RuleSettings(kind="regex"), "has no patterns"),
        (RuleSettings(kind="regex", patterns=["fine", "ab(?=c)"]), "at character 3: invalid perl operator: (?="),
        (RuleSettings(kind="regex", patterns=["x{500}"], action="redact"), "set guard.hold_chars to 501"),
        (RuleSettings(kind="json", action="redact"), "cannot redact"),
        (RuleSettings(kind="json", keys={"bob": "redact"}), "cannot redact"),
        (RuleSettings(kind="length"), "has no max_chars"),
        (RuleSettings(kind="topics", patterns=[" "]), "names no topics"),
        (RuleSettings(kind="regex", patterns=["fine", "a*"]), "has the pattern 'a*', which matches nothing at all"),
        (RuleSettings(kind="length", max_chars=5, patterns=["x"]), "takes no patterns"),
        (RuleSettings(kind="injection", max_chars=5), "takes no max_chars"),
        (RuleSettings(kind="injection", threshold=5), "has the threshold 5"),
        (RuleSettings(kind="grounded", threshold=-1), "has the threshold -1"),
        (RuleSettings(kind="pii", regions=["DE", "XX"]), "knows no region 'XX'"),
        (RuleSettings(kind="json", name='a]\n"b'), "has a name that cannot stand in a placeholder"),
    ],
)
def test_mistakes_in_the_settings_say_what_is_wrong(rule: RuleSettings, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guard_of(rule)
    assert says in str(caught.value)


def test_two_rules_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="two guard.rules are called 'key'"):
        guard_of(KEY, KEY)


async def test_a_rule_of_ones_own_is_found_by_its_entry_point(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "loud-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[penstock.rules]\nloud = loud_rule:make\n")
    (tmp_path / "loud_rule.py").write_text("from guarded import Shouting\n\ndef make(settings, means):\n    return Shouting()\n")
    monkeypatch.syspath_prepend(tmp_path)
    checked, _ = await check(guard_of(RuleSettings(kind="loud", action="redact", budget_s=10.0)), chat("HELLO there"))
    assert contents(checked) == ["[LOUD_1] there"]
    with pytest.raises(ConfigError, match="did you mean 'loud'"):
        guard_of(RuleSettings(kind="lout"))


async def test_what_could_not_be_judged_may_be_asked_again() -> None:
    upstream = FakeUpstream()
    broken = enforcing((Broken(ValueError()), RuleSettings(kind="broken", budget_s=10.0)))
    router = FixedRouter(routes_by_model({"fake": upstream}))
    pipeline = Pipeline(dispatch=Dispatch({"fake": upstream}), router=router, guard=broken)
    async with aclosing(pipeline.run(replace(chat("Hi"), model="fake"))) as events:
        (finish,) = [event async for event in events]
    assert isinstance(finish, Finish) and finish.failure is not None
    assert (finish.failure.status, finish.failure.code, finish.failure.retryable) == (503, "not_ready", True)
    assert "'broken' could not judge the request: it failed with ValueError" in finish.failure.message
    assert upstream.requests == []
