"""Random layers, chunks, mappings and placements that the template allows."""

from hypothesis import strategies as st

from nashc.core.design import Extra, Placement, Tile, Work
from nashc.core.loops import LoopNest, Unroll
from nashc.hw.machine import Machine


def channel_tile(draw, channels):
    """A multiple of the channel block, or all channels."""
    options = [*range(16, channels, 16), channels]
    return draw(st.sampled_from(options))


@st.composite
def nests(draw):
    kind = draw(st.sampled_from(["dense", "dense", "depthwise", "grouped"]))
    channels = st.sampled_from([1, 3, 8, 16, 20, 24, 32, 40, 48, 64, 80])
    g, k, c = {
        "dense": lambda: (1, draw(channels), draw(channels)),
        "depthwise": lambda: (draw(channels.filter(lambda x: x > 1)), 1, 1),
        "grouped": lambda: (draw(st.integers(2, 5)), draw(channels), draw(channels)),
    }[kind]()
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    fy, fx = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    reach_y, reach_x = (fy - 1) * dilation[0], (fx - 1) * dilation[1]
    pad = tuple(draw(st.integers(0, max(0, r))) for r in (reach_y, reach_x, reach_y, reach_x))
    iy = draw(st.integers(max(1, reach_y + 1 - pad[0] - pad[2]), 14))
    ix = draw(st.integers(max(1, reach_x + 1 - pad[1] - pad[3]), 14))
    oy = (iy + pad[0] + pad[2] - reach_y - 1) // stride[0] + 1
    ox = (ix + pad[1] + pad[3] - reach_x - 1) // stride[1] + 1
    return LoopNest(g, k, c, oy, ox, fy, fx, iy, ix, stride, dilation, pad)


@st.composite
def works(draw):
    nest = draw(nests())
    weight_bits = draw(st.sampled_from([0, 4, 5, 8, 8]))
    if nest.c > 1:
        weight_bits = weight_bits or 8
    extras = tuple(
        Extra(draw(st.sampled_from([4, 8])), draw(st.booleans())) for _ in range(draw(st.sampled_from([0, 0, 1, 2])))
    )
    return Work(
        nest,
        batch=draw(st.sampled_from([1, 1, 2, 4])),
        input_bits=draw(st.sampled_from([4, 8, 8])),
        output_bits=draw(st.sampled_from([4, 8, 8])),
        weight_bits=weight_bits,
        terms=draw(st.sampled_from([1, 1, 2, 3])) if weight_bits else 1,
        extras=extras,
        scattered=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def tiles(draw, work):
    nest = work.nest
    n = draw(st.sampled_from([d for d in range(1, work.batch + 1) if work.batch % d == 0]))
    oy, ox = draw(st.integers(1, nest.oy)), draw(st.integers(1, nest.ox))
    if nest.g == 1:
        return Tile(n, 1, channel_tile(draw, nest.k), channel_tile(draw, nest.c), oy, ox)
    whole_groups = [g for g in range(1, nest.g) if g * nest.c % 16 == 0 and g * nest.k % 16 == 0]
    g = draw(st.sampled_from([*whole_groups, nest.g]))
    if g == 1:
        return Tile(n, 1, channel_tile(draw, nest.k), channel_tile(draw, nest.c), oy, ox)
    return Tile(n, g, nest.k, nest.c, oy, ox)


unrolls = st.builds(Unroll, *(st.sampled_from([1, 1, 2, 3, 4, 7, 8]) for _ in range(7)))
machines = st.builds(
    Machine,
    burst_bits=st.sampled_from([512, 4096, 32768]),
    burst_latency=st.integers(0, 40),
    burst_overhead=st.integers(0, 6),
    bursts_in_flight=st.integers(1, 8),
    port_bits=st.sampled_from([64, 512]),
    step_overhead=st.integers(0, 6),
    layer_overhead=st.integers(0, 40),
    pipeline_depth=st.integers(0, 8),
    post_lanes=st.sampled_from([1, 16, 64]),
)


@st.composite
def placements(draw, work):
    return Placement(
        tuple(draw(st.booleans()) for _ in range(1 + len(work.extras))), draw(st.booleans()), draw(st.booleans())
    )
