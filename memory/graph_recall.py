"""The graph's part in recall: questions that no single exchange answers. Elsewhere it stays out of the prompt.

Three kinds of question want it: how two things are connected, how something changed, and what there is to say of
something altogether. What it adds are exchanges and passages like any other note, found over edges instead of words.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol

from infra.traces import parts
from memory.graph import Graph
from memory.graph_store import GraphStore
from memory.journal import Journal
from memory.messages import Exchange, Note, Passage, Why
from memory.prompt import MOST_TOKENS, fitted
from memory.ranking import timings
from memory.readings import names_in
from memory.recall import EVERYBODY, Recollection, authority_of, note_of, sees
from memory.vectors import Scope

Kind = Literal["connection", "change", "overview"]

# How many notes the graph adds, and how sure it is of them: a path of sources is there, or there is none.
ADDED, SURE = 3, 0.6
# Of what stands of a thing, so many of the newest are weighed against each other.
WEIGHED = 300
# With so many notes of L0 an overview needs no others: they were measured to find nothing more.
ENOUGH = 2

# What a question of each kind says. The words are taken out before names are looked for: "time" is no thing in
# "over time".
CONNECTION = (
    r"\b(?:connect(?:ed|ion)s?|relat(?:ed|ion|ionship)s?|links?|linked|in common|to do with|belong together)\b",
    "(?:什么|啥)(?:关系|联系|关联)|有关系吗|有什么共同|怎么联系",
)
CHANGE = (
    r"\bover (?:the )?(?:time|years)\b|\b(?:change|changed|changes|evolved?|used to|so far|history|at first)\b",
    r"\b(?:before and (?:now|after)|different from before|still the same)\b",
    "以前|从前|变化|变了|改变|一直都|这些年|历来|过去",
)
OVERVIEW = (
    r"\bwhat (?:do(?:es)?|did) (?:you|he|she|they|[A-Z]\w+) (?:\w+ )?(?:think|say|know|feel|believe)\b",
    r"\b(?:your (?:opinions?|views?|take|thoughts)|tell me (?:everything |more |all )?about|everything about)\b",
    r"\b(?:overview|summar(?:y|ise|ize)|all about|in general|who is|who was)\b",
    "怎么看|看法|观点|介绍一?下|总结|有哪些|概括|都说过",
)
CUES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("connection", re.compile("|".join(CONNECTION), re.I)),
    ("change", re.compile("|".join(CHANGE), re.I)),
    ("overview", re.compile("|".join(OVERVIEW), re.I)),
)


@dataclass(frozen=True)
class Wanted:
    """What kind of question it is, and the ids of what it names."""

    kind: Kind
    about: tuple[str, ...]


class Excluding(Protocol):
    """L0, which can be asked to leave something out."""

    def recall(
        self,
        question: str,
        *,
        scope: Scope = EVERYBODY,
        limit: int = 2,
        budget_tokens: int = MOST_TOKENS,
        excluded: frozenset[str] = frozenset(),
    ) -> Recollection: ...


class GraphRecall:
    """Recall of L0 with what edges lead to beside it. Safe to call from several threads."""

    def __init__(self, recall: Excluding, journal: Journal, store: GraphStore) -> None:
        self._recall, self._journal, self._store = recall, journal, store

    def recall(
        self,
        question: str,
        *,
        scope: Scope = EVERYBODY,
        limit: int = 2,
        budget_tokens: int = MOST_TOKENS,
        excluded: frozenset[str] = frozenset(),
    ) -> Recollection:
        """The notes of L0 as they are, with up to three more for a question that wants the graph."""
        found = self._recall.recall(question, scope=scope, limit=limit, budget_tokens=budget_tokens, excluded=excluded)
        began = time.perf_counter()
        added = self._added(question, found.notes, scope, excluded)
        took = timings({"graph": time.perf_counter() - began})
        parts(took)
        sure = max(found.confidence, SURE) if added else found.confidence
        return Recollection(fitted(beside(added, found.notes), budget_tokens), sure, {**found.timings_ms, **took})

    def _added(self, question: str, notes: Sequence[Note], scope: Scope, excluded: frozenset[str]) -> list[Note]:
        if not any(cue.search(question) for _, cue in CUES):
            return []
        self._store.catch_up()  # another process may be the one that reads what is new
        with self._store.reading() as graph:
            asked = wanted(question, graph)
            if asked is None:
                return []
            found = dict.fromkeys(evidence(graph, asked, [note.id for note in notes]))
        sources = [source for source in found if source not in excluded][:ADDED]
        added = self._notes(sources, scope)
        return sorted(map(dated, added), key=lambda note: note.at) if asked.kind == "change" else added

    def _notes(self, sources: Sequence[str], scope: Scope) -> list[Note]:
        """What may be shown of the sources, in their order."""
        values: list[Exchange | Passage] = [*self._journal.exchanges(sources), *self._journal.passages(sources)]
        seen = [
            replace(note_of(each, Why(authority=authority_of(each), linked=True)), score=SURE)
            for each in values
            if sees(scope, each.place)
        ]
        return sorted(seen, key=lambda note: sources.index(note.id))


def wanted(question: str, graph: Graph) -> Wanted | None:
    """What a question wants of the graph; None for all that L0 answers alone."""
    for kind, cue in CUES:
        if cue.search(question):
            names = names_in(cue.sub(" , ", question), graph)
            about = tuple(dict.fromkeys(graph.id_of(name) for name in names))
            if len(about) >= (2 if kind == "connection" else 1):
                return Wanted(kind, about)
    return None


def evidence(graph: Graph, asked: Wanted, known: Sequence[str]) -> Iterator[str]:
    """The sources that speak for an answer, the best first."""
    if asked.kind == "connection":
        yield from connecting(graph, asked.about)
    elif asked.kind == "change":
        yield from changing(graph, asked.about, known)
    else:
        yield from summing_up(graph, asked.about, known)


def connecting(graph: Graph, about: Sequence[str]) -> Iterator[str]:
    """Of each edge on the way from the first thing to the second, the newest source that still stands."""
    rare = sorted(about, key=graph.reach)
    for edge in graph.path(rare[0], rare[1]):
        standing = (source for source in reversed(edge.sources) if graph.replaced(source) is None)
        yield next(standing, edge.sources[-1])


def changing(graph: Graph, about: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Every answer to the question at hand, and what was thought of the thing at each time."""
    for source in known:
        if source in graph.readings and len(versions := graph.versions(source)) > 1:
            yield from versions[-ADDED:]
            return
    stances = [edge for identity in about for edge in graph.stances(identity) if edge.kind != "describes"]
    for edge in stances[-ADDED:]:
        yield edge.sources[-1]


def summing_up(graph: Graph, about: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """What the creator thinks of the thing; where L0 has little, also the standing sources that say most of it."""
    rarest = min(about, key=graph.reach)
    stances = [edge for edge in graph.stances(rarest) if edge.valid_to is None]
    yield from (edge.sources[-1] for edge in stances[:ADDED])
    if len(known) >= ENOUGH:
        return
    close = graph.closeness(rarest)
    standing = islice(graph.standing(rarest), WEIGHED)
    yield from sorted(standing, key=lambda source: -sum(close.get(other, 0.0) for other in graph.mentioned(source)))


def beside(added: Sequence[Note], notes: Sequence[Note]) -> tuple[Note, ...]:
    """The graph's notes, then those of L0 that are not among them."""
    known = {note.id for note in added}
    return (*added, *(note for note in notes if note.id not in known))


def dated(note: Note) -> Note:
    """A note that begins with its month, where the order in time is what was asked for."""
    return replace(note, text=f"{note.at:%Y-%m}: {note.text}")
