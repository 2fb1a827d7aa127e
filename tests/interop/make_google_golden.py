"""Write with TensorFlow the small checkpoints that our reader is tested on: a released one and a fine-tuned one.

Run in an environment with tensorflow and numpy (2.21 wrote the files here):
    python tests/interop/make_google_golden.py [DIRECTORY]
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).parent))

import google_variables  # pyright: ignore[reportMissingImports]  # stands beside this script
import tensorflow as tf  # pyright: ignore

GOLDEN = Path(__file__).parent / "golden"


def write(prefix: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Save variables of these shapes, as Google's training scripts do."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, shape in shapes.items():
            tf.compat.v1.get_variable(name, initializer=google_variables.values(name, shape))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)


def main() -> None:
    """Write both checkpoints."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "bert_model.ckpt", google_variables.pretraining_shapes())
    write(directory / "model.ckpt-343", google_variables.fine_tuned_shapes())


if __name__ == "__main__":
    main()
