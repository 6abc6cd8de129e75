"""Every format, told by itself; every skipped record counted; a broken file imports nothing and says where."""

import json
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from infra.errors import UserMistake
from memory.importers.records import ImportContext
from memory.importing import ImportReport, import_paths
from memory.journal import Journal
from memory.messages import Person, Source
from tests.people import NOON

SAMPLE = files("memory") / "sample"
KEYS = frozenset({"own:creator", "telegram:user1", "discord:9", "stackexchange:7"})
CONTEXT = ImportContext(Person("own", "creator", "Ada", role="creator"), KEYS, NOON)


def load(journal: Journal, path: Path, content: str | bytes) -> ImportReport:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_paths(journal, [path], CONTEXT)


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
        ("i.zip", "not a zip", "its index"),
        ("j.json", '"from_id" "messages"', "near byte"),
        (
            "k.xml",
            '<!DOCTYPE q [<!ENTITY a SYSTEM "file:///etc/passwd">]><qa><item><question>a</question>'
            "<answer>&a;</answer></item></qa>",
            "entities",
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
    rows = [{"type": "message", "date_unixtime": str(1_780_000_000 + n), **each} for n, each in enumerate(messages)]
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
    with pytest.raises(UserMistake, match="creator.ids must hold telegram:from_id"):
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


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """40 MB of rows in far less memory than that: counted in a process of its own."""
    path = tmp_path / "large.json"
    row = json.dumps({"question": "How warm? " * 20, "answer": "24 °C. " * 20})
    with path.open("w", encoding="utf-8") as file:
        file.write("[" + ",".join([row] * 1000))
        for _ in range(110):
            file.write("," + ",".join([row] * 1000))
        file.write("]")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from memory.importers import jsonfile; from tests.memory.test_importing import CONTEXT\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(1 for _ in jsonfile.read(Path(sys.argv[1]), CONTEXT))\n"
        "print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    assert path.stat().st_size > 40_000_000

    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)

    count, grown_mib = map(int, done.stdout.split())
    assert count == 111_000
    assert grown_mib < 20
