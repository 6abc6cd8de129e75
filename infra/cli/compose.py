"""Puts the parts together for one process, from settings. The only place where all four folders meet.

Each `open_*` builds one part; nothing is opened that the caller did not ask for, since loading the embedder or the
base model takes a second that `teach` or `runs` need not pay.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import logs, traces
from infra.errors import ServiceTrouble, UnderstudyError
from infra.files import finished
from infra.machine import Machine, cores
from infra.settings import Settings, find_home, load_settings, offline_unless_hub, revealed

if TYPE_CHECKING:
    from bot.twin import Manner, Twin
    from infra.adapters import AdapterStore
    from infra.runs import Runs
    from infra.voice.api import Speakers, Voices
    from infra.voice.chat import Turn, Voice
    from infra.voice.fleet import Fleet
    from infra.voice.servers import Server
    from infra.voice.tuning import Basis, Calibration, Tuning
    from infra.voice.weights import Weights
    from memory.encode import Encoder
    from memory.graph_model import ModelReader
    from memory.graph_recall import GraphRecall
    from memory.graph_store import GraphStore
    from memory.importers.records import ImportContext
    from memory.index import Index
    from memory.journal import Journal
    from memory.messages import Person
    from memory.persona import PersonaCard
    from memory.rerank import Reranker

# How often whoever may wait looks whether the voice has nobody to answer.
IDLE_S = 0.2


def settings_of(home: Path | None, *, part: str = "command") -> Settings:
    """The installation's settings, with model hubs switched off unless its preset needs one; logs as this part."""
    settings = load_settings(find_home(home))
    offline_unless_hub(settings)
    logs.begin(settings, part)
    if part != "command":
        traces.begin(settings, part)
    return settings


def now() -> datetime:
    """The clock of every process: aware, UTC."""
    return datetime.now(UTC)


def open_journal(settings: Settings) -> "Journal":
    """The journal. Raises UserMistake for one that this twin has left, or has not wholly arrived in."""
    from infra.moved import refuse_moved
    from memory.journal import Journal

    journal = Journal.open(settings.journal_url)
    try:
        refuse_moved(journal.engine)
    except UnderstudyError:
        journal.close()
        raise
    return journal


def creator_person(settings: Settings) -> "Person":
    """The creator as the one who types here."""
    from memory.messages import Person

    return Person("own", "creator", settings.creator.name, role="creator")


def import_context(settings: Settings) -> "ImportContext":
    from memory.importers.records import ImportContext

    return ImportContext(creator_person(settings), settings.creator_keys, now())


def persona(settings: Settings, journal: "Journal") -> "PersonaCard":
    from memory.profile import persona_card

    return persona_card(journal, settings.creator.name, settings.creator.about, settings.creator.language)


def threads(settings: Settings) -> int:
    """How many threads a model may use: what is set, else every core."""
    return settings.voice.threads or cores()


def weights_folder(settings: Settings) -> Path:
    return settings.data_folder / "models" / settings.models.base


def served_weights(
    settings: Settings,
    say: Callable[[str], None] = lambda line: None,
    *,
    again: bool = False,
    pinned: bool = False,
) -> "Weights":
    """The base model's file for this machine, as `prepare` says; on first use, how it computes is calibrated too."""
    from infra.voice.llama import gpu_layers
    from infra.voice.weights import prepare, source_of

    folder = weights_folder(settings)
    at_set_up = finished(folder) is None and not again
    if at_set_up:
        logs.say("Fitting the base model to this machine, once. This takes a minute or two.")
    weights = prepare(
        source_of(settings.models.gguf),
        folder,
        threads=threads(settings),
        gpu_layers=gpu_layers(settings.voice.gpu_layers),
        again=again,
        pinned=pinned,
        say=say,
    )
    if at_set_up:
        try:
            calibrated(settings, weights)
        except ServiceTrouble as error:
            logs.say(f"How it computes fastest here is not known, so defaults hold: {error}", level=logging.WARNING)
    return weights


def tuning_file(settings: Settings) -> Path:
    return settings.data_folder / "models" / f"{settings.models.base}.tuning.json"


def tuning_basis(settings: Settings, weights: "Weights") -> "Basis":
    """What a calibration of these weights holds for, here and now."""
    from infra.voice.llama import gpu_layers
    from infra.voice.tuning import Basis

    return Basis(Machine.here(), weights.sha256, gpu_layers(settings.voice.gpu_layers))


def served_tuning(settings: Settings, weights: "Weights") -> "tuple[Tuning, str]":
    """How the voice computes, and why: as measured on this machine, but with the threads that a setting names."""
    from infra.voice.tuning import in_use

    tuning, why = in_use(tuning_file(settings), tuning_basis(settings, weights))
    if settings.voice.threads:
        return replace(tuning, threads=0, batch_threads=0), f"{why}; threads as set"
    return tuning, why


def calibrated(settings: Settings, weights: "Weights") -> "Calibration":
    """Measure how these weights are computed fastest here, and keep it for the voice's next start."""
    from infra.voice.calibrate import calibrate
    from infra.voice.speed import SHORT
    from infra.voice.tuning import save

    basis, chosen = tuning_basis(settings, weights), settings.voice.threads == 0
    found = calibrate(weights.path, basis, threads=threads(settings), choose_threads=chosen, effort=SHORT)
    save(tuning_file(settings), found)
    return found


def adapter_store(settings: Settings) -> "AdapterStore":
    from infra.adapters import AdapterStore

    return AdapterStore(settings.data_folder / "adapters")


def open_runs(settings: Settings, journal: "Journal") -> "Runs":
    from infra.runs import Runs

    return Runs(journal.engine)


def open_voices(settings: Settings) -> "Voices":
    """The engine, speaking with the stored voice."""
    from infra.voice.api import Voices
    from infra.voice.engine import Engine

    weights = served_weights(settings)
    engine = Engine(
        weights.path,
        base=settings.models.base,
        base_sha256=weights.sha256,
        streams=settings.voice.streams,
        waiting=settings.voice.queue,
        context_tokens=settings.voice.context_tokens,
        threads=threads(settings),
        tuning=served_tuning(settings, weights)[0],
        memory_mib=settings.voice.memory_mib,
    )
    return Voices(engine, adapter_store(settings))


def open_fleet(settings: Settings) -> "Fleet":
    """The voice servers of the settings, under this twin's orders."""
    from infra.voice.fleet import Fleet

    fleet = Fleet(voice_servers(settings), adapter_store(settings), base=settings.models.base)
    fleet.open()
    return fleet


def voice_servers(settings: Settings) -> "list[Server]":
    """Each server that `voice.urls` names."""
    from infra.voice.servers import VllmServer, VoiceServer

    voice, base = settings.voice, settings.models.base
    model, token = voice.name or base, voice_token(settings)
    if voice.vllm:
        return [VllmServer(url, base=base, model=model, token=token, adapters=voice.vllm) for url in voice.urls]
    return [VoiceServer(url, model=model, token=token) for url in voice.urls]


def voice_token(settings: Settings) -> str | None:
    return revealed(settings.voice.token)


def open_speakers(settings: Settings) -> "Speakers | None":
    """Who speaks for the twin: the engine here or its voice servers; None where `voice.url` looks after itself."""
    if settings.voice.urls:
        return open_fleet(settings)
    if settings.voice.url:
        return None
    voices = open_voices(settings)
    for problem in voices.resume():
        logs.say(problem, level=logging.WARNING)
    return voices


def open_encoder(settings: Settings, name: str = "") -> "Encoder":
    """The embedder of the settings, or the one of this name."""
    from memory.encode import kept_encoder

    models = settings.data_folder / "models"
    return kept_encoder(name or settings.models.embedder, models, threads=threads(settings))


def open_reranker(settings: Settings) -> "Reranker | None":
    """The cross-encoder of the settings; None where they name none."""
    from memory.rerank import Reranker

    name = settings.recall.reranker
    return Reranker(name, settings.data_folder / "models", threads=threads(settings)) if name else None


@dataclass
class Memory:
    """The journal with its index, which one process at a time may hold, and its graph. A context manager."""

    journal: "Journal"
    index: "Index"
    graph: "GraphStore"
    recall: "GraphRecall"

    def drain_all(self) -> None:
        """Bring index and graph up to date with the journal."""
        for drain in self.drains:
            drain()

    @property
    def drains(self) -> "tuple[Callable[[], object], ...]":
        """What does so, part by part: what was taught need not wait for a graph that reads everything again."""
        return self.index.drain_all, self.graph.drain_all

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.index.close()
        self.journal.close()


def open_memory(settings: Settings, folder: Path | None = None) -> Memory:
    """Journal, index and graph, brought up to date. Raises ServiceTrouble when another process holds the index."""
    memory = memory_of(settings, open_journal(settings), folder)
    memory.drain_all()
    return memory


def memory_of(settings: Settings, journal: "Journal", folder: Path | None = None) -> Memory:
    """Memory over a journal that is open, as far as its index has come."""
    from memory.graph_recall import GraphRecall
    from memory.graph_store import GraphStore
    from memory.index import Index
    from memory.recall import Recall
    from memory.vectors import EdgeStore, ServerStore, Store

    encoder, reranker = open_encoder(settings), open_reranker(settings)
    store: Store = EdgeStore(folder or settings.data_folder / "index")
    if settings.index.url:
        given = settings.index
        spread = {"shards": given.shards, "replicas": given.replicas}
        store = ServerStore(given.url, api_key=revealed(given.api_key), **spread)
    index = Index(journal, store, encoder, load=partial(open_encoder, settings))
    graph = GraphStore(journal)
    return Memory(journal, index, graph, GraphRecall(Recall(journal, index, reranker), journal, graph))


@dataclass
class TwinHere:
    """Everything the twin needs, in this process. A context manager."""

    twin: "Twin"
    memory: Memory
    voices: "Speakers | None"

    def __enter__(self) -> "TwinHere":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.voices is not None:
            self.voices.close()
        self.memory.__exit__(kind, error, trace)


def open_twin(settings: Settings) -> TwinHere:
    """Memory, voice and the twin over them; through other servers' voices where the settings name some."""
    from bot.twin import Twin

    memory = open_memory(settings)
    voices = open_speakers(settings)
    twin = Twin(
        memory.journal,
        memory.recall,
        voice=voice_of(settings, voices),
        manner=manner(settings, memory.journal),
        creator=settings.answering,
        silenced=lambda: silenced(memory.journal),
        clock=now,
    )
    return TwinHere(twin, memory, voices)


def voice_of(settings: Settings, voices: "Speakers | None") -> "Voice":
    """Who speaks for the twin here, or the server that `voice.url` names."""
    from infra.voice.client import HttpVoice

    if voices is not None:
        return voices.speaker()
    model = settings.voice.name or settings.models.base
    return HttpVoice(settings.voice.url, model=model, token=voice_token(settings))


def open_model_reader(settings: Settings, here: TwinHere) -> "ModelReader | None":
    """Whoever reads for the graph beside the rules; None where the rules read alone."""
    import json

    from infra.voice.chat import Sampling
    from infra.voice.client import HttpVoice, said_whole
    from memory.graph_model import MOST_TOKENS, ModelReader

    model, token = settings.graph.model, settings.graph.token
    if not model:
        return None
    voice: Voice = voice_of(settings, here.voices)
    if model != "voice":
        voice = HttpVoice(model, model=settings.graph.name, token=revealed(token))

    def ask(turns: "list[Turn]", schema: dict[str, Any]) -> str:
        while model == "voice" and here.voices is not None and here.voices.busy:
            time.sleep(IDLE_S)  # members first
        sampling = Sampling(temperature=0, max_tokens=MOST_TOKENS, schema=json.dumps(schema))
        return said_whole(voice, turns, sampling)

    return ModelReader(here.memory.journal, ask, name=f"{model} {settings.graph.name or settings.models.base}")


def manner(settings: Settings, journal: "Journal") -> "Manner":
    """How this creator's twin answers."""
    from bot.twin import Manner
    from infra.voice.chat import Sampling
    from memory.ranking import THRESHOLD

    voice, recall = settings.voice, settings.recall
    sampling = Sampling(temperature=voice.temperature, top_p=voice.top_p, max_tokens=voice.max_tokens)
    threshold = THRESHOLD if recall.threshold is None else recall.threshold
    thinks, shows = voice.reasoning != "off", voice.reasoning == "shown"
    card = persona(settings, journal)
    return Manner(card, sampling, recall.limit, recall.budget_tokens, threshold, thinks=thinks, shows_thinking=shows)


def silenced(journal: "Journal") -> bool:
    """Whether the kill switch is thrown, by anybody, on whichever machine: what the journal says holds for all."""
    from memory.members import TWIN, Members

    return Members(journal).chosen(TWIN.key, "silent")


def set_silence(journal: "Journal", *, on: bool) -> None:
    """Throw the kill switch, or lift it."""
    from memory.members import TWIN
    from memory.remember import choice_event, remember

    remember(journal, [choice_event(TWIN, "silent", value=on, at=now())], creator=frozenset())
