"""All forms of data give the same images, labels and batches; what does not fit says which flags make it fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from written import FORMS, cifar10, class_folders, flat, gray_of, idx, images_and_labels, npy, png, records, sheets

from nashc.data import Preprocess, open_data
from nashc.data import dataset as dataset_module
from nashc.data.fit import fitted
from nashc.errors import NashcError

PLAIN = Preprocess()
SHAPE = ("batch", 3, 32, 32)
IMAGES, LABELS = images_and_labels()


def opened(form, folder, preprocess=PLAIN, shape=SHAPE, **more):
    return open_data(FORMS[form].write(folder, IMAGES, LABELS), preprocess, shape, **more)


def all_images(data, size=5, **more):
    return np.concatenate([images for images, _ in data.batches(size, **more)])


def refusal(*args, **more):
    with pytest.raises(NashcError) as error:
        for _ in open_data(*args, **more).batches(4):
            pass
    return str(error.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_every_form_gives_the_same_images_and_labels(form, layout, tmp_path):
    shape = SHAPE if layout == "nchw" else (None, 32, 32, 3)
    data = opened(form, tmp_path, Preprocess(layout=layout, scale=2.0), shape)
    expected = np.repeat(gray_of(IMAGES)[..., None], 3, axis=3) if FORMS[form].gray else IMAGES
    expected = 2.0 * (expected.transpose(0, 3, 1, 2) if layout == "nchw" else expected)
    assert len(data) == len(IMAGES)
    np.testing.assert_array_equal(all_images(data), expected)
    if FORMS[form].labelled:
        assert data.labels.dtype == np.int64
        np.testing.assert_array_equal(data.labels, LABELS)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in data.batches(5)]), LABELS)
    else:
        assert data.labels is None
        assert all(labels is None for _, labels in data.batches(5))


@pytest.mark.parametrize("form", ["class folders", "cifar-10", "png sheets"])
def test_a_subset_holds_the_images_of_its_indices(form, tmp_path):
    data = opened(form, tmp_path)
    chosen = data.chosen(7, seed=3)
    np.testing.assert_array_equal(all_images(data, count=7, seed=3), IMAGES[chosen].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(next(data.batches(7, count=7, seed=3))[1], LABELS[chosen])


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_subsets_are_distinct_repeatable_and_grow(count, seed):
    data = OPEN["npy"]
    chosen = data.chosen(count, seed)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(data))
    np.testing.assert_array_equal(chosen, data.chosen(count, seed))
    np.testing.assert_array_equal(chosen, data.chosen(count + 1, seed)[:count])


@settings(deadline=None)
@given(st.sampled_from(["npy", "class folders"]), st.integers(1, 15), st.none() | st.integers(1, 15))
def test_batches_are_full_but_for_the_last(form, size, count):
    sizes = [len(images) for images, _ in OPEN[form].batches(size, count=count)]
    assert sum(sizes) == min(count or 12, 12)
    assert all(n == size for n in sizes[:-1])
    assert 0 < sizes[-1] <= size


OPEN = {}


@pytest.fixture(scope="module", autouse=True)
def _open(tmp_path_factory):
    OPEN.update({form: opened(form, tmp_path_factory.mktemp("data")) for form in ("npy", "class folders")})


def test_threads_and_none_give_the_same(tmp_path, monkeypatch):
    data = opened("class folders", tmp_path)
    monkeypatch.setattr(dataset_module, "THREADS", 3)
    with_threads = all_images(data)
    monkeypatch.setattr(dataset_module, "THREADS", 1)
    np.testing.assert_array_equal(all_images(data), with_threads)


def test_batches_that_nobody_finishes_leave_nothing_behind(tmp_path):
    batches = opened("class folders", tmp_path).batches(2)
    next(batches)
    batches.close()


@pytest.mark.parametrize(
    "call", [lambda d: next(d.batches(0)), lambda d: d.chosen(0), lambda d: next(d.batches(1, count=-1))]
)
def test_no_images_at_a_time_is_an_error(call, tmp_path):
    with pytest.raises(NashcError, match="at least 1 image"):
        call(opened("npy", tmp_path))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_images_have_the_models_type(dtype, tmp_path):
    assert next(opened("npy", tmp_path, dtype=dtype).batches(2))[0].dtype == dtype


def test_an_unknown_type_is_refused(tmp_path):
    assert refusal(npy(tmp_path, IMAGES, LABELS), PLAIN, SHAPE, dtype="int8").endswith(
        "known: float16, float32, float64"
    )


def test_values_beyond_float16_are_refused(tmp_path):
    text = refusal(npy(tmp_path, IMAGES, LABELS), Preprocess(scale=1e4), SHAPE, dtype="float16")
    assert "x.npy, image 0: a value is not finite in float16" in text


# Fitting images to the model


def test_without_flags_images_are_resized_to_the_models_size(tmp_path):
    data = open_data(flat("PNG", ".png")(tmp_path, IMAGES, LABELS), PLAIN, (1, 3, 24, 40))
    assert data.preprocess == PLAIN
    assert data.notes() == ["images are resized to the model's 24x40"]
    assert open_data(tmp_path, Preprocess(resize=(24, 40)), (1, 3, 24, 40)).notes() == []
    assert open_data(tmp_path, PLAIN, SHAPE).notes() == []
    expected = np.asarray(Image.fromarray(IMAGES[3]).resize((40, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(all_images(data)[3], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("given", [Preprocess(resize=(8,)), Preprocess(crop=(8, 8)), Preprocess(resize=(8, 8))])
def test_with_flags_they_are_not(given):
    assert fitted(given, (1, 3, 32, 32)) is given


def test_open_sides_leave_the_size_alone(tmp_path):
    data = open_data(npy(tmp_path, IMAGES, LABELS), PLAIN, ("n", "c", -1, 0))
    assert next(data.batches(2))[0].shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        ({}, (1, 10), "the model's input has 2 dimensions, and images make 4; give float arrays"),
        ({}, (1, 32, 32, 3), "the model's input has 32 channels in nchw, and rgb images have 3; give --layout nhwc"),
        (
            {"layout": "nhwc"},
            SHAPE,
            "the model's input has 32 channels in nhwc, and rgb images have 3; give --layout nchw",
        ),
        ({}, (1, 1, 28, 28), "the model's input has 1 channels in nchw, and rgb images have 3; give --channels gray"),
        ({"channels": "gray"}, SHAPE, "and gray images have 1; give --channels rgb"),
        ({}, (1, 16, 28, 28), "the model's input has 16 channels in nchw, and rgb images have 3; give float arrays"),
        (
            {"crop": (16, 16)},
            SHAPE,
            "images are preprocessed to 16x16, and the model takes 32x32; give --resize 32,32, or",
        ),
        (
            {"resize": (8, 8)},
            (1, 3, None, 32),
            "images are preprocessed to 8x8, and the model takes ?x32; give --resize height",
        ),
        (
            {"resize": (16,)},
            SHAPE,
            "shape [3, 16, 16] after preprocessing, and the model takes [3, 32, 32]; give --resize 32,32",
        ),
        (
            {"resize": (16,), "crop": (32, 32)},
            SHAPE,
            "an image of 16x16 is smaller than the crop of 32x32; give --resize 32",
        ),
    ],
)
def test_what_does_not_fit_says_which_flags_do(given, shape, message, tmp_path):
    path = flat("PNG", ".png")(tmp_path, IMAGES, LABELS)
    text = refusal(path, Preprocess(**given), shape)
    assert message in text
    assert text.startswith(str(path))


def test_images_of_several_sizes_do_not_stack(tmp_path):
    for name, side in (("a", 8), ("b", 9)):
        (tmp_path / f"{name}.png").write_bytes(png(IMAGES[0, :side]))
    text = refusal(tmp_path, PLAIN, (None, 3, None, None))
    assert "b.png: shape [3, 9, 32] in a batch of [3, 8, 32]; give --resize height,width" in text


# Folders


def test_class_names_are_the_folders(tmp_path):
    data = open_data(class_folders(tmp_path, IMAGES, LABELS), PLAIN, SHAPE)
    assert data.classes == ("class0", "class1", "class2", "class3")
    assert (len(data), data.source.kind, data.notes()) == (12, "image files in class folders", [])


def test_deeper_folders_belong_to_their_class_and_circles_end(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "2.png").write_bytes(png(IMAGES[0]))
    (tmp_path / "a" / "deep" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(png(IMAGES[1]))
    data = open_data(tmp_path, PLAIN, SHAPE)
    assert data.source.names == ("a/deep/2.png", "b/1.png")
    assert data.labels.tolist() == [0, 1]


def test_numbered_folders_warn_of_their_order(tmp_path):
    for name in ("0", "2", "10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(png(IMAGES[0]))
    data = open_data(tmp_path, PLAIN, SHAPE)
    assert data.classes == ("0", "10", "2")
    assert data.notes() == ["classes in the order of text: 0, 10, 2; labels 'name:^([0-9]+)/' takes them as numbers"]
    assert open_data(tmp_path, PLAIN, SHAPE, labels="name:^([0-9]+)/").labels.tolist() == [0, 10, 2]


def test_folders_that_cannot_be_a_data_set_say_why(tmp_path):
    assert "no images in the folder; images are .bmp" in refusal(tmp_path, PLAIN, SHAPE)
    class_folders(tmp_path, IMAGES, LABELS)
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: a class without images; remove the folder" in refusal(tmp_path, PLAIN, SHAPE)
    (tmp_path / "loose.png").write_bytes(png(IMAGES[0]))
    text = "1 images lie beside folders of images, such as 'loose.png'; move them, or give --labels"
    assert text in refusal(tmp_path, PLAIN, SHAPE)
    assert "unknown split 'tset'; did you mean 'test'?" in refusal(tmp_path, PLAIN, SHAPE, split="tset")


def test_a_folder_beside_those_of_splits_is_no_class(tmp_path):
    class_folders(tmp_path, IMAGES, LABELS)
    (tmp_path / "class0").rename(tmp_path / "train")  # a class of CIFAR-100
    assert "train" in open_data(tmp_path, PLAIN, SHAPE).classes
    (tmp_path / "class1").rename(tmp_path / "val")
    text = refusal(tmp_path, PLAIN, SHAPE)
    assert "folders of splits (train, val) and others (class2" in text
    assert text.endswith("give the folder of one split")


def test_a_split_that_is_missing_names_the_others(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.png").write_bytes(png(IMAGES[0]))
    text = refusal(tmp_path, PLAIN, SHAPE)
    assert text.endswith("no folder of split 'test', only train; give --split train")
    assert len(open_data(tmp_path, PLAIN, SHAPE, split="train")) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imgaes", "there is no such file or folder; did you mean 'images'?"),
        ("x" * 1000, "there is no such file or folder; data is a folder of images"),
        ("a.tar.gz", "archives are not read; unpack it"),
        ("a.pkl", "pickles are not read"),
        ("a.parquet", "unknown kind of data '.parquet'; give a folder of images"),
        ("Makefile", "unknown kind of data 'Makefile'"),
    ],
)
def test_what_is_no_data_says_what_is(name, message, tmp_path):
    for there in ("images", "a.tar.gz", "a.pkl", "a.parquet", "Makefile"):
        (tmp_path / there).write_bytes(b"?")
    assert f"{name[-9:]}: {message}" in refusal(tmp_path / name, PLAIN, SHAPE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_become_colours(mode, tmp_path):
    image = Image.fromarray(IMAGES[0]).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    found = next(open_data(path, PLAIN, SHAPE).batches(1))[0][0]
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_images_of_16_bits_are_refused(tmp_path):
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(tmp_path / "x.png")
    text = refusal(tmp_path / "x.png", PLAIN, SHAPE)
    assert "x.png: pixels of mode I;16 have more than 8 bits a channel; convert the image to 8 bits" in text


# Arrays


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 40), (5, 6, 7)])
def test_float_arrays_are_taken_as_they_are(suffix, shape, tmp_path):
    values = np.random.default_rng(0).normal(size=shape)
    (np.save if suffix == ".npy" else np.savez)(tmp_path / f"x{suffix}", values)
    data = open_data(tmp_path / f"x{suffix}", Preprocess(scale=0.1), ("n", *shape[1:]))
    assert data.notes() == ["numbers that are not pixels: taken as already preprocessed"]
    np.testing.assert_array_equal(all_images(data), values.astype(np.float32))


def test_one_sample_needs_no_batch(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 32, 32), np.uint8))
    text = "uint8 of shape [3, 32, 32] may be one image or three gray ones"
    assert text in refusal(tmp_path / "x.npy", PLAIN, SHAPE)
    assert text in refusal(tmp_path / "x.npy", Preprocess(layout="nhwc"), (None, 32, 32, 3))
    assert len(open_data(tmp_path / "x.npy", Preprocess(channels="gray"), (None, 1, 32, 32))) == 3
    np.save(tmp_path / "x.npy", np.zeros((3, 32, 32), np.float32))
    np.save(tmp_path / "y.npy", IMAGES[0])
    assert len(open_data(tmp_path / "x.npy", PLAIN, SHAPE)) == len(open_data(tmp_path / "y.npy", PLAIN, SHAPE)) == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((5, 32, 32, 3)),
            "float64 of shape [5, 32, 32, 3] is not the model's input [n, 3, 32, 32]; float arrays are",
        ),
        (np.zeros((5, 3, 32, 32), np.int64), "an array of int64; save images as uint8"),
        (np.zeros((5, 32, 32, 4), np.uint8), "uint8 of shape [5, 32, 32, 4] is no array of images; images are [n,h,w]"),
        (np.zeros((0, 32, 32, 3), np.uint8), "no images; give a data set with at least 1 image"),
        (np.zeros((5, 0, 32, 3), np.uint8), "images of shape [0, 32, 3]; an image has pixels"),
        (np.zeros((), np.uint8), "uint8 of shape [] is no array of images"),
        (np.full((2, 3, 32, 32), np.nan), "x.npy, image 0: a value is not finite in float32"),
        (np.full((2, 3, 32, 32), 1e300), "x.npy, image 0: a value is not finite in float32"),
        (np.array([{"a": 1}], object), "holds Python objects; only arrays of numbers are read, never pickles"),
    ],
)
def test_arrays_that_are_no_images_say_why(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert message in refusal(tmp_path / "x.npy", PLAIN, SHAPE)
    np.savez(tmp_path / "x.npz", x=array)
    assert message.replace("x.npy", "x.npz") in refusal(tmp_path / "x.npz", PLAIN, SHAPE)


def test_an_npz_without_images_lists_its_keys(tmp_path):
    np.savez(tmp_path / "x.npz", weights=IMAGES, bias=LABELS)
    text = "no array of images among weights, bias; name it x, images, image, x_test or test_images"
    assert refusal(tmp_path / "x.npz", PLAIN, SHAPE).endswith(text)


# CIFAR and idx


def test_cifar_takes_all_training_files_in_the_order_of_their_numbers(tmp_path):
    for batch in range(1, 11):
        part = slice(batch - 1, batch)
        (tmp_path / f"data_batch_{batch}.bin").write_bytes(records(IMAGES[part], LABELS[part]))
    data = open_data(tmp_path, PLAIN, SHAPE, split="train")
    np.testing.assert_array_equal(all_images(data), IMAGES[:10].transpose(0, 3, 1, 2))
    assert data.classes[:2] == ("airplane", "automobile")
    assert "CIFAR-10 binary, data_batch_1.bin to data_batch_10.bin" in data.source.kind
    assert refusal(tmp_path, PLAIN, SHAPE).endswith("no CIFAR file of split 'test'; give --split train")


def test_cifar_names_its_classes_by_the_file_beside(tmp_path):
    assert open_data(cifar10(tmp_path, IMAGES, LABELS), PLAIN, SHAPE).classes == ("plane", "car", "bird", "cat")


def test_a_sheet_of_many_takes_its_part_of_the_labels(tmp_path):
    for batch in (1, 2, 3):
        (tmp_path / f"data_batch_{batch}.png").write_bytes(png(IMAGES[4 * batch - 4 : 4 * batch].reshape(4, 1024, 3)))
    (tmp_path / "train_lables.json").write_text(str(LABELS.tolist()))
    assert open_data(tmp_path, PLAIN, SHAPE, split="train").labels.tolist() == LABELS.tolist()
    assert open_data(tmp_path / "data_batch_2.png", PLAIN, SHAPE).labels.tolist() == LABELS[4:8].tolist()
    (tmp_path / "data_batch_2.png").unlink()
    text = "12 labels for the 8 images of data_batch_1.png to data_batch_3.png; all sheets must lie in the folder"
    assert refusal(tmp_path, PLAIN, SHAPE, split="train").endswith(text)


def test_sheets_beyond_the_cache_are_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr("nashc.data.cifar.MOST_DECODED", 1)
    for batch in (1, 2):
        (tmp_path / f"data_batch_{batch}.png").write_bytes(png(IMAGES[6 * batch - 6 : 6 * batch].reshape(6, 1024, 3)))
    data = open_data(tmp_path, PLAIN, SHAPE, split="train")
    np.testing.assert_array_equal(all_images(data, count=12), IMAGES[data.chosen(12)].transpose(0, 3, 1, 2))
    assert len(data.source.images.parts[0].cache._sheets) == 1


def test_damaged_cifar_says_why(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(records(IMAGES, LABELS)[:-1])
    assert "36875 bytes are no whole number of CIFAR records; a record of CIFAR-10 has 3073" in refusal(
        tmp_path, PLAIN, SHAPE
    )
    (tmp_path / "test.bin").write_bytes(records(IMAGES, LABELS, LABELS))
    (tmp_path / "test_batch.bin").write_bytes(records(IMAGES, LABELS))
    assert "files of CIFAR-10 and of CIFAR-100 together; give one file" in refusal(tmp_path, PLAIN, SHAPE)
    assert "label 10 of image 6 is out of range; labels are 0..9 for 10 classes" in refusal(
        cifar_file(tmp_path, LABELS + 8), PLAIN, SHAPE
    )


def cifar_file(folder, labels):
    (folder / "some.bin").write_bytes(records(IMAGES, labels))
    return folder / "some.bin"


def test_pickles_of_cifar_are_refused(tmp_path):
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (tmp_path / name).write_bytes(b"\x80\x02")
    assert "pickles of CIFAR are not read: they can run any program; take the binary" in refusal(tmp_path, PLAIN, SHAPE)


def test_damaged_sheets_say_why(tmp_path):
    path = sheets(tmp_path, IMAGES, LABELS)
    (path / "test_lables.json").write_text("[1, 2, 99]")
    assert "test_lables.json: is no list of CIFAR-10 labels" in refusal(path, PLAIN, SHAPE)
    (path / "test_batch.png").write_bytes(png(IMAGES[0]))
    assert "test_batch.png: 32 pixels wide; a sheet of CIFAR has one image of 1024 pixels a row" in refusal(
        path, PLAIN, SHAPE
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\x08", "ends within its header"),
        (b"\x80\x02" + bytes(20), "is no idx file; it starts with two zero bytes"),
        (b"\0\0\x0d\x03" + bytes(20), "data of type 0xd; only unsigned bytes"),
        (idx(LABELS), "holds labels; give the file of images"),
        (idx(gray_of(IMAGES))[:-1], "12287 bytes of data for shape [12, 32, 32]"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "0 bytes of data for shape [4294967295"),
        (b"\0\0\x08\x03" + bytes(12), "no images"),
    ],
)
def test_damaged_idx_says_why(data, message, tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(data)
    assert message in refusal(tmp_path, PLAIN, SHAPE)


def test_idx_of_several_data_sets_asks_for_one(tmp_path):
    for name in ("emnist-letters-test-images-idx3-ubyte", "emnist-digits-test-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx(gray_of(IMAGES)))
    text = refusal(tmp_path, PLAIN, SHAPE)
    assert "2 idx files of split 'test' among emnist-digits-test-images-idx3-ubyte, emnist" in text
    assert text.endswith("give the file of images itself")
    gray = open_data(tmp_path / name, Preprocess(channels="gray"), (1, 1, 32, 32))
    np.testing.assert_array_equal(all_images(gray)[:, 0], gray_of(IMAGES))
