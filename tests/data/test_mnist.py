"""The bundled digits, and MNIST's files: whole, damaged, missing."""

import gzip
import struct
from importlib import resources

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.data import MNIST, DataLoader, mnist5k


def test_bundled_digits():
    images, labels = mnist5k().tensors
    assert images.shape == (5000, 1, 28, 28) and images.dtype == tg.float32 and labels.dtype == tg.int64
    assert np.bincount(labels.numpy()).tolist() == [500] * 10
    assert images.min().item() == 0 and images.max().item() == 1
    with resources.files("tinygrad_cnn.data").joinpath("mnist5k.npz").open("rb") as file, np.load(file) as raw:
        np.testing.assert_array_equal(np.rint(images.numpy()[:, 0] * 255).astype(np.uint8), raw["images"])
    assert "CC BY-SA 3.0" in resources.files("tinygrad_cnn.data").joinpath("mnist5k.LICENSE.txt").read_text()


def test_the_split_of_the_bundled_digits():
    everything, train, test = (mnist5k(part).tensors for part in (None, True, False))
    assert len(train[0]) == 4000 and len(test[0]) == 1000
    for whole, first, second in zip(everything, train, test, strict=True):
        np.testing.assert_array_equal(np.concatenate([first.numpy(), second.numpy()]), whole.numpy())
    for labels, expected in ((train[1], 400), (test[1], 100)):
        assert abs(np.bincount(labels.numpy(), minlength=10) - expected).max() <= 20
    with pytest.raises(TypeError, match="mnist5k: train"):
        mnist5k("test")


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
LABELS = np.array([3, 0, 9, 1, 5, 9], np.uint8)


def idx(array, magic=None):
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write(folder, prefix="train", images=None, labels=None, ending="", pack=bytes):
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = idx(IMAGES) if images is None else images, idx(LABELS) if labels is None else labels
    for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"{prefix}-{kind}-ubyte{ending}").write_bytes(pack(content))


@pytest.mark.parametrize("place", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("ending, pack", [("", bytes), (".gz", gzip.compress)])
@pytest.mark.parametrize("train", [True, False])
def test_whole_files(tmp_path, place, ending, pack, train):
    write(tmp_path / place, "train" if train else "t10k", ending=ending, pack=pack)
    dataset = MNIST(str(tmp_path), train=train)
    assert len(dataset) == 6
    np.testing.assert_array_equal(dataset.data.numpy(), IMAGES)
    image, label = dataset[2]
    assert image.shape == (1, 4, 3) and image.dtype == tg.float32 and label == 9
    np.testing.assert_allclose(image.numpy()[0], IMAGES[2] / 255, rtol=1e-6)
    images, labels = next(iter(DataLoader(dataset, batch_size=6)))
    assert images.shape == (6, 1, 4, 3) and labels.tolist() == LABELS.tolist() and labels.dtype == tg.int64


def test_transforms(tmp_path):
    write(tmp_path)
    dataset = MNIST(tmp_path, transform=lambda image: 1 - image, target_transform=lambda label: label + 10)
    image, label = dataset[0]
    np.testing.assert_allclose(image.numpy()[0], 1 - IMAGES[0] / 255, atol=1e-6)
    assert label == 13
    with pytest.raises(TypeError, match="transform must be a function"):
        MNIST(tmp_path, transform=3)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte \(or .*gz\) is in none of"):
        MNIST(tmp_path)
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte"):
        MNIST(tmp_path)
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        MNIST(tmp_path, train=False)


whole_images, whole_labels = idx(IMAGES), idx(LABELS)
DAMAGE = {
    "empty": ({"images": b""}, "train-images.*cut short: 0 bytes"),
    "half a header": ({"labels": whole_labels[:6]}, "train-labels.*cut short: 6 bytes"),
    "cut short": ({"images": whole_images[:-1]}, "train-images.*cut short.*72 values, and has 71"),
    "labels cut short": ({"labels": whole_labels[:-2]}, "train-labels.*cut short"),
    "too long": ({"images": whole_images + b"\0"}, "train-images.*too long"),
    "labels too long": ({"labels": whole_labels + bytes(100)}, "train-labels.*too long"),
    "labels for images": ({"images": whole_labels + bytes(8)}, "train-images.*number 0x00000801, wanted 0x00000803"),
    "float IDX": ({"images": idx(IMAGES, 0x0D03)}, "train-images.*magic number 0x00000d03"),
    "little-endian": ({"labels": struct.pack("<2I", 0x0801, 6) + LABELS.tobytes()}, "train-labels.*number 0x01080000"),
    "not IDX": ({"images": b"<html>404 Not Found</html>"}, "train-images.*magic number"),
    "huge claim": ({"images": struct.pack(">4I", 0x0803, *[2**32 - 1] * 3)}, "train-images.*claims shape"),
    "counts differ": ({"labels": idx(LABELS[:5])}, "6 images.*5 labels"),
    "label 10": ({"labels": idx(np.array([0, 1, 10, 3, 4, 5], np.uint8))}, "train-labels.*label 10 at position 2"),
}


@pytest.mark.parametrize("ending, pack", [("", bytes), (".gz", gzip.compress)])
@pytest.mark.parametrize("files, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_by_name(tmp_path, files, message, ending, pack):
    write(tmp_path, **files, ending=ending, pack=pack)
    with pytest.raises(ValueError, match=message):
        MNIST(tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda b: b[:-12], lambda b: b[:20] + bytes([b[20] ^ 255]) + b[21:],
    lambda b: b[:-5] + bytes([b[-5] ^ 255]) + b[-4:], lambda b: b"plain bytes", lambda b: b[:9]])
def test_damaged_gzip_is_refused_by_name(tmp_path, spoil):
    write(tmp_path, ending=".gz", pack=lambda content: spoil(gzip.compress(content, mtime=0)))
    with pytest.raises(ValueError, match=r"MNIST: .*train-images-idx3-ubyte\.gz is"):
        MNIST(tmp_path)
