"""What a language model finds in an exchange or passage beside the rules: off the answer's path, and never unsourced.

The rules read everything at once; whatever they kept waits here for the model, the newest first, across restarts. A
reply is parsed strictly, and of what it says only what stands in the text counts: a name that does not occur in it, or
a quote that the creator did not write, is left out. What is left is kept beside the text's digest, and the graph reads
the source again with it. A model that fails changes nothing: the source waits, the others go first.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.database import reading
from infra.errors import ServiceTrouble, UserMistake
from infra.voice.chat import Turn
from memory.extract import is_creators, parts
from memory.journal import Journal, Writer
from memory.messages import Exchange, Passage
from memory.prompt import shorten
from memory.readings import EntityKind, Mention, Reading, Stance, Statement, name_key, units

# Asked with the turns of a prompt and the JSON schema that the reply should fit; returns the reply.
Ask = Callable[[list[Turn], dict[str, Any]], str]

# What a reply may hold, what of a text the model is shown, what it may say, and how many sources are read at a time.
MOST_THINGS, MOST_STANCES = 8, 4
TOKENS, MOST_TOKENS = 600, 512
ROUND = 4
TASK = (
    "List what the text is about, as JSON. `things`: people, places, projects, tools and concepts that it names, each "
    "as it is written there. `stances`: what the answer says that its writer prefers, recommends, uses, decided or "
    "avoids; `about` is the thing, `quote` the sentence, word for word. Leave out what is not in the text."
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thing(Strict):
    name: Annotated[str, Field(min_length=2, max_length=40)]
    kind: EntityKind


class Said(Strict):
    stance: Stance
    about: Annotated[str, Field(min_length=2, max_length=40)]
    quote: Annotated[str, Field(min_length=2, max_length=160)]


class Found(Strict):
    """A reply."""

    things: Annotated[list[Thing], Field(max_length=MOST_THINGS)]
    stances: Annotated[list[Said], Field(max_length=MOST_STANCES)]


@dataclass(frozen=True)
class Pending:
    """A source that the model has yet to read, and the reading it would add to."""

    source: str
    seq: int
    digest: str


class ModelReader:
    """Follows the rules' readings with a model, which `name` tells from others: another one reads everything again."""

    def __init__(self, journal: Journal, ask: Ask, *, name: str) -> None:
        self._journal, self._ask, self._name = journal, ask, name
        self._failed: set[str] = set()

    def read_some(self) -> int:
        """Read the next few of what waits; returns how many the model read.

        Raises ServiceTrouble when the model cannot be asked; what it read until then is kept.
        """
        waiting = {each.source: each for each in self._pending()}
        values: list[Exchange | Passage] = [*self._journal.exchanges([*waiting]), *self._journal.passages([*waiting])]
        asked = 0
        for value in values:
            known = waiting[value.id]
            if known.digest == digest_of(value):
                self._keep(value, known.seq, None)
            else:
                self._keep(value, known.seq, self._asked(value))
                asked += 1
        return asked

    def _asked(self, value: Exchange | Passage) -> Found:
        try:
            return parsed(self._ask(prompt_of(value), Found.model_json_schema()))
        except UserMistake:
            return Found(things=[], stances=[])  # this text is too much for this model
        except ServiceTrouble:
            self._failed.add(value.id)
            raise

    def _pending(self) -> list[Pending]:
        """The newest readings that this model has not seen; those that failed when nothing else is left."""
        statement = sa.text(
            "SELECT r.source, r.seq, CASE WHEN f.model = :model THEN f.digest ELSE '' END AS digest "
            "FROM graph_readings r LEFT JOIN graph_found f ON f.source = r.source "
            "WHERE r.payload <> '' AND (f.source IS NULL OR f.model <> :model OR f.seq < r.seq) "
            "ORDER BY r.seq DESC LIMIT :limit"
        )
        with reading(self._journal.engine) as connection:
            rows = connection.execute(statement, {"model": self._name, "limit": ROUND + len(self._failed)}).all()
        found = [Pending(*row) for row in rows if row.source not in self._failed]
        if not found:
            self._failed.clear()
        return found[:ROUND]

    def _keep(self, value: Exchange | Passage, seq: int, found: Found | None) -> None:
        """Keep what was found, and have the graph read the source with it; None when its text is as it was."""
        with self._journal.writing() as writer:
            if found is None:
                writer.run("UPDATE graph_found SET seq = :seq WHERE source = :source", seq=seq, source=value.id)
                return
            writer.run(
                "INSERT INTO graph_found (source, seq, model, digest, payload) "
                "VALUES (:source, :seq, :model, :digest, :payload) ON CONFLICT (source) DO UPDATE SET "
                "seq = excluded.seq, model = excluded.model, digest = excluded.digest, payload = excluded.payload",
                source=value.id,
                seq=seq,
                model=self._name,
                digest=digest_of(value),
                payload=sourced(found, value).model_dump_json(),
            )
            writer.run("INSERT INTO graph_outbox (id) VALUES (:id)", id=value.id)


def prompt_of(value: Exchange | Passage) -> list[Turn]:
    """What the model is shown."""
    asked, heading, said = parts(value)
    shown = [f"Question: {asked}"] if asked else []
    shown += [f"Heading: {heading}"] if heading else []
    return [Turn("system", TASK), Turn("user", "\n".join([*shown, f"Answer: {shorten(said, TOKENS)}"]))]


def parsed(reply: str) -> Found:
    """A reply as it was asked for; one that is anything else found nothing."""
    try:
        return Found.model_validate_json(reply)
    except ValidationError:
        return Found(things=[], stances=[])


def sourced(found: Found, value: Exchange | Passage) -> Found:
    """Only what stands in the text: names that occur in it, and stances in the creator's own words."""
    asked, heading, said = parts(value)
    things = [thing for thing in found.things if occurs(thing.name, f"{asked}\n{heading}\n{said}")]
    stances = [
        each
        for each in found.stances
        if is_creators(value) and quoted(each.quote, said) and occurs(each.about, each.quote)
    ]
    return Found(things=things, stances=stances)


def occurs(name: str, text: str) -> bool:
    """Whether a text holds all words of a name, side by side."""
    return bool(key := name_key(name)) and f" {key} " in f" {' '.join(units(text))} "


def quoted(quote: str, said: str) -> bool:
    """Whether something was said word for word, whatever the spaces."""
    return " ".join(quote.split()) in " ".join(said.split())


def digest_of(value: Exchange | Passage) -> str:
    """Changes whenever the text of a source does."""
    return hashlib.sha256("\x1f".join(parts(value)).encode()).hexdigest()[:16]


def found_in(writer: Writer, values: Iterable[Exchange | Passage], sources: Iterable[str]) -> dict[str, Found]:
    """What a model found in these values. What it found in a text that is gone or another now goes."""
    digests, kept = {value.id: digest_of(value) for value in values}, dict[str, Found]()
    for source in sources:
        for row in writer.run("SELECT digest, payload FROM graph_found WHERE source = :source", source=source):
            if row["digest"] == digests.get(source):
                kept[source] = Found.model_validate_json(row["payload"])
            else:
                writer.run("DELETE FROM graph_found WHERE source = :source", source=source)
    return kept


def merged(by_rules: Reading, found: Found) -> Reading:
    """A reading with what the model found beside it: of what the rules know, they know better."""
    named = {name_key(mention.name) for mention in by_rules.mentions}
    stated = {name_key(statement.about) for statement in by_rules.statements}
    things = {name_key(thing.name): Mention(thing.name, thing.kind) for thing in found.things}
    things |= {key: Mention(each.about) for each in found.stances if (key := name_key(each.about)) not in things}
    stances = [Statement(each.stance, each.about, each.quote) for each in found.stances]
    return replace(
        by_rules,
        mentions=(*by_rules.mentions, *(mention for key, mention in things.items() if key not in named)),
        statements=(*by_rules.statements, *(each for each in stances if name_key(each.about) not in stated)),
    )
