"""A distillation, with a real server as teacher: what is asked, bought once, sifted, marked, and forgotten again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ServiceTrouble, UserMistake
from infra.files import finished, read_json, write_json
from infra.runs import Runs
from infra.voice.client import HttpVoice
from memory.forget import forget
from memory.importers import jsonlines
from memory.importers.records import ImportContext, Skipped
from memory.journal import Journal
from memory.messages import Exchange, Source
from memory.persona import PersonaCard
from memory.provenance import Permissions
from memory.remember import consent_event, exchange_event, message_event, remember
from memory.selection import Selection
from tests.memory.making import GROUP, said
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON
from tests.trainer.imitating import community, in_manner, lines, remembered
from tests.trainer.lecturing import fails, lecturing
from trainer import dataset, distil, evals, imitations
from trainer.frozen import follow_forgotten, learned_forgotten
from trainer.questions import Question, mixed, paraphrases, unanswered
from trainer.teacher import Budget

PATIENT: dict[str, Any] = {"first_wait_s": 0.01}
CARD = PersonaCard("Ada")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    yield found
    found.close()


def job_of(data: Path, pool: list[Exchange], *, rows: int = 24, name: str = "one", questions: Any = None) -> distil.Job:
    return distil.prepare(
        data / "distil" / name,
        questions or mixed([paraphrases(pool)], rows),
        pool,
        creator="Ada",
        teacher="lecturer",
        max_length=512,
        forgotten=0,
        created=NOON,
        excluded={},
    )


def run(job: distil.Job, url: str, budget: Budget | None = None, **more: Any) -> dict[str, Any]:
    voice = HttpVoice(url, model="lecturer")
    return distil.distil(job, voice, budget=budget or Budget(), per_minute=0, concurrency=4, **PATIENT, **more)


def rows_of(job: distil.Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(job.folder / "rows.jsonl")]


@pytest.fixture(scope="module")
def finished_job(tmp_path_factory: pytest.TempPathFactory) -> distil.Job:
    """A job over the small community, all asked and sifted."""
    job = job_of(tmp_path_factory.mktemp("finished"), community())
    with lecturing(in_manner()) as lecturer:
        run(job, lecturer.url)
    return job


@pytest.fixture
def made(finished_job: distil.Job, tmp_path: Path, journal: Journal) -> tuple[distil.Job, list[Exchange]]:
    """The same in a folder of its own, over a journal that holds the community."""
    folder = shutil.copytree(finished_job.folder, tmp_path / "distil" / "one")
    return replace(finished_job, folder=folder), remembered(journal)


def test_rows_are_marked_with_who_wrote_them_and_from_what(made: tuple[distil.Job, list[Exchange]]) -> None:
    job, pool = made
    rows, by_id = rows_of(job), {each.id: each for each in pool}

    assert len(rows) >= 12
    for row in rows:
        provenance, origin = row["provenance"], by_id[row["provenance"]["origin"]["exchange"]]
        assert (row["kind"], provenance["kind"], provenance["teacher"]) == ("synthetic", "synthetic", "lecturer")
        assert len(provenance["shown"]) == 3
        assert origin.id not in provenance["shown"]
        assert len(provenance["prompt_sha256"]) == 64
        assert row["answer"].startswith("Aye, friend:")
    manifest = finished(job.folder)
    assert manifest is not None
    assert manifest["kept"] + sum(manifest["excluded"].values()) == manifest["rows"] == 24


def test_the_teacher_is_shown_three_exchanges_and_never_the_answer(tmp_path: Path, journal: Journal) -> None:
    pool = remembered(journal)
    with lecturing(in_manner()) as lecturer:
        run(job_of(tmp_path, pool), lecturer.url)
    answers = {each.question: each.answer for each in pool}
    pairs = [body["messages"] for body in lecturer.bodies]
    imitated = [turns for turns in pairs if len(turns) > 2]

    assert len(imitated) == 24
    for turns in imitated:
        assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
        own = next(answer for question, answer in answers.items() if question.lower() in turns[-1]["content"])
        assert own not in str(turns)


def test_nothing_is_asked_twice_by_the_same_job_or_another(tmp_path: Path, journal: Journal) -> None:
    pool = remembered(journal)
    first = job_of(tmp_path, pool)
    with lecturing(in_manner()) as lecturer:
        manifest = run(first, lecturer.url)
        asked = lecturer.asked
        assert asked == 24 * 2 + 40
        assert run(first, lecturer.url)["kept"] == manifest["kept"]
        assert lecturer.asked == asked

        second = job_of(tmp_path, pool, name="two")
        others = [first.folder / "answers.jsonl"]
        estimate = distil.estimated(second, Budget(), per_minute=60, concurrency=4, others=others)
        assert (estimate.requests, estimate.known) == (0, asked)
        again = run(second, lecturer.url, others=others)
        assert (lecturer.asked, again["kept"], again["prompt_tokens"]) == (asked, manifest["kept"], 0)


def test_the_estimate_is_near_what_it_takes_and_the_budget_is_kept(tmp_path: Path, journal: Journal) -> None:
    pool = remembered(journal)
    job, prices = job_of(tmp_path, pool), {"price_in": 10.0, "price_out": 40.0}
    estimate = distil.estimated(job, Budget(**prices), per_minute=60, concurrency=4)

    assert (estimate.rows, estimate.requests, estimate.minutes) == (24, 88, 1.5)
    assert 0 < estimate.money < estimate.most_money
    with lecturing(in_manner()) as lecturer:
        bounded = Budget(money=0.04, **prices)
        manifest = run(job, lecturer.url, bounded)
        assert "budget of 0.04" in manifest["stopped"]
        assert 0.02 < manifest["money"] <= 0.04
        assert manifest["excluded"]["not answered"] > 0

        went_on = run(job, lecturer.url, Budget(money=9, **prices))
        assert went_on["stopped"] == ""
        assert "not answered" not in went_on["excluded"]
        # What the first attempt paid is counted, and was not paid again.
        assert went_on["prompt_tokens"] == 88 * 100
        assert lecturer.asked == 88


def test_a_teacher_that_stays_away_ends_it_in_a_sentence_and_it_can_go_on(tmp_path: Path, journal: Journal) -> None:
    job = job_of(tmp_path, remembered(journal))
    with lecturing(fails(401, '{"error": {"message": "bad token"}}')) as lecturer:
        with pytest.raises(ServiceTrouble, match="bad token"):
            run(job, lecturer.url)
        assert lecturer.asked <= 4
        assert finished(job.folder) is None

        lecturer.reply = in_manner()
        assert run(job, lecturer.url)["kept"] >= 12


CHILD = """
import sys, json
from pathlib import Path
from infra.voice.client import HttpVoice
from trainer import distil
from trainer.teacher import Budget
from memory.codec import exchange_from
folder, url = Path(sys.argv[1]), sys.argv[2]
pool = [exchange_from(json.loads(line)) for line in open(sys.argv[3], encoding="utf-8")]
job = distil.load(folder, {each.id: each for each in pool})
distil.distil(job, HttpVoice(url, model="lecturer"), budget=Budget(), per_minute=0, concurrency=4)
"""


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, journal: Journal) -> None:
    from memory.codec import encoded

    pool = remembered(journal)
    job = job_of(tmp_path, pool)
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(encoded(e)) + "\n" for e in pool), encoding="utf-8")
    with lecturing(in_manner(after_s=0.03)) as lecturer:
        command = [sys.executable, "-c", CHILD, str(job.folder), lecturer.url, str(tmp_path / "pool.jsonl")]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()})
        deadline = time.monotonic() + 60
        while lecturer.asked < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at = lecturer.asked
        with (job.folder / "answers.jsonl").open("ab") as torn:
            torn.write(b'{"key": "half a li')
        kept = len(lines(job.folder / "answers.jsonl")) - 1
        assert 0 < kept < 88
        assert finished(job.folder) is None

        manifest = run(job, lecturer.url)

    assert manifest["kept"] >= 12
    assert killed_at - kept <= 4  # of those under way when it was killed nothing is known
    assert lecturer.asked == killed_at + 88 - kept
    known = [json.loads(line)["key"] for line in lines(job.folder / "answers.jsonl")]
    assert len(known) == len(set(known)) == 88


def test_two_processes_do_not_ask_the_same(tmp_path: Path, journal: Journal) -> None:
    job = job_of(tmp_path, remembered(journal))
    with distil.held(job.folder), pytest.raises(UserMistake, match="under way"):
        run(job, "http://127.0.0.1:9")


def mixing(data: Path, journal: Journal, share: float) -> dataset.Mixing:
    return imitations.mixing(data, journal, share=share, permissions=Permissions(), seed=1)


def built(data: Path, journal: Journal, share: float, pool: list[Exchange]) -> dataset.Dataset:
    folder = data / f"dataset-{share}"
    kind = mixing(data, journal, share) if share else None
    return dataset.build(pool, persona=CARD, folder=folder, seed=1, least_rows=20, mixed=kind)


def test_a_dataset_holds_the_share_that_is_asked_for_and_says_so(
    made: tuple[distil.Job, list[Exchange]], tmp_path: Path, journal: Journal
) -> None:
    pool = made[1]
    plain, half = built(tmp_path, journal, 0, pool), built(tmp_path, journal, 0.2, pool)
    real = plain.manifest["train"]

    assert plain.manifest["synthetic"] == 0
    assert half.manifest["synthetic"] == round(real / 4) == half.manifest["train"] - real
    rows = half.rows("train")
    assert sum(dataset.is_synthetic(row.provenance) for row in rows) == half.manifest["synthetic"]
    assert not any(dataset.is_synthetic(row.provenance) for row in half.rows("validation"))
    trained_on = set().union(*(imitations.learned_from(row.provenance) for row in rows))
    aside = {held.exchange.id for held in half.heldout()}
    assert aside.isdisjoint(trained_on)


def test_an_imitation_near_what_is_held_out_or_made_with_it_is_not_used(
    made: tuple[distil.Job, list[Exchange]], tmp_path: Path, journal: Journal
) -> None:
    # What the job was made of first is the newest here, and so held out.
    backwards = [replace(each, at=NOON - (each.at - NOON)) for each in made[1]]
    planned = dataset.plan(backwards, least_rows=20)
    terms = {"share": 0.9, "permissions": Permissions(), "seed": 1}

    used = imitations.chosen(tmp_path, journal, planned, **terms)  # type: ignore[arg-type]

    left_out = [count for reason, count in planned.excluded.items() if reason.startswith("synthetic: ")]
    assert len(used) + sum(left_out) == len(rows_of(made[0]))
    assert left_out
    train = {each.id for each in planned.train}
    assert all(imitations.learned_from(line["provenance"]) <= train for line in used)


def test_no_imitation_becomes_memory(made: tuple[distil.Job, list[Exchange]], tmp_path: Path, journal: Journal) -> None:
    """Neither as an event, nor by importing the job's rows or an exported dataset that holds them."""
    job, pool = made
    before = journal.counts()
    (line, *_) = rows_of(job)
    exchange = imitations.as_exchange(line, pool[0])
    receipt = remember(journal, [exchange_event(exchange)], creator=CREATOR)
    assert receipt.exchanges == 0
    assert journal.counts()["exchanges"] == before["exchanges"]
    assert journal.counts()["outbox"] == before["outbox"]

    context = ImportContext(ADA, CREATOR, NOON)
    read = list(jsonlines.read(job.folder / "rows.jsonl", context))
    assert len(read) == len(rows_of(job))
    assert {type(each) for each in read} == {Skipped}
    mixed_in = built(tmp_path, journal, 0.2, pool)
    own = evals.own_rows(mixed_in)
    assert len(own) == sum(not imitations.is_synthetic(row.provenance) for row in mixed_in.rows("train")) > 0
    assert not any(imitations.is_synthetic(row.provenance) for row in own), "they do not say what the manner is"
    for form in ("alpaca", "sharegpt", "messages"):
        out = tmp_path / f"{form}.jsonl"
        dataset.export(mixed_in.folder, form, out)  # type: ignore[arg-type]
        read = list(jsonlines.read(out, context))
        skipped = [each for each in read if isinstance(each, Skipped)]
        assert {each.reason for each in skipped} == {"a teacher's imitation, which never becomes memory"}
        assert len(skipped) == mixed_in.manifest["synthetic"]


def test_forgetting_an_exchange_removes_every_row_that_was_shown_it(
    made: tuple[distil.Job, list[Exchange]], tmp_path: Path, journal: Journal
) -> None:
    job, _ = made
    gone = rows_of(job)[0]["provenance"]["shown"][0]
    with_it = [row for row in rows_of(job) if gone in imitations.learned_from(row["provenance"])]
    words = next(each for each in journal.exchanges([gone])).answer
    before = rows_of(job)

    forget(journal, Selection(exchange=gone), creator=CREATOR, now=NOON + timedelta(days=400))
    followed = follow_forgotten(tmp_path, journal, Runs(journal.engine))

    assert followed.files == 3
    assert rows_of(job) == [row for row in before if row not in with_it]
    left = "".join((job.folder / name).read_text(encoding="utf-8") for name in ("tasks.jsonl", "answers.jsonl"))
    assert gone not in left
    assert words not in left
    manifest = finished(job.folder)
    assert manifest is not None
    assert manifest["kept"] == len(rows_of(job))
    assert follow_forgotten(tmp_path, journal, Runs(journal.engine)).files == 0


ASKED = said("m1", BOB, "May one freeze the rye starter?", minutes=1)


def bobs(journal: Journal) -> list[Question]:
    return unanswered(journal, answering=CREATOR, permissions=Permissions()).questions


def test_members_questions_are_used_only_where_they_agreed(journal: Journal) -> None:
    hers = said("m2", CHARLIE, "How long does a brioche rest?", minutes=2)
    talk = said("m3", BOB, "Thanks a lot!", minutes=3)
    mail = said("m5", BOB, "Can you write to bob@example.com about the rye?", minutes=4)
    remember(journal, [message_event(each, Source.CHAT_EXPORT) for each in (ASKED, hers, talk, mail)], creator=CREATOR)
    assert bobs(journal) == []

    remember(journal, [consent_event(BOB, GROUP, granted="yes", at=NOON)], creator=CREATOR)
    found = unanswered(journal, answering=CREATOR, permissions=Permissions())
    assert [each.text for each in found.questions] == [ASKED.text, "Can you write to [email] about the rye?"]
    assert found.excluded == {"question: no consent for what came as chat-export": 1}

    answered = said("m4", ADA, "Aye, freeze it for a month.", minutes=5, reply_to="m1")
    remember(journal, [message_event(answered, Source.CHAT_EXPORT)], creator=CREATOR)
    assert ASKED.text not in [each.text for each in bobs(journal)]


def test_a_members_question_goes_with_their_consent_and_when_they_are_forgotten(
    tmp_path: Path, journal: Journal
) -> None:
    pool = remembered(journal)
    agreed = consent_event(BOB, GROUP, granted="yes", at=NOON)
    remember(journal, [message_event(ASKED, Source.CHAT_EXPORT), agreed], creator=CREATOR)
    job = job_of(tmp_path, pool, questions=bobs(journal))
    with lecturing(in_manner()) as lecturer:
        assert run(job, lecturer.url)["kept"] == 1
    planned = dataset.plan(pool, least_rows=20)
    terms = imitations.Terms.of(replace(planned, train=pool), journal, Permissions())
    (line,) = rows_of(job)
    assert terms.against(line) == ""
    manifest = {"examples": [], "questions": imitations.members_of(line["provenance"])}

    remember(journal, [consent_event(BOB, GROUP, granted="no", at=NOON + timedelta(hours=1))], creator=CREATOR)
    assert terms.against(line) == "question: no consent for what came as chat-export"

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON + timedelta(days=1))
    again = imitations.Terms.of(planned, journal, Permissions())
    assert again.against_asker(manifest["questions"][0])
    assert imitations.learns_erased(manifest["questions"], journal)
    follow_forgotten(tmp_path, journal, Runs(journal.engine))
    assert rows_of(job) == []
    assert "freeze" not in (job.folder / "answers.jsonl").read_text(encoding="utf-8")


def test_an_adapter_that_learned_an_answer_to_it_is_tainted(tmp_path: Path, journal: Journal) -> None:
    from infra.adapters import AdapterStore

    agreed = consent_event(BOB, GROUP, granted="yes", at=NOON)
    remember(journal, [message_event(ASKED, Source.CHAT_EXPORT), agreed], creator=CREATOR)
    store = AdapterStore(tmp_path / "adapters")
    (question,) = bobs(journal)
    staged = store.stage("v1")
    write_json(staged / "adapter.gguf", {})
    store.publish("v1", {"examples": [], "questions": [dict(question.origin)], "forgotten": 0})
    assert not learned_forgotten(store, "v1", journal)

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON + timedelta(days=1))
    assert learned_forgotten(store, "v1", journal)
    assert read_json(store.folder("v1") / "manifest.json")["questions"]
