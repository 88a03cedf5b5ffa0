"""The viewer: pages and widgets. Start it with `retina-seg app`; what is behind them is in retina_seg.viewer."""

import functools
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import pandas
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from retina_seg import __version__, biomarkers, datasets, io, labels, overlay, scores, scoring, zoo
from retina_seg.classify.inference import ClassifierCard
from retina_seg.errors import UserError
from retina_seg.inference import Prediction
from retina_seg.viewer import (
    batches,
    canvas,
    charts,
    downloads,
    engine,
    graders,
    guard,
    launch,
    numbers,
    opened,
    pointer,
)
from retina_seg.viewer.numbers import Number
from retina_seg.viewer.opened import Photograph
from retina_seg.viewer.scene import Scene
from retina_seg.viewer.session import DroppedTruth, Session
from retina_seg.viewer.shown import plain

P = ParamSpec("P")
Look = Callable[[str], None]  # draws a link to the view page, with a label

log = logging.getLogger("retina_seg.viewer")

NONE = "none"
SET_TITLES = {
    "drawn": "Drawn examples",
    "drive": "DRIVE",
    "stare": "STARE",
    "chase_db1": "CHASE_DB1",
    "idrid_seg": "IDRiD, lesions",
    "idrid_grade": "IDRiD, grades",
}
NEARLY_FULL = 0.9 * guard.MAX_HELD  # bytes: the next files may be refused, which the page itself cannot see
SIDE_HEIGHT = 610  # px: the numbers scroll, the picture stays
PRIVACY = (
    "Photographs stay in the memory of this computer: nothing is sent anywhere or written to the disk, and all is "
    "forgotten when the viewer is stopped."
)
ROOM = """<style>
.stMainBlockContainer { padding: 4.3rem 1.4rem 1rem; }
[data-testid="stSidebarHeader"] { height: 2.2rem; margin-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-top: 0; }
.st-key-files [data-testid="stFileUploaderDropzone"] { min-height: 7rem; }
</style>"""  # Streamlit's own margins take a third of a small screen
TRAIN_A_DICTIONARY = (
    "Train one with `retina-seg train configs/nets/csc-unet.yaml` and start the viewer with `--run FOLDER` to see it."
)
EXPLAINED = {
    "atoms": "The small pictures of which the model puts every photograph together, the most used first; blue is "
    "darker than the surroundings, red brighter. Where there are pairs, the right half is what the atom says of the "
    "mask: red for, blue against.",
    "codes": "Where the eight atoms that are used most are found in the photograph, and how strongly.",
    "penalties": "What an atom must be worth in a place to be used there, learnt with the network; below the mean of "
    "its codes in this photograph.",
    "rebuilt": "The photograph, what its codes make of it, and what they leave out. The rest is no map of disease.",
    "objective": "How far the codes still are from the best ones, by iteration, in the middle of the photograph: the "
    "model stops after a few.",
    "votes": "The twelve loudest: the atom, where it is known what it says of the mask, and its vote. Of a dictionary "
    "that is read by a label dictionary or an MLP the votes are parts of the result there, of a csc_unet parts of the "
    "rebuilt pixel.",
}
EXCITING = 12  # photographs in which the patches that excite a unit are looked for: each takes seconds
LOOKED_AT = {
    "cam": "Where the photograph speaks for the answer (Grad-CAM): coarse, and no map of disease.",
    "filters": "What the first layer looks for in every place.",
    "features": "What some of the units of each block see in this photograph.",
}
MEASURED = (
    "Confusion: rows are the reference, columns the answers. ROC: each answer against all others. Reliability: how "
    "often answers of a probability were right; below the line it was too sure."
)
NO_DIAGNOSIS = (
    "A research classifier, trained on one hospital's photographs of people with diabetes. It says nothing about any "
    "other disease, is often a grade off, and must not decide about anybody's care."
)
RESEARCH = "Research use only: not a medical device, not for diagnosis."

SCORE_COLUMNS = {
    name: st.column_config.NumberColumn(charts.TITLES.get(name, name), format="%.4f") for name in scores.METRICS
}
BATCH_COLUMNS = {
    "remarks": st.column_config.TextColumn(width="large"),
    "density": st.column_config.NumberColumn("density", format="percent"),
    "seconds": st.column_config.NumberColumn(format="%.1f"),
    **{
        name: st.column_config.NumberColumn(name.replace("_px", ", px"), format=f"%.{description.digits}f")
        for name, description in biomarkers.DESCRIPTIONS.items()
        if name != "density"
    },
}


@dataclass(frozen=True)
class Choices:
    """What the sidebar says: models in use (one or two), all models, file names in downloads."""

    models: tuple[str, ...]
    titles: Mapping[str, str]
    keep_names: bool
    options: launch.Options


def main() -> None:
    """The page, from top to bottom; Streamlit runs it at every click."""
    st.set_page_config(page_title="retina_seg", layout="wide", initial_sidebar_state="expanded")
    if problem := launch.unsafe():
        st.error(problem)
        st.stop()
    st.html(ROOM)
    session: Session = st.session_state.setdefault("session", Session())
    options = launch.options()
    choices: list[Choices] = []  # the sidebar is drawn once the pages are known

    def page(draw: Callable[[Session, Choices, Look], None], title: str, *, first: bool = False) -> st.Page:
        return st.Page(
            lambda: guarded(draw)(session, choices[0], look), title=title, url_path=title.lower(), default=first
        )

    view = page(view_page, "View", first=True)

    def look(label: str) -> None:
        # A link, not st.switch_page: that makes Streamlit forget the uploaded files and every choice.
        st.page_link(view, label=label, icon=":material/visibility:", width="stretch")

    rest = {
        "Batch": batch_page,
        "Grade": grade_page,
        "Explain": explain_page,
        "Results": results_page,
        "About": about_page,
    }
    pages = [view, *(page(draw, title) for title, draw in rest.items())]
    current = st.navigation(pages, position="top")
    with st.sidebar:
        choices.append(sidebar(session, options, look if current is not view else None))
    current.run()


def guarded(draw: Callable[P, None]) -> Callable[P, None]:
    """`draw`, with errors shown as sentences; the log never gets a message, it could hold a file's name."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except UserError as error:
            st.error(plain(str(error)))
        except Exception as error:
            report(error)
            st.error(
                f"Something unexpected went wrong ({type(error).__name__}). Nothing is lost: open the photograph "
                "again, or report the line in the terminal that the viewer was started from."
            )

    return wrapped


def report(error: Exception) -> None:
    """Log what went wrong and where, without the message."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error("unexpected %s at %s:%s", type(error).__name__, Path(where.filename).name, where.lineno)


# --- sidebar


def sidebar(session: Session, options: launch.Options, look: Look | None) -> Choices:
    """Open photographs, choose one, choose models."""
    uploaders(session)
    gallery(session, options)
    photograph_list(session, look)
    titles = engine.names(options.runs)
    model = st.selectbox("Model", list(titles), format_func=titles.__getitem__, key="model")
    others = [name for name in titles if name != model]
    second = NONE
    if others:
        labels = {NONE: "none", **titles}
        second = st.selectbox("Compare with", [NONE, *others], format_func=labels.__getitem__, key="second model")
    models = (model,) if second == NONE else (model, second)
    truth_uploader(session, list(dict.fromkeys(target for name in models for target in zoo.card(name).targets)))
    with st.expander("Settings"):
        pixel_size(session)
        keep = st.checkbox(
            "File names in downloads",
            key="keep names",
            help="Off: downloads are called photograph-01, photograph-02 … since file names may hold patients' names.",
        )
    st.caption(f"{RESEARCH} {PRIVACY}")
    return Choices(models, titles, keep, options)


def uploaders(session: Session) -> None:
    """Files and folders that are dropped on the page."""
    files = st.file_uploader(
        "Drop photographs here", accept_multiple_files=True, key="files", max_upload_size=guard.MAX_UPLOAD_MB
    )
    with st.expander("Open a whole folder"):
        folder = st.file_uploader(
            "Folder of photographs",
            accept_multiple_files="directory",
            key="folder",
            max_upload_size=guard.MAX_UPLOAD_MB,
        )
        images = [file for file in folder if io.is_image_name(Path(file.name).name)]
        if others := io.told(io.left_out(Path(file.name).name for file in folder if file not in images)):
            st.caption(f"Left out of the folder, being no images: {plain(others)}.")
    if sum(file.size for file in (*files, *folder)) > NEARLY_FULL:
        st.warning(guard.FULL)
    session.keep_uploads([opened.upload(file.file_id, file.name, file.getvalue) for file in (*files, *images)])


def gallery(session: Session, options: launch.Options) -> None:
    """Drawn examples, and images of the sets below the data root."""
    with st.expander("Gallery"):
        collections = ["drawn", *opened.sets(options.data_root)]
        collection = st.selectbox("Collection", collections, format_func=lambda name: SET_TITLES.get(name, name))
        drawn = collection == "drawn"
        names = list(opened.DRAWN) if drawn else [row.key for row in datasets.rows(collection)]
        name = st.selectbox("Picture", names, format_func=lambda key: key.partition(":")[2] or key)
        if st.button("Open this picture", width="stretch"):
            session.open(opened.drawn(name) if drawn else opened.find(name, options.data_root))
        if options.data_root is None:
            st.caption("Start the viewer with `--data-root FOLDER` to see the public sets here.")


def photograph_list(session: Session, look: Look | None) -> None:
    """Which of the open photographs is in view; elsewhere also the way to it."""
    if not session.photographs:
        return
    ids = list(session.photographs)
    st.session_state["photograph"] = session.current

    def chosen() -> None:
        session.current = st.session_state["photograph"]

    label = f"Photograph ({ids.index(session.current) + 1} of {len(ids)})"
    names = downloads.distinct([one.name for one in session.photographs.values()])  # a box tells them apart by name
    titles = dict(zip(ids, names, strict=True))
    st.selectbox(label, ids, format_func=titles.__getitem__, key="photograph", on_change=chosen)
    before, after = st.columns(2)
    step = {"‹ Previous": (before, -1), "Next ›": (after, 1)}
    for text, (column, by) in step.items():
        target = ids[(ids.index(session.current) + by) % len(ids)]
        column.button(text, width="stretch", disabled=len(ids) < 2, on_click=setattr, args=(session, "current", target))
    if session.photographs[session.current].source != "file":  # files are closed where they were dropped
        st.button("Close this photograph", on_click=session.close, args=(session.current,), width="stretch")
    if look:
        look("Look at it")


def pixel_size(session: Session) -> None:
    """Micrometres a pixel spans: of the photograph in view, and if the visitor says so of all that have its size."""
    photograph = session.photographs.get(session.current)
    if photograph is None:
        return
    try:
        height, width = session.load(photograph).image.shape[:2]
    except UserError:
        return
    key = f"pixel size {photograph.id}"
    st.session_state.setdefault(key, session.pixel_size(photograph))

    def changed() -> None:
        session.um_per_px.pop(photograph.id, None)
        session.um_of_size.pop((height, width), None)
        if st.session_state[key] is not None:
            session.um_per_px[photograph.id] = st.session_state[key]

    st.number_input(
        "Size of a pixel on the retina, µm",
        *(0.5, 100.0),
        placeholder="unknown",
        key=key,
        on_change=changed,
        help="With it lengths are given in micrometres too. It belongs to camera and picture size.",
    )
    if photograph.id in session.um_per_px:
        st.button(
            f"Use for all of {width} x {height} px",
            on_click=session.um_of_size.__setitem__,
            args=((height, width), session.um_per_px[photograph.id]),
            width="stretch",
        )


def truth_uploader(session: Session, targets: list[str]) -> None:
    """Masks drawn by hand for the photograph in view, one for each target; they stay with it until they are removed."""
    photograph = session.photographs.get(session.current)
    if photograph is None:
        return
    with st.expander("Compare with a truth"):
        target = targets[0]
        if len(targets) > 1:
            target = st.selectbox("What is marked", targets, format_func=lambda one: overlay.title(one).capitalize())
        drop_truth(session, photograph, target)
        if photograph.id in session.refused:
            st.error(plain(session.refused[photograph.id]))
        if photograph.id in session.truths:
            for note in session.truths[photograph.id].notes.values():
                st.warning(plain(note))
            st.caption(f"In use: {plain(', '.join(session.truths[photograph.id].files.values()))}")
            st.button("Remove the truth", on_click=session.forget_truths, args=(photograph.id,), width="stretch")


def drop_truth(session: Session, photograph: Photograph, target: str) -> None:
    """Where the mask of one target is dropped."""
    key = f"truth {photograph.id} {target}"

    @guarded
    def dropped() -> None:
        file = st.session_state[key]
        session.forget_truth(photograph.id, target)
        session.refused.pop(photograph.id, None)
        if file is None:
            return
        try:
            loaded = session.load(photograph)
            marked = opened.truth(file.name, file.getvalue(), loaded.image.shape[:2], target)
            marked, note = opened.right_way_round(marked, loaded, file.name, target)
        except UserError as error:
            session.refused[photograph.id] = str(error)
        else:
            notes = {target: note} if note else {}
            dropped_one = DroppedTruth(file.file_id, {target: file.name}, {target: marked}, notes)
            session.add_truth(photograph.id, dropped_one)

    forms = "two colours" + (", or arteries red and veins blue" if target == labels.VESSELS else "")
    st.file_uploader(
        f"{overlay.title(target).capitalize()} marked by hand: {forms}, the photograph's own size",
        key=key,
        max_upload_size=guard.MAX_UPLOAD_MB,
        on_change=dropped,
    )


# --- view


def view_page(session: Session, choices: Choices, look: Look) -> None:
    """One photograph with its result."""
    photograph = session.photographs.get(session.current)
    if photograph is None:
        welcome(session)
        return
    if all(session.has(photograph, model) for model in choices.models):
        scene = session.scene(photograph, choices.models, choices.titles)
    else:
        with st.spinner(f"Segmenting {plain(photograph.name)} on this computer", show_time=True):
            scene = session.scene(photograph, choices.models, choices.titles)
    result(session, photograph, choices, scene)


def welcome(session: Session) -> None:
    """What to do first."""
    st.title("Vessels of the retina in your photographs")
    st.markdown(
        "**Drop fundus photographs on the left** (PNG, TIFF, JPEG, PPM, GIF, BMP, WebP, NIfTI; one or many). "
        "Within seconds you see the vessels that were found, numbers about them, and a warning where the photograph "
        "or the result should not be trusted.\n\nNo photograph at hand? These are drawn by this program:"
    )
    for column, name in zip(st.columns(len(opened.DRAWN)), opened.DRAWN, strict=True):
        column.button(name, width="stretch", on_click=session.open, args=(opened.drawn(name),))
    st.info(f"{RESEARCH} {PRIVACY}")


@st.fragment
@guarded
def result(session: Session, photograph: Photograph, choices: Choices, scene: Scene) -> None:
    """Banner, picture and numbers; a fragment, so that a moved threshold or a zoom runs nothing else."""
    model = choices.models[0]
    prediction = session.chosen(photograph, model)
    um_per_px = session.pixel_size(photograph)
    top = st.empty()
    banner(top, prediction, [])
    letters = dict(zip("ab", choices.models, strict=False))
    thresholds = {
        f"{letter}:{target}": value
        for letter, name in letters.items()
        for target, value in session.thresholds.get((photograph.id, name), {}).items()
    }

    def moved(values: Mapping[str, float]) -> None:
        for layer, value in values.items():
            letter, _, target = layer.partition(":")
            if letter in letters:
                session.thresholds.setdefault((photograph.id, letters[letter]), {})[target] = value

    picture, side = st.columns([0.71, 0.29], gap="small")
    with picture:
        canvas.show(scene, thresholds=thresholds, um_per_px=um_per_px, on_thresholds=moved)
    with side, st.container(height=SIDE_HEIGHT, border=False):
        scored = score_numbers(session, photograph, model, prediction, scene)
        measured = session.measured(photograph, model)
        readable = numbers.readable(measured, um_per_px)
        take_away(session, photograph, choices, prediction, readable, scored)
        if scored and learnt_from(photograph, model):
            st.caption(":orange[The model learnt from this photograph: its scores say nothing about new ones.]")
        number_list(prediction, readable, scored)
        facts(prediction)
    banner(top, prediction, numbers.remarks(measured))


def learnt_from(photograph: Photograph, model: str) -> bool:
    """Whether the photograph is among the model's training images."""
    return photograph.id in (scoring.seen_images(zoo.card(model)) or ())


def banner(place: DeltaGenerator, prediction: Prediction, remarks: list[str]) -> None:
    """Why this result should not be trusted, in one box."""
    texts = [plain(text) for text in (*(doubt.text for doubt in prediction.doubts), *remarks)]
    if not texts:
        return
    box = place.error if numbers.withheld(prediction) else place.warning
    head = "Do not rely on this result" if numbers.withheld(prediction) else "Look twice"
    box(f"**{head}.** " + " ".join(texts), icon=":material/warning:")


def score_numbers(
    session: Session, photograph: Photograph, model: str, prediction: Prediction, scene: Scene
) -> list[Number]:
    """Scores against the truth of every target that has one."""
    found: list[Number] = []
    for target, truth in scene.truths.items():
        if target in prediction.targets:
            mask = prediction.mask[prediction.targets.index(target)]
            auc = session.auc(photograph, model, target, truth)
            several = target if len(prediction.targets) > 1 else ""
            note = session.note(photograph, target)
            found += numbers.scores(mask, truth, prediction.fov, auc, of=several, note=note)
    return found


def number_list(prediction: Prediction, readable: list[Number], scored: list[Number]) -> None:
    """Scores and biomarkers, one plain sentence under each."""
    if scored:
        st.markdown("###### Against the truth")
        number_lines(scored)
    st.markdown(f"###### Measured on the mask of {plain(prediction.provenance['model'])}")
    if numbers.withheld(prediction):
        st.markdown("Withheld: see the red box above.")
    number_lines(readable)


def number_lines(found: list[Number]) -> None:
    """Label and value, the sentence small below."""
    lines = (f"{one.label}: **{plain(one.value)}**  \n:small[:gray[{plain(one.sentence)}]]" for one in found)
    st.markdown("\n\n".join(lines))


def facts(prediction: Prediction) -> None:
    """How the result came about."""
    provenance = prediction.provenance
    st.caption(
        f"{provenance['width']} x {provenance['height']} px, field of view {provenance['field_of_view']['source']}, "
        f"{plain(provenance['model'])} in {provenance['seconds']:.1f} s on {provenance['device']}"
    )


def take_away(
    session: Session,
    photograph: Photograph,
    choices: Choices,
    prediction: Prediction,
    readable: list[Number],
    scored: list[Number],
) -> None:
    """Downloads of one result; nothing is made before it is asked for."""
    stem = downloads.stems(list(session.photographs.values()), names=choices.keep_names)[photograph.id]
    size, card = session.pixel_size(photograph), zoo.card(choices.models[0])
    page = functools.partial(downloads.pdf, prediction, stem, card=card, measured=readable, scored=scored)

    def everything() -> bytes:
        return downloads.zipped({**downloads.files(prediction, stem, um_per_px=size), f"{stem}.pdf": page()})

    with st.popover("Download", icon=":material/download:", width="stretch"):
        offer("One-page report (PDF)", page, f"{stem}.pdf", "application/pdf")
        for label, what in downloads.SINGLE.items():
            make = functools.partial(downloads.single, prediction, stem, what, um_per_px=size)
            offer(label, make, *downloads.name_of(prediction, stem, what))
        offer("Everything (ZIP)", everything, f"{stem}.zip", "application/zip")


def offer(label: str, make: Callable[[], bytes], name: str, mime: str) -> None:
    """A download button whose file is made when it is pressed."""

    def made() -> bytes:
        try:
            return make()
        except Exception as error:
            report(error)
            raise RuntimeError("the file could not be made") from None

    st.download_button(label, made, name, mime, on_click="ignore", width="stretch", key=f"download {label}")


# --- batch


def batch_page(session: Session, choices: Choices, look: Look) -> None:
    """All open photographs one after another."""
    st.title("All open photographs")
    photographs = list(session.photographs.values())
    if not photographs:
        st.info("Open photographs on the left first: many files at once, or a whole folder.")
        return
    model = choices.models[0]
    count = "1 photograph" if len(photographs) == 1 else f"{len(photographs)} photographs"
    waiting = [one for one in photographs if (one.id, model) not in session.batch]
    label = f"Segment {len(waiting)} of {count} with {plain(choices.titles[model])}"
    if st.button(label if waiting else f"Done: {count}", type="primary", disabled=not waiting):
        segment_all(session, waiting, model)
        st.rerun()
    records = [session.batch[one.id, model] for one in photographs if (one.id, model) in session.batch]
    if records:
        batch_table(session, choices, batches.flagged_first(records), look)


def segment_all(session: Session, waiting: list[Photograph], model: str) -> None:
    """Fill the batch; what is done stays done if the page is left meanwhile."""
    bar = st.progress(0.0)
    for done, photograph in enumerate(waiting):
        bar.progress(done / len(waiting), f"{done} of {len(waiting)} done, now {plain(photograph.name)}")
        predict = functools.partial(session.predict, photograph, model)
        session.batch[photograph.id, model] = batches.segment(photograph, model, predict)


def batch_table(session: Session, choices: Choices, records: list[batches.Record], look: Look) -> None:
    """Flagged first; filter, sort, open, download."""
    counts = {status: sum(record.status == status for record in records) for status in batches.STATUSES}
    left, right = st.columns([0.6, 0.4], vertical_alignment="bottom")
    options = [f"all ({len(records)})", *(f"{status} ({count})" for status, count in counts.items())]
    picked = left.segmented_control("Show", options, default=options[0], key="batch filter") or options[0]
    word = right.text_input("Name or remark contains", key="batch search").casefold()
    listed = [
        record
        for record in records
        if picked.startswith(("all", record.status)) and word in f"{record.name} {record.remarks}".casefold()
    ]
    stems = downloads.stems(list(session.photographs.values()), names=choices.keep_names)
    frame = pandas.DataFrame(batches.table(listed, stems, names=True)).convert_dtypes()
    selected = table(frame, f"batch table {picked} {word}", BATCH_COLUMNS)
    first, second = st.columns(2)
    if selected is None:
        first.caption("Select a row to open its photograph.")
    else:
        if newly_selected(listed[selected].id):
            session.current = listed[selected].id
        with first:
            look(f"Look at {plain(listed[selected].name)}")
    pack = functools.partial(batches.archive, records, stems, names=choices.keep_names)
    with second:
        offer(f"Download {len(records)} results (ZIP: masks and CSV)", pack, "results.zip", "application/zip")


def table(frame: pandas.DataFrame, key: str, columns: Mapping[str, Any]) -> int | None:
    """A table of which one row can be selected; returns its number."""
    event = st.dataframe(
        frame,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=key,
        width="stretch",
        column_config=columns,
        placeholder="–",
    )
    return next((row for row in event.selection.rows if row < len(frame)), None)


def newly_selected(key: str) -> bool:
    """Whether this is not the row that was selected at the last run; the sidebar may have moved on since."""
    before = st.session_state.get("selected row")
    st.session_state["selected row"] = key
    return before != key


# --- explain


def explain_page(session: Session, choices: Choices, look: Look) -> None:
    """What a model with a dictionary has learnt and what it does with the photograph in view."""
    st.title("What does the model see?")
    model, photograph = choices.models[0], session.photographs.get(session.current)
    if not engine.has_dictionary(model):
        able = [title for name, title in choices.titles.items() if engine.has_dictionary(name)]
        st.info(
            f"{plain(choices.titles[model])} has no dictionary that could be shown. "
            + (f"Choose {plain(' or '.join(able))} as the model on the left." if able else TRAIN_A_DICTIONARY)
        )
        return
    if photograph is None:
        st.info("Open a photograph on the left first.")
        return
    with st.spinner(f"Coding {plain(photograph.name)} with the atoms of the model", show_time=True):
        inside = session.inside(photograph, model)
    who_votes(photograph, model, inside)
    names = list(inside.figures)
    for name, tab in zip(names, st.tabs([explain_title(name) for name in names]), strict=True):
        with tab:
            st.caption(EXPLAINED[name.partition("-")[0]])
            st.image(inside.figures[name])


@st.fragment
@guarded
def who_votes(photograph: Photograph, model: str, inside: engine.Inside) -> None:
    """A pixel chosen in the photograph, and the atoms that speak for or against a vessel there."""
    left, right = st.columns([0.42, 0.58])
    with left:
        y, x = pointer.show(inside.picture, f"{photograph.id} {model}")
        st.caption(f"Click a pixel, or move it with the arrow keys. Chosen: row {y}, column {x}.")
    with right:
        drawn = engine.votes(model, inside.image, (y, x))
        if drawn is None:
            st.caption("The atoms of a dict_unet do not vote one by one: its U-Net reads all of them at once.")
            return
        st.markdown("##### Which atoms voted here?")
        st.image(drawn)
        st.caption(EXPLAINED["votes"])


def explain_title(name: str) -> str:
    """What a tab is called: "atoms-2" is "Atoms, 2 px"."""
    word, _, scale = name.partition("-")
    return f"{word.capitalize()}, {scale} px" if scale else word.capitalize()


# --- grade


def grade_page(session: Session, choices: Choices, look: Look) -> None:
    """What a classifier answers about the photograph in view, how sure it is, and what it looks at."""
    st.title("What grade would it get?")
    st.warning(NO_DIAGNOSIS)
    names = graders.names(choices.options.runs)
    photograph = session.photographs.get(session.current)
    if not names:
        st.info("There is no classifier of photographs: train one with `retina-seg classify train`.")
        return
    name = st.selectbox("Classifier", list(names), format_func=names.__getitem__, key="classifier")
    if photograph is None:
        st.info("Open a photograph on the left first.")
        return
    with st.spinner(f"Grading {plain(photograph.name)}", show_time=True):
        graded = session.graded(photograph, name)
    for text in graded.doubts:
        st.warning(plain(text))
    card = graders.card(name)
    if graded.answers:
        answered(graded, card)
    else:
        st.info("No grade is given for such a photograph.")
    with st.expander("What excites a unit"):
        exciting(session, name)
    with st.expander("How good it was on test photographs"):
        measured(name)
    if curves := graders.learning(name):
        with st.expander("How it learnt"):
            st.image(curves)
    with st.expander("What this classifier cannot do"):
        for text in (*card.limits, *(f"{data}: {terms}" for data, terms in card.terms.items())):
            st.markdown(f"- {plain(text)}")


def answered(graded: graders.Graded, card: ClassifierCard) -> None:
    """The answers with their probabilities, and what the classifier looks at."""
    for column, answer in zip(st.columns(len(graded.answers)), graded.answers, strict=True):
        with column:
            meanings = graders.MEANINGS.get(answer.question, {})
            st.metric(graders.TITLES.get(answer.question, answer.question), answer.answer)
            st.caption(meanings.get(answer.answer, ""))
            st.altair_chart(charts.probabilities(answer.probabilities, meanings), width="stretch")
    how = "calibrated on " + card.temperature_source if card.temperature_source else "not calibrated"
    worth = f"Probabilities are {plain(how)}{plain(graders.error_of(card))}."
    st.caption(f"{worth} Reference grades of the photograph are not shown to the classifier.")
    for title, tab in zip(graded.figures, st.tabs([looked_at(one) for one in graded.figures]), strict=True):
        with tab:
            st.caption(LOOKED_AT[title.partition("-")[0]])
            st.image(graded.figures[title])


def exciting(session: Session, name: str) -> None:
    """The patches of the opened photographs that excite a chosen unit of a classifier most."""
    opened_now = list(session.photographs.values())[:EXCITING]
    st.caption(
        "The patch of each opened photograph in which a unit of the last block answers most strongly, the strongest "
        f"first, of {EXCITING} photographs at most: what the unit has learnt to look for."
    )
    unit = int(st.number_input("Unit", min_value=0, step=1, key="unit"))
    if not st.button("Find the patches"):
        return
    try:
        with st.spinner(f"Looking through {len(opened_now)} photographs", show_time=True):
            picture, shown = graders.activating(name, [session.load(one) for one in opened_now], unit)
    except UserError as error:  # no such unit, or a photograph that cannot be read
        st.warning(plain(str(error)))
        return
    if not shown:
        st.info("Nothing in these photographs moves this unit: choose another one.")
        return
    st.image(picture)
    for number in shown:
        st.caption(f"image {number}: {plain(opened_now[number].name)}")


def measured(name: str) -> None:
    """Confusion, ROC and reliability of a classifier, of each question."""
    try:
        text, drawn = graders.measured(name)
    except UserError as error:  # of an earlier version, or damaged
        st.warning(plain(str(error)))
        return
    if not drawn:
        st.caption("There is no report: make one with `retina-seg classify evaluate`.")
        return
    st.caption(f"{plain(text)}. {MEASURED}")
    questions = list(dict.fromkeys(title.partition("-")[2] for title in drawn))
    for question, tab in zip(questions, st.tabs([graders.TITLES.get(one, one) for one in questions]), strict=True):
        with tab:
            for column, kind in zip(st.columns(3), ("confusion", "roc", "reliability"), strict=True):
                column.image(drawn[f"{kind}-{question}"])


def looked_at(name: str) -> str:
    """What a tab is called: "cam-dr_grade" is "Looked at: Diabetic retinopathy, grade"."""
    word, _, question = name.partition("-")
    return f"Looked at: {graders.TITLES.get(question, question)}" if question else word.capitalize()


# --- results


def results_page(session: Session, choices: Choices, look: Look) -> None:
    """Evaluation reports of the packaged models and the run folders."""
    st.title("How good are the models?")
    found: dict[str, Mapping[str, Any]] = {}
    first: list[str] = []  # of the first model that has any: all at once are too many curves
    for name, title in choices.titles.items():
        try:
            own = {f"{title}, {protocol}": report for protocol, report in zoo.reports(name).items()}
        except UserError as error:
            st.warning(plain(str(error)))
            continue
        found |= own
        first = first or list(own)
    if not found:
        st.info("No model has a report yet: run `retina-seg evaluate MODEL --protocol drive`.")
        return
    picked = st.multiselect("Model and protocol", list(found), default=first) or first
    reports = {name: found[name] for name in picked}
    st.caption(
        "Scores inside the field of view, against the reference annotation, at a threshold that no scored photograph "
        "chose. In the curves a dot is the model at that threshold and a cross the second human observer."
    )
    summary = pandas.DataFrame(charts.summary(reports))
    st.dataframe(summary, hide_index=True, width="stretch", column_config=SCORE_COLUMNS, placeholder="–")
    for name, report in reports.items():
        box = st.warning if report["leaked_images"] else st.caption
        for warning in report["warnings"]:
            box(f"{plain(name)}: {plain(warning)}")
        for line in scores.further_lines(report):
            st.caption(f"{plain(name)}: {plain(line)}")
    left, right = st.columns(2)
    left.markdown("##### ROC curve")
    left.altair_chart(charts.roc(reports), width="stretch")
    right.markdown("##### Precision and recall")
    right.altair_chart(charts.precision_recall(reports), width="stretch")
    metric = st.selectbox(
        "Score of each photograph",
        scores.METRICS,
        index=scores.METRICS.index("dice"),
        format_func=lambda name: charts.TITLES.get(name, name),
    )
    st.altair_chart(charts.distribution(reports, metric), width="stretch")
    worst_cases(session, choices, reports, metric, look)


def worst_cases(session: Session, choices: Choices, reports: charts.Reports, metric: str, look: Look) -> None:
    """The photographs of one report, worst first; a selected one opens in the viewer."""
    name = st.selectbox("Worst photographs of", list(reports))
    rows = scores.worst_first(reports[name], metric)
    columns = ("dataset", "id", *dict.fromkeys((metric, "dice", "auc", "sensitivity", "specificity", "cldice")))
    frame = pandas.DataFrame([{column: row[column] for column in columns} for row in rows])
    selected = table(frame, f"worst table {name} {metric}", SCORE_COLUMNS)
    if selected is None:
        st.caption("Select a row to open its photograph in the viewer, with the truth.")
        return
    row = rows[selected]
    key = f"{row['dataset']}:{row['id']}"
    photograph = opened.find(key, choices.options.data_root)
    if newly_selected(key):
        session.open(photograph)
    look(f"Look at {key}")


# --- about


def about_page(session: Session, choices: Choices, look: Look) -> None:
    """What the models are, what they cannot do, what happens to photographs."""
    st.title("About")
    st.markdown(f"retina_seg {__version__}. **{RESEARCH}** {PRIVACY}")
    for name, title in choices.titles.items():
        card = zoo.card(name)
        st.subheader(plain(title))
        st.markdown(
            f"{plain(card.description or 'A run of this computer.')}  \n"
            f"Finds: {plain(', '.join(map(overlay.title, card.targets)))}. Parameters: {card.parameters:,}. "
            f"Thresholds: {plain(', '.join(f'{t} {v:.3f}' for t, v in card.thresholds.items()))} "
            f"({plain(card.threshold_source)})."
        )
        if card.scores:
            st.markdown(f"Measured: {plain(card.headline())}.")
        for text in (*card.limits, *(f"{data}: {terms}" for data, terms in card.terms.items())):
            st.markdown(f"- {plain(text)}")


if __name__ == "__main__":
    guarded(main)()
