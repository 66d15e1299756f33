"""Options of `fine_tune_for.py`: data, starting point, recipe, augmentation and resuming."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from antispoofing.commands.options import fraction, not_negative, positive, whole
from antispoofing.commands.tasks import FAKE_OR_REAL
from antispoofing.data.layouts import SPLITS
from antispoofing.data.splits import FRACTION
from antispoofing.training.augment import KINDS, Augmentation
from antispoofing.training.recipe import OPTIMIZERS, SAMPLINGS, SCHEDULES, TrainingConfig

PRECISIONS = ("fp32", "bf16", "fp16")  # those that training can compute in


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --download, --validation-split, --validation-fraction, --sampling and --crop."""
    group = parser.add_argument_group("data")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help=f"data sets to train on: folders with {', '.join(SPLITS)}, each with real and fake; ASVspoof "
        "2019 or 5; with --validation-split any labelled data; or archives of these (default: "
        f"{FAKE_OR_REAL}/)",
    )
    source.add_argument(
        "--download",
        action="store_true",
        help="download for-2sec.tar.gz into this folder and train on it; resumes an interrupted download",
    )
    add = group.add_argument
    add(
        "--validation-split",
        metavar="BY",
        help="for data without splits: hold out a part for validation that shares no value of this column of "
        "the list of labels (speaker, attack, ...) with the rest; or recording, to hold out at random",
    )
    add(
        "--validation-fraction",
        type=fraction,
        metavar="X",
        help="how much --validation-split holds out: at most 0.5, rounded to 1/2, 1/3, 1/4, ... (default: "
        f"{FRACTION})",
    )
    add(
        "--sampling",
        choices=SAMPLINGS,
        default=TrainingConfig.sampling,
        help="take each clip once per epoch, or equally many clips of each data set and class (default: "
        "%(default)s)",
    )
    add(
        "--crop",
        choices=("start", "random"),
        default=TrainingConfig.crop,
        help="part of a longer training recording to use; random draws another one in each epoch (default: "
        "%(default)s)",
    )


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint, --export-official and --no-wandb."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="detector to start from, a file or hub:<owner/repo>[@revision][:file] (default: the first "
        "published one here); or a pre-trained front end: xlsr2_300m.pt, or a Hugging Face folder",
    )
    add(
        "--export-official",
        action="store_true",
        help="also write final_model.pth, which the original repository can load",
    )
    add("--no-wandb", action="store_true", help="log nothing to Weights & Biases, not even offline")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add --epochs to --seed, with the defaults of `TrainingConfig`."""
    parser.set_defaults(**vars(TrainingConfig()))  # an option's dest is the name of its field
    add = parser.add_argument_group("recipe").add_argument
    add("--epochs", type=whole(1), metavar="N", help="number of epochs (default: %(default)s)")
    add("--learning-rate", type=positive, metavar="X", help="peak learning rate (default: %(default)g)")
    add("--optimizer", choices=OPTIMIZERS, help="optimizer (default: %(default)s)")
    add("--weight-decay", type=not_negative, metavar="X", help="weight decay (default: %(default)g)")
    add(
        "--warmup",
        type=whole(0),
        metavar="STEPS",
        help="steps over which the learning rate rises to its peak (default: %(default)s)",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        help="learning rate after the warm-up; cosine lowers it to 0 (default: %(default)s)",
    )
    add("--clip-norm", type=positive, metavar="X", help="largest norm of the gradient (default: no limit)")
    add(
        "--accumulate",
        type=whole(1),
        metavar="N",
        help="split each process's share of a batch into N micro-batches, which takes the memory of one "
        "(default: %(default)s)",
    )
    add(
        "--class-weights",
        nargs=2,
        type=positive,
        metavar=("FAKE", "REAL"),
        help="weights of the classes in the loss; the published recipe has 0.1 0.9 (default: none)",
    )
    add(
        "--patience",
        type=whole(1),
        metavar="EPOCHS",
        help="stop after this many epochs in a row without a lower validation EER, or an equal EER and a "
        "lower loss (default: never)",
    )
    add("--freeze-frontend", dest="freeze_front_end", action="store_true", help="train only the back end")
    add(
        "--freeze-batchnorm",
        dest="freeze_batch_norm",
        action="store_true",
        help="keep the batch normalisation statistics of the starting detector, and normalise by them",
    )
    add(
        "--lora",
        type=whole(1),
        metavar="RANK",
        help="train adapters of this rank in the front end's attention instead of its weights (8 is usual)",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        help="recompute the front end in the backward pass: activations take a quarter of the memory, a step "
        "1.4 times as long",
    )
    add("--seed", type=whole(0), metavar="N", help="random seed (default: %(default)s)")


def add_augmentation_options(parser: argparse.ArgumentParser) -> None:
    """Add --rawboost and --augment."""
    add = parser.add_argument_group("augmentation of the training recordings").add_argument
    add(
        "--rawboost",
        type=int,
        choices=range(9),
        default=0,
        help="RawBoost algorithm, 5 for LA and 3 for DF in the published recipes (default: 0, none)",
    )
    add(
        "--augment",
        nargs="+",
        action="extend",
        choices=KINDS,
        default=[],
        help="apply each of these to a random half of the clips; codec is mp3, opus or telephone",
    )


def add_resuming_options(parser: argparse.ArgumentParser) -> None:
    """Add --save-every, --resume and --restart."""
    group = parser.add_argument_group("resuming (run the same command again to continue an interrupted run)")
    group.add_argument(
        "--save-every",
        type=whole(1),
        metavar="STEPS",
        help="save the state every STEPS steps as well, not only after each epoch",
    )
    begin = group.add_mutually_exclusive_group()
    begin.add_argument(
        "--resume", action="store_true", help="fail if there is no interrupted run to continue"
    )
    begin.add_argument("--restart", action="store_true", help="discard an interrupted run and start over")


def config_from(args: argparse.Namespace, data: str) -> TrainingConfig:
    """Return the recipe that the parsed options, --batch-size among them, ask for.

    Args:
        args: The parsed command line.
        data: What the data are called, for the record.
    """
    settings = {field.name: getattr(args, field.name) for field in dataclasses.fields(TrainingConfig)}
    settings |= {
        "class_weights": args.class_weights and tuple(args.class_weights),
        "augmentation": Augmentation(args.rawboost, tuple(k for k in KINDS if k in args.augment)),
        "data": data,
    }
    return TrainingConfig(**settings)
