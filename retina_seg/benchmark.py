"""The comparison: configurations x protocols x seeds, every cell trained once, scored and recorded for each target.

The tables are made by results.py; the training itself is in train.py.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retina_seg import checkpoint, ensemble, io, loop, postprocess, protocols, records, scoring, train, zoo
from retina_seg.checkpoint import Card
from retina_seg.config import Config, load_config
from retina_seg.errors import Interrupted, UserError
from retina_seg.photographs import rows_of
from retina_seg.records import Record

OUT = Path("runs/benchmark")
# What can be asked for: protocols that say which images train, and all pairs of sets.
NAMES = (*(name for name, protocol in protocols.PROTOCOLS.items() if protocol.column), *protocols.CROSSED)


@dataclass(frozen=True)
class Cell:
    """One configuration with one seed, learnt from the training images of `sources`, scored by `protocol`.

    `split` is "test", or "val" for choices that must not see test images.
    """

    config: Config
    sources: tuple[str, ...]
    protocol: str
    seed: int
    split: str = "test"

    @property
    def title(self) -> str:
        """For people: what it is, in a line."""
        photographs = self.config.data.photographs
        return records.title_of(self.config.name, self.sources, self.protocol, self.split, self.seed, photographs)

    @property
    def targets(self) -> list[str]:
        """What is scored: the targets of the protocol that the configuration learns."""
        return [target for target in protocols.find(self.protocol).targets if target in self.config.data.targets]

    @property
    def variant(self) -> str:
        """The one of `scoring.VARIANTS` that the configuration asks for."""
        return "flips" if self.config.inference.flips else "plain"

    def settings(self) -> dict[str, Any]:
        """What is trained, as a record holds it: with folds `data.protocols` names the protocol once."""
        _, config = self.trainings()[min(self.trainings())]
        data = config.data.model_copy(update={"protocols": self.sources})
        return config.model_copy(update={"data": data}).model_dump(mode="json")

    def records(self, folder: Path) -> dict[str, Path]:
        """Target -> where its record is kept below the folder of records."""
        own, photographs = folder / self.config.name, self.config.data.photographs
        return {
            target: records.path_of(own, self.sources, self.protocol, target, self.split, self.seed, photographs)
            for target in self.targets
        }

    def trainings(self) -> dict[int, tuple[Path, Config]]:
        """Fold (0 where there are none) -> run folder below --out, and the configuration that is trained there.

        Cells that learn from the same images and score the same split have the same run folders.
        """
        learnt = "+".join(self.sources) + records.part_of(self.split, self.config.data.photographs)
        folder = Path(self.config.name, learnt, f"seed{self.seed}")
        if len(self.sources) > 1:
            columns = [column for source in self.sources for column in protocols.columns(source).values()]
            return {0: (folder, self._trained_on(columns))}
        columns_of = protocols.columns(self.sources[0])
        return {k: (folder / f"fold{k}" if k else folder, self._trained_on([name])) for k, name in columns_of.items()}

    def _trained_on(self, columns: Sequence[str]) -> Config:
        """The configuration with other photographs and this seed.

        Where `monitor` names no image, those that train are watched. Where the watched images are scored, the
        threshold is chosen on those that train.
        """
        data = self.config.data
        rows = rows_of(columns, ("train", "val"))
        watched = any(row.splits.get(name) in data.monitor for row in rows for name in columns)
        changed = {
            "protocols": tuple(columns),
            "monitor": data.monitor if watched else data.fit or ("train",),
            "threshold_on": data.threshold_on if self.split == "test" else "fit",
        }
        return self.config.model_copy(update={"seed": self.seed, "data": data.model_copy(update=changed)})

    def leaks(self, seen: Iterable[str] = ()) -> list[str]:
        """Keys of the scored images that the training, or `seen` (keys), shows; the published ones left out."""
        leaked = []
        for fold, (_, config) in self.trainings().items():
            scored = [row for k, row in protocols.cases(self.protocol, self.split) if k == fold]
            learnt = rows_of(config.data.protocols, config.data.fit) if config.data.fit else []
            if self.split == "test" and (config.data.threshold_on == "monitor" or config.training.patience):
                learnt += rows_of(config.data.protocols, config.data.monitor)
            own = set() if self.protocol in protocols.KNOWN_TO_LEAK else {row.key for row in learnt}
            leaked += protocols.leaks(scored, own.union(seen))
        return leaked


def plan(
    configs: Sequence[Config],
    names: Iterable[str],
    seeds: Sequence[int],
    *,
    split: str = "test",
    photographs: Sequence[int | None] = (),
) -> list[Cell]:
    """Every cell, the first seed of all before the second of any, so that whole tables come early.

    A configuration learns from the training images of the protocol that scores it, whatever its own
    `data.protocols`; one that names several protocols is a joint training and learns from all of these.

    Parameters
    ----------
    names : of NAMES; `cross` stands for every pair of sets and for leaving one set out, also of joint trainings,
        `cross-single` for the pairs alone.
    split : "test", or "val" for choices that must not see test images.
    photographs : numbers of training images in the place of the configurations' own, None for all. Which they are is
        drawn by the seed, and the thresholds are chosen on them.

    Raises
    ------
    UserError
        An unknown name or split, two configurations of one name, or a configuration that cannot be scored so.
    """
    if split not in ("test", "val"):
        raise UserError(f"--split {split!r}: expected test or val")
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in NAMES:
            raise UserError(f"unknown protocol {name!r} for a benchmark: expected one of {', '.join(NAMES)}")
    if split == "val" and (whole := [name for name in names if name in protocols.CROSSED]):
        raise UserError(f"{whole[0]} scores all images of a set: leave out --split val")
    called = [config.name for config in configs]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise UserError(f"several configurations are called {', '.join(twice)}: give each a name of its own")
    varied = [_of_photographs(config, number) for config in configs for number in photographs] or configs
    cells = [
        Cell(config, sources, protocol, seed, split)
        for seed in seeds
        for name in names
        for config in varied
        for sources, protocol in _pairs(config, name, split)
    ]
    for cell in cells:
        if leaked := cell.leaks():
            raise UserError(f"{cell.title} would learn from images it is scored on: {_listed(leaked)}")
        for _, config in cell.trainings().values():
            there = len(rows_of(config.data.protocols, config.data.fit)) if config.data.fit else 0
            if there < (config.data.photographs or 0):
                raise UserError(f"{cell.title}: there are {there} training images; ask for fewer by --photographs")
            if split == "val" and config.training.patience:
                raise UserError(
                    f"{cell.title}: training.patience would choose the best step on what is scored; set it to 0"
                )
    return cells


def _of_photographs(config: Config, number: int | None) -> Config:
    """Of so many training images, or all, whose thresholds are chosen on them: others would be further labels."""
    changed = {"photographs": number} | ({"threshold_on": "fit"} if number else {})
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _pairs(config: Config, name: str, split: str) -> list[tuple[tuple[str, ...], str]]:
    """What the configuration learns from and is scored by for one of NAMES."""
    own = config.data.protocols
    crossed = name in protocols.CROSSED
    pairs = protocols.cross(name) if crossed else [(own if len(own) > 1 else (name,), name)]
    for sources, protocol in pairs:
        if not set(targets := protocols.find(protocol).targets) & set(config.data.targets):
            raise UserError(f"{config.name} learns {', '.join(config.data.targets)}, not {' or '.join(targets)}")
        if split in config.data.fit:
            raise UserError(f"{config.name} trains on validation images (data.fit): leave out --split val")
        if not crossed and protocol not in sources:
            raise UserError(
                f"{config.name} learns from {' + '.join(own)} together: score it by one of these, not {name}"
            )
    return pairs


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds in text such as "0,1,2"; UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(map(_is_number, parts)) or len({int(part) for part in parts}) != len(parts):
        raise UserError(f"--seeds {text!r}: expected different whole numbers with commas between them, such as 0,1,2")
    return tuple(int(part) for part in parts)


def _is_number(text: str) -> bool:
    """Whether text is a whole number such as a seed can be."""
    return text.isascii() and text.isdecimal() and len(text) < 19


def photographs_of(text: str) -> tuple[int | None, ...]:
    """The numbers in text such as "1,5,all", None for all; UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    numbers = [None if part == "all" else int(part) if _is_number(part) else 0 for part in parts]
    if 0 in numbers or len(set(numbers)) != len(numbers):
        raise UserError(
            f"--photographs {text!r}: expected different numbers above 0, or all, with commas between them, such as "
            "1,5,all"
        )
    return tuple(numbers)


def run(
    cells: Sequence[Cell],
    data_root: str | Path,
    *,
    out: Path = OUT,
    folder: Path | None = None,
    device: str = "auto",
    variants: bool = True,
    joined: bool = False,
    progress: Callable[[int, str], None] | None = None,
    on_record: Callable[[Record, bool], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> list[Record]:
    """Train, score and record every cell, one after the other; what is there already is not done again.

    A finished run is not trained again and an unfinished one is gone on with. A record stays as it is where it is of
    the same weights and the same post-processing; without its run folder, where nothing else needs that.

    Parameters
    ----------
    out : folder of run folders: OUT/<configuration>/<protocol>[-<n>photographs][-val]/seed<k>[/fold<j>].
    folder : of the records, see `records.path_of`; None for `records.BESIDE` in `out`.
    variants : score flips and post-processing each with and without; else only what the configuration says.
    joined : also score all seeds of a configuration together, their probabilities averaged (`ensemble`), recorded under
        its name with `records.ENSEMBLE` behind; not where each has learnt from other photographs.
    progress : called with the number of cells done and what is going on.
    on_record : called with every record and whether it is new.
    on_warning : called with what must be known of a training, as files that are not the release's.

    Raises
    ------
    UserError
        A run folder or record of other settings, found before anything is trained; whatever `train.fit` and
        `scoring.variants` raise; several processes.
    Interrupted
        After Ctrl-C: what is finished stays, the training that was under way is saved.
    """
    if loop.several_processes():
        raise UserError(
            "a benchmark runs in one process: leave out `accelerate launch`, and give each GPU other --seeds"
        )
    folder = out / records.BESIDE if folder is None else folder
    coming: set[Path] = set()
    for cell in cells:
        _check(cell, out, folder, coming)
        coming |= {out / below for below, _ in cell.trainings().values()}
    needed = {Path(name) for cell in cells for name in _earlier(cell.config)}
    places = (out, folder)
    together = _together(cells) if joined else []
    for one, members in together:
        _check(one, out, folder, coming)
        if not _recorded(one, places, (), variants=variants):
            needed |= {out / below for cell in members for below, _ in cell.trainings().values()}
    made: list[Record] = []
    for number, (cell, members) in enumerate([*((cell, ()) for cell in cells), *together]):

        def tell(text: str, number: int = number, cell: Cell = cell) -> None:
            if progress:
                progress(number, f"{cell.title}: {text}")

        try:
            found, new = _recorded(cell, places, needed, variants=variants), False
            if not found:
                if members:
                    cards = _joined(cell, members, data_root, out, device, tell)
                else:
                    cards = _trainings(cell, data_root, out, device, tell, on_warning)
                found, new = _scored(cell, cards, data_root, places, device, tell, variants=variants)
        except (Interrupted, KeyboardInterrupt):
            whole = len(cells) + len(together)
            raise Interrupted(f"stopped at {cell.title} ({number} of {whole} done); nothing is lost") from None
        made += found
        for record in found:
            if on_record:
                on_record(record, new)
    return made


def _check(cell: Cell, out: Path, folder: Path, coming: Collection[Path]) -> None:
    """UserError for what would stop or spoil the cell after hours.

    A run or record of other settings, a damaged record, a model to start or learn from that neither exists nor is among
    the trainings to come before, or that has seen what is scored.
    """
    for name in _earlier(cell.config):
        if name in zoo.names() or Path(name) not in coming or (Path(name) / checkpoint.CARD).exists():
            leaked = cell.leaks(scoring.seen_images(zoo.card(name)) or ())
            if leaked:
                raise UserError(f"{cell.title}: {name} has seen images that are scored: {_listed(leaked)}")
    for below, config in cell.trainings().values():
        if (out / below / checkpoint.CONFIG).exists() and any(
            (out / below / name).exists() for name in (checkpoint.CARD, checkpoint.STATE)
        ):
            _check_settings(out / below, config)
    wanted = cell.settings()
    for path in cell.records(folder).values():
        if path.exists() and (changed := records.changes(records.read(path).config, wanted)):
            raise UserError(
                f"{path} is of other settings than the configuration asks for: {changed}; choose another --results, or "
                "remove that record to make it anew"
            )


def _earlier(config: Config) -> tuple[str, ...]:
    """The models that a training starts or learns from."""
    return (*filter(None, [config.training.start]), *config.data.teachers)


def _recorded(cell: Cell, places: tuple[Path, Path], needed: Collection[Path], *, variants: bool) -> list[Record]:
    """The records of a cell whose run folders are gone, where they are whole and nothing `needed` was trained there."""
    out, folder = places
    runs = {out / below for below, _ in cell.trainings().values()}
    paths = cell.records(folder).values()
    if any(run.exists() for run in runs) or runs & set(needed) or not all(path.exists() for path in paths):
        return []
    known = [records.read(path) for path in paths]
    return known if _complete(known, scoring.VARIANTS if variants else (cell.variant,)) else []


def _complete(known: Sequence[Record], wanted: Collection[str]) -> bool:
    """Whether records have the wanted variants, scored with today's post-processing."""
    done = {report["postprocessing"] for one in known for report in one.variants.values()}
    return done <= {"none", postprocess.describe()} and all(set(one.variants) >= set(wanted) for one in known)


def _check_settings(run: Path, config: Config) -> None:
    begun = load_config(run / checkpoint.CONFIG)
    if begun != config:
        changed = records.changes(begun.model_dump(mode="json"), config.model_dump(mode="json"))
        raise UserError(
            f"{run} was trained with other settings than the configuration asks for: {changed}; choose another --out "
            "(and --results), or remove that folder to train it anew"
        )


def _together(cells: Sequence[Cell]) -> list[tuple[Cell, tuple[Cell, ...]]]:
    """Cells that differ in their seed only, and the cell that stands for all of them; none where there is one seed."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if not cell.config.data.photographs:  # each seed draws others
            groups.setdefault((cell.config.name, cell.sources, cell.protocol, cell.split), []).append(cell)
    found = []
    for own in groups.values():
        if len(own) > 1:
            name = own[0].config.name + records.ENSEMBLE
            found.append((replace(own[0], config=own[0].config.model_copy(update={"name": name})), tuple(own)))
    return found


def _joined(
    cell: Cell, members: Sequence[Cell], data_root: str | Path, out: Path, device: str, tell: Callable[[str], None]
) -> list[Card]:
    """The cards of the members' trainings joined, fold by fold."""
    cards = []
    for fold, (below, _) in cell.trainings().items():
        tell("joining the seeds")
        runs = [out / member.trainings()[fold][0] for member in members]
        if not (out / below / checkpoint.CARD).exists():
            ensemble.join(runs, out / below, data_root, device=device)
        cards.append(checkpoint.read_card(out / below / checkpoint.CARD))
        weights = [{"name": one.name, "weights_sha256": one.weights_sha256} for one in map(zoo.card, runs)]
        if cards[-1].training["members"] != weights:
            raise UserError(f"{out / below} joins other trainings: remove that folder to join these")
    return cards


def _trainings(
    cell: Cell,
    data_root: str | Path,
    out: Path,
    device: str,
    tell: Callable[[str], None],
    warn: Callable[[str], None] | None,
) -> list[Card]:
    """The cards of a cell's trainings, fold by fold, which are made, gone on with or found finished."""

    def progress(now: loop.Progress) -> None:
        if now.warning and warn:
            warn(f"{cell.title}: {now.warning}")
        tell(f"step {now.step} of {now.steps}, {now.describe()}")

    return [_trained(out / below, config, data_root, device, progress) for below, config in cell.trainings().values()]


def _scored(
    cell: Cell,
    cards: Sequence[Card],
    data_root: str | Path,
    places: tuple[Path, Path],
    device: str,
    tell: Callable[[str], None],
    *,
    variants: bool,
) -> tuple[list[Record], bool]:
    """The records of a cell, and whether they are new."""
    out, folder = places
    trainings = cell.trainings()
    weights = tuple(card.weights_sha256 for card in cards)
    paths = cell.records(folder)
    known = [records.read(path) for path in paths.values() if path.exists()]
    same = {one.weights_sha256 for one in known} == {weights}
    first, config = trainings[min(trainings)]
    wanted = scoring.VARIANTS if variants else (cell.variant,)
    if len(known) == len(paths) and same and _complete(known, wanted):
        return known, False
    pattern = out / (first if 0 in trainings else first.with_name("fold{fold}"))
    reports = scoring.variants(
        pattern,
        cell.protocol,
        data_root,
        device=device,
        split=cell.split,
        names=wanted,
        progress=lambda done, total: tell(f"scored {done} of {total}"),
    )
    made = []
    for target, path in paths.items():
        scored = {name: found[target] for name, found in reports.items()}
        record = Record(
            name=config.name,
            protocol=cell.protocol,
            split=cell.split,
            sources=cell.sources,
            seed=cell.seed,
            config=cell.settings(),
            parameters=cards[0].parameters,
            steps=sum(card.training["steps"] for card in cards),
            seconds=sum(card.training["seconds"] for card in cards),
            device=cards[0].training["device"],
            weights_sha256=weights,
            learnt_from=cards[0].training.get("learnt_from", []),
            log=checkpoint.read_log(out / first),
            default=cell.variant,
            variants={name: records.stored(report, images=name == cell.variant) for name, report in scored.items()},
        )
        io.make_folder(path.parent)
        io.write_text(path, record.to_json())
        scoring.keep(scored[cell.variant], pattern)  # with its curves, for the viewer
        made.append(record)
    return made, True


def _trained(
    run: Path, config: Config, data_root: str | Path, device: str, progress: Callable[[loop.Progress], None]
) -> Card:
    """The card of the run, which is trained, gone on with or found finished."""
    if (run / checkpoint.CARD).exists():
        _check_settings(run, config)
        return checkpoint.read_card(run / checkpoint.CARD)
    resume = (run / checkpoint.STATE).exists()
    return train.fit(config, run, data_root, resume=resume, device=device, progress=progress)
