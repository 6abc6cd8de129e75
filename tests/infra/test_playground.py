"""The playground over the real doubles: who sees what, what people do, and the page in a real browser."""

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import discord
import httpx
import pytest
import yarl
from discord import app_commands
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from infra.desk import playground as desk
from infra.desk.playground import Playground, add_playground, open_playground
from infra.errors import UserMistake
from infra.settings import load_settings, overrule
from infra.voice.api import install
from tests.infra.running import served
from tests.infra.test_page import CHROMIUM, FLAGS

Json = dict[str, Any]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the children's environment is given, which here stays out of the tests' own."""
    given: dict[str, str] = {}
    monkeypatch.setattr(desk, "overrule", given.update)
    return given


@pytest.fixture
def playground(home: Path, variables: dict[str, str]) -> Iterator[Playground]:
    with open_playground(load_settings(home)) as opened:
        yield opened
        for room in opened.rooms.values():
            double = room.discord if hasattr(room, "discord") else room.telegram
            assert double.violations == []


@pytest.fixture
def app(playground: Playground) -> FastAPI:
    made = FastAPI()
    install(made, token=None)
    add_playground(made, playground)
    return made


def test_no_door_of_the_twins_stays_open(home: Path) -> None:
    """Neither its servers nor those who hold its keys are the playground's."""
    settings = home / "understudy.toml"
    more = "[publish]\nport = 9\n[voice]\nurls = ['http://10.0.0.2']\n"
    settings.write_text(settings.read_text(encoding="utf-8") + more, encoding="utf-8")
    given = desk.apart(load_settings(home))

    assert (given["PUBLISH__PORT"], given["VOICE__URLS"], given["BOT__API"]) == ("0", "[]", "")


class Page:
    """What the page asks for, as somebody who speaks as one person in one place."""

    def __init__(self, client: httpx.AsyncClient, platform: str) -> None:
        self.client, self.platform = client, platform
        self.person = self.place = "0"

    async def view(self) -> Json:
        answer = await self.client.get(f"{self.platform}/view", params={"person": self.person, "place": self.place})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def become(self, name: str, place: str) -> "Page":
        self.person = next(each["id"] for each in (await self.view())["people"] if each["name"] == name)
        self.place = next(each["id"] for each in (await self.view())["places"] if place in each["name"])
        return self

    async def texts(self) -> list[str]:
        return [each["text"] for each in (await self.view())["messages"]]

    async def last(self) -> Json:
        return (await self.view())["messages"][-1]

    async def do(self, verb: str, status: int = 200, **more: Any) -> Json:
        body = {"person": self.person, "place": self.place, **more}
        answer = await self.client.post(f"{self.platform}/{verb}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def until(self, condition: Any) -> Json:
        for _ in range(200):
            if found := condition(view := await self.view()):
                return found if isinstance(found, dict) else view
            await asyncio.sleep(0.02)
        raise AssertionError(view)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/playground/") as made:
        yield made


# The world


@pytest.mark.parametrize("platform", ["discord", "telegram"])
async def test_the_creator_comes_first_and_three_members_are_there(client: httpx.AsyncClient, platform: str) -> None:
    view = await Page(client, platform).view()

    assert [each["name"] for each in view["people"]] == ["Ada", "Bob", "Charlie", "Mei"]
    assert view["person"] == view["people"][0]["id"]
    assert not view["online"]


async def test_bob_sees_the_channel_the_post_and_his_own_chat(client: httpx.AsyncClient) -> None:
    on_discord = await (await Page(client, "discord").become("Bob", "general")).view()
    on_telegram = await (await Page(client, "telegram").become("Bob", "Community")).view()

    assert [each["name"] for each in on_discord["places"]] == ["# general", "questions › Getting started", "Twin"]
    assert [each["name"] for each in on_telegram["places"]] == ["Community", "Twin"]


async def test_what_charlie_is_told_in_private_bob_does_not_see(client: httpx.AsyncClient) -> None:
    charlie = await Page(client, "discord").become("Charlie", "Twin")
    await charlie.do("say", text="only between us")
    bob = await Page(client, "discord").become("Bob", "Twin")
    bob.place = charlie.place

    assert await bob.texts() != ["only between us"]
    await bob.do("say", text="I am Bob", status=400)


def test_the_children_are_pointed_at_the_doubles(playground: Playground, variables: dict[str, str], home: Path) -> None:
    room = playground.rooms["discord"]
    creator = [f"discord:{room.discord.owner_id}", "telegram:1"]

    assert variables["DISCORD__API"] == room.discord.api
    assert variables["TELEGRAM__API"].startswith("http://127.0.0.1:")
    assert json.loads(variables["CREATOR__IDS"]) == creator


def test_the_settings_accept_what_the_children_are_given(
    playground: Playground, variables: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"UNDERSTUDY_{name}", value)
    settings = load_settings(home)

    assert settings.discord.message_content
    assert settings.discord.token.get_secret_value() == playground.rooms["discord"].discord.token
    assert settings.data_folder == (home / "data" / "playground").resolve()


def test_a_real_token_in_a_file_never_wins_over_the_doubles(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "UNDERSTUDY_TELEGRAM__TOKEN_FILE": str(tmp_path / "token")})
    overrule({"TELEGRAM__TOKEN": "token-of-the-double"})

    assert load_settings(home).telegram.token.get_secret_value() == "token-of-the-double"


def test_memory_is_copied_anew_and_the_twins_own_stays(home: Path, variables: dict[str, str]) -> None:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    with closing(sqlite3.connect(settings.data_folder / "journal.db")) as journal:
        journal.execute("CREATE TABLE said (words TEXT)")
    for _ in range(2):
        with open_playground(settings), closing(sqlite3.connect(f"{variables['DATA']}/journal.db")) as copy:
            assert copy.execute("SELECT count(*) FROM said").fetchone() == (0,)
            copy.execute("INSERT INTO said VALUES ('in the playground')")
            copy.commit()


def test_a_playground_that_others_could_reach_is_refused(home: Path) -> None:
    settings = load_settings(home)
    reachable = settings.model_copy(update={"api": settings.api.model_copy(update={"host": "0.0.0.0"})})

    with pytest.raises(UserMistake, match="reachable from outside"), open_playground(reachable):
        pass


def test_without_a_checkout_one_sentence_says_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "CHECKOUT", tmp_path)

    with pytest.raises(UserMistake, match="from a checkout"), open_playground(load_settings(home)):
        pass


# Discord, with a small bot on it


class SmallBot(discord.Client):
    """Greets with a button, answers presses for one person only, and has one command and one form."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.default(), guild_ready_timeout=0.05)
        self.tree = app_commands.CommandTree(self)

        @self.tree.command(description="Say what is wrong")
        async def report(interaction: discord.Interaction, what: str, where: str = "here") -> None:
            await interaction.response.send_message(f"noted: {what}, {where}")

        @self.tree.command(description="Open a form")
        async def form(interaction: discord.Interaction) -> None:
            modal = discord.ui.Modal(title="Your words", custom_id="words")
            field = discord.ui.TextInput[Any](custom_id="text", default="so far")
            await interaction.response.send_modal(modal.add_item(discord.ui.Label[Any](text="Words", component=field)))

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """The library would wait five seconds."""

    async def on_message(self, message: discord.Message) -> None:
        if message.author.id != self.user.id and self.user in message.mentions:
            view = discord.ui.View(timeout=None).add_item(discord.ui.Button[Any](label="👍", custom_id="up:1"))
            card = discord.File(__file__, "card.png")
            await message.reply("**hello**", view=view, file=card, allowed_mentions=discord.AllowedMentions.none())

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        if interaction.type is discord.InteractionType.component:
            await interaction.response.send_message("thanks", ephemeral=True)
        if interaction.type is discord.InteractionType.modal_submit:
            text = interaction.data["components"][0]["component"]["value"]
            await interaction.response.send_message(f"you wrote {text}")


@asynccontextmanager
async def small_bot(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallBot]:
    double = playground.rooms["discord"].discord
    monkeypatch.setattr(discord.http.Route, "BASE", double.api)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(double.gateway))
    bot = SmallBot()
    task = asyncio.create_task(bot.start(double.token))
    while not bot.is_ready():
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)
    await bot.tree.sync()
    yield bot
    await bot.close()
    await asyncio.gather(task, return_exceptions=True)


async def test_bob_talks_with_a_bot_on_discord(
    client: httpx.AsyncClient, playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await Page(client, "discord").become("Bob", "general")
    async with small_bot(playground, monkeypatch):
        await bob.do("say", text="@twin are you there?")
        answer = await bob.until(lambda view: view["messages"][-1]["bot"] and view["messages"][-1])
        await bob.do("press", message=answer["id"], action="up:1")
        thanks = await bob.last()
        charlie = await Page(client, "discord").become("Charlie", "general")

        assert (await bob.view())["online"]
        assert (await bob.texts())[0] == "<@Twin> are you there?"
        assert answer["about"] == "Bob: @Twin are you there?"
        assert answer["buttons"] == [[{"label": "👍", "action": "up:1", "url": "", "disabled": False}]]
        assert (thanks["text"], thanks["only_you"]) == ("thanks", True)
        assert "thanks" not in await charlie.texts()
        file = await client.get(answer["files"][0]["url"])
        assert (file.headers["content-type"], file.content) == ("image/png", Path(__file__).read_bytes())


async def test_bob_uses_a_command_and_fills_a_form(
    client: httpx.AsyncClient, playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await Page(client, "discord").become("Bob", "general")
    async with small_bot(playground, monkeypatch):
        assert [each["name"] for each in (await bob.view())["commands"]] == ["report", "form"]
        await bob.do("say", text="/report too warm: 30° where: in the oven")
        first = await bob.last()
        form = (await bob.do("say", text="/form"))["form"]
        await bob.do("submit", form=form["id"], values={"text": "all of it"})

        assert (first["text"], first["about"]) == ("noted: too warm: 30°, in the oven", "Bob used /report")
        assert [(each["label"], each["value"]) for each in form["fields"]] == [("Words", "so far")]
        assert (await bob.last())["text"] == "you wrote all of it"
        assert "there is no command" in (await bob.do("say", text="/nothing", status=400))["error"]["message"]


# Telegram, with the calls a bot would make


async def test_bob_talks_with_a_bot_on_telegram(client: httpx.AsyncClient, playground: Playground) -> None:
    telegram = playground.rooms["telegram"].telegram
    bob = await Page(client, "telegram").become("Bob", "Twin")
    async with httpx.AsyncClient(base_url=f"{telegram.api}/bot{telegram.token}/") as bot:
        assert (await bob.view())["hint"] == "/start"
        said = await bob.do("say", text="hello")
        keyboard = {"inline_keyboard": [[{"text": "Yes", "callback_data": "yes"}]]}
        await bot.post("sendMessageDraft", json={"chat_id": int(bob.person), "draft_id": 7, "text": "I am"})
        assert [each.get("draft") for each in (await bob.view())["messages"]] == [None, True]
        body = {"chat_id": int(bob.person), "text": "<b>sure?</b>", "parse_mode": "HTML", "reply_markup": keyboard}
        sent = (await bot.post("sendMessage", json=body)).json()["result"]
        pressing = asyncio.create_task(bob.do("press", message=sent["message_id"], action="yes"))
        await bob.until(lambda _: telegram.callbacks)
        number = next(iter(telegram.callbacks))
        await bot.post("answerCallbackQuery", json={"callback_query_id": number, "text": "noted"})

        assert await pressing == {"notice": "noted"}
        shown = await bob.last()
        assert (shown["text"], shown["entities"][0]["type"]) == ("sure?", "bold")
        assert shown["buttons"][0][0]["action"] == "yes"
        assert said["message"] != shown["id"]


async def test_a_bot_that_asks_for_a_reply_asks_only_whom_it_means(
    client: httpx.AsyncClient, playground: Playground
) -> None:
    telegram = playground.rooms["telegram"].telegram
    bob = await Page(client, "telegram").become("Bob", "Community")
    said = await bob.do("say", text="/report")
    async with httpx.AsyncClient(base_url=f"{telegram.api}/bot{telegram.token}/") as bot:
        asking = {"force_reply": True, "selective": True}
        to = {"message_id": int(said["message"])}
        body = {"chat_id": int(bob.place), "text": "What?", "reply_markup": asking, "reply_parameters": to}
        assert (await bot.post("sendMessage", json=body)).json()["ok"]
    charlie = await Page(client, "telegram").become("Charlie", "Community")

    asked = await bob.last()
    assert asked["asks"]
    assert not (await charlie.last())["asks"]
    await bob.do("say", text="too warm", reply_to=asked["id"])
    assert not any(each["asks"] for each in (await bob.view())["messages"])


# The page


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with served(app) as url:
        yield f"{url}/playground"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_what_is_said_as_bob_is_seen_on_the_page(app: FastAPI, address: str, tmp_path: Path) -> None:
    """The browser gets the page with a few lines more, which click and type as a person would."""
    script = """
        const later = (act) => new Promise((done) => setTimeout(() => done(act()), 900));
        const pane = document.querySelector(".discord");
        const chips = () => [...pane.querySelectorAll(".people .chip")];
        later(() => chips().find((chip) => chip.textContent.endsWith("Bob")).click())
          .then(() => later(() => { pane.querySelector("textarea").value = "so **warm** <b>today</b>"; }))
          .then(() => later(() => pane.querySelector("form.say").requestSubmit()));
    """
    page = httpx.get(address).text.replace("</body>", f"<script defer type=module>{script}</script></body>")
    app.get("/driven")(lambda: HTMLResponse(page))
    url = address.replace("/playground", "/driven")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", url]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False).stdout

    assert "so <b>warm</b> &lt;b&gt;today&lt;/b&gt;" in dom
    assert '<li class="mine">' in dom
    assert "Say something as Bob in # general" in dom


def test_the_page_asks_no_other_host_for_anything(address: str) -> None:
    for path in ("", "/playground.css", "/playground.js", "/markup.js"):
        answer = httpx.get(address + path)
        assert answer.status_code == 200
        assert "http://" not in answer.text
        assert "https://" not in answer.text
