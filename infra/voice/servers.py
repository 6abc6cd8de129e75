"""The servers that a pool points at: Understudy's own and any OpenAI-compatible one, and vLLM with adapters.

Each says whether it answers and how much it has to do, speaks, and takes orders in two steps: `prepare` loads a version
that nobody hears yet, `point` lets it speak. Pointing at what spoke before is how a prepared version is abandoned.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from infra.adapters import GGUF, AdapterStore, Aim, voice_name
from infra.errors import ServiceTrouble, UserMistake
from infra.remote import Remote
from infra.voice.chat import Voice
from infra.voice.client import HttpVoice
from infra.voice.engine import lot

# Whoever does not say within this time how much it has to do is taken for gone.
LOOK_S = 4.0
# Sending an adapter, trying it in a process of its own, loading and probing it.
ORDER_S = 180.0
WHAT = "voice server"
PROBE = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1}


@dataclass(frozen=True)
class Seen:
    """What a server says of itself: its requests, running and waiting, and whether it speaks as it shall."""

    load: int = 0
    aligned: bool = True


class Server(Protocol):
    """One server of a pool. Every method but `voice` may take its time, and raises UnderstudyError."""

    @property
    def url(self) -> str: ...

    def look(self, aim: Aim) -> Seen:
        """Whether it answers, and speaks as `aim` says."""
        ...

    def voice(self, aim: Aim, conversation: str) -> Voice:
        """Who answers a conversation."""
        ...

    def prepare(self, version: str | None, store: AdapterStore) -> None:
        """Have a version loaded and probed that answers nobody yet; the bare base always is."""
        ...

    def point(self, aim: Aim, store: AdapterStore) -> None:
        """Speak as `aim` says, and keep nothing else loaded."""
        ...


class VoiceServer:
    """One of Understudy's own, or an OpenAI-compatible one, which takes no orders."""

    def __init__(self, url: str, *, model: str, token: str | None) -> None:
        self._url = url
        self._quick, self._orders = Remote(url, token, WHAT, LOOK_S), Remote(url, token, WHAT, ORDER_S)
        self._voice = HttpVoice(url, model=model, token=token)

    @property
    def url(self) -> str:
        return self._url

    def look(self, aim: Aim) -> Seen:
        """See `Server`."""
        found = self._state()
        if found is None:
            return Seen()
        try:
            return Seen(int(found["running"]) + int(found["waiting"]), aligned=Aim(**found["aim"]) == aim)
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceTrouble(f"The {WHAT} at {self._url} is of another version of Understudy.") from error

    def voice(self, aim: Aim, conversation: str) -> Voice:
        """See `Server`. Which adapter answers, it knows itself."""
        return self._voice

    def prepare(self, version: str | None, store: AdapterStore) -> None:
        """See `Server`. Bytes travel only where the server does not have them: by their hash, it knows."""
        self._must_obey()
        if version is None:
            return
        manifest = store.manifest(version)
        sha256 = manifest["files"][GGUF]
        wanted = {"version": version, "sha256": sha256, "verdict": manifest.get("verdict") or {}}
        if self._orders.post("/admin/voices/prepare", **wanted)["missing"]:
            with store.gguf(version).open("rb") as file:
                self._orders.call("PUT", f"/admin/adapters/{sha256}", content=file)
            self._orders.post("/admin/voices/prepare", **wanted)

    def point(self, aim: Aim, store: AdapterStore) -> None:
        """See `Server`. Somebody else's speaks as it does."""
        if self._state() is not None:
            self._orders.post("/admin/voices/point", **asdict(aim))

    def _must_obey(self) -> None:
        if self._state() is None:
            raise UserMistake("it takes no adapters: it is neither Understudy's own nor, by voice.vllm, a vLLM")

    def _state(self) -> dict[str, Any] | None:
        """What one of our own says of itself; None for somebody else's that answers."""
        try:
            found = self._quick.send("GET", "/readyz").json()
        except (UserMistake, ValueError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("aim"), dict):
            return found
        self._quick.send("GET", "/v1/models")
        return None


class VllmServer:
    """A vLLM that was started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.

    It sees the adapter store in the folder `adapters`, and reads the PEFT files there. Which adapter answers is said
    with each request.
    """

    def __init__(self, url: str, *, base: str, model: str, token: str | None, adapters: str) -> None:
        self._url, self._base, self._model, self._token, self._adapters = url, base, model, token, adapters
        self._quick, self._orders = Remote(url, token, WHAT, LOOK_S), Remote(url, token, WHAT, ORDER_S)
        self._spoke: set[str] = set()

    @property
    def url(self) -> str:
        return self._url

    def look(self, aim: Aim) -> Seen:
        """See `Server`. After a restart it has no adapter that it was given while it ran."""
        return Seen(aligned=self._names(aim) <= self._loaded())

    def voice(self, aim: Aim, conversation: str) -> Voice:
        """See `Server`."""
        on_trial = aim.canary and lot(self._name(aim.canary), conversation) < aim.share
        version = aim.canary if on_trial else aim.version
        return HttpVoice(self._url, model=self._name(version) if version else self._model, token=self._token)

    def prepare(self, version: str | None, store: AdapterStore) -> None:
        """See `Server`."""
        loaded = self._loaded()
        if version is None or self._name(version) in loaded:
            return
        name, path = self._name(version), f"{self._adapters.rstrip('/')}/{version}/peft"
        try:
            self._orders.send("POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path})
            self._orders.post("/v1/chat/completions", model=name, **PROBE)
        except UserMistake as error:
            raise UserMistake(
                f"{error} (vLLM takes {path!r} with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)"
            ) from error

    def point(self, aim: Aim, store: AdapterStore) -> None:
        """See `Server`. What spoke before this stays until the next order: somebody may still be listening to it."""
        names = self._names(aim)
        before = store.previous()
        spared = names | self._spoke | ({self._name(before)} if before else set())
        for name in self._loaded() - spared:
            if name.startswith(f"{self._base}+"):
                self._orders.send("POST", "/v1/unload_lora_adapter", json={"lora_name": name})
        self._spoke = names

    def _names(self, aim: Aim) -> set[str]:
        """What must be loaded to speak so."""
        return {self._name(version) for version in (aim.version, aim.canary) if version}

    def _name(self, version: str) -> str:
        return voice_name(self._base, version)

    def _loaded(self) -> set[str]:
        """What it calls the models that it can answer with."""
        try:
            return {str(model["id"]) for model in self._quick.get("/v1/models")["data"]}
        except (KeyError, TypeError) as error:
            raise ServiceTrouble(f"The {WHAT} at {self._url} lists no models: it is no vLLM.") from error
