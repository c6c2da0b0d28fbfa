"""What the catalogue says of the generators is counted, and the page on them says the same."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import onnx
import pytest
import torch
from test_export_onnx import meta
from torch import nn

from export.graph import Graph
from export.to_onnx import onnx_from_generator
from trainer.catalogue import ModelRow, catalogue, macs_of, markdown_table
from trainer.config import EDGE_GENERATORS, GENERATORS, UPSAMPLINGS, GeneratorConfig
from trainer.generators import build_generator

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in catalogue()}


def by_hand(config, side_px):
    """Multiply-accumulates from the shapes that a real forward pass has."""
    generator, found = build_generator(config).eval(), []

    def count(module, inputs, output):
        at = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        sides = at.shape[2:]
        if module.weight.shape[0] == 4 * output.shape[1]:  # phases, before depth-to-space
            sides = inputs[0].shape[2:]
        found.append(prod(sides) * module.weight.numel())

    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        generator(torch.zeros(1, config.input_channels, side_px, side_px))
    return sum(found)


def test_every_generator_is_in_it_once_in_the_order_of_the_option(rows):
    assert tuple(rows) == GENERATORS
    assert all(row.description for row in rows.values())


def test_its_figures_are_those_of_the_published_networks(rows):
    # pytorch-CycleGAN-and-pix2pix: 54.414 M and 11.383 M; see test_generators.py on the biases.
    assert rows["unet_256"].parameters == 54_413_955 + 64 + 512
    assert rows["resnet_9blocks"].parameters / 1e6 == pytest.approx(11.383, abs=0.0006)
    # A ResNet 9 at 256 pixels, from the table of Johnson et al. 2016 with two 7x7 ends.
    macs = 256**2 * 49 * 3 * 64 * 2  # stem and head
    macs += 9 * (128**2 * 64 * 128 + 64**2 * 128 * 256) * 2  # halvings and doublings
    macs += 9 * 2 * 9 * 64**2 * 256**2
    assert rows["resnet_9blocks"].macs == macs


@pytest.mark.parametrize("upsample", UPSAMPLINGS)
@pytest.mark.parametrize("name", ["unet_128", "resnet_6blocks", "dense_unet", "mobilenet_unet"])
def test_multiply_accumulates_are_those_of_a_real_forward_pass(name, upsample):
    config = GeneratorConfig(name, 4, output_channels=1, upsample=upsample)
    assert macs_of(config, 128) == by_hand(config, 128) > 1e5


@pytest.mark.parametrize("name", EDGE_GENERATORS)
def test_multiply_accumulates_of_edge_generators_are_those_of_a_real_forward_pass(name):
    config = GeneratorConfig(name, 8)
    assert macs_of(config, 128) == by_hand(config, 128) > 1e5


@pytest.mark.parametrize("name", ["unet_128", "mobilenet_unet"])
def test_an_exported_graph_has_as_many_multiply_accumulates(name, tmp_path):
    config = GeneratorConfig(name, 2)
    generator = build_generator(config).eval()
    onnx_from_generator(generator, tmp_path / "model.onnx", meta(size_px=(128, 128)))
    graph = Graph(onnx.load(str(tmp_path / "model.onnx")))
    assert sum(graph.macs(node) for node in graph.convolutions()) == macs_of(config, 128)


def test_each_is_counted_at_its_usual_size(rows):
    assert {row.side_px for row in rows.values()} == {256, 512}
    assert rows["unet_512"].side_px == 512
    for row in rows.values():
        assert row.side_px % row.size_multiple == 0
        assert row.size_multiple == GeneratorConfig(row.name).size_multiple


def test_the_shared_settings_count_and_the_name_among_them_does_not():
    config = GeneratorConfig("unet_512", 8, norm="instance", upsample="subpixel")
    found = {row.name: row for row in catalogue(config)}
    real = build_generator(replace(config, name="mobilenet_unet"))
    assert found["mobilenet_unet"].parameters == sum(p.numel() for p in real.parameters())
    assert catalogue(replace(config, name="unet_128")) == list(found.values())


def test_the_table_has_one_line_for_each_row():
    row = ModelRow("name", "what it is", 1_234_567, 9_876_543_210, 256, 32)
    assert markdown_table([row]).splitlines()[2:] == [
        "| `name` | what it is | 1.23 | 9.88 | 256 | 32 |"
    ]


def test_the_page_on_the_models_has_the_table_that_the_code_gives(rows):
    between = PAGE.read_text().partition("<!-- models:start -->\n")[2]
    table, end, _ = between.partition("<!-- models:end -->")
    assert end, "the markers are gone"
    assert table == markdown_table(list(rows.values()))


def test_what_the_page_says_of_the_other_doublings_is_counted(rows):
    resized = {row.name: row for row in catalogue(GeneratorConfig(upsample="resize"))}
    subpixel = {row.name: row for row in catalogue(GeneratorConfig(upsample="subpixel"))}
    factors = {name: f"{resized[name].macs / row.macs:.2f}" for name, row in rows.items()}
    for name in ("unet_256", "resnet_9blocks", "dense_unet", "mobilenet_unet"):
        assert resized[name].macs == subpixel[name].macs
        counted = (
            f"| `{name}` | {factors[name]} | {rows[name].parameters / 1e6:.1f} "
            f"| {resized[name].parameters / 1e6:.1f} | {subpixel[name].parameters / 1e6:.1f} |"
        )
        assert counted in PAGE.read_text()


@pytest.mark.parametrize(("name", "told"), [("resnet_9blocks", 82), ("dense_unet", 95)])
def test_a_generator_sees_as_far_as_the_page_says(name, told):
    generator = build_generator(GeneratorConfig(name, 2, norm="none")).double().eval()
    for values in generator.parameters():
        values.data.abs_().add_(1e-3)  # nothing cancels out and no ReLU is dark
    before_tanh = []
    *_, last = (m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    last.register_forward_hook(lambda _m, _i, out: before_tanh.append(out))
    picture = torch.rand(1, 3, 256, 256, dtype=torch.double, requires_grad=True)
    generator(picture)
    before_tanh[0][0, 0, 128, 128].backward()
    rows = picture.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert abs(len(rows) - (2 * told + 1)) <= 1
    assert f"{told}" in PAGE.read_text()
