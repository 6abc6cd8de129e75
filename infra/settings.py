"""Settings: `understudy.toml`, then `UNDERSTUDY_*`, then `UNDERSTUDY_*_FILE` for secrets; refused early, in sentences.

The only module that reads the environment. `load_settings(home)` returns one frozen value that is passed down; nothing
is read again later. `home` is the folder that holds `understudy.toml`; relative paths are meant from there.
"""

import os
import re
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from infra.errors import UserMistake
from infra.presets import PRESETS, Preset, PresetName

CONFIG = "understudy.toml"
PREFIX = "UNDERSTUDY_"
# Of what is wrong with settings so many things are said at once, each in so many characters.
MOST_SAID, MOST_CHARACTERS = 8, 200
# Words that people leave in a secret's place; a server protected by one of them is not protected.
PLACEHOLDERS = {"changeme", "change-me", "change_me", "secret", "password", "token", "your-token-here", "xxx", "todo"}

Language = Literal["en", "zh-CN", "zh-TW"]

# How OpenMP's threads wait for each other; see `share_cores`. GNU's library takes the count for processes with more
# threads than cores, which a swap makes of ours, only where the policy is active; others would spin for ever then.
WAITING = (
    {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "1000"}
    if sys.platform == "linux"
    else {"OMP_WAIT_POLICY": "PASSIVE"}
)
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CreatorSettings(Section):
    """Who the twin stands in for. `ids` are `platform:id`, for example `telegram:12345`; names prove nothing.

    What `teachers` answer in public becomes memory too, and never trains. `admins` may retrain and pause; empty means
    that the creator alone may.
    """

    name: Annotated[str, Field(min_length=1, max_length=80)]
    ids: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()
    language: Language = "en"
    about: Annotated[str, Field(max_length=600)] = ""

    @field_validator("ids", "teachers", "admins")
    @classmethod
    def _ids_name_a_platform(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        for each in ids:
            platform, _, identity = each.partition(":")
            if not platform or not identity:
                raise ValueError(f"{each!r} must be PLATFORM:ID, for example 'telegram:12345'")
        # Telegram's exports write user12345 where its bots see 12345.
        return tuple(re.sub(r"^telegram:user(?=\d+$)", "telegram:", each) for each in ids)


class JournalSettings(Section):
    """Empty `url` means SQLite in the data folder; otherwise postgresql+psycopg://user@host/database.

    `password` is that user's, so that the URL needs none. `key_file` holds the key with which an SQLite journal is
    encrypted; it must lie outside the data folder.
    """

    url: str = ""
    password: SecretStr | None = None
    key_file: Path | None = None


class IndexSettings(Section):
    """Empty `url` means the Qdrant engine inside this process; otherwise the address of a Qdrant server.

    `shards` and `replicas` count for collections that are made from now on, on a cluster of servers.
    """

    url: str = ""
    api_key: SecretStr | None = None
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    replicas: Annotated[int, Field(ge=1, le=16)] = 1


class QueueSettings(Section):
    """Empty `url` means a folder as broker; otherwise redis://host:port/0, with its `password` beside it."""

    url: str = ""
    password: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _a_broker_we_know(cls, url: str) -> str:
        if urlsplit(url).scheme not in {"", "redis", "rediss"}:
            raise ValueError("a broker is a Redis server: its address begins with redis:// or rediss://")
        return url


class ApiSettings(Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8321
    token: SecretStr | None = None

    @property
    def loopback(self) -> bool:
        return self.host in LOOPBACK


class PublishSettings(Section):
    """Where the twin listens for published keys and nothing else; `port` 0 is nowhere but at `api` as well."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class RecallSettings(Section):
    """`threshold` is the least confidence, 0 to 1, with which the twin answers; None takes the calibrated one.

    `reranker` is a cross-encoder that reads the best candidates again: `package:NAME`, `hub:REPO` or a folder; empty is
    none.
    """

    limit: Annotated[int, Field(ge=1, le=10)] = 2
    budget_tokens: Annotated[int, Field(ge=50, le=1200)] = 320
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    reranker: str = ""


class ModelSettings(Section):
    """A model that helps: none, "voice" for the twin's own, or the address of an OpenAI-compatible server.

    `name` is what that server calls its model.
    """

    model: str = ""
    name: str = ""
    token: SecretStr | None = None

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in {"", "voice"} and urlsplit(value).scheme not in {"http", "https"}:
            raise ValueError(f'{value!r} is neither "voice" nor the http address of a server')
        return value


class GraphSettings(ModelSettings):
    """Who reads for the graph beside the rules."""


class JudgeSettings(ModelSettings):
    """Who compares a new voice's answers with the creator's, on how many held-out questions; "voice" is the base."""

    questions: Annotated[int, Field(ge=4, le=1000)] = 24


class TeacherSettings(Section):
    """Who imitates the creator for `understudy distil`: an OpenAI-compatible server; no `url` is the twin's own voice.

    `name` is what that server calls its model; prices are for a million tokens, in whatever money budgets are meant.
    0 `per_minute` is no limit of requests.
    """

    url: str = ""
    name: str = ""
    token: SecretStr | None = None
    price_in: Annotated[float, Field(ge=0)] = 0
    price_out: Annotated[float, Field(ge=0)] = 0
    per_minute: Annotated[float, Field(ge=0)] = 60
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError(f"{value!r} must be the address of a server, for example 'https://api.openai.com'")
        return value.rstrip("/").removesuffix("/v1")  # which the client adds

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.url and not self.name:
            raise ValueError("teacher.url needs teacher.name: which of the server's models shall teach")
        return self


class VoiceSettings(Section):
    """`urls` are this twin's voice servers; `url` is one that looks after its own voice; both empty is the engine here.

    `name` is what they call the base model where that is not the preset's name. `vllm` says that they are vLLM, and in
    which folder they see the adapter store. `threads` 0 takes as many as measured fastest, else every core;
    `gpu_layers` of the base go to a GPU, -1 all, where llama.cpp was built for one. All loaded voices together may take
    about `memory_mib`; 0 is three quarters of what the machine, or the container, has. `reasoning` says whether it is
    asked to think before it answers, and whether members see that.
    """

    url: str = ""
    urls: tuple[str, ...] = ()
    name: str = ""
    vllm: str = ""
    token: SecretStr | None = None
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    gpu_layers: Annotated[int, Field(ge=-1, le=1000)] = -1
    streams: Annotated[int, Field(ge=1, le=64)] = 8
    queue: Annotated[int, Field(ge=1, le=4096)] = 32
    context_tokens: Annotated[int, Field(ge=512, le=131072)] = 2048
    memory_mib: Annotated[int, Field(ge=0)] = 0
    max_tokens: Annotated[int, Field(ge=8, le=4096)] = 160
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.3
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    reasoning: Literal["off", "hidden", "shown"] = "off"

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for each in urls:
            parts = urlsplit(each)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
                raise ValueError(f"{each!r} must be the address of a server, for example 'http://10.0.0.2:8321'")
        found = tuple(each.rstrip("/") for each in urls)
        if len(set(found)) < len(found):
            raise ValueError("the same server is named twice")
        return found

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.url and self.urls:
            raise ValueError("url and urls cannot be both: urls are voice servers that this twin gives their adapters")
        if self.vllm and not self.urls:
            raise ValueError("vllm says what voice.urls are, and there are none")
        return self


class CanarySettings(Section):
    """When a canary ends by itself: `stop` switches that on. Shares and times are beside the current voice's.

    It must have given `answers` answers and got `votes` votes before it is judged by them. `failed` and `bad` are by
    how much more of them may fail or be disliked; `slower` how many times later its first words may come.
    """

    stop: bool = True
    answers: Annotated[int, Field(ge=5)] = 20
    votes: Annotated[int, Field(ge=5)] = 10
    failed: Annotated[float, Field(ge=0, lt=1)] = 0.05
    bad: Annotated[float, Field(ge=0, lt=1)] = 0.15
    slower: Annotated[float, Field(ge=1)] = 2.0


class TrainingSettings(Section):
    """What is left out comes from the preset. `max_minutes` bounds one training stage; 0 is no bound.

    A `rank` that is left out goes by how much there is to learn, 16 or 32. `four_bit` and `checkpointing` count on a
    CUDA device only; `trainer` "trl" leaves unsloth out where it is installed.

    Preference is learned from at least `least_pairs` edited drafts, else from at least `least_labels` judged texts.
    `members_votes` lets two members or more together call an answer bad; only the creator ever calls one good.

    `synthetic_share` of the rows are a teacher's imitations, if `understudy distil` has made enough of them.
    """

    epochs: Annotated[int, Field(ge=1, le=20)] | None = None
    learning_rate: Annotated[float, Field(gt=0, lt=0.1)] | None = None
    rank: Annotated[int, Field(ge=1, le=256)] | None = None
    alpha: Annotated[int, Field(ge=1, le=1024)] | None = None
    max_length: Annotated[int, Field(ge=64, le=8192)] | None = None
    tokens: Annotated[int, Field(ge=1000)] | None = None
    batch: Annotated[int, Field(ge=1, le=256)] | None = None
    accumulate: Annotated[int, Field(ge=1, le=256)] | None = None
    four_bit: bool | None = None
    checkpointing: bool | None = None
    trainer: Literal["auto", "trl"] = "auto"
    max_minutes: Annotated[float, Field(ge=0)] = 0
    seed: int = 20
    least_rows: Annotated[int, Field(ge=2)] = 40
    validation_share: Annotated[float, Field(ge=0.1, le=0.2)] = 0.15
    heldout: Annotated[int, Field(ge=10, le=1000)] = 48
    least_pairs: Annotated[int, Field(ge=8)] = 50
    least_labels: Annotated[int, Field(ge=16)] = 100
    members_votes: bool = False
    synthetic_share: Annotated[float, Field(ge=0, le=0.9)] = 0


class ScheduleSettings(Section):
    """When a training begins by itself: by `cron` in `time_zone`; an empty `cron` is never.

    It waits while the time is within `quiet`, HH:MM-HH:MM, and until `least_new` exchanges came since the last one.
    """

    cron: str = "17 3 * * 0"
    time_zone: str = "UTC"
    quiet: str = ""
    least_new: Annotated[int, Field(ge=0)] = 1

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        from cronsim import CronSim, CronSimError

        try:
            CronSim(cron or "0 0 * * *", datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"{cron!r} is no cron expression, such as '17 3 * * 0' for Sundays at 3:17") from error
        return cron

    @field_validator("time_zone")
    @classmethod
    def _a_zone(cls, name: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            return ZoneInfo(name).key
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{name[:40]!r} is no time zone, such as 'Europe/Paris'") from error

    @field_validator("quiet")
    @classmethod
    def _two_times(cls, given: str) -> str:
        if given and hours_of(given) is None:
            raise ValueError(f"{given!r} must be two times of a day, for example '08:00-23:30'")
        return given

    @property
    def hours(self) -> tuple[time, time] | None:
        """From when until when it is quiet."""
        return hours_of(self.quiet)


def hours_of(given: str) -> tuple[time, time] | None:
    """HH:MM-HH:MM as two times; None for anything else."""
    start, _, end = given.partition("-")
    try:
        return time.fromisoformat(start), time.fromisoformat(end)
    except ValueError:
        return None


class RetentionSettings(Section):
    """After how many `days` what members say is erased: in `places`, by PLATFORM:ID, and everywhere else; 0 is never.

    An exchange stays with its messages unless `exchanges` says that it goes too.
    """

    days: Annotated[int, Field(ge=0, le=36500)] = 0
    places: dict[str, Annotated[int, Field(ge=0, le=36500)]] = {}
    exchanges: bool = False

    @field_validator("places")
    @classmethod
    def _places_name_a_platform(cls, places: dict[str, int]) -> dict[str, int]:
        for each in places:
            platform, _, identity = each.partition(":")
            if not platform or not identity:
                raise ValueError(f"{each!r} must be PLATFORM:ID, for example 'telegram:-100123'")
        return places

    @property
    def limited(self) -> bool:
        """Whether anything expires at all."""
        return bool(self.days or any(self.places.values()))


class ArtifactSettings(Section):
    """Where a trainer on another host finds data sets and leaves adapters; an empty `url` is in the data folder.

    `url` is a folder both hosts see, or an address that fsspec knows; `key` is known to both hosts and to nobody else.
    """

    url: str = ""
    key: SecretStr | None = None

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.url and self.key is None:
            raise ValueError("artifacts.url needs artifacts.key: whoever can write there could give the twin a voice")
        return self


class BackupSettings(Section):
    """For whom backups are encrypted: public keys of age, age1...; none leaves them plain."""

    recipients: tuple[str, ...] = ()


class DiscordPermission(Section):
    """The permission that Discord gave this operator to train on what the bot read, as its policy 21 asks."""

    reference: Annotated[str, Field(min_length=3)]
    date: date


class PermissionSettings(Section):
    discord_training: DiscordPermission | None = None


class DiscordSettings(Section):
    """No `token`, no Discord. `message_content` says that the privileged intent is switched on in Discord's portal.

    `inbox_channel` is the id of a private channel for the creator's inbox; empty means their private chat. `sharded` is
    for bots in more than about a thousand servers.
    """

    token: SecretStr | None = None
    message_content: bool = False
    inbox_channel: Annotated[str, Field(pattern=r"^\d*$")] = ""
    sharded: bool = False
    api: str = "https://discord.com/api/v10"
    gateway: str = "wss://gateway.discord.gg/"


class TelegramSettings(Section):
    """No `token`, no Telegram. Updates are polled for unless `webhook_url` says where Telegram shall post them.

    `inbox_chat` is the id of a private group for the creator's inbox; empty means their private chat.
    """

    token: SecretStr | None = None
    inbox_chat: str = ""
    webhook_url: str = ""
    webhook_secret: SecretStr | None = None
    webhook_host: str = "127.0.0.1"
    webhook_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    api: str = "https://api.telegram.org"


class LogSettings(Section):
    """How processes log: lines for people, or JSON for machines; `level` is of our own events."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class TraceSettings(Section):
    """Where OpenTelemetry's traces go, over OTLP's HTTP: the address before /v1/traces; empty is nowhere."""

    url: str = ""
    token: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError(f"{value!r} must be the address of a receiver, for example 'http://127.0.0.1:4318'")
        return value


class BotSettings(Section):
    """`api` is the twin's API where that runs on another machine; empty means this one.

    `foreign_roots` lets the platforms' `api` and `gateway` be other hosts than the real ones and this machine: whoever
    they name gets the bot's token.
    """

    api: str = ""
    foreign_roots: bool = False


class CustomModel(Section):
    """The models of preset `custom`; see `infra/presets.py` for the three ways to name one."""

    base: str
    gguf: str
    trainable: str = ""
    embedder: str


class Settings(BaseSettings):
    """Everything an operator decides. Frozen; unknown keys are errors."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    home: Path
    data: Path = Path("data")
    preset: PresetName = "tiny"
    creator: CreatorSettings
    journal: JournalSettings = JournalSettings()
    index: IndexSettings = IndexSettings()
    queue: QueueSettings = QueueSettings()
    api: ApiSettings = ApiSettings()
    publish: PublishSettings = PublishSettings()
    recall: RecallSettings = RecallSettings()
    graph: GraphSettings = GraphSettings()
    judge: JudgeSettings = JudgeSettings()
    teacher: TeacherSettings = TeacherSettings()
    voice: VoiceSettings = VoiceSettings()
    canary: CanarySettings = CanarySettings()
    training: TrainingSettings = TrainingSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    backup: BackupSettings = BackupSettings()
    permissions: PermissionSettings = PermissionSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    traces: TraceSettings = TraceSettings()
    bot: BotSettings = BotSettings()
    discord: DiscordSettings = DiscordSettings()
    telegram: TelegramSettings = TelegramSettings()
    custom: CustomModel | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; a secret's file wins over a secret in the environment."""
        return (SecretFiles(settings_cls), Variables(settings_cls), init_settings)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for name, secret in (
            ("api.token", self.api.token),
            ("index.api_key", self.index.api_key),
            ("journal.password", self.journal.password),
            ("queue.password", self.queue.password),
            ("artifacts.key", self.artifacts.key),
            ("voice.token", self.voice.token),
            ("graph.token", self.graph.token),
            ("teacher.token", self.teacher.token),
            ("judge.token", self.judge.token),
            ("traces.token", self.traces.token),
            ("discord.token", self.discord.token),
            ("telegram.token", self.telegram.token),
            ("telegram.webhook_secret", self.telegram.webhook_secret),
        ):
            refuse_placeholder(name, secret)
        if not self.bot.foreign_roots:
            refuse_foreign_root("discord.api", self.discord.api, real="discord.com")
            refuse_foreign_root("discord.gateway", self.discord.gateway, real="gateway.discord.gg")
            refuse_foreign_root("telegram.api", self.telegram.api, real="api.telegram.org")
        if self.telegram.webhook_url and self.telegram.webhook_secret is None:
            raise ValueError("telegram.webhook_url needs telegram.webhook_secret: anybody could post updates to it")
        if not self.api.loopback and self.api.token is None:
            raise ValueError(f"api.host {self.api.host!r} is reachable from outside, so api.token must be set")
        if (self.preset == "custom") != (self.custom is not None):
            raise ValueError("preset 'custom' and a [custom] section belong together: give both or neither")
        if self.recall.budget_tokens + self.voice.max_tokens + 256 > self.voice.context_tokens:
            raise ValueError(
                f"recall.budget_tokens ({self.recall.budget_tokens}), voice.max_tokens ({self.voice.max_tokens}) and "
                f"256 for the question do not fit into voice.context_tokens ({self.voice.context_tokens})"
            )
        scheme = urlsplit(self.journal.url).scheme
        if scheme not in {"", "sqlite", "postgresql", "postgresql+psycopg"}:
            raise ValueError(f"journal.url begins with {scheme!r}; it must be sqlite:/// or postgresql+psycopg://")
        if self.key_file and scheme.startswith("postgresql"):
            raise ValueError("journal.key_file encrypts an SQLite journal; PostgreSQL has means of its own")
        if self.key_file and self.key_file.is_relative_to(self.data_folder):
            raise ValueError("journal.key_file lies in the data folder: whoever gets the one would have the other too")
        return self

    @property
    def data_folder(self) -> Path:
        return (self.home / self.data).resolve()

    @property
    def journal_url(self) -> str:
        given = with_password(self.journal.url, self.journal.password)
        url = given or f"sqlite:///{self.data_folder / 'journal.db'}"
        return f"{url}?key_file={self.key_file}" if self.key_file else url

    @property
    def queue_url(self) -> str:
        return with_password(self.queue.url, self.queue.password)

    @property
    def key_file(self) -> Path | None:
        """The key of an encrypted journal."""
        return (self.home / self.journal.key_file).resolve() if self.journal.key_file else None

    @property
    def creator_keys(self) -> frozenset[str]:
        """Every key under which the creator may speak; "own:creator" is whoever runs the command line."""
        return frozenset({*self.creator.ids, "own:creator"})

    @property
    def answering(self) -> frozenset[str]:
        """Whose answers become memory: the creator's and the teachers'."""
        return self.creator_keys | frozenset(self.creator.teachers)

    @property
    def models(self) -> Preset:
        """The preset with what `[training]` and `[custom]` set in its place."""
        preset = PRESETS["tiny" if self.preset == "custom" else self.preset]
        given = {**preset.__dict__, **(self.custom.model_dump() if self.custom else {})}
        given |= {key: value for key, value in self.training.model_dump().items() if key in given and value is not None}
        return Preset(**given)


def without_secrets(given: Mapping[str, Any], section: type[BaseModel] = Settings) -> dict[str, Any]:
    """What a settings file says, without secrets and without addresses that carry a password."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        declared = section.model_fields[name].annotation
        if isinstance(value, dict) and isinstance(declared, type) and issubclass(declared, BaseModel):
            kept[name] = without_secrets(value, declared)
        elif "SecretStr" not in str(declared) and not (isinstance(value, str) and "@" in urlsplit(value).netloc):
            kept[name] = value
    return kept


class Variables(EnvSettingsSource):
    """`UNDERSTUDY_API__PORT=8400`: SECTION__KEY."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in our_variables() if not name.endswith("_FILE")}


class SecretFiles(EnvSettingsSource):
    """`UNDERSTUDY_API__TOKEN_FILE=/run/secrets/token`: the setting without `_FILE` is what the file says.

    An empty file sets nothing, so that a deployment may name the secrets of platforms that the twin is not on.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        files = {name: Path(value) for name, value in our_variables() if name.endswith("_FILE")}
        return {name.removesuffix("_FILE").lower(): read_secret(name, path) or None for name, path in files.items()}


def our_variables() -> list[tuple[str, str]]:
    """The variables that set something: not the home, which is not a setting, nor what only tests read."""
    return [
        (name, value)
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and name != f"{PREFIX}HOME" and not name.startswith(f"{PREFIX}TEST_")
    ]


def read_secret(name: str, path: Path) -> str:
    """What a secret's file says. Raises UserMistake when it cannot be read: once named, a secret is never optional."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserMistake(
            f"{name[:MOST_CHARACTERS]} names {str(path)[:MOST_CHARACTERS]!r}, which cannot be read "
            f"({one_line(error)}). Fix the path or its owner."
        ) from error


def with_password(url: str, password: SecretStr | None) -> str:
    """A server's URL with the password that is kept beside it; without one, the URL as it is."""
    parts = urlsplit(url)
    if password is None or not parts.hostname:
        return url
    place = parts.netloc.rpartition("@")[2]
    user, secret = parts.username or "", quote(password.get_secret_value(), safe="")
    return urlunsplit(parts._replace(netloc=f"{user}:{secret}@{place}"))


def revealed(secret: SecretStr | None) -> str | None:
    """What is sent to another server, where anything is."""
    return secret.get_secret_value() if secret else None


def secrets_of(section: BaseModel) -> frozenset[str]:
    """Every secret of some settings, for whoever has to keep them out of something."""
    values = [value for _, value in section]
    inner = [secrets_of(value) for value in values if isinstance(value, BaseModel)]
    found = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    return frozenset(filter(None, found)).union(*inner)


def refuse_placeholder(name: str, secret: SecretStr | None) -> None:
    """Raise ValueError for a secret that protects nothing."""
    if secret is None:
        return
    value = secret.get_secret_value().strip()
    if value.lower() in PLACEHOLDERS or value.startswith("<") or len(value) < 16:
        raise ValueError(f"{name} is a placeholder or shorter than 16 characters; make one with: openssl rand -hex 24")


def refuse_foreign_root(name: str, url: str, *, real: str) -> None:
    """Raise ValueError for an address that is neither the platform nor this machine: it would be given the token."""
    parts = urlsplit(url)
    encrypted = parts.scheme in {"https", "wss"} and parts.hostname == real
    if not encrypted and parts.hostname not in LOOPBACK:
        raise ValueError(f"{name} {url!r} is neither {real} nor this machine; a typo here would give the token away")


def load_settings(home: Path) -> Settings:
    """Settings of the installation in `home`.

    Raises UserMistake, in a sentence that names the key, for a missing or broken file and for every value refused.
    """
    home = home.resolve()
    path = home / CONFIG
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserMistake(f'There is no {CONFIG} in {str(home)!r}. Run "understudy init" there first.') from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserMistake(f"{str(path)!r} cannot be read: {one_line(error)}.") from error
    read_env_file(home / ".env")
    refuse_unknown_variables()
    try:
        return Settings(**{**given, "home": home})
    except ValidationError as error:
        said = [in_words(each) for each in error.errors()[:MOST_SAID]]
        raise UserMistake(f"{CONFIG} or the environment: {'; '.join(said)}.") from error
    except (SettingsError, RecursionError) as error:
        found = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{found[1].upper()}" if found else PREFIX
        raise UserMistake(f"{name}...: lists and tables in the environment are written as JSON.") from error


def read_env_file(path: Path) -> None:
    """Take our variables from `.env`, as docker compose does; what the environment has already stands.

    They go into the environment, so that the worker and the bots that this process starts have them too.
    """
    if not path.is_file():
        return
    try:
        for name, value in dotenv_values(path, encoding="utf-8").items():
            if name.startswith(PREFIX) and value:
                os.environ.setdefault(name, value)
    except (OSError, ValueError) as error:
        # What it says of a value that cannot be set would show it.
        raise UserMistake(f"{str(path)!r} cannot be read: it is no UTF-8 text of NAME=VALUE lines.") from error


def in_words(error: Mapping[str, Any]) -> str:
    """One pydantic error as words: where, what is wrong, never the value of a secret."""
    where = one_line(".".join(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    message = one_line(str(error["msg"]).removeprefix("Value error, "))
    return f"{where}: {message}" if where else message


def one_line(said: object) -> str:
    """What a library or a file says, as it fits into a sentence; no password that an address carries."""
    line = " ".join(str(said).split())
    return re.sub(r"//[^/\s]*@", "//...@", line)[:MOST_CHARACTERS]


def refuse_unknown_variables() -> None:
    """Raise UserMistake for a variable that sets nothing: a misspelt one would be silently ignored."""
    known = {section.upper() for section in Settings.model_fields if section != "home"}
    for name, _ in our_variables():
        if name.removeprefix(PREFIX).removesuffix("_FILE").split("__")[0] not in known:
            raise UserMistake(
                f"Unknown environment variable {name[:MOST_CHARACTERS]!r}; settings are {PREFIX}SECTION__KEY, as in "
                f"{PREFIX}API__PORT."
            )


def find_home(given: Path | None) -> Path:
    """The installation's folder: what was given, else UNDERSTUDY_HOME, else the current folder."""
    return given or Path(os.environ.get(f"{PREFIX}HOME", "."))


def overrule(given: Mapping[str, str]) -> None:
    """Let these settings, as SECTION__KEY, win in this process and its children: over files, also those of secrets."""
    for name, value in given.items():
        os.environ.pop(f"{PREFIX}{name}_FILE", None)
        os.environ[f"{PREFIX}{name}"] = value


def offline() -> None:
    """Keep every library in this process from asking a model hub; inherited by child processes."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def share_cores() -> None:
    """Let threads that wait for each other spin for a moment and then sleep; before OpenMP is loaded, which reads this.

    llama.cpp meets a barrier hundreds of times a token. Spinning for ever, with a training on the same two cores, one
    batch took more than 30 s. Sleeping at once costs a system call at every barrier, dear on a virtual machine: 29
    tokens/s generated, where a thousand turns of spinning give 93 when idle and no less when busy.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


def offline_unless_hub(settings: Settings) -> None:
    """Go offline when everything that `settings` name is on this machine."""
    models, reranker = settings.models, settings.recall.reranker
    if not any(name.startswith("hub:") for name in (models.gguf, models.trainable, models.embedder, reranker)):
        offline()


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process of ours: OpenMP's threads wait as `share_cores` says."""
    return {**WAITING, **os.environ, **extra}
