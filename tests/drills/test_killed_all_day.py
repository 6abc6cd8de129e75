"""Twenty-four hours in one go, or the first of them: people talk while the API, a bot or the worker is killed each hour.

All parts are real processes on one journal: API with index and voice, the Telegram bot, a worker, their libraries and
models; only Telegram's servers are a double. Real time is short: an hour is as long as what happens in it. It passes
when every message that was acknowledged has one answer in the journal and is shown it, what is not known is in the inbox
exactly once, every answer of the creator's can be recalled, edits and deletions hold, the journal is whole, at most one voice is current, and no process is left.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.adapters import AdapterStore
from infra.cli.compose import open_journal
from infra.runs import Runs
from infra.settings import Settings, child_environment, load_settings
from infra.voice.weights import Weights
from memory.journal import Journal
from memory.messages import Kind, Person, Place, Source
from memory.remember import deletion_event, listening_event, remember
from tests.fakes.telegram import FakeTelegram
from tests.infra.running import QA, eventually, lend_weights, lives, understudy
from tests.redis_server import free_port

# With UNDERSTUDY_TEST_WHOLE_DAY set, all of it.
HOURS = 24 if os.environ.get("UNDERSTUDY_TEST_WHOLE_DAY") else 3
PARTS = {"api": ("serve",), "bot": ("bot", "--platform", "telegram"), "worker": ("worker",), "beat": ("beat",)}
MORTAL = ("api", "bot", "worker")
LATER = "That is my answer number"
KEPT = "Your question is kept"
WARM = "How warm should the dough be?"
# What nobody has ever told the twin, one for each hour.
UNKNOWN = (
    "What is the capital of Mongolia?",
    "Who painted the Sistine Chapel?",
    "How many strings does a violin have?",
    "When did the Titanic sink?",
    "Which planet has the most moons?",
    "How do I renew my passport?",
    "Where do emperor penguins breed?",
    "What is the boiling point of mercury?",
    "Who won the chess championship in 1972?",
    "How long is the Suez Canal?",
    "Which language is spoken in Paraguay?",
    "When was the printing press invented?",
    "How far away is the nearest star?",
    "What does a notary charge?",
    "Who wrote Don Quixote?",
    "Which metal rusts fastest?",
    "How tall is the Eiffel Tower?",
    "Where can I learn falconry?",
    "What is the tax on imported cars?",
    "How many bones are in a hand?",
    "Which river flows through Baghdad?",
    "When do swallows fly south?",
    "Who discovered penicillin?",
    "How does a submarine dive?",
)


@dataclass
class Day:
    """The people, what they were promised, and the processes that promised it."""

    settings: Settings
    telegram: FakeTelegram
    environment: dict[str, str]
    group: int
    port: int = field(default_factory=free_port)
    rng: random.Random = field(default_factory=lambda: random.Random(9))
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ever: list[psutil.Process] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))
    taught: dict[str, str] = field(default_factory=dict)
    asked: dict[tuple[int, int], str] = field(default_factory=dict)
    heard: dict[str, str] = field(default_factory=dict)
    said: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    unknown: dict[tuple[int, int], str] = field(default_factory=dict)

    # The processes.

    def start(self, part: str) -> None:
        options = ("--port", str(self.port)) if part == "api" else ()
        command = [sys.executable, "-m", "infra.cli.main", *PARTS[part], "--home", str(self.settings.home), *options]
        with (self.settings.home / "out.log").open("ab") as output:
            self.running[part] = subprocess.Popen(
                command, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )

    def family(self, part: str) -> list[psutil.Process]:
        process = psutil.Process(self.running[part].pid)
        return [process, *process.children(recursive=True)]

    def kill(self, part: str) -> None:
        """As the kernel would, without a warning; it is started again at once."""
        self.ever += self.family(part)
        self.running[part].kill()
        self.running[part].wait()
        self.start(part)

    async def close(self) -> None:
        """Ask all of them to end."""
        for part in self.running:
            self.ever += self.family(part)
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            await asyncio.to_thread(process.wait, 60)

    # What people do.

    async def acknowledged(self, act: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
        """What the API answers, asked again until it does. One that repeats what was kept the first time is refused."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as client:
            while True:
                with suppress(httpx.HTTPError):
                    found = await act(client)
                    if found.status_code < 500:
                        return found
                await asyncio.sleep(0.1)

    async def teach(self) -> None:
        number = next(self.numbers)
        body = {"question": f"How warm is oven {number}?", "answer": f"{number + 100} degrees."}
        await self.acknowledged(lambda client: client.post("/api/teach", json=body))
        self.taught[body["question"]] = body["answer"]

    async def ask_on_telegram(self, question: str) -> tuple[int, int]:
        """A member whom nobody has met asks in private: no rate is what keeps the twin from an answer."""
        member = self.telegram.user(f"member {next(self.numbers)}")
        chat = self.telegram.private(member)
        message = await self.telegram.say(member, chat, question)
        self.asked[chat, message] = question
        return chat, message

    async def ask_what_nobody_knows(self, question: str) -> None:
        """And have it passed on. A question that could not be looked up is kept without that."""
        chat, asked = await self.ask_on_telegram(question)
        await eventually(lambda: (chat, asked) in self.replies(), self.settings.home)
        reply = next(each for each in self.telegram.said_by_bot(chat) if each.reply_to == asked)
        await eventually(lambda: bool(reply.buttons) or KEPT in reply.text, self.settings.home)
        offered = [each["callback_data"] for each in reply.buttons if each["callback_data"].startswith("ask:")]
        if offered:
            await self.telegram.press(chat, chat, reply.id, offered[0])
        self.unknown[chat, asked] = question

    async def ask_on_the_page(self) -> None:
        """The same message until it is answered, and then a vote on the answer."""
        message = f"page-{next(self.numbers)}"
        body = {"question": WARM, "conversation": message, "message": message}
        answer = None
        while answer is None:
            events = (await self.acknowledged(lambda client: client.post("/api/ask", json=body))).text.splitlines()
            found = [json.loads(line.removeprefix("data: ")) for line in events if line.startswith("data: ")]
            answer = next((each["answer"] for each in found if "answer" in each), None)
        self.heard[message] = answer["id"]
        vote = {"answer": answer["id"], "value": "good", "person": message}
        await self.acknowledged(lambda client: client.post("/api/vote", json=vote))

    async def talk_in_the_group(self, hour: int) -> None:
        """Some chatter; of an hour ago one message is edited and, as an admin would, another one removed."""
        member = self.telegram.user(f"member {next(self.numbers)}")
        self.telegram.join(self.group, member)
        before = [number for number in self.said if number not in self.gone][-3:]
        for number in range(3):
            text = f"look at crust {hour}, {number}"
            self.said[await self.telegram.say(member, self.group, text)] = text
        if before:
            edited, removed = before[:2]
            self.said[edited] = f"no, look at crust {hour} again"
            await self.telegram.edit(edited, self.group, self.said[edited])
            await self.remove(removed)

    async def remove(self, number: int) -> None:
        place, journal = Place("telegram", str(self.group)), open_journal(self.settings)
        with closing(journal):
            await eventually(lambda: journal.message(place, str(number)) is not None, self.settings.home)
            ada = Person("telegram", "1")
            event = deletion_event(place, str(number), by=ada, source=Source.TELEGRAM_GROUP, at=datetime.now(UTC))
            await asyncio.to_thread(remember, journal, [event], creator=frozenset())
        self.gone.add(number)

    async def answer_inbox(self) -> None:
        """The creator answers what nobody knew, whichever has waited for longest."""
        waiting = (await self.acknowledged(lambda client: client.get("/api/inbox"))).json()
        new = [each for each in waiting if each["question"] in UNKNOWN and each["question"] not in self.taught]
        if new:
            number, question = new[0]["number"], new[0]["question"]
            body = {"answer": f"{LATER} {number}."}
            await self.acknowledged(lambda client: client.post(f"/api/inbox/{number}/answer", json=body))
            self.taught[question] = body["answer"]

    async def ask_for_a_training(self) -> None:
        self.runs.add((await self.acknowledged(lambda client: client.post("/api/retrain"))).json()["run"])

    async def hour(self, number: int) -> None:
        """All of it at once, and a kill at any moment of it."""
        known = self.rng.choice([WARM, *(question for question in self.taught if question not in UNKNOWN)])
        await asyncio.gather(
            self.ask_on_telegram(known),
            self.ask_what_nobody_knows(UNKNOWN[number]),
            self.ask_on_the_page(),
            self.teach(),
            self.talk_in_the_group(number),
            self.answer_inbox(),
            *([self.ask_for_a_training()] if number % 6 == 4 else []),
            self.die(MORTAL[number % len(MORTAL)]),
        )

    async def die(self, part: str) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        await asyncio.to_thread(self.kill, part)

    # What was promised.

    def replies(self, *, later: bool = False) -> Counter[tuple[int, int]]:
        """How often each question was answered; `later`: with what the creator said to it."""
        said = (each for each in self.telegram.said_by_bot() if each.reply_to and (LATER in each.text) == later)
        return Counter((each.chat, each.reply_to) for each in said)

    def promised(self) -> set[tuple[int, int]]:
        """The questions whose askers the creator's answer is to be told."""
        return {key for key, question in self.unknown.items() if question in self.taught}

    def waiting(self, journal: Journal) -> Counter[str]:
        states = ("open", "answered", "dismissed")
        return Counter(item.question for state in states for item in journal.inbox(state=state))


@asynccontextmanager
async def day(home: Path, weights: Weights) -> AsyncIterator[Day]:
    async with FakeTelegram() as telegram:
        telegram.privacy_mode = False
        ada, group = telegram.user("Ada"), telegram.group()
        understudy(home, "init", "--yes", "--creator", "Ada", "--creator-id", f"telegram:{ada}")
        with (home / "understudy.toml").open("a") as config:
            # Short answers: what is drilled is who gets one.
            config.write("\n[voice]\nmax_tokens = 8\n[training]\nleast_rows = 1000\n")
        lend_weights(home, weights)
        (home / "qa.csv").write_text(QA, encoding="utf-8")
        understudy(home, "import", str(home / "qa.csv"))
        settings = load_settings(home)
        with closing(open_journal(settings)) as journal:
            place, at = Place("telegram", str(group)), datetime.now(UTC)
            switch = listening_event(place, Person("telegram", str(ada)), on=True, space=str(group), at=at)
            remember(journal, [switch], creator=frozenset())
        environment = child_environment(
            UNDERSTUDY_TELEGRAM__TOKEN=telegram.token, UNDERSTUDY_TELEGRAM__API=telegram.api
        )
        found = Day(settings, telegram, environment, group)
        for part in PARTS:
            found.start(part)
        try:
            yield found
        finally:
            await found.close()


@pytest.mark.timeout(1200)
async def test_a_day_of_kills_breaks_no_promise(tmp_path: Path, weights: Weights) -> None:
    async with day(tmp_path, weights) as at:
        await at.acknowledged(lambda client: client.get("/readyz"))
        for number in range(HOURS):
            await at.hour(number)
        await eventually(lambda: set(at.replies()) >= set(at.asked), tmp_path)
        place = Place("telegram", str(at.group))
        with closing(open_journal(at.settings)) as journal:
            here = {number: text for number, text in at.said.items() if number not in at.gone}

            def kept() -> dict[int, str]:
                found = {number: journal.message(place, str(number)) for number in at.said}
                return {number: message.text for number, message in found.items() if message is not None}

            await eventually(lambda: kept() == here, tmp_path)
            runs = Runs(journal.engine)
            await eventually(lambda: not any(runs.get(run).active for run in at.runs), tmp_path)
            await eventually(lambda: set(at.unknown.values()) <= set(at.waiting(journal)), tmp_path)
            await eventually(lambda: set(at.replies(later=True)) >= at.promised(), tmp_path)
            waiting = at.waiting(journal)
            events = journal.events(kind=Kind.ANSWER, limit=10**6)
            answers = Counter(event.place for _, event in events if event.place.startswith("telegram:"))
            assert answers == {f"telegram:{chat}": 1 for chat, _ in at.asked}
            # Telegram takes no message twice by itself: a bot killed before it noted what was taken shows that again.
            killed = sum(MORTAL[number % len(MORTAL)] == "bot" for number in range(HOURS))
            for replies in (at.replies(), at.replies(later=True)):
                twice = [key for key, shown in replies.items() if key in at.asked and shown > 1]
                assert len(twice) <= 2 * killed, twice
                assert all(replies[key] == 2 for key in twice)
            assert {question: n for question, n in waiting.items() if n != 1} == {}
            exchanges = Counter(each.question for each in journal.exchanges())
            assert {question: exchanges[question] for question in at.taught if exchanges[question] != 1} == {}
            messages = [event for _, event in journal.events(kind=Kind.MESSAGE, limit=10**6)]
            assert set(Counter((e.platform, e.place, e.message_id) for e in messages).values()) == {1}
            assert all(journal.votes(answer) == {f"own:{page}": "good"} for page, answer in at.heard.items())
            with journal.engine.connect() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        for question, answer in at.taught.items():
            found = await at.acknowledged(lambda client, q=question: client.get("/api/recall", params={"question": q}))
            assert found.json()["notes"][0]["text"] == answer, question
        store = AdapterStore(at.settings.data_folder / "adapters")
        assert store.current() in {None, *store.versions()}
    assert not [each for each in at.ever if lives(each)]
