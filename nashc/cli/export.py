"""nashc export."""

from __future__ import annotations

import click

from nashc.cli.command import Command
from nashc.cli.options import shapes_of
from nashc.cli.types import File, Shape


@click.command("export", cls=Command, examples={
    "nashc export nets.py:make --weights net.safetensors --shape x=1,3,32,32 -o net.onnx":
        "what make() of nets.py returns, with trained weights",
    "nashc export my_package.nets:make --shape x=1,3,32,32 --portable -o net.onnx":
        "a file that runs in onnxruntime without nashc, too",
})  # fmt: skip
@click.argument("factory", metavar="MODULE:FACTORY")
@click.option("--weights", type=File(), help="Weights of the module: a safetensors file (nashc.nn.save).")
@click.option(
    "--shape",
    "shapes",
    type=Shape(),
    metavar="NAME=D,D,...",
    multiple=True,
    required=True,
    callback=shapes_of,
    help="An input of forward, in its order, with its shape; the first size is the batch.",
)
@click.option("-o", "--out", required=True, type=File(), help="The ONNX file to write.")
@click.option("--portable", is_flag=True, help="Write the operators' functions too: stock onnxruntime runs the file.")
@click.option("--opset", type=int, help="ONNX opset, 18 to 23.")
@click.option("--fixed-batch", is_flag=True, help="Keep the batch of --shape instead of any.")
def export_command(
    factory: str,
    weights: str | None,
    shapes: dict[str, tuple[int, ...]],
    out: str,
    portable: bool,
    opset: int | None,
    fixed_batch: bool,
) -> None:
    """Write a PyTorch module as ONNX, shift and adder layers too.

    MODULE:FACTORY says where it comes from: package.module:factory or file.py:factory, a callable without arguments
    that returns a torch.nn.Module. This code of yours is imported and run. Needs `pip install nashc[search]`.
    """
    from nashc.export import export_factory

    written = export_factory(
        factory, shapes, out, weights=weights, portable=portable, opset=opset, dynamic_batch=not fixed_batch
    )
    click.echo(written)
