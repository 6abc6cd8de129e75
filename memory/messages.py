"""The frozen values of memory: who said what, where, when and on what terms.

Nothing here does I/O, knows a platform's library or a storage's ids. Ids are text and are derived from what they
name, so that the same message, exchange or passage has the same id on every machine and in every run.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

# uuid5 namespace of everything Understudy names; changing it would orphan every index.
NAMESPACE = uuid.UUID("6f1f5d1e-0d3b-5d52-9a57-0a5d6c3e7b11")

Role = Literal["creator", "teacher", "member", "twin", "bot"]
Visibility = Literal["public", "members", "private"]
# Whose word something is: the creator's own answer, a document of theirs, or what a teacher said for them.
Authority = Literal["creator", "document", "teacher"]


class Source(StrEnum):
    """Where an event came from; `memory/provenance.py` says what each may be used for."""

    CREATOR_SURFACE = "creator-surface"
    CREATOR_DOCUMENT = "creator-document"
    CREATOR_QA = "creator-qa"
    CREATOR_ARCHIVE = "creator-archive"
    CHAT_EXPORT = "chat-export"
    DISCORD_API = "discord-api"
    TELEGRAM_DIRECT = "telegram-direct"
    OWN_DIRECT = "own-direct"  # what a member typed into our own page or terminal, on the same terms as TELEGRAM_DIRECT
    TELEGRAM_GROUP = "telegram-group"
    TWIN = "twin"


class Kind(StrEnum):
    """What happened."""

    MESSAGE = "message"
    EDIT = "edit"
    DELETION = "deletion"
    REACTION = "reaction"
    VOTE = "vote"
    CONSENT = "consent"
    IMPORT = "import"
    EXCHANGE = "exchange"
    PASSAGE = "passage"
    QUESTION = "question"
    ANSWER = "answer"
    DISMISSAL = "dismissal"
    DRAFT = "draft"
    PREFERENCE = "preference"
    CHOICE = "choice"
    LISTENING = "listening"
    CARD = "card"
    NOTICE = "notice"
    REPORT = "report"
    PROFILE = "profile"
    TRIAL = "trial"
    CLEARANCE = "clearance"


@dataclass(frozen=True)
class Person:
    """Somebody on a platform, known by id; the name is only for showing."""

    platform: str
    id: str
    name: str = ""
    role: Role = "member"

    @cached_property
    def key(self) -> str:
        return f"{self.platform}:{self.id}"


@dataclass(frozen=True)
class Place:
    """A channel, group, topic, thread or terminal. `thread` is empty where the platform has none."""

    platform: str
    id: str
    thread: str = ""
    name: str = ""
    community: str = "main"
    visibility: Visibility = "public"

    @cached_property
    def key(self) -> str:
        return f"{self.platform}:{self.id}:{self.thread}" if self.thread else f"{self.platform}:{self.id}"


@dataclass(frozen=True)
class Message:
    """One message. `mentions` are person keys; `reply_to` is a message id in the same place; times are aware."""

    id: str
    person: Person
    place: Place
    at: datetime
    text: str
    reply_to: str | None = None
    mentions: tuple[str, ...] = ()
    revision: int = 0
    url: str = ""


@dataclass(frozen=True)
class Exchange:
    """A question and the creator's answer to it. `asker` is None when nobody in particular asked.

    `source` is where the answer came from and `question_source` where the question did; training needs both to be
    eligible. `question_place` is the key of the place where it was asked, if that is not `place`. `question_ids` and
    `answer_ids` are message ids when it was paired from a conversation. `pairing` says which rule paired it ("given"
    when it came as a pair).
    """

    id: str
    question: str
    answer: str
    author: Person
    place: Place
    at: datetime
    source: Source
    question_source: Source
    asker: Person | None = None
    question_ids: tuple[str, ...] = ()
    answer_ids: tuple[str, ...] = ()
    pairing: Literal["given", "reply", "thread", "mention", "near"] = "given"
    title: str = ""
    url: str = ""
    question_place: str = ""


@dataclass(frozen=True)
class Passage:
    """Piece number `position` of a creator's document, with the headings it stands under, outermost first.

    `title` is what the document calls itself, if it does; `mark` is the page or the time at which the piece begins.
    """

    id: str
    document: str
    position: int
    heading: str
    text: str
    author: Person
    place: Place
    at: datetime
    source: Source
    url: str = ""
    title: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Event:
    """One line of the journal. The first five fields identify it: the same five never count twice.

    `payload` is JSON: what `memory/codec.py` makes of the value that the kind carries.
    """

    platform: str
    place: str
    message_id: str
    kind: Kind
    revision: int
    author: Person
    source: Source
    at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Why:
    """Why a note was chosen.

    `words` of the question are in it, `coverage` of what it is about; `cosine` is what the embedder thinks, 0 when it
    did not bring the note up. Of a
    question with several `answers` this is the one that stands; `replaced` is when something else was said last, and
    `askers` how many people have asked. `names` is who spoke, where the question names them. What the graph led to is
    `linked`.
    """

    words: tuple[str, ...] = ()
    coverage: float = 0.0
    cosine: float = 0.0
    authority: Authority = "creator"
    answers: int = 1
    askers: int = 0
    replaced: datetime | None = None
    names: str = ""
    linked: bool = False


@dataclass(frozen=True)
class Note:
    """What recall hands to the model: an exchange or passage, where it is from and how well it fits (0 to 1)."""

    id: str
    kind: Literal["exchange", "passage"]
    text: str
    score: float
    source: str
    at: datetime
    question: str = ""
    url: str = ""
    why: Why = field(default_factory=Why)


@dataclass(frozen=True)
class Answer:
    """What the twin said and how it came about; the journal keeps all of it.

    `outcome`: "answered", "abstained" (went to the inbox), "declined" (policy said no) or "failed".
    `timings_ms` has journal, recall and its parts, queue, first_token and total.
    """

    id: str
    question_id: str
    text: str
    outcome: Literal["answered", "abstained", "declined", "failed"]
    reason: str
    notes: tuple[Note, ...]
    voice: str
    prompt_sha256: str
    timings_ms: Mapping[str, float]


def pair_id(question: str, answer: str, at: datetime | None) -> str:
    """The id of a pair that came in a file, named by its words: so that the same pair in two files is one exchange, and
    an import may be repeated. `at` is None for one without a date.
    """
    return name_uuid("qa", question, answer, at.isoformat() if at else "")


def name_uuid(*parts: str) -> str:
    """The id of whatever `parts` name, the same everywhere and always."""
    # Lone surrogates cannot be encoded and cannot be stored either; a replacement keeps the name stable.
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(parts).encode("utf-8", "replace").decode()))
