"""Preference: what the creator made of the twin's own words becomes pairs and labels for a second training.

From the journal alone: a draft beside what the creator wrote instead (a pair), a draft or an answer that they approved
or rejected (a label). Every text carries the voice that said it, and is held to what rows are held to: both halves must
be eligible, and so must everything that the twin's text was made from. The twin's words are liked only where the
creator liked them; members can only call an answer bad, only together, and only where an operator lets them.
Trains nothing (`prefer.py`) and builds no rows for supervised tuning (`dataset.py`): those of the voice that is trained
on are taken over, so that what judges it was learned by neither.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.adapters import AdapterStore
from infra.errors import Refused
from infra.files import finish_folder, finished, write_atomic
from infra.settings import Settings
from infra.voice.chat import Turn
from memory.codec import exchange_from
from memory.journal import Journal
from memory.messages import Event, Exchange, Kind, Note, Person, Place, Source, Why
from memory.persona import PersonaCard
from memory.prompt import estimate_tokens, render, shorten
from memory.provenance import Permissions, half
from trainer import dataset
from trainer.harvest import reason_against
from trainer.scrub import scrub

STAGE = "preference"
FILE = "opinions.jsonl"
Method = Literal["dpo", "kto"]

# Of the members' labels one person gives this many at most, and one is nobody's opinion but theirs: it takes two.
VOTER_LABELS = 5
VOTERS = 2
# The share of opinions, the newest, that is kept to see whether anything was learned.
HELD_OUT = 0.15
# Ethayarajh et al. 2024 (KTO, arXiv 2402.01306) find nothing lost down to one liked text for ten others.
RATIO = 10
NOTES_TOKENS = 160


@dataclass(frozen=True)
class Opinion:
    """A text of the twin's and what was made of it.

    `exchange` has the question, and the creator's answer where they wrote one. `instead` says that they wrote it in the
    text's place: a pair. Else `liked` is the label. `notes` are what the text was made from, `ids` what it is known by
    when something is forgotten.
    """

    exchange: Exchange
    text: str
    voice: str
    liked: bool
    notes: tuple[Note, ...]
    ids: tuple[str, ...]
    instead: bool = False


@dataclass(frozen=True)
class Opinions:
    """What may be learned, oldest first, and how many were left out for which reason."""

    kept: list[Opinion]
    excluded: dict[str, int]

    @property
    def pairs(self) -> int:
        return sum(each.instead for each in self.kept)

    def summary(self) -> dict[str, Any]:
        """What `dataset build --dry-run --stage preference` shows."""
        good, bad = labels_of(self.kept)
        voices = Counter(each.voice for each in self.kept)
        counted = {"pairs": self.pairs, "good": good, "bad": bad, "voices": dict(sorted(voices.items()))}
        return {**counted, "excluded": dict(sorted(self.excluded.items()))}


@dataclass(frozen=True)
class Row:
    """One row of preference: a prompt with a chosen and a rejected text, one of which a label lacks."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    use: Literal["train", "judge"]
    voice: str
    ids: tuple[str, ...]


@dataclass
class Gathering:
    """One walk over the journal. `rows` are the exchanges that may train as rows of supervised tuning."""

    journal: Journal
    rows: Mapping[str, Exchange]
    creator: frozenset[str]
    permissions: Permissions
    tainted: Callable[[str], bool]
    members_votes: bool
    excluded: Counter[str] = field(default_factory=Counter)

    def opinions(self) -> list[Opinion]:
        """Everything that may be learned, one opinion on each text."""
        found = [*self.about_drafts(), *self.about_answers()]
        kept: dict[tuple[str, str], Opinion] = {}
        for each in found:
            if (key := (dataset.folded(each.exchange.question), dataset.folded(each.text))) in kept:
                self.excluded["opinion: the same text was judged before"] += 1
            else:
                kept[key] = each
        return sorted(kept.values(), key=lambda each: (each.exchange.at, each.exchange.id))

    def about_drafts(self) -> Iterator[Opinion]:
        """Drafts that the creator edited or used as they were."""
        drafts: defaultdict[str, list[Event]] = defaultdict(list)
        for event in every(self.journal, Kind.DRAFT):
            drafts[event.place].append(event)
        answered = {
            str(event.payload["answers"]): exchange_from(event.payload["exchange"])
            for event in every(self.journal, Kind.EXCHANGE)
            if event.payload["answers"]
        }
        for event in every(self.journal, Kind.PREFERENCE):
            draft = said_so(drafts[event.message_id], str(event.payload["draft"]))
            yield from self.edited(event, draft, answered.get(event.message_id))
        for question_id, exchange in answered.items():
            if draft := said_so(drafts[question_id], exchange.answer):
                yield from self.kept("draft", exchange, draft, liked=True)

    def edited(self, event: Event, draft: Event | None, exchange: Exchange | None) -> Iterator[Opinion]:
        """The pair of a draft and what the creator wrote instead."""
        if event.author.key not in self.creator:
            self.excluded["edit: not the creator's"] += 1
        elif exchange is None or exchange.answer != str(event.payload["edited"]).strip():
            self.excluded["edit: its answer is not in memory any more"] += 1
        elif draft is None:
            self.excluded["edit: the draft is not known any more"] += 1
        else:
            yield from self.kept("edit", exchange, draft, liked=False)

    def kept(self, what: str, exchange: Exchange, draft: Event, *, liked: bool) -> Iterator[Opinion]:
        """An opinion about a draft, if it may be learned."""
        noted = draft.payload.get("notes")
        notes = None if noted is None else self.notes(noted)
        voice = str(draft.payload["voice"])
        if exchange.id not in self.rows:
            why = self.against(exchange) or "its exchange is not among the rows"
            self.excluded[f"{what}: {why}"] += 1
        elif why := self.unsure(voice, notes):
            self.excluded[f"{what}: {why}"] += 1
        elif dataset.folded(exchange.answer) == dataset.folded(draft.payload["text"]) and not liked:
            self.excluded[f"{what}: only signs were changed"] += 1
        else:
            ids = (exchange.id, *(note.id for note in notes or ()))
            text = str(draft.payload["text"])
            yield Opinion(exchange, text, voice, liked, tuple(notes or ()), ids, instead=not liked)

    def about_answers(self) -> Iterator[Opinion]:
        """Answers that were voted on."""
        last: defaultdict[str, dict[str, Event]] = defaultdict(dict)
        for event in sorted(every(self.journal, Kind.VOTE), key=lambda event: event.at):
            last[event.place][event.author.key] = event
        given: Counter[str] = Counter()
        for answer_id, votes in last.items():
            yield from self.judged(answer_id, votes, given)

    def judged(self, answer_id: str, votes: Mapping[str, Event], given: Counter[str]) -> Iterator[Opinion]:
        """The opinion on one answer: the creator's, else that of members together."""
        own = [event for key, event in votes.items() if key in self.creator]
        asked, answer = self.journal.asked(answer_id), self.journal.answer(answer_id)
        if asked is None or answer is None:
            self.excluded["vote: its question is not known any more"] += 1
            return
        message, source = asked
        if answer.outcome != "answered":
            self.excluded["vote: on what was no answer of a voice's"] += 1
            return
        if own:
            liked = max(own, key=lambda event: event.at).payload["value"] == "good"
        elif why := self.against_members(votes, message.place, given):
            self.excluded[f"vote: {why}"] += len(votes)
            return
        else:
            liked = False
        # Whoever judges vouches for the text, which is the twin's; the question stays its asker's, on their terms.
        judge = Person("own", "creator", role="creator")
        exchange = Exchange(
            id=answer_id,
            question=message.text,
            answer=answer.text,
            author=judge,
            place=Place("own", "creator"),
            at=message.at,
            source=Source.CREATOR_SURFACE,
            question_source=source,
            asker=message.person,
            question_place=message.place.key,
        )
        notes = self.notes([note.id for note in answer.notes])
        if why := self.against(exchange) or self.unsure(answer.voice, notes):
            self.excluded[f"vote: {why}"] += 1
            return
        given.update(key for key in votes if not own)
        ids = (answer_id, *(note.id for note in notes or ()))
        yield Opinion(exchange, answer.text, answer.voice, liked, tuple(notes or ()), ids)

    def against_members(self, votes: Mapping[str, Event], place: Place, given: Counter[str]) -> str:
        """Why members' votes on one answer teach nothing; empty when they do."""
        bad = [key for key, event in votes.items() if event.payload["value"] == "bad"]
        if len(bad) < len(votes):
            return "a member's, and only the creator can approve"
        if not self.members_votes:
            return "a member's, and training.members_votes is off"
        agreed = [key for key in bad if self.journal.consent(key, place.key)]
        if len(agreed) < len(bad):
            return "no consent of who voted"
        if len([key for key in agreed if given[key] < VOTER_LABELS]) < VOTERS:
            return f"fewer than {VOTERS} members who have not had their {VOTER_LABELS} labels"
        return ""

    def against(self, exchange: Exchange) -> str:
        """Why a question with its answer may not train."""
        return reason_against(exchange, consent=self.journal.consent, permissions=self.permissions)

    def unsure(self, voice: str, notes: Sequence[Note] | None) -> str:
        """Why a text of the twin's must not be learned from."""
        if not voice:
            return "no voice is known for it"
        if self.tainted(voice):
            return "its voice learned what was forgotten"
        if notes is None:
            return "made from what may not train, or is not known any more"
        return ""

    def notes(self, ids: Sequence[str]) -> list[Note] | None:
        """The notes that a text was made from; None when one is gone or may not train."""
        found = {each.id: note_of(each) for each in self.journal.exchanges(ids) if not self.against(each)}
        for passage in self.journal.passages(ids):
            terms = {"consent": self.journal.consent, "permissions": self.permissions}
            if not half(passage.source, passage.author.key, passage.place.key, **terms):  # type: ignore[arg-type]
                found[passage.id] = Note(passage.id, "passage", passage.text, 1.0, "", passage.at)
        return [found[each] for each in ids] if found.keys() >= set(ids) else None


def note_of(exchange: Exchange) -> Note:
    return Note(exchange.id, "exchange", exchange.answer, 1.0, "", exchange.at, question=exchange.question)


def said_so(drafts: Sequence[Event], text: str) -> Event | None:
    """The draft with these words."""
    return next((draft for draft in drafts if str(draft.payload["text"]).strip() == text.strip()), None)


def every(journal: Journal, kind: Kind) -> Iterator[Event]:
    """All events of a kind, in order."""
    last = 0
    while found := journal.events(kind=kind, after=last):
        yield from (event for _, event in found)
        last = found[-1][0]


def gather(journal: Journal, exchanges: Iterable[Exchange], *, settings: Settings, store: AdapterStore) -> Opinions:
    """Every opinion of the journal that may be learned; `exchanges` are those that may train as rows."""
    recorded = settings.permissions.discord_training
    walk = Gathering(
        journal=journal,
        rows={each.id: each for each in exchanges},
        creator=settings.creator_keys,
        permissions=Permissions(recorded.reference, str(recorded.date)) if recorded else Permissions(),
        tainted=lambda voice: store.tainted(voice) is not None,
        members_votes=settings.training.members_votes,
    )
    kept = []
    for each in walk.opinions():
        try:
            kept.append(cleaned(each, settings.models.max_length))
        except Refused:
            walk.excluded["scrub: a secret that could not be masked with certainty, or too long"] += 1
    return Opinions(kept, {reason: count for reason, count in walk.excluded.items() if count})


def cleaned(opinion: Opinion, max_tokens: int) -> Opinion:
    """An opinion with its secrets masked. Raises Refused for one that cannot be, or is too long for a row."""
    question, answer = scrub(opinion.exchange.question).text, scrub(opinion.exchange.answer).text
    text = scrub(opinion.text).text
    if max(map(estimate_tokens, (answer, text))) > dataset.ANSWER_SHARE * max_tokens:
        raise Refused("It is too long for a row.")
    notes = tuple(replace(note, text=scrub(note.text).text, why=Why()) for note in opinion.notes)
    return replace(
        opinion, exchange=replace(opinion.exchange, question=question, answer=answer), text=text, notes=notes
    )


def labels_of(opinions: Iterable[Opinion]) -> tuple[int, int]:
    """How many texts are liked and disliked: a pair is one of either."""
    counts = Counter(liked for each in opinions for liked in ((True, False) if each.instead else (each.liked,)))
    return counts[True], counts[False]


def method_for(opinions: Sequence[Opinion], *, least_pairs: int, least_labels: int) -> Method:
    """DPO where there are enough pairs, else KTO where there are enough labels of both kinds.

    Raises Refused, saying how many are missing.
    """
    pairs, (good, bad) = sum(each.instead for each in opinions), labels_of(opinions)
    if pairs >= least_pairs:
        return "dpo"
    if good + bad >= least_labels and RATIO * min(good, bad) >= max(good, bad):
        return "kto"
    few = f"{pairs} edited drafts may train, DPO needs {least_pairs}: {least_pairs - pairs} more."
    if good + bad < least_labels:
        other = f"{good + bad} texts were judged, KTO needs {least_labels}: {least_labels - good - bad} more."
    else:
        short = -(-max(good, bad) // RATIO) - min(good, bad)
        kind = "good" if good < bad else "bad"
        other = f"{good} texts were called good and {bad} bad, KTO needs one of each for {RATIO}: {short} more {kind}."
    raise Refused(
        f"Too little to learn a preference from. {few} {other} "
        "`understudy dataset build --dry-run --stage preference` says what was left out and why."
    )


@dataclass(frozen=True)
class Parent:
    """The voice that a preference is learned on: its version, its PEFT folder, and the dataset it learned from."""

    version: str
    peft: Path
    dataset: dataset.Dataset
    manifest: Mapping[str, Any]


def parent_of(store: AdapterStore, runs: Path, *, base_sha256: str) -> Parent:
    """The current voice. Raises Refused where there is none that can be trained further."""
    version = store.current()
    if version is None:
        raise Refused(
            "A preference is learned on a tuned voice, and the bare base speaks. Say understudy retrain first."
        )
    if (taint := store.tainted(version)) is not None:
        raise Refused(f"The current voice is tainted: {taint}. Say understudy retrain first.")
    manifest = store.manifest(version)
    folders = (each for each in runs.glob("*/dataset") if (finished(each) or {}).get("id") == manifest.get("dataset"))
    folder, peft = next(folders, None), store.folder(version) / "peft"
    if folder is None or not peft.is_dir() or manifest.get("base_sha256") != base_sha256:
        raise Refused(
            f"The current voice {version!r} cannot be trained further: its dataset or its weights are gone, or the "
            "base is another one now. Say understudy retrain first."
        )
    return Parent(version, peft, dataset.load(folder), manifest)


def build(
    folder: Path, opinions: Opinions, *, parent: Parent, rows: Iterable[str], persona: PersonaCard, settings: Settings
) -> dataset.Dataset:
    """Write the parent's rows, as far as they may still train, and the opinions beside them; manifest last.

    `rows` are the ids of the exchanges that may train now. Opinions on what judges the parent are left out, and so are
    those on nearly the same questions. Raises Refused when too little is left.
    """
    allowed, kept, dropped = set(rows), list[Opinion](), 0
    heldout = [each for each in parent.dataset.heldout() if each.exchange.id in allowed]
    aside = {each.exchange.id for each in heldout}
    apart = {each.id for each in dataset.apart_from([o.exchange for o in opinions.kept], [h.exchange for h in heldout])}
    for each in opinions.kept:
        fine = each.exchange.id in apart and aside.isdisjoint(each.ids)
        kept, dropped = ([*kept, each], dropped) if fine else (kept, dropped + 1)
    training = settings.training
    method = method_for(kept, least_pairs=training.least_pairs, least_labels=training.least_labels)
    if method == "dpo":
        kept = [each for each in kept if each.instead]
    excluded = {**opinions.excluded, "question: nearly the same as one that is held out": dropped}
    own = rendered(kept, persona=persona, max_tokens=settings.models.max_length)
    parts = {FILE: dataset.as_lines(asdict(row) for row in own), **taken_over(parent.dataset, heldout, allowed)}
    for name, text in parts.items():
        write_atomic(folder / name, text)
    learned = {*parent.manifest.get("examples", ()), *(identity for row in own for identity in row.ids)}
    counts = Counter(row.use for row in own)
    finish_folder(
        folder,
        {
            "kind": "dataset",
            "id": hashlib.sha256("\x1f".join(parts.values()).encode()).hexdigest()[:16],
            "stage": STAGE,
            "method": method,
            "parent": parent.version,
            "rows": len(own),
            "train": counts["train"],
            "validation": counts["judge"],
            "heldout": len(heldout),
            "voices": dict(Counter(row.voice for row in own)),
            "excluded": {reason: count for reason, count in excluded.items() if count},
            "learned": sorted(learned),
            "questions": list(parent.manifest.get("questions", ())),
            "forgotten": parent.manifest.get("forgotten", 0),
            "persona": persona.version,
            "seed": training.seed,
        },
    )
    return dataset.load(folder)


def taken_over(built: dataset.Dataset, heldout: Sequence[dataset.HeldOut], allowed: set[str]) -> dict[str, str]:
    """The files of a dataset, without imitations and the rows that may not train any more."""

    def lines(split: Literal["train", "validation"]) -> str:
        own = (row for row in built.rows(split) if not dataset.is_synthetic(row.provenance))
        kept = (row for row in own if row.provenance["exchange"] in allowed)
        return dataset.as_lines(dataset.row_to(row) for row in kept)

    judged = {each.exchange.id for each in heldout}
    found = dataset.lines_of(built.folder / "heldout.jsonl")
    return {
        "train.jsonl": lines("train"),
        "validation.jsonl": lines("validation"),
        "heldout.jsonl": dataset.as_lines(each for each in found if each["exchange"]["id"] in judged),
    }


def rendered(opinions: Sequence[Opinion], *, persona: PersonaCard, max_tokens: int) -> list[Row]:
    """Rows as the twin was asked, with the notes it had; the newest are kept to judge."""
    first = len(opinions) - max(1, round(len(opinions) * HELD_OUT))
    rows = []
    for number, each in enumerate(opinions):
        question = shorten(each.exchange.question, int(dataset.QUESTION_SHARE * max_tokens))
        turns = render(persona, notes=each.notes, history=(), question=question, budget_tokens=NOTES_TOKENS)
        chosen = each.exchange.answer.strip() if each.instead else each.text if each.liked else ""
        rejected = "" if each.liked else each.text
        use: Literal["train", "judge"] = "train" if number < first else "judge"
        rows.append(Row(tuple(turns), chosen, rejected, use, each.voice, each.ids))
    return rows


def rows_of(folder: Path) -> list[Row]:
    """The rows that `build` wrote."""
    found = dataset.lines_of(folder / FILE)
    return [
        Row(**{**line, "prompt": tuple(Turn(**turn) for turn in line["prompt"]), "ids": tuple(line["ids"])})
        for line in found
    ]


def labels_of_rows(rows: Iterable[Row]) -> tuple[int, int]:
    """How many texts of rows are liked and disliked."""
    kinds = [(bool(row.chosen), bool(row.rejected)) for row in rows if row.use == "train"]
    return sum(good for good, _ in kinds), sum(bad for _, bad in kinds)


def counts(settings: Settings, journal: Journal, exchanges: Iterable[Exchange]) -> dict[str, Any]:
    """What may be learned, by which method, or in words what is missing; writes nothing."""
    store = AdapterStore(settings.data_folder / "adapters")
    found = gather(journal, exchanges, settings=settings, store=store)
    training = settings.training
    try:
        method: str = method_for(found.kept, least_pairs=training.least_pairs, least_labels=training.least_labels)
        missing = ""
    except Refused as refusal:
        method, missing = "", str(refusal)
    return {**found.summary(), "method": method, "missing": missing}
