"""Record what TensorFlow, Flax and Optax compute for big_vision's preprocessing, stem and optimizer, for the tests.

python -m venv ENV; ENV/bin/pip install tensorflow-cpu jax flax optax; ENV/bin/python tests/record_big_vision.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import tensorflow as tf

TO = Path(__file__).parent / "big_vision.npz"
SIZES = ((40, 40), (37, 53), (64, 48), (90, 61))
CROPS = ((0, 0, 40, 40), (3, 5, 20, 31), (11, 2, 47, 40), (1, 1, 9, 7))  # top, left, height, width of each image in px
SIDE = 16
SMALL, CENTRAL = 20, 16


def resized(image: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """What preprocess_ops.resize does, before it rounds down to uint8."""
    return tf.image.resize(image, size, method=method, antialias=False).numpy()


def resize_small_central_crop(image: np.ndarray) -> np.ndarray:
    """resize_small(SMALL)|central_crop(CENTRAL)."""
    height, width = image.shape[:2]
    factor = tf.cast(SMALL, tf.float32) / tf.cast(tf.minimum(height, width), tf.float32)
    size = tuple(int(tf.cast(tf.round(tf.cast(side, tf.float32) * factor), tf.int32)) for side in (height, width))
    small = resized(image, size, "area")
    top, left = (size[0] - CENTRAL) // 2, (size[1] - CENTRAL) // 2
    return small[top : top + CENTRAL, left : left + CENTRAL]


def adam(gradients: np.ndarray) -> np.ndarray:
    """The updates of scale_by_adam(mu_dtype=bfloat16), one per gradient."""
    transform = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=jnp.bfloat16)
    state: Any = transform.init(jnp.zeros(gradients.shape[1:]))
    updates = []
    for gradient in gradients:
        update, state = transform.update(jnp.asarray(gradient), state)
        updates.append(np.asarray(update, np.float32))
    return np.stack(updates)


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    recorded: dict[str, np.ndarray] = {}
    for i, (size, crop) in enumerate(zip(SIZES, CROPS, strict=True)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        top, left, height, width = crop
        recorded[f"image{i}"] = image
        recorded[f"crop{i}"] = resized(image[top : top + height, left : left + width], (SIDE, SIDE), "bilinear")
        recorded[f"eval{i}"] = resize_small_central_crop(image)
    recorded["crops"] = np.array(CROPS)
    features = rng.normal(-1, 1, (2, 9, 9, 3)).astype(np.float32)
    recorded["features"] = features
    recorded["pooled"] = np.asarray(nn.max_pool(jnp.asarray(features), (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)]))
    gradients = (rng.normal(0, 1, (12, 40)) * np.logspace(-4, 1, 40)).astype(np.float32)
    recorded["gradients"], recorded["updates"] = gradients, adam(gradients)
    packages = ("tensorflow-cpu", "jax", "flax", "optax")
    recorded["versions"] = np.array([f"{name} {version(name)}" for name in packages])
    np.savez_compressed(TO, **recorded)
    print(f"{TO}: {TO.stat().st_size} bytes; {', '.join(recorded['versions'])}", file=sys.stderr)


if __name__ == "__main__":
    main()
