"""Dataset: exchanges become training rows, frozen under the hash of their content.

The newest conversations are set aside and nothing that nearly repeats one of their questions is trained on. A third of
them decides when training stops (`use` is "stop"), the rest judges the result (`use` is "judge") and is never seen by
the trainer. Every prompt is written by `memory/prompt.py`, as answering does. Knows no tokenizer and no model: lengths
are estimates here, `lora.py` measures them.
"""

import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from infra.errors import Refused, ServiceTrouble
from infra.files import finish_folder, finished, told_as, write_atomic
from infra.voice.chat import Turn
from memory.codec import encoded, exchange_from, note_from, plain
from memory.messages import Exchange, Note, Why
from memory.persona import PersonaCard
from memory.prompt import estimate_tokens, render, shorten
from trainer.context import turns as turns_of
from trainer.coverage import counts
from trainer.harvest import Kept
from trainer.scrub import clean, scrub

Given = Literal["own", "others", "none"]
Use = Literal["train", "stop", "judge"]
Format = Literal["alpaca", "sharegpt", "messages"]

# What memory would hand the model for a question when the exchanges with these ids did not exist.
RecallFor = Callable[[str, frozenset[str]], Sequence[Note]]

# What the provenance of a teacher's imitation says of its kind; the creator's own rows have none.
SYNTHETIC = "synthetic"
# Messages of one place further apart than this are two conversations.
PAUSE = timedelta(hours=2)
# Cosine of TF-IDF weighted character 2- to 4-grams above which two questions are nearly the same; see LOG.md.
NEARLY = 0.6
# Shares of a row's estimated length: a longer answer is left out, since cutting it would teach to stop half-way.
ANSWER_SHARE = 0.5
QUESTION_SHARE = 0.25


@dataclass(frozen=True)
class Shares:
    """How many rows are given which notes; together 1. A choice: other shares were not measured.

    own: the row's own answer as a note, with another note beside it in half of the rows: teaches to use what the note
    says. others: what recall finds without it: teaches the voice. none: the bare question.
    """

    own: float = 0.5
    others: float = 0.3
    none: float = 0.2


@dataclass(frozen=True)
class Row:
    """One training row: chat turns before, the creator's answer, the kind of notes in it, and where it came from."""

    prompt: tuple[Turn, ...]
    answer: str
    given: Given
    use: Use
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """An exchange kept from training, with the notes that memory finds for it when it is not in memory itself.

    `history` are the turns before the question, where it makes no sense without them.
    """

    exchange: Exchange
    notes: tuple[Note, ...]
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Which exchanges are used for what, and how many were left out for which reason."""

    train: list[Exchange]
    stop: list[Exchange]
    judge: list[Exchange]
    excluded: dict[str, int]

    @property
    def aside(self) -> list[Exchange]:
        return [*self.stop, *self.judge]

    def summary(self, *, synthetic: int = 0) -> dict[str, Any]:
        """What `dataset build --dry-run` shows; `synthetic` of the rows to train on are a teacher's."""
        train = len(self.train) + synthetic
        kept = {"train": train, "synthetic": synthetic, "validation": len(self.aside), "heldout": len(self.judge)}
        return {"rows": train + len(self.aside), **kept, "excluded": dict(sorted(self.excluded.items()))}


@dataclass(frozen=True)
class Dataset:
    """A finished dataset folder. `id` is the hash of its rows."""

    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    def rows(self, split: Literal["train", "validation"]) -> list[Row]:
        """The rows of one split, in file order."""
        path = self.folder / f"{split}.jsonl"
        with told_as(path):
            return [row_from(line) for line in lines_of(path)]

    def heldout(self) -> list[HeldOut]:
        """What judges an adapter trained on this dataset, oldest first."""
        path = self.folder / "heldout.jsonl"
        with told_as(path):
            return [
                HeldOut(
                    exchange_from(line["exchange"]),
                    tuple(note_from(note) for note in line["notes"]),
                    tuple(Turn(**turn) for turn in line.get("history", ())),
                )
                for line in lines_of(path)
            ]


def plan(
    exchanges: Iterable[Exchange],
    *,
    validation_share: float = 0.15,
    heldout: int = 48,
    least_rows: int = 40,
    max_tokens: int = 512,
    excluded: Mapping[str, int] | None = None,
) -> Plan:
    """Scrub, drop repeats, and split by conversation and time. Deterministic; reads and writes nothing.

    `excluded` are counts of earlier stages, carried on. `heldout` bounds what judges. Raises Refused, naming the number
    needed, when fewer than `least_rows` are left to train on.
    """
    cleaned = clean(exchanges)
    dropped = Counter(excluded or {})
    dropped.update(cleaned.excluded)
    fit = [each for each in cleaned.exchanges if estimate_tokens(each.answer) <= ANSWER_SHARE * max_tokens]
    dropped["answer: too long for a row"] += len(cleaned.exchanges) - len(fit)
    single = without_repeats(fit)
    dropped["repeats another row"] += len(fit) - len(single)
    train, stop, judge = split(single, validation_share=validation_share, heldout=heldout)
    apart = apart_from(train, [*stop, *judge])
    dropped["question: nearly the same as one that is held out"] += len(train) - len(apart)
    if len(apart) < least_rows:
        raise Refused(
            f"{len(apart)} rows may train, at least {least_rows} are needed: {least_rows - len(apart)} more. "
            "Import or teach more answers; `understudy dataset build --dry-run` says what was left out and why."
        )
    return Plan(apart, stop, judge, {reason: count for reason, count in dropped.items() if count})


def build(
    exchanges: Iterable[Exchange],
    *,
    persona: PersonaCard,
    folder: Path,
    recall_for: RecallFor | None = None,
    shares: Shares = Shares(),
    seed: int,
    max_tokens: int = 512,
    notes_tokens: int = 160,
    kept: Mapping[str, Kept] = MappingProxyType({}),
    identity: Callable[[int], list[Row]] = lambda train: [],
    mixed: "Mixing | None" = None,
    **limits: Any,
) -> Dataset:
    """Write train.jsonl, validation.jsonl, heldout.jsonl and, last, manifest.json into `folder`.

    `limits` are those of `plan`. `recall_for(question, excluded_ids)` gives notes; without it no row has another's
    note. `notes_tokens` bounds the notes of one prompt. `kept` is what the harvest knows of exchanges, by id, and
    `identity` gives the rows that say who speaks, for so many others. What `mixed` gives is trained on beside the real
    rows, and judges nothing. The same input gives the same files, byte for byte.

    Raises Refused when there are too few rows, ServiceTrouble when the folder cannot be written.
    """
    planned = plan(exchanges, max_tokens=max_tokens, **limits)
    writer = RowWriter(
        persona, recall_for or (lambda question, excluded: ()), shares, seed, max_tokens, notes_tokens, kept
    )
    aside = frozenset(each.id for each in planned.aside)
    train = [writer.row(each, "train", hidden=aside) for each in planned.train]
    synthetic = mixed(planned, writer) if mixed else []
    train += synthetic
    stop = [writer.row(each, "stop", hidden=aside) for each in planned.stop]
    judge = [writer.row(each, "judge", hidden=aside) for each in planned.judge]
    heldout = [
        {
            "exchange": encoded(each),
            "notes": [note_to(note) for note in writer.notes(each, hidden=aside)],
            "history": [asdict(turn) for turn in writer.history(each, hidden=frozenset())],
        }
        for each in planned.judge
    ]
    who = identity(len(train))
    manifest = {
        **planned.summary(synthetic=len(synthetic)),
        "notes": dict(Counter(row.given for row in [*train, *stop, *judge])),
        "shares": asdict(shares),
        "sources": dict(Counter(str(each.source) for each in [*planned.train, *planned.aside])),
        "topics": counts({identity: each.topic for identity, each in kept.items()}, [*planned.train, *planned.aside]),
        "with_context": sum("context" in row.provenance for row in [*train, *stop, *judge]),
        "identity": len(who),
        "persona": persona.version,
        "seed": seed,
    }
    return freeze(folder, [*train, *who], [*stop, *judge], heldout=heldout, manifest=manifest)


def freeze(
    folder: Path,
    train: Sequence[Row],
    validation: Sequence[Row] = (),
    *,
    heldout: Sequence[Mapping[str, Any]] = (),
    manifest: Mapping[str, Any],
) -> Dataset:
    """Write rows as a finished dataset, under the hash of their content."""
    parts = {
        "train.jsonl": as_lines(row_to(row) for row in train),
        "validation.jsonl": as_lines(row_to(row) for row in validation),
        "heldout.jsonl": as_lines(heldout),
    }
    for name, text in parts.items():
        write_atomic(folder / name, text)
    named = hashlib.sha256("\x1f".join(parts.values()).encode()).hexdigest()[:16]
    finish_folder(folder, {"kind": "dataset", "id": named, **manifest})
    return load(folder)


def load(folder: Path) -> Dataset:
    """The finished dataset in `folder`. Raises ServiceTrouble when it was never finished."""
    manifest = finished(folder)
    if manifest is None or manifest.get("kind") != "dataset":
        raise ServiceTrouble(f"{str(folder)!r} holds no finished dataset; build it again.", permanent=True)
    return Dataset(folder, manifest)


@dataclass(frozen=True)
class RowWriter:
    """Renders rows. Which notes a row is given depends on the seed and its exchange only, never on the other rows."""

    persona: PersonaCard
    recall_for: RecallFor
    shares: Shares
    seed: int
    max_tokens: int
    notes_tokens: int
    kept: Mapping[str, Kept] = field(default_factory=dict)

    def row(self, exchange: Exchange, use: Use, *, hidden: frozenset[str]) -> Row:
        """The row of `exchange`; `hidden` exchanges never appear in its notes."""
        rng = random.Random(f"{self.seed}:{exchange.id}")  # noqa: S311 - which rows get notes is no secret
        given = self.draw(rng)
        notes = () if given == "none" else self.notes(exchange, hidden=hidden)
        if given == "own":
            notes = self.with_own(exchange, notes, rng)
        elif not notes:
            given = "none"
        question = shorten(exchange.question, int(QUESTION_SHARE * self.max_tokens))
        # A held-out question may be read after a held-out one, a row to train on may not.
        history = self.history(exchange, hidden=hidden if use == "train" else frozenset())
        turns = render(self.persona, notes=notes, history=history, question=question, budget_tokens=self.notes_tokens)
        return Row(
            tuple(turns), exchange.answer.strip(), given, use, self.provenance(exchange, read_after=bool(history))
        )

    def history(self, exchange: Exchange, *, hidden: frozenset[str]) -> tuple[Turn, ...]:
        """The turns before the question, where it needs them; scrubbed, and none if that cannot be done for sure."""
        before = self.kept[exchange.id].before if exchange.id in self.kept else None
        if before is None or before.id in hidden:
            return ()
        try:
            return tuple(replace(turn, content=scrub(turn.content).text) for turn in turns_of(before))
        except Refused:
            return ()

    def provenance(self, exchange: Exchange, *, read_after: bool) -> dict[str, Any]:
        """Where the row came from, and what the harvest knew of it."""
        found = provenance_of(exchange)
        if (kept := self.kept.get(exchange.id)) is not None:
            found |= {"worth": kept.worth.score, "weaknesses": sorted(kept.worth.reasons), "topic": kept.topic}
            found |= {"context": [kept.before.id]} if kept.before and read_after else {}
        return found

    def draw(self, rng: random.Random) -> Given:
        point = rng.random()
        if point < self.shares.own:
            return "own"
        return "others" if point < self.shares.own + self.shares.others else "none"

    def notes(self, exchange: Exchange, *, hidden: frozenset[str]) -> tuple[Note, ...]:
        """What recall finds for the question when neither this exchange nor a hidden one exists; scrubbed."""
        found = self.recall_for(exchange.question, hidden | {exchange.id})
        notes = []
        for note in found:
            try:
                notes.append(replace(note, text=scrub(note.text).text, why=Why()))
            except Refused:
                continue
        return tuple(notes)

    def with_own(self, exchange: Exchange, others: Sequence[Note], rng: random.Random) -> tuple[Note, ...]:
        """The exchange as its own note, first or second when another stands beside it."""
        own = Note(exchange.id, "exchange", exchange.answer, 1.0, "", exchange.at, question=exchange.question)
        if not others or rng.random() < 0.5:
            return (own,)
        pair = [own, others[0]]
        rng.shuffle(pair)
        return tuple(pair)


# Of a plan and a writer of rows: the imitations that are mixed in.
Mixing = Callable[[Plan, RowWriter], list[Row]]


def is_synthetic(provenance: Mapping[str, Any]) -> bool:
    """Whether a row is a teacher's imitation; see `imitations.py`."""
    return provenance.get("kind") == SYNTHETIC


def without_repeats(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """`exchanges` by time, each pair of question and answer once: the newest of those that say the same."""
    latest = {(folded(each.question), folded(each.answer)): each for each in sorted(exchanges, key=by_time)}
    return sorted(latest.values(), key=by_time)


def split(
    exchanges: Sequence[Exchange], *, validation_share: float, heldout: int
) -> tuple[list[Exchange], list[Exchange], list[Exchange]]:
    """(train, stop, judge): the newest whole conversations, up to `validation_share` of the rows, are set aside.

    Every third of them, counted from the newest, goes to stopping, and so does what exceeds `heldout`.
    """
    wanted = round(len(exchanges) * validation_share)
    talks = conversations(exchanges, most=max(wanted // 4, 1))
    stop: list[Exchange] = []
    judge: list[Exchange] = []
    while talks and len(stop) + len(judge) + len(talks[-1]) <= max(wanted, 1):
        talk = talks.pop()
        to_stop = len(stop) * 2 < len(judge) or len(judge) + len(talk) > heldout
        (stop if to_stop else judge).extend(talk)
    return [each for talk in talks for each in talk], sorted(stop, key=by_time), sorted(judge, key=by_time)


def conversations(exchanges: Sequence[Exchange], *, most: int) -> list[list[Exchange]]:
    """Exchanges in groups of the same place and time, the groups by their last exchange. Given pairs stand alone.

    A chat that never pauses is cut after `most` exchanges, or all of a busy place would be one conversation.
    """
    talks: list[list[Exchange]] = []
    running: dict[str, list[Exchange]] = {}
    for exchange in sorted(exchanges, key=by_time):
        talk = running.get(exchange.place.key)
        if talk and len(talk) < most and exchange.at - talk[-1].at <= PAUSE and exchange.pairing != "given":
            talk.append(exchange)
            continue
        talks.append([exchange])
        if exchange.pairing != "given":
            running[exchange.place.key] = talks[-1]
    return sorted(talks, key=lambda talk: by_time(talk[-1]))


def by_time(exchange: Exchange) -> tuple[Any, str]:
    """Time, then id: pairs imported together share a time, and their order must not depend on the file's."""
    return exchange.at, exchange.id


def apart_from(exchanges: Sequence[Exchange], aside: Sequence[Exchange]) -> list[Exchange]:
    """`exchanges` without those whose question is nearly the same as one in `aside`."""
    if not exchanges or not aside:
        return list(exchanges)
    closest = closeness([folded(each.question) for each in exchanges], [folded(each.question) for each in aside])
    return [each for each, near in zip(exchanges, closest, strict=True) if near < NEARLY]


def closeness(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """For each of `texts`, the highest cosine to any of `others`, 0 to 1; works without words, so for Chinese too."""
    vectorizer = grams()
    vectorizer.fit([*texts, *others])
    against = vectorizer.transform(others).T.tocsc()
    nearest: list[float] = []
    # Slices keep the product of a large history small: 512 rows against 10,000 are 40 MB at most.
    for start in range(0, len(texts), 512):
        product = vectorizer.transform(texts[start : start + 512]) @ against
        nearest += product.max(axis=1).toarray().ravel().tolist()
    return nearest


def grams() -> Any:
    """What two texts are compared by: a vectorizer of character 2- to 4-grams."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)


def folded(text: str) -> str:
    """`text` without what does not make a question another one: case, width, punctuation, spacing."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


def provenance_of(exchange: Exchange) -> dict[str, Any]:
    """Everything that says where a row came from, without the text; `sha256` names the text."""
    content = hashlib.sha256(f"{exchange.question}\x1f{exchange.answer}".encode()).hexdigest()
    asker = exchange.asker
    return {
        "exchange": exchange.id,
        "source": str(exchange.source),
        "question_source": str(exchange.question_source),
        "author": exchange.author.key,
        "asker": asker.key if asker else None,
        "place": exchange.place.key,
        "messages": [*exchange.question_ids, *exchange.answer_ids],
        "at": exchange.at.isoformat(),
        "pairing": exchange.pairing,
        "url": exchange.url,
        "sha256": content,
    }


def row_to(row: Row) -> dict[str, Any]:
    """The JSON of a row: TRL's prompt and completion, and beside them what the row is."""
    return {
        "prompt": [asdict(turn) for turn in row.prompt],
        "completion": [{"role": "assistant", "content": row.answer}],
        "given": row.given,
        "use": row.use,
        "provenance": dict(row.provenance),
    }


def row_from(line: Mapping[str, Any]) -> Row:
    turns = tuple(Turn(**turn) for turn in line["prompt"])
    return Row(turns, line["completion"][0]["content"], line["given"], line["use"], line["provenance"])


def note_to(note: Note) -> dict[str, Any]:
    found = plain(asdict(note))
    assert isinstance(found, dict)
    return found


def as_lines(values: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n" for value in values)


def lines_of(path: Path) -> list[Any]:
    """The JSON lines of a file. Raises ServiceTrouble when it is missing or broken."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise ServiceTrouble(
            f"Could not read {str(path)!r}: {error}. Build the dataset again.", permanent=True
        ) from error


def export(folder: Path, form: Format, out: Path, *, split: Literal["train", "validation"] = "train") -> int:
    """Write one split of a dataset as JSON lines of another trainer's format; the number of rows.

    alpaca: instruction, input (empty), output, system. sharegpt: conversations of from and value. messages: OpenAI's.
    """
    rows = load(folder).rows(split)
    shape = {"alpaca": alpaca, "sharegpt": sharegpt, "messages": messages}[form]
    write_atomic(out, as_lines({**shape(row), **mark(row)} for row in rows))
    return len(rows)


def mark(row: Row) -> dict[str, str]:
    """What says of an exported row that a teacher wrote it, so that no import takes it for the creator's words."""
    return {"kind": SYNTHETIC} if is_synthetic(row.provenance) else {}


def alpaca(row: Row) -> dict[str, Any]:
    system = next((turn.content for turn in row.prompt if turn.role == "system"), "")
    return {"instruction": row.prompt[-1].content, "input": "", "output": row.answer, "system": system}


def sharegpt(row: Row) -> dict[str, Any]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[turn.role], "value": turn.content} for turn in row.prompt]
    return {"conversations": [*turns, {"from": "gpt", "value": row.answer}]}


def messages(row: Row) -> dict[str, Any]:
    return {"messages": [*(asdict(turn) for turn in row.prompt), {"role": "assistant", "content": row.answer}]}
