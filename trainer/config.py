"""Every setting of a training run, as frozen dataclasses that refuse a wrong combination."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from trainer.errors import ConfigError

UNET_LEVELS = {"unet_128": 7, "unet_256": 8, "unet_512": 9, "encoder_decoder": 8}
"""Generator name to the number of times that it halves the picture: down to 1x1 at its size."""
RESNET_BLOCKS = {"resnet_6blocks": 6, "resnet_9blocks": 9}
"""Generator name to the number of residual blocks between two halvings and two doublings."""
EDGE_GENERATORS = ("edge_unet_s", "edge_unet_m", "edge_unet_l", "relight", "relight_s", "pyramid")
"""Those that are made for real time, and keep a share of the frame."""
HALVINGS = {
    **UNET_LEVELS,
    **dict.fromkeys(RESNET_BLOCKS, 2),
    **dict.fromkeys(("dense_unet", "mobilenet_unet", *EDGE_GENERATORS), 5),
}
"""Generator name to the number of times that it halves the picture."""
GENERATORS = tuple(HALVINGS)
REDUCTIONS = (1, 2, 4, 8)
NORMS = ("batch", "instance", "none")
UPSAMPLINGS = ("transposed", "resize", "subpixel")
RECEPTIVE_FIELDS_PX = (1, 16, 70, 286)
GAN_MODES = ("vanilla", "lsgan", "hinge", "wgangp", "none")
PRECISIONS = ("fp32", "bf16", "fp16")
DIRECTIONS = ("AtoB", "BtoA")
NORM_STATS = ("running", "batch")
TASKS = ("pairs", "colourise", "edges", "superres", "deblur")

_Config = TypeVar("_Config")


@dataclass(frozen=True)
class GeneratorConfig:
    """Which network draws the picture."""

    name: str = "unet_256"
    """One of `GENERATORS`; `p2p-train --list-models` says what each is."""
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
    upsample: str = "transposed"
    """How the decoder doubles the picture: by `transposed` convolution, as the paper does; by
    `resize` (nearest) and convolution; by `subpixel`: convolution and depth-to-space."""

    input_norm: bool = False
    """Bring each channel of each frame to mean 0 and deviation 1/2 first, so that the camera's
    exposure and white balance no longer matter."""
    frame_norm: bool = False
    """Of an edge generator with `input_norm`: the frame that it changes is at that exposure, too,
    so that the picture of a dull day is not a darker one."""
    reduction: int = 1
    """One of `REDUCTIONS`: an edge generator looks at a copy whose sides are so much smaller;
    what it finds is enlarged and applied to the picture itself."""

    def __post_init__(self) -> None:
        _one_of("--netG", self.name, GENERATORS)
        _one_of("--norm", self.norm, NORMS)
        _one_of("--upsample", self.upsample, UPSAMPLINGS)
        _at_least("--ngf", self.ngf, 1)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}", "0 <= dropout < 1", "use --no-dropout")
        if self.reduction not in REDUCTIONS:
            raise ConfigError(
                f"--reduction {self.reduction}",
                f"one of {', '.join(map(str, REDUCTIONS))}",
                "change --reduction",
            )
        if self.frame_norm and not self.input_norm:
            raise ConfigError(
                "--frame-norm without --input-norm",
                "both: the frame is brought to the exposure that the network sees",
                "add --input-norm",
            )
        if self.name in EDGE_GENERATORS:
            self._check_edge_generator()
        elif self.frame_norm:
            raise ConfigError(
                f"--frame-norm with --netG {self.name}, which draws every pixel",
                f"one that changes the picture itself: {', '.join(EDGE_GENERATORS)}",
                "leave --frame-norm out, or choose another --netG",
            )
        elif self.reduction > 1:
            raise ConfigError(
                f"--reduction {self.reduction} with --netG {self.name}, which draws every pixel",
                f"one that changes the picture itself: {', '.join(EDGE_GENERATORS)}",
                "leave --reduction out, or choose another --netG",
            )

    def _check_edge_generator(self) -> None:
        if self.upsample != "transposed":
            raise ConfigError(
                f"--upsample {self.upsample} with --netG {self.name}",
                "its own sub-pixel convolutions",
                "leave --upsample out",
            )
        channels = (self.input_channels, self.output_channels)
        if channels[0] != channels[1] or (self.name.startswith("relight") and channels[0] != 3):
            raise ConfigError(
                f"--netG {self.name} from {channels[0]} channels to {channels[1]}",
                "a picture that keeps a share of its input, in the same channels",
                "choose another --netG",
            )

    @property
    def size_multiple(self) -> int:
        """Height and width of its input are multiples of this many pixels."""
        return int(self.reduction * 2 ** HALVINGS[self.name])


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which network judges the picture while training."""

    receptive_field_px: int = 70
    """Side of the patch that each of its outputs judges: 1 (PixelGAN), 16, 70 (PatchGAN) or 286
    (ImageGAN)."""
    ndf: int = 64
    """Channels of the first layer."""
    conditional: bool = True
    """It sees the input beside the picture: does the picture belong to the input?"""
    norm: str = "batch"
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""

    def __post_init__(self) -> None:
        if self.receptive_field_px not in RECEPTIVE_FIELDS_PX:
            raise ConfigError(
                f"--patch {self.receptive_field_px}",
                f"one of {', '.join(map(str, RECEPTIVE_FIELDS_PX))} pixels",
                "change --patch",
            )
        _at_least("--ndf", self.ndf, 1)
        _one_of("--norm-d", self.norm, NORMS)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised; a weight of 0 leaves a term out."""

    gan_mode: str = "vanilla"
    """`vanilla` is binary cross-entropy, `lsgan` least squares, `hinge`, `wgangp` Wasserstein with
    a gradient penalty; `none` trains without a discriminator."""
    lambda_gan: float = 1.0
    lambda_l1: float = 100.0
    """Of the mean absolute difference to the target, in units of -1 to 1."""
    lambda_l2: float = 0.0
    """Of the mean squared difference to the target."""
    lambda_feat: float = 0.0
    """Of feature matching in the discriminator; pix2pixHD takes 10."""
    lambda_vgg: float = 0.0
    """Of the perceptual distance in VGG-19; pix2pixHD takes 10."""
    lambda_swd: float = 0.0
    """Of the sliced Wasserstein distance of patches: texture."""
    vgg_weights: str | None = None
    """File of torchvision's VGG-19 weights (`vgg19-dcbb9e9d.pth`)."""
    lambda_gp: float = 10.0
    """Of the gradient penalty of `wgangp`."""
    lambda_distill: float = 0.0
    """Of the mean absolute difference to what the teacher draws, in units of -1 to 1."""
    lambda_distill_feat: float = 0.0
    """Of the squared difference between the teacher's features and the student's."""

    def __post_init__(self) -> None:
        _one_of("--gan-mode", self.gan_mode, GAN_MODES)
        for name in ("gan", "l1", "l2", "feat", "vgg", "swd", "gp", "distill", "distill_feat"):
            flag = f"--lambda-{name}".replace("_", "-")
            _between(flag, getattr(self, f"lambda_{name}"), -1e-9, 1e9)
        if self.lambda_vgg and not self.vgg_weights:
            raise ConfigError(
                f"--lambda-vgg {self.lambda_vgg:g} without weights",
                "a file of torchvision's VGG-19 weights",
                "give --vgg-weights vgg19-dcbb9e9d.pth, or leave --lambda-vgg out",
            )
        if self.gan_mode == "none" and self.lambda_feat:
            raise ConfigError(
                f"--lambda-feat {self.lambda_feat:g} with --gan-mode none",
                "a discriminator, whose features are matched",
                "choose another --gan-mode, or leave --lambda-feat out",
            )
        if self.gan_mode == "none" and not (
            self.lambda_l1
            or self.lambda_l2
            or self.lambda_vgg
            or self.lambda_swd
            or self.lambda_distill
        ):
            raise ConfigError(
                "no term to minimise",
                "an adversarial loss, or a weight above 0",
                "give --lambda-l1 100, or another --gan-mode",
            )


@dataclass(frozen=True)
class TeacherConfig:
    """Which trained generator the new one learns from."""

    path: str
    """Its file, as given."""
    sha256: str
    """Of the file, in hexadecimal: a resumed run has to find the same."""
    norm_stats: str = "running"
    """What its BatchNorm normalises by: its `running` statistics, or those of each picture alone
    (`batch`, as at batch size 1)."""

    def __post_init__(self) -> None:
        _one_of("--teacher-norm-stats", self.norm_stats, NORM_STATS)


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained: the settings of Isola et al. 2017 where nothing else is said."""

    data: str = "scenes"
    """Folder of pairs, or `scenes`: the street scenes that the trainer draws."""
    direction: str = "AtoB"
    """`AtoB`: A (the left half) is the input. `BtoA`: the other way."""
    task: str = "pairs"
    """`pairs`: `data` holds inputs and targets. Else it holds plain photos, which are the targets,
    and the input is made of each: `colourise` its grey form, `edges` its drawn edges, `superres`
    the photo at a quarter of the size, `deblur` out of focus or moved."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    teacher: TeacherConfig | None = None
    init: str | None = None
    """Generator file, or a run's folder, whose weights the run starts with; None: fresh ones."""
    epochs: int = 200
    """In all. The learning rate is constant for half of the steps, then falls to zero."""
    steps: int | None = None
    """In all; stands in place of `epochs` where given."""
    batch_size: int = 4
    """Pairs that a network sees at once, in each process."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
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
    patience: int | None = None
    """Stop early after so many epochs whose held-out L1 is no better; None: never."""
    fixed_stats: bool = False
    """Measure BatchNorm's statistics once, with the fresh weights, and keep them: training then
    sees what is exported, whatever the size of a batch (Krahenbuhl et al. 2016, "Data-dependent
    Initializations"; ActNorm of Kingma and Dhariwal 2018). With `init` they are the checkpoint's,
    which its weights know."""
    qat: bool = False
    """Train with the rounding of INT8 in every convolution, and BatchNorm's statistics kept as the
    checkpoint has them: see `trainer.fake_quant`."""
    precision: str = "fp32"
    """Of the networks' arithmetic while training: `fp32`, `bf16`, or `fp16` with scaled losses."""
    channels_last: bool | None = None
    """Keep activations as [N, H, W, C] in memory. None: on a GPU, whose convolutions are faster
    so; on a CPU their backward passes are slower."""
    compile: bool = False
    """Let `torch.compile` fuse the networks' layers."""
    bad_pairs: float = 0.01
    """Largest part of the pairs that may be damaged; they are named and left out."""
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("--direction", self.direction, DIRECTIONS)
        _one_of("--task", self.task, TASKS)
        _one_of("--precision", self.precision, PRECISIONS)
        _at_least("--epochs", self.epochs, 1)
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--accumulate", self.accumulate, 1)
        if self.patience is not None:
            _at_least("--patience", self.patience, 1)
        if self.steps is not None:
            _at_least("--steps", self.steps, 1)
        _at_least("--seed", self.seed, 0)
        if self.objective.gan_mode == "wgangp" and self.discriminator.norm == "batch":
            raise ConfigError(
                "--norm-d batch with --gan-mode wgangp",
                "a discriminator that judges each picture alone, as its gradient penalty does",
                "use --norm-d instance",
            )
        distilled = self.objective.lambda_distill or self.objective.lambda_distill_feat
        if distilled and self.teacher is None:
            raise ConfigError(
                "a weight of distillation without --teacher",
                "a generator to learn from",
                "give --teacher, or leave --lambda-distill and --lambda-distill-feat out",
            )
        if self.teacher is not None and not distilled:
            raise ConfigError(
                f"--teacher {self.teacher.path} with both weights of distillation at 0",
                "something to learn from it",
                "leave --lambda-distill or --lambda-distill-feat out, whose defaults are above 0",
            )
        if self.qat and self.init is None:
            raise ConfigError(
                "--qat without --init",
                "a trained generator, which learns to stand INT8's rounding",
                "give --init CHECKPOINT",
            )
        if self.qat and self.compile:
            raise ConfigError(
                "--qat with --compile",
                "layers that are run one by one, since their convolutions are replaced",
                "leave one of the two out",
            )
        if self.fixed_stats and self.generator.norm != "batch":
            raise ConfigError(
                f"--fixed-stats with --norm {self.generator.norm}",
                "BatchNorm, which has statistics to fix",
                "leave one of the two out",
            )
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
        _between("--lr", self.lr, 0.0, 1.0)
        _between("--beta1", self.beta1, -1e-9, 1.0)
        _between("--ema", self.ema_decay, -1e-9, 1.0)
        _between("--bad-pairs", self.bad_pairs, -1e-9, 1.0)


def to_dict(config: GeneratorConfig | TrainConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return asdict(config)


def generator_config_from(values: dict[str, Any]) -> GeneratorConfig:
    """The reverse of `to_dict`; a key that this version does not know is an error."""
    return _from_dict(GeneratorConfig, values)


def train_config_from(values: dict[str, Any]) -> TrainConfig:
    """The reverse of `to_dict`; a key that this version does not know is an error."""
    parts = {
        "generator": generator_config_from(values["generator"]),
        "discriminator": _from_dict(DiscriminatorConfig, values["discriminator"]),
        "objective": _from_dict(ObjectiveConfig, values["objective"]),
        "teacher": teacher_config_from(values.get("teacher")),
    }
    return _from_dict(TrainConfig, {**values, **parts})


def teacher_config_from(values: dict[str, Any] | None) -> TeacherConfig | None:
    """The reverse of `asdict`; None stays None."""
    return None if values is None else _from_dict(TeacherConfig, values)


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


def _between(flag: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside the open range."""
    if not low < value < high:
        raise ConfigError(
            f"{flag} {value}", f"between {max(low, 0):g} and {high:g}", f"change {flag}"
        )
