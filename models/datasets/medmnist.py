"""MedMNIST (Yang and others 2023): the `.npz` files as they are published, with their own split.

Class names and checksums are those of the PyPI package medmnist 3.0.2 (Zenodo record 10519652). Sets of several
labels an image (chestmnist) and of degrees (retinamnist) are no classification and not listed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.datasets.dataset import Dataset, DatasetSplit, Progress, no_progress
from models.errors import ModelError

_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left"),
    *("lung-right", "pancreas", "spleen"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
        *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "dermamnist": (
        *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions"),
        *("dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast"),
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells"),
        *("Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments"),
        "Thick Ascending Limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}
"""By the file's name without size. Beware: label 0 of breastmnist is malignant."""
MD5: dict[str, str] = {
    "bloodmnist.npz": "7053d0359d879ad8a5505303e11de1dc",
    "bloodmnist_64.npz": "2b94928a2ae4916078ca51e05b6b800b",
    "breastmnist.npz": "750601b1f35ba3300ea97c75c52ff8f6",
    "breastmnist_64.npz": "742edef2a1fd1524b2efff4bd7ba9364",
    "pathmnist.npz": "a8b06965200029087d5bd730944a56c1",
    "pathmnist_64.npz": "55aa9c1e0525abe5a6b9d8343a507616",
    "dermamnist.npz": "0744692d530f8e62ec473284d019b0c7",
    "dermamnist_64.npz": "b70a2f5635c6199aeaa28c31d7202e1f",
    "octmnist.npz": "c68d92d5b585d8d81f7112f81e2d0842",
    "octmnist_64.npz": "e229e9440236b774d9f0dfef9d07bdaf",
    "pneumoniamnist.npz": "28209eda62fecd6e6a2d98b1501bb15f",
    "pneumoniamnist_64.npz": "8f4eceb4ccffa70c672198ea285246c6",
    "tissuemnist.npz": "ebe78ee8b05294063de985d821c1c34b",
    "tissuemnist_64.npz": "123ece2eba09d0aa5d698fda57103344",
    "organamnist.npz": "68e3f8846a6bd62f0c9bf841c0d9eacc",
    "organamnist_64.npz": "2dcccc29b88e6da5a01161ef20cda288",
    "organcmnist.npz": "b9ceb9546e10131b32923c5bbeaea2b1",
    "organcmnist_64.npz": "3ce34a8724ea6f548e6db4744d03b6a9",
    "organsmnist.npz": "9ab87b696fb54e2a387ebe992d6ed5f1",
    "organsmnist_64.npz": "53a6d115339d874c25e309a994ff46d3",
}
"""Of the files of 28 and 64 pixels."""


def load_medmnist(
    file: Path,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: Progress = no_progress,
    checksums: dict[str, str] = MD5,
) -> Dataset:
    """The training and test images of a MedMNIST file; its validation images are left out.

    `size` is the network's (height, width), the images' own if None. A file of another name than the published ones
    is taken too, its classes by number. Raises ModelError where the file is missing, broken, not laid out like
    MedMNIST, or bears a published name and is another one.
    """
    _check_published(file, checksums)
    arrays = _arrays(file)
    known = CLASSES.get(file.stem.rpartition("_")[0] if file.stem[-1:].isdigit() else file.stem)
    train, test = (_labels(file, arrays, split) for split in ("train", "test"))
    classes = known or tuple(str(number) for number in range(int(max(train.max(), test.max())) + 1))
    if max(train.max(), test.max()) >= len(classes):
        raise ModelError(
            f"{file} has label {max(train.max(), test.max())}, and {file.stem} has {len(classes)} classes."
        )
    if lacking := sorted(set(range(len(classes))) - set(train.tolist())):
        raise ModelError(f"{file} has no training image of class {lacking[0]} ({classes[lacking[0]]}).")
    pixels = arrays["train_images"]
    return Dataset(
        name="medmnist",
        train=DatasetSplit(_encoded(pixels, progress, "encoding training images"), train),
        test=DatasetSplit(_encoded(arrays["test_images"], progress, "encoding held-out images"), test),
        classes=list(classes),
        size=size or (int(pixels.shape[1]), int(pixels.shape[2])),
        may_flip=True,
        seed=seed,
    )


def _check_published(file: Path, checksums: dict[str, str]) -> None:
    if not file.is_file():
        raise ModelError(f"{file} is not a file: name an .npz file of MedMNIST with --data-dir.")
    if not (published := checksums.get(file.name)):
        return
    with file.open("rb") as stream:
        actual = hashlib.file_digest(stream, "md5").hexdigest()
    if actual != published:
        raise ModelError(
            f"{file} is not the published file (MD5 {actual[:12]}…, not {published[:12]}…): download it again, or "
            "rename it if the images are your own."
        )


def _arrays(file: Path) -> dict[str, NDArray[np.uint8]]:
    names = [f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels")]
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except KeyError as error:
        raise ModelError(f"{file} is not laid out like MedMNIST: it has no {error.args[0].split()[0]}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"{file} cannot be read ({reason}): download it again.") from error


def _labels(file: Path, arrays: dict[str, NDArray[np.uint8]], split: str) -> NDArray[np.int64]:
    """(n,) class numbers of (n,) or (n, 1)."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    grey = images.ndim == 3
    if images.dtype != np.uint8 or not (grey or (images.ndim == 4 and images.shape[3] == 3)):
        raise ModelError(
            f"{file} has {split}_images of shape {images.shape} and type {images.dtype}: uint8 of (n, height, width) "
            "or (n, height, width, 3) is needed."
        )
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise ModelError(
            f"{file} has {split}_labels of shape {labels.shape} for {len(images)} images: one label an image is needed."
        )
    if not len(images):
        raise ModelError(f"{file} has no {split} images.")
    return labels.reshape(-1).astype(np.int64)


def _encoded(pixels: NDArray[np.uint8], progress: Progress, what: str) -> list[bytes]:
    encoded = []
    for number, image in enumerate(pixels):
        buffer = io.BytesIO()
        Image.fromarray(image).convert("RGB").save(buffer, "PNG", compress_level=1)
        encoded.append(buffer.getvalue())
        if number % 256 == 0:
            progress(what, number / len(pixels))
    progress(what, 1.0)
    return encoded
