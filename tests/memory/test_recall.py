"""L0: the same behaviour on every engine, the newest answer, the right scope, and a refusal where memory is silent."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import ServiceTrouble
from memory.bench import Drawn
from memory.encode import Encoder
from memory.graph_recall import GraphRecall
from memory.graph_store import GraphStore
from memory.importers.records import ImportContext
from memory.importing import import_paths
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Person, Source
from memory.prompt import MOST_TOKENS, estimate_tokens
from memory.ranking import THRESHOLD, coverage
from memory.recall import Recall
from memory.remember import exchange_event, message_event, passage_event, remember
from memory.terms import content_terms, document_weights, length_of, query_weights, terms
from memory.vectors import Collection, EdgeStore, Scope, ServerStore, Store, Vector
from tests.memory.making import piece, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON

SAMPLE = files("memory") / "sample"
NUMBERS = count()


@pytest.fixture(params=["edge", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return EdgeStore(tmp_path / "index") if request.param == "edge" else ServerStore(":memory:")


def vector(identity: int, text: str, *, community: str = "main", visibility: str = "public") -> Vector:
    rng = np.random.default_rng(len(text) * 7 + identity)
    dense = rng.normal(size=8).astype(np.float32)
    return Vector(
        f"00000000-0000-0000-0000-{identity:012}",
        "exchange",
        community,
        visibility,
        dense / np.linalg.norm(dense),
        document_weights(text),
    )


@pytest.fixture
def collection(store: Store) -> Iterator[Collection]:
    opened = store.open("understudy_test_8_v1", 8)
    opened.upsert(
        [
            vector(1, "rye bread needs water"),
            vector(2, "wheat bread needs time, time and time"),
            vector(3, "the secret bread", visibility="private"),
            vector(4, "other bread", community="other"),
            vector(5, "面团要多热"),
        ]
    )
    yield opened
    opened.close()


def found(hits) -> list[str]:
    return [hit.id[-1] for hit in hits]


def test_sparse_search_ranks_rare_words_first_on_every_engine(collection: Collection) -> None:
    assert found(collection.sparse(query_weights("rye bread"), Scope(), 5)) == ["1", "2"]
    assert found(collection.sparse(query_weights("面团热"), Scope(), 5)) == ["5"]


def test_dense_search_finds_the_same_vector_first_with_its_cosine(collection: Collection) -> None:
    (first, *_) = collection.dense(vector(2, "wheat bread needs time, time and time").dense, Scope(), 5)

    assert first.id[-1] == "2"
    assert first.score == pytest.approx(1, abs=1e-3)


def test_a_search_sees_only_its_community_and_what_may_be_seen(collection: Collection) -> None:
    query = query_weights("bread")

    assert set(found(collection.sparse(query, Scope(), 9))) == {"1", "2"}
    assert set(found(collection.sparse(query, Scope(visibility=("public", "private")), 9))) == {"1", "2", "3"}
    assert found(collection.sparse(query, Scope("other"), 9)) == ["4"]


def test_upserting_again_replaces_and_deleting_removes(collection: Collection) -> None:
    collection.upsert([vector(1, "spelt cake")])
    collection.delete([vector(2, "").id, "00000000-0000-0000-0000-000000000099"])

    assert collection.count() == 4
    assert found(collection.sparse(query_weights("rye"), Scope(), 9)) == []
    assert found(collection.sparse(query_weights("spelt"), Scope(), 9)) == ["1"]


COMMUNITIES, VISIBILITIES = ("main", "../a~b", "社区 %2F"), ("public", "members", "private")
PLACES = st.tuples(st.sampled_from(COMMUNITIES), st.sampled_from(VISIBILITIES))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(st.tuples(st.integers(1, 5), PLACES), max_size=12),
    gone=st.sets(st.integers(1, 5), max_size=2),
    seen=st.tuples(st.sampled_from(COMMUNITIES), st.sets(st.sampled_from(VISIBILITIES), min_size=1)),
)
def test_nothing_is_ever_found_from_where_it_may_not_be_seen(
    store: Store, written: list[tuple[int, tuple[str, str]]], gone: set[int], seen: tuple[str, set[str]]
) -> None:
    """Whatever was written, moved to another place or deleted: a search finds exactly what its scope may see."""
    opened = store.open(f"understudy_{next(NUMBERS)}_8_v1", 8)
    for identity, (community, visibility) in written:
        opened.upsert([vector(identity, "bread", community=community, visibility=visibility)])
    opened.delete([vector(identity, "").id for identity in gone])

    now = {identity: place for identity, place in written if identity not in gone}
    scope = Scope(seen[0], tuple(sorted(seen[1])))
    expected = {vector(one, "").id for one, place in now.items() if place[0] == seen[0] and place[1] in seen[1]}
    assert {hit.id for hit in opened.dense(vector(1, "bread").dense, scope, 10)} == expected
    assert {hit.id for hit in opened.sparse(query_weights("bread"), scope, 10)} == expected
    opened.close()


def places_of(hits) -> set[tuple[str, str, int]]:
    return {(hit.id[-1], hit.section, hit.position) for hit in hits}


def test_what_stands_in_a_document_is_found_with_its_place_there_and_beside_what_has_none(store: Store) -> None:
    """Also after a start, where the first passage came late, and where an index of before has no mark."""
    opened = store.open("understudy_test_8_v1", 8)
    opened.upsert([vector(1, "rye"), vector(2, "rye", visibility="private")])
    assert places_of(opened.sparse(query_weights("rye"), Scope(), 9)) == {("1", "", 0)}

    opened.upsert([replace(vector(3, "rye"), section="guide", position=7)])
    if isinstance(store, EdgeStore):
        opened.close()
        (mark,) = store._folder.glob("*/*.placeless")  # the shard of what is private
        mark.unlink()
        opened = store.open("understudy_test_8_v1", 8)

    everything = Scope(visibility=("public", "private"))
    for hits in (
        opened.sparse(query_weights("rye"), everything, 9),
        opened.dense(vector(3, "rye").dense, everything, 9),
    ):
        assert places_of(hits) == {("1", "", 0), ("2", "", 0), ("3", "guide", 7)}
    opened.close()


def test_a_query_of_nothing_finds_nothing(collection: Collection) -> None:
    assert collection.sparse(query_weights("?!"), Scope(), 5) == []


def test_the_index_survives_closing_and_allows_one_owner(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path / "index")
    first = store.open("understudy_test_8_v1", 8)
    first.upsert([vector(1, "rye")])
    with pytest.raises(ServiceTrouble, match="another Understudy"):
        store.open("understudy_test_8_v1", 8)
    first.close()

    again = store.open("understudy_test_8_v1", 8)
    assert again.count() == 1
    again.close()


@pytest.fixture
def recall(sqlite_journal: Journal, tmp_path: Path, encoder: Encoder) -> Iterator[Recall]:
    index = Index(sqlite_journal, EdgeStore(tmp_path / "index"), encoder)
    yield Recall(sqlite_journal, index)
    index.close()


def learn(recall: Recall, *events) -> None:
    remember(recall._journal, events, creator=CREATOR)
    recall._index.drain_all()


def test_the_newer_answer_to_the_same_question_wins(recall: Recall) -> None:
    learn(
        recall,
        exchange_event(taught("When do you open?", "At 9.", days=10)),
        exchange_event(taught("when do you OPEN", "At 8.", days=2)),
    )

    notes = recall.recall("When do you open?", limit=5).notes

    assert [note.text for note in notes] == ["At 9."]


def test_what_was_said_later_comes_first_and_names_what_it_replaced(recall: Recall) -> None:
    """Thirty answers that the creator changed, in English and Chinese, asked for in three wordings each."""
    lines = Path(__file__).with_name("updates.tsv").read_text(encoding="utf-8").splitlines()
    updates = [line.split("\t") for line in lines]
    pairs = [(taught(old, said), taught(new, now, days=30)) for old, said, new, now, _ in updates]
    learn(recall, *(exchange_event(each) for later_first in pairs for each in reversed(later_first)))

    asked = [
        (recall.recall(question).notes[0], before, after)
        for (before, after), (old, _, new, _, third) in zip(pairs, updates, strict=True)
        for question in (old, new, third)
    ]

    assert len(asked) == 90
    assert np.mean([note.id == after.id for note, _, after in asked]) >= 0.98
    assert np.mean([note.why.replaced == before.at for note, before, _ in asked]) >= 0.9


def test_a_newer_answer_speaks_although_only_the_older_wording_was_found(recall: Recall) -> None:
    """The index has not learned it yet, and it may not be shown everywhere either."""
    learn(recall, exchange_event(taught("How warm should the dough be?", "22 °C.")))
    hidden = taught("How warm should the dough be?", "30 °C.", days=2)
    hidden = replace(hidden, place=replace(hidden.place, visibility="private"))
    newer = taught("how warm should my dough be", "24 °C.", days=1)
    remember(recall._journal, [exchange_event(newer), exchange_event(hidden)], creator=CREATOR)

    (note,) = recall.recall("How warm should the dough be?").notes
    assert (note.text, note.why.answers) == ("24 °C.", 2)
    (before,) = recall.recall("How warm should the dough be?", excluded=frozenset({newer.id})).notes
    assert (before.text, before.why.answers) == ("22 °C.", 1)


def test_all_parts_of_an_answer_are_notes_though_only_one_was_found(recall: Recall) -> None:
    def row(answer: str, days: float) -> Exchange:
        pair = taught("My starter is flat. What now?", answer, days=days)
        return replace(pair, source=Source.CREATOR_QA, place=replace(pair.place, platform="import", name="qa.jsonl"))

    parts = [row("Feed it at noon.", 0), row("And keep it warm.", 0.01)]
    learn(recall, exchange_event(parts[0]))
    remember(recall._journal, [exchange_event(parts[1])], creator=CREATOR)

    notes = recall.recall("What now with a flat starter?").notes
    assert {note.text for note in notes} == {"Feed it at noon.", "And keep it warm."}
    assert [(note.why.answers, note.why.replaced) for note in notes] == [(1, None)] * 2


def test_notes_stay_within_the_budget_of_the_question(recall: Recall) -> None:
    long = "A levain wants flour, water and a warm place. " * 200
    learn(recall, *(exchange_event(taught(f"What does levain {name} want?", name + long)) for name in ("one", "two")))

    whole, tight = recall.recall("What does levain want?"), recall.recall("What does levain want?", budget_tokens=50)

    assert 1100 < sum(estimate_tokens(note.text) for note in whole.notes) <= MOST_TOKENS
    assert 40 < sum(estimate_tokens(note.text) for note in tight.notes) <= 50


def test_a_note_says_why_it_was_chosen(recall: Recall) -> None:
    learn(
        recall,
        exchange_event(replace(taught("How warm should the dough be?", "22 °C."), asker=BOB)),
        exchange_event(replace(taught("how warm should my dough be", "24 °C.", days=1), asker=CHARLIE)),
        passage_event(piece("talk.md", 0, "Wren: 面团要放在温暖的地方，水温二十四度。")),
    )

    why = recall.recall("Wie warm: how warm is dough?").notes[0].why
    assert (why.words, why.authority) == (("warm", "dough"), "creator")
    assert (why.answers, why.askers, why.replaced) == (2, 2, NOON)
    assert why.cosine > 0.5
    assert 0 < why.coverage < 1
    why = recall.recall("Wren 说的水温多少").notes[0].why
    assert (why.words, why.authority, why.names) == (("Wren", "水温"), "document", "Wren")


def test_nothing_that_the_twin_said_is_indexed(recall: Recall) -> None:
    """Neither as a pair or document nor as its messages, though Ada answers one of them."""
    twin = Person("telegram", "twin", role="twin")
    learn(
        recall,
        exchange_event(replace(taught("When do you open?", "At 9."), source=Source.TWIN)),
        passage_event(replace(piece("d", 0, "We open at 9."), source=Source.TWIN)),
        message_event(said("1", BOB, "When do you open?"), Source.TELEGRAM_GROUP),
        message_event(said("2", twin, "At 9, I think?", minutes=1, reply_to="1"), Source.TWIN),
        message_event(replace(said("3", ADA, "We open at 9.", minutes=2, reply_to="1")), Source.TWIN),
    )

    assert recall._index.collection.count() == 0
    assert recall.recall("When do you open?").notes == ()


def test_what_is_excluded_is_never_a_note(recall: Recall) -> None:
    exchange = taught("When do you open?", "At 9.")
    learn(recall, exchange_event(exchange))

    assert recall.recall("When do you open?", excluded=frozenset({exchange.id})).notes == ()


def test_what_the_journal_no_longer_has_is_not_recalled(recall: Recall) -> None:
    exchange = taught("When do you open?", "At 9.")
    learn(recall, exchange_event(exchange))
    with recall._journal.writing() as writer:
        writer.drop_exchange(exchange.id)

    assert recall.recall("When do you open?").notes == ()
    assert recall._index.drain_all() == 1
    assert recall._index.collection.count() == 0


def test_what_may_no_longer_be_seen_leaves_nothing_of_its_question_though_another_has_answered_it(
    recall: Recall,
) -> None:
    """Found in an index that has yet to learn of it; the other answer is not in it yet."""
    open_to_all = taught("How warm is the dough?", "24 degrees.")
    learn(recall, exchange_event(open_to_all))
    with recall._journal.writing() as writer:
        writer.put_exchange(replace(open_to_all, place=replace(open_to_all.place, visibility="private")))
    remember(recall._journal, [exchange_event(taught("How warm is the dough?", "Warm.", days=1))], creator=CREATOR)

    assert recall.recall("How warm is the dough?").notes == ()


def test_a_passage_that_may_no_longer_be_seen_is_not_recalled(recall: Recall) -> None:
    passage = piece("handbook", 0, "The oven is lit at four in the morning.")
    learn(recall, passage_event(passage))
    with recall._journal.writing() as writer:
        writer.put_passage(replace(passage, place=replace(passage.place, visibility="private")), revision=0)

    assert recall.recall("When is the oven lit?").notes == ()


def test_a_passage_is_found_by_what_it_says(recall: Recall) -> None:
    learn(recall, passage_event(piece("guide.md", 0, "The levain is ready when a spoonful of it floats in water.")))

    (note,) = recall.recall("How do I know that the levain is ready?").notes
    assert (note.kind, note.source) == ("passage", "guide.md")


def test_an_empty_memory_knows_nothing(recall: Recall) -> None:
    found = recall.recall("anything?")

    assert (found.notes, found.confidence) == ((), 0.0)


def test_a_killed_drain_is_simply_done_again(recall: Recall) -> None:
    learn(recall, exchange_event(taught("When do you open?", "At 9.")))
    recall._journal.outbox_rebuild()

    assert recall._index.drain_all() == 1
    assert recall._index.collection.count() == 1


def test_recall_knows_what_it_knows(recall: Recall) -> None:
    """On the labelled questions: most answerable ones get the right note, hardly any other gets a note at all."""
    context = ImportContext(
        Person("own", "creator", "Wren", role="creator"),
        frozenset({"telegram:user4201337", "discord:420133742013374201"}),
        NOON,
    )
    paths = [Path(str(SAMPLE / name)) for name in ("qa.jsonl", "faq.md", "guide.md", "telegram", "discord")]
    import_paths(recall._journal, paths, context)
    recall._index.drain_all()
    asked = [json.loads(line) for line in (SAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    outcomes = [(each, recall.recall(each["question"])) for each in asked]
    answerable = [(each, found) for each, found in outcomes if each["answerable"]]
    silent = [found for each, found in outcomes if not each["answerable"]]

    right = [
        any(each["expects"][0].casefold() in note.text.casefold() for note in found.notes) for each, found in answerable
    ]
    accepted = [found.confidence >= THRESHOLD for _, found in answerable]
    let_through = [found.confidence >= THRESHOLD for found in silent]
    assert np.mean(right) > 0.75
    assert np.mean(accepted) > 0.65
    assert np.mean(let_through) < 0.12


def test_terms_of_english_and_chinese() -> None:
    assert terms("Feeding the starters' jars") == ["feed", "the", "starter", "jar"]
    assert terms("面团hot") == ["面", "团", "面团", "hot"]
    assert content_terms("How do I feed it?") == {"feed"}
    assert content_terms("怎么办") == set()


def test_a_text_is_as_long_in_chinese_as_it_has_characters() -> None:
    """Pairs of characters are terms too, and would otherwise count every character twice."""
    assert length_of(Counter(terms("面团要热 warm it"))) == 6


def test_coverage_is_the_share_of_what_is_asked_that_is_known() -> None:
    assert coverage({"rye", "bread"}, {"rye"}) == pytest.approx(3**0.5 / (3**0.5 + 5**0.5))
    assert coverage(set(), {"rye"}) == 0


def test_one_community_cannot_read_another(recall: Recall) -> None:
    other = taught("When do you open?", "Never.", community="other")
    learn(recall, exchange_event(replace(other, place=replace(other.place, community="other"))))

    assert recall.recall("When do you open?").notes == ()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(st.tuples(st.integers(0, 2), PLACES), min_size=1, max_size=8),
    seen=st.tuples(st.sampled_from(COMMUNITIES), st.sets(st.sampled_from(VISIBILITIES), min_size=1)),
)
def test_no_question_whatever_brings_up_what_its_asker_may_not_see(
    tmp_path: Path, written: list[tuple[int, tuple[str, str]]], seen: tuple[str, set[str]]
) -> None:
    """Through index, journal, standing answers and graph: several answers to few questions, said in any places."""
    folder, scope = tmp_path / str(next(NUMBERS)), Scope(seen[0], tuple(sorted(seen[1])))
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    told = [taught(f"How warm is oven {what}?", f"Oven {what}: {n}°.", days=n) for n, (what, _) in enumerate(written)]
    told = [
        replace(each, place=replace(each.place, community=community, visibility=visibility))
        for each, (_, (community, visibility)) in zip(told, written, strict=True)
    ]
    remember(journal, map(exchange_event, told), creator=CREATOR)
    index, store = Index(journal, EdgeStore(folder / "index"), Drawn()), GraphStore(journal)
    store.drain_all()
    recall = GraphRecall(Recall(journal, index), journal, store)

    visible = {each.id: each.answer for each in told if each.place.community == seen[0]}
    visible = {each.id: each.answer for each in told if each.id in visible and each.place.visibility in seen[1]}
    for question in ("How warm is oven 1?", "Did the warmth of oven 1 change?", "How are oven 0 and oven 2 connected?"):
        notes = recall.recall(question, scope=scope, limit=9).notes
        assert {note.id for note in notes} <= visible.keys()
        assert bool(notes) is bool(visible)
        dates = {each.at for each in told if each.id in visible}
        assert {note.why.replaced for note in notes} - {None} <= dates
    index.close()
    journal.close()
