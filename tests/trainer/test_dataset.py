"""A dataset is frozen, split by conversation and time; nothing leaks across the split; rows keep their provenance."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra.errors import Refused, ServiceTrouble
from infra.files import verify_folder
from memory.messages import Exchange, Note, Place
from memory.persona import PersonaCard
from memory.prompt import render
from tests.memory.making import taught
from tests.people import BOB, NOON
from trainer import dataset
from trainer.dataset import Shares, build, conversations, export, load, plan

ADAS_CARD = PersonaCard("Ada", "She bakes.")


def pairs(count: int) -> list[Exchange]:
    """`count` questions, one a day, that share little but their grammar, each with its own answer."""
    rng = random.Random(1)
    return [
        taught(f"Why does {word(rng)} {word(rng)} my {word(rng)}?", f"Give the {word(rng)} {n} degrees.", days=n)
        for n in range(count)
    ]


def word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))


def remembered(exchanges: Sequence[Exchange]) -> dataset.RecallFor:
    """A memory that finds the first exchange it is not forbidden to."""

    def recall_for(question: str, excluded: frozenset[str]) -> Sequence[Note]:
        found = next(each for each in exchanges if each.id not in excluded)
        return (Note(found.id, "exchange", f"{found.answer} Mail ada@example.org.", 0.9, "group", found.at),)

    return recall_for


def built(folder: Path, count: int = 60, **changes: object) -> dataset.Dataset:
    exchanges = pairs(count)
    given = {"persona": ADAS_CARD, "seed": 3, "recall_for": remembered(exchanges), **changes}
    return build(exchanges, folder=folder, **given)  # type: ignore[arg-type]


def test_the_newest_tenth_to_fifth_is_set_aside(tmp_path: Path) -> None:
    made = built(tmp_path)
    train, validation = made.rows("train"), made.rows("validation")

    assert 0.1 <= len(validation) / (len(train) + len(validation)) <= 0.2
    assert max(r.provenance["at"] for r in train) < min(r.provenance["at"] for r in validation)


def test_what_stops_training_does_not_judge_it(tmp_path: Path) -> None:
    made = built(tmp_path)
    uses = {row.provenance["exchange"]: row.use for row in made.rows("validation")}

    judged = {held.exchange.id for held in made.heldout()}

    assert set(uses.values()) == {"stop", "judge"}
    assert judged == {identity for identity, use in uses.items() if use == "judge"}
    assert {row.use for row in made.rows("train")} == {"train"}


def test_a_conversation_is_never_cut_by_the_split() -> None:
    """Twenty chats of three exchanges each, a day apart: no chat is on both sides."""
    chats = [
        replace(
            each,
            pairing="reply",
            place=Place("telegram", "100"),
            at=NOON + timedelta(days=n // 3, minutes=n % 3),
        )
        for n, each in enumerate(pairs(60))
    ]
    planned = plan(chats)

    assert {e.at.date() for e in planned.train} & {e.at.date() for e in planned.aside} == set()
    assert planned.aside


def test_a_chat_without_a_pause_is_not_one_conversation() -> None:
    busy = [replace(each, pairing="near", at=NOON + timedelta(minutes=n)) for n, each in enumerate(pairs(40))]

    assert max(len(talk) for talk in conversations(busy, most=5)) == 5
    assert 0.1 <= len(plan(busy, least_rows=10).aside) / 40 <= 0.2


@pytest.mark.parametrize(
    ("held", "old"),
    [
        ("How long should the dough rest in the fridge?", "how long should the dough REST in the fridge ???"),
        ("How long should the dough rest in the fridge?", "So how long should this dough rest in the fridge?"),
        ("面团在冰箱里要放多久才能烤？", "面团在冰箱里要放多久才能烤呢"),
    ],
)
def test_a_question_that_nearly_repeats_a_held_out_one_is_not_trained_on(held: str, old: str) -> None:
    exchanges = [taught(old, "Overnight.", days=-1), *pairs(60), taught(held, "A whole night.", days=99)]
    planned = plan(exchanges)

    assert held in {each.question for each in planned.aside}
    assert old not in {each.question for each in planned.train}
    assert planned.excluded["question: nearly the same as one that is held out"] == 1


def test_different_questions_about_one_thing_both_stay() -> None:
    exchanges = [
        taught("Which flour do you use for rye bread?", "The dark one.", days=-1),
        *pairs(60),
        taught("How do I know that rye bread is done?", "Knock on it.", days=99),
    ]

    assert exchanges[0].question in {each.question for each in plan(exchanges).train}


def test_the_same_pair_twice_is_one_row() -> None:
    again = taught("Is it done?", "Knock on it!", days=2)
    planned = plan([taught("is it DONE", "Knock on it.", days=1), again, *pairs(50)])

    assert planned.excluded == {"repeats another row": 1}
    assert again in planned.train


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    with pytest.raises(Refused, match=r"^8 rows may train, at least 40 are needed: 32 more\."):
        plan(pairs(10))


def test_counts_of_earlier_stages_are_carried_on() -> None:
    long = taught("How?", "Well, " * 400)

    planned = plan([*pairs(50), long], excluded={"question: empty": 3})

    assert planned.excluded == {"question: empty": 3, "answer: too long for a row": 1}


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    first, second, other = built(tmp_path / "a"), built(tmp_path / "b"), built(tmp_path / "c", seed=4)

    assert first.manifest == second.manifest
    assert other.id != first.id
    assert verify_folder(tmp_path / "a")["id"] == first.id


def test_every_prompt_is_what_answering_would_write(tmp_path: Path) -> None:
    made = built(tmp_path, shares=Shares(own=0, others=0, none=1))
    row = made.rows("train")[0]
    question = next(each.question for each in pairs(60) if each.id == row.provenance["exchange"])

    assert list(row.prompt) == render(ADAS_CARD, notes=(), history=(), question=question, budget_tokens=160)


def test_each_share_of_rows_has_its_notes(tmp_path: Path) -> None:
    """own: the answer stands in the prompt. others: a note, but not the answer. none: no notes."""
    rows = built(tmp_path, count=240).rows("train")
    by_kind = {kind: [row for row in rows if row.given == kind] for kind in ("own", "others", "none")}

    assert all(row.answer in row.prompt[-1].content for row in by_kind["own"])
    assert all("Notes:" in row.prompt[-1].content for row in by_kind["others"])
    assert not any(row.answer in row.prompt[-1].content for row in by_kind["others"] + by_kind["none"])
    assert not any("Notes:" in row.prompt[-1].content for row in by_kind["none"])
    assert len(by_kind["own"]) == pytest.approx(0.5 * len(rows), rel=0.25)
    assert len(by_kind["others"]) == pytest.approx(0.3 * len(rows), rel=0.25)


def test_half_of_the_rows_with_their_own_note_have_another_beside_it(tmp_path: Path) -> None:
    rows = built(tmp_path, count=240, shares=Shares(own=1, others=0, none=0)).rows("train")

    double = sum("[2]" in row.prompt[-1].content for row in rows)

    assert double == pytest.approx(len(rows) / 2, rel=0.25)


def test_no_training_prompt_shows_a_held_out_answer(tmp_path: Path) -> None:
    exchanges = pairs(60)
    made = built(tmp_path, recall_for=remembered(exchanges[::-1]), shares=Shares(own=0, others=1, none=0))

    shown = "\n".join(row.prompt[-1].content for row in made.rows("train"))

    assert not [held.exchange.id for held in made.heldout() if held.exchange.answer in shown]


def test_notes_are_scrubbed_too(tmp_path: Path) -> None:
    built(tmp_path)

    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.jsonl"))

    assert "[email]" in text
    assert "ada@example.org" not in text


def test_a_row_says_where_it_came_from(tmp_path: Path) -> None:
    exchange = replace(pairs(1)[0], asker=BOB, question_ids=("7",), answer_ids=("8", "9"), url="https://example.org/7")
    made = build([exchange, *pairs(60)[1:]], persona=ADAS_CARD, folder=tmp_path, seed=1)
    found = next(row.provenance for row in made.rows("train") if row.provenance["exchange"] == exchange.id)

    assert (found["source"], found["question_source"]) == ("creator-surface", "creator-surface")
    assert (found["author"], found["asker"], found["messages"]) == ("telegram:1", BOB.key, ["7", "8", "9"])
    assert (found["place"], found["url"]) == (exchange.place.key, exchange.url)
    known = {row.provenance["exchange"] for row in [*made.rows("train"), *made.rows("validation")]}
    assert known == {exchange.id, *(each.id for each in pairs(60)[1:])}


def test_heldout_exchanges_come_back_whole(tmp_path: Path) -> None:
    made = built(tmp_path)
    originals = {each.id: each for each in pairs(60)}

    assert all(held.exchange == originals[held.exchange.id] for held in made.heldout())
    assert all(note.id != held.exchange.id for held in made.heldout() for note in held.notes)


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("alpaca", {"instruction", "input", "output", "system"}),
        ("sharegpt", {"conversations"}),
        ("messages", {"messages"}),
    ],
)
def test_a_dataset_is_exported_for_other_trainers(tmp_path: Path, form: dataset.Format, keys: set[str]) -> None:
    made = built(tmp_path / "set")
    written = export(made.folder, form, tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]

    assert written == len(lines) == made.manifest["train"]
    assert all(set(line) == keys for line in lines)
    assert made.rows("train")[0].answer in json.dumps(lines[0], ensure_ascii=False)


def test_an_unfinished_dataset_is_none(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n", encoding="utf-8")

    with pytest.raises(ServiceTrouble, match="holds no finished dataset"):
        load(tmp_path)
