"""Fine-tune: `python -m launch.finetune --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR`.

The workdir then has the best checkpoint by the dev metric (run:DIR@best), and result.json. The same command resumes an
interrupted run. Exit codes: 0 done, 75 asked to stop and saved, 1 an error.
"""

from absl import app, flags

from bert_jax.config import parse_flags
from bert_jax.tasks import finetuning
from bert_jax.tasks.families import FAMILIES
from launch import pretrain

flags.adopt_module_key_flags(pretrain)  # --help lists them


def main(argv: list[str]) -> int:
    """Run the command line."""
    jobs = dict.fromkeys(FAMILIES, lambda config: finetuning.make_job(finetuning.prepare(config)))
    return pretrain.train(argv, jobs, "configs/glue.py:task=mrpc")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
