"""What the rule `pii` finds, and what it leaves alone."""

from __future__ import annotations

import pytest
from guarded import chat, guard_of

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.guard.pii import KINDS, Finder, pii
from penstock.guard.rule import Means, Text


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder()


KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx3cP\nq9/+Zk==\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

# «what must be found»
POSITIVES = [
    ("email", "Write to «jane.doe+x@sub.example.co.uk»."),
    ("email", "邮箱«zhang@example.cn»，谢谢"),
    ("email", "an «françois@exämple.fr» address"),
    ("phone", "It is «+49 30 901820» in Berlin"),
    ("phone", "office hours: «(212) 555-0123 x45», ask for Ann"),
    ("phone", "reach me on «0171/5550123»"),
    ("phone", "They're not answering at «516 466 638»"),
    ("phone", "«99 577450» office, 4th floor"),
    ("phone", "电话«13800138000»，谢谢"),
    ("phone", "call «020 7946 0958» or «020 7946 0959»"),
    ("card", "the card «4111 1111 1111 1111» 12/27"),
    ("card", "«378282246310005»"),
    ("card", "my debit card «587428561654» was lost"),
    ("iban", "pay to «DE89 3704 0044 0532 0130 00» and tell me"),
    ("iban", "«gb29nwbk60161331926819»"),
    ("ssn", "«078-05-1121» is hers"),
    ("ssn", "her SSN is «078051121»"),
    ("ip", "from «203.0.113.7»:8080"),
    ("ip", "at «2001:db8:85a3::8a2e:370:7334»"),
    ("mac", "«00:1A:2B:3C:4D:5E»"),
    ("crypto", "«bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq»"),
    ("crypto", "«0x52908400098527886E0F7030069857D2E4169EE7»"),
    ("credentials", "postgres://«admin:s3cr3t»@db.example.com/x"),
    ("birth_date", "She was born on «12 March 1985» in Rome"),
    ("birth_date", '"date of birth": "«1985-03-12»"'),
    ("aws_key", "«AKIAIOSFODNN7EXAMPLE»"),
    ("github_token", "«ghp_" + "a1B2" * 9 + "»"),
    ("model_key", "«sk-ant-api03-Zx9kQ2mP7rT4vW8yB1nD5gH3jL6sF0aC_e-u»"),
    ("model_key", "«sk-ps-abcdefghij23-Zx9kQ2mP7rT4vW8yB1nD5gH3jL6sF0aCeuZx9kQ2mP7»"),
    ("slack_token", "«xoxb-123456789012-abcdefGHIJKL»"),
    ("google_key", "«AIzaSyA1b2c3D4e5F6g7H8i9J0kLmNoPqRsTuVw»"),
    ("stripe_key", "«sk_live_4eC39HqLyjWDarjtT1zdp7dc»"),
    ("private_key", f"here: «{KEY}» keep it"),
    ("jwt", f"token «{JWT}»"),
    ("bearer", "Authorization: Bearer «abcdef1234567890ABCDEF»"),
    ("password", "password=«Hunter2!xy»"),
    ("password", '{"api_key": "«9f8a7b6c5d4e3f2a1b0c»"}'),
    ("password", "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»"),
]

TRAPS = [
    "order 4471-2200-1893 of 2026-11-21T16:20:33Z, pages 100-200, 300-400",
    "the card 4111 1111 1111 1112 has a wrong check digit, and so has DE89 3704 0044 0532 0130 01",
    "Python v3.11.7.2, version 1.2.3.4 and Chrome/120.0.6099.109",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 71f9cdd0a1b2c3d4e5f60718293a4b5c6d7e8f90, id 550e8400-e29b-41d4-a716-446655440000",
    "ISBN 978-3-16-148410-0, timestamp 1700000000000",
    "std::vector<int> a::b Face::Bad, git@github.com:org/repo.git, @decorator",
    "password: required; password = os.environ['PASSWORD']; token = get_token(); api_key=YOUR_API_KEY; secret: <your-secret>",
    "The secret is patience. The token is a word. Bearer of bad news everyone.",
    "127.0.0.1 0.0.0.0 255.255.255.0 and 12:30:45",
    "3.14159265358979, 12 34 56 78 90 12 34, 1,234,567,890, 100 200 300 400, 1234567890",
    "from 0900-0130 he slept; in 2019-2020 he called Tel Aviv 2019-2020",
    "max_tokens=100000000, token_count: 4096000, sk-learn-contrib-extras-package",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "My driver's license number is 481195160, my ZIP code is 90010-170",
]


@pytest.mark.parametrize(("kind", "marked"), POSITIVES)
def test_each_kind_is_found_where_it_begins_and_ends(finder: Finder, kind: str, marked: str) -> None:
    text = marked.replace("«", "").replace("»", "")
    expected = [part.split("»")[0] for part in marked.split("«")[1:]]
    assert [(found.kind, text[found.start : found.end]) for found in finder.spans(text)] == [(kind, value) for value in expected]


@pytest.mark.parametrize("text", TRAPS)
def test_what_only_looks_alike_is_left_alone(finder: Finder, text: str) -> None:
    assert [text[found.start : found.end] for found in finder.spans(text)] == []


def test_every_kind_that_is_claimed_has_an_example_here() -> None:
    untested = set(KINDS) - {kind for kind, _ in POSITIVES}
    assert untested == {"gitlab_token", "service_key"}  # by prefix alone, as the others


def test_only_the_kinds_asked_for_are_found() -> None:
    text = "jane@example.org, 203.0.113.7, password=Hunter2!xy"
    assert [found.kind for found in Finder(["IP_ADDRESS", "secrets"]).spans(text)] == ["ip", "password"]


def test_a_number_without_its_country_is_read_as_one_of_the_regions() -> None:
    text = "Norsk: 021 23 45 67 89"
    assert Finder(["phone"], ["US"]).spans(text) == ()
    assert [found.kind for found in Finder(["phone"], ["RO", "BE", "FR", "CH", "DE"]).spans("so 030 901820 it is")] == ["phone"]


@pytest.mark.parametrize("kind", ["emial", "PERSON"])
def test_what_cannot_be_found_is_refused_at_the_start(kind: str) -> None:
    with pytest.raises(ConfigError, match=kind):
        Finder([kind])


async def test_the_reason_given_never_repeats_what_was_found() -> None:
    rule = pii(RuleSettings(kind="pii"), Means(vectors=lambda: None))  # type: ignore[arg-type, return-value]
    opinion = await rule.judge(Text(text="jane@example.org has 4111 1111 1111 1111", where="input"))
    assert opinion.why == "it has card, email"
    assert [span.kind for span in opinion.spans] == ["EMAIL", "CARD"]


async def test_what_was_sent_already_is_not_objected_to_again() -> None:
    rule = pii(RuleSettings(kind="pii"), Means(vectors=lambda: None))  # type: ignore[arg-type, return-value]
    opinion = await rule.judge(Text(text="jane@example.org and joe@example.org", where="output", start=17))
    assert [span.start for span in opinion.spans] == [21]


def test_a_long_hostile_text_takes_no_more_than_its_share() -> None:
    finder = Finder()
    for hostile in ("1 " * 5_000, "a@" * 50_000, "-----BEGIN PRIVATE KEY-----" * 4_000, "+1-" * 3_000, "ab12 " * 2_000, "::1" * 3_000):
        assert len(finder.spans(hostile)) < len(hostile)


async def test_a_long_list_of_addresses_is_redacted_each_by_its_own_placeholder() -> None:
    guard = guard_of(RuleSettings(kind="pii", action="redact", budget_s=60.0))
    people = [f"p{number}@example.org" for number in range(3_000)]
    checked = await guard.check(chat(" ".join(people)), lambda _: None)
    assert list(checked.originals.values()) == people


def test_a_password_ends_where_chinese_goes_on() -> None:
    text = "我的password=Hunter2!xy，谢谢"
    assert [text[found.start : found.end] for found in Finder().spans(text)] == ["Hunter2!xy"]
