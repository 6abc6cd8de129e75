"""Which sequence a stream gets, on the memory of the real model: every test computes tokens and asks what is there."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from infra.errors import ServiceTrouble
from infra.voice.llama import Context, Model
from infra.voice.sequences import Sequences, Taken, common_prefix
from infra.voice.weights import Weights

OPENING = list(range(1000, 1020))
ADA, BOB, CAROL = ([*OPENING, *range(start, start + 24)] for start in (2000, 3000, 4000))
COUNT = 4


@pytest.fixture(scope="module")
def model(weights: Weights) -> Iterator[Model]:
    loaded = Model(weights.path)
    yield loaded
    loaded.free()


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    made = Context(model, tokens=256, sequences=COUNT, batch=128, threads=2)
    yield made
    made.free()


@pytest.fixture
def sequences(context: Context) -> Sequences:
    return Sequences(context, COUNT)


def after(context: Context, sequence: int, tokens: Sequence[int], *, computed: int = 0) -> np.ndarray:
    """What the model expects after `tokens`, of which the sequence holds the first `computed`; all are held then."""
    rows = [(token, n, sequence, n == len(tokens) - 1) for n, token in enumerate(tokens)][computed:]
    context.decode(rows)
    return context.logits(len(rows) - 1)


def speak(sequences: Sequences, context: Context, tokens: Sequence[int], *, now: float) -> Taken:
    """One whole answer: `tokens` are prompt and answer."""
    taken = sequences.take(tokens)
    after(context, taken.sequence, tokens, computed=taken.cached)
    sequences.learn(taken.sequence, OPENING)
    sequences.release(taken.sequence, tokens, now=now)
    return taken


def expected(model: Model, tokens: Sequence[int]) -> np.ndarray:
    """The same from a memory that never held anything else."""
    fresh = Context(model, tokens=256, sequences=1, batch=128, threads=2)
    found = after(fresh, 0, tokens)
    fresh.free()
    return found


def test_a_conversation_goes_on_where_it_left_off(sequences: Sequences, context: Context, model: Model) -> None:
    first = speak(sequences, context, ADA, now=1)
    speak(sequences, context, BOB, now=2)

    taken = sequences.take([*ADA, 7, 8])

    assert taken == Taken(first.sequence, len(ADA), "continued")
    found = after(context, taken.sequence, [*ADA, 7, 8], computed=taken.cached)
    assert np.abs(found - expected(model, [*ADA, 7, 8])).max() < 0.5


def test_what_was_said_otherwise_is_cut_off(sequences: Sequences, context: Context, model: Model) -> None:
    speak(sequences, context, [*ADA, 5, 5, 5, 5], now=1)

    taken = sequences.take([*ADA, 7, 8, 9])

    assert (taken.cached, taken.reuse) == (len(ADA), "continued")
    found = after(context, taken.sequence, [*ADA, 7, 8, 9], computed=taken.cached)
    assert np.abs(found - expected(model, [*ADA, 7, 8, 9])).max() < 0.5


def test_strangers_share_the_opening_and_take_what_was_of_no_use_for_longest(
    sequences: Sequences, context: Context, model: Model
) -> None:
    taken = [speak(sequences, context, each, now=n) for n, each in enumerate((ADA, BOB, CAROL, [*OPENING, 5, 6, 7]), 1)]
    speak(sequences, context, ADA, now=9)

    stranger = sequences.take([*OPENING, 77, 78])

    assert [each.reuse for each in taken] == ["nothing", "shared", "shared", "shared"]
    assert stranger == Taken(taken[1].sequence, len(OPENING), "shared"), "Bob's: Ada spoke again since"
    found = after(context, stranger.sequence, [*OPENING, 77, 78], computed=stranger.cached)
    assert np.abs(found - expected(model, [*OPENING, 77, 78])).max() < 0.5
    assert sequences.take([*ADA, 7]).reuse == "continued"


def test_who_speaks_at_once_does_so_in_sequences_that_follow_each_other(
    sequences: Sequences, context: Context, model: Model
) -> None:
    for n, each in enumerate((ADA, BOB, CAROL), 1):
        sequences.take(each)
        after(context, n - 1, each)
    for n, each in enumerate((ADA, BOB, CAROL)):
        sequences.release(n, each, now=n)
    running = sequences.take([*ADA, 7])

    moved = sequences.take([*CAROL, 7, 8])

    assert (running.sequence, moved) == (0, Taken(1, len(CAROL), "continued"))
    found = after(context, moved.sequence, [*CAROL, 7, 8], computed=moved.cached)
    assert np.abs(found - expected(model, [*CAROL, 7, 8])).max() < 0.5
    assert sequences.take([*BOB, 7]) == Taken(2, len(BOB), "continued"), "what was there changed places"


def test_what_another_one_has_computed_meanwhile_is_copied_while_it_goes_on(
    sequences: Sequences, context: Context, model: Model
) -> None:
    first, second = sequences.take(ADA), sequences.take([*ADA, 7, 8])
    after(context, first.sequence, ADA)
    after(context, second.sequence, ADA[:2])

    held = sequences.catch_up(second.sequence, [*ADA, 7, 8], computed=2, running={first.sequence: ADA})

    assert held == len(ADA)
    for sequence, tokens in ((second.sequence, [*ADA, 7, 8]), (first.sequence, [*ADA, 9])):
        found = after(context, sequence, tokens, computed=len(ADA))
        assert np.abs(found - expected(model, tokens)).max() < 0.5
    few = sequences.catch_up(second.sequence, [*ADA, 7], computed=len(ADA) - 9, running={first.sequence: ADA})
    assert few == len(ADA) - 9, "reading nine tokens is cheaper"


def test_the_unused_is_forgotten_in_time(sequences: Sequences, context: Context) -> None:
    speak(sequences, context, ADA, now=1)
    speak(sequences, context, BOB, now=5)

    sequences.forget_idle(ended_before=5)

    assert sequences.kept == len(BOB)
    assert (sequences.take([*ADA, 7]).reuse, sequences.take([*BOB, 7]).reuse) == ("shared", "continued")


def test_what_cannot_be_copied_is_read_again(
    sequences: Sequences, context: Context, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(context: Context, sequence: int, saved: object) -> None:
        raise ServiceTrouble("no room")

    for each in (ADA, BOB):
        speak(sequences, context, each, now=1)
    monkeypatch.setattr(Context, "restore", full)

    taken = sequences.take(CAROL)

    assert (taken.cached, taken.reuse) == (0, "nothing")
    assert np.abs(after(context, taken.sequence, CAROL) - expected(model, CAROL)).max() < 0.5
    assert sequences.catch_up(taken.sequence, CAROL, computed=len(CAROL) - 20, running={9: CAROL}) == 0
    assert np.abs(after(context, taken.sequence, CAROL) - expected(model, CAROL)).max() < 0.5


def test_the_common_prefix_of_prompts() -> None:
    assert (common_prefix([1, 2, 3], [1, 2, 4]), common_prefix([], [1]), common_prefix([1], [1, 2])) == (2, 0, 1)
