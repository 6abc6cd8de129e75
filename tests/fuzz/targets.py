"""The table of what is fuzzed: a few lines for each reader of what strangers write, with inputs to begin from."""

import bz2
import gzip
import json
import lzma
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import SimpleNamespace
from typing import Any

from bot import delivery, discord_show, discord_values, telegram_show, telegram_values, wording
from bot.screens import Form, Screen, plain
from infra.adapters import AdapterStore
from infra.backup import backups, unpack
from infra.errors import UnderstudyError
from infra.queue import make_app
from infra.remote import Remote, address_file
from infra.runs import Runs
from infra.settings import CONFIG, load_settings
from infra.voice.gguf_check import check_adapter, check_base
from memory import wording as talk
from memory.alike import normal_form
from memory.codec import cleaned, encoded, exchange_from, passage_from
from memory.elsewhere import RecallElsewhere
from memory.extract import Rules
from memory.importers import archives
from memory.importers.records import ImportContext, Record
from memory.importing import event_of, format_of, import_paths
from memory.journal import Journal
from memory.lexicon import learn
from memory.messages import Event, Exchange, Kind, Passage, Person, Source
from memory.names import Names
from memory.persona import PersonaCard
from memory.profile import FIELDS, Profile, edited, manner_of, prompt_text
from memory.prompt import estimate_tokens, render
from memory.readings import name_key
from memory.remember import passage_event
from memory.terms import content_terms, document_weights, query_weights, shared_words
from memory.tombstones import read_tombstones
from tests.fuzz.harness import Target
from tests.memory.making import GROUP, taught
from tests.people import ADA, NOON

KEYS = frozenset({"own:creator", "telegram:user1", "discord:9", "stackexchange:7"})
CONTEXT = ImportContext(Person("own", "creator", "Ada", role="creator"), KEYS, NOON)
SECRET = "s3cret-that-no-sentence-shows-"


def text_of(data: bytes) -> str:
    """Bytes as a text that a journal can hold."""
    return data.decode("utf-8", "replace").replace("\x00", "\ufffd")


# Files that somebody imports.


def keep(record: Record) -> None:
    """What an import does with a record before the journal: it must be what the journal can hold."""
    if isinstance(record, Passage):
        cleaned(passage_event(record, revision=0))
        assert passage_from(encoded(record)).id == record.id
    elif (event := event_of(record)) is not None:
        cleaned(event)
        if isinstance(record, Exchange):
            assert exchange_from(encoded(record)).id == record.id


def imported(name: str) -> Callable[[bytes, Path], None]:
    """Reads a file of that name; zips of documents are unpacked by the target `importing`."""

    def feed(data: bytes, room: Path) -> None:
        path = room / name
        path.write_bytes(data)
        chosen = format_of(path)
        if chosen is not None and chosen is not archives:
            for record in chosen.read(path, CONTEXT):
                keep(record)

    return feed


def packed(name: str, parts: Callable[[], Mapping[str, bytes]]) -> Callable[[bytes, Path], None]:
    """The first byte says which part of a zip the others are."""

    def feed(data: bytes, room: Path) -> None:
        whole = dict(parts())
        chosen = list(whole)[data[0] % len(whole)] if data else ""
        imported(name)(zipped({**whole, chosen: data[1:]} if chosen else whole), room)

    return feed


def each_part(parts: Callable[[], Mapping[str, bytes]]) -> Callable[[], list[bytes]]:
    return lambda: [bytes([number]) + content for number, content in enumerate(parts().values())]


def zipped(parts: Mapping[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return out.getvalue()


def file_of(make: Callable[[Path], object]) -> bytes:
    """What is written into a file."""
    with TemporaryDirectory() as folder:
        make(Path(folder) / "made")
        return (Path(folder) / "made").read_bytes()


def parts_of(packed: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def word() -> Mapping[str, bytes]:
    """The parts of a Word file, those first that decide most."""
    from tests.memory import test_formats

    found = parts_of(file_of(test_formats.word))
    first = ("word/document.xml", "docProps/core.xml", "[Content_Types].xml", "word/_rels/document.xml.rels")
    return {name: found[name] for name in (*first, *found)}


@cache
def book() -> Mapping[str, bytes]:
    from tests.memory import test_formats

    return parts_of(file_of(partial(test_formats.book, OPS__toc__ncx="<ncx><navMap/></ncx>")))


@cache
def page() -> bytes:
    from tests.memory import test_formats

    return file_of(lambda path: test_formats.pdf(path, "Round it tight.\nFlour it.", "Bake it.", title="Handbook"))


LONG = "Long words about bread. " * 20
PACKAGE = {
    "messages/c1/messages.json": json.dumps([{"ID": 1, "Timestamp": "2026-01-01 10:00:00", "Contents": LONG}]).encode(),
    "messages/c1/channel.json": b'{"id": "1", "type": "DM", "name": "x"}',
    "messages/c2/messages.csv": f"ID,Timestamp,Contents,Attachments\n5,2020-01-01 10:00:00.1+00:00,{LONG},\n".encode(),
    "Account/user.json": b'{"id": "9"}',
}
QA = b'{"question": "How warm?", "answer": "24 \\u00b0C.", "date": "2026-01-01", "topic": "Dough", "url": "https://a.example"}'
TURNS = b'{"messages": [{"role": "user", "content": "How warm?"}, {"role": "assistant", "content": [{"text": "24."}]}]}'
ALPACA = b'{"instruction": "Say", "input": "it", "output": "24 C", "provenance": {"kind": "synthetic"}}'
SHARED = b'{"conversations": [{"from": "human", "value": "How warm?"}, {"from": "gpt", "value": "24."}]}'
TELEGRAM = json.dumps(
    {
        "name": "Bakery", "type": "private_supergroup", "id": 5,
        "messages": [
            {"id": 1, "type": "message", "date": "2026-01-01T10:00:00", "date_unixtime": "1767261600", "from": "Bob",
             "from_id": "user2", "text": "How warm?", "text_entities": [{"type": "plain", "text": "How warm?"}]},
            {"id": 2, "type": "message", "date": "2026-01-01T10:01:00", "from": "Ada", "from_id": "user1",
             "reply_to_message_id": 1, "text": ["24 ", {"type": "bold", "text": "degrees"}], "edited_unixtime": "1767261700",
             "text_entities": [{"type": "mention_name", "text": "Bob", "user_id": 2}, {"type": "plain", "text": "24"}]},
            {"id": 3, "type": "service", "action": "topic_created"}, {"id": 4, "type": "message", "via_bot": "@gif"},
        ],
    }
).encode()  # fmt: skip
DISCORD = json.dumps(
    {
        "guild": {"id": "4", "name": "Bakers"},
        "channel": {"id": "5", "name": "help", "type": "GuildPublicThread", "categoryId": "6"},
        "messages": [
            {"id": "1", "type": "Default", "timestamp": "2026-01-01T10:00:00+00:00", "content": "How warm?",
             "author": {"id": "8", "name": "bob", "nickname": "Bob", "isBot": False}, "mentions": [{"id": "9"}]},
            {"id": "2", "type": "Reply", "timestamp": "2026-01-01T10:01:00+00:00", "timestampEdited": None, "content": "24.",
             "author": {"id": "9", "name": "ada"}, "mentions": [], "reference": {"messageId": "1", "channelId": "5"}},
        ],
    }
).encode()  # fmt: skip
POSTS = b"""<?xml version="1.0" encoding="utf-8"?><posts>
<row Id="1" PostTypeId="1" Title="How warm?" Body="&lt;p&gt;Dough&lt;/p&gt; &lt;pre&gt;x&lt;/pre&gt;" OwnerUserId="2"/>
<row Id="2" PostTypeId="2" ParentId="1" Body="&lt;p&gt;24.&lt;/p&gt;" OwnerUserId="7" CreationDate="2026-01-01T10:00:00"/></posts>"""
PAIRS = b"<qa><item date='2026-01-01'><question>How warm?</question><answer>24.</answer><topic>x</topic></item></qa>"
TURN_BY_TURN = b"<qa><question>How warm?</question><answer>24.</answer><question>Why?</question></qa>"
MARKDOWN = """---
title: Handbook
url: https://a.example
---
# Bread

## How warm?

24 degrees. 面团要二十四度。

```python
bake()
```
| a | b |
| - | - |

Q: Why?
A: Because.
""".encode()
HTML = b"""<!DOCTYPE html><html><head><meta charset="utf-8"><title>Loaf</title><link rel="canonical" href="https://a.example">
</head><body><nav>x</nav><article><h1>Flour</h1><p>Strong<br>white.</p><ul><li>a<li>b</ul><table><tr><td>1<td>2</table>
<pre>code</pre><p hidden>no</p></article></body></html>"""
BOOKMARKS = b"""<!DOCTYPE NETSCAPE-Bookmark-file-1><DL><p><DT><H3>Bread</H3><DL><p><DT><A HREF="https://a.example">Flour</A>
<DD>About flour</DL></DL>"""
LINKS = (
    b"# Bread\n- [Flour](https://a.example/f) all about it\nmore\n* https://b.example - water\n1. https://c.example\n"
)
SRT = b"1\n00:00:01,000 --> 00:00:02,500\nRound it tight.\n\n2\n00:00:03,000 --> 00:00:04,000\nFlour it.\n"
VTT = b"WEBVTT\n\nNOTE https://v.example/1\n\n00:01.000 --> 00:02.500 align:start\n<v Ada>Round it.</v>\n\n1\n00:00:03.000 --> 00:00:04.000\nRound it. Tight.\n"
XML_WORDS = (
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&b;",
    b"<!--",
    b"-->",
    b"<![CDATA[",
    b"<?x ?>",
    b"<question>",
    b"<answer>",
    b"</x>",
    b"&#0;",
    b"&#55296;",
)
HTML_WORDS = (
    *XML_WORDS,
    b"<div>",
    b"<table>",
    b"<li>",
    b"<h1>",
    b"<p hidden>",
    b'charset="idna"',
    b'charset="punycode"',
    b"<article>",
    b'class="page_wrap"',
)
JSON_WORDS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"null",
    b"\\ud800",
    b"\\u0000",
    b'"messages":[',
    b'"id":',
    b"1e400",
)


def import_named(data: bytes, room: Path) -> None:
    """A whole import into a journal; the first byte says what the file is called, and whether it lies in a folder."""
    name = NAMES[(data[0] if data else 0) % len(NAMES)]
    folder = room / "given"
    folder.mkdir()
    (folder / name).write_bytes(data[1:])
    given = folder if data and data[0] >= 128 else folder / name
    import_paths(a_journal(), [given], CONTEXT, prune=True)
    assert sorted(path.name for path in room.rglob("*")) == sorted(["given", name])


NAMES = (
    "a.csv",
    "b.json",
    "c.jsonl",
    "d.xml",
    "e.md",
    "f.txt",
    "g.html",
    "h.pdf",
    "i.docx",
    "j.epub",
    "k.srt",
    "l.zip",
    "m",
)


def whole_files() -> list[bytes]:
    a_journal()  # made where no case is under way
    inner = zipped({"deep/a.md": MARKDOWN, "../b.txt": b"x"})
    zips = [
        zipped({"a.md": MARKDOWN, "b/c.html": HTML, "d.zip": inner}),
        zipped(PACKAGE),
        zipped(word()),
        zipped(book()),
    ]
    files = [
        b"question,answer\nHow?,So.\n",
        QA,
        QA + b"\n" + QA,
        PAIRS,
        MARKDOWN,
        LINKS,
        HTML,
        page(),
        *zips,
        SRT,
        TELEGRAM,
    ]
    return [bytes([number % len(NAMES)]) + each for number, each in enumerate(files)] + [
        b"\x8c" + each for each in zips
    ]


@cache
def a_journal() -> Journal:
    """Not in the room: it outlives a case."""
    return Journal.open(f"sqlite:///{Path(mkdtemp(prefix='fuzz-'))}/journal.db")


# What goes to platforms, and what comes from them.


def split(data: bytes, room: Path) -> None:
    """Parts fit, in the platform's own unit; nothing but blanks is lost; what belongs together stays so."""
    text = text_of(data[1:])
    for size, limit in ((delivery.utf16, 4096), (len, 2000), (delivery.utf16, 24 + (data[0] if data else 0))):
        parts = delivery.split(text, limit, size=size)
        assert all(0 < size(part) <= limit for part in parts)
        assert is_within(bare(text), bare("".join(parts)))
        assert len(parts) <= 4 + 6 * size(text) / limit
        # Without code, of which each part is opened and closed; what a part begins with may be read as such.
        if not any(map(delivery.FENCE.search, (text, *parts))):
            assert bare("".join(parts)) == bare(text)
            for match in delivery.WHOLE.finditer(text.strip()):
                fits = size(match[0]) <= limit // 2
                assert not fits or match[0].count("\u200d") or any(match[0] in part for part in parts), match[0]
            # What is longer than half a part may be cut.
            assert is_within([each for each in signs(text) if size(each) < limit // 4], signs("\n".join(parts)))


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


def is_within(few: Sequence[str], more: Sequence[str]) -> bool:
    """Whether all of some characters stand among others, in their order."""
    left = iter(more)
    return all(sign in left for sign in few)


def signs(text: str) -> list[str]:
    """The characters as people see them, without blanks."""
    import regex

    return [found for each in regex.findall(r"\X", text) if (found := bare(each))]


def shown(data: bytes, room: Path) -> None:
    """Messages as the two platforms take them."""
    text = text_of(data)
    for part in telegram_show.parts_of(Screen(text)):
        raw = part.text.encode("utf-16-le")
        assert 0 < len(raw) <= 2 * telegram_show.MOST_TEXT
        for entity in part.entities:
            begin, end = 2 * entity.offset, 2 * (entity.offset + entity.length)
            assert 0 <= begin < end <= len(raw), entity
            raw[begin:end].decode("utf-16-le")
    assert delivery.utf16(telegram_show.question(Form("a", "Title", "Label", text)).text) <= telegram_show.MOST_TEXT
    assert all(0 < len(part.text) <= discord_show.MOST_TEXT for part in discord_show.parts_of(Screen(text)))
    assert not set(plain(text)) & set("[]()<>*_`~|@#\\\n")


def telegram_update(data: bytes, room: Path) -> None:
    """Whatever python-telegram-bot takes for a message has a value here."""
    from telegram import User

    me, message = User(77, "Twin", True, username="ada_twin"), message_in(data)
    if message is None:
        return
    people = SimpleNamespace(person=lambda platform, identity, name="", bot=False: Person(platform, identity, name))
    said = telegram_values.said_of(people, message, me)
    json.dumps(encoded(said)).encode()
    telegram_values.addressed(message, me)
    telegram_values.other_command(message)
    telegram_values.language_for(message.from_user, "en")
    telegram_values.answering_language(said.text, "zh-TW")


def message_in(data: bytes) -> Any:
    """The message of an update; None for what the library refuses, or takes with values of types that nobody sends."""
    from telegram import Update

    try:
        update = Update.de_json(json.loads(data), None)
        message = update.effective_message if update else None
        marks = telegram_values.content_of(message)[1] if message else ()
        texts = (
            [message.text, message.caption, message.from_user and message.from_user.language_code] if message else []
        )
    except Exception:  # noqa: BLE001  whatever the library makes of it
        return None
    plain_types = all(isinstance(text, str | None) for text in texts) and all(
        isinstance(at, int) for each in marks for at in (each.offset, each.length)
    )
    return message if plain_types and message and message.chat else None


def update_of(**fields: Any) -> bytes:
    chat = {"id": -1005, "type": "supergroup", "title": "Bakery", "is_forum": True}
    person = {"id": 2, "is_bot": False, "first_name": "Bob", "language_code": "zh-hans"}
    message = {"message_id": 5, "date": 1767261600, "chat": chat, "from": person, **fields}
    return json.dumps({"update_id": 1, "message": message}, ensure_ascii=False).encode()


def updates() -> list[bytes]:
    marks = [{"type": "mention", "offset": 3, "length": 9}, {"type": "bot_command", "offset": 0, "length": 2}]
    reply = {"message_id": 4, "date": 1, "chat": {"id": -1005, "type": "supergroup"}, "text": "x"}
    return [
        update_of(text="/a @ada_twin 👩‍🚀 how warm?", entities=marks, is_topic_message=True, message_thread_id=9),
        update_of(
            caption="👩‍🚀 @ada_twin 问",
            caption_entities=[{"type": "mention", "offset": 6, "length": 9}],
            edit_date=1767261700,
        ),
        update_of(text="hi", reply_to_message=reply, sender_chat={"id": -1006, "type": "channel", "title": "Ada"}),
        update_of(
            text="x",
            entities=[
                {
                    "type": "text_mention",
                    "offset": 0,
                    "length": 1,
                    "user": {"id": 77, "is_bot": True, "first_name": "T"},
                }
            ],
        ),
    ]


def discord_message(data: bytes, room: Path) -> None:
    """The words of a message, as memory and readers get them."""
    text = text_of(data)
    message = SimpleNamespace(content=text, mentions=[SimpleNamespace(id=5, name="bob")])
    assert "<@5>" not in discord_values.text_of(message, me=5)
    assert discord_values.language_of_locale(text) in wording.LANGUAGES


# Settings.

SECRETS = ("API__TOKEN", "JOURNAL__PASSWORD", "QUEUE__PASSWORD", "TEACHER__TOKEN", "DISCORD__TOKEN", "TELEGRAM__TOKEN")
TOML = b"""preset = "tiny"
[creator]
name = "Ada"
ids = ["telegram:1"]
[api]
port = 8400
[voice]
urls = ["http://10.0.0.2:8321"]
[schedule]
cron = "17 3 * * 0"
time_zone = "UTC"
quiet = "08:00-23:30"
[retention.places]
"telegram:-1" = 3
[permissions.discord_training]
reference = "ticket"
date = 2026-01-01
[telegram]
webhook_url = "https://a.example/x"
api = "https://api.telegram.org"
"""


def settings(data: bytes, room: Path) -> None:
    """A file, then after a line of dashes variables, the last of them in `.env`: settings or a sentence, no secret."""
    file, _, rest = data.partition(b"\n----\n")
    variables, _, env = rest.partition(b"\n----\n")
    (room / CONFIG).write_bytes(file)
    if env:
        (room / ".env").write_bytes(env)
    pairs = (line.partition(b"=") for line in variables.split(b"\n"))
    given = {b"UNDERSTUDY_" + name: value for name, _, value in pairs if name and value and b"\x00" not in name + value}
    # Where a secret stands is ours to say, else it might be called a name.
    hidden = (SECRET + variables[:20].decode("latin-1")).replace("\x00", "")
    given |= {f"UNDERSTUDY_{name}".encode(): hidden.encode("latin-1") for name in SECRETS if len(file) % 2}
    before = dict(os.environb)
    os.environb.update(given)
    try:
        found = load_settings(room)
        assert SECRET not in repr(found)
        repr(
            (
                found.journal_url,
                found.queue_url,
                found.models,
                found.creator_keys,
                found.data_folder,
                found.schedule.hours,
            )
        )
    except UnderstudyError as error:
        if SECRET in str(error):
            raise AssertionError("a secret is said") from error
        raise
    finally:
        os.environb.clear()
        os.environb.update(before)


def installations() -> list[bytes]:
    return [
        TOML,
        TOML + b"\n----\nAPI__PORT=8400\nCREATOR__IDS=[\"telegram:1\"]\nRETENTION__PLACES={\"telegram:1\": 5}\n----\nUNDERSTUDY_API__HOST=127.0.0.1\n",
        b'preset = "custom"\n[creator]\nname = "Ada"\n[custom]\nbase = "a"\ngguf = "b"\nembedder = "c"\n[journal]\nkey_file = "/k"\nurl = "sqlite:///x.db"\n',
        b'[creator]\nname = "Ada"\n[queue]\nurl = "redis://h/0"\n[teacher]\nurl = "https://t.example"\nname = "x"\n\n----\nAPI__TOKEN_FILE=understudy.toml\nPRESET=tiny\n',
    ]  # fmt: skip


# What lies in the data folder, and what is restored into it.

VERSION = "20260101T000000Z-abcdefgh"


@cache
def lying() -> Mapping[str, bytes]:
    """Small files that the program reads, by their places in a data folder."""
    passed = {"passed": True, "reasons": []}
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
        "given": "none",
        "use": "train",
        "provenance": {},
    }
    pinned = [{"community": "discord:1", "language": "en", "version": VERSION}]
    values: dict[str, Any] = {
        "adapters/current.json": {"current": VERSION, "previous": None, "canary": {"version": VERSION, "share": 0.1, "since": "2026"}, "pinned": pinned},
        f"adapters/{VERSION}/manifest.json": {"version": VERSION, "verdict": passed, "files": {"adapter.gguf": "0" * 64, "../x": "1"}},
        f"adapters/{VERSION}/evalcard.json": a_card(),
        f"adapters/{VERSION}.tainted.json": {"reason": "it was forgotten"},
        f"adapters/{VERSION}.tried.json": {"adapter": "0", "base": "1", "llama": "2"},
        "runs/a/dataset/manifest.json": {"kind": "dataset", "id": "a", "files": {}},
        "runs/a/dataset/train.jsonl": row,
        "backups.json": ["/a/b.tar", "sftp://h/x.tar"],
        "forgotten.json": {"last": 1, "tombstones": [{"at": "2026-01-01T00:00:00.000000Z", "selection": {"person": "telegram:1"}}]},
        "run/api.json": {"host": os.uname().nodename, "pid": os.getpid(), "url": "http://127.0.0.1:1", "token": None},
    }  # fmt: skip
    return {name: json.dumps(value).encode() for name, value in values.items()}


def a_card() -> dict[str, Any]:
    from trainer.card import MEASURES, EvalCard, Interval, Item, System, to_json

    items = [Item("a", dict.fromkeys(MEASURES, 0.5))]
    system = System("base", items, 0.5)
    against = {"base": {name: Interval(0.1, 0.0, 0.2) for name in MEASURES}}
    card = EvalCard(("q",), ("r",), system, system, None, against, 0.7, 1, 1.0, "d", sources=(("s",),))
    return json.loads(json.dumps(to_json(card)))


def data_folder(data: bytes, room: Path) -> None:
    """One file of a data folder says something else; everything that reads it is asked."""
    from trainer.dataset import load
    from trainer.evals import load_card

    chosen = list(lying())[(data[0] if data else 0) % len(lying())]
    home = load_settings(written(room, {CONFIG: b'[creator]\nname = "Ada"\n'}))
    for name, content in lying().items():
        if name == chosen or not name.endswith((".tainted.json", ".tried.json")):
            written(home.data_folder, {name: data[1:] if name == chosen else content})
    (home.data_folder / "adapters" / VERSION / "adapter.gguf").write_bytes(b"GGUF")
    store, folder = AdapterStore(home.data_folder / "adapters"), home.data_folder / "adapters" / VERSION
    asked: list[Callable[[], object]] = [
        store.current, store.previous, store.aim, store.pins, store.versions, partial(store.listing, VERSION),
        partial(store.verify, VERSION), partial(store.may_speak, VERSION), partial(store.tried, VERSION, "1"),
        partial(store.tainted, VERSION), partial(store.card, VERSION), partial(store.point, VERSION),
        partial(store.vouch, VERSION, "adapter.gguf"),
        lambda: load_card(folder),
        lambda: load(home.data_folder / "runs" / "a" / "dataset").rows("train"),
        partial(backups, home.data_folder), partial(read_tombstones, home.data_folder), partial(Remote.here, home),
    ]  # fmt: skip
    assert address_file(home).relative_to(home.data_folder).as_posix() in lying()
    refused: UnderstudyError | None = None
    for ask in asked:
        try:
            ask()
        except UnderstudyError as error:
            refused = error
    if refused is not None:
        raise refused


def written(folder: Path, parts: Mapping[str, bytes]) -> Path:
    for name, content in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def restored(data: bytes, room: Path) -> None:
    (room / "b.tar").write_bytes(data)
    (room / "into").mkdir()
    unpack(room / "b.tar", room / "into")


def described(data: bytes, room: Path) -> None:
    """A backup of which the manifest is somebody's."""
    tarred({"manifest.json": data, "a.txt": b"a"}, room / "b.tar")
    (room / "into").mkdir()
    unpack(room / "b.tar", room / "into")


def tarred(parts: Mapping[str, bytes], path: Path) -> bytes:
    with tarfile.open(path, "w") as tar:
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return path.read_bytes()


MANIFEST = b'{"format": 1, "files": {"a.txt": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}, "counts": {}}'


def backups_made() -> list[bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "b.tar"
        found = [tarred({"manifest.json": MANIFEST, "a.txt": b"a"}, path)]
        found += [lzma.compress(found[0]), bz2.compress(found[0]), gzip.compress(found[0])]
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            with tarfile.open(path, "w:gz") as tar:
                for name in ("manifest.json", "a.txt"):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.linkname = kind, "../../etc/passwd" if name == "a.txt" else "manifest.json"
                    tar.addfile(entry)
            found.append(path.read_bytes())
    return found


# Models.


@cache
def models() -> tuple[bytes, bytes]:
    """A base of one matrix, and an adapter for it."""
    import gguf
    import numpy as np

    found = []
    with TemporaryDirectory() as folder:
        for kind, tensors in (
            ("model", {"blk.0.attn_q.weight": (32, 32), "token_embd.weight": (32, 32)}),
            ("adapter", {"blk.0.attn_q.weight.lora_a": (2, 32), "blk.0.attn_q.weight.lora_b": (32, 2)}),
        ):
            path = Path(folder) / kind
            writer = gguf.GGUFWriter(path, "llama")
            writer.add_type(kind)
            writer.add_block_count(1)
            writer.add_embedding_length(32)
            writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
            if kind == "adapter":
                writer.add_string("adapter.type", "lora")
                writer.add_float32("adapter.lora.alpha", 4.0)
            for name, shape in tensors.items():
                writer.add_tensor(name, np.ones(shape, np.float16))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            found.append(path.read_bytes())
    return found[0], found[1]


def model(data: bytes, room: Path) -> None:
    """A file as the base, and as an adapter for a whole one."""
    (room / "given.gguf").write_bytes(data)
    (room / "base.gguf").write_bytes(models()[0])
    with suppress(UnderstudyError):
        header = check_base(room / "given.gguf")
        for name in (
            "block_count",
            "context_length",
            "embedding_length",
            "attention.head_count",
            "attention.head_count_kv",
        ):
            header.number(name)
    check_adapter(room / "given.gguf", check_base(room / "base.gguf"), base_name="base")


# Memory's own values, and what is said over the wire.


def event(data: bytes, room: Path) -> None:
    """Any payload is what it is read back as, or refused."""
    payload = json_of(data)
    if not isinstance(payload, dict):
        return
    at = datetime.fromtimestamp(len(data) ** 3, UTC)
    name = text_of(data[:40])
    given = Event(name, name, name, Kind.MESSAGE, 0, Person("telegram", name, name), Source.CHAT_EXPORT, at, payload)
    once = cleaned(given)
    assert json.dumps(asdict(cleaned(once)), default=str) == json.dumps(asdict(once), default=str)


@dataclass(frozen=True)
class Saying(Remote):
    """Another process that says the same to everything."""

    said: Any = None

    def get(self, path: str, **query: Any) -> Any:
        return self.said


def recalled(data: bytes, room: Path) -> None:
    """The answer of another process about memory."""
    found = json_of(data)
    RecallElsewhere(lambda: Saying("http://127.0.0.1:1", None, said=found)).recall("q")


NOTES = json.dumps(
    {
        "notes": [
            {
                "id": "a",
                "kind": "exchange",
                "text": "t",
                "source": "s",
                "score": 0.5,
                "at": "2026-01-01T00:00:00.000000Z",
                "why": {"words": ["a"], "replaced": None},
            }
        ],
        "confidence": 0.5,
        "timings_ms": {},
    }
).encode()


def json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@cache
def doors() -> Any:
    """The tasks of a worker, over a table of runs that has none."""
    from infra.database import connect
    from trainer.tasks import register

    folder = Path(mkdtemp(prefix="fuzz-"))
    app = make_app("", folder)
    runs = Runs(connect(f"sqlite:///{folder}/journal.db"))
    register(app, runs, home=folder, log=folder / "log", stopping=threading.Event(), queues=("gpu",))
    return app


def doorbell(data: bytes, room: Path) -> None:
    """A message as the worker takes it: one of our tasks, with whatever arguments."""
    found = json_of(data)
    if isinstance(found, dict) and set(found) == {"run_id"}:
        doors().tasks["trainer.run"](**found)


# Words.


def halves(data: bytes) -> tuple[str, str]:
    asked, _, said = text_of(data).partition("\n--\n")
    return asked, said


def graph(data: bytes, room: Path) -> None:
    """What the graph reads of a pair and of a document."""
    asked, said = halves(data)
    pair = taught(asked or "q", said or "a")
    part = Passage("i", "d", 0, asked, said, ADA, GROUP, NOON, Source.CREATOR_DOCUMENT)
    lexicon, names = learn([(asked, "", said), (asked, asked, said), ("Which flour?", "", said)]), Names()
    for value in (pair, part):
        reading = Rules().read(value, lexicon)
        keyed = {name_key(mention.name): mention for mention in reading.mentions}
        aliases = [(name_key(one), name_key(other)) for one, other in reading.aliases]
        names.count(keyed, aliases, by=1)
        names.count(keyed, aliases, by=-1)
        assert all(statement.quote for statement in reading.statements)


def terms(data: bytes, room: Path) -> None:
    """Terms and weights of a text."""
    text = text_of(data)
    found = content_terms(text)
    for weights in (document_weights(text), query_weights(text)):
        assert list(weights.indices) == sorted(set(weights.indices))
        assert len(weights.indices) == len(weights.values)
    shared_words(text, found)
    normal_form(text)


def chatter(data: bytes, room: Path) -> None:
    """What a message's wording gives away, and what is scrubbed of it."""
    from trainer.scrub import scrub

    asked, said = halves(data)
    for text in (asked, said):
        for look in (
            talk.asks,
            talk.asks_back,
            talk.is_talk,
            talk.thanks,
            talk.agrees,
            talk.is_promise,
            talk.own_words,
        ):
            look.__wrapped__(text) if hasattr(look, "__wrapped__") else look(text)
        talk.seconds_to_write.__wrapped__(text)
        talk.words.__wrapped__(text)
        talk.calls(text, asked[:80])
        wording.language_of(text, "zh-TW")
    talk.suits(asked, said)
    scrub(said)


def persona(data: bytes, room: Path) -> None:
    """A profile that somebody edits, and the prompt that carries it."""
    asked, said = halves(data)
    profile = edited(Profile(cares=said), FIELDS[len(asked) % 3], asked)
    manner_of([*said.split("\n"), said, asked] * 3)
    card = PersonaCard(asked[:80], asked, "zh-CN", prompt_text(asked[:80], profile))
    assert len(card.version) == 12
    turns = render(card, notes=(), history=(), question=said, budget_tokens=320)
    assert turns[-1].role == "user"
    assert estimate_tokens(turns[0].content) < 3_000


WORDS = (
    b"How warm?\n--\nI prefer spelt (Triticum) over rye. We use RAG = Retrieval Augmented Generation, aka lookup.",
    "你用什么面粉？\n--\n我们用的检索增强生成（RAG）。从黑麦换成斯佩尔特，也叫丁克尔小麦。推荐《面包》！".encode(),
    b"Do you toast seeds?\n--\nAlways. Mail ada@bakery.example or +1 555 123 4567; key sk-abcdefghijklmnop1234. Ask Anke Voss.",
)
SAID = (
    b"First **bold** sentence. [link](https://a.example/b) and `code`.\n\n" * 40 + b"```python\n" + b"x = 1\n" * 300 + b"```\nEnd.",
    ("面团要温。👩‍🚀🇨🇳1️⃣é " * 150).encode(),
    b"# Title\n\n> quote\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n||spoiler|| ~~gone~~ __under__ $x^2$ \\(y\\)\n",
)  # fmt: skip

TARGETS = (
    Target("csv", imported("a.csv"), lambda: [b"question,answer,date\r\nHow warm?,24 C,2026-01-01\r\n", "问题;回答\n几度？;24\n".encode("gb18030"), "q\ta\nx\ty\n".encode("utf-16")]),
    Target("json", imported("a.json"), lambda: [QA, b"[" + QA + b"]", b'{"items": [' + QA + b"]}", TURNS, SHARED], JSON_WORDS),
    Target("jsonl", imported("a.jsonl"), lambda: [b"\n".join((QA, TURNS, SHARED, ALPACA))], JSON_WORDS),
    Target("xml", imported("a.xml"), lambda: [POSTS, PAIRS, TURN_BY_TURN], XML_WORDS),
    Target("markdown", imported("a.md"), lambda: [MARKDOWN, MARKDOWN.decode().encode("utf-16")], (b"\n# ", b"\nQ: ", b"\nA: ", b"---\n", "\n问：".encode())),
    Target("text", imported("a.txt"), lambda: [MARKDOWN, b"Q: How warm?\nA: 24 C.\n", LINKS], (b"\nQ: ", b"\nA: ", b"Q")),
    Target("html", imported("a.html"), lambda: [HTML, BOOKMARKS], HTML_WORDS),
    Target("links", imported("a.urls"), lambda: [LINKS, BOOKMARKS], (b"- [", b"](https://", b"\n* ")),
    Target("pdf", imported("a.pdf"), lambda: [page()], (b"obj", b"endobj", b"stream", b"endstream", b"xref", b"/Parent 1 0 R", b"/Kids [1 0 R]", b"/Length 9", b"/FlateDecode", b"/Filter")),
    Target("docx", imported("a.docx"), lambda: [zipped(word())], (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")),
    Target("docx parts", packed("a.docx", word), each_part(word), (*XML_WORDS, b"<w:p>", b"<w:tbl>", b"<w:tc>", b'w:val="x"')),
    Target("epub", imported("a.epub"), lambda: [zipped(book())], (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")),
    Target("epub parts", packed("a.epub", book), each_part(book), (*HTML_WORDS, b'<itemref idref="a"/>', b'href="../../x"')),
    Target("subtitles", imported("a.srt"), lambda: [SRT, VTT], (b" --> ", b"00:00:01,000", b"\n\n", b"WEBVTT", b"STYLE\n", b"NOTE ")),
    Target("discord package", packed("a.zip", lambda: PACKAGE), each_part(lambda: PACKAGE), JSON_WORDS),
    Target("discord export", imported("a.json"), lambda: [DISCORD], JSON_WORDS),
    Target("telegram export", imported("a.json"), lambda: [TELEGRAM, b'{"chats": {"list": [' + TELEGRAM + b"]}}"], JSON_WORDS),
    Target("importing", import_named, whole_files, (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"../", b"/etc/")),
    Target("splitting", split, lambda: [b"\x20" + each for each in SAID], (b"```", b"\n```x\n", b"`", b"](https://")),
    Target("showing", shown, lambda: SAID, (b"```", b"**", b"](https://", b"||", b"$$", b"> ", b"\n|a|b|\n|-|-|\n")),
    Target("telegram updates", telegram_update, updates, (*JSON_WORDS, b'"offset":', b'"length":', b"-5")),
    Target("discord messages", discord_message, lambda: [b"<@5> hi <@!6> <#7> <@&8>", b"zh-TW"], (b"<@", b"<@!", b"5>", b"9" * 5000)),
    Target("settings", settings, installations, (b"\n----\n", b"[", b"]]", b'"""', b"'''", b"\n[voice]\n", b"API__TOKEN_FILE=", b"inf", b"http://a:b@c", b"CREATOR__IDS=", b"\nurl = ")),
    Target("data folder", data_folder, lambda: [bytes([number]) + each for number, each in enumerate(lying().values())], JSON_WORDS),
    Target("backups", restored, backups_made, (b"ustar", b"../../x", b"\x1f\x8b")),
    Target("backup manifests", described, lambda: [MANIFEST], (*JSON_WORDS, b'"../b.tar"', b'"/etc/passwd"')),
    Target("models", model, lambda: list(models()), (b"GGUF", b"general.alignment", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b".lora_a", b"\x00\x00\xc0\x7f")),
    Target("events", event, lambda: [QA, TELEGRAM, DISCORD], JSON_WORDS),
    Target("recall elsewhere", recalled, lambda: [NOTES], JSON_WORDS),
    Target("doorbells", doorbell, lambda: [b'{"run_id": "a"}'] if doors() else [], JSON_WORDS),
    Target("graph", graph, lambda: WORDS, (b" aka ", "（".encode(), "也叫".encode(), b" = ", b"I prefer ", "从".encode(), "换成".encode())),
    Target("terms", terms, lambda: WORDS),
    Target("chat wording", chatter, lambda: WORDS, (b"thanks ", b"ok, ", b"how ", "吗".encode(), b"sk-", b"@a.b", b"4111 ")),
    Target("persona", persona, lambda: WORDS),
)  # fmt: skip
BY_NAME = {target.name: target for target in TARGETS}
