"""Opinions come from real events of a journal; what may not train, and what was forgotten, is not among them."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.errors import Refused
from infra.files import finish_folder, write_atomic
from infra.settings import Settings, load_settings
from memory.forget import forget
from memory.journal import Journal
from memory.messages import Answer, Event, Exchange, Note, Person, Source
from memory.persona import PersonaCard
from memory.remember import (
    answer_event,
    consent_event,
    draft_event,
    exchange_event,
    message_event,
    preference_event,
    question_event,
    remember,
    vote_event,
)
from memory.selection import Selection
from tests.memory.making import GROUP, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, MALLORY, NOON
from tests.trainer.conftest import DOUGHS, METHODS
from trainer import dataset, preference
from trainer.frozen import holds_forgotten
from trainer.harvest import harvest
from trainer.planning import harvest_counts, permissions_of
from trainer.preference import Opinions, method_for

KNOWN = taught("How hot?", "Hot, 250 degrees.")
DAN = Person("telegram", "4", "Dan")


@pytest.fixture
def settings(home: Path) -> Settings:
    found = load_settings(home)
    found.data_folder.mkdir()
    return found


@pytest.fixture
def journal(settings: Settings) -> Iterator[Journal]:
    opened = Journal.open(settings.journal_url)
    write(opened, [exchange_event(KNOWN), *(agreed(person) for person in (BOB, DAN))])
    yield opened
    opened.close()


def write(journal: Journal, events: Sequence[Event]) -> None:
    remember(journal, events, creator=CREATOR)


def agreed(person: Person) -> Event:
    return consent_event(person, GROUP, granted="yes", at=NOON)


# Not one answer to many questions, which would look planted.
ANSWERS = (
    "Pinch it, then rest.",
    "Fold once and wait an hour.",
    "Cold water, friend.",
    "Rye wants less kneading.",
    "Salt goes in last.",
    "Cover the bowl with a towel.",
    "Bake until the crust sings.",
    "Never on a stone that is cold.",
    "Two turns in the fridge.",
    "Ask the miller for ash content.",
    "Score it deep, then steam.",
)


def edited(
    number: int = 1,
    *,
    by: Person = BOB,
    draft: str = "As an AI, I love dough!",
    answer: str = "Pinch it, then rest.",
    notes: Sequence[str] = (KNOWN.id,),
    voice: str = "v1",
) -> list[Event]:
    """A question that waited, the twin's draft for it, and what Ada answered instead: as the cards journal it."""
    asked = said(f"q{number}", by, f"What of dough number {number}?", minutes=number)
    question = question_event(asked, Source.TELEGRAM_DIRECT)
    now = NOON + timedelta(minutes=number + 1)
    exchange = replace(
        taught(asked.text, answer, days=number / 1440),
        asker=by,
        question_source=Source.TELEGRAM_DIRECT,
        question_place=GROUP.key,
    )
    events = [
        message_event(asked, Source.TELEGRAM_DIRECT),
        question,
        draft_event(question.message_id, draft, voice, notes=notes, platform="telegram", at=now),
        exchange_event(exchange, answers=question.message_id),
    ]
    if draft != answer:
        changed = preference_event(question.message_id, asked.text, draft=draft, edited=answer, by=ADA, at=now)
        events.append(changed)
    return events


def answered(
    number: int = 1, *, by: Person = BOB, notes: Sequence[Exchange] = (KNOWN,), voice: str = "v1"
) -> list[Event]:
    """A question and the twin's answer to it."""
    asked = said(f"a{number}", by, f"How hot, oven {number}?", minutes=number)
    noted = tuple(Note(e.id, "exchange", e.answer, 1.0, "", e.at, question=e.question) for e in notes)
    answer = Answer(f"answer-{number}", asked.id, f"Say {number}.", "answered", "", noted, voice, "", {})
    return [message_event(asked, Source.TELEGRAM_DIRECT), answer_event(answer, asked, at=asked.at)]


def vote(person: Person, value: str, number: int = 1, *, minutes: float = 60) -> Event:
    return vote_event(f"answer-{number}", person, value=value, at=NOON + timedelta(minutes=minutes))  # type: ignore[arg-type]


def found(journal: Journal, settings: Settings) -> Opinions:
    rows = harvest(journal, permissions=permissions_of(settings)).exchanges
    return preference.gather(journal, rows, settings=settings, store=AdapterStore(settings.data_folder / "adapters"))


def test_an_edited_draft_is_a_pair_with_the_voice_that_wrote_it(journal: Journal, settings: Settings) -> None:
    write(journal, edited())

    (pair,) = found(journal, settings).kept

    assert (pair.text, pair.exchange.answer) == ("As an AI, I love dough!", "Pinch it, then rest.")
    assert (pair.voice, pair.instead, pair.liked) == ("v1", True, False)
    assert [note.text for note in pair.notes] == [KNOWN.answer]
    assert pair.ids == (pair.exchange.id, KNOWN.id)


def test_a_draft_that_was_used_as_it_is_is_liked(journal: Journal, settings: Settings) -> None:
    write(journal, edited(draft="Rest.", answer="Rest."))

    (label,) = found(journal, settings).kept

    assert (label.liked, label.instead, label.text) == (True, False, "Rest.")


def test_nothing_is_learned_from_an_asker_who_has_not_agreed(journal: Journal, settings: Settings) -> None:
    write(journal, [*edited(by=CHARLIE), *answered(by=CHARLIE), vote(ADA, "bad")])

    opinions = found(journal, settings)

    assert opinions.kept == []
    assert opinions.excluded == {
        "edit: question: no consent for what came as telegram-direct": 1,
        "vote: question: no consent for what came as telegram-direct": 1,
    }


@pytest.mark.parametrize("source", [Source.DISCORD_API, Source.TELEGRAM_GROUP])
def test_what_a_text_was_made_from_must_be_allowed_to_train_too(
    journal: Journal, settings: Settings, source: Source
) -> None:
    overheard = replace(taught("Overheard?", "In the group."), source=source, question_source=source)
    write(journal, [exchange_event(overheard), *edited(notes=(overheard.id,))])
    write(journal, [*answered(notes=(overheard,)), vote(ADA, "good")])

    opinions = found(journal, settings)

    assert opinions.kept == []
    reason = "made from what may not train, or is not known any more"
    assert opinions.excluded == {f"edit: {reason}": 1, f"vote: {reason}": 1}


def test_the_words_of_a_tainted_voice_are_not_learned(journal: Journal, settings: Settings) -> None:
    store = AdapterStore(settings.data_folder / "adapters")
    write_atomic(store.stage("v1") / "file", "")
    store.publish("v1", {})
    store.taint("v1", "it learned what was forgotten")
    write(journal, edited())

    assert found(journal, settings).excluded == {"edit: its voice learned what was forgotten": 1}


def test_the_creators_last_vote_is_a_label_and_outweighs_everybody(journal: Journal, settings: Settings) -> None:
    write(journal, [*answered(1), *answered(2)])
    write(journal, [vote(ADA, "bad", 1), vote(ADA, "good", 1, minutes=61), vote(BOB, "bad", 1), vote(ADA, "bad", 2)])

    labels = found(journal, settings).kept

    assert [(each.text, each.liked, each.instead) for each in labels] == [
        ("Say 1.", True, False),
        ("Say 2.", False, False),
    ]


def test_members_cannot_approve_and_are_not_counted_unless_an_operator_says_so(
    journal: Journal, settings: Settings
) -> None:
    write(journal, [*answered(1), *answered(2), vote(BOB, "good", 1), vote(BOB, "bad", 2), vote(DAN, "bad", 2)])

    opinions = found(journal, settings)

    assert opinions.kept == []
    assert opinions.excluded == {
        "vote: a member's, and only the creator can approve": 1,
        "vote: a member's, and training.members_votes is off": 2,
    }


def allowing(settings: Settings) -> Settings:
    return settings.model_copy(update={"training": settings.training.model_copy(update={"members_votes": True})})


def test_two_members_who_agreed_may_call_an_answer_bad_and_one_may_not(journal: Journal, settings: Settings) -> None:
    write(journal, [event for n in (1, 2, 3) for event in answered(n)])
    write(journal, [vote(BOB, "bad", 1), vote(DAN, "bad", 1), vote(BOB, "bad", 2)])
    write(journal, [vote(MALLORY, "bad", 3), vote(BOB, "bad", 3)])

    opinions = found(journal, allowing(settings))

    assert [(each.text, each.liked) for each in opinions.kept] == [("Say 1.", False)]
    assert opinions.excluded["vote: no consent of who voted"] == 2


def test_members_who_vote_everything_down_are_heard_a_few_times(journal: Journal, settings: Settings) -> None:
    numbers = range(1, preference.VOTER_LABELS + 4)
    write(journal, [event for n in numbers for event in (*answered(n), vote(BOB, "bad", n), vote(DAN, "bad", n))])

    assert len(found(journal, allowing(settings)).kept) == preference.VOTER_LABELS


def test_a_forgotten_persons_pairs_vanish(journal: Journal, settings: Settings) -> None:
    """From the journal, from what is gathered next, and with them the run that froze them."""
    write(journal, [*edited(1), *edited(2, by=DAN), *answered(3), vote(ADA, "good", 3)])
    assert len(found(journal, settings).kept) == 3
    run = settings.data_folder / "runs" / "one"
    for stage, manifest in (("harvest", {"forgotten": 0}), ("dataset", {"learned": ["answer-3"]})):
        write_atomic(run / stage / "exchanges.jsonl", "")
        finish_folder(run / stage, manifest)
    assert not holds_forgotten(run, journal)

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON + timedelta(days=1))

    assert [each.exchange.asker for each in found(journal, settings).kept] == [DAN]
    assert holds_forgotten(run, journal)
    assert {"answer-3"} < journal.forgotten(after=0)


def test_an_exchange_that_is_forgotten_takes_the_words_of_its_edit_along(journal: Journal, settings: Settings) -> None:
    """They stood in the journal a second time, beside the draft."""
    write(journal, edited(answer="My door code is 4711."))
    (pair,) = found(journal, settings).kept

    forget(journal, Selection(exchange=pair.exchange.id), creator=CREATOR, now=NOON + timedelta(days=1))

    assert "4711" not in str([event.payload for _, event in journal.events()])


def test_a_draft_goes_with_what_it_was_made_from_and_stays_when_something_else_is_forgotten(
    journal: Journal, settings: Settings
) -> None:
    other = taught("Other?", "Other.")
    write(journal, [exchange_event(other), *edited()])

    forget(journal, Selection(exchange=other.id), creator=CREATOR, now=NOON + timedelta(days=1))
    assert found(journal, settings).pairs == 1
    forget(journal, Selection(exchange=KNOWN.id), creator=CREATOR, now=NOON + timedelta(days=1))

    assert "As an AI" not in str([event.payload for _, event in journal.events()])


def test_secrets_are_masked_and_what_is_too_long_is_left_out(journal: Journal, settings: Settings) -> None:
    write(journal, edited(1, answer="Write to ada@example.org, friend."))
    write(journal, edited(2, draft="word " * 2000))

    opinions = found(journal, settings)

    assert [each.exchange.answer for each in opinions.kept] == ["Write to [email], friend."]
    assert opinions.excluded == {"scrub: a secret that could not be masked with certainty, or too long": 1}


def test_pairs_are_for_dpo_and_fewer_with_labels_for_kto(journal: Journal, settings: Settings) -> None:
    write(journal, [event for n in range(1, 9) for event in edited(n, answer=ANSWERS[n])])
    write(journal, [event for n in range(11, 17) for event in (*answered(n), vote(ADA, "good", n))])
    kept = found(journal, settings).kept

    assert method_for(kept, least_pairs=8, least_labels=16) == "dpo"
    assert method_for(kept, least_pairs=9, least_labels=22) == "kto"
    with pytest.raises(Refused, match=r"8 edited drafts .* DPO needs 50: 42 more\. 22 texts .* KTO needs 100: 78 more"):
        method_for(kept, least_pairs=50, least_labels=100)


def test_labels_of_one_kind_are_not_enough(journal: Journal, settings: Settings) -> None:
    write(journal, [event for n in range(1, 31) for event in (*answered(n), vote(ADA, "good", n))])

    with pytest.raises(Refused, match=r"30 texts were called good and 0 bad, .* 3 more bad"):
        method_for(found(journal, settings).kept, least_pairs=8, least_labels=16)


def test_a_dry_run_counts_with_reasons_and_says_what_is_missing(journal: Journal, settings: Settings) -> None:
    write(journal, [*edited(1), *edited(2, by=CHARLIE), *answered(3), vote(ADA, "bad", 3)])

    counted = harvest_counts(settings, journal, "preference")

    assert {name: counted[name] for name in ("pairs", "good", "bad", "voices")} == {
        "pairs": 1,
        "good": 1,
        "bad": 2,
        "voices": {"v1": 2},
    }
    assert counted["excluded"] == {"edit: question: no consent for what came as telegram-direct": 1}
    assert "DPO needs 50: 49 more" in counted["missing"]


@pytest.fixture
def parent(tmp_path: Path, settings: Settings) -> AdapterStore:
    """A voice that speaks, the dataset it learned from, and what judged it."""
    pairs = [(method, dough) for dough in DOUGHS for method in METHODS]
    exchanges = [taught(f"May I {m} {d}?", f"Aye, {m} it, says Ada, {n}.", days=n) for n, (m, d) in enumerate(pairs)]
    shares = dataset.Shares(own=0, others=0, none=1)
    folder = settings.data_folder / "runs" / "first" / "dataset"
    folder.mkdir(parents=True)
    built = dataset.build(exchanges, persona=PersonaCard("Ada"), folder=folder, seed=1, shares=shares)
    store = AdapterStore(settings.data_folder / "adapters")
    write_atomic(store.stage("v1") / "peft" / "weights", "")
    learned = [row.provenance["exchange"] for row in built.rows("train")]
    passed = {"passed": True, "reasons": []}
    described = {"verdict": passed, "dataset": built.id, "base_sha256": "b", "examples": learned, "forgotten": 7}
    store.publish("v1", described)
    store.point("v1")
    return store


def test_opinions_are_frozen_beside_the_rows_of_the_voice_they_are_about(
    tmp_path: Path, journal: Journal, settings: Settings, parent: AdapterStore
) -> None:
    """What judged the voice judges its successor, and no opinion is about nearly the same question."""
    voice = preference.parent_of(parent, settings.data_folder / "runs", base_sha256="b")
    heldout = voice.dataset.heldout()
    close = heldout[0].exchange.question
    write(journal, [event for n in range(11) for event in edited(n + 1, answer=ANSWERS[n])])
    opinions = found(journal, settings)
    near = replace(opinions.kept[0], exchange=replace(opinions.kept[0].exchange, question=close))
    opinions = Opinions([near, *opinions.kept[1:]], opinions.excluded)
    training = settings.training.model_copy(update={"least_pairs": 8})
    allowed = [each.exchange.id for each in heldout[1:]] + [
        r.provenance["exchange"] for r in voice.dataset.rows("train")
    ]

    built = preference.build(
        tmp_path / "built",
        opinions,
        parent=voice,
        rows=allowed,
        persona=PersonaCard("Ada"),
        settings=settings.model_copy(update={"training": training}),
    )

    rows = preference.rows_of(built.folder)
    assert [row.use for row in rows].count("judge") == round(len(rows) * preference.HELD_OUT) == 2
    assert [each.exchange for each in built.heldout()] == [each.exchange for each in heldout[1:]]
    assert built.manifest["method"] == "dpo"
    assert {KNOWN.id, *voice.manifest["examples"]} < set(built.manifest["learned"])
    assert built.manifest["forgotten"] == 7
    assert rows[0].prompt[-1].content.startswith(f"Notes:\n[1] {KNOWN.answer}\n\nQuestion: What of dough")


def test_imitations_of_a_voice_are_not_taken_over_and_whose_questions_they_answer_is(
    tmp_path: Path, journal: Journal, settings: Settings, parent: AdapterStore
) -> None:
    voice = preference.parent_of(parent, settings.data_folder / "runs", base_sha256="b")
    rows = voice.dataset.rows("train")
    imitation = replace(rows[0], provenance={"kind": "synthetic", "shown": [], "origin": {"kind": "message"}})
    learned = dataset.freeze(tmp_path / "mixed", [*rows, imitation], manifest={})
    shutil.copy(voice.dataset.folder / "heldout.jsonl", learned.folder)
    asked = {"kind": "message", "id": "1"}
    mixed = replace(voice, dataset=learned, manifest={**voice.manifest, "questions": [asked]})
    write(journal, [event for n in range(11) for event in edited(n + 1, answer=ANSWERS[n])])

    built = preference.build(
        tmp_path / "built",
        found(journal, settings),
        parent=mixed,
        rows=[row.provenance["exchange"] for row in rows],
        persona=PersonaCard("Ada"),
        settings=settings.model_copy(update={"training": settings.training.model_copy(update={"least_pairs": 8})}),
    )

    assert len(built.rows("train")) == len(rows)
    assert built.manifest["questions"] == [asked]


def test_a_preference_needs_a_voice_that_may_be_trained_further(settings: Settings, parent: AdapterStore) -> None:
    runs = settings.data_folder / "runs"
    with pytest.raises(Refused, match="base is another one now"):
        preference.parent_of(parent, runs, base_sha256="another")
    parent.taint("v1", "it learned what was forgotten since")
    with pytest.raises(Refused, match="tainted"):
        preference.parent_of(parent, runs, base_sha256="b")
    parent.point(None)
    with pytest.raises(Refused, match="the bare base speaks"):
        preference.parent_of(parent, runs, base_sha256="b")
