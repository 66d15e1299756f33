"""What `fine_tune_for.py` can be told: the data, the recipe, the augmentation, where to go on."""

from __future__ import annotations

import argparse
from pathlib import Path

from antispoofing.commands import options
from antispoofing.commands.tasks import FAKE_OR_REAL
from antispoofing.data.layouts import SPLITS
from antispoofing.data.splits import FRACTION
from antispoofing.training.augment import KINDS, Augmentation
from antispoofing.training.recipe import OPTIMIZERS, SAMPLINGS, SCHEDULES, TrainingConfig

PRECISIONS = ("fp32", "bf16", "fp16")  # that a training can compute in


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """--data, --download, --validation-split, --validation-fraction, --sampling, --crop."""
    group = parser.add_argument_group("data")
    data = group.add_mutually_exclusive_group()
    data.add_argument(
        "--data",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help=f"folders with {', '.join(SPLITS)}, each with real and fake; ASVspoof 2019 or 5; with "
        f"--validation-split any data; archives of these (default: {FAKE_OR_REAL}/)",
    )
    data.add_argument(
        "--download",
        action="store_true",
        help="fetch for-2sec.tar.gz into this folder, and use it; goes on from where it broke off",
    )
    group.add_argument(
        "--validation-split",
        metavar="BY",
        help="of data without splits, hold out a part with speakers, attacks, ... of its own: a column of "
        "the list of labels, or recording",
    )
    group.add_argument(
        "--validation-fraction",
        type=options.fraction,
        metavar="X",
        help=f"of these, up to 0.5, rounded to 1/2, 1/3, 1/4, ... (default: {FRACTION})",
    )
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="all",
        help="every clip once in an epoch, or as many of each data set and class (default: all)",
    )
    group.add_argument(
        "--crop",
        choices=("start", "random"),
        default="start",
        help="which part of a longer training recording is heard, in each epoch anew (default: start)",
    )


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --export-official, --no-wandb."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the detector to start from, a file or hub:<owner/repo>[@revision][:file] (default: the first "
        "published one here); or a pre-trained front end: xlsr2_300m.pt, or a Hugging Face folder",
    )
    parser.add_argument(
        "--export-official",
        action="store_true",
        help="also write final_model.pth, which the original repository loads",
    )
    parser.add_argument(
        "--no-wandb", action="store_true", help="log nothing to Weights & Biases, not even offline"
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """--epochs to --seed: what `recipe.TrainingConfig` has."""
    default = TrainingConfig()
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--epochs", type=options.whole(1), default=default.epochs, metavar="N", help="default: 5"
    )
    group.add_argument(
        "--learning-rate",
        type=options.positive,
        default=default.learning_rate,
        metavar="X",
        help="default: 5e-5",
    )
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="default: adam")
    group.add_argument(
        "--weight-decay",
        type=options.not_negative,
        default=default.weight_decay,
        metavar="X",
        help="default: 0",
    )
    group.add_argument(
        "--warmup",
        type=options.whole(0),
        default=default.warmup,
        metavar="STEPS",
        help="in which the learning rate rises to its full value (default: 0)",
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=default.schedule,
        help="of the learning rate after that: cosine falls to 0 (default: constant)",
    )
    group.add_argument(
        "--clip-norm", type=options.positive, metavar="X", help="scale the gradient down to this norm at most"
    )
    group.add_argument(
        "--accumulate",
        type=options.whole(1),
        default=default.accumulate,
        metavar="N",
        help="compute a process's clips of a step in N parts, with the memory of one (default: 1)",
    )
    group.add_argument(
        "--class-weights",
        nargs=2,
        type=options.positive,
        metavar=("FAKE", "REAL"),
        help="in the loss; published are 0.1 0.9 (default: none)",
    )
    group.add_argument(
        "--patience",
        type=options.whole(1),
        metavar="EPOCHS",
        help="stop after so many without a better one: of lower validation EER, or equal EER and lower loss "
        "(default: do all)",
    )
    group.add_argument("--freeze-frontend", action="store_true", help="train the back end alone")
    group.add_argument(
        "--freeze-batchnorm", action="store_true", help="normalise by the statistics that the start has"
    )
    group.add_argument(
        "--lora",
        type=options.whole(1),
        metavar="RANK",
        help="of the front end, train adapters of its attention (8 is usual) in place of all weights",
    )
    group.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="a quarter of the memory for what the backward pass needs; a step takes 1.4 times as long",
    )
    group.add_argument("--seed", type=options.whole(0), default=default.seed, metavar="N", help="default: 0")


def add_augmentation_options(parser: argparse.ArgumentParser) -> None:
    """--rawboost, --augment."""
    group = parser.add_argument_group("augmentation, of the training recordings")
    group.add_argument(
        "--rawboost",
        type=int,
        choices=range(9),
        default=0,
        help="RawBoost's algorithm; published are 5 for LA and 3 for DF (default: 0, none)",
    )
    group.add_argument(
        "--augment",
        nargs="+",
        action="extend",
        choices=KINDS,
        default=[],
        help="each on half of the clips; codec is mp3, opus or telephone",
    )


def add_resuming_options(parser: argparse.ArgumentParser) -> None:
    """--save-every, --resume, --restart."""
    group = parser.add_argument_group("interrupted, the same command goes on where it was")
    group.add_argument(
        "--save-every",
        type=options.whole(1),
        metavar="STEPS",
        help="save in the midst of an epoch too, not only after each",
    )
    begin = group.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="an error where there is none to go on with")
    begin.add_argument("--restart", action="store_true", help="begin anew all the same")


def config_from(args: argparse.Namespace, data: str) -> TrainingConfig:
    """What these options, --batch-size among them, say; `data` is what the data are called."""
    return TrainingConfig(
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        accumulate=args.accumulate,
        optimizer=args.optimizer,
        weight_decay=args.weight_decay,
        warmup=args.warmup,
        schedule=args.schedule,
        clip_norm=args.clip_norm,
        class_weights=args.class_weights and tuple(args.class_weights),
        patience=args.patience,
        freeze_front_end=args.freeze_frontend,
        freeze_batch_norm=args.freeze_batchnorm,
        lora=args.lora,
        gradient_checkpointing=args.gradient_checkpointing,
        sampling=args.sampling,
        crop=args.crop,
        augmentation=Augmentation(args.rawboost, tuple(k for k in KINDS if k in args.augment)),
        seed=args.seed,
        data=data,
    )
