"""What the bots do, with only the packages of their image: `python -m tests.infra.small_image HOME`.

Everything that is installed here and not there cannot be imported.
"""

import importlib.metadata as metadata
import json
import re
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"^[A-Za-z0-9._-]+")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> list[str]:
    lines = (ROOT / "infra" / "docker" / "bot.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def with_what_they_need(requirements: list[str]) -> set[str]:
    """The distributions that pip would install for these; of extras only those that are asked for."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        given = waiting.pop()
        name = canonical(NAME.match(given)[0])
        extras = set(re.findall(r"\[(.+?)\]", given)[0].split(",")) if "[" in given.split(";")[0] else set()
        if (key := f"{name}{sorted(extras)}") in found:
            continue
        found |= {key, name}
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in needs:
            asked = re.findall(r"extra == ['\"](.+?)['\"]", need)
            if not asked or extras & set(asked):
                waiting.append(need.split(";")[0].strip())
    return found


class OnlyThese(MetaPathFinder):
    """Refuses the modules of every other distribution that is installed here."""

    def __init__(self, known: set[str]) -> None:
        modules = metadata.packages_distributions()
        self.refused = {
            module
            for module, owners in modules.items()
            if not {canonical(owner) for owner in owners} & (known | {"understudy"})
        }

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"{fullname} is not in the image of the bots")


def main(home: Path) -> None:
    known = with_what_they_need(wanted())
    assert not known & {"torch", "transformers", "llama-cpp-python", "onnxruntime", "qdrant-client"}
    finder = OnlyThese(known)
    assert "torch" in finder.refused
    sys.meta_path.insert(0, finder)

    from infra.cli.bots import PLATFORMS, on, open_community
    from infra.cli.compose import now, open_journal
    from infra.errors import UnderstudyError
    from infra.settings import load_settings
    from memory.forget import forget
    from memory.messages import Source
    from memory.remember import exchange_event, message_event, remember
    from memory.selection import Selection
    from tests.memory.making import said, taught
    from tests.people import BOB

    settings = load_settings(home)
    journal = open_journal(settings)
    rows = [
        taught(f"How long do I proof loaf {n}?", f"Aye, {n} hours, friend, and not less.", days=n) for n in range(1, 61)
    ]
    remember(journal, [exchange_event(each) for each in rows], creator=settings.answering)
    remember(journal, [message_event(said("1", BOB, "Hello"), Source.TELEGRAM_GROUP)], creator=settings.answering)
    community = open_community(settings, journal)
    for name in PLATFORMS:
        on(name, settings, community, settings.data_folder / "run")
    report = {"rows": community.operations.plan()["rows"], "started": community.operations.retrain()[1]}
    forget(journal, Selection(person=BOB.key), creator=settings.answering, now=now())
    community.operations.follow_forgotten()
    try:
        community.operations.voices()
    except UnderstudyError as error:
        report["voices"] = type(error).__name__
    report["torch"] = "torch" in sys.modules
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
