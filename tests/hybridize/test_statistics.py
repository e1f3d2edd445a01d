"""Windows against a loop over output positions, moments against their definition."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from made import MODELS, images
from onnx_nets import run

from nashc.hybridize import statistics
from nashc.hybridize.original import original
from nashc.hybridize.statistics import Window, moments


@st.composite
def windows(draw):
    """A window, channels and spatial sizes in which it has a place."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    pads, group = (*each(0, 2), *each(0, 2)), draw(st.integers(1, 3))
    sizes = tuple(
        draw(st.integers(max(1, (k - 1) * d + 1 - pads[i] - pads[i + rank]), 7))
        for i, (k, d) in enumerate(zip(kernel, dilations, strict=True))
    )
    return Window(kernel, strides, dilations, pads, group), group * draw(st.integers(1, 3)), sizes


def looped(window, image):
    """im2col by loops: [group, places, C/group * taps]."""
    rank = len(window.kernel)
    outputs = [
        (size + window.pads[i] + window.pads[i + rank] - (window.kernel[i] - 1) * window.dilations[i] - 1)
        // window.strides[i]
        + 1
        for i, size in enumerate(image.shape[1:])
    ]
    each = image.shape[0] // window.group
    rows = np.zeros((window.group, int(np.prod(outputs)), each * int(np.prod(window.kernel))))
    for g in range(window.group):
        for place, position in enumerate(np.ndindex(*outputs)):
            taps = []
            for c in range(g * each, (g + 1) * each):
                for tap in np.ndindex(*window.kernel):
                    at = [
                        p * s + t * d - window.pads[i]
                        for i, (p, s, t, d) in enumerate(
                            zip(position, window.strides, tap, window.dilations, strict=True)
                        )
                    ]
                    inside = all(0 <= a < size for a, size in zip(at, image.shape[1:], strict=True))
                    taps.append(image[(c, *at)] if inside else 0.0)
            rows[g, place] = taps
    return rows


@settings(deadline=None)
@given(windows(), st.integers(0, 2**32 - 1))
def test_windows_are_those_of_a_loop(case, seed):
    window, channels, sizes = case
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *sizes)).astype(np.float32)
    wanted = looped(window, image)
    assert window.places(sizes) == wanted.shape[1]
    np.testing.assert_array_equal(window.cut(image, None), wanted)
    some = rng.choice(wanted.shape[1], min(3, wanted.shape[1]), replace=False)
    np.testing.assert_array_equal(window.cut(image, some), wanted[:, some])


def test_windows_times_weights_are_the_convolution():
    """For every convolution of the models, padded as auto_pad says or by hand."""
    for name in ("plain", "grouped, dilated, strided", "same padding", "one-dimensional", "depthwise"):
        source = original(MODELS[name], {}, "net", "net")
        cut = source.staged
        exposed = onnx.ModelProto()
        exposed.CopyFrom(cut.model)
        nodes = {n.name: n for n in cut.model.graph.node}
        layers = [s.weighted for s in cut.stages]
        wanted = [nodes[layer.node] for layer in layers]
        exposed.graph.output.extend(
            onnx.ValueInfoProto(name=n) for w in wanted for n in (w.input[0], w.output[0]) if n not in ("x", "y")
        )
        x = images(source.shape, 1)[0]
        values = {"x": x} | dict(zip([o.name for o in exposed.graph.output], run(exposed, {"x": x}), strict=True))
        for layer, node in zip(layers, wanted, strict=True):
            given = values[node.input[0]][0]
            weights = cut.tensors[layer.weight].reshape(layer.window.group, -1, layer.window.cut(given, [0]).shape[2])
            found = np.einsum("gpk,gmk->gmp", layer.window.cut(given, None), weights).reshape(
                len(weights.reshape(-1, weights.shape[2])), -1
            )
            found += cut.tensors[layer.bias][:, None]
            out = values[node.output[0]][0]
            np.testing.assert_allclose(found, out.reshape(len(out), -1), rtol=1e-3, atol=1e-4)


@settings(deadline=None)
@given(windows(), st.integers(0, 2**32 - 1))
def test_moments_are_covariances(case, seed):
    window, channels, sizes = case
    rng = np.random.default_rng(seed)
    floats = rng.normal(2.0, 1.0, size=(3, 1, channels, *sizes)).astype(np.float32)
    integers = rng.integers(0, 255, size=floats.shape).astype(np.uint8)
    found = moments(window, floats, integers, lambda q: (q * np.float32(0.02)).astype(np.float32))
    x = np.concatenate([looped(window, image[0]) for image in floats], axis=1)
    q = np.concatenate([looped(window, image[0] * 0.02) for image in integers], axis=1)
    for g in range(window.group):
        both = np.cov(np.concatenate([x[g], q[g]], axis=1).T, bias=True)
        both = np.atleast_2d(both)
        k = x.shape[2]
        np.testing.assert_allclose(found.integer[g], both[k:, k:], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.cross[g], both[:k, k:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.mean, x.mean(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.integer_mean, q.mean(axis=1), rtol=1e-4, atol=1e-5)


def test_blocks_of_images_are_summed(monkeypatch):
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 2)
    given = np.random.default_rng(0).normal(50.0, 1.0, size=(7, 1, 4, 6, 6)).astype(np.float32)
    whole = moments(window, given, given, lambda q: q + 1)
    monkeypatch.setattr(statistics, "BLOCK_ELEMENTS", 2 * 36 * 36)  # two images
    blocks = moments(window, given, given, lambda q: q + 1)
    for name in ("integer", "cross", "mean", "integer_mean"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-4, atol=0.05)


def test_few_windows_are_drawn_from_the_same_places(monkeypatch):
    """Of both streams: the cross moments of a stream with itself are its own."""
    monkeypatch.setattr(statistics, "MOST_WINDOWS", 200)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)
    images = np.random.default_rng(0).normal(size=(10, 1, 2, 12, 12)).astype(np.float32)
    found = moments(window, images, images, lambda q: q)
    # a matrix times its own transpose may take another step of the BLAS, which rounds float32 sums in another order
    np.testing.assert_allclose(found.integer, found.cross, rtol=0, atol=1e-5)
    again = moments(window, images, images, lambda q: q)
    np.testing.assert_array_equal(found.integer, again.integer)
    other = moments(window, images, images, lambda q: q, seed=1)
    assert not np.array_equal(found.integer, other.integer)
    whole = np.cov(np.concatenate([looped(window, i[0]) for i in images], axis=1)[0].T, bias=True)
    assert np.abs(found.integer[0] - whole).max() < 0.5
