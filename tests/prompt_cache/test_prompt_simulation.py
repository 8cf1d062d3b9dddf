"""A small run of the simulator that makes the table in docs/prompt-caching.md."""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LOG = Path(str(resources.files("semcache").joinpath("data/demo/support_log.jsonl")))


@pytest.fixture(scope="module")
def sim() -> ModuleType:
    if not (ROOT / "benchmarks").exists():
        pytest.skip("benchmarks are no part of the wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return importlib.import_module("benchmarks.sim_prompt_cache")


@pytest.mark.parametrize(
    "name",
    [
        "Poisson 3 min, one prompt",
        "Poisson 3 h, one prompt",
        "bursts of 20, one prompt",
        "diurnal 4 min, one-shots",
        "filling cache 20 s, documents",
        "Poisson 3 min, chats",
        "Poisson 3 min, agents",
        "Poisson 10 s, fan-outs",
        "log",
    ],
)
def test_the_planner_stays_near_the_best_fixed_choice_and_below_none(sim: ModuleType, name: str) -> None:
    # Where documents come back after hours, a short run ends before what was written for twelve is read.
    misses = sim.scenarios(1500 if "filling" in name else 600, LOG, 8)[name]()
    for model in (sim.MODELS[0], sim.MODELS[3]):
        result = sim.compare(model, name, misses)
        assert result.over_best <= 1.05, result
        assert result.planner <= 1.02, result


def test_always_marking_loses_where_misses_are_rare(sim: ModuleType) -> None:
    result = sim.compare(sim.MODELS[0], "rare", sim.scenarios(400, LOG, 7)["Poisson 20 h, one prompt"]())
    assert result.always > 1.2
    assert result.planner < 1.02


def test_marking_what_nobody_can_read_yet_loses(sim: ModuleType) -> None:
    result = sim.compare(sim.MODELS[0], "together", sim.scenarios(600, LOG, 7)["Poisson 3 min, fan-outs"]())
    assert result.always > 1.15
    assert result.planner < 0.8


def prompt(sim: ModuleType, at: float, *parts: tuple[int, int, str, int]) -> object:
    traffic = importlib.import_module("benchmarks.prompt_traffic")
    return sim.as_prompt(traffic.Miss(at, [traffic.Part(*part) for part in parts], 2.0), sim.MODELS[0].rules)


def test_the_provider_model_charges_by_hand_worked_rules(sim: ModuleType) -> None:
    provider = sim.Provider(sim.MODELS[0].rules)
    system = (1, 5_000, "system", 1)
    mark, tail, size = [(0, "5m")], 200 * 4, 5_000 * 4
    costs = [provider.charge(prompt(sim, at, system), mark) for at in (0.0, 1.0, 2.5, 100.0, 399.0, 699.5)]
    # Written; not ready yet, written again; ready since the first was; read, and refreshed by that, twice; expired.
    multiples = [1.25, 1.25, 0.1, 0.1, 0.1, 1.25]
    assert costs == pytest.approx([size * multiple + tail for multiple in multiples])
    assert provider.charge(prompt(sim, 0.0, (1, 500, "system", 1)), mark) == 500 * 4 + tail


@pytest.mark.parametrize(("blocks", "read"), [(20, True), (21, False)])
def test_the_provider_model_looks_back_twenty_blocks(sim: ModuleType, blocks: int, read: bool) -> None:
    provider = sim.Provider(sim.MODELS[0].rules)
    system, turn = (1, 5_000, "system", 1), (2, 1_000, "user", blocks)
    provider.charge(prompt(sim, 0.0, system), [(0, "5m")])
    cost = provider.charge(prompt(sim, 60.0, system, turn), [(1, "5m")])
    assert cost == pytest.approx(4 * (5_000 * 0.1 + 1_000 * 1.25 + 200 if read else 6_000 * 1.25 + 200))


def test_the_provider_model_refuses_what_a_provider_would(sim: ModuleType) -> None:
    parts = [(i, 2_000, "user", 1) for i in range(6)]
    for marks in ([(0, "5m"), (1, "1h")], [(i, "5m") for i in range(5)]):
        with pytest.raises(ValueError, match="refused"):
            sim.Provider(sim.MODELS[0].rules).charge(prompt(sim, 0.0, *parts), marks)


def test_a_log_with_conversations_keeps_their_turns_apart(sim: ModuleType, tmp_path: Path) -> None:
    lines = [
        '{"ts": 10, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}',
        '{"ts": 20, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}',
        '{"ts": 30, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, '
        '{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}',
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines))
    misses = sim.scenarios(1, log, 7)["log"]()
    assert [(miss.at, [part.role for part in miss.parts]) for miss in misses] == [
        (10, ["system"]),
        (30, ["system", "user", "assistant"]),
    ]


def test_a_run_depends_on_nothing_but_its_seed(sim: ModuleType) -> None:
    once, again, other = (sim.run("bursts of 3, one prompt", 150, LOG, seed) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_a_beginning_is_that_of_the_whole_and_told_apart_from_it(sim: ModuleType) -> None:
    made = sim.scenarios(100, LOG, 7)
    whole, hour = (made[name]() for name in ("Poisson 3 min, one prompt", "Poisson 3 min, one prompt, first 1 h"))
    assert 1 < len(hour) < len(whole)
    assert hour == whole[: len(hour)]
    rows = [
        ([sim.compare(sim.MODELS[0], name, misses)], []) for name, misses in (("whole", whole), ("x, first 1 h", hour))
    ]
    *_, of_whole, of_hours = sim.report(rows).splitlines()
    assert "whole" in of_whole
    assert "x, first 1 h" in of_hours
