"""Fine-tune: `python -m launch.finetune --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR`.

The workdir then has the best checkpoint by the dev metric (run:DIR@best), and result.json. The same command resumes an
interrupted run. Exit codes: 0 done, 75 asked to stop and saved, 1 an error.
"""

from absl import app

from bert_jax.config import parse_flags
from bert_jax.tasks import finetuning, glue, multiple_choice, ner, squad, text_table
from bert_jax.tasks.finetuning import Family
from launch.pretrain import train

FAMILIES = {
    "glue": Family(glue.GlueData, glue.make_task),
    "text_table": Family(text_table.TextTableData, text_table.make_task),
    "ner": Family(ner.NerData, ner.make_task),
    "squad": Family(squad.SquadData, squad.make_task),
    "multiple_choice": Family(multiple_choice.ChoiceData, multiple_choice.make_task),
}


def main(argv: list[str]) -> int:
    """Run the command line."""
    jobs = dict.fromkeys(FAMILIES, lambda config: finetuning.make_job(finetuning.prepare(config, FAMILIES)))
    return train(argv, jobs, "configs/glue.py:task=mrpc")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
