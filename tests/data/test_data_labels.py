"""Labels from beside the images, in every form, and what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from written import class_folders, flat, images_and_labels, npy, sheets

from nashc.data import Preprocess, open_data
from nashc.errors import NashcError

PLAIN, SHAPE = Preprocess(), (None, 3, 32, 32)
IMAGES, LABELS = images_and_labels(4)
IMAGENET = {"class0": 207, "class1": 3, "class2": 999, "class3": 0}


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return flat("PNG", ".png")(tmp_path / "images", IMAGES, LABELS)


NUMBERS = [3, 1, 0, 2]
WORDS = ["dog", "cat", "ant", "cow"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "3\n1\n0\n2\n"),
        ("l.csv", "label\n3\n1\n0\n2\n\n"),
        ("l.json", "[3, 1, 0, 2]"),
        ("l.csv", "file,label\n0003.png,2\n0000.png,3\n0001.png,1\n0002.png,0\nother.png,7\n"),
        ("l.csv", "0000,3\n0001,1\n0002,0\n0003,2\n"),
        ("l.tsv", "0000.png\t3\n0001.png\t1\n./0002.png\t0\n0003.png\t2\n"),
        ("l.txt", "0000.png 3\n0001.png 1\n0002.png 0\n0003.png 2\n"),
        ("l.json", '{"0000.png": 3, "0001.png": 1, "0002.png": 0, "0003.png": 2}'),
        ("l.csv", "file,label\n0000.png,3.0\n0001.png,1.0\n0002.png,0.0\n0003.png,2.0\n"),
        ("l.txt", "+3\n1.\n0.00\n2\n"),
        ("l.json", '["3.0", "1", "0", "+2"]'),
        ("l.csv", 'file, label\n"0000.png", "3"\n"0001.png", "1"\n"0002.png", "0"\n"0003.png", "2"\n'),
    ],
)
def test_numbers_are_taken_as_they_are(name, text, tmp_path, images):
    data = open_data(images, PLAIN, SHAPE, labels=write(tmp_path, name, text))
    assert data.labels.tolist() == NUMBERS
    assert data.classes == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "dog\ncat\nant\ncow\n"),
        ("l.csv", "label\ndog\ncat\nant\ncow\n"),
        ("l.csv", "name,label\n0000.png,dog\n0001.png,cat\n0002.png,ant\n0003.png,cow\n"),
        ("l.json", json.dumps(WORDS)),
    ],
)
def test_names_are_numbered_in_their_order(name, text, tmp_path, images):
    data = open_data(images, PLAIN, SHAPE, labels=write(tmp_path, name, text))
    assert data.classes == ("ant", "cat", "cow", "dog")
    assert [data.classes[label] for label in data.labels] == WORDS


def test_labels_of_a_numpy_file(tmp_path, images):
    np.save(tmp_path / "l.npy", np.array(NUMBERS, np.uint8)[:, None])
    assert open_data(images, PLAIN, SHAPE, labels=tmp_path / "l.npy").labels.tolist() == NUMBERS


def test_labels_in_order_serve_arrays_too(tmp_path):
    labels = write(tmp_path, "l.txt", "3\n1\n0\n2")
    assert open_data(npy(tmp_path, IMAGES, LABELS), PLAIN, SHAPE, labels=str(labels)).labels.tolist() == NUMBERS


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.json", json.dumps(IMAGENET)), ("l.csv", "\n".join(f"{name},{label}" for name, label in IMAGENET.items()))],
)
def test_labels_by_class_folder_take_the_place_of_the_folders_order(name, text, tmp_path):
    (tmp_path / "images").mkdir()
    labels = write(tmp_path, name, text)
    data = open_data(class_folders(tmp_path / "images", IMAGES, LABELS), PLAIN, SHAPE, labels=labels)
    assert data.labels.tolist() == [IMAGENET[f"class{label}"] for label in LABELS]


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [("_([0-9]+)[.]", [7, 12]), ("^(?P<label>[a-z]+)(_)", [1, 0]), ("^([a-z]+)_", [1, 0])],
)
def test_labels_by_name(pattern, labels, tmp_path):
    (tmp_path / "zebra_00_7.png").write_bytes(
        (flat("PNG", ".png")(tmp_path, IMAGES[:1], LABELS) / "0000.png").read_bytes()
    )
    (tmp_path / "0000.png").rename(tmp_path / "ant_01_12.png")
    data = open_data(tmp_path, PLAIN, SHAPE, labels=f"name:{pattern}")
    assert data.labels.tolist() == labels[::-1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "1\n2\n3\n", "3 labels for 4 images; give one label for each image"),
        ("l.txt", "", "0 labels for 4 images"),
        ("l.txt", "1\n-2\n3\n0", "label -2 of image 1 is out of range; labels are 0 or more"),
        ("l.txt", "1\n99999999999999999\n3\n0", "label 99999999999999999 of image 1 is out of range"),
        ("l.csv", "0000.png,1,2\n", "l.csv, line 1: 3 values; a line is 'label' or 'file name,label'"),
        ("l.csv", "0000.png,1\n\n2\n", "l.csv, line 3: 1 values"),
        ("l.csv", "0000.png,1\n0001.png,1\n0000.png,2\n", "l.csv, line 3: '0000.png' has label '2', and '1' before"),
        ("l.csv", "0000.png,1\n0001.png,1\n", "no label for 2 of 4 images, such as '0002.png'; names are paths"),
        ("l.csv", "0000.png,1\n0001.png,\n", "l.csv, line 2: an empty value; a line is"),
        ("l.txt", "1\n2\nl3\n4\n", "'l3' among labels that are numbers; labels are all numbers, or all class names"),
        ("l.csv", f"{'x' * 200000},1\n", "damaged csv"),
        ("l.json", "[1, 2", "damaged JSON"),
        ("l.json", "[" * 100000, "damaged JSON"),
        ("l.json", "[1.5, 2, 3, 4]", "is neither a list of labels nor an object of names and labels"),
        ("l.json", "3", "is neither a list of labels"),
        ("l.yaml", "", "unknown kind of labels '.yaml'; labels are a .csv, .txt, .npy or .json file, or name:REGEX"),
        ("l.txt", "3.5\n1\n0\n2\n", "label '3.5' is no whole number; labels are 0, 1, 2 ... or names"),
        ("l.txt", "1e1\n1\n0\n2\n", "label '1e1' is no whole number"),
        (
            "l.csv",
            "0000.png,3\n0000,1\n0001,1\n0002,0\n0003,2\n",
            "image '0000.png' has label '1', and '3' by another name",
        ),
    ],
)
def test_wrong_labels_say_why(name, text, message, tmp_path, images):
    path = write(tmp_path, name, text)
    with pytest.raises(NashcError) as error:
        open_data(images, PLAIN, SHAPE, labels=path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("nowhere.csv", "nowhere.csv: there is no such file of labels; labels are a .csv"),
        ("1," * 500, "there is no such file of labels"),
        ("name:(", "labels 'name:(': not a regular expression"),
        ("name:[0-9]+", "0 groups; put the label in ( ), as in name:_([0-9]+)[.]"),
        ("name:cat(.)", "'0000.png' does not match; the expression must match every file"),
    ],
)
def test_wrong_ways_to_labels_say_why(labels, message, images):
    with pytest.raises(NashcError) as error:
        open_data(images, PLAIN, SHAPE, labels=labels)
    assert message in str(error.value)


def test_names_of_classes_are_those_of_the_source(tmp_path):
    names = ["ship", "cat", "bird", "frog"]
    (tmp_path / "images").mkdir()
    path = sheets(tmp_path / "images", IMAGES, LABELS)
    data = open_data(path, PLAIN, SHAPE, labels=write(tmp_path, "l.txt", "\n".join(names)))
    assert [data.classes[label] for label in data.labels] == names
    with pytest.raises(NashcError, match=r"l.txt: no class 'shipp'; did you mean 'ship'\?"):
        open_data(path, PLAIN, SHAPE, labels=write(tmp_path, "l.txt", "shipp\ncat\ncat\ncat"))


def test_labels_by_name_need_names(tmp_path):
    labels = write(tmp_path, "l.csv", "a.png,1\n")
    path = npy(tmp_path, IMAGES, LABELS)
    with pytest.raises(NashcError, match="labels by file name, and the images have none; list the labels in order"):
        open_data(path, PLAIN, SHAPE, labels=labels)
    with pytest.raises(NashcError, match="the images have no file names; labels by name need a folder of images"):
        open_data(path, PLAIN, SHAPE, labels="name:(.)")


def test_text_that_is_none_is_refused(tmp_path, images):
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NashcError, match=r"l.txt: is no text: invalid start byte at byte 0; save it as UTF-8"):
        open_data(images, PLAIN, SHAPE, labels=tmp_path / "l.txt")
