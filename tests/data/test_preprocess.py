"""Preprocessing against its formula and Pillow; its text in a model's metadata; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nashc.data import Preprocess
from nashc.data.preprocess import CHANNELS, INTERPOLATIONS, LAYOUTS
from nashc.errors import NashcError

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
numbers = st.floats(-1e3, 1e3)
divisors = st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)
sides = st.integers(1, 40)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    channels = draw(st.sampled_from(sorted(CHANNELS)))
    values = st.sampled_from([1, CHANNELS[channels]]).flatmap
    resize = draw(st.just(()) | st.tuples(sides) | st.tuples(sides, sides))
    crop = draw(st.just(()) | st.tuples(sides, sides))
    return Preprocess(
        mean=tuple(draw(values(lambda n: st.lists(numbers, min_size=n, max_size=n)))),
        std=tuple(draw(values(lambda n: st.lists(divisors, min_size=n, max_size=n)))),
        scale=draw(divisors),
        channels=channels,
        layout=draw(st.sampled_from(LAYOUTS)),
        resize=resize,
        crop=tuple(map(min, crop, resize)) if len(resize) == 2 else crop,
        interpolation=draw(st.sampled_from(sorted(INTERPOLATIONS))),
    )


def image_of(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(preprocesses())
def test_metadata_gives_back_the_same_preprocessing(preprocess):
    props = preprocess.metadata()
    assert all(isinstance(text, str) and key.startswith("nashc.preprocess.") for key, text in props.items())
    assert Preprocess.from_metadata({"author": "somebody", **props}) == preprocess


def test_metadata_of_others_is_none_and_missing_keys_are_defaults():
    assert Preprocess.from_metadata({"author": "somebody"}) is None
    assert Preprocess.from_metadata({"nashc.preprocess.mean": " 1, 2,3 "}) == Preprocess(mean=(1.0, 2.0, 3.0))


def by_pillow(preprocess: Preprocess, image: np.ndarray) -> np.ndarray:
    """The definition, step by step, in double precision."""
    picture = Image.fromarray(image.reshape(image.shape[:2]) if image.size == image[..., :1].size else image)
    picture = picture.convert("L" if preprocess.channels == "gray" else "RGB")
    width, height = picture.size
    if preprocess.resize:
        short = preprocess.resize[0] / min(width, height)
        exact = len(preprocess.resize) == 2
        size = preprocess.resize if exact else (int(height * short + 1e-9), int(width * short + 1e-9))
        picture = picture.resize((size[1], size[0]), INTERPOLATIONS[preprocess.interpolation])
        width, height = picture.size
    if preprocess.crop:
        rows, columns = preprocess.crop
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        picture = picture.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(picture, np.float64).reshape(picture.height, picture.width, -1)
    pixels = pixels[..., ::-1] if preprocess.channels == "bgr" else pixels
    values = (pixels * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    return values if preprocess.layout == "nhwc" else values.transpose(2, 0, 1)


@settings(max_examples=200, deadline=None)
@given(preprocesses(), st.integers(1, 24), st.integers(1, 24), st.sampled_from([0, 1, 3]))
def test_apply_is_pillow_and_the_formula(preprocess, height, width, channels):
    image = image_of(height, width, channels)
    before = image.copy()
    try:
        found = preprocess.apply(image)
    except NashcError as caught:
        error = str(caught)
    else:
        error = ""
    if error:
        assert "is smaller than the crop" in error
        assert "give --resize" in error
        return
    expected = by_pillow(preprocess, image)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(image, before)


def test_a_known_value():
    white = IMAGENET.apply(np.full((2, 2, 3), 255, np.uint8))
    np.testing.assert_allclose(
        white[:, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6
    )


def test_bgr_takes_mean_and_std_in_the_models_order():
    image = np.zeros((1, 1, 3), np.uint8)
    image[0, 0] = (1, 2, 3)
    found = Preprocess(mean=(10.0, 20.0, 30.0), channels="bgr").apply(image)
    assert found[:, 0, 0].tolist() == [3 - 10, 2 - 20, 1 - 30]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (0.1, 0.2)}, "preprocess, mean: 2 values for rgb images; give 1 value or 3"),
        ({"mean": (0.1, 0.2, 0.3), "channels": "gray"}, "preprocess, mean: 3 values for gray images; give 1 value"),
        ({"mean": ()}, "preprocess, mean: 0 values for rgb images"),
        ({"std": (1.0, 0.0, 1.0)}, "preprocess, std: a value is 0"),
        ({"std": (float("nan"),)}, "preprocess, std: (nan,) are not finite numbers"),
        ({"std": (1e-300,)}, "preprocess, std: values become larger than float32 holds"),
        ({"mean": 0.5}, "preprocess, mean: 0.5 are not finite numbers; give numbers, separated by commas"),
        ({"mean": ("a",)}, "preprocess, mean"),
        ({"scale": 0}, "preprocess, scale: 0 makes all pixels equal"),
        ({"scale": "1/255"}, "preprocess, scale: ('1/255',) are not finite numbers"),
        ({"channels": "grey"}, "preprocess: unknown channels 'grey'; did you mean 'gray'?"),
        ({"channels": ["rgb"]}, "preprocess: unknown channels"),
        ({"layout": "NCHW"}, "preprocess: unknown layout 'NCHW'"),
        ({"interpolation": "linear"}, "preprocess: unknown interpolation 'linear'; did you mean 'bilinear'?"),
        ({"resize": (0,)}, "preprocess, resize: 0 is no size; give a shorter side or height,width"),
        ({"resize": (1, 2, 3)}, "preprocess, resize: 1,2,3 is no size"),
        ({"resize": (224.7,)}, "preprocess, resize: (224.7,) are not whole numbers"),
        ({"resize": (10**400,)}, "preprocess, resize"),
        ({"crop": (224,)}, "preprocess, crop: 224 is no size; give height,width"),
        ({"crop": (1, -1)}, "preprocess, crop: 1,-1 is no size"),
        ({"resize": (32, 32), "crop": (32, 33)}, "preprocess, crop: 32x33 does not fit in resize 32x32"),
    ],
)
def test_refused_values_say_why(given, message):
    with pytest.raises(NashcError) as error:
        Preprocess(**given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({"nashc.preprocess.maen": "1"}, "metadata nashc.preprocess: unknown key 'maen'; did you mean 'mean'?"),
        ({"nashc.preprocess.mean": "1,,2"}, "preprocess, mean"),
        ({"nashc.preprocess.resize": "224.0"}, "preprocess, resize: ['224.0'] are not whole numbers"),
        ({"nashc.preprocess.crop": "9" * 5000 + ",1"}, "preprocess, crop"),
        ({"nashc.preprocess.scale": "inf"}, "preprocess, scale"),
        ({"nashc.preprocess.layout": "x" * 10000}, "preprocess: unknown layout"),
    ],
)
def test_damaged_metadata_says_why(props, message):
    with pytest.raises(NashcError) as error:
        Preprocess.from_metadata(props)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 6000


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros(4, np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(NashcError, match="is no image; an image is uint8"):
        IMAGENET.apply(image)


def test_an_image_as_thin_as_a_hair_does_not_fill_the_memory():
    with pytest.raises(NashcError, match="would become 16x160000; resize to height,width"):
        Preprocess(resize=(16,)).apply(np.zeros((1, 10000), np.uint8))


@pytest.mark.parametrize(
    ("preprocess", "text"),
    [
        (Preprocess(), "pixel, rgb in nchw"),
        (Preprocess(scale=0.5, mean=(1.0,), channels="gray"), "(pixel*0.5 - 1), gray in nchw"),
        (Preprocess(std=(2.0,), resize=(8,), crop=(4, 6)), "shorter side 8, cropped to 4x6, pixel/2, rgb in nchw"),
        (Preprocess(mean=(1.0, 2.0, 3.0), resize=(8, 9)), "resized to 8x9, (pixel - (1, 2, 3)), rgb in nchw"),
    ],
)
def test_the_text_shows_the_formula(preprocess, text):
    assert str(preprocess) == text
