"""Damaged files of every form end in a NashcError or in images, never in anything else."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from written import FORMS, idx, images_and_labels, png

from nashc.data import Preprocess, open_data
from nashc.errors import NashcError

PLAIN, SHAPE = Preprocess(), (None, 3, 32, 32)
IMAGES, LABELS = images_and_labels(4)


def read(path):
    for images, _ in open_data(path, PLAIN, SHAPE).batches(3):
        assert images.shape[1:] == (3, 32, 32)


def refusal(path):
    with pytest.raises(NashcError) as error:
        read(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.filterwarnings("ignore:::PIL")  # of damaged TIFF tags
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_other_images(form, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("data")
    path = FORMS[form].write(folder, IMAGES, LABELS)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    file = files[data.draw(st.integers(0, len(files) - 1))]
    content = bytearray(file.read_bytes())
    places = st.integers(0, min(len(content) - 1, 200)) | st.integers(0, len(content) - 1)
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    else:
        for place in data.draw(st.lists(places, min_size=1, max_size=6)):
            content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    error = None
    try:
        read(path)
    except NashcError as caught:
        error = caught
    assert error is None or str(folder) in str(error)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1, 0.0])
def test_cut_images_are_errors(kind, keep, tmp_path):
    whole = png(IMAGES[0], kind)
    (tmp_path / "x.png").write_bytes(whole[: int(keep * len(whole))])
    assert "x.png: is no image, or a damaged one: " in refusal(tmp_path / "x.png")


def bomb(width, height):
    """A PNG of a few bytes that says it has width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "height"), [(8200, 8200), (10000, 10000), (100000, 100000), (2**31 - 1, 1)])
def test_images_too_large_to_decode_are_errors(width, height, tmp_path):
    (tmp_path / "x.png").write_bytes(bomb(width, height))
    text = refusal(tmp_path / "x.png")
    assert "is too large; at most 67108864 pixels are decoded" in text


@pytest.mark.parametrize("name", ["x.png", "test_batch.png"])
def test_text_chunks_that_explode_are_errors(name, tmp_path):
    data = b"k\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    content = png(IMAGES[0])
    (tmp_path / name).write_bytes(content[:33] + chunk + content[33:])
    assert "is no image, or a damaged one" in refusal(tmp_path / name)


def test_formats_that_start_programs_are_not_tried(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "EPS")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    assert "formats: JPEG, PNG" in refusal(tmp_path / "x.png")


def npy_header(shape, descr="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": descr})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**6, 10**6, 10**6, 3), (10**30, 32, 32, 3), (-1, 32, 32, 3), (4, 2**40, 0, 3)])
def test_arrays_that_claim_more_than_they_hold_are_errors(shape, tmp_path):
    (tmp_path / "x.npy").write_bytes(npy_header(shape))
    refusal(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy_header(shape))
    refusal(tmp_path / "x.npz")


def test_an_array_in_an_archive_has_a_size_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy_header((10**7, 32, 32, 3)))
    assert "'x' is larger than 4 GiB; save it as an .npy file, which is mapped" in refusal(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95", b"\x93NUMPY\x01\x00", b"<html>"])
def test_what_is_no_array_is_an_error(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert "is no NumPy file, or a damaged one" in refusal(tmp_path / name)


def test_an_archive_by_the_name_of_an_array_is_an_error(tmp_path):
    np.savez(tmp_path / "x.npz", x=IMAGES)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert "is no NumPy file, or a damaged one" in refusal(tmp_path / "x.npy")


def test_gzip_that_unpacks_to_too_much_is_an_error(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**20, 32, 64)))
    assert "2147483648 bytes when unpacked; unpack the file with gunzip" in refusal(path)
    path.write_bytes(gzip.compress(idx(IMAGES[..., 0]))[:-200])
    assert "damaged file" in refusal(path)


def test_a_file_that_goes_away_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(png(IMAGES[0]))
    (tmp_path / "b.png").write_bytes(png(IMAGES[0]))
    data = open_data(tmp_path, PLAIN, SHAPE)
    (tmp_path / "b.png").unlink()
    with pytest.raises(NashcError, match=r"b.png: there is no such file"):
        list(data.batches(2))
