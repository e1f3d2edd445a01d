"""Images for calibration and accuracy: folders, arrays, CIFAR and idx files, read lazily and preprocessed."""

from nashc.data.dataset import Dataset
from nashc.data.open import open_data
from nashc.data.preprocess import Preprocess

__all__ = ["Dataset", "Preprocess", "open_data"]
