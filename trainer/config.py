"""Every setting of a training run, as frozen dataclasses that refuse a wrong combination."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from trainer.errors import ConfigError

UNET_LEVELS = {"unet_128": 7, "unet_256": 8, "unet_512": 9}
"""Generator name to the number of times that it halves the picture: down to 1x1 at its size."""
RESNET_BLOCKS = {"resnet_6blocks": 6, "resnet_9blocks": 9}
"""Generator name to the number of residual blocks between two halvings and two doublings."""
RESNET_DOWNSAMPLINGS = 2
GENERATORS = (*UNET_LEVELS, *RESNET_BLOCKS)
NORMS = ("batch", "instance", "none")
GAN_MODES = ("vanilla", "lsgan")
DIRECTIONS = ("AtoB", "BtoA")

_Config = TypeVar("_Config")


@dataclass(frozen=True)
class GeneratorConfig:
    """Which network draws the picture."""

    name: str = "unet_256"
    """`unet_128`, `unet_256` or `unet_512`: the picture's side that it reduces to 1x1;
    `resnet_6blocks` or `resnet_9blocks`: the number of residual blocks."""
    ngf: int = 64
    """Channels of the first layer; the deepest ones have eight times as many."""
    input_channels: int = 3
    output_channels: int = 3
    norm: str = "batch"
    """`batch` folds into the convolutions on export; `instance` uses each picture's own
    statistics; `none`."""
    dropout: float = 0.5
    """While training, the noise z of the paper: in a U-Net's first three decoder blocks, in
    each residual block of a ResNet."""

    def __post_init__(self) -> None:
        _one_of("--netG", self.name, GENERATORS)
        _one_of("--norm", self.norm, NORMS)
        _at_least("--ngf", self.ngf, 1)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}", "0 <= dropout < 1", "use --no-dropout")

    @property
    def size_multiple(self) -> int:
        """Height and width of its input are multiples of this many pixels."""
        return int(2 ** UNET_LEVELS.get(self.name, RESNET_DOWNSAMPLINGS))


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained: the settings of Isola et al. 2017 where nothing else is said."""

    data: str = "scenes"
    """Folder of pairs, or `scenes`: the street scenes that the trainer draws."""
    direction: str = "AtoB"
    """`AtoB`: A (the left half) is the input. `BtoA`: the other way."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    ndf: int = 64
    """Channels of the discriminator's first layer."""
    gan_mode: str = "vanilla"
    """`vanilla` is binary cross-entropy, `lsgan` least squares."""
    lambda_l1: float = 100.0
    """Weight of the L1 distance to the target, beside the adversarial loss."""
    epochs: int = 200
    """In all. The learning rate is constant for half of the steps, then falls to zero."""
    steps: int | None = None
    """In all; stands in place of `epochs` where given."""
    batch_size: int = 4
    lr: float = 2e-4
    """Of Adam, with beta2 0.999."""
    beta1: float = 0.5
    load_size: int = 286
    """Pairs are resized to this square, in pixels, before the crop."""
    crop_size: int = 256
    """Side of the random crop, in pixels: the same place in both halves."""
    flip: bool = True
    """Mirror half of the pairs, both halves alike."""
    ema_decay: float = 0.999
    """Of the running average of the generator's weights, which is what is saved and exported;
    0 saves the last weights."""
    epoch_scenes: int = 400
    """Pairs that make an epoch when the data are drawn scenes, which have no end."""
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("--direction", self.direction, DIRECTIONS)
        _one_of("--gan-mode", self.gan_mode, GAN_MODES)
        _at_least("--epochs", self.epochs, 1)
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--ndf", self.ndf, 1)
        if self.steps is not None:
            _at_least("--steps", self.steps, 1)
        _at_least("--seed", self.seed, 0)
        multiple = self.generator.size_multiple
        if self.crop_size < multiple or self.crop_size % multiple:
            raise ConfigError(
                f"--crop-size {self.crop_size} with --netG {self.generator.name}",
                f"a multiple of {multiple}, since this generator halves it "
                f"{multiple.bit_length() - 1} times",
                f"use --crop-size {max(multiple, self.crop_size // multiple * multiple)}",
            )
        if self.load_size < self.crop_size:
            raise ConfigError(
                f"--load-size {self.load_size} below --crop-size {self.crop_size}",
                "a picture that the crop fits into",
                f"use --load-size {self.crop_size} for no random crop",
            )
        for flag, value, low, high in (
            ("--lr", self.lr, 0.0, 1.0),
            ("--lambda-l1", self.lambda_l1, -1e-9, 1e9),
            ("--beta1", self.beta1, -1e-9, 1.0),
        ):
            if not low < value < high:
                raise ConfigError(
                    f"{flag} {value}",
                    f"between {max(low, 0):g} and {high:g}",
                    f"leave {flag} out for the paper's value",
                )


def to_dict(config: GeneratorConfig | TrainConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return asdict(config)


def generator_config_from(values: dict[str, Any]) -> GeneratorConfig:
    """The reverse of `to_dict`; a key that this version does not know is an error."""
    return _from_dict(GeneratorConfig, values)


def train_config_from(values: dict[str, Any]) -> TrainConfig:
    """The reverse of `to_dict`; a key that this version does not know is an error."""
    generator = generator_config_from(values["generator"])
    return _from_dict(TrainConfig, {**values, "generator": generator})


def _from_dict(kind: type[_Config], values: dict[str, Any]) -> _Config:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"settings {', '.join(unknown)} in the checkpoint",
            f"the settings of this version's {kind.__name__}",
            "update with: pip install --upgrade pix2pix-edge",
        )
    return kind(**values)


def _one_of(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{flag} {value}", f"one of {', '.join(choices)}", f"change {flag}")


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{flag} {value}", f"{least} or more", f"change {flag}")
