"""LPIPS, FID and the Inception Score, with local weights that the tests make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips as theirs
from eval_networks import write_alexnet, write_inception, write_torchscript
from pairs import picture
from torch import nn

from trainer.distributions import Inception, SeenByInception, frechet_distance, inception_score
from trainer.errors import TrainerError
from trainer.perceptual_distance import PerceptualDistance

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    return write_alexnet(tmp_path_factory.mktemp("weights") / "alexnet-owt-test.pth")


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    return Inception(write_inception(tmp_path_factory.mktemp("weights") / "inception.pt"))


def pictures(first, count, side_px=32):
    return np.stack([picture(seed, side_px, side_px) for seed in range(first, first + count)])


# ----------------------------------------------------------------------------------------- LPIPS


def test_lpips_is_that_of_torchmetrics_with_the_same_weights(alexnet, monkeypatch):
    """Theirs takes AlexNet's layers from torchvision, which is put together here by its paper."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    weights = torch.load(alexnet, weights_only=True)
    features.load_state_dict(
        {k.removeprefix("features."): v for k, v in weights.items() if k.startswith("features.")}
    )
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained=False: features)
    reference = theirs._NoTrainLpips(net="alex")
    ours = PerceptualDistance(alexnet)
    for seed in (1, 2):
        a, b = picture(seed, 64, 80), picture(seed + 10, 64, 80)
        x, y = (torch.from_numpy(p[..., ::-1].copy()).permute(2, 0, 1)[None] for p in (a, b))
        expected = float(reference(x / 127.5 - 1, y / 127.5 - 1))
        assert ours.between(a, b) == pytest.approx(expected, rel=1e-4)
        assert expected > 0


def test_lpips_of_equal_pictures_is_zero_and_it_is_the_same_both_ways_round(alexnet):
    lpips = PerceptualDistance(alexnet)
    a, b = picture(1, 48, 48), picture(2, 48, 48)
    assert lpips.between(a, a) == 0
    assert lpips.between(a, b) == pytest.approx(lpips.between(b, a), rel=1e-5)


def test_pictures_too_small_for_alexnet_are_refused(alexnet):
    lpips = PerceptualDistance(alexnet)
    assert lpips.between(picture(1, 31, 31), picture(2, 31, 31)) > 0
    with pytest.raises(TrainerError, match="30x40; expected 31 pixels or more"):
        lpips.between(picture(1, 40, 30), picture(2, 40, 30))


def damaged(path, alexnet):
    path.write_bytes(alexnet.read_bytes()[:1000])


def other_network(path, alexnet):
    torch.save(
        {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(1)}, path
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (damaged, "is damaged or no state dict"),
        (lambda path, _: path.write_bytes(b""), "is damaged or no state dict"),
        (other_network, "has 64x3x3x3 as features.0; expected torchvision's AlexNet, 64x3x11x11"),
        (lambda path, _: torch.save(nn.Conv2d(3, 3, 3), path), "is damaged or no state dict"),
        (lambda path, _: torch.save([1, 2], path), "is no state dict"),
        (lambda path, _: path.mkdir(), "could not be read"),
        (lambda path, _: None, "could not be read"),
    ],
    ids=["cut", "empty", "another network", "pickled module", "a list", "folder", "missing"],
)
def test_what_is_no_alexnet_is_told_in_one_line(alexnet, tmp_path, make, told):
    path = tmp_path / "weights.pth"
    make(path, alexnet)
    with pytest.raises(TrainerError, match=told) as caught:
        PerceptualDistance(path)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------- FID


def test_fid_of_two_gaussians_is_the_closed_form_of_the_paper():
    """Samples made to have exactly these means and (diagonal) covariances."""
    random = np.random.default_rng(0)

    def sample(means, deviations):
        values = random.normal(size=(50, 3))
        values -= values.mean(axis=0)
        values = values @ np.linalg.inv(np.linalg.cholesky(np.cov(values.T))).T
        return torch.from_numpy(values * deviations + means)

    means = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, -2.0]])
    deviations = np.array([[1.0, 2.0, 0.5], [2.0, 2.0, 1.5]])
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    a, b = (sample(*both) for both in zip(means, deviations, strict=True))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_fid_over_fewer_pictures_than_features_is_that_of_the_nuclear_norm():
    """Tr (S1 S2)^(1/2) is the sum of the singular values of A^T B, where S1 = A A^T, S2 = B B^T:
    another way to the same figure, exact where the covariances have no full rank."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(12, 64)), random.normal(1, 2, size=(15, 64))
    roots = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    expected = apart + sum((root**2).sum() for root in roots) - 2 * shared
    found = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(expected, rel=1e-4)


def test_fid_of_the_targets_is_zero_and_of_other_pictures_is_not(inception):
    targets = pictures(0, 8)
    seen = SeenByInception(inception, targets)
    assert seen.compare(targets)[0] == pytest.approx(0, abs=1e-6)
    near = np.clip(targets.astype(int) + 10, 0, 255).astype(np.uint8)
    far = np.clip(targets.astype(int) + 80, 0, 255).astype(np.uint8)
    assert 0 < seen.compare(near)[0] < seen.compare(far)[0]


def test_one_picture_for_all_is_looked_at_once_and_counts_as_often_as_it_is_given(inception):
    seen = SeenByInception(inception, pictures(0, 6))
    one = picture(9, 32, 32)
    told = seen.compare(np.broadcast_to(one, (6, *one.shape)))
    assert told == pytest.approx(seen.compare(np.stack([one] * 6)), rel=1e-6)
    assert told[1] == pytest.approx(1)


def test_inception_is_given_rgb_in_batches(inception):
    many = pictures(0, 19)
    means = many[..., ::-1].astype(np.float32).mean(axis=(1, 2))
    np.testing.assert_allclose(inception.features(many)[:, :3].numpy(), means, rtol=1e-4)


def test_the_score_of_sure_and_varied_classes_is_their_number_and_of_alike_pictures_one():
    assert inception_score(torch.eye(5).repeat(4, 1).double()) == pytest.approx(5)
    assert inception_score(torch.full((7, 5), 0.2).double()) == pytest.approx(1)


def test_the_score_is_the_exponent_of_the_mean_divergence_from_the_mean():
    given = np.random.default_rng(3).dirichlet(np.ones(4), 9)
    divergence = (given * np.log(given / given.mean(axis=0))).sum(axis=1).mean()
    assert inception_score(torch.from_numpy(given)) == pytest.approx(np.exp(divergence))


def test_scoring_leaves_the_random_numbers_of_the_program_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inception_score(torch.eye(5).double())
    assert torch.equal(torch.rand(3), expected)


def test_a_distance_of_one_picture_is_refused():
    with pytest.raises(TrainerError, match="FID of one picture; expected 2"):
        frechet_distance(torch.zeros(1, 4).double(), torch.zeros(5, 4).double())


class TakesNoFlag(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


class GivesAPicture(nn.Module):
    def forward(
        self, images: torch.Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        return images.float()


class GivesNoProbability(nn.Module):
    def forward(
        self, images: torch.Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (TakesNoFlag(), "gives an error .*forward"),
        (GivesAPicture(), r"gives no \[N, D\] tensor"),
        (GivesNoProbability(), "gives what is no probability"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_network_of_another_kind_is_told_in_one_line(network, told, tmp_path):
    write_torchscript(tmp_path / "network.pt", network)
    with pytest.raises(TrainerError, match=told) as caught:
        SeenByInception(Inception(tmp_path / "network.pt"), pictures(0, 3)).compare(pictures(3, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"no zip file"), "is damaged or no TorchScript"),
        (lambda path: torch.save({"a": torch.ones(1)}, path), "is damaged or no TorchScript"),
    ],
    ids=["missing", "damaged", "state dict"],
)
def test_what_is_no_torchscript_is_told_in_one_line(make, told, tmp_path):
    path = tmp_path / "inception.pt"
    make(path)
    with pytest.raises(TrainerError, match=told) as caught:
        Inception(path)
    assert "\n" not in str(caught.value)
