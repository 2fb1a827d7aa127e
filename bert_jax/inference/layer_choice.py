"""Which layers of a model become features, and how several become one.

Layer 0 is what goes into the first layer: BERT's embeddings, ELMo's words by themselves; -1 is the last layer.
Source: Devlin et al. 2019 §5.3 (Table 7: sums, concatenation); Peters et al. 2018 §3.2 (mixture).
Differs: google-research/bert `extract_features.py` has no layer 0, its 0 is the first Transformer layer, here 1.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import choose

COMBINATIONS = ("none", "concat", "sum", "mean", "mix")
ALL = "all"


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    """Layers in their order, and their combination.

    Attributes:
        names: the layers as they were asked for; negative ones count from the end.
        numbers: the same, from 0.
        combine: "none" keeps them apart, "concat" puts them side by side, "sum", "mean", "mix" = γ · Σ wⱼ · layerⱼ.
        weights: w of the mixture, taken as they are; of a trained scalar mix give softmax(w).
        gamma: γ of the mixture.
    """

    names: tuple[int, ...]
    numbers: tuple[int, ...]
    combine: str = "none"
    weights: tuple[float, ...] = ()
    gamma: float = 1.0

    @classmethod
    def parse(
        cls, layers: str, num_outputs: int, combine: str = "none", weights: tuple[float, ...] = (), gamma: float = 1.0
    ) -> "LayerChoice":
        """Return the choice of a command line.

        Args:
            layers: numbers with commas between, or "all".
            num_outputs: layers that the model has, layer 0 among them.
            combine: one of `COMBINATIONS`.
            weights: one for each layer with "mix", else none.
            gamma: 1 but with "mix".

        Raises:
            ValueError: there is no such layer, no such combination, or the weights are not as many.
        """
        accepted = f"numbers from {-num_outputs} to {num_outputs - 1} with commas between (0 is the input), or {ALL}"
        try:
            names = tuple(range(num_outputs)) if layers == ALL else tuple(int(part) for part in layers.split(","))
        except ValueError:
            raise ValueError(f"layers is {layers!r}; it takes {accepted}") from None
        wrong = [name for name in names if not -num_outputs <= name < num_outputs]
        if wrong:
            raise ValueError(f"the model has no layer {wrong[0]}; layers takes {accepted}")
        choose("combine", combine, COMBINATIONS)
        if combine == "mix" and len(weights) != len(names):
            raise ValueError(f"mix has {len(weights)} weights for {len(names)} layers; give one for each")
        if combine != "mix" and (weights or gamma != 1.0):
            raise ValueError(f"combine is {combine!r}, which has no weights and no gamma; they are for mix")
        return cls(names, tuple(name % num_outputs for name in names), combine, weights, gamma)

    @property
    def num_kept(self) -> int:
        """Vectors of a word."""
        return len(self.numbers) if self.combine == "none" else 1

    def width(self, size: int) -> int:
        """Return the width of a vector, of a model whose layers are `size` wide."""
        return size * len(self.numbers) if self.combine == "concat" else size

    def apply(self, hidden: Float[Array, "outputs *rows features"]) -> Float[Array, "kept *rows width"]:
        """Return what is chosen of a model's layers, float32."""
        layers = [hidden[number].astype(jnp.float32) for number in self.numbers]
        if self.combine == "none":
            return jnp.stack(layers)
        if self.combine == "concat":
            return jnp.concatenate(layers, axis=-1)[None]
        share = 1.0 / len(layers) if self.combine == "mean" else 1.0
        weights = [self.gamma * weight for weight in self.weights] or [share] * len(layers)
        total = layers[0] * weights[0]
        for layer, weight in zip(layers[1:], weights[1:], strict=True):
            total = total + layer * weight
        return total[None]
