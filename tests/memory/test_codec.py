"""Memory's values survive the journal's JSON, whatever people write."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.codec import (
    answer_from,
    cleaned,
    dumps,
    encoded,
    exchange_from,
    message_from,
    passage_from,
    storable,
    time_of,
    time_text,
)
from memory.messages import Answer, Note, Source
from memory.remember import message_event
from tests.memory.making import piece, said, taught
from tests.people import ADA, BOB, NOON

# Everything a string of Python can hold, lone surrogates and NUL included.
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=60)
MOMENTS = st.datetimes(NOON.replace(1970, 1, 1, tzinfo=None), NOON.replace(2199, tzinfo=None), timezones=st.timezones())


def back(value) -> dict:
    return json.loads(dumps(encoded(value)))


@given(ANYTHING, ANYTHING)
def test_values_come_back_as_they_went_with_storable_text(text: str, name: str) -> None:
    clean, person = storable(text), replace(BOB, name=storable(name))
    message = replace(said("1", replace(BOB, name=name), text, reply_to="0"), mentions=("telegram:1",))
    exchange = replace(taught(text, text), asker=replace(BOB, name=name), answer_ids=("2", "3"))

    assert message_from(back(message)) == replace(message, text=clean, person=person)
    assert exchange_from(back(exchange)) == replace(exchange, question=clean, answer=clean, asker=person)
    assert passage_from(back(replace(piece("d", 0, "x"), text=text))).text == clean


@given(ANYTHING)
def test_what_is_made_storable_can_be_stored_and_stays_as_it_is(text: str) -> None:
    clean = storable(text)

    assert "\x00" not in clean
    assert clean.encode().decode() == clean == storable(clean)
    assert len(clean) == len(text)


@given(MOMENTS, MOMENTS)
def test_times_come_back_and_their_text_sorts_as_they_do(one: datetime, other: datetime) -> None:
    assert time_of(time_text(one)) == one.astimezone(UTC)
    assert (time_text(one) < time_text(other)) == (one.astimezone(UTC) < other.astimezone(UTC))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        time_text(NOON.replace(tzinfo=None))


def test_an_answer_comes_back_with_its_notes() -> None:
    note = Note("n", "exchange", "24 °C", 0.5, "telegram", NOON.astimezone(timezone(timedelta(hours=8))))
    answer = Answer("a", "q", "好的 🥖", "answered", "fits", (note,), "base", "hash", {"total": 1.5})

    assert answer_from(back(answer)) == answer


def test_an_event_is_cleaned_to_what_will_be_read_back() -> None:
    event = cleaned(message_event(said("a\ud800", replace(ADA, name="A\x00"), "\x00"), Source.OWN_DIRECT))

    assert (event.message_id, event.author.name, event.payload["text"]) == ("a\ufffd", "A\ufffd", "\ufffd")
    assert cleaned(event) == event
