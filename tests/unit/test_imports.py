"""What a process loads, seen from inside a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import retrieval_detect
from retrieval_detect import errors
from retrieval_detect.types import FactFields, Facts
from retrieval_detect.verdicts import Question, QuestionFields

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
HEAVY = {"PIL", "faiss", "numpy", "open_clip", "pyarrow", "sklearn", "scipy", "timm", "torch", "torchvision"}

HELP = """
import sys
from retrieval_detect.cli.main import main
assert main(["--help"]) == 0
"""


def packages_after(program: str) -> set[str]:
    show = "\nimport sys\nsys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program + show], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    return set(done.stderr.split())


def test_import_loads_nothing_heavy():
    loaded = packages_after("import retrieval_detect")
    assert "retrieval_detect" in loaded
    assert not loaded & (HEAVY | {"click", "rich"})


def test_help_loads_click_and_little_else():
    loaded = packages_after(HELP)
    assert "click" in loaded
    assert not loaded & (HEAVY | {"rich", "platformdirs", "json", "tomllib"})


def test_help_loads_no_command():
    packages_after(
        HELP + "assert not [m for m in sys.modules if m.startswith('retrieval_detect.cli.commands.')]"
    )


@pytest.mark.parametrize(
    "module", ["retrieval_detect.cli.settings", "retrieval_detect.types", "retrieval_detect.errors"]
)
def test_the_lower_layers_are_light(module):
    assert not packages_after(f"import {module}") & (HEAVY | {"click", "rich", "platformdirs"})


def test_public_names_are_sorted_and_listed():
    assert retrieval_detect.__all__ == sorted(retrieval_detect.__all__)
    assert dir(retrieval_detect) == retrieval_detect.__all__


def test_every_public_name_is_there_and_every_error_is_public():
    public = {name: getattr(retrieval_detect, name) for name in retrieval_detect.__all__}
    assert {name for name, thing in public.items() if thing is None} == set()
    raised = {name: thing for name, thing in vars(errors).items() if isinstance(thing, type)}
    assert raised.items() <= public.items() and len(raised) > 10


@pytest.mark.parametrize(("asked", "record"), [(QuestionFields, Question), (FactFields, Facts)])
def test_typed_options_are_the_fields_of_what_they_become(asked, record):
    assert get_type_hints(asked) == get_type_hints(record)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Detektor'"):
        _ = retrieval_detect.Detektor
