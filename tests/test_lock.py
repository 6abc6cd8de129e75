"""One set of versions for CPU and GPU: what unsloth requires must be within constraints.txt, or the extra installs nowhere.

`tests/unsloth_requires.txt` are the requirements in the metadata of the very version that the extra names, so no network
is asked. Whether everything that they require resolves in turn was tried once with pip (trainer/LOG.md).
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "tests" / "unsloth_requires.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where the extra is for: a Linux machine with a CUDA device.
LINUX = {
    **default_environment(),
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "extra": "",
}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def required() -> list[Requirement]:
    lines = RECORDED.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [each for each in found if each.marker is None or each.marker.evaluate(LINUX)]


def refused(requirements: list[Requirement], at: dict[str, Version]) -> set[str]:
    """The packages whose pin a requirement does not allow."""
    pinned = [(each, at[name]) for each in requirements if (name := canonicalize_name(each.name)) in at]
    return {each.name for each, version in pinned if not each.specifier.contains(version, prereleases=True)}


def test_the_gpu_extra_resolves_with_the_pins_of_everything_else() -> None:
    assert refused(required(), pins()) == set()
    assert {"torch", "transformers", "trl", "datasets", "peft", "accelerate", "certifi"} <= {r.name for r in required()}


def test_what_is_recorded_is_what_the_extra_names() -> None:
    wanted = Requirement(PROJECT["optional-dependencies"]["gpu"][0])
    recorded = re.search(r"unsloth (\S+) and", RECORDED.read_text(encoding="utf-8"))

    assert recorded is not None
    assert str(wanted.specifier) == f"=={recorded[1]}"


@pytest.mark.parametrize(("name", "version"), [("trl", "1.16.0"), ("transformers", "5.23.0"), ("datasets", "5.2.0")])
def test_a_pin_that_shuts_unsloth_out_is_seen(name: str, version: str) -> None:
    assert refused(required(), {**pins(), name: Version(version)}) == {name}


def test_our_own_bounds_allow_the_pins() -> None:
    assert refused([Requirement(each) for each in PROJECT["dependencies"]], pins()) == set()
