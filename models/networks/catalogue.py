"""The networks that can be trained, exported and served."""

from __future__ import annotations

from models.errors import ModelError
from models.networks.cnn.network import Cnn
from models.networks.efficientnet_lite0.network import EfficientNetLite
from models.networks.googlenet.network import GoogLeNet
from models.networks.network import Network
from models.networks.resnet50.network import ResNet
from models.networks.vgg16.network import Vgg

_ALL: tuple[Network, ...] = (Cnn(), ResNet("keras"), ResNet("torchvision"), Vgg(), GoogLeNet(), EfficientNetLite())
NETWORKS: dict[str, Network] = {network.name: network for network in _ALL}
DEFAULT_NETWORK = "cnn"


def network_named(name: str) -> Network:
    """The network of this name; raises ModelError for an unknown one."""
    if name not in NETWORKS:
        raise ModelError(f"There is no network {name!r}: choose one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]
