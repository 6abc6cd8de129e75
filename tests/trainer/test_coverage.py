"""One loud thread, one topic and a few identity rows: none of them becomes the persona."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.files import finished
from memory.graph import Edge
from memory.messages import Exchange, Person, Place
from memory.persona import PersonaCard
from memory.profile import Profile
from tests.memory.making import taught
from tests.people import NOON
from tests.trainer.test_dataset import pairs
from trainer import coverage, dataset, identity
from trainer.harvest import in_bounds
from trainer.identity import Said

CARD = PersonaCard("Ada", "I bake rye.", "en")
TOPICS = {
    "rye": "rye sourdough starter acid crumb hydration",
    "cake": "sponge sugar icing vanilla tin cream",
    "pizza": "pizza tomato basil oven stone mozzarella",
}


def asked(number: int, topic: str, *, thread: str = "") -> Exchange:
    words = TOPICS[topic].split()
    picked = " ".join(words[(number + k) % len(words)] for k in range(3))
    return replace(
        taught(f"What about {picked} in batch {number}?", f"Keep the {picked} warm, {number % 7} hours.", days=number),
        asker=Person("telegram", f"m{number % 40}"),
        place=Place("telegram", "100", thread),
        at=NOON + timedelta(days=number),
        pairing="near",
    )


def test_one_loud_thread_is_not_most_of_what_is_learned() -> None:
    loud = [asked(n, "rye", thread="loud") for n in range(60)]
    calm = [asked(n, "cake", thread=f"t{n}") for n in range(100, 160)]

    excluded: Counter[str] = Counter()
    found = in_bounds([*loud, *calm], dict.fromkeys((each.id for each in [*loud, *calm]), ""), {}, excluded)

    assert sum(each.place.thread == "loud" for each in found) == coverage.THREAD_ROWS
    assert excluded["thread: more rows than one conversation may be"] == 60 - coverage.THREAD_ROWS


def test_one_topic_is_not_most_of_what_is_learned_and_the_best_of_it_stays() -> None:
    rows = [asked(n, "rye") for n in range(120)] + [asked(n, "cake") for n in range(200, 240)]
    topics = {
        each.id: "rye" if "batch" in each.question and each.at < NOON + timedelta(days=150) else "cake" for each in rows
    }
    score = {rows[0].id: 1.0} | {each.id: 0.5 for each in rows[1:]}

    found = coverage.capped(rows, lambda each: topics[each.id], share=0.25, least=24, score=score)

    assert sum(topics[each.id] == "rye" for each in found) == 40
    assert rows[0] in found
    assert rows[1] not in found


def test_what_the_creator_taught_has_no_cap() -> None:
    own = [taught(f"What about rye {n}?", f"Keep it warm for {n} hours.", days=n) for n in range(80)]

    assert len(coverage.capped(own, lambda each: "rye", share=0.1, least=8, score={})) == 80


def test_exchanges_are_clustered_by_what_they_say_the_same_way_every_time() -> None:
    rows = [asked(n, topic) for n in range(60) for topic in ("rye", "cake", "pizza")]
    found = coverage.topics_of(rows, None, ())

    assert found == coverage.topics_of(rows, None, ())
    groups = {topic: {found[each.id] for each in rows if words in each.question} for topic, words in WORDS.items()}
    assert all(len(labels) == 1 for labels in groups.values())
    assert len(set().union(*groups.values())) == 3


WORDS = {"rye": "starter", "cake": "vanilla", "pizza": "basil"}


def test_identity_rows_speak_as_the_stand_in_in_both_languages() -> None:
    said = identity.sayings(CARD, Profile("I bake rye.", "slow bread", ""), [], set())

    assert {each.question for each in said} >= {"Who are you?", "你是谁？", "What do you care about?", "你在乎什么？"}
    assert all("AI" in each.answer or "speak for Ada" in each.answer or "替Ada" in each.answer for each in said)
    assert not any(each.answer.startswith(("I am Ada", "我是Ada，")) for each in said)


def test_a_stance_is_learned_only_from_sources_that_may_all_train() -> None:
    edge = Edge("the creator", "rye", "prefers", ("a", "b"), 1.0, datetime(2026, 1, 1, tzinfo=UTC), quote="I love rye.")

    assert Said("What do you think of rye?", 'Ada has said: "I love rye."', "b") in identity.sayings(
        CARD, None, [edge], {"a", "b"}
    )
    assert not any(each.source for each in identity.sayings(CARD, None, [edge], {"b"}))


@pytest.mark.parametrize("count", [60, 400])
def test_identity_rows_do_not_drown_the_rest(tmp_path: Path, count: int) -> None:
    said = identity.sayings(CARD, Profile("I bake rye.", "slow bread", ""), [], set())
    made = dataset.build(
        pairs(count),
        persona=CARD,
        folder=tmp_path / "dataset",
        seed=3,
        identity=lambda train: identity.rows(said, CARD, train=train),
    )
    rows = made.rows("train")
    marked = [row for row in rows if row.provenance["source"] == "identity"]

    assert 0 < len(marked) <= identity.SHARE * len(rows)
    assert (finished(tmp_path / "dataset") or {})["identity"] == len(marked)
    assert all("You are the AI stand-in for Ada." in row.prompt[0].content for row in marked)
