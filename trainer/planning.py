"""What would train at this moment, under the installation's settings: counted and planned without a run."""

from collections.abc import Sequence
from typing import Any

from infra.settings import Settings
from infra.voice.weights import Weights, prepare, source_of
from memory.graph_store import GraphStore
from memory.journal import Journal
from memory.messages import Exchange
from memory.profile import current, opinions, persona_card
from memory.provenance import Permissions
from trainer import dataset, identity, oddness, preference
from trainer.harvest import Harvest, harvest
from trainer.imitations import chosen, mixing
from trainer.quarantine import Suspect


def permissions_of(settings: Settings) -> Permissions:
    """What the operator recorded of platforms' permissions."""
    recorded = settings.permissions.discord_training
    return Permissions(recorded.reference, str(recorded.date)) if recorded else Permissions()


def prepared_weights(settings: Settings) -> Weights:
    """The base that is served, prepared for this machine."""
    folder = settings.data_folder / "models" / settings.models.base
    return prepare(source_of(settings.models.gguf), folder, threads=settings.voice.threads or 2)


def limits_of(settings: Settings) -> dict[str, Any]:
    """How much is held out, and how little is too little."""
    training = settings.training
    return {
        "validation_share": training.validation_share,
        "heldout": training.heldout,
        "least_rows": training.least_rows,
    }


def harvested_now(settings: Settings, journal: Journal) -> Harvest:
    """What may train at this moment, without what looks planted."""
    return harvest(journal, permissions=permissions_of(settings), odd=oddness.known(settings.data_folder))


def suspected(settings: Settings, journal: Journal) -> Sequence[Suspect]:
    """What would train if it did not look planted, and waits for the creator's yes."""
    return harvested_now(settings, journal).suspects


def planned(settings: Settings, journal: Journal) -> dataset.Plan:
    """Which exchanges a training would use for what, as the journal is now. Raises Refused when they are too few."""
    return planned_from(settings, harvested_now(settings, journal))


def planned_from(settings: Settings, found: Harvest) -> dataset.Plan:
    return dataset.plan(
        found.exchanges, max_tokens=settings.models.max_length, excluded=found.excluded, **limits_of(settings)
    )


def harvest_counts(settings: Settings, journal: Journal, stage: str = "") -> dict[str, Any]:
    """What a dataset would hold, counted with reasons; writes nothing. Raises Refused when it is too little."""
    found = harvested_now(settings, journal)
    if stage == preference.STAGE:
        return preference.counts(settings, journal, found.exchanges)
    plan = planned_from(settings, found)
    share, permissions, seed = settings.training.synthetic_share, permissions_of(settings), settings.training.seed
    folder = settings.data_folder
    lines = chosen(folder, journal, plan, share=share, permissions=permissions, seed=seed) if share else []
    said = identity_of(settings, journal, found.exchanges)
    learned = len(plan.train) + len(lines)
    return {**plan.summary(synthetic=len(lines)), **found.summary(), "identity": identity.room(learned, said)}


def identity_of(settings: Settings, journal: Journal, exchanges: Sequence[Exchange]) -> list[identity.Said]:
    """What the twin learns to say of who speaks; stances only from what may train."""
    persona = persona_card(journal, settings.creator.name, settings.creator.about, settings.creator.language)
    store = GraphStore(journal)
    store.catch_up()
    allowed = {each.id for each in exchanges}
    return identity.sayings(persona, current(journal), opinions(store.graph), allowed)


def mixed_in(settings: Settings, journal: Journal) -> dataset.Mixing | None:
    """The imitations that the settings ask for; None when they ask for none."""
    share = settings.training.synthetic_share
    permissions, seed = permissions_of(settings), settings.training.seed
    return mixing(settings.data_folder, journal, share=share, permissions=permissions, seed=seed) if share else None
