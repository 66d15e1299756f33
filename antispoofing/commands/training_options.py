"""Options of `fine_tune_for.py`: data, starting point, recipe, augmentation and resuming."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from antispoofing.commands.options import add_reading_options, fraction, not_negative, positive, whole
from antispoofing.commands.tasks import DOWNLOADED, FAKE_OR_REAL
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
        help=f"data sets to train on: folders with {', '.join(SPLITS)}, each with real and fake; published "
        "sets with lists for training and development; with --validation-split any labelled data; or "
        f"archives of these (default: {FAKE_OR_REAL}/, else {DOWNLOADED}/)",
    )
    source.add_argument(
        "--download",
        action="store_true",
        help="download Fake-or-Real (for-2sec.tar.gz) into this folder, resuming an interrupted download, "
        "and train on it",
    )
    add_reading_options(group)
    add = group.add_argument
    add(
        "--validation-split",
        metavar="BY",
        help="how to hold out recordings for validation from data sets without splits: by a column of their "
        "list of labels (speaker, attack, ...), so that no value of it is in both parts; or by recording, at "
        "random (default: such data sets are refused)",
    )
    add(
        "--validation-fraction",
        type=fraction,
        metavar="X",
        help="fraction of the recordings that --validation-split holds out: at most 0.5, rounded to 1/2, "
        f"1/3, 1/4, ... (default: {FRACTION})",
    )
    add(
        "--sampling",
        choices=SAMPLINGS,
        default=TrainingConfig.sampling,
        help="what an epoch consists of: all recordings, each once; or equally many of each data set and "
        "class (default: %(default)s)",
    )
    add(
        "--crop",
        choices=("start", "random"),
        default=TrainingConfig.crop,
        help="which part of a training recording is used if it is longer than a clip: its start, or a random "
        "part, drawn anew in each epoch (default: %(default)s)",
    )


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint, --export-official and --no-wandb."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="detector to start from, a file or hub:<owner/repo>[@revision][:file]; or a pre-trained front "
        "end: xlsr2_300m.pt, or a Hugging Face folder (default: the first published detector in this folder)",
    )
    add(
        "--export-official",
        action="store_true",
        help="also write the fine-tuned detector as final_model.pth, which the original repository can load",
    )
    add("--no-wandb", action="store_true", help="do not log to Weights & Biases, not even offline")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add --epochs to --seed, with the defaults of `TrainingConfig`."""
    parser.set_defaults(**vars(TrainingConfig()))  # an option's dest is the name of its field
    add = parser.add_argument_group("recipe").add_argument
    add(
        "--epochs",
        type=whole(1),
        metavar="N",
        help="number of epochs, passes over the training recordings (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=positive,
        metavar="X",
        help="peak learning rate, to which --warmup raises it and from which --schedule cosine lowers it "
        "(default: %(default)g)",
    )
    add("--optimizer", choices=OPTIMIZERS, help="optimizer (default: %(default)s)")
    add(
        "--weight-decay",
        type=not_negative,
        metavar="X",
        help="weight decay, which adam adds to the gradient and adamw subtracts from the weights (default: "
        "%(default)g)",
    )
    add(
        "--warmup",
        type=whole(0),
        metavar="STEPS",
        help="number of steps over which the learning rate rises linearly to its full value (default: "
        "%(default)s)",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        help="what the learning rate does after the warm-up: stay constant, or fall to 0 by the last epoch "
        "along half a cosine (default: %(default)s)",
    )
    add(
        "--clip-norm",
        type=positive,
        metavar="X",
        help="scale the gradient down to this norm where it is larger (default: never)",
    )
    add(
        "--accumulate",
        type=whole(1),
        metavar="N",
        help="save memory by computing each process's share of a step in N parts, one after the other; batch "
        "normalisation then sees fewer clips at a time, so the gradient is not exactly the same (default: "
        "%(default)s)",
    )
    add(
        "--class-weights",
        nargs=2,
        type=positive,
        metavar=("FAKE", "REAL"),
        help="weights of the two classes in the loss; the published recipe has 0.1 0.9 (default: equal "
        "weights)",
    )
    add(
        "--patience",
        type=whole(1),
        metavar="EPOCHS",
        help="stop early, after this many epochs in a row without improvement: a lower validation EER, or "
        "the same EER and a lower validation loss (default: train for all --epochs)",
    )
    add("--freeze-frontend", dest="freeze_front_end", action="store_true", help="train only the back end")
    add(
        "--freeze-batchnorm",
        dest="freeze_batch_norm",
        action="store_true",
        help="normalise by the batch normalisation statistics of the detector to start from, and keep these "
        "unchanged (default: by those of each batch, and update them)",
    )
    add(
        "--lora",
        type=whole(1),
        metavar="RANK",
        help="train low-rank adapters (LoRA) in the front end's attention instead of its weights; a RANK of "
        "8 is usual (default: train the weights)",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        help="save memory by recomputing the front end in the backward pass: its activations take less "
        "than half of the memory, and a step takes 1.3 to 1.8 times as long",
    )
    add(
        "--seed",
        type=whole(0),
        metavar="N",
        help="seed of everything random: which recordings are held out, their order, crops, augmentation, "
        "dropout (default: %(default)s)",
    )


def add_augmentation_options(parser: argparse.ArgumentParser) -> None:
    """Add --rawboost and --augment."""
    add = parser.add_argument_group("augmentation of the training recordings").add_argument
    add(
        "--rawboost",
        type=int,
        choices=range(9),
        default=0,
        help="number of the RawBoost algorithm; the published recipes use 5 for LA and 3 for DF (default: 0, "
        "no RawBoost)",
    )
    add(
        "--augment",
        nargs="+",
        action="extend",
        choices=KINDS,
        default=[],
        help="apply each of these to a random half of the clips; codec is mp3, opus or telephone (default: "
        "none)",
    )


def add_resuming_options(parser: argparse.ArgumentParser) -> None:
    """Add --save-every, --resume and --restart."""
    group = parser.add_argument_group(
        "resuming (run the same command again, without --restart, to resume an interrupted run)"
    )
    group.add_argument(
        "--save-every",
        type=whole(1),
        metavar="STEPS",
        help="also save the state of the run every STEPS steps (default: only after each epoch, and when the "
        "run is stopped)",
    )
    begin = group.add_mutually_exclusive_group()
    begin.add_argument(
        "--resume",
        action="store_true",
        help="fail if there is no interrupted run to resume (default: start a new run in that case)",
    )
    begin.add_argument(
        "--restart",
        action="store_true",
        help="discard the interrupted run in the output folder, and start a new one",
    )


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
