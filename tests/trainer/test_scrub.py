"""What must be masked is, what must stay stays, and doubt is a refusal. Every secret here was made up for the test."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import Refused
from tests.memory.making import taught
from trainer.scrub import clean, found, scrub, undisguised

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + "IBAAKCAQEA\nabc" + "\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" + "." + "dozjgNryP4J3jVmNHl0w5N"
DISCORD = "MTA1MjM0NTY3ODkwMTIzNDU2" + ".G1a2b3." + "abcdefghijklmnopqrstuvwxyz0123456789AB"
TELEGRAM = "123456789:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"

SECRETS = {
    "mail ada@example.org please": "mail [email] please",
    "写信到ada.lovelace@example.com.cn吧": "写信到[email]吧",
    "ada [at] example [dot] org": "[email]",
    "call +1 (415) 555-0132 now": "call [phone] now",
    "ring +44 20 7946 0958": "ring [phone]",
    "+86 138 0013 8000": "[phone]",
    "我的手机是13800138000，晚上打": "我的手机是[phone]，晚上打",
    "or 415-555-0132.": "or [phone].",
    "座机 010-62345678": "座机 [phone]",
    "use sk-proj-" + "a1B2" * 8: "use [key]",
    "ghp_" + "A1b2" * 9: "[key]",
    "AKIA" + "IOSFODNN7EXAMPLE"[:16]: "[key]",
    f"{PEM} done": "[key] done",
    f"Bearer {JWT}": "Bearer [token]",
    f"bot {DISCORD}": "bot [token]",
    f"令牌：{TELEGRAM}": "令牌：[token]",
    "https://discord.com/api/webhooks/123456789012345678/" + "aB3-" * 16: "https://discord.com/api/webhooks/[token]",
    "postgresql://ada:lovelace9@db.example.org/x": "postgresql://[secret]@db.example.org/x",
    "password: hunter2hunter2": "password: [secret]",
    "密码是abcd1234efgh": "密码是[secret]",
    "key 9f86d081884c7d659a2feaa0c55ad015": "key [secret]",
    "it is 4d9Xr7TqL2vNzB8wKcY3mHfJ6sPgA5eUiR1oD0tQ": "it is [secret]",
    "card 4111 1111 1111 1111 ok": "card [card] ok",
    "amex 378282246310005": "amex [card]",
    "身份证11010519491231002X": "身份证[id]",
    "ssn 123-45-6789": "ssn [id]",
    "IBAN DE89 3704 0044 0532 0130 00.": "IBAN [iban].",
    "hi <@123456789012345678>": "hi [mention]",
}

HARMLESS = [
    "Bake at 230 °C for 45 minutes, hydration 72 %, 1000 g flour.",
    "Use version 3.11.4 or 2026.10.9, not 1.2.3-rc.4",
    "commit 3d4b1ab0f0e1c2d3a4b5c6d7e8f9a0b1c2d3e4f5 fixes it",
    "see https://github.com/a/b/commit/9f86d081884c7d659a2feaa0c55ad01512345678",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "id 6f1f5d1e-0d3b-5d52-9a57-0a5d6c3e7b11",
    "git clone git@github.com:a/b.git",
    "https://youtu.be/watch?list=PLlF-CfQhukNnq2kDCw2P_vI5AfXN7egP2",
    "from_pretrained(dir, gguf_file=name, dtype=float32)",
    "the token: String argument, password = get_password()",
    "2026-11-21 04:33:12, 10:30-11:45, unix 1576268220, ms 1576268220123",
    "3.14159265358979323846 and 12345678901234567890123456789012345678",
    "order 4111 1111 1111 1112 is not a card",
    "11010519491231002 3",
    "MyVeryLongCamelCaseIdentifierNameForTesting2 and some/long/path/With/Numbers123/in/it",
    "面包要烤45分钟，温度230度，一共2000克面粉，2026年3月1日。",
    "192.168.1.254:8321 and 255.255.255.255",
]


@pytest.mark.parametrize(("text", "expected"), SECRETS.items(), ids=range(len(SECRETS)))
def test_a_secret_is_masked_by_its_kind_and_the_message_stays(text: str, expected: str) -> None:
    assert scrub(text).text == expected


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_numbers_versions_code_hashes_and_links_stay(text: str) -> None:
    scrubbed = scrub(text)

    assert (scrubbed.text, scrubbed.masked) == (text, {})


def test_what_was_masked_is_counted_by_kind() -> None:
    assert scrub("ada@example.org, bob@example.org, 13800138000").masked == {"email": 2, "phone": 1}


@pytest.mark.parametrize(
    "text",
    [
        "１３８００１３８０００",
        "1380\u200b0138\u200b000",
        "1 3 8 0 0 1 3 8 0 0 0",
        "ada\u200b@example.org\u200b",
        "4111\u200b1111\u200b1111\u200b1111",
    ],
)
def test_a_disguised_secret_is_refused_and_not_passed_on(text: str) -> None:
    """The sentence of the refusal must not repeat the secret."""
    with pytest.raises(Refused) as refusal:
        scrub(text)

    assert text not in refusal.value.reason


def test_a_refused_exchange_is_left_out_and_counted() -> None:
    good = taught("How warm should the water be?", "Lukewarm; mail ada@example.org for more.")
    bad = taught("Your number?", "１３８００１３８０００")

    cleaned = clean([good, bad])

    assert [each.answer for each in cleaned.exchanges] == ["Lukewarm; mail [email] for more."]
    assert (cleaned.masked, sum(cleaned.excluded.values())) == ({"email": 1}, 1)


def test_both_halves_of_an_exchange_are_scrubbed() -> None:
    (scrubbed,) = clean([taught("I am bob@example.org, who are you?", "Call 13800138000")]).exchanges

    assert (scrubbed.question, scrubbed.answer) == ("I am [email], who are you?", "Call [phone]")


def test_random_keys_of_forty_three_characters_are_masked() -> None:
    """The length of a 256-bit key in base64; at least 97 in 100, since chance can make a dull one."""
    rng = random.Random(7)
    letters = string.ascii_letters + string.digits + "-_"
    keys = ["".join(rng.choice(letters) for _ in range(43)) for _ in range(300)]

    caught = sum("[secret]" in scrub(f"it is {key} now").text for key in keys)

    assert caught >= 291


@given(st.text(max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    try:
        once = scrub(text).text
    except Refused:
        return

    assert scrub(once).text == once
    assert not list(found(undisguised(once)))
