"""Spaces as files: those that ship load, and what is wrong in one is named."""

from itertools import product

import pytest
from tiny import SPACE, TOML

from nashc.errors import NashcError
from nashc.nas.architecture import Architecture, Block, StageChoice, problems
from nashc.nas.space import conv_only, load_space, parse_space, space_names

DEEP = "x = " + "[" * 5_000
EXPANDED = TOML.replace('"basic"', '"mbconv"')


@pytest.mark.parametrize("name", space_names())
def test_a_space_that_ships_loads(name):
    space = load_space(name)
    assert space.name == name
    assert space.size > 1


def test_a_file_of_ones_own_is_a_space_too(tmp_path):
    (tmp_path / "own.toml").write_text(TOML)
    assert load_space(tmp_path / "own.toml") == SPACE


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("stems =", "stem =", "stem"),
        ("widths =", "width =", "width"),
        ("classes = 4", "", "classes"),
        ("depths = [1, 2]", "", "depths"),
        ("resolution = 8", "resolution = '8'", "resolution"),
        ("stems = [8]", "stems = 8", "stems"),
        ("depths = [1, 2]", "depths = [1, 1.5]", "depths"),
        ("stems = [8]", "stems = []", "stems"),
        ("stems = [8]", "stems = [0]", "stems"),
        ("classes = 4", "classes = 100_000", "classes"),
        ("stems = [8]", "stems = [8]\nheads = [-1]", "heads"),
        ("[8, 12]", "[8, 8]", r"stages\[0\].widths \[8, 8\]: a value comes twice"),
        ("stride = 2", "kernels = [3, 4]", r"stages\[0\].kernels .*odd"),
        ("stride = 2", "operators = ['conv', 'add']", r"stages\[0\].operators .*conv, shift, adder"),
        ("stride = 2", "operators = []", r"stages\[0\].operators"),
        ("stride = 2", "operators = ['conv', 'conv']", r"stages\[0\].operators .*twice"),
        ("stride = 2", "excite = true", r"stages\[0\].excite"),
        ("stride = 2", "expansions = [2]", r"stages\[0\].expansions"),
        ("stride = 2", "stride = 0", r"stages\[0\].stride"),
        ("stride = 2", "stride = 9", "the strides leave nothing of 8 pixels"),
        ("resolution = 8", "resolution = 8\nstem_stride = 8", "the strides leave nothing of 8 pixels"),
        ('"basic"', '"basics"', "block 'basics': did you mean 'basic'"),
        ("stems = [8]", "stems = [8", "no TOML"),
        ("stems = [8]", "stems = [" + "8" * 5_000 + "]", "no TOML"),
        ("stems = [8]", DEEP, "no TOML"),
        (TOML[TOML.index("[[") :], "stages = []", "stages"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(old, new, text):
    assert old in TOML
    with pytest.raises(NashcError, match=rf"^mine.toml: .*{text}"):
        parse_space(TOML.replace(old, new), "mine.toml")


@pytest.mark.parametrize(
    ("name", "text"),
    [("resnet-cifra", "did you mean 'resnet-cifar'"), ("none.toml", "none.toml: cannot be read: No such file")],
)
def test_a_space_that_is_not_there(name, text):
    with pytest.raises(NashcError, match=text):
        load_space(name)


@pytest.mark.parametrize(
    "text",
    [
        TOML,
        TOML.replace("stems = [8]", "stems = [8, 16]\nheads = [4, 8, 12]"),
        EXPANDED.replace("stride = 2", "expansions = [1, 3]"),
        TOML + "[[stages]]\nwidths = [8]\ndepths = [1]\nkernels = [1, 3]\noperators = ['shift', 'adder']",
    ],
)
def test_size_is_the_number_of_architectures(text):
    """All of what could be written, with values of the file and others, counted where the space has it."""
    space = parse_space(text, "counted")
    blocks = [Block(*b) for b in product(("conv", "shift", "adder"), (1, 3), (1, 3))]
    stages = [
        {
            StageChoice(width, chosen)
            for width, depth in product((8, 12, 16), (1, 2))
            for chosen in product([b for b in blocks if b.kernel in s.kernels and b.expansion in s.expansions],
                                  repeat=depth)
        }
        for s in space.stages
    ]  # fmt: skip
    every = (Architecture(*made) for made in product((8, 16), product(*stages), (0, 4, 8, 12)))
    assert space.size == sum(not problems(made, space) for made in every)


def test_the_rival_space_has_convolutions_alone():
    assert conv_only(SPACE).size == 2 * (1 + 1)
    assert {name for stage in conv_only(SPACE).stages for name in stage.operators} == {"conv"}
