"""A small run of the simulator that makes the table in docs/prompt-caching.md."""

from __future__ import annotations

import importlib.util
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

SIMULATOR = Path(__file__).parents[2] / "benchmarks" / "sim_prompt_cache.py"


@pytest.fixture(scope="module")
def sim() -> ModuleType:
    if not SIMULATOR.exists():
        pytest.skip("benchmarks are no part of the wheel")
    spec = importlib.util.spec_from_file_location("sim_prompt_cache", SIMULATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [8])
def test_the_planner_stays_near_the_best_fixed_choice_and_below_none(sim: ModuleType, seed: int) -> None:
    log = resources.files("semcache").joinpath("data/demo/support_log.jsonl").read_text(encoding="utf-8")
    wanted = ("Poisson 3 min,", "Poisson 3 h,", "bursts of 20, one prompt", "diurnal 4 min, one prompt", "log")
    cases = [case for case in sim.scenarios(1000, log.splitlines(), seed) if case.name.startswith(wanted)]
    assert len(cases) == 8
    for model in (sim.MODELS[0], sim.MODELS[2]):
        for case in cases:
            result = sim.compare(*model, case)
            assert result.over_best <= 1.05, result
            assert result.planner <= 1.02, result


def test_always_marking_loses_where_misses_are_rare(sim: ModuleType) -> None:
    case = next(case for case in sim.scenarios(400, [], 7) if case.name == "Poisson 20 h, one prompt")
    result = sim.compare(*sim.MODELS[0], case)
    assert result.always > 1.2
    assert result.planner < 1.02


def test_the_provider_model_charges_by_hand_worked_rules(sim: ModuleType) -> None:
    rules = sim.find_rules(*sim.MODELS[0])
    outline = sim._bounds((1, 5_000, "head"))
    provider = sim.Provider(rules)
    mark, tail, size = [(0, "5m")], 200 * 4, 5_000 * 4
    costs = [provider.charge(sim.Miss(at, outline), mark) for at in (0.0, 1.0, 100.0, 399.0, 699.5)]
    # Written; not ready yet, written again; read; read after that refreshed it; expired, written.
    multiples = [1.25, 1.25, 0.1, 0.1, 1.25]
    assert costs == pytest.approx([size * multiple + tail for multiple in multiples])
    short = sim._bounds((1, 500, "head"))
    assert provider.charge(sim.Miss(0.0, short), mark) == 500 * 4 + tail
