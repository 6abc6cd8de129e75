"""Every format, told by itself; every skipped record counted; a broken file imports nothing and says where."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path

import pytest

from infra.errors import UserMistake
from memory.importers import xml
from memory.importers.records import ImportContext, Record
from memory.importing import ImportReport, format_of, import_paths, journal_file
from memory.journal import Journal
from memory.messages import Person, Source
from tests.people import NOON

SAMPLE = files("memory") / "sample"
KEYS = frozenset({"own:creator", "telegram:user1", "discord:9", "stackexchange:7"})
CONTEXT = ImportContext(Person("own", "creator", "Ada", role="creator"), KEYS, NOON)


def load(journal: Journal, path: Path, content: str | bytes) -> ImportReport:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_paths(journal, [path], CONTEXT)


def refused_in_a_sentence(journal: Journal, path: Path, content: str | bytes, why: str) -> None:
    """Nothing of a file is imported, and a short sentence says why."""
    with pytest.raises(UserMistake, match=why) as refused:
        load(journal, path, content)

    assert len(str(refused.value)) < 400
    assert journal.counts()["events"] == 0


def pairs(journal: Journal) -> list[tuple[str, str]]:
    return [(exchange.question, exchange.answer) for exchange in journal.exchanges()]


QA = {"question": "How warm?", "answer": "24 °C."}
ONE_PAIR = [("How warm?", "24 °C.")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "question,answer\nHow warm?,24 °C.\n"),
        ("b.csv", '\ufeffQuestion;Answer;Date\n"How warm?";"24 °C.";2026-01-01\n'),
        ("c.tsv", "q\ta\nHow warm?\t24 °C.\n"),
        ("d.jsonl", json.dumps(QA) + "\n\n"),
        ("e.jsonl", json.dumps({"instruction": "How warm?", "input": "", "output": "24 °C."})),
        (
            "f.jsonl",
            json.dumps(
                {"conversations": [{"from": "human", "value": "How warm?"}, {"from": "gpt", "value": "24 °C."}]}
            ),
        ),
        (
            "g.jsonl",
            json.dumps(
                {
                    "messages": [
                        {"role": "system", "content": "Be brief."},
                        {"role": "user", "content": [{"type": "text", "text": "How warm?"}]},
                        {"role": "assistant", "content": "24 °C."},
                    ]
                }
            ),
        ),
        ("h.json", json.dumps([QA])),
        ("i.json", json.dumps({"made": "today", "items": [QA]})),
        ("j.xml", "<qa><item><question>How warm?</question><answer>24 °C.</answer></item></qa>"),
        ("k.md", "# Bread\n\n## How warm?\n\n24 °C.\n"),
        ("l.txt", "Q: How warm?\nA: 24 °C.\n"),
        ("m.csv", "question,answer\r\nHow warm?,24 °C.\r\n".encode("utf-16")),
    ],
)
def test_each_format_gives_the_same_exchange(
    sqlite_journal: Journal, tmp_path: Path, name: str, content: str | bytes
) -> None:
    load(sqlite_journal, tmp_path / name, content)

    (exchange,) = sqlite_journal.exchanges()
    assert [(exchange.question, exchange.answer)] == ONE_PAIR
    assert (exchange.source, exchange.question_source) == (Source.CREATOR_QA, Source.CREATOR_QA)


def test_gb18030_is_read_as_what_it_is(sqlite_journal: Journal, tmp_path: Path) -> None:
    load(sqlite_journal, tmp_path / "zh.csv", "问题,回答\n面团要多热？,24 度。\n".encode("gb18030"))

    assert pairs(sqlite_journal) == [("面团要多热？", "24 度。")]


def test_stack_exchange_gives_the_creators_answers_with_their_questions(
    sqlite_journal: Journal, tmp_path: Path
) -> None:
    rows = (
        '<row Id="1" PostTypeId="1" OwnerUserId="3" Title="Too wet" Body="&lt;p&gt;How wet is &lt;b&gt;wet&lt;/b&gt;?&lt;/p&gt;" />'
        '<row Id="2" PostTypeId="2" ParentId="1" OwnerUserId="7" Body="&lt;p&gt;70 %.&lt;/p&gt;" CreationDate="2026-01-01T00:00:00" />'
        '<row Id="3" PostTypeId="2" ParentId="1" OwnerUserId="8" Body="&lt;p&gt;No.&lt;/p&gt;" />'
    )
    report = load(sqlite_journal, tmp_path / "Posts.xml", f'<?xml version="1.0"?><posts>{rows}</posts>')

    assert pairs(sqlite_journal) == [("Too wet\nHow wet is wet?", "70 %.")]
    assert report.skipped == {"an answer by somebody else": 1}


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", json.dumps(QA) + "\n{broken\n", "line 2"),
        ("b.json", '[{"question": "a", "answer": "b"}, {"question": ', "near byte"),
        ("c.csv", 'question,answer\nfine,yes\n"never closed,no\n', "line 3"),
        ("d.csv", "name,age\nAda,36\n", "line 1"),
        ("e.xml", "<qa><item><question>a</question><answer>b</answer></item><item>", "line 1"),
        ("f.json", '{"a": 1}', "its top"),
        ("g.md", "\n\n  \n", "its top"),
        ("h.jsonl", "[" * 100_000, "line 1"),
        ("i.zip", "not a zip", "its packing"),
        ("j.json", '"from_id" "messages"', "near byte"),
        (
            "k.xml",
            '<!DOCTYPE q [<!ENTITY a SYSTEM "file:///etc/passwd">]><qa><item><question>a</question>'
            "<answer>&a;</answer></item></qa>",
            "document type",
        ),
        ("l.txt", b"caf\xe9 \xff\xfe\x80 broken" * 40, "near byte"),
    ],
)
def test_a_broken_file_imports_nothing_and_says_where(
    sqlite_journal: Journal, tmp_path: Path, name: str, content: str | bytes, where: str
) -> None:
    with pytest.raises(UserMistake, match=where):
        load(sqlite_journal, tmp_path / name, content)

    assert sqlite_journal.counts()["events"] == 0


@pytest.mark.parametrize("name", ["empty.csv", "picture.png"])
def test_a_file_that_is_nothing_we_read_is_refused(sqlite_journal: Journal, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserMistake):
        load(sqlite_journal, tmp_path / name, b"" if name == "empty.csv" else b"\x89PNG\r\n")


def test_missing_and_empty_places_are_named(sqlite_journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserMistake, match="no file"):
        import_paths(sqlite_journal, [tmp_path / "nowhere.csv"], CONTEXT)
    with pytest.raises(UserMistake, match="empty folder"):
        import_paths(sqlite_journal, [tmp_path / "folder"], CONTEXT)
    with pytest.raises(UserMistake, match="cannot be read: File name too long"):
        import_paths(sqlite_journal, [tmp_path / ("x" * 300)], CONTEXT)


def test_what_is_skipped_is_counted_with_its_reason(sqlite_journal: Journal, tmp_path: Path) -> None:
    rows = [QA, {"question": "", "answer": "x"}, {"question": "x", "answer": " "}, {"colour": "red"}, 7, QA]
    report = load(sqlite_journal, tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))

    assert report.exchanges == 1
    assert report.skipped == {
        "the question is empty": 1,
        "the answer is empty": 1,
        "no question and answer fields in it": 1,
        "not an object with fields": 1,
        "already known": 1,
    }


def test_importing_twice_doubles_nothing(sqlite_journal: Journal) -> None:
    context = ImportContext(CONTEXT.creator, frozenset({"telegram:user4201337", "discord:420133742013374201"}), NOON)
    sample = [Path(str(SAMPLE / name)) for name in ("qa.jsonl", "faq.md", "guide.md", "telegram", "discord")]
    first = import_paths(sqlite_journal, sample, context)
    counts = sqlite_journal.counts()

    second = import_paths(sqlite_journal, sample, context)

    assert first.exchanges > 240
    assert second.imported == 0
    assert sqlite_journal.counts() == counts


def test_a_changed_document_replaces_what_it_said(sqlite_journal: Journal, tmp_path: Path) -> None:
    for text in ("# A\n\nold words\n\n# B\n\nkept words\n", "# A\n\nnew words\n\n# B\n\nkept words\n"):
        load(sqlite_journal, tmp_path / "guide.md", text)

    assert {passage.text for passage in sqlite_journal.passages()} == {"new words", "kept words"}

    load(sqlite_journal, tmp_path / "guide.md", "# A\n\nold words\n\n# B\n\nkept words\n")
    assert {passage.text for passage in sqlite_journal.passages()} == {"old words", "kept words"}


def telegram(*messages: dict) -> str:
    head = {"name": "bakery", "type": "private_group", "id": 77}
    rows = [
        {"type": "message", "date_unixtime": str(1_780_000_000 + 60 * n), **each} for n, each in enumerate(messages)
    ]
    return json.dumps({**head, "messages": rows})


def test_telegram_pairs_by_reply_and_keeps_whose_words_are_whose(sqlite_journal: Journal, tmp_path: Path) -> None:
    load(
        sqlite_journal,
        tmp_path / "result.json",
        telegram(
            {"id": 1, "from": "Bob", "from_id": "user2", "text": ["How ", {"type": "bold", "text": "warm"}, "?"]},
            {"id": 2, "from": "Ada", "from_id": "user1", "text": "24 °C.", "reply_to_message_id": 1},
        ),
    )

    (exchange,) = sqlite_journal.exchanges()
    assert (exchange.question, exchange.answer, exchange.pairing) == ("How warm?", "24 °C.", "reply")
    assert (exchange.source, exchange.question_source) == (Source.CREATOR_ARCHIVE, Source.CHAT_EXPORT)


def test_an_export_without_the_creator_says_which_setting_is_wrong(sqlite_journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"wrote most: telegram:2 \(1\)"):
        load(
            sqlite_journal,
            tmp_path / "r.json",
            telegram({"id": 1, "from": "B", "from_id": "user2", "text": "hi there"}),
        )


def test_discord_messages_never_become_training_material(sqlite_journal: Journal, tmp_path: Path) -> None:
    def row(identity: str, author: str, text: str, **more: object) -> dict:
        return {
            "id": identity,
            "type": "Default",
            "timestamp": "2026-01-01T00:00:00.1234567+00:00",
            "content": text,
            "author": {"id": author, "name": author, "isBot": False},
            "mentions": [],
            **more,
        }

    document = {
        "guild": {"id": "5", "name": "g"},
        "channel": {"id": "6", "type": "GuildTextChat", "name": "help"},
        "messages": [row("1", "8", "How warm?"), row("2", "9", "24 °C.", type="Reply", reference={"messageId": "1"})],
    }
    load(sqlite_journal, tmp_path / "help.json", json.dumps(document))

    (exchange,) = sqlite_journal.exchanges()
    assert {exchange.source, exchange.question_source} == {Source.DISCORD_API}
    assert exchange.url == "https://discord.com/channels/5/6/2"


def test_a_data_package_gives_what_stands_alone(sqlite_journal: Journal, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as package:
        rows = [
            {"ID": 1, "Timestamp": "2026-01-01 10:00:00", "Contents": "Long words about bread. " * 20},
            {"ID": 2, "Timestamp": "2026-01-01 10:01:00", "Contents": "yes"},
        ]
        package.writestr("messages/c6/messages.json", json.dumps(rows))
    report = import_paths(sqlite_journal, [tmp_path / "package.zip"], CONTEXT)

    assert report.passages == 1
    assert report.skipped == {"a short message whose question the package does not hold": 1}


def package(path: Path, files: dict[str, str]) -> Path:
    """A Discord data package of these files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


LONG = "Long words about bread. " * 20
ROWS = json.dumps([{"ID": 1, "Timestamp": "2026-01-01 10:00:00", "Contents": LONG}])


def test_a_data_package_is_read_in_every_language_and_both_of_its_forms(
    sqlite_journal: Journal, tmp_path: Path
) -> None:
    table = f"ID,Timestamp,Contents,Attachments\n5,2020-01-01 10:00:00.1+00:00,{LONG},\n"
    files = {
        "Compte/user.json": '{"id": "9"}',
        "Messagerie/c77/messages.csv": table,
        "Messagerie/c78/messages.json": ROWS,
        "Messagerie/c78/channel.json": '{"id": "78", "type": "DM"}',
    }
    made = package(tmp_path / "p.zip", files)

    import_paths(sqlite_journal, [made], CONTEXT)

    assert {(p.place.id, p.place.visibility, p.source) for p in sqlite_journal.passages()} == {
        ("77", "public", Source.CREATOR_ARCHIVE),
        ("78", "private", Source.CREATOR_ARCHIVE),
    }


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"Account/user.json": '{"id": "8"}', "m/c1/messages.json": ROWS}, "discord:8's"),
        ({"../x": "1", "m/c1/messages.json": ROWS}, "leads out"),
        ({"m/c1/messages.json": "[" + " " * 9_000_000 + "]"}, "times its size"),
        ({"m/c1/messages.json": '[{"ID": 1,'}, "messages.json'?, near byte"),
        ({"m/c1/channel.json": "[" * 9999, "m/c1/messages.json": ROWS}, "not JSON"),
        ({"readme": "x"}, "none of its files is of a format"),
    ],
)
def test_a_package_that_is_anothers_or_an_attack_is_refused(
    sqlite_journal: Journal, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    with pytest.raises(UserMistake, match=why):
        import_paths(sqlite_journal, [package(tmp_path / "p.zip", files)], CONTEXT)

    assert sqlite_journal.counts()["events"] == 0


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("deep.json", "[" * 500_000, "nested deeper than 64"),
        ("keys.json", '{"a":' * 100_000, "nested deeper than 64"),
        ("value.json", '[{"question": "' + "a" * 17_000_000, "one value is longer"),
        ("record.json", '[{"question": [' + "1," * 9_000_000, "one record is longer"),
        ("line.jsonl", "a" * 17_000_000, "longer than 16000000"),
        ("line.csv", "question,answer\n" + "a" * 17_000_000, "longer than 16000000"),
        ("line.md", "a" * 17_000_000, "longer than 16000000"),
        ("deep.xml", "<a>" * 10_000, "line 1"),
        (
            "laughs.xml",
            '<!DOCTYPE q [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><qa x="&b;"><question>q</question></qa>',
            "document type",
        ),
        ("nul.txt", "words\x00words", "character 5: it holds NUL bytes"),
        ("latin.txt", "Q: crème brûlée?\nA: déjà vu".encode("latin-1"), "near byte 5: this is not UTF-8"),
        ("cut.txt", "\ufeffwords".encode("utf-16-le") + b"\x00", "UTF-16"),
        ("number.json", '[{"question": ' + "1" * 99_999 + "}]", "not JSON"),
        ("other.json", "question,answer\na,b\n", "not JSON"),
        ("none.jsonl", "\n\n", "no line"),
    ],
)
def test_hostile_files_are_refused_in_a_sentence(
    sqlite_journal: Journal, tmp_path: Path, name: str, content: str | bytes, why: str
) -> None:
    refused_in_a_sentence(sqlite_journal, tmp_path / name, content, why)


def test_an_error_does_not_repeat_what_the_file_says(sqlite_journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(UserMistake) as refused:
        load(sqlite_journal, tmp_path / "a.json", '[{"question": "my secret", oops}]')

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", f"{json.dumps(QA)}\n{json.dumps(QA)}\n"),
        ("list.csv", json.dumps([QA])),
        ("lines.txt", f"{json.dumps(QA)}\n{json.dumps(QA)}\n"),
        ("wide.json", json.dumps([QA]).encode("utf-16")),
        ("marked.json", "\ufeff" + json.dumps([QA])),
        ("flat.xml", "<qa><question>How warm?</question><answer>24 °C.</answer><question>x</question></qa>"),
        ("alone.xml", "<qa><question>How warm?</question><answer>24 °C.</answer></qa>"),
        ("several.txt", "Q1: How warm?\nA1: 24 °C.\n\nQ2: and then?\n"),
        ("bold.md", "**Q:** How warm?\n**A:** 24 °C.\n"),
        (
            "chat.json",
            json.dumps(
                {"messages": [{"role": "user", "content": "How warm?"}, {"role": "assistant", "content": "24 °C."}]}
            ),
        ),
        (
            "list.json",
            json.dumps(
                [{"conversations": [{"from": "human", "value": "How warm?"}, {"from": "gpt", "value": "24 °C."}]}]
            ),
        ),
    ],
)
def test_a_file_is_read_as_what_it_is_not_as_what_it_is_called(
    sqlite_journal: Journal, tmp_path: Path, name: str, content: str | bytes
) -> None:
    load(sqlite_journal, tmp_path / name, content)

    assert pairs(sqlite_journal) == ONE_PAIR


def test_a_question_may_have_lines_and_code_is_never_cut(sqlite_journal: Journal, tmp_path: Path) -> None:
    load(sqlite_journal, tmp_path / "zh.md", "问：面团\n要多热？\n答：24 度。\n\n# 做法\n```\n# not a heading?\n```\n")

    assert pairs(sqlite_journal) == [("面团\n要多热？", "24 度。")]
    assert [passage.heading for passage in sqlite_journal.passages()] == ["做法"]


def test_in_a_folder_other_files_are_counted_and_equal_names_stay_apart(
    sqlite_journal: Journal, tmp_path: Path
) -> None:
    for part in ("a", "b"):
        (tmp_path / "docs" / part).mkdir(parents=True)
        (tmp_path / "docs" / part / "index.md").write_text(f"words of {part}", encoding="utf-8")
    (tmp_path / "docs" / "photo.jpg").write_bytes(b"\xff\xd8")

    report = import_paths(sqlite_journal, [tmp_path / "docs"], CONTEXT)

    assert report.skipped == {"a file of a format that is not read": 1}
    assert {p.document for p in sqlite_journal.passages()} == {"docs/a/index.md", "docs/b/index.md"}


def test_a_document_longer_than_a_batch_is_one_document(sqlite_journal: Journal, tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "Words about bread. " * 40 for number in range(1100))
    first = load(sqlite_journal, tmp_path / "book.txt", text)
    again = load(sqlite_journal, tmp_path / "book.txt", text)
    shorter = load(sqlite_journal, tmp_path / "book.txt", "only this is left")

    assert first.passages > 1000
    assert again.imported == 0
    assert shorter.passages == 1
    assert [passage.text for passage in sqlite_journal.passages()] == ["only this is left"]


def test_an_edited_message_in_a_later_export_changes_the_exchange(sqlite_journal: Journal, tmp_path: Path) -> None:
    asked = {"id": 1, "from": "Bob", "from_id": "user2", "text": "How warm?"}
    answered = {"id": 2, "from": "Ada", "from_id": "user1", "text": "24.", "reply_to_message_id": 1}
    load(sqlite_journal, tmp_path / "r.json", telegram(asked, answered))
    edited = {**answered, "text": "25.", "edited_unixtime": "1790000000"}
    for _ in range(2):
        load(sqlite_journal, tmp_path / "r.json", telegram(asked, edited))

    assert pairs(sqlite_journal) == [("How warm?", "25.")]


def test_telegram_leaves_out_what_is_not_its_authors_own(sqlite_journal: Journal, tmp_path: Path) -> None:
    mine = {"from": "Ada", "from_id": "user1", "text": "words"}
    report = load(
        sqlite_journal,
        tmp_path / "r.json",
        telegram(
            {"id": 1, **mine},
            {"id": 2, **mine, "forwarded_from": None},
            {"id": 3, **mine, "via_bot": "@gif"},
            {"id": 4, **mine, "text": "", "photo": "p.jpg"},
            {"id": 5, "type": "service", "action": "pin_message", "text": ""},
            {"id": 6, "text": "words", "from_id": None},
            {"id": 1, **mine},
        ),
    )

    assert report.imported == 1
    assert report.skipped == {
        "forwarded from somebody else": 1,
        "written by a bot": 1,
        "no text, only media": 1,
        "a service message": 1,
        "no time or no author": 1,
        "already known": 1,
    }


@pytest.mark.parametrize(
    "date", ["0000-01-01", "0001-01-01T00:00:00", "1969-12-31", "2200-01-01", "9999-12-31T23:59:59-05:00", "soon", -1]
)
def test_a_date_that_cannot_be_kept_costs_one_record_and_not_the_import(
    sqlite_journal: Journal, tmp_path: Path, date: str | int
) -> None:
    """In every format that has dates; the record after it is imported."""
    author = {"from": "Ada", "from_id": "user1", "text": "words"}
    discord = {"type": "Default", "content": "words", "author": {"id": "9"}}
    long = {"Contents": "Long words about bread. " * 20}
    export = {
        "guild": {"id": "5"},
        "channel": {"id": "6", "type": "GuildTextChat"},
        "messages": [
            {"id": "1", **discord, "timestamp": date},
            {"id": "2", **discord, "timestamp": "2026-01-01", "timestampEdited": date},
        ],
    }
    package_rows = [{"ID": 1, **long, "Timestamp": date}, {"ID": 2, **long, "Timestamp": "2026-01-01"}]
    posts = (
        f'<posts><row Id="1" PostTypeId="1" Title="How?" /><row Id="2" PostTypeId="2" ParentId="1" OwnerUserId="7" '
        f'Body="a" CreationDate="{date}" /><row Id="3" PostTypeId="2" ParentId="1" OwnerUserId="7" Body="b" /></posts>'
    )
    pair = "<i{}><question>{}</question><answer>a</answer></i>"
    texts = {
        "telegram.json": telegram({"id": 1, **author, "date_unixtime": date}, {"id": 2, **author}),
        "discord.json": json.dumps(export),
        "rows.csv": f"question,answer,date\nHow?,a,{date}\nWhy?,a,\n",
        "rows.jsonl": json.dumps({**QA, "at": date}) + "\n" + json.dumps({**QA, "at": date, "created": "2026-01-01"}),
        "posts.xml": posts,
        "pairs.xml": "<qa>" + pair.format(f' date="{date}"', "How?") + pair.format("", "Where?") + "</qa>",
    }
    paths = [package(tmp_path / "package.zip", {"p/messages/c6/messages.json": json.dumps(package_rows)})]
    for name, text in texts.items():
        paths.append(tmp_path / name)
        paths[-1].write_text(text, encoding="utf-8")

    for path in paths:
        report = import_paths(sqlite_journal, [path], CONTEXT)

        assert report.imported > 0, path.name
        assert sorted(report.skipped.values()) == [1], path.name


def test_a_full_telegram_export_keeps_chats_apart_and_private_ones_private(
    sqlite_journal: Journal, tmp_path: Path
) -> None:
    def chat(number: int, kind: str) -> dict:
        rows = json.loads(
            telegram(
                {"id": 1, "from": "Bob", "from_id": "user2", "text": f"How warm in {number}?"},
                {"id": 2, "from": "Ada", "from_id": "user1", "text": "24.", "reply_to_message_id": 1},
            )
        )
        return {"name": f"c{number}", "type": kind, "id": number, "messages": rows["messages"]}

    export = {
        "about": "Here is the data you requested.",
        "personal_information": {"user_id": 1},
        "contacts": {"list": [{"first_name": "x" * 100}] * 900},
        "chats": {"list": [chat(7, "private_supergroup"), chat(2, "personal_chat"), chat(3, "verification_codes")]},
    }
    load(sqlite_journal, tmp_path / "result.json", json.dumps(export))

    assert {(e.place.id, e.place.visibility, e.question) for e in sqlite_journal.exchanges()} == {
        ("-1007", "public", "How warm in 7?"),
        ("export-2", "private", "How warm in 2?"),
    }


def test_telegram_topics_are_threads_and_their_start_is_no_reply(sqlite_journal: Journal, tmp_path: Path) -> None:
    load(
        sqlite_journal,
        tmp_path / "r.json",
        telegram(
            {"id": 1, "type": "service", "action": "topic_created", "title": "rye", "text": ""},
            {"id": 2, "from": "Bob", "from_id": "user2", "text": "How long?", "reply_to_message_id": 1},
            {"id": 3, "from": "Eve", "from_id": "user3", "text": "How warm in the main chat?"},
            {"id": 4, "from": "Ada", "from_id": "user1", "text": "An hour.", "reply_to_message_id": 1},
        ),
    )

    (exchange,) = sqlite_journal.exchanges()
    assert (exchange.question, exchange.place.thread, exchange.pairing) == ("How long?", "1", "thread")


@pytest.mark.parametrize("top", ["qa", "posts"])
def test_elements_that_say_nothing_are_not_kept_without_end(
    sqlite_journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    monkeypatch.setattr(xml, "MOST_ELEMENTS", 100)
    pair, post = "<item><question>How warm?</question><answer>24 °C.</answer></item>", "<row PostTypeId='1'/>"

    load(sqlite_journal, tmp_path / "many.xml", f"<qa>{pair * 60}</qa>")

    with pytest.raises(UserMistake, match="over 100 elements"):
        load(sqlite_journal, tmp_path / "empty.xml", f"<{top}>{post if top == 'posts' else ''}{'<x/>' * 200}</{top}>")


def test_an_owners_id_is_offered_when_none_is_configured(sqlite_journal: Journal, tmp_path: Path) -> None:
    row = {
        "id": 1,
        "type": "message",
        "date_unixtime": "1780000000",
        "from": "Zoe",
        "from_id": "user55",
        "text": "hi all",
    }
    export = {
        "personal_information": {"user_id": 55},
        "chats": {"list": [{"name": "x", "type": "private_group", "id": 4, "messages": [row]}]},
    }
    with pytest.raises(UserMistake, match="owner is telegram:55") as refused:
        load(sqlite_journal, tmp_path / "result.json", json.dumps(export))

    assert "Zoe" not in str(refused.value)


def test_stack_exchange_without_the_creator_offers_ids(sqlite_journal: Journal, tmp_path: Path) -> None:
    row = '<row Id="2" PostTypeId="2" ParentId="1" OwnerUserId="8" Body="No." />'
    with pytest.raises(UserMistake, match=r"stackexchange:8 \(1\)"):
        load(sqlite_journal, tmp_path / "Posts.xml", f"<posts>{row}</posts>")


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "xml", "txt"])
def test_a_large_file_is_streamed(tmp_path: Path, kind: str) -> None:
    """25 MB in far less memory than that: counted in a process of its own."""
    question, answer = "How warm? " * 20, "24 °C. " * 20
    row, before, after = {
        "json": (json.dumps({"question": question, "answer": answer}) + ",\n", "[", "{}]"),
        "jsonl": (json.dumps({"question": question, "answer": answer}) + "\n", "", ""),
        "csv": (f'"{question}","{answer}"\n', "question,answer\n", ""),
        "xml": (f"<i><question>{question}</question><answer>{answer}</answer></i>", "<qa>", "</qa>"),
        "txt": (f"{question}\n\n", "", ""),
    }[kind]
    path = tmp_path / f"large.{kind}"
    with path.open("w", encoding="utf-8") as file:
        file.write(before)
        for _ in range(25_000_000 // (1000 * len(row.encode()))):
            file.write(row * 1000)
        file.write(after)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from memory.importing import format_of; from tests.memory.test_importing import CONTEXT\n"
        "path = Path(sys.argv[1]); chosen = format_of(path); next(chosen.read(path, CONTEXT))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(1 for _ in chosen.read(path, CONTEXT))\n"
        "print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )

    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)

    count, grown_mib = map(int, done.stdout.split())
    assert count > 25_000
    assert grown_mib < 10


@pytest.mark.parametrize("name", ["qa.jsonl", "book.txt"])
def test_an_import_that_was_killed_half_way_can_be_repeated(sqlite_journal: Journal, tmp_path: Path, name: str) -> None:
    path, whole = tmp_path / name, Journal.open(f"sqlite:///{tmp_path / 'whole.db'}")
    rows = [json.dumps({"question": f"q{n}?", "answer": "a"}) for n in range(1200)]
    text = "\n".join(rows) if name == "qa.jsonl" else "\n\n".join(f"{n} " + "words " * 130 for n in range(700))
    path.write_text(text, encoding="utf-8")

    def killed() -> Iterator[Record]:
        yield from islice(format_of(path).read(path, CONTEXT), 600)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal_file(sqlite_journal, path, killed(), context=CONTEXT, report=ImportReport())
    for journal in (sqlite_journal, whole):
        import_paths(journal, [path], CONTEXT)

    assert sqlite_journal.counts() == whole.counts()
    whole.close()
