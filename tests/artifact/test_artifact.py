"""design.json: what is written is read back equal, byte for byte the same; anything else is refused in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from handmade import compiled, design, hybrid
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.artifact import MAX_BYTES, Compiled, Document, dump, json_schema, load
from nashc.board import Board, board_names, load_board
from nashc.core.design import (
    Accelerator,
    Certificate,
    Chunk,
    Design,
    LayerResult,
    Mapping,
    MemoryPlan,
    Placement,
    Resources,
    Tile,
    Traffic,
)
from nashc.core.loops import LoopNest, Unroll
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.dataflows import DATAFLOWS
from nashc.importer import Skip

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, 2**62)
SIZES = st.integers(1, 2**20)
BOUNDS = st.integers(1, 40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=1e-3, max_value=1e12)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    names = draw(st.lists(NAMES, min_size=5, max_size=5, unique=True))
    tensors = tuple(Tensor(name, *draw(st.tuples(BOUNDS, BOUNDS, BOUNDS, BOUNDS))) for name in names)
    layers = []
    for i, name in enumerate(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))):
        sizes = st.tuples(*[BOUNDS] * 9)
        pairs = st.tuples(BOUNDS, BOUNDS)
        nest = LoopNest(*draw(sizes), draw(pairs), draw(pairs), draw(st.tuples(BOUNDS, BOUNDS, BOUNDS, BOUNDS)))
        weights = st.none() | st.builds(Weights, NAMES, BOUNDS, BOUNDS)
        inputs = draw(st.lists(st.sampled_from(names[: i + 1]), min_size=1, max_size=3).map(tuple))
        nodes = draw(st.lists(NAMES, max_size=2).map(tuple))
        layers.append(
            Layer(
                name, draw(NAMES), draw(st.sampled_from(Unit)), nest, inputs, names[i + 1], draw(weights), draw(NAMES),
                nodes, draw(st.booleans()), draw(NAMES),
            )
        )  # fmt: skip
    return Network(draw(NAMES), tuple(layers), tensors, tuple(names[:1]), tuple(names[1:]))


RESOURCES = st.builds(Resources, *[COUNTS] * 6)
CHUNKS = st.builds(
    Chunk, unroll=st.builds(Unroll, *[BOUNDS] * 7), post_lanes=SIZES, dram_bits=SIZES, weight_bits=BOUNDS
)
MAPPINGS = st.builds(Mapping, st.builds(Tile, *[SIZES] * 6), st.sampled_from(list(DATAFLOWS)))


@st.composite
def designs(draw: st.DrawFn, board: Board) -> Design:
    """Of layers that run one after the other."""
    network = draw(networks())
    chunks = draw(st.lists(CHUNKS, min_size=1, max_size=3).map(tuple))
    each = st.tuples(*[RESOURCES] * len(chunks))
    results, clock = [], draw(SIZES)
    for layer in network.layers:
        cycles = draw(SIZES)
        chunk = -1 if layer.unit is Unit.HOST else draw(st.integers(0, len(chunks) - 1))
        where = Placement(tuple(draw(st.booleans()) for _ in layer.inputs), draw(st.booleans()), draw(st.booleans()))
        results.append(
            LayerResult(
                layer.name, chunk, draw(MAPPINGS), where, cycles, draw(COUNTS), draw(NAMES),
                draw(FLOATS), draw(st.builds(Traffic, *[COUNTS] * 4)), clock,
            )
        )  # fmt: skip
        clock += cycles
    tensors, layers = [t.name for t in network.tensors], [layer.name for layer in network.layers]
    resident = st.lists(st.tuples(st.sampled_from(tensors), COUNTS), max_size=2).map(tuple)
    pinned = st.lists(st.sampled_from(layers), max_size=2).map(tuple)
    certificate = st.builds(Certificate, NAMES, POSITIVE, POSITIVE, st.booleans(), COUNTS, COUNTS, NAMES)
    return Design(
        board.name, board.clock_mhz, network, Accelerator(chunks, draw(SIZES)), tuple(results),
        MemoryPlan(draw(resident), draw(pinned), draw(COUNTS), draw(COUNTS)), clock, draw(SIZES),
        draw(RESOURCES), draw(each), draw(POSITIVE), draw(certificate),
    )  # fmt: skip


st.register_type_strategy(str, NAMES)
st.register_type_strategy(int, COUNTS)


@given(
    st.data(),
    st.builds(
        replace,
        st.sampled_from([load_board(name) for name in board_names()]),
        name=NAMES,
        clock_mhz=st.floats(1e-3, 1e6),
    ),
    st.lists(st.builds(Skip, NAMES, NAMES), max_size=2).map(tuple),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(data, board, removed):
    found = data.draw(designs(board))
    others = data.draw(st.lists(st.tuples(NAMES, designs(board)), max_size=1).map(tuple))
    value = Compiled(found, board, Options(max_latency_ms=0.1), removed, others, (("nasa-f", "does not fit"),))
    data = dump(value)
    again = load(data)
    assert again == value
    assert dump(again) == data


def test_names_of_any_script_survive(tmp_path):
    value = compiled(name='"\\\u202e\x00\x1b[31m名前😀')
    file = tmp_path / "design.json"
    file.write_bytes(dump(value))
    assert load(file) == value
    assert load(str(file)) == value


def test_summary_is_what_the_design_says():
    value = compiled()
    summary = json.loads(dump(value))["summary"]
    assert summary["fps"] == value.design.fps
    assert summary["gap"] == pytest.approx(0.04)
    unproven = replace(value.design.certificate, bound=0.0)
    text = dump(replace(value, design=replace(value.design, certificate=unproven)))
    assert json.loads(text)["summary"]["gap"] is None


def changed(path: str, to: object) -> bytes:
    """A real design.json with one field changed; a path such as design.layers.0.chunk."""
    document = json.loads(dump(compiled(host=True)))
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = document
    for key in keys:
        place = place[key]
    place[last] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "broken JSON"),
        (b"{", "broken JSON"),
        (b"[]", "not a design of version 2"),
        (b"null", "not a design of version 2"),
        (b"{}", "not a nashc design"),
        (b"\xff\xfe", "broken JSON"),
        (b'{"schema": "\xff"}', "broken JSON: Invalid UTF-8"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"schema": "nashc-design", "version": 1}', "version 1 is not known here"),
        (b'{"schema": "nashc-design", "version": "1"}', "version of another kind is not known here"),
        (b'{"schema": "nashc-design", "version": ' + b"9" * 4000 + b"}", "version of another kind|not a design|broken"),
        (b'{"schema": "nashc-design", "version": 2}', "missing required field"),
        (changed("extra", 1), "unknown field `extra`"),
        (changed("design.interval_cycles", 0), "interval_cycles is not positive"),
        (changed("design.interval_cycles", 1.5), r"Expected `int`, got `float`.*\$\.design\.interval_cycles"),
        (changed("design.interval_cycles", 2**70), "interval_cycles is out of range"),
        (changed("design.energy_pj", None), "Expected `float`, got `null`"),
        (changed("design.clock_mhz", -1), "clock_mhz is not positive"),
        (changed("design.accelerator.batch", 0), "batch is not positive"),
        (changed("design.layers.0.chunk", 4), "layer 'stem' runs on chunk 4"),
        (changed("design.layers.0.chunk", -1), "layer 'stem' runs on chunk -1"),
        (changed("design.layers.5.chunk", 0), "layer 'odd' runs on chunk 0"),
        (changed("design.layers.0.layer", "x"), "mapped layers are not those"),
        (changed("design.layers.0.placement.inputs", []), "1 inputs and 0 placements"),
        (changed("design.layers", []), "mapped layers are not those"),
        (changed("design.network.layers", []), "no layer"),
        (changed("design.network.layers.0.name", "pool"), "two layers have the same name"),
        (changed("design.network.tensors.1.name", "image"), "two tensors have the same name"),
        (changed("design.network.layers.0.inputs", ["q"]), "tensor 'q' is not in the network"),
        (changed("design.network.layers.0.unit", "gpu"), "Invalid enum value 'gpu'"),
        (changed("design.network.layers.0.nest.k", 0), "k is not positive"),
        (changed("design.network.layers.0.nest.iy", 0), "iy is not positive"),
        (changed("design.network.layers.0.nest.k", 2**60), "layer 'stem' is too large"),
        (changed("design.network.tensors.0.rows", 2**60), "layer 'stem' is too large"),
        (changed("design.network.layers.0.nest.stride", [2**62, 1]), "a size that no layer has"),
        (changed("design.network.layers.0.weights.bits", 2**62), "a size that no layer has"),
        (changed("design.network.tensors.0.bits", -8), "tensor 'image'.bits is not positive"),
        (changed("design.accelerator.batch", 2**62), "a batch of"),
        (changed("board.usable_logic", 1e308), "is no share"),
        (changed("board.clock_mhz", 1e308), "out of range"),
        (changed("design.layers.0.mapping.tile.k", 0), "layer 'stem'.k is not positive"),
        (changed("design.layers.0.mapping.dataflow", "no such"), "unknown dataflow 'no such'"),
        (changed("design.layers.0.cycles", 0), "layer 'stem'.cycles is not positive"),
        (changed("design.accelerator.chunks.0.dram_bits", 0), "chunk 'conv'.dram_bits is not positive"),
        (changed("design.accelerator.chunks.0.unroll.k", 0), "chunk 'conv'.k is not positive"),
        (changed("design.plan.resident", [["q", 1]]), "resident tensor 'q'"),
        (changed("design.plan.in_uram", [["q", 8]]), "tensor 'q' is in URAM"),
        (changed("design.plan.in_uram", [["q", 3]]), "in 3 URAMs, which come in groups of 8"),
        (changed("design.plan.pinned", ["q"]), "pinned layer 'q'"),
        (changed("design.chunk_resources", []), "chunk_resources"),
        (changed("design.board", "fpga-kv260"), "made for fpga-kv260 at 200 MHz, and the board is fpga-zc706 at 200"),
        (changed("design.clock_mhz", 400.0), "made for fpga-zc706 at 400 MHz, and the board is fpga-zc706 at 200 MHz"),
        (changed("design.interval_cycles", 1), "are on chunk 0 at the same time"),
        (changed("design.layers.0.start", 1), "layer 'conv1' starts before its input 'a' is there"),
        (changed("board.dram.efficiency", 0), "efficiency is not positive"),
        (changed("alternatives.0.1.interval_cycles", 0), "batch 1: design.interval_cycles is not positive"),
    ],
)
def test_refuses(data, words):
    with pytest.raises(NashcError, match=words):
        load(data)


def test_refuses_files(tmp_path: Path):
    with pytest.raises(NashcError, match="no such file"):
        load(tmp_path / "none.json")
    with pytest.raises(NashcError, match="no such file"):
        load(tmp_path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(NashcError, match="larger than 256 MiB"):
        load(huge)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_refused_or_sound(data):
    """Cut or overwritten anywhere, a file is either refused or gives a design that can be dumped again."""
    text = bytearray(SAMPLE)
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    try:
        found = load(bytes(text))
    except NashcError:
        return
    dump(found)


SAMPLE = dump(compiled(host=True))


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 2**70])
def test_never_writes_what_json_cannot_hold(number):
    value = compiled()
    with pytest.raises(ValueError, match=r"inconsistent: design\.energy_pj"):
        dump(replace(value, design=replace(value.design, energy_pj=number)))


def test_schema_names_every_field():
    schema = json.loads(json_schema())
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$defs"]["Design"]["required"] == [f.encode_name for f in msgspec.inspect.type_info(Design).fields]
    assert schema["$defs"]["Document"]["properties"]["version"] == {"enum": [2]}
    assert schema["$defs"]["Document"]["additionalProperties"] is False


def test_the_documentation_names_every_field():
    """docs/design-json.md has a row for each field of each table that design.json can hold."""
    text = (Path(__file__).parents[2] / "docs" / "design-json.md").read_text()
    for name, table in json.loads(json_schema())["$defs"].items():
        if name in {"Board", "Dram", "LaneCost", "TemplateCost", "Energy", "Host"} or "properties" not in table:
            continue  # docs/boards.md has these
        section = text.split(f"### {name}\n")[1].split("\n### ")[0]
        for field in table["properties"]:
            assert f"`{field}`" in section, f"{name}.{field}"


def test_hand_written_design_is_sound():
    assert design(hybrid()).fps > 0
    assert msgspec.json.decode(SAMPLE, type=Document).version == 2
