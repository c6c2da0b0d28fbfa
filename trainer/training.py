"""The networks of a run, and one step of training them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.batches import to_unit_range
from trainer.checkpoint import TrainingState
from trainer.compiler import check_compiler
from trainer.config import TrainConfig
from trainer.discriminators import PatchDiscriminator, build_discriminator
from trainer.distill import Distillation
from trainer.drawing import draw_picture
from trainer.errors import CheckpointError, TrainerError
from trainer.fake_quant import FakeQuant
from trainer.features import Tapped
from trainer.generators import build_generator
from trainer.initial import initial_weights
from trainer.losses import discriminator_loss, gradient_penalty
from trainer.noise import noise_seed, random_state, set_random_state
from trainer.norm_stats import fix_statistics, measure_statistics, still_statistics
from trainer.objective import Drawn, GeneratorObjective
from trainer.optimising import adam, lay_out_as_weights, set_learning_rate, update_average
from trainer.parallel import Team
from trainer.progress import Patience, StepLosses
from trainer.watch import Watch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Training:
    """The two networks, their optimisers, and how far they have come."""

    def __init__(
        self,
        config: TrainConfig,
        total_steps: int,
        device: torch.device,
        team: Team | None = None,
        *,
        weights_follow: bool = False,
    ) -> None:
        """Fresh networks, or the weights of `config.init`.

        Args:
            config: of the run.
            total_steps: at which the learning rate comes to zero.
            device: where to train.
            team: the processes that train together; None: this one alone.
            weights_follow: somebody else fills in the generator's weights, as `resumed` does.

        Raises:
            TrainerError: the teacher or the weights to start with are missing or do not fit.
        """
        if config.compile:
            check_compiler()
        torch.manual_seed(config.seed)
        shape = config.generator
        self.config = config
        self.device = device
        self.team = team or Team(0, 1, device)
        self.total_steps = total_steps
        self.step = 0
        self.samples: int | None = None
        """Pairs of an epoch, once the run knows its data: their number decides their order."""
        self.watch = Watch(config.objective.gan_mode)
        self.patience = Patience()
        wanted = config.channels_last
        self._channels_last = device.type == "cuda" if wanted is None else wanted
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        place = {"device": device, "memory_format": layout}
        self.generator = build_generator(shape)
        if config.init and not weights_follow:
            self.generator.load_state_dict(initial_weights(Path(config.init), shape))
        self.generator = self.generator.to(**place)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator = self.team.synchronised(self.generator)
        self.generator_optimiser = adam(self.generator, config.lr, config.beta1)
        self.fake_quant: FakeQuant | None = None
        if config.qat:
            self.fake_quant = FakeQuant(self.generator).to(device)
            self.fake_quant.attach()
        self.discriminator: PatchDiscriminator | None = None
        self.discriminator_optimiser: torch.optim.Adam | None = None
        if config.objective.gan_mode != "none":
            network = build_discriminator(
                config.discriminator, shape.input_channels, shape.output_channels
            ).to(**place)  # type: ignore[call-overload]
            network.check_size(config.crop_size)
            self.discriminator = self.team.synchronised(network)  # type: ignore[assignment]
            self.discriminator_optimiser = adam(network, config.lr, config.beta1)
        self.distillation: Distillation | None = None
        self.adapters: nn.ModuleList | None = None
        self.adapters_optimiser: torch.optim.Adam | None = None
        if config.teacher is not None:
            self.distillation = Distillation(config, device, self._channels_last)
            self.adapters = self.distillation.adapters
        if self.adapters is not None:
            self.adapters_optimiser = adam(self.adapters, config.lr, config.beta1)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._objective = GeneratorObjective(
            config.objective, device, self.discriminator, self.distillation, self._autocast
        )
        tapped = self.distillation.tapped(self.generator) if self.distillation else None
        self._generate = self._made_ready(tapped or Tapped(self.generator, []))
        self._judge = None if self.discriminator is None else self._made_ready(self.discriminator)
        # The processes draw different noise, from the same weights.
        torch.manual_seed(noise_seed(config.seed, self.team.rank))

    @classmethod
    def resumed(
        cls,
        state: TrainingState,
        total_steps: int,
        device: torch.device,
        team: Team | None = None,
    ) -> Training:
        """Go on where `state` was saved, to `total_steps` in all.

        Raises:
            CheckpointError: the weights are of other networks.
        """
        self = cls(state.config, total_steps, device, team, weights_follow=True)
        try:
            for name, value in state.networks.items():
                getattr(self, name).load_state_dict(value)
            for name, value in state.optimisers.items():
                optimiser: torch.optim.Adam = getattr(self, name)
                optimiser.load_state_dict(value)
                lay_out_as_weights(optimiser)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"the weights to resume from are not those of {state.config.generator.name} and "
                f"its discriminator ({str(error).splitlines()[0]})",
                "the networks that the file's own settings describe",
                "start a new run",
            ) from error
        self.step = state.step
        self.samples = state.samples
        self.watch = Watch.from_state(state.notes["watch"])
        self.patience = Patience(**state.notes["patience"])
        if state.notes["scaler"]:
            self.scaler.load_state_dict(state.notes["scaler"])
        if self.team.world == 1:
            torch.set_rng_state(state.random)
        else:  # one file, many processes: fresh noise for each of them
            torch.manual_seed(noise_seed(state.config.seed, self.team.rank) + state.step)
        return self

    def state(self) -> TrainingState:
        """What `resumed` needs."""
        networks = {"generator": self.generator, "average": self.average}
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        if self.adapters is not None:
            networks["adapters"] = self.adapters
        if self.fake_quant is not None:
            networks["fake_quant"] = self.fake_quant
        return TrainingState(
            config=self.config,
            step=self.step,
            total_steps=self.total_steps,
            samples=self.samples or 0,
            networks={name: network.state_dict() for name, network in networks.items()},
            optimisers={name: o.state_dict() for name, o in self._optimisers().items()},
            random=torch.get_rng_state(),
            notes={
                "watch": self.watch.state(),
                "patience": asdict(self.patience),
                "scaler": self.scaler.state_dict(),
            },
        )

    def _optimisers(self) -> dict[str, torch.optim.Adam]:
        """Those that the run has, by the names of their attributes."""
        optimisers = {
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
            "adapters_optimiser": self.adapters_optimiser,
        }
        return {name: optimiser for name, optimiser in optimisers.items() if optimiser}

    def fix_statistics(self, pictures: Tensor) -> None:
        """Measure BatchNorm's statistics, before the first step of a run that keeps them.

        Args:
            pictures: uint8 [N, 6, H, W], pairs of the training data, RGB.
        """
        source, _ = to_unit_range(pictures, self.device, self._dtype, self._channels_last)
        noise = random_state(self.device)
        # Every process has to find the same: with the dropout of the first one, which draws on.
        torch.manual_seed(noise_seed(self.config.seed, 0))
        measure_statistics(self.generator, source)
        if not self.team.is_first:
            set_random_state(noise, self.device)
        self.average.load_state_dict(self.generator.state_dict())

    # ------------------------------------------------------------------------- one step

    def train_step(self, batches: Sequence[Tensor]) -> StepLosses:
        """One update of each network.

        Args:
            batches: uint8 [N, 6, H, W] each, input and target, RGB; the gradients of all of them
                make one update.

        Returns:
            The losses, means over the batches and the processes.

        Raises:
            TrainerError: a loss is no longer a number. The weights are then past saving.
        """
        pairs = [
            to_unit_range(batch, self.device, self._dtype, self._channels_last)
            for batch in batches
        ]
        self._set_learning_rate()
        self.generator.train()
        if self.config.fixed_stats or self.config.qat:
            fix_statistics(self.generator)
        names = [*self._objective.weights, *(["d_loss"] if self.discriminator else [])]
        terms = dict.fromkeys(names, torch.zeros((), device=self.device))
        mixes = self._mixes(pairs)
        noise = random_state(self.device) if len(pairs) > 1 else None
        with ExitStack() as stack:
            if noise:  # the graphs of all batches would not fit into memory: drawn twice
                stack.enter_context(torch.no_grad())
                stack.enter_context(still_statistics(self.generator))
            drawn = [self._draw(source) for source, _ in pairs]
        self._update_discriminator(pairs, drawn, mixes, terms)
        if noise:
            set_random_state(noise, self.device)
        self._update_generator(pairs, drawn, terms)
        self.scaler.update()
        self.step += 1
        if self.fake_quant is not None:
            self.fake_quant.unite(self.team.world)
        update_average(self.average, self.generator, self.config.ema_decay, self.step)
        return self._told(terms)

    def _update_discriminator(
        self,
        pairs: Sequence[tuple[Tensor, Tensor]],
        drawn: Sequence[Drawn],
        mixes: Sequence[Tensor],
        terms: dict[str, Tensor],
    ) -> None:
        if self._judge is None or self.discriminator is None or not self.discriminator_optimiser:
            return
        objective = self.config.objective
        self.discriminator.requires_grad_(True)
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        for number, ((source, target), made) in enumerate(zip(pairs, drawn, strict=True)):
            fake = made.picture.detach()
            with self._accumulating(self._judge, number, len(pairs)):
                with self._autocast():
                    real_logits = self._judge(source, target)
                    fake_logits = self._judge(source, fake)
                loss = discriminator_loss(
                    real_logits.to(source.dtype), fake_logits.to(source.dtype), objective.gan_mode
                )
                if objective.gan_mode == "wgangp":
                    loss = loss + objective.lambda_gp * gradient_penalty(
                        self.discriminator, source, target, fake, mixes[number]
                    )
                self._backward(loss / len(pairs))
            terms["d_loss"] = terms["d_loss"] + loss.detach() / len(pairs)
        self.scaler.step(self.discriminator_optimiser)

    def _update_generator(
        self,
        pairs: Sequence[tuple[Tensor, Tensor]],
        drawn: Sequence[Drawn],
        terms: dict[str, Tensor],
    ) -> None:
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        optimisers = [o for o in (self.generator_optimiser, self.adapters_optimiser) if o]
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        for number, ((source, target), first) in enumerate(zip(pairs, drawn, strict=True)):
            with self._accumulating(self._generate, number, len(pairs)):
                made = first if first.picture.requires_grad else self._draw(source)
                losses = self._objective.terms(source, target, made)
                total = source.new_zeros(())
                for name, loss in losses.items():
                    total = total + self._objective.weights[name] * loss
                self._backward(total / len(pairs))
            for name, loss in losses.items():
                terms[name] = terms[name] + loss.detach() / len(pairs)
        for optimiser in optimisers:
            self.scaler.step(optimiser)

    def _draw(self, source: Tensor) -> Drawn:
        with self._autocast():
            picture, features = self._generate(source)
        return Drawn(picture.to(source.dtype), features)

    def _mixes(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Where between real and drawn the gradient penalty is taken, for each pair."""
        if self.config.objective.gan_mode != "wgangp":
            return []
        return [torch.rand(len(source), 1, 1, 1).to(source) for source, _ in pairs]

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _told(self, terms: dict[str, Tensor]) -> StepLosses:
        """The losses as numbers: one wait for the device, one for the other processes."""
        values = self.team.mean(torch.stack([value.double() for value in terms.values()]))
        told = dict(zip(terms, values.tolist(), strict=True))
        for name in told.keys() & {"g_l1", "g_distill"}:
            told[name] *= 127.5  # grey levels
        if not np.isfinite(list(told.values())).all():
            raise TrainerError(
                f"the losses of step {self.step} are "
                + ", ".join(f"{name} {value:g}" for name, value in told.items()),
                "finite numbers",
                "go on from the last checkpoint with --resume, or train with a lower --lr",
            )
        return StepLosses(**{"g_gan": 0.0, "d_loss": 0.0, **told})

    # ------------------------------------------------------------------------ and around it

    def draw(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate one picture as the exported generator will: averaged weights, no dropout.

        Args:
            source: uint8 [H, W, 3], BGR.

        Returns:
            uint8 [H, W, 3], BGR.
        """
        return draw_picture(self.average, source)

    def _made_ready(self, network: nn.Module) -> Callable[..., Any]:
        """What a forward pass of training calls: compiled, and shared among the processes."""
        made = self.team.wrapped(network)
        # A compiled network has no second derivatives, which the gradient penalty takes.
        if self.config.compile and not (
            self.config.objective.gan_mode == "wgangp" and isinstance(network, PatchDiscriminator)
        ):
            # A run has one size; a network of open sizes is slower, and some fail to compile.
            return torch.compile(made, dynamic=False)
        return made

    @contextmanager
    def _accumulating(self, network: Any, number: int, batches: int) -> Iterator[None]:
        """Exchange gradients with the other processes in the last batch of a step only."""
        if isinstance(network, DistributedDataParallel) and number < batches - 1:
            with network.no_sync():
                yield
        else:
            yield

    @property
    def _dtype(self) -> torch.dtype:
        """Of the weights, and so of what goes into the networks."""
        weights: Tensor = next(self.generator.parameters())
        return weights.dtype

    def _autocast(self) -> torch.autocast:
        kind = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, kind, enabled=kind is not None)

    def _set_learning_rate(self) -> None:
        optimisers = self._optimisers().values()
        set_learning_rate(optimisers, self.config.lr, self.step, self.total_steps)
