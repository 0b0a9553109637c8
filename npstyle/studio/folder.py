"""The studio's folder: pictures that were uploaded, and a folder for each picture that is painted.

    uploads/ID            the file as it was sent; ID is from its contents
    uploads/ID.json       its name, width and height
    uploads/ID.jpg        a small copy
    pictures/ID/          of one painting: see the constants below

What the browser sends never becomes a part of a path: names are kept inside of files, and IDs are looked up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from npstyle import images
from npstyle._runtime.atomic import TEMPORARY, open_replacing
from npstyle._runtime.locks import lock
from npstyle.errors import UserError
from npstyle.run.inputs import MIN_MASK_CONTRAST
from npstyle.studio.estimates import Estimate
from npstyle.studio.inputs import FILES as INPUTS
from npstyle.studio.inputs import MASKS, MORE, InputFile, Inputs
from npstyle.studio.orders import Order

MAX_UPLOAD = 64 * 2**20  # bytes of a picture file
MAX_PIXELS = 64 * 10**6  # of a picture
MAX_UPLOADS = 100  # kept; those that were used last, as every painting has copies of its own
MAX_QUEUE = 50
THUMBNAIL = 1024  # pixels; masks are painted over it, too

# In the folder of a painting.
JOB = "job.json"  # what was asked for, and what became of it: written by the server alone
# INPUTS: the pictures and masks as they were sent
CHECKPOINT = "checkpoint.npz"
BEFORE, PREVIEW = "before.jpg", "preview.jpg"  # the photograph at the result's size, and the picture so far
LOSSES = "losses.jsonl"  # a line for each iteration
RESULT = "result.json"  # how the run ended; written last, when the picture is there
PICTURE, PICTURE_16_BITS = "picture.png", "picture.tiff"
LOCK, ERRORS = "lock", "errors.txt"  # held by the process that paints; what it printed
FILES = (
    JOB,
    *INPUTS,
    CHECKPOINT,
    BEFORE,
    PREVIEW,
    LOSSES,
    RESULT,
    PICTURE,
    PICTURE_16_BITS,
    LOCK,
    ERRORS,
)

JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}", re.ASCII)
UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

QUEUED, PAINTING, PAUSED, DONE, FAILED = "queued", "painting", "paused", "done", "failed"
STATUSES = (QUEUED, PAINTING, PAUSED, DONE, FAILED)


@dataclass(frozen=True)
class Upload:
    """A picture that was uploaded."""

    id: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """One painting.

    Attributes
    ----------
    id : str
    content : str
        The name of the photograph's file.
    styles : tuple of str
        Those of the paintings'.
    options : dict
        Of its `Order`.
    status : str
        One of STATUSES.
    width, height : int
        Of the result.
    work : float
        `Estimate.work`; 0 where the pictures that it was made of are not known any more.
    facts : dict
        How it ended, once it has: RESULT.
    error : str
        Why it failed.
    command : str
        The command that paints the same.
    more : dict of str to str
        The names of masks, and of the picture it starts from, by those of their files here.
    place : int
        In the queue: the lowest is painted next, and of several the oldest.
    origin : str
        The ID of the painting whose picture it starts from.
    then : dict
        The options of the painting that is to start from this one's picture, as soon as it has ended.
    """

    id: str
    content: str
    styles: tuple[str, ...]
    options: dict[str, Any]
    status: str = QUEUED
    width: int = 4
    height: int = 3
    work: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    command: str = ""
    more: dict[str, str] = field(default_factory=dict)
    place: int = 0
    origin: str = ""
    then: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, id: str, text: bytes) -> Job:
        """What JOB says; ValueError if it is damaged."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("found no object")
        try:
            job = cls(**{**values, "id": id, "styles": tuple(values["styles"])})
            Order.read(job.options)
            Order.read(job.then)
            known = set(job.more) <= set(MORE)  # they become paths
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error
        texts = (job.content, *job.styles, job.error, job.command, job.origin, *job.more.values())
        valid = job.status in STATUSES and job.styles and known and isinstance(job.place, int)
        if not valid or not all(isinstance(text, str) for text in texts):
            raise ValueError("found other types")
        return job

    @property
    def order(self) -> Order:
        return Order(self.options)

    @property
    def output_name(self) -> str:
        """What the picture is called when downloaded, without an extension: letters, digits, - and _."""
        return f"{_stem(self.content)}-{_stem(self.styles[0])}"

    @property
    def names(self) -> Inputs[str]:
        """The names of all pictures and masks."""
        styles = {f"style-{n}": name for n, name in enumerate(self.styles, 1)}
        return Inputs.of({"content": self.content, **styles, **self.more})

    def ended(self, facts: dict[str, Any]) -> Job:
        """The painting with its picture."""
        return replace(self, status=DONE, facts=facts, command=str(facts.get("command") or self.command))


class Folder:
    """The studio's folder; one server at a time has it.

    Raises
    ------
    UserError
        It can't be made or written to, or another server has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uploads, self.pictures = path / "uploads", path / "pictures"
        name = f"--folder: {path}"
        try:
            for each in (self.uploads, self.pictures):
                each.mkdir(parents=True, exist_ok=True)
            self._lock = (path / LOCK).open("ab")
        except OSError as error:
            found = f"{error.strerror} on writing there"
            raise UserError(name, found, "a folder that can be written to", "choose another") from error
        if not lock(self._lock.fileno()):
            self._lock.close()
            found, cure = "another studio at work in it", "use its page, or choose another folder"
            raise UserError(name, found, "one at a time", cure)

    def close(self) -> None:
        """Let another server have it."""
        self._lock.close()

    # --------------------------------------------------------------------------------------------
    # Uploads
    # --------------------------------------------------------------------------------------------

    def add_upload(self, name: str, data: bytes) -> Upload:
        """Keep a picture that was sent, after a look at it by the reader of all pictures.

        Raises
        ------
        UserError
            It is none, is damaged, or has too many pixels.
        """
        name = clean_name(name)
        file = images.FileContents(name, data)
        width, height = images.read_size(file)
        if width * height > MAX_PIXELS:
            found, expected = f"{width} x {height} pixels", f"at most {MAX_PIXELS // 10**6} million"
            raise UserError(f"picture: {name}", found, expected, "make it smaller first")
        thumbnail = images.encode("x.jpg", images.fit(images.read(file), THUMBNAIL))
        upload = Upload(hashlib.sha256(data).hexdigest()[:32], name, width, height)
        path = self.uploads / upload.id
        write_file(path, data)
        write_file(path.with_suffix(".jpg"), thumbnail)
        write_file(path.with_suffix(".json"), json.dumps(asdict(upload)).encode())
        self._remove_old_uploads()
        return upload

    def upload(self, id: Any, what: str) -> Upload:
        """The picture of an ID.

        Raises
        ------
        UserError
            About `what`: there is none.
        """
        try:
            if not isinstance(id, str) or not UPLOAD_ID.fullmatch(id):
                raise ValueError
            path = self.uploads / f"{id}.json"
            upload = Upload(**json.loads(path.read_bytes()))
            os.utime(path)  # in use: others are removed first
            return upload
        except (OSError, ValueError, TypeError):
            raise UserError(what, "no picture", "one that was uploaded", "choose it again") from None

    def uploaded(self, upload: Upload) -> InputFile:
        """The file of an upload."""
        return InputFile(upload.name, self.uploads / upload.id, upload.width, upload.height)

    def thumbnail(self, id: str) -> Path:
        """The path of an upload's small copy."""
        return self.uploads / f"{self.upload(id, 'picture').id}.jpg"

    def _remove_old_uploads(self) -> None:
        known = [path for path in self.uploads.glob("*.json") if UPLOAD_ID.fullmatch(path.stem)]
        for path in sorted(known, key=lambda path: path.stat().st_mtime)[:-MAX_UPLOADS]:
            for each in (path, path.with_suffix(".jpg"), path.with_suffix("")):
                each.unlink(missing_ok=True)

    # --------------------------------------------------------------------------------------------
    # Paintings
    # --------------------------------------------------------------------------------------------

    def new_job(
        self, inputs: Inputs[InputFile], estimated: Estimate, weights: str, place: int = 0, origin: str = ""
    ) -> Job:
        """Keep what is to be painted, with copies of its pictures; JOB is written last."""
        id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        folder = self.pictures / id
        order = estimated.order
        names = _named(inputs)
        job = Job(
            id,
            names.content,
            names.styles,
            order.options,
            width=estimated.width,
            height=estimated.height,
            work=estimated.work,
            command=order.command(names, order.options.get("weights", weights)),
            more={file: name for file, name in names.items() if file in MORE},
            place=place,
            origin=origin,
        )
        folder.mkdir()
        for name, file in inputs.items():
            write_file(folder / name, file.path.read_bytes())
        self.save(job)
        return job

    def save(self, job: Job) -> None:
        """Write JOB."""
        values = {name: value for name, value in asdict(job).items() if name != "id"}
        write_file(self.pictures / job.id / JOB, json.dumps(values).encode())

    def jobs(self) -> dict[str, Job]:
        """All paintings by ID, the oldest first; those whose JOB is lost from what their picture says."""
        found = {}
        for folder in sorted(self.pictures.iterdir()):
            if JOB_ID.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                job = self._read_job(folder)
                if job is not None:
                    found[job.id] = job
        return found

    def _read_job(self, folder: Path) -> Job | None:
        try:
            job = Job.parse(folder.name, (folder / JOB).read_bytes())
        except (OSError, ValueError):
            return _from_picture(folder)
        facts = read_json(folder / RESULT)
        if job.status == PAINTING:  # the server ended meanwhile
            job = replace(job, status=QUEUED)
        return job.ended(facts) if facts and job.status != FAILED else job

    def inputs(self, job: Job) -> Inputs[InputFile]:
        """The pictures and masks of a painting.

        Raises
        ------
        UserError
            They are not there any more.
        """
        folder = self.pictures / job.id

        def file(name: str, shown: str) -> InputFile:
            return InputFile(shown, folder / name, *images.read_size(folder / name))

        try:
            return Inputs.of({name: file(name, shown) for name, shown in job.names.items()})
        except UserError:
            found = "one without what it was painted from"
            raise UserError("picture", found, "copies of that", "choose it anew") from None

    def result(self, job: Job) -> InputFile:
        """The picture of a painting, to start another one from."""
        path = self.pictures / job.id / PICTURE_16_BITS
        return InputFile(f"{job.output_name}.tiff", path, *images.read_size(path))

    def remove(self, job: Job) -> None:
        """Remove a painting's files: those that are npstyle's, and the folder if nothing else is in it."""
        folder = self.pictures / job.id
        for path in [*(folder / name for name in FILES), *folder.glob(TEMPORARY)]:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            folder.rmdir()


def _from_picture(folder: Path) -> Job | None:
    """What the picture in a painting's folder says of itself; None without one."""
    path = folder / PICTURE
    try:
        text = images.read_text(path)
        width, height = images.read_size(path)
        command = images.metadata.command_line(text)
    except UserError:
        return None
    if not text:
        return None
    names = text.get("content", "picture"), (text.get("style", "picture"),)
    facts = {"width": width, "height": height, "message": text.get("note", "")}
    job = Job(folder.name, *names, options={}, status=DONE, facts=facts, command=command)
    return replace(job, width=width, height=height)


def check_regions(inputs: Inputs[InputFile]) -> None:
    """Raise UserError where nothing was painted in a mask; the sizes are known to be right."""
    for name, file in inputs.items():
        if name in MASKS and images.read_mask(file.path).max() < MIN_MASK_CONTRAST:
            found, expected = f"nothing painted in {name}", "something white in it"
            raise UserError("masks", found, expected, "paint it, or leave it out")


def _named(inputs: Inputs[InputFile]) -> Inputs[str]:
    """What the inputs are called; masks after their pictures, for those who copy the command."""
    names = dict(inputs.map(lambda file: file.name).items())
    several = len(inputs.styles) > 1
    for name in names:
        if name in MASKS:
            number = int(name.rpartition("-")[2]) - 1 if name.startswith("style") and several else 0
            owner = inputs.styles[number] if name.startswith("style") else inputs.content
            names[name] = f"{_stem(owner.name)}-{name}.png"
    return Inputs.of(names)


def _stem(name: str) -> str:
    """The name of a file without its extension: ASCII letters, digits, - and _."""
    return re.sub(r"[^\w-]+", "_", Path(name).stem, flags=re.ASCII).strip("_")[:60] or "picture"


def clean_name(name: str) -> str:
    """A file name as it is shown: its last part, printable, not too long.

    Examples
    --------
    >>> clean_name("../../etc/pass\\nwd"), clean_name("")
    ('pass\\\\nwd', 'picture')
    """
    return images.printable(re.split(r"[/\\]", name)[-1])[:200] or "picture"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_file(path: Path, data: bytes) -> None:
    """Write a file completely or not at all.

    Raises
    ------
    UserError
        The disk is full, for example.
    """
    try:
        with open_replacing(path) as file:
            file.write(data)
    except OSError as error:
        found = f"{error.strerror} on writing"
        raise UserError(f"folder: {path.parent}", found, "room to write to", "free some") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """`write_file` of an object."""
    write_file(path, json.dumps(values, default=str).encode())


def default_folder() -> Path:
    """The operating system's place for a user's data."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif os.uname().sysname == "Darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(base) / "npstyle" / "studio"
