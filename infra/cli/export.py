"""`understudy voices export`: what an export needs from this installation, and what it says when it is done."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.compose import adapter_store, open_journal, persona, served_weights, settings_of, threads, weights_folder
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake
from infra.files import finished
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.adapters import AdapterStore
    from trainer.dataset import Dataset
    from trainer.exportcard import Facts


def voices_export(
    home: Path | None, version: str, *, quant: str, out: Path | None, licence: str, as_json: bool
) -> None:
    """Export a version into a folder that says what it is."""
    from trainer.export import Order, export, formats
    from trainer.exportmeasure import Measures
    from trainer.frozen import learned_forgotten

    settings = settings_of(home)
    store, quants = adapter_store(settings), formats(quant)
    store.folder(version)
    if finished(weights_folder(settings)) is None:
        raise UserMistake("The base that it was trained on is not here: restore data/models from a backup.")
    weights, journal = served_weights(settings), open_journal(settings)
    card, built = persona(settings, journal), dataset_of(settings, store, version)
    folder = out or settings.data_folder / "exports" / version
    order = Order(
        store=store,
        version=version,
        weights=weights,
        facts=facts(settings, built, licence=licence, served=weights.format, source=weights.path),
        persona=card,
        quants=quants,
        out=folder.resolve(),
        measures=Measures(built, card, weights, settings.training.seed, threads(settings)),
        learned_forgotten=partial(learned_forgotten, store, version, journal),
        threads=threads(settings),
        say=lambda line: err().print(line, markup=False),
    )
    try:
        manifest = export(order)
    finally:
        journal.close()
    tell(order.out, manifest, as_json=as_json)


def dataset_of(settings: Settings, store: "AdapterStore", version: str) -> "Dataset | None":
    """The dataset that a version was judged by, where its run is still there."""
    from trainer.dataset import load

    manifest = store.manifest(version)
    folder = settings.data_folder / "runs" / str(manifest.get("run", "none")) / "dataset"
    found = finished(folder)
    return load(folder) if found and found["id"] == manifest.get("dataset") else None


def facts(settings: Settings, built: "Dataset | None", *, licence: str, served: str, source: Path) -> "Facts":
    """What the card says of base and dataset: counts, no names."""
    from gguf import GGUFReader

    from trainer.exportcard import RESERVED, Facts, licence_of
    from trainer.merge import text_of

    base = settings.models.base
    under, url = licence_of(base, text_of(GGUFReader(source), "general.license"))
    said = built.manifest if built else {}
    gguf = settings.models.gguf
    return Facts(
        base=base,
        # A path tells of this machine.
        gguf=gguf if ":" in gguf else Path(gguf).name,
        served=served,
        base_licence=under,
        base_url=url,
        licence=licence or RESERVED.format(name=settings.creator.name),
        rows={name: said[name] for name in ("train", "validation") if name in said},
        sources=said.get("sources", {}),
    )


def tell(folder: Path, manifest: dict[str, object], *, as_json: bool) -> None:
    """What was made."""
    if as_json:
        print_json({"folder": str(folder), **manifest})
        return
    measured, made = manifest["measured"], manifest["made"]
    assert isinstance(measured, dict)
    assert isinstance(made, dict)
    rows = (
        (name, f"{made[name]['bytes'] / 2**20:.0f}" if name in made else "", *(number(v) for v in each.values()))
        for name, each in measured.items()
    )
    columns = ("what", "MiB", "perplexity", "NLL", "style")
    out().print(table(f"Wrote {folder}", columns, rows))


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
