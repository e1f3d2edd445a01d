"""Every strategy spends its budget on a network of the space that is fast enough, the same one for the same seed."""

from collections import Counter
from dataclasses import replace
from random import Random

import msgspec
import numpy as np
import pytest
import torch
from tiny import SPACE, images

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, parse, problems, sample
from nashc.nas.build import build
from nashc.nas.layout import layout, macs
from nashc.nas.recipe import Recipe
from nashc.nas.space import Space, load_space
from nashc.nas.strategies import STRATEGIES, Task
from nashc.nas.strategies.mixture import MixedNet
from nashc.nas.strategies.nasa import backbone, gumbel
from nashc.nas.strategies.sandwich import SandwichTrainer
from nashc.nas.supernet import extract, extreme, supernet
from nashc.nas.train import Images, Trainer, accuracy

TRAIN = Images(*images(160))
VALIDATION = Images(*images(64, 1), like=TRAIN)
RECIPE = Recipe(batch=16, augment=False)
NAMES = tuple(STRATEGIES)
SEARCHED = {"zero-shot": "proxy", "pre-identified": "supernet", "nasa-f": "supernet", "nasa": "search"}
"""A stage that each strategy has."""


def size(architecture: Architecture, space: Space = SPACE) -> int:
    return sum(macs(layout(architecture, space)).values())


def fps(architecture: Architecture) -> float:
    return 1e6 / size(architecture)


ALL = sorted({sample(SPACE, Random(i)) for i in range(500)}, key=fps)
TASK = Task(SPACE, TRAIN, VALIDATION, 2e8, proxy="flops", recipe=RECIPE, fps=fps, scored=12, pool=4)
LEAN = replace(TASK, budget=8e7, scored=6)
"""Enough for all stages, if not to learn much."""


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_the_space_is_trained_for_what_the_budget_pays(name: str) -> None:
    found = STRATEGIES.get(name).run(TASK)
    assert problems(found.architecture, SPACE) == []
    assert found.net.architecture == found.architecture
    assert found.validation == accuracy(found.net, VALIDATION) > 0.6  # of four classes
    assert 0.95 * TASK.budget < found.spent <= TASK.budget
    assert {"final", SEARCHED[name]} <= set(found.cpu_seconds)
    assert all(seconds >= 0 for seconds in found.cpu_seconds.values())
    assert (found.conflict is not None) == ("supernet" in found.cpu_seconds)
    if found.conflict is not None:
        assert 0 <= found.conflict.pairs <= 1
        assert -1 <= found.conflict.cosine <= 1


@pytest.mark.parametrize("name", NAMES)
def test_everything_random_comes_from_the_seed(name: str) -> None:
    one = STRATEGIES.get(name).run(LEAN)
    torch.manual_seed(99)
    same = STRATEGIES.get(name).run(LEAN)
    assert (one.architecture, one.validation, one.spent) == (same.architecture, same.validation, same.spent)
    assert one.conflict == same.conflict
    state = same.net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in one.net.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_candidates_that_are_too_slow_are_out(name: str) -> None:
    limit = fps(ALL[-len(ALL) // 4])
    assert fps(STRATEGIES.get(name).run(replace(LEAN, min_fps=limit)).architecture) >= limit
    with pytest.raises(NashcError, match="lower the limit"):
        STRATEGIES.get(name).run(replace(LEAN, min_fps=1e9))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nasa"])
def test_a_list_of_candidates_is_the_whole_choice(name: str) -> None:
    some = tuple(ALL[:: len(ALL) // 5])
    found = STRATEGIES.get(name).run(replace(LEAN, candidates=some))
    assert found.architecture in some


def test_nasa_searches_no_list() -> None:
    with pytest.raises(NashcError, match="not a list of candidates; give a space"):
        STRATEGIES.get("nasa").run(replace(TASK, candidates=tuple(ALL[:3])))


def test_the_best_finalist_is_returned() -> None:
    found = STRATEGIES.get("zero-shot").run(replace(LEAN, finalists=3))
    assert found.validation == accuracy(found.net, VALIDATION)
    assert 0.95 * LEAN.budget < found.spent <= LEAN.budget


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_for_no_training_is_refused(name: str) -> None:
    with pytest.raises(
        NashcError, match=r"nothing is left of 1 image-MACs for the final training; give a larger budget"
    ):
        STRATEGIES.get(name).run(replace(TASK, budget=1.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": 0.0}, "a budget of 0 image-MACs; it must be positive"),
        ({"budget": float("inf")}, "a budget of inf image-MACs"),
        ({"pool": 1}, "1 finalists and a pool of 1 from 12"),
        ({"finalists": 13}, "13 finalists"),
        ({"proxy": "flop"}, "did you mean 'flops'"),
        ({"recipe": replace(RECIPE, batch=161)}, "batches of 161 of 160 images"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(NashcError, match=said):
        replace(TASK, **changes).check()


@pytest.mark.parametrize("text", ["8/8:c3,s3", "8/12:a3,c3", "8/12:a3"])
def test_a_supernet_of_one_subnet_trains_as_the_network_alone(text: str) -> None:
    """Also as two of the same: a gradient is the mean over the subnets, and what the teacher says are no labels."""
    architecture = parse(text, SPACE)
    recipe = replace(RECIPE, as_conv=0.0, quantised=0.0, weight_decay=0.0)
    shared = supernet(SPACE, 1)
    alone = Trainer(extract(shared, architecture), TRAIN, recipe)
    alone.steps = 4
    alone.run()
    trainer = SandwichTrainer(shared, TRAIN, recipe, lambda _: [architecture], 4)
    trainer.run()
    assert trainer.work == 4 * size(architecture)
    for one, other in zip(alone.net.parameters(), extract(shared, architecture).parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_step_of_many_subnets_moves_a_weight_no_further_than_of_one() -> None:
    """Adder layers bring the gradient of every subnet to one length, which four of them must not add up to."""
    architecture = parse("8/12:a3,a3", SPACE)
    moved = []
    for count in (1, 4):
        shared = supernet(SPACE, 1)
        before = shared.layers["0_1_adder_first"].conv.weight.detach().clone()
        trainer = SandwichTrainer(shared, TRAIN, RECIPE, lambda _, count=count: [architecture] * count, 1)
        trainer.run()
        moved.append(float((shared.layers["0_1_adder_first"].conv.weight.detach() - before).norm()))
    assert moved[1] == pytest.approx(moved[0], rel=0.3)


@pytest.mark.parametrize("name", ["mobilenet-cifar", "resnet-cifar"])
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_one_path_each_is_a_network(name: str, seed: int) -> None:
    space = msgspec.structs.replace(load_space(name), resolution=16)
    net = MixedNet(extreme(space, lambda stage: stage.operators[0], largest=True), space).eval()
    random = Random(seed)
    paths = [random.choice([i for i, c in enumerate(p.choices) if c is not None]) for p in net.places]
    mix = [{path: 1.0} for path in paths]
    alone = build(net.architecture(paths), space).eval()
    state = net.stem.state_dict() | net.tail.state_dict()
    for block, path in zip(net.blocks, paths, strict=True):
        state |= block[path].state_dict()
    alone.load_state_dict(state)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(net(x, mix), alone(x))
    assert net.size(mix) == size(alone.architecture, space)
    skipped = [len(place.choices) - 1 for place in net.places]
    smallest = net.architecture(skipped)
    assert [len(stage.blocks) for stage in smallest.stages] == [min(stage.depths) for stage in space.stages]
    assert net.size([{path: 1.0} for path in skipped]) == size(smallest, space)


def test_gumbel_noise_draws_paths_by_their_shares() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    first: Counter[int] = Counter()
    for _ in range(2000):
        weights = gumbel(logits, 1.0, generator)
        assert sum(float(w.detach()) for w in weights.values()) == pytest.approx(1)
        first[max(weights, key=lambda i: float(weights[i].detach()))] += 1
    drawn = np.array([first[i] for i in range(3)]) / 2000
    assert drawn == pytest.approx(logits.detach().softmax(0).numpy(), abs=0.04)
    max(weights.values()).backward()
    assert logits.grad.abs().sum() > 0


def test_the_backbone_is_the_largest_that_is_fast_enough() -> None:
    largest = backbone(TASK)
    assert size(largest) == max(map(size, ALL))
    limit = fps(largest) * 1.01
    smaller = backbone(replace(TASK, min_fps=limit))
    assert fps(smaller) >= limit
