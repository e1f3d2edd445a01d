"""Every named case of bad input and the first mutations; benchmarks/bad_input.py runs 2,000 and some in processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from bad_files import FILES
from bad_models import MODELS
from judge import Case, judge
from mutations import mutation, originals, valid

CASES = (*MODELS, *FILES)
MUTATIONS = 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.name}")
def test_bad_input_is_one_clear_line(case, tmp_path):
    assert not judge(case, tmp_path).faults


def test_there_are_enough_cases_and_each_has_a_name():
    names = Counter((case.kind, case.name) for case in CASES)
    assert len(names) >= 60
    assert max(names.values()) == 1


@pytest.mark.parametrize("number", range(len(originals())))
def test_what_is_mutated_was_valid(number, tmp_path):
    assert not judge(valid(number), tmp_path).faults


@pytest.mark.parametrize("start", range(0, MUTATIONS, 50))
def test_mutations_are_refused_or_still_valid(start, tmp_path):
    faults = {}
    for seed in range(start, start + 50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = mutation(seed)
        faults[f"{case.kind}, {case.name}"] = judge(case, folder, codes=(0, 2)).faults
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize("case", [MODELS[0], FILES[0], FILES[-1]], ids=lambda case: case.name)
def test_a_process_of_its_own_does_the_same(case: Case, tmp_path: Path):
    assert not judge(case, tmp_path, process=True).faults
