"""ELMo in numpy, word by word, from the datasets of weights.hdf5 as they are: an independent oracle for the tests."""

import numpy as np


def sigmoid(values):
    return 1.0 / (1.0 + np.exp(-values))


def char_ids(word):
    """A word's 50 ids, 0 being the mask."""
    if word in ("<S>", "</S>"):
        codes = [258, 256 if word == "<S>" else 257, 259]
    else:
        codes = [258, *word.encode("utf-8")[:48], 259]
    return np.array(codes + [260] * (50 - len(codes))) + 1


class NumpyElmo:
    """Represents one sentence at a time; float64.

    Attributes:
        states: (cell, hidden) of every (direction, layer), carried from sentence to sentence unless it is cleared.
    """

    def __init__(self, options, weights):
        self.options = options
        self.weights = {name: np.asarray(values, np.float64) for name, values in weights.items()}
        self.states = {}

    def token(self, word):
        weights, options = self.weights, self.options["char_cnn"]
        table = np.concatenate([np.zeros((1, options["embedding"]["dim"])), weights["char_embed"]])
        characters = table[char_ids(word)]
        features = []
        for index, (width, count) in enumerate(options["filters"]):
            kernel = weights[f"CNN/W_cnn_{index}"].reshape(-1, count)
            windows = [characters[start : start + width].ravel() for start in range(len(characters) - width + 1)]
            features.append((np.stack(windows) @ kernel + weights[f"CNN/b_cnn_{index}"]).max(axis=0))
        hidden = np.concatenate(features)
        hidden = np.maximum(hidden, 0) if options["activation"] == "relu" else np.tanh(hidden)
        for index in range(options["n_highway"]):
            layer = {name: weights[f"CNN_high_{index}/{name}"] for name in ("W_carry", "b_carry")}
            carry = sigmoid(hidden @ layer["W_carry"] + layer["b_carry"])
            sums = hidden @ weights[f"CNN_high_{index}/W_transform"] + weights[f"CNN_high_{index}/b_transform"]
            hidden = carry * np.maximum(sums, 0) + (1 - carry) * hidden
        if "CNN_proj/W_proj" in weights:
            hidden = hidden @ weights["CNN_proj/W_proj"] + weights["CNN_proj/b_proj"]
        return hidden

    def layer(self, direction, number, inputs):
        lstm = self.options["lstm"]
        name = f"RNN_{direction}/RNN/MultiRNNCell/Cell{number}/LSTMCell"
        kernel, bias, projection = (self.weights[f"{name}/{part}"] for part in ("W_0", "B", "W_P_0"))
        zeros = np.zeros(lstm["dim"]), np.zeros(lstm["projection_dim"])
        cell, hidden = self.states.get((direction, number), zeros)
        outputs = []
        for word in inputs:
            i, j, f, o = np.split(np.concatenate([word, hidden]) @ kernel + bias, 4)
            cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j)
            if lstm["cell_clip"]:
                cell = cell.clip(-lstm["cell_clip"], lstm["cell_clip"])
            hidden = (sigmoid(o) * np.tanh(cell)) @ projection
            if lstm["proj_clip"]:
                hidden = hidden.clip(-lstm["proj_clip"], lstm["proj_clip"])
            outputs.append(hidden)
        self.states[direction, number] = cell, hidden
        outputs = np.stack(outputs)
        return outputs + inputs if number and lstm["use_skip_connections"] else outputs

    def sentence(self, words):
        """All layers, without the marks of the sentence: [1 + layers, words, 2 · projection]."""
        tokens = np.stack([self.token(word) for word in ("<S>", *words, "</S>")])
        layers = [[tokens, tokens]]
        forward, backward = tokens, tokens[::-1]
        for number in range(self.options["lstm"]["n_layers"]):
            forward, backward = self.layer(0, number, forward), self.layer(1, number, backward)
            layers.append([forward, backward[::-1]])
        return np.stack([np.concatenate(pair, axis=-1)[1:-1] for pair in layers])


def load(path):
    """Return every dataset of an hdf5 file by its full name."""
    import h5py

    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return found
