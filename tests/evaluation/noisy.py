"""Questions of 120 intents, three intents to a family, as noisy vectors around that of their intent."""

import numpy as np

INTENTS = 120


class Noisy:
    """Questions `intent.member`: vectors near that of their intent, and of its neighbour, a near miss."""

    dimension = 24

    def __init__(self, seed: int, near: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        family = rng.standard_normal((INTENTS // 3, self.dimension))
        self.intents = near * np.repeat(family, 3, axis=0) + 0.75 * rng.standard_normal((INTENTS, self.dimension))
        self.noise = 0.45 * rng.standard_normal((INTENTS, 4, self.dimension))

    def encode(self, texts, side="left"):
        places = np.array([[int(part) for part in text.split(".")] for text in texts])
        vectors = self.intents[places[:, 0]] + self.noise[places[:, 0], places[:, 1]]
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


TEXTS = [f"{intent}.{member}" for intent in range(INTENTS) for member in range(4)]
INTENT = np.repeat(np.arange(INTENTS), 4)
