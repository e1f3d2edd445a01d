"""The flags that say how a data set becomes the model's input."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from nashc.cli.options import data_options, preprocess_from
from nashc.data import Preprocess
from nashc.errors import NashcError

STORED = Preprocess(mean=(1, 2, 3), std=(4,), channels="bgr", resize=(40,), crop=(32, 32))


def given(*args: str) -> dict[str, object]:
    """What a command gets for these arguments."""
    seen: dict[str, object] = {}

    @click.command()
    @data_options
    def command(**flags: object) -> None:
        seen.update(flags)

    result = CliRunner().invoke(command, args, standalone_mode=False)
    assert result.exception is None, result.exception
    return seen


def test_flags_win_over_the_metadata_one_by_one(capsys):
    flags = given("--mean", "0.5", "--crop", "24,30", "--channels", "rgb", "--labels", "a.csv", "--split", "val")
    assert (flags["labels"], flags["split"]) == ("a.csv", "val")
    expected = Preprocess(mean=(0.5,), std=(4,), channels="rgb", resize=(40,), crop=(24, 30))
    assert preprocess_from(STORED.metadata(), flags) == expected
    assert preprocess_from(STORED.metadata(), given()) == STORED
    assert preprocess_from({}, given("--layout", "nhwc")) == Preprocess(layout="nhwc")
    assert capsys.readouterr() == ("", "")


def test_every_field_has_its_flag():
    flags = given("--mean", "1,2,3", "--std", "4,5,6", "--scale", "0.5", "--channels", "bgr", "--layout", "nhwc",
                  "--resize", "40", "--crop", "32,32", "--interpolation", "lanczos")  # fmt: skip
    expected = Preprocess((1, 2, 3), (4, 5, 6), 0.5, "bgr", "nhwc", (40,), (32, 32), "lanczos")
    assert preprocess_from({}, flags) == expected


def test_the_default_is_said(capsys):
    assert preprocess_from({"other": "key"}, given()) == Preprocess()
    assert capsys.readouterr().err == (
        "note: the model stores no preprocessing and no flag says any: pixel, rgb in nchw\n"
    )


def test_flags_that_do_not_fit_the_metadata_are_an_error():
    with pytest.raises(NashcError, match="preprocess, mean: 3 values for gray images; give 1 value"):
        preprocess_from(STORED.metadata(), given("--channels", "gray"))
