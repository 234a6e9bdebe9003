"""The data sets that a configuration can name, and where their official files are published.

Kept apart from the readers in `search.data.datasets`, so that reading a configuration does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OfficialSet:
    """A data set as its authors publish it.

    `folder` is the path of its files in the data folder, as in torchvision. It is made from the folder `inside` of the
    archive at `url`; only files that match `wanted` are kept. `md5` is the archive's checksum.
    """

    title: str
    classes: int
    train: int
    test: int
    folder: str
    url: str
    md5: str
    inside: str
    wanted: str = "*"


OFFICIAL = {
    "cifar10": OfficialSet(
        title="CIFAR-10 (Krizhevsky 2009)",
        classes=10,
        train=50_000,
        test=10_000,
        folder="cifar-10-batches-py",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        inside="cifar-10-batches-py",
    ),
    "cifar100": OfficialSet(
        title="CIFAR-100 (Krizhevsky 2009)",
        classes=100,
        train=50_000,
        test=10_000,
        folder="cifar-100-python",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        inside="cifar-100-python",
    ),
    "emnist_balanced": OfficialSet(
        title="EMNIST Balanced (Cohen et al. 2017)",
        classes=47,
        train=112_800,
        test=18_800,
        folder="EMNIST/raw",
        url="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        md5="58c8d27c78d21e728a6bc7b3cc06412e",
        inside="gzip",
        wanted="emnist-balanced-*",
    ),
    "tiny_imagenet": OfficialSet(
        title="Tiny ImageNet (Stanford CS231N); its val images are the test split here",
        classes=200,
        train=100_000,
        test=10_000,
        folder="tiny-imagenet-200",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        md5="90528d7ca1a48142e341f4ef8d21d0de",
        inside="tiny-imagenet-200",
    ),
}

NAMES = ("digits", *OFFICIAL)
"""Allowed values of `data.name` in a configuration; `search.data.datasets.DATASETS` has a reader for each."""
