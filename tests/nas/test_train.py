"""Training: interrupted and gone on with it is the same, bit for bit; what cannot be is refused."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from tiny import SPACE, images

from nashc.errors import NashcError
from nashc.nas.architecture import parse
from nashc.nas.build import build, captured
from nashc.nas.job import open_images
from nashc.nas.recipe import Recipe
from nashc.nas.space import load_space
from nashc.nas.train import Images, Trainer, accuracy

HYBRID = parse("8/12:a3,s3", SPACE)
RECIPE = Recipe(epochs=2, batch=8)
STEPS = 6
PARTS = ("first", "second")
FEW, MANY = Images(*images(24)), Images(*images(96))


def trainer(recipe=RECIPE, data=FEW, seed=0, **named):
    return Trainer(build(HYBRID, SPACE, seed), data, recipe, **named)


@pytest.fixture(scope="module")
def uninterrupted():
    made = trainer()
    made.run()
    return made.net.state_dict()


@pytest.mark.parametrize("steps", [(step,) for step in range(STEPS + 1)] + [(1, 2, 5)])
def test_a_run_that_is_interrupted_ends_with_the_same_bits(tmp_path, uninterrupted, steps):
    path = tmp_path / "checkpoint"
    for seed, step in enumerate(steps):
        made = trainer(seed=seed)  # whatever it starts with, the checkpoint has all
        assert made.resume(path) == (seed > 0)
        made.run(until=step, checkpoint=path)
    last = trainer(seed=100)
    assert last.resume(path)
    assert last.step == steps[-1]
    last.run()
    assert last.step == last.steps == STEPS
    found = last.net.state_dict()
    assert list(found) == list(uninterrupted)
    assert [n for n, value in found.items() if not torch.equal(value, uninterrupted[n])] == []


def test_a_run_is_not_the_next_seed(uninterrupted):
    made = trainer(replace(RECIPE, seed=1))
    made.run()
    assert not torch.equal(made.net.state_dict()["stem.conv.weight"], uninterrupted["stem.conv.weight"])


def test_a_checkpoint_is_written_on_the_way_too(tmp_path):
    steps = []

    def note(progress):
        other = trainer()
        steps.append((progress.step, other.resume(tmp_path / "checkpoint") and other.step))

    trainer().run(checkpoint=tmp_path / "checkpoint", every=0.0, progress=note)
    assert steps == [(n, n) for n in range(1, STEPS + 1)]


def test_without_a_checkpoint_it_starts_anew(tmp_path):
    made = trainer()
    assert not made.resume(tmp_path / "none")
    assert made.step == 0


@pytest.mark.parametrize(
    "other",
    [
        lambda: trainer(replace(RECIPE, rate=0.2)),
        lambda: trainer(replace(RECIPE, epochs=3)),
        lambda: trainer(data=MANY),
        lambda: trainer(note="another network"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(tmp_path, other):
    path = tmp_path / "checkpoint"
    trainer().run(until=1, checkpoint=path)
    before, made = path.read_bytes(), other()
    with pytest.raises(NashcError, match=r"checkpoint: the checkpoint is of another network, .*delete it"):
        made.resume(path)
    assert path.read_bytes() == before
    assert made.step == 0


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-1], lambda whole: whole[:100], lambda whole: b"", lambda whole: b"no checkpoint" * 100,
    lambda whole: b"\xff" * 8 + whole[8:],
])  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "checkpoint"
    trainer().run(until=1, checkpoint=path)
    path.write_bytes(damage(path.read_bytes()))
    before, made = path.read_bytes(), trainer()
    with pytest.raises(NashcError, match=r"checkpoint: no checkpoint: .*delete it to start anew"):
        made.resume(path)
    assert path.read_bytes() == before
    assert made.step == 0


@pytest.mark.parametrize("as_conv", [0.0, 0.5])
def test_decay_is_for_weights_that_multiply(as_conv):
    """One step with and without it: what differs has decay. An adder layer has it as long as it is a convolution."""
    weights = []
    for decay in (0.0, 0.5):
        made = trainer(replace(RECIPE, weight_decay=decay, as_conv=as_conv))
        made.run(until=1)
        weights.append(dict(made.net.named_parameters()))
    differ = {name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])}
    layers = {f"blocks.{block}.{name}.conv.weight" for block in ((0, 1) if as_conv else (1,)) for name in PARTS}
    if as_conv:
        layers.add("blocks.0.shortcut.conv.weight")
    assert differ == {"stem.conv.weight", "classifier.weight"} | layers


@pytest.mark.parametrize(("layer", "rate"), [("adder", "blocks.0.first"), ("shift", "blocks.1.first")])
def test_adder_and_shift_layers_have_rates_of_their_own(layer, rate):
    moves = []
    for share in (1.0, 2.0):
        made = trainer(replace(RECIPE, weight_decay=0.0, as_conv=0.0, **{f"{layer}_rate": share}))
        before = made.net.get_submodule(rate).conv.weight.detach().clone()
        made.run(until=1)
        moves.append(made.net.get_submodule(rate).conv.weight.detach() - before)
    torch.testing.assert_close(moves[1], 2 * moves[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("operators", ["c3,c3", "s3,s3", "a3,a3", "a3,s3"])
def test_the_loss_falls_where_there_is_something_to_learn(operators):
    losses = []
    net = build(parse(f"8/12:{operators}", SPACE), SPACE)
    recipe = Recipe(epochs=16, batch=16, augment=False, label_smoothing=0.0)
    Trainer(net, MANY, recipe).run(progress=lambda p: losses.append(p.loss))
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy(net, Images(*images(80, seed=1), like=MANY)) > 0.9


def test_accuracy_is_the_share_of_images_that_are_right_and_changes_nothing():
    net = build(HYBRID, SPACE).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = accuracy(net, MANY, batch=7)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        scores = net.eval()(MANY.batch(np.arange(len(MANY))))
    assert found == np.mean(scores.argmax(1).numpy() == MANY.labels.numpy())


def test_a_teacher_that_says_the_same_leaves_the_labels_share():
    x, labels = FEW.batch(np.arange(8)), FEW.labels[:8]
    alone = trainer(replace(RECIPE, distil=0.0))
    taught = trainer(replace(RECIPE, distil=0.75), teacher=build(HYBRID, SPACE).train())
    torch.testing.assert_close(taught.loss(x, labels), 0.25 * alone.loss(x, labels))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": 1}, "batches of 1 of 24 images; give 2 to 24"),
        ({"batch": 25}, "batches of 25 of 24 images"),
        ({"epochs": 0}, "epochs=0: must be 1 to"),
        ({"rate": 0.0}, "rate=0.0: must be"),
        ({"distil": 0.5}, "distil=0.5 without a teacher"),
        ({"distil": 2.0}, "distil=2.0: must be 0 to 1"),
        ({"as_conv": 0.9}, "as_conv=0.9 and quantised=0.2: together at most 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, text):
    with pytest.raises(NashcError, match=text):
        trainer(replace(RECIPE, **changes))


def test_a_loss_that_is_no_number_stops_the_run():
    with pytest.raises(NashcError, match=r"the loss is no number after \d+ steps; lower the learning rate"):
        trainer(replace(RECIPE, rate=1e3, epochs=40, adder_rate=1e3)).run()


def test_no_images_are_no_batch():
    with pytest.raises(NashcError, match="batches of 8 of 0 images"):
        trainer(data=Images(FEW.pixels[:0], np.zeros(0, np.int64), like=FEW))


def test_adders_are_convolutions_first_and_have_the_rate_of_those():
    """Up to the change they train as the same network of convolutions from the same weights."""
    made = trainer(replace(RECIPE, adder_rate=99.0))
    start = build(HYBRID, SPACE)
    start.begin_as_conv(RECIPE.seed)
    conv = build(parse("8/12:c3,s3", SPACE), SPACE)
    conv.load_state_dict(start.state_dict(), strict=False)  # it has no steps of adder layers
    alone = Trainer(conv, FEW, RECIPE)
    for one in (made, alone):
        one.run(until=STEPS // 2)
    for name, value in alone.net.named_parameters():
        torch.testing.assert_close(made.net.get_parameter(name), value, rtol=1e-4, atol=1e-5)
    assert all(layer.as_conv for layer in made.net.adders)
    made.run()
    assert not any(layer.as_conv for layer in made.net.adders)


MBCONV = msgspec.structs.replace(load_space("mobilenet-cifar"), resolution=8, classes=4)


@pytest.mark.parametrize(
    ("space", "text"),
    [(SPACE, "8/12:a3,a3"), (SPACE, "8/12:c3,a3"), (MBCONV, "16/16:a3e2/32:s3e2/64:a5e2/128")],
)
def test_adders_imitate_the_convolutions_that_they_were(space, text):
    """A channel keeps mean and deviation, and the network most of what it has learnt, which it has not by other
    weights."""
    recipe = replace(RECIPE, epochs=12, batch=16, augment=False, label_smoothing=0.0, as_conv=0.7, quantised=0.0)
    made = Trainer(build(parse(text, space), space), MANY, recipe)
    made.run(until=round(made.steps * 0.7))
    before, test = accuracy(made.net, MANY), MANY.batch(np.arange(96))
    assert before > 0.9
    last = made.net.adders[-1]
    wanted = captured(made.net, last, test)[1]
    made.net.end_as_conv(test)
    found = captured(made.net, last, test)[1]
    torch.testing.assert_close(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.std((0, 2, 3)), wanted.std((0, 2, 3)), rtol=1e-2, atol=1e-3)
    assert accuracy(made.net, MANY) > 0.9
    for layer in made.net.adders:
        torch.nn.init.normal_(layer.conv.weight)
    assert accuracy(made.net, MANY) < 0.5


@pytest.mark.parametrize("epochs", [1, 2])
def test_adders_are_rounded_in_the_shortest_training(epochs):
    made = Trainer(build(HYBRID, SPACE, 0), Images(*images(8)), Recipe(epochs=epochs, batch=8))
    made.run()
    rounded = [m.rounding for m in made.net.modules() if getattr(m, "rounding", None) is not None]
    assert rounded
    assert all(bool(r.step) for r in rounded)


def test_images_have_a_label_each():
    with pytest.raises(NashcError, match=r"\(24, 3, 8, 8\) images and 23 labels"):
        Images(FEW.pixels, np.zeros(23, np.int64))


def test_images_of_a_file_at_the_size_of_the_space(tmp_path):
    x, y = images()
    np.savez(tmp_path / "x.npz", x=np.kron(x.transpose(0, 2, 3, 1), np.ones((1, 2, 2, 1), np.uint8)), y=y)
    found = open_images(SPACE, str(tmp_path / "x.npz"), "train")
    np.testing.assert_array_equal(found.pixels, x)
    np.testing.assert_array_equal(found.labels, y)
    some = open_images(SPACE, str(tmp_path / "x.npz"), "train", 7)
    assert len(some) == 7
    np.testing.assert_array_equal(some.pixels, open_images(SPACE, str(tmp_path / "x.npz"), "train", 7).pixels)


BYTES = np.zeros((6, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"x": BYTES}, r"x\.npz: the images have no labels"),
        ({"x": BYTES, "y": np.arange(6)}, r"x\.npz: 6 classes, the space 'tiny' has 4"),
        ({"x": BYTES, "y": np.arange(5)}, r"5 labels for 6 images"),
        ({"x": BYTES, "y": np.arange(6) - 1}, r"label -1 of image 0"),
        ({"x": BYTES[:0], "y": np.arange(0)}, "no images"),
        ({"x": BYTES.astype(np.float32).transpose(0, 3, 1, 2), "y": np.arange(6) % 4}, "preprocessed"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(tmp_path, data, text):
    np.savez(tmp_path / "x.npz", **data)
    with pytest.raises(NashcError, match=text):
        open_images(SPACE, str(tmp_path / "x.npz"), "train")


def test_gray_images_for_a_space_of_one_channel(tmp_path):
    np.savez(tmp_path / "x.npz", x=BYTES[..., 0], y=np.arange(6) % 4)
    gray = msgspec.structs.replace(SPACE, channels=1)
    assert open_images(gray, str(tmp_path / "x.npz"), "train").pixels.shape == (6, 1, 8, 8)
