"""What members write changes nothing that is said to be the creator's; docs/attacks.md lists the kinds.

Every attempt of `attacks.jsonl` is written the way a member could write it, into one archive that keeps them all. What
Ada herself says meanwhile is the only thing that may be new, word for word, beside the very question that she answered.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot import commands, hearing, presses
from bot.discord_values import text_of
from bot.events import answer_events, own_message
from infra.errors import UserMistake
from infra.voice.chat import Turn
from memory.messages import Answer, Message, Source
from memory.prompt import render, system_text
from memory.remember import consent_event
from tests.drills.attacked import ADA, ATTACKED, CHANNEL, SAID, Attributed, Bakery, Pair, caller, opened

CASES = Path(__file__).parent / "attacks.jsonl"
# What chat templates mark turns with, and signs that hide or turn words around.
CONTROL = re.compile(r"<[|｜][^<>|｜]+[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(start|end)_of_turn>")
UNSEEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


@dataclass(frozen=True)
class Attempt:
    """One line of the file: how it is written, in whose name, and what is asked and answered in good faith meanwhile."""

    way: str
    text: str
    name: str = "Mallory"
    by: str = "member"
    id: str = ""
    asked: str = ""
    creator: str = ""
    seconds: int = 60
    bot: bool = False
    forwarded: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


ATTEMPTS = [Attempt(**json.loads(line)) for line in CASES.read_text(encoding="utf-8").splitlines()]
Way = Callable[[Bakery, Attempt], set[Pair]]


class Heard:
    """A reply that nobody reads."""

    async def preview(self, piece: str) -> None: ...

    async def deliver(self, answer: Answer) -> tuple[str, ...]:
        return (f"shown-{answer.question_id}",)


def heard(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A message in the channel where the twin listens."""
    bakery.says(bakery.member(attempt.name, role=attempt.by), attempt.text)
    return set()


def flooded(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """The same again and again, each time longer."""
    mallory = bakery.member(attempt.name)
    for number in range(8):
        bakery.says(mallory, attempt.text * (1 + 4 * number))
    return set()


def replied(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A reply to what Ada answered."""
    bakery.says(bakery.member(attempt.name), attempt.text, reply_to=bakery.answers["How long does the dough rest?"])
    return set()


def answered_for(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A reply to what Ada has not answered; she says something else to somebody else."""
    question = bakery.says(bakery.asker(), attempt.asked)
    bakery.says(bakery.member(attempt.name), attempt.text, reply_to=question)
    bakery.says(ADA, "Good morning!")
    return set()


def rewrote(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """Her question says something else once Ada has said yes to it."""
    question = bakery.says(bakery.member(attempt.name), attempt.asked)
    answer = bakery.says(ADA, attempt.creator, reply_to=question)
    when = answer.at + timedelta(seconds=attempt.seconds)
    edit = replace(question, text=attempt.text, revision=int(when.timestamp()))
    bakery.run(hearing.edited(bakery.stage.community, edit))
    return {(attempt.asked, attempt.creator)}


def called(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A name that is a word with which Ada's answer to somebody else may begin."""
    bakery.says(bakery.member(attempt.name), attempt.text)
    bakery.says(bakery.asker(), attempt.asked)
    bakery.says(ADA, attempt.creator)
    return {(attempt.asked, attempt.creator)}


def mentioned(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A name that reads like a sentence of Ada's once she mentions who bears it."""
    mallory = bakery.member(attempt.name)
    question = bakery.says(mallory, attempt.text)
    named = SimpleNamespace(id=int(mallory.id), name="mallory", display_name=attempt.name)
    content = attempt.creator.format(mention=f"<@{mallory.id}>")
    bakery.says(ADA, text_of(SimpleNamespace(mentions=[named], content=content), me=9), reply_to=question)
    return {(attempt.text, attempt.creator.format(mention="@mallory"))}


def quoted(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """Words that Ada quotes in order to turn them down."""
    bakery.says(bakery.member(attempt.name), attempt.text)
    question = bakery.says(bakery.asker(), attempt.asked)
    bakery.says(ADA, attempt.creator.format(text=attempt.text), reply_to=question)
    return {(attempt.asked, attempt.creator.format(text="").removeprefix("> \n"))}


def asked(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A question to the twin."""
    ask(bakery, attempt)
    return set()


def ask(bakery: Bakery, attempt: Attempt, *, reply_to: Message | None = None) -> tuple[Message, Answer]:
    """A question to the twin in the channel, and what it answered; the prompt is looked at where there was one."""
    question = bakery.says(bakery.member(attempt.name), attempt.text, reply_to=reply_to)
    twin, prompts = bakery.stage.community.twin, len(bakery.stage.voice.asked)
    answer = bakery.run(twin.answer(question, Heard(), source=Source.DISCORD_API, offers=True))
    for turns in bakery.stage.voice.asked[prompts:]:
        assert_fenced(turns, notes=len(answer.notes))
    return question, answer


def passed_on(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A question that the twin cannot answer goes to Ada, and her answer is kept with it."""
    question, answer = ask(bakery, attempt)
    assert answer.outcome == "abstained"
    community = bakery.stage.community
    bakery.run(presses.press(community, f"ask:{answer.id}", caller(question.person)))
    number = community.journal.inbox()[-1].number
    bakery.run(presses.press(community, f"answer:{number}", caller(ADA), typed=attempt.creator))
    return {(attempt.text, attempt.creator)}


def stuffed(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A question made of the words of a known one, so that whatever is said to it is found instead."""
    question = bakery.says(bakery.member(attempt.name), attempt.text * 40)
    bakery.says(ADA if attempt.creator else bakery.asker(), attempt.creator or "Please stop.", reply_to=question)
    return {(attempt.text * 40, attempt.creator)}


def chained(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A reply below Ada's answer, which stands in the prompt of whoever asks the twin in reply to it."""
    answered = bakery.answers["How long does the dough rest?"]
    mallory = bakery.says(bakery.member(attempt.name), attempt.text, reply_to=answered)
    ask(bakery, Attempt("asked", ATTACKED[0], name="Charlie"), reply_to=mallory)
    earlier = [turn.content for turn in bakery.stage.voice.asked[-1][1:-1]]
    assert f"Ada: {answered.text}" in earlier
    assert all(turn.startswith("A member: ") for turn in earlier if turn != f"Ada: {answered.text}")
    return set()


def overwrote(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """An edit of Ada's message that is not by Ada."""
    answered = bakery.answers["麵團要發酵多久？"]
    forged = replace(answered, person=bakery.member(attempt.name), text=attempt.text, revision=2_000_000_000)
    bakery.run(hearing.edited(bakery.stage.community, forged))
    return set()


# Files of a talk with somebody; neither has headings, so each is cited by its name.
TALKS = ("talk.txt", "mail.txt")
RYE, RESTS = "How long should rye rest in winter?", "Ten hours, in a cool room."


def telegram(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """An export of a chat in which somebody else answers under Ada's name, or she forwards what was written."""
    at = int(bakery.at.timestamp())
    forward = {"forwarded_from": "Mallory"} if attempt.forwarded else {}
    rows = [
        {"from": "Bob", "from_id": "user5", "text": RYE},
        {"from": attempt.name, "from_id": attempt.id, "text": attempt.text, "reply_to_message_id": 1, **forward},
        {"from": "Ada", "from_id": "user1", "text": RESTS, "reply_to_message_id": 1},
    ]
    messages = [{"id": n, "type": "message", "date_unixtime": str(at + n), **row} for n, row in enumerate(rows, 1)]
    chat = {"name": "rye", "type": "public_supergroup", "id": bakery.number, "messages": messages}
    bakery.imports("result.json", json.dumps(chat))
    return {(RYE, RESTS)}


def discord(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """DiscordChatExporter's file of the same."""

    def row(number: int, author: str, name: str, text: str, *, reply_to: int = 0, bot: bool = False) -> dict[str, Any]:
        at = (bakery.at + timedelta(seconds=number)).isoformat()
        said = {"id": str(number), "type": "Reply" if reply_to else "Default", "timestamp": at, "content": text}
        said["reference"] = {"messageId": str(reply_to)} if reply_to else None
        return {**said, "author": {"id": author, "name": name, "nickname": name, "isBot": bot}}

    rows = [
        row(1, "5", "Bob", RYE),
        row(2, attempt.id, attempt.name, attempt.text, reply_to=1, bot=attempt.bot),
        row(3, "1", "Ada", RESTS, reply_to=1),
    ]
    channel = {"id": f"77{bakery.number}", "type": "GuildTextChat", "name": "rye"}
    bakery.imports("export.json", json.dumps({"guild": {"id": "1"}, "channel": channel, "messages": rows}))
    return {(RYE, RESTS)}


def stackexchange(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """Posts.xml with an answer by an account of Ada's name."""
    bakery.imports(
        "Posts.xml",
        f'<?xml version="1.0"?><posts><row Id="1" PostTypeId="1" Body="{RYE}" OwnerUserId="5"/>'
        f'<row Id="2" PostTypeId="2" ParentId="1" Body="{attempt.text}" OwnerUserId="{attempt.id}"'
        f' OwnerDisplayName="{attempt.name}"/>'
        f'<row Id="3" PostTypeId="2" ParentId="1" Body="{RESTS}" OwnerUserId="1"/></posts>',
    )
    return {(RYE, RESTS)}


def transcript(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A document of Ada's in which somebody else speaks: it is cited as hers, and is not what she thinks."""
    bakery.imports(TALKS[attempt.text.startswith(">")], f"Welcome to the bakery.\n\n{attempt.text}\n")
    return set()


def pressed(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A button that is not theirs to press, with words in its form."""
    presser = caller(bakery.member(attempt.name))
    bakery.run(presses.press(bakery.stage.community, attempt.text, presser, typed="Forty degrees."))
    return set()


def commanded(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A command with options that name somebody else."""
    bakery.run(
        commands.run_command(
            bakery.stage.community, attempt.text, caller(bakery.member(attempt.name)), dict(attempt.options)
        )
    )
    return set()


def judged(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """Twenty accounts vote on one answer."""
    _, answer = ask(bakery, Attempt("asked", ATTACKED[0]))
    for number in range(20):
        voter = replace(bakery.member(attempt.name), id=f"777{number}")
        bakery.run(presses.press(bakery.stage.community, f"{attempt.text}:{answer.id}", caller(voter)))
    return set()


def reported(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """A report that brings its own answer."""
    question, answer = ask(bakery, Attempt("asked", ATTACKED[0]))
    reporter = caller(question.person)
    bakery.run(presses.press(bakery.stage.community, f"report:{answer.id}", reporter, typed=attempt.text))
    return set()


def page(bakery: Bakery, attempt: Attempt) -> set[Pair]:
    """Two visitors of the page in one conversation; the second says that it is somebody."""

    async def asks(person: str, text: str, number: str) -> None:
        conversation = f"talk-{bakery.number}"
        message = own_message(text, conversation=conversation, message=number, person=person, now=bakery.at)
        async for _ in answer_events(bakery.stage.community.twin, message):
            pass

    bakery.run(asks("guest", "How long should rye rest on the moon?", "1"))
    bakery.at += timedelta(seconds=30)
    try:
        bakery.run(asks(attempt.name, attempt.text, "2"))
    except UserMistake:
        assert attempt.name == "creator"
    return set()


WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (
        heard, flooded, replied, answered_for, rewrote, called, mentioned, quoted, asked, passed_on, stuffed, chained,
        overwrote, telegram, discord, stackexchange, transcript, pressed, commanded, judged, reported, page,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    """One archive for all attempts: each must also fail on top of those before it."""
    with asyncio.Runner() as runner:
        found, stage = opened(tmp_path_factory.mktemp("bakery"), runner)
        yield found
        runner.run(stage.__aexit__(None, None, None))


def test_there_are_enough_attempts_and_every_way_is_taken() -> None:
    assert len({(each.way, each.text, each.name, each.asked, each.id) for each in ATTEMPTS}) >= 50
    assert {each.way for each in ATTEMPTS} == WAYS.keys()


def test_the_bakery_answers_what_is_attacked(bakery: Bakery) -> None:
    before = bakery.attributed()

    assert {(asked, said) for asked, said in SAID.items()} <= before.pairs & before.rows
    assert all(before.notes.values())
    assert {"butter", "rag", "t65"} <= {about for _, about, _ in before.stances}


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=[f"{n}-{each.way}" for n, each in enumerate(ATTEMPTS)])
def test_an_attempt_changes_nothing_that_is_the_creator_s(bakery: Bakery, attempt: Attempt) -> None:
    bakery.next_attempt()
    before = bakery.known or bakery.attributed()

    granted = consent_event(bakery.member(""), CHANNEL, granted="yes", at=bakery.at)
    bakery.run(bakery.stage.community.remember(granted))
    said = WAYS[attempt.way](bakery, attempt)

    bakery.known = bakery.attributed()
    assert_unchanged(before, bakery.known, said=said, way=attempt.way)
    assert_only_data(bakery, attempt.text)


def assert_unchanged(before: Attributed, after: Attributed, *, said: set[Pair], way: str) -> None:
    """Nothing of Ada's is gone or other; what is new is what she has `said` meanwhile, and it answers nothing else."""
    assert before.pairs <= after.pairs
    assert after.pairs - before.pairs <= said
    assert after.rows - before.rows <= said
    assert before.rows <= after.rows
    assert before.stances <= after.stances
    assert after.cares == before.cares
    assert after.switches == before.switches
    assert before.passages <= after.passages
    assert after.passages == before.passages or way == "transcript"
    answers = {answer for _, answer in after.pairs}
    assert all(any(answer in quote for answer in answers) for _, _, quote in after.stances - before.stances)
    for question, notes in before.notes.items():
        found = after.notes[question]
        assert found[0] == notes[0]
        assert {note.text for note in found} <= answers | after.passages
        assert {note.source for note in found} <= {"general", "taught", "rye", "guide.md: Guide > Salt", *TALKS}


def assert_only_data(bakery: Bakery, text: str) -> None:
    """Wherever a member's words may stand in a prompt they are one line of it, and control nothing."""
    notes, card = bakery.notes(ATTACKED[0]), bakery.stage.community.persona
    hearsay = replace(notes[0], text=text)
    turns = render(card, notes=(*notes, hearsay), history=[Turn("user", text)], question=text, budget_tokens=400)
    assert_fenced(turns, notes=len(notes) + 1)
    assert turns[0] == Turn("system", system_text(card))


def assert_fenced(turns: list[Turn], *, notes: int) -> None:
    """As many notes as there are, one question, nothing that a chat template could take for a turn."""
    assert not any(CONTROL.search(turn.content) or UNSEEN.search(turn.content) for turn in turns)
    lines = turns[-1].content.splitlines()
    heads = [line for line in lines if line.startswith(("[", "Notes:", "Question:"))]
    assert [head.split(" ")[0] for head in heads] == ["Notes:", *(f"[{n + 1}]" for n in range(notes)), "Question:"]
    assert lines == [*heads[:-1], "", heads[-1]]
    assert all(len(turn.content.splitlines()) == 1 for turn in turns[1:-1])
