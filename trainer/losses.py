"""The objectives, each with its source.

Where it says "mean", that is over the pictures of a batch and over the patches of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainer.errors import ConfigError

_MODES = ("vanilla", "lsgan", "hinge", "wgangp")


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, mode: str) -> Tensor:
    """What the discriminator minimises, from its logits for real and for generated pictures.

    `vanilla`: half of mean -log s(real) + mean -log(1 - s(fake)), s the sigmoid: Goodfellow et
    al., "Generative Adversarial Nets", 2014, equation 1.
    `lsgan`: half of mean (real - 1)^2 + mean fake^2: Mao et al., "Least Squares Generative
    Adversarial Networks", 2017, equation 9 (a = 0, b = c = 1).
    `hinge`: mean max(0, 1 - real) + mean max(0, 1 + fake): Lim & Ye, "Geometric GAN", 2017, and
    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
    `wgangp`: mean fake - mean real: Gulrajani et al., "Improved Training of Wasserstein GANs",
    2017, equation 3, whose second term is `gradient_penalty`: the caller adds it.

    The half of `vanilla` slows the discriminator down (Isola et al. 2017, section 3.3); that of
    `lsgan` is in its equation too. `hinge` and `wgangp` are not halved, as in their papers.

    Args:
        real_logits: float [N, 1, h, w].
        fake_logits: float [N, 1, h, w]; the generated picture was detached.
        mode: of the above.

    Returns:
        A scalar, in float32 for logits in half precision.

    Raises:
        ConfigError: no such mode, or one that has no adversarial loss.
    """
    real, fake = _at_least_float32(real_logits), _at_least_float32(fake_logits)
    if mode == "vanilla":
        # -log s(x) is softplus(-x), and -log(1 - s(x)) is softplus(x): exact for large logits.
        return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())
    if mode == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if mode == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    if mode == "wgangp":
        return fake.mean() - real.mean()
    raise _unknown(mode)


def generator_loss(fake_logits: Tensor, mode: str) -> Tensor:
    """What the generator minimises, from the discriminator's logits for what it drew.

    `vanilla`: mean -log s(fake), the non-saturating form (Goodfellow et al. 2014, section 3; Isola
    et al. 2017, section 3.3). `lsgan`: mean (fake - 1)^2; equation 9 of Mao et al. 2017 has half
    of that, pytorch-CycleGAN-and-pix2pix has not. `hinge` and `wgangp`: -mean fake.

    Args:
        fake_logits: float [N, 1, h, w].
        mode: as in `discriminator_loss`.

    Returns:
        A scalar, in float32 for logits in half precision.

    Raises:
        ConfigError: no such mode, or one that has no adversarial loss.
    """
    fake = _at_least_float32(fake_logits)
    if mode == "vanilla":
        return functional.softplus(-fake).mean()
    if mode == "lsgan":
        return (fake - 1).square().mean()
    if mode in ("hinge", "wgangp"):
        return -fake.mean()
    raise _unknown(mode)


def gradient_penalty(
    discriminator: Callable[[Tensor, Tensor], Tensor],
    condition: Tensor,
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
) -> Tensor:
    """Mean over the pictures of (|g| - 1)^2: Gulrajani et al. 2017, equation 3.

    g is the gradient of the critic's value with respect to a picture between a real and a
    generated one, mix * real + (1 - mix) * fake, and |g| its norm over all pixels and channels.
    The critic's value of a picture is the mean of its logits, which is what the `wgangp` losses
    take. (pytorch-CycleGAN-and-pix2pix takes their sum here and their mean there, so that its
    critic is held to a gradient smaller by the number of patches.) The condition is held fixed:
    the generator does not move it. A batch norm in the critic would tie the pictures of a batch
    together, which the penalty does not allow for (section 4 there): use another norm.

    Args:
        discriminator: from (condition, image) to logits [N, 1, h, w].
        condition: float [N, C, H, W], -1 to 1.
        real: float [N, C, H, W], -1 to 1, what belongs to the condition.
        fake: of the same shape, what was drawn.
        mix: float [N, 1, 1, 1], uniform in 0 to 1, drawn by the caller.

    Returns:
        A scalar that can be differentiated with respect to the weights, before its weight
        lambda_gp.
    """
    between = (mix * real.detach() + (1 - mix) * fake.detach()).requires_grad_(True)
    logits = discriminator(condition, between)
    # Of the sum, then divided: the gradient of a mean over many patches is small for FP16.
    (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    patches = logits[0].numel()
    norm: Tensor = (
        torch.linalg.vector_norm(_at_least_float32(gradient).flatten(1), dim=1) / patches
    )
    return (norm - 1).square().mean()


def feature_matching(real_features: Sequence[Tensor], fake_features: Sequence[Tensor]) -> Tensor:
    """L1 between the discriminator's features of the real and of the generated picture.

    Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
    GANs", 2018, equation 4, sums the mean absolute differences of all layers. pix2pixHD's code
    weights each with 4 / (number of layers), 1 for the 70-pixel discriminator, where it is the
    equation. Ours is the same: four times the mean over the layers. So `lambda_feat` means what
    it means there, and as much for a deep discriminator as for a shallow one.

    Args:
        real_features: what `PatchDiscriminator.features` gave for the real pair. It is detached:
            only the generated picture is to move.
        fake_features: the same for the generated picture. The last entry, the logits, is left out
            of both.

    Returns:
        A scalar.
    """
    pairs = list(zip(real_features[:-1], fake_features[:-1], strict=True))
    differences = [
        (_at_least_float32(fake) - _at_least_float32(real.detach())).abs().mean()
        for real, fake in pairs
    ]
    return 4.0 * torch.stack(differences).mean()


def feature_distillation(
    teacher_features: Sequence[Tensor], student_features: Sequence[Tensor]
) -> Tensor:
    """Sum over the layers of the mean squared difference between teacher and student.

    Li et al., "GAN Compression: Efficient Architectures for Interactive Conditional GANs", CVPR
    2020, equation 3.

    Args:
        teacher_features: float [N, C, H, W] of each layer; they are detached.
        student_features: of the same shapes: what a learned 1x1 convolution, the paper's f_t, made
            of the student's own.

    Returns:
        A scalar, in float32 for features in half precision.
    """
    differences = [
        (_at_least_float32(student) - _at_least_float32(teacher.detach())).square().mean()
        for teacher, student in zip(teacher_features, student_features, strict=True)
    ]
    return torch.stack(differences).sum()


def _at_least_float32(x: Tensor) -> Tensor:
    """Means over many values lose their small parts in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _unknown(mode: str) -> ConfigError:
    return ConfigError(f"--gan-mode {mode}", f"one of {', '.join(_MODES)}", "change --gan-mode")
