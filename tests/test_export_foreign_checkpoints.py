"""A checkpoint of another project draws the same picture here, or is refused in one line."""

from __future__ import annotations

import argparse
import re

import pytest
import reference_generators as reference
import torch
from safetensors.torch import save_file
from torch import nn

from export.foreign_checkpoints import open_foreign_checkpoint
from export.to_onnx import folded
from runtime.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

NORMS = ("batch", "instance", "none")
GREY_LEVEL = 1 / 127.5


def picture(side_px: int, channels: int = 3) -> torch.Tensor:
    """float [1, channels, side, 1.5 sides], -1 to 1."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(1, channels, side_px, side_px * 3 // 2, generator=generator) * 2 - 1


def square(side_px: int, channels: int = 3) -> torch.Tensor:
    return picture(side_px, channels)[..., :side_px]


def assert_draws_the_same(
    ours: nn.Module, theirs: nn.Module, x: torch.Tensor, tolerance: float = GREY_LEVEL / 100
) -> None:
    with torch.no_grad():
        expected = theirs(x)
        drawn = ours(x)
    assert expected.std() > 0.1, "a plain picture would prove nothing"
    assert drawn.shape == expected.shape
    assert (drawn - expected).abs().max() < tolerance


def saved(tmp_path, weights, name="latest_net_G.pth"):
    torch.save(weights, tmp_path / name)
    return tmp_path / name


CASES = {
    **{
        f"unet_{2**levels}-{norm}": (
            lambda levels=levels, norm=norm: reference.unet(levels, 2, norm, dropout=True),
            square(2**levels),
            {"name": f"unet_{2**levels}", "norm": norm, "size_multiple": 2**levels},
        )
        for levels, norms in ((7, NORMS), (8, NORMS), (9, ("batch",)))
        for norm in norms
    },
    "unet_256-batch-biases": (
        lambda: reference.unet(8, 2, "batch", biases=True),
        square(256),
        {"name": "unet_256", "norm": "batch"},
    ),
    **{
        f"resnet_{blocks}-{norm}-{dropout}": (
            lambda blocks=blocks, norm=norm, dropout=dropout: reference.resnet(
                blocks, 4, norm, dropout
            ),
            picture(16),
            {"name": f"resnet_{blocks}blocks", "norm": norm, "size_multiple": 4},
        )
        for blocks in (6, 9)
        for norm in NORMS
        for dropout in (False, True)
    },
    "resnet_3": (
        lambda: reference.resnet(3, 4, "batch"),
        picture(16),
        {"name": "resnet_3blocks"},
    ),
    **{
        f"hd_global-{norm}": (
            lambda norm=norm: reference.hd_global(3, 4, 2, norm),
            picture(32),
            {"name": "pix2pixhd_global", "norm": norm, "size_multiple": 16, "size_px": 512},
        )
        for norm in ("batch", "instance")
    },
    "hd_global-two-halvings": (
        lambda: reference.hd_global(3, 2, 4, "batch"),
        picture(16),
        {"name": "pix2pixhd_global", "size_multiple": 4},
    ),
    **{
        f"hd_local-{enhancers}-{norm}": (
            lambda enhancers=enhancers, norm=norm: reference.HdLocal(enhancers, 2, 3, 3, 4, norm),
            picture(16 * 2**enhancers),
            {
                "name": "pix2pixhd_local",
                "norm": norm,
                "size_multiple": 2 ** (3 + enhancers),
                "size_px": 512,
            },
        )
        for enhancers in (1, 2)
        for norm in ("batch", "instance")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_picture_from_names_and_shapes_alone(tmp_path, case):
    build, x, told = CASES[case]
    theirs = reference.lively(build(), x)
    before = torch.get_rng_state()
    found = open_foreign_checkpoint(saved(tmp_path, theirs.state_dict()))
    assert torch.equal(torch.get_rng_state(), before), "opening a file draws random numbers"
    assert {field: getattr(found, field) for field in told} == told
    assert found.size_px % found.size_multiple == 0
    assert not found.generator.training
    moved_biases = "batch" in case and ("hd" in case or "biases" in case)
    assert_draws_the_same(found.generator, theirs, x, GREY_LEVEL / 100 if moved_biases else 1e-5)


@pytest.mark.parametrize("case", ["unet_256-batch-biases", "hd_global-batch", "hd_local-1-batch"])
def test_biases_move_into_the_running_means_up_to_rounding(tmp_path, case):
    build, x, _ = CASES[case]
    theirs = reference.lively(build(), x)
    ours = open_foreign_checkpoint(saved(tmp_path, theirs.state_dict())).generator
    assert_draws_the_same(ours.double(), theirs.double(), x.double(), 1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if "batch" in case and "512" not in case])
def test_statistics_of_the_batch_give_the_same_picture_too(tmp_path, case):
    build, x, _ = CASES[case]
    theirs = reference.lively(build(), x)
    ours = open_foreign_checkpoint(saved(tmp_path, theirs.state_dict())).generator.train()
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    assert_draws_the_same(ours, theirs, x)


@pytest.mark.parametrize("case", ["unet_128-batch", "resnet_6-batch-True", "hd_local-1-batch"])
def test_batch_norm_still_folds_into_the_convolutions(tmp_path, case):
    build, x, _ = CASES[case]
    theirs = reference.lively(build(), x)
    ours = folded(open_foreign_checkpoint(saved(tmp_path, theirs.state_dict())).generator)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ours.modules())
    assert_draws_the_same(ours, theirs, x)


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("family", ["unet", "resnet", "hd_global"])
def test_grey_and_colour(tmp_path, family, inputs, outputs):
    theirs, side_px = {
        "unet": (reference.unet(7, 4, "batch", inputs, outputs), 128),
        "resnet": (reference.resnet(6, 4, "batch", False, inputs, outputs), 32),
        "hd_global": (reference.hd_global(3, 3, 4, "instance", inputs, outputs), 32),
    }[family]
    x = square(side_px, inputs)
    reference.lively(theirs, x)
    found = open_foreign_checkpoint(saved(tmp_path, theirs.state_dict()))
    assert (found.input_channels, found.output_channels) == (inputs, outputs)
    colors = {1: "grey", 3: "RGB"}
    assert f"{colors[inputs]} to {colors[outputs]}" in found.description
    assert_draws_the_same(found.generator, theirs, x)


def small_resnet(norm="batch"):
    x = picture(16)
    return reference.lively(reference.resnet(6, 4, norm), x), x


def with_old_instance_entries(weights):
    """What InstanceNorm without learned scale kept before PyTorch 0.4."""
    for layer in (
        2,
        5,
        8,
        *(f"{b}.conv_block.{n}" for b in range(10, 16) for n in (2, 6)),
        17,
        20,
    ):
        weights[f"model.{layer}.running_mean"] = torch.randn(4)
        weights[f"model.{layer}.running_var"] = torch.rand(4)
    return weights


def without_counts(weights):
    return {name: value for name, value in weights.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("norm", "changed"),
    [
        ("batch", lambda w: {f"module.{name}": value for name, value in w.items()}),
        ("batch", lambda w: {f"_orig_mod.{name}": value for name, value in w.items()}),
        ("batch", lambda w: {f"_orig_mod.module.{name}": value for name, value in w.items()}),
        ("batch", without_counts),
        ("batch", lambda w: {"state_dict": w, "epoch": 200}),
        ("batch", lambda w: {"model": w}),
        ("batch", lambda w: {"generator": w}),
        ("batch", lambda w: {"netD": {"a": torch.ones(1)}, "netG": w}),
        ("batch", lambda w: {"G": w, "D": {"a": torch.ones(1)}}),
        ("instance", with_old_instance_entries),
    ],
)
def test_every_way_that_such_files_are_written(tmp_path, norm, changed):
    theirs, x = small_resnet(norm)
    found = open_foreign_checkpoint(saved(tmp_path, changed(dict(theirs.state_dict()))))
    assert found.norm == norm
    assert_draws_the_same(found.generator, theirs, x)


def test_file_of_pytorch_before_1_6_and_safetensors(tmp_path):
    theirs, x = small_resnet()
    old, tensors = tmp_path / "old_net_G.pth", tmp_path / "net_G.safetensors"
    torch.save(theirs.state_dict(), old, _use_new_zipfile_serialization=False)
    save_file(theirs.state_dict(), tensors)
    for path in (old, tensors):
        assert_draws_the_same(open_foreign_checkpoint(path).generator, theirs, x)


def test_half_precision_weights_become_single(tmp_path):
    theirs, x = small_resnet()
    path = saved(tmp_path, theirs.half().state_dict())
    ours = open_foreign_checkpoint(path).generator
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert_draws_the_same(ours, theirs.float(), x)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (
            reference.unet(8, 4, "batch", dropout=True),
            "U-Net of pytorch-CycleGAN-and-pix2pix: ngf 4, batch norm, dropout leaves no trace",
        ),
        (
            reference.resnet(9, 4, "instance", dropout=True),
            "ResNet of pytorch-CycleGAN-and-pix2pix, 9 blocks: ngf 4, instance norm, trained with "
            "dropout, RGB to RGB",
        ),
        (
            reference.resnet(6, 4, "none", inputs=1),
            "ResNet of pytorch-CycleGAN-and-pix2pix, 6 blocks: ngf 4, no norm, no dropout, grey "
            "to RGB",
        ),
        (
            reference.HdLocal(1, 3, 9, 4, 2, "instance"),
            "local enhancer of pix2pixHD, 1 x 3 blocks on a global generator of 9 blocks, "
            "4 halvings: ngf 2, instance norm, no dropout",
        ),
    ],
)
def test_description_says_what_was_found(tmp_path, theirs, told):
    description = open_foreign_checkpoint(saved(tmp_path, theirs.state_dict())).description
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    assert description.startswith(told)
    assert description.endswith(f", {parameters / 1e6:.3f} M parameters")
    assert "\n" not in description


def refusal(path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        open_foreign_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def patch_discriminator():
    chain = [nn.Conv2d(6, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 1, 1)]
    return reference.Named(nn.Sequential(*chain)).state_dict()


NO_GENERATORS = {
    "patch discriminator": (patch_discriminator(), "is a discriminator.*name the .*_net_G.pth"),
    "pixel discriminator": (
        {"net.0.weight": torch.ones(4, 6, 1, 1), "net.2.weight": torch.ones(8, 4, 1, 1)},
        "is a discriminator",
    ),
    "multiscale discriminator": (
        {"scale0_layer0.0.weight": torch.ones(4, 6, 4, 4)},
        "is a discriminator",
    ),
    "multiscale discriminator, one chain": (
        {"layer0.0.weight": torch.ones(4, 6, 4, 4)},
        "is a discriminator",
    ),
    "another network": (
        {f"features.{n}.weight": torch.ones(8, 3, 3, 3) for n in range(5)},
        "features.0.weight 8x3x3x3, features.1.weight 8x3x3x3, .* and 2 more",
    ),
    "encoder of pix2pixHD": (
        nn.ModuleDict({"model": nn.Sequential(*reference.trunk(0, 2, 4, "batch", 3, True))}),
        "holds no generator that is known here, but model.1.weight 4x3x7x7",
    ),
    "optimizer": (
        torch.optim.Adam(nn.Conv2d(3, 3, 3).parameters()),
        "is the state of an optimizer",
    ),
    "two generators": (
        {"netG_A": {"a": torch.ones(1)}, "netG_B": {"a": torch.ones(1)}},
        r"holds no state dict, but netG_A \(dict\), netG_B \(dict\)",
    ),
    "empty dict": ({}, "holds no state dict, but nothing"),
    "tensor": (torch.ones(3), "holds no state dict, but a Tensor"),
    "label maps": (
        reference.hd_global(2, 3, 4, "instance", inputs=36),
        r"takes 36 channels, as a label or edge map has; expected 3 \(RGB\) or 1 \(grey\)",
    ),
    "two pictures in": (reference.unet(7, 4, "batch", inputs=6), "takes 6 channels"),
    "picture and mask out": (reference.resnet(6, 4, "batch", outputs=4), "gives 4 channels"),
    "whole module": (
        nn.Conv2d(3, 3, 3),
        r"holds pickled objects or code \(torch.nn.modules.conv.Conv2d\).*expected a bare state "
        r'dict.*torch.save\(netG.state_dict\(\), "FILE"\)',
    ),
    "options beside the weights": (
        {"netG": {"a": torch.ones(1)}, "opt": argparse.Namespace(ngf=64)},
        r"holds pickled objects or code \(argparse.Namespace\)",
    ),
}


@pytest.mark.parametrize("what", NO_GENERATORS)
def test_what_is_no_generator_of_a_camera_is_named(tmp_path, what):
    content, told = NO_GENERATORS[what]
    if hasattr(content, "state_dict") and what != "whole module":
        content = content.state_dict()
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"{number}_net_G.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert re.search(told, refusal(path))


def with_entry(name, value):
    return lambda weights: {**weights, name: value}


def without_entry(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def with_affine_instance_norm(weights):
    return {name: value for name, value in weights.items() if "running" not in name}


def with_zero_padding(weights):
    return {
        name.replace("conv_block.1.", "conv_block.0."): value for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (with_entry("extra.weight", torch.ones(1)), "but extra.weight has no place in it"),
        (with_entry("model.22.bias", torch.ones(1)), "model.22.bias has no place"),
        (without_entry("model.2.running_var"), "some of its norm layers"),
        (without_entry("model.14.conv_block.2.bias"), "some of its norm layers"),
        (without_entry("model.23.bias"), "but model.23.bias is missing"),
        (without_entry("model.16.weight"), "model.16.weight is missing"),
        (without_entry("model.14.conv_block.1.weight"), "model.14.conv_block.1.weight is missing"),
        (with_entry("model.4.bias", torch.ones(8)), "some of its convolutions have biases"),
        (with_entry("model.4.weight", torch.ones(8, 4, 4, 4)), "8x4x4x4 and not 8x4x3x3"),
        (with_entry("model.5.weight", torch.ones(9)), "model.5.weight is 9 and not 8"),
        (with_entry("model.5.weight", torch.ones(8, dtype=torch.int8)), "int8"),
        (with_entry("model.4.weight", torch.full((8, 4, 3, 3), torch.nan)), "not finite"),
        (with_affine_instance_norm, "learned scale and no running statistics"),
        (with_zero_padding, "padded with zeros"),
    ],
)
def test_what_does_not_fit_exactly_is_refused(tmp_path, changed, told):
    weights = dict(reference.resnet(6, 4, "batch").state_dict())
    line = refusal(saved(tmp_path, changed(weights)))
    assert re.search(told, line)


def test_a_unet_of_another_kind_is_refused(tmp_path):
    weights = dict(reference.unet(7, 4, "batch").state_dict())
    weights["model.model.1.model.1.weight"] = torch.ones(8, 4, 3, 3)
    assert "model.model.1.model.1.weight is 8x4x3x3 and not 8x4x4x4" in refusal(
        saved(tmp_path, weights)
    )


def test_enhancers_that_differ_are_refused(tmp_path):
    weights = dict(reference.HdLocal(2, 2, 2, 2, 2, "batch").state_dict())
    other = reference.HdLocal(2, 1, 2, 2, 2, "batch").state_dict()
    weights = {name: value for name, value in weights.items() if not name.startswith("model2_2")}
    weights |= {name: value for name, value in other.items() if name.startswith("model2_2")}
    assert "different numbers of residual blocks" in refusal(saved(tmp_path, weights))


def test_missing_file_and_folder(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "none_net_G.pth")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_archive_is_named(tmp_path):
    path = tmp_path / "traced.pt"
    torch.jit.trace(nn.Conv2d(3, 3, 3), torch.ones(1, 3, 8, 8)).save(str(path))
    assert "is a TorchScript archive, which holds code" in refusal(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "no file of PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1", "no file of PyTorch"),
        (b"\x80\x02hello", "damaged or cut off"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bytes_of_something_else(tmp_path, content, told, suffix):
    path = tmp_path / f"latest_net_G{suffix}"
    path.write_bytes(content)
    line = refusal(path)
    assert told in line or (suffix == ".safetensors" and "no whole safetensors file" in line)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path, zipped):
    path = tmp_path / "latest_net_G.pth"
    weights = reference.resnet(1, 2, "batch").state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for part in range(1, 40):
        path.write_bytes(whole[: len(whole) * part // 40])
        assert "; expected the state dict of a generator" in refusal(path)
